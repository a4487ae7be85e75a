//! Tests of the whole of [`App`].

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{ConnInfo, OrgId, Protocol, SessionId, SessionRef, ThingId, ThingKey, limits};
use rules::directory::{Event, Reason};
use rules::directory::{Outbox, Start, Who};
use rules::identity::model::User;
use store::{Row, Store, Table, watched::Watched};

use super::*;
use crate::things::registry::Thing;
use crate::things::telemetry::NewPoint;
use crate::things::telemetry::point::{Kind, Value};
use crate::tr50::commands::COMMANDS;
use crate::tr50::dispatch::{Caller, execute};
use crate::tr50::envelope::Request;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);

/// The server of the demo, on a store that is watched.
pub(crate) fn demo() -> (Arc<App>, Arc<Watched>) {
    demo_with(Config::default())
}

/// The same, with another configuration.
pub(crate) fn demo_with(mut config: Config) -> (Arc<App>, Arc<Watched>) {
    let bootstrap = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml");
    config.server.bootstrap = Some(bootstrap);
    let store = Arc::new(Watched::default());
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    let app = App::open(config, store.clone(), &names, Some(Arc::new(NOW)));
    let app = app.expect("the demo's file is right");
    store.largest.store(0, Ordering::Relaxed);
    (app.share(), store)
}

pub(crate) async fn login(app: &App) -> Result<Arc<Session>, Failure> {
    let remote_addr = "192.0.2.1:5".parse().expect("an address");
    let conn = ConnInfo::new(Protocol::Http, remote_addr);
    let credentials = Credentials::Application {
        thing_key: "mower-1".into(),
        token: "demo-token-basicorg".into(),
        app_id: String::new(),
    };
    Ok(app.login_unbound(credentials, conn, NOW).await?)
}

#[tokio::test]
async fn long_work_is_for_whom_it_is_begun() {
    let (app, _) = demo();
    let session = login(&app).await.expect("welcome");
    let (org, principal) = (session.org_id(), session.who().principal_id());
    for (worker, expected) in [
        (Worker::Principal(org, principal), Some(asker(&session))),
        (Worker::Begun(org, principal), Some(asker(&session))),
        (Worker::Server, None),
    ] {
        assert_eq!(app.offload(worker, base::current_asker).await, Ok(expected));
    }
}

#[tokio::test]
async fn counters_are_stored_in_steps() {
    let mut config = Config::default();
    config.limits.commands_per_s = 0;
    let (app, store) = demo_with(config);
    let count = limits::EXPIRY_STEP * 2 + 1;
    for _ in 0..count {
        let session = login(&app).await.expect("welcome");
        app.touch(&session, NOW, 7);
    }
    app.store_counters().await.expect("stored");
    assert_eq!(store.largest.load(Ordering::Relaxed), limits::EXPIRY_STEP);
    let rows = store.scan(Table::Sessions, Bound::Unbounded, Bound::Unbounded, usize::MAX);
    let rows = rows.expect("read");
    let counted = |row: &&Row| String::from_utf8_lossy(&row.1).contains(":7");
    assert_eq!((rows.len(), rows.iter().filter(counted).count()), (count, count));
}

#[tokio::test]
async fn ended_sessions_are_forgotten_in_steps() {
    let mut config = Config::default();
    config.limits.commands_per_s = 0;
    let age_s = config.sessions.history_age_s;
    let (app, store) = demo_with(config);
    let count = limits::ENDED_STEP * 4 + 1;
    for _ in 0..count {
        let session = login(&app).await.expect("welcome");
        app.apply(SessionChange::Revoke(session).into(), NOW).await.stored.expect("stored");
    }
    let rows = || {
        let rows = store.scan(Table::History, Bound::Unbounded, Bound::Unbounded, usize::MAX);
        rows.expect("read").len()
    };
    assert_eq!((app.directory().ended().len(), rows()), (count, count));
    store.largest.store(0, Ordering::Relaxed);
    app.expire(NOW.plus_seconds(age_s + 1)).await;
    app.tables.writer().barrier().expect("room").await.expect("stored");
    assert_eq!((app.directory().ended().len(), rows()), (0, 0));
    assert!(store.largest.load(Ordering::Relaxed) <= 2 * limits::ENDED_STEP);
}

