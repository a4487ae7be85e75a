//! `user.org.*`: memberships of users in organisations (`docs/protocol/tr50.md` 4.1 and 4.5).

use std::sync::Arc;

use base::{Code, Failure, OrgId, RoleId, Timestamp, UserId, excerpt};
use rules::directory::Principal;
use rules::identity::Invite;
use rules::identity::model::{Membership, Org, User};
use serde::Serialize;

use super::authorize::{self, Edit};
use super::commands;
use super::session::{Switch, check_switches, org_switch};
use super::user::{administers_home, is_visible};
use super::user_invite::{self, PendingView};
use crate::app::{Affected, Effects};
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done, WriteReply};
use crate::tr50::strict::Strict;

commands! {
    act "user.org.add" => add, [NOT_FOUND, ALREADY_EXISTS, BUSY],
        "Makes a user a member of an organisation, if the caller administers the user's home or is \
         the user. Any other is invited, and decides (`user.invite.list`); asked again, it changes \
         what is offered. Nobody can grant what they do not hold there.",
        "of one who is invited: `pending`",
        "roles and flags" where authorize::check_grants_all;
    "user.org.find" => find, [NOT_FOUND],
        "Shows what a user is in an organisation; of one who is invited, `emailAddress` and \
         `pending` alone.",
        "`addedBy`, `addedOn`, `allowSubOrgAccess`, `orgId`, `orgKey`, `isOrgAdmin`, `roles`, `tags`",
        "other users" where check_finds_users;
    "user.org.list" => list, [NOT_FOUND],
        "Lists what a user is in all organisations that the caller can see; without parameters the \
         caller. Who administers the user's home sees all.",
        "`result`",
        "other users" where check_finds_users;
    act "user.org.remove" => remove, [NOT_FOUND, IN_USE],
        "Ends a user's membership of an organisation, or an invitation. The user's live sessions \
         there end as revoked. Who administers the user's home can do so anywhere. Who was at home \
         there is so in another organisation of theirs; it must not be the only one.",
        "",
        "roles and flags" where authorize::check_grants_all;
    "user.org.set" => set where check_switches, [NOT_FOUND, WRONG_SESSION_KIND, LIMIT_REACHED],
        "Moves the session to another organisation, as `session.org.switch`; the name of the API of \
         2012.",
        "";
    act "user.org.update" => update, [NOT_FOUND],
        "Changes what a user is in an organisation, or is to be by an invitation. The user's live \
         sessions have the new rights when the reply comes.",
        "",
        "roles and flags" where authorize::check_grants_all;
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

/// What an organisation knows of a user.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Row {
    /// Of one who may enter it.
    Access(Box<AccessView>),
    /// Of one who is invited.
    Pending(PendingView),
}

/// The reply of `user.org.list`.
#[derive(Serialize)]
pub struct AccessList {
    result: Vec<Row>,
}

/// The reply of `user.org.add`.
pub enum Added {
    /// The user is a member.
    Member,
    /// The user is invited.
    Invited,
}

