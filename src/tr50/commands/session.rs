//! `session.*`: the session directory in TR50's words (`docs/protocol/tr50.md` 3.2, 3.3 and 3.5).

use std::sync::Arc;

use base::{
    Clock, Code, Failure, OrgId, Protocol, SessionId, SessionRef, ThingKey, Timestamp, excerpt,
    json::{self, ObjectWriter, key},
    limits::{LISTED_AT_ONCE_MAX, LISTING_BYTES_RESERVED_MAX},
};
use rules::directory::query::{Filter, Listing, Query, SortKey};
use rules::directory::{Kind, OrgContext, OrgSwitch, Principal, Session, Status, Who};
use rules::identity::Access;
use rules::identity::model::{Application, Org};
use rules::identity::permission::PermissionSet;
use serde::Serialize;

use super::commands;
use super::paging::named;
use super::target::is_restricted;
use crate::app::{Effects, SessionChange};
use crate::tr50::params::{NoParams, missing, params};
use crate::tr50::step::{After, Call, Done, Looked, WriteReply};

commands! {
    act "session.end" => end, [NOT_FOUND],
        "Ends a session; without parameters the caller's own.",
        "";
    "session.find" => find, [NOT_FOUND],
        "Shows one session of the current organisation; to a restricted token, one of its own thing.",
        "the session";
    "session.info" => info, [],
        "Shows the caller's own session.",
        "the session";
    "session.list" => list, [],
        "Lists the sessions of the current organisation; to a restricted token, those of its own thing.",
        "`count`, with `show` also `fields`, `result`";
    "session.org.list" => org_list, [WRONG_SESSION_KIND],
        "Lists the organisations the user may work in.",
        "`result`, `recentOrgs`";
    "session.org.switch" => org_switch, [NOT_FOUND, WRONG_SESSION_KIND],
        "Moves the session to another organisation.",
        "";
}

params! {
    /// The parameters of `session.list`. The vendor's page knows none (`docs/protocol/tr50.md`
    /// 3.5); all are optional.
    pub struct List {
        optional offset: u64 = "offset", "Sessions to leave out at the beginning.";
        optional limit: u64 = "limit", "Sessions to return at most; 0 means as many as allowed.";
        optional sort: String = "sort",
            "`-startTime` (default), `startTime`, `lastAccessed`, `commandCount`, `whoAmI`; a leading `-` puts the greatest first.";
        optional kind: String = "kind", "`user` or `application`.";
        optional_exact user_name: String = "userName",
            "Sessions of the user with this e-mail address.";
        optional_exact thing_key: String = "thingKey", "Sessions of the thing with this key.";
        optional app_name: String = "appName", "Sessions of applications with this name.";
        optional protocol: String = "protocol",
            "`mqtt`, `mqtts`, `ws`, `wss`, `tcp`, `tcps`, `http` or `https`.";
        optional remote_addr: String = "remoteAddr", "Sessions whose `ip:port` begins so.";
        optional started_after: Timestamp = "startedAfter", "Sessions that started later.";
        optional started_before: Timestamp = "startedBefore", "Sessions that started earlier.";
        optional status: Vec<String> = "status",
            "`ACTIVE` (default), `LOGGED_OUT`, `EXPIRED`, `REVOKED`, `ENDED` (the last three) or `ALL`.";
        optional show: Vec<String> = "show", "The members to show; all by default.";
        optional hide_fields: bool = "hideFields", "Leaves `fields` out of the reply.";
    }
}

/// The members of a session, as `show` may name them, in the order of the reply.
const FIELDS: &[&str] = &[
    "ref",
    "orgId",
    "orgKey",
    "userId",
    "userName",
    "appName",
    "tokenId",
    "tokenName",
    "thingKey",
    "whoAmI",
    "hasSuperAdmin",
    "hasSuperOps",
    "hasOrgAdmin",
    "perms",
    "connInfo",
    "ttl",
    "locale",
    "allowSubOrgAccess",
    "startTime",
    "orgSwitches",
    "commandCount",
    "lastAccessed",
    "allAgreementsSigned",
    "status",
    "endReason",
    "endTime",
];

params! {
    /// Which session.
    pub struct FindParams {
        optional id: String = "id", "The session's secret id.";
        optional reference: String = "ref", "The session's public handle.";
    }
}

