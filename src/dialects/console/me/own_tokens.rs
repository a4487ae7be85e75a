//! One's own API tokens.

use maud::{Markup, html};
use rules::identity::EVERYONE;

use super::super::Answer;
use super::super::asked::InOrg;
use super::super::change::back;
use super::super::form::Params;
use super::super::layout::{self, Screen};
use super::super::perms::{self, Families};
use super::super::respond::Refused;
use super::super::tokens::Holder;
use super::is_user;

/// The caller as one who has tokens.
pub(super) fn holder() -> Holder {
    Holder {
        screen: Screen::Own,
        commands: [
            "user.token.list",
            "user.token.create",
            "user.token.update",
            "user.token.delete",
        ],
        which: Params::default(),
        page: "/me".into(),
        path: "/me/tokens".into(),
    }
}

/// The part of the page.
pub(super) async fn section(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    if !is_user(asked) || !asked.may("user.token.list") {
        return Ok(html! {});
    }
    let holder = holder();
    let tokens = holder.list(asked).await?;
    Ok(html! {
        h2 { "API tokens" }
        @if tokens.is_empty() {
            (layout::empty("No tokens", &html! {
                "A program that logs in as you has one in place of your password. Each can be \
                 ended alone."
            }))
        } @else { (holder.table(asked, &tokens)) }
        @if holder.may_create(asked) {
            details class="part" { summary { "Make a token" } (form(asked)) }
        }
    })
}

fn form(asked: &InOrg<'_>) -> Markup {
    let held: Vec<String> = asked.form.all("perms").map(str::to_owned).collect();
    let is_narrow = asked.form.get("narrow").is_some();
    let choice = own_permissions(asked);
    if choice.is_empty() {
        return holder().form(asked, &html! {});
    }
    holder().form(
        asked,
        &html! {
            fieldset class="choices" {
                legend { "What it gives" }
                label class="check" {
                    input type="radio" name="narrow" value="" checked[!is_narrow];
                    span { "All that I may do, but for tokens and the second factor" }
                }
                label class="check" {
                    input type="radio" name="narrow" value="1" checked[is_narrow];
                    span { "No more than what is chosen here:" }
                }
                (perms::choice(&choice, &held))
            }
        },
    )
}

/// What there is to choose from: what the caller may do and not everybody may.
fn own_permissions(asked: &InOrg<'_>) -> Families {
    let names = asked.asker.placed().access().permissions.names();
    let names: Vec<&str> = names.filter(|name| !EVERYONE.contains(name)).collect();
    // The names of families are permissions, too.
    let mut families = perms::families(names);
    families.retain(|_, members| !members.is_empty());
    families
}

/// Makes one.
pub(super) async fn create(asked: &InOrg<'_>) -> Answer {
    let perms: Vec<&str> = asked.form.all("perms").collect();
    let mut params = Params::default();
    params.set_some("perms", asked.form.get("narrow").map(|_| perms));
    let retry = html! { (form(asked)) (back("/me")) };
    holder().create(asked, params, &retry).await
}
