//! The parts of a diagnosis, but for logins that were refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::pool::POOLS;
use base::{CODES, Code, Failure, Timestamp, excerpt};
use rules::directory::{End, Lifetime, Principal, RateOf, Reason, Session};
use rules::identity::model::Application;
use serde::Serialize;

use super::Look;
use crate::things::registry::{Seen, Thing};
use crate::tr50::commands::ban::BanView;

/// Names that are listed of a definition, and applications.
const NAMES: usize = 50;

/// The thing itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThingPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_on: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
    #[serde(flatten)]
    ban: BanView,
    /// What people are told of the ban; empty if there is none.
    #[serde(skip)]
    pub(super) ban_text: String,
    pub(super) text: String,
}

impl ThingPart {
    pub(super) fn of(
        look: &Look<'_>,
        named: &str,
        thing: Option<&Thing>,
        seen: Option<Seen>,
    ) -> Self {
        let named = excerpt(named);
        let Some(thing) = thing else {
            let text = format!(
                "Never seen: there is no thing with the key \"{named}\" in this organisation."
            );
            let (ban, ban_text) = (BanView::default(), String::new());
            let (id, name, created_on, last_seen) = (None, None, None, None);
            return Self { id, name, created_on, last_seen, ban, ban_text, text };
        };
        let last_seen = seen.map(|seen| look.shown(seen.alive));
        let (on, by) = (thing.created_on, &thing.created_by);
        let text = match last_seen {
            Some(last) => format!("It was made on {on} by {by}, and last seen at {last}."),
            None => format!("Never seen: it was made on {on} by {by}, and has never connected."),
        };
        let ban = BanView::of(&thing.ban, &look.app.clock);
        Self {
            id: Some(thing.id.to_string()),
            name: Some(thing.name.clone()),
            created_on: Some(on),
            last_seen,
            ban_text: ban.sentence(),
            ban,
            text,
        }
    }
}

/// A live session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connection {
    #[serde(rename = "ref")]
    reference: String,
    /// The thing whose session it is.
    key: String,
    since: Timestamp,
    remote_addr: String,
    protocol: &'static str,
    client_id: String,
    last_active: Timestamp,
    command_count: u64,
    /// Whether it lives as long as its connection.
    #[serde(rename = "connection")]
    pub(super) bound: bool,
    pub(super) text: String,
}

impl Connection {
    pub(super) fn of(look: &Look<'_>, session: &Arc<Session>) -> Self {
        let conn = session.conn();
        let bound = session.lifetime() == Lifetime::Connection;
        let (since, last_active) = (session.started(), session.last_active());
        let (since, last_active) = (look.shown(since), look.shown(last_active));
        let (protocol, address) = (conn.protocol.as_str(), conn.remote_addr);
        let (key, client_id) = (session.who().name(), look.app.shown(session.client_id()));
        let client = match &*client_id {
            "" => String::new(),
            client => format!(" as client \"{client}\""),
        };
        let text = match bound {
            true => {
                format!("{key} is connected since {since} from {address} by {protocol}{client}.")
            }
            false => format!(
                "{key} has a session by {protocol} from {address} since {since}{client}, which was \
                 last used at {last_active}; that is no connection."
            ),
        };
        Self {
            reference: session.reference().to_string(),
            key: key.to_owned(),
            since,
            remote_addr: address.to_string(),
            protocol,
            client_id,
            last_active,
            command_count: session.command_count(),
            bound,
            text,
        }
    }
}

/// The end of its last session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Left {
    pub(super) at: Timestamp,
    reason: &'static str,
    status: &'static str,
    since: Timestamp,
    remote_addr: String,
    protocol: &'static str,
    pub(super) text: String,
}

impl Left {
    pub(super) fn of(look: &Look<'_>, session: &Session, end: End) -> Self {
        let (at, since) = (look.shown(end.at), look.shown(session.started()));
        let why = match end.reason {
            Reason::LoggedOut => "it logged out",
            Reason::ConnectionLost => {
                "the connection was lost: closed by the device or the network"
            }
            Reason::KeepAlive => "nothing came for longer than its keep-alive allows",
            Reason::Replaced => {
                "another connection with the same login and client id took its place, or it had as \
                 many sessions as it may"
            }
            Reason::Idle => "it was idle for too long",
            Reason::MaxAge => "it was as old as a session may get",
            Reason::Revoked => "somebody ended it, or its rights went (audit.list says who)",
            Reason::ProtocolError => "the device broke the protocol",
            Reason::ServerStopped => "the server stopped",
            Reason::Banned => "it, or its application, was disabled",
            Reason::MadeWay => "its connection was closed to make room for others",
        };
        Self {
            at,
            reason: end.reason.as_str(),
            status: end.reason.status().as_str(),
            since,
            remote_addr: session.conn().remote_addr.to_string(),
            protocol: session.conn().protocol.as_str(),
            text: format!("Its last session, since {since}, ended at {at}: {why}."),
        }
    }
}

