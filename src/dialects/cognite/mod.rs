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
use std::future::ready;
use std::sync::{Arc, LazyLock};

use base::{ConnInfo, OrgId, Timestamp, limits};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::TryFutureExt;
use futures_util::future::BoxFuture;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use rules::directory::Session;
use rules::identity::model::Org;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;
use utoipa::openapi::HttpMethod;

use crate::app::{App, address_full};
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

/// The path of the description of all others.
const DOCUMENT: &str = "/openapi.json";

/// Who answers at a path: a function whose `utoipa::path` says the path and the method.
struct Route {
    path: String,
    is_posted: bool,
    handler: Handler,
}

/// Answers, given the texts that the path has in place of its one or two `{…}`.
type Handler = for<'a> fn(&'a Asked<'_>, &'a Names<'_>) -> BoxFuture<'a, Answer>;

type Answer = Result<Response<Bytes>, Error>;
type Names<'a> = [Cow<'a, str>; 2];

static ROUTES: LazyLock<[Route; 10]> = LazyLock::new(|| {
    [
        Route::to::<principals::__path_me>(|asked, _| written(principals::me(asked))),
        Route::to::<principals::__path_list>(|asked, [org, _]| {
            written(principals::list(asked, org))
        }),
        Route::to::<principals::__path_by_ids>(|asked, [org, _]| {
            written(principals::by_ids(asked, org))
        }),
        Route::to::<sessions::__path_list>(|asked, [org, user]| {
            written(sessions::list(asked, org, user))
        }),
        Route::to::<sessions::__path_revoke>(|asked, [org, user]| {
            Box::pin(sessions::revoke(asked, org, user).map_ok(|()| no_content()))
        }),
        Route::to::<orgs::__path_org>(|asked, [org, _]| written(orgs::org(asked, org))),
        Route::to::<orgs::__path_below>(|asked, [org, _]| written(orgs::below(asked, org))),
        Route::to::<orgs::__path_projects>(|asked, [org, _]| written(orgs::projects(asked, org))),
        Route::to::<orgs::__path_project>(|asked, [org, _]| written(orgs::project(asked, org))),
        Route::to::<orgs::__path_inspect>(|asked, _| written(orgs::inspect(asked))),
    ]
});

/// A request of somebody who is known.
pub struct Asked<'a> {
    app: &'a Arc<App>,
    caller: Caller,
    request: &'a Request<Bytes>,
    query: Query<'a>,
    conn: ConnInfo,
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

/// Answers a request. With `full` the server has no room for the connection; `document` is what
/// describes this and other paths.
pub async fn answer(
    app: &Arc<App>,
    request: Request<Bytes>,
    conn: ConnInfo,
    full: bool,
    document: fn() -> Bytes,
    now: Timestamp,
) -> Response<Bytes> {
    let mut session = None;
    let answer = match full {
        true => Err(Error::unavailable(address_full().message)),
        false if request.uri().path() == DOCUMENT => {
            takes(false, &request).map(|()| json(document()))
        }
        false => routed(app, &request, conn, &mut session, now).await,
    };
    if let Err(error) = &answer {
        let path = request.uri().path();
        app.note_failure(session.as_ref(), &conn, path, &error.as_failure(), now);
    }
    let mut response = answer.unwrap_or_else(Error::into_response);
    response.headers_mut().insert(REQUEST_ID, request_id(request.headers()));
    response
}

async fn routed(
    app: &Arc<App>,
    request: &Request<Bytes>,
    conn: ConnInfo,
    known: &mut Option<Arc<Session>>,
    now: Timestamp,
) -> Result<Response<Bytes>, Error> {
    let path = request.uri().path();
    let found = ROUTES.iter().find_map(|route| Some((route, route.names(path)?)));
    let (route, names) = found.ok_or_else(|| Error::not_found("There is nothing at this path."))?;
    takes(route.is_posted, request)?;
    let caller = Caller::recognise(app, request.headers(), conn, now)?;
    *known = caller.session().cloned();
    let secret = app.page_secret().await.map_err(|error| Error::internal(&error))?;
    let query = Query::read(request.uri().query());
    let asker = Some(caller.asker());
    let asked = Asked { app, caller, request, query, conn, secret, now };
    app.cores.work(asker, async { (route.handler)(&asked, &names).await }).await
}

impl Route {
    fn to<P: utoipa::Path>(handler: Handler) -> Self {
        let is_posted = P::methods() == [HttpMethod::Post];
        Self { path: P::path(), is_posted, handler }
    }

    /// What `path` has in place of the `{…}`, if it is this route's.
    fn names<'a>(&self, path: &'a str) -> Option<Names<'a>> {
        let mut segments = path.strip_suffix('/').unwrap_or(path).split('/');
        let mut names = Names::default();
        let mut free = names.iter_mut();
        for own in self.path.split('/') {
            let segment = segments.next()?;
            if own.starts_with('{') {
                // What is no UTF-8 is the name of nothing.
                *free.next()? = percent_decode_str(segment).decode_utf8_lossy();
            } else if own != segment {
                return None;
            }
        }
        segments.next().is_none().then_some(names)
    }
}

fn takes(posted: bool, request: &Request<Bytes>) -> Result<(), Error> {
    match *request.method() {
        Method::POST if posted => Ok(()),
        Method::GET | Method::HEAD if !posted => Ok(()),
        _ => Err(Error::method(if posted { "POST" } else { "GET, HEAD" })),
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
        let text = base::json::well_formed(self.request.body());
        // A value first: there the last of two members with one name counts.
        let body: serde_json::Value = serde_json::from_str(&text).map_err(wrong)?;
        serde_json::from_value(body).map_err(wrong)
    }
}

fn written<'a>(body: Result<impl Serialize, Error>) -> BoxFuture<'a, Answer> {
    let text =
        body.and_then(|body| serde_json::to_vec(&body).map_err(|error| Error::internal(&error)));
    Box::pin(ready(text.map(|text| json(text.into()))))
}

fn no_content() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_out_of_paths() {
        let check = |path: &str, expected: Option<(&str, [&str; 2])>| {
            let mut found = ROUTES.iter().filter_map(|route| {
                let names = route.names(path)?.map(Cow::into_owned);
                Some((route.path.strip_prefix("/api/v1").expect("one prefix"), names))
            });
            let expected = expected.map(|(route, names)| (route, names.map(str::to_owned)));
            assert_eq!((found.next(), found.next()), (expected, None), "{path}");
        };
        let sessions = "/orgs/{org}/principals/{principal}/sessions";
        check("/api/v1/orgs/a", Some(("/orgs/{org}", ["a", ""])));
        check("/api/v1/orgs/a/", Some(("/orgs/{org}", ["a", ""])));
        check("/api/v1/orgs//", Some(("/orgs/{org}", ["", ""])));
        check("/api/v1/orgs//orgs", Some(("/orgs/{org}/orgs", ["", ""])));
        check("/api/v1/orgs/%61%2F+%zz", Some(("/orgs/{org}", ["a/+%zz", ""])));
        check("/api/v1/orgs/%ff", Some(("/orgs/{org}", ["\u{fffd}", ""])));
        check("/api/v1/orgs/{org}/principals/byids/sessions", Some((sessions, ["{org}", "byids"])));
        for path in ["", "/", "/api/v1", "/api/v1/orgs", "/api/v1/orgs/", "/api/v1/orgs/a//"] {
            check(path, None);
        }
        check("/api/v1/%6frgs/a", None);
        check("/api/v1/orgs/a/principals/b/sessions/c", None);
    }
}
