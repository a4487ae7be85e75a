//! `org.*`: organisations (`docs/protocol/tr50.md` 4.1).

use std::cell::Cell;
use std::sync::Arc;

use base::{Code, Failure, OrgId, RoleId, Timestamp, excerpt, limits};
use rules::identity::model::{Org, Role, User};
use rules::identity::{Record, RecordChange, SLUG_RULE, STANDARD_ROLES, StandardRole, is_slug};
use serde::Serialize;

use super::authorize::{self, Edit, Made, Unset};
use super::commands;
use super::paging::{ListReply, View};
use super::target::check_unrestricted;
use crate::app::{Affected, Effects};
use crate::random::random;
use crate::things::files::Owner;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done};
use crate::tr50::strict::Strict;

commands! {
    act "org.create" => create where check_unrestricted, [ALREADY_EXISTS, IN_USE, BUSY],
        "Makes an organisation below the current one. It owns the roles device, automation and \
         developer, copies of those of the organisation at the top. A key that looks like that of \
         another organisation is refused.",
        "`id`";
    act "org.delete" => delete, [NOT_FOUND, IN_USE],
        "Deletes an organisation below the current one, with its roles, definitions of things and \
         invitations. It must have no organisations below it, users, applications and things.",
        "";
    "org.find" => find, [NOT_FOUND],
        "Shows one organisation; without parameters the current one.",
        "the organisation";
    "org.list" => list, [],
        "Lists the current organisation and, for a user, all that the user may work in; by key.",
        "`count`, `fields`, `result`";
    act "org.update" => update, [NOT_FOUND],
        "Changes an organisation; without a key the current one. Administrators can change those \
         below as well.",
        "";
}

params! {
    /// The parameters of `org.find`; none means the current organisation.
    pub struct Find {
        optional id: OrgId = "id", "The organisation's id.";
        optional_exact key: String = "key", "The organisation's key.";
        optional domain: String = "domain", "The internet domain that it claims.";
        optional customer_ref_id: String = "customerRefId", "What its customer calls it.";
    }
}

params! {
    /// The parameters of `org.list` beside those of every list.
    pub struct ListParams {
        optional can_have_sub_orgs: bool = "canHaveSubOrgs",
            "Only those below which others can be made.";
        optional root: bool = "root", "Only those that are below no other.";
    }
}

params! {
    /// The names of a new organisation.
    pub struct New {
        required_exact key: String = "key", "Its key, unique on this server in any case.";
        optional slug: String = "slug",
            "Its name in paths, unique on this server; made of the key by default.";
        optional parent_id: OrgId = "parentId",
            "The organisation above it; the current one by default.";
        optional template: bool = "template", "False makes it without roles.";
    }
}

params! {
    /// Which organisation.
    pub struct FindParams {
        optional_exact key: String = "key", "The organisation's key.";
        optional id: OrgId = "id", "The organisation's id, instead.";
    }
}

params! {
    /// An organisation's other members.
    pub struct UpdateParams {
        optional name: String = "name", "A name for people; the key by default.";
        optional desc: String = "desc", "What it is.";
        optional locale: String = "locale", "The locale of its users, such as `en_US`.";
        optional domain: String = "domain", "The internet domain that it claims.";
        optional customer_ref_id: String = "customerRefId", "What its customer calls it.";
        optional tags: Vec<String> = "tags", "Its tags.";
        optional allow_sub_orgs: bool = "allowSubOrgs",
            "Whether others can be made below it; true by default.";
        optional mfa_required: bool = "mfaRequired",
            "Whether whoever is at home or a member in it or below has to have a second factor, and can do nothing else without one.";
    }
}

/// An organisation on the wire. Profile, owner and the last login are not known here; the vendor
/// always shows them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrgView {
    id: OrgId,
    key: String,
    name: String,
    slug: String,
    parent_id: Option<OrgId>,
    desc: String,
    profile: &'static str,
    owner: &'static str,
    locale: String,
    domain: String,
    customer_ref_id: String,
    tags: Vec<String>,
    allow_sub_orgs: bool,
    mfa_required: bool,
    last_login_by: &'static str,
    last_login_on: Option<Timestamp>,
    created_by: String,
    created_on: Timestamp,
    updated_by: String,
    updated_on: Timestamp,
}

