//! `thing_def.*`: definitions of things (`docs/protocol/tr50.md` 4.1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Code, Failure, OrgId, ThingDefId, Timestamp, excerpt, limits};
use rules::identity::ThingDef;
use serde::Serialize;
use serde_json::{Map, Value};

use super::authorize::{self, Edit, Made, NewKey};
use super::commands;
use super::paging::{ListReply, View};
use crate::random::random;
use crate::tr50::envelope::{Members, Param};
use crate::tr50::params::{Field, NoParams, Params, missing, optional, params};
use crate::tr50::step::{After, Call, Done};

commands! {
    "thing_def.column_map" => column_map, [],
        "Shows the keys and names of all alarms, attributes and properties that are defined here.",
        "`result` with `alarms`, `attributes`, `properties`";
    act "thing_def.create" => create, [ALREADY_EXISTS, BUSY],
        "Makes a definition of things in the current organisation. Members that the server does not \
         know are kept as they are.",
        "`id`";
    act "thing_def.delete" => delete, [NOT_FOUND, IN_USE],
        "Deletes a definition that neither things nor applications use; with lists of keys, only these \
         parts of it.",
        "",
        "definitions from above" where authorize::check_owns_all;
    "thing_def.find" => find, [NOT_FOUND],
        "Shows a definition that is known in the current organisation: its own or one from above.",
        "the definition";
    "thing_def.keys" => keys, [],
        "Lists the keys of the definitions that are known in the current organisation.",
        "`result`";
    "thing_def.list" => list, [],
        "Lists the definitions that are known in the current organisation, by name.",
        "`count`, `fields`, `result`";
    act "thing_def.update" => update, [NOT_FOUND],
        "Changes a definition of the current organisation. Properties, attributes and the like are \
         added or replaced one by one; `unset` takes them away (`properties`, or `properties.temp`).",
        "",
        "definitions from above" where authorize::check_owns_all;
}

/// The parts of a definition that have keys of their own.
const SECTIONS: [&str; 5] = ["properties", "attributes", "alarms", "methods", "tunnels"];

params! {
    /// Which definition.
    pub struct FindParams {
        optional_exact key: String = "key", "The definition's key.";
        optional id: ThingDefId = "id", "Its id, instead.";
    }
}

params! {
    /// Which parts of it.
    pub struct Parts {
        optional properties: Vec<String> = "properties", "Keys of properties.";
        optional attributes: Vec<String> = "attributes", "Keys of attributes.";
        optional alarms: Vec<String> = "alarms", "Keys of alarms.";
        optional methods: Vec<String> = "methods", "Keys of methods.";
        optional tunnels: Vec<String> = "tunnels", "Keys of tunnels.";
    }
}

params! {
    /// What `thing_def.update` takes beside a definition.
    pub struct Unset {
        optional unset: Vec<String> = "unset", "Members, or parts of them, to take away.";
    }
}

/// A definition as a client sends it, without its key.
pub struct Definition {
    name: Option<String>,
    auto_def_props: Option<bool>,
    auto_def_attrs: Option<bool>,
    members: Map<String, Value>,
}

impl Params for Definition {
    fn fields() -> Vec<Field> {
        let field = |name, expected, doc| Field { name, expected, required: false, doc };
        let object = "an object";
        vec![
            field("name", "a string", "A name for people; the key by default."),
            field(
                "autoDefProps",
                "true or false",
                "Whether things may publish properties that are not defined; true by default.",
            ),
            field("autoDefAttrs", "true or false", "The same for attributes."),
            field("properties", object, "Key → `name`, `unit`, …"),
            field("attributes", object, "Key → `name`, `default`, …"),
            field("alarms", object, "Key → `name`, `states`, …"),
            field(
                "methods",
                object,
                "Key → `name`, `notificationVariables`, `completionVariables`, `defaultAckTimeout`, …",
            ),
            field("tunnels", object, "Key → `name`, `port`, …"),
            field("…", "anything", "Kept and shown as it is."),
        ]
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        let mut kept = Map::new();
        for (name, param) in &members.0 {
            if is_own(name) {
                continue;
            }
            let section = SECTIONS.iter().find(|section| section.eq_ignore_ascii_case(name));
            let own_name =
                section.map_or_else(|| name.to_string(), |section| (*section).to_owned());
            if param.is_null() {
                // Of a member given twice the last counts.
                kept.remove(&own_name);
                continue;
            }
            let value: Value = match *param {
                Param::Json(json) => serde_json::from_str(json.get())
                    .map_err(|_| authorize::invalid_param(name, "JSON of some depth"))?,
                Param::Text(text) => text.into(),
            };
            if section.is_some() && !value.is_object() {
                return Err(authorize::invalid_param(name, "an object"));
            }
            kept.insert(own_name, value);
        }
        Ok(Self {
            name: optional(members, "name")?,
            auto_def_props: optional(members, "autoDefProps")?,
            auto_def_attrs: optional(members, "autoDefAttrs")?,
            members: kept,
        })
    }
}

