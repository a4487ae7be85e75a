//! Who may change records of identity, and grant rights: what the commands that do so have in
//! common, and the rules for names and texts.
//!
//! Administrators act in their current organisation and below, holders of the command's permission
//! in the current organisation, super administrators everywhere. Nobody grants what they do not
//! hold there.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use base::{Code, Failure, OrgId, RoleId, Timestamp, excerpt, limits};
use rules::identity::model::{Membership, Org};
use rules::identity::permission::{Permission, PermissionSet};
use rules::identity::{Granted, NAME_RULE, UNAMBIGUOUS_RULE, is_name, is_unambiguous, is_unseen};
use serde::Serialize;
use store::rows::encode;

use super::target::check_unrestricted;
use crate::tr50::params::params;
use crate::tr50::step::Call;
use crate::tr50::strict::nearest;

params! {
    /// The key of a new record.
    pub struct NewKey {
        required_exact key: String = "key", "Its key, unique in the organisation in any case.";
    }
}

params! {
    /// What commands that change a record take beside its members.
    pub struct Unset {
        optional unset: Vec<String> = "unset", "Members to empty.";
    }
}

/// The reply to what makes a record.
#[derive(Serialize)]
pub struct Made<Id> {
    /// Its id.
    pub id: Id,
}

/// The caller's name in `createdBy` and its like.
pub(super) fn author(call: &Call<'_>) -> String {
    call.session.who().name().to_owned()
}

/// Now and the caller's name, for `updatedOn` and `updatedBy`.
pub(super) fn stamp(call: &Call<'_>) -> Option<(Timestamp, String)> {
    Some((call.now, author(call)))
}

/// Who changed a record last, and when, for `updatedBy` and `updatedOn`, which the vendor always
/// shows: of one that nobody has changed, who made it.
pub(super) fn last_change(
    updated: Option<(Timestamp, String)>,
    created_on: Timestamp,
    created_by: &str,
) -> (Timestamp, String) {
    updated.unwrap_or_else(|| (created_on, created_by.to_owned()))
}

/// Whether the caller may act in this organisation.
pub(super) fn may_act_in(call: &Call<'_>, org: OrgId) -> bool {
    let access = call.session.access();
    org == access.org.id || access.authority().administers(call.app.identity(), org)
}

/// The organisation with this id, in which the caller may act; without one the current one.
pub(super) fn resolve_org(call: &Call<'_>, id: Option<OrgId>) -> Result<Arc<Org>, Failure> {
    let id = id.unwrap_or_else(|| call.session.org_id());
    let org = call.app.identity().org(id).filter(|org| may_act_in(call, org.id));
    org.ok_or_else(|| Failure::not_found(format!("Organisation \"{id}\"")))
}

