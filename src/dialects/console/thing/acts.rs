//! What can be done with a thing: ban it, delete it, take all about it along as a file.

use maud::{Markup, html};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{of, see};
use crate::dialects::console::Answer;
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::{self, Screen, csrf, input, select};
use crate::dialects::console::respond::{self, Refused};
use crate::dialects::console::sessions::as_time;
use crate::dialects::console::things::path_of;

/// How long a ban may be, in hours.
const BANS: [(&str, &str); 5] = [
    ("", "until it is lifted"),
    ("1", "an hour"),
    ("24", "a day"),
    ("168", "a week"),
    ("720", "30 days"),
];

/// What there is to do, as far as one may.
pub(super) fn buttons(asked: &InOrg<'_>, key: &str, is_banned: bool) -> Markup {
    let to = |rest: &str| path_of(asked, key, rest);
    html! {
        div class="buttons" {
            @if super::edit::may(asked) { a class="button" href=(to("edit")) { "Change…" } }
            @if asked.may("method.exec") { a class="button" href=(to("run")) { "Run a method…" } }
            @if asked.may("thing.update") {
                @if is_banned {
                    form method="post" action=(to("unban")) {
                        (csrf(asked))
                        button type="submit" { "Lift the ban" }
                    }
                } @else {
                    a class="button" href=(to("ban")) data-dialog { "Ban…" }
                }
            }
            @if asked.may("thing.trace") { a class="button" href=(to("trace")) { "Trace" } }
            @if asked.may("thing.dump") { a class="button" href=(to("dump")) { "Dump as a file" } }
            @if asked.may("thing.delete") {
                a class="button" href=(to("delete")) data-dialog { "Delete…" }
            }
        }
    }
}

/// A page that says what will happen.
fn confirmation(asked: &InOrg<'_>, key: &str, title: &Markup, form: &Markup) -> Answer {
    let body = html! { h1 { (title) } (form) };
    Ok(layout::page(asked, Screen::Things, key, &body))
}

/// The buttons of a confirmation.
pub(super) fn confirm(asked: &InOrg<'_>, key: &str, text: &str) -> Markup {
    html! {
        p class="buttons" {
            button type="submit" class="danger" { (text) }
            a class="button" href=(path_of(asked, key, "")) data-close { "Leave it" }
        }
    }
}

/// Refuses a page whose command nobody here may send.
pub(super) fn need(asked: &InOrg<'_>, permission: &str) -> Result<(), Refused> {
    if asked.may(permission) { Ok(()) } else { Err(Refused::NotFound) }
}

pub(super) fn ban_form(asked: &InOrg<'_>, key: &str) -> Answer {
    need(asked, "thing.update")?;
    confirmation(
        asked,
        key,
        &html! { "Ban " bdi { (key) } "?" },
        &html! {
            p {
                "Its connections close and its logins are refused. What it has stays, and what is sent to \
                 it waits."
            }
            form method="post" action=(path_of(asked, key, "ban")) class="stack" {
                (csrf(asked))
                (input("reason", "Why, for people", None, ""))
                (select("hours", "For how long", None, &BANS))
                label { "Or until, UTC" input type="datetime-local" name="until"; }
                (confirm(asked, key, "Ban it"))
            }
        },
    )
}

pub(super) async fn ban(asked: &InOrg<'_>, key: &str) -> Answer {
    let until = match (asked.form.get("until"), asked.form.number("hours")) {
        (Some(until), _) => Some(as_time(until)),
        (None, Some(hours)) => Some(asked.now.plus_seconds(hours.saturating_mul(3600)).to_string()),
        (None, None) => None,
    };
    let mut params = of(key).with("disabled", true);
    params.set_some("reason", asked.form.get("reason"));
    params.set_some("disabledUntil", until);
    asked.ask::<IgnoredAny>("thing.update", &params).await?;
    see(asked, key, "")
}

pub(super) async fn unban(asked: &InOrg<'_>, key: &str) -> Answer {
    let params = of(key).with("disabled", false);
    asked.ask::<IgnoredAny>("thing.update", &params).await?;
    see(asked, key, "")
}

pub(super) fn delete_form(asked: &InOrg<'_>, key: &str) -> Answer {
    need(asked, "thing.delete")?;
    confirmation(
        asked,
        key,
        &html! { "Delete " bdi { (key) } "?" },
        &html! {
            p {
                "All that belongs to it goes: values, alarms, mails, files, its log. Its connections \
                 close. A device may come back at once and begin anew: to keep it out, ban it before. \
                 Then its key and the ban stay."
            }
            form method="post" action=(path_of(asked, key, "delete")) {
                (csrf(asked))
                (confirm(asked, key, "Delete it with all it has"))
            }
        },
    )
}

pub(super) async fn delete(asked: &InOrg<'_>, key: &str) -> Answer {
    asked.ask::<IgnoredAny>("thing.delete", &of(key)).await?;
    Ok(respond::see(&asked.to("things")))
}

/// All about it, as a file.
pub(super) async fn dump(asked: &InOrg<'_>, key: &str) -> Answer {
    let dump: Value = asked.ask("thing.dump", &Params::default().with("key", key)).await?;
    let text = serde_json::to_vec_pretty(&dump).unwrap_or_default();
    Ok(respond::download(&format!("{key}.json"), "application/json", text))
}
