//! CONNECT: the login, and the session state that an earlier connection has left (MQTT 3.1, 3.2).

use std::borrow::Cow;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use ::mqtt::packet::Connect;
use ::mqtt::{ConnAckProperties, Version, encode, reason};
use base::{ConnInfo, Timestamp, limits};
use data_encoding::HEXLOWER;
use rules::directory::{Link, Outbox};
use rules::identity::Refusal;

use super::MqttServer;
use super::client::Done;
use super::logged_in::{ConnectOptions, LoggedIn};
use super::will::Will;
use crate::app::{ADDRESS_FULL, Arrival, Credentials, LoginCause, LoginError};
use crate::broker::Owner;
use crate::random::random;

const SECONDS_A_DAY: u32 = 86_400;

/// A CONNECT that makes sense so far.
pub(super) struct Login {
    credentials: Credentials,
    arrival: Arrival,
    assigned_id: bool,
    clean: bool,
    options: ConnectOptions,
    /// The keep-alive that the client has to use, if it asked for another.
    keep_alive_told: Option<u16>,
    wants_response_info: bool,
    will: Option<Box<Will>>,
    outbox: Arc<Outbox>,
}

/// Why a CONNECT is refused before anybody looks at its credentials.
pub(super) struct Unread {
    /// The reason code of MQTT 5.
    pub code: u8,
    /// The cause, as it is counted.
    pub cause: LoginCause,
}

/// The answer to a CONNECT.
pub struct Accepted {
    /// The CONNACK; empty if the client takes no packet of its size.
    pub connack: Vec<u8>,
    /// The client's state; none when it was refused.
    pub logged_in: Option<Box<LoggedIn>>,
}

impl Login {
    /// Reads a CONNECT.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub(super) fn read(
        packet: &Connect<'_>,
        server: &MqttServer,
        conn: ConnInfo,
        outbox: &Arc<Outbox>,
    ) -> Result<Self, Unread> {
        let unread = |cause| move |code| Unread { code, cause };
        if packet.properties.auth_method.is_some() {
            let code = reason::BAD_AUTHENTICATION_METHOD;
            return Err(Unread { code, cause: LoginCause::BadAuthMethod });
        }
        let read = client_id(packet);
        let (client_id, assigned_id) = read.map_err(unread(LoginCause::BadClientId))?;
        let (Some(name), Some(password)) = (packet.username, packet.password) else {
            let cause = LoginCause::NoCredentials;
            return Err(Unread { code: reason::NOT_AUTHORIZED, cause });
        };
        let password = std::str::from_utf8(password).map_err(|_| {
            // Nobody has such a password, or such a token.
            let known = server.app.identity().user_by_email(name).is_some();
            let cause = match (name.contains('@'), known) {
                (true, true) => LoginCause::WrongPassword,
                (true, false) => LoginCause::UnknownUser,
                (false, _) => LoginCause::UnknownToken,
            };
            Unread { code: reason::BAD_LOGIN, cause }
        })?;
        let will = packet.will.as_ref().map(Will::read).transpose();
        let will = will.map_err(unread(LoginCause::BadWill))?.flatten().map(Box::new);
        let config = &server.app.config.mqtt;
        let v5 = packet.version == Version::V5;
        let expiry_s = match (v5, packet.clean) {
            (true, _) => packet.properties.session_expiry.unwrap_or(0),
            (false, true) => 0,
            (false, false) => config.kept_session_days.saturating_mul(SECONDS_A_DAY),
        };
        let max = u16::try_from(config.keep_alive_max_s).unwrap_or(u16::MAX);
        let (seconds, keep_alive_told) = bounded_keep_alive(packet.version, packet.keep_alive, max);
        let takes_over = !assigned_id;
        let (_, mqtt_level) = packet.version.name_and_level();
        let link = Link { mqtt_level, keep_alive_s: seconds };
        Ok(Self {
            credentials: credentials(name, password),
            arrival: Arrival {
                conn,
                client_id,
                link,
                takes_over,
                has_place: false,
                outbox: outbox.clone(),
            },
            assigned_id,
            clean: packet.clean,
            options: ConnectOptions {
                expiry_s,
                version: packet.version,
                keep_alive: keep_alive(packet.version, seconds),
                packet_max: packet
                    .properties
                    .packet_size_max
                    .map_or(usize::MAX, |max| max.get() as usize),
                receive_max: packet.properties.receive_max.map_or(u16::MAX, |max| max.get()),
                topic_alias_max: packet.properties.topic_alias_max.unwrap_or(0),
                reasons: v5 && packet.properties.request_problem_info.unwrap_or(true),
                bridge: packet.bridge,
            },
            keep_alive_told,
            wants_response_info: packet.properties.request_response_info.unwrap_or(false),
            will,
            outbox: outbox.clone(),
        })
    }

    /// Logs in, and takes up what was left.
    pub(super) async fn run(self, server: Arc<MqttServer>, now: Timestamp) -> Done {
        let options = self.options;
        let mut connack = Vec::with_capacity(16);
        match self.try_run(&server, now, &mut connack).await {
            Ok(logged_in) => {
                Done::Login(Box::new(Accepted { connack, logged_in: Some(logged_in) }))
            }
            Err(error) => {
                let code = refusal_code(&error);
                let why = options.reasons.then(|| told_reason(&error)).flatten();
                refuse(options.version, code, why.as_deref(), &mut connack);
                if connack.len() > options.packet_max {
                    // [MQTT-3.2.2-19] of 5.
                    connack.clear();
                    refuse(options.version, code, None, &mut connack);
                }
                Done::Login(Box::new(Accepted { connack, logged_in: None }))
            }
        }
    }

    async fn try_run(
        self,
        server: &Arc<MqttServer>,
        now: Timestamp,
        connack: &mut Vec<u8>,
    ) -> Result<Box<LoggedIn>, LoginError> {
        let conn = self.arrival.conn;
        let client_id: Arc<str> = self.arrival.client_id.as_ref().into();
        let logged_in = server.app.login_bound(self.credentials, self.arrival, now).await?;
        let (session, place) = logged_in;
        let owner = Owner { principal: session.who().principal(), client_id: client_id.clone() };
        let will_bytes = self.will.as_ref().map_or(0, |will| will.bytes());
        let will = (self.will, self.options.expiry_s);
        server.wills.arrive(server, &owner, &session, self.clean, will).await;
        if self.clean {
            server.app.broker.forget(&owner, &|| session.end().is_none());
        }
        let response_info = self.wants_response_info.then(|| response_topics(&client_id));
        let mut logged_in =
            LoggedIn::new((session, place), conn, self.options, owner, will_bytes, self.outbox);
        let present = !self.clean && logged_in.resume(server, now);
        let max = u32::try_from(server.app.config.limits.max_frame_bytes).unwrap_or(u32::MAX);
        let properties = ConnAckProperties {
            assigned_client_id: self.assigned_id.then_some(&*client_id),
            packet_size_max: NonZeroU32::new(max),
            receive_max: NonZeroU16::new(limits::QOS2_MAX),
            topic_alias_max: Some(limits::TOPIC_ALIASES_MAX),
            server_keep_alive: self.keep_alive_told,
            response_info: response_info.as_deref(),
            ..ConnAckProperties::default()
        };
        // Its texts are made of a client id that came in a packet.
        let written =
            encode::connack(connack, self.options.version, present, reason::SUCCESS, &properties);
        debug_assert!(written.is_ok());
        if connack.len() > self.options.packet_max {
            // [MQTT-3.1.2-24] of 5: the client does without what it has no room for, if it can.
            connack.clear();
            let assigned_client_id = properties.assigned_client_id;
            let properties = ConnAckProperties { assigned_client_id, ..Default::default() };
            let written = encode::connack(
                connack,
                self.options.version,
                present,
                reason::SUCCESS,
                &properties,
            );
            debug_assert!(written.is_ok());
            if connack.len() > self.options.packet_max {
                connack.clear();
            }
        }
        Ok(Box::new(logged_in))
    }
}

