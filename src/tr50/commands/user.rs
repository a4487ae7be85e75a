//! `user.*`: users (`docs/protocol/tr50.md` 4.1); their organisations are in
//! [`user_org`](super::user_org).

use std::sync::Arc;

use base::{Clock, Code, Failure, OrgId, RoleId, Timestamp, UserId, excerpt, limits};
use rules::directory::text::Words;
use rules::directory::{Principal, Session};
use rules::identity::model::User;
use rules::identity::{Invite, is_email};
use serde::Serialize;

use super::authorize::{self, Edit, Made};
use super::ban::{BanParams, BanView};
use super::commands;
use super::paging::{ListReply, View};
use super::target::check_unrestricted;
use super::user_invite::{self, PendingView};
use crate::app::{Affected, App, Effects, SessionChange};
use crate::random::random;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done, Later};
use crate::tr50::strict::Strict;

commands! {
    act "user.create" => create where check_unrestricted, [NOT_FOUND, ALREADY_EXISTS, BUSY],
        "Makes a user, who is at home in the current organisation or in one below it and may do \
         little there before `user.org.add`. The reply is sent when the change is durable. With the \
         address of a user of another organisation it makes an invitation, which that user accepts \
         or declines (`user.invite.list`); password and names are not used then, and `id` is the \
         invitation's. An address that looks like that of another user is refused.",
        "`id`",
        "roles and flags" where authorize::check_grants_all;
    act "user.delete" => delete, [NOT_FOUND, IN_USE],
        "Deletes a user; the user's live sessions end as revoked. Administrators delete those at \
         home in their organisation and below, wherever else these are members. Of a user who is \
         invited and has not accepted, only the invitation goes. Nobody can delete themselves.",
        "",
        "users who may do more, or elsewhere" where authorize::check_grants_all;
    "user.find" => find, [NOT_FOUND],
        "Shows one user of the current organisation; of one who is invited and has not accepted, \
         `emailAddress` and `pending` alone.",
        "the user";
    "user.list" => list, [],
        "Lists the users of the current organisation, by e-mail address. Of those who are invited \
         and have not accepted, it shows `emailAddress` and `pending` alone.",
        "`count`, `fields`, `result`";
    act "user.update" => update, [NOT_FOUND, ALREADY_EXISTS, IN_USE, LOGIN_REFUSED, LOGIN_LOCKED, BUSY, WRONG_SESSION_KIND],
        "Changes a user: everybody themselves, but for the e-mail address and the flags, and \
         administrators the users at home in their organisation and below, wherever else these are \
         members, unless they administer an organisation above. A new password ends the user's other \
         sessions as revoked. Disabled, the user loses all sessions and logs in no more; nobody \
         disables themselves, nor the last super administrator. The reply is sent when the change is durable.",
        "",
        "other users, and e-mail addresses" where check_administers,
        "users who may do more, or elsewhere, and what these may" where authorize::check_grants_all,
        "`disabled`" where check_unrestricted;
}

params! {
    /// Which user.
    #[derive(Default)]
    pub struct FindParams {
        optional_exact email_address: String = "emailAddress", "The user's e-mail address.";
        optional_exact username: String = "username", "The same, as older clients call it.";
        optional id: UserId = "id", "The user's id.";
    }
}

params! {
    /// The parameters of `user.list` beside those of every list.
    pub struct ListParams {
        optional admins: bool = "admins", "Only administrators of the organisation.";
        optional show_all: bool = "showAll",
            "The users of all organisations, for super administrators and operators.";
        optional query: String = "query",
            "Only users in whose e-mail address or names these words occur, in any case.";
        optional pending: bool = "pending",
            "Only those who are invited and have not accepted; false: only the others.";
        optional include_roles: bool = "includeRoles",
            "Adds `roles`: the keys of the roles that each holds in the current organisation.";
    }
}

params! {
    /// A new user's login.
    pub struct New {
        required_exact email_address: String = "emailAddress",
            "The e-mail address, unique on this server in any case.";
        required_exact password: String = "password", "The password: 8 to 1024 bytes.";
    }
}

