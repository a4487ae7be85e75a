//! The plan of a fleet: its servers, the number of devices, and what they send at which rate.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Protocol, Timestamp};

use super::files::FileLoad;
use crate::{ClientError, Login, Url, Version, request_text};

/// Devices of one fleet at most: beyond that a run needs more than one machine.
pub const DEVICES_MAX: usize = 1_000_000;

/// Rows of telemetry in one batch: some 64 bytes each, and a frame of the default size.
pub const ROWS_MAX: usize = 10_000;

/// Bytes of one file that devices move: each holds it in memory.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Requests that one device may have on their way.
pub const WINDOW_MAX: usize = 10_000;

/// rumqttc's client for MQTT 5 panics when it is given less, even none.
const RUMQTTC_V5_KEEP_ALIVE_S_MIN: u16 = 5;

/// The devices of a fleet.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers and dialects, taken in turn by the devices. A user name with an `@` makes every
    /// device of that URL log in as that user; else the URL's password is the token.
    pub urls: Vec<Url>,
    /// The application token where the URL has none.
    pub token: Option<String>,
    /// How many devices.
    pub devices: usize,
    /// The first part of the thing keys; the device's number from 0 follows.
    pub key_prefix: String,
    /// The MQTT client.
    pub client: ClientKind,
    /// The version of MQTT; `None` for the URL's own.
    pub versions: Option<Versions>,
    /// MQTT requests with QoS 1 instead of 0.
    pub qos1: bool,
    /// MQTT keep-alive of the devices in seconds; while a [`Load`] runs they ping in time.
    pub keep_alive_s: u16,
    /// New connections a second; 0 for as many as the server takes.
    pub connect_rate: u32,
    /// Local addresses to connect from, taken in turn. One address has some 28,000 ports.
    pub sources: Vec<IpAddr>,
    /// Time for one connection with login.
    pub connect_timeout: Duration,
    /// Whether addresses other than this machine's loopback may be loaded.
    pub beyond_loopback: bool,
}

impl Plan {
    /// `devices` at `url`, everything else as `tr50d fleet` has it without options; no keep-alive.
    pub fn new(url: Url, devices: usize) -> Self {
        Self {
            urls: vec![url],
            token: None,
            devices,
            key_prefix: "fleet-".to_owned(),
            client: ClientKind::Own,
            versions: None,
            qos1: false,
            keep_alive_s: 0,
            connect_rate: 0,
            sources: Vec::new(),
            connect_timeout: Duration::from_secs(30),
            beyond_loopback: false,
        }
    }

    /// Checks what can be checked without a connection.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.urls.is_empty() {
            return Err(PlanError::NoUrl);
        }
        if !(1..=DEVICES_MAX).contains(&self.devices) {
            return Err(PlanError::Devices);
        }
        for url in &self.urls {
            let has_token = match &url.login {
                Login::User { .. } => true,
                Login::Thing { token, .. } if !token.is_empty() => true,
                _ => self.token.is_some(),
            };
            if !has_token {
                return Err(PlanError::NoToken(url.to_string()));
            }
            let version = self.versions.map_or(url.version, |versions| versions.of(0));
            if url.protocol == Protocol::Mqtt && self.client == ClientKind::Rumqttc {
                let mixed = self.versions == Some(Versions::Mix);
                if mixed || version == Version::V31 {
                    return Err(PlanError::Rumqttc("MQTT 3.1"));
                }
                if !self.sources.is_empty() {
                    return Err(PlanError::Rumqttc("source addresses"));
                }
                if version == Version::V5 && self.keep_alive_s < RUMQTTC_V5_KEEP_ALIVE_S_MIN {
                    return Err(PlanError::Rumqttc("MQTT 5 with a keep-alive below 5 s"));
                }
            }
            if self.client == ClientKind::Rumqttc
                && matches!(url.protocol, Protocol::Mqtts | Protocol::Ws | Protocol::Wss)
            {
                return Err(PlanError::Rumqttc("TLS and WebSocket"));
            }
        }
        Ok(())
    }

    /// Checks what a load asks of the fleet's devices.
    pub fn check_load(&self, load: &Load) -> Result<(), PlanError> {
        let over_mqtt = |url: &Url| {
            matches!(url.protocol, Protocol::Mqtt | Protocol::Mqtts | Protocol::Ws | Protocol::Wss)
        };
        let able = self.client == ClientKind::Own
            && load.callers < self.devices
            && self
                .urls
                .iter()
                .all(|url| over_mqtt(url) && !matches!(url.login, Login::User { .. }));
        if let Some(files) = &load.files
            && !self.beyond_loopback
            && !files.target.is_loopback()
        {
            return Err(PlanError::NotLoopback(files.target.authority().to_owned()));
        }
        if load.callers == 0 || able { Ok(()) } else { Err(PlanError::Methods) }
    }

    /// The URL with the login of the device `number`, and whether rumqttc is to be its client.
    pub(super) fn device(&self, number: usize) -> Option<(usize, Url, bool)> {
        let index = number.checked_rem(self.urls.len())?;
        let mut url = self.urls.get(index)?.clone();
        let round = number / self.urls.len();
        if let Some(versions) = self.versions {
            url.version = versions.of(round);
        }
        url.login = match url.login {
            Login::User { email, password } => Login::User { email, password },
            Login::Thing { token, .. } if !token.is_empty() => self.thing(number, token),
            _ => self.thing(number, self.token.clone().unwrap_or_default()),
        };
        let able = url.protocol == Protocol::Mqtt
            && url.version != Version::V31
            && (url.version != Version::V5 || self.keep_alive_s >= RUMQTTC_V5_KEEP_ALIVE_S_MIN)
            && self.sources.is_empty();
        let ordinary = able
            && match self.client {
                ClientKind::Own => false,
                ClientKind::Rumqttc => true,
                // Not in step with the three versions: each meets both clients.
                ClientKind::Mix => (round / 3).is_multiple_of(2),
            };
        Some((index, url, ordinary))
    }

    /// The local address of the device `number`.
    pub(super) fn source(&self, number: usize) -> Option<IpAddr> {
        self.sources.get(number.checked_rem(self.sources.len())?).copied()
    }

    fn thing(&self, number: usize, token: String) -> Login {
        Login::Thing { key: format!("{}{number}", self.key_prefix), token }
    }
}