#[tokio::test]
async fn only_long_listings_run_apart() {
    let mut config = Config::default();
    config.limits.sessions_per_principal = usize::MAX;
    config.limits.commands_per_s = 0;
    let (app, _) = demo_with(config);
    let session = login(&app).await.expect("welcome");
    let caller = Caller::new(Some(session.clone()), *session.conn());
    let check = async |command: &str, apart: bool| {
        let request = format!(r#"{{"l":{{"command":{command}}}}}"#);
        let mut mended = String::new();
        let request = Request::parse(request.as_bytes(), &mut mended).expect("a request");
        let mut out = Vec::new();
        let pending = execute(&app, &caller, &request.commands, b"", NOW, &mut out);
        assert_eq!(pending.is_some(), apart, "{command}");
        if let Some(pending) = pending {
            out = pending.await.send(|text| text);
        }
        String::from_utf8(out).expect("text")
    };
    let sorted = r#""session.list","params":{"sort":"lastAccessed","limit":1}"#;
    check(sorted, false).await;
    for number in 0..limits::LISTED_AT_ONCE_MAX as u64 {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let start = Start {
            id: SessionId::from_random(id),
            who: session.who().clone(),
            token: None,
            client_id: "".into(),
            access: session.access(),
            conn: *session.conn(),
            link: rules::directory::Link::default(),
            user_agent: None,
            definition: None,
            lifetime: session.lifetime(),
            outbox: None,
        };
        drop(app.sessions.start(start, false, NOW).expect("room"));
    }
    let reply = check(sorted, true).await;
    assert!(reply.contains(r#""count":10001,"result":[{"#), "{reply}");
    check(r#""session.list","params":{"query":"mower","limit":1}"#, true).await;
    check(r#""session.list","params":{"remoteAddr":"192.","limit":1}"#, false).await;
    check(r#""session.list","params":{"limit":1}"#, false).await;
    check(r#""session.list","params":{"sort":"colour"}"#, false).await;
    check(r#""thing.list""#, true).await;
}

#[tokio::test]
async fn many_named_things_are_changed_apart() {
    let (app, _) = demo();
    let session = login(&app).await.expect("welcome");
    permit_all(&app, &session);
    let caller = Caller::new(Some(session.clone()), *session.conn());
    let apart = async |count: usize, tag: &str| {
        let keys = vec![r#""mower-1""#; count].join(",");
        let params = format!(r#"{{"thingKey":[{keys}],"tags":["{tag}"]}}"#);
        let request = format!(r#"{{"t":{{"command":"thing.tag.add","params":{params}}}}}"#);
        let mut mended = String::new();
        let request = Request::parse(request.as_bytes(), &mut mended).expect("a request");
        let mut out = Vec::new();
        let mut turns = Vec::new();
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            turns.push(app.turns.take(Worker::Server).await.expect("a turn"));
        }
        let pending = execute(&app, &caller, &request.commands, b"", NOW, &mut out);
        let mut pending = pending.expect("it takes time");
        let waker = std::task::Waker::noop();
        let polled =
            std::pin::Pin::new(&mut pending).poll(&mut std::task::Context::from_waker(waker));
        let key = base::ThingKey::parse("mower-1").expect("a key");
        let thing = app.things.get(session.org_id(), &key).expect("read");
        let changed = thing.expect("it is there").tags.iter().any(|held| held == tag);
        drop(turns);
        let answer = match polled {
            std::task::Poll::Ready(answer) => answer,
            std::task::Poll::Pending => pending.await,
        };
        let reply = String::from_utf8(answer.send(|text| text)).expect("text");
        assert_eq!(reply, r#"{"t":{"success":true}}"#);
        !changed
    };
    assert!(!apart(limits::THINGS_AT_ONCE_MAX, "few").await);
    assert!(apart(limits::THINGS_AT_ONCE_MAX + 1, "many").await);
}

/// A connection of the thing, as the directory has it; nobody was notified.
fn connect(app: &App, session: &Arc<Session>, number: u8) -> (Arc<Session>, Arc<Outbox>) {
    connect_as(app, session, session.who().clone(), number)
}

fn connect_as(
    app: &App,
    session: &Arc<Session>,
    who: Who,
    number: u8,
) -> (Arc<Session>, Arc<Outbox>) {
    connect_with(app, session, who, [number; 12], *session.conn())
}

fn connect_with(
    app: &App,
    session: &Arc<Session>,
    who: Who,
    id: [u8; 12],
    conn: ConnInfo,
) -> (Arc<Session>, Arc<Outbox>) {
    let outbox = Arc::new(Outbox::new(true));
    let id = SessionId::from_random(id);
    let start = Start {
        id,
        who,
        token: None,
        client_id: SessionRef::of(&id).to_string().into(),
        access: session.access(),
        conn,
        link: rules::directory::Link::default(),
        user_agent: None,
        definition: None,
        lifetime: Lifetime::Connection,
        outbox: Some(outbox.clone()),
    };
    let (session, events) = app.sessions.start(start, false, NOW).expect("room");
    drop(events);
    (session, outbox)
}

#[tokio::test]
async fn one_look_finds_several_idle_connections() {
    let (app, _) = demo();
    let session = login(&app).await.expect("welcome");
    let home = App::home_of(session.who());
    let ids = [1, 2, 3].map(base::ConnectionId::new);
    let [_, busy, ended, _] = [ids[1], ids[0], ids[2], base::ConnectionId::NONE].map(|id| {
        let conn = ConnInfo { connection: id, ..*session.conn() };
        connect_with(&app, &session, session.who().clone(), [id.number() as u8; 12], conn).0
    });
    let next = || match app.idle_connections.next(home, &|_| false) {
        connections::Idlest::Found(id, _) => Some(id),
        connections::Idlest::Nobody | connections::Idlest::Unknown => None,
    };
    assert_eq!(next(), None);
    app.look_for_idle(home);
    app.touch(&busy, NOW.plus_seconds(1), 1);
    assert_eq!((next(), next(), next()), (Some(ids[1]), Some(ids[2]), None));
    app.end(&ended, Reason::LoggedOut, NOW);
    app.look_for_idle(home);
    assert_eq!((next(), next(), next()), (Some(ids[1]), Some(ids[0]), None));
}

#[tokio::test]
async fn who_lost_all_rights_is_out_even_if_that_is_not_stored() {
    let (app, store) = demo();
    let session = login(&app).await.expect("welcome");
    let (_, first) = connect(&app, &session, 1);
    let Who::Application { application, .. } = session.who() else { panic!("a thing") };
    let deleted = app.records.turn().delete([(**application).clone().into()]);
    app.records.apply(deleted);
    store.failing.store(true, Ordering::Relaxed);
    assert_eq!(app.accesses.len(), 1);
    let effects = Effects::default().followed_by(Affected::Org(application.org));
    assert!(app.apply(effects, NOW).await.stored.is_err());
    assert_eq!(first.take(true).1, Some(Reason::Revoked));
    assert!(app.accesses.is_empty(), "what is gone is not kept");
}

/// Changes of rights that many follow, while all turns are others'.
#[tokio::test]
async fn changes_of_rights_that_come_together_are_followed_together() {
    struct Passes(std::sync::atomic::AtomicUsize);

    impl DelayedWills for Passes {
        fn drop_of_gone(&self, _: &App, _: &crate::broker::Scope) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let (app, _) = demo();
    let passes = Arc::new(Passes(0.into()));
    app.watch_delayed_wills(passes.clone());
    let session = login(&app).await.expect("welcome");
    let (org, whose) = (session.org_id(), session.who().principal_id());
    let rights = session.access();
    let count = limits::EXPIRY_STEP + 44;
    let connected: Vec<_> = (0..count)
        .map(|number| {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let conn = *session.conn();
            let session = connect_with(&app, &session, session.who().clone(), id, conn).0;
            permit_all(&app, &session);
            session
        })
        .collect();
    let change = || {
        let effects = Effects::default().followed_by(Affected::Org(org));
        app.apply(effects.caused_by((org, whose)), NOW)
    };
    let mut turns = Vec::new();
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        turns.push(app.turns.take(Worker::Server).await.expect("a turn"));
    }
    let changes: Vec<_> = (0..20).map(|_| change()).collect();
    assert!(changes.iter().all(Applied::is_offloaded));
    tokio::task::yield_now().await;
    assert!(connected.iter().all(|one| one.access() != rights), "others have all turns");
    drop(turns);
    for change in changes {
        change.await.stored.expect("stored");
        assert!(connected.iter().all(|one| one.access() == rights));
    }
    assert!((1..=2).contains(&passes.0.load(Ordering::Relaxed)));
}

#[tokio::test]
async fn many_kept_sessions_have_followed_when_the_reply_goes_out() {
    use crate::broker::{Identity, Owner};
    let (app, _) = demo();
    let org = login(&app).await.expect("welcome").org_id();
    let identity = Identity { thing: None, application: None, token: None };
    let outbox = Arc::new(Outbox::new(true));
    let begin = |number: usize, org| {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&number.to_be_bytes());
        // Nobody whom the records know.
        let principal = rules::directory::Principal::User(base::UserId::from_bytes(id));
        let owner = Owner { principal, client_id: "kept".into() };
        app.broker.begin(&owner, (org, identity), 1000, (&outbox, &|| true)).expect("room");
    };
    let kept = || app.broker.load().kept_sessions;
    let change = || app.apply(Effects::default().followed_by(Affected::Org(org)), NOW);
    begin(0, OrgId::from_bytes([9; 12]));
    for many in [false, true] {
        let count = limits::EXPIRY_STEP * 2 * usize::from(many) + 1;
        (1..=count).for_each(|number| begin(number, org));
        let changed = change();
        assert_eq!((changed.is_offloaded(), kept()), (many, if many { count + 1 } else { 1 }));
        changed.await.stored.expect("stored");
        assert_eq!(kept(), 1, "another organisation's stays");
    }
}

/// Gives a session every permission.
pub(crate) fn permit_all(app: &App, session: &Arc<Session>) {
    let permissions = rules::identity::permission::PermissionSet::ALL;
    let access = Access { permissions, ..Access::clone(&session.access()) };
    drop(app.sessions.refresh(session, NOW, |_, _| Ok(access)));
}

#[tokio::test]
async fn a_deleted_thing_leaves_no_session_and_takes_no_other() {
    let (app, _) = demo();
    let session = login(&app).await.expect("welcome");
    permit_all(&app, &session);
    let Who::Application { application, thing_key, .. } = session.who() else {
        panic!("a thing");
    };
    // One that has just registered anew under the same key.
    let who = Who::Application {
        application: application.clone(),
        thing_id: ThingId::from_bytes([9; 12]),
        thing_key: thing_key.clone(),
    };
    let (newer, _) = connect_as(&app, &session, who, 1);
    let caller = Caller::new(Some(session.clone()), *session.conn());
    let mut mended = String::new();
    let request = br#"{"d":{"command":"thing.delete"}}"#;
    let request = Request::parse(request, &mut mended).expect("a request");
    let mut out = Vec::new();
    let pending = execute(&app, &caller, &request.commands, b"", NOW, &mut out);
    let reply = pending.expect("it takes time").await.send(|text| text);
    assert_eq!(reply, br#"{"d":{"success":true}}"#);
    assert_eq!(session.end().map(|end| end.reason), Some(Reason::Revoked));
    assert_eq!(newer.end(), None);
    // One whose login was let in before, and whose session begins only now.
    let (late, _) = connect(&app, &session, 2);
    assert!(app.follow_start(&late, NOW).is_err());
    assert_eq!(late.end().map(|end| end.reason), Some(Reason::Revoked));
}

#[tokio::test]
async fn a_list_of_very_large_things_is_refused() {
    let (app, _) = demo();
    let session = login(&app).await.expect("welcome");
    permit_all(&app, &session);
    let value = "x".repeat(limits::ATTRIBUTE_BYTES_MAX);
    let point = |number: usize| NewPoint {
        name: number.to_string(),
        ts: None,
        value: Value::Attribute(Some(value.clone().into())),
        corr_id: None,
        republish: false,
    };
    let points: Vec<_> = (0..=limits::CURRENTS_BYTES_MAX / value.len()).map(point).collect();
    let things = limits::LISTED_VALUES_BYTES_MAX / limits::CURRENTS_BYTES_MAX + 2;
    for number in 0..things {
        let id = ThingId::from_bytes([number as u8; 12]);
        let key = ThingKey::parse(&format!("large-{number}")).expect("a key");
        let thing = Thing::new(id, session.org_id(), key, "", NOW);
        drop(app.things.create(&thing).expect("made"));
        let payer = || Ok(thing.payer());
        let stored = app.telemetry.publish(id.into(), payer, Kind::Attribute, &points, NOW);
        stored.expect("room").receipt.await.expect("stored");
    }
    let caller = Caller::new(Some(session.clone()), *session.conn());
    let list = async |params: &str| {
        let request = format!(r#"{{"l":{{"command":"thing.list","params":{params}}}}}"#);
        let mut mended = String::new();
        let request = Request::parse(request.as_bytes(), &mut mended).expect("a request");
        let mut out = Vec::new();
        match execute(&app, &caller, &request.commands, b"", NOW, &mut out) {
            Some(pending) => pending.await.send(|text| text),
            None => out,
        }
    };
    let refused = String::from_utf8(list("{}").await).expect("text");
    let code = Code::REPLY_TOO_LARGE.0;
    assert!(refused.contains(&format!(r#""errorCodes":[{code}]"#)), "{:.200}", refused);
    let keys = list(r#"{"show":["key"],"keys":["mower-1"],"hideFields":true}"#).await;
    let expected = r#"{"l":{"success":true,"params":{"count":1,"result":[{"key":"mower-1"}]}}}"#;
    assert_eq!(String::from_utf8(keys).expect("text"), expected);
}

/// What is published of things, in order.
struct Heard(Mutex<Vec<String>>);

impl crate::things::feed::Wildcards for Arc<Heard> {
    fn has(&self, _: OrgId, _: &str) -> bool {
        true
    }

    fn publish(&self, _: OrgId, topic: &str, payload: &str) {
        self.0.lock().push(format!("{topic} {payload}"));
    }
}

impl Heard {
    /// Of an app, as long as the subscription is kept.
    fn of(app: &App, org: OrgId) -> (Arc<Self>, crate::things::feed::Subscription) {
        let heard = Arc::new(Self(Mutex::default()));
        app.feed.forward_to(Box::new(heard.clone()));
        (heard, app.feed.subscribe_wild(org))
    }

    /// The last of a thing.
    fn last(&self, key: &str) -> Option<bool> {
        let heard = self.0.lock();
        let of =
            |line: &String| line.strip_prefix(&format!("thing/{key}/connected "))?.parse().ok();
        heard.iter().rev().find_map(of)
    }
}

#[tokio::test]
async fn of_two_first_connections_one_tells() {
    let (app, _) = demo();
    let session = login(&app).await.expect("welcome");
    let (heard, _watch) = Heard::of(&app, session.org_id());
    // Both are there before anybody is notified of one.
    let (first, second) = (connect(&app, &session, 1).0, connect(&app, &session, 2).0);
    app.publish_presence(&[Event::Started(second.clone())]);
    app.publish_presence(&[Event::Started(first.clone())]);
    app.end(&first, Reason::LoggedOut, NOW);
    app.end(&second, Reason::LoggedOut, NOW);
    let told = ["thing/mower-1/connected true", "thing/mower-1/connected false"];
    assert_eq!(*heard.0.lock(), told);
}

/// Things that are bound to the one of a session, by number.
const BOUND: usize = 5 * limits::THINGS_AT_ONCE_MAX + 1;

/// Makes them: the last of them is told of last.
async fn bind_many(app: &App, session: &Session) -> Vec<Thing> {
    let Who::Application { thing_id, .. } = session.who() else { panic!("a thing") };
    let mut things = Vec::new();
    for number in 0..BOUND {
        let mut id = [9; 12];
        id[..4].copy_from_slice(&(number as u32).to_be_bytes());
        let key = ThingKey::parse(&format!("bound-{number}")).expect("a key");
        let mut thing = Thing::new(ThingId::from_bytes(id), session.org_id(), key, "", NOW);
        thing.bound_to = Some(*thing_id);
        app.things.create(&thing).expect("made").await.expect("stored");
        things.push(thing);
    }
    things
}

/// All have been told.
async fn told(heard: &Heard, connected: bool) {
    for number in 0..BOUND {
        let key = format!("bound-{number}");
        while heard.last(&key) != Some(connected) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn of_many_bound_things_it_is_told_in_pieces_and_the_last_is_right() {
    let (app, _) = demo();
    let session = login(&app).await.expect("welcome");
    bind_many(&app, &session).await;
    let (heard, _watch) = Heard::of(&app, session.org_id());
    let count = || heard.0.lock().len();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut connection = connect(&app, &session, 1).0;
    app.publish_presence(&[Event::Started(connection.clone())]);
    // Whoever logged it in goes on: some have been told, with the thing itself.
    assert!((2..=1 + limits::THINGS_AT_ONCE_MAX).contains(&count()), "{}", count());
    told(&heard, true).await;
    assert_eq!(count(), 1 + BOUND);
    // It comes and goes, and nobody has been told of all.
    for number in 2..5 {
        app.end(&connection, Reason::LoggedOut, NOW);
        connection = connect(&app, &session, number).0;
        app.publish_presence(&[Event::Started(connection.clone())]);
        tokio::task::yield_now().await;
    }
    app.end(&connection, Reason::LoggedOut, NOW);
    // Those who told of what was before have stopped, too.
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > tasks {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    told(&heard, false).await;
}

#[tokio::test]
async fn what_changes_while_it_is_told_of_a_gateway_is_told_all_the_same() {
    let (app, _) = demo();
    let session = login(&app).await.expect("welcome");
    let mut things = bind_many(&app, &session).await;
    let (mut unbound, last) = (things.swap_remove(BOUND - 2), things.pop().expect("the last"));
    assert_ne!(last.key, unbound.key);
    let (heard, _watch) = Heard::of(&app, session.org_id());
    let gateway = connect(&app, &session, 1).0;
    app.publish_presence(&[Event::Started(gateway.clone())]);
    // Nobody has been told of it yet, and it is connected by two.
    assert_eq!(heard.last(last.key.as_str()), None);
    let mut who = session.who().clone();
    if let Who::Application { thing_id, thing_key, .. } = &mut who {
        (*thing_id, *thing_key) = (last.id, last.key.clone());
    }
    let own = connect_as(&app, &session, who, 2).0;
    app.publish_presence(&[Event::Started(own.clone())]);
    assert_eq!(heard.last(last.key.as_str()), Some(true));
    app.end(&own, Reason::LoggedOut, NOW);
    assert_eq!(heard.last(last.key.as_str()), Some(true), "by the gateway");
    told(&heard, true).await;
    app.end(&gateway, Reason::LoggedOut, NOW);
    // One that leaves it before it was told of.
    let before = unbound.bound_to.take();
    let key = unbound.key.as_str();
    assert_eq!(heard.last(key), Some(true));
    app.publish_binding(&unbound, before).expect("read");
    assert_eq!(heard.last(key), Some(false));
    told(&heard, false).await;
}

#[tokio::test]
async fn rights_are_those_after_the_check_of_the_password() {
    let (app, _) = demo();
    let remote_addr = "192.0.2.1:5".parse().expect("an address");
    let conn = ConnInfo::new(Protocol::Http, remote_addr);
    let user = |email: &str| app.identity().user_by_email(email).expect("a user of the demo");
    let put = |user: User| app.records.apply(app.records.turn().put(user));
    let (admin, viewer) = (user("admin@devicewise.com"), user("viewer@basicorg.example"));
    let recognise = async |email: &str, password: &str, change: &dyn Fn()| {
        let checked = app.recognise(email, password.into(), conn, NOW);
        let mut checked = Box::pin(checked);
        let waker = std::task::Waker::noop();
        let polled = checked.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending(), "it waits for the check");
        change();
        checked.await
    };
    let demote = || put(User { super_admin: false, ..User::clone(&admin) });
    let found = recognise("admin@devicewise.com", "demo-admin-password", &demote).await;
    assert!(!found.expect("welcome").0.super_admin);
    let lock_out = || put(User { password_hash: String::new(), ..User::clone(&viewer) });
    let refused = recognise("viewer@basicorg.example", "demo-viewer-password", &lock_out).await;
    assert!(refused.is_err());
}

/// Clients try again what failed: then the promise of the answer has to hold.
#[tokio::test]
async fn a_revocation_that_was_lost_is_stored_with_the_next_try() {
    let (app, store) = demo();
    let session = login(&app).await.expect("welcome");
    let rows = |table| {
        let rows = store.scan(table, Bound::Unbounded, Bound::Unbounded, usize::MAX);
        rows.expect("read").len()
    };
    store.failing.store(true, Ordering::Relaxed);
    let revoke = |now| app.apply(SessionChange::Revoke(session.clone()).into(), now);
    assert!(revoke(NOW).await.stored.is_err());
    assert_eq!((session.end().is_some(), rows(Table::Sessions)), (true, 1));
    store.failing.store(false, Ordering::Relaxed);
    revoke(NOW.plus_seconds(1)).await.stored.expect("stored");
    assert_eq!((rows(Table::Sessions), rows(Table::History)), (0, 1));
    assert_eq!(session.end().map(|end| end.at), Some(NOW));
}

#[tokio::test]
async fn a_session_that_is_not_stored_does_not_live() {
    let (app, store) = demo();
    let session = login(&app).await.expect("welcome");
    store.failing.store(true, Ordering::Relaxed);
    let failure = login(&app).await.expect_err("not stored");
    assert_eq!(failure.code, Code::INTERNAL);
    assert_eq!(app.directory().of_principal(&session.who().principal()).len(), 1);
}