params! {
    /// The new login of a user that is there.
    pub struct Login {
        optional_exact password: String = "password", "A new password: 8 to 1024 bytes.";
        optional_exact old_password: String = "oldPassword",
            "The present password; required with `password` from users who change their own.";
        optional unset: Vec<String> = "unset", "Members to empty.";
    }
}

params! {
    /// A user's other members.
    pub struct UpdateParams {
        optional default_org_id: OrgId = "defaultOrgId",
            "The organisation in which sessions start; for a new user, the current one by default. An administrator who gives one of their own makes it the user's home.";
        optional first_name: String = "firstName", "First name.";
        optional last_name: String = "lastName", "Last name.";
        optional company: String = "company", "The employer.";
        optional title: String = "title", "The post.";
        optional office_phone: String = "officePhone", "The telephone in the office.";
        optional mobile_phone: String = "mobilePhone", "The mobile telephone.";
        optional locale: String = "locale", "The locale, such as `en_US`.";
        optional is_super_admin: bool = "isSuperAdmin", "Everything in every organisation.";
        optional is_super_ops: bool = "isSuperOps", "Sees every organisation.";
        optional mfa_required: bool = "mfaRequired",
            "Whether the user has to have a second factor, and can do nothing else without one. Only administrators can change it.";
    }
}

/// A user on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserView {
    id: UserId,
    email_address: String,
    default_org_id: OrgId,
    first_name: String,
    last_name: String,
    company: String,
    title: String,
    office_phone: String,
    mobile_phone: String,
    locale: String,
    is_super_admin: bool,
    is_super_ops: bool,
    is_org_admin: bool,
    mfa: bool,
    mfa_required: bool,
    #[serde(flatten)]
    ban: BanView,
    created_by: String,
    created_on: Timestamp,
    updated_by: String,
    updated_on: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
}

/// A user in a list.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Row {
    /// One who belongs to the organisation.
    User(Box<UserView>),
    /// One who is invited.
    Pending(PendingView),
}

const FIELDS: &[&str] = &[
    "id",
    "emailAddress",
    "defaultOrgId",
    "firstName",
    "lastName",
    "company",
    "title",
    "officePhone",
    "mobilePhone",
    "locale",
    "isSuperAdmin",
    "isSuperOps",
    "isOrgAdmin",
    "mfa",
    "mfaRequired",
    "disabled",
    "reason",
    "disabledUntil",
    "createdBy",
    "createdOn",
    "updatedBy",
    "updatedOn",
    "pending",
];

impl UserView {
    fn of(user: &User, org: OrgId, clock: &Clock) -> Self {
        let membership = user.memberships.iter().find(|membership| membership.org == org);
        let (updated_on, updated_by) =
            authorize::last_change(user.updated.clone(), user.created_on, &user.created_by);
        Self {
            id: user.id,
            email_address: user.email.clone(),
            default_org_id: user.home,
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            company: user.company.clone(),
            title: user.title.clone(),
            office_phone: user.office_phone.clone(),
            mobile_phone: user.mobile_phone.clone(),
            locale: user.locale.clone(),
            is_super_admin: user.super_admin,
            is_super_ops: user.super_ops,
            is_org_admin: membership.is_some_and(|membership| membership.org_admin),
            mfa: user.second_factor.is_active(),
            mfa_required: user.mfa_required,
            ban: BanView::of(&user.ban, clock),
            created_by: user.created_by.clone(),
            created_on: user.created_on,
            updated_by,
            updated_on,
            roles: None,
        }
    }

    /// The same with the roles that the user holds in the organisation.
    fn with_roles(self, call: &Call<'_>, user: &User) -> Self {
        let (identity, org) = (&call.app.identity(), call.session.org_id());
        let held = user.memberships.iter().filter(|held| held.org == org);
        let key = |id: &RoleId| Some(identity.role_within(*id, org)?.role.key.clone());
        let mut roles: Vec<_> = held.flat_map(|held| &held.roles).filter_map(key).collect();
        roles.sort_unstable();
        Self { roles: Some(roles), ..self }
    }
}

