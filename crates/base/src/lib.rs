//! Types that every part of the server and its client use. Nothing here does I/O, but for reading the clock, or knows tokio.
//!
//! * `id`, `timestamp`: identifiers and points in time.
//! * `clock`: the time that the server goes by, and what it shows.
//! * `conn`, `user_agent`, `trusted`, `origin`: what is known of a connection, and of the client on
//!   it; which peers may speak for others; which web pages may use the server.
//! * `holder`: principals; for whom a thread works.
//! * `failure`: error codes and their texts.
//! * [`json`], [`utf8`]: writing JSON, and checking UTF-8.
//! * [`topic`]: names and filters of MQTT topics.
//! * [`pool`], [`shares`]: what there is a bounded amount of, and how organisations, and principals in
//!   them, share it.
//! * [`histogram`]: counts of times.
//! * [`yield_point`]: where long work lets other threads go on.
//! * [`limits`]: every bound that the configuration does not set.

mod clock;
mod conn;
mod failure;
pub mod histogram;
mod holder;
mod id;
pub mod json;
pub mod limits;
mod origin;
pub mod pool;
pub mod shares;
mod timestamp;
pub mod topic;
mod trusted;
mod user_agent;
pub mod utf8;
pub mod yield_point;

pub use clock::{Clock, Jump, LastTime, TimeSource};
pub use conn::{ConnInfo, ConnectionId, Door, Protocol, Tls, network_of};
pub use failure::{CODES, Code, CodeInfo, Failure, beginning, chain, excerpt};
pub use holder::{
    Asker, Holder, PrincipalId, STRANGERS, carried_on, current_asker, done_for, working_for,
};
pub use id::*;
pub use origin::{AllowedAs, NotAnOrigin, Origins};
pub use timestamp::Timestamp;
pub use trusted::Trusted;
pub use user_agent::UserAgent;
