//! Changes of organisations, roles, users, applications and definitions of things.

use parking_lot::lock_api::ArcMutexGuard;
use parking_lot::{Mutex, RawMutex};

use super::record::Record;
use super::{Identity, IdentityWriter};

/// The turn to change records. Whoever has it sees them as they are: what is asked of [`Identity`]
/// meanwhile is still true when the change is made, and the order of rows in the store is that of
/// the changes in memory. Never held across an await.
pub struct Turn(#[expect(dead_code, reason = "held")] ArcMutexGuard<RawMutex, ()>);

/// What is to be changed, by who has the turn.
#[must_use = "nothing is changed until the writer applies it"]
pub struct RecordChanges {
    changes: Vec<RecordChange>,
    _turn: Turn,
}

/// A change of one record.
#[derive(Debug)]
pub enum RecordChange {
    /// Adds it, or replaces the one with its id.
    Put(Record),
    /// Takes it out.
    Delete(Record),
}

impl Identity {
    /// Waits for the turn to change records.
    pub fn turn(&self) -> Turn {
        Turn(Mutex::lock_arc(&self.turns))
    }
}

impl Turn {
    /// Adds a record, or replaces the one with its id.
    pub fn put(self, record: impl Into<Record>) -> RecordChanges {
        RecordChanges { changes: vec![RecordChange::Put(record.into())], _turn: self }
    }

    /// Adds several records, all at once or none.
    pub fn put_all(self, records: impl IntoIterator<Item = Record>) -> RecordChanges {
        let changes = records.into_iter().map(RecordChange::Put).collect();
        RecordChanges { changes, _turn: self }
    }

    /// Adds, replaces and takes out records, all at once or none.
    pub fn change(self, changes: Vec<RecordChange>) -> RecordChanges {
        RecordChanges { changes, _turn: self }
    }

    /// Takes records out, all at once or none.
    pub fn delete(self, records: impl IntoIterator<Item = Record>) -> RecordChanges {
        let changes = records.into_iter().map(RecordChange::Delete).collect();
        RecordChanges { changes, _turn: self }
    }
}

impl RecordChanges {
    /// The changes, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &RecordChange> {
        self.changes.iter()
    }
}

