//! tr50d: a self-hosted TR50 server.
pub mod cli;
pub mod client;
pub mod fleet;
pub mod id;
pub mod limits;
pub mod timestamp;
pub mod transport;
