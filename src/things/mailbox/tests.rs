use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::UserId;
use base::pool::{Pool, Whose};
use proptest::prelude::*;
use store::{DiskShares, Durability, Store as _, memory::MemoryStore};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);
const CONFIG: MailboxConfig = MailboxConfig { waiting_max: 4, keep_s: 60, bytes_max: 64 << 20 };

fn thing(number: u8) -> ThingId {
    ThingId::from_bytes([number; 12])
}

fn user(number: u8) -> PrincipalId {
    PrincipalId::User(UserId::from_bytes([number; 12]))
}

fn new(number: u8, method: &str, ttl_s: Option<u64>) -> NewMessage {
    NewMessage {
        org: OrgId::from_bytes([9; 12]),
        thing: thing(number),
        thing_key: ThingKey::parse(&format!("thing-{number}")).expect("a key"),
        command: METHOD_EXEC.to_owned(),
        method: Some(method.to_owned()),
        params: None,
        from: "operator@basicorg.example".to_owned(),
        sender: user(1),
        expires: ttl_s.map(|ttl_s| NOW.plus_seconds(ttl_s)),
        singleton: false,
        wait: None,
    }
}

fn tables() -> (Tables, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    (Tables::new(store.clone(), Durability::Os, &Arc::default()), store)
}

/// Waits until all that was submitted is committed.
async fn commit(tables: &Tables) {
    tables.writer().barrier().expect("room").await.expect("committed");
}

/// The mailboxes as a server that starts now finds them.
async fn reopened(tables: &Tables) -> Mailbox {
    commit(tables).await;
    let mailbox = Mailbox::new(tables.clone(), CONFIG, &Arc::default());
    mailbox.load().expect("read");
    mailbox
}

#[tokio::test]
async fn ids_of_one_millisecond_are_in_order_whatever_chance_says() {
    let (tables, _) = tables();
    let mailbox = Mailbox::new(tables, CONFIG, &Arc::default());
    let mut last = None;
    for random in [[0xff; 6], [0; 6], [7; 6]] {
        let sent = mailbox.send(new(1, "m", None), random, 0, NOW).expect("room");
        assert!(last < Some(sent.message.id));
        last = Some(sent.message.id);
    }
    // Also when the clock goes back.
    let early = mailbox.send(new(2, "m", None), [0; 6], 0, Timestamp::default());
    assert!(last < Some(early.expect("room").message.id));
}

#[tokio::test]
async fn a_full_mailbox_is_one_thing_s_own() {
    let (tables, _) = tables();
    let mailbox = Mailbox::new(tables, CONFIG, &Arc::default());
    for _ in 0..CONFIG.waiting_max {
        mailbox.send(new(1, "m", None), [0; 6], 0, NOW).expect("room");
    }
    let refused = mailbox.send(new(1, "m", None), [0; 6], 0, NOW).map(|_| ());
    assert!(matches!(refused, Err(SendError::Full(4))));
    mailbox.send(new(2, "m", None), [0; 6], 0, NOW).expect("room");
}

#[tokio::test]
async fn organisations_and_principals_leave_room_for_others() {
    let (tables, _) = tables();
    let config = MailboxConfig { waiting_max: usize::MAX, ..CONFIG };
    let bytes = Arc::<StoredBytes>::default();
    let mailbox = Mailbox::new(tables, config, &bytes);
    let large = || serde_json::value::to_raw_value(&"x".repeat(1 << 20)).expect("JSON");
    let new = |org, sender| NewMessage {
        org,
        sender: user(sender),
        params: Some(large()),
        ..new(1, "m", None)
    };
    let [one, other] = [1, 2].map(|number| OrgId::from_bytes([number; 12]));
    let mut sent = Vec::new();
    let refused = loop {
        match mailbox.send(new(one, 1), [0; 6], 0, NOW) {
            Ok(mail) => sent.push(mail.message.id),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, SendError::OverShare(over) if over.whose == Whose::Principal));
    assert!(mailbox.counts().0 > 48, "alone it may have nearly all");
    let others = [(one, 2), (other, 1)];
    for (org, sender) in others {
        sent.push(mailbox.send(new(org, sender), [0; 6], 0, NOW).expect("room").message.id);
    }
    for _ in others {
        drop(mailbox.purge(sent.remove(0), NOW).expect("stored"));
    }
    sent.push(mailbox.send(new(one, 1), [0; 6], 0, NOW).expect("room again").message.id);
    // Without room what a thing says of its work is dropped, and nothing grows.
    while mailbox.send(new(one, 1), [0; 6], 0, NOW).is_ok() {}
    let used = || bytes.pools().usage(Pool::MailBytes).used();
    let mut last = None;
    for _ in 0..limits::MAIL_HISTORY_MAX {
        let long = Some("x".repeat(limits::MAIL_TEXT_BYTES_MAX * 1024));
        drop(mailbox.update(sent[0], long, NOW).expect("stored").expect("it waits"));
        last = last.max(Some(used()));
    }
    assert!(last.is_some_and(|last| last <= config.bytes_max), "{last:?}");
    let (purged, _) = mailbox.purge_thing(thing(1), NOW).expect("stored");
    assert!(purged > 48);
    assert_eq!(used(), 0);
}

