//! Login sessions of a user: listing and revoking them (`docs/protocol/cognite.md` A2, A5).

use std::sync::Arc;

use base::{Clock, OrgId, SessionUuid, Timestamp, limits};
use rules::directory::{Principal, Session, Status, siblings::Mark};
use rules::identity::model::{Org, User};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Account;
use super::cursor::Cursors;
use super::error::{self, Error, Reference};
use super::principals::millis;
use super::query::Above;
use super::{Asked, Page};
use crate::app::{App, Effects, SessionChange};

/// One login of a user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoginSession {
    /// The session's public handle, a UUID. It is no secret.
    #[schema(value_type = String, format = "uuid")]
    id: SessionUuid,
    /// When it started, in milliseconds since 1970 (UTC).
    #[schema(minimum = 0)]
    created_time: i64,
    /// What became of it.
    status: Status,
    /// When it ended, in milliseconds since 1970 (UTC); absent while it is `ACTIVE`. A later
    /// revocation does not change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    deactivated_time: Option<i64>,
}

/// Which sessions are to be revoked.
#[derive(Deserialize, ToSchema)]
pub struct SessionReferences {
    /// 1 to 10 of them.
    #[schema(min_items = 1, max_items = 10)]
    items: Vec<SessionReference>,
}

/// A session by its id; what else it says is ignored.
#[derive(Deserialize, ToSchema)]
pub struct SessionReference {
    /// The session's UUID.
    #[schema(format = "uuid")]
    id: String,
}

/// Lists the login sessions of a user that are in the organisation, or ended there.
///
/// Those that live and those that ended lately, the last that started first. A session keeps its
/// place when it ends, so that no page repeats or misses one, whatever happens in between. The
/// caller has to be an administrator of this very organisation; the right of an administrator above
/// it is not enough. A page may have fewer items than asked for, and a `nextCursor` all the same.
#[utoipa::path(
    get,
    path = "/api/v1/orgs/{org}/principals/{principal}/sessions",
    operation_id = "listLoginSessionsForUserPrincipal",
    tag = "Login sessions",
    params(
        ("org" = String, Path, description = "The organisation's slug.",
            pattern = "^([a-z][a-z0-9-]{1,62}[a-z0-9])$"),
        ("principal" = String, Path, description = "The user's id."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
            description = "Items on the page at most; 100 by default."),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before."),
    ),
    responses(
        (status = 200, body = Page<LoginSession>, description = "A page."),
        (status = 400, body = error::Body, description = "`limit` or `cursor` is wrong."),
        (status = 401, body = error::Body, description = "No session and no token."),
        (status = 403, body = error::Body,
            description = "Not an administrator of this organisation, no such organisation, or the principal is a service account."),
        (status = 404, body = error::Body, description = "The organisation has no such principal."),
    )
)]
pub fn list(asked: &Asked<'_>, org: &str, principal: &str) -> Result<Page<LoginSession>, Error> {
    let org = asked.org_where(org, |caller, org| caller.may_list_in(org))?;
    let user = user_in(asked, &org, principal)?;
    let limit = asked.query.limit(
        limits::LOGIN_SESSIONS_PAGE,
        limits::LOGIN_SESSIONS_PAGE_MAX,
        Above::IsRefused,
    )?;
    let cursors = Cursors::new(asked.secret, "sessions", org.id, user.id.as_bytes());
    let after = cursors.read(&asked.query)?.map(mark_of);
    let (sessions, next) = page(asked.app, &user, org.id, after, limit);
    Ok(Page {
        items: sessions.iter().map(|session| LoginSession::of(session, &asked.app.clock)).collect(),
        next_cursor: next.map(|mark| cursors.write(&key_of(mark))),
    })
}

/// Ends login sessions of a user: their connections close at once, their ids are refused.
///
/// All or none: if one of them can't be revoked, nothing happens. One that has ended otherwise
/// becomes `REVOKED`, too; one that is revoked stays as it is. The caller has to be an
/// administrator of this very organisation.
#[utoipa::path(
    post,
    path = "/api/v1/orgs/{org}/principals/{principal}/sessions/revoke",
    operation_id = "revokeLoginSessionsForUserPrincipal",
    tag = "Login sessions",
    params(
        ("org" = String, Path, description = "The organisation's slug."),
        ("principal" = String, Path, description = "The user's id."),
    ),
    request_body = SessionReferences,
    responses(
        (status = 204, description = "They are revoked, and that is durable."),
        (status = 400, body = error::Body, description = "The body is wrong."),
        (status = 401, body = error::Body, description = "No session and no token."),
        (status = 403, body = error::Body,
            description = "Not an administrator of this organisation, no such organisation, or the principal is a service account."),
        (status = 404, body = error::Body,
            description = "The organisation has no such principal, or the user has no such session in it: then `missing` lists them."),
    )
)]
pub async fn revoke(asked: &Asked<'_>, org: &str, principal: &str) -> Result<(), Error> {
    let revoked = try_revoke(asked, org, principal).await;
    if let Err(error) = &revoked {
        let who = (asked.caller.org.id, asked.caller.principal());
        let deed = asked.caller.deed(REVOKE, asked.conn);
        let (code, message) = error.described();
        asked.app.note_refused_by(who, asked.conn, deed, (code.into(), message), asked.now);
    }
    revoked
}