/// The client id, and whether the server chose it ([MQTT-3.1.3-6], [MQTT-3.1.3-8] of 3.1.1; 3.1
/// knows no empty one).
fn client_id(packet: &Connect<'_>) -> Result<(Box<str>, bool), u8> {
    let id = packet.client_id;
    let may_be_empty = match packet.version {
        Version::V31 => false,
        Version::V311 => packet.clean,
        Version::V5 => true,
    };
    match id.is_empty() {
        true if may_be_empty => {
            let bytes: [u8; 12] = random().map_err(|_| reason::SERVER_UNAVAILABLE)?;
            Ok((format!("auto-{}", HEXLOWER.encode(&bytes)).into(), true))
        }
        true => Err(reason::CLIENT_ID_INVALID),
        false if id.len() > limits::CLIENT_ID_BYTES_MAX || id.chars().any(char::is_control) => {
            Err(reason::CLIENT_ID_INVALID)
        }
        false => Ok((id.into(), false)),
    }
}

/// A user's name is an e-mail address; a thing key is not (`docs/protocol/tr50.md` 1.1, user and
/// app login).
fn credentials(name: &str, password: &str) -> Credentials {
    if name.contains('@') {
        Credentials::User { name: name.to_owned(), password: password.to_owned(), code: None }
    } else {
        Credentials::Application {
            thing_key: name.to_owned(),
            token: password.to_owned(),
            app_id: String::new(),
        }
    }
}

/// The keep-alive to go by, and what to tell a client of MQTT 5 that asked for a longer one or for
/// none ([MQTT-3.2.2-21]). Earlier ones can't be told.
const fn bounded_keep_alive(version: Version, asked: u16, max: u16) -> (u16, Option<u16>) {
    match version {
        Version::V5 if max > 0 && (asked == 0 || asked > max) => (max, Some(max)),
        _ => (asked, None),
    }
}