#[tokio::test]
async fn what_mails_take_of_the_disk_is_counted_until_they_are_forgotten() {
    let (tables, store) = tables();
    let bytes = Arc::<StoredBytes>::default();
    let used = || bytes.total() as usize;
    let mailbox = Mailbox::new(tables.clone(), CONFIG, &bytes);
    let send = |mailbox: &Mailbox| {
        let mail = mailbox.send(new(1, "m", None), [0; 6], 0, NOW).expect("room");
        mail.message.id
    };
    let held = |mailbox: &Mailbox, ids: &[_]| -> usize {
        ids.iter().map(|id| mailbox.waiting(*id).expect("it waits").bytes()).sum()
    };
    let ids = [(); 3].map(|()| send(&mailbox));
    assert_eq!(used(), held(&mailbox, &ids));
    let said = Some("y".repeat(100));
    drop(mailbox.update(ids[0], said, NOW).expect("stored").expect("it waits"));
    assert_eq!(used(), held(&mailbox, &ids));
    assert!(used() > 100 + 3 * held(&mailbox, &ids[1..2]));
    // The one of another start is counted, too.
    commit(&tables).await;
    let mailbox = Mailbox::new(tables.clone(), CONFIG, &bytes);
    mailbox.load().expect("read");
    let outcome = Outcome { message: Some("z".repeat(1000)), ..Outcome::default() };
    drop(mailbox.complete(ids[0], outcome, NOW).expect("stored").expect("it waits"));
    drop(mailbox.purge(ids[1], NOW).expect("stored").expect("it waits"));
    assert!(used() > 1100);
    let later = NOW.plus_seconds(CONFIG.keep_s + 1);
    commit(&tables).await;
    drop(mailbox.prune(later).expect("read"));
    assert_eq!(used(), held(&mailbox, &ids[2..]));
    // On a disk without room nothing is made; what waits comes to its end, of which little is kept.
    drop(mailbox.update(ids[2], None, NOW).expect("stored").expect("it waits"));
    commit(&tables).await;
    store.room().note(store::Condition::Good, 2000, 2000);
    store.room().set_reserve(2000);
    let (tables, room) = (tables.clone(), store.room());
    let disk = Arc::new(DiskShares::new(room, bytes.pools()));
    let bytes = Arc::new(StoredBytes::open(&tables, disk).expect("read"));
    let mailbox = Mailbox::new(tables, CONFIG, &bytes);
    mailbox.load().expect("read");
    let refused = mailbox.send(new(1, "m", None), [0; 6], 0, NOW).map(drop);
    assert!(matches!(refused, Err(SendError::OverShare(over)) if over.pool == Pool::Disk));
    let said = Some("y".repeat(100));
    drop(mailbox.update(ids[2], said, NOW).expect("stored").expect("it waits"));
    assert_eq!(mailbox.waiting(ids[2]).expect("it waits").history.len(), 2);
    let outcome = Outcome { code: 7, message: Some("z".repeat(1000)), params: None };
    let done = mailbox.complete(ids[2], outcome, NOW).expect("room").expect("it waits");
    done.await.expect("stored");
    let mail = mailbox.find(new(1, "m", None).org, ids[2]).expect("read").expect("kept");
    let outcome = mail.outcome.expect("there");
    assert_eq!((outcome.code, &outcome.message), (7, &None));
}

