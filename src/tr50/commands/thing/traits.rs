//! What listings of things ask beside tags and keys: definition, application, connection, signs of
//! life, and how the last session ended.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Code, Failure, OrgId, Protocol, ThingDefId, ThingKey, Timestamp, excerpt};
use rules::directory::text::{AddressPrefix, Pattern};
use rules::directory::{End, Lifetime, Principal, Reason, Session, Who};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::StoreError;

use super::find::ListParams;
use crate::app::App;
use crate::things::registry::{Seen, Thing};
use crate::tr50::commands::paging::{View, compare};
use crate::tr50::commands::session::{protocol_named, reasons_named};
use crate::tr50::step::Call;

/// What a thing has to have; what is none is not asked for. Times are as the server has them.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Traits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) def: Option<ThingDefId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connected: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen_after: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen_before: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_after: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_before: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_reasons: Option<Vec<Reason>>,
    /// Nothing has all that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    nothing: bool,
}

impl Traits {
    /// Everything has these.
    pub(super) const ANY: Self = Self {
        prefix: None,
        pattern: None,
        def: None,
        app_id: None,
        connected: None,
        disabled: None,
        protocol: None,
        address: None,
        seen_after: None,
        seen_before: None,
        idle_since: None,
        ended_after: None,
        ended_before: None,
        end_reasons: None,
        nothing: false,
    };

    /// What a client asks for.
    ///
    /// # Errors
    ///
    /// A parameter is none of its words.
    pub(super) fn of(call: &Call<'_>, params: &ListParams) -> Result<Self, Failure> {
        let clock = &call.app.clock;
        let of_shown = |time: Option<Timestamp>| time.map(|time| clock.of_shown(time));
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let org = call.session.org_id();
        let def = params
            .def_key
            .as_deref()
            .map(|key| call.app.identity().thing_def_by_key(org, key).map(|def| def.id));
        let reasons = params.end_reason.as_deref().filter(|names| !names.is_empty());
        let administers = call.session.access().administers_here();
        Ok(Self {
            prefix: text(&params.prefix),
            pattern: params.who_am_i.clone(),
            def: def.flatten(),
            app_id: params.app_id.clone(),
            connected: params.connected,
            disabled: params.disabled,
            protocol: params.protocol.as_deref().map(protocol_named).transpose()?,
            address: text(&params.remote_addr),
            seen_after: of_shown(params.last_seen_after),
            seen_before: of_shown(params.last_seen_before),
            idle_since: params.idle_longer_than.map(|seconds| {
                let ms = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX / 4);
                clock.now().plus_millis(-ms.min(i64::MAX / 4))
            }),
            ended_after: of_shown(params.ended_after),
            ended_before: of_shown(params.ended_before),
            end_reasons: reasons.map(reasons_named).transpose()?,
            // The application id is a secret of the application (`docs/protocol/tr50.md` 1.1).
            nothing: def == Some(None) || params.app_id.is_some() && !administers,
        })
    }

    /// Whether everything has these.
    pub(super) fn is_any(&self) -> bool {
        self.prefix.is_none()
            && self.pattern.is_none()
            && self.def.is_none()
            && self.app_id.is_none()
            && self.disabled.is_none()
            && !self.nothing
            && !self.asks_of_sessions()
            && !self.asks_of_end()
            && !self.asks_of_life()
    }

    fn asks_of_sessions(&self) -> bool {
        self.connected.is_some() || self.protocol.is_some() || self.address.is_some()
    }

    const fn asks_of_life(&self) -> bool {
        self.seen_after.is_some() || self.seen_before.is_some() || self.idle_since.is_some()
    }

    const fn asks_of_end(&self) -> bool {
        self.ended_after.is_some() || self.ended_before.is_some() || self.end_reasons.is_some()
    }

    /// What every key begins with.
    pub(super) fn prefix(&self) -> &str {
        let of_pattern = self.pattern.as_deref().unwrap_or_default();
        let of_pattern = of_pattern.split('*').next().unwrap_or_default();
        let prefix = self.prefix.as_deref().unwrap_or_default();
        if prefix.len() > of_pattern.len() { prefix } else { of_pattern }
    }

    /// Whether a thing has them. What can't be read is not there.
    pub(super) fn are_of(&self, app: &App, thing: &Thing) -> bool {
        let key = thing.key.as_str();
        if self.nothing
            || self.prefix.as_ref().is_some_and(|prefix| !key.starts_with(prefix.as_str()))
            || self.pattern.as_ref().is_some_and(|text| !Pattern::read(text).matches(key))
            || self.def.is_some_and(|def| thing.def != Some(def))
            || self.app_id.as_ref().is_some_and(|app_id| thing.app_id != *app_id)
            || self.disabled.is_some_and(|wanted| wanted != thing.ban.is_banned(app.clock.now()))
        {
            return false;
        }
        if !self.asks_of_sessions() && !self.asks_of_end() && !self.asks_of_life() {
            return true;
        }
        let sessions = serving(app, thing).unwrap_or_default();
        self.are_of_sessions(&sessions)
            && (!self.asks_of_end() || self.is_of_end(app, thing))
            && (!self.asks_of_life() || self.is_of_life(app, thing, &sessions))
    }

    fn are_of_sessions(&self, sessions: &[Arc<Session>]) -> bool {
        let newest = newest(sessions);
        let is_connected = || sessions.iter().any(|s| s.lifetime() == Lifetime::Connection);
        self.connected.is_none_or(|wanted| wanted == is_connected())
            && self.protocol.is_none_or(|wanted| {
                newest.is_some_and(|session| session.conn().protocol == wanted)
            })
            && self.address.as_ref().is_none_or(|prefix| {
                let prefix = AddressPrefix::read(prefix);
                newest.is_some_and(|session| prefix.begins(session.conn().remote_addr))
            })
    }

    fn is_of_end(&self, app: &App, thing: &Thing) -> bool {
        let Some(end) = last_end(app, thing.org, thing.key.clone()) else { return false };
        self.ended_after.is_none_or(|after| end.at > after)
            && self.ended_before.is_none_or(|before| end.at < before)
            && self.end_reasons.as_ref().is_none_or(|reasons| reasons.contains(&end.reason))
    }

    fn is_of_life(&self, app: &App, thing: &Thing, sessions: &[Arc<Session>]) -> bool {
        let seen = seen(app, thing, sessions).ok().flatten();
        self.seen_after.is_none_or(|after| seen.is_some_and(|seen| seen.alive > after))
            && self.seen_before.is_none_or(|before| seen.is_none_or(|seen| seen.alive < before))
            && self.idle_since.is_none_or(|since| seen.is_none_or(|seen| seen.command < since))
    }
}