/// Which client speaks MQTT for the devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum ClientKind {
    /// This program's own frames: every version, and the cheapest.
    Own,
    /// rumqttc, an ordinary client library (3.1.1 and 5, without TLS).
    Rumqttc,
    /// Some with one, some with the other.
    Mix,
}

/// The versions of MQTT that devices speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Versions {
    /// One for all.
    One(Version),
    /// 3.1, 3.1.1 and 5 in turn.
    Mix,
}

impl Versions {
    fn of(self, number: usize) -> Version {
        match (self, number % 3) {
            (Self::One(version), _) => version,
            (Self::Mix, 0) => Version::V31,
            (Self::Mix, 1) => Version::V311,
            (Self::Mix, _) => Version::V5,
        }
    }
}

/// What the devices send.
#[derive(Clone, Debug)]
pub struct Load {
    /// The request, a JSON text in one line; `None` to hold the connections only.
    pub(super) request: Option<String>,
    /// Commands a second over all devices; 0 for as many as the window lets through.
    pub rate: f64,
    /// Requests that one device may have on their way. HTTP has one at a time.
    pub window: usize,
    /// Rows of telemetry in each request; 0 for a load of something else.
    pub(super) rows: usize,
    /// Devices that ask the others to run a method; 0 for a load of something else.
    pub(super) callers: usize,
    /// Files that every device moves; none for a load of something else.
    pub(super) files: Option<Arc<FileLoad>>,
    /// How long commands are sent.
    pub duration: Duration,
    /// After this time without an answer a command counts as lost.
    pub timeout: Duration,
}

impl Load {
    /// Every device sends `command` as fast as it is answered, for `duration`.
    pub fn command(
        command: &str,
        params: Option<&str>,
        duration: Duration,
    ) -> Result<Self, ClientError> {
        let request = Some(request_text(command, params)?);
        Ok(Self { request, ..Self::idle(duration) })
    }

    /// Every device publishes batches of `rows` values of ten properties, a second apart and the
    /// last of now, as a gateway does that has collected them.
    pub fn telemetry(rows: usize, duration: Duration, now: Timestamp) -> Result<Self, ClientError> {
        let row = |number: usize| {
            let ts = now.plus_seconds(number as u64).plus_millis(-1000 * rows as i64);
            let (property, value) = (number % 10, number as f64 / 8.0);
            format!(r#"{{"key":"property{property}","value":{value},"ts":"{ts}"}}"#)
        };
        let data: Vec<_> = (0..rows).map(row).collect();
        let params = format!(r#"{{"data":[{}]}}"#, data.join(","));
        Ok(Self { rows, ..Self::command("property.batch", Some(&params), duration)? })
    }

    /// The first `callers` devices have the others execute methods (`method.exec`), as fast as they
    /// answer; the others fetch their mail when a notice comes, and answer.
    pub fn methods(callers: usize, duration: Duration) -> Self {
        Self { request: Some(String::new()), callers, ..Self::idle(duration) }
    }

    /// Every device stores a file of so many bytes and fetches it again, over HTTP at `url`.
    ///
    /// # Errors
    /// The URL is none of HTTP, or its host has no address.
    pub async fn files(bytes: usize, url: &Url, duration: Duration) -> Result<Self, PlanError> {
        let files = FileLoad::new(bytes, url).await?.ok_or(PlanError::Files)?;
        let files = Some(Arc::new(files));
        Ok(Self { request: Some(String::new()), files, ..Self::idle(duration) })
    }

    /// Every device holds its connection for `duration`.
    pub fn idle(duration: Duration) -> Self {
        let timeout = Duration::from_secs(10);
        let (request, files) = (None, None);
        Self { request, rate: 0.0, window: 1, rows: 0, callers: 0, files, duration, timeout }
    }
}

/// A plan that can't be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No server.
    #[error("a fleet needs at least one URL")]
    NoUrl,
    /// Too many devices, or none.
    #[error("a fleet has 1 to {DEVICES_MAX} devices")]
    Devices,
    /// Nothing to log in with.
    #[error("{0} needs an application token: --token, or the URL's password (mqtt://:TOKEN@host)")]
    NoToken(String),
    /// Something that rumqttc is not able to do.
    #[error("the client rumqttc cannot do {0} here; use --client own or mix")]
    Rumqttc(&'static str),
    /// Methods, which need notices and somebody who answers.
    #[error("methods need MQTT with --client own, and more devices than callers")]
    Methods,
    /// Files, which move over HTTP.
    #[error("files need a URL of HTTP beside the others, or --files-url")]
    Files,
    /// A server that may be somebody else's.
    #[error(
        "{0} is not on this machine's loopback; a fleet loads other machines only with \
         --yes-this-is-my-server"
    )]
    NotLoopback(String),
    /// The server's name or certificates.
    #[error(transparent)]
    Client(#[from] ClientError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(url: &str) -> Plan {
        Plan::new(url.parse().expect("a URL"), 10)
    }

