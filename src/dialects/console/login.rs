//! Login: e-mail and password, then the code of the second factor; logout.

use base::{Code, Failure, Protocol, SessionId};
use bytes::Bytes;
use hyper::{Response, StatusCode};
use maud::html;
use serde::de::IgnoredAny;

use super::asked::Asked;
use super::form::Params;
use super::respond::{self, page as show, see, with_session};
use super::{Answer, layout};
use crate::app::{Credentials, LoginFrom};

/// The first screen; who is not logged in, logs in.
pub(super) fn first(asked: &Asked) -> Answer {
    let Ok(at_home) = asked.at_home() else { return Ok(page(asked, None)) };
    Ok(see(&layout::first(&at_home)))
}

/// The page with the form. `failure`: of a login before.
pub(super) fn page(asked: &Asked, failure: Option<&Failure>) -> Response<Bytes> {
    let next = asked.query.get("next").or(asked.form.get("next")).filter(|next| is_local(next));
    let name = asked.form.get("username").unwrap_or_default();
    let wants_code = failure.is_some_and(|failure| failure.code == Code::SECOND_FACTOR_WANTED)
        || asked.form.get("step") == Some("code");
    let failure = failure.filter(|failure| failure.code != Code::SECOND_FACTOR_WANTED);
    let body = html! {
        div class="login" {
            h1 { "tr50d" }
            @if asked.conn.protocol == Protocol::Http {
                p class="notice" {
                    "This connection is not encrypted: others in the network can read along."
                }
            }
            @if let Some(failure) = failure {
                p class="notice bad" role="alert" { bdi { (failure.message) } }
            }
            form method="post" action="/login" {
                @if let Some(next) = next { input type="hidden" name="next" value=(next); }
                @if wants_code {
                    input type="hidden" name="username" value=(name);
                    input type="hidden" name="step" value="code";
                    label {
                        "Code of your second factor"
                        input name="password" inputmode="numeric" autocomplete="one-time-code"
                            required autofocus aria-describedby="code-hint";
                    }
                    p id="code-hint" class="hint" {
                        "Six digits of your authenticator app, or a recovery code."
                    }
                } @else {
                    label {
                        "E-mail address"
                        input name="username" type="email" autocomplete="username" value=(name)
                            required autofocus;
                    }
                    label {
                        "Password"
                        input name="password" type="password" autocomplete="current-password"
                            required;
                    }
                }
                button type="submit" class="main" { "Log in" }
                @if wants_code { p { a href="/login" { "Begin again" } } }
            }
        }
    };
    show(layout::plain(asked, "Log in", &body))
}

/// Who asks for a page of somebody who is logged in.
pub(super) fn stranger(asked: &Asked, failure: Option<&Failure>) -> Response<Bytes> {
    let query = asked.query.query_with(&[]);
    let next =
        if query.is_empty() { asked.path.clone() } else { format!("{}?{query}", asked.path) };
    let next = if asked.method == hyper::Method::GET { next } else { "/".to_owned() };
    let next = form_urlencoded::byte_serialize(next.as_bytes()).collect::<String>();
    let response = see(&format!("/login?next={next}"));
    match failure {
        // It is not shown again and again.
        Some(failure) if failure.code == Code::SESSION_INVALID => with_session(response, asked, ""),
        Some(failure) => {
            let mut response = page(asked, Some(failure));
            *response.status_mut() = status(failure);
            response
        }
        None => response,
    }
}

/// Begins a session.
pub(super) async fn log_in(asked: &Asked) -> Answer {
    let credentials = Credentials::User {
        name: asked.form.get("username").unwrap_or_default().to_owned(),
        password: asked.form.exact("password").to_owned(),
        code: None,
    };
    // A code is not trimmed by browsers, and people copy blanks along.
    let credentials = match (asked.form.get("step"), credentials) {
        (Some("code"), Credentials::User { name, password, code }) => {
            let password = password.split_whitespace().collect();
            Credentials::User { name, password, code }
        }
        (_, credentials) => credentials,
    };
    let from = LoginFrom { conn: asked.conn, user_agent: asked.user_agent() };
    let session = asked.app.login_unbound(credentials, from, asked.app.clock.now()).await;
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            let failure = Failure::from(error);
            let now = asked.app.clock.now();
            asked.app.note_failure(None, &asked.conn, "api.authenticate", &failure, now);
            let mut response = page(asked, Some(&failure));
            *response.status_mut() = status(&failure);
            return Ok(response);
        }
    };
    // The browser forgets the session before: nobody else is to have it.
    if let Ok(before) = asked.who() {
        let _ = before.ask::<IgnoredAny>("session.end", &Params::default()).await;
    }
    let next = asked.form.get("next").filter(|next| is_local(next)).unwrap_or("/");
    Ok(with_session(see(next), asked, session.id().map_or("", SessionId::secret)))
}

/// Ends the session.
pub(super) async fn log_out(asked: &Asked) -> Answer {
    let who = asked.who()?;
    who.ask::<IgnoredAny>("session.end", &Params::default()).await?;
    Ok(with_session(respond::see("/login"), asked, ""))
}

/// The status of a login that failed; what a browser shows in place of the page is none of that.
fn status(failure: &Failure) -> StatusCode {
    StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::FORBIDDEN)
}

/// Whether an address is one of this server: nobody is led elsewhere by a link to the login.
fn is_local(address: &str) -> bool {
    address.starts_with('/')
        && !address.starts_with("//")
        && !address.contains(|c: char| c == '\\' || c.is_control())
}