impl FindParams {
    /// The user, if the caller can see it.
    fn find(&self, call: &Call<'_>) -> Result<Arc<User>, Failure> {
        let identity = &call.app.identity();
        let name = self.email_address.as_ref().or(self.username.as_ref());
        let (found, named) = match (self.id, name) {
            (Some(id), _) => (identity.user(id), id.to_string()),
            (None, Some(name)) => (identity.user_by_email(name), excerpt(name)),
            (None, None) => return Err(missing("emailAddress")),
        };
        found
            .filter(|user| is_visible(call, user))
            .ok_or_else(|| Failure::not_found(format!("User \"{named}\"")))
    }
}

impl FindParams {
    /// The user as one who is invited, for those who can see no more.
    fn pending(&self, call: &Call<'_>) -> Option<(Arc<User>, Invite)> {
        let name = self.email_address.as_deref().or(self.username.as_deref());
        user_invite::pending(call, self.id, name, call.session.org_id())
    }
}

/// Whether the caller can see a user: oneself, those of the current organisation, administrators
/// also those at home below it, super administrators and operators all.
pub fn is_visible(call: &Call<'_>, user: &User) -> bool {
    let access = call.session.access();
    let here =
        user.home == access.org.id || user.memberships.iter().any(|held| held.org == access.org.id);
    let own = call.session.who().principal() == Principal::User(user.id);
    own || here
        || access.super_ops
        || [user.home, user.owner()].iter().any(|org| authorize::may_act_in(call, *org))
}

