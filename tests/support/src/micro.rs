//! The single steps of the server's work, without sockets and with a store in memory: what
//! `cargo bench --bench micro` times and `tests/instruction_counts.rs` counts.

mod device;
mod setup;
mod work;

pub use device::Device;
pub use setup::Setup;
pub(crate) use setup::{NOW, conn};
pub use work::{PAGE, PIECES, Piece, QUERIES, Step, expiry, search};
