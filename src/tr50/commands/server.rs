//! `server.*`: the server itself, for those who run it.

mod status;

use std::net::{IpAddr, SocketAddr};

use base::{Code, Failure, Timestamp, limits};
use serde::Serialize;
use serde_json::{Map, json};
use tracing::level_filters::LevelFilter;

use super::stats::check_whole_server;
use super::{authorize, commands};
use crate::app::{Effects, Watch, Watching};
use crate::events::{NewEvent, SERVER, Target};
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call};
use crate::tr50::strict::Strict;

commands! {
    act "server.log.level" => level where check_sets_log, [NOT_CONFIGURED],
        "Sets the level of the server's log until the next SIGHUP or restart, which read it from the \
         configuration; without `level` it shows the level. Directives in `RUST_LOG` stay. For super \
         administrators.",
        "`level`, and if it was set `before`";
    act "server.log.watch" => watch where check_sees_log, [LIMIT_REACHED],
        "Has the server's log tell, for a while and at level debug, everything that one thing, one \
         user or one address does; without either, it says who is watched. For super \
         administrators and super operators.",
        "`result`, an array of those who are watched, with `name` or `address`, `until`, `by`";
    "server.status" => status::status where check_whole_server, [],
        "Shows what the server has and uses now: pools with their limits, the store and its disk, the \
         certificate; and what ended and was refused since its start. For whom, as `stats.series`.",
        "`serverId`, `version`, `ts`; `pools`, an array of `name`, `unit`, `used`, `limit`, `refused`, \
         `evicted`; `store` with `available`, `problem`, `freeBytes`, `minFreeBytes`, `queue`, \
         `bytes` by table; `certificates` with `key` and `notAfter`; `mails` that wait; `webhooks` with \
         `lag`, `failing`, `switchedOff`; `sessionStarts`, `sessionEnds` by reason, \
         `refusedConnections` by reason, `refusedLogins` by cause, `failedCommands` by code";
}

params! {
    /// Which level.
    pub struct LevelParams {
        optional level: String = "level",
            "The least important level that is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`.";
    }
}