/// What the trail calls it.
const REVOKE: &str = "revokeLoginSessionsForUserPrincipal";

async fn try_revoke(asked: &Asked<'_>, org: &str, principal: &str) -> Result<(), Error> {
    let org = asked.org_where(org, |caller, org| caller.may_revoke_in(org))?;
    let user = user_in(asked, &org, principal)?;
    let wanted: SessionReferences = asked.body()?;
    let max = limits::LOGIN_SESSIONS_REVOKED_MAX;
    if !(1..=max).contains(&wanted.items.len()) {
        return Err(Error::parameter("items", &format!("has to have 1 to {max} items")));
    }
    let mut uuids = Vec::new();
    for SessionReference { id } in &wanted.items {
        let uuid: Result<SessionUuid, _> = id.parse();
        uuids.push(uuid.map_err(|_| Error::parameter("id", "has to be a UUID"))?);
    }
    let principal = Principal::User(user.id);
    let of_user = |s: &Arc<Session>| s.who().principal() == principal && s.org_id() == org.id;
    let (mut sessions, mut missing) = (Vec::new(), Vec::new());
    for uuid in uuids {
        match asked.app.directory().by_uuid(uuid).filter(of_user) {
            Some(session) => sessions.push(session),
            None => missing.push(Reference::Id(uuid.to_string())),
        }
    }
    if !missing.is_empty() {
        let message = "The user has no such session in this organisation; none was revoked.";
        return Err(Error::not_found(message).with_missing(missing));
    }
    let effects = Effects::on_sessions(sessions.into_iter().map(SessionChange::Revoke));
    let deed = asked.caller.deed(REVOKE, asked.conn);
    Ok(asked.app.apply(effects.closing_at_once().by(deed), asked.now).await.stored?)
}

/// The user with this id in the organisation.
fn user_in(asked: &Asked<'_>, org: &Org, principal: &str) -> Result<Arc<User>, Error> {
    match asked.principal_in(org.id, principal) {
        Some(Account::User(user)) => Ok(user),
        Some(Account::Application(_)) => Err(Error::service_account()),
        None => Err(Error::not_found("The organisation has no such principal.")),
    }
}

/// At most `limit` sessions of the user in the organisation, from behind `after` on, and where the
/// next page begins, if there may be one.
///
/// Organisations are compared here and not in the directory: there a lock is held that has no room
/// for those of the sessions.
fn page(
    app: &App,
    user: &User,
    org: OrgId,
    mut after: Option<Mark>,
    limit: usize,
) -> (Vec<Arc<Session>>, Option<Mark>) {
    let (mut found, mut looked_at) = (Vec::new(), 0);
    loop {
        // One more tells whether another page follows. Not one by one: most may be elsewhere.
        let wanted = (limit + 1 - found.len()).max(limits::LOGIN_SESSIONS_STEP_MIN);
        let step = app.directory().page_of_principal(&Principal::User(user.id), after, wanted);
        looked_at += step.len();
        let last = step.last().map(|session| session.mark());
        let is_end = step.len() < wanted;
        found.extend(step.into_iter().filter(|session| session.org_id() == org));
        if found.len() > limit {
            found.truncate(limit);
            let next = found.last().map(|session| session.mark());
            return (found, next);
        }
        if is_end {
            return (found, None);
        }
        if looked_at >= limits::LOGIN_SESSIONS_LOOKED_AT_MAX {
            // The rest is elsewhere, mostly; the next page looks on.
            return (found, last);
        }
        after = last;
    }
}

fn key_of(mark: Mark) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&mark.started.as_millis().to_be_bytes());
    key[8..].copy_from_slice(mark.uuid.as_bytes());
    key
}

fn mark_of(key: [u8; 24]) -> Mark {
    let (mut started, mut uuid) = ([0; 8], [0; 16]);
    started.copy_from_slice(&key[..8]);
    uuid.copy_from_slice(&key[8..]);
    let started = Timestamp::from_millis(i64::from_be_bytes(started));
    Mark { started, uuid: SessionUuid::from_bytes(uuid) }
}

impl LoginSession {
    fn of(session: &Session, clock: &Clock) -> Self {
        // Asked once: it may end right now.
        let end = session.end();
        Self {
            id: session.uuid(),
            created_time: millis(clock.shown(session.started())),
            status: end.map_or(Status::Active, |end| end.reason.status()),
            deactivated_time: end.map(|end| millis(clock.shown(end.at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_a_type_of_event() {
        assert!(crate::events::ACTS.contains(&REVOKE));
    }
}