params! {
    /// The parameters of `session.org.list`.
    pub struct OrgList {
        optional include_roles: bool = "includeRoles", "Shows the user's roles in each.";
        optional include_recent_orgs: bool = "includeRecentOrgs",
            "Adds the organisations that this session was in.";
    }
}

params! {
    /// The parameters of `session.org.switch`.
    pub struct Switch {
        optional_exact key: String = "key", "The organisation's key.";
        optional id: OrgId = "id", "The organisation's id, instead of its key.";
    }
}

/// `session.list`. What is no page of a large organisation is looked for on another thread; what is
/// wrong with the parameters is answered at once.
pub fn list(call: &Call<'_>, params: List) -> Result<Looked<SessionList>, Failure> {
    let org = call.session.org_id();
    let shown = Shown::of(params.show.as_deref().unwrap_or_default(), params.hide_fields)?;
    let Some(query) = params.into_query(call, org)? else {
        let listing = Listing { count: 0, sessions: Vec::new() };
        let clock = call.app.clock.clone();
        return Ok(Looked::Done(SessionList { org, listing, shown, clock }));
    };
    let long = !query.is_page() && call.app.directory().count(org) > LISTED_AT_ONCE_MAX;
    call.look(long, move |call| {
        let (listing, clock) = (call.app.directory().list(org, &query), call.app.clock.clone());
        Ok(SessionList { org, listing, shown, clock })
    })
}

/// The members of sessions that a client asked for.
struct Shown {
    /// As they are named in `fields`.
    names: Vec<&'static str>,
    /// Bit by bit, in the order of [`FIELDS`].
    wanted: u32,
    hides_fields: bool,
}

impl Shown {
    /// None: all, as on the vendor's page, and no `fields`.
    fn of(show: &[String], hide_fields: Option<bool>) -> Result<Option<Self>, Failure> {
        if show.is_empty() {
            return Ok(None);
        }
        let names: Vec<_> = if show.iter().any(|name| name == "*") {
            FIELDS.to_vec()
        } else {
            show.iter().map(|name| named(FIELDS, name, "show")).collect::<Result<_, _>>()?
        };
        let bits = FIELDS.iter().enumerate().filter(|(_, field)| names.contains(field));
        let wanted = bits.fold(0, |bits, (index, _)| bits | 1 << index);
        Ok(Some(Self { names, wanted, hides_fields: hide_fields.unwrap_or(false) }))
    }

    /// The fields, in the order of the reply.
    fn fields(&self) -> impl Iterator<Item = &'static str> {
        let wanted = |(index, _): &(usize, &&str)| self.wanted >> index & 1 == 1;
        FIELDS.iter().enumerate().filter(wanted).map(|(_, field)| *field)
    }
}

