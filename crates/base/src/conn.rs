//! What is known of a connection: its protocol and the peer's address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How a session's commands arrive; the value of `connInfo.protocol`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// One JSON value a line over TCP.
    Tcp,
    /// One JSON value a line over TLS.
    Tcps,
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Protocol {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Mqtt,
        Self::Mqtts,
        Self::Ws,
        Self::Wss,
        Self::Tcp,
        Self::Tcps,
        Self::Http,
        Self::Https,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Tcp => "tcp",
            Self::Tcps => "tcps",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Connection details, taken from the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnInfo {
    /// The protocol really used.
    pub protocol: Protocol,
    /// The peer's address and port.
    pub remote_addr: SocketAddr,
    /// The connection, in this run.
    #[serde(skip)]
    pub connection: ConnectionId,
    /// By which listener it came.
    #[serde(skip)]
    pub door: Door,
    /// Whether the client has shown a certificate by which logins go.
    #[serde(skip)]
    pub certified: bool,
    /// The version of TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Tls {
    /// 1.2.
    #[serde(rename = "1.2")]
    V12,
    /// 1.3.
    #[serde(rename = "1.3")]
    V13,
}

impl Tls {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        }
    }
}

impl ConnInfo {
    /// A connection without a number, whose client has shown no certificate.
    pub const fn new(protocol: Protocol, remote_addr: SocketAddr) -> Self {
        Self {
            protocol,
            remote_addr,
            connection: ConnectionId::NONE,
            door: Door::Usual,
            certified: false,
            tls: None,
        }
    }

    /// The network of the peer.
    pub fn network(&self) -> IpAddr {
        network_of(self.remote_addr.ip())
    }
}

/// A kind of listener.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Door {
    /// For everybody.
    #[default]
    Usual,
    /// For administrators (`http.admin_listen`).
    Admin,
    /// For metrics alone (`metrics.listen`).
    Metrics,
    /// The control socket, for who has the data directory.
    Control,
}

/// The network of one customer: whoever has an IPv6 address has its whole /64.
pub fn network_of(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        v4 => v4,
    }
}

/// The number of an open connection. After four billion they come again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct ConnectionId(u32);

impl ConnectionId {
    /// Of a connection that is none of a listener's.
    pub const NONE: Self = Self(0);

    /// The connection of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}
