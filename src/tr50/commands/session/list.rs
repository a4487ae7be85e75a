//! `session.list`: which sessions, and in which form.

use base::{
    Clock, Code, Failure, OrgId, Protocol, ThingDefId, ThingKey, Timestamp, excerpt,
    json::{self, key},
    limits::{self, LISTING_BYTES_RESERVED_MAX},
    yield_point,
};
use rules::directory::query::{Common, Filter, GroupBy, Listing, Query, SortKey};
use rules::directory::text::{AddressPrefix, Pattern, Words};
use rules::directory::{Kind, Principal, Reason, Session, Status};
use serde::Serialize;
use serde_json::{Map, Value};

use super::row::LINK_FIELDS;
use super::template::{Members, Rows};
use crate::app::AsOf;
use crate::tr50::commands::paging::named;
use crate::tr50::commands::target::is_restricted;
use crate::tr50::commands::thing::{Selection, check_tags};
use crate::tr50::params::params;
use crate::tr50::step::{Call, Looked, WriteReply};
use crate::tr50::strict::Strict;

params! {
    /// What `session.list` takes beside filters. The vendor's page knows no parameters
    /// (`docs/protocol/tr50.md` 3.5); all are optional.
    #[derive(Clone, Debug)]
    pub(in crate::tr50) struct Page {
        optional offset: u64 = "offset", "Sessions to leave out at the beginning.";
        optional limit: u64 = "limit", "Sessions to return at most; 0 means as many as allowed.";
        optional sort: String = "sort",
            "`-startTime` (default), `startTime`, `endTime`, `lastAccessed`, `lastSeen`, `commandCount`, `whoAmI`, `userName`, `thingKey`; a leading `-` puts the greatest first.";
        optional as_of: Timestamp = "asOf",
            "The sessions that lived at this time, wherever they are now: of the connection history, as far as it goes back. Then `status` may only be `ACTIVE` or `ALL`, and of ends is asked what came since.";
        optional group_by: String = "groupBy",
            "Counts them by `protocol`, `application`, `reason` or `definition` instead of listing them; `offset` and `limit` are of the groups then.";
        optional show: Vec<String> = "show", "The members to show; all by default, but for `startsLastHour`: how many sessions its login has started in the last hour, as far as they are not forgotten. `live`, `ended` or `all` among them says which sessions, as `status` does.";
        optional hide_fields: bool = "hideFields", "Leaves `fields` out of the reply.";
    }
}

params! {
    /// Which sessions `session.list` shows, and `session.end` ends.
    #[derive(Clone, Debug)]
    pub(in crate::tr50) struct Filters {
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
        optional_exact who_am_i: String = "whoAmI",
            "Sessions of the user or thing with this name, in which `*` stands for any text.";
        optional_exact prefix: String = "prefix", "Sessions whose `whoAmI` begins so.";
        optional query: String = "query",
            "Words that have to occur, in any case, in `whoAmI`, `appName` or `remoteAddr`.";
        optional_exact app_id: String = "appId",
            "Sessions with this application or client id; for administrators.";
        optional_exact def_key: String = "defKey", "Sessions of things with this definition.";
        optional tags: Vec<String> = "tags", "Sessions of things that have all of these tags.";
        optional connected: bool = "connected",
            "Sessions that an open connection holds; false: the others.";
        optional last_seen_after: Timestamp = "lastSeenAfter",
            "Sessions with a later sign of life.";
        optional last_seen_before: Timestamp = "lastSeenBefore",
            "Sessions without a sign of life since then.";
        optional idle_longer_than: u64 = "idleLongerThan",
            "Sessions without a command for more than so many seconds.";
        optional ended_after: Timestamp = "endedAfter",
            "Sessions that ended later; without `status`, of those that ended.";
        optional ended_before: Timestamp = "endedBefore",
            "Sessions that ended earlier; without `status`, of those that ended.";
        optional end_reason: Vec<String> = "endReason",
            "Sessions that ended so, such as `keep_alive`; without `status`, of those that ended.";
        optional status: Vec<String> = "status",
            "`ACTIVE` (default), `LOGGED_OUT`, `EXPIRED`, `REVOKED`, `ENDED` (the last three) or `ALL`.";
    }
}