impl List {
    /// The question to the directory; none when it names a user or thing that can't exist.
    fn into_query(self, call: &Call<'_>, org: OrgId) -> Result<Option<Query>, Failure> {
        let refused = |name: &str, allowed: &str, value: &str| {
            let value = excerpt(value);
            let sentence =
                format!("Parameter \"{name}\" must be one of {allowed}; it is \"{value}\".");
            Failure::new(Code::PARAMETER_INVALID, sentence)
        };
        let most = call.app.config.sessions.list_limit;
        let asked = self.limit.filter(|limit| *limit > 0);
        let limit = asked.map_or(most, |limit| usize::try_from(limit).unwrap_or(most).min(most));
        let (sort, ascending) = match self.sort.as_deref() {
            None | Some("") => (SortKey::StartTime, false),
            Some(text) => {
                let allowed = || {
                    format!(
                        "{}, with - before it or not",
                        SORT_KEYS.map(|(name, _)| name).join(", ")
                    )
                };
                sort_key(text).ok_or_else(|| refused("sort", &allowed(), text))?
            }
        };
        let kind = match self.kind.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("user") => Some(Kind::User),
            Some("application" | "app") => Some(Kind::Application),
            Some(text) => return Err(refused("kind", "user, application", text)),
        };
        let protocol = match self.protocol.as_deref() {
            None => None,
            Some(text) => {
                let allowed = || PROTOCOLS.map(Protocol::as_str).join(", ");
                Some(protocol(text).ok_or_else(|| refused("protocol", &allowed(), text))?)
            }
        };
        let status = match self.status.filter(|names| !names.is_empty()) {
            None => None,
            Some(names) => {
                let known = Status::ALL.map(Status::as_str).join(", ");
                let allowed = || format!("{known}, ENDED, ALL");
                Some(statuses(&names).map_err(|name| refused("status", &allowed(), &name))?)
            }
        };
        let principal = match (&self.thing_key, &self.user_name) {
            // No session is both a thing's and a user's.
            (Some(_), Some(_)) => return Ok(None),
            (Some(key), None) => match ThingKey::parse(key) {
                Ok(key) => Some(Principal::Thing(org, key)),
                Err(_) => return Ok(None),
            },
            (None, Some(name)) => match call.app.identity().user_by_email(name) {
                Some(user) => Some(Principal::User(user.id)),
                None => return Ok(None),
            },
            (None, None) => None,
        };
        let principal = if is_restricted(call) {
            let own = call.session.who().principal();
            if principal.is_some_and(|named| named != own) {
                return Ok(None);
            }
            Some(own)
        } else {
            principal
        };
        let filter = Filter {
            principal,
            kind,
            app_name: self.app_name,
            protocol,
            remote_addr: self.remote_addr,
            started_after: self.started_after.map(|time| call.app.clock.of_shown(time)),
            started_before: self.started_before.map(|time| call.app.clock.of_shown(time)),
            status,
        };
        let offset = usize::try_from(self.offset.unwrap_or(0)).unwrap_or(usize::MAX);
        Ok(Some(Query { offset, limit, sort, ascending, filter }))
    }
}

/// By what sessions can be sorted.
const SORT_KEYS: [(&str, SortKey); 6] = [
    ("startTime", SortKey::StartTime),
    ("lastAccessed", SortKey::LastAccessed),
    ("commandCount", SortKey::CommandCount),
    ("whoAmI", SortKey::WhoAmI),
    ("userName", SortKey::WhoAmI),
    ("thingKey", SortKey::WhoAmI),
];

fn sort_key(text: &str) -> Option<(SortKey, bool)> {
    let (ascending, name) = match text.strip_prefix('-') {
        Some(name) => (false, name),
        None => (true, text.strip_prefix('+').unwrap_or(text)),
    };
    let found = SORT_KEYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, key)| (*key, ascending))
}

const PROTOCOLS: [Protocol; 8] = {
    use Protocol::{Http, Https, Mqtt, Mqtts, Tcp, Tcps, Ws, Wss};
    [Mqtt, Mqtts, Ws, Wss, Tcp, Tcps, Http, Https]
};

fn protocol(text: &str) -> Option<Protocol> {
    PROTOCOLS.into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(text))
}

fn statuses(names: &[String]) -> Result<Vec<Status>, String> {
    let mut statuses = Vec::new();
    for name in names.iter().flat_map(|names| names.split(',')).map(str::trim) {
        match Status::ALL.iter().find(|status| status.as_str().eq_ignore_ascii_case(name)) {
            Some(status) => statuses.push(*status),
            None if name.eq_ignore_ascii_case("ALL") => statuses.extend(Status::ALL),
            None if name.eq_ignore_ascii_case("ENDED") => statuses.extend(&Status::ALL[1..]),
            None => return Err(name.to_owned()),
        }
    }
    Ok(statuses)
}

/// `session.find`: one session of the current organisation, or one of the caller's own.
pub fn find(call: &Call<'_>, params: FindParams) -> Result<SessionDetails, Failure> {
    let session = params.find(call)?.ok_or_else(|| missing("id"))?;
    Ok(SessionDetails(session, call.app.clock.clone()))
}

/// `session.info`: the caller's own session.
pub fn info(call: &Call<'_>, _: NoParams) -> Result<OwnSession, Failure> {
    let (session, server_id) = (call.session.clone(), call.app.server_id.clone());
    Ok(OwnSession { session, server_id, clock: call.app.clock.clone() })
}

/// `session.end`: everybody may end the own sessions, an administrator any in the organisation.
pub fn end(call: &Call<'_>, params: FindParams) -> Result<After<Done>, Failure> {
    let session = params.find(call)?.unwrap_or_else(|| call.session.clone());
    let own = session.who().principal() == call.session.who().principal();
    if !own && !call.session.access().administers_here() {
        let sentence = "Only an administrator of the organisation may end sessions of others.";
        return Err(Failure::new(Code::PERMISSION_DENIED, sentence));
    }
    let by = call.session.who().principal();
    Ok(After(Done, SessionChange::EndFor(session, by).into()))
}