/// What its live sessions were refused.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failed {
    codes: Vec<FailedCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Timestamp>,
    text: String,
}

#[derive(Serialize)]
struct FailedCode {
    code: i32,
    count: u64,
    meaning: &'static str,
}

impl Failed {
    pub(super) fn of(look: &Look<'_>, live: &[Arc<Session>]) -> Self {
        let mut counts: BTreeMap<Code, u64> = BTreeMap::new();
        let mut last = None;
        for failures in live.iter().filter_map(|session| session.failures()) {
            for (code, count) in failures.counts() {
                *counts.entry(code).or_default() += u64::from(count);
            }
            last = last.max(failures.last());
        }
        let meaning = |code: Code| CODES.iter().find(|info| info.code == code);
        let codes: Vec<_> = counts
            .into_iter()
            .map(|(code, count)| FailedCode {
                code: code.0,
                count,
                meaning: meaning(code).map_or("", |info| info.meaning),
            })
            .collect();
        let last = last.map(|last| look.shown(last));
        let most = codes.iter().max_by_key(|code| code.count).zip(last);
        let text = most.map_or_else(String::new, |(most, last)| {
            let FailedCode { code, count, meaning } = most;
            let all: u64 = codes.iter().map(|code| code.count).sum();
            format!(
                "{all} of its commands failed since it connected, the last at {last}; most often \
                 ({count}) with {code}: {meaning}"
            )
        });
        Self { codes, last, text }
    }

    pub(super) fn sentence(&self) -> Option<&str> {
        Some(&*self.text).filter(|text| !text.is_empty())
    }
}

/// A limit, and how near it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limit {
    limit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    pub(super) reached: bool,
    pub(super) text: String,
}

impl Look<'_> {
    /// The limits that may stop a thing.
    pub(super) fn limits(
        &self,
        live: &[Arc<Session>],
        waiting: &Waiting,
        principal: Option<&Principal>,
    ) -> Vec<Limit> {
        let config = &self.app.config;
        let withheld = live.iter().filter_map(|session| session.failures());
        let withheld: u64 = withheld.map(|failures| u64::from(failures.withheld())).sum();
        let sessions =
            principal.map_or(0, |own| self.app.directory().of_principal(own).len() as u64);
        let sessions_max = config.limits.sessions_per_principal as u64;
        let mails_max = config.mailbox.waiting_max as u64;
        let mut limits = Vec::from(RateOf::ALL.map(|of| self.rate(live, of)));
        limits.extend([
            Limit {
                limit: "limits.sessions_per_principal",
                used: Some(sessions),
                max: Some(sessions_max),
                reached: sessions >= sessions_max,
                text: format!("It has {sessions} of the {sessions_max} sessions that it may have."),
            },
            Limit {
                limit: "mailbox.waiting_max",
                used: Some(waiting.mails),
                max: Some(mails_max),
                reached: waiting.mails >= mails_max,
                text: format!("{} of at most {mails_max} mails wait for it.", waiting.mails),
            },
            Limit {
                limit: "withheld publishes",
                used: Some(withheld),
                max: None,
                reached: withheld > 0,
                text: match withheld {
                    0 => "None of its publishes waits until it can be carried out.".to_owned(),
                    count => format!(
                        "{count} of its publishes wait until they can be carried out: it is over \
                         the rate, or the server stores nothing."
                    ),
                },
            },
        ]);
        limits.extend(self.pools_used_up());
        limits
    }

    /// A limit of commands a second.
    fn rate(&self, live: &[Arc<Session>], of: RateOf) -> Limit {
        let (limit, most) = (of.key(), self.app.rate_limit(of));
        let failures = live.iter().filter_map(|session| session.failures());
        let over: u64 = failures.map(|failures| u64::from(failures.over_rate(of))).sum();
        let text = match (over, most) {
            (0, 0) => format!("{limit} is no limit here."),
            (0, most) => {
                let stays = match of {
                    RateOf::Session => "It stays",
                    RateOf::Login => "All its sessions together stay",
                    RateOf::Org => "With all others of its organisation it stays",
                };
                format!("{stays} below the rate of {most} commands a second.")
            }
            (over, most) => format!(
                "It is over the rate: {over} of its commands since it connected were more than \
                 the {most} a second of {limit}."
            ),
        };
        Limit { limit, used: None, max: Some(most.into()), reached: over > 0, text }
    }

    /// The pools of the whole server that are used up, or nearly: who gets more of them is above
    /// the own share.
    fn pools_used_up(&self) -> impl Iterator<Item = Limit> {
        POOLS.iter().filter_map(|(pool, info)| {
            let usage = self.app.pools.usage(*pool);
            let (used, max) = (usage.used(), usage.max());
            // What makes way for others stops nobody.
            let stops = matches!(info.makes_way, base::pool::MakesWay::Nobody);
            (stops && max > 0 && used >= max - max / 16).then(|| Limit {
                limit: info.name,
                used: None,
                max: None,
                reached: true,
                text: format!(
                    "The server has no more {}, but for those below their share. {}",
                    info.unit, info.refused
                ),
            })
        })
    }
}

