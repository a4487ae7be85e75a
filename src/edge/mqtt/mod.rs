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
mod thing_command;
mod topics;
mod traced;
mod will;

use std::sync::Arc;

use ::mqtt::{Malformed, PublishProperties, QoS, Version};
use base::{Clock, ConnInfo, OrgId};
use reply::Watchers;
use rules::directory::Link;
use tokio_util::sync::CancellationToken;
use will::Wills;

use self::client::Client;
use crate::app::{App, LoginCause, LoginPeer};
use crate::broker::{Broker, Message, Publisher};
use crate::edge::wrong_door::{self, Met};
use crate::edge::{Stream, driver};
use crate::logging::PeerLog;
use crate::peer_log;
use crate::things::feed::Wildcards;

/// What all MQTT connections share.
pub struct MqttServer {
    app: Arc<App>,
    watchers: Watchers,
    wills: Arc<Wills>,
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
struct ByBroker(Broker, Clock);

impl Wildcards for ByBroker {
    fn has(&self, org: OrgId, topic: &str) -> bool {
        self.0.has_filter(org, topic)
    }

    fn publish(&self, org: OrgId, topic: &str, payload: &str) {
        let about = (QoS::AtLeastOnce, false);
        let (properties, now) = (PublishProperties::default(), self.1.now());
        let message = Message::new(topic, payload.as_bytes(), about, &properties, now);
        self.0.publish_detached(org, message, Publisher::server().principal);
    }
}

impl MqttServer {
    /// An edge without connections.
    pub fn new(app: Arc<App>) -> Self {
        app.feed.forward_to(Box::new(ByBroker(app.broker.clone(), app.clock.clone())));
        let wills = Arc::new(Wills::new(&app.pools));
        app.watch_delayed_wills(wills.clone());
        Self { app, watchers: Watchers::default(), wills }
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

    /// Counts a CONNECT that is refused before anybody looks at its credentials.
    fn note_unread(
        &self,
        info: &ConnInfo,
        (name, client_id): (&str, &str),
        version: Version,
        cause: LoginCause,
    ) {
        let (_, mqtt_level) = version.name_and_level();
        let link = Link { mqtt_level, ..Link::default() };
        let peer = LoginPeer { conn: *info, client_id, link };
        self.app.note_bad_login(name, peer, cause, self.app.clock.now());
    }
}