impl FindParams {
    /// The session that is meant; none when neither parameter is there. What the caller may not
    /// see does not exist.
    fn find(&self, call: &Call<'_>) -> Result<Option<Arc<Session>>, Failure> {
        let Some(text) = self.reference.as_ref().or(self.id.as_ref()) else { return Ok(None) };
        let directory = &call.app.directory();
        let found = match (text.parse::<SessionRef>(), SessionId::parse(text)) {
            (Ok(reference), _) => directory.get(&reference),
            (_, Some(id)) => directory.by_id(&id),
            _ => None,
        };
        let own = call.session.who().principal();
        let org = call.session.org_id();
        let here = |s: &Session| s.org_id() == org && !is_restricted(call);
        let visible = |s: &Arc<Session>| here(s) || s.who().principal() == own;
        match found.filter(visible) {
            Some(session) => Ok(Some(session)),
            // Not named in full: the text may be somebody's secret id.
            None => Err(Failure::not_found("The session")),
        }
    }
}

/// `session.org.list`: the organisations that the caller may work in, as a forest.
pub fn org_list(call: &Call<'_>, params: OrgList) -> Result<OrgForest, Failure> {
    let identity = &call.app.identity();
    let user = call.user();
    let orgs = match &user {
        Some(user) => identity.enterable_orgs(user),
        None => identity.org(call.session.org_id()).into_iter().collect(),
    };
    let roles = |org: &Arc<Org>| {
        let wanted = params.include_roles.unwrap_or(false);
        let access = user.as_ref().filter(|_| wanted);
        let access = access.and_then(|user| identity.user_access(user, org));
        wanted.then(|| access.map_or_else(Vec::new, |access| access.role_keys))
    };
    let result = forest(&orgs, None, &roles);
    let wanted = params.include_recent_orgs.unwrap_or(false);
    Ok(OrgForest { result, recent_orgs: wanted.then(|| recent_orgs(call)) })
}

/// One organisation of `session.org.list`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrgNode {
    org_id: OrgId,
    org_key: String,
    org_name: String,
    sub_orgs: Vec<OrgNode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
}

/// The reply of `session.org.list`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrgForest {
    result: Vec<OrgNode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recent_orgs: Option<Vec<RecentOrg>>,
}

/// An organisation that the session was in.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentOrg {
    org_id: OrgId,
    org_key: String,
}

/// The organisations below `parent`; without one, those whose parent is not in the list.
fn forest(
    orgs: &[Arc<Org>],
    parent: Option<OrgId>,
    roles: &dyn Fn(&Arc<Org>) -> Option<Vec<String>>,
) -> Vec<OrgNode> {
    let listed = |id: OrgId| orgs.iter().any(|org| org.id == id);
    let here = |org: &&Arc<Org>| match parent {
        Some(parent) => org.parent == Some(parent),
        None => org.parent.is_none_or(|above| !listed(above)),
    };
    let node = |org: &Arc<Org>| OrgNode {
        org_id: org.id,
        org_key: org.key.clone(),
        org_name: org.name.clone(),
        sub_orgs: forest(orgs, Some(org.id), roles),
        roles: roles(org),
    };
    orgs.iter().filter(here).map(node).collect()
}

fn recent_orgs(call: &Call<'_>) -> Vec<RecentOrg> {
    let mut recent: Vec<RecentOrg> = Vec::new();
    for switch in call.session.context().switches.into_iter().rev() {
        if recent.iter().all(|org| org.org_id != switch.org_id) {
            recent.push(RecentOrg { org_id: switch.org_id, org_key: switch.org_key });
        }
    }
    recent
}

