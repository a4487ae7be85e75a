//! `user.org.*`: memberships of users in organisations (`docs/protocol/tr50.md` 4.1 and 4.5).

use std::sync::Arc;

use base::{Code, Failure, OrgId, RoleId, Timestamp, UserId, excerpt};
use rules::directory::Principal;
use rules::identity::model::{Membership, Org, User};
use rules::identity::permission::Permission;
use serde::Serialize;

use super::authorize::{self, Edit};
use super::commands;
use super::session::org_switch;
use super::user::is_visible;
use crate::app::{Affected, Effects};
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done};

commands! {
    "user.org.add" => add, [NOT_FOUND, ALREADY_EXISTS, BUSY],
        "Makes a user a member of an organisation. Nobody can grant what they do not hold there.",
        "";
    "user.org.find" => find, [NOT_FOUND],
        "Shows what a user is in an organisation.",
        "`addedBy`, `addedOn`, `allowSubOrgAccess`, `orgId`, `orgKey`, `isOrgAdmin`, `roles`, `tags`";
    "user.org.list" => list, [NOT_FOUND],
        "Lists what a user is in all organisations; without parameters the caller.",
        "`result`";
    "user.org.remove" => remove, [NOT_FOUND, IN_USE],
        "Ends a user's membership of an organisation. The user's live sessions there end as revoked. \
         Who was at home there is so in another organisation of theirs; it must not be the only one.",
        "";
    "user.org.set" => org_switch, [NOT_FOUND, WRONG_SESSION_KIND],
        "Moves the session to another organisation, as `session.org.switch`; the name of the API of \
         2012.",
        "";
    "user.org.update" => update, [NOT_FOUND],
        "Changes what a user is in an organisation. The user's live sessions have the new rights when \
         the reply comes.",
        "";
}

params! {
    /// Which user in which organisation.
    pub struct FindParams {
        optional user_id: UserId = "userId", "The user's id; the caller by default.";
        optional_exact email_address: String = "emailAddress", "The user's e-mail address, instead.";
        optional org_id: OrgId = "orgId", "The organisation's id; the current one by default.";
    }
}

params! {
    /// What the user is there.
    pub struct UpdateParams {
        optional roles: Vec<String> = "roles", "The roles held there, by id or key.";
        optional is_org_admin: bool = "isOrgAdmin", "Everything there and below.";
        optional sub_orgs: bool = "allowSubOrgAccess", "The same roles in all organisations below.";
        optional tags: Vec<String> = "tags", "Security tags; kept, without effect here.";
        optional unset: Vec<String> = "unset", "Members to empty.";
    }
}

/// What a user is in an organisation, on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessView {
    added_by: String,
    added_on: Timestamp,
    allow_sub_org_access: bool,
    org_id: OrgId,
    org_key: String,
    is_org_admin: bool,
    roles: Vec<RoleId>,
    tags: Vec<String>,
}

/// The reply of `user.org.list`.
#[derive(Serialize)]
pub struct AccessList {
    result: Vec<AccessView>,
}

impl AccessView {
    /// A membership; without one what the user is all the same, at home or as super administrator.
    fn of(call: &Call<'_>, user: &User, org: &Arc<Org>) -> Option<Self> {
        let access = call.app.identity().user_access(user, org)?;
        let held = user.memberships.iter().find(|held| held.org == org.id);
        let (added_by, added_on) = match held {
            Some(held) => (&held.added_by, held.added_on),
            None => (&user.created_by, user.created_on),
        };
        Some(Self {
            added_by: added_by.clone(),
            added_on,
            allow_sub_org_access: access.allow_sub_org_access.unwrap_or(true),
            org_id: org.id,
            org_key: org.key.clone(),
            is_org_admin: access.administers_here(),
            roles: held.map_or_else(Vec::new, |held| held.roles.clone()),
            tags: held.map_or_else(Vec::new, |held| held.tags.clone()),
        })
    }
}

