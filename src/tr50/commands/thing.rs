//! `thing.*`: things, as far as identity and sessions know them (`tr50.md` 4.1 and 4.4).

use serde::Serialize;

use super::target::{ByKey, Target};
use super::view::{ListReply, View, members};
use super::{heavy, read};
use crate::directory::{Lifetime, Principal, Who};
use crate::id::{OrgId, ThingDefId, ThingId, ThingKey};
use crate::identity::model::Thing;
use crate::limits;
use crate::timestamp::Timestamp;
use crate::tr50::dispatch::{Call, CommandInfo, RawParams};
use crate::tr50::error::{Code, Failure};
use crate::tr50::params::params;

/// The family's rows in the table of commands.
pub const COMMANDS: &[CommandInfo] = &[
    read!(
        "thing.find",
        find,
        "Shows one thing of the current organisation.",
        "the thing",
        [NOT_FOUND]
    ),
    heavy!(
        "thing.list",
        list,
        is_long_list,
        "Lists the things of the current organisation, by key, in the order of its bytes.",
        "`count`, `fields`, `result`",
        []
    ),
];

params! {
    /// The parameters of `thing.list` beside those of every list.
    pub struct Wanted {
        optional tags: Vec<String> = "tags", "Only things that have all of these tags.";
        optional keys: Vec<String> = "keys", "Only things with these keys.";
    }
}

/// A thing on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ThingView {
    id: ThingId,
    org_id: OrgId,
    owner_org_id: OrgId,
    permission: &'static str,
    name: String,
    key: ThingKey,
    def_id: Option<ThingDefId>,
    tags: Vec<String>,
    connected: bool,
    /// A secret of the application (`tr50.md` 1.1): for the thing itself and for administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_addr: Option<String>,
    created_by: String,
    created_on: Timestamp,
}

const FIELDS: &[&str] = &[
    "id",
    "orgId",
    "ownerOrgId",
    "permission",
    "name",
    "key",
    "defId",
    "tags",
    "connected",
    "appId",
    "lastSeen",
    "proto",
    "remoteAddr",
    "createdBy",
    "createdOn",
];

impl ThingView {
    /// A thing, with what its newest live session tells of it.
    fn of(call: &Call<'_>, thing: Thing) -> Self {
        let principal = Principal::Thing(thing.org, thing.key.clone());
        let sessions = call.core.directory.of_principal(&principal);
        let newest = sessions.iter().max_by_key(|session| (session.started(), session.number()));
        let (standing, own) = (call.session.standing(), call.session.who().principal());
        let trusted = standing.super_admin || standing.org_admin || own == principal;
        let bound = |lifetime: Lifetime| lifetime == Lifetime::Connection;
        Self {
            id: thing.id,
            org_id: thing.org,
            owner_org_id: thing.org,
            permission: "rw",
            name: thing.name,
            key: thing.key,
            def_id: thing.def,
            tags: thing.tags,
            connected: sessions.iter().any(|session| bound(session.lifetime())),
            app_id: trusted.then_some(thing.app_id),
            last_seen: sessions.iter().map(|session| session.last_accessed()).max(),
            proto: newest.map(|session| session.conn().protocol.as_str()),
            remote_addr: newest.map(|session| session.conn().remote_addr.to_string()),
            created_by: thing.created_by,
            created_on: thing.created_on,
        }
    }
}

impl Wanted {
    fn has(&self, thing: &Thing) -> bool {
        let has_tag = |tag: &String| thing.tags.contains(tag);
        let has_key = |key: &String| *key == *thing.key.as_str();
        self.tags.as_ref().is_none_or(|tags| tags.iter().all(has_tag))
            && self.keys.as_ref().is_none_or(|keys| keys.iter().any(has_key))
    }
}

/// `thing.find`.
pub fn find(call: &Call<'_>, (by_key, target): (ByKey, Target)) -> Result<ThingView, Failure> {
    target.thing_by_key(by_key, call).map(|thing| ThingView::of(call, thing))
}

/// `thing.list`: the things of the current organisation, ordered by key.
pub fn list(call: &Call<'_>, (view, wanted): (View, Wanted)) -> Result<ListReply, Failure> {
    if restricted(call) {
        let sentence = "The application's token is restricted to its own thing.";
        return Err(Failure::new(Code::PERMISSION_DENIED, sentence));
    }
    let (identity, org) = (&call.core.identity, call.session.org_id());
    if view.sort().is_none() && wanted.tags.is_none() && wanted.keys.is_none() {
        let (offset, limit) = view.page();
        let things = identity.things(org, offset, limit)?;
        let count = usize::try_from(identity.count_things(org)).unwrap_or(usize::MAX);
        let page = things.into_iter().filter_map(|thing| members(&ThingView::of(call, thing)));
        return view.reply(FIELDS, count, page);
    }
    let things = identity.things(org, 0, limits::THINGS_SEARCHED_MAX)?;
    let things: Vec<ThingView> = things
        .into_iter()
        .filter(|thing| wanted.has(thing))
        .map(|thing| ThingView::of(call, thing))
        .collect();
    view.apply(FIELDS, &things)
}

/// Every `thing.list` reads the store's tables, and may have a way to go to its page.
pub fn is_long_list(_: &Call<'_>, _: RawParams<'_>) -> bool {
    true
}

fn restricted(call: &Call<'_>) -> bool {
    match call.session.who() {
        Who::Application { application, .. } => application.restrict_access_to_self,
        Who::User(_) => false,
    }
}
