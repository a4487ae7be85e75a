//! NetApp Element's API for the session directory: JSON-RPC at `/json-rpc/<version>`
//! (`docs/protocol/element.md`).
//!
//! It only translates: sessions are the directory's, cluster administrators are identity's users,
//! and the timeout of logins is the idle time of all sessions.

use std::sync::Arc;

use base::{ConnInfo, Failure, Timestamp, excerpt, json, limits};
use bytes::Bytes;
use hyper::{Request, Response};
use rules::directory::Session;
use rules::identity::Refusal;
use serde_json::value::RawValue;

use crate::app::{
    App, Deed, Effects, Goodbyes, Holder, LoginError, LongAnswerPlace, SessionChange,
    TooManyLogins, address_full, login_failure,
};

mod admins;
mod auth;
pub mod docs;
mod error;
mod methods;
mod page;
mod request;
mod sessions;
mod timeout;

use auth::{Caller, Unknown};
use error::Error;
use methods::{Call, Method, Task};
use request::{Body, Params};
use sessions::Wanted;

/// A long answer, with its place among those that there may be: it is held in memory until its peer
/// has it.
struct LongAnswer {
    bytes: Vec<u8>,
    _place: LongAnswerPlace,
}

impl AsRef<[u8]> for LongAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer in the making: its beginning, and what goes behind its result.
struct Draft {
    head: Vec<u8>,
    tail: Vec<u8>,
}

/// Answers a request. With `full` the server has no room for the connection.
pub async fn answer(
    app: &Arc<App>,
    request: Request<Bytes>,
    conn: ConnInfo,
    full: bool,
    now: Timestamp,
) -> Response<Bytes> {
    if let Some(refused) = page::refusal(&request) {
        return refused;
    }
    let caller = match full {
        true => Err(Unknown::AddressFull),
        false => auth::caller(app, request.headers(), conn, now).await,
    };
    let caller = match caller {
        Ok(caller) => Arc::new(caller),
        Err(unknown) => {
            note_unknown(app, &unknown, &conn, now);
            return refusal(&unknown, request.body());
        }
    };
    let text = json::well_formed(request.body());
    let Body { id, request } = Body::parse(&text);
    let (method, answered) = match &request {
        Ok(request) => {
            let (org, principal) = caller.payer();
            let asker = Some((org, Holder::Principal(principal)));
            let called = call(app, &caller, id, request, conn, now);
            (&*request.method, app.cores.work(asker, called).await)
        }
        Err(_) => ("", request.map(|_| Bytes::new())),
    };
    if let Err(error) = &answered {
        let failure = Failure::new(error.code(), error.message.clone());
        app.note_failure_of(&caller.user().email, &conn, method, &failure);
    }
    answered.map_or_else(|error| failed(&error, id), page::json)
}

/// Counts a request of somebody who is not known.
fn note_unknown(app: &App, unknown: &Unknown, conn: &ConnInfo, now: Timestamp) {
    let failure = match unknown {
        Unknown::Missing => Failure::authentication_missing(),
        Unknown::TooManyRequests(failure) => failure.clone(),
        Unknown::AddressFull => address_full(),
        Unknown::Refused(error) => login_failure(error),
    };
    app.note_failure(None, conn, "", &failure, now);
}

/// The answer to a caller who is not known, or can't be checked now.
fn refusal(unknown: &Unknown, body: &[u8]) -> Response<Bytes> {
    let failed = |error: &Error| failed(error, Body::parse(&json::well_formed(body)).id);
    match unknown {
        Unknown::Refused(LoginError::Refused(Refusal::Locked { seconds })) => {
            page::locked(*seconds)
        }
        Unknown::Refused(error @ LoginError::TooMany(TooManyLogins { seconds, .. })) => {
            page::too_many(*seconds, &login_failure(error))
        }
        Unknown::TooManyRequests(failure) => page::too_many(1, failure),
        Unknown::AddressFull => failed(&Error::busy(&address_full())),
        Unknown::Refused(error @ (LoginError::Refused(Refusal::Busy) | LoginError::NoPlace(_))) => {
            failed(&Error::busy(&login_failure(error)))
        }
        Unknown::Refused(LoginError::Store(_)) => {
            failed(&Error::new(error::INTERNAL, "The credentials can't be checked."))
        }
        _ => page::unauthorized(),
    }
}