impl Definition {
    /// Changes the definition; sections are changed key by key.
    fn apply(self, def: &mut ThingDef, edit: &Edit) -> Result<(), Failure> {
        if let Some(name) = self.name {
            authorize::check_name("name", &name)?;
            def.name = name;
        }
        let flags = [
            ("autoDefProps", &mut def.auto_def_props, self.auto_def_props),
            ("autoDefAttrs", &mut def.auto_def_attrs, self.auto_def_attrs),
        ];
        for (name, flag, value) in flags {
            if value.is_some() || edit.unsets(name) {
                *flag = value;
            }
        }
        def.members.retain(|name, _| !edit.unsets(name));
        for section in SECTIONS {
            // Without parts it has nothing to lose.
            edit.unsets(section);
            edit.may_unset_below(section);
            if let Some(Value::Object(parts)) = def.members.get_mut(section) {
                parts.retain(|key, _| !edit.unsets(&format!("{section}.{key}")));
            }
        }
        for (name, value) in self.members {
            match (def.members.get_mut(&name), value) {
                (Some(Value::Object(parts)), Value::Object(more))
                    if SECTIONS.contains(&name.as_str()) =>
                {
                    parts.extend(more);
                }
                (_, value) => {
                    def.members.insert(name, value);
                }
            }
        }
        let bytes = serde_json::to_vec(&def.members).map_or(usize::MAX, |json| json.len());
        if bytes <= limits::THING_DEF_BYTES_MAX {
            return Ok(());
        }
        let most = limits::THING_DEF_BYTES_MAX;
        let sentence = format!("The definition is larger than {most} bytes.");
        Err(Failure::new(Code::PARAMETER_INVALID, sentence))
    }
}

/// A definition on the wire, in its short form.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    id: ThingDefId,
    owner_org_id: OrgId,
    key: String,
    name: String,
    version: u32,
    auto_def_props: bool,
    auto_def_attrs: bool,
    created_by: String,
    created_on: Timestamp,
    updated_by: String,
    updated_on: Timestamp,
}

/// A definition on the wire.
#[derive(Serialize)]
pub struct Whole {
    #[serde(flatten)]
    summary: Summary,
    #[serde(flatten)]
    members: Map<String, Value>,
}

impl From<&Arc<ThingDef>> for Summary {
    fn from(def: &Arc<ThingDef>) -> Self {
        let (updated_on, updated_by) =
            authorize::last_change(def.updated.clone(), def.created_on, &def.created_by);
        Self {
            id: def.id,
            owner_org_id: def.org,
            key: def.key.clone(),
            name: def.name.clone(),
            version: def.version,
            auto_def_props: def.auto_def_props.unwrap_or(true),
            auto_def_attrs: def.auto_def_attrs.unwrap_or(true),
            created_by: def.created_by.clone(),
            created_on: def.created_on,
            updated_by,
            updated_on,
        }
    }
}

/// The members of the reply that the server makes.
const FIELDS: &[&str] = &[
    "id",
    "ownerOrgId",
    "key",
    "name",
    "version",
    "autoDefProps",
    "autoDefAttrs",
    "createdBy",
    "createdOn",
    "updatedBy",
    "updatedOn",
];

/// Whether what a client sends under this name is not kept as a member of the definition.
fn is_own(name: &str) -> bool {
    FIELDS.iter().chain(&["unset"]).any(|own| own.eq_ignore_ascii_case(name))
}

impl FindParams {
    fn find(&self, call: &Call<'_>) -> Result<Arc<ThingDef>, Failure> {
        let (identity, org) = (&call.app.identity(), call.session.org_id());
        let (found, named) = match (self.id, &self.key) {
            (Some(id), _) => (identity.thing_def(org, id), id.to_string()),
            (None, Some(key)) => (identity.thing_def_by_key(org, key), excerpt(key)),
            (None, None) => return Err(missing("key")),
        };
        found.ok_or_else(|| Failure::not_found(format!("Thing definition \"{named}\"")))
    }

    /// The same, if it is the current organisation's own.
    fn find_own(&self, call: &Call<'_>) -> Result<Arc<ThingDef>, Failure> {
        let def = self.find(call)?;
        if def.org == call.session.org_id() {
            return Ok(def);
        }
        let key = &def.key;
        let sentence =
            format!("Thing definition \"{key}\" belongs to an organisation above this one.");
        Err(Failure::new(Code::PERMISSION_DENIED, sentence))
    }
}

