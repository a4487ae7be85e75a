//! `role.*`: roles, which are sets of permissions (`docs/protocol/tr50.md` 3.4 and 4.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Code, Failure, OrgId, RoleId, Timestamp, excerpt, limits};
use rules::identity::model::Role;
use rules::identity::permission::PermissionSet;
use rules::identity::{Granted, Holders, TOPIC_FILTER_RULE, is_topic_filter};
use serde::Serialize;

use super::authorize::{self, Edit, Made, NewKey, Unset};
use super::commands;
use super::paging::{ListReply, View};
use crate::app::{Affected, Effects};
use crate::random::random;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done};
use crate::tr50::strict::Strict;

commands! {
    act "role.create" => create, [ALREADY_EXISTS, BUSY],
        "Makes a role in the current organisation. Nobody can put into it what they do not hold.",
        "`id`",
        "permissions and topics" where authorize::check_grants_all;
    act "role.delete" => delete, [NOT_FOUND, IN_USE],
        "Deletes a role of the current organisation that nobody holds.",
        "",
        "roles from above" where authorize::check_owns_all;
    "role.find" => find, [NOT_FOUND],
        "Shows a role that is known in the current organisation: its own or one from above.",
        "the role; with `holders` also `holders`: `userCount`, `appCount` and, to who may use \
         `user.list` and `app.list`, `users` and `apps`, the first 100 e-mail addresses and names";
    "role.list" => list, [NOT_FOUND],
        "Lists the roles that are known in an organisation, by key; `readOnly` are those from above.",
        "`count`, `fields`, `result`";
    "role.perms" => perms, [],
        "Lists all permissions.",
        "for each family its commands; with `docs` an array of objects with `name` and `doc`, which \
         is empty for those that no command of this server asks for";
    act "role.update" => update, [NOT_FOUND],
        "Changes a role of the current organisation, not one from above: role.create makes one of \
         its own with the same key, which a look-up by key finds first. Live sessions of those who \
         hold it have the new rights when the reply comes.",
        "",
        "permissions and topics" where authorize::check_grants_all,
        "roles from above" where authorize::check_owns_all;
}

params! {
    /// A role's members.
    pub struct UpdateParams {
        optional name: String = "name", "A name for people; the key by default.";
        optional desc: String = "desc", "What it is for.";
        optional perms: Vec<String> = "perms",
            "Names of commands, or of families such as `thing`, which stand for all their commands.";
        optional view_tags: Vec<String> = "viewTags", "Security tags; kept, without effect here.";
        optional update_tags: Vec<String> = "updateTags", "Security tags; kept, without effect here.";
        optional topic_publish: Vec<String> = "topicPublish",
            "Filters of the ordinary MQTT topics to publish to, with the permission `topic.publish`; \
             `%thingKey%` and `%user%` are the session's own. None by default.";
        optional topic_subscribe: Vec<String> = "topicSubscribe",
            "The same for subscriptions, with `topic.subscribe`.";
    }
}

params! {
    /// Which role.
    pub struct FindParams {
        optional_exact key: String = "key", "The role's key.";
        optional id: RoleId = "id", "The role's id, instead.";
    }
}

params! {
    /// The parameters of `role.list` beside those of every list.
    pub struct ListParams {
        optional org_id: OrgId = "orgId", "Another organisation, for administrators.";
        optional holders: bool = "holders",
            "Adds `userCount` and `appCount`: how many users and applications hold it there.";
    }
}

params! {
    /// What `role.find` shows beside the role.
    pub struct HoldersParams {
        optional holders: bool = "holders", "Adds who holds it in the current organisation.";
    }
}

params! {
    /// The parameters of `role.perms`.
    pub struct PermsParams {
        optional docs: bool = "docs", "Says of each what it is for.";
    }
}

/// A role on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleView {
    id: RoleId,
    key: String,
    org_id: OrgId,
    name: String,
    desc: String,
    perms: Vec<String>,
    view_tags: Vec<String>,
    update_tags: Vec<String>,
    topic_publish: Vec<String>,
    topic_subscribe: Vec<String>,
    read_only: bool,
    created_by: String,
    created_on: Timestamp,
    updated_by: String,
    updated_on: Timestamp,
}

const FIELDS: &[&str] = &[
    "id",
    "key",
    "orgId",
    "name",
    "desc",
    "perms",
    "viewTags",
    "updateTags",
    "topicPublish",
    "topicSubscribe",
    "readOnly",
    "createdBy",
    "createdOn",
    "updatedBy",
    "updatedOn",
];

/// Members that `role.list` adds with `holders`.
const COUNTS: &[&str] = &["userCount", "appCount"];

