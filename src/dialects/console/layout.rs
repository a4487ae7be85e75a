//! What all pages have: the frame, and the pieces that several are made of.

use std::sync::LazyLock;

use base::Timestamp;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use hyper::Response;
use maud::{DOCTYPE, Markup, html};
use sha2::{Digest, Sha256};

use super::asked::{Asked, InOrg};
use super::respond;

/// The style sheet.
pub(super) const STYLE: &str = include_str!("console.css");

/// The script.
pub(super) const SCRIPT: &str = include_str!("console.js");

/// The screens of the bar at the top.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Screen {
    Overview,
    Sessions,
    Things,
    Events,
    Access,
    /// One of those that are in no organisation.
    Own,
}

/// Screens of an organisation: where they are, their names, the permissions of which each needs one.
const SCREENS: [(Screen, &str, &str, &[&str]); 5] = [
    (Screen::Overview, "", "Overview", &["session.list"]),
    (Screen::Sessions, "sessions", "Sessions", &["session.list"]),
    (Screen::Things, "things", "Things", &["thing.list"]),
    (Screen::Events, "events", "Events", &["event.list"]),
    (Screen::Access, "access", "Access", &["user.list", "role.list", "app.list", "audit.list"]),
];

/// The first screen of an organisation that shows something to who asks: the list of sessions, if
/// that is one; else what is one's own.
pub(super) fn first(asked: &InOrg<'_>) -> String {
    let may_see = |permissions: &[&str]| permissions.iter().any(|one| asked.may(one));
    let lists = SCREENS.iter().filter(|(own, ..)| *own != Screen::Overview);
    let found = lists.into_iter().find(|(.., permissions)| may_see(permissions));
    found.map_or_else(|| "/me".to_owned(), |(_, path, ..)| asked.to(path))
}

/// The digest of the style sheet or the script, for its address.
pub(super) fn digest(text: &'static str) -> &'static str {
    static DIGESTS: LazyLock<[String; 2]> = LazyLock::new(|| {
        [STYLE, SCRIPT].map(|text| HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..8]))
    });
    if text == STYLE { &DIGESTS[0] } else { &DIGESTS[1] }
}

/// A page of an organisation.
pub(super) fn page(
    asked: &InOrg<'_>,
    screen: Screen,
    title: &str,
    body: &Markup,
) -> Response<Bytes> {
    if asked.wants_piece() {
        return respond::page(html! { (body) });
    }
    respond::page(framed(asked, screen, title, body))
}

/// The same with a secret on it.
pub(super) fn page_with_secret(
    asked: &InOrg<'_>,
    screen: Screen,
    title: &str,
    body: &Markup,
) -> Response<Bytes> {
    respond::page_with_secret(framed(asked, screen, title, body))
}

fn framed(asked: &InOrg<'_>, screen: Screen, title: &str, body: &Markup) -> Markup {
    let title = format!("{title} · {} · tr50d", asked.org.name);
    let name = asked.asker.session().who().name();
    let bar = html! {
        a class="skip" href="#main" { "To the content" }
        header class="bar" {
            a class="brand" href="/" { "tr50d" }
            a class="org" href=(format!("/o?from={}", asked.org.slug))
                title="Other organisations" data-dialog { bdi { (asked.org.name) } span aria-hidden="true" { " ▾" } }
            nav aria-label="Screens" {
                @for (own, path, name, permissions) in SCREENS {
                    @if permissions.iter().any(|permission| asked.may(permission)) {
                        a href=(asked.to(path)) aria-current=[(own == screen).then_some("page")] {
                            (name)
                        }
                    }
                }
            }
            form class="search" role="search" action="/search" {
                input type="search" name="q" placeholder="Search  /" aria-label="Search everywhere"
                    value=[asked.query.get("q")];
            }
            details class="me" {
                summary { bdi { (name) } }
                div {
                    a href="/me" { "My sessions" }
                    a href="/docs" { "Commands" }
                    form method="post" action="/logout" {
                        (csrf(asked))
                        button type="submit" { "Log out" }
                    }
                }
            }
        }
    };
    whole(asked.now, &title, &html! { (bar) main id="main" tabindex="-1" { (body) } })
}

/// A page of nobody in particular.
pub(super) fn plain(asked: &Asked, title: &str, body: &Markup) -> Markup {
    if asked.wants_piece() {
        return html! { (body) };
    }
    bare(asked.now, title, body)
}

/// The same, whoever asks for it.
pub(super) fn bare(now: Timestamp, title: &str, body: &Markup) -> Markup {
    whole(now, &format!("{title} · tr50d"), &html! { main id="main" class="plain" { (body) } })
}

fn whole(now: Timestamp, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(format!("/console.css?v={}", digest(STYLE)));
                script type="module" src=(format!("/console.js?v={}", digest(SCRIPT))) {}
            }
            body data-now=(now) { (body) }
        }
    }
}

/// The token that a form of a change has to show.
pub(super) fn csrf(asked: &Asked) -> Markup {
    html! { input type="hidden" name="csrf" value=(asked.csrf()); }
}

/// Where a live list that holds still says how many rows are new, and shows them when one wants to.
pub(super) fn fresh() -> Markup {
    html! {
        p role="status" aria-live="polite" {
            button type="button" class="fresh" data-fresh hidden {}
        }
    }
}

/// What stands in place of a list that has nothing: what there is to do.
pub(super) fn empty(title: &str, advice: &Markup) -> Markup {
    html! { div class="empty" { p class="title" { (title) } p { (advice) } } }
}

/// Names and values of one thing; those without a value are left out.
pub(super) fn facts(facts: &[(&str, Option<Markup>)]) -> Markup {
    html! {
        dl class="facts" {
            @for (name, value) in facts {
                @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// A short word in a frame; `kind`: good, bad, warn or none, which gives its colour beside the word.
pub(super) fn badge(kind: &str, text: &str) -> Markup {
    html! { span class=(format!("badge {kind}")) { (text) } }
}

/// A choice among values; the first is the one without a value.
pub(super) fn select(
    name: &str,
    label: &str,
    chosen: Option<&str>,
    options: &[(&str, &str)],
) -> Markup {
    html! {
        label {
            (label)
            select name=(name) {
                @for (value, text) in options {
                    option value=(value) selected[chosen.unwrap_or_default() == *value] { (text) }
                }
            }
        }
    }
}

/// A field for text.
pub(super) fn input(name: &str, label: &str, value: Option<&str>, hint: &str) -> Markup {
    html! {
        label {
            (label)
            input name=(name) value=[value] placeholder=(hint);
        }
    }
}

/// A word as it begins a line.
pub(super) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// A number with its thousands apart.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
