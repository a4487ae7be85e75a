//! `thing.create`, `thing.update`, `thing.delete`, `thing.def.change` and `thing.appid.reset`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Code, Failure, ThingDefId, ThingId, ThingKey, Timestamp, excerpt, limits};
use rules::directory::{Principal, Reason, Session, Who};
use rules::identity::{Ban, ThingDef};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, json};
use store::{Batch, Receipt};

use crate::app::{Effects, SessionChange};
use crate::events::{Kind as EventKind, Target as EventTarget, diff};
use crate::random::random;
use crate::things::files::Owner;
use crate::things::registry::{Alias, Thing, ThingConflict, Things};
use crate::things::telemetry::NewPoint;
use crate::things::telemetry::point::{Kind, Value};
use crate::tr50::commands::authorize;
use crate::tr50::commands::ban::BanParams;
use crate::tr50::commands::publish::{self, AttributeText};
use crate::tr50::commands::target::{ByKey, Subject, Target};
use crate::tr50::envelope::{Members, Param};
use crate::tr50::params::{Value as _, missing, params};
use crate::tr50::step::{After, Call, Done, WriteReply};

params! {
    /// The parameters of `thing.create`.
    pub(super) struct Create {
        required key: ThingKey = "key", "The new thing's key, unique in the organisation.";
        optional name: String = "name", "Its name for people; the key by default.";
        optional def_key: String = "defKey", "The key of its definition; none by default.";
        optional def_id: ThingDefId = "defId", "The id of its definition, instead.";
        optional desc: String = "desc", "What it is, for people.";
        optional tags: Vec<String> = "tags", "Its tags.";
        optional sec_tags: Vec<String> = "secTags", "Its security tags.";
        optional loc_enabled: bool = "locEnabled", "Whether its location is of interest.";
        optional attrs: Box<RawValue> = "attrs",
            "Its attributes: an object of texts by name, or of objects with a text `value`.";
        optional iccid: String = "iccid", "The ICCID of its SIM card.";
        optional esn: String = "esn", "Its electronic serial number.";
        optional imei: String = "imei", "The IMEI of its modem.";
        optional meid: String = "meid", "The MEID of its modem.";
        optional imsi: String = "imsi", "The IMSI of its subscriber.";
        optional msisdn: String = "msisdn", "Its telephone number.";
    }
}

params! {
    /// The parameters of `thing.update`.
    pub(super) struct Update {
        optional key: ThingKey = "key", "The thing's key; own thing by default.";
        optional id: ThingId = "id", "Its id, instead.";
        optional thing_key: ThingKey = "thingKey", "The same as `key`.";
        optional thing_id: ThingId = "thingId", "The same as `id`.";
        optional name: String = "name", "Its name for people.";
        optional desc: String = "desc", "What it is, for people.";
        optional tags: Vec<String> = "tags", "All of its tags.";
        optional sec_tags: Vec<String> = "secTags", "All of its security tags.";
        optional loc_enabled: bool = "locEnabled", "Whether its location is of interest.";
        optional iccid: String = "iccid", "The ICCID of its SIM card; empty: none.";
        optional esn: String = "esn", "Its electronic serial number.";
        optional imei: String = "imei", "The IMEI of its modem.";
        optional meid: String = "meid", "The MEID of its modem.";
        optional imsi: String = "imsi", "The IMSI of its subscriber.";
        optional msisdn: String = "msisdn", "Its telephone number.";
        optional unset: Vec<String> = "unset",
            "Names of `desc`, `tags`, `secTags` and identifiers that it is to have no more.";
    }
}

/// The reply of `thing.create`.
#[derive(Serialize)]
pub(super) struct Created {
    id: ThingId,
}

