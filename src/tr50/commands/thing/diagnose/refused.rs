//! The logins of a thing that were refused.
//!
//! A login with a wrong token is nobody's: it may have been meant for another organisation that has a
//! thing of the same key. Of such ones the asker gets cause and count, and address and client id only
//! where the organisation's own sessions come from: what others have must not be learnt from it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base::{Failure, Timestamp, network_of};
use rules::directory::Session;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Look;
use crate::app::{LOGIN, LoginCause};
use crate::events::{Class, Entry, Order, Query, SERVER};

/// The causes that are shown.
const SHOWN: usize = 10;

/// What was refused.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refusals {
    /// Logins in all.
    count: u64,
    /// The last of each cause and address, the last first.
    logins: Vec<Refused>,
    text: String,
}

/// Logins that were refused for one cause, from one address.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    cause: String,
    count: u64,
    first: Timestamp,
    last: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_name: Option<String>,
}

impl Refusals {
    /// Looks through the trail.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub(super) fn of(
        look: &Look<'_>,
        key: &str,
        sessions: &[Arc<Session>],
    ) -> Result<Self, Failure> {
        let org = look.asker.org;
        let query = Query {
            after: 0,
            before: u64::MAX,
            order: Order::NewestFirst,
            classes: &[Class::Refusals],
            sees: &|other| other == org || other == SERVER,
        };
        let (mut logins, mut count) = (Vec::new(), 0);
        let wanted = crate::events::shown_name(key).to_lowercase();
        look.app.events().read(&query, |Entry { row, .. }| {
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
            let is_thing = matches!(text("kind"), "thing" | "unknown");
            if text("command") == LOGIN && is_thing && text("whoAmI").to_lowercase() == wanted {
                let is_ours = row.contains_key("orgId");
                let whole = is_ours || look.may_see_peer(text("remoteAddr"), sessions);
                let refused = Refused::of(&row, whole);
                count += refused.count;
                logins.push(refused);
            }
            logins.len() < SHOWN
        })?;
        let text = logins.first().map_or_else(String::new, Refused::sentence);
        Ok(Self { count, logins, text })
    }

    /// What people are told.
    pub(super) fn sentences(&self) -> impl Iterator<Item = &str> {
        Some(&*self.text).filter(|text| !text.is_empty()).into_iter()
    }

    /// Whether one was refused after that.
    pub(super) fn is_later_than(&self, at: Option<Timestamp>) -> bool {
        let last = self.logins.first().map(|login| login.last);
        last.is_some_and(|last| at.is_none_or(|at| last >= at))
    }
}

impl Refused {
    fn of(row: &Map<String, Value>, whole: bool) -> Self {
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        let time = |name: &str| {
            let time = row.get(name).and_then(Value::as_str).and_then(Timestamp::parse);
            time.unwrap_or_default()
        };
        let of_peer = |name: &str| text(name).filter(|_| whole);
        Self {
            cause: text("cause").unwrap_or_default(),
            count: row.get("count").and_then(Value::as_u64).unwrap_or(1),
            first: time("first"),
            last: time("last"),
            remote_addr: of_peer("remoteAddr"),
            protocol: text("protocol"),
            protocol_version: text("protocolVersion"),
            client_id: of_peer("clientId"),
            app_name: text("appName"),
        }
    }

    fn sentence(&self) -> String {
        let known = LoginCause::ALL.into_iter().find(|cause| cause.as_str() == self.cause);
        let why = known.map_or(&*self.cause, |cause| cause.meaning());
        let from = match (&self.remote_addr, &self.protocol) {
            (Some(address), Some(protocol)) => format!(" from {address} by {protocol}"),
            (None, Some(protocol)) => format!(" by {protocol}"),
            _ => String::new(),
        };
        let times = match self.count {
            1 => String::new(),
            count => format!(" ({count} times since {})", self.first),
        };
        format!("Its login was refused last at {}{from}: {why}{times}.", self.last)
    }
}

impl Look<'_> {
    /// Whether the asker may see that somebody came from this address.
    fn may_see_peer(&self, address: &str, sessions: &[Arc<Session>]) -> bool {
        if self.asker.sees_all {
            return true;
        }
        let Ok(address) = address.parse::<SocketAddr>() else { return false };
        let network: IpAddr = network_of(address.ip());
        let is_there = |session: &Session| session.conn().network() == network;
        self.asker.network == network
            || sessions.iter().any(|session| is_there(session))
            || self.app.directory().any_in_org(self.asker.org, is_there)
    }
}
