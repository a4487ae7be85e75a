//! tr50d: a self-hosted TR50 server.
//!
//! The map of the house, from the wire inwards:
//!
//! * [`transport`]: MQTT, TCP and HTTP edges; they frame bytes and know the peer.
//! * [`tr50`]: the language: envelope, errors, dispatcher, one file a command family.
//! * [`cognite`], [`element`]: two other dialects for the same sessions and principals.
//! * [`directory`]: live sessions, their indexes, expiry, events and history.
//! * [`identity`]: organisations, users, applications with tokens, roles, things, logins.
//! * [`things`]: what things do: telemetry, mailboxes, files, and who is told of changes.
//! * [`broker`]: ordinary MQTT topics, through the embedded rumqttd router.
//! * [`topic`]: names and filters of MQTT topics; [`utf8`]: text from bytes.
//! * [`store`]: durable state, and [`journal`], which turns events into it.
//! * [`backup`], [`control`]: copies of a running store, and orders to it on its own machine.
//! * [`core`]: the shell that owns the rules and gives them time and chance.
//! * [`server`]: start order, listeners, graceful stop; [`descriptors`]: how many connections fit.
//! * [`client`], [`fleet`], [`cli`]: the other side, for tests, measurements and users.

pub mod backup;
pub mod broker;
pub mod cli;
pub mod client;
pub mod cognite;
pub mod config;
pub mod control;
pub mod core;
pub mod descriptors;
pub mod directory;
pub mod element;
pub mod fleet;
pub mod id;
pub mod identity;
pub mod journal;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod store;
pub mod things;
pub mod timestamp;
pub mod topic;
pub mod tr50;
pub mod transport;
pub mod utf8;
