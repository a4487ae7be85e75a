//! The configuration: one TOML file; an environment variable can override any key.
//!
//! The variable for key `listen` of section `[mqtt]` is `TR50D_MQTT__LISTEN`; lists are separated
//! by commas. An unknown key is an error that names it, in the file and in the environment, and so is
//! any other variable that starts with `TR50D_`, but those of the commands that are clients.

mod names;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io, process};

use base::limits::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN};
use base::{Origins, Timestamp, Trusted};
use store::Durability;
use tracing::level_filters::LevelFilter;
use value::{Raw, Value};

use crate::things::telemetry::RETENTION_MONTHS_MAX;

pub use names::is_variable;

/// What `--demo` starts from.
const DEMO: &str = include_str!("../../config/demo.toml");

/// The smallest sensible frame: a login with long names takes a few hundred bytes.
const FRAME_BYTES_MIN: usize = 1024;

/// The largest frame: MQTT allows 256 MiB, but a frame is held in memory as a whole.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The longest page of `session.list`: twice this many sessions would not fit into
/// [`base::limits::UNSENT_BYTES_MAX`].
const LIST_LIMIT_MAX: usize = 10_000;

/// The least room for what connections hold, however small requests are.
const MEMORY_BYTES_MIN: u64 = 1024 * 1024;

/// Requests of the largest kind for which connections have memory at least: one is copied as it is
/// worked on, and so is its answer.
const MEMORY_FRAMES_MIN: u64 = 4;

/// Ten years, as telemetry can be kept: what is older than that has no months of its own.
const CONNECTION_HISTORY_DAYS_MAX: u32 = 3660;

/// The least room for events: some dozens of them.
const EVENTS_BYTES_MIN: u64 = 16_384;