/// Fails unless the caller holds all of these permissions, for all things.
fn check_grant(call: &Call<'_>, wanted: &PermissionSet) -> Result<(), Failure> {
    let access = call.session.access();
    let own = access.permissions;
    if access.restricted_to_self && *wanted != PermissionSet::EMPTY {
        let sentence = "A token that is restricted to its own thing can grant nothing.";
        return Err(Failure::new(Code::PERMISSION_DENIED, sentence));
    }
    if own.contains(wanted) {
        return Ok(());
    }
    let missing = wanted.names().find(|name| !own.allows_named(name));
    let (who, missing) = (call.session.who().name(), missing.unwrap_or_default());
    let sentence = format!("{who} can't grant {missing}, which {who} does not hold.");
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// Fails unless the caller holds all that a role grants.
pub(super) fn check_role(call: &Call<'_>, granted: &Granted) -> Result<(), Failure> {
    check_grant(call, &granted.permissions)?;
    check_topics(call, granted.topic_publish(), granted.topic_subscribe())
}

/// Fails unless the caller may publish and subscribe to all ordinary topics that these filters of a
/// role give to anybody.
pub(super) fn check_topics(
    call: &Call<'_>,
    publish: &[String],
    subscribe: &[String],
) -> Result<(), Failure> {
    let access = call.session.access();
    let own = call.session.who().own_key();
    let lists = [
        ("publish", publish, &access.topic_publish),
        ("subscribe", subscribe, &access.topic_subscribe),
    ];
    for (what, filters, held) in lists {
        // Who is restricted to one thing grants nothing.
        let may = |filter: &&String| !access.restricted_to_self && held.covers_of_all(filter, own);
        let Some(missing) = filters.iter().find(|filter| !may(filter)) else { continue };
        let (who, missing) = (call.session.who().name(), excerpt(missing));
        let sentence =
            format!("{who} can't grant to {what} to \"{missing}\", which {who} may not.");
        return Err(Failure::new(Code::PERMISSION_DENIED, sentence));
    }
    Ok(())
}

/// Fails where there are records of an organisation above, which can be changed only there.
pub(super) fn check_owns_all(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().org.parent.is_none() {
        return Ok(());
    }
    let sentence = "What belongs to an organisation above this one is changed there.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// Fails unless the caller may grant everything, as only super administrators may: others grant what
/// they hold.
pub(super) fn check_grants_all(call: &Call<'_>) -> Result<(), Failure> {
    check_grant(call, &PermissionSet::ALL).and_then(|()| check_flags(call, true, true)).map_err(|_| {
        let who = call.session.who().name();
        let sentence = format!(
            "{who} can neither grant what {who} does not hold nor change who may do more than {who}."
        );
        Failure::new(Code::PERMISSION_DENIED, sentence)
    })
}

/// Fails unless the caller may grant these flags.
pub(super) fn check_flags(call: &Call<'_>, supers: bool, org_admin: bool) -> Result<(), Failure> {
    let access = call.session.access();
    let sentence = if supers && !access.super_admin {
        "Only super administrators can grant isSuperAdmin and isSuperOps."
    } else if org_admin && !access.administers_here() {
        "Only administrators can grant isOrgAdmin and allowSubOrgAccess."
    } else {
        return Ok(());
    };
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// The roles with these ids or keys, which the caller may grant in this organisation.
pub(super) fn resolve_roles(
    call: &Call<'_>,
    org: OrgId,
    named: &[String],
) -> Result<Vec<RoleId>, Failure> {
    check_list("roles", named)?;
    let mut roles = Vec::with_capacity(named.len());
    for name in named.iter().filter(|name| !name.is_empty()) {
        let granted = resolve_role(call, org, name)?;
        check_role(call, &granted)?;
        if !roles.contains(&granted.role.id) {
            roles.push(granted.role.id);
        }
    }
    Ok(roles)
}

/// The role with this id or key that is known in this organisation.
pub(super) fn resolve_role(
    call: &Call<'_>,
    org: OrgId,
    name: &str,
) -> Result<Arc<Granted>, Failure> {
    let identity = &call.app.identity();
    let by_id = name.parse().ok().and_then(|id| identity.role_within(id, org));
    let found = by_id.or_else(|| identity.role_by_key(org, name));
    found.ok_or_else(|| Failure::not_found(format!("Role \"{}\"", excerpt(name))))
}

/// Fails unless the caller may grant what these roles grant in this organisation.
pub(super) fn check_held(call: &Call<'_>, org: OrgId, roles: &[RoleId]) -> Result<(), Failure> {
    for role in roles {
        if let Some(granted) = call.app.identity().role_within(*role, org) {
            check_role(call, &granted)?;
        }
    }
    Ok(())
}

/// Fails unless a new e-mail address or key can be read in one way only.
pub(super) fn check_unambiguous(parameter: &str, text: &str) -> Result<(), Failure> {
    if is_unambiguous(text) { Ok(()) } else { Err(invalid_param(parameter, UNAMBIGUOUS_RULE)) }
}

/// Fails when a name is taken, or looks like one that is: by whom, with what may be said then, and
/// whether the caller can see them. Of those whom the caller can't see, few can be found in a minute.
pub(super) fn check_free(call: &Call<'_>, taken: Option<(Failure, bool)>) -> Result<(), Failure> {
    match taken {
        Some((failure, true)) => Err(failure),
        Some((failure, false)) => {
            check_may_ask(call)?;
            call.app.note_taken_name(call.session, call.app.clock.now());
            Err(failure)
        }
        None => check_may_ask(call),
    }
}

/// Fails unless the caller may learn whether a name is taken by somebody whom they can't see: who
/// makes users and organisations has to, a few times in a minute, and no token of a device.
pub(super) fn check_may_ask(call: &Call<'_>) -> Result<(), Failure> {
    check_unrestricted(call)?;
    call.app.check_taken_names(call.session, call.app.clock.now())
}

/// The failure for a name that looks like one that is taken.
pub(super) fn looks_like(what: &str, name: &str) -> Failure {
    let sentence = format!("{what} \"{}\" looks like one that exists already.", excerpt(name));
    Failure::new(Code::ALREADY_EXISTS, sentence)
}

/// A membership without any right, made by the caller.
pub(super) fn new_membership(call: &Call<'_>, org: OrgId) -> Membership {
    Membership {
        org,
        roles: Vec::new(),
        org_admin: false,
        sub_orgs: false,
        tags: Vec::new(),
        added_on: call.now,
        added_by: author(call),
    }
}

/// Fails unless the caller may grant the membership, and so change or end it.
pub(super) fn check_may_grant(call: &Call<'_>, held: &Membership) -> Result<(), Failure> {
    check_flags(call, false, held.org_admin || held.sub_orgs)?;
    check_held(call, held.org, &held.roles)
}

/// Fails when an organisation has so many records of a kind already.
pub(super) fn check_room(count: usize, kind: &str) -> Result<(), Failure> {
    if count < limits::RECORDS_PER_ORG_MAX {
        return Ok(());
    }
    let sentence = format!("The organisation has {count} {kind}, which is all it can have.");
    Err(Failure::new(Code::BUSY, sentence))
}

/// Fails unless the text is a name or key.
pub(super) fn check_name(parameter: &str, text: &str) -> Result<(), Failure> {
    if is_name(text) { Ok(()) } else { Err(invalid_param(parameter, NAME_RULE)) }
}

/// Fails when a list has too many texts or one of them is too long.
pub(super) fn check_list(parameter: &str, texts: &[String]) -> Result<(), Failure> {
    let most = limits::RECORD_LIST_MAX;
    if texts.len() > most {
        return Err(invalid_param(parameter, &format!("at most {most} texts")));
    }
    texts.iter().try_for_each(|text| check_text(parameter, text))
}

/// Fails when what a user is in an organisation takes too much of the user's record, which is
/// others', too, and no less than before.
pub(super) fn check_size(held: &Membership, before: &Membership) -> Result<(), Failure> {
    let most = limits::MEMBERSHIP_BYTES_MAX;
    let taken = |held: &Membership| encode(held).len();
    if taken(held) <= taken(before).max(most) {
        return Ok(());
    }
    let sentence = format!("A membership takes at most {most} bytes: some hundred roles and tags.");
    Err(Failure::new(Code::LIMIT_REACHED, sentence))
}

fn check_text(parameter: &str, text: &str) -> Result<(), Failure> {
    let most = limits::RECORD_TEXT_BYTES_MAX;
    if text.len() <= most {
        return Ok(());
    }
    Err(invalid_param(parameter, &format!("at most {most} bytes")))
}

/// The failure for a parameter that breaks a rule.
pub(super) fn invalid_param(parameter: &str, rule: &str) -> Failure {
    let sentence = format!("Parameter \"{parameter}\" must be {rule}.");
    Failure::new(Code::PARAMETER_INVALID, sentence)
}

/// The failure for a name that is taken, such as `Role "device"`.
pub(super) fn already_exists(what: &str, name: &str) -> Failure {
    let sentence = format!("{what} \"{}\" exists already.", excerpt(name));
    Failure::new(Code::ALREADY_EXISTS, sentence)
}

/// Fails if one of these is no permission: neither ours nor one of the vendor's
/// (`docs/protocol/tr50.md`, Annex A). An empty text is none.
pub(super) fn check_permissions(parameter: &str, names: &[String]) -> Result<(), Failure> {
    let unknown = |name: &&String| !name.is_empty() && Permission::named(name).is_none();
    let Some(name) = names.iter().find(unknown) else { return Ok(()) };
    let near = nearest(name, PermissionSet::ALL.names());
    let near = near.map_or_else(String::new, |near| format!(" Did you mean \"{near}\"?"));
    let sentence = format!(
        "Parameter \"{parameter}\" names \"{}\", which is no permission.{near}",
        excerpt(name)
    );
    Err(Failure::new(Code::PARAMETER_INVALID, sentence))
}

/// A change of a record by the parameters that are there, and by `unset`, which empties what it
/// names (`docs/protocol/tr50.md` 4.1).
pub(super) struct Edit {
    /// In lower case.
    unset: HashSet<String>,
    /// The members that can be emptied, as far as anybody has asked.
    asked: RefCell<Vec<String>>,
    /// The members whose parts can be emptied, whichever they are.
    with_parts: RefCell<Vec<&'static str>>,
}

impl Edit {
    /// With the members that `unset` names.
    pub(super) fn new(unset: Option<Vec<String>>) -> Self {
        let unset = unset.into_iter().flatten();
        let unset = unset.map(|name| name.to_ascii_lowercase()).collect();
        Self { unset, asked: RefCell::default(), with_parts: RefCell::default() }
    }

    /// Whether the member is to be emptied.
    pub(super) fn unsets(&self, name: &str) -> bool {
        if self.unset.is_empty() {
            return false;
        }
        let mut asked = self.asked.borrow_mut();
        if !asked.iter().any(|known| known == name) {
            asked.push(name.to_owned());
        }
        self.unset.contains(&name.to_ascii_lowercase())
    }

    /// Has names such as `member.part` be right, whether or not there is such a part.
    pub(super) fn may_unset_below(&self, member: &'static str) {
        self.with_parts.borrow_mut().push(member);
    }

    /// Fails if a member is to be emptied that nobody has asked for: there is none of this name, or
    /// it can't be empty.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let asked = self.asked.borrow();
        let with_parts = self.with_parts.borrow();
        let is_part = |name: &str| {
            let member = name.split_once('.').map(|(member, _)| member);
            member.is_some_and(|one| with_parts.iter().any(|known| known.eq_ignore_ascii_case(one)))
        };
        let is_known = |name: &str| {
            is_part(name) || asked.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        let Some(name) = self.unset.iter().filter(|name| !is_known(name)).min() else {
            return Ok(());
        };
        let names = asked.iter().map(String::as_str);
        let rest = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("there are {}.", names.collect::<Vec<_>>().join(", ")),
        };
        let sentence = format!(
            "Parameter \"unset\" names \"{}\", which can't be emptied; {rest}",
            excerpt(name)
        );
        Err(Failure::new(Code::PARAMETER_INVALID, sentence))
    }

    /// Changes a text.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub(super) fn text(
        &self,
        name: &str,
        field: &mut String,
        value: Option<String>,
    ) -> Result<(), Failure> {
        let unsets = self.unsets(name);
        if let Some(value) = value {
            check_text(name, &value)?;
            *field = value;
        } else if unsets {
            field.clear();
        }
        Ok(())
    }

    /// The same for a text of one line, which has no characters that nobody sees.
    ///
    /// # Errors
    ///
    /// It has some, or is too long.
    pub(super) fn line(
        &self,
        name: &str,
        field: &mut String,
        value: Option<String>,
    ) -> Result<(), Failure> {
        if value.as_ref().is_some_and(|value| value.chars().any(is_unseen)) {
            return Err(invalid_param(name, "a text without control characters"));
        }
        self.text(name, field, value)
    }

    /// Changes a list of texts; empty ones are left out.
    ///
    /// # Errors
    ///
    /// It has too many, or one is too long.
    pub(super) fn list(
        &self,
        name: &str,
        field: &mut Vec<String>,
        value: Option<Vec<String>>,
    ) -> Result<(), Failure> {
        let unsets = self.unsets(name);
        if let Some(mut value) = value {
            value.retain(|text| !text.is_empty());
            check_list(name, &value)?;
            *field = value;
        } else if unsets {
            field.clear();
        }
        Ok(())
    }

    /// Changes a flag.
    pub(super) fn flag(&self, name: &str, field: &mut bool, value: Option<bool>) {
        let unsets = self.unsets(name);
        if let Some(value) = value {
            *field = value;
        } else if unsets {
            *field = false;
        }
    }
}
