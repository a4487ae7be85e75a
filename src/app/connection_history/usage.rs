//! How many were connected, hour by hour and day by day, in UTC: sums that are kept, so that no
//! question reads the sessions themselves.
//!
//! Figures of the hour and day that go on are in memory, and stored now and then; after a restart
//! they are made of the sessions that the directory knows. A thing counts once in an hour and once in
//! a day: for each that was connected today there is a number in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use base::{OrgId, ThingId, Timestamp, limits};
use rules::directory::{Event, Lifetime, Session, Who};
use serde::Serialize;
use store::{Batch, StoreError, Table};

use super::row;
use crate::app::App;

const HOUR_MS: i64 = 3_600_000;

/// What figures are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// An hour.
    Hour,
    /// A day in UTC.
    Day,
}

impl Unit {
    /// How long it is.
    pub const fn millis(self) -> i64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => 24 * HOUR_MS,
        }
    }

    /// When the one begins that this time is in.
    pub const fn begin(self, time: Timestamp) -> Timestamp {
        let millis = time.as_millis();
        Timestamp::from_millis(millis - millis.rem_euclid(self.millis()))
    }

    const fn key(self) -> u8 {
        match self {
            Self::Hour => row::HOUR,
            Self::Day => row::DAY,
        }
    }
}

/// A question of how many there were.
#[derive(Clone, Debug)]
pub struct UsageQuery {
    /// Where.
    pub orgs: HashSet<OrgId>,
    /// Hours or days.
    pub unit: Unit,
    /// When the first one begins.
    pub first: Timestamp,
    /// How many of them.
    pub count: usize,
    /// Things; otherwise sessions.
    pub things: bool,
}

/// How many there were, in each hour or day.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Series {
    /// That were connected at some time in each.
    pub connected: Vec<u64>,
    /// That there were.
    pub total: Vec<u64>,
    /// When each begins.
    pub ts: Vec<Timestamp>,
}

/// Figures of an organisation in an hour or day.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Figures {
    /// Sessions that a connection held.
    connected: u64,
    /// All sessions.
    sessions: u64,
    /// Things that were connected.
    things: u64,
    /// Things that there were at its end.
    all_things: u64,
}

impl Figures {
    fn to_row(self) -> Vec<u8> {
        let all = [self.connected, self.sessions, self.things, self.all_things];
        all.iter().flat_map(|figure| figure.to_be_bytes()).collect()
    }

    fn from_row(row: &[u8]) -> Self {
        let figures = row.as_chunks::<8>().0;
        let at = |at: usize| figures.get(at).map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self { connected: at(0), sessions: at(1), things: at(2), all_things: at(3) }
    }

    fn at_least(self, other: Self) -> Self {
        Self {
            connected: self.connected.max(other.connected),
            sessions: self.sessions.max(other.sessions),
            things: self.things.max(other.things),
            all_things: self.all_things.max(other.all_things),
        }
    }

    /// What is connected now is in what begins now.
    fn next(now: &Live) -> Self {
        let Live { connected, sessions, things } = *now;
        Self { connected, sessions, things, all_things: 0 }
    }
}

/// What there is now.
#[derive(Clone, Copy, Default, Debug)]
struct Live {
    connected: u64,
    sessions: u64,
    things: u64,
}

#[derive(Default)]
struct OrgUsage {
    live: Live,
    hour: Figures,
    day: Figures,
    /// Whether they are not stored like this.
    stale: bool,
}

/// A thing that was connected today.
#[derive(Clone, Copy, Default)]
struct ThingUsage {
    connections: u32,
    /// The last hour since 1970 in which it was, if it is no more.
    hour: u32,
}

/// What is counted now.
pub(super) struct Usage {
    /// Since 1970, as the wall clock says. Where that goes back by less than two hours, it stays.
    hour: u32,
    orgs: HashMap<OrgId, OrgUsage>,
    things: HashMap<ThingId, ThingUsage>,
    /// Figures of what ended last, which may wait for the store.
    ended: Rows,
}

/// Figures that are to be stored.
type Rows = Vec<(Unit, Timestamp, OrgId, Figures)>;

impl Usage {
    pub(super) fn new(now: Timestamp) -> Self {
        let (orgs, things) = (HashMap::new(), HashMap::new());
        Self { hour: hour_of(now), orgs, things, ended: Rows::new() }
    }

