//! `thing.diagnose`: why a thing can't connect, or what it is up to; each part in words for people and
//! as members for programs. A thing that does not exist is an answer, too.

mod parts;
mod refused;

use std::net::IpAddr;
use std::sync::Arc;

use base::{Failure, OrgId, ThingKey, Timestamp, excerpt};
use rules::directory::{Principal, Session};
use serde::Serialize;
use store::Condition;

use super::object::seen_of;
use crate::app::{App, Effects};
use crate::things::registry::Thing;
use crate::tr50::commands::target::check_may_ask;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Later};
use crate::tr50::strict::Strict;

use parts::{Connection, Definition, Failed, Left, Limit, Registration, ThingPart, Waiting};
use refused::Refusals;

params! {
    /// Which thing.
    pub(super) struct DiagnoseParams of Name {
        optional key: String = "key", "The thing's key, of one that does not exist, too; own thing by default.";
        optional thing_key: String = "thingKey", "The same.";
    }
}

/// The reply of `thing.diagnose`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Diagnosis {
    key: String,
    exists: bool,
    connected: bool,
    /// What it comes to, in one sentence.
    summary: String,
    /// All sentences, the most telling first.
    findings: Vec<String>,
    thing: ThingPart,
    connections: Vec<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Left>,
    refused: Refusals,
    failures: Failed,
    limits: Vec<Limit>,
    waiting: Waiting,
    definition: Definition,
    registration: Registration,
}

/// Ended sessions that are looked through for the last one.
const LOOKED_AT: usize = 100;

/// Connections that are shown.
const SHOWN: usize = 20;

/// `thing.diagnose`. What was refused a moment ago is written first, so that it is known.
pub(super) fn diagnose(
    call: &Call<'_>,
    Strict(params): Strict<DiagnoseParams>,
) -> Result<Later, Failure> {
    let named = params.key.or(params.thing_key).filter(|key| !key.is_empty());
    let own = || call.session.who().own_key().map(str::to_owned);
    let key = named.or_else(own).ok_or_else(|| missing("key"))?;
    check_may_ask(call, &key)?;
    let (app, worker) = (call.app.clone(), call.worker());
    let asker = Asker {
        org: call.session.org_id(),
        network: call.conn.network(),
        sees_all: call.session.access().authority().sees_all(),
    };
    Ok(Later::new(async move {
        app.settle_events().await?;
        let inner = app.clone();
        let look = move || Look { app: &inner, asker }.at(&key);
        let diagnosis = app.offload(worker, look).await??;
        Ok(After(diagnosis, Effects::default()))
    }))
}

/// Who wants to know.
#[derive(Clone, Copy)]
struct Asker {
    org: OrgId,
    network: IpAddr,
    sees_all: bool,
}

/// A look at one thing.
struct Look<'a> {
    app: &'a Arc<App>,
    asker: Asker,
}

impl Look<'_> {
    fn at(&self, named: &str) -> Result<Diagnosis, Failure> {
        let key = ThingKey::parse(named).ok();
        let thing = match &key {
            Some(key) => self.app.things.get(self.asker.org, key)?,
            None => None,
        };
        let principal = key.map(|key| Principal::Thing(self.asker.org, key));
        let sessions = match &principal {
            Some(principal) => self.app.directory().page_of_principal(principal, None, LOOKED_AT),
            None => Vec::new(),
        };
        let refused = Refusals::of(self, named, &sessions)?;
        let (live, ended): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|session| session.end().is_none());
        let parent = self.parent_connections(thing.as_ref())?;
        let connections: Vec<_> =
            live.iter().chain(&parent).take(SHOWN).map(|s| Connection::of(self, s)).collect();
        let left = ended.iter().filter_map(|session| Some((session.end()?, session)));
        let left = left.max_by_key(|(end, _)| end.at).map(|(end, s)| Left::of(self, s, end));
        let seen = match &thing {
            Some(thing) => seen_of(&self.app.things, thing.id, &live)?,
            None => None,
        };
        let thing_part = ThingPart::of(self, named, thing.as_ref(), seen);
        let failures = Failed::of(self, &live);
        let waiting = Waiting::of(self, thing.as_ref(), principal.as_ref())?;
        let limits = self.limits(&live, &waiting, principal.as_ref());
        let definition = Definition::of(self, thing.as_ref());
        let registration = Registration::of(self, named, principal.is_some(), thing.is_some());
        let mut diagnosis = Diagnosis {
            key: excerpt(named),
            exists: thing.is_some(),
            connected: connections.iter().any(|one| one.bound),
            summary: String::new(),
            findings: Vec::new(),
            thing: thing_part,
            connections,
            left,
            refused,
            failures,
            limits,
            waiting,
            definition,
            registration,
        };
        diagnosis.find();
        if let Some(sentence) = self.store_sentence() {
            diagnosis.findings.push(sentence);
        }
        diagnosis.summary = diagnosis.findings.first().cloned().unwrap_or_default();
        Ok(diagnosis)
    }

    /// The connections of the thing to which this one is bound.
    fn parent_connections(&self, thing: Option<&Thing>) -> Result<Vec<Arc<Session>>, Failure> {
        let Some(parent) = thing.and_then(|thing| thing.bound_to) else { return Ok(Vec::new()) };
        let Some(parent) = self.app.things.by_id(self.asker.org, parent)? else {
            return Ok(Vec::new());
        };
        let principal = Principal::Thing(self.asker.org, parent.key);
        Ok(self.app.directory().of_principal(&principal))
    }

    fn shown(&self, time: Timestamp) -> Timestamp {
        self.app.clock.shown(time)
    }

    fn store_sentence(&self) -> Option<String> {
        match self.app.store_room().condition() {
            Condition::Good => None,
            condition => Some(format!("The server stores nothing at the moment: {condition}.")),
        }
    }
}

impl Diagnosis {
    /// Puts the sentences into their order.
    fn find(&mut self) {
        let connected = self.connections.iter().map(|one| one.text.clone());
        let left = self.left.iter().map(|left| left.text.clone());
        let refused = self.refused.sentences().map(str::to_owned);
        let is_refused_since = self.refused.is_later_than(self.left.as_ref().map(|left| left.at));
        let found = &mut self.findings;
        found.push(self.thing.ban_text.clone());
        found.extend(connected);
        if is_refused_since {
            found.extend(refused);
            found.extend(left);
        } else {
            found.extend(left);
            found.extend(refused);
        }
        found.push(self.thing.text.clone());
        found.extend(self.limits.iter().filter(|limit| limit.reached).map(|one| one.text.clone()));
        found.extend(self.failures.sentence().map(str::to_owned));
        found.extend(self.waiting.sentence().map(str::to_owned));
        found.push(self.definition.text.clone());
        found.push(self.registration.text.clone());
        found.retain(|sentence| !sentence.is_empty());
    }
}
