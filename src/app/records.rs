//! The records of identity in the store, one row each; at the first start they come from the
//! bootstrap file.

use std::path::{Path, PathBuf};

use base::{Timestamp, limits};
use rules::identity::bootstrap::{self, Problem};
use rules::identity::model::Role;
use rules::identity::permission::Permission;
use rules::identity::{Record, RecordChange, RecordChanges, Records, Webhook};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Map;
use store::{
    Batch, Change, Store, StoreError, Table,
    rows::{decode, encode, for_each_row, load_table},
};

use crate::events::{self, Act, Actor, Target};

/// Why there are no records. Each is one sentence for the operator.
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

/// The records of a store. One without organisations is first filled from the bootstrap file; any
/// other store ignores the file. `random` fills its argument with random bytes, for salts and for
/// the ids that the file leaves out.
///
/// # Errors
///
/// The store failed, or the bootstrap file is needed and is missing or wrong.
pub(super) fn load(
    store: &dyn Store,
    bootstrap: Option<&Path>,
    now: Timestamp,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Records, IdentityError> {
    let stored = read_all(store)?;
    if !stored.orgs.is_empty() {
        if let Some(path) = bootstrap {
            let file = path.display();
            tracing::info!(%file, "the bootstrap file is not read: the store is not empty");
        }
        return Ok(stored);
    }
    let path = bootstrap.ok_or(IdentityError::NoBootstrap)?;
    let records = read_file(path, now, random)?;
    let mut batch = Batch::default();
    records.iter().for_each(|record| put(&mut batch, &record));
    batch.0.push(first_event(&records, path, now));
    store.commit(&[batch])?;
    store.sync()?;
    Ok(records)
}

/// That the store was filled, as an event.
fn first_event(records: &Records, path: &Path, now: Timestamp) -> Change {
    let counts = [
        ("orgs", records.orgs.len()),
        ("roles", records.roles.len()),
        ("users", records.users.len()),
        ("apps", records.applications.len()),
    ];
    let file = path.display().to_string();
    let after = counts.map(|(name, count)| (name.to_owned(), count.into()));
    let act = Act {
        actor: &Actor::server(),
        command: "bootstrap",
        target: Target { kind: "server", id: String::new(), name: file },
        before: Map::new(),
        after: after.into_iter().collect(),
    };
    events::first_row(&act.into_row(now, None))
}

/// Whether a bootstrap file could be read into an empty store.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_bootstrap(path: &Path, now: Timestamp) -> Result<(), IdentityError> {
    bootstrap::check_text(&read_text(path)?, now)
        .map_err(|problem| IdentityError::Bootstrap { path: path.into(), problem })
}