/// One declaration of every section, key, type and default; the structs, their defaults and the
/// look-up by name are made from it.
macro_rules! sections {
    ($(
        $(#[$section_doc:meta])*
        $section:ident: $Section:ident {
            $($(#[$key_doc:meta])* $key:ident: $Type:ty = $default:expr,)*
        }
    )*) => {
        /// The configuration, one member a section.
        #[derive(Clone, PartialEq, Debug, Default)]
        pub struct Config {
            $($(#[$section_doc])* pub $section: $Section,)*
        }

        $(
            $(#[$section_doc])*
            #[derive(Clone, PartialEq, Debug)]
            pub struct $Section {
                $($(#[$key_doc])* pub $key: $Type,)*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default,)* }
                }
            }
        )*

        impl Config {
            fn set(&mut self, section: &str, key: &str, raw: Raw<'_>) -> Result<(), NotSet> {
                match section {
                    $(stringify!($section) => match key {
                        $(stringify!($key) => {
                            self.$section.$key = raw.read().ok_or(NotSet::WrongValue {
                                expected: <$Type as Value>::EXPECTED,
                            })?;
                            Ok(())
                        })*
                        _ => Err(NotSet::UnknownKey),
                    },)*
                    _ => Err(NotSet::UnknownSection),
                }
            }
        }

        /// Every section with its keys.
        const KEYS: &[(&str, &[&str])] =
            &[$((stringify!($section), &[$(stringify!($key)),*]),)*];
    };
}

sections! {
    /// `[server]`: the process and its data.
    server: Server {
        /// Directory of the durable state, made when it is missing.
        data_dir: PathBuf = PathBuf::from("data"),
        /// Organisations, users and tokens in the form of `fixtures/demo.toml`; read once, into an
        /// empty store.
        bootstrap: Option<PathBuf> = None,
        /// What "durable" means in a reply that promises it.
        durability: Durability = Durability::Os,
        /// Free bytes of the disk below which whatever adds is refused; none: a tenth of the disk, at
        /// most 512 MiB. 0 is no mark.
        min_free_bytes: Option<u64> = None,
        /// Characters of the tokens that the server makes.
        token_chars: usize = TOKEN_BYTES_MIN,
        /// Whether listeners without TLS may be reached from other machines.
        allow_plaintext: bool = false,
    }
    /// `[mqtt]`: the MQTT edge.
    mqtt: Mqtt {
        /// Plain listener; port 0 asks the system for a free one.
        listen: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 1883))),
        /// TLS listener.
        tls_listen: Option<SocketAddr> = None,
        /// Days for which the session of a client of MQTT 3.1 or 3.1.1 is kept that is away.
        kept_session_days: u32 = 14,
        /// The longest keep-alive in seconds, told to clients of MQTT 5 that ask for more or for
        /// none; 0 is no limit.
        keep_alive_max_s: u32 = 0,
    }
    /// `[tcp]`: the edge for one JSON value a line.
    tcp: Tcp {
        /// Plain listener; port 0 asks the system for a free one.
        listen: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 5050))),
        /// TLS listener.
        tls_listen: Option<SocketAddr> = None,
    }
    /// `[http]`: the HTTP edge.
    http: Http {
        /// Plain listener; port 0 asks the system for a free one.
        listen: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
        /// TLS listener.
        tls_listen: Option<SocketAddr> = None,
        /// Listener for administrators, who then have no other over HTTP.
        admin_listen: Option<SocketAddr> = None,
        /// Origins whose web pages may use the server from a browser.
        cors_origins: Origins = Origins::default(),
    }
    /// `[metrics]`: what Prometheus reads.
    metrics: MetricsListener {
        /// Listener for `/metrics`, which then is nowhere else.
        listen: Option<SocketAddr> = None,
    }
    /// `[tls]`: what the TLS listeners present, and whom they ask for a certificate.
    tls: Tls {
        /// PEM file with the certificate chain, the server's own certificate first.
        cert: Option<PathBuf> = None,
        /// PEM file with the private key of the first certificate.
        key: Option<PathBuf> = None,
        /// PEM file with the authorities whose client certificates are checked when shown.
        client_ca: Option<PathBuf> = None,
        /// Whether clients are asked for certificates.
        client_auth: ClientAuth = ClientAuth::ByCa,
        /// Which logins go by the client's certificate.
        client_login: ClientLogin = ClientLogin::None,
    }
    /// `[sessions]`: how long sessions live, and how many are shown.
    sessions: Sessions {
        /// Seconds without a command after which a session expires.
        ttl_s: u64 = 86_400,
        /// Seconds after which a session started over HTTP expires in any case.
        max_age_s: u64 = 259_200,
        /// Sessions in one answer of `session.list`.
        list_limit: usize = 5_000,
        /// Ended sessions that are kept; 0 keeps none.
        history_max: usize = 100_000,
        /// Seconds for which an ended session is kept.
        history_age_s: u64 = 604_800,
        /// Days for which the connection history is kept, on disk; 0 keeps none.
        connection_history_days: u32 = 90,
        /// Ended sessions in it.
        connection_history_max: u64 = 2_000_000,
    }
    /// `[telemetry]`: what things have measured.
    telemetry: Telemetry {
        /// Calendar months that are kept before the current one; 0 keeps everything.
        retention_months: u32 = 0,
    }
    /// `[mailbox]`: messages to things.
    mailbox: Mailbox {
        /// Mails that may wait for one thing.
        waiting_max: usize = 1_000,
        /// Seconds for which a mail is kept that is completed, expired or purged.
        keep_s: u64 = 604_800,
    }
    /// `[limits]`: what one peer, and all of them together, may use.
    limits: Limits {
        /// Bytes of one MQTT packet, one line of JSON or one HTTP body.
        max_frame_bytes: usize = 1_048_576,
        /// Bytes held for peers that have not logged in: half requests.
        unauthenticated_bytes: usize = 67_108_864,
        /// Bytes that clients may have the server use: what is kept for them in memory, what they do not
        /// read, and what is worked on for them.
        /// None: half of what the machine has. 0 is no limit.
        memory_bytes: Option<u64> = None,
        /// Connections open at once, over all listeners.
        connections: usize = 100_000,
        /// Those of one address; of IPv6 of one /64.
        connections_per_address: usize = 25_000,
        /// Things that there may be.
        things: u64 = 10_000_000,
        /// Series of telemetry that there may be: one for each property, alarm and attribute of a
        /// thing that ever had a value.
        series: u64 = 100_000_000,
        /// Sessions live at once.
        sessions: usize = 1_000_000,
        /// Sessions of one user or thing live at once; one more ends the oldest over HTTP.
        sessions_per_principal: usize = 10_000,
        /// Commands a second for one session; a deflated request counts as one more. 0 is no limit.
        commands_per_s: u32 = 100,
        /// The same for all sessions of one user or thing together; none: ten times as many. 0 is no
        /// limit.
        principal_commands_per_s: Option<u32> = None,
        /// The same for all sessions in one organisation. 0 is no limit: its share when the cores
        /// are full.
        org_commands_per_s: u32 = 0,
        /// Logins a second of one user, or with one token; none: a fifth of `commands_per_s`, but 20.
        /// 0 is no limit.
        logins_per_s: Option<u32> = None,
        /// Distinct filters of ordinary topics; 0 refuses every subscription to them.
        broker_filters: usize = 1_000_000,
        /// MQTT sessions with subscriptions, those of clients that are away included.
        broker_links: usize = 1_000_000,
        /// Subscriptions of MQTT sessions.
        subscriptions: u64 = 4_000_000,
        /// Retained messages.
        retained_messages: u64 = 5_000_000,
        /// Their bytes.
        retained_bytes: u64 = 1_073_741_824,
        /// Bytes that wait for MQTT clients that are away.
        kept_bytes: u64 = 17_179_869_184,
    }
    /// `[files]`: what things and organisations may store.
    files: Files {
        /// Bytes of one file.
        max_bytes: u64 = 1_073_741_824,
        /// Bytes of all files, in blocks of 4 KiB; none: half of the disk.
        total_max_bytes: Option<u64> = None,
        /// Those of one organisation at the most; 0 is no limit.
        org_max_bytes: u64 = 10_737_418_240,
    }
    /// `[events]`: the trail of what happened.
    events: Events {
        /// Days for which refusals are kept; what administrators do, ten times as long. 0 is no
        /// limit.
        keep_days: u32 = 90,
        /// Bytes that all may take on disk; each organisation has its share.
        max_bytes: u64 = 1_073_741_824,
        /// File that gets a line of JSON for each.
        log: Option<PathBuf> = None,
    }
    /// `[webhooks]`: where events are sent.
    webhooks: Webhooks {
        /// Whether they may go to this machine and to networks that are not the Internet.
        allow_private: bool = false,
    }
    /// `[log]`: what is logged, and how.
    log: Log {
        /// The least important level that is logged.
        level: LevelFilter = LevelFilter::INFO,
        /// The form of a line.
        format: LogFormat = LogFormat::Text,
    }
    /// `[proxy]`: load balancers and reverse proxies in front of this server.
    proxy: Proxy {
        /// Peers whose PROXY protocol header and X-Forwarded-For are believed.
        trusted: Trusted = Trusted::default(),
    }
}

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAuth {
    /// It is not said: as [`ClientAuth::Optional`] if `tls.client_ca` is set, else nobody is.
    ByCa,
    /// Nobody is.
    None,
    /// One that is shown has to be right.
    Optional,
    /// Who shows none does not get in.
    Required,
}

/// Which logins go by the client's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientLogin {
    /// None.
    None,
    /// Those of things: it names the thing.
    Thing,
    /// Those of users: it names the user, who needs no password.
    User,
}

