//! tr50d: a self-hosted TR50 server.
pub mod config;
pub mod id;
pub mod identity;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod store;
pub mod timestamp;
pub mod transport;