impl FindParams {
    /// The user; without parameters the caller. Who may ask for nobody else learns nothing of who
    /// exists.
    fn user(&self, call: &Call<'_>) -> Result<Arc<User>, Failure> {
        if self.user_id.is_none() && self.email_address.is_none() {
            return call.user().ok_or_else(|| missing("userId"));
        }
        match self.named(call) {
            Some(user) => Ok(user),
            None if may_ask(call) => Err(self.not_found()),
            None => Err(only_themselves()),
        }
    }

    /// The user that the parameters name, even one whom the caller can't see yet.
    fn named(&self, call: &Call<'_>) -> Option<Arc<User>> {
        let identity = &call.app.identity();
        match (self.user_id, &self.email_address) {
            (Some(id), _) => identity.user(id),
            (None, Some(email)) => identity.user_by_email(email),
            (None, None) => None,
        }
    }

    fn not_found(&self) -> Failure {
        let id = self.user_id.map(|id| id.to_string());
        let named = id.or_else(|| self.email_address.clone()).unwrap_or_default();
        Failure::not_found(format!("User \"{}\"", excerpt(&named)))
    }

    /// The user that the caller wants to change, and the organisation, in which the caller may act.
    fn subject(&self, call: &Call<'_>) -> Result<(User, Arc<Org>), Failure> {
        if self.user_id.is_none() && self.email_address.is_none() {
            return Err(missing("userId"));
        }
        let org = authorize::resolve_org(call, self.org_id)?;
        let user = self.named(call).ok_or_else(|| self.not_found())?;
        Ok((User::clone(&user), org))
    }
}

impl UpdateParams {
    /// Changes the membership. The caller must be able to grant what it was and what it becomes.
    fn apply(self, call: &Call<'_>, held: &mut Membership) -> Result<(), Failure> {
        check_may_grant(call, held)?;
        let edit = Edit::new(self.unset);
        if let Some(roles) = self.roles {
            held.roles = authorize::resolve_roles(call, held.org, &roles)?;
        } else if edit.unsets("roles") {
            held.roles.clear();
        }
        edit.flag("isOrgAdmin", &mut held.org_admin, self.is_org_admin);
        edit.flag("allowSubOrgAccess", &mut held.sub_orgs, self.sub_orgs);
        edit.list("tags", &mut held.tags, self.tags)?;
        check_may_grant(call, held)
    }
}

/// Fails unless the caller may grant the membership, and so change or end it.
fn check_may_grant(call: &Call<'_>, held: &Membership) -> Result<(), Failure> {
    authorize::check_flags(call, false, held.org_admin || held.sub_orgs)?;
    authorize::check_held(call, held.org, &held.roles)
}

/// Whether the user is the caller. Of others, only who may use `user.find` can ask.
fn is_own(call: &Call<'_>, user: &User) -> Result<bool, Failure> {
    if call.session.who().principal() == Principal::User(user.id) {
        return Ok(true);
    }
    if may_ask(call) { Ok(false) } else { Err(only_themselves()) }
}

fn may_ask(call: &Call<'_>) -> bool {
    Permission::named("user.find").is_some_and(|find| call.session.may(find))
}

fn only_themselves() -> Failure {
    let sentence = "Without permission for user.find, users can ask for themselves only.";
    Failure::new(Code::PERMISSION_DENIED, sentence)
}

/// `user.org.find`.
pub fn find(call: &Call<'_>, which: FindParams) -> Result<AccessView, Failure> {
    let user = which.user(call)?;
    let own = is_own(call, &user)?;
    let identity = &call.app.identity();
    let id = which.org_id.unwrap_or_else(|| call.session.org_id());
    let access = call.session.access();
    let org = identity.org(id).filter(|org| {
        own || access.super_ops || authorize::may_act_in(call, org.id) && is_visible(call, &user)
    });
    let found = org.and_then(|org| AccessView::of(call, &user, &org));
    found.ok_or_else(|| {
        Failure::not_found(format!("Access of \"{}\" to organisation \"{id}\"", user.id))
    })
}

