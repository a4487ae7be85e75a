//! The directory against a model: a plain list of sessions, searched from end to end.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::pool::Whose;
use base::{ConnInfo, OrgId, Protocol, SessionId, ThingId, ThingKey, UserId};
use proptest::prelude::*;
use serde_json::json;

use super::query::{Filter, Query, SortKey};
use super::text::AddressPrefix;
use super::wheel::Wheel;
use super::*;
use crate::identity::TopicRights;
use crate::identity::permission::PermissionSet;

const TTL_S: u64 = 100;
const MAX_AGE_S: u64 = 300;

pub(super) fn config() -> DirectoryConfig {
    DirectoryConfig {
        ttl_s: TTL_S,
        max_age_s: MAX_AGE_S,
        sessions_max: 1000,
        per_principal_max: 1000,
        history_max: 5,
        history_age_s: 1000,
    }
}

pub(super) fn access(org: u8) -> Arc<Access> {
    let id = OrgId::from_bytes([org; 12]);
    let org = json!({
        "id": id, "key": format!("Org{org}"), "slug": "", "name": "", "parent": null,
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

pub(super) fn user(number: u8) -> Who {
    let user = json!({
        "id": UserId::from_bytes([number; 12]), "email": format!("user{number}@example.com"),
        "password_hash": "", "first_name": "", "last_name": "",
        "home": OrgId::from_bytes([0; 12]), "memberships": [], "super_admin": false,
        "super_ops": false, "locale": "", "created_on": Timestamp::default(),
    });
    Who::User(Arc::new(serde_json::from_value(user).expect("a user")))
}

pub(super) fn thing(number: u8) -> Who {
    let application = json!({
        "id": base::ApplicationId::from_bytes([1; 12]), "name": "app",
        "org": OrgId::from_bytes([0; 12]), "token_id": base::TokenId::from_bytes([2; 12]),
        "token_name": "token", "token_hash": vec![0; 32], "roles": [], "auto_register": true,
        "auto_register_def": null, "auto_register_tags": [], "restrict_access_to_self": false,
        "org_admin": false, "created_on": Timestamp::default(),
    });
    Who::Application {
        application: Arc::new(serde_json::from_value(application).expect("an application")),
        thing_id: ThingId::from_bytes([number; 12]),
        thing_key: ThingKey::parse(&format!("thing-{number}")).expect("a key"),
    }
}

fn conn(port: u16) -> ConnInfo {
    ConnInfo::new(Protocol::Mqtt, ([127, 0, 0, 1], port).into())
}

pub(super) fn start(number: u64, who: Who, org: u8, bound: bool, now: Timestamp) -> Start {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let lifetime = match bound {
        true => Lifetime::Connection,
        false => Lifetime::Until(now.plus_seconds(MAX_AGE_S)),
    };
    Start {
        id: SessionId::from_random(id),
        who,
        token: None,
        client_id: "client".into(),
        access: access(org),
        conn: conn(1),
        link: Link::default(),
        user_agent: None,
        definition: None,
        lifetime,
        outbox: None,
    }
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(second * 1000)
}

/// How many sessions left the history.
fn forgotten(events: &Events) -> usize {
    events.iter().filter(|event| matches!(event, Event::Forgotten(_))).count()
}

fn page(offset: usize, limit: usize) -> Query {
    Query { offset, limit, ..Query::default() }
}

/// What a naive directory remembers of a session.
#[derive(Clone)]
struct Remembered {
    session: Arc<Session>,
    org: u8,
    owner: u8,
    bound: bool,
    started: Timestamp,
    used: Timestamp,
}

#[derive(Debug, Clone)]
enum Step {
    Start { owner: u8, org: u8, bound: bool, takes_over: bool },
    End { nth: usize },
    Switch { nth: usize, org: u8 },
    Touch { nth: usize },
    Wait { seconds: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, 0..3_u8, any::<bool>(), any::<bool>()).prop_map(
            |(owner, org, bound, takes_over)| Step::Start { owner, org, bound, takes_over }
        ),
        2 => any::<usize>().prop_map(|nth| Step::End { nth }),
        2 => (any::<usize>(), 0..3_u8).prop_map(|(nth, org)| Step::Switch { nth, org }),
        2 => any::<usize>().prop_map(|nth| Step::Touch { nth }),
        2 => (0..12_i64).prop_map(|tens| Step::Wait { seconds: 10 * tens }),
    ]
}

fn nth(live: &[Remembered], nth: usize) -> Option<usize> {
    (!live.is_empty()).then(|| nth % live.len())
}

proptest! {
    #[test]
    fn it_does_what_a_naive_one_does(steps in prop::collection::vec(step(), 0..80)) {
        let directory = DirectoryWriter::new(config(), &Arc::default(), at(0));
        let mut live: Vec<Remembered> = Vec::new();
        let mut ended: Vec<Arc<Session>> = Vec::new();
        let mut now = at(0);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Start { owner, org, bound, takes_over } => {
                    let takes_over = takes_over && bound;
                    if takes_over {
                        let replaced = |r: &Remembered| r.owner == owner && r.bound;
                        ended.extend(live.iter().filter(|r| replaced(r)).map(|r| r.session.clone()));
                        live.retain(|r| !replaced(r));
                    }
                    let start = start(number as u64, user(owner), org, bound, now);
                    let (session, changes) =
                        directory.start(start, takes_over, now).expect("room");
                    let last = changes.last();
                    prop_assert!(matches!(last, Some(Event::Started(s)) if Arc::ptr_eq(s, &session)));
                    live.push(Remembered { session, org, owner, bound, started: now, used: now });
                }
                Step::End { nth: n } => if let Some(n) = nth(&live, n) {
                    let gone = live.remove(n);
                    let changes = directory.end(&gone.session, Reason::LoggedOut, now);
                    prop_assert_eq!(changes.len() - forgotten(&changes), 1);
                    let again = directory.end(&gone.session, Reason::Revoked, now);
                    prop_assert!(again.is_empty());
                    ended.push(gone.session);
                },
                Step::Switch { nth: n, org } => if let Some(n) = nth(&live, n) {
                    drop(directory.switch(&live[n].session, access(org), now));
                    live[n].org = org;
                },
                Step::Touch { nth: n } => if let Some(n) = nth(&live, n) {
                    live[n].session.touch(now, 1);
                    live[n].used = now;
                },
                Step::Wait { seconds } => {
                    now = now.plus_millis(seconds * 1000);
                    // All times are tens of seconds: half-way between them nothing is due just now.
                    let later = now.plus_millis(5000);
                    while directory.expire(later, 3).1 {}
                    let is_over = |r: &Remembered| {
                        let idle = r.used.plus_seconds(TTL_S);
                        let end = if r.bound { idle } else {
                            idle.min(r.started.plus_seconds(MAX_AGE_S))
                        };
                        end <= now
                    };
                    ended.extend(live.iter().filter(|r| is_over(r)).map(|r| r.session.clone()));
                    live.retain(|r| !is_over(r));
                }
            }
            compare(&directory, &live)?;
        }
        for session in &ended {
            prop_assert!(session.end().is_some());
            prop_assert!(directory.get(&session.reference()).is_none());
        }
    }
}

