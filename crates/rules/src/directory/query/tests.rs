//! Every filter and sort against a look at each session in turn.

use std::collections::HashSet;
use std::net::SocketAddr;

use base::{ConnInfo, ThingDefId};
use proptest::prelude::*;

use super::super::tests::{access, at, config, start, thing, user};
use super::super::{DirectoryConfig, DirectoryWriter, OrgSwitch};
use super::*;

const ORG: OrgId = OrgId::from_bytes([1; 12]);

#[derive(Clone, Debug)]
enum Step {
    Start { who: u8, bound: bool, protocol: usize, port: u16, client: u8, definition: u8 },
    End { nth: usize, reason: usize },
    Revoke { nth: usize },
    Redefine { who: u8, definition: u8 },
    Switch { nth: usize, org: u8 },
    Touch { nth: usize },
    Ping { nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let nth = any::<usize>;
    prop_oneof![
        6 => (0..24_u8, any::<bool>(), 0..8_usize, 0..130_u16, 0..3_u8, 0..3_u8).prop_map(
            |(who, bound, protocol, port, client, definition)| {
                Step::Start { who, bound, protocol, port, client, definition }
            }
        ),
        2 => (nth(), 0..Reason::ALL.len()).prop_map(|(nth, reason)| Step::End { nth, reason }),
        1 => nth().prop_map(|nth| Step::Revoke { nth }),
        1 => (0..24_u8, 0..3_u8).prop_map(|(who, definition)| Step::Redefine { who, definition }),
        1 => (nth(), 1..3_u8).prop_map(|(nth, org)| Step::Switch { nth, org }),
        2 => nth().prop_map(|nth| Step::Touch { nth }),
        1 => nth().prop_map(|nth| Step::Ping { nth }),
    ]
}

fn who_of(number: u8) -> Who {
    if number.is_multiple_of(3) { user(number) } else { thing(number) }
}

fn definition_of(number: u8) -> Option<ThingDefId> {
    (number > 0).then(|| ThingDefId::from_bytes([number; 12]))
}

/// Some are of IPv6, which no column has, and some are what stands in the columns in their place.
fn address_of(client: u8, port: u16) -> SocketAddr {
    match port {
        0..8 => ([0; 4], port / 4).into(),
        8..24 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, client.into()], port).into(),
        _ => ([10, 0, client, port as u8], port).into(),
    }
}

/// A directory after these steps, and all sessions that it ever had.
fn directory(steps: Vec<Step>, history_max: usize) -> (DirectoryWriter, Vec<Arc<Session>>) {
    let config = DirectoryConfig { history_max, ..config() };
    let directory = DirectoryWriter::new(config, &Arc::default(), at(0));
    let mut all: Vec<Arc<Session>> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let now = at(number as i64 / 2);
        let nth = |nth: usize| all.get(nth % all.len().max(1)).cloned();
        match step {
            Step::Start { who, bound, protocol, port, client, definition } => {
                let mut start = start(number as u64, who_of(who), 1, bound, now);
                start.conn = ConnInfo::new(PROTOCOLS[protocol], address_of(client, port));
                start.client_id = format!("client-{client}").into();
                if who_of(who).own_key().is_some() {
                    start.definition = definition_of(definition);
                }
                all.push(directory.start(start, false, now).expect("room").0);
            }
            Step::End { nth: n, reason } => {
                let _ = nth(n).map(|session| directory.end(&session, Reason::ALL[reason], now));
            }
            Step::Revoke { nth: n } => {
                let _ = nth(n).map(|session| directory.revoke(&session, now));
            }
            Step::Redefine { who, definition } => {
                let thing = thing(who).principal();
                drop(directory.set_definition(&thing, definition_of(definition)));
            }
            Step::Switch { nth: n, org } => {
                let _ = nth(n).map(|session| directory.switch(&session, access(org), now));
            }
            Step::Touch { nth: n } => {
                let live = nth(n).filter(|session| session.end().is_none());
                live.into_iter().for_each(|session| session.touch(now, 1));
            }
            Step::Ping { nth: n } => {
                let live = nth(n).filter(|session| session.end().is_none());
                live.into_iter().for_each(|session| session.keep_alive(now));
            }
        }
    }
    (directory, all)
}

fn time() -> impl Strategy<Value = Option<Timestamp>> {
    prop_oneof![4 => Just(None), 1 => (0..40_i64).prop_map(|second| Some(at(second)))]
}

fn rarely<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop_oneof![4 => Just(None), 1 => value.prop_map(Some)]
}

