//! Changes: the pages before and after them.

use base::{Code, Failure};
use bytes::Bytes;
use hyper::{Response, StatusCode};
use maud::{Markup, html};

use super::Answer;
use super::asked::InOrg;
use super::form::Fields;
use super::layout::{self, Screen, csrf};
use super::respond::see;

/// Back to a page after a change, which says so: `done` is one of the words that it knows.
pub(super) fn saved(back: &str, done: &str) -> Response<Bytes> {
    let joint = if back.contains('?') { '&' } else { '?' };
    see(&format!("{back}{joint}done={done}"))
}

/// What a page says of the change that led to it; `words`: the values of `done` that it knows.
pub(super) fn done(query: &Fields, words: &[(&str, &str)]) -> Markup {
    let said = query.get("done").and_then(|done| words.iter().find(|(word, _)| *word == done));
    html! { @if let Some((_, text)) = said { p class="notice good" role="status" { (text) } } }
}

/// Why a change was not made, and what there is to do: mostly the form again.
pub(super) fn refused(
    asked: &InOrg<'_>,
    screen: Screen,
    failure: Failure,
    retry: &Markup,
) -> Answer {
    if failure.code == Code::SESSION_INVALID {
        return Err(failure.into());
    }
    let status = StatusCode::from_u16(failure.code.http_status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok(unchanged(asked, screen, status, &failure.message, retry))
}

/// The same for what the page itself finds wrong.
pub(super) fn unchanged(
    asked: &InOrg<'_>,
    screen: Screen,
    status: StatusCode,
    why: &str,
    retry: &Markup,
) -> Response<Bytes> {
    let title = "Nothing was changed";
    let body = html! {
        h1 { (title) }
        p class="notice bad" role="alert" { bdi { (why) } }
        (retry)
    };
    let mut response = layout::page(asked, screen, title, &body);
    *response.status_mut() = status;
    response
}

/// The way back.
pub(super) fn back(to: &str) -> Markup {
    html! { p { a class="button" href=(to) data-close { "Back" } } }
}

/// A form of a change that has to be confirmed. `fields`: what it names, `text`: what will be done.
pub(super) fn confirm(
    asked: &InOrg<'_>,
    action: &str,
    fields: &Markup,
    text: &str,
    leave: &str,
) -> Markup {
    html! {
        form class="stack" method="post" action=(action) {
            (csrf(asked))
            (fields)
            p class="buttons" {
                button type="submit" class="danger" { (text) }
                a class="button" href=(leave) data-close { "Leave it" }
            }
        }
    }
}

/// A field that people don't see.
pub(super) fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

/// A box with a word beside it.
pub(super) fn check(name: &str, value: &str, text: &Markup, is_checked: bool) -> Markup {
    html! {
        label class="check" {
            input type="checkbox" name=(name) value=(value) checked[is_checked];
            span { (text) }
        }
    }
}
