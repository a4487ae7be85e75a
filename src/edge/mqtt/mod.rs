//! MQTT 3.1, 3.1.1 and 5 on one port.
//!
//! The crate [`mqtt`] turns bytes into packets. A [`client`] takes them, first CONNECT (`connect`),
//! then the others (`logged_in`). Requests on TR50 topics go to the dispatcher, their replies back on
//! the same connection (`reply`); every other topic goes through the broker (`topics`).

pub mod client;
mod compress;
mod connect;
mod inflight;
mod logged_in;
mod near_topic;
mod promise;
mod reply;
mod session_states;
mod thing_command;
mod topics;
mod will;

use std::sync::Arc;
use std::time::Duration;

use ::mqtt::{Malformed, PublishProperties, QoS, reason};
use base::{ConnInfo, OrgId, Timestamp};
use reply::Watchers;
use rules::directory::Principal;
use session_states::{Owner, SessionStates};
use tokio_util::sync::CancellationToken;
use will::Wills;

use self::client::Client;
use crate::app::{App, LoginError};
use crate::broker::{Broker, BrokerError, LinkName, Message};
use crate::edge::wrong_door::{self, Met};
use crate::edge::{Stream, driver};
use crate::logging::PeerLog;
use crate::peer_log;
use crate::things::feed::Wildcards;

/// What all MQTT connections share.
pub struct MqttServer {
    app: Arc<App>,
    broker: Broker,
    watchers: Watchers,
    session_states: SessionStates,
    wills: Wills,
}

/// Serves an MQTT connection until it ends, or until `stop` before its login. `full`: the server
/// has no room, and says so.
pub fn serve(
    server: Arc<MqttServer>,
    stream: Stream,
    info: ConnInfo,
    full: bool,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    driver::serve(Client::new(server, info, full), stream, stop)
}

/// Changes of things for filters with wildcards.
struct ByBroker(Broker);

impl Wildcards for ByBroker {
    fn publish(&self, org: OrgId, topic: &str, payload: &str) {
        let message = Message {
            topic,
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: &PublishProperties::default(),
            publisher: 0,
        };
        let taken = self.0.pack(&message).map(|packed| self.0.try_publish(org, packed));
        if !matches!(taken, Ok(Ok(()))) {
            tracing::debug!("the broker is behind: a change of a thing was dropped");
        }
    }
}

impl MqttServer {
    /// An edge without connections.
    pub fn new(app: Arc<App>, broker: Broker) -> Self {
        let (watchers, session_states, wills) =
            (Watchers::default(), SessionStates::default(), Wills::default());
        app.feed.forward_to(Box::new(ByBroker(broker.clone())));
        Self { app, broker, watchers, session_states, wills }
    }

    /// Forgets the states of clients that did not come back in time. The broker counts the time of
    /// its own part.
    pub fn expire_session_states(&self, now: Timestamp) {
        self.session_states.expire(now);
    }

    /// Forgets a client's state: it wants to begin anew.
    async fn forget(&self, org: OrgId, owner: &Owner) {
        self.session_states.forget(owner);
        if self.broker.forget(org, link_name(owner)).await.is_err() {
            tracing::warn!("the broker has stopped");
        }
    }

    fn log_wrong_door(&self, info: &ConnInfo, met: Met) {
        self.app.metrics.connection_refused("malformed");
        wrong_door::log(info, met);
    }

    fn log_no_connect(&self, info: &ConnInfo, first: u8) {
        static LOG: PeerLog = PeerLog::new(5);
        self.app.metrics.connection_refused("malformed");
        let (peer, first) = (info.remote_addr, format_args!("{first:#04x}"));
        peer_log!(LOG, %peer, %first, "a connection began with what is no CONNECT");
    }

    fn log_broken(&self, info: &ConnInfo, malformed: &Malformed) {
        static LOG: PeerLog = PeerLog::new(5);
        self.app.metrics.connection_refused("malformed");
        let peer = info.remote_addr;
        peer_log!(LOG, %peer, %malformed, "a connection sent what is not MQTT");
    }

    /// The reason code of MQTT 5 for a login that failed.
    fn refused(&self, info: &ConnInfo, error: &LoginError) -> u8 {
        static LOG: PeerLog = PeerLog::new(5);
        let peer = info.remote_addr;
        peer_log!(LOG, %peer, %error, "a login was refused");
        connect::refusal_code(error)
    }
}

/// The reason code of MQTT 5 for what the broker did not do.
const fn broker_code(error: BrokerError) -> u8 {
    match error {
        BrokerError::Topic => reason::TOPIC_INVALID,
        BrokerError::Full => reason::QUOTA_EXCEEDED,
        BrokerError::Gone | BrokerError::Stopped => reason::UNSPECIFIED,
    }
}

/// The broker's name for a client's session.
fn link_name(owner: &Owner) -> LinkName {
    let principal = match &owner.0 {
        Principal::User(id) => format!("user {id}"),
        Principal::Thing(org, key) => format!("thing {org} {key}"),
    };
    LinkName::new(&principal, &owner.1)
}

/// For how long the broker keeps a client's session, given the seconds that CONNECT asks for.
const fn keep_for(expiry_s: u32) -> Duration {
    if expiry_s == u32::MAX { Duration::MAX } else { Duration::from_secs(expiry_s as u64) }
}