/// `session.org.switch`: users only (`docs/protocol/tr50.md` 3.1).
pub fn org_switch(call: &Call<'_>, params: Switch) -> Result<After<Done>, Failure> {
    let Some(user) = call.user() else {
        let sentence = "Only user sessions can switch the organisation.";
        return Err(Failure::new(Code::WRONG_SESSION_KIND, sentence));
    };
    let identity = &call.app.identity();
    let (org, named) = match (&params.key, params.id) {
        (Some(key), _) => (identity.org_by_key(key), excerpt(key)),
        (None, Some(id)) => (identity.org(id), id.to_string()),
        (None, None) => return Err(missing("key")),
    };
    // An organisation that the user may not enter does not exist for the user.
    let access = org.and_then(|org| identity.user_access(&user, &org));
    let access = access.ok_or_else(|| Failure::not_found(format!("Organisation \"{named}\"")))?;
    let switch = SessionChange::Switch(call.session.clone(), Arc::new(access));
    // What was changed since the rights were looked up did not find the session there.
    let refresh = SessionChange::Refresh(call.session.clone());
    Ok(After(Done, Effects::on_sessions([switch, refresh])))
}

/// The reply of `session.list`.
pub struct SessionList {
    org: OrgId,
    listing: Listing,
    shown: Option<Shown>,
    clock: Clock,
}

impl WriteReply for SessionList {
    fn write_reply(&self, out: &mut Vec<u8>) {
        let mut texts = SharedTexts::new(&self.clock);
        out.extend_from_slice(br#"{"success":true,"params":{"count":"#);
        json::push_value(out, &self.listing.count);
        if let Some(shown) = self.shown.as_ref().filter(|shown| !shown.hides_fields) {
            out.extend_from_slice(br#","fields":"#);
            json::push_value(out, &shown.names);
        }
        out.extend_from_slice(br#","result":["#);
        let mut comma = false;
        for (index, session) in self.listing.sessions.iter().enumerate() {
            let start = out.len();
            session.with_context(|context| {
                // It may have gone to another organisation since the page was taken.
                if context.access.org.id != self.org {
                    return;
                }
                if comma {
                    out.push(b',');
                }
                comma = true;
                let mut object = ObjectWriter::new(out);
                match &self.shown {
                    None => write_in_context(&mut object, session, context, &mut texts),
                    Some(shown) => write_shown(&mut object, session, context, shown, &mut texts),
                }
                object.end();
            });
            if index == 0 {
                // Most are about as long as the first: the text need not move as it grows.
                let all = (out.len() - start + 16) * self.listing.sessions.len();
                out.reserve(all.min(LISTING_BYTES_RESERVED_MAX));
            }
        }
        out.extend_from_slice(b"]}}");
    }
}

/// The reply of `session.find`.
pub struct SessionDetails(Arc<Session>, Clock);

impl WriteReply for SessionDetails {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":"#);
        let mut object = ObjectWriter::new(out);
        write_session(&mut object, &self.0, &self.1);
        object.end();
        out.push(b'}');
    }
}

/// The reply of `session.info`.
pub struct OwnSession {
    session: Arc<Session>,
    server_id: Arc<str>,
    clock: Clock,
}

impl WriteReply for OwnSession {
    fn write_reply(&self, out: &mut Vec<u8>) {
        let session = &self.session;
        out.extend_from_slice(br#"{"success":true,"params":"#);
        let mut object = ObjectWriter::new(out);
        if let Some(id) = session.id() {
            object.string(key!("id"), id.secret());
        }
        object.string(key!("serverId"), &self.server_id);
        write_session(&mut object, session, &self.clock);
        if session.kind() == Kind::Application {
            object.string(key!("appId"), session.client_id());
        }
        object.string(key!("ipAddress"), &session.conn().remote_addr.ip().to_string());
        json::push_value(object.name(key!("roleKeys")), &session.access().role_keys);
        object.end();
        out.push(b'}');
    }
}

/// The texts that sessions of one listing mostly share, those that were written last; and the clock
/// by which their times are shown.
struct SharedTexts<'a> {
    clock: &'a Clock,
    access: Option<StandingTexts>,
    application: Option<(Arc<Application>, Vec<u8>)>,
}

/// What a access makes of a session.
struct StandingTexts {
    access: Arc<Access>,
    org: Vec<u8>,
    rights: Vec<u8>,
    /// How many bytes of `rights` are before `perms`.
    flags: usize,
}

impl<'c> SharedTexts<'c> {
    const fn new(clock: &'c Clock) -> Self {
        Self { clock, access: None, application: None }
    }

    fn of_standing<'a>(
        last: &'a mut Option<StandingTexts>,
        access: &Arc<Access>,
    ) -> &'a StandingTexts {
        let known = last.take().filter(|known| known.access == *access);
        last.insert(known.unwrap_or_else(|| StandingTexts::of(access)))
    }