    #[test]
    fn plans_that_can_not_work_are_refused() {
        let check = |url: &str, change: fn(&mut Plan), text: &str| {
            let mut plan = plan(url);
            change(&mut plan);
            let result = plan.check().map_err(|error| error.to_string());
            match text {
                "" => assert_eq!(result, Ok(()), "{url}"),
                _ => assert!(result.is_err_and(|error| error.contains(text)), "{url}: {text}"),
            }
        };
        check("mqtt://:token@h", |_| {}, "");
        check("mqtt://a@b.c:pw@h", |_| {}, "");
        check("mqtt://h", |plan| plan.token = Some("t".into()), "");
        check("mqtt://key@h", |_| {}, "needs an application token");
        check("mqtt://:t@h", |plan| plan.devices = 0, "1 to 1000000 devices");
        check("mqtt://:t@h", |plan| plan.urls.clear(), "at least one URL");
        check("mqtt://:t@h?version=3.1", |plan| plan.client = ClientKind::Rumqttc, "MQTT 3.1");
        check("mqtts://:t@h", |plan| plan.client = ClientKind::Rumqttc, "TLS");
        check("mqtt://:t@h?version=5", |plan| plan.client = ClientKind::Rumqttc, "below 5 s");
        check("mqtt://:t@h?version=5", |plan| plan.client = ClientKind::Mix, "");
        check("mqtts://:t@h", |plan| plan.client = ClientKind::Mix, "");
        check("tcp://:t@h", |plan| plan.client = ClientKind::Rumqttc, "");
    }

    #[test]
    fn methods_need_notices_and_somebody_who_answers() {
        let check = |url: &str, callers: usize, able: bool| {
            let load = Load::methods(callers, Duration::from_secs(1));
            assert_eq!(plan(url).check_load(&load).is_ok(), able, "{url} {callers}");
        };
        check("mqtt://:token@h", 9, true);
        check("wss://:token@h", 1, true);
        check("mqtt://:token@h", 10, false);
        check("tcp://:token@h", 1, false);
        check("http://:token@h", 1, false);
        check("mqtt://a@b.c:pw@h", 1, false);
        let mut plan = plan("mqtt://:token@h");
        plan.client = ClientKind::Mix;
        assert!(plan.check_load(&Load::methods(1, Duration::from_secs(1))).is_err());
        assert!(plan.check_load(&Load::idle(Duration::from_secs(1))).is_ok());
    }

    #[test]
    fn devices_have_keys_of_their_own_and_take_urls_and_versions_in_turn() {
        let mut plan = plan("mqtt://:token@h");
        plan.urls.push("tcp://h".parse().expect("a URL"));
        plan.token = Some("other".to_owned());
        plan.versions = Some(Versions::Mix);
        let device = |number| plan.device(number).expect("there are URLs");
        let (_, url, _) = device(0);
        assert_eq!(url.login, Login::Thing { key: "fleet-0".into(), token: "token".into() });
        assert_eq!(url.version, Version::V31);
        let (index, url, _) = device(1);
        assert_eq!((index, url.protocol), (1, Protocol::Tcp));
        assert_eq!(url.login, Login::Thing { key: "fleet-1".into(), token: "other".into() });
        assert_eq!(device(2).1.version, Version::V311);
        assert_eq!(device(4).1.version, Version::V5);
    }

    #[test]
    fn a_mix_has_both_clients_with_every_version_they_share() {
        let mut plan = plan("mqtt://:token@h");
        plan.versions = Some(Versions::Mix);
        plan.client = ClientKind::Mix;
        plan.keep_alive_s = 60;
        let seen: std::collections::HashSet<(Version, bool)> = (0..24)
            .filter_map(|number| plan.device(number))
            .map(|(_, url, ordinary)| (url.version, ordinary))
            .collect();
        assert_eq!(seen.len(), 5, "{seen:?}");
        assert!(!seen.contains(&(Version::V31, true)));
    }
}