impl WriteReply for Added {
    fn write_reply(&self, out: &mut Vec<u8>) {
        match self {
            Self::Member => Done.write_reply(out),
            Self::Invited => {
                out.extend_from_slice(br#"{"success":true,"params":{"pending":true}}"#);
            }
        }
    }
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
    fn names_nobody(&self) -> bool {
        self.user_id.is_none() && self.email_address.is_none()
    }

    /// The user, if the caller can see them; without parameters the caller. Who may ask for nobody
    /// else learns nothing of who exists.
    fn user(&self, call: &Call<'_>) -> Result<Arc<User>, Failure> {
        if self.names_nobody() {
            return call.user().ok_or_else(|| missing("userId"));
        }
        let found = self.named(call).filter(|user| is_visible(call, user));
        let own = found.as_ref().is_some_and(|user| is_own(call, user));
        if !own {
            check_finds_users(call)?;
        }
        found.ok_or_else(|| self.not_found())
    }

    /// The user that the parameters name, even one whom the caller can't see.
    fn named(&self, call: &Call<'_>) -> Option<Arc<User>> {
        let identity = &call.app.identity();
        match (self.user_id, &self.email_address) {
            (Some(id), _) => identity.user(id),
            (None, Some(email)) => identity.user_by_email(email),
            (None, None) => None,
        }
    }

    /// The user and the invitation, if it is the caller's organisation that invites.
    fn pending(&self, call: &Call<'_>, org: OrgId) -> Option<(Arc<User>, Invite)> {
        user_invite::pending(call, self.user_id, self.email_address.as_deref(), org)
    }

    fn not_found(&self) -> Failure {
        let id = self.user_id.map(|id| id.to_string());
        let named = id.or_else(|| self.email_address.clone()).unwrap_or_default();
        Failure::not_found(format!("User \"{}\"", excerpt(&named)))
    }

    /// Which organisation is meant, in which the caller may act.
    fn org(&self, call: &Call<'_>) -> Result<Arc<Org>, Failure> {
        if self.names_nobody() {
            return Err(missing("userId"));
        }
        authorize::resolve_org(call, self.org_id)
    }

    /// The user that the parameters name. Who can't see them learns whether they exist, a few times
    /// in a minute.
    fn invitable(&self, call: &Call<'_>) -> Result<Arc<User>, Failure> {
        let found = self.named(call);
        if found.as_ref().is_none_or(|user| !is_visible(call, user)) {
            authorize::check_may_ask(call)?;
        }
        found.ok_or_else(|| self.not_found())
    }

    fn visible(&self, call: &Call<'_>) -> Result<User, Failure> {
        let found = self.named(call).filter(|user| is_visible(call, user));
        found.map(|user| User::clone(&user)).ok_or_else(|| self.not_found())
    }

    /// An organisation that the caller can't see, of which somebody is a member whose home the
    /// caller administers.
    fn org_of_own_user(&self, call: &Call<'_>) -> Option<Arc<Org>> {
        let user = self.named(call).filter(|user| administers_home(call, user))?;
        let org = self.org_id.filter(|org| is_member(&user, *org))?;
        call.app.identity().org(org)
    }
}

/// `user.org.set`: as `session.org.switch`.
pub fn set(call: &Call<'_>, Strict(params): Strict<Switch>) -> Result<After<Done>, Failure> {
    org_switch(call, params)
}

impl UpdateParams {
    /// Changes the membership. The caller must be able to grant what it was and what it becomes.
    fn apply(self, call: &Call<'_>, held: &mut Membership) -> Result<(), Failure> {
        authorize::check_may_grant(call, held)?;
        let before = held.clone();
        let edit = Edit::new(self.unset);
        let unsets_roles = edit.unsets("roles");
        if let Some(roles) = self.roles {
            held.roles = authorize::resolve_roles(call, held.org, &roles)?;
        } else if unsets_roles {
            held.roles.clear();
        }
        edit.flag("isOrgAdmin", &mut held.org_admin, self.is_org_admin);
        edit.flag("allowSubOrgAccess", &mut held.sub_orgs, self.sub_orgs);
        edit.list("tags", &mut held.tags, self.tags)?;
        edit.check()?;
        authorize::check_size(held, &before)?;
        authorize::check_may_grant(call, held)
    }
}

fn is_own(call: &Call<'_>, user: &User) -> bool {
    call.session.who().principal() == Principal::User(user.id)
}

/// Fails unless the caller can ask for others than themselves.
fn check_finds_users(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().allows("user.find") {
        return Ok(());
    }
    let sentence = "Without permission for user.find, users can ask for themselves only.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// `user.org.find`.
pub fn find(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<Row, Failure> {
    let id = which.org_id.unwrap_or_else(|| call.session.org_id());
    let user = match which.user(call) {
        Ok(user) => user,
        Err(failure) => {
            let pending = which
                .pending(call, id)
                .filter(|_| check_finds_users(call).is_ok())
                .ok_or(failure)?;
            return Ok(Row::Pending(PendingView::of(&pending.0)));
        }
    };
    let org = call.app.identity().org(id).filter(|org| may_see_in(call, &user, org.id));
    let found = org.and_then(|org| AccessView::of(call, &user, &org));
    found.map(|access| Row::Access(Box::new(access))).ok_or_else(|| {
        Failure::not_found(format!("Access of \"{}\" to organisation \"{id}\"", user.id))
    })
}

/// Whether the caller can see what a user whom they see is in an organisation.
fn may_see_in(call: &Call<'_>, user: &User, org: OrgId) -> bool {
    is_own(call, user)
        || call.session.access().super_ops
        || authorize::may_act_in(call, org)
        || administers_home(call, user) && is_member(user, org)
}

fn is_member(user: &User, org: OrgId) -> bool {
    user.memberships.iter().any(|held| held.org == org)
}

/// `user.org.list`: of another user only what is in the caller's reach.
pub fn list(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<AccessList, Failure> {
    let user = match which.user(call) {
        Ok(user) => user,
        Err(failure) => {
            let pending = which.pending(call, call.session.org_id());
            let pending = pending.filter(|_| check_finds_users(call).is_ok()).ok_or(failure)?;
            return Ok(AccessList { result: vec![Row::Pending(PendingView::of(&pending.0))] });
        }
    };
    let identity = &call.app.identity();
    let orgs = user.memberships.iter().map(|held| held.org);
    let mut orgs: Vec<_> = orgs.chain([user.home]).filter_map(|org| identity.org(org)).collect();
    orgs.sort_by_cached_key(|org| org.key.to_lowercase());
    orgs.dedup_by_key(|org| org.id);
    orgs.retain(|org| may_see_in(call, &user, org.id));
    let found = orgs.iter().filter_map(|org| AccessView::of(call, &user, org));
    Ok(AccessList { result: found.map(|access| Row::Access(Box::new(access))).collect() })
}

/// `user.org.add`.
pub fn add(
    call: &Call<'_>,
    Strict((which, members)): Strict<(FindParams, UpdateParams)>,
) -> Result<After<Added>, Failure> {
    let identity = &call.app.identity();
    let turn = identity.turn();
    let org = which.org(call)?;
    let pending = which.pending(call, org.id);
    let user = match &pending {
        Some((user, _)) => user.clone(),
        None => which.invitable(call)?,
    };
    if is_member(&user, org.id) {
        let sentence = format!("{} is a member of {} already.", user.email, org.key);
        return Err(Failure::new(Code::ALREADY_EXISTS, sentence));
    }
    authorize::check_room(identity.users_of(org.id).len(), "users")?;
    let mut held = authorize::new_membership(call, org.id);
    if let Some((_, invite)) = &pending {
        // In its place: whoever may not change it may not put another there either.
        authorize::check_may_grant(call, &invite.terms)?;
    }
    members.apply(call, &mut held)?;
    if is_own(call, &user) || authorize::may_act_in(call, user.owner()) {
        let mut user = User::clone(&user);
        user.invites.retain(|invite| invite.terms.org != org.id);
        user.memberships.push(held);
        let affected = Affected::User(user.id);
        return Ok(After(Added::Member, Effects::from(turn.put(user)).followed_by(affected)));
    }
    let (_, invited) = user_invite::offer(call, &user, held)?;
    if !is_visible(call, &user) && pending.is_none() {
        call.app.note_taken_name(call.session, call.app.clock.now());
    }
    Ok(After(Added::Invited, turn.put(invited).into()))
}

/// `user.org.update`.
pub fn update(
    call: &Call<'_>,
    Strict((which, members)): Strict<(FindParams, UpdateParams)>,
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let org = which.org(call)?;
    if let Some((user, mut invite)) = which.pending(call, org.id) {
        members.apply(call, &mut invite.terms)?;
        (invite.terms.added_on, invite.terms.added_by) = (call.now, authorize::author(call));
        let (_, user) = user_invite::offer(call, &user, invite.terms)?;
        return Ok(After(Done, turn.put(user).into()));
    }
    let mut user = which.visible(call)?;
    let held = user.memberships.iter_mut().find(|held| held.org == org.id);
    members.apply(call, held.ok_or_else(|| no_member(&which, &org))?)?;
    let affected = Affected::User(user.id);
    Ok(After(Done, Effects::from(turn.put(user)).followed_by(affected)))
}

/// `user.org.remove`. At home everyone may enter, so a membership there would be gone and the
/// access not: a user who is a member elsewhere is at home there from then on. Otherwise nobody
/// could be removed from an organisation that is their home.
pub fn remove(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let org = match which.org(call) {
        Ok(org) => org,
        Err(failure) => which.org_of_own_user(call).ok_or(failure)?,
    };
    if let Some((user, invite)) = which.pending(call, org.id) {
        authorize::check_may_grant(call, &invite.terms)?;
        return Ok(After(Done, turn.put(user_invite::without(&user, &invite)).into()));
    }
    let mut user = which.visible(call)?;
    let Some(place) = user.memberships.iter().position(|held| held.org == org.id) else {
        return Err(no_member(&which, &org));
    };
    let removed = user.memberships.remove(place);
    if user.home == org.id {
        let other = user.owner.or_else(|| user.memberships.first().map(|held| held.org));
        let Some(other) = other else {
            let (email, key) = (&user.email, &org.key);
            let sentence = format!("{email} is at home in {key}; change `defaultOrgId`.");
            return Err(Failure::new(Code::IN_USE, sentence));
        };
        user.home = other;
    }
    // Who sends its user away hands them over.
    user.owner = user.owner.filter(|owner| *owner != user.home && *owner != org.id);
    authorize::check_may_grant(call, &removed)?;
    let affected = Affected::User(user.id);
    Ok(After(Done, Effects::from(turn.put(user)).followed_by(affected)))
}

fn no_member(which: &FindParams, org: &Org) -> Failure {
    let id = which.user_id.map(|id| id.to_string());
    let named = id.or_else(|| which.email_address.clone()).unwrap_or_default();
    Failure::not_found(format!("Member \"{named}\" of {}", org.key))
}