const FIELDS: &[&str] = &[
    "id",
    "key",
    "name",
    "slug",
    "parentId",
    "desc",
    "profile",
    "owner",
    "locale",
    "domain",
    "customerRefId",
    "tags",
    "allowSubOrgs",
    "mfaRequired",
    "lastLoginBy",
    "lastLoginOn",
    "createdBy",
    "createdOn",
    "updatedBy",
    "updatedOn",
];

impl From<&Arc<Org>> for OrgView {
    fn from(org: &Arc<Org>) -> Self {
        let (updated_on, updated_by) =
            authorize::last_change(org.updated.clone(), org.created_on, &org.created_by);
        Self {
            id: org.id,
            key: org.key.clone(),
            name: org.name.clone(),
            slug: org.slug.clone(),
            parent_id: org.parent,
            desc: org.desc.clone(),
            profile: "",
            owner: "",
            locale: org.locale.clone(),
            domain: org.domain.clone(),
            customer_ref_id: org.customer_ref_id.clone(),
            tags: org.tags.clone(),
            allow_sub_orgs: !org.no_sub_orgs,
            mfa_required: org.mfa_required,
            last_login_by: "",
            last_login_on: None,
            created_by: org.created_by.clone(),
            created_on: org.created_on,
            updated_by,
            updated_on,
        }
    }
}

impl UpdateParams {
    fn apply(self, org: &mut Org, edit: &Edit) -> Result<(), Failure> {
        if let Some(name) = self.name {
            authorize::check_name("name", &name)?;
            org.name = name;
        }
        edit.text("desc", &mut org.desc, self.desc)?;
        edit.line("locale", &mut org.locale, self.locale)?;
        edit.line("domain", &mut org.domain, self.domain)?;
        edit.line("customerRefId", &mut org.customer_ref_id, self.customer_ref_id)?;
        edit.list("tags", &mut org.tags, self.tags)?;
        let forbidden = self.allow_sub_orgs.map(|allowed| !allowed);
        edit.flag("allowSubOrgs", &mut org.no_sub_orgs, forbidden);
        edit.flag("mfaRequired", &mut org.mfa_required, self.mfa_required);
        Ok(())
    }
}

impl FindParams {
    /// The organisation, if the caller may act in it; without parameters the current one.
    fn find(&self, call: &Call<'_>) -> Result<Arc<Org>, Failure> {
        let (None, Some(key)) = (self.id, &self.key) else {
            return authorize::resolve_org(call, self.id);
        };
        let found = call.app.identity().org_by_key(key);
        found
            .filter(|org| authorize::may_act_in(call, org.id))
            .ok_or_else(|| Failure::not_found(format!("Organisation \"{}\"", excerpt(key))))
    }
}

/// `org.find`: one organisation that the caller can see.
pub fn find(call: &Call<'_>, Strict(params): Strict<Find>) -> Result<OrgView, Failure> {
    let visible = visible(call);
    let find = |test: &dyn Fn(&Org) -> bool| visible.iter().find(|org| test(org));
    let (found, named) = if let Some(id) = params.id {
        (find(&|org| org.id == id), id.to_string())
    } else if let Some(domain) = &params.domain {
        (find(&|org| org.domain.eq_ignore_ascii_case(domain)), excerpt(domain))
    } else if let Some(key) = &params.key {
        (find(&|org| org.key.to_lowercase() == key.to_lowercase()), excerpt(key))
    } else if let Some(reference) = &params.customer_ref_id {
        (find(&|org| org.customer_ref_id == *reference), excerpt(reference))
    } else {
        let current = call.session.org_id();
        (find(&|org| org.id == current), current.to_string())
    };
    found.map(OrgView::from).ok_or_else(|| Failure::not_found(format!("Organisation \"{named}\"")))
}

/// `org.list`: the organisations that the caller can see, ordered by key.
pub fn list(
    call: &Call<'_>,
    Strict((view, wanted)): Strict<(View, ListParams)>,
) -> Result<ListReply, Failure> {
    let mut orgs = visible(call);
    orgs.retain(|org| {
        wanted.can_have_sub_orgs.is_none_or(|can| can != org.no_sub_orgs)
            && wanted.root.is_none_or(|root| root == org.parent.is_none())
    });
    let orgs: Vec<OrgView> = orgs.iter().map(OrgView::from).collect();
    view.or_sorted_by("key").apply(FIELDS, &orgs)
}

/// What a caller can see: the current organisation, and for users those they may switch to.
fn visible(call: &Call<'_>) -> Vec<Arc<Org>> {
    let identity = &call.app.identity();
    match call.user() {
        Some(user) => identity.enterable_orgs(&user),
        None => identity.org(call.session.org_id()).into_iter().collect(),
    }
}