/// The level of the log.
#[derive(Serialize)]
pub struct Level {
    level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

/// `server.log.level`.
pub fn level(
    call: &Call<'_>,
    Strict(params): Strict<LevelParams>,
) -> Result<After<Level>, Failure> {
    let wanted = params.level.as_deref().map(str::trim).filter(|level| !level.is_empty());
    let wanted = wanted.map(read_level).transpose()?;
    let log = call.app.log_level().ok_or_else(|| {
        let sentence = "The log is that of the program in which this server runs.";
        Failure::new(Code::NOT_CONFIGURED, sentence)
    })?;
    let Some(wanted) = wanted else {
        let level = Level { level: log.now().to_string(), before: None };
        return Ok(After(level, Effects::default()));
    };
    let before = log.set(wanted).map_err(|error| {
        tracing::error!(%error, "the log level stays as it is");
        Failure::new(Code::INTERNAL, "The process has stopped logging.")
    })?;
    let by = call.session.who().name();
    tracing::info!(set_to = %wanted, %before, by, "the log level was set");
    let member =
        |level: LevelFilter| Map::from_iter([("level".to_owned(), json!(level.to_string()))]);
    let target = Target { kind: "log", id: "level".to_owned(), name: "level".to_owned() };
    let deed = call.deed("server.log.level");
    let change = (member(before), member(wanted));
    let effects =
        call.app.note_event(call.app.act(&deed, SERVER, target, change, call.now))?.into();
    let level = Level { level: wanted.to_string(), before: Some(before.to_string()) };
    Ok(After(level, effects))
}

fn read_level(text: &str) -> Result<LevelFilter, Failure> {
    let named = LEVELS.iter().find(|level| level.to_string().eq_ignore_ascii_case(text));
    named.copied().ok_or_else(|| {
        let names: Vec<_> = LEVELS.iter().map(ToString::to_string).collect();
        authorize::invalid_param("level", &format!("one of {}", names.join(", ")))
    })
}

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// What all organisations log is changed by who administers them all.
fn check_sets_log(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().super_admin {
        return Ok(());
    }
    let sentence = "The level of the log is set by super administrators.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

params! {
    /// Whom to watch.
    pub struct WatchParams {
        optional name: String = "name", "A thing's key, or a user's e-mail address.";
        optional thing_key: String = "thingKey", "The same.";
        optional address: String = "address", "An IP address, instead.";
        optional seconds: u64 = "seconds",
            "For how long; 600 by default, 3600 at most. 0 ends it.";
    }
}

/// Those who are watched.
#[derive(Serialize)]
pub struct Watched {
    result: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    until: Timestamp,
    by: String,
}

/// For how long somebody is watched who says nothing of it.
const SECONDS: u64 = 600;

/// The log is of all organisations together.
fn check_sees_log(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().authority().sees_all() {
        return Ok(());
    }
    let sentence = "The log of the server is for super administrators and super operators.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// `server.log.watch`.
pub fn watch(
    call: &Call<'_>,
    Strict(params): Strict<WatchParams>,
) -> Result<After<Watched>, Failure> {
    let watched = &call.app.watched;
    let name = params.name.or(params.thing_key).filter(|name| !name.is_empty());
    let watch = match (name, params.address.filter(|address| !address.is_empty())) {
        (Some(_), Some(_)) => {
            return Err(authorize::invalid_param("address", "left out beside a name"));
        }
        (Some(name), None) => Some(Watch::Name(name)),
        (None, Some(address)) => Some(Watch::Address(read_address(&address)?)),
        (None, None) if params.seconds.is_some() => return Err(missing("name")),
        (None, None) => None,
    };
    let mut effects = Effects::default();
    if let Some(watch) = watch {
        let seconds = params.seconds.unwrap_or(SECONDS);
        let range = format!("a number of seconds from 0 to {}", limits::WATCHED_S_MAX);
        if seconds > limits::WATCHED_S_MAX {
            return Err(authorize::invalid_param("seconds", &range));
        }
        let by = call.session.who().name().to_owned();
        tracing::info!(?watch, seconds, by, "the log watches somebody, or ends that");
        let until = call.app.clock.now().plus_seconds(seconds);
        let act = act(call, &watch, seconds);
        if seconds == 0 {
            watched.clear(&watch);
        } else if !watched.set(Watching { watch, until, by }) {
            let most = limits::WATCHED_MAX;
            let sentence = format!("The log watches {most} already; end one with seconds 0.");
            return Err(Failure::new(Code::LIMIT_REACHED, sentence));
        }
        effects = call.app.note_event(act)?.into();
    }
    let row = |one: Watching| {
        let (name, address) = match one.watch {
            Watch::Name(name) => (Some(name), None),
            Watch::Address(address) => (None, Some(address)),
        };
        Row { name, address, until: call.app.clock.shown(one.until), by: one.by }
    };
    let watched = Watched { result: watched.list().into_iter().map(row).collect() };
    Ok(After(watched, effects))
}

/// What the trail says of it.
fn act(call: &Call<'_>, watch: &Watch, seconds: u64) -> NewEvent {
    let name = match watch {
        Watch::Name(name) => name.clone(),
        Watch::Address(address) => address.to_string(),
    };
    let target = Target { kind: "log", id: name.clone(), name };
    let after = Map::from_iter([("seconds".to_owned(), seconds.into())]);
    let deed = call.deed("server.log.watch");
    call.app.act(&deed, SERVER, target, (Map::new(), after), call.now)
}

/// An address, with or without a port.
fn read_address(text: &str) -> Result<IpAddr, Failure> {
    let alone = text.trim().parse::<IpAddr>();
    let address = alone.or_else(|_| text.trim().parse::<SocketAddr>().map(|address| address.ip()));
    let address = address.map_err(|_| authorize::invalid_param("address", "an IP address"))?;
    Ok(address.to_canonical())
}