#[tokio::test]
async fn a_caller_is_told_when_the_answer_is_durable_and_only_once() {
    let (tables, _) = tables();
    let mailbox = Mailbox::new(tables, CONFIG, &Arc::default());
    let waiting = |singleton| NewMessage {
        singleton,
        wait: Some(Duration::from_secs(300)),
        ..new(1, "m", None)
    };
    let first = mailbox.send(waiting(false), [0; 6], 1, NOW).expect("room");
    let second = mailbox.send(waiting(true), [1; 6], 2, NOW).expect("room");
    assert_eq!(first.message.id, second.message.id);
    assert!(first.is_new && !second.is_new);
    assert_eq!(mailbox.counts(), (1, 2));
    let outcome = Outcome { code: 5, ..Outcome::default() };
    let receipt = mailbox.complete(first.message.id, outcome, NOW).expect("stored");
    receipt.expect("it waits").await.expect("stored");
    for sent in [first, second] {
        let answer = sent.waiter.expect("it waits").answered().await;
        assert!(matches!(answer, Answer::Completed(outcome) if outcome.code == 5));
    }
    assert_eq!(mailbox.counts(), (0, 0));
}

#[tokio::test]
async fn a_singleton_is_sent_again_when_the_time_of_the_first_is_over() {
    let (tables, _) = tables();
    let mailbox = Mailbox::new(tables, CONFIG, &Arc::default());
    let singleton = |ttl_s, now| {
        mailbox.send(NewMessage { singleton: true, ..new(1, "m", ttl_s) }, [0; 6], 0, now)
    };
    let first = singleton(Some(30), NOW).expect("room").message.id;
    let just_before = singleton(None, NOW.plus_millis(29_999)).expect("room");
    assert!(!just_before.is_new && just_before.message.id == first);
    // Whoever asked first is told now that there was no answer, and may ask again at once.
    let again = singleton(None, NOW.plus_seconds(30)).expect("room");
    assert!(again.is_new && again.message.id != first);
}

#[tokio::test]
async fn who_stops_listening_is_forgotten() {
    let (tables, _) = tables();
    let mailbox = Mailbox::new(tables, CONFIG, &Arc::default());
    let waiting = |wait| NewMessage { wait: Some(wait), ..new(1, "m", None) };
    let sent = mailbox.send(waiting(Duration::from_secs(300)), [0; 6], 7, NOW).expect("room");
    mailbox.hang_up(8);
    assert_eq!(mailbox.counts(), (1, 1));
    mailbox.hang_up(7);
    assert_eq!(mailbox.counts(), (1, 0));
    let answer = sent.waiter.expect("it waits").answered().await;
    assert!(matches!(answer, Answer::HungUp));
    let sent = mailbox.send(waiting(Duration::ZERO), [0; 6], 7, NOW).expect("room");
    let answer = sent.waiter.expect("it waits").answered().await;
    assert!(matches!(answer, Answer::NotInTime));
    drop(mailbox.send(waiting(Duration::from_secs(300)), [0; 6], 7, NOW).expect("room"));
    assert_eq!(mailbox.counts(), (3, 0));
    let sent = mailbox.send(waiting(Duration::from_secs(300)), [0; 6], 7, NOW).expect("room");
    mailbox.stop_calls();
    let answer = sent.waiter.expect("it waits").answered().await;
    assert!(matches!(answer, Answer::Stopped));
    let refused = mailbox.send(waiting(Duration::from_secs(1)), [0; 6], 7, NOW).map(|_| ());
    assert!(matches!(refused, Err(SendError::Full(_) | SendError::Busy)));
}

#[tokio::test]
async fn what_is_forgotten_leaves_no_row() {
    let (tables, store) = tables();
    let mailbox = Mailbox::new(tables.clone(), CONFIG, &Arc::default());
    let mut receipts = Vec::new();
    for number in 0..3 {
        let sent = mailbox.send(new(number, "m", Some(1)), [number; 6], 0, NOW).expect("room");
        receipts.push(sent.receipt);
    }
    assert!(!mailbox.expire(NOW.plus_seconds(1)).expect("stored"));
    for receipt in receipts {
        receipt.await.expect("stored");
    }
    drop(reopened(&tables).await);
    assert!(!mailbox.prune(NOW.plus_seconds(60)).expect("read").1);
    let rows = || {
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        store::Store::scan(&*store, Table::Mails, all.0, all.1, 100).expect("read").len()
    };
    drop(reopened(&tables).await);
    assert_eq!(rows(), 12);
    assert!(!mailbox.prune(NOW.plus_seconds(62)).expect("read").1);
    drop(reopened(&tables).await);
    assert_eq!(rows(), 0);
}

