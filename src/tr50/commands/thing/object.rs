//! The thing object of replies (`docs/protocol/tr50.md` 4.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{OrgId, ThingDefId, ThingId, ThingKey, Timestamp};
use rules::directory::{Lifetime, Principal, Session};
use serde::Serialize;
use serde_json::{Map, Value};
use store::StoreError;

use crate::things::registry::{Alias, Seen, Thing, Things};
use crate::things::telemetry::{AlarmNow, AttributeNow, LocationNow, PropertyNow};
use crate::tr50::commands::authorize::last_change;
use crate::tr50::commands::ban::BanView;
use crate::tr50::commands::paging::members;
use crate::tr50::step::Call;

/// The members of a thing, as `show` and `sort` may name them.
pub(super) const FIELDS: &[&str] = &[
    "id",
    "orgId",
    "ownerOrgId",
    "permission",
    "name",
    "key",
    "desc",
    "defId",
    "defKey",
    "defName",
    "tags",
    "secTags",
    "iccid",
    "esn",
    "imei",
    "meid",
    "imsi",
    "msisdn",
    "connected",
    "appId",
    "lastSeen",
    "lastCommunication",
    "boundTo",
    "locEnabled",
    "locUpdated",
    "loc",
    "attrs",
    "properties",
    "alarms",
    "proto",
    "remoteAddr",
    "disabled",
    "reason",
    "disabledUntil",
    "createdBy",
    "createdOn",
    "updatedBy",
    "updatedOn",
];

/// Members that the cloud shows and this server has not (`docs/protocol/tr50.md` 4.4): clients may
/// ask for them.
pub(super) const FOREIGN_FIELDS: &[&str] = &[
    "apiCounts",
    "apiCounts.daily",
    "apiCounts.monthToDate",
    "apiCounts.total",
    "data",
    "gateway",
    "storage",
    "tunnelActualHost",
    "tunnelVirtualHost",
    "varBillingPlanCode",
    "varVasPackageCode",
];

/// A thing on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThingObject {
    id: ThingId,
    org_id: OrgId,
    owner_org_id: OrgId,
    permission: &'static str,
    name: String,
    key: ThingKey,
    desc: String,
    def_id: Option<ThingDefId>,
    def_key: String,
    def_name: String,
    tags: Vec<String>,
    sec_tags: Vec<String>,
    /// All of them, empty where the thing has none.
    #[serde(flatten)]
    aliases: BTreeMap<Alias, String>,
    /// Whether its own connection, or that of the thing that it is bound to, is there.
    connected: bool,
    /// A secret of the application (`docs/protocol/tr50.md` 1.1): for the thing itself and for
    /// administrators, empty for others.
    app_id: String,
    /// The last sign of life; [`NEVER`] before the first.
    last_seen: Timestamp,
    /// The last command; [`NEVER`] before the first.
    last_communication: Timestamp,
    /// The key of the thing that it is bound to; ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_to: Option<ThingKey>,
    loc_enabled: bool,
    proto: &'static str,
    remote_addr: String,
    #[serde(flatten)]
    ban: BanView,
    created_by: String,
    created_on: Timestamp,
    updated_by: String,
    updated_on: Timestamp,
}

/// The time before all times, which the vendor shows of a thing that was never seen
/// (`docs/protocol/tr50.md` 2, "Timestamps"): 0001-01-01. Clients read every time that is there, so
/// it can't be null.
const NEVER: Timestamp = Timestamp::from_millis(-62_135_596_800_000);

impl ThingObject {
    /// A thing, with what is known from the newest live session that serves it.
    pub(super) fn of(call: &Call<'_>, thing: Thing) -> Result<Self, StoreError> {
        let own = Principal::Thing(thing.org, thing.key.clone());
        let parent = match thing.bound_to {
            Some(parent) => call.app.things.by_id(thing.org, parent)?,
            None => None,
        };
        let bound_to = parent.map(|parent| parent.key);
        let sessions = serving(call, &own, bound_to.as_ref());
        let newest = sessions.iter().max_by_key(|session| (session.started(), session.number()));
        let seen = seen_of(&call.app.things, thing.id, &sessions)?;
        let def = thing.def.and_then(|def| call.app.identity().thing_def(thing.org, def));
        let (session, clock) = (call.session, &call.app.clock);
        let trusted = session.access().administers_here() || session.who().principal() == own;
        let (updated_on, updated_by) =
            last_change(thing.updated, thing.created_on, &thing.created_by);
        let alias = |alias: Alias| (alias, thing.aliases.get(&alias).cloned().unwrap_or_default());
        let aliases = Alias::ALL.into_iter().map(alias).collect();
        Ok(Self {
            id: thing.id,
            org_id: thing.org,
            owner_org_id: thing.org,
            permission: "rw",
            name: thing.name,
            key: thing.key,
            desc: thing.desc,
            def_id: thing.def,
            def_key: def.as_ref().map_or_else(String::new, |def| def.key.clone()),
            def_name: def.as_ref().map_or_else(String::new, |def| def.name.clone()),
            tags: thing.tags,
            sec_tags: thing.sec_tags,
            aliases,
            connected: sessions.iter().any(|session| session.lifetime() == Lifetime::Connection),
            app_id: if trusted { thing.app_id } else { String::new() },
            last_seen: seen.map_or(NEVER, |seen| clock.shown(seen.alive)),
            last_communication: seen.map_or(NEVER, |seen| clock.shown(seen.command)),
            bound_to,
            loc_enabled: thing.loc_enabled,
            proto: newest.map_or("", |session| session.conn().protocol.as_str()),
            remote_addr: newest
                .map_or_else(String::new, |session| session.conn().remote_addr.to_string()),
            ban: BanView::of(&thing.ban, clock),
            created_by: thing.created_by,
            created_on: thing.created_on,
            updated_by,
            updated_on,
        })
    }