/// The live sessions of a thing, and of the one that it is bound to (`docs/protocol/tr50.md` 0,
/// fact 28).
fn serving(app: &App, thing: &Thing) -> Result<Vec<Arc<Session>>, StoreError> {
    let of = |key| app.directory().of_principal(&Principal::Thing(thing.org, key));
    let mut sessions = of(thing.key.clone());
    if let Some(parent) = thing.bound_to
        && let Some(parent) = app.things.by_id(thing.org, parent)?
    {
        sessions.extend(of(parent.key));
    }
    Ok(sessions)
}

fn newest(sessions: &[Arc<Session>]) -> Option<&Arc<Session>> {
    sessions.iter().max_by_key(|session| (session.started(), session.number()))
}

fn seen(app: &App, thing: &Thing, sessions: &[Arc<Session>]) -> Result<Option<Seen>, StoreError> {
    let live = sessions.iter().map(|session| Seen::of(session)).reduce(Seen::latest);
    let ended = app.things.seen(thing.id)?;
    Ok(live.into_iter().chain(ended).reduce(Seen::latest))
}

/// How the last session of a thing ended that is known.
pub(super) fn last_end(app: &App, org: OrgId, key: ThingKey) -> Option<End> {
    app.directory().last_end_of(&Principal::Thing(org, key))
}

