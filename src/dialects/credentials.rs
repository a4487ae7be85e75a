//! Who asks over HTTP, by the headers of the request: Basic, a bearer token, a session's id.

use base::{ConnInfo, Failure, SessionId};
use data_encoding::{BASE64, BASE64_NOPAD};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use crate::app::{App, Bearer, Viewer};

/// Name and password of a Basic header (RFC 7617). Not all clients write UTF-8: `requests` for
/// Python has Latin-1.
pub(super) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let encoded = encoded.trim().as_bytes();
    let bytes = BASE64.decode(encoded).or_else(|_| BASE64_NOPAD.decode(encoded)).ok()?;
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| error.as_bytes().iter().copied().map(char::from).collect());
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// The token of HTTP's bearer authentication (RFC 6750, 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Whether who sends these headers may read the metrics: with the permission `metrics`, by a session,
/// an application's token as bearer, or as a user with Basic. For who is known, it is a command.
///
/// # Errors
///
/// They have sent too many.
pub async fn may_read_metrics(
    app: &App,
    headers: &HeaderMap,
    conn: ConnInfo,
) -> Result<bool, Failure> {
    let Some(viewer) = viewer(app, headers, None, conn).await else { return Ok(false) };
    let Some(sight) = app.sight_of(&viewer, conn) else { return Ok(false) };
    viewer.charge(app, sight.org())?;
    let access = sight.access();
    Ok(access.allows("metrics") && !access.restricted_to_self)
}

/// Who follows the stream of events, or reads the metrics: with the session of the header `sessionId`, of a
/// bearer token or of what else is shown (the parameter `sessionId`, which web pages use that can set no
/// header; the console's cookie); with an application's token as bearer; or as a user with Basic. None: nobody who
/// is known.
pub async fn viewer(
    app: &App,
    headers: &HeaderMap,
    shown: Option<&str>,
    conn: ConnInfo,
) -> Option<Viewer> {
    let now = app.clock.now();
    if let Some((name, password)) = basic(headers) {
        let (user, token) = app.recognise(&name, password, conn, now).await.ok()?;
        return Some(Viewer::User(user, token));
    }
    let Some(token) = bearer(headers) else {
        let header = headers.get("sessionid").and_then(|id| id.to_str().ok());
        let shown = header.map(str::trim).or(shown)?;
        let found = SessionId::parse(shown).and_then(|id| app.session(&id, conn));
        if found.is_none() {
            app.note_unknown_session(conn, now);
        }
        return found.map(Viewer::Session);
    };
    Some(match app.bearer(token, conn, now).ok()? {
        Bearer::Session(session) => Viewer::Session(session),
        Bearer::Application(found, token) => Viewer::application(&found, token),
        Bearer::User(user, token) => Viewer::User(user, Some(token)),
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn credentials_are_read_as_clients_write_them() {
        let check = |value: &'static str, expected: Option<(&str, &str)>| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            let read = basic(&headers);
            let read = read.as_ref().map(|(name, password)| (name.as_str(), password.as_str()));
            assert_eq!(read, expected, "{value}");
        };
        check("Basic YTpiOmM=", Some(("a", "b:c")));
        check("basic  YTpiOmM", Some(("a", "b:c")));
        check("Basic YTo=", Some(("a", "")));
        check("Basic w6Q6", Some(("ä", "")));
        check("Basic 5Do=", Some(("ä", "")));
        check("Basic YQ==", None);
        check("Basic !", None);
        check("Basic", None);
        check("Bearer YTpiOmM=", None);
        assert_eq!(basic(&HeaderMap::new()), None);
    }
}