fn compare(directory: &Directory, live: &[Remembered]) -> Result<(), TestCaseError> {
    prop_assert_eq!(directory.len(), live.len());
    let mut by_owner: BTreeMap<u8, usize> = BTreeMap::new();
    live.iter().for_each(|r| *by_owner.entry(r.owner).or_default() += 1);
    for owner in 0..4 {
        let found = directory.of_principal(&user(owner).principal()).len();
        prop_assert_eq!(found, by_owner.get(&owner).copied().unwrap_or(0));
    }
    for org in 0..3 {
        let id = OrgId::from_bytes([org; 12]);
        let mut expected: Vec<_> = live.iter().filter(|r| r.org == org).collect();
        expected.sort_by_key(|r| std::cmp::Reverse(r.session.order()));
        let expected: Vec<_> = expected.iter().map(|r| r.session.reference()).collect();
        let refs = |query: &Query| {
            let listing = directory.list(id, query);
            (listing.count, listing.sessions.iter().map(|s| s.reference()).collect::<Vec<_>>())
        };
        prop_assert_eq!(refs(&page(0, 1000)), (expected.len(), expected.clone()));
        let middle: Vec<_> = expected.iter().skip(1).take(2).copied().collect();
        prop_assert_eq!(refs(&page(1, 2)), (expected.len(), middle));
        let ascending = Query { ascending: true, ..page(0, 1000) };
        let reversed: Vec<_> = expected.iter().rev().copied().collect();
        prop_assert_eq!(refs(&ascending), (expected.len(), reversed));
    }
    Ok(())
}