impl IdentityWriter {
    /// Makes the changes, all at once; the turn is over.
    pub fn apply(&self, changes: RecordChanges) {
        let RecordChanges { changes, _turn } = changes;
        let mut registry = self.registry.write();
        for change in changes {
            match change {
                RecordChange::Put(record) => registry.put(record),
                RecordChange::Delete(record) => registry.remove(&record),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{ApplicationId, OrgId, RoleId, ThingDefId, UserId};

    use super::super::ThingDef;
    use super::super::model::{Application, Org, Role, User};
    use super::super::tests::{NOW, demo};
    use super::*;

    fn org(identity: &Identity, key: &str) -> Org {
        Org::clone(&identity.org_by_key(key).expect("an organisation of the demo"))
    }

    fn def(number: u8, org: OrgId, key: &str) -> ThingDef {
        ThingDef {
            id: ThingDefId::from_bytes([number; 12]),
            org,
            key: key.into(),
            name: key.into(),
            version: 1,
            auto_def_props: None,
            auto_def_attrs: None,
            members: serde_json::Map::new(),
            created_on: NOW,
            created_by: "SYSTEM".into(),
            updated: None,
        }
    }

    #[test]
    fn every_index_follows() {
        let identity = demo();
        let (system, basic) = (org(&identity, "SYSTEM"), org(&identity, "BasicOrg"));
        let below = Org { id: OrgId::from_bytes([1; 12]), key: "Below".into(), ..basic.clone() };
        let below = Org { parent: Some(basic.id), slug: "below".into(), ..below };
        let replaced = identity.role_by_key(basic.id, "DEVICE").expect("a role of the demo");
        identity.apply(identity.turn().delete([replaced.role.clone().into()]));
        let device = identity.role_by_key(basic.id, "DEVICE").expect("the one from above");
        let own = Role { id: RoleId::from_bytes([2; 12]), org: basic.id, ..device.role.clone() };
        let viewer = identity.user_by_email("viewer@basicorg.example").expect("a user");
        let moved = User { email: "a@b".into(), home: below.id, ..User::clone(&viewer) };
        let fresh = User { id: UserId::from_bytes([3; 12]), email: "z@b".into(), ..moved.clone() };
        let application =
            identity.application_by_token("demo-token-basicorg").expect("of the demo");
        let renamed = Application { token_hash: [4; 32], ..Application::clone(&application) };
        let other = Application {
            id: ApplicationId::from_bytes([5; 12]),
            name: "Another".into(),
            token_hash: [5; 32],
            ..renamed.clone()
        };
        let records: [Record; 9] = [
            below.clone().into(),
            own.clone().into(),
            moved.clone().into(),
            fresh.clone().into(),
            renamed.clone().into(),
            other.into(),
            def(6, system.id, "mower").into(),
            def(7, basic.id, "Mower").into(),
            def(8, basic.id, "car").into(),
        ];
        for record in records {
            identity.apply(identity.turn().put(record));
        }
        let keys: Vec<_> = identity.orgs().iter().map(|org| org.key.clone()).collect();
        assert_eq!(keys, ["BasicOrg", "Below", "SYSTEM", "YorkOrg"]);
        assert_eq!((identity.depth(below.id), identity.depth(system.id)), (3, 1));
        let role = |org| identity.role_by_key(org, "device").map(|granted| granted.role.id);
        assert_eq!((role(below.id), role(system.id)), (Some(own.id), Some(device.role.id)));
        assert_eq!(identity.roles_of(below.id).len(), 6);
        assert!(identity.is_held(replaced.role.id) && !identity.is_held(own.id));
        let emails = |org| -> Vec<_> {
            identity.users_of(org).iter().map(|user| user.email.clone()).collect()
        };
        assert_eq!(emails(below.id), ["a@b", "z@b"]);
        assert_eq!(emails(basic.id), ["a@b", "operator@basicorg.example", "z@b"]);
        assert_eq!(identity.user_by_email("viewer@basicorg.example"), None);
        assert_eq!(identity.application_by_token("demo-token-basicorg"), None);
        let names: Vec<_> =
            identity.applications_of(basic.id).iter().map(|app| app.name.clone()).collect();
        assert_eq!(names, ["Another", "demo-app", "demo-app-16"]);
        let by_key = |org, key| identity.thing_def_by_key(org, key).map(|d| d.id.as_bytes()[0]);
        assert_eq!((by_key(below.id, "MOWER"), by_key(system.id, "mower")), (Some(7), Some(6)));
        assert_eq!((by_key(below.id, "car"), by_key(system.id, "car")), (Some(8), None));
        assert_eq!(identity.thing_defs_of(basic.id).len(), 3);
        let car = ThingDefId::from_bytes([8; 12]);
        assert!(identity.thing_def(below.id, car).is_some());
        assert!(identity.thing_def(system.id, car).is_none() && !identity.registers(car));
    }

    #[test]
    fn closed_definitions_are_counted() {
        let identity = demo();
        let (system, basic) = (org(&identity, "SYSTEM").id, org(&identity, "BasicOrg").id);
        let york = org(&identity, "YorkOrg").id;
        let closed = |org| ThingDef { auto_def_props: Some(false), ..def(1, org, "mower") };
        let put = |def: ThingDef| identity.apply(identity.turn().put(def));
        let check = |expected: [bool; 3]| {
            let found = [system, basic, york].map(|org| identity.has_closed_thing_def(org));
            assert_eq!(found, expected);
        };
        check([false, false, false]);
        put(closed(basic));
        check([false, true, false]);
        put(ThingDef { version: 2, ..closed(basic) });
        put(ThingDef { id: ThingDefId::from_bytes([2; 12]), ..closed(system) });
        check([true, true, true]);
        put(def(1, basic, "mower"));
        let above = ThingDef { id: ThingDefId::from_bytes([2; 12]), ..closed(system) };
        identity.apply(identity.turn().delete([above.clone().into(), above.into()]));
        check([false, false, false]);
    }

    #[test]
    fn what_is_deleted_is_found_by_no_name() {
        let identity = demo();
        let basic = org(&identity, "BasicOrg");
        let viewer = identity.user_by_email("viewer@basicorg.example").expect("a user");
        let application =
            identity.application_by_token("demo-token-basicorg").expect("of the demo");
        let device = identity.role_by_key(basic.id, "device").expect("the role of the demo");
        let other = identity.application_by_token("demo-basicorg-16").expect("of the demo");
        let records: [Record; 6] = [
            basic.clone().into(),
            User::clone(&viewer).into(),
            Application::clone(&application).into(),
            Application::clone(&other).into(),
            device.role.clone().into(),
            // One that is not there.
            def(9, basic.id, "car").into(),
        ];
        identity.apply(identity.turn().delete(records));
        assert!(identity.org(basic.id).is_none() && identity.org_by_key("basicorg").is_none());
        assert_eq!(identity.orgs().len(), 2);
        assert!(identity.user(viewer.id).is_none());
        assert!(identity.user_by_email(&viewer.email).is_none());
        assert_eq!(identity.users_of(basic.id).len(), 1);
        assert!(identity.application(application.id).is_none());
        assert!(identity.application_by_token("demo-token-basicorg").is_none());
        assert!(identity.applications_of(basic.id).is_empty());
        assert!(identity.role_by_key(basic.id, "device").is_none());
    }
}