    fn of_application<'a>(
        last: &'a mut Option<(Arc<Application>, Vec<u8>)>,
        application: &Arc<Application>,
    ) -> &'a [u8] {
        let known = last.take().filter(|(known, _)| Arc::ptr_eq(known, application));
        let texts = || {
            let mut text = Vec::new();
            let mut object = ObjectWriter::further(&mut text);
            object.string(key!("appName"), &application.name);
            object.hex(key!("tokenId"), application.token_id.as_bytes());
            object.string(key!("tokenName"), &application.token_name);
            (application.clone(), text)
        };
        &last.insert(known.unwrap_or_else(texts)).1
    }
}

impl StandingTexts {
    fn of(access: &Arc<Access>) -> Self {
        let (mut org, mut rights) = (Vec::new(), Vec::new());
        let mut object = ObjectWriter::further(&mut org);
        object.hex(key!("orgId"), access.org.id.as_bytes());
        object.string(key!("orgKey"), &access.org.key);
        let mut object = ObjectWriter::further(&mut rights);
        object.flag(key!("hasSuperAdmin"), access.super_admin);
        object.flag(key!("hasSuperOps"), access.super_ops);
        object.flag(key!("hasOrgAdmin"), access.org_admin);
        let flags = rights.len();
        let mut object = ObjectWriter::further(&mut rights);
        if !access.administers_here() {
            write_perms(object.name(key!("perms")), access.permissions);
        }
        Self { access: access.clone(), org, rights, flags }
    }
}

impl StandingTexts {
    /// The value of `perms`; only who administers has none.
    fn perms(&self) -> &[u8] {
        self.rights.get(self.flags + br#","perms":"#.len()..).unwrap_or(b"{}")
    }
}

fn write_perms(out: &mut Vec<u8>, set: PermissionSet) {
    out.push(b'{');
    for (index, name) in set.names().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::push_string(out, name);
        out.extend_from_slice(b":true");
    }
    out.push(b'}');
}

/// The members of the session object that `list`, `find` and `info` share (`docs/protocol/tr50.md`
/// 3.3).
fn write_session(object: &mut ObjectWriter<'_>, session: &Session, clock: &Clock) {
    session.with_context(|context| {
        write_in_context(object, session, context, &mut SharedTexts::new(clock))
    });
}

fn write_in_context(
    object: &mut ObjectWriter<'_>,
    session: &Session,
    context: &OrgContext,
    texts: &mut SharedTexts<'_>,
) {
    let access = &context.access;
    let shared = SharedTexts::of_standing(&mut texts.access, access);
    object.hex(key!("ref"), session.reference().as_bytes());
    object.members(&shared.org);
    let (name, locale) = match session.who() {
        Who::User(user) => {
            object.hex(key!("userId"), user.id.as_bytes());
            object.string(key!("userName"), &user.email);
            (user.email.as_str(), user.locale.as_str())
        }
        Who::Application { application, thing_key, .. } => {
            object.members(SharedTexts::of_application(&mut texts.application, application));
            object.string(key!("thingKey"), thing_key.as_str());
            (thing_key.as_str(), "")
        }
    };
    object.string(key!("whoAmI"), name);
    object.members(&shared.rights);
    write_conn(object, session);
    object.integer(key!("ttl"), session.ttl_s());
    object.string(key!("locale"), locale);
    write_sub_org_access(object, access);
    object.time(key!("startTime"), texts.clock.shown(session.started()));
    write_switches(object, context, texts.clock);
    object.integer(key!("commandCount"), session.command_count());
    object.time(key!("lastAccessed"), texts.clock.shown(session.last_accessed()));
    object.flag(key!("allAgreementsSigned"), false);
    if let Some(end) = session.end() {
        object.string(key!("status"), end.reason.status().as_str());
        object.string(key!("endReason"), end.reason.as_str());
        object.time(key!("endTime"), texts.clock.shown(end.at));
    }
}

