//! `user.invite.*`: what organisations offer to users who have their home elsewhere. The user
//! decides. Until then an invitation gives no rights, and the organisation knows the address alone.
//!
//! Invitations are made by `user.org.add`, and by `user.create` with the address of such a user.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use base::{Code, Failure, OrgId, Timestamp, UserId, excerpt, limits};
use rules::directory::Who;
use rules::identity::model::{Membership, User};
use rules::identity::{Invite, Inviter};
use serde::Serialize;

use super::authorize;
use super::commands;
use crate::app::{Affected, Effects};
use crate::random::random;
use crate::tr50::params::{NoParams, missing, params};
use crate::tr50::step::{After, Call, Done};
use crate::tr50::strict::Strict;

commands! {
    act "user.invite.accept" => accept where check_is_user, [NOT_FOUND, WRONG_SESSION_KIND, BUSY],
        "Makes the caller a member of an organisation that invites them; without parameters, of the \
         only one that does. Roles that are gone meanwhile are left out. An invitation whose inviter \
         may not give any more what it offers is none.",
        "";
    act "user.invite.decline" => decline where check_is_user, [NOT_FOUND, WRONG_SESSION_KIND],
        "Declines an invitation; without parameters, the only one. The organisation can invite again.",
        "";
    "user.invite.list" => list where check_is_user, [WRONG_SESSION_KIND],
        "Lists the organisations that invite the caller, by key, and what they offer.",
        "`count`, `result`";
}

params! {
    /// Which invitation.
    pub struct FindParams {
        optional org_id: OrgId = "orgId", "The id of the organisation that invites.";
        optional_exact org_key: String = "orgKey", "Its key, instead.";
    }
}

/// An invitation, as the one who is invited sees it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InviteView {
    org_id: OrgId,
    org_key: String,
    org_name: String,
    invited_by: String,
    invited_on: Timestamp,
    is_org_admin: bool,
    allow_sub_org_access: bool,
    roles: Vec<String>,
}

/// The reply of `user.invite.list`.
#[derive(Serialize)]
pub struct InviteList {
    count: usize,
    result: Vec<InviteView>,
}

/// A user who is invited, as the organisation that does so sees them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingView {
    email_address: String,
    pending: bool,
}

impl PendingView {
    /// All that is known of the user.
    pub fn of(user: &User) -> Self {
        Self { email_address: user.email.clone(), pending: true }
    }
}

/// `user.invite.list`.
pub fn list(call: &Call<'_>, Strict(_): Strict<NoParams>) -> Result<InviteList, Failure> {
    let user = own(call)?;
    let identity = &call.app.identity();
    let view = |invite: &Invite| {
        let terms = &invite.terms;
        let org = identity.org(terms.org)?;
        let role = |id| identity.role_within(id, org.id).map(|granted| granted.role.key.clone());
        Some(InviteView {
            org_id: org.id,
            org_key: org.key.clone(),
            org_name: org.name.clone(),
            invited_by: terms.added_by.clone(),
            invited_on: terms.added_on,
            is_org_admin: terms.org_admin,
            allow_sub_org_access: terms.sub_orgs,
            roles: terms.roles.iter().filter_map(|id| role(*id)).collect(),
        })
    };
    let offered = user.invites.iter().filter(|invite| identity.is_offered(invite));
    let mut result: Vec<_> = offered.filter_map(view).collect();
    result.sort_by_cached_key(|invite| invite.org_key.to_lowercase());
    Ok(InviteList { count: result.len(), result })
}