fn filter() -> impl Strategy<Value = Filter> {
    let statuses = prop_oneof![
        Just(vec![Status::Active]),
        Just(Status::ALL.to_vec()),
        Just(Status::ALL[1..].to_vec()),
        (0..4_usize).prop_map(|index| vec![Status::ALL[index]]),
    ];
    let reasons = prop::collection::vec(0..Reason::ALL.len(), 1..4);
    let reasons = reasons.prop_map(|all| all.into_iter().map(|at| Reason::ALL[at]).collect());
    let patterns = prop::sample::select(vec!["*", "thing-1", "thing-1*", "*1*", "user*", "x*"]);
    let words = prop::sample::select(vec!["", "THING", "app 1", "10.0.1"]);
    let addresses = prop::sample::select(vec![
        "",
        "10.0.1",
        "10.0.0.12",
        "10.0.2.70:7",
        "11",
        "0.0",
        "0.0.0.0:0",
        "2001:db8::",
        "[2001:db8::2]:1",
    ]);
    let first = (
        rarely(any::<bool>()),
        rarely(0..8_usize),
        rarely(addresses),
        rarely(statuses),
        rarely(reasons),
        rarely(any::<bool>()),
        rarely(patterns),
        words,
    );
    let things = prop::collection::hash_set(0..24_u8, 0..8);
    let second = (
        rarely(0..3_u8),
        rarely(1..4_u8),
        rarely(things),
        rarely(0..24_u8),
        rarely(prop::sample::select(vec!["app", "APP", "none"])),
    );
    let times = (time(), time(), time(), time(), time(), time(), time());
    (first, second, times).prop_map(|(first, second, times)| {
        let (user, protocol, address, status, end_reasons, connected, pattern, words) = first;
        let (client, definition, things, who, app_name) = second;
        Filter {
            principal: who.map(|who| who_of(who).principal()),
            kind: user.map(|user| if user { Kind::User } else { Kind::Application }),
            app_name: app_name.map(str::to_owned),
            protocol: protocol.map(|index| PROTOCOLS[index]),
            remote_addr: address.map(AddressPrefix::read),
            started_after: times.0,
            started_before: times.1,
            status,
            end_reasons,
            ended_after: times.2,
            ended_before: times.3,
            connected,
            who: pattern.into_iter().map(Pattern::read).collect(),
            words: Words::read(words),
            client_id: client.map(|client| format!("client-{client}")),
            definition: definition.and_then(definition_of),
            things: things.map(|things: HashSet<u8>| {
                things.into_iter().map(|number| ThingId::from_bytes([number; 12])).collect()
            }),
            seen_after: times.4,
            seen_before: times.5,
            idle_since: times.6,
            lived_at: None,
        }
    })
}

/// Whether a session belongs into a listing, in as many words as the parameters have.
fn belongs(filter: &Filter, session: &Session) -> bool {
    let end = session.end();
    let of_end = filter.end_reasons.is_some()
        || filter.ended_after.is_some()
        || filter.ended_before.is_some();
    let status = match &filter.status {
        Some(wanted) => wanted.contains(&session.status()),
        None => end.is_some() == of_end,
    };
    let reason = match (&filter.end_reasons, end) {
        (None, _) => true,
        (Some(wanted), Some(end)) => wanted.contains(&end.reason),
        (Some(_), None) => false,
    };
    let at = end.map(|end| end.at);
    let name = session.who().name();
    let address = session.conn().remote_addr.to_string();
    let connected = end.is_none() && session.lifetime() == Lifetime::Connection;
    let (application, thing_id) = match session.who() {
        Who::User(_) => (None, None),
        Who::Application { application, thing_id, .. } => {
            (Some(application.name.to_lowercase()), Some(*thing_id))
        }
    };
    status
        && reason
        && session.org_id() == ORG
        && filter.principal.as_ref().is_none_or(|wanted| session.who().principal() == *wanted)
        && filter.kind.is_none_or(|kind| session.kind() == kind)
        && filter.app_name.as_ref().is_none_or(|n| Some(n.to_lowercase()) == application)
        && filter.protocol.is_none_or(|protocol| session.conn().protocol == protocol)
        && filter.remote_addr.as_ref().is_none_or(|p| p.begins(session.conn().remote_addr))
        && filter.started_after.is_none_or(|after| session.started() > after)
        && filter.started_before.is_none_or(|before| session.started() < before)
        && filter.ended_after.is_none_or(|after| at.is_some_and(|at| at > after))
        && filter.ended_before.is_none_or(|before| at.is_some_and(|at| at < before))
        && filter.connected.is_none_or(|wanted| connected == wanted)
        && filter.who.iter().all(|pattern| pattern.matches(name))
        && filter.words.occur_in(&[name, application.as_deref().unwrap_or(""), &address])
        && filter.client_id.as_ref().is_none_or(|id| session.client_id() == id)
        && filter.definition.is_none_or(|id| session.context().definition == Some(id))
        && filter.things.as_ref().is_none_or(|ids| thing_id.is_some_and(|id| ids.contains(&id)))
        && filter.seen_after.is_none_or(|after| session.last_active() > after)
        && filter.seen_before.is_none_or(|before| session.last_active() < before)
        && filter.idle_since.is_none_or(|since| session.last_accessed() < since)
}

