//! The pools of the server: what there is a bounded amount of for all together, who makes way when
//! one is used up, and how much of each is used. `docs/limits.md` and the metrics `tr50d_pool_…` are
//! made from [`POOLS`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::{Code, Failure, OrgId, limits};

/// One row of the table of pools.
#[derive(Debug)]
pub struct PoolInfo {
    /// Its name: the label of its metrics, and what a refusal says.
    pub name: &'static str,
    /// What is counted, such as `sessions`.
    pub unit: &'static str,
    /// How much there is.
    pub max: Max,
    /// Why there is a bound.
    pub reason: &'static str,
    /// The memory that it takes; none: no or little memory, or it counts for connections.
    pub memory: Option<Memory>,
    /// What goes when it is used up.
    pub makes_way: MakesWay,
    /// What somebody sees who gets no more.
    pub refused: &'static str,
}

/// How much there is of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Max {
    /// What the configuration says under this key; and what it says when nobody has set it.
    Key(&'static str, u64),
    /// What the configuration says under this key; and, in words, how much it is when nobody has
    /// set it.
    Auto(&'static str, &'static str),
    /// Always so much.
    Fixed(u64),
    /// What the configuration says under this key, for each of those who share: nothing is added up,
    /// so there is no metric of what is used.
    Each(&'static str, u64),
}

/// The memory that a pool takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Bytes for one of what is counted, about.
    pub bytes: u64,
    /// Of `limits.memory_bytes`, all of it is at most one in so many.
    pub part: u64,
}

/// What goes when a pool is used up and somebody asks who is below the share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MakesWay {
    /// Nothing that is held is taken away: who is above the share can't add, and a sixteenth is
    /// kept for those below.
    Nobody,
    /// This, of whoever holds most.
    Holder(&'static str),
}

/// Who has used up what there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The organisation has its share.
    Org,
    /// The organisation has room, and the principal its share of that.
    Principal,
    /// All is taken. This one is below its share: somebody makes way, or nobody can.
    Everybody,
}

/// Why somebody gets no more of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverShare {
    /// Of what.
    pub pool: Pool,
    /// Because of whom.
    pub whose: Whose,
}

impl std::error::Error for OverShare {}

impl fmt::Display for OverShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.pool.info();
        let whose = match self.whose {
            Whose::Org => "your organisation has its share",
            Whose::Principal => "you have your share of what your organisation may have",
            Whose::Everybody => "all is taken",
        };
        match info.max {
            Max::Key(key, _) | Max::Auto(key, _) | Max::Each(key, _) => {
                write!(f, "the limit {key} is reached for {}: {whose}", info.unit)
            }
            Max::Fixed(_) => write!(f, "the limit of {} is reached: {whose}", info.unit),
        }
    }
}

impl From<OverShare> for Failure {
    fn from(over: OverShare) -> Self {
        let (code, advice) = match over.pool.info().makes_way {
            MakesWay::Nobody => (Code::LIMIT_REACHED, "docs/limits.md says who may have how much"),
            MakesWay::Holder(_) => (Code::BUSY, "send it again later"),
        };
        let sentence = over.to_string();
        let mut letters = sentence.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase()).unwrap_or_default();
        Self::new(code, format!("{first}{}; {advice}.", letters.as_str()))
    }
}

macro_rules! pools {
    ($($name:ident: $row:expr;)*) => {
        /// Something of which there is a bounded amount for all together.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Pool {
            $(#[allow(missing_docs, reason = "the rows of POOLS say it")] $name,)*
        }

        /// Every pool with its row, in the order of [`Pool`].
        pub const POOLS: &[(Pool, PoolInfo)] = &[$((Pool::$name, $row),)*];
    };
}

