//! Who may do what in an organisation: users, invitations, roles, applications with their tokens,
//! and the trail of changes. Each part is there for who may list it.

use hyper::Method;
use maud::{Markup, html};

use super::Answer;
use super::asked::{InOrg, decoded};
use super::layout::{self, Screen};
use super::respond::{Refused, see};
use super::sessions::Listed;
use super::time::clock;
use super::window::{Column, PAGE, Row, Window};

mod apps;
mod audit;
mod invites;
mod roles;
mod user;
mod users;

/// The parts: where each is, its name, and the permission that it needs.
const TABS: [(&str, &str, &str); 5] = [
    ("users", "Users", "user.list"),
    ("invites", "Invitations", "user.list"),
    ("roles", "Roles", "role.list"),
    ("apps", "Applications", "app.list"),
    ("trail", "Trail", "audit.list"),
];

/// The pages below `/o/<slug>/access`.
pub(super) async fn routed(asked: &InOrg<'_>, path: &[&str]) -> Answer {
    let first = TABS.iter().find(|(_, _, permission)| asked.may(permission));
    let (&Method::GET | &Method::POST, Some((first, _, _))) = (&asked.method, first) else {
        return Err(Refused::NotFound);
    };
    match path {
        [] | [""] => Ok(see(&at(asked, first))),
        ["users", rest @ ..] => users_routed(asked, rest).await,
        ["invites", rest @ ..] => invites::routed(asked, rest).await,
        ["roles", rest @ ..] => roles::routed(asked, rest).await,
        ["apps", rest @ ..] => apps::routed(asked, rest).await,
        ["trail"] if asked.method == Method::GET => audit::page(asked).await,
        _ => Err(Refused::NotFound),
    }
}

async fn users_routed(asked: &InOrg<'_>, path: &[&str]) -> Answer {
    match (&asked.method, path) {
        (&Method::GET, []) => users::page(asked).await,
        (_, [id, rest @ ..]) => user::routed(asked, &decoded(id), rest).await,
        _ => Err(Refused::NotFound),
    }
}

/// A path below the screen.
fn at(asked: &InOrg<'_>, rest: &str) -> String {
    asked.to(&format!("access/{rest}"))
}

/// Whether who asks administers the organisation, which changes of others' records need.
fn administers(asked: &InOrg<'_>) -> bool {
    asked.asker.placed().access().administers_here()
}

/// A text among facts; none if it is empty.
fn text(text: &str) -> Option<Markup> {
    (!text.is_empty()).then(|| html! { bdi { (text) } })
}

/// When something was done, and by whom.
fn by(asked: &InOrg<'_>, at: &str, who: &str) -> Option<Markup> {
    Some(html! { (clock(at, asked.now)) " by " bdi { (who) } })
}

/// The page of a list that a command gave. `words`: its caption, one and many of what is listed, its
/// columns.
fn window<T>(
    listed: Listed<T>,
    words: (&'static str, [&'static str; 2], &'static [Column]),
    (offset, sort): (u64, String),
    row: impl FnMut(T) -> Row,
) -> Window {
    let (caption, nouns, columns) = words;
    Window {
        caption,
        nouns,
        columns: columns.into(),
        has_choice: false,
        total: listed.count.unwrap_or_default(),
        is_at_least: false,
        rows: listed.result.into_iter().map(row).collect(),
        offset,
        limit: PAGE,
        sort,
    }
}

/// A page of the screen, below its tabs.
fn show(asked: &InOrg<'_>, tab: &str, title: &str, body: &Markup) -> Answer {
    let body = html! {
        @if !asked.wants_piece() {
            nav class="tabs" aria-label="Access" {
                @for (path, name, permission) in TABS {
                    @if asked.may(permission) {
                        a href=(at(asked, path)) aria-current=[(path == tab).then_some("page")] {
                            (name)
                        }
                    }
                }
            }
        }
        (body)
    };
    Ok(layout::page(asked, Screen::Access, title, &body))
}
