//! The room that the records of identity take in memory, by the organisations that own them. It goes by
//! the length of their rows, and the filters of roles. What a user is, or is to be, in other
//! organisations counts for those.

use std::collections::HashMap;
use std::sync::Arc;

use base::pool::{OverShare, Pool, Pools};
use base::shares::Shares;
use base::{OrgId, limits};
use parking_lot::Mutex;
use rules::identity::{Record, RecordChange, RecordChanges, Records};
use smallvec::SmallVec;
use store::{Batch, Change, Table, rows::encode};

use super::records;

/// The records, and who owns them.
pub(super) struct RecordSpace(Mutex<State>);

struct State {
    shares: Shares<()>,
    known: HashMap<Key, Held>,
}

/// Where the row of a record is.
type Key = (Table, Vec<u8>);

/// Whose shares a record is, and its bytes in each.
type Held = SmallVec<[(OrgId, u64); 1]>;

/// Room that was taken, and what it takes the place of; given back unless the changes are made.
#[must_use = "it is given back"]
pub(super) struct Taken<'a> {
    space: &'a RecordSpace,
    before: Vec<(Key, Option<Held>)>,
}

impl RecordSpace {
    /// That of the records that there are.
    pub(super) fn new(found: &Records, pools: &Arc<Pools>) -> Self {
        let mut shares = Shares::new(Pool::Records, limits::RECORDS_BYTES_MAX, pools);
        let mut known = HashMap::new();
        for record in found.iter() {
            let (table, key, bytes) = records::sized_row(&record);
            let held = parts(&record, bytes);
            held.iter().for_each(|(org, bytes)| shares.hold(*org, (), *bytes));
            known.insert((table, key), held);
        }
        Self(Mutex::new(State { shares, known }))
    }

    /// Takes room for changes, whose rows are the first of the batch.
    ///
    /// # Errors
    ///
    /// A record that is added, or grows, finds none; nothing was taken. What only takes from somebody
    /// finds room always.
    pub(super) fn take(
        &self,
        changes: &RecordChanges,
        batch: &Batch,
        only_takes: bool,
    ) -> Result<Taken<'_>, OverShare> {
        let mut taken = Taken { space: self, before: Vec::new() };
        for (change, row) in changes.iter().zip(&batch.0) {
            let (key, held) = match (change, row) {
                (RecordChange::Put(record), Change::Put(table, key, value)) => {
                    let bytes = (key.len() + value.len()) as u64 + records::beside_row(record);
                    ((*table, key.clone()), Some(parts(record, bytes)))
                }
                (_, Change::Put(table, key, _) | Change::Delete(table, key)) => {
                    ((*table, key.clone()), None)
                }
            };
            let before = self.0.lock().replace(&key, held, only_takes)?;
            taken.before.push((key, before));
        }
        Ok(taken)
    }
}

impl State {
    /// Puts a record in the place of what it was, which is returned.
    fn replace(
        &mut self,
        key: &Key,
        held: Option<Held>,
        only_takes: bool,
    ) -> Result<Option<Held>, OverShare> {
        let before = self.known.get(key).cloned();
        for (org, bytes) in held.iter().flatten().filter(|_| !only_takes) {
            let was = before.as_ref().map_or(0, |before| part_of(before, *org));
            if *bytes > was {
                let room = self.shares.has_room(*org, (), bytes - was);
                room.inspect_err(|over| self.shares.count_over(*org, *over))?;
            }
        }
        self.set(key, held);
        Ok(before)
    }

    fn set(&mut self, key: &Key, held: Option<Held>) {
        for (org, bytes) in self.known.remove(key).into_iter().flatten() {
            self.shares.give_back(org, (), bytes);
        }
        if let Some(held) = held {
            held.iter().for_each(|(org, bytes)| self.shares.hold(*org, (), *bytes));
            self.known.insert(key.clone(), held);
        }
    }
}

impl Taken<'_> {
    /// The changes are made.
    pub(super) fn keep(mut self) {
        self.before.clear();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let state = &mut *self.space.0.lock();
        for (key, before) in std::mem::take(&mut self.before).into_iter().rev() {
            state.set(&key, before);
        }
    }
}

/// What an invitation takes of a row beside itself, if it is the first.
const BESIDE_INVITE: u64 = r#","invites":[]"#.len() as u64;

/// The shares of a record of so many bytes, in the order of the organisations.
fn parts(record: &Record, bytes: u64) -> Held {
    let owner = owner(record);
    let mut parts = Held::new();
    if let Record::User(user) = record {
        let members = user.memberships.iter().map(|held| (held.org, encode(held).len() as u64));
        let invited = user.invites.iter();
        let invited =
            invited.map(|invite| (invite.terms.org, BESIDE_INVITE + encode(invite).len() as u64));
        parts.extend(members.chain(invited).filter(|(org, _)| *org != owner));
    }
    let others: u64 = parts.iter().map(|(_, part)| part).sum();
    parts.push((owner, bytes.saturating_sub(others)));
    parts.sort_unstable();
    parts.dedup_by(|next, part| {
        let same = next.0 == part.0;
        part.1 += if same { next.1 } else { 0 };
        same
    });
    parts
}

