//! tr50d: a self-hosted TR50 server.
//!
//! The modules, from the network inwards:
//!
//! * [`edge`]: MQTT, TCP and HTTP; they frame bytes and know the peer.
//! * [`dialects`]: NetApp Element's and Cognite's APIs for the same sessions and principals.
//! * [`tr50`]: the protocol: envelope, errors, dispatcher, one file for each family of commands.
//! * [`app`]: all parts together, and [`App::apply`](app::App::apply), through which they change.
//! * [`things`]: telemetry, mailboxes and files of things, and the topics on which changes are
//!   published.
//! * [`broker`]: ordinary MQTT topics: subscriptions, sessions that outlive connections, retained
//!   messages.
//! * [`events`]: what happened, numbered and kept on disk.
//! * [`backup`], [`control`]: copies of a running store, and the socket by which they are asked
//!   for.
//! * [`serve`]: start order, listeners, graceful stop; [`descriptors`]: how many connections fit.
//! * [`cli`]: the subcommands, and what they print.
//!
//! Beside it: the crates `base` (ids, times, topics, failures, bounds), `mqtt` (bytes and packets),
//! `rules` (identity and sessions), `store` (tables), and `client`, which never depends on the
//! server.

pub mod app;
pub mod backup;
pub mod broker;
pub mod cli;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod dialects;
pub mod edge;
pub mod events;
pub mod logging;
pub mod metrics;
pub mod openapi;
pub mod random;
pub mod serve;
pub mod things;
pub mod tr50;
pub mod webhooks;