/// `org.create`: below the current organisation, or one below that.
pub fn create(
    call: &Call<'_>,
    Strict((new, members)): Strict<(New, UpdateParams)>,
) -> Result<After<Made<OrgId>>, Failure> {
    authorize::check_name("key", &new.key)?;
    authorize::check_unambiguous("key", &new.key)?;
    if new.slug.as_ref().is_some_and(|slug| !is_slug(slug)) {
        return Err(authorize::invalid_param("slug", SLUG_RULE));
    }
    let identity = &call.app.identity();
    let id = OrgId::from_bytes(random()?);
    let turn = identity.turn();
    let parent = authorize::resolve_org(call, new.parent_id)?;
    check_below(call, &parent)?;
    authorize::check_free(call, taken_key(call, &new.key))?;
    let slug = free_slug(call, &new.key, new.slug)?;
    let mut org = Org {
        id,
        name: new.key.clone(),
        key: new.key,
        slug,
        parent: Some(parent.id),
        desc: String::new(),
        locale: String::new(),
        domain: String::new(),
        customer_ref_id: String::new(),
        tags: Vec::new(),
        no_sub_orgs: false,
        mfa_required: false,
        created_on: call.now,
        created_by: authorize::author(call),
        updated: None,
    };
    members.apply(&mut org, &Edit::new(None))?;
    let mut records = if new.template.unwrap_or(true) { roles_of_new(call, &org)? } else { vec![] };
    records.insert(0, org.into());
    Ok(After(Made { id }, turn.put_all(records).into()))
}

/// Why the key can't be used, and whether the caller can see the organisation that has it, or one
/// like it.
fn taken_key(call: &Call<'_>, key: &str) -> Option<(Failure, bool)> {
    let identity = &call.app.identity();
    let (other, failure) = match identity.org_by_key(key) {
        Some(same) => (same, authorize::already_exists("Organisation", key)),
        None => (identity.org_like(key, None)?, authorize::looks_like("Organisation", key)),
    };
    Some((failure, is_visible(call, &other)))
}

/// The slug that is wanted, or one made of the key, which shows whether the nearest is taken.
fn free_slug(call: &Call<'_>, key: &str, wanted: Option<String>) -> Result<String, Failure> {
    let identity = &call.app.identity();
    if let Some(slug) = wanted {
        let taken = identity
            .org_by_slug(&slug)
            .map(|other| (authorize::already_exists("Slug", &slug), is_visible(call, &other)));
        authorize::check_free(call, taken)?;
        return Ok(slug);
    }
    let hidden = Cell::new(false);
    let taken = |slug: &str| {
        let other = identity.org_by_slug(slug);
        let visible = other.as_ref().is_none_or(|other| is_visible(call, other));
        hidden.set(hidden.get() || !visible);
        other.is_some()
    };
    let slug = slug_of(key, taken);
    if hidden.get() {
        call.app.note_taken_name(call.session, call.app.clock.now());
    }
    Ok(slug)
}

fn is_visible(call: &Call<'_>, org: &Org) -> bool {
    authorize::may_act_in(call, org.id) || visible(call).iter().any(|seen| seen.id == org.id)
}

/// The roles that a new organisation owns: as they are in the one at the top now, or as they are
/// published if that has none (`docs/protocol/tr50.md` 3.4).
fn roles_of_new(call: &Call<'_>, org: &Org) -> Result<Vec<Record>, Failure> {
    let identity = &call.app.identity();
    let root = org.parent.map_or(org.id, |parent| identity.root_of(parent));
    let copy = |standard: &StandardRole| {
        let pattern = identity.role_by_key(root, standard.key);
        let pattern = pattern.map(|granted| granted.role.clone());
        let role = Role {
            id: RoleId::from_bytes(random()?),
            org: org.id,
            created_on: call.now,
            created_by: org.created_by.clone(),
            updated: None,
            ..pattern.unwrap_or_else(|| standard.to_role(org.id, call.now))
        };
        Ok(role.into())
    };
    STANDARD_ROLES.iter().map(copy).collect()
}

