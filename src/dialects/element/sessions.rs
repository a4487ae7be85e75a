//! The six methods of auth sessions (`docs/protocol/element.md` B2 and B3).
//!
//! Sessions of users have `authMethod` `Cluster` and the user's e-mail address as `username`; those
//! of applications have `Idp` and the key of their thing. `finalTimeout` of a session that is bound
//! to its connection, and so ends at no known time, is the end of the year 9999.

use std::io::Write as _;
use std::sync::Arc;

use base::{
    Clock, SessionUuid, ThingKey, Timestamp,
    json::{self, Key, ObjectWriter, key},
    limits,
};
use rules::directory::{Lifetime, OrgContext, Principal, Session, Who};

use super::admins;
use super::auth::Caller;
use super::error::{self, Error};
use super::methods::{Call, Task};
use super::request::Params;
use crate::app::App;

/// About the bytes of one session in an answer.
const SESSION_BYTES: usize = 400;

/// Which sessions a list is of.
#[derive(Debug)]
pub(super) enum Wanted {
    /// All that the caller sees.
    All,
    /// Those of some logins, as far as the caller sees them.
    Of(Vec<Principal>),
}

/// How somebody was authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AuthMethod {
    Cluster,
    Ldap,
    Idp,
}

const AUTH_METHODS: &[(&str, AuthMethod)] =
    &[("Cluster", AuthMethod::Cluster), ("Ldap", AuthMethod::Ldap), ("Idp", AuthMethod::Idp)];

/// `ListActiveAuthSessions`.
pub(super) fn list_active(call: &Call<'_>, _: &Params<'_>) -> Result<Task, Error> {
    match call.caller.sees_others() {
        true => Ok(Task::List(Wanted::All)),
        false => Err(Error::denied("Only administrators may list the sessions of all.")),
    }
}

/// `ListAuthSessionsByUsername`.
pub(super) fn list_by_username(call: &Call<'_>, params: &Params<'_>) -> Result<Task, Error> {
    let logins = logins_named(call, params, call.caller.sees_others())?;
    Ok(Task::List(Wanted::Of(logins)))
}

/// `ListAuthSessionsByClusterAdmin`.
pub(super) fn list_by_admin(call: &Call<'_>, params: &Params<'_>) -> Result<Task, Error> {
    let logins = admins::named(call, params, call.caller.sees_others())?;
    Ok(Task::List(Wanted::Of(logins)))
}

/// `DeleteAuthSession`.
pub(super) fn delete(call: &Call<'_>, params: &Params<'_>) -> Result<Task, Error> {
    let uuid: Option<SessionUuid> = params.parsed("sessionID", "a UUID")?;
    let found = uuid.and_then(|uuid| call.app.directory().by_uuid(uuid));
    let visible = |session: &Arc<Session>| session.end().is_none() && call.caller.sees(session);
    let session = found.filter(visible).ok_or_else(no_such_session)?;
    match call.caller.may_end(&session) {
        true => Ok(Task::EndOne(session)),
        false => Err(Error::denied("Only administrators may end sessions of others.")),
    }
}

/// There is none that the caller sees. Which one is meant is not said: whoever asks knows.
pub(super) fn no_such_session() -> Error {
    Error::new(error::NO_SUCH_SESSION, "There is no such session.")
}

/// `DeleteAuthSessionsByUsername`.
pub(super) fn delete_by_username(call: &Call<'_>, params: &Params<'_>) -> Result<Task, Error> {
    end_all(call, &logins_named(call, params, call.caller.ends_others())?)
}

/// `DeleteAuthSessionsByClusterAdmin`.
pub(super) fn delete_by_admin(call: &Call<'_>, params: &Params<'_>) -> Result<Task, Error> {
    end_all(call, &admins::named(call, params, call.caller.ends_others())?)
}

/// Ends the sessions of these logins that the caller may end: all, or none if they are too many.
fn end_all(call: &Call<'_>, logins: &[Principal]) -> Result<Task, Error> {
    let of = |login| call.app.directory().of_principal(login);
    let mut sessions: Vec<_> = logins.iter().flat_map(of).collect();
    sessions.retain(|session| call.caller.may_end(session));
    // Those of one login are never too many.
    let most = call.app.directory().config().per_principal_max.max(limits::ELEMENT_ENDED_MAX);
    if sessions.len() > most {
        let message = format!("These are more than {most} sessions; none of them has ended.");
        return Err(Error::new(error::EXCEEDED_LIMIT, message));
    }
    Ok(Task::End(sessions))
}

/// The logins that `username` and `authMethod` mean: without both the caller's own, without
/// `authMethod` users as well as things of this name. Who may not look at others may name only
/// themselves.
fn logins_named(
    call: &Call<'_>,
    params: &Params<'_>,
    may_name_others: bool,
) -> Result<Vec<Principal>, Error> {
    let method = params.word("authMethod", AUTH_METHODS)?;
    let name = params.text("username")?;
    let (app, caller) = (call.app, call.caller);
    let user = match &name {
        Some(name) => app.identity().user_by_email(name).map(|user| Principal::User(user.id)),
        None => Some(caller.principal()),
    };
    let user = user.filter(|_| matches!(method, None | Some(AuthMethod::Cluster)));
    if !may_name_others {
        let own = user.filter(|user| *user == caller.principal());
        let own = own.ok_or_else(|| Error::denied("Only administrators may name another user."))?;
        return Ok(vec![own]);
    }
    let mut logins: Vec<_> = user.into_iter().collect();
    if matches!(method, None | Some(AuthMethod::Idp))
        && let Some(key) = name.as_deref().and_then(|name| ThingKey::parse(name).ok())
    {
        let things = caller.orgs(app).into_iter();
        logins.extend(things.map(|org| Principal::Thing(org, key.clone())));
    }
    Ok(logins)
}