#[test]
fn the_history_keeps_the_last_that_ended() {
    let directory = DirectoryWriter::new(config(), &Arc::default(), at(0));
    for number in 0..8 {
        let start = start(number, user(1), 1, true, at(number as i64));
        let (session, _) = directory.start(start, false, at(number as i64)).expect("room");
        let changes = directory.end(&session, Reason::LoggedOut, at(number as i64));
        assert_eq!(forgotten(&changes), usize::from(number >= 5));
    }
    let ended = Filter { status: Some(vec![Status::LoggedOut]), ..Filter::default() };
    let query = Query { filter: ended, ..page(0, 100) };
    let listing = directory.list(OrgId::from_bytes([1; 12]), &query);
    assert_eq!(listing.count, 5);
    assert_eq!(listing.sessions[0].started(), at(7));
    assert_eq!(directory.prune(at(1005), 2).len(), 2);
    assert_eq!(directory.prune(at(1005), 2).len(), 1);
    assert_eq!(directory.list(OrgId::from_bytes([1; 12]), &query).count, 2);
}

#[test]
fn who_logs_in_without_end_pushes_nobody_elses_end_out_of_the_history() {
    let directory = DirectoryWriter::new(config(), &Arc::default(), at(0));
    let end = |number: u64, who: u8, org: u8| {
        let start = start(number, user(who), org, true, at(number as i64));
        let (session, _) = directory.start(start, false, at(number as i64)).expect("room");
        directory.end(&session, Reason::LoggedOut, at(number as i64))
    };
    let ended_in = |org: u8| {
        let status = Some(vec![Status::LoggedOut]);
        let query = Query { filter: Filter { status, ..Filter::default() }, ..page(0, 100) };
        directory.list(OrgId::from_bytes([org; 12]), &query).count
    };
    for number in 0..2 {
        drop(end(number, 1, 1));
    }
    drop(end(2, 2, 2));
    for number in 3..50 {
        assert_eq!(forgotten(&end(number, 3, 3)), usize::from(number >= 5));
    }
    assert_eq!([ended_in(1), ended_in(2), ended_in(3)], [2, 1, 2]);
    // Nobody has more than this one would have: it loses its own oldest.
    drop(end(50, 2, 2));
    assert_eq!([ended_in(1), ended_in(2), ended_in(3)], [2, 1, 2]);
}

#[test]
fn an_organisation_and_a_principal_have_a_share_of_the_directory() {
    let directory = DirectoryWriter::new(
        DirectoryConfig { sessions_max: 64, ..config() },
        &Arc::default(),
        at(0),
    );
    let begin = |number: u64, who: u8, org: u8| {
        directory.start(start(number, user(who), org, false, at(0)), false, at(0))
    };
    let over = |whose| Full::Sessions(OverShare { pool: Pool::Sessions, whose });
    let mut begun = 0;
    let refused = loop {
        match begin(begun, 1, 1) {
            Ok(_) => begun += 1,
            Err(full) => break full,
        }
    };
    assert_eq!((begun, refused), (54, over(Whose::Principal)));
    let (other, _) = begin(100, 2, 1).expect("the principal is below its share");
    let mut begun = 0;
    let refused = loop {
        match begin(200 + begun, 1, 2) {
            Ok(_) => begun += 1,
            Err(full) => break full,
        }
    };
    assert_eq!((begun, refused), (9, over(Whose::Everybody)));
    drop(directory.end(&other, Reason::LoggedOut, at(0)));
    assert!(begin(300, 2, 2).is_ok(), "there is room again");
}