/// `thing.create`.
pub(super) fn create(call: &Call<'_>, params: Create) -> Result<After<Created>, Failure> {
    let id = ThingId::from_bytes(random()?);
    let (org, by) = (call.session.org_id(), call.session.who().name());
    let mut thing = Thing::new(id, org, params.key, by, call.now);
    let aliases = [params.iccid, params.esn, params.imei, params.meid, params.imsi, params.msisdn];
    let edit = Edit {
        name: params.name.filter(|name| !name.is_empty()),
        desc: params.desc,
        tags: params.tags,
        sec_tags: params.sec_tags,
        loc_enabled: params.loc_enabled,
        aliases: named(aliases),
    };
    edit.check()?;
    edit.apply(&mut thing);
    thing.maker = Some(call.session.who().principal_id());
    let def = definition(call, params.def_key.as_deref(), params.def_id)?;
    thing.def = def.as_ref().map(|def| def.id);
    let attributes = read_attributes(params.attrs.as_deref(), def.as_deref())?;
    let receipt = make(call, &thing);
    let receipt = receipt.map_err(|conflict| conflict_failure(conflict, &thing.key))?;
    if attributes.is_empty() {
        return Ok(After(Created { id }, receipt.into()));
    }
    let subject = Subject { id, key: thing.key };
    let recorded = publish::record(call, &subject, Kind::Attribute, &attributes)?.whole()?;
    Ok(After(Created { id }, receipt.and(recorded).into()))
}

/// Makes a thing, as the caller.
pub(super) fn make(call: &Call<'_>, thing: &Thing) -> Result<Receipt, ThingConflict> {
    let mut numbered = None;
    let by = call.session.who().name();
    let made = call.app.things.create_with(thing, |batch| {
        let made = (EventKind::ThingCreated, thing);
        numbered = Some(call.app.add_thing_event(batch, made, by, call.now));
    });
    match numbered {
        Some(numbered) => numbered.settle(made),
        None => made,
    }
}

/// The definition that a command names, if it names one.
pub(super) fn definition(
    call: &Call<'_>,
    key: Option<&str>,
    id: Option<ThingDefId>,
) -> Result<Option<Arc<ThingDef>>, Failure> {
    let (identity, org) = (&call.app.identity(), call.session.org_id());
    let (found, named) = match (key.filter(|key| !key.is_empty()), id) {
        (Some(key), _) => (identity.thing_def_by_key(org, key), excerpt(key)),
        (None, Some(id)) => (identity.thing_def(org, id), id.to_string()),
        (None, None) => return Ok(None),
    };
    let not_found = || Failure::not_found(format!("Thing definition \"{named}\""));
    found.ok_or_else(not_found).map(Some)
}

