//! What a request of TR50 over HTTP says in its head: who asks, what the body is, and whether
//! failures are to have a status of their own, as applications expect them.

use base::UserAgent;
use hyper::StatusCode;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
    WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use smallvec::SmallVec;

use super::gzip::MadeFor;
use super::routes::{Answer, JSON, Refusal, answer};
use crate::app::Rate;
use crate::tr50::over_http::{Answered, Claims};

/// The header that can carry the session instead of the body (`docs/protocol/tr50.md` 1.3).
const SESSION_HEADER: &str = "sessionid";

/// Preferences of the client (RFC 7240), and which of them were heeded.
const PREFER: &str = "prefer";
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Who asks.
pub(super) fn claims(headers: &HeaderMap) -> Claims {
    let session = headers.get(SESSION_HEADER).and_then(|value| value.to_str().ok());
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let (session, bearer) = (session.map(str::to_owned), bearer.collect());
    Claims { field: None, session, bearer, user_agent: user_agent(headers) }
}

/// What the client calls itself.
pub(super) fn user_agent(headers: &HeaderMap) -> Option<UserAgent> {
    UserAgent::read(headers.get(USER_AGENT)?.as_bytes())
}

/// What a body is that is no envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Form,
    Json,
}

impl Kind {
    /// As the header says. Whoever says nothing, or something vague, sends a form: clients of the
    /// portal's style name types that their library has by default.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Self::Form) };
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let is = |suffix: &str| {
            kind.ends_with(&format!("/{suffix}")) || kind.ends_with(&format!("+{suffix}"))
        };
        if is("json") {
            let charset = parts.find_map(|part| part.strip_prefix("charset="));
            let charset = charset.map(|charset| charset.trim_matches('"'));
            return match charset {
                None | Some("utf-8" | "utf8" | "us-ascii") => Ok(Self::Json),
                Some(_) => Err(Refusal::ContentType),
            };
        }
        match kind.starts_with("multipart/") || is("xml") {
            true => Err(Refusal::ContentType),
            false => Ok(Self::Form),
        }
    }
}

/// How the client wants to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Wishes {
    /// Failures have the status that `docs/errors.md` has for them; else it is always 200, which is
    /// all that devices know (`docs/protocol/tr50.md` 0, fact 11).
    status: bool,
    /// The wish was in the header.
    is_preferred: bool,
    /// The rates are told: to applications. Devices read heads into small buffers.
    rates: bool,
}

impl Wishes {
    pub(super) fn of(head: &Parts, claims: &Claims) -> Self {
        let mut pairs = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        let is_asked = pairs.any(|(name, value)| name == "status" && value == "http");
        let is_preferred = head.headers.get_all(PREFER).iter().any(|value| {
            let mut wishes = value.to_str().unwrap_or_default().split(',');
            wishes.any(|wish| {
                let (name, value) =
                    wish.split(';').next().unwrap_or_default().split_once('=').unwrap_or_default();
                name.trim().eq_ignore_ascii_case("status")
                    && value.trim().trim_matches('"') == "http"
            })
        });
        let status = is_asked || is_preferred;
        let rates = status || !claims.bearer.is_empty();
        Self { status, is_preferred, rates }
    }

    /// The answer with a reply.
    pub(super) fn answer(self, answered: Answered) -> Answer {
        let Answered { text, failure, rates, asker } = answered;
        let mut answer = answer(StatusCode::OK, JSON, text);
        answer.extensions_mut().insert(MadeFor(asker));
        if self.rates {
            tell_rates(answer.headers_mut(), &rates);
        }
        if self.is_preferred {
            let applied = HeaderValue::from_static("status=http");
            answer.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        let Some(failure) = failure.filter(|_| self.status) else { return answer };
        let status = StatusCode::from_u16(failure.code.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *answer.status_mut() = status;
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = failure.retry_after_s() {
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        answer
    }
}

/// Adds how many commands may come in this second: all limits as the current draft of the IETF has
/// them (draft-ietf-httpapi-ratelimit-headers-10), and the one of which least is left in the form
/// that most clients know.
fn tell_rates(headers: &mut HeaderMap, rates: &[Rate]) {
    let Some(least) = rates.iter().min_by_key(|rate| rate.left) else { return };
    let list = |text: &dyn Fn(&Rate) -> String| {
        let items: SmallVec<[String; 3]> = rates.iter().map(text).collect();
        HeaderValue::try_from(items.join(", ")).ok()
    };
    let policies = list(&|rate| format!("\"{}\";q={};w=1", rate.name, rate.limit));
    let left = list(&|rate| format!("\"{}\";r={};t=1", rate.name, rate.left));
    if let (Some(policies), Some(left)) = (policies, left) {
        headers.insert(RATE_LIMIT_POLICY, policies);
        headers.insert(RATE_LIMIT, left);
    }
    headers.insert(RATE_LIMIT_LIMIT, least.limit.into());
    headers.insert(RATE_LIMIT_REMAINING, least.left.into());
    headers.insert(RATE_LIMIT_RESET, HeaderValue::from_static("1"));
}
