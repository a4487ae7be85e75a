//! Cognite's organisation API for the session directory: principals and their login sessions, below
//! `/api/v1` (`docs/protocol/cognite.md`).
//!
//! It only translates: it authenticates the caller ([`caller`]) and calls the directory and
//! identity that TR50's commands call. There is no second notion of a session.
//!
//! Where the vendor's pages are silent, or real clients expect otherwise:
//!
//! * `nextCursor` is a text, not the object of the page's example: no client can read that.
//! * An organisation that does not exist, or has a name that none can have, is refused like one
//!   that the caller has no right to: 403.
//! * A principal of an organisation is a user who has it as home or has a membership, or an
//!   application of it. A super administrator who is there as a guest is none.
//! * Unknown parameters and members are ignored; one that is given twice is an error where it
//!   should be given once.
//! * A slash at the end of a path changes nothing; HEAD is answered like GET, without the body.

use std::borrow::Cow;
use std::sync::Arc;

use base::{ConnInfo, OrgId, Protocol, Timestamp, limits};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use rules::identity::model::Org;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::app::App;
use crate::random::random;

pub mod caller;
pub mod cursor;
pub mod error;
pub mod openapi;
pub mod orgs;
pub mod principals;
pub mod query;
pub mod sessions;

use caller::{Account, Caller};
use error::Error;
use query::Query;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is about; the texts are those of the path.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Resource<'a> {
    Document,
    Me,
    Inspect,
    Project(Cow<'a, str>),
    Org(Cow<'a, str>),
    Below(Cow<'a, str>),
    Projects(Cow<'a, str>),
    Principals(Cow<'a, str>),
    ByIds(Cow<'a, str>),
    Sessions(Cow<'a, str>, Cow<'a, str>),
    Revoke(Cow<'a, str>, Cow<'a, str>),
}

/// A request of somebody who is known.
pub struct Asked<'a> {
    app: &'a Arc<App>,
    caller: Caller,
    request: &'a Request<Bytes>,
    query: Query<'a>,
    protocol: Protocol,
    /// Of cursors.
    secret: &'a [u8],
    now: Timestamp,
}

/// A page of a listing.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    items: Vec<T>,
    /// Where the next page begins; absent after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The page of what was found, which is more than `limit` if another page follows; `cursor`
    /// says where that begins if this is the last on the page.
    fn of<F>(
        mut found: Vec<F>,
        limit: usize,
        cursor: impl Fn(&F) -> String,
        item: impl Fn(&F) -> T,
    ) -> Self {
        let more = found.len() > limit;
        found.truncate(limit);
        let next_cursor = found.last().filter(|_| more).map(cursor);
        Self { items: found.iter().map(item).collect(), next_cursor }
    }
}

/// Answers a request. With `full` the server has no room for the connection.
pub async fn answer(
    app: &Arc<App>,
    request: Request<Bytes>,
    conn: ConnInfo,
    full: bool,
    now: Timestamp,
) -> Response<Bytes> {
    let answer = match full {
        true => Err(Error::unavailable()),
        false => routed(app, &request, conn, now).await,
    };
    let mut response = answer.unwrap_or_else(Error::into_response);
    response.headers_mut().insert(REQUEST_ID, request_id(request.headers()));
    response
}

async fn routed(
    app: &Arc<App>,
    request: &Request<Bytes>,
    conn: ConnInfo,
    now: Timestamp,
) -> Result<Response<Bytes>, Error> {
    let resource = Resource::of(request.uri().path());
    let resource = resource.ok_or_else(|| Error::not_found("There is nothing at this path."))?;
    if !resource.takes(request.method()) {
        return Err(Error::method(resource.methods()));
    }
    if resource == Resource::Document {
        return Ok(json(openapi::document()));
    }
    let caller = Caller::recognise(app, request.headers(), now)?;
    let secret = app.page_secret().await.map_err(|error| Error::internal(&error))?;
    let query = Query::read(request.uri().query());
    let protocol = conn.protocol;
    let asked = Asked { app, caller, request, query, protocol, secret, now };
    match &resource {
        Resource::Document => Ok(json(openapi::document())),
        Resource::Me => principals::me(&asked).and_then(written),
        Resource::Inspect => orgs::inspect(&asked).and_then(written),
        Resource::Project(project) => orgs::project(&asked, project).and_then(written),
        Resource::Org(org) => orgs::org(&asked, org).and_then(written),
        Resource::Below(org) => orgs::below(&asked, org).and_then(written),
        Resource::Projects(org) => orgs::projects(&asked, org).and_then(written),
        Resource::Principals(org) => principals::list(&asked, org).and_then(written),
        Resource::ByIds(org) => principals::by_ids(&asked, org).and_then(written),
        Resource::Sessions(org, user) => sessions::list(&asked, org, user).and_then(written),
        Resource::Revoke(org, user) => {
            sessions::revoke(&asked, org, user).await?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
    }
}

impl<'a> Resource<'a> {
    fn of(path: &'a str) -> Option<Self> {
        if path == "/openapi.json" {
            return Some(Self::Document);
        }
        let path = path.strip_prefix("/api/v1/")?;
        let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
        // What is no UTF-8 is the name of nothing.
        let name = |segment: &'a str| percent_decode_str(segment).decode_utf8_lossy();
        Some(match segments[..] {
            ["principals", "me"] => Self::Me,
            ["token", "inspect"] => Self::Inspect,
            ["projects", project] => Self::Project(name(project)),
            ["orgs", org] => Self::Org(name(org)),
            ["orgs", org, "orgs"] => Self::Below(name(org)),
            ["orgs", org, "projects"] => Self::Projects(name(org)),
            ["orgs", org, "principals"] => Self::Principals(name(org)),
            ["orgs", org, "principals", "byids"] => Self::ByIds(name(org)),
            ["orgs", org, "principals", user, "sessions"] => Self::Sessions(name(org), name(user)),
            ["orgs", org, "principals", user, "sessions", "revoke"] => {
                Self::Revoke(name(org), name(user))
            }
            _ => return None,
        })
    }

    const fn is_posted(&self) -> bool {
        matches!(self, Self::ByIds(_) | Self::Revoke(..))
    }

    fn takes(&self, method: &Method) -> bool {
        match self.is_posted() {
            true => method == Method::POST,
            false => matches!(*method, Method::GET | Method::HEAD),
        }
    }

    const fn methods(&self) -> &'static str {
        if self.is_posted() { "POST" } else { "GET, HEAD" }
    }
}

impl Asked<'_> {
    /// The organisation with this slug, if the caller may see its principals.
    fn org_seen(&self, slug: &str) -> Result<Arc<Org>, Error> {
        self.org_where(slug, |caller, org| caller.sees(self.app.identity(), org))
    }

    /// The organisation with this slug, if the caller has a right in it.
    fn org_where(
        &self,
        slug: &str,
        has_right: impl Fn(&Caller, OrgId) -> bool,
    ) -> Result<Arc<Org>, Error> {
        let found = self.app.identity().org_by_slug(slug);
        let allowed = found.filter(|org| has_right(&self.caller, org.id));
        allowed.ok_or_else(|| Error::forbidden(slug))
    }

    /// The principal of an organisation with this id. Should a user and an application have the
    /// same, the user is meant.
    fn principal_in(&self, org: OrgId, id: &str) -> Option<Account> {
        let identity = &self.app.identity();
        let user = id.parse().ok().and_then(|id| identity.user_in(org, id)).map(Account::User);
        let application = || identity.application_in(org, id.parse().ok()?);
        user.or_else(|| application().map(Account::Application))
    }

    /// The body, which is JSON whatever its type is said to be.
    fn body<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let wrong =
            |error| Error::bad_request(format!("The body is not what it should be: {error}."));
        serde_json::from_slice(self.request.body()).map_err(wrong)
    }
}

fn written(body: impl Serialize) -> Result<Response<Bytes>, Error> {
    match serde_json::to_vec(&body) {
        Ok(text) => Ok(json(text.into())),
        Err(error) => Err(Error::internal(&error)),
    }
}

fn json(text: Bytes) -> Response<Bytes> {
    let mut response = Response::new(text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The caller's own id of the request, if it is one that can be sent back; else a fresh one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_sane = |value: &&HeaderValue| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        let bytes = value.as_bytes();
        (1..=limits::REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
    };
    if let Some(own) = headers.get(REQUEST_ID).filter(is_sane) {
        return own.clone();
    }
    // Without randomness they are all the same, which does no harm.
    let fresh = HEXLOWER.encode(&random::<16>().unwrap_or_default());
    HeaderValue::try_from(fresh).unwrap_or(HeaderValue::from_static("none"))
}