/// The attributes of a thing that is to be made.
fn read_attributes(
    attributes: Option<&RawValue>,
    def: Option<&ThingDef>,
) -> Result<Vec<NewPoint>, Failure> {
    let Some(attributes) = attributes else { return Ok(Vec::new()) };
    let wrong = |what: &str| {
        let sentence = format!("Parameter \"attrs\" must be an object of {what}.");
        Failure::new(Code::PARAMETER_INVALID, sentence)
    };
    let Some(members) = Members::of(attributes) else {
        return Err(wrong("texts by name"));
    };
    let attribute = |(name, value): &(Cow<'_, str>, Param<'_>)| {
        if !(1..=limits::SERIES_NAME_BYTES_MAX).contains(&name.len()) {
            return Err(wrong("texts, with names of 1 to 256 bytes"));
        }
        if def.is_some_and(|def| !def.admits_attribute(name)) {
            let named = excerpt(name);
            return Err(Failure::not_found(format!("Attribute \"{named}\" in the definition")));
        }
        let nested = value.json().and_then(Members::of);
        let text = match &nested {
            Some(members) => members.find("value").and_then(AttributeText::read),
            None => AttributeText::read(*value),
        };
        let text = text.ok_or_else(|| wrong("texts of at most 16384 bytes"))?;
        let (name, value) = (name.to_string(), Value::Attribute(Some(text.0.into())));
        Ok(NewPoint { name, ts: None, value, corr_id: None, republish: false })
    };
    // Of an attribute given twice the last counts.
    let last: BTreeMap<_, _> =
        members.0.iter().enumerate().map(|(at, (name, _))| (name, at)).collect();
    let counts = |(at, (name, _)): &(usize, &(Cow<'_, str>, _))| last.get(name) == Some(at);
    members.0.iter().enumerate().filter(counts).map(|(_, member)| attribute(member)).collect()
}

params! {
    /// The parameters of `thing.def.change`.
    pub(super) struct ChangeDef {
        required new_def_key: String = "newDefKey", "The key of the new definition.";
        optional drop_props: bool = "dropProps",
            "What the new definition does not know stays; true is refused.";
        optional drop_attrs: bool = "dropAttrs", "The same of attributes.";
        optional drop_alarms: bool = "dropAlarms", "The same of alarms.";
    }
}

/// `thing.def.change`. What was measured stays: it can't be told from what is of use.
pub(super) fn change_def(
    call: &Call<'_>,
    (params, (by_key, target)): (ChangeDef, (ByKey, Target)),
) -> Result<After<Done>, Failure> {
    let drops = [
        ("dropProps", params.drop_props),
        ("dropAttrs", params.drop_attrs),
        ("dropAlarms", params.drop_alarms),
    ];
    if let Some((name, _)) = drops.into_iter().find(|(_, drop)| *drop == Some(true)) {
        let sentence = format!("Parameter \"{name}\" must be false: what was measured stays.");
        return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
    }
    let thing = target.thing_by_key(by_key, call)?;
    let def = definition(call, Some(&params.new_def_key), None)?;
    let def = def.ok_or_else(|| missing("newDefKey"))?.id;
    let receipt = change(call, &thing.key, |thing| thing.def = Some(def))?;
    let redefine = SessionChange::Redefine(Principal::Thing(thing.org, thing.key), Some(def));
    Ok(After(Done, Effects::from(receipt).and_sessions([redefine])))
}

/// `thing.update`. Identifiers are new values, so the thing is named by its key or id
/// (`docs/protocol/tr50.md` 4.1); a user who names none means the thing that has the first of the
/// identifiers.
pub(super) fn update(
    call: &Call<'_>,
    (params, ban): (Update, BanParams),
) -> Result<After<Done>, Failure> {
    let aliases =
        named([params.iccid, params.esn, params.imei, params.meid, params.imsi, params.msisdn]);
    let mut target = Target {
        thing_key: params.key.or(params.thing_key),
        thing_id: params.id.or(params.thing_id),
        ..Target::default()
    };
    if target.thing_key.is_none() && target.thing_id.is_none() {
        target.set_alias_of_user(call, &aliases);
    }
    let thing = target.thing(call)?;
    let mut edit = Edit {
        name: params.name,
        desc: params.desc,
        tags: params.tags,
        sec_tags: params.sec_tags,
        loc_enabled: params.loc_enabled,
        aliases,
    };
    let unset = params.unset.unwrap_or_default();
    let ban_edit = authorize::Edit::new(Some(unset.clone()));
    let is_ban = |member: &String| BAN_MEMBERS.iter().any(|name| name.eq_ignore_ascii_case(member));
    for member in unset.iter().filter(|member| !is_ban(member)) {
        edit.unset(member)?;
    }
    edit.check()?;
    let own = call.session.who().own_key() == Some(thing.key.as_str());
    let Some(ban) = ban.apply(call, &thing.ban, &ban_edit, own)? else {
        let changed = change(call, &thing.key, |thing| edit.apply(thing));
        return changed.map(|receipt| After(Done, receipt.into()));
    };
    let edit = move |thing: &mut Thing| {
        edit.apply(thing);
        thing.ban = ban;
    };
    let (thing, receipt) = change_in_trail(call, "thing.update", &thing.key, edit, banned)?;
    // Behind the change: whoever logs in meanwhile finds it.
    let is_banned = thing.ban.is_banned(call.app.clock.now());
    let sessions = if is_banned { sessions_of(call, &thing) } else { Vec::new() };
    let ends = sessions.into_iter().map(|session| SessionChange::End(session, Reason::Banned));
    Ok(After(Done, Effects::from(receipt).and_sessions(ends).by(call.deed("thing.update"))))
}

const BAN_MEMBERS: [&str; 3] = ["disabled", "reason", "disabledUntil"];

/// What the trail shows of a ban.
fn banned(thing: &Thing) -> Map<String, serde_json::Value> {
    json!(thing.ban).as_object().cloned().unwrap_or_default()
}

/// The event of a change of a ban, if it is one; another reason or time is a ban anew.
fn ban_kind((was, is): (&Ban, &Ban), now: Timestamp) -> Option<EventKind> {
    match (was.is_banned(now), is.is_banned(now)) {
        (_, true) if was != is => Some(EventKind::ThingBanned),
        (true, false) => Some(EventKind::ThingUnbanned),
        _ => None,
    }
}

/// Changes a thing and notes who did it, in the trail with what `shown` says of it, too.
fn change_in_trail(
    call: &Call<'_>,
    command: &'static str,
    key: &ThingKey,
    edit: impl FnOnce(&mut Thing),
    shown: impl Fn(&Thing) -> Map<String, serde_json::Value>,
) -> Result<(Thing, Receipt), Failure> {
    let (mut numbered, by) = (None, call.session.who().name());
    let note = |was: &Thing, is: &Thing, batch: &mut Batch| {
        let changed = diff(shown(was), shown(is));
        let act = call.app.act(&call.deed(command), is.org, target_of(is), changed, call.now);
        let kind = ban_kind((&was.ban, &is.ban), call.app.clock.now());
        let of_ban = kind.map(|kind| call.app.thing_event(kind, is, by, call.now));
        let events = [act.into()].into_iter().chain(of_ban);
        numbered = Some(call.app.events().add(batch, events));
    };
    let edit = |thing: &mut Thing| {
        let before = thing.clone();
        edit(thing);
        if *thing != before {
            thing.updated = Some((call.now, by.to_owned()));
        }
    };
    let changed = call.app.things.change_with(call.session.org_id(), key, edit, note);
    let changed = match numbered {
        Some(numbered) => numbered.settle(changed),
        None => changed,
    };
    let changed = changed.map_err(|conflict| conflict_failure(conflict, key))?;
    changed.ok_or_else(|| gone(key))
}

/// The reply of `thing.delete`.
pub(super) enum Deleted {
    Thing,
    /// All but its key and the ban.
    AllButBan,
}

impl WriteReply for Deleted {
    fn write_reply(&self, out: &mut Vec<u8>) {
        match self {
            Self::Thing => Done.write_reply(out),
            Self::AllButBan => json!({"disabled": true}).write_reply(out),
        }
    }
}

/// `thing.delete`: the thing, what it measured and stored, and its live sessions. Of one that is
/// disabled a thing with nothing but the key and the ban stays: otherwise it would register anew.
pub(super) fn delete(
    call: &Call<'_>,
    (by_key, target): (ByKey, Target),
) -> Result<After<Deleted>, Failure> {
    let thing = target.thing_by_key(by_key, call)?;
    // Before the thing: its removal is answered when this is durable, too.
    call.app.files.forget(Owner { org: thing.org, thing: Some(thing.id) })?;
    drop(call.app.mailbox.purge_thing(thing.id, call.app.clock.now())?.1);
    let mut numbered = None;
    let forget = |thing: &Thing, batch: &mut Batch| {
        call.app.telemetry.forget(batch, thing.id.into());
        let (before, after) = diff(shown(thing), Map::new());
        let deed = call.deed("thing.delete");
        let event = call.app.act(&deed, thing.org, target_of(thing), (before, after), call.now);
        let by = call.session.who().name();
        let gone = call.app.thing_event(EventKind::ThingDeleted, thing, by, call.now);
        numbered = Some(call.app.events().add(batch, [event.into(), gone]));
    };
    let fresh = ThingId::from_bytes(random()?);
    let mut deleted = Deleted::Thing;
    let heir = |thing: &Thing| {
        if !thing.ban.is_banned(call.app.clock.now()) {
            return None;
        }
        deleted = Deleted::AllButBan;
        let new = Thing::new(fresh, thing.org, thing.key.clone(), &thing.created_by, call.now);
        Some(Thing { ban: thing.ban.clone(), ..new })
    };
    let removed = call.app.things.replace(thing.org, &thing.key, heir, forget);
    let removed = match numbered {
        Some(numbered) => numbered.settle(removed)?,
        None => removed?,
    };
    let (thing, receipt) = removed.ok_or_else(|| gone(&thing.key))?;
    // Behind the removal: a login that is let in now makes the thing anew, and is not meant.
    let sessions = sessions_of(call, &thing).into_iter();
    let ends = sessions.map(|session| SessionChange::End(session, Reason::Revoked));
    let principal = Principal::Thing(thing.org, thing.key.clone());
    Ok(After(deleted, Effects::from(receipt).without(principal).and_sessions(ends)))
}

fn target_of(thing: &Thing) -> EventTarget {
    EventTarget { kind: "thing", id: thing.id.to_string(), name: thing.key.to_string() }
}

/// What the trail shows of a thing that is gone.
fn shown(thing: &Thing) -> Map<String, serde_json::Value> {
    let members = json!({
        "name": thing.name, "desc": thing.desc, "tags": thing.tags, "secTags": thing.sec_tags,
        "defId": thing.def, "appId": thing.app_id,
    });
    members.as_object().cloned().unwrap_or_default()
}

fn sessions_of(call: &Call<'_>, thing: &Thing) -> Vec<Arc<Session>> {
    let principal = Principal::Thing(thing.org, thing.key.clone());
    let mut sessions = call.app.directory().of_principal(&principal);
    sessions.retain(
        |other| matches!(other.who(), Who::Application { thing_id, .. } if *thing_id == thing.id),
    );
    sessions
}

/// Fails unless the caller is an administrator.
pub(super) fn check_administers(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().administers_here() {
        return Ok(());
    }
    let sentence = "Only an administrator of the organisation may reset an application id.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// `thing.appid.reset`: forgets the application id that the thing last logged in with. For
/// administrators only (`docs/protocol/tr50.md` 0, fact 29).
pub(super) fn reset_app_id(
    call: &Call<'_>,
    (by_key, target): (ByKey, Target),
) -> Result<After<Done>, Failure> {
    let thing = target.thing_by_key(by_key, call)?;
    let app_id = |thing: &Thing| Map::from_iter([("appId".to_owned(), json!(thing.app_id))]);
    let reset = |thing: &mut Thing| thing.app_id.clear();
    let (_, receipt) = change_in_trail(call, "thing.appid.reset", &thing.key, reset, app_id)?;
    Ok(After(Done, receipt.into()))
}

/// Changes a thing and notes who did it, unless `edit` changes nothing.
pub(super) fn change(
    call: &Call<'_>,
    key: &ThingKey,
    edit: impl FnOnce(&mut Thing),
) -> Result<Receipt, Failure> {
    let (org, by) = (call.session.org_id(), call.session.who().name());
    change_as(&call.app.things, org, key, (call.now, by), edit)
}

/// As [`change`], where there is no call.
pub(super) fn change_as(
    things: &Things,
    org: base::OrgId,
    key: &ThingKey,
    (now, by): (Timestamp, &str),
    edit: impl FnOnce(&mut Thing),
) -> Result<Receipt, Failure> {
    let edit = |thing: &mut Thing| {
        let before = thing.clone();
        edit(thing);
        if *thing != before {
            thing.updated = Some((now, by.to_owned()));
        }
    };
    let changed = things.change(org, key, edit);
    let changed = changed.map_err(|conflict| conflict_failure(conflict, key))?;
    changed.map(|(_, receipt)| receipt).ok_or_else(|| gone(key))
}

/// The failure for a thing that was there a moment ago.
fn gone(key: &ThingKey) -> Failure {
    Failure::not_found(format!("Thing \"{key}\""))
}

/// What a conflict is called in TR50; `key` is that of the thing that was to be made or changed.
pub(super) fn conflict_failure(conflict: ThingConflict, key: &ThingKey) -> Failure {
    match conflict {
        ThingConflict::Key => {
            Failure::new(Code::ALREADY_EXISTS, format!("Thing \"{key}\" exists already."))
        }
        ThingConflict::Alias { alias, value } => {
            let (alias, value) = (alias.as_str(), excerpt(&value));
            let sentence = format!("Another thing has the {alias} \"{value}\" already.");
            Failure::new(Code::ALREADY_EXISTS, sentence)
        }
        ThingConflict::Full(over) => over.into(),
        ThingConflict::Store(error) => error.into(),
    }
}

/// What is to become of a thing.
struct Edit {
    name: Option<String>,
    desc: Option<String>,
    tags: Option<Vec<String>>,
    sec_tags: Option<Vec<String>>,
    loc_enabled: Option<bool>,
    /// An empty one goes.
    aliases: BTreeMap<Alias, String>,
}

fn named(values: [Option<String>; 6]) -> BTreeMap<Alias, String> {
    Alias::ALL.into_iter().zip(values).filter_map(|(alias, value)| Some((alias, value?))).collect()
}

impl Edit {
    /// Notes that the thing is to have this member no more.
    fn unset(&mut self, member: &str) -> Result<(), Failure> {
        let alias = |alias: &Alias| alias.as_str().eq_ignore_ascii_case(member);
        match member.to_ascii_lowercase().as_str() {
            "desc" => self.desc = Some(String::new()),
            "tags" => self.tags = Some(Vec::new()),
            "sectags" => self.sec_tags = Some(Vec::new()),
            "locenabled" => self.loc_enabled = Some(false),
            _ => match Alias::ALL.into_iter().find(alias) {
                Some(alias) => drop(self.aliases.insert(alias, String::new())),
                None => {
                    let (name, aliases) =
                        (excerpt(member), Alias::ALL.map(Alias::as_str).join(", "));
                    let sentence = format!(
                        "Parameter \"unset\" must be one of desc, tags, secTags, locEnabled, \
                         {aliases}; it names \"{name}\"."
                    );
                    return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
                }
            },
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        let texts = [("name", &self.name), ("desc", &self.desc)];
        for (parameter, text) in texts {
            text.as_deref().map_or(Ok(()), |text| check_text(parameter, text))?;
        }
        if self.name.as_deref().is_some_and(str::is_empty) {
            return Err(missing("name"));
        }
        for (alias, value) in &self.aliases {
            check_text(alias.as_str(), value)?;
        }
        for (parameter, tags) in [("tags", &self.tags), ("secTags", &self.sec_tags)] {
            tags.as_deref().map_or(Ok(()), |tags| check_tags(parameter, tags))?;
        }
        Ok(())
    }

    fn apply(self, thing: &mut Thing) {
        if let Some(name) = self.name {
            thing.name = name;
        }
        if let Some(desc) = self.desc {
            thing.desc = desc;
        }
        if let Some(tags) = self.tags {
            thing.tags = distinct(tags);
        }
        if let Some(tags) = self.sec_tags {
            thing.sec_tags = distinct(tags);
        }
        if let Some(loc_enabled) = self.loc_enabled {
            thing.loc_enabled = loc_enabled;
        }
        thing.aliases.extend(self.aliases);
        thing.aliases.retain(|_, value| !value.is_empty());
    }
}

/// Checks a text that is to be a thing's.
pub(super) fn check_text(parameter: &str, text: &str) -> Result<(), Failure> {
    if text.len() <= limits::THING_TEXT_BYTES_MAX {
        return Ok(());
    }
    let most = limits::THING_TEXT_BYTES_MAX;
    let sentence = format!("Parameter \"{parameter}\" has more than {most} bytes.");
    Err(Failure::new(Code::PARAMETER_INVALID, sentence))
}

/// Checks tags that are to be a thing's.
pub(in crate::tr50::commands) fn check_tags(
    parameter: &str,
    tags: &[String],
) -> Result<(), Failure> {
    if tags.len() > limits::THING_TAGS_MAX {
        let most = limits::THING_TAGS_MAX;
        let sentence = format!("A thing can have {most} tags; parameter \"{parameter}\" has more.");
        return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
    }
    tags.iter().try_for_each(|tag| check_text(parameter, tag))
}

/// Every text once, where it first comes; none that is empty.
pub(super) fn distinct(texts: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(texts.len());
    for text in texts {
        if !text.is_empty() && !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    distinct
}
