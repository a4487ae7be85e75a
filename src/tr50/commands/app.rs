//! `app.*`: applications, whose tokens devices log in with (`docs/protocol/tr50.md` 3.4 and 4.1).
//!
//! A token is shown in the reply to the command that made it. Of one that the server made,
//! `app.find` shows it to the same session for ten minutes more; otherwise only its hash is known,
//! and listings show `tokenId`.

use std::sync::Arc;

use base::{
    ApplicationId, Clock, Failure, RoleId, ThingDefId, Timestamp, TokenId, excerpt, limits,
};
use rules::directory::text::Words;
use rules::directory::{Session, Who};
use rules::identity::model::Application;
use rules::identity::{Ban, Terms, is_token};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::authorize::{self, Edit, Unset};
use super::ban::{BanParams, BanView};
use super::commands;
use super::paging::{ListReply, View};
use super::target::check_unrestricted;
use crate::app::{Affected, Effects};
use crate::random::random;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done};
use crate::tr50::strict::Strict;

commands! {
    act "app.create" => create, [NOT_FOUND, ALREADY_EXISTS, BUSY],
        "Makes an application and its token in the current organisation. Without `token`, or with an \
         empty one, the server makes one of letters and digits, which the reply shows, and \
         `app.find` for ten minutes.",
        "`id`, `token`, `tokenId`",
        "roles and flags" where authorize::check_grants_all,
        "tokens of one's own choice" where check_unrestricted;
    act "app.delete" => delete, [NOT_FOUND],
        "Deletes an application; the live sessions of its token end as revoked. Like a change of it, \
         only for those who may grant what it may do.",
        "",
        "applications that may do more" where authorize::check_grants_all;
    "app.find" => find, [NOT_FOUND],
        "Shows an application of the current organisation. `token` is empty, but for the session \
         for which the server made it within the last ten minutes.",
        "the application";
    "app.list" => list, [],
        "Lists the applications of the current organisation, by name, without their tokens.",
        "`count`, `fields`, `result`";
    act "app.update" => update, [NOT_FOUND, ALREADY_EXISTS],
        "Changes an application, found by `id`, or by `token` if there is such a token, or by \
         `name`. Its live sessions have the new rights when the reply comes; after a change of the \
         token they have ended as revoked. Disabled, it loses its sessions, and logins with its \
         token are refused; none disables itself.",
        "",
        "roles and flags" where authorize::check_grants_all,
        "tokens of one's own choice" where check_unrestricted,
        "`disabled`" where check_unrestricted;
}

params! {
    /// Which application.
    pub struct FindParams {
        optional id: ApplicationId = "id", "The application's id.";
        optional_exact token: String = "token", "Its token.";
        optional_exact name: String = "name", "Its name, unique in the organisation in any case.";
    }
}

params! {
    /// An application's members.
    pub struct UpdateParams {
        optional desc: String = "desc", "What it is for.";
        optional auto_register: bool = "autoRegister",
            "Whether unknown thing keys register at their first login; by default, if `autoRegThingDefId` is there.";
        optional auto_register_def: String = "autoRegThingDefId",
            "The definition of things so registered, by id or key; an empty text means none.";
        optional auto_register_tags: Vec<String> = "autoRegTags", "Their tags.";
        optional auto_register_sec_tags: Vec<String> = "autoRegSecTags", "Their security tags.";
        optional roles: Vec<String> = "roles", "The roles of its sessions, by id or key.";
        optional is_super_admin: bool = "isSuperAdmin", "May do everything.";
        optional is_super_ops: bool = "isSuperOps", "May see everything.";
        optional is_org_admin: bool = "isOrgAdmin", "May do everything in its organisation.";
        optional restrict: bool = "restrictAccessToSelf",
            "Commands may only name the session's own thing, and those bound to it.";
        optional license: String = "license", "A text; kept, without effect here.";
    }
}

params! {
    /// The parameters of `app.list` beside those of every list.
    pub struct ListParams {
        optional query: String = "query",
            "Only applications in whose name or `desc` these words occur, in any case.";
    }
}

/// The reply of `app.create`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    id: ApplicationId,
    token: String,
    token_id: TokenId,
}

