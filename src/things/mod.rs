//! Things, which is TR50's word for devices: their records, telemetry, mailboxes and files, and the
//! topics on which their changes are published.

pub mod feed;
pub mod files;
pub mod mailbox;
pub mod registry;
pub mod stored_bytes;
mod tally;
pub mod telemetry;

pub use tally::{Maker, Payer};