/// The members of a session, but for those of its connection.
const OWN_FIELDS: [&str; 26] = [
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

/// The members of a session, as `show` may name them, in the order of the reply.
fn fields() -> impl Iterator<Item = &'static str> {
    OWN_FIELDS.iter().chain(&LINK_FIELDS).copied()
}

/// The member that is counted for each session, and shown to those who name it.
pub(super) const STARTS: &str = "startsLastHour";

/// `session.list`. What takes long is looked for on another thread, once for all who ask the same;
/// what is wrong with the parameters is answered at once.
pub(super) fn list(
    call: &Call<'_>,
    Strict((mut page, mut filters)): Strict<(Page, Filters)>,
) -> Result<Looked<Answer>, Failure> {
    let org = call.session.org_id();
    page.give_status_to(&mut filters);
    let group_by = page.group_by.as_deref().map(group_of).transpose()?;
    // The client id is a secret of the application (`docs/protocol/tr50.md` 1.1).
    let administers = call.session.access().administers_here();
    let shown = page.show.as_deref().unwrap_or_default();
    let shown = Shown::of((shown, &[STARTS]), page.hide_fields, administers)?;
    let asked = (page.clone(), filters.clone());
    let as_of = page.take_as_of(call, &mut filters, group_by.map(|(_, by)| by))?;
    filters.check()?;
    let tags = filters.tags.take().filter(|tags| !tags.is_empty());
    let (offset, limit, sort, ascending) = page.range(call)?;
    let filter = filters.into_filter(call, org)?;
    let question = filter.map(|filter| Query { offset, limit, sort, ascending, filter });
    let is_long = |query: &Query| match &as_of {
        _ if tags.is_some() => true,
        Some(as_of) => call.app.is_as_of_long(org, query, as_of),
        None => call.app.directory().is_long(org, query),
    };
    let long = question.as_ref().is_some_and(is_long);
    // Of groups there are as many as are asked for: all, if that is not said.
    let groups_shown =
        (offset, page.limit.filter(|limit| *limit > 0).map_or(usize::MAX, |_| limit));
    let answer = move |call: &Call<'_>| {
        let Some(mut query) = question.clone() else {
            return Ok(Answer::none(call, org, shown, as_of.as_ref()));
        };
        if let Some(tags) = &tags {
            let tagged = Selection::of(Some(tags.clone()), None, None);
            let things = tagged.things_of(call.app, org)?;
            query.filter.things = Some(things.into_iter().map(|thing| thing.id).collect());
        }
        if let Some(as_of) = &as_of {
            let then = answer_as_of(call, &query, (as_of, group_by.map(|(name, _)| name)), shown)?;
            return Ok(then.with_groups(groups_shown));
        }
        let directory = call.app.directory();
        if let Some((name, by)) = group_by {
            let (count, groups) = directory.groups(org, &query.filter, by);
            let groups = Groups::of(call, org, (name, count, groups), None);
            return Ok(Answer::Groups(groups).with_groups(groups_shown));
        }
        Ok(Answer::Sessions(SessionList::of(call, org, directory.list(org, &query), shown, None)))
    };
    if !long {
        return call.look(false, answer);
    }
    let (page, filters) = asked;
    let key = format!("{org} {administers} {page:?} {filters:?}");
    let key = match administers && !is_restricted(call) {
        true => key,
        false => format!("{key} {}", call.session.reference()),
    };
    call.look_shared(key, answer).map(Looked::Later)
}