/// A role, and how many hold it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountedRole {
    #[serde(flatten)]
    role: RoleView,
    user_count: usize,
    app_count: usize,
}

/// The reply of `role.find`.
#[derive(Serialize)]
pub struct FoundRole {
    #[serde(flatten)]
    role: RoleView,
    #[serde(skip_serializing_if = "Option::is_none")]
    holders: Option<HoldersView>,
}

/// Who holds a role in an organisation, as far as the caller may list them.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct HoldersView {
    user_count: usize,
    app_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apps: Option<Vec<String>>,
}

impl HoldersView {
    fn of(call: &Call<'_>, holders: &Holders) -> Self {
        let named = |permission: &str, mut names: Vec<String>| {
            names.sort_unstable();
            names.truncate(limits::HOLDERS_SHOWN_MAX);
            call.session.access().allows(permission).then_some(names)
        };
        let users = holders.users.iter().map(|user| user.email.clone()).collect();
        let apps = holders.applications.iter().map(|found| found.name.clone()).collect();
        Self {
            user_count: holders.users.len(),
            app_count: holders.applications.len(),
            users: named("user.list", users),
            apps: named("app.list", apps),
        }
    }
}

impl RoleView {
    fn of(role: &Role, org: OrgId) -> Self {
        let (updated_on, updated_by) =
            authorize::last_change(role.updated.clone(), role.created_on, &role.created_by);
        Self {
            id: role.id,
            key: role.key.clone(),
            org_id: role.org,
            name: role.name.clone(),
            desc: role.desc.clone(),
            perms: role.permissions.clone(),
            view_tags: role.view_tags.clone(),
            update_tags: role.update_tags.clone(),
            topic_publish: role.topic_publish.clone(),
            topic_subscribe: role.topic_subscribe.clone(),
            read_only: role.org != org,
            created_by: role.created_by.clone(),
            created_on: role.created_on,
            updated_by,
            updated_on,
        }
    }
}

impl UpdateParams {
    /// Changes a role, and fails if it then grants what the caller does not hold.
    fn apply(self, call: &Call<'_>, role: &mut Role, edit: &Edit) -> Result<(), Failure> {
        let grants = self.perms.is_some();
        let topics = self.topic_publish.is_some() || self.topic_subscribe.is_some();
        self.write(role, edit)?;
        if grants {
            authorize::check_role(call, &role.clone().into())?;
        }
        if topics {
            // Whether or not the permission switches them on yet.
            authorize::check_topics(call, &role.topic_publish, &role.topic_subscribe)?;
        }
        Ok(())
    }

    fn write(self, role: &mut Role, edit: &Edit) -> Result<(), Failure> {
        if let Some(name) = self.name {
            authorize::check_name("name", &name)?;
            role.name = name;
        }
        if let Some(perms) = self.perms {
            authorize::check_list("perms", &perms)?;
            authorize::check_permissions("perms", &perms)?;
            role.permissions = perms;
        }
        edit.text("desc", &mut role.desc, self.desc)?;
        edit.list("viewTags", &mut role.view_tags, self.view_tags)?;
        edit.list("updateTags", &mut role.update_tags, self.update_tags)?;
        for (name, value) in
            [("topicPublish", &self.topic_publish), ("topicSubscribe", &self.topic_subscribe)]
        {
            let fit = |filter: &String| filter.is_empty() || is_topic_filter(filter);
            let fit = value.iter().flatten().all(fit);
            if !fit {
                return Err(authorize::invalid_param(name, TOPIC_FILTER_RULE));
            }
        }
        edit.list("topicPublish", &mut role.topic_publish, self.topic_publish)?;
        edit.list("topicSubscribe", &mut role.topic_subscribe, self.topic_subscribe)
    }
}

impl FindParams {
    fn find(&self, call: &Call<'_>) -> Result<Arc<Granted>, Failure> {
        let (identity, org) = (&call.app.identity(), call.session.org_id());
        let (found, named) = match (self.id, &self.key) {
            (Some(id), _) => (identity.role_within(id, org), id.to_string()),
            (None, Some(key)) => (identity.role_by_key(org, key), excerpt(key)),
            (None, None) => return Err(missing("key")),
        };
        found.ok_or_else(|| Failure::not_found(format!("Role \"{named}\"")))
    }

    /// The same, if it is the current organisation's own; `instead` is what else the caller can do.
    fn find_own(&self, call: &Call<'_>, instead: &str) -> Result<Arc<Granted>, Failure> {
        let granted = self.find(call)?;
        if granted.role.org == call.session.org_id() {
            return Ok(granted);
        }
        let key = &granted.role.key;
        let sentence =
            format!("Role \"{key}\" belongs to an organisation above this one{instead}.");
        Err(Failure::new(Code::PERMISSION_DENIED, sentence))
    }
}