pools! {
    Sessions: PoolInfo {
        name: "sessions",
        unit: "sessions",
        max: Max::Key("limits.sessions", 1_000_000),
        reason: "Each live session takes about a kilobyte of memory.",
        memory: Some(Memory { bytes: 1024, part: 8 }),
        makes_way: MakesWay::Nobody,
        refused: "The login fails with -95011; MQTT 5: CONNACK 0x89, before: 3. session.org.switch: -95018.",
    };
    AdminSessions: PoolInfo {
        name: "admin_sessions",
        unit: "sessions of administrators for whom there is no other room",
        max: Max::Fixed(limits::ADMIN_SESSIONS),
        reason: "Who is to end sessions has to get in when there are as many as there may be.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "As with sessions.",
    };
    SessionsOfLogin: PoolInfo {
        name: "sessions_of_login",
        unit: "sessions of one user or thing",
        max: Max::Each("limits.sessions_per_principal", 10_000),
        reason: "One login that starts sessions without end leaves room to the others of its organisation.",
        memory: None,
        makes_way: MakesWay::Holder("the oldest of its sessions over HTTP"),
        refused: "Of a login whose sessions are all bound to connections: -95011; MQTT 5: CONNACK 0x89, before: 3.",
    };
    EndedSessions: PoolInfo {
        name: "ended_sessions",
        unit: "ended sessions",
        max: Max::Key("sessions.history_max", 100_000),
        reason: "Ended sessions are in memory, about a kilobyte each, for the directory's lists.",
        memory: Some(Memory { bytes: 1024, part: 32 }),
        makes_way: MakesWay::Holder("the oldest ended session"),
        refused: "Nothing: older ones are forgotten.",
    };
    ConnectionHistory: PoolInfo {
        name: "connection_history",
        unit: "sessions in the connection history",
        max: Max::Key("sessions.connection_history_max", 2_000_000),
        reason: "Ended sessions are on the disk for months, some 400 bytes each before compression. They \
                 are counted by organisation: of one's principals none has a share of its own.",
        memory: None,
        makes_way: MakesWay::Holder("the sessions that ended first, of the organisation with most"),
        refused: "Nothing: older ones are removed, and `session.list` with `asOf` says `truncated` then.",
    };
    MqttSessions: PoolInfo {
        name: "mqtt_sessions",
        unit: "MQTT sessions with subscriptions",
        max: Max::Key("limits.broker_links", 1_000_000),
        reason: "The session of an MQTT client that subscribed takes a kilobyte or two of memory. Kept \
                 sessions, whose clients may be away, are among them.",
        memory: Some(Memory { bytes: 1536, part: 6 }),
        makes_way: MakesWay::Nobody,
        refused: "The client goes on without: SUBACK 0x97, before MQTT 5: 0x80.",
    };
    Subscriptions: PoolInfo {
        name: "subscriptions",
        unit: "subscriptions",
        max: Max::Key("limits.subscriptions", 4_000_000),
        reason: "Each subscription of each MQTT session, to topics of things and replies, too, takes \
                 some hundred bytes of memory. One with a long filter counts as one for each 256 bytes.",
        memory: Some(Memory { bytes: 320, part: 6 }),
        makes_way: MakesWay::Nobody,
        refused: "SUBACK 0x97, before MQTT 5: 0x80.",
    };
    TopicFilters: PoolInfo {
        name: "topic_filters",
        unit: "topic filters",
        max: Max::Key("limits.broker_filters", 1_000_000),
        reason: "Each different filter of an organisation (each member of a shared subscription) takes \
                 some hundred bytes beside its subscriptions, and counts as one for each 256 bytes. It is \
                 counted for the session that has it longest.",
        memory: Some(Memory { bytes: 320, part: 12 }),
        makes_way: MakesWay::Nobody,
        refused: "SUBACK 0x97, before MQTT 5: 0x80.",
    };
    WildcardLevels: PoolInfo {
        name: "wildcard_levels",
        unit: "levels of filters with wildcards",
        max: Max::Fixed(limits::WILDCARD_LEVELS_MAX),
        reason: "A publish looks at those that its topic passes: the levels of all filters with \
                 wildcards bound what it can cost. Of one organisation there are 150,000 at most.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "SUBACK 0x97, before MQTT 5: 0x80.",
    };
    RetainedMessages: PoolInfo {
        name: "retained_messages",
        unit: "retained messages",
        max: Max::Key("limits.retained_messages", 5_000_000),
        reason: "They are on the disk, and counted at each start.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "The message goes to who is subscribed and is not retained: PUBACK or PUBREC 0x97. \
                  Before MQTT 5 and with QoS 0, where nobody can be told, the topic has none then; the \
                  log and tr50d_mqtt_publishes_refused_total say so.",
    };
    RetainedBytes: PoolInfo {
        name: "retained_bytes",
        unit: "bytes of retained messages",
        max: Max::Key("limits.retained_bytes", 1024 * 1024 * 1024),
        reason: "They are on the disk. One that takes the place of another adds what it is longer.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "As with retained_messages.",
    };
    KeptBytes: PoolInfo {
        name: "kept_bytes",
        unit: "bytes that wait in kept MQTT sessions",
        max: Max::Key("limits.kept_bytes", 16 * 1024 * 1024 * 1024),
        reason: "Messages with QoS 1 and 2 for clients that are away are on the disk, in each session in \
                 whole blocks of 4 KiB. They are counted for the client that they wait for.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "What comes for the client is lost to it, and counted in \
                  tr50d_broker_messages_dropped_total; the publisher sees nothing.",
    };
    FanOuts: PoolInfo {
        name: "fan_outs",
        unit: "bytes of messages that are on their way to many subscribers",
        max: Max::Fixed(limits::FAN_OUTS_BYTES_MAX),
        reason: "A message for more than some hundred subscribers goes from one to the next while others \
                 have their turns. Where a client waits for that, it counts in `memory` for its connection; \
                 here are those that nobody waits for: wills, changes of things, replies on topics of \
                 applications.",
        memory: Some(Memory { bytes: 1, part: 64 }),
        makes_way: MakesWay::Nobody,
        refused: "The message is lost to those who do not have it yet, and counted in \
                  tr50d_broker_messages_dropped_total.",
    };
    Connections: PoolInfo {
        name: "connections",
        unit: "connections",
        max: Max::Key("limits.connections", 100_000),
        reason: "Each is a file descriptor and some kilobytes of memory.",
        memory: None,
        makes_way: MakesWay::Holder(
            "of the address with most that have not logged in the oldest of those, or of the principal \
             with most over HTTP between two requests; without one, the one that was idle longest, ten a \
             second",
        ),
        refused: "-95011 \"The server is full\"; MQTT 5: CONNACK 0x89, before: 3.",
    };
    AdminConnections: PoolInfo {
        name: "admin_connections",
        unit: "connections of administrators for which there is no other place",
        max: Max::Fixed(limits::ADMIN_CONNECTIONS),
        reason: "Who is to end connections has to get in when nobody makes way.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "As with connections.",
    };
    Memory: PoolInfo {
        name: "memory",
        unit: "bytes that are held for connections",
        max: Max::Auto("limits.memory_bytes", "half of what the machine or the cgroup has"),
        reason: "What peers do not read, what is worked on for them, and what the console's pages look at \
                 is in memory.",
        memory: None,
        makes_way: MakesWay::Holder(
            "the connection that holds most, from seven eighths on of what is not taken otherwise",
        ),
        refused: "Its connection closes; the session ends as `made_way`. A will that waits for its delay \
                  is published.",
    };
    Traces: PoolInfo {
        name: "traces",
        unit: "traces of things",
        max: Max::Fixed(limits::TRACES_MAX),
        reason: "The frames of each take up to a megabyte of memory until an hour after its end; they \
                 count in `memory`, too. One organisation has at most 16.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "-95018 for another `thing.trace`; before, the oldest of the organisation's that have \
                  ended are forgotten.",
    };
    DelayedWills: PoolInfo {
        name: "delayed_wills",
        unit: "wills that wait for their delay",
        max: Max::Fixed(limits::DELAYED_WILLS_MAX),
        reason: "Each is a message in memory, and a timer. Their bytes count in `memory`, too.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "Its will is published at once.",
    };
    LongWork: PoolInfo {
        name: "long_work",
        unit: "long commands that wait",
        max: Max::Fixed(limits::LONG_WORK_WAITING_MAX),
        reason: "Lists and searches that take long wait for a core; what waits for minutes is of no use.",
        memory: None,
        makes_way: MakesWay::Holder("the command that came last, before it has begun"),
        refused: "-95011.",
    };
    Records: PoolInfo {
        name: "records",
        unit: "bytes of organisations, users, applications, roles and definitions",
        max: Max::Fixed(limits::RECORDS_BYTES_MAX),
        reason: "All are in memory; a level of a topic filter of a role counts 128 bytes beside its text. \
                 An organisation counts for the one above it, which made it; what a user is in another \
                 organisation, or is invited to be, for that.",
        memory: Some(Memory { bytes: 1, part: 8 }),
        makes_way: MakesWay::Nobody,
        refused: "-95018 for what is added or grows.",
    };
    Things: PoolInfo {
        name: "things",
        unit: "things",
        max: Max::Key("limits.things", 10_000_000),
        reason: "Each thing takes about a kilobyte of the disk and, for searches, up to 600 bytes of \
                 memory; a backup and a migration read all of them.",
        memory: Some(Memory { bytes: 256, part: 4 }),
        makes_way: MakesWay::Nobody,
        refused: "-95018; the login of a device that would register itself fails with -95011 (MQTT 5: \
                  CONNACK 0x89, before: 3), and the trail says `full`. Things that are there log in.",
    };
    Series: PoolInfo {
        name: "series",
        unit: "series of telemetry",
        max: Max::Key("limits.series", 100_000_000),
        reason: "The first point of a new property, alarm or attribute makes a series, which stays on \
                 disk with its newest point until its thing is deleted. Of one thing there are 10,000 at \
                 most.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "-95018 for a point of a new series. Points of series that are there are taken, in \
                  the same batch, too.",
    };
    StoreQueue: PoolInfo {
        name: "store_queue",
        unit: "bytes of changes that wait to be stored",
        max: Max::Fixed((limits::STORE_QUEUE_BYTES_MAX - limits::STORE_QUEUE_FREE) as u64),
        reason: "Changes wait in memory for a disk that is slower than they come. What comes while less \
                 than 64 MiB in less than 32,768 pieces wait is not counted; beyond, a change counts 2 KiB \
                 at least.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "-95011. A publish to an ordinary topic with QoS 1 or 2 waits, and with it what comes \
                  behind it on its connection.",
    };
    Disk: PoolInfo {
        name: "disk",
        unit: "bytes on the disk",
        max: Max::Auto("server.min_free_bytes", "what the disk of server.data_dir has above it"),
        reason: "Points of telemetry, mails, things, files, retained messages and what waits in kept MQTT \
                 sessions are on one disk. They are counted before compression; what a program before \
                 this pool has stored of the first three is not. What is removed counts for a minute or \
                 two more: it is on the disk still.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "-95018 for what is added or grows; files -95016 and HTTP 507; MQTT as with \
                  retained_messages and kept_bytes. With less than `server.min_free_bytes` on the disk \
                  everybody sees -95017.",
    };
    MailBytes: PoolInfo {
        name: "mail_bytes",
        unit: "bytes of mail that waits",
        max: Max::Fixed(limits::MAILS_BYTES_MAX),
        reason: "Mails that are not done are in memory.",
        memory: Some(Memory { bytes: 1, part: 16 }),
        makes_way: MakesWay::Nobody,
        refused: "-95011.",
    };
    Callers: PoolInfo {
        name: "callers",
        unit: "callers that wait for things' answers",
        max: Max::Fixed(limits::WAITING_CALLS_MAX),
        reason: "Each takes about a kilobyte of memory, for at most 300 seconds.",
        memory: Some(Memory { bytes: 1024, part: 32 }),
        makes_way: MakesWay::Nobody,
        refused: "-95011.",
    };
    FileBytes: PoolInfo {
        name: "file_bytes",
        unit: "bytes of files",
        max: Max::Auto("files.total_max_bytes", "half of the disk of server.data_dir"),
        reason: "Files, with what has come of uploads, are on the disk that everybody else needs, too; \
                 `files.org_max_bytes` bounds those of one organisation.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "-95016; HTTP: 507.",
    };
    FileTickets: PoolInfo {
        name: "file_tickets",
        unit: "tickets for files",
        max: Max::Fixed(limits::FILE_TICKETS_MAX),
        reason: "Each takes 500 bytes to 3 kB of memory until it is used, for at most 300 seconds. One \
                 login has at most 1,000.",
        memory: Some(Memory { bytes: 3072, part: 32 }),
        makes_way: MakesWay::Holder("the oldest ticket without a transfer under way"),
        refused: "HTTP 404 with a ticket that made way; -95011 when all of one's own are in use, or one \
                  login has its 1,000.",
    };
    FileTransfers: PoolInfo {
        name: "file_transfers",
        unit: "files that are being moved",
        max: Max::Fixed(limits::FILE_TRANSFERS_MAX),
        reason: "Each takes a buffer of up to 256 kB and two file descriptors; of a small limit \
                 (`ulimit -Hn`) there are fewer. It counts for who asked for the ticket.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "HTTP 503; the ticket stays good.",
    };
    PasswordChecks: PoolInfo {
        name: "password_checks",
        unit: "passwords of logins that wait to be checked",
        max: Max::Fixed(limits::PASSWORD_QUEUE_MAX as u64),
        reason: "Each takes 30 ms of a core. Shared by networks (IPv4: addresses, IPv6: /64) and \
                 accounts, for nobody has logged in yet; one network has at most an eighth.",
        memory: None,
        makes_way: MakesWay::Holder("the login of an account that has never come from there, of the \
                 network or account with most"),
        refused: "The login fails with -95011.",
    };
    PasswordChanges: PoolInfo {
        name: "password_changes",
        unit: "changes of passwords that wait",
        max: Max::Fixed(limits::PASSWORD_CHANGES_MAX as u64),
        reason: "Each takes 30 ms of a core. One user or thing has at most an eighth.",
        memory: None,
        makes_way: MakesWay::Holder("the last change that came, before it has begun"),
        refused: "-95011.",
    };
    UnauthenticatedBytes: PoolInfo {
        name: "unauthenticated_bytes",
        unit: "bytes of half requests before a login",
        max: Max::Key("limits.unauthenticated_bytes", 67_108_864),
        reason: "They are in memory for whoever connects. Shared by networks, for nobody has logged in \
                 yet.",
        memory: None,
        makes_way: MakesWay::Holder("the half request that has waited longest, of the network with \
                 most"),
        refused: "The connection closes, or is not read on while others wait.",
    };
    MadeTokens: PoolInfo {
        name: "made_tokens",
        unit: "tokens that are shown again",
        max: Max::Fixed(limits::MADE_TOKENS_MAX),
        reason: "Tokens that the server made are in memory for ten minutes, for who had them made.",
        memory: None,
        makes_way: MakesWay::Holder("the oldest token"),
        refused: "Nothing: `app.find` does not show it any more.",
    };
    TakenNames: PoolInfo {
        name: "taken_names",
        unit: "callers whose finds of taken names are counted",
        max: Max::Fixed(limits::TAKEN_NAMES_ASKERS_MAX),
        reason: "Each is counted in memory for a minute.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "-95010: who can't be counted finds no name.",
    };
    KnownUsers: PoolInfo {
        name: "known_users",
        unit: "networks from which users have logged in",
        max: Max::Fixed(limits::KNOWN_LOGINS_MAX as u64),
        reason: "Those come before strangers while others guess passwords; each takes some 100 to 400 \
                 bytes of memory.",
        memory: None,
        makes_way: MakesWay::Holder("the network from which a user came first"),
        refused: "Nothing, unless passwords are guessed: then one from there is a stranger's.",
    };
    KnownApplications: PoolInfo {
        name: "known_applications",
        unit: "networks from which applications have logged in",
        max: Max::Fixed(limits::TOKEN_NETWORKS_MAX as u64),
        reason: "Those log in while others guess tokens from the same network; each takes some 50 bytes \
                 of memory.",
        memory: None,
        makes_way: MakesWay::Holder("the network from which an application came first"),
        refused: "Nothing, unless many wrong tokens come from the same network: then -95008 for at most \
                  a minute.",
    };
    LongAnswers: PoolInfo {
        name: "long_answers",
        unit: "long lists of Element's dialect",
        max: Max::Fixed(limits::ELEMENT_LONG_ANSWERS_MAX),
        reason: "A list without pages may take 40 MB of memory until its peer has read it.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "HTTP 503.",
    };
    EventReaders: PoolInfo {
        name: "event_readers",
        unit: "readers of events over HTTP",
        max: Max::Fixed(limits::EVENT_READERS_MAX),
        reason: "Each event is looked at for each of them, and half a megabyte may wait for one that \
                 reads slowly.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "HTTP 503.",
    };
    Refusals: PoolInfo {
        name: "refusals",
        unit: "refusals that are told apart",
        max: Max::Fixed(limits::REFUSALS_COUNTED_MAX),
        reason: "Each takes about a kilobyte of memory until ten minutes after the last one.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "Nothing: the trail counts them together, with `others`.",
    };
    Webhooks: PoolInfo {
        name: "webhooks",
        unit: "webhooks",
        max: Max::Fixed(limits::WEBHOOKS_MAX),
        reason: "Each may read every event, and is asked whether it wants it. It counts for who made or \
                 changed it last.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "-95018.",
    };
    WebhookDeliveries: PoolInfo {
        name: "webhook_deliveries",
        unit: "deliveries of webhooks under way",
        max: Max::Fixed(limits::WEBHOOK_DELIVERIES_MAX),
        reason: "Each holds a connection and a body of at most 256 kB for at most ten seconds.",
        memory: None,
        makes_way: MakesWay::Nobody,
        refused: "Nothing: the delivery waits for its turn; its events stay in the stream.",
    };
    Trail: PoolInfo {
        name: "trail",
        unit: "bytes of the trail",
        max: Max::Key("events.max_bytes", 1_073_741_824),
        reason: "Events are on the disk for years. Organisations share it; in each the newest stay, whoever \
                 caused them.",
        memory: None,
        makes_way: MakesWay::Holder(
            "the oldest events of methods, then of alarms, sessions, things, limits, then refusals, then the acts of administrators",
        ),
        refused: "Nothing: older ones are removed.",
    };
}