    fn begin(&self, unit: Unit) -> Timestamp {
        unit.begin(Timestamp::from_millis(i64::from(self.hour) * HOUR_MS))
    }

    /// Goes on to the hour of this time; what has ended meanwhile is to be stored.
    fn go_on(&mut self, now: Timestamp) -> Rows {
        let mut rows = Rows::new();
        let hour = hour_of(now);
        if hour.saturating_add(1) < self.hour {
            // The clock was set back: what the store has of these hours is begun anew.
            self.end_hour(&mut rows, true);
            self.hour = hour;
        }
        // Of a process that stood still, only the first hours are filled in.
        let last = hour.min(self.hour.saturating_add(limits::USAGE_HOURS_FILLED_MAX));
        while self.hour < hour {
            let next = if self.hour < last { self.hour + 1 } else { hour };
            self.end_hour(&mut rows, next / 24 != self.hour / 24);
            self.hour = next;
        }
        rows
    }

    /// Ends the hour, and maybe the day, that is counted.
    fn end_hour(&mut self, rows: &mut Rows, ends_day: bool) {
        let (hour_began, day_began) = (self.begin(Unit::Hour), self.begin(Unit::Day));
        for (id, org) in &mut self.orgs {
            rows.push((Unit::Hour, hour_began, *id, org.hour));
            org.hour = Figures::next(&org.live);
            if ends_day {
                rows.push((Unit::Day, day_began, *id, org.day));
                org.day = Figures::next(&org.live);
            }
            org.stale = true;
        }
        if ends_day {
            self.orgs.retain(|_, org| org.live.sessions > 0);
            self.things.retain(|_, thing| thing.connections > 0);
        }
    }

    fn come(&mut self, org: OrgId, is_bound: bool) {
        let one = u64::from(is_bound);
        let usage = self.orgs.entry(org).or_default();
        usage.live.sessions += 1;
        usage.live.connected += one;
        for figures in [&mut usage.hour, &mut usage.day] {
            figures.sessions += 1;
            figures.connected += one;
        }
        usage.stale = true;
    }

    fn go(&mut self, org: OrgId, is_bound: bool) {
        let live = &mut self.orgs.entry(org).or_default().live;
        live.sessions = live.sessions.saturating_sub(1);
        live.connected = live.connected.saturating_sub(u64::from(is_bound));
    }

    fn thing_comes(&mut self, org: OrgId, thing: ThingId) {
        if self.things.len() >= limits::USAGE_THINGS_MAX && !self.things.contains_key(&thing) {
            self.things.retain(|_, thing| thing.connections > 0);
        }
        let known = self.things.entry(thing).or_default();
        known.connections += 1;
        if known.connections > 1 {
            return;
        }
        let (last, now) = (known.hour, self.hour);
        let usage = self.orgs.entry(org).or_default();
        usage.live.things += 1;
        usage.hour.things += u64::from(last != now);
        usage.day.things += u64::from(last / 24 != now / 24);
    }

    fn thing_goes(&mut self, org: OrgId, thing: ThingId) {
        let Some(known) = self.things.get_mut(&thing) else { return };
        known.connections = known.connections.saturating_sub(1);
        known.hour = self.hour;
        if known.connections == 0 {
            let live = &mut self.orgs.entry(org).or_default().live;
            live.things = live.things.saturating_sub(1);
        }
    }

    /// Counts a session that had ended already when the server started.
    fn had_ended(&mut self, session: &Session, end: Timestamp) {
        let hour = hour_of(end);
        if hour / 24 != self.hour / 24 {
            return;
        }
        let this_hour = hour == self.hour;
        let one = u64::from(is_bound(session));
        let usage = self.orgs.entry(session.org_id()).or_default();
        usage.day.sessions += 1;
        usage.day.connected += one;
        usage.hour.sessions += u64::from(this_hour);
        usage.hour.connected += one * u64::from(this_hour);
        if let Some((org, thing)) = thing_of(session) {
            let known = self.things.entry(thing).or_default();
            let last = known.hour;
            known.hour = last.max(hour);
            let usage = self.orgs.entry(org).or_default();
            usage.day.things += u64::from(last / 24 != hour / 24);
            usage.hour.things += u64::from(this_hour && last != hour);
        }
    }

