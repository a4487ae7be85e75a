//! tr50d: a self-hosted TR50 server.
//!
//! The map of the house, from the wire inwards:
//!
//! * [`edge`]: MQTT, TCP and HTTP; they frame bytes and know the peer.
//! * [`dialects`]: the same sessions and principals in NetApp Element's and Cognite's words.
//! * [`tr50`]: the language: envelope, errors, dispatcher, one file a command family.
//! * [`app`]: the parts together, and the one door through which they change.
//! * [`things`]: what things do: telemetry, mailboxes, files, and who is told of changes.
//! * [`broker`]: ordinary MQTT topics, through the embedded rumqttd router.
//! * [`backup`], [`control`]: copies of a running store, and orders to it on its own machine.
//! * [`serve`]: start order, listeners, graceful stop; [`descriptors`]: how many connections fit.
//! * [`cli`]: the subcommands, and what they print.
//!
//! Beside it: the crates `base` (ids, times, topics, failures, bounds), `mqtt` (bytes and packets),
//! `rules` (who there is, and which sessions live), `store` (tables), and `client`, the other side, which never depends on the server.

pub mod app;
pub mod backup;
pub mod broker;
pub mod cli;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod dialects;
pub mod edge;
pub mod logging;
pub mod metrics;
pub mod random;
pub mod serve;
pub mod things;
pub mod tr50;
