//! Things: who they are, and what they do: publish telemetry, fetch their mail, move files; and who
//! is told of it.

pub mod feed;
pub mod files;
pub mod mailbox;
pub mod registry;
pub mod telemetry;
