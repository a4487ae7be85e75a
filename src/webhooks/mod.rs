//! What a webhook's deliveries are on the wire: to which addresses they may go, their HTTP, and how
//! they are signed. It knows no records and no events; those are `src/app/webhooks.rs`.

mod address;
mod sender;
mod signature;
mod url;

pub use address::may_reach;
pub use sender::{Answer, Cause, Post, Sender};
pub use signature::{SECRET_RULE, Secret};
pub use url::{Target, URL_RULE};