    fn start(&mut self, session: &Session) {
        self.come(session.org_id(), is_bound(session));
        if let Some((org, thing)) = thing_of(session) {
            self.thing_comes(org, thing);
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Started(session) => self.start(session),
            Event::Ended(session, _) => {
                self.go(session.org_id(), is_bound(session));
                if let Some((org, thing)) = thing_of(session) {
                    self.thing_goes(org, thing);
                }
            }
            Event::Switched(session, Some(left)) => {
                self.go(left.org, is_bound(session));
                self.come(session.org_id(), is_bound(session));
            }
            _ => {}
        }
    }
}

fn hour_of(time: Timestamp) -> u32 {
    u32::try_from(time.as_millis().div_euclid(HOUR_MS).max(0)).unwrap_or(u32::MAX)
}

fn is_bound(session: &Session) -> bool {
    session.lifetime() == Lifetime::Connection
}

/// The thing whose connection a session is.
fn thing_of(session: &Session) -> Option<(OrgId, ThingId)> {
    match session.who() {
        Who::Application { application, thing_id, .. } if is_bound(session) => {
            Some((application.org, *thing_id))
        }
        _ => None,
    }
}

impl App {
    /// Counts who comes and goes.
    pub(in crate::app) fn count_usage(&self, events: &[Event]) {
        let counts = |event: &Event| {
            matches!(event, Event::Started(_) | Event::Ended(..) | Event::Switched(_, Some(_)))
        };
        if !events.iter().any(counts) {
            return;
        }
        let now = self.clock.shown(self.clock.now());
        let mut usage = self.connection_history.usage.lock();
        self.go_on(&mut usage, now);
        events.iter().for_each(|event| usage.apply(event));
    }

    /// Goes on to the hour of this time.
    fn go_on(&self, usage: &mut Usage, now: Timestamp) {
        let mut ended = usage.go_on(now);
        if !ended.is_empty() {
            ended.iter_mut().for_each(|(.., org, f)| f.all_things = self.things.count(*org));
            self.store_figures(&ended);
            usage.ended = ended;
        }
    }

    /// Counts the sessions that a start of the server has found.
    pub(in crate::app) fn recover_usage(&self, now: Timestamp) -> Result<(), StoreError> {
        let now = self.clock.shown(now);
        let mut usage = self.connection_history.usage.lock();
        self.go_on(&mut usage, now);
        for session in self.sessions.ended() {
            if let Some(end) = session.end() {
                usage.had_ended(&session, self.clock.shown(end.at));
            }
        }
        for session in self.sessions.all() {
            usage.start(&session);
        }
        for unit in [Unit::Hour, Unit::Day] {
            let begin = usage.begin(unit);
            let table = row::table(begin);
            let prefix = [&[unit.key()][..], &begin.as_millis().to_be_bytes()].concat();
            for (key, row) in self.tables.scan_prefix(table, &prefix, None, usize::MAX)? {
                let Some((_, org)) = row::read_figures_key(&key) else { continue };
                let org = usage.orgs.entry(org).or_default();
                let figures = if unit == Unit::Hour { &mut org.hour } else { &mut org.day };
                *figures = figures.at_least(Figures::from_row(&row));
            }
        }
        Ok(())
    }

    /// Stores the figures that have changed.
    pub(in crate::app) fn keep_figures(&self, now: Timestamp) {
        let mut usage = self.connection_history.usage.lock();
        self.go_on(&mut usage, self.clock.shown(now));
        let mut rows = Rows::new();
        let (hour, day) = (usage.begin(Unit::Hour), usage.begin(Unit::Day));
        for (id, org) in usage.orgs.iter_mut().filter(|(_, org)| org.stale) {
            org.stale = false;
            let all_things = self.things.count(*id);
            for (unit, begin, figures) in [(Unit::Hour, hour, org.hour), (Unit::Day, day, org.day)]
            {
                rows.push((unit, begin, *id, Figures { all_things, ..figures }));
            }
        }
        // In the order in which they are counted.
        self.store_figures(&rows);
        drop(usage);
    }

    fn store_figures(&self, rows: &Rows) {
        if rows.is_empty() || !self.connection_history.is_kept() {
            return;
        }
        let mut batch = Batch::default();
        for (unit, begin, org, figures) in rows {
            let key = row::figures_key(unit.key(), *begin, *org);
            batch.put(row::table(*begin), key, figures.to_row());
        }
        // Lost or refused, the next ones are as good; of an hour that has ended, the last ones.
        let _ = self.tables.submit(batch);
    }