impl Tls {
    /// Whether clients are asked for certificates, if they are; then, whether they need one.
    pub fn client_auth(&self) -> Option<bool> {
        match self.client_auth {
            ClientAuth::None => None,
            ClientAuth::ByCa => self.client_ca.as_ref().map(|_| false),
            ClientAuth::Optional => Some(false),
            ClientAuth::Required => Some(true),
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A configuration that can't be used. Each message is one sentence for the one who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration file {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{file} is not valid TOML: line {line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// There is no such key or section.
    #[error("{place}: {what}")]
    Unknown {
        /// File or variable.
        place: String,
        /// The key and its section.
        what: String,
    },
    /// A key has a value that it can't have.
    #[error("{place}: key \"{key}\" in section [{section}] must be {expected}, not {found}")]
    WrongValue {
        /// File or variable.
        place: String,
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The values don't fit together.
    #[error("the configuration can't work: {0}")]
    Invalid(String),
}

impl ConfigError {
    /// Adds the question what was meant by a name that there is not.
    fn asking(self, question: impl FnOnce() -> String) -> Self {
        match self {
            Self::Unknown { place, what } => Self::Unknown { place, what: what + &question() },
            other => other,
        }
    }
}

/// Why [`Config::set`] refused a value.
enum NotSet {
    UnknownSection,
    UnknownKey,
    WrongValue { expected: &'static str },
}

impl Limits {
    /// Commands a second of all sessions of one login; 0 is no limit.
    pub fn principal_commands_per_s(&self) -> u32 {
        self.principal_commands_per_s.unwrap_or(self.commands_per_s.saturating_mul(10))
    }

    /// Logins a second of one principal; 0 is no limit. Who lifts the limit of commands for a fleet
    /// or a test lifts this one, too, if it is not set.
    pub fn logins_per_s(&self) -> u32 {
        self.logins_per_s.unwrap_or(match self.commands_per_s {
            0 => 0,
            commands => (commands / 5).max(20),
        })
    }
}

impl Config {
    /// The configuration of `file` (without one, the defaults), overridden by the variables of
    /// `env` for which [`is_variable`] holds.
    ///
    /// Relative paths in it are relative to the working directory, not to the file.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::default().overlaid(file, env)
    }

    /// The configuration of `serve --demo`: `config/demo.toml`, in a fresh directory, overridden by
    /// `file` and `env` as in [`Config::load`]. Every listener must be on loopback, for the demo's
    /// passwords are public.
    pub fn demo(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.read_toml(DEMO, "the built-in demo configuration")?;
        config.server.data_dir = demo_dir();
        let config = config.overlaid(file, env)?;
        match config.listeners().into_iter().find(|(_, addr)| !addr.ip().is_loopback()) {
            None => Ok(config),
            Some((key, addr)) => Err(ConfigError::Invalid(format!(
                "the demo's passwords are public, so {key} must be a loopback address, not {addr}"
            ))),
        }
    }

    /// Problems that only the machine can show: files that can't be read, or that hold something
    /// else. One sentence each, for `tr50d check`.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::from_iter(self.exposed());
        if let Some(path) = &self.server.bootstrap
            && let Err(error) = fs::read(path)
        {
            problems.push(format!("server.bootstrap: can't read {path:?}: {error}"));
        }
        let data_dir = &self.server.data_dir;
        if data_dir.exists() && !data_dir.is_dir() {
            problems.push(format!("server.data_dir: {data_dir:?} is not a directory"));
        }
        problems
    }

    /// Refuses to serve passwords and tokens that others can read on the way. Not among the
    /// contradictions: a backup may be made of such a configuration.
    ///
    /// # Errors
    ///
    /// A listener without TLS is not on loopback, and `server.allow_plaintext` does not say so.
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        self.exposed().map_or(Ok(()), |sentence| Err(ConfigError::Invalid(sentence)))
    }

    fn exposed(&self) -> Option<String> {
        let is_exposed = |(key, addr): &(&str, SocketAddr)| {
            !key.ends_with("tls_listen") && !addr.ip().to_canonical().is_loopback()
        };
        let listeners = self.listeners().into_iter();
        let (key, addr) = listeners.filter(|_| !self.server.allow_plaintext).find(is_exposed)?;
        Some(format!(
            "{key} is {addr}, where passwords and tokens can be read on their way: use a \
             tls_listen, a loopback address, or server.allow_plaintext = true"
        ))
    }

    /// The addresses to listen on, each with the name of its key, such as `mqtt.tls_listen`.
    fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        [
            ("mqtt.listen", self.mqtt.listen),
            ("mqtt.tls_listen", self.mqtt.tls_listen),
            ("tcp.listen", self.tcp.listen),
            ("tcp.tls_listen", self.tcp.tls_listen),
            ("http.listen", self.http.listen),
            ("http.tls_listen", self.http.tls_listen),
            ("http.admin_listen", self.http.admin_listen),
            ("metrics.listen", self.metrics.listen),
        ]
        .into_iter()
        .filter_map(|(key, addr)| Some((key, addr?)))
        .collect()
    }