/// An application on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppView {
    id: ApplicationId,
    name: String,
    desc: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    token_id: TokenId,
    token_name: String,
    auto_register: bool,
    auto_reg_thing_def_id: Option<ThingDefId>,
    auto_reg_tags: Vec<String>,
    auto_reg_sec_tags: Vec<String>,
    roles: Vec<RoleId>,
    is_super_admin: bool,
    is_super_ops: bool,
    is_org_admin: bool,
    restrict_access_to_self: bool,
    license: String,
    #[serde(flatten)]
    ban: BanView,
    created_by: String,
    created_on: Timestamp,
    updated_by: String,
    updated_on: Timestamp,
}

const FIELDS: &[&str] = &[
    "id",
    "name",
    "desc",
    "tokenId",
    "tokenName",
    "autoRegister",
    "autoRegThingDefId",
    "autoRegTags",
    "autoRegSecTags",
    "roles",
    "isSuperAdmin",
    "isSuperOps",
    "isOrgAdmin",
    "restrictAccessToSelf",
    "license",
    "disabled",
    "reason",
    "disabledUntil",
    "createdBy",
    "createdOn",
    "updatedBy",
    "updatedOn",
];

/// The reply of `app.find`.
#[derive(Serialize)]
pub struct Found {
    #[serde(flatten)]
    application: AppView,
    connected: bool,
}

impl AppView {
    fn of(application: &Application, clock: &Clock) -> Self {
        let (updated_on, updated_by) = authorize::last_change(
            application.updated.clone(),
            application.created_on,
            &application.created_by,
        );
        Self {
            id: application.id,
            name: application.name.clone(),
            desc: application.desc.clone(),
            token: None,
            token_id: application.token_id,
            token_name: application.token_name.clone(),
            auto_register: application.auto_register,
            auto_reg_thing_def_id: application.auto_register_def,
            auto_reg_tags: application.auto_register_tags.clone(),
            auto_reg_sec_tags: application.auto_register_sec_tags.clone(),
            roles: application.roles.clone(),
            is_super_admin: application.super_admin,
            is_super_ops: application.super_ops,
            is_org_admin: application.org_admin,
            restrict_access_to_self: application.restrict_access_to_self,
            license: application.license.clone(),
            ban: BanView::of(&application.ban, clock),
            created_by: application.created_by.clone(),
            created_on: application.created_on,
            updated_by,
            updated_on,
        }
    }
}

impl UpdateParams {
    /// Changes the application. What it may do then, the caller must be able to grant: whoever
    /// changes its token has all of that.
    fn apply(
        self,
        call: &Call<'_>,
        application: &mut Application,
        edit: &Edit,
    ) -> Result<(), Failure> {
        edit.text("desc", &mut application.desc, self.desc)?;
        edit.text("license", &mut application.license, self.license)?;
        edit.list("autoRegTags", &mut application.auto_register_tags, self.auto_register_tags)?;
        let sec_tags = &mut application.auto_register_sec_tags;
        edit.list("autoRegSecTags", sec_tags, self.auto_register_sec_tags)?;
        let (unsets_def, unsets_roles) = (edit.unsets("autoRegThingDefId"), edit.unsets("roles"));
        if let Some(def) = self.auto_register_def {
            application.auto_register_def = resolve_thing_def(call, &def)?;
            application.auto_register = application.auto_register_def.is_some();
        } else if unsets_def {
            application.auto_register_def = None;
            application.auto_register = false;
        }
        edit.flag("autoRegister", &mut application.auto_register, self.auto_register);
        edit.flag("isSuperAdmin", &mut application.super_admin, self.is_super_admin);
        edit.flag("isSuperOps", &mut application.super_ops, self.is_super_ops);
        edit.flag("isOrgAdmin", &mut application.org_admin, self.is_org_admin);
        edit.flag("restrictAccessToSelf", &mut application.restrict_access_to_self, self.restrict);
        if let Some(roles) = self.roles {
            application.roles = authorize::resolve_roles(call, application.org, &roles)?;
        } else if unsets_roles {
            application.roles.clear();
        }
        check_may_grant(call, application)
    }
}

/// Fails unless the caller may grant what the application may do, and so change or delete it.
pub(super) fn check_may_grant(call: &Call<'_>, application: &Application) -> Result<(), Failure> {
    let supers = application.super_admin || application.super_ops;
    authorize::check_flags(call, supers, application.org_admin)?;
    authorize::check_held(call, application.org, &application.roles)
}