#[test]
fn filters_and_sorts() {
    let directory = DirectoryWriter::new(config(), &Arc::default(), at(0));
    for number in 0..6_u64 {
        let who = if number % 2 == 0 { user(number as u8) } else { thing(number as u8) };
        let mut start = start(number, who, 1, true, at(0));
        start.conn = conn(1000 + number as u16);
        let (session, _) = directory.start(start, false, at(number as i64)).expect("room");
        session.touch(at(100 - number as i64), number);
    }
    let org = OrgId::from_bytes([1; 12]);
    let check = |filter: Filter, expected: &[u64]| {
        let listing = directory.list(org, &Query { filter, ..page(0, 100) });
        let found: Vec<_> = listing.sessions.iter().map(|s| s.number()).collect();
        assert_eq!(found, expected);
        assert_eq!(listing.count, expected.len());
    };
    let all = Filter::default;
    check(Filter { kind: Some(Kind::User), ..all() }, &[4, 2, 0]);
    check(Filter { kind: Some(Kind::Application), ..all() }, &[5, 3, 1]);
    check(Filter { principal: Some(user(2).principal()), ..all() }, &[2]);
    check(Filter { app_name: Some("APP".to_owned()), ..all() }, &[5, 3, 1]);
    check(Filter { protocol: Some(Protocol::Http), ..all() }, &[]);
    check(Filter { remote_addr: Some(AddressPrefix::read("127.0.0.1:1003")), ..all() }, &[3]);
    check(Filter { started_after: Some(at(3)), ..all() }, &[5, 4]);
    check(Filter { started_before: Some(at(2)), ..all() }, &[1, 0]);
    check(Filter { started_after: Some(at(0)), started_before: Some(at(3)), ..all() }, &[2, 1]);
    let sorted = |sort, ascending| {
        let listing = directory.list(org, &Query { sort, ascending, ..page(0, 3) });
        listing.sessions.iter().map(|s| s.number()).collect::<Vec<_>>()
    };
    assert_eq!(sorted(SortKey::LastAccessed, true), [5, 4, 3]);
    assert_eq!(sorted(SortKey::CommandCount, false), [5, 4, 3]);
    assert_eq!(sorted(SortKey::WhoAmI, true), [1, 3, 5]);
    assert_eq!(sorted(SortKey::StartTime, true), [0, 1, 2]);
}

#[test]
fn large_organisations_are_cut_into_chunks() {
    let directory = DirectoryWriter::new(
        DirectoryConfig { sessions_max: 5000, ..config() },
        &Arc::default(),
        at(0),
    );
    let mut sessions = Vec::new();
    for number in 0..3000_u64 {
        let start = start(number, user((number % 200) as u8), 1, true, at(0));
        sessions.push(directory.start(start, false, at(number as i64)).expect("room").0);
    }
    // A session with an early start that comes late lands in the middle.
    let moved = sessions[700].clone();
    drop(directory.switch(&moved, access(2), at(3000)));
    drop(directory.switch(&moved, access(1), at(3000)));
    let org = OrgId::from_bytes([1; 12]);
    let listing = directory.list(org, &page(2000, 300));
    let found: Vec<_> = listing.sessions.iter().map(|s| s.number()).collect();
    assert_eq!(found, (700..1000).rev().collect::<Vec<_>>());
    assert_eq!(listing.count, 3000);
    assert!(directory.list(org, &page(3000, 10)).sessions.is_empty());
    assert!(directory.list(org, &page(usize::MAX, 10)).sessions.is_empty());
    for session in sessions.iter().filter(|session| session.number() % 7 != 0) {
        drop(directory.end(session, Reason::LoggedOut, at(3000)));
    }
    let listing = directory.list(org, &page(0, 10_000));
    let found: Vec<_> = listing.sessions.iter().map(|s| s.number()).collect();
    assert_eq!(found, (0..3000).rev().filter(|n| n % 7 == 0).collect::<Vec<_>>());
}

#[test]
fn a_full_directory_takes_no_more() {
    let directory = DirectoryWriter::new(
        DirectoryConfig { sessions_max: 1, ..config() },
        &Arc::default(),
        at(0),
    );
    assert!(directory.start(start(1, user(1), 1, true, at(0)), false, at(0)).is_ok());
    assert!(directory.start(start(2, user(2), 1, true, at(0)), false, at(0)).is_err());
}

#[test]
fn a_session_follows_its_rights_where_it_is() {
    let directory = DirectoryWriter::new(config(), &Arc::default(), at(0));
    let (session, _) =
        directory.start(start(1, user(1), 1, false, at(0)), false, at(0)).expect("room");
    let org = OrgId::from_bytes([1; 12]);
    assert_eq!(directory.in_org(org).len(), 1);
    assert!(directory.any_in_org(org, |s| s.number() == session.number()));
    let refresh = |access: Result<Access, Reason>| {
        directory.refresh(&session, at(5), |who, asked| {
            assert_eq!((who.name(), asked), ("user1@example.com", org));
            access
        })
    };
    let same = Access::clone(&session.access());
    assert!(refresh(Ok(same.clone())).is_empty());
    let less = Access { permissions: PermissionSet::EMPTY, ..same };
    let changes = refresh(Ok(less.clone()));
    assert!(matches!(&changes[..], [Event::RightsChanged(_)]));
    assert_eq!(*session.access(), less);
    let changes = refresh(Err(Reason::Revoked));
    assert!(matches!(&changes[..], [Event::Ended(_, Reason::Revoked)]));
    assert!(directory.in_org(org).is_empty() && session.status() == Status::Revoked);
    assert!(directory.refresh(&session, at(6), |_, _| Err(Reason::Revoked)).is_empty());
}