    /// As a row of a list, without its current values.
    ///
    /// # Errors
    ///
    /// As [`ThingObject::of`].
    pub(super) fn row(call: &Call<'_>, thing: Thing) -> Result<Map<String, Value>, StoreError> {
        Ok(members(&Self::of(call, thing)?).unwrap_or_default())
    }
}

/// A thing among results of `search.omni`, as the vendor shows it, and whether it is connected.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::tr50::commands) struct ThingBrief {
    id: ThingId,
    key: ThingKey,
    name: String,
    def_key: String,
    def_name: String,
    connected: bool,
    last_seen: Timestamp,
    created_on: Timestamp,
    updated_on: Timestamp,
}

impl ThingBrief {
    /// What is known of a thing.
    ///
    /// # Errors
    ///
    /// As [`ThingObject::of`].
    pub(in crate::tr50::commands) fn of(call: &Call<'_>, thing: Thing) -> Result<Self, StoreError> {
        let thing = ThingObject::of(call, thing)?;
        Ok(Self {
            id: thing.id,
            key: thing.key,
            name: thing.name,
            def_key: thing.def_key,
            def_name: thing.def_name,
            connected: thing.connected,
            last_seen: thing.last_seen,
            created_on: thing.created_on,
            updated_on: thing.updated_on,
        })
    }
}

/// What a thing measured last (`docs/protocol/tr50.md` 4.4).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CurrentValues {
    #[serde(skip_serializing_if = "Option::is_none")]
    loc_updated: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loc: Option<LocationNow>,
    attrs: BTreeMap<String, AttributeNow>,
    properties: BTreeMap<String, PropertyNow>,
    alarms: BTreeMap<String, AlarmNow>,
}

impl CurrentValues {
    /// The members that come from here.
    pub(super) const FIELDS: [&'static str; 5] =
        ["locUpdated", "loc", "attrs", "properties", "alarms"];

    /// The current values of a thing: one scan.
    pub(super) fn of(call: &Call<'_>, thing: ThingId) -> Result<Self, StoreError> {
        let currents = call.app.telemetry.currents(thing)?;
        Ok(Self {
            loc_updated: currents.location.as_ref().map(|location| location.since),
            loc: currents.location,
            attrs: currents.attributes,
            properties: currents.properties,
            alarms: currents.alarms,
        })
    }

    /// About how many bytes they take in a reply.
    pub(super) fn bytes(&self) -> usize {
        /// Of the times, the numbers and the names of members of one value.
        const EACH: usize = 96;
        let attributes = self.attrs.iter().map(|(name, now)| name.len() + now.value.len());
        let properties = self.properties.keys().map(String::len);
        let alarms = self.alarms.iter().map(|(name, now)| name.len() + now.msg.len());
        attributes.chain(properties).chain(alarms).map(|bytes| bytes + EACH).sum()
    }
}

/// The last signs of life of a thing that has these live sessions.
///
/// # Errors
///
/// The store failed.
pub(super) fn seen_of(
    things: &Things,
    thing: ThingId,
    sessions: &[Arc<Session>],
) -> Result<Option<Seen>, StoreError> {
    let live = sessions.iter().map(|session| Seen::of(session)).reduce(Seen::latest);
    Ok(match (live, things.seen(thing)?) {
        (Some(live), Some(ended)) => Some(live.latest(ended)),
        (live, ended) => live.or(ended),
    })
}

/// The live sessions of a thing, and of the one that it is bound to (`docs/protocol/tr50.md` 0,
/// fact 28).
fn serving(call: &Call<'_>, own: &Principal, bound_to: Option<&ThingKey>) -> Vec<Arc<Session>> {
    let directory = &call.app.directory();
    let mut sessions = directory.of_principal(own);
    if let (Principal::Thing(org, _), Some(parent)) = (own, bound_to) {
        sessions.extend(directory.of_principal(&Principal::Thing(*org, parent.clone())));
    }
    sessions
}