/// What happens to mailboxes.
#[derive(Clone, Debug)]
enum Deed {
    Post { thing: u8, ttl_s: Option<u64>, singleton: bool },
    Check { session: u64, things: Vec<u8>, limit: usize, auto: bool },
    Update(usize),
    Complete(usize, i64),
    Purge(usize),
    PurgeThing(u8),
    End(u64),
    Wait(u64),
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let ttl_s = prop::option::of(1_u64..20);
    let things = prop::collection::vec(0_u8..3, 0..3);
    let deed = prop_oneof![
        4 => (0_u8..3, ttl_s, any::<bool>())
            .prop_map(|(thing, ttl_s, singleton)| Deed::Post { thing, ttl_s, singleton }),
        4 => (0_u64..3, things, 0_usize..4, prop::bool::weighted(0.2))
            .prop_map(|(session, things, limit, auto)| Deed::Check { session, things, limit, auto }),
        2 => (0_usize..30).prop_map(Deed::Update),
        2 => (0_usize..30, -1_i64..2).prop_map(|(mail, code)| Deed::Complete(mail, code)),
        1 => (0_usize..30).prop_map(Deed::Purge),
        1 => (0_u8..3).prop_map(Deed::PurgeThing),
        2 => (0_u64..3).prop_map(Deed::End),
        2 => (1_u64..5).prop_map(Deed::Wait),
        1 => Just(Deed::Restart),
    ];
    prop::collection::vec(deed, 1..60)
}

/// A mail as the simplest program would keep it.
#[derive(Clone, Debug)]
struct Model {
    thing: u8,
    expires: Option<Timestamp>,
    status: Status,
    holder: Option<u64>,
}

#[derive(Default)]
struct Models {
    mails: BTreeMap<MailId, Model>,
    ids: Vec<MailId>,
}

impl Models {
    fn waiting(&mut self, id: Option<MailId>) -> Option<&mut Model> {
        self.mails.get_mut(&id?).filter(|mail| !mail.status.is_final())
    }

    fn id(&self, number: usize) -> Option<MailId> {
        self.ids.get(number % self.ids.len().max(1)).copied()
    }
}