#[test]
fn a_login_has_so_many_sessions_and_the_oldest_over_http_goes_first() {
    let config = DirectoryConfig { per_principal_max: 3, ..config() };
    let directory = DirectoryWriter::new(config, &Arc::default(), at(0));
    let begin = |number: u64, bound, takes_over| {
        let now = at(number as i64);
        directory.start(start(number, user(1), 1, bound, now), takes_over, now)
    };
    let replaced = |number: u64, bound, takes_over| {
        let (_, changes) = begin(number, bound, takes_over).expect("room");
        let ended = changes.iter().filter_map(|event| match event {
            Event::Ended(session, Reason::Replaced) => Some(session.number()),
            _ => None,
        });
        ended.collect::<Vec<_>>()
    };
    for (number, bound) in [(0, true), (1, false), (2, false)] {
        assert!(replaced(number, bound, false).is_empty());
    }
    assert_eq!(replaced(3, false, false), [1]);
    assert_eq!(replaced(4, true, false), [2]);
    assert_eq!(replaced(5, true, false), [3]);
    assert!(begin(6, false, false).is_err(), "all are bound to connections");
    assert_eq!(directory.len(), 3);
    assert_eq!(directory.count(OrgId::from_bytes([1; 12])), 3, "the refused one is nowhere");
    // The refused one took a number.
    assert_eq!(replaced(7, true, true), [0, 4, 5], "the client id's own do not count");
    let other = directory.start(start(8, user(2), 1, false, at(8)), false, at(8));
    assert!(other.is_ok_and(|(_, changes)| changes.len() == 1), "nobody else's");
}

#[test]
fn a_session_is_admitted_so_many_times_a_second() {
    let session = Session::new(start(1, user(1), 1, true, at(0)), 0, TTL_S, at(0));
    let admitted = |second| (0..5).filter(|_| session.admit(at(second), 3)).count();
    assert_eq!(admitted(1), 3);
    assert_eq!(admitted(1), 0);
    assert_eq!(admitted(2), 3);
    assert!((0..1000).all(|_| session.admit(at(3), 0)));
}

proptest! {
    #[test]
    fn the_wheel_lets_go_in_time_and_never_early(
        times in prop::collection::vec((1_i64..10_000, any::<bool>()), 1..60),
        steps in prop::collection::vec(1_i64..3000, 1..20),
    ) {
        let mut wheel = Wheel::new(0);
        let mut armed = Vec::new();
        for (number, (due, removed)) in times.iter().enumerate() {
            let start = start(number as u64, user(1), 1, true, at(0));
            let session = Arc::new(Session::new(start, number as u64, TTL_S, at(0)));
            wheel.insert(*due, session.clone());
            if *removed {
                wheel.remove(&session);
                wheel.remove(&session);
            } else {
                armed.push((*due, number as u64));
            }
        }
        prop_assert_eq!(wheel.len(), armed.len());
        let mut now = 0;
        for step in steps {
            now += step;
            let mut popped = Vec::new();
            while let Some(session) = wheel.pop(now) {
                popped.push(session.number());
            }
            popped.sort_unstable();
            let mut due: Vec<_> =
                armed.iter().filter(|(due, _)| *due <= now).map(|(_, number)| *number).collect();
            due.sort_unstable();
            prop_assert_eq!(popped, due);
            armed.retain(|(due, _)| *due > now);
        }
        prop_assert_eq!(wheel.len(), armed.len());
    }
}

#[test]
fn a_login_is_paged_through_while_its_sessions_come_and_go() {
    let directory = DirectoryWriter::new(
        DirectoryConfig { history_max: 100, ..config() },
        &Arc::default(),
        at(0),
    );
    let begin = |number: u64| {
        let (session, _) = directory
            .start(
                start(number, user(1), 0, false, at(number as i64 / 10)),
                false,
                at(number as i64 / 10),
            )
            .expect("room");
        session
    };
    let sessions: Vec<_> = (0..50).map(begin).collect();
    let (mut seen, mut mark, mut number) = (Vec::new(), None, 50);
    loop {
        let page = directory.page_of_principal(&user(1).principal(), mark, 7);
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 7 && page.is_sorted_by_key(|session| Reverse(session.mark())));
        mark = Some(last.mark());
        seen.extend(page.iter().map(|session| session.uuid()));
        // Every second one of those seen and not seen ends; new ones start.
        for session in sessions.iter().skip(number as usize % 2).step_by(4) {
            drop(directory.end(session, Reason::LoggedOut, at(20)));
        }
        begin(number);
        number += 1;
    }
    let mut expected: Vec<_> = sessions.iter().map(|session| session.mark()).collect();
    expected.sort_by_key(|mark| Reverse(*mark));
    assert_eq!(seen, expected.iter().map(|mark| mark.uuid).collect::<Vec<_>>());
    let mut lasting = directory.page_of_principal(&user(1).principal(), None, 1000);
    lasting.retain(|session| session.end().is_none());
    assert_eq!(lasting.len(), directory.of_principal(&user(1).principal()).len());
    assert!(directory.page_of_principal(&user(2).principal(), None, 100).is_empty());
}

