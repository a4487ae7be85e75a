//! Identity: organisations, users, roles and applications, and what each may do.
//!
//! All of them are held in memory. The rules here know no clock and no randomness: `now`, ids and
//! salts are arguments. Everybody may read an [`Identity`]; only the holder of the
//! [`IdentityWriter`] can change it.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

mod access;
mod authority;
mod ban;
pub mod bootstrap;
mod change;
mod grants;
mod invite;
mod login;
mod lookalike;
pub mod model;
pub mod password;
pub mod permission;
mod record;
mod registry;
mod second_factor;
mod standard_role;
mod thing_def;
mod token;
mod topic_rights;
mod webhook;

pub use access::{Access, EVERYONE, Limit};
pub use authority::Authority;
pub use ban::Ban;
pub use bootstrap::{
    NAME_RULE, Problem, SLUG_RULE, is_email, is_name, is_slug, is_token, is_unseen,
};
pub use change::{RecordChange, RecordChanges, Turn};
pub use grants::Source;
pub use invite::{Invite, Inviter};
pub use login::Refusal;
pub use lookalike::{UNAMBIGUOUS_RULE, is_unambiguous};
pub use record::{Record, Records};
pub use registry::{Granted, Holders, TokenHolder};
pub use second_factor::{Accepted, RECOVERY_BYTES, RECOVERY_CODES, SECRET_BYTES, SecondFactor};
pub use standard_role::{STANDARD_ROLES, StandardRole};
pub use thing_def::ThingDef;
pub use token::{Lapsed, Terms, Token};
pub use topic_rights::{TOPIC_FILTER_RULE, TopicFilters, TopicRights, is_topic_filter};
pub use webhook::{SwitchedOff, Webhook, WebhookOwner, WebhookRights, WebhookStart};

use registry::Registry;

/// Organisations, users, roles and applications, for those who read them.
pub struct Identity {
    registry: RwLock<Registry>,
    /// Whose turn it is to change the registry.
    turns: Arc<Mutex<()>>,
}

/// The same, for the one who changes them.
pub struct IdentityWriter(Identity);

impl IdentityWriter {
    /// Those who are in the records.
    pub fn new(records: Records) -> Self {
        Self(Identity { registry: RwLock::new(Registry::new(records)), turns: Arc::default() })
    }
}

impl Deref for IdentityWriter {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use base::Timestamp;

    use super::*;

    pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);

    /// Identity as `serve --demo` has it.
    pub(crate) fn demo() -> IdentityWriter {
        let text = include_str!("../../../../fixtures/demo.toml");
        let records = bootstrap::read(text, NOW, &mut |bytes| bytes.fill(7));
        IdentityWriter::new(records.expect("the demo's file is right"))
    }
}