/// `user.invite.accept`.
pub fn accept(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<After<Done>, Failure> {
    let identity = &call.app.identity();
    let turn = identity.turn();
    let (mut user, invite) = which.take(call)?;
    let mut terms = invite.terms;
    authorize::check_room(identity.users_of(terms.org).len(), "users")?;
    terms.roles.retain(|role| identity.role_within(*role, terms.org).is_some());
    terms.added_on = call.now;
    user.memberships.retain(|held| held.org != terms.org);
    user.memberships.push(terms);
    let affected = Affected::User(user.id);
    Ok(After(Done, Effects::from(turn.put(user)).followed_by(affected)))
}

/// `user.invite.decline`.
pub fn decline(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let (user, _) = which.take(call)?;
    Ok(After(Done, turn.put(user).into()))
}

fn check_is_user(call: &Call<'_>) -> Result<(), Failure> {
    own(call).map(drop)
}

fn own(call: &Call<'_>) -> Result<Arc<User>, Failure> {
    call.user().ok_or_else(|| {
        Failure::new(Code::WRONG_SESSION_KIND, "An application is no user, whom nobody invites.")
    })
}

impl FindParams {
    /// The caller without the invitation, and that.
    fn take(&self, call: &Call<'_>) -> Result<(User, Invite), Failure> {
        let mut user = User::clone(&*own(call)?);
        let identity = &call.app.identity();
        let is_named = |invite: &&Invite| match (self.org_id, &self.org_key) {
            (Some(id), _) => invite.terms.org == id,
            (None, Some(key)) => {
                identity.org_by_key(key).is_some_and(|org| org.id == invite.terms.org)
            }
            (None, None) => true,
        };
        let offered = user.invites.iter().filter(|invite| identity.is_offered(invite));
        let mut named = offered.filter(is_named);
        let found = named.next().cloned();
        if named.next().is_some() {
            return Err(missing("orgId"));
        }
        let found = found.ok_or_else(|| {
            let id = self.org_id.map(|id| id.to_string());
            let name = id.or_else(|| self.org_key.as_deref().map(excerpt));
            let of = name.map_or_else(String::new, |name| format!(" to organisation \"{name}\""));
            Failure::not_found(format!("An invitation{of}"))
        })?;
        user.invites.retain(|invite| invite.terms.org != found.terms.org);
        Ok((user, found))
    }
}

/// Offers a membership to a user, in place of what the organisation has offered before: the id
/// under which it knows the user, and the user's record.
pub(super) fn offer(
    call: &Call<'_>,
    user: &User,
    terms: Membership,
) -> Result<(UserId, User), Failure> {
    let by = match call.session.who() {
        Who::User(user) => Inviter::User(user.id),
        Who::Application { application, .. } => Inviter::Application(application.id),
    };
    let mut user = user.clone();
    let before = user.invites.iter().position(|invite| invite.terms.org == terms.org);
    let id = match before {
        Some(place) => user.invites.remove(place).id,
        None => {
            user.invites.retain(|invite| call.app.identity().is_offered(invite));
            make_room(call, &mut user, terms.org, by)?;
            UserId::from_bytes(random()?)
        }
    };
    user.invites.push(Invite { id, terms, by });
    Ok((id, user))
}

/// Makes room for an invitation by this organisation. Who has as many as can wait loses the oldest of
/// the tenant that has most of them, if that leaves it as many as this one's has then.
fn make_room(call: &Call<'_>, user: &mut User, org: OrgId, by: Inviter) -> Result<(), Failure> {
    let invited = call.app.identity().invited_to(org);
    let is_own = |invite: &&Invite| invite.terms.org == org && invite.by == by;
    let own = invited.iter().flat_map(|user| &user.invites).filter(is_own).count();
    for (who, count, most) in [
        ("The organisation has", invited.len(), limits::INVITES_PER_ORG_MAX),
        ("You have made", own, limits::INVITES_PER_INVITER_MAX),
    ] {
        if count >= most {
            let sentence =
                format!("{who} {most} invitations that wait, which is all there may be.");
            return Err(Failure::new(Code::BUSY, sentence));
        }
    }
    if user.invites.len() < limits::INVITES_PER_USER_MAX {
        return Ok(());
    }
    let tenant_of = |invite: &Invite| call.app.pools.tenant_of(invite.terms.org);
    let mut counts = HashMap::<OrgId, usize>::new();
    for invite in &user.invites {
        *counts.entry(tenant_of(invite)).or_default() += 1;
    }
    let of = |tenant| counts.get(&tenant).copied().unwrap_or(0);
    let oldest_of_most = |invite: &&Invite| (Reverse(of(tenant_of(invite))), invite.terms.added_on);
    let loser = user.invites.iter().min_by_key(oldest_of_most);
    let own = of(call.app.pools.tenant_of(org));
    let Some(loser) = loser.filter(|loser| of(tenant_of(loser)) > own + 1).map(|loser| loser.id)
    else {
        let sentence = format!(
            "{} has as many invitations as can wait, and your organisation its share of them.",
            user.email
        );
        return Err(Failure::new(Code::BUSY, sentence));
    };
    user.invites.retain(|invite| invite.id != loser);
    Ok(())
}

/// The user who is invited into an organisation, named by the id of the invitation or by the
/// address, and the invitation, if the caller may act there.
pub(super) fn pending(
    call: &Call<'_>,
    id: Option<UserId>,
    email: Option<&str>,
    org: OrgId,
) -> Option<(Arc<User>, Invite)> {
    let identity = &call.app.identity();
    let user = match id {
        Some(id) => identity.user_by_invite(id)?,
        None => identity.user_by_email(email?)?,
    };
    let invite = user.invites.iter().find(|invite| invite.terms.org == org)?.clone();
    // Also one that is not offered now: it would be again when its inviter may give that again.
    let is_it = id.is_none_or(|id| invite.id == id);
    (is_it && authorize::may_act_in(call, org)).then_some((user, invite))
}

/// The user without an invitation.
pub(super) fn without(user: &User, invite: &Invite) -> User {
    let mut user = user.clone();
    user.invites.retain(|other| other.id != invite.id);
    user
}
