//! tr50d: a self-hosted TR50 server.
//!
//! The map of the house, from the wire inwards:
//!
//! * [`edge`]: MQTT, TCP and HTTP; they frame bytes and know the peer.
//! * [`dialects`]: the same sessions and principals in NetApp Element's and Cognite's words.
//! * [`tr50`]: the language: envelope, errors, dispatcher, one file a command family.
//! * [`app`]: the parts together, and the one door through which they change.
//! * [`directory`]: live sessions, their indexes, expiry, events and history.
//! * [`identity`]: organisations, users, applications with tokens, roles.
//! * [`things`]: what things do: telemetry, mailboxes, files, and who is told of changes.
//! * [`broker`]: ordinary MQTT topics, through the embedded rumqttd router.
//! * [`topic`]: names and filters of MQTT topics; [`utf8`]: text from bytes.
//! * [`store`]: durable state.
//! * [`backup`], [`control`]: copies of a running store, and orders to it on its own machine.
//! * [`serve`]: start order, listeners, graceful stop; [`descriptors`]: how many connections fit.
//! * [`client`], [`fleet`], [`cli`]: the other side, for tests, measurements and users.

pub mod app;
pub mod backup;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod dialects;
pub mod directory;
pub mod edge;
pub mod fleet;
pub mod id;
pub mod identity;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod random;
pub mod serve;
pub mod store;
pub mod things;
pub mod timestamp;
mod toml_error;
pub mod topic;
pub mod tr50;
pub mod utf8;