    fn overlaid(
        mut self,
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        if let Some(path) = file {
            let text = fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
            self.read_toml(&text, &path.display().to_string())?;
        }
        self.read_env(env)?;
        self.validate()?;
        Ok(self)
    }

    fn read_toml(&mut self, text: &str, file: &str) -> Result<(), ConfigError> {
        let sections: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = base::utf8::line_at(text, error.span().map_or(0, |span| span.start));
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            ConfigError::Syntax { file: file.to_owned(), line, message }
        })?;
        for (section, keys) in &sections {
            let toml::Value::Table(keys) = keys else {
                return Err(ConfigError::Unknown {
                    place: file.to_owned(),
                    what: format!("key \"{section}\" stands outside of every section"),
                });
            };
            if !KEYS.iter().any(|(name, _)| name == section) && keys.is_empty() {
                let what = format!("there is no section [{section}]");
                return Err(ConfigError::Unknown { place: file.to_owned(), what });
            }
            for (key, value) in keys {
                self.set_from(file, section, key, Raw::Toml(value))
                    .map_err(|error| error.asking(|| names::near_key(section, key)))?;
            }
        }
        Ok(())
    }

    fn read_env(&mut self, env: impl Iterator<Item = (String, String)>) -> Result<(), ConfigError> {
        for (name, text) in env.filter(|(name, _)| names::is_variable(name)) {
            let place = format!("environment variable {name}");
            let set = match names::of_variable(&name) {
                Some((section, key)) => self.set_from(&place, &section, &key, Raw::Text(&text)),
                None => {
                    let what = "it is no key of the configuration: TR50D_<SECTION>__<KEY>";
                    Err(ConfigError::Unknown { place, what: what.to_owned() })
                }
            };
            set.map_err(|error| error.asking(|| names::near_variable(&name)))?;
        }
        Ok(())
    }

    fn set_from(
        &mut self,
        place: &str,
        section: &str,
        key: &str,
        raw: Raw<'_>,
    ) -> Result<(), ConfigError> {
        let unknown = |what| ConfigError::Unknown { place: place.to_owned(), what };
        self.set(section, key, raw).map_err(|refusal| match refusal {
            NotSet::UnknownSection => unknown(format!("there is no section [{section}]")),
            NotSet::UnknownKey => {
                unknown(format!("there is no key \"{key}\" in section [{section}]"))
            }
            NotSet::WrongValue { expected } => ConfigError::WrongValue {
                place: place.to_owned(),
                section: section.to_owned(),
                key: key.to_owned(),
                expected,
                found: raw.to_string(),
            },
        })
    }

    fn validate(&self) -> Result<(), ConfigError> {
        match self.contradiction() {
            Some(sentence) => Err(ConfigError::Invalid(sentence)),
            None => Ok(()),
        }
    }

    fn contradiction(&self) -> Option<String> {
        self.contradiction_of_listeners().or_else(|| self.contradiction_of_values())
    }

    fn contradiction_of_listeners(&self) -> Option<String> {
        let listeners = self.listeners();
        if listeners.is_empty() {
            return Some("every listener is turned off".to_owned());
        }
        for (index, (key, addr)) in listeners.iter().enumerate() {
            let earlier = listeners.iter().take(index).find(|(_, other)| other == addr);
            if let Some((other, _)) = earlier
                && addr.port() != 0
            {
                return Some(format!("{other} and {key} are the same address, {addr}"));
            }
            if key.ends_with("tls_listen") && self.tls.cert.is_none() {
                return Some(format!("{key} needs tls.cert and tls.key"));
            }
        }
        None
    }

    fn contradiction_of_values(&self) -> Option<String> {
        let (tls, sessions, limits) = (&self.tls, &self.sessions, &self.limits);
        let token_chars = self.server.token_chars;
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token_chars) {
            return Some(format!(
                "server.token_chars must be {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX}, not {token_chars}"
            ));
        }
        let frame = limits.max_frame_bytes;
        let memory = limits.memory_bytes.filter(|bytes| *bytes > 0);
        let checks = [
            (tls.cert.is_some() == tls.key.is_some(), "tls.cert and tls.key need each other"),
            (tls.client_ca.is_none() || tls.cert.is_some(), "tls.client_ca needs tls.cert"),
            (
                tls.client_auth().is_none() || tls.client_ca.is_some(),
                "tls.client_auth needs tls.client_ca, whose certificates it asks for",
            ),
            (
                tls.client_login == ClientLogin::None || tls.client_auth().is_some(),
                "tls.client_login needs tls.client_ca and a tls.client_auth that is not \"none\"",
            ),
            (sessions.ttl_s > 0, "sessions.ttl_s must be at least 1"),
            (
                sessions.ttl_s <= sessions.max_age_s,
                "sessions.ttl_s is longer than sessions.max_age_s, so it could never be reached",
            ),
            (
                (1..=LIST_LIMIT_MAX).contains(&sessions.list_limit),
                "sessions.list_limit must be 1 to 10000",
            ),
            (
                sessions.connection_history_days <= CONNECTION_HISTORY_DAYS_MAX,
                "sessions.connection_history_days must be 0 to 3660",
            ),
            (
                sessions.connection_history_max > 0,
                "sessions.connection_history_max must be at least 1",
            ),
            (
                (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame),
                "limits.max_frame_bytes must be 1024 to 67108864",
            ),
            (
                i64::from(self.telemetry.retention_months) <= RETENTION_MONTHS_MAX,
                "telemetry.retention_months must be 0 to 120",
            ),
            (self.mailbox.waiting_max > 0, "mailbox.waiting_max must be at least 1"),
            (self.files.max_bytes > 0, "files.max_bytes must be at least 1"),
            (self.files.total_max_bytes != Some(0), "files.total_max_bytes must be at least 1"),
            (limits.things > 0, "limits.things must be at least 1"),
            (limits.series > 0, "limits.series must be at least 1"),
            (self.events.max_bytes >= EVENTS_BYTES_MIN, "events.max_bytes must be at least 16384"),
            (
                self.mqtt.keep_alive_max_s <= u16::MAX.into(),
                "mqtt.keep_alive_max_s must be 0 to 65535",
            ),
            (
                memory.is_none_or(|bytes| bytes >= MEMORY_BYTES_MIN),
                "limits.memory_bytes must be 0 or at least 1048576",
            ),
            (
                memory.is_none_or(|bytes| bytes / MEMORY_FRAMES_MIN >= frame as u64),
                "limits.memory_bytes must be 0 or at least four times limits.max_frame_bytes",
            ),
            (limits.connections > 0, "limits.connections must be at least 1"),
            (
                limits.connections_per_address > 0,
                "limits.connections_per_address must be at least 1",
            ),
            (limits.sessions > 0, "limits.sessions must be at least 1"),
            (limits.sessions_per_principal > 0, "limits.sessions_per_principal must be at least 1"),
            (
                limits.broker_filters == 0 || limits.broker_links > 0,
                "limits.broker_links must be at least 1 when limits.broker_filters allows any",
            ),
        ];
        checks.iter().find(|(holds, _)| !holds).map(|(_, sentence)| (*sentence).to_owned())
    }
}

/// A directory for one run of the demo: below the system's directory for temporary files, with a
/// name that no other run has. It is not made yet; whoever makes it must insist on a new one.
pub fn demo_dir() -> PathBuf {
    let now = Timestamp::now().as_millis();
    std::env::temp_dir().join(format!("{}{now:x}", demo_dir_prefix()))
}

/// Whether this is the directory of this process's demo, and not one that somebody chose.
pub fn is_demo_dir(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    path.parent() == Some(&std::env::temp_dir())
        && name.is_some_and(|name| name.starts_with(&demo_dir_prefix()))
}

fn demo_dir_prefix() -> String {
    format!("tr50d-demo-{}-", process::id())
}

#[cfg(test)]
mod tests;