/// Sorts things by a member of their rows, if that is in the thing itself or told by its sessions;
/// false if the rows have to be made for it.
///
/// # Errors
///
/// The store failed.
pub(super) fn sort_things(
    call: &Call<'_>,
    things: &mut Vec<Thing>,
    field: &str,
    descending: bool,
) -> Result<bool, StoreError> {
    let app = call.app;
    let mut keys = Vec::with_capacity(things.len());
    let mut is_known = true;
    for thing in things.drain(..) {
        let live = |of: fn(Seen) -> Timestamp| -> Result<Value, StoreError> {
            let seen = seen(app, &thing, &serving(app, &thing)?)?;
            Ok(seen.map_or(Value::Null, |seen| of(seen).as_millis().into()))
        };
        let key: Value = match field {
            "key" | "whoAmI" => thing.key.as_str().into(),
            "name" => thing.name.as_str().into(),
            "desc" => thing.desc.as_str().into(),
            "id" => thing.id.to_string().into(),
            "createdOn" => thing.created_on.as_millis().into(),
            "createdBy" => thing.created_by.as_str().into(),
            "lastSeen" => live(|seen| seen.alive)?,
            "lastCommunication" | "lastAccessed" => live(|seen| seen.command)?,
            "connected" => {
                let sessions = serving(app, &thing)?;
                sessions.iter().any(|s| s.lifetime() == Lifetime::Connection).into()
            }
            "endTime" => {
                let end = last_end(app, thing.org, thing.key.clone());
                end.map_or(Value::Null, |end| end.at.as_millis().into())
            }
            "endReason" => {
                let end = last_end(app, thing.org, thing.key.clone());
                end.map_or(Value::Null, |end| end.reason.as_str().into())
            }
            "alarmsRaised" => app.telemetry.raised_alarms(thing.id)?.0.into(),
            "alarmState" => app.telemetry.raised_alarms(thing.id)?.1.into(),
            _ => {
                is_known = false;
                Value::Null
            }
        };
        keys.push((key, thing));
    }
    if is_known {
        keys.sort_by(|(a, _), (b, _)| {
            let order = compare(Some(a), Some(b));
            if descending { order.reverse() } else { order }
        });
    }
    things.extend(keys.into_iter().map(|(_, thing)| thing));
    Ok(is_known)
}

/// By what things are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GroupBy {
    Definition,
    Protocol,
    Application,
    Reason,
}

impl GroupBy {
    /// The one that a client names.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub(super) fn named(name: &str) -> Result<Self, Failure> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "definition" | "defkey" => Self::Definition,
            "protocol" => Self::Protocol,
            "application" | "appname" => Self::Application,
            "reason" | "endreason" => Self::Reason,
            _ => {
                let sentence = format!(
                    "Parameter \"groupBy\" must be one of protocol, application, reason, \
                     definition; it is \"{}\".",
                    excerpt(name)
                );
                return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
            }
        })
    }

    const fn member(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::Protocol => "protocol",
            Self::Application => "application",
            Self::Reason => "reason",
        }
    }

    /// What a thing has of it; none: nothing.
    fn of(self, app: &App, thing: &Thing) -> Option<String> {
        let newest = || newest(&serving(app, thing).ok()?).cloned();
        match self {
            Self::Definition => {
                let def = app.identity().thing_def(thing.org, thing.def?)?;
                Some(def.key.clone())
            }
            Self::Protocol => Some(newest()?.conn().protocol.as_str().to_owned()),
            Self::Application => match newest()?.who() {
                Who::Application { application, .. } => Some(application.name.clone()),
                Who::User(_) => None,
            },
            Self::Reason => {
                Some(last_end(app, thing.org, thing.key.clone())?.reason.as_str().to_owned())
            }
        }
    }
}

/// Groups of things, the largest first.
#[derive(Serialize)]
pub(super) struct Groups {
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(rename = "countAtLeast", skip_serializing_if = "Option::is_none")]
    count_at_least: Option<usize>,
    result: Vec<Map<String, Value>>,
}

impl Groups {
    /// Those of these things, which are all or not.
    pub(super) fn of(call: &Call<'_>, things: &[Thing], by: GroupBy, is_all: bool) -> Self {
        let mut counts = BTreeMap::<Option<String>, usize>::new();
        for thing in things {
            *counts.entry(by.of(call.app, thing)).or_default() += 1;
        }
        let mut groups: Vec<_> = counts.into_iter().collect();
        groups.sort_by_key(|(_, count)| Reverse(*count));
        let group = |(name, count): (Option<String>, usize)| {
            let name = name.map_or(Value::Null, Value::from);
            [(by.member().to_owned(), name), ("count".to_owned(), count.into())]
                .into_iter()
                .collect()
        };
        let (count, count_at_least) = match is_all {
            true => (Some(things.len()), None),
            false => (None, Some(things.len())),
        };
        Self { count, count_at_least, result: groups.into_iter().map(group).collect() }
    }

    /// Those that are asked for; the count is that of the things of all.
    pub(super) fn page(mut self, view: &View) -> Self {
        let (offset, limit) = view.asked();
        self.result = self.result.into_iter().skip(offset).take(limit).collect();
        self
    }
}