/// What waits for it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    pub(super) mails: u64,
    messages: u64,
    /// MQTT sessions that outlive their connections.
    sessions: Vec<KeptSession>,
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeptSession {
    client_id: String,
    messages: usize,
    subscriptions: usize,
    /// Absent while the client is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    away_since: Option<Timestamp>,
}

impl Waiting {
    pub(super) fn of(
        look: &Look<'_>,
        thing: Option<&Thing>,
        principal: Option<&Principal>,
    ) -> Result<Self, Failure> {
        let mails = thing.map_or(0, |thing| look.app.mailbox.waiting_for(thing.id) as u64);
        let kept = principal.map(|own| look.app.broker.kept_of(own)).transpose()?;
        let session = |state: crate::app::KeptState| KeptSession {
            client_id: look.app.shown(&state.client_id),
            messages: state.messages,
            subscriptions: state.subscriptions,
            away_since: state.away.map(|away| look.shown(away)),
        };
        let sessions: Vec<_> = kept.unwrap_or_default().into_iter().map(session).collect();
        let messages = sessions.iter().map(|session| session.messages as u64).sum();
        let text = match (mails, messages) {
            (0, 0) => String::new(),
            (mails, messages) => format!(
                "{mails} mails wait for it, and {messages} MQTT messages in {} kept sessions.",
                sessions.len()
            ),
        };
        Ok(Self { mails, messages, sessions, text })
    }

    pub(super) fn sentence(&self) -> Option<&str> {
        Some(&*self.text).filter(|text| !text.is_empty())
    }
}

/// What its definition lets it do.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Definition {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Whether it refuses properties or attributes that it does not name.
    closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Vec<String>>,
    pub(super) text: String,
}

impl Definition {
    pub(super) fn of(look: &Look<'_>, thing: Option<&Thing>) -> Self {
        let open = |text: String| Self {
            key: None,
            closed: false,
            properties: None,
            attributes: None,
            text,
        };
        let Some(thing) = thing else { return open(String::new()) };
        let def = thing.def.map(|def| look.app.identity().thing_def(thing.org, def));
        let def = match def {
            None => return open(String::new()),
            Some(None) => return open("Its definition is gone.".to_owned()),
            Some(Some(def)) => def,
        };
        let names = |section: &str, auto: Option<bool>| {
            let defined = def.members.get(section).and_then(|part| part.as_object());
            let names = || defined.into_iter().flat_map(|part| part.keys()).take(NAMES).cloned();
            (auto == Some(false)).then(|| names().collect::<Vec<_>>())
        };
        let properties = names("properties", def.auto_def_props);
        let attributes = names("attributes", def.auto_def_attrs);
        let part = |what: &str, names: &Option<Vec<String>>| {
            let names = names.as_ref()?;
            let but = match names.is_empty() {
                true => "all".to_owned(),
                false => format!("all but {}", names.join(", ")),
            };
            Some(format!("{what}: {but}"))
        };
        let refused: Vec<_> = [part("properties", &properties), part("attributes", &attributes)]
            .into_iter()
            .flatten()
            .collect();
        let text = match refused.is_empty() {
            true => String::new(),
            false => format!(
                "Its definition \"{}\" is closed; publishes are refused of {}.",
                def.key,
                refused.join("; ")
            ),
        };
        Self { key: Some(def.key.clone()), closed: def.is_closed(), properties, attributes, text }
    }
}

/// Whether a login would make it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registration {
    /// Whether the token of one of these applications would make it.
    possible: bool,
    applications: Vec<String>,
    pub(super) text: String,
}

impl Registration {
    pub(super) fn of(look: &Look<'_>, named: &str, can_be: bool, exists: bool) -> Self {
        let all = look.app.identity().applications_of(look.asker.org);
        let now = look.app.clock.now();
        let registers = |app: &&Arc<Application>| app.auto_register && !app.ban.is_banned(now);
        let registering = all.iter().filter(registers);
        let applications: Vec<String> =
            registering.map(|application| application.name.clone()).take(NAMES).collect();
        let possible = can_be && !applications.is_empty();
        let text = match (exists, can_be, applications.is_empty()) {
            (true, ..) => String::new(),
            (false, false, _) => {
                format!("\"{}\" can't be the key of a thing.", excerpt(named))
            }
            (false, true, true) => {
                "No application of this organisation registers unknown things: it has to be made \
                 with thing.create first."
                    .to_owned()
            }
            (false, true, false) => format!(
                "It would be made by its first login with the token of {}.",
                applications.join(" or ")
            ),
        };
        Self { possible, applications, text }
    }
}