/// `thing_def.create`.
pub fn create(
    call: &Call<'_>,
    (NewKey { key }, definition): (NewKey, Definition),
) -> Result<After<Made<ThingDefId>>, Failure> {
    authorize::check_name("key", &key)?;
    let (identity, org) = (&call.app.identity(), call.session.org_id());
    let mut def = ThingDef {
        id: ThingDefId::from_bytes(random()?),
        org,
        name: key.clone(),
        key,
        version: 1,
        auto_def_props: None,
        auto_def_attrs: None,
        members: Map::new(),
        created_on: call.now,
        created_by: authorize::author(call),
        updated: None,
    };
    definition.apply(&mut def, &Edit::new(None))?;
    let id = def.id;
    let turn = identity.turn();
    if identity.thing_def_by_key(org, &def.key).is_some_and(|other| other.org == org) {
        return Err(authorize::already_exists("Thing definition", &def.key));
    }
    let own = identity.thing_defs_of(org).iter().filter(|def| def.org == org).count();
    authorize::check_room(own, "definitions of things")?;
    Ok(After(Made { id }, turn.put(def).into()))
}

/// `thing_def.find`.
pub fn find(call: &Call<'_>, which: FindParams) -> Result<Whole, Failure> {
    let def = which.find(call)?;
    let mut members = def.members.clone();
    for section in SECTIONS {
        members.entry(section).or_insert_with(|| Map::new().into());
    }
    Ok(Whole { summary: Summary::from(&def), members })
}

/// `thing_def.list`.
pub fn list(call: &Call<'_>, view: View) -> Result<ListReply, Failure> {
    let defs = call.app.identity().thing_defs_of(call.session.org_id());
    let defs: Vec<_> = defs.iter().map(Summary::from).collect();
    view.or_sorted_by("name").apply(FIELDS, &defs)
}

/// The reply of `thing_def.keys`.
#[derive(Serialize)]
pub struct Keys {
    result: BTreeSet<String>,
}

/// `thing_def.keys`. No source shows its reply; this is the form of the other lists.
pub fn keys(call: &Call<'_>, _: NoParams) -> Result<Keys, Failure> {
    let defs = call.app.identity().thing_defs_of(call.session.org_id());
    Ok(Keys { result: defs.iter().map(|def| def.key.clone()).collect() })
}

/// The reply of `thing_def.column_map`.
#[derive(Serialize)]
pub struct ColumnMap {
    result: BTreeMap<&'static str, BTreeMap<String, String>>,
}

/// `thing_def.column_map`: key → name, of all definitions; without a name the key.
pub fn column_map(call: &Call<'_>, _: NoParams) -> Result<ColumnMap, Failure> {
    let mut result: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    let defs = call.app.identity().thing_defs_of(call.session.org_id());
    for section in ["alarms", "attributes", "properties"] {
        let columns = result.entry(section).or_default();
        // The nearest definition is the first, and its names the ones that count.
        for def in defs.iter().rev() {
            let parts = def.members.get(section).and_then(Value::as_object);
            columns.extend(parts.into_iter().flatten().map(|(key, part)| {
                let name = part.get("name").and_then(Value::as_str).unwrap_or(key);
                (key.clone(), name.to_owned())
            }));
        }
    }
    Ok(ColumnMap { result })
}

/// `thing_def.update`.
pub fn update(
    call: &Call<'_>,
    (which, definition, unset): (FindParams, Definition, Unset),
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let mut def = ThingDef::clone(&*which.find_own(call)?);
    let edit = Edit::new(unset.unset);
    definition.apply(&mut def, &edit)?;
    edit.check()?;
    def.version = def.version.saturating_add(1);
    def.updated = authorize::stamp(call);
    Ok(After(Done, turn.put(def).into()))
}

/// `thing_def.delete`: the definition, or parts of it. What things have published under a key that
/// is gone stays.
pub fn delete(
    call: &Call<'_>,
    (which, parts): (FindParams, Parts),
) -> Result<After<Done>, Failure> {
    let identity = &call.app.identity();
    let turn = identity.turn();
    let def = which.find_own(call)?;
    let named = [
        ("properties", parts.properties),
        ("attributes", parts.attributes),
        ("alarms", parts.alarms),
        ("methods", parts.methods),
        ("tunnels", parts.tunnels),
    ];
    if named.iter().any(|(_, keys)| keys.is_some()) {
        let path = |section, keys: Vec<String>| {
            keys.into_iter().map(move |key| format!("{section}.{key}")).collect::<Vec<_>>()
        };
        let unset = named.into_iter().flat_map(|(s, keys)| path(s, keys.unwrap_or_default()));
        let mut def = ThingDef::clone(&*def);
        let nothing = Definition {
            name: None,
            auto_def_props: None,
            auto_def_attrs: None,
            members: Map::new(),
        };
        nothing.apply(&mut def, &Edit::new(Some(unset.collect())))?;
        def.version = def.version.saturating_add(1);
        def.updated = authorize::stamp(call);
        return Ok(After(Done, turn.put(def).into()));
    }
    let in_use = |what: &str| {
        let sentence = format!("Thing definition \"{}\" is used by {what}.", def.key);
        Err(Failure::new(Code::IN_USE, sentence))
    };
    if identity.registers(def.id) {
        return in_use("applications");
    }
    if call.app.things.is_used(def.id)? {
        return in_use("things");
    }
    Ok(After(Done, turn.delete([ThingDef::clone(&*def).into()]).into()))
}