/// Writes the members that are asked for, as [`write_in_context`] writes all.
fn write_shown(
    object: &mut ObjectWriter<'_>,
    session: &Session,
    context: &OrgContext,
    shown: &Shown,
    texts: &mut SharedTexts<'_>,
) {
    let access = &context.access;
    for field in shown.fields() {
        match field {
            "ref" => object.hex(key!("ref"), session.reference().as_bytes()),
            "orgId" => object.hex(key!("orgId"), access.org.id.as_bytes()),
            "orgKey" => object.string(key!("orgKey"), &access.org.key),
            "hasSuperAdmin" => object.flag(key!("hasSuperAdmin"), access.super_admin),
            "hasSuperOps" => object.flag(key!("hasSuperOps"), access.super_ops),
            "hasOrgAdmin" => object.flag(key!("hasOrgAdmin"), access.org_admin),
            "perms" if !access.administers_here() => {
                let known = SharedTexts::of_standing(&mut texts.access, access);
                object.name(key!("perms")).extend_from_slice(known.perms());
            }
            "connInfo" => write_conn(object, session),
            "ttl" => object.integer(key!("ttl"), session.ttl_s()),
            "allowSubOrgAccess" => write_sub_org_access(object, access),
            "startTime" => object.time(key!("startTime"), texts.clock.shown(session.started())),
            "orgSwitches" => write_switches(object, context, texts.clock),
            "commandCount" => object.integer(key!("commandCount"), session.command_count()),
            "lastAccessed" => {
                object.time(key!("lastAccessed"), texts.clock.shown(session.last_accessed()))
            }
            "allAgreementsSigned" => object.flag(key!("allAgreementsSigned"), false),
            _ => write_shown_of_who(object, session, field, texts.clock),
        }
    }
}

/// Writes a member that says whose session it is, or how it has ended, if the session has it.
fn write_shown_of_who(
    object: &mut ObjectWriter<'_>,
    session: &Session,
    field: &str,
    clock: &Clock,
) {
    match (field, session.who()) {
        ("whoAmI", who) => object.string(key!("whoAmI"), who.name()),
        ("locale", Who::User(user)) => object.string(key!("locale"), &user.locale),
        ("locale", Who::Application { .. }) => object.string(key!("locale"), ""),
        ("userId", Who::User(user)) => object.hex(key!("userId"), user.id.as_bytes()),
        ("userName", Who::User(user)) => object.string(key!("userName"), &user.email),
        ("appName", Who::Application { application, .. }) => {
            object.string(key!("appName"), &application.name);
        }
        ("tokenId", Who::Application { application, .. }) => {
            object.hex(key!("tokenId"), application.token_id.as_bytes());
        }
        ("tokenName", Who::Application { application, .. }) => {
            object.string(key!("tokenName"), &application.token_name);
        }
        ("thingKey", Who::Application { thing_key, .. }) => {
            object.string(key!("thingKey"), thing_key.as_str());
        }
        _ => {
            let Some(end) = session.end() else { return };
            match field {
                "status" => object.string(key!("status"), end.reason.status().as_str()),
                "endReason" => object.string(key!("endReason"), end.reason.as_str()),
                "endTime" => object.time(key!("endTime"), clock.shown(end.at)),
                _ => {}
            }
        }
    }
}

fn write_switches(object: &mut ObjectWriter<'_>, context: &OrgContext, clock: &Clock) {
    let shown = |switch: &OrgSwitch| OrgSwitch { ts: clock.shown(switch.ts), ..switch.clone() };
    let switches: Vec<_> = context.switches.iter().map(shown).collect();
    json::push_value(object.name(key!("orgSwitches")), &switches);
}

fn write_sub_org_access(object: &mut ObjectWriter<'_>, access: &Access) {
    match access.allow_sub_org_access {
        Some(allowed) => object.flag(key!("allowSubOrgAccess"), allowed),
        None => object.name(key!("allowSubOrgAccess")).extend_from_slice(b"null"),
    }
}

fn write_conn(object: &mut ObjectWriter<'_>, session: &Session) {
    let conn = session.conn();
    let out = object.name(key!("connInfo"));
    out.extend_from_slice(br#"{"protocol":""#);
    out.extend_from_slice(conn.protocol.as_str().as_bytes());
    out.extend_from_slice(br#"","remoteAddr":""#);
    json::push_address(out, conn.remote_addr);
    out.extend_from_slice(br#""}"#);
}
