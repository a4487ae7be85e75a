//! tr50d: a self-hosted TR50 server.
pub mod config;
pub mod id;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod timestamp;
pub mod transport;