    /// How many there were. It reads, for one organisation, a row for each hour or day; for many,
    /// those of all organisations.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub fn usage(&self, query: &UsageQuery, now: Timestamp) -> Result<Series, StoreError> {
        let millis = query.unit.millis();
        let begin = |index: usize| query.first.plus_millis(millis * index as i64);
        let mut figures: BTreeMap<(usize, OrgId), Figures> = BTreeMap::new();
        let index_of = |time: Timestamp| {
            let index = (time.as_millis() - query.first.as_millis()) / millis;
            usize::try_from(index).ok().filter(|index| time >= query.first && *index < query.count)
        };
        if query.orgs.len() <= POINT_READS_ORGS_MAX {
            for (index, org) in
                (0..query.count).flat_map(|index| query.orgs.iter().map(move |org| (index, *org)))
            {
                let key = row::figures_key(query.unit.key(), begin(index), org);
                if let Some(row) = self.tables.read(row::table(begin(index)), &key)? {
                    figures.insert((index, org), Figures::from_row(&row));
                }
            }
        } else {
            self.visit_figures(query, |time, org, row| {
                if let Some(index) = index_of(time).filter(|_| query.orgs.contains(&org)) {
                    figures.insert((index, org), row);
                }
            })?;
        }
        let mut usage = self.connection_history.usage.lock();
        self.go_on(&mut usage, self.clock.shown(now));
        for (unit, begin, org, ended) in &usage.ended {
            let wanted = *unit == query.unit && query.orgs.contains(org);
            if let Some(index) = index_of(*begin).filter(|_| wanted) {
                figures.insert((index, *org), *ended);
            }
        }
        if let Some(index) = index_of(usage.begin(query.unit)) {
            self.add_current(query, index, &usage, &mut figures);
        }
        drop(usage);
        Ok(series(query, figures))
    }

    /// Adds the figures of the hour or day that goes on.
    fn add_current(
        &self,
        query: &UsageQuery,
        index: usize,
        usage: &Usage,
        figures: &mut BTreeMap<(usize, OrgId), Figures>,
    ) {
        for org in &query.orgs {
            let known = usage.orgs.get(org);
            let current = known.map_or_else(Figures::default, |known| match query.unit {
                Unit::Hour => known.hour,
                Unit::Day => known.day,
            });
            let all_things = self.things.count(*org);
            figures.insert((index, *org), Figures { all_things, ..current });
        }
    }

    fn visit_figures(
        &self,
        query: &UsageQuery,
        mut visit: impl FnMut(Timestamp, OrgId, Figures),
    ) -> Result<(), StoreError> {
        let end = query.first.plus_millis(query.unit.millis() * query.count as i64);
        for month in self.tables.connection_months() {
            if !(row::month(query.first)..=row::month(end)).contains(&month) {
                continue;
            }
            let key = |time: Timestamp| {
                [&[query.unit.key()][..], &time.as_millis().to_be_bytes()].concat()
            };
            let (mut from, to) = (key(query.first), key(end));
            loop {
                let (after, before) = (Bound::Included(&*from), Bound::Excluded(&*to));
                let rows = self.tables.scan(Table::Connections(month), after, before, 1000)?;
                let Some((last, _)) = rows.last() else { break };
                from = [last, &[0][..]].concat();
                for (key, row) in &rows {
                    if let Some((time, org)) = row::read_figures_key(key) {
                        visit(time, org, Figures::from_row(row));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Of more organisations, the figures of all are read in their order on disk.
const POINT_READS_ORGS_MAX: usize = 8;

/// Hours and days that the server did not see are as those of its organisations are without
/// connections: their things were there.
fn series(query: &UsageQuery, figures: BTreeMap<(usize, OrgId), Figures>) -> Series {
    let mut series = Series::default();
    let (mut things, mut all_things) = (HashMap::<OrgId, u64>::new(), 0);
    let mut figures = figures.into_iter().peekable();
    for index in 0..query.count {
        let (mut connected, mut sessions) = (0, 0);
        while let Some(((_, org), found)) = figures.next_if(|((at, _), _)| *at == index) {
            connected += if query.things { found.things } else { found.connected };
            sessions += found.sessions;
            let before = things.insert(org, found.all_things).unwrap_or(0);
            all_things = all_things + found.all_things - before;
        }
        series.ts.push(query.first.plus_millis(query.unit.millis() * index as i64));
        series.connected.push(connected);
        // A thing that was deleted since was there, too.
        series.total.push(if query.things { all_things.max(connected) } else { sessions });
    }
    series
}

#[cfg(test)]
mod tests;