/// The result of a list: live sessions, oldest first.
///
/// # Errors
///
/// There are more than one answer holds.
pub(super) fn write_list(
    out: &mut Vec<u8>,
    app: &App,
    caller: &Caller,
    wanted: &Wanted,
) -> Result<(), Error> {
    let sessions = found(app, caller, wanted)?;
    out.reserve(sessions.len() * SESSION_BYTES);
    out.extend_from_slice(br#"{"sessions":["#);
    let mut comma = false;
    for session in &sessions {
        session.with_context(|context| {
            // It may have ended, or gone to another organisation, since it was found.
            if session.end().is_none() && caller.sees_in(session, context.access.org.id) {
                push_comma(out, &mut comma);
                write(out, session, context, &app.clock);
            }
        });
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

fn found(app: &App, caller: &Caller, wanted: &Wanted) -> Result<Vec<Arc<Session>>, Error> {
    let directory = &app.directory();
    let mut found: Vec<_> = match wanted {
        Wanted::Of(logins) => {
            logins.iter().flat_map(|login| directory.of_principal(login)).collect()
        }
        Wanted::All => match caller.orgs(app)[..] {
            // A session that moves from one organisation to another could be missed in both.
            _ if caller.sees_all() => directory.all(),
            [org] => {
                let own = directory.of_principal(&caller.principal());
                directory.in_org(org).into_iter().chain(own).collect()
            }
            _ => directory.all(),
        },
    };
    found.retain(|session| caller.sees(session));
    if found.len() > limits::ELEMENT_LISTED_MAX {
        let most = limits::ELEMENT_LISTED_MAX;
        let message = format!("These are more than {most} sessions; list those of one user.");
        return Err(Error::new(error::EXCEEDED_LIMIT, message));
    }
    found.sort_unstable_by_key(|session| session.mark());
    found.dedup_by_key(|session| session.mark());
    Ok(found)
}

/// The result of ending one session, as it was.
pub(super) fn write_ended(out: &mut Vec<u8>, session: &Session, clock: &Clock) {
    out.extend_from_slice(br#"{"session":"#);
    session.with_context(|context| write(out, session, context, clock));
    out.push(b'}');
}

/// The result of ending some sessions, as they were.
pub(super) fn write_all_ended<'s>(
    out: &mut Vec<u8>,
    sessions: impl Iterator<Item = &'s Arc<Session>>,
    clock: &Clock,
) {
    out.extend_from_slice(br#"{"sessions":["#);
    let mut comma = false;
    for session in sessions {
        push_comma(out, &mut comma);
        session.with_context(|context| write(out, session, context, clock));
    }
    out.extend_from_slice(b"]}");
}

fn push_comma(out: &mut Vec<u8>, comma: &mut bool) {
    if *comma {
        out.push(b',');
    }
    *comma = true;
}

/// An `AuthSessionInfo`.
fn write(out: &mut Vec<u8>, session: &Session, context: &OrgContext, clock: &Clock) {
    let access = &context.access;
    let end = match session.lifetime() {
        Lifetime::Connection => Timestamp::NEVER,
        Lifetime::Until(end) => end,
    };
    let mut object = ObjectWriter::new(out);
    let access = admins::access(access.administers_here(), access.super_ops);
    object.name(key!("accessGroupList")).extend_from_slice(access);
    let (method, username) = match session.who() {
        Who::User(user) => {
            let numbers = object.name(key!("clusterAdminIDs"));
            numbers.push(b'[');
            json::push_integer(numbers, admins::number_of(user.id));
            numbers.push(b']');
            ("Cluster", user.email.as_str())
        }
        Who::Application { thing_key, .. } => {
            object.name(key!("clusterAdminIDs")).extend_from_slice(b"[]");
            ("Idp", thing_key.as_str())
        }
    };
    object.string(key!("authMethod"), method);
    write_time(&mut object, key!("finalTimeout"), clock.shown(end));
    object.integer(key!("idpConfigVersion"), 0);
    write_time(&mut object, key!("lastAccessTimeout"), clock.shown(session.deadline().0));
    write_time(&mut object, key!("sessionCreationTime"), clock.shown(session.started()));
    let uuid = object.name(key!("sessionID"));
    // Writing to a Vec can't fail.
    let _ = write!(uuid, "\"{}\"", session.uuid());
    object.string(key!("username"), username);
    object.end();
}

/// A point in time in whole seconds: `2020-03-11T19:51:24Z`.
fn write_time(object: &mut ObjectWriter<'_>, key: Key, time: Timestamp) {
    let out = object.name(key);
    let text = time.to_rfc3339();
    out.push(b'"');
    out.extend_from_slice(text.get(..19).unwrap_or_default());
    out.extend_from_slice(b"Z\"");
}
