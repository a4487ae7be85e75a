//! Who there is, where, and what they may do: organisations, users, roles, applications, things.
//!
//! All but the things are held in memory and read without a disk access; a fleet may have a
//! million things, so these stay in the store and are read when they are asked for.
//!
//! The rules here know no clock and no randomness: `now`, ids and salts are arguments.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};

use crate::id::OrgId;
use crate::store::{StoreError, Tables};
use crate::timestamp::Timestamp;

mod bootstrap;
mod change;
mod login;
pub mod model;
pub mod password;
pub mod permission;
pub(crate) mod record;
mod registry;
mod seen;
mod standing;
mod thing;
mod thing_change;
mod thing_def;

pub use bootstrap::{NAME_RULE, Problem, SLUG_RULE, is_email, is_name, is_slug, is_token};
pub use change::Changing;
pub use login::{ApplicationLogin, Refusal};
pub use record::Record;
pub use registry::Granted;
pub use seen::Seen;
pub use standing::{EVERYONE, Standing};
pub use thing_change::ThingConflict;
pub use thing_def::ThingDef;

use record::Records;
use registry::Registry;

/// Organisations, users, roles, applications and things of a store.
pub struct Identity {
    tables: Tables,
    registry: RwLock<Registry>,
    /// Whose turn it is to change the registry.
    changes: Mutex<()>,
    thing_counts: Mutex<HashMap<OrgId, u64>>,
    /// Held, behind the lock of a thing, while it claims identifiers that no other may have.
    aliases: Mutex<()>,
}

/// Why identity can't be loaded. Each is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nobody to log in, and nothing to read them from.
    #[error("the store is empty, and the configuration names no bootstrap file (server.bootstrap)")]
    NoBootstrap,
    /// The bootstrap file can't be read.
    #[error("the bootstrap file {path} can't be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The bootstrap file says something that can't be.
    #[error("the bootstrap file {path}: {problem}")]
    Bootstrap {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
}

impl Identity {
    /// Loads who there is. A store without organisations is first filled from the bootstrap file;
    /// any other store ignores the file. `random` fills its argument with random bytes, for salts
    /// and for the ids that the file leaves out.
    ///
    /// # Errors
    /// When the store fails, or when the bootstrap file is needed and is missing or wrong.
    pub fn open(
        tables: Tables,
        bootstrap: Option<&Path>,
        now: Timestamp,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Self, IdentityError> {
        let mut records = Records::load(tables.store())?;
        if records.orgs.is_empty() {
            let path = bootstrap.ok_or(IdentityError::NoBootstrap)?;
            let text = std::fs::read_to_string(path)
                .map_err(|source| IdentityError::Unreadable { path: path.into(), source })?;
            records = bootstrap::read(&text, now, random)
                .map_err(|problem| IdentityError::Bootstrap { path: path.into(), problem })?;
            tables.store().commit(&[records.to_batch()])?;
            tables.store().sync()?;
        }
        let thing_counts = thing::count_all(tables.store())?;
        Ok(Self {
            tables,
            registry: RwLock::new(Registry::new(records)),
            changes: Mutex::default(),
            thing_counts: Mutex::new(thing_counts),
            aliases: Mutex::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::writer::Durability;

    /// Identity as `serve --demo` has it, and its store.
    pub fn demo() -> (Identity, Arc<MemoryStore>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml");
        let store = Arc::new(MemoryStore::new());
        let tables = Tables::new(store.clone(), Durability::Os);
        let opened = Identity::open(tables, Some(&path), NOW, &mut |bytes| bytes.fill(7));
        (opened.expect("the demo's file is right"), store)
    }

    pub const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);

    #[test]
    fn the_file_is_read_once_into_an_empty_store() {
        let (first, store) = demo();
        let nowhere = Some(Path::new("/nowhere/at/all.toml"));
        let tables = Tables::new(store, Durability::Os);
        let again = Identity::open(tables, nowhere, NOW, &mut |_| ()).expect("needs no file");
        assert_eq!(again.orgs(), first.orgs());
        assert_eq!(again.orgs().len(), 3);
    }

    #[test]
    fn an_empty_store_needs_a_file() {
        let open = |file: Option<&Path>| {
            let store = Arc::new(MemoryStore::new());
            let tables = Tables::new(store.clone(), Durability::Os);
            let opened = Identity::open(tables, file, NOW, &mut |_| ());
            assert!(Records::load(&*store).expect("readable").orgs.is_empty());
            opened.err().expect("refused").to_string()
        };
        assert!(open(None).contains("server.bootstrap"));
        let missing = open(Some(Path::new("/nowhere/at/all.toml")));
        assert_eq!(missing, "the bootstrap file /nowhere/at/all.toml can't be read");
    }
}