/// The answer of those that lived at a time.
fn answer_as_of(
    call: &Call<'_>,
    query: &Query,
    (as_of, group_name): (&AsOf, Option<&'static str>),
    shown: Shown,
) -> Result<Answer, Failure> {
    let org = call.session.access().org.clone();
    let then = call.app.sessions_as_of(&org, query, as_of, call.app.clock.now())?;
    let at = call.app.clock.shown(as_of.at);
    let (asked, count) = (Some((at, then.truncated)), then.listing.count);
    Ok(match group_name {
        Some(name) => Answer::Groups(Groups::of(call, org.id, (name, count, then.groups), asked)),
        None => Answer::Sessions(SessionList::of(call, org.id, then.listing, shown, asked)),
    })
}

/// What `groupBy` may say, and how the member of a group is named.
fn group_of(name: &str) -> Result<(&'static str, GroupBy), Failure> {
    const NAMES: [(&str, &str, GroupBy); 7] = [
        ("protocol", "protocol", GroupBy::Protocol),
        ("application", "application", GroupBy::Application),
        ("reason", "reason", GroupBy::Reason),
        ("definition", "definition", GroupBy::Definition),
        ("appName", "application", GroupBy::Application),
        ("endReason", "reason", GroupBy::Reason),
        ("defKey", "definition", GroupBy::Definition),
    ];
    let found = NAMES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
    found
        .map(|(_, member, by)| (*member, *by))
        .ok_or_else(|| refused("groupBy", "protocol, application, reason, definition", name))
}

fn refused(name: &str, allowed: &str, value: &str) -> Failure {
    let value = excerpt(value);
    let sentence = format!("Parameter \"{name}\" must be one of {allowed}; it is \"{value}\".");
    Failure::new(Code::PARAMETER_INVALID, sentence)
}

/// The members of sessions that a client asked for.
#[derive(Clone)]
pub(super) struct Shown {
    /// As they are named in `fields`.
    names: Vec<&'static str>,
    /// Bit by bit, in the order of [`fields`].
    pub(super) wanted: u64,
    hides_fields: bool,
    /// Whether the client id is among them.
    pub(super) shows_client_id: bool,
    /// Whether the client has named them; if not, all are shown, as on the vendor's page, and no
    /// `fields`.
    is_named: bool,
}

impl Shown {
    /// Those that `show` names, of which some are `further` members: none names all others.
    pub(super) fn of(
        (show, further): (&[String], &[&'static str]),
        hide_fields: Option<bool>,
        shows_client_id: bool,
    ) -> Result<Self, Failure> {
        let (is_named, hides_fields) = (!show.is_empty(), hide_fields.unwrap_or(false));
        let shown = |names, wanted| Self { names, wanted, hides_fields, shows_client_id, is_named };
        if !is_named || show.iter().any(|name| name == "*") {
            let all: Vec<_> = fields().collect();
            let wanted = (1 << all.len()) - 1;
            return Ok(shown(all, wanted));
        }
        let all: Vec<_> = fields().chain(further.iter().copied()).collect();
        let names = show.iter().map(|name| named(&all, name, "show"));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let bits = fields().enumerate().filter(|(_, field)| names.contains(field));
        let wanted = bits.fold(0, |bits, (index, _)| bits | 1 << index);
        Ok(shown(names, wanted))
    }

    /// Whether this member is named.
    pub(super) fn names(&self, member: &str) -> bool {
        self.is_named && self.names.contains(&member)
    }

    /// The fields, in the order of the reply.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static str> {
        let wanted = |(index, _): &(usize, &str)| self.wanted >> index & 1 == 1;
        fields().enumerate().filter(wanted).map(|(_, field)| field)
    }
}

impl Page {
    /// `show` may say which sessions are shown; no member is named so.
    fn give_status_to(&mut self, filters: &mut Filters) {
        let Some(show) = &mut self.show else { return };
        const WHICH: [(&str, &str); 3] = [("live", "ACTIVE"), ("ended", "ENDED"), ("all", "ALL")];
        let which = |name: &str| WHICH.iter().find(|(word, _)| word.eq_ignore_ascii_case(name));
        let statuses = show.iter().filter_map(|name| which(name));
        let statuses: Vec<_> = statuses.map(|(_, status)| (*status).to_owned()).collect();
        show.retain(|name| which(name).is_none());
        if !statuses.is_empty() && filters.status.as_ref().is_none_or(Vec::is_empty) {
            filters.status = Some(statuses);
        }
    }

    /// The time of which is asked, if it is not now; what can't be said of another time is refused.
    fn take_as_of(
        &mut self,
        call: &Call<'_>,
        filters: &mut Filters,
        group_by: Option<GroupBy>,
    ) -> Result<Option<AsOf>, Failure> {
        let Some(shown) = self.as_of.take() else { return Ok(None) };
        let now = call.now;
        if shown > now {
            let sentence = format!("Parameter \"asOf\" is a time to come; it is {now}.");
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        let life = [
            ("lastSeenAfter", filters.last_seen_after.is_some()),
            ("lastSeenBefore", filters.last_seen_before.is_some()),
            ("idleLongerThan", filters.idle_longer_than.is_some()),
        ];
        if let Some((name, _)) = life.iter().find(|(_, given)| *given) {
            let sentence = format!(
                "Parameter \"{name}\" can't stand beside \"asOf\": signs of life are not kept."
            );
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        let allowed = |name: &&str| ["ACTIVE", "ALL"].iter().any(|a| a.eq_ignore_ascii_case(name));
        for name in filters.status.take().iter().flatten().flat_map(|names| names.split(',')) {
            let name = name.trim();
            if !allowed(&name) {
                return Err(refused("status", "ACTIVE, ALL with \"asOf\"", name));
            }
        }
        Ok(Some(AsOf { at: call.app.clock.of_shown(shown), group_by }))
    }

    /// How many to leave out, how many to show, and in which order.
    fn range(&self, call: &Call<'_>) -> Result<(usize, usize, SortKey, bool), Failure> {
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
        let offset = usize::try_from(self.offset.unwrap_or(0)).unwrap_or(usize::MAX);
        Ok((offset, limit, sort, ascending))
    }
}

impl Filters {
    /// Fails if there are too many tags, or too long ones.
    pub(super) fn check(&self) -> Result<(), Failure> {
        check_tags("tags", self.tags.as_deref().unwrap_or_default())
    }

    /// Whether fewer than all live sessions may be meant.
    pub(super) fn narrows(&self) -> bool {
        let has = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
        let any = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let not_all = |text: &Option<String>| {
            text.as_ref().is_some_and(|text| text.chars().any(|c| c != '*'))
        };
        self.kind.is_some()
            || self.user_name.is_some()
            || self.thing_key.is_some()
            || self.app_name.is_some()
            || self.protocol.is_some()
            || self.app_id.is_some()
            || self.def_key.is_some()
            || has(&self.remote_addr)
            || self.started_after.is_some()
            || self.started_before.is_some()
            || not_all(&self.who_am_i)
            || self.prefix.as_ref().is_some_and(|prefix| !prefix.is_empty())
            || has(&self.query)
            || any(&self.tags)
            || self.connected.is_some()
            || self.last_seen_after.is_some()
            || self.last_seen_before.is_some()
            || self.idle_longer_than.is_some()
            || self.ended_after.is_some()
            || self.ended_before.is_some()
            || any(&self.end_reason)
    }

    /// The definition that is asked for, if any; none outside: there is none of this key.
    fn definition(&self, call: &Call<'_>, org: OrgId) -> Option<Option<ThingDefId>> {
        let Some(key) = &self.def_key else { return Some(None) };
        call.app.identity().thing_def_by_key(org, key).map(|def| Some(def.id))
    }

    /// Whose sessions are asked for, if that is said; none outside: there can be none.
    fn principal(&self, call: &Call<'_>, org: OrgId) -> Option<Option<Principal>> {
        let named = match (&self.thing_key, &self.user_name) {
            // No session is both a thing's and a user's.
            (Some(_), Some(_)) => return None,
            (Some(key), None) => Some(Principal::Thing(org, ThingKey::parse(key).ok()?)),
            (None, Some(name)) => {
                Some(Principal::User(call.app.identity().user_by_email(name)?.id))
            }
            (None, None) => None,
        };
        if !is_restricted(call) {
            return Some(named);
        }
        let own = call.session.who().principal();
        named.is_none_or(|named| named == own).then_some(Some(own))
    }

    /// What they ask of the directory, but for tags; none when they name a user or thing that can't
    /// exist.
    pub(super) fn into_filter(
        self,
        call: &Call<'_>,
        org: OrgId,
    ) -> Result<Option<Filter>, Failure> {
        let kind = match self.kind.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("user") => Some(Kind::User),
            Some("application" | "app") => Some(Kind::Application),
            Some(text) => return Err(refused("kind", "user, application", text)),
        };
        let protocol = match self.protocol.as_deref() {
            None => None,
            Some(text) => Some(protocol_named(text)?),
        };
        let definition = self.definition(call, org);
        let status = match self.status.as_deref().filter(|names| !names.is_empty()) {
            None => None,
            Some(names) => {
                let known = Status::ALL.map(Status::as_str).join(", ");
                let allowed = || format!("{known}, ENDED, ALL");
                Some(statuses(names).map_err(|name| refused("status", &allowed(), &name))?)
            }
        };
        let Some(principal) = self.principal(call, org) else { return Ok(None) };
        let Some(definition) = definition else { return Ok(None) };
        if self.app_id.is_some() && !call.session.access().administers_here() {
            return Ok(None);
        }
        let clock = &call.app.clock;
        let of_shown = |time: Option<Timestamp>| time.map(|time| clock.of_shown(time));
        let since = |seconds: u64| {
            clock.now().plus_millis(-i64::try_from(seconds.min(IDLE_S_MAX) * 1000).unwrap_or(0))
        };
        let prefix = self.prefix.as_deref().map(Pattern::beginning);
        let end_reasons = self.end_reason.filter(|names| !names.is_empty());
        Ok(Some(Filter {
            principal,
            kind,
            app_name: self.app_name,
            protocol,
            remote_addr: self.remote_addr.as_deref().map(AddressPrefix::read),
            started_after: of_shown(self.started_after),
            started_before: of_shown(self.started_before),
            status,
            end_reasons: end_reasons.as_deref().map(reasons_named).transpose()?,
            ended_after: of_shown(self.ended_after),
            ended_before: of_shown(self.ended_before),
            connected: self.connected,
            who: self.who_am_i.as_deref().map(Pattern::read).into_iter().chain(prefix).collect(),
            words: Words::read(&check_query(self.query.unwrap_or_default())?),
            client_id: self.app_id,
            definition,
            things: None,
            lived_at: None,
            seen_after: of_shown(self.last_seen_after),
            seen_before: of_shown(self.last_seen_before),
            idle_since: self.idle_longer_than.map(since),
        }))
    }
}

/// By what sessions can be sorted.
const SORT_KEYS: [(&str, SortKey); 8] = [
    ("startTime", SortKey::StartTime),
    ("endTime", SortKey::EndTime),
    ("lastSeen", SortKey::LastSeen),
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

/// The protocol that a client names.
///
/// # Errors
///
/// There is none of this name.
pub(in crate::tr50::commands) fn protocol_named(text: &str) -> Result<Protocol, Failure> {
    let found = PROTOCOLS.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text));
    let allowed = || PROTOCOLS.map(Protocol::as_str).join(", ");
    found.ok_or_else(|| refused("protocol", &allowed(), text))
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

/// The reasons for an end that a client names.
///
/// # Errors
///
/// There is none of this name.
pub(in crate::tr50::commands) fn reasons_named(names: &[String]) -> Result<Vec<Reason>, Failure> {
    let names = names.iter().flat_map(|names| names.split(',')).map(str::trim);
    let reason = |name: &str| {
        let found = Reason::ALL.iter().find(|known| known.as_str().eq_ignore_ascii_case(name));
        let allowed = || Reason::ALL.map(Reason::as_str).join(", ");
        found.copied().ok_or_else(|| refused("endReason", &allowed(), name))
    };
    names.map(reason).collect()
}

/// Ten years; what is longer is as good.
const IDLE_S_MAX: u64 = 315_360_000;

fn check_query(query: String) -> Result<String, Failure> {
    let most = limits::QUERY_BYTES_MAX;
    if query.len() <= most {
        return Ok(query);
    }
    let sentence = format!("The query has more than {most} bytes.");
    Err(Failure::new(Code::PARAMETER_INVALID, sentence))
}

/// The reply of `session.list`.
pub(in crate::tr50) enum Answer {
    /// With sessions.
    Sessions(SessionList),
    /// With groups of them.
    Groups(Groups),
}

impl Answer {
    fn none(call: &Call<'_>, org: OrgId, shown: Shown, as_of: Option<&AsOf>) -> Self {
        let listing = Listing { count: 0, sessions: Vec::new() };
        let clock = &call.app.clock;
        let then = as_of.map(|as_of| {
            (clock.shown(as_of.at), call.app.is_history_truncated(org, as_of.at, call.now))
        });
        Self::Sessions(SessionList::of(call, org, listing, shown, then))
    }

    /// With so many of its groups, if it has groups; the count is that of the sessions of all.
    fn with_groups(mut self, (offset, limit): (usize, usize)) -> Self {
        if let Self::Groups(groups) = &mut self {
            let all = std::mem::take(&mut groups.result);
            groups.result = all.into_iter().skip(offset).take(limit).collect();
        }
        self
    }
}

impl WriteReply for Answer {
    fn write_reply(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sessions(sessions) => sessions.write_reply(out),
            Self::Groups(groups) => groups.write_reply(out),
        }
    }
}

/// Groups of sessions, the largest first.
#[derive(Serialize)]
pub(in crate::tr50) struct Groups {
    #[serde(rename = "asOf", skip_serializing_if = "Option::is_none")]
    as_of: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    count: usize,
    result: Vec<Map<String, Value>>,
}

impl Groups {
    fn of(
        call: &Call<'_>,
        org: OrgId,
        (name, count, groups): (&'static str, usize, Vec<(Common, usize)>),
        then: Option<(Timestamp, bool)>,
    ) -> Self {
        let identity = call.app.identity();
        let text = |common: Common| match common {
            Common::Word(word) => word.into(),
            Common::Application(name) => String::from(name).into(),
            Common::Definition(id) => {
                identity.thing_def(org, id).map_or(Value::Null, |def| def.key.clone().into())
            }
            Common::Nothing => Value::Null,
        };
        let group = |(common, count): (Common, usize)| {
            [(name.to_owned(), text(common)), ("count".to_owned(), count.into())]
                .into_iter()
                .collect()
        };
        let (as_of, truncated) = then.unzip();
        Self { as_of, truncated, count, result: groups.into_iter().map(group).collect() }
    }
}

/// Sessions whose memory is fetched at the same time.
const FETCHED: usize = 16;

/// A page of sessions.
pub(in crate::tr50) struct SessionList {
    org: OrgId,
    listing: Listing,
    shown: Shown,
    clock: Clock,
    /// At which time they lived, and whether some may be missing; none: they are as they are now.
    then: Option<(Timestamp, bool)>,
    /// How many sessions the login of each has started in the last hour, if that is asked for.
    starts: Vec<usize>,
}

impl SessionList {
    fn of(
        call: &Call<'_>,
        org: OrgId,
        listing: Listing,
        shown: Shown,
        then: Option<(Timestamp, bool)>,
    ) -> Self {
        let starts = match shown.names(STARTS) {
            true => listing.sessions.iter().map(|session| starts_of(call, session)).collect(),
            false => Vec::new(),
        };
        Self { org, listing, shown, clock: call.app.clock.clone(), then, starts }
    }
}

/// How many sessions the login of this one has started in the last hour.
pub(super) fn starts_of(call: &Call<'_>, session: &Session) -> usize {
    let since = call.app.clock.now().plus_millis(-3_600_000);
    call.app.directory().started_since(&session.who().principal(), since)
}

impl WriteReply for SessionList {
    fn write_reply(&self, out: &mut Vec<u8>) {
        let shown = &self.shown;
        let members = match shown.is_named {
            true => Members::Shown(shown),
            false => Members::All { with_client_id: shown.shows_client_id },
        };
        let mut rows = Rows::new(members, &self.clock);
        out.extend_from_slice(br#"{"success":true,"params":{"count":"#);
        json::push_value(out, &self.listing.count);
        if shown.is_named && !shown.hides_fields {
            out.extend_from_slice(br#","fields":"#);
            json::push_value(out, &shown.names);
        }
        if let Some((at, truncated)) = self.then {
            out.extend_from_slice(br#","asOf":"#);
            json::push_value(out, &at);
            out.extend_from_slice(br#","truncated":"#);
            json::push_value(out, &truncated);
        }
        out.extend_from_slice(br#","result":["#);
        let (mut comma, mut last_bytes) = (false, 0);
        let sessions = &self.listing.sessions;
        for (index, session) in sessions.iter().enumerate() {
            if index.is_multiple_of(FETCHED) {
                yield_point::pass();
                let next = sessions.iter().skip(index).take(FETCHED);
                std::hint::black_box(next.fold(0, |all, session| all ^ session.fetch()));
            }
            let start = out.len();
            if out.capacity() - start < last_bytes {
                // Those that are left are about as long as the last ones: the text moves once, if
                // at all.
                let left = sessions.len() - index;
                out.reserve((last_bytes * left).min(LISTING_BYTES_RESERVED_MAX));
            }
            session.with_context(|context| {
                // It may have gone to another organisation since the page was taken.
                if context.access.org.id != self.org {
                    return;
                }
                if comma {
                    out.push(b',');
                }
                comma = true;
                let mut object = rows.begin(out, session, context);
                if let Some(starts) = self.starts.get(index) {
                    object.integer(key!("startsLastHour"), *starts as u64);
                }
                object.end();
            });
            last_bytes = out.len() - start + 16;
        }
        out.extend_from_slice(b"]}}");
    }
}