/// `user.org.list`: of another user only what is in the caller's reach.
pub fn list(call: &Call<'_>, which: FindParams) -> Result<AccessList, Failure> {
    let user = which.user(call)?;
    let own = is_own(call, &user)?;
    if !is_visible(call, &user) {
        return Err(which.not_found());
    }
    let access = call.session.access();
    let identity = &call.app.identity();
    let orgs = user.memberships.iter().map(|held| held.org);
    let mut orgs: Vec<_> = orgs.chain([user.home]).filter_map(|org| identity.org(org)).collect();
    orgs.sort_by_cached_key(|org| org.key.to_lowercase());
    orgs.dedup_by_key(|org| org.id);
    orgs.retain(|org| own || access.super_ops || authorize::may_act_in(call, org.id));
    let result = orgs.iter().filter_map(|org| AccessView::of(call, &user, org)).collect();
    Ok(AccessList { result })
}

/// `user.org.add`.
pub fn add(
    call: &Call<'_>,
    (which, members): (FindParams, UpdateParams),
) -> Result<After<Done>, Failure> {
    let identity = &call.app.identity();
    let turn = identity.turn();
    let (mut user, org) = which.subject(call)?;
    if user.memberships.iter().any(|held| held.org == org.id) {
        let sentence = format!("{} is a member of {} already.", user.email, org.key);
        return Err(Failure::new(Code::ALREADY_EXISTS, sentence));
    }
    authorize::check_room(identity.users_of(org.id).len(), "users")?;
    authorize::check_room(user.memberships.len(), "members like this user")?;
    let mut held = Membership {
        org: org.id,
        roles: Vec::new(),
        org_admin: false,
        sub_orgs: false,
        tags: Vec::new(),
        added_on: call.now,
        added_by: authorize::author(call),
    };
    members.apply(call, &mut held)?;
    user.memberships.push(held);
    let affected = Affected::User(user.id);
    Ok(After(Done, Effects::from(turn.put(user)).followed_by(affected)))
}

/// `user.org.update`.
pub fn update(
    call: &Call<'_>,
    (which, members): (FindParams, UpdateParams),
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let (mut user, org) = which.subject(call)?;
    let held = user.memberships.iter_mut().find(|held| held.org == org.id);
    members.apply(call, held.ok_or_else(|| no_member(&which, &org))?)?;
    let affected = Affected::User(user.id);
    Ok(After(Done, Effects::from(turn.put(user)).followed_by(affected)))
}

/// `user.org.remove`. At home everyone may enter, so a membership there would be gone and the
/// access not: a user who is a member elsewhere is at home there from then on. Otherwise whoever
/// chose an organisation as home could not be removed from it by its administrators.
pub fn remove(call: &Call<'_>, which: FindParams) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let (mut user, org) = which.subject(call)?;
    let Some(place) = user.memberships.iter().position(|held| held.org == org.id) else {
        return Err(no_member(&which, &org));
    };
    let removed = user.memberships.remove(place);
    if user.home == org.id {
        let Some(other) = user.memberships.first() else {
            let (email, key) = (&user.email, &org.key);
            let sentence = format!("{email} is at home in {key}; change `defaultOrgId`.");
            return Err(Failure::new(Code::IN_USE, sentence));
        };
        user.home = other.org;
    }
    check_may_grant(call, &removed)?;
    let affected = Affected::User(user.id);
    Ok(After(Done, Effects::from(turn.put(user)).followed_by(affected)))
}

fn no_member(which: &FindParams, org: &Org) -> Failure {
    let id = which.user_id.map(|id| id.to_string());
    let named = id.or_else(|| which.email_address.clone()).unwrap_or_default();
    Failure::not_found(format!("Member \"{named}\" of {}", org.key))
}