impl Pool {
    /// Its row.
    pub const fn info(self) -> &'static PoolInfo {
        &POOLS[self as usize].1
    }
}

/// How much of one pool is used, for metrics.
#[derive(Default, Debug)]
pub struct Usage {
    used: AtomicU64,
    max: AtomicU64,
    refused: AtomicU64,
    evicted: AtomicU64,
}

impl Usage {
    /// What is used.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How much there is.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// How often somebody got no more.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How often somebody made way.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// So much is used now.
    pub fn set_used(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
    }

    /// There is so much.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Somebody got no more.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody made way.
    pub fn count_evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }
}

/// How much is used of every pool, and which organisations share as one.
#[derive(Debug)]
pub struct Pools {
    usages: Vec<Arc<Usage>>,
    /// Who got no more of what, and how often, since somebody took this.
    refused: Mutex<HashMap<(Pool, OrgId), u64>>,
    /// What all pools together may take of the memory; 0 is no limit.
    memory_bytes: AtomicU64,
    above: RwLock<HashMap<OrgId, OrgId>>,
}

impl Default for Pools {
    fn default() -> Self {
        let usages = POOLS.iter().map(|_| Arc::default()).collect();
        let memory_bytes = AtomicU64::new(0);
        Self { usages, refused: Mutex::default(), memory_bytes, above: RwLock::default() }
    }
}

