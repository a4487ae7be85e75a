//! `session.find`: one session, and with `show` what its connection tells.

use std::sync::Arc;

use base::{
    Clock, Failure,
    json::{self, ObjectWriter, key},
};
use rules::directory::Session;
use rules::directory::details::ConnectionDetails;

use super::FindParams;
use super::list::{STARTS, Shown, starts_of};
use super::row::{Row, ended, write_session};
use crate::app::Effects;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Later, Looked, WriteReply};

params! {
    /// What of a session `session.find` shows.
    pub(super) struct ShowParams {
        optional show: Vec<String> = "show",
            "The members to show, those of `session.list` and these: `startsLastHour`; of a live \
             MQTT connection, `subscriptionCount` and, to who administers the organisation or has \
             the same login, `subscriptions`, an array of the first 200 with `filter`, `qos`, \
             `noLocal`, `retainAsPublished` and `id`; `inFlight`: packets with `qos1` and `qos2` \
             that are not acknowledged, `out` to the client and `in` from it, and `oldestMs`, since \
             when the oldest of the broker's is; `waiting`: messages that wait in the broker, \
             `waitingBytes`: what they take there; and to whom `subscriptions` are shown, \
             `inFlightMessages`: the first 100 to the client that are not acknowledged, with \
             `packetId`, `qos`, `topic`, `bytes` of payload, `since` and `released`, which says \
             that with QoS 2 only the release is on its way (those of the server's own have \
             `packetId` and `qos` only); `waitingMessages`: the first that wait, at most 100, with \
             `qos`, `topic`, `bytes` and `since`, when they were published; of long topics the \
             beginning, and of no message its payload; \
             `keptSession`: `expiryS`, null for ever, if it outlives the connection. `*` shows all. \
             By default those that the vendor has.";
        optional ended: bool = "ended",
            "Finds it by `ref` also among those that ended lately.";
    }
}

/// The members that only the connection knows, in the order of the reply.
const OF_CONNECTION: [&str; 8] = [
    "subscriptionCount",
    "subscriptions",
    "inFlight",
    "inFlightMessages",
    "waiting",
    "waitingBytes",
    "waitingMessages",
    "keptSession",
];

/// Those that tell of topics.
const OF_TOPICS: [&str; 3] = ["subscriptions", "inFlightMessages", "waitingMessages"];

/// `session.find`: one session of the current organisation, or one of the caller's own.
pub(super) fn find(
    call: &Call<'_>,
    (which, params): (FindParams, ShowParams),
) -> Result<Looked<Found>, Failure> {
    let found = which.find_among(call, params.ended.unwrap_or(false))?;
    let session = found.ok_or_else(|| missing("id"))?;
    let clock = call.app.clock.clone();
    let Some(show) = params.show.filter(|show| !show.is_empty()) else {
        return Ok(Looked::Done(Found { session, clock, shown: None }));
    };
    let is_own = session.who().principal() == call.session.who().principal();
    // Filters tell as much of an application as its client ids do (`docs/protocol/tr50.md` 1.1).
    let shows_secrets = is_own || call.session.access().administers_here();
    let further = [&[STARTS][..], &OF_CONNECTION].concat();
    let all = show.iter().any(|name| name == "*");
    let shown = Shown::of((&show, &further), None, shows_secrets)?;
    let wanted: Vec<_> = OF_CONNECTION
        .into_iter()
        .filter(|member| all || shown.names(member))
        .filter(|member| shows_secrets || !OF_TOPICS.contains(member))
        .collect();
    let starts = (all || shown.names(STARTS)).then(|| starts_of(call, &session));
    let asks = !wanted.is_empty() && session.end().is_none();
    let shown = ShownDetails { shown, starts, wanted, details: None };
    if !asks {
        return Ok(Looked::Done(Found { session, clock, shown: Some(shown) }));
    }
    let app = call.app.clone();
    Ok(Looked::Later(Later::new(async move {
        let with_stored = shown.wanted.contains(&"waitingMessages");
        let details = app.connection_details(&session, with_stored).await;
        let shown = Some(ShownDetails { details, ..shown });
        Ok(After(Found { session, clock, shown }, Effects::default()))
    })))
}

/// The reply of `session.find`.
pub(super) struct Found {
    session: Arc<Session>,
    clock: Clock,
    /// What was asked for; none: what the vendor shows.
    shown: Option<ShownDetails>,
}

struct ShownDetails {
    shown: Shown,
    starts: Option<usize>,
    /// Of what the connection knows.
    wanted: Vec<&'static str>,
    details: Option<ConnectionDetails>,
}

impl WriteReply for Found {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":"#);
        let mut object = ObjectWriter::new(out);
        match &self.shown {
            None => write_session(&mut object, &self.session, &self.clock),
            Some(shown) => shown.write(&mut object, &self.session, &self.clock),
        }
        object.end();
        out.push(b'}');
    }
}

impl ShownDetails {
    fn write(&self, object: &mut ObjectWriter<'_>, session: &Session, clock: &Clock) {
        session.with_context(|context| {
            Row::new(object, session, context, clock, ended(session)).write_shown(&self.shown);
        });
        if let Some(starts) = self.starts {
            object.integer(key!("startsLastHour"), starts as u64);
        }
        let Some(details) = &self.details else { return };
        for member in &self.wanted {
            match *member {
                "subscriptionCount" => {
                    let count = details.subscription_count as u64;
                    object.integer(key!("subscriptionCount"), count);
                }
                "subscriptions" => {
                    json::push_value(object.name(key!("subscriptions")), &details.subscriptions);
                }
                "inFlight" => {
                    json::push_value(object.name(key!("inFlight")), &details.in_flight);
                }
                "inFlightMessages" => {
                    let messages = &details.in_flight_messages;
                    json::push_value(object.name(key!("inFlightMessages")), messages);
                }
                "waitingBytes" => {
                    if let Some(bytes) = details.waiting_bytes {
                        object.integer(key!("waitingBytes"), bytes as u64);
                    }
                }
                "waitingMessages" => {
                    let messages = &details.waiting_messages;
                    json::push_value(object.name(key!("waitingMessages")), messages);
                }
                "waiting" => {
                    if let Some(waiting) = details.waiting {
                        object.integer(key!("waiting"), waiting as u64);
                    }
                }
                _ => {
                    if let Some(kept) = &details.kept_session {
                        json::push_value(object.name(key!("keptSession")), kept);
                    }
                }
            }
        }
    }
}