/// `user.find`.
pub fn find(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<Row, Failure> {
    match which.find(call) {
        Ok(user) => {
            Ok(Row::User(Box::new(UserView::of(&user, call.session.org_id(), &call.app.clock))))
        }
        Err(failure) => {
            let pending = which.pending(call);
            let row = pending.map(|(user, _)| Row::Pending(PendingView::of(&user)));
            row.ok_or(failure)
        }
    }
}

/// `user.list`: the users of the current organisation, ordered by e-mail address.
pub fn list(
    call: &Call<'_>,
    Strict((view, wanted)): Strict<(View, ListParams)>,
) -> Result<ListReply, Failure> {
    let (org, access) = (call.session.org_id(), call.session.access());
    let identity = &call.app.identity();
    let shows_all = wanted.show_all == Some(true) && access.authority().sees_all();
    let users = if shows_all { identity.users() } else { identity.users_of(org) };
    let only_admins = wanted.admins.unwrap_or(false);
    let words = wanted.query.as_deref().map(Words::read);
    let has_words = |texts: &[&str]| words.as_ref().is_none_or(|words| words.occur_in(texts));
    let mut rows = Vec::new();
    if wanted.pending != Some(true) {
        let named = users.iter().filter(|user| {
            has_words(&[&user.email, &user.first_name, &user.last_name, &user.company])
        });
        let views = named.map(|user| {
            let view = UserView::of(user, org, &call.app.clock);
            if wanted.include_roles == Some(true) { view.with_roles(call, user) } else { view }
        });
        let views = views.filter(|user| !only_admins || user.is_org_admin);
        rows.extend(views.map(|user| Row::User(Box::new(user))));
    }
    if !shows_all && !only_admins && wanted.pending != Some(false) {
        let invited = identity.invited_to(org);
        let named = invited.iter().filter(|user| has_words(&[&user.email]));
        rows.extend(named.map(|user| Row::Pending(PendingView::of(user))));
    }
    let mut fields = FIELDS.to_vec();
    fields.extend(wanted.include_roles.filter(|adds| *adds).map(|_| "roles"));
    view.or_sorted_by("emailAddress").apply(&fields, &rows)
}

impl UpdateParams {
    /// Changes the user; the caller has been looked at.
    fn apply(
        self,
        call: &Call<'_>,
        user: &mut User,
        edit: &Edit,
        is_own: bool,
    ) -> Result<(), Failure> {
        edit.line("firstName", &mut user.first_name, self.first_name)?;
        edit.line("lastName", &mut user.last_name, self.last_name)?;
        edit.line("company", &mut user.company, self.company)?;
        edit.line("title", &mut user.title, self.title)?;
        edit.line("officePhone", &mut user.office_phone, self.office_phone)?;
        edit.line("mobilePhone", &mut user.mobile_phone, self.mobile_phone)?;
        edit.line("locale", &mut user.locale, self.locale)?;
        let before = (user.super_admin, user.super_ops);
        edit.flag("isSuperAdmin", &mut user.super_admin, self.is_super_admin);
        edit.flag("isSuperOps", &mut user.super_ops, self.is_super_ops);
        if before != (user.super_admin, user.super_ops) {
            authorize::check_flags(call, true, false)?;
        }
        let before = user.mfa_required;
        edit.flag("mfaRequired", &mut user.mfa_required, self.mfa_required);
        if before != user.mfa_required {
            check_administers(call)?;
            if is_own {
                call.app.spare_enrolment(call.session);
            }
        }
        let Some(org) = self.default_org_id else { return Ok(()) };
        let identity = &call.app.identity();
        let enters = identity.org(org).and_then(|org| identity.user_access(user, &org)).is_some();
        let acts = authorize::resolve_org(call, Some(org));
        // Only administrators move users to others.
        if !is_own && acts.is_ok() {
            (user.home, user.owner) = (org, None);
            return Ok(());
        }
        if !enters {
            acts?;
        }
        let owner = user.owner();
        (user.home, user.owner) = (org, Some(owner).filter(|owner| *owner != org));
        Ok(())
    }
}

/// Fails unless the address can be that of a new user, or of the one with the id `own`.
fn check_email(call: &Call<'_>, email: &str, own: Option<UserId>) -> Result<(), Failure> {
    if !is_email(email) {
        return Err(not_an_address());
    }
    authorize::check_unambiguous("emailAddress", email)?;
    let identity = &call.app.identity();
    let same = identity.user_by_email(email).map(|other| (other, true));
    let alike = || identity.user_like(email, own).map(|other| (other, false));
    let taken = same.or_else(alike).map(|(other, is_same)| {
        let failure = if is_same { authorize::already_exists } else { authorize::looks_like };
        (failure("User", email), is_visible(call, &other))
    });
    authorize::check_free(call, taken)
}

/// The user of another organisation who has the address of a new one: that one is invited.
///
/// # Errors
///
/// It is no address, or taken otherwise.
fn elsewhere(call: &Call<'_>, email: &str, home: OrgId) -> Result<Option<Arc<User>>, Failure> {
    let found = call.app.identity().user_by_email(email);
    let Some(user) = found.filter(|user| !is_visible(call, user)) else {
        check_email(call, email, None)?;
        return Ok(None);
    };
    if user_invite::pending(call, None, Some(email), home).is_some() {
        return Err(authorize::already_exists("User", email));
    }
    authorize::check_may_ask(call)?;
    Ok(Some(user))
}

fn not_an_address() -> Failure {
    authorize::invalid_param("emailAddress", "an e-mail address")
}

fn check_password(password: &str) -> Result<(), Failure> {
    let fits = limits::PASSWORD_BYTES_MIN..=limits::PASSWORD_BYTES_MAX;
    if fits.contains(&password.len()) {
        return Ok(());
    }
    let rule = format!("{} to {} bytes long", fits.start(), fits.end());
    Err(authorize::invalid_param("password", &rule))
}

/// Fails unless the caller may change or delete another user: as administrator of the user's home,
/// wherever else the user is a member; others only one who belongs to the caller's organisation
/// alone, and may do nothing that the caller may not.
fn check_manages(call: &Call<'_>, user: &User) -> Result<(), Failure> {
    if administers_home(call, user) {
        return Ok(());
    }
    let mut orgs = user.memberships.iter().map(|held| held.org).chain([user.home, user.owner()]);
    if user.authority().sees_all()
        || user.authority().administers_any()
        || !orgs.all(|org| authorize::may_act_in(call, org))
    {
        let (who, email) = (call.session.who().name(), &user.email);
        let sentence = format!("{who} can't change {email}, who may do more, or elsewhere.");
        return Err(Failure::new(Code::PERMISSION_DENIED, sentence));
    }
    user.memberships.iter().try_for_each(|held| authorize::check_held(call, held.org, &held.roles))
}

/// Whether the caller administers the user's home, and so the user: but for those who may see
/// everything, or administer an organisation above the caller's.
pub(super) fn administers_home(call: &Call<'_>, user: &User) -> bool {
    let (access, authority) = (call.session.access(), user.authority());
    let is_above = authority.administers_above(call.app.identity(), access.org.id);
    let may_more = authority.sees_all() || is_above;
    access.super_admin || access.org_admin && authorize::may_act_in(call, user.owner()) && !may_more
}

/// `user.create`.
pub fn create(
    call: &Call<'_>,
    Strict((new, members)): Strict<(New, UpdateParams)>,
) -> Result<Later, Failure> {
    if !is_email(&new.email_address) {
        return Err(not_an_address());
    }
    check_password(&new.password)?;
    let home = authorize::resolve_org(call, members.default_org_id)?.id;
    elsewhere(call, &new.email_address, home)?;
    let (app, session, now) = (call.app.clone(), call.session.clone(), call.now);
    Ok(Later::new(async move {
        let password_hash = app.hash_password(new.password, &session).await?;
        let mut user = User {
            password_hash,
            created_on: now,
            created_by: session.who().name().to_owned(),
            ..User::bare(UserId::from_bytes(random()?), new.email_address, home)
        };
        let call = Call { app: &app, session: &session, conn: *session.conn(), now };
        let turn = app.identity().turn();
        // Again, for it took a while.
        authorize::resolve_org(&call, Some(home))?;
        let known = elsewhere(&call, &user.email, home)?;
        authorize::check_room(app.identity().users_of(home).len(), "users")?;
        members.apply(&call, &mut user, &Edit::new(None), false)?;
        let (id, user) = match known {
            None => (user.id, user),
            Some(known) => {
                app.note_taken_name(&session, app.clock.now());
                user_invite::offer(&call, &known, authorize::new_membership(&call, home))?
            }
        };
        Ok(After(Made { id }, turn.put(user).into()))
    }))
}

/// `user.update`; without an id or an e-mail address the caller.
pub fn update(
    call: &Call<'_>,
    Strict((which, (login, ban), members)): Strict<(FindParams, (Login, BanParams), UpdateParams)>,
) -> Result<Later, Failure> {
    let named = which.id.is_some() || which.email_address.is_some() || which.username.is_some();
    let found = if named { which.find(call) } else { own(call) };
    let is_self = |user: &Arc<User>| call.session.who().principal() == Principal::User(user.id);
    let is_own = found.as_ref().is_ok_and(is_self);
    if named && !is_own {
        // First, so that who may change nobody else learns nothing of who exists.
        check_administers(call)?;
    }
    let user = found.map_err(|failure| match which.pending(call) {
        Some((user, _)) => undecided(&user),
        None => failure,
    })?;
    if !is_own {
        check_manages(call, &user)?;
    }
    let email = which.id.and(which.email_address).filter(|email| *email != user.email);
    if is_own && email.is_some() {
        check_administers(call)?;
    }
    if login.password.is_none() && login.old_password.is_some() {
        return Err(missing("password"));
    }
    if let Some(password) = &login.password {
        check_password(password)?;
        if is_own && login.old_password.is_none() {
            return Err(missing("oldPassword"));
        }
    }
    // What is wrong with it is told before the password is looked at.
    let unset = Edit::new(login.unset.clone());
    ban.clone().apply(call, &user.ban, &unset, is_own)?;
    let change = Update { id: user.id, is_own, email, login, ban, members };
    let (app, session, now) = (call.app.clone(), call.session.clone(), call.now);
    Ok(Later::new(async move { Ok(After(Done, change.run(&app, &session, now).await?)) }))
}

/// Whom a command means that everybody may use on themselves, and who may change users on these: the
/// caller, if nobody is named.
///
/// # Errors
///
/// There is no such user, or the caller may not change them.
pub(super) fn meant(call: &Call<'_>, which: &FindParams) -> Result<Arc<User>, Failure> {
    let named = which.id.is_some() || which.email_address.is_some() || which.username.is_some();
    if !named {
        return own(call);
    }
    let found = which.find(call);
    let is_self = |user: &Arc<User>| call.session.who().principal() == Principal::User(user.id);
    if found.as_ref().is_ok_and(is_self) {
        return found;
    }
    // First, so that who may change nobody else learns nothing of who exists.
    check_administers(call)?;
    let user = found?;
    check_manages(call, &user)?;
    Ok(user)
}

/// The failure for a change of a user who is invited.
fn undecided(user: &User) -> Failure {
    let sentence = format!("{} is invited and has not accepted.", user.email);
    Failure::new(Code::PERMISSION_DENIED, sentence)
}

/// Fails for applications.
pub(super) fn check_is_user(call: &Call<'_>) -> Result<(), Failure> {
    own(call).map(drop)
}

pub(super) fn own(call: &Call<'_>) -> Result<Arc<User>, Failure> {
    call.user().ok_or_else(|| {
        let sentence = "An application is no user; name one.";
        Failure::new(Code::WRONG_SESSION_KIND, sentence)
    })
}

/// Fails unless the caller may change other users.
pub(super) fn check_administers(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().administers_here() {
        return Ok(());
    }
    let sentence = "Only administrators may change other users, and e-mail addresses.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// A change of a user that the caller may make.
struct Update {
    id: UserId,
    is_own: bool,
    email: Option<String>,
    login: Login,
    ban: BanParams,
    members: UpdateParams,
}

impl Update {
    async fn run(
        self,
        app: &Arc<App>,
        session: &Arc<Session>,
        now: Timestamp,
    ) -> Result<Effects, Failure> {
        let gone = || Failure::not_found(format!("User \"{}\"", self.id));
        let is_new_password = self.login.password.is_some();
        let mut hash = None;
        if let Some(password) = self.login.password {
            if let (true, Some(old)) = (self.is_own, self.login.old_password) {
                let user = app.identity().user(self.id).ok_or_else(gone)?;
                app.verify_password(&user, ("oldPassword", old), session, app.clock.now()).await?;
            }
            hash = Some(app.hash_password(password, session).await?);
        }
        let call = Call { app, session, conn: *session.conn(), now };
        let turn = app.identity().turn();
        let mut user = User::clone(&*app.identity().user(self.id).ok_or_else(gone)?);
        // Again, for it took a while.
        if !self.is_own {
            check_manages(&call, &user)?;
        }
        if let Some(email) = self.email {
            let renamed = email.to_lowercase() != user.email.to_lowercase();
            if renamed || !is_email(&email) {
                check_email(&call, &email, Some(user.id))?;
            }
            user.email = email;
        }
        let edit = Edit::new(self.login.unset);
        if let Some(ban) = self.ban.apply(&call, &user.ban, &edit, self.is_own)? {
            user.ban = ban;
            check_leaves_admin(&call, &user)?;
        }
        self.members.apply(&call, &mut user, &edit, self.is_own)?;
        edit.check()?;
        user.password_hash = hash.unwrap_or(user.password_hash);
        user.updated = authorize::stamp(&call);
        let effects = Effects::from(turn.put(user)).followed_by(Affected::User(self.id));
        // Whoever had the old password is out.
        let others = is_new_password
            .then(|| SessionChange::EndOthers(Principal::User(self.id), session.clone()));
        Ok(effects.and_sessions(others))
    }
}

/// Fails if this user is disabled and no other super administrator could log in then.
fn check_leaves_admin(call: &Call<'_>, user: &User) -> Result<(), Failure> {
    if !user.super_admin || user.ban.is_none() {
        return Ok(());
    }
    let may = |other: &Arc<User>| {
        other.id != user.id && other.super_admin && !other.ban.is_banned(call.app.clock.now())
    };
    if call.app.identity().users().iter().any(may) {
        return Ok(());
    }
    let sentence = format!("{} is the last super administrator who can log in.", user.email);
    Err(Failure::new(Code::IN_USE, sentence))
}

/// `user.delete`.
pub fn delete(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let user = match which.find(call) {
        Ok(user) => user,
        Err(failure) => {
            let (user, invite) = which.pending(call).ok_or(failure)?;
            authorize::check_may_grant(call, &invite.terms)?;
            return Ok(After(Done, turn.put(user_invite::without(&user, &invite)).into()));
        }
    };
    if call.session.who().principal() == Principal::User(user.id) {
        return Err(Failure::new(Code::IN_USE, "Nobody can delete themselves."));
    }
    check_manages(call, &user)?;
    call.app.forget_codes(user.id);
    let affected = Affected::User(user.id);
    let deleted = turn.delete([User::clone(&*user).into()]);
    Ok(After(Done, Effects::from(deleted).followed_by(affected)))
}