impl Pools {
    /// How much is used of one.
    pub fn usage(&self, pool: Pool) -> &Arc<Usage> {
        &self.usages[pool as usize]
    }

    /// Bounds what pools take of the memory that are made from now on; 0 is no limit.
    pub fn set_memory_bytes(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The most of a pool that its part of the memory has room for; none: as much as there is of it.
    pub fn bound_by_memory(&self, pool: Pool) -> Option<u64> {
        let bytes = Some(self.memory_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)?;
        pool.info().memory.map(|takes| bytes / takes.part / takes.bytes)
    }

    /// The memory that pools take, about.
    pub fn memory_taken(&self) -> u64 {
        let taken = |(pool, info): &(Pool, PoolInfo)| {
            info.memory.map_or(0, |takes| self.usage(*pool).used().saturating_mul(takes.bytes))
        };
        POOLS.iter().map(taken).fold(0, u64::saturating_add)
    }

    /// An organisation got no more of one.
    pub fn note_refused(&self, pool: Pool, org: OrgId) {
        self.usage(pool).count_refused();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = refused.len() < limits::LIMITS_NOTED_MAX;
        if let Some(count) = refused.get_mut(&(pool, org)) {
            *count += 1;
        } else if has_room {
            refused.insert((pool, org), 1);
        }
    }

    /// Which organisations got no more of what since the last time, and how often.
    pub fn take_refused(&self) -> Vec<(Pool, OrgId, u64)> {
        let refused =
            std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner));
        refused.into_iter().map(|((pool, org), count)| (pool, org, count)).collect()
    }

    /// Notes what is above an organisation, which is none for the topmost.
    pub fn add_org(&self, org: OrgId, above: Option<OrgId>) {
        if let Some(above) = above {
            self.above.write().unwrap_or_else(PoisonError::into_inner).insert(org, above);
        }
    }

    /// Forgets an organisation that was deleted.
    pub fn remove_org(&self, org: OrgId) {
        self.above.write().unwrap_or_else(PoisonError::into_inner).remove(&org);
    }

    /// The organisation directly below the topmost to which one belongs: all those below it share
    /// as one, so that an organisation gets no more by making others below it.
    pub fn tenant_of(&self, org: OrgId) -> OrgId {
        let parents = self.above.read().unwrap_or_else(PoisonError::into_inner);
        let above = |org: OrgId| parents.get(&org).copied();
        let mut tenant = org;
        for _ in 0..limits::ORG_DEPTH_MAX {
            match above(tenant) {
                Some(next) if above(next).is_some() => tenant = next,
                _ => break,
            }
        }
        tenant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pool_has_its_row_and_a_name_of_its_own() {
        let mut names: Vec<_> = POOLS.iter().map(|(_, info)| info.name).collect();
        for (index, (pool, _)) in POOLS.iter().enumerate() {
            assert_eq!(*pool as usize, index);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), POOLS.len());
    }

    #[test]
    fn organisations_below_one_belong_to_it() {
        let org = |number: u8| OrgId::from_bytes([number; 12]);
        let pools = Pools::default();
        pools.add_org(org(0), None);
        for (below, above) in [(1, 0), (2, 1), (3, 2), (4, 0)] {
            pools.add_org(org(below), Some(org(above)));
        }
        let tenants = [0, 1, 2, 3, 4, 9].map(|number| pools.tenant_of(org(number)));
        assert_eq!(tenants, [0, 1, 1, 1, 4, 9].map(org));
    }

    #[test]
    fn who_is_refused_hears_which_limit_and_whose() {
        let failure = Failure::from(OverShare { pool: Pool::Sessions, whose: Whose::Org });
        let sentence = "The limit limits.sessions is reached for sessions: your organisation has its \
                        share; docs/limits.md says who may have how much.";
        assert_eq!((failure.code, &*failure.message), (Code::LIMIT_REACHED, sentence));
    }
}