/// What a client may let its response topics begin with, so that they are its own (MQTT 5, 4.10).
fn response_topics(client_id: &str) -> String {
    let plain = |c: char| if matches!(c, '+' | '#' | '/' | '$') { '_' } else { c };
    format!("response/{}/", client_id.chars().map(plain).collect::<String>())
}

/// How long the client may be silent: twice its keep-alive for 3.1 and 3.1.1
/// (`docs/protocol/tr50.md` 0, fact 28), one and a half times for 5 ([MQTT-3.1.2-22]); 0 turns it
/// off.
fn keep_alive(version: Version, seconds: u16) -> Option<Duration> {
    let halves = match version {
        Version::V5 => 3,
        Version::V31 | Version::V311 => 4,
    };
    (seconds > 0).then(|| Duration::from_millis(u64::from(seconds) * halves * 500))
}

/// Appends the CONNACK of a refusal, given as a reason code of MQTT 5; `why`: in words, too, for
/// those who know them.
pub(super) fn refuse(version: Version, code: u8, why: Option<&str>, out: &mut Vec<u8>) {
    let code = match version {
        Version::V5 => code,
        Version::V31 | Version::V311 => match code {
            reason::UNSUPPORTED_VERSION => reason::v3::UNSUPPORTED_VERSION,
            reason::CLIENT_ID_INVALID => reason::v3::CLIENT_ID_REFUSED,
            reason::BAD_LOGIN => reason::v3::BAD_LOGIN,
            reason::SERVER_UNAVAILABLE
            | reason::SERVER_BUSY
            | reason::QUOTA_EXCEEDED
            | reason::CONNECTION_RATE_EXCEEDED => reason::v3::SERVER_UNAVAILABLE,
            // A malformed refusal code before MQTT 5: already in the old form.
            code if code < 0x80 => code,
            _ => reason::v3::NOT_AUTHORIZED,
        },
    };
    let properties = ConnAckProperties { reason_string: why, ..Default::default() };
    let written = encode::connack(out, version, false, code, &properties);
    debug_assert!(written.is_ok());
}

/// Appends the CONNACK of a server that has no room for another connection of the peer's address.
pub(super) fn refuse_full(packet: &Connect<'_>, out: &mut Vec<u8>) {
    let wants_words = packet.properties.request_problem_info.unwrap_or(true);
    let why = (packet.version == Version::V5 && wants_words).then_some(ADDRESS_FULL);
    let (start, max) = (out.len(), packet.properties.packet_size_max);
    refuse(packet.version, reason::SERVER_BUSY, why, out);
    if max.is_some_and(|max| out.len() - start > max.get() as usize) {
        // [MQTT-3.2.2-19] of 5.
        out.truncate(start);
        refuse(packet.version, reason::SERVER_BUSY, None, out);
    }
}

/// Which limit a login has reached, and whose, or that it is disabled; none if it failed for
/// something else.
fn told_reason(error: &LoginError) -> Option<Cow<'static, str>> {
    match error {
        LoginError::Banned(_)
        | LoginError::TooMany(_)
        | LoginError::Full(_)
        | LoginError::NoPlace(_)
        | LoginError::NoThing(_)
        | LoginError::Refused(Refusal::Busy) => Some(error.to_string().into()),
        LoginError::Refused(_) | LoginError::Store(_) | LoginError::Random(_) => None,
    }
}

/// The reason code of MQTT 5 for a failed login.
const fn refusal_code(error: &LoginError) -> u8 {
    match error {
        LoginError::Refused(refusal) => match refusal {
            Refusal::Busy => reason::SERVER_BUSY,
            Refusal::NoAccess | Refusal::Locked { .. } => reason::NOT_AUTHORIZED,
            _ => reason::BAD_LOGIN,
        },
        LoginError::Banned(_) => reason::BANNED,
        LoginError::TooMany(_) => reason::CONNECTION_RATE_EXCEEDED,
        LoginError::Full(_) | LoginError::NoPlace(_) | LoginError::NoThing(_) => {
            reason::SERVER_BUSY
        }
        LoginError::Store(_) | LoginError::Random(_) => reason::SERVER_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_borne_for_twice_the_keep_alive_and_in_mqtt_5_for_one_and_a_half() {
        let check = |version, seconds, wait: Option<u64>| {
            assert_eq!(keep_alive(version, seconds), wait.map(Duration::from_millis));
        };
        check(Version::V31, 60, Some(120_000));
        check(Version::V311, 1, Some(2000));
        check(Version::V5, 1, Some(1500));
        check(Version::V5, u16::MAX, Some(98_302_500));
        for version in [Version::V31, Version::V311, Version::V5] {
            check(version, 0, None);
        }
    }
}