/// `role.create`.
pub fn create(
    call: &Call<'_>,
    Strict((new, members)): Strict<(NewKey, UpdateParams)>,
) -> Result<After<Made<RoleId>>, Failure> {
    authorize::check_name("key", &new.key)?;
    let (identity, org) = (&call.app.identity(), call.session.org_id());
    let mut role = Role {
        id: RoleId::from_bytes(random()?),
        name: new.key.clone(),
        key: new.key,
        org,
        permissions: Vec::new(),
        desc: String::new(),
        view_tags: Vec::new(),
        update_tags: Vec::new(),
        topic_publish: Vec::new(),
        topic_subscribe: Vec::new(),
        created_on: call.now,
        created_by: authorize::author(call),
        updated: None,
    };
    members.apply(call, &mut role, &Edit::new(None))?;
    let id = role.id;
    let turn = identity.turn();
    if identity.role_by_key(org, &role.key).is_some_and(|other| other.role.org == org) {
        return Err(authorize::already_exists("Role", &role.key));
    }
    let own = identity.roles_of(org).iter().filter(|granted| granted.role.org == org).count();
    authorize::check_room(own, "roles")?;
    Ok(After(Made { id }, turn.put(role).into()))
}

/// `role.find`.
pub fn find(
    call: &Call<'_>,
    Strict((which, params)): Strict<(FindParams, HoldersParams)>,
) -> Result<FoundRole, Failure> {
    let (granted, org) = (which.find(call)?, call.session.org_id());
    let holders = params.holders.unwrap_or(false).then(|| {
        let mut all = call.app.identity().holders_in(org);
        HoldersView::of(call, &all.remove(&granted.role.id).unwrap_or_default())
    });
    Ok(FoundRole { role: RoleView::of(&granted.role, org), holders })
}

/// `role.list`.
pub fn list(
    call: &Call<'_>,
    Strict((view, wanted)): Strict<(View, ListParams)>,
) -> Result<ListReply, Failure> {
    let org = authorize::resolve_org(call, wanted.org_id)?.id;
    let roles = call.app.identity().roles_of(org);
    let roles: Vec<_> = roles.iter().map(|granted| RoleView::of(&granted.role, org)).collect();
    let view = view.or_sorted_by("key");
    if !wanted.holders.unwrap_or(false) {
        return view.apply(FIELDS, &roles);
    }
    let holders = call.app.identity().holders_in(org);
    let counted = |role: RoleView| {
        let held = holders.get(&role.id);
        let user_count = held.map_or(0, |held| held.users.len());
        let app_count = held.map_or(0, |held| held.applications.len());
        CountedRole { role, user_count, app_count }
    };
    let roles: Vec<_> = roles.into_iter().map(counted).collect();
    view.apply(&[FIELDS, COUNTS].concat(), &roles)
}

/// `role.update`.
pub fn update(
    call: &Call<'_>,
    Strict((which, members, unset)): Strict<(FindParams, UpdateParams, Unset)>,
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let instead = "; role.create makes one with this key that is its own";
    let mut role = which.find_own(call, instead)?.role.clone();
    let edit = Edit::new(unset.unset);
    members.apply(call, &mut role, &edit)?;
    edit.check()?;
    role.updated = authorize::stamp(call);
    let affected = Affected::Within(role.org);
    Ok(After(Done, Effects::from(turn.put(role)).followed_by(affected)))
}

/// `role.delete`.
pub fn delete(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<After<Done>, Failure> {
    let identity = &call.app.identity();
    let turn = identity.turn();
    let role = which.find_own(call, "")?.role.clone();
    if identity.is_held(role.id) {
        let sentence = format!("Role \"{}\" is held by users or applications.", role.key);
        return Err(Failure::new(Code::IN_USE, sentence));
    }
    Ok(After(Done, turn.delete([role.into()]).into()))
}

/// `role.perms`: every service with its methods.
pub fn perms(
    _: &Call<'_>,
    Strict(params): Strict<PermsParams>,
) -> Result<BTreeMap<&'static str, Vec<Method>>, Failure> {
    let docs = params.docs.unwrap_or(false);
    let mut families: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for name in PermissionSet::ALL.names() {
        let Some((family, method)) = name.split_once('.') else { continue };
        let doc = super::find(name).map_or("", |row| row.info.doc);
        let method = if docs { Method::Told { name: method, doc } } else { Method::Named(method) };
        families.entry(family).or_default().push(method);
    }
    Ok(families)
}

/// A permission in its family.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Method {
    /// Its name.
    Named(&'static str),
    /// Its name, and what it is for.
    Told {
        /// The name.
        name: &'static str,
        /// What its command does.
        doc: &'static str,
    },
}
