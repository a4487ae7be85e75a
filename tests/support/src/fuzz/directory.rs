//! Steps on the session directory, and on a plain list of sessions that is searched from end to end.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ConnInfo, OrgId, Protocol, SessionId, SessionUuid, Timestamp, UserId};
use rules::directory::query::Query;
use rules::directory::{
    DirectoryConfig, DirectoryWriter, Event, Events, Full, Lifetime, Reason, Session, Start, Who,
};
use rules::identity::permission::PermissionSet;
use rules::identity::{Access, TopicRights};
use serde_json::json;

use super::Target;

const TTL_S: u64 = 100;
const MAX_AGE_S: u64 = 300;
const HISTORY_AGE_S: u64 = 1000;
const SESSIONS_MAX: usize = 40;
const SIBLINGS_MAX: usize = 6;
const HISTORY_MAX: usize = 8;

/// Steps of one input.
const STEPS_MAX: usize = 300;

/// Steps between looks at everything, which take longest.
const COMPARE_EVERY: usize = 8;

/// Organisations, and principals who are in each of them.
const ORGS: u8 = 3;
const OWNERS: u8 = 4;

/// A directory, made anew for each input. Each three bytes are a step: what it is, and about whom.
pub struct DirectorySteps;

impl Target for DirectorySteps {
    const NAME: &'static str = "directory";

    fn new() -> Self {
        Self
    }

    fn check(&mut self, data: &[u8]) {
        let mut model = Model::new();
        for (number, step) in data.chunks_exact(3).take(STEPS_MAX).enumerate() {
            // Each in a time of its own, so that their order is known.
            model.now = model.now.plus_millis(1);
            model.step(number as u64, [step[0], step[1], step[2]]);
            if number % COMPARE_EVERY == 0 {
                model.compare();
            }
        }
        model.compare();
    }
}

/// What a naive directory remembers of a session.
struct Remembered {
    session: Arc<Session>,
    org: u8,
    owner: u8,
    bound: bool,
    started: Timestamp,
    used: Timestamp,
}

struct Model {
    directory: DirectoryWriter,
    now: Timestamp,
    /// In the order of their starts.
    live: Vec<Remembered>,
    /// All that ended, and whether they are still known.
    ended: BTreeMap<SessionUuid, (Arc<Session>, bool)>,
}

impl Model {
    fn new() -> Self {
        let config = DirectoryConfig {
            ttl_s: TTL_S,
            max_age_s: MAX_AGE_S,
            sessions_max: SESSIONS_MAX,
            per_principal_max: SIBLINGS_MAX,
            history_max: HISTORY_MAX,
            history_age_s: HISTORY_AGE_S,
        };
        let now = Timestamp::from_millis(1_000_000);
        let directory = DirectoryWriter::new(config, &Arc::default(), now);
        Self { directory, now, live: Vec::new(), ended: BTreeMap::new() }
    }

    fn step(&mut self, number: u64, [what, who, more]: [u8; 3]) {
        let nth = usize::from(who) % self.live.len().max(1);
        match (what % 8, self.live.get(nth)) {
            (0..=2, _) => self.start(number, who, more),
            (3, Some(one)) => {
                let session = one.session.clone();
                let events = self.directory.end(&session, Reason::LoggedOut, self.now);
                self.note(&events, 1);
                assert!(self.directory.end(&session, Reason::Revoked, self.now).is_empty());
            }
            (4, Some(_)) => {
                let org = more % ORGS;
                let one = &mut self.live[nth];
                let events = self.directory.switch(&one.session, access(org), self.now);
                assert!(matches!(&*events, [Event::Switched(..)]), "{events:?}");
                one.org = org;
            }
            (5, Some(_)) => {
                let one = &mut self.live[nth];
                one.session.touch(self.now, 1);
                one.used = self.now;
            }
            (6, _) => self.wait(more),
            (7, _) => self.revoke(who),
            (_, None) => {}
            (8.., _) => unreachable!("there are eight"),
        }
    }

    fn start(&mut self, number: u64, who: u8, more: u8) {
        let (owner, org) = (who % OWNERS, who / OWNERS % ORGS);
        let (bound, takes_over) = (more & 1 == 0, more & 3 == 2);
        let takes_over = takes_over && bound;
        let siblings = || self.live.iter().filter(|one| one.owner == owner);
        let replaced = siblings().filter(|one| takes_over && one.bound).count();
        let is_full = siblings().count() - replaced >= SIBLINGS_MAX;
        let unbound = siblings().filter(|one| !one.bound).count();
        let start = start_of(number, owner, org, bound, self.now);
        match self.directory.start(start, takes_over, self.now) {
            Ok((session, events)) => {
                assert!(!is_full || unbound > 0, "the login has all its sessions");
                let last = events.last();
                assert!(matches!(last, Some(Event::Started(new)) if Arc::ptr_eq(new, &session)));
                self.note(&events, replaced + usize::from(is_full));
                let (started, used) = (self.now, self.now);
                self.live.push(Remembered { session, org, owner, bound, started, used });
                assert!(self.live.len() <= SESSIONS_MAX || replaced > 0);
            }
            Err(Full::Login) => assert!(is_full && unbound == 0),
            Err(Full::Sessions(_)) => {
                // A part for each organisation and the next, and in each for its people.
                let part = SESSIONS_MAX / (usize::from(ORGS) + 1) / (usize::from(OWNERS) + 1);
                let own = |one: &&Remembered| one.org == org && one.owner == owner;
                let is_below = self.live.iter().filter(own).count() < part;
                let in_org = self.live.iter().filter(|one| one.org == org).count();
                let org_is_below = in_org < SESSIONS_MAX / (usize::from(ORGS) + 1);
                let room = self.live.len() < SESSIONS_MAX;
                assert!(!(is_below && org_is_below && room), "it was below its share");
            }
        }
    }