/// The answer of a method that failed: with status 200, but when it is worth another try.
fn failed(error: &Error, id: Option<&RawValue>) -> Response<Bytes> {
    let mut body = head(id);
    body.extend_from_slice(br#""error":"#);
    body.extend_from_slice(&error.to_json());
    body.push(b'}');
    match error.name {
        error::BUSY => page::busy(body.into()),
        _ => page::json(body.into()),
    }
}

/// The beginning of every answer: the request's id, if it has one.
fn head(id: Option<&RawValue>) -> Vec<u8> {
    let mut head = vec![b'{'];
    if let Some(id) = id {
        head.extend_from_slice(br#""id":"#);
        json::push_compact(&mut head, id.get());
        head.push(b',');
    }
    head
}

/// Calls a method; the whole answer.
async fn call(
    app: &Arc<App>,
    caller: &Arc<Caller>,
    id: Option<&RawValue>,
    request: &request::Request<'_>,
    conn: ConnInfo,
    now: Timestamp,
) -> Result<Bytes, Error> {
    let method = methods::find(&request.method).ok_or_else(|| {
        Error::new(error::UNKNOWN_METHOD, format!("method={}", excerpt(&request.method)))
    })?;
    let answered = async {
        request.params.check(method)?;
        let task = (method.handler)(&Call { app, caller }, &request.params)?;
        let draft = Draft::new(id, &request.params, method);
        perform(app, caller, task, draft, (caller.deed(method.name, conn), now)).await
    };
    let answered = answered.await;
    if let (true, Err(error)) = (method.is_act(), &answered) {
        let (who, deed) =
            ((caller.user().home, caller.principal()), caller.deed(method.name, conn));
        app.note_refused_by(who, conn, deed, (error.name.into(), &error.message), now);
    }
    answered
}

async fn perform(
    app: &Arc<App>,
    caller: &Arc<Caller>,
    task: Task,
    draft: Draft,
    (deed, now): (Deed, Timestamp),
) -> Result<Bytes, Error> {
    match task {
        Task::Answer(result) => Ok(draft.finish(|out| out.extend_from_slice(&result))),
        Task::List(wanted) => {
            let all = matches!(wanted, Wanted::All);
            list(app, caller, draft, all, move |out, app, caller| {
                sessions::write_list(out, app, caller, &wanted)
            })
            .await
        }
        Task::ListAdmins => list(app, caller, draft, true, admins::write_list).await,
        Task::EndOne(session) => {
            let ended = end(app, vec![session], caller, deed, now).await?;
            // Somebody else may have been faster.
            let session = ended.sessions().next().ok_or_else(sessions::no_such_session)?;
            Ok(draft.finish(|out| sessions::write_ended(out, session, &app.clock)))
        }
        Task::End(wanted) => {
            let ended = end(app, wanted, caller, deed, now).await?;
            Ok(draft.finish(|out| sessions::write_all_ended(out, ended.sessions(), &app.clock)))
        }
        Task::SetTimeout(seconds) => {
            app.set_ttl_s(seconds, &deed, now).await?;
            Ok(draft.finish(|out| out.extend_from_slice(b"{}")))
        }
    }
}

/// Ends sessions for the caller; their connections close at once.
async fn end(
    app: &Arc<App>,
    sessions: Vec<Arc<Session>>,
    caller: &Caller,
    deed: Deed,
    now: Timestamp,
) -> Result<Goodbyes, Error> {
    let by = caller.principal();
    let ends = sessions.into_iter().map(|session| SessionChange::EndFor(session, by.clone()));
    let effects = Effects::on_sessions(ends).caused_by(caller.payer()).closing_at_once().by(deed);
    let outcome = app.apply(effects, now).await;
    outcome.stored?;
    Ok(outcome.goodbyes)
}

/// Writes a list: at once on a small server, else on a thread that serves no connection. One that
/// may be of `all` there are takes a place among the long answers then.
async fn list(
    app: &Arc<App>,
    caller: &Arc<Caller>,
    draft: Draft,
    all: bool,
    write: impl FnOnce(&mut Vec<u8>, &App, &Caller) -> Result<(), Error> + Send + 'static,
) -> Result<Bytes, Error> {
    let Draft { mut head, tail } = draft;
    let many = app.directory().len().max(app.identity().user_count());
    if many <= limits::LISTED_AT_ONCE_MAX {
        write(&mut head, app, caller)?;
        head.extend_from_slice(&tail);
        return Ok(head.into());
    }
    let place = match all {
        true => {
            Some(app.long_answers.take(caller.payer()).map_err(|over| Error::busy(&over.into()))?)
        }
        false => None,
    };
    let worker = caller.worker();
    let (shared, caller) = (app.clone(), caller.clone());
    let work = move || {
        write(&mut head, &shared, &caller)?;
        head.extend_from_slice(&tail);
        Ok::<_, Error>((head, place))
    };
    let (bytes, place) = app.offload(worker, work).await??;
    Ok(match place {
        Some(place) => Bytes::from_owner(LongAnswer { bytes, _place: place }),
        None => bytes.into(),
    })
}

impl Draft {
    fn new(id: Option<&RawValue>, params: &Params<'_>, method: &Method) -> Self {
        let mut head = head(id);
        head.extend_from_slice(br#""result":"#);
        let mut tail = Vec::new();
        let unused = params.unused(method);
        if !unused.is_empty() {
            tail.extend_from_slice(br#","unusedParameters":"#);
            json::push_value(&mut tail, &unused);
        }
        tail.push(b'}');
        Self { head, tail }
    }

    /// The whole answer.
    fn finish(self, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let Self { head: mut answer, tail } = self;
        write(&mut answer);
        answer.extend_from_slice(&tail);
        answer.into()
    }
}

#[cfg(test)]
mod tests {
    use base::{Protocol, SessionId, ThingId, ThingKey};
    use hyper::StatusCode;
    use rules::directory::{Lifetime, Start, Who};

    use super::*;
    use crate::app::tests::{NOW, demo_with};
    use crate::config::Config;

    fn app() -> Arc<App> {
        let mut config = Config::default();
        config.limits.sessions_per_principal = usize::MAX;
        demo_with(config).0
    }

    fn caller(app: &App, email: &str) -> Arc<Caller> {
        let user = app.identity().user_by_email(email).expect("a user of the demo");
        Arc::new(Caller::new(app, user))
    }

    /// A thing of the operator's organisation.
    fn thing(app: &App, number: usize) -> Who {
        let application = app.identity().application_by_token("demo-token-basicorg");
        let thing_key = ThingKey::parse(&format!("thing-{number}")).expect("a key");
        let thing_id = ThingId::from_bytes([7; 12]);
        Who::Application { application: application.expect("of the demo"), thing_id, thing_key }
    }

    /// Starts sessions at the operator's home, numbered from `from` to before `to`.
    async fn fill(app: &App, from: usize, to: usize, who: impl Fn(usize) -> Who) {
        let user = app.identity().user_by_email("operator@basicorg.example").expect("a user");
        let org = app.identity().org(user.home).expect("the home");
        let access = Arc::new(app.identity().user_access(&user, &org).expect("at home"));
        for number in from..to {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let start = Start {
                id: SessionId::from_random(id),
                who: who(number),
                token: None,
                client_id: "".into(),
                access: access.clone(),
                conn: ConnInfo::new(Protocol::Http, ([127, 0, 0, 1], 1).into()),
                link: rules::directory::Link::default(),
                user_agent: None,
                definition: None,
                lifetime: Lifetime::Until(NOW.plus_seconds(1000)),
                outbox: None,
            };
            app.start(start, false, NOW.plus_millis(number as i64)).expect("room");
            // The writer's queue is shorter.
            while app.store_queue() >= 1000 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn called(app: &Arc<App>, caller: &Arc<Caller>, text: &str) -> Result<Bytes, Error> {
        let body = Body::parse(text);
        let request = body.request.expect("a request");
        let conn = ConnInfo::new(Protocol::Http, ([127, 0, 0, 1], 1).into());
        call(app, caller, body.id, &request, conn, NOW).await
    }

    #[tokio::test]
    async fn long_lists_are_few_and_never_cut() {
        let app = app();
        let admin = caller(&app, "admin@devicewise.com");
        let operator = caller(&app, "operator@basicorg.example");
        let viewer = caller(&app, "viewer@basicorg.example");
        let many = limits::LISTED_AT_ONCE_MAX + 1;
        fill(&app, 0, many, |number| thing(&app, number)).await;
        let all = r#"{"method":"ListActiveAuthSessions","x":0}"#;
        let mut held = Vec::new();
        for _ in 0..limits::ELEMENT_LONG_ANSWERS_MAX {
            for caller in [&admin, &operator] {
                let answer = called(&app, caller, all).await.expect("a place");
                let text = std::str::from_utf8(&answer).expect("text");
                assert_eq!(text.matches("\"sessionID\"").count(), many);
                assert!(text.starts_with(r#"{"result":{"sessions":[{"accessGroupList":"#));
                assert!(text.ends_with(r#"}]},"unusedParameters":{"x":0}}"#));
                held.truncate(limits::ELEMENT_LONG_ANSWERS_MAX as usize - 3);
                held.push(answer);
            }
        }
        // Both have more than an equal part; with one more, the next list has to come again.
        held.push(called(&app, &admin, all).await.expect("a place"));
        let busy = called(&app, &admin, all).await.expect_err("no place");
        assert_eq!(failed(&busy, None).status(), StatusCode::SERVICE_UNAVAILABLE);
        // Which holds up nobody who asks for less.
        let own = r#"{"method":"ListAuthSessionsByUsername"}"#;
        let answer = called(&app, &viewer, own).await.expect("no place is needed");
        assert_eq!(answer, r#"{"result":{"sessions":[]}}"#);
        held.clear();

        fill(&app, many, limits::ELEMENT_LISTED_MAX + 1, |number| thing(&app, number)).await;
        for caller in [&admin, &operator] {
            let refused = called(&app, caller, all).await.expect_err("too long");
            assert_eq!(refused.name, error::EXCEEDED_LIMIT);
        }
    }

    #[tokio::test]
    async fn a_login_ends_all_its_sessions_at_once() {
        let app = app();
        let operator = caller(&app, "operator@basicorg.example");
        let many = limits::ELEMENT_ENDED_MAX + 1;
        let user = operator.user();
        fill(&app, 0, many, |_| Who::User(user.clone())).await;
        let end = r#"{"method":"DeleteAuthSessionsByUsername"}"#;
        let answer = called(&app, &operator, end).await.expect("all have ended");
        let text = std::str::from_utf8(&answer).expect("text");
        assert_eq!(text.matches("\"sessionID\"").count(), many);
        assert!(app.directory().is_empty());
    }
}
