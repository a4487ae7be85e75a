//! What a browser needs to be told, and what it must not do in somebody's name without that
//! person's knowing.

use base::{AllowedAs, Origins};
use hyper::header::{
    ACCEPT, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, USER_AGENT,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use super::cors::{shows_somebody, single};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Nothing is loaded or run, no form is sent, and nobody shows it inside of something else.
const POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The same for pages of documentation, which have the style sheet of this server.
pub(super) const DOCS_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; \
                                      form-action 'none'; frame-ancestors 'none'";

/// Whether a page of another site sends this request with what the browser adds by itself: Basic
/// credentials that somebody once typed, a cookie, a certificate of the client (`certified`). Of
/// listed origins it may.
///
/// Browsers say in `Sec-Fetch-Site` where the page is from, older ones in `Origin` of every POST.
/// Who says neither is no browser.
pub(super) fn is_forged(origins: &Origins, headers: &HeaderMap, certified: bool) -> bool {
    if !certified && !shows_somebody(headers) {
        return false;
    }
    let is_listed = || {
        let origin = single(headers).and_then(|origin| origin.to_str().ok());
        origin.and_then(|origin| origins.allow(origin)) == Some(AllowedAs::Listed)
    };
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    match (sites.next(), sites.next()) {
        (Some(site), None) if site == "same-origin" || site == "none" => false,
        (None, _) => headers.contains_key(ORIGIN) && !is_own(headers) && !is_listed(),
        _ => !is_listed(),
    }
}

/// Whether a page of this server sends the request, as browsers say it: in `Sec-Fetch-Site`, which
/// also knows the scheme and the name of this server outside of a proxy; older ones, and all
/// without TLS, by `Origin`. A page that a browser brings back at its start is from nowhere.
pub(super) fn is_same(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    match (sites.next(), sites.next()) {
        (Some(site), None) if site == "same-origin" => true,
        (Some(site), None) if site == "none" => is_own(headers),
        (None, _) => is_own(headers),
        _ => false,
    }
}

/// Whether the origin is this server by its name in the request. The scheme is not looked at: TLS
/// may end before this server.
fn is_own(headers: &HeaderMap) -> bool {
    let origin = single(headers).and_then(|origin| origin.to_str().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let (Some(origin), Some(host)) = (origin, host) else { return false };
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
    bare(authority) == bare(host.trim())
}

/// Adds to an answer how a browser has to take it: as what it says it is, alone, and with nothing
/// loaded.
/// A page of documentation has a policy of its own.
pub(super) fn guard(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    let policy = headers.entry(CONTENT_SECURITY_POLICY);
    policy.or_insert(HeaderValue::from_static(POLICY));
}

/// Whether a browser may show the answer: to all but what devices ask for in their own words, and
/// to everything if it is a browser that asks. Devices read heads into small buffers.
pub(super) fn may_show(path: &str, headers: &HeaderMap) -> bool {
    let is_for_devices = matches!(path, "/api" | "/api/" | "/mqtt" | "/mqtt-ssl")
        || path.starts_with("/rest/")
        || path.starts_with("/file/");
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    !is_for_devices
        || headers.contains_key(ORIGIN)
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
        || text(&ACCEPT).is_some_and(|types| types.contains("text/html"))
        || text(&USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn what_pages_of_other_sites_send_with_credentials_is_forged() {
        let basic = ("authorization", "Basic eDp5");
        let (host, origin) = (("host", "t.example:8080"), "origin");
        let check = |lines: &[(&'static str, &'static str)], forged: bool| {
            let origins = Origins::parse(["https://app.example", "*"].into_iter());
            let origins = origins.expect("origins");
            let lines = [&[basic, host], lines].concat();
            assert_eq!(is_forged(&origins, &headers(&lines), false), forged, "{lines:?}");
            assert_eq!(is_forged(&origins, &headers(&lines[1..]), true), forged, "{lines:?}");
            assert!(!is_forged(&origins, &headers(&lines[1..]), false), "{lines:?}");
        };
        check(&[], false);
        check(&[("sec-fetch-site", "same-origin")], false);
        check(&[("sec-fetch-site", "none")], false);
        check(&[("sec-fetch-site", "cross-site")], true);
        check(&[("sec-fetch-site", "same-site")], true);
        check(&[("sec-fetch-site", "none"), ("sec-fetch-site", "none")], true);
        check(&[("sec-fetch-site", "cross-site"), (origin, "http://t.example:8080")], true);
        check(&[("sec-fetch-site", "cross-site"), (origin, "https://app.example")], false);
        check(&[(origin, "https://app.example")], false);
        check(&[(origin, "https://other.example")], true);
        check(&[(origin, "http://t.example:8080")], false);
        check(&[(origin, "https://T.example:8080")], false);
        check(&[(origin, "http://t.example")], true);
        check(&[(origin, "http://t.example:8080"), (origin, "http://t.example:8080")], true);
        check(&[(origin, "null")], true);
        let plain = headers(&[basic, ("host", "t.example"), (origin, "https://t.example:443")]);
        assert!(!is_forged(&Origins::default(), &plain, false));
    }

    #[test]
    fn browsers_are_told_apart_from_devices() {
        let check = |path: &str, lines: &[(&'static str, &'static str)], shown: bool| {
            assert_eq!(may_show(path, &headers(lines)), shown, "{path} {lines:?}");
        };
        check("/api", &[], false);
        check("/file/x", &[("user-agent", "curl/8"), ("accept", "*/*")], false);
        for line in [
            ("origin", "null"),
            ("sec-fetch-mode", "navigate"),
            ("accept", "text/html,application/xhtml+xml"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ] {
            check("/api", &[line], true);
            check("/rest/_/diag.echo", &[line], true);
        }
        for path in ["/", "/metrics", "/healthz", "/nothing", "/openapi.json", "/json-rpc/1"] {
            check(path, &[], true);
        }
    }
}