/// Fails when no organisation can be made below this one.
fn check_below(call: &Call<'_>, parent: &Org) -> Result<(), Failure> {
    let identity = &call.app.identity();
    if parent.no_sub_orgs || identity.depth(parent.id) >= limits::ORG_DEPTH_MAX {
        let sentence = format!("Organisation \"{}\" can have none below it.", parent.key);
        return Err(Failure::new(Code::IN_USE, sentence));
    }
    let orgs = identity.orgs();
    let below = orgs.iter().filter(|org| org.parent == Some(parent.id)).count();
    authorize::check_room(below, "organisations below it")
}

/// A slug that is like the key and not taken.
fn slug_of(key: &str, taken: impl Fn(&str) -> bool) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let slug: String = key.chars().map(plain).take(50).collect();
    let slug = slug.trim_matches('-');
    let named = slug.len() >= 3 && slug.starts_with(|first: char| first.is_ascii_lowercase());
    let slug = if named { slug.to_owned() } else { format!("org-{slug}-0") };
    let numbered = (2_u32..).map(|number| format!("{slug}-{number}"));
    let mut free = std::iter::once(slug.clone()).chain(numbered).filter(|slug| !taken(slug));
    free.next().unwrap_or_default()
}

/// `org.update`.
pub fn update(
    call: &Call<'_>,
    Strict((which, members, unset)): Strict<(FindParams, UpdateParams, Unset)>,
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let before = which.find(call)?;
    let mut org = Org::clone(&before);
    let edit = Edit::new(unset.unset);
    members.apply(&mut org, &edit)?;
    edit.check()?;
    org.updated = authorize::stamp(call);
    if org.mfa_required == before.mfa_required {
        return Ok(After(Done, turn.put(org).into()));
    }
    call.app.spare_enrolment(call.session);
    let affected = Affected::Members(org.id);
    Ok(After(Done, Effects::from(turn.put(org)).followed_by(affected)))
}

/// `org.delete`: never the current organisation, whose session would go with it.
pub fn delete(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<After<Done>, Failure> {
    if which.id.is_none() && which.key.is_none() {
        return Err(missing("id"));
    }
    let identity = &call.app.identity();
    let turn = identity.turn();
    let org = which.find(call)?;
    let in_use = |why: &str| {
        let sentence = format!("Organisation \"{}\" {why}.", org.key);
        Err(Failure::new(Code::IN_USE, sentence))
    };
    if org.id == call.session.org_id() {
        return in_use("is the session's current one");
    }
    if identity.orgs().iter().any(|other| other.parent == Some(org.id)) {
        return in_use("has organisations below it");
    }
    if !identity.users_of(org.id).is_empty() {
        return in_use("has users");
    }
    if !identity.applications_of(org.id).is_empty() {
        return in_use("has applications");
    }
    if call.app.things.count(org.id) > 0 {
        return in_use("has things");
    }
    let roles = identity.roles_of(org.id).into_iter().filter(|role| role.role.org == org.id);
    let defs = identity.thing_defs_of(org.id).into_iter().filter(|def| def.org == org.id);
    let mut records: Vec<Record> = vec![Org::clone(&org).into()];
    records.extend(roles.map(|granted| granted.role.clone().into()));
    records.extend(defs.map(|def| Record::ThingDef((*def).clone())));
    let webhooks = identity.webhooks_of(org.id);
    records.extend(webhooks.iter().map(|webhook| Record::Webhook((**webhook).clone())));
    let mut changes: Vec<_> = records.into_iter().map(RecordChange::Delete).collect();
    changes.extend(identity.invited_to(org.id).iter().map(|user| {
        let mut user = User::clone(user);
        user.invites.retain(|invite| invite.terms.org != org.id);
        RecordChange::Put(user.into())
    }));
    // Before the organisation: its removal is answered when this is durable, too.
    call.app.files.forget(Owner { org: org.id, thing: None })?;
    // Of those who may enter without belonging to it, some may be in it.
    Ok(After(Done, Effects::from(turn.change(changes)).followed_by(Affected::Org(org.id))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_made_of_the_key() {
        let check = |key: &str, taken: &[&str], expected: &str| {
            let slug = slug_of(key, |slug| taken.contains(&slug));
            assert_eq!(slug, expected, "{key}");
            assert!(is_slug(&slug), "{slug}");
        };
        check("BasicOrg", &[], "basicorg");
        check("Acme & Söhne", &["acme---s-hne"], "acme---s-hne-2");
        check("7 Oaks", &[], "org-7-oaks-0");
        check("X", &["org-x-0", "org-x-0-2"], "org-x-0-3");
        check("***", &[], "org--0");
        check(&"long".repeat(16), &[], &"long".repeat(16)[..50]);
    }
}
