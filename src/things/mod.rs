//! What things do: publish telemetry, fetch their mail, move files; and who is told of it.

pub mod feed;
pub mod files;
pub mod mailbox;
pub mod presence;
pub mod telemetry;