    /// Time passes, and what is due ends.
    fn wait(&mut self, tens: u8) {
        self.now = self.now.plus_millis(i64::from(tens % 16) * 10_000);
        // The wheel turns by seconds.
        self.now = Timestamp::from_millis((self.now.as_millis() / 1000 + 2) * 1000);
        loop {
            let (events, more) = self.directory.expire(self.now, 3);
            self.note(&events, events.iter().filter(|e| matches!(e, Event::Ended(..))).count());
            if !more {
                break;
            }
        }
        for one in &self.live {
            let idle = one.used.plus_seconds(TTL_S);
            let end = match one.bound {
                true => idle,
                false => idle.min(one.started.plus_seconds(MAX_AGE_S)),
            };
            let late = self.now.millis_since(end);
            assert!(late < 2000, "due {late} ms ago");
        }
        let events = self.directory.prune(self.now, usize::MAX);
        self.note(&events, 0);
    }

    fn revoke(&mut self, who: u8) {
        let nth = usize::from(who) % (self.live.len() + self.ended.len()).max(1);
        let mut all = self.live.iter().map(|one| &one.session);
        let session = match all.nth(nth) {
            Some(live) => live.clone(),
            None => match self.ended.values().nth(nth - self.live.len()) {
                Some((ended, _)) => ended.clone(),
                None => return,
            },
        };
        let lives = session.end().is_none();
        let events = self.directory.revoke(&session, self.now);
        self.note(&events, usize::from(lives));
    }

    /// Takes over what events say: so many sessions ended.
    fn note(&mut self, events: &Events, ends: usize) {
        let mut ended = 0;
        for event in events.iter() {
            match event {
                Event::Ended(session, _) => {
                    let place = self.live.iter().position(|o| Arc::ptr_eq(&o.session, session));
                    self.live.remove(place.expect("it lived"));
                    self.ended.insert(session.uuid(), (session.clone(), true));
                    ended += 1;
                }
                Event::Forgotten(session) => {
                    let known = self.ended.get_mut(&session.uuid()).expect("it has ended");
                    assert!(std::mem::replace(&mut known.1, false), "forgotten twice");
                }
                _ => {}
            }
        }
        assert_eq!(ended, ends, "{events:?}");
    }

    fn compare(&self) {
        let directory = &self.directory;
        assert_eq!(directory.len(), self.live.len());
        for owner in 0..OWNERS {
            let expected = self.live.iter().filter(|one| one.owner == owner).count();
            assert_eq!(directory.of_principal(&user(owner).principal()).len(), expected);
        }
        for org in 0..ORGS {
            let expected: Vec<_> = self.live.iter().rev().filter(|one| one.org == org).collect();
            let expected: Vec<_> = expected.iter().map(|one| one.session.uuid()).collect();
            let listed = |offset, limit| {
                let query = Query { offset, limit, ..Query::default() };
                let listing = directory.list(org_id(org), &query);
                assert_eq!(listing.count, expected.len());
                listing.sessions.iter().map(|one| one.uuid()).collect::<Vec<_>>()
            };
            assert_eq!(listed(0, 1000), expected);
            assert_eq!(listed(1, 2), *expected.iter().skip(1).take(2).copied().collect::<Vec<_>>());
        }
        for (uuid, (session, known)) in &self.ended {
            assert!(session.end().is_some());
            assert!(directory.get(&session.reference()).is_none());
            assert_eq!(directory.by_uuid(*uuid).is_some(), *known, "of {uuid:?}");
        }
        assert!(self.ended.values().filter(|(_, known)| *known).count() <= HISTORY_MAX);
    }
}

fn org_id(org: u8) -> OrgId {
    OrgId::from_bytes([org; 12])
}

fn access(org: u8) -> Arc<Access> {
    let org = json!({
        "id": org_id(org), "key": format!("Org{org}"), "slug": "", "name": "", "parent": null,
        "created_on": Timestamp::default(),
    });
    Arc::new(Access {
        org: Arc::new(serde_json::from_value(org).expect("an organisation")),
        permissions: PermissionSet::ALL,
        topic_publish: TopicRights::all(),
        topic_subscribe: TopicRights::all(),
        super_admin: false,
        super_ops: false,
        org_admin: false,
        restricted_to_self: false,
        role_keys: Vec::new(),
        allow_sub_org_access: None,
        limit: None,
    })
}

fn user(number: u8) -> Who {
    let user = json!({
        "id": UserId::from_bytes([number; 12]), "email": format!("user{number}@example.com"),
        "password_hash": "", "first_name": "", "last_name": "", "home": org_id(0),
        "memberships": [], "super_admin": false, "super_ops": false, "locale": "",
        "created_on": Timestamp::default(),
    });
    Who::User(Arc::new(serde_json::from_value(user).expect("a user")))
}

fn start_of(number: u64, owner: u8, org: u8, bound: bool, now: Timestamp) -> Start {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let lifetime = match bound {
        true => Lifetime::Connection,
        false => Lifetime::Until(now.plus_seconds(MAX_AGE_S)),
    };
    Start {
        id: SessionId::from_random(id),
        who: user(owner),
        token: None,
        client_id: "client".into(),
        access: access(org),
        conn: ConnInfo::new(Protocol::Mqtt, ([127, 0, 0, 1], 1).into()),
        link: rules::directory::Link::default(),
        user_agent: None,
        definition: None,
        lifetime,
        outbox: None,
    }
}