async fn check_deeds(deeds: Vec<Deed>) {
    let (tables, _) = tables();
    let mut mailbox = Mailbox::new(tables.clone(), CONFIG, &Arc::default());
    let (mut models, mut now) = (Models::default(), NOW);
    for deed in deeds {
        match deed {
            Deed::Post { thing, ttl_s, singleton } => {
                let expires = ttl_s.map(|ttl_s| now.plus_seconds(ttl_s));
                let new = NewMessage { singleton, expires, ..new(thing, "m", None) };
                let sent = mailbox.send(new, [0; 6], 0, now);
                let mut twins = models.mails.iter().filter(|(_, mail)| mail.thing == thing);
                let twins: Vec<_> = twins.by_ref().filter(|(_, m)| !m.status.is_final()).collect();
                let lives = |mail: &Model| mail.expires.is_none_or(|expires| expires > now);
                let twin = twins.iter().find(|(_, mail)| lives(mail)).map(|(id, _)| *id);
                match sent {
                    Ok(sent) if sent.is_new => {
                        assert!(twins.len() < CONFIG.waiting_max && (twin.is_none() || !singleton));
                        let id = sent.message.id;
                        let model = Model { thing, expires, status: Status::New, holder: None };
                        assert!(models.ids.last().is_none_or(|last| *last < id));
                        models.mails.insert(id, model);
                        models.ids.push(id);
                    }
                    Ok(sent) => assert_eq!(Some(&sent.message.id), twin),
                    Err(_) => assert_eq!(twins.len(), CONFIG.waiting_max),
                }
            }
            Deed::Check { session, things, limit, auto } => {
                let things: BTreeSet<u8> = things.into_iter().collect();
                let ids: Vec<_> = things.iter().map(|number| thing(*number)).collect();
                let fetched = mailbox.fetch(&ids, session, limit, auto, now).expect("stored");
                let is_new =
                    |mail: &Model| mail.status == Status::New && things.contains(&mail.thing);
                let mut fresh = models.mails.iter_mut().filter(|(_, mail)| is_new(mail));
                let expected: Vec<_> = fresh.by_ref().take(limit).collect();
                let got: Vec<_> = fetched.mails.iter().map(Mail::id).collect();
                assert_eq!(got, expected.iter().map(|(id, _)| **id).collect::<Vec<_>>());
                for (_, mail) in expected {
                    mail.status = if auto { Status::CompletedAuto } else { Status::InFlight };
                    mail.holder = (!auto).then_some(session);
                }
                let next = mailbox.new_for(&ids).map(|message| message.id);
                assert_eq!(next, fresh.next().map(|(id, _)| *id));
            }
            Deed::Update(number) => {
                let id = models.id(number);
                let model = models.waiting(id);
                let updated = id.and_then(|id| mailbox.update(id, None, now).expect("stored"));
                assert_eq!(updated.is_some(), model.is_some());
                if let Some(model) = model {
                    (model.status, model.holder) = (Status::InProgress, None);
                }
            }
            Deed::Complete(number, code) => {
                let id = models.id(number);
                let model = models.waiting(id);
                let outcome = Outcome { code, ..Outcome::default() };
                let done = id.and_then(|id| mailbox.complete(id, outcome, now).expect("stored"));
                assert_eq!(done.is_some(), model.is_some());
                let status = if code == 0 { Status::CompletedOk } else { Status::CompletedError };
                if let Some(model) = model {
                    model.status = status;
                }
            }
            Deed::Purge(number) => {
                let id = models.id(number);
                let model = models.waiting(id);
                let purged = id.and_then(|id| mailbox.purge(id, now).expect("stored"));
                assert_eq!(purged.is_some(), model.is_some());
                if let Some(model) = model {
                    model.status = Status::Purged;
                }
            }
            Deed::PurgeThing(number) => {
                let (count, _) = mailbox.purge_thing(thing(number), now).expect("stored");
                let waits = |mail: &&mut Model| mail.thing == number && !mail.status.is_final();
                let purged = models.mails.values_mut().filter(waits);
                assert_eq!(count, purged.map(|mail| mail.status = Status::Purged).count());
            }
            Deed::End(session) => {
                let back = mailbox.session_ended(session, now);
                let held = |mail: &&mut Model| {
                    mail.status == Status::InFlight && mail.holder == Some(session)
                };
                let released = models.mails.values_mut().filter(held);
                assert_eq!(back.len(), released.map(|mail| mail.status = Status::New).count());
            }
            Deed::Wait(seconds) => {
                now = now.plus_seconds(seconds);
                assert!(!mailbox.expire(now).expect("stored"));
                for mail in models.mails.values_mut().filter(|mail| !mail.status.is_final()) {
                    if mail.expires.is_some_and(|expires| expires <= now) {
                        mail.status = Status::Expired;
                    }
                }
            }
            Deed::Restart => {
                mailbox = reopened(&tables).await;
                // A server does not start in the millisecond in which it was killed.
                now = now.plus_millis(1);
                for mail in models.mails.values_mut() {
                    if mail.status == Status::InFlight {
                        mail.status = Status::New;
                    }
                }
            }
        }
        let waiting = models.mails.values().filter(|mail| !mail.status.is_final()).count();
        assert_eq!(mailbox.counts().0, waiting);
    }
    drop(reopened(&tables).await);
    let org = OrgId::from_bytes([9; 12]);
    let mut listed = BTreeMap::new();
    let visited = mailbox.visit(Scope::Org(org), 1000, |mail| {
        listed.insert(mail.id(), mail.status());
    });
    visited.expect("read");
    let expected: BTreeMap<_, _> = models.mails.iter().map(|(id, m)| (*id, m.status)).collect();
    assert_eq!(listed, expected);
    for number in 0..3 {
        let mut ids = Vec::new();
        let visited = mailbox.visit(Scope::Thing(org, thing(number)), 1000, |m| ids.push(m.id()));
        visited.expect("read");
        let of_thing = models.mails.iter().filter(|(_, mail)| mail.thing == number);
        let expected: Vec<_> = of_thing.map(|(id, _)| *id).rev().collect();
        assert_eq!(ids, expected);
    }
    // Nothing is left behind when all is done.
    for number in 0..3 {
        drop(mailbox.purge_thing(thing(number), now).expect("stored").1);
    }
    let state = mailbox.state.lock();
    assert_eq!((state.waiting.len(), state.waiting.shares.held()), (0, 0));
    assert_eq!(format!("{:?}", state.waiting.due(Timestamp::from_millis(i64::MAX)).next()), "None");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn mailboxes_are_what_the_simplest_program_would_make_of_them(deeds in deeds()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(check_deeds(deeds));
    }
}
