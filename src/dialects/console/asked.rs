//! A request to the console: who asks, for which organisation, with which fields.

use std::ops::Deref;
use std::sync::Arc;

use base::{ConnInfo, Failure, Timestamp, UserAgent};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, USER_AGENT};
use hyper::{Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rules::directory::Who;
use rules::identity::model::Org;
use serde::de::DeserializeOwned;

use super::cookie;
use super::csrf;
use super::form::{Fields, Params, Sent};
use super::respond::Refused;
use crate::app::App;
use crate::tr50::asker::Asker;

/// What stays as it is in a segment of a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request.
pub(super) struct Asked {
    pub(super) app: Arc<App>,
    /// `GET` for `HEAD`, too.
    pub(super) method: Method,
    pub(super) path: String,
    /// What the address asks for.
    pub(super) query: Fields,
    /// What a form says.
    pub(super) form: Fields,
    /// The file that was sent with it.
    pub(super) file: Option<Sent>,
    pub(super) conn: ConnInfo,
    pub(super) now: Timestamp,
    headers: HeaderMap,
    who: Result<Asker, Option<Failure>>,
    secret: [u8; 32],
}

/// A request of somebody who may see the organisation that is in the path.
pub(super) struct InOrg<'a> {
    asked: &'a Asked,
    pub(super) asker: Asker,
    pub(super) org: Arc<Org>,
}

impl Asked {
    pub(super) async fn read(app: &Arc<App>, request: Request<Bytes>, conn: ConnInfo) -> Self {
        let (head, body) = request.into_parts();
        let who = match cookie::session_id(&head.headers, &conn) {
            None => Err(None),
            Some(id) => Asker::of_session(app, id, conn).map_err(Some),
        };
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let (method, (form, file)) = match head.method {
            Method::HEAD => (Method::GET, Default::default()),
            Method::POST => (Method::POST, Fields::of_form(kind, body).await),
            method => (method, Default::default()),
        };
        // Without the store, no form is right.
        let secret = app.page_secret().await.copied().unwrap_or_default();
        Self {
            app: app.clone(),
            method,
            path: head.uri.path().to_owned(),
            query: Fields::read(head.uri.query().unwrap_or_default().as_bytes()),
            form,
            file,
            conn,
            now: app.clock.shown(app.clock.now()),
            headers: head.headers,
            who,
            secret,
        }
    }

    /// What a page of this path asks for again and again; no form can be made of it.
    pub(super) fn of_view(asker: Asker, path: String, query: Fields, conn: ConnInfo) -> Self {
        let app = asker.app().clone();
        Self {
            method: Method::GET,
            path,
            query,
            form: Fields::default(),
            file: None,
            conn,
            now: app.clock.shown(app.clock.now()),
            headers: HeaderMap::new(),
            who: Ok(asker),
            secret: [0; 32],
            app,
        }
    }

    /// From now on it is asked now; that is a whole hour, for the script counts the seconds: cells do
    /// not change because time passes.
    pub(super) fn look_at_clock(&mut self) {
        const HOUR_MS: i64 = 3_600_000;
        let now = self.app.clock.shown(self.app.clock.now()).as_millis();
        self.now = Timestamp::from_millis(now - now.rem_euclid(HOUR_MS));
    }

    /// The time as it is, where an hour is not enough.
    pub(super) fn this_moment(&self) -> Timestamp {
        self.app.clock.shown(self.app.clock.now())
    }

    /// The handle of the session of who asks.
    pub(super) fn own_reference(&self) -> String {
        let session = self.who.as_ref().map(Asker::session);
        session.map_or(String::new(), |session| session.reference().to_string())
    }

    /// The id of the user who asks; none of an application.
    pub(super) fn own_user_id(&self) -> Option<String> {
        match self.who.as_ref().ok()?.session().who() {
            Who::User(user) => Some(user.id.to_string()),
            Who::Application { .. } => None,
        }
    }

    /// Who asks.
    pub(super) fn who(&self) -> Result<&Asker, Refused> {
        self.who.as_ref().map_err(|failure| Refused::Stranger(failure.clone()))
    }

    /// Whether a form of this session's pages was sent.
    pub(super) fn check_form(&self) -> Result<(), Refused> {
        let who = self.who()?;
        let is_right = self.secret != [0; 32]
            && csrf::is_right(&self.secret, who.session(), self.form.exact("csrf"));
        if is_right { Ok(()) } else { Err(Refused::Forged) }
    }

    /// The token for a form.
    pub(super) fn csrf(&self) -> String {
        let session = self.who.as_ref().map(Asker::session);
        session.map_or(String::new(), |session| csrf::token(&self.secret, session))
    }

    /// The organisation with this slug, if who asks may be there. One that there is not looks the same.
    pub(super) fn in_org(&self, slug: &str) -> Result<InOrg<'_>, Refused> {
        let who = self.who()?;
        let found = self.app.identity().org_by_slug(slug);
        let found = found.and_then(|org| Some((who.in_org(org.id)?, org)));
        let (asker, org) = found.ok_or(Refused::NoOrg)?;
        Ok(InOrg { asked: self, asker, org })
    }

    /// The organisation in which the session is.
    pub(super) fn at_home(&self) -> Result<InOrg<'_>, Refused> {
        let who = self.who()?;
        let org = self.app.identity().org(who.session().org_id()).ok_or(Refused::NoOrg)?;
        Ok(InOrg { asked: self, asker: who.clone(), org })
    }

    /// A header that is text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the browser calls itself.
    pub(super) fn user_agent(&self) -> Option<UserAgent> {
        UserAgent::read(self.headers.get(USER_AGENT)?.as_bytes())
    }

    /// Whether a page of this server asked for a piece of a page only, which it shows in its own.
    pub(super) fn wants_piece(&self) -> bool {
        self.headers.contains_key("x-piece")
    }
}

impl Deref for InOrg<'_> {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        self.asked
    }
}

impl InOrg<'_> {
    /// Carries out a command in the organisation, and returns the `params` of its reply.
    pub(super) async fn ask<R: DeserializeOwned>(
        &self,
        command: &'static str,
        params: &Params,
    ) -> Result<R, Failure> {
        self.asker.ask(command, params).await
    }

    /// Whether who asks has a permission here.
    pub(super) fn may(&self, permission: &str) -> bool {
        self.asker.may(permission)
    }

    /// Whether who asks may end sessions of others; one's own are ended elsewhere.
    pub(super) fn may_end_sessions(&self) -> bool {
        self.may("session.end") && self.asker.placed().access().administers_here()
    }

    /// Whether who asks may see how the whole server is.
    pub(super) fn sees_server(&self) -> bool {
        let access = self.asker.placed().access();
        let is_topmost = access.org.parent.is_none() && !access.restricted_to_self;
        self.may("stats.series") && (access.authority().sees_all() || is_topmost)
    }

    /// A path within the organisation.
    pub(super) fn to(&self, rest: &str) -> String {
        format!("/o/{}/{rest}", self.org.slug)
    }
}

/// A text as a segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, IN_PATH).to_string()
}

/// A segment of a path as the text that it stands for.
pub(super) fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
