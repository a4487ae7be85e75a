//! The console: pages for people, made of TR50's commands.
//!
//! Every page is complete without JavaScript; `console.js` adds what is live. What a page shows or
//! does is a command of the caller's session ([`Asker`](crate::tr50::asker::Asker)): there is no
//! other way to the data, and no right that a command does not ask for. The organisation is in the
//! path, so that two tabs do not move each other.

use std::sync::Arc;

use base::ConnInfo;
use bytes::Bytes;
use hyper::{Method, Request, Response, StatusCode};

use crate::app::{App, address_full};

mod access;
mod asked;
mod change;
mod chart;
mod cookie;
mod csrf;
mod end;
mod events;
mod form;
mod layout;
mod live;
mod login;
mod logins;
mod me;
mod orgs;
mod overview;
mod parts;
mod perms;
mod qr;
mod respond;
mod search;
mod session;
mod sessions;
mod shared_windows;
mod thing;
mod things;
mod time;
mod tokens;
mod user_agent;
mod views;
mod window;

use asked::{Asked, InOrg, decoded};
pub use cookie::session_id;
pub use live::Watching;
use respond::Refused;
pub use shared_windows::Windows;

/// A page, or why there is none.
type Answer = Result<Response<Bytes>, Refused>;

/// Answers a request. With `full` the server has no room for the connection.
pub async fn answer(
    app: &Arc<App>,
    request: Request<Bytes>,
    conn: ConnInfo,
    full: bool,
) -> Response<Bytes> {
    let asked = Asked::read(app, request, conn).await;
    if full {
        return Refused::Failure(address_full()).into_response(&asked);
    }
    routed(&asked).await.unwrap_or_else(|refused| refused.into_response(&asked))
}

/// The page for a request that was refused with this status before anyone read it.
pub fn refusal(app: &App, status: StatusCode) -> Response<Bytes> {
    let now = app.clock.shown(app.clock.now());
    respond::unread(now, status, app.config.limits.max_frame_bytes as u64)
}

/// What everybody gets, then what is of one organisation.
async fn routed(asked: &Asked) -> Answer {
    let path: Vec<&str> = asked.path.split('/').skip(1).collect();
    if !matches!(asked.method, Method::GET | Method::POST) {
        return Err(Refused::Method);
    }
    if asked.method == Method::GET
        && path.first() == Some(&"o")
        && !asked.wants_piece()
        && let Some(query) = sessions::in_order(&asked.query)
    {
        let joint = if query.is_empty() { "" } else { "?" };
        return Ok(respond::see(&format!("{}{joint}{query}", asked.path)));
    }
    if asked.method == Method::POST && path != ["login"] {
        asked.check_form()?;
    }
    match (&asked.method, path.as_slice()) {
        (&Method::GET, ["console.css"]) => Ok(respond::asset(asked, layout::STYLE, "text/css")),
        (&Method::GET, ["console.js"]) => {
            Ok(respond::asset(asked, layout::SCRIPT, "text/javascript"))
        }
        (&Method::GET, [""]) => login::first(asked),
        (&Method::GET, ["login"]) => Ok(login::page(asked, None)),
        (&Method::POST, ["login"]) => login::log_in(asked).await,
        (&Method::POST, ["logout"]) => login::log_out(asked).await,
        (&Method::GET, ["o"]) => orgs::page(asked).await,
        (&Method::GET, ["o", ""]) => Ok(respond::see("/o")),
        (_, ["me", rest @ ..]) => me::routed(&asked.at_home()?, rest).await,
        (&Method::GET, ["search"]) => search::page(asked).await,
        (_, ["o", slug, rest @ ..]) => in_org(&asked.in_org(slug)?, rest).await,
        _ => Err(Refused::NotFound),
    }
}

/// The pages of an organisation.
async fn in_org(asked: &InOrg<'_>, path: &[&str]) -> Answer {
    match (&asked.method, path) {
        (&Method::GET, [] | [""]) => overview::page(asked).await,
        (&Method::GET, ["sessions"]) => sessions::page(asked).await,
        (&Method::GET, ["sessions", "end"]) => end::confirmation(asked).await,
        (&Method::POST, ["sessions", "end"]) => end::end(asked).await,
        (&Method::POST, ["sessions", "views"]) => views::keep(asked).await,
        (_, ["access", rest @ ..]) => access::routed(asked, rest).await,
        (&Method::GET, ["events"]) => events::page(asked).await,
        (&Method::GET, ["logins"]) => logins::page(asked).await,
        (&Method::GET, ["sessions", reference]) => session::page(asked, &decoded(reference)).await,
        (&Method::GET, ["things"]) => things::page(asked).await,
        (_, ["things", key, rest @ ..]) => thing::answer(asked, key, rest).await,
        _ => Err(Refused::NotFound),
    }
}
