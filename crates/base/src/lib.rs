//! What all parts of the server, and its client, speak of. Nothing here does I/O or knows tokio.
//!
//! * [`id`], [`timestamp`]: identifiers and points in time.
//! * [`conn`], [`trusted`]: facts about a connection, and who is believed about its peer.
//! * [`failure`]: the codes and sentences that a caller is told.
//! * [`json`]: the little of JSON that a reply needs beside serde; [`utf8`]: text from bytes.
//! * [`topic`]: names and filters of MQTT topics.
//! * [`limits`]: every bound that the configuration does not set.

mod conn;
mod failure;
mod id;
pub mod json;
pub mod limits;
mod timestamp;
pub mod topic;
mod trusted;
pub mod utf8;

pub use conn::{ConnInfo, Protocol};
pub use failure::{CODES, Code, CodeInfo, Failure, chain, excerpt};
pub use id::*;
pub use timestamp::Timestamp;
pub use trusted::{Network, NotANetwork, Trusted};