/// The definition with this id or key; none for an empty text.
fn resolve_thing_def(call: &Call<'_>, name: &str) -> Result<Option<ThingDefId>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    let (identity, org) = (&call.app.identity(), call.session.org_id());
    let by_id = name.parse().ok().and_then(|id| identity.thing_def(org, id));
    match by_id.or_else(|| identity.thing_def_by_key(org, name)) {
        Some(def) => Ok(Some(def.id)),
        None => Err(Failure::not_found(format!("Thing definition \"{}\"", excerpt(name)))),
    }
}

impl FindParams {
    /// The application of the current organisation. A token is not repeated in the failure.
    fn find(&self, call: &Call<'_>) -> Result<Arc<Application>, Failure> {
        let org = call.session.org_id();
        let identity = &call.app.identity();
        let by_name = |name: &String| identity.application_by_name(org, name);
        // Of another organisation there is none, as far as anybody here can tell.
        let by_token =
            |token: &String| identity.application_by_token(token).filter(|found| found.org == org);
        let found = match self.id {
            Some(id) => identity.application_in(org, id),
            None => {
                let by_token = self.token.as_ref().and_then(by_token);
                by_token.or_else(|| self.name.as_ref().and_then(by_name))
            }
        };
        let named = match (self.id, &self.name) {
            (Some(id), _) => format!("Application \"{id}\""),
            (None, Some(name)) => format!("Application \"{}\"", excerpt(name)),
            (None, None) if self.token.is_some() => "Application with this token".to_owned(),
            (None, None) => return Err(missing("name")),
        };
        found.ok_or_else(|| Failure::not_found(named))
    }
}

/// `app.create`.
pub fn create(
    call: &Call<'_>,
    Strict((which, members)): Strict<(FindParams, UpdateParams)>,
) -> Result<After<Made>, Failure> {
    let name = which.name.ok_or_else(|| missing("name"))?;
    let given = which.token.filter(|token| !token.is_empty());
    let is_made = given.is_none();
    let token = match given {
        Some(token) => token,
        None => new_token(call.app.config.server.token_chars, random()?),
    };
    let (identity, org) = (&call.app.identity(), call.session.org_id());
    let made = Made {
        id: ApplicationId::from_bytes(random()?),
        token_id: TokenId::from_bytes(random()?),
        token,
    };
    let mut application = Application {
        id: made.id,
        token_name: name.clone(),
        name,
        org,
        token_id: made.token_id,
        token_hash: Sha256::digest(&made.token).into(),
        first_terms: Terms::default(),
        tokens: Vec::new(),
        roles: Vec::new(),
        auto_register: false,
        auto_register_def: None,
        auto_register_tags: Vec::new(),
        restrict_access_to_self: false,
        org_admin: false,
        super_admin: false,
        super_ops: false,
        desc: String::new(),
        auto_register_sec_tags: Vec::new(),
        license: String::new(),
        ban: Ban::default(),
        created_on: call.now,
        created_by: authorize::author(call),
        updated: None,
    };
    let turn = identity.turn();
    check_names(call, &application, Some(&made.token).filter(|_| !is_made))?;
    authorize::check_room(identity.applications_of(org).len(), "applications")?;
    members.apply(call, &mut application, &Edit::new(None))?;
    if is_made {
        call.app.remember_token(made.id, made.token.clone(), call.session, call.app.clock.now());
    }
    Ok(After(made, turn.put(application).into()))
}

/// Fails when another application has the name, or the new token, or when these can't be such.
fn check_names(
    call: &Call<'_>,
    application: &Application,
    new_token: Option<&String>,
) -> Result<(), Failure> {
    authorize::check_name("name", &application.name)?;
    let identity = &call.app.identity();
    let others = identity.applications_of(application.org);
    let same = |other: &&Arc<Application>| {
        other.id != application.id && other.name.to_lowercase() == application.name.to_lowercase()
    };
    if others.iter().find(same).is_some() {
        return Err(authorize::already_exists("Application", &application.name));
    }
    let Some(token) = new_token else { return Ok(()) };
    let weak = || authorize::invalid_param("token", "16 to 256 printable ASCII characters");
    if !is_token(token) {
        return Err(weak());
    }
    let taken = identity.application_by_token(token).map(|other| {
        if other.org == application.org {
            let sentence = "An application with this token exists already.";
            return (Failure::new(base::Code::ALREADY_EXISTS, sentence), true);
        }
        // What it opens is nobody's business here.
        (weak(), false)
    });
    authorize::check_free(call, taken)
}