fn part_of(held: &Held, org: OrgId) -> u64 {
    held.binary_search_by_key(&org, |(org, _)| *org).map_or(0, |place| held[place].1)
}

/// Whose a record is: an organisation is that of the one above it, which made it.
fn owner(record: &Record) -> OrgId {
    match record {
        Record::Org(org) => org.parent.unwrap_or(org.id),
        Record::Role(role) => role.org,
        Record::User(user) => user.owner(),
        Record::Application(application) => application.org,
        Record::ThingDef(def) => def.org,
        Record::Webhook(webhook) => webhook.org,
    }
}

#[cfg(test)]
mod tests {
    use base::{RoleId, UserId};
    use rules::identity::model::{Membership, Org, Role, User};
    use rules::identity::{Invite, Inviter};

    use super::super::Effects;
    use super::super::tests::{NOW, demo};
    use super::*;

    #[tokio::test]
    async fn records_that_grow_take_room_and_give_it_back() {
        let (app, _) = demo();
        let used = || app.pools.usage(Pool::Records).used();
        let before = used();
        assert!(before > 0);
        let application = app.identity().application_by_token("demo-token-basicorg").expect("it");
        let mut large = rules::identity::model::Application::clone(&application);
        large.desc = "x".repeat(1000);
        let put = |record: rules::identity::model::Application| {
            Effects::from(app.identity().turn().put(record))
        };
        app.apply(put(large.clone()), NOW).await.stored.expect("room");
        assert_eq!(used(), before + 1000 - application.desc.len() as u64);
        app.record_space.0.lock().shares.set_max(1000);
        large.desc.push('x');
        let refused = app.apply(put(large), NOW).await.stored;
        assert_eq!(refused.expect_err("it has grown").code, base::Code::LIMIT_REACHED);
        app.apply(put((*application).clone()), NOW).await.stored.expect("it shrinks");
        assert_eq!(used(), before);
    }

    fn space(users: Vec<User>) -> RecordSpace {
        RecordSpace::new(&Records { users, ..Records::default() }, &Arc::default())
    }

    fn user(home: OrgId) -> User {
        User::bare(UserId::from_bytes([1; 12]), "a@b".into(), home)
    }

    const HOME: OrgId = OrgId::from_bytes([1; 12]);
    const OTHER: OrgId = OrgId::from_bytes([2; 12]);

    /// Without a right.
    fn terms(org: OrgId, tags: &[&str]) -> Membership {
        Membership {
            org,
            roles: Vec::new(),
            org_admin: false,
            sub_orgs: false,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            added_on: NOW,
            added_by: "c@d".into(),
        }
    }

    #[test]
    fn what_a_user_is_elsewhere_counts_there() {
        let bare = user(HOME);
        let alone = space(vec![bare.clone()]).0.lock().shares.held_by(HOME);
        let long = "x".repeat(1000);
        let mut invited = bare;
        let by = Inviter::User(invited.id);
        invited.invites.push(Invite { id: invited.id, terms: terms(OTHER, &[&long]), by });
        invited.memberships.push(terms(OTHER, &[&long]));
        invited.memberships.push(terms(HOME, &[]));
        let shares = &space(vec![invited]).0.into_inner().shares;
        assert!(shares.held_by(OTHER) > 2000);
        assert!((alone..alone + 500).contains(&shares.held_by(HOME)));
    }

    #[tokio::test]
    async fn what_comes_with_an_organisation_counts_for_its_tenant() {
        let (app, _) = demo();
        let basic = app.identity().org_by_key("BasicOrg").expect("an organisation");
        let root = basic.parent.expect("one above");
        let device = app.identity().role_by_key(basic.id, "device").expect("a role").role.clone();
        let make = |number: u8, parent: OrgId| {
            let id = OrgId::from_bytes([number; 12]);
            let (key, slug) = (format!("Org{number}"), format!("org-{number}"));
            let org = Org { id, key, slug, parent: Some(parent), ..Org::clone(&basic) };
            let role = Role { id: RoleId::from_bytes([number; 12]), org: id, ..device.clone() };
            [Record::from(org), role.into()]
        };
        let below = async |number: u8, parent: OrgId| {
            let effects = app.identity().turn().put_all(make(number, parent));
            app.apply(effects.into(), NOW).await.stored
        };
        // The organisation fits into what the tenant may have, its role does not.
        let [org, role] = make(1, basic.id).map(|record| records::sized_row(&record).2);
        let usable = app.pools.usage(Pool::Records).used() + org + role / 2;
        app.record_space.0.lock().shares.set_max(usable * 16 / 15);
        let refused = below(1, basic.id).await.expect_err("the tenant has its share");
        assert_eq!(refused.code, base::Code::LIMIT_REACHED);
        let one = OrgId::from_bytes([1; 12]);
        assert_eq!(app.pools.tenant_of(one), one, "nothing is left of it");
        app.record_space.0.lock().shares.set_max(limits::RECORDS_BYTES_MAX);
        below(2, basic.id).await.expect("room");
        assert_eq!(app.pools.tenant_of(OrgId::from_bytes([2; 12])), basic.id);
        below(3, root).await.expect("room");
    }
}
