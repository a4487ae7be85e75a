//! tr50d: a self-hosted TR50 server.
pub mod broker;
pub mod id;
pub mod limits;
pub mod timestamp;
pub mod transport;