/// A token of letters and digits, which needs quotes nowhere. Each is chosen by two bytes, nearly
/// evenly, and has 5.95 random bits: sixteen have 95.
pub(super) fn new_token(length: usize, random: [u8; 2 * limits::TOKEN_BYTES_MAX]) -> String {
    const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let (pairs, _) = random.as_chunks::<2>();
    let digit = |pair: &[u8; 2]| {
        let index = usize::from(u16::from_be_bytes(*pair)) * DIGITS.len() / 0x1_0000;
        char::from(DIGITS[index])
    };
    pairs.iter().take(length).map(digit).collect()
}

/// `app.find`.
pub fn find(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<Found, Failure> {
    let application = which.find(call)?;
    let of_it = |session: &Session| match session.who() {
        Who::Application { application: other, .. } => other.id == application.id,
        Who::User(_) => false,
    };
    let connected = call.app.directory().any_in_org(application.org, of_it);
    let token = call.app.made_token(&application, call.session, call.app.clock.now());
    let mut application = AppView::of(&application, &call.app.clock);
    application.token = Some(token.unwrap_or_default());
    Ok(Found { application, connected })
}

/// `app.list`.
pub fn list(
    call: &Call<'_>,
    Strict((view, wanted)): Strict<(View, ListParams)>,
) -> Result<ListReply, Failure> {
    let applications = call.app.identity().applications_of(call.session.org_id());
    let words = wanted.query.as_deref().map(Words::read);
    let has_words = |found: &&Arc<Application>| {
        words.as_ref().is_none_or(|words| words.occur_in(&[&found.name, &found.desc]))
    };
    let applications = applications.iter().filter(has_words);
    let applications: Vec<_> =
        applications.map(|found| AppView::of(found, &call.app.clock)).collect();
    view.or_sorted_by("name").apply(FIELDS, &applications)
}

/// `app.update`.
pub fn update(
    call: &Call<'_>,
    Strict((which, (members, ban), unset)): Strict<(FindParams, (UpdateParams, BanParams), Unset)>,
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let before = which.find(call)?;
    check_may_grant(call, &before)?;
    let mut application = Application::clone(&*before);
    let token = which.token.filter(|token| !token.is_empty());
    if let Some(token) = &token {
        application.token_hash = Sha256::digest(token).into();
    }
    let new_token = token.filter(|_| application.token_hash != before.token_hash);
    if new_token.is_some() {
        application.token_id = TokenId::from_bytes(random()?);
        application.first_terms = Terms::default();
    }
    if let Some(name) = which.name.filter(|name| *name != before.name) {
        application.name.clone_from(&name);
        application.token_name = name;
    }
    check_names(call, &application, new_token.as_ref())?;
    let edit = Edit::new(unset.unset);
    let own = match call.session.who() {
        Who::Application { application: own, .. } => own.id == application.id,
        Who::User(_) => false,
    };
    if let Some(ban) = ban.apply(call, &application.ban, &edit, own)? {
        application.ban = ban;
    }
    members.apply(call, &mut application, &edit)?;
    edit.check()?;
    application.updated = authorize::stamp(call);
    let affected = Affected::Org(application.org);
    Ok(After(Done, Effects::from(turn.put(application)).followed_by(affected)))
}

/// `app.delete`.
pub fn delete(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let application = which.find(call)?;
    check_may_grant(call, &application)?;
    let affected = Affected::Org(application.org);
    let deleted = turn.delete([Application::clone(&*application).into()]);
    Ok(After(Done, Effects::from(deleted).followed_by(affected)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_are_made_are_tokens() {
        for length in [limits::TOKEN_BYTES_MIN, 17, limits::TOKEN_BYTES_MAX] {
            let token = new_token(length, std::array::from_fn(|index| (index * 7) as u8));
            assert!(is_token(&token) && token.len() == length, "{token}");
        }
        let (least, most) = (new_token(16, [0; 512]), new_token(16, [255; 512]));
        assert_eq!((least, most), ("A".repeat(16), "9".repeat(16)));
    }
}
