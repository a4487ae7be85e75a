//! A device's MQTT connection without its socket.

use std::rc::Rc;

use mqtt::packet::Connect;
use mqtt::{ConnectProperties, Version, encode};
use rules::directory::Reason;
use tr50d::edge::driver::Peer;
use tr50d::edge::mqtt::client::{Client, Closing, Owed};

use super::setup::{NOW, Setup, conn};

/// A device that is connected.
pub struct Device {
    setup: Rc<Setup>,
    peer: Client,
    owed: Owed,
}

impl Device {
    /// The CONNECT of a device of the first organisation, as device-cloud-python sends it.
    pub fn connect_frame(thing_key: &str) -> Vec<u8> {
        let packet = Connect {
            version: Version::V311,
            bridge: false,
            clean: true,
            keep_alive: 60,
            client_id: "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
            will: None,
            username: Some(thing_key),
            password: Some(b"the-token-of-org-0"),
            properties: ConnectProperties::default(),
        };
        let mut frame = Vec::new();
        encode::connect(&mut frame, &packet).expect("it is short");
        frame
    }

    /// Connects with this CONNECT.
    pub fn connect(setup: &Rc<Setup>, frame: &[u8]) -> Self {
        let mut peer = Client::new(setup.server.clone(), conn(0), false);
        let (mut out, mut owed) = (Vec::new(), Owed::default());
        received(peer.receive(frame, NOW, &mut out, &mut owed));
        let done = setup.runtime.block_on(owed.worked()).expect("a login takes time");
        assert!(peer.finish(done, &mut out, &mut owed).is_ok(), "the token is right");
        assert!(peer.is_online());
        Self { setup: setup.clone(), peer, owed }
    }

    /// Sends frames whose answers take no time; `out` has the answers.
    pub fn send(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let used = received(self.peer.receive(frames, NOW, out, &mut self.owed));
        let owes = self.owed.is_blocked() || !self.owed.is_empty();
        assert!(used == frames.len() && !owes, "all of it is answered at once");
    }

    /// Disconnects.
    pub fn disconnect(self) {
        self.setup.runtime.block_on(self.peer.end(Closing::ended(Reason::LoggedOut), self.owed));
    }
}

fn received<T>(received: Result<T, Closing>) -> T {
    received.unwrap_or_else(|_| panic!("the frames are right"))
}