fn read_file(
    path: &Path,
    now: Timestamp,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Records, IdentityError> {
    bootstrap::read(&read_text(path)?, now, random)
        .map_err(|problem| IdentityError::Bootstrap { path: path.into(), problem })
}

fn read_text(path: &Path) -> Result<String, IdentityError> {
    std::fs::read_to_string(path)
        .map_err(|source| IdentityError::Unreadable { path: path.into(), source })
}

/// The rows of changes.
pub(super) fn batch_of(changes: &RecordChanges) -> Batch {
    let mut batch = Batch::default();
    for change in changes.iter() {
        match change {
            RecordChange::Put(record) => put(&mut batch, record),
            RecordChange::Delete(record) => {
                let (table, key) = row(record);
                batch.delete(table, key);
            }
        }
    }
    batch
}

fn read_all(store: &dyn Store) -> Result<Records, StoreError> {
    Ok(Records {
        orgs: load_table(store, Table::Orgs)?,
        roles: load_roles(store)?,
        users: load_table(store, Table::Users)?,
        applications: load_table(store, Table::Applications)?,
        thing_defs: load_table(store, Table::ThingDefs)?,
        webhooks: load_webhooks(store)?,
    })
}

/// The roles. One that was stored before ordinary topics had rights goes on to give all of them.
fn load_roles(store: &dyn Store) -> Result<Vec<Role>, StoreError> {
    #[derive(Deserialize)]
    struct Known {
        topic_publish: Option<IgnoredAny>,
    }

    let mut roles = Vec::new();
    for_each_row(store, Table::Roles, |(key, value)| {
        let mut role: Role = decode(Table::Roles, key, value)?;
        let known: Known = decode(Table::Roles, key, value)?;
        if known.topic_publish.is_none() {
            role.give_all_topics();
        }
        warn_of_unknown(&role);
        roles.push(role);
        Ok(())
    })?;
    Ok(roles)
}

/// What keys of webhooks begin with in [`Table::Meta`], where they are: a table of their own would
/// be a new layout of the store.
const WEBHOOK: &[u8] = b"webhook/";

fn load_webhooks(store: &dyn Store) -> Result<Vec<Webhook>, StoreError> {
    let mut webhooks = Vec::new();
    for_each_row(store, Table::Meta, |(key, value)| {
        if key.starts_with(WEBHOOK) {
            webhooks.push(decode(Table::Meta, key, value)?);
        }
        Ok(())
    })?;
    Ok(webhooks)
}

/// Says which permissions of a role that was stored before there is nothing for.
fn warn_of_unknown(role: &Role) {
    let unknown = |name: &&String| !name.is_empty() && Permission::named(name).is_none();
    for permission in role.permissions.iter().filter(unknown) {
        let (role, org) = (&role.key, role.org);
        tracing::warn!(role, %org, permission, "a role has a permission that there is not");
    }
}

fn put(batch: &mut Batch, record: &Record) {
    let (table, key) = row(record);
    batch.put(table, key, value(record));
}

fn value(record: &Record) -> Vec<u8> {
    match record {
        Record::Org(record) => encode(record),
        Record::Role(record) => encode(record),
        Record::User(record) => encode(record),
        Record::Application(record) => encode(record),
        Record::ThingDef(record) => encode(record),
        Record::Webhook(record) => encode(record),
    }
}

/// Table and key of a record's row, and the bytes of key and value.
pub(super) fn sized_row(record: &Record) -> (Table, Vec<u8>, u64) {
    let (table, key) = row(record);
    let bytes = (key.len() + value(record).len()) as u64 + beside_row(record);
    (table, key, bytes)
}

/// What a record takes in memory beside its row and its members: filters are read level by level.
pub(super) fn beside_row(record: &Record) -> u64 {
    let Record::Role(role) = record else { return 0 };
    let filters = role.topic_publish.iter().chain(&role.topic_subscribe);
    let levels: usize = filters.map(|filter| filter.split('/').count()).sum();
    levels as u64 * limits::TOPIC_LEVEL_BYTES
}

fn row(record: &Record) -> (Table, Vec<u8>) {
    match record {
        Record::Org(org) => (Table::Orgs, org.id.as_bytes().to_vec()),
        Record::Role(role) => (Table::Roles, role.id.as_bytes().to_vec()),
        Record::User(user) => (Table::Users, user.id.as_bytes().to_vec()),
        Record::Application(application) => {
            (Table::Applications, application.id.as_bytes().to_vec())
        }
        Record::ThingDef(def) => {
            (Table::ThingDefs, [*def.org.as_bytes(), *def.id.as_bytes()].concat())
        }
        Record::Webhook(webhook) => (Table::Meta, [WEBHOOK, webhook.id.as_bytes()].concat()),
    }
}

#[cfg(test)]
mod tests {
    use base::{ApplicationId, OrgId, RoleId, ThingDefId, UserId};
    use rules::identity::model::{Application, Org, Role, User};
    use rules::identity::{IdentityWriter, ThingDef};
    use store::memory::MemoryStore;

    use super::super::tests::NOW;
    use super::*;

    fn demo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml")
    }

    /// All records, so that they can be compared.
    fn sorted(records: &Records) -> Vec<String> {
        let mut all: Vec<_> = records.iter().map(|record| format!("{record:?}")).collect();
        all.sort_unstable();
        all
    }

    fn loaded(store: &MemoryStore) -> Records {
        load(store, Some(&demo()), NOW, &mut |bytes| bytes.fill(7)).expect("loads")
    }

    fn def(number: u8, org: OrgId) -> ThingDef {
        ThingDef {
            id: ThingDefId::from_bytes([number; 12]),
            org,
            key: "mower".into(),
            name: "Mower".into(),
            version: 1,
            auto_def_props: None,
            auto_def_attrs: None,
            members: serde_json::Map::new(),
            created_on: NOW,
            created_by: "SYSTEM".into(),
            updated: None,
        }
    }

    /// Makes changes as the door does: in the store, and in memory.
    fn make(store: &MemoryStore, identity: &IdentityWriter, changes: RecordChanges) {
        store.commit(&[batch_of(&changes)]).expect("commit");
        identity.apply(changes);
    }

    #[test]
    fn what_was_put_is_found_after_a_restart() {
        let store = MemoryStore::new();
        let mut expected = loaded(&store);
        let identity = IdentityWriter::new(loaded(&store));
        let basic = identity.org_by_key("BasicOrg").expect("an organisation of the demo");
        let below = Org { id: OrgId::from_bytes([1; 12]), key: "Below".into(), ..(*basic).clone() };
        let below = Org { parent: Some(basic.id), slug: "below".into(), ..below };
        let role = Role { id: RoleId::from_bytes([2; 12]), ..expected.roles[0].clone() };
        let moved = &mut expected.users[1];
        (moved.email, moved.home) = ("a@b".into(), below.id);
        let moved = moved.clone();
        let user = User { id: UserId::from_bytes([3; 12]), email: "z@b".into(), ..moved.clone() };
        let renewed = &mut expected.applications[0];
        renewed.token_hash = [4; 32];
        let renewed = renewed.clone();
        let application = Application {
            id: ApplicationId::from_bytes([5; 12]),
            name: "Another".into(),
            token_hash: [5; 32],
            ..renewed.clone()
        };
        let defs = [def(6, basic.id), def(7, below.id)];
        let fresh: [Record; 6] = [
            below.clone().into(),
            role.clone().into(),
            user.clone().into(),
            application.clone().into(),
            defs[0].clone().into(),
            defs[1].clone().into(),
        ];
        let replaced: [Record; 2] = [moved.clone().into(), renewed.into()];
        for record in fresh.into_iter().chain(replaced) {
            make(&store, &identity, identity.turn().put(record));
        }
        expected.orgs.push(below.clone());
        expected.roles.push(role);
        expected.users.push(user.clone());
        expected.applications.push(application);
        expected.thing_defs.extend(defs);
        assert_eq!(sorted(&loaded(&store)), sorted(&expected));
        for identity in [&identity, &IdentityWriter::new(loaded(&store))] {
            let keys: Vec<_> = identity.orgs().iter().map(|org| org.key.clone()).collect();
            assert_eq!(keys, ["BasicOrg", "Below", "SYSTEM", "YorkOrg"]);
            assert_eq!(identity.depth(below.id), 3);
            assert_eq!(identity.user_by_email("z@b").map(|found| found.id), Some(user.id));
            assert_eq!(identity.user_by_email("a@b").map(|found| found.id), Some(moved.id));
            assert_eq!(identity.application_by_token("demo-token-basicorg"), None);
            let def = |org| identity.thing_def_by_key(org, "MOWER").map(|def| def.id.as_bytes()[0]);
            assert_eq!((def(basic.id), def(below.id)), (Some(6), Some(7)));
        }
    }

    #[test]
    fn what_was_deleted_is_not_found_after_a_restart() {
        let store = MemoryStore::new();
        let mut expected = loaded(&store);
        let identity = IdentityWriter::new(loaded(&store));
        let kept = expected.orgs[0].id;
        let mower = def(8, kept);
        make(&store, &identity, identity.turn().put(mower.clone()));
        let deleted: [Record; 6] = [
            expected.orgs.remove(1).into(),
            expected.users.remove(1).into(),
            expected.applications.remove(0).into(),
            expected.roles.remove(0).into(),
            mower.into(),
            // One that is not there.
            def(9, kept).into(),
        ];
        make(&store, &identity, identity.turn().delete(deleted));
        assert_eq!(sorted(&loaded(&store)), sorted(&expected));
        let again = IdentityWriter::new(loaded(&store));
        assert_eq!((identity.orgs(), identity.orgs().len()), (again.orgs(), 2));
        assert!(again.application_by_token("demo-token-basicorg").is_none());
    }

    #[test]
    fn the_file_is_read_once_into_an_empty_store() {
        let store = MemoryStore::new();
        let first = load(&store, Some(&demo()), NOW, &mut |bytes| bytes.fill(7));
        let first = first.expect("the demo's file is right");
        let again = load(&store, Some(Path::new("/nowhere/at/all.toml")), NOW, &mut |_| ());
        let again = again.expect("needs no file");
        assert_eq!(sorted(&again), sorted(&first));
        assert_eq!(again.orgs.len(), 3);
    }

    #[test]
    fn an_empty_store_needs_a_file() {
        let open = |file: Option<&Path>| {
            let store = MemoryStore::new();
            let opened = load(&store, file, NOW, &mut |_| ());
            assert!(read_all(&store).expect("readable").orgs.is_empty());
            opened.expect_err("refused").to_string()
        };
        assert!(open(None).contains("server.bootstrap"));
        let missing = open(Some(Path::new("/nowhere/at/all.toml")));
        assert_eq!(missing, "the bootstrap file /nowhere/at/all.toml can't be read");
    }

    #[test]
    fn what_has_no_id_is_not_the_same() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let role = |key: &str| format!("[[role]]\nkey = '{key}'\norg = 'SYSTEM'\n");
        let org = "[[org]]\nkey = 'SYSTEM'\nslug = 'system'\n";
        let text = [org, &role("device"), &role("developer")].concat();
        std::fs::write(file.path(), text).expect("written");
        check_bootstrap(file.path(), NOW).expect("right");
    }

    #[test]
    fn a_damaged_record_is_named() {
        let store = MemoryStore::new();
        let mut batch = Batch::default();
        batch.put(Table::Roles, [0xab; 12], "{");
        store.commit(&[batch]).expect("commit");
        let error = read_all(&store).expect_err("damaged");
        let expected = "the record abababababababababababab in table roles can't be read";
        assert_eq!(error.to_string(), expected);
    }
}