#[test]
fn what_has_ended_can_be_revoked_and_keeps_its_time() {
    let directory = DirectoryWriter::new(
        DirectoryConfig { history_max: 1, ..config() },
        &Arc::default(),
        at(0),
    );
    let begin = |number| {
        let start = start(number, user(1), 0, false, at(0));
        directory.start(start, false, at(0)).expect("room").0
    };
    let (first, second) = (begin(1), begin(2));
    let known = |session: &Arc<Session>| directory.by_uuid(session.uuid()).is_some();
    drop(directory.end(&first, Reason::LoggedOut, at(1)));
    assert!(known(&first) && known(&second));
    let changes = directory.revoke(&first, at(2));
    assert!(matches!(&changes[..], [Event::Revoked(_)]));
    assert_eq!(first.status(), Status::Revoked);
    assert_eq!(first.end(), Some(End { reason: Reason::Revoked, at: at(1) }));
    let again = directory.revoke(&first, at(3));
    assert!(matches!(again[..], [Event::Revoked(_)]), "to be stored again");

    let changes = directory.revoke(&second, at(4));
    assert!(matches!(&changes[..], [Event::Ended(_, Reason::Revoked), Event::Forgotten(_)]));
    assert_eq!(second.end(), Some(End { reason: Reason::Revoked, at: at(4) }));
    assert!(!known(&first) && known(&second), "the history has room for one");
    drop(directory.revoke(&first, at(5)));
    assert_eq!(directory.page_of_principal(&user(1).principal(), None, 9).len(), 1);
}

#[test]
fn sessions_keep_the_idle_time_with_which_they_began() {
    let directory = DirectoryWriter::new(config(), &Arc::default(), at(0));
    let begin = |number: u64, bound: bool| {
        let start = start(number, user(1), 1, bound, at(0));
        directory.start(start, false, at(0)).expect("room").0
    };
    let usual = begin(1, true);
    directory.set_ttl_s(0);
    let (bound, free) = (begin(2, true), begin(3, false));
    assert_eq!((usual.ttl_s(), bound.ttl_s(), free.ttl_s()), (TTL_S, 0, 0));
    assert_eq!(bound.deadline().0, Timestamp::NEVER);
    assert_eq!(directory.wheel.lock().len(), 2, "what is never due needs no timer");
    assert_eq!(free.deadline(), (at(MAX_AGE_S as i64), Reason::MaxAge));
    for second in (0..=3 * MAX_AGE_S as i64).step_by(50) {
        drop(directory.expire(at(second), usize::MAX));
    }
    let reason = |session: &Session| session.end().map(|end| end.reason);
    assert_eq!(reason(&usual), Some(Reason::Idle));
    assert_eq!((reason(&free), reason(&bound)), (Some(Reason::MaxAge), None));
    directory.set_ttl_s(60);
    assert_eq!(begin(4, false).ttl_s(), 60);
}

#[test]
fn own_sessions_are_logged_out_and_others_revoked() {
    let directory = DirectoryWriter::new(config(), &Arc::default(), at(0));
    let begin = |number: u64, who: Who| {
        directory.start(start(number, who, 1, false, at(0)), false, at(0)).expect("room").0
    };
    let (own, other) = (begin(1, user(1)), begin(2, thing(1)));
    let by = user(1).principal();
    for session in [&own, &other] {
        assert_eq!(directory.end_for(session, &by, at(1)).len(), 1);
        assert!(directory.end_for(session, &by, at(2)).is_empty());
    }
    let end = |reason| Some(End { reason, at: at(1) });
    assert_eq!((own.end(), other.end()), (end(Reason::LoggedOut), end(Reason::Revoked)));
}