/// What a session is sorted by, as texts that compare as it does.
fn key(sort: SortKey, session: &Session) -> (i128, String) {
    let time = |time: Timestamp| (i128::from(time.as_millis()), String::new());
    match sort {
        SortKey::StartTime => {
            let (started, number) = session.order();
            (i128::from(started.as_millis()) << 64 | i128::from(number), String::new())
        }
        SortKey::LastAccessed => time(session.last_accessed()),
        SortKey::LastSeen => time(session.last_active()),
        SortKey::CommandCount => (i128::from(session.command_count()), String::new()),
        SortKey::WhoAmI => (0, session.who().name().to_owned()),
        SortKey::EndTime => time(session.end().map_or(Timestamp::NEVER, |end| end.at)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn listings_are_what_a_look_at_each_session_finds(
        steps in prop::collection::vec(step(), 1..90),
        filters in prop::collection::vec(filter(), 1..6),
        (offset, limit) in (0..12_usize, 0..30_usize),
    ) {
        let (directory, all) = directory(steps, 1000);
        for filter in filters {
            let expected: Vec<_> = all.iter().filter(|s| belongs(&filter, s)).collect();
            for (sort, ascending) in [
                SortKey::StartTime, SortKey::LastAccessed, SortKey::LastSeen,
                SortKey::CommandCount, SortKey::WhoAmI, SortKey::EndTime,
            ].into_iter().flat_map(|sort| [(sort, false), (sort, true)]) {
                let keys = |found: &[&Arc<Session>]| -> Vec<_> {
                    found.iter().map(|session| key(sort, session)).collect()
                };
                let query = |offset, limit| {
                    Query { offset, limit, sort, ascending, filter: filter.clone() }
                };
                let whole = directory.list(ORG, &query(0, usize::MAX));
                prop_assert_eq!(whole.count, expected.len(), "{:?}", filter);
                let numbers = |found: &[Arc<Session>]| -> HashSet<u64> {
                    found.iter().map(|session| session.number()).collect()
                };
                let wanted: HashSet<u64> = expected.iter().map(|s| s.number()).collect();
                prop_assert_eq!(numbers(&whole.sessions), wanted);
                let mut sorted = keys(&expected);
                sorted.sort();
                if !ascending {
                    sorted.reverse();
                }
                prop_assert_eq!(keys(&whole.sessions.iter().collect::<Vec<_>>()), sorted);
                let page = directory.list(ORG, &query(offset, limit));
                let cut: Vec<_> = whole.sessions.iter().skip(offset).take(limit).collect();
                prop_assert_eq!(page.count, whole.count);
                let cut: Vec<_> = cut.into_iter().map(|session| session.number()).collect();
                let found: Vec<_> = page.sessions.iter().map(|s| s.number()).collect();
                prop_assert_eq!(found, cut, "{:?} {} {:?}", sort, ascending, filter);
            }
            compare_groups(&directory, &filter, &expected)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn those_that_lived_at_a_time_are_found_as_long_as_they_are_remembered(
        steps in prop::collection::vec(step(), 1..90),
        filters in prop::collection::vec(filter(), 1..6),
        history_max in prop_oneof![Just(1000_usize), 0..6_usize],
    ) {
        let (directory, all) = directory(steps, history_max);
        for (filter, at) in filters.iter().flat_map(|f| (-1..46).map(move |s| (f, at(s)))) {
            if !directory.remembers(ORG, at) {
                continue;
            }
            let filter = Filter { status: None, lived_at: Some(at), ..filter.clone() };
            let belongs = |session: &&Arc<Session>| {
                let asked = Filter { lived_at: None, ..filter.clone() };
                session.org_id() == ORG && session.was_here(at) && asked.admits(session)
            };
            let expected: Vec<_> = all.iter().filter(belongs).collect();
            for sort in [SortKey::StartTime, SortKey::WhoAmI, SortKey::EndTime] {
                let query =
                    Query { limit: usize::MAX, sort, filter: filter.clone(), ..Query::default() };
                let found = directory.list(ORG, &query);
                let numbers: HashSet<_> = found.sessions.iter().map(|s| s.number()).collect();
                let wanted: HashSet<_> = expected.iter().map(|s| s.number()).collect();
                prop_assert_eq!(numbers, wanted, "{:?}", filter);
                prop_assert_eq!(found.count, expected.len());
                let ranks: Vec<_> = found.sessions.iter().map(|s| s.rank(sort)).collect();
                prop_assert!(ranks.iter().rev().is_sorted());
            }
            compare_groups(&directory, &filter, &expected)?;
        }
    }
}

#[test]
fn what_was_forgotten_or_was_elsewhere_is_not_remembered() {
    let config = DirectoryConfig { history_max: 2, ..config() };
    let directory = DirectoryWriter::new(config, &Arc::default(), at(10));
    let begin = |number: u64| {
        let start = start(number, thing(number as u8), 1, true, at(number as i64));
        directory.start(start, false, at(number as i64)).expect("room").0
    };
    assert!(!directory.remembers(ORG, at(9)) && directory.remembers(ORG, at(10)));
    for number in 11..14 {
        drop(directory.end(&begin(number), Reason::Idle, at(number as i64 + 5)));
    }
    assert!(!directory.remembers(ORG, at(15)), "the first that ended is gone");
    assert!(directory.remembers(ORG, at(16)), "it did not live then");
    drop(directory.switch(&begin(20), access(2), at(30)));
    assert!(!directory.remembers(ORG, at(29)) && directory.remembers(ORG, at(30)));
    let other = OrgId::from_bytes([2; 12]);
    assert!(!directory.remembers(other, at(29)) && directory.remembers(other, at(30)));
}

fn compare_groups(
    directory: &Directory,
    filter: &Filter,
    expected: &[&Arc<Session>],
) -> Result<(), TestCaseError> {
    for by in [GroupBy::Protocol, GroupBy::Application, GroupBy::Reason, GroupBy::Definition] {
        let common = |session: &Session| match by {
            GroupBy::Protocol => Common::Word(session.conn().protocol.as_str()),
            GroupBy::Reason => {
                session.end().map_or(Common::Nothing, |end| Common::Word(end.reason.as_str()))
            }
            GroupBy::Application => match session.who() {
                Who::User(_) => Common::Nothing,
                Who::Application { application, .. } => {
                    Common::Application(application.name.as_str().into())
                }
            },
            GroupBy::Definition => {
                session.context().definition.map_or(Common::Nothing, Common::Definition)
            }
        };
        let mut counts = BTreeMap::<Common, usize>::new();
        expected.iter().for_each(|session| *counts.entry(common(session)).or_default() += 1);
        let (count, groups) = directory.groups(ORG, filter, by);
        prop_assert_eq!(count, expected.len());
        prop_assert!(groups.is_sorted_by_key(|(_, count)| std::cmp::Reverse(*count)));
        prop_assert_eq!(groups.into_iter().collect::<BTreeMap<_, _>>(), counts);
    }
    Ok(())
}

#[test]
fn those_that_ended_with_the_servers_stop_push_nobody_out() {
    let config = DirectoryConfig { history_max: 6, ..config() };
    let directory = DirectoryWriter::new(config, &Arc::default(), at(0));
    let end = |number: u64, reason| {
        let start = start(number, thing(number as u8), 1, true, at(number as i64));
        let (session, _) = directory.start(start, false, at(number as i64)).expect("room");
        drop(directory.end(&session, reason, at(number as i64)));
    };
    let ended = |reason| {
        let filter = Filter { end_reasons: Some(vec![reason]), ..Filter::default() };
        directory.list(ORG, &Query { limit: 9, filter, ..Query::default() }).count
    };
    (0..4).for_each(|number| end(number, Reason::LoggedOut));
    (4..20).for_each(|number| end(number, Reason::ServerStopped));
    assert_eq!([ended(Reason::LoggedOut), ended(Reason::ServerStopped)], [4, 2]);
    (20..21).for_each(|number| end(number, Reason::Idle));
    assert_eq!([ended(Reason::LoggedOut), ended(Reason::ServerStopped)], [4, 1]);
    (21..24).for_each(|number| end(number, Reason::Idle));
    assert_eq!([ended(Reason::LoggedOut), ended(Reason::ServerStopped)], [2, 0]);
    assert_eq!(directory.prune(at(2000), 10).len(), 6);
    assert_eq!(directory.numbers.application_of(1), None, "nobody is left who has a number");
}

#[test]
fn a_switch_is_kept_with_the_definition() {
    let switch = OrgSwitch { org_id: ORG, org_key: "Org1".into(), ts: at(0) };
    let directory = DirectoryWriter::new(config(), &Arc::default(), at(0));
    let (session, _) =
        directory.start(start(1, thing(1), 2, false, at(0)), false, at(0)).expect("room");
    drop(directory.set_definition(&thing(1).principal(), definition_of(1)));
    drop(directory.switch(&session, access(1), at(0)));
    let filter = Filter { definition: definition_of(1), ..Filter::default() };
    let listing = directory.list(ORG, &Query { limit: 9, filter, ..Query::default() });
    assert_eq!(listing.count, 1);
    assert_eq!(listing.sessions[0].context().switches, [switch]);
}
