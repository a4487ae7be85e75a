//! The session directory: every live session, and those that ended lately.
//!
//! It knows no socket, no clock and no disk: `now` is an argument, and every change returns the
//! [`Events`] that tell the rest of the program. Everybody may read the [`Directory`]; only the
//! holder of the [`DirectoryWriter`] can change a session.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::pool::{OverShare, Pool, Pools, Usage};
use base::shares::Shares;
use base::{
    ApplicationId, OrgId, SessionId, SessionRef, SessionUuid, ThingDefId, Timestamp, limits,
};
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::identity::Access;

pub mod as_of;
mod chunks;
pub mod details;
pub mod event;
mod facets;
pub mod failures;
pub mod history;
mod hot;
mod marks;
pub mod outbox;
pub mod query;
pub mod record;
pub mod roster;
pub mod session;
pub mod siblings;
#[cfg(test)]
mod tests;
pub mod text;
pub mod wheel;
pub mod window;

pub use base::PrincipalId;
pub use event::{Event, Events};
pub use failures::{Failures, RateOf};
pub use outbox::{Counters, Outbox, Push, Replied, Traffic};
pub use session::{
    End, Kind, Lifetime, Link, OrgContext, OrgSwitch, Principal, Reason, Session, Start, Status,
    Stay, Who,
};
pub use window::Window;

use facets::Numbers;
use history::History;
use hot::HotArray;
use roster::Roster;
use session::Session as Entry;
use siblings::{Mark, Siblings};
use wheel::Wheel;
use window::Windows;

/// The rules of time and number for sessions, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryConfig {
    /// Seconds after which an idle session expires; 0: never. [`DirectoryWriter::set_ttl_s`] changes it.
    pub ttl_s: u64,
    /// Seconds after which a session over HTTP expires even when used.
    pub max_age_s: u64,
    /// Live sessions at most.
    pub sessions_max: usize,
    /// Live sessions of one login at most.
    pub per_principal_max: usize,
    /// Ended sessions kept at most.
    pub history_max: usize,
    /// Seconds for which ended sessions are kept.
    pub history_age_s: u64,
}

/// There are as many live sessions as the configuration allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// In all.
    #[error("{0}")]
    Sessions(OverShare),
    /// Of this login.
    #[error("this login has as many connections as limits.sessions_per_principal allows")]
    Login,
}

/// The session directory, for those who read it.
pub struct Directory {
    config: DirectoryConfig,
    /// The idle time of sessions that start from now on.
    ttl_s: AtomicU64,
    /// By UUID, which is a part of the handle: one index serves both.
    sessions: DashMap<SessionUuid, Arc<Session>>,
    by_org: DashMap<OrgId, Arc<RwLock<Roster>>>,
    by_principal: DashMap<Principal, Siblings>,
    wheel: Mutex<Wheel>,
    history: Mutex<History>,
    /// Sessions of one login that were refused, and that made way.
    of_login: Arc<Usage>,
    /// Of the applications and definitions that known sessions have.
    numbers: Numbers,
    /// What changes with every command.
    hot: HotArray,
    /// Live sessions, by the organisation in which they are.
    shares: Mutex<Shares<PrincipalId>>,
    /// Those of administrators for whom there was no other room.
    reserve: Mutex<Shares<PrincipalId>>,
    /// Of logins without sessions.
    windows: Windows<Principal>,
    /// Of applications that ask by their token alone.
    token_windows: Windows<ApplicationId>,
    next_serial: AtomicU64,
}

/// The session directory, for the one who changes it.
pub struct DirectoryWriter(Directory);

impl Deref for DirectoryWriter {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.0
    }
}

impl Directory {
    fn new(config: DirectoryConfig, pools: &Arc<Pools>, now: Timestamp) -> Self {
        let sessions_max = config.sessions_max as u64;
        let history = History::new((config.history_max, config.history_age_s), pools, now);
        Self {
            config,
            ttl_s: AtomicU64::new(config.ttl_s),
            sessions: DashMap::new(),
            by_org: DashMap::new(),
            by_principal: DashMap::new(),
            wheel: Mutex::new(Wheel::new(now.as_millis() / 1000)),
            history: Mutex::new(history),
            of_login: pools.usage(Pool::SessionsOfLogin).clone(),
            numbers: Numbers::default(),
            hot: HotArray::default(),
            shares: Mutex::new(Shares::new(Pool::Sessions, sessions_max, pools)),
            reserve: Mutex::new(Shares::new(Pool::AdminSessions, limits::ADMIN_SESSIONS, pools)),
            windows: Windows::default(),
            token_windows: Windows::default(),
            next_serial: AtomicU64::new(0),
        }
    }

    /// The rules in force.
    pub const fn config(&self) -> &DirectoryConfig {
        &self.config
    }

    /// Seconds after which a session that starts now expires when it is idle; 0: never.
    pub fn ttl_s(&self) -> u64 {
        self.ttl_s.load(Ordering::Relaxed)
    }

    /// How many sessions live.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The live session with this handle.
    pub fn get(&self, reference: &SessionRef) -> Option<Arc<Session>> {
        let found = self.sessions.get(&reference.uuid())?;
        (found.reference == *reference).then(|| found.value().clone())
    }

    /// The session with this UUID, if it lives or ended lately.
    pub fn by_uuid(&self, uuid: SessionUuid) -> Option<Arc<Session>> {
        let live = self.sessions.get(&uuid).map(|entry| entry.value().clone());
        live.or_else(|| self.history.lock().get(uuid).cloned())
    }

    /// The live session with this secret id.
    pub fn by_id(&self, id: &SessionId) -> Option<Arc<Session>> {
        let session = self.get(&SessionRef::of(id))?;
        session.id.get_or_init(|| *id);
        Some(session)
    }

    /// The live sessions of one login.
    pub fn of_principal(&self, principal: &Principal) -> Vec<Arc<Session>> {
        let siblings = self.by_principal.get(principal);
        siblings.map_or_else(Vec::new, |siblings| siblings.iter().cloned().collect())
    }

    /// How many live sessions a login has.
    pub fn count_of(&self, principal: &Principal) -> usize {
        self.by_principal.get(principal).map_or(0, |siblings| siblings.len())
    }

    /// How many sessions of a login have started since then, among those that live or ended lately.
    pub fn started_since(&self, principal: &Principal, since: Timestamp) -> usize {
        let live = self.by_principal.get(principal).map_or(0, |live| live.since(since));
        let history = self.history.lock();
        live + history.of_principal(principal).map_or(0, |ended| ended.since(since))
    }

    /// How many live sessions of a login are bound to connections; none if it has no session at all.
    pub fn bound_of(&self, principal: &Principal) -> Option<usize> {
        self.by_principal.get(principal).map(|siblings| siblings.bound())
    }

    /// Whether one more command of a login fits into the current second, of which all its sessions
    /// together may send `limit` (0: any number); for who asks without a session.
    pub fn admit_login(&self, principal: PrincipalId, now: Timestamp, limit: u32) -> bool {
        if limit == 0 {
            return true;
        }
        let window = match principal {
            PrincipalId::User(id) => {
                let login = Principal::User(id);
                let siblings = self.by_principal.get(&login);
                let shared = siblings.and_then(|siblings| siblings.window().cloned());
                shared.unwrap_or_else(|| self.windows.of(login, now))
            }
            PrincipalId::Application(id) => self.token_windows.of(id, now),
        };
        window.admit(now, limit)
    }

    /// At most `max` sessions of one login: those that live and those that ended lately, the last
    /// that started first, from behind the mark on.
    ///
    /// A session keeps its place when it ends, so that whoever goes on behind the last session of a
    /// page sees none twice and misses none, whatever happens in between.
    pub fn page_of_principal(
        &self,
        principal: &Principal,
        after: Option<Mark>,
        max: usize,
    ) -> Vec<Arc<Session>> {
        let page = |siblings: &Siblings| -> Vec<Arc<Session>> {
            siblings.older_than(after).take(max).cloned().collect()
        };
        // In this order: what ends meanwhile is in both rather than in none.
        let mut found = self.by_principal.get(principal).map_or_else(Vec::new, |live| page(&live));
        found.extend(self.history.lock().of_principal(principal).map_or_else(Vec::new, page));
        found.sort_by_key(|session| Reverse(session.mark()));
        found.dedup_by_key(|session| session.mark());
        found.truncate(max);
        found
    }

    /// How the last session of a login ended that is known.
    pub fn last_end_of(&self, principal: &Principal) -> Option<End> {
        let history = self.history.lock();
        let ends = history.of_principal(principal)?.iter().filter_map(|session| session.end());
        ends.max_by_key(|end| end.at)
    }

    /// All live sessions, in no order. For the stop of the server and for tests: it visits all.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.iter().map(|entry| entry.value().clone()).collect()
    }

    /// All sessions that ended lately, in the order of their ends: for the start of the server.
    pub fn ended(&self) -> Vec<Arc<Session>> {
        self.history.lock().all().cloned().collect()
    }

    /// The live sessions that are in an organisation, oldest first.
    pub fn in_org(&self, org: OrgId) -> Vec<Arc<Session>> {
        let Some(roster) = self.by_org.get(&org).map(|roster| roster.value().clone()) else {
            return Vec::new();
        };
        // Who comes or goes does not wait until all have been looked at.
        let entries = roster.read().entries();
        let entries = entries.all().flat_map(|chunk| &chunk.items);
        entries.map(|entry| entry.session.clone()).collect()
    }

    /// Whether a live session in an organisation passes the test, which must be short.
    pub fn any_in_org(&self, org: OrgId, test: impl Fn(&Session) -> bool) -> bool {
        let roster = self.by_org.get(&org).map(|roster| roster.value().clone());
        roster.is_some_and(|roster| roster.read().newest_first().any(|s| test(s)))
    }

    /// At most `max` sessions in an organisation that pass the test on which nothing has come for
    /// longest, the idlest first, and since when. It looks at all, and keeps nobody waiting meanwhile.
    pub fn idlest_in_org(
        &self,
        org: OrgId,
        max: usize,
        test: impl Fn(&Session) -> bool,
    ) -> Vec<(Timestamp, Arc<Session>)> {
        let Some(roster) = self.by_org.get(&org).map(|roster| roster.value().clone()) else {
            return Vec::new();
        };
        let entries = roster.read().entries();
        let entries = entries.all().flat_map(|chunk| &chunk.items);
        idlest(entries.map(|entry| &entry.session).filter(|session| test(session)), max)
    }

    /// The same of one login.
    pub fn idlest_of(
        &self,
        principal: &Principal,
        max: usize,
        test: impl Fn(&Session) -> bool,
    ) -> Vec<(Timestamp, Arc<Session>)> {
        let sessions = self.of_principal(principal);
        idlest(sessions.iter().filter(|session| test(session)), max)
    }

    /// How many live sessions an organisation has.
    pub fn count(&self, org: OrgId) -> usize {
        self.by_org.get(&org).map_or(0, |roster| roster.value().read().len())
    }

    /// Whether there is room for a session in another organisation, for whose rights there it leaves
    /// its own. Administrators have to get in.
    ///
    /// # Errors
    /// The limit of sessions is reached there.
    pub fn may_move(&self, session: &Session, there: &Access) -> Result<(), OverShare> {
        let (context, org) = (session.context.read(), there.org.id);
        let here = context.access.org.id;
        if here == org
            || there.is_administrators()
            || session.detached
            || session.end.get().is_some()
        {
            return Ok(());
        }
        let principal = session.who.principal_id();
        let mut shares = self.pool_of(session).lock();
        shares.give_back(here, principal, 1);
        let has_room = shares.has_room(org, principal, 1);
        shares.hold(here, principal, 1);
        has_room.inspect_err(|over| shares.count_over(org, *over))
    }

    /// From which pool a session has its place.
    fn pool_of(&self, session: &Session) -> &Mutex<Shares<PrincipalId>> {
        if session.reserved { &self.reserve } else { &self.shares }
    }
}

fn idlest<'s>(
    sessions: impl Iterator<Item = &'s Arc<Session>>,
    max: usize,
) -> Vec<(Timestamp, Arc<Session>)> {
    let mut found = BTreeMap::new();
    for session in sessions {
        let place = (session.last_active(), session.serial);
        let is_less = || found.last_key_value().is_some_and(|(last, _)| place < *last);
        if found.len() < max || is_less() {
            found.insert(place, session.clone());
        }
        if found.len() > max {
            found.pop_last();
        }
    }
    found.into_iter().map(|((since, _), session)| (since, session)).collect()
}

impl DirectoryWriter {
    /// An empty directory.
    pub fn new(config: DirectoryConfig, pools: &Arc<Pools>, now: Timestamp) -> Self {
        Self(Directory::new(config, pools, now))
    }

    /// Sets the idle time of sessions that start from now on. Those that live keep theirs, for
    /// which their timers are set.
    pub fn set_ttl_s(&self, ttl_s: u64) {
        self.ttl_s.store(ttl_s, Ordering::Relaxed);
    }

    /// Starts a session. With `takes_over`, connection-bound sessions of the same login with the
    /// same client id end as replaced (MQTT 3.1.1, \[MQTT-3.1.4-2\]). If the login has as many
    /// sessions as it may, its oldest one over HTTP ends as replaced.
    ///
    /// # Errors
    ///
    /// The organisation, or the principal in it, has its share of the directory, or the login has
    /// all its sessions bound to connections.
    pub fn start(
        &self,
        start: Start,
        takes_over: bool,
        now: Timestamp,
    ) -> Result<(Arc<Session>, Events), Full> {
        let (org, principal) = (start.access.org.id, start.who.principal_id());
        let reserved = self.take_place(&start, takes_over)?;
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        let mut session = Session::new(start, serial, self.ttl_s(), now);
        session.reserved = reserved;
        self.enter(&mut session);
        let session = Arc::new(session);
        let older = self.insert(&session, takes_over, self.config.per_principal_max);
        let older = older.inspect_err(|_| {
            self.numbers.leave(session.facets());
            self.pool_of(&session).lock().give_back(org, principal, 1);
        })?;
        let mut events = Events::default();
        for other in older {
            events.append(self.end(&other, Reason::Replaced, now));
        }
        events.push(Event::Started(session.clone()));
        Ok((session, events))
    }

    /// Takes the place of a session; whether it is one of those for administrators. Where there is none,
    /// a session that replaces another has the place of that one, which gives it back when it ends.
    fn take_place(&self, start: &Start, takes_over: bool) -> Result<bool, Full> {
        let (org, principal) = (start.access.org.id, start.who.principal_id());
        let mut shares = self.shares.lock();
        let Err(over) = shares.has_room(org, principal, 1) else {
            shares.hold(org, principal, 1);
            return Ok(false);
        };
        drop(shares);
        if takes_over && let Some(reserved) = self.take_place_of_older(start) {
            return Ok(reserved);
        }
        self.shares.lock().count_refused(org);
        let may =
            start.access.is_administrators() && self.reserve.lock().take(org, principal, 1).is_ok();
        if may { Ok(true) } else { Err(Full::Sessions(over)) }
    }

    /// Takes the place of a session that the new one replaces, if there is one.
    fn take_place_of_older(&self, start: &Start) -> Option<bool> {
        let (org, principal) = (start.access.org.id, start.who.principal_id());
        let is_older = |other: &&Arc<Session>| {
            other.lifetime == Lifetime::Connection
                && *other.client_id == *start.client_id
                && other.org_id() == org
                && other.who.principal_id() == principal
        };
        let siblings = self.by_principal.get(&start.who.principal());
        let older = siblings.and_then(|siblings| siblings.iter().find(is_older).cloned())?;
        self.pool_of(&older).lock().hold(org, principal, 1);
        Some(older.reserved)
    }

    /// Puts a session into every index, or into none if its login has `siblings_max` sessions that
    /// can't be replaced. Returns the sessions that it replaces.
    fn insert(
        &self,
        session: &Arc<Session>,
        takes_over: bool,
        siblings_max: usize,
    ) -> Result<SmallVec<[Arc<Session>; 1]>, Full> {
        // Held over all indexes: whoever finds the session through the first of them and ends it
        // waits until it is in the last.
        let context = session.context.write();
        let older = self.join(session, takes_over, siblings_max)?;
        self.roster(context.access.org.id).write().insert(session.order(), session.clone());
        self.arm(session);
        self.sessions.insert(session.uuid(), session.clone());
        Ok(older)
    }

    /// Puts a session beside the others of its login, as [`DirectoryWriter::insert`] says.
    fn join(
        &self,
        session: &Arc<Session>,
        takes_over: bool,
        siblings_max: usize,
    ) -> Result<SmallVec<[Arc<Session>; 1]>, Full> {
        let mut siblings = self.by_principal.entry(session.who.principal()).or_default();
        let bound = |other: &Session| other.lifetime == Lifetime::Connection;
        let replaced = |other: &&Arc<Session>| bound(other) && other.client_id == session.client_id;
        let mut older = match takes_over {
            true => siblings.iter().filter(replaced).cloned().collect(),
            // Most logins of one principal with thousands of sessions: they look at none.
            false => SmallVec::<[_; 1]>::new(),
        };
        if siblings.len() - older.len() >= siblings_max {
            let oldest = siblings.iter().find(|other| !bound(other));
            let oldest =
                oldest.ok_or(Full::Login).inspect_err(|_| self.of_login.count_refused())?;
            older.push(oldest.clone());
            self.of_login.count_evicted();
        }
        let shared = siblings.window().cloned();
        let first = || self.windows.take(&session.who.principal(), session.started);
        let _ = session.login_window.set(shared.unwrap_or_else(first));
        siblings.insert(session.clone());
        Ok(older)
    }

    /// Ends a session; does nothing when it has ended already.
    pub fn end(&self, session: &Arc<Session>, reason: Reason, now: Timestamp) -> Events {
        if session.detached {
            return Events::default();
        }
        let mut context = session.context.write();
        if session.end.set(End { reason, at: now }).is_err() {
            return Events::default();
        }
        // An MQTT connection may have replies on the way to topics.
        if session.link.mqtt_level == 0 {
            context.forget_topics();
        }
        session.set_facets(session.facets().with_reason(Some(reason)));
        // First into the history: who looks for it here and there finds it.
        let org = context.access.org.id;
        let forgotten = self.history.lock().push(session.clone(), org);
        self.pool_of(session).lock().give_back(org, session.who.principal_id(), 1);
        self.sessions.remove(&session.uuid());
        self.roster(org).write().remove(session.order(), session);
        self.wheel.lock().remove(session);
        let principal = session.who.principal();
        self.by_principal.remove_if_mut(&principal, |_, siblings| {
            siblings.remove(session);
            if let (true, Some(window)) = (siblings.is_empty(), session.login_window.get()) {
                self.windows.keep(principal.clone(), window.clone(), now);
            }
            siblings.is_empty()
        });
        drop(context);
        let ended = Event::Ended(session.clone(), reason);
        std::iter::once(ended).chain(self.forget(forgotten)).collect()
    }

    /// Ends a session for somebody: one of their own as logged out, any other as revoked.
    pub fn end_for(&self, session: &Arc<Session>, by: &Principal, now: Timestamp) -> Events {
        let own = session.who.principal() == *by;
        self.end(session, if own { Reason::LoggedOut } else { Reason::Revoked }, now)
    }

    /// Ends a session as revoked. One that has ended otherwise is revoked too: it keeps the time of
    /// its end. One that is revoked already stays as it is, but is told of again: the record of
    /// its end may be lost, or not stored yet.
    pub fn revoke(&self, session: &Arc<Session>, now: Timestamp) -> Events {
        let events = self.end(session, Reason::Revoked, now);
        // Only what is still known: a record that was forgotten must not come back.
        if !events.is_empty() || !self.history.lock().revoke(session) {
            return events;
        }
        Event::Revoked(session.clone()).into()
    }

    /// Moves a session to another organisation, with the rights it has there.
    pub fn switch(&self, session: &Arc<Session>, access: Arc<Access>, now: Timestamp) -> Events {
        let mut context = session.context.write();
        if session.detached || session.end.get().is_some() {
            return Events::default();
        }
        let org = access.org.clone();
        let switch = OrgSwitch { org_id: org.id, org_key: org.key.clone(), ts: now };
        let mut left = None;
        if context.access.org.id != org.id {
            // Before it is moved: whoever looks for it meanwhile does not trust what is found.
            let mut history = self.history.lock();
            for org in [context.access.org.id, org.id] {
                history.note_switch(org, now);
            }
            drop(history);
            self.roster(context.access.org.id).write().remove(session.order(), session);
            self.roster(org.id).write().insert(session.order(), session.clone());
            let principal = session.who.principal_id();
            let mut shares = self.pool_of(session).lock();
            shares.give_back(context.access.org.id, principal, 1);
            shares.hold(org.id, principal, 1);
            let (org, since) = (context.access.org.id, context.since);
            left = Some(Stay { org, since, until: now });
            context.since = now;
        }
        session.set_access(&mut context, access);
        context.push_switch(switch);
        drop(context);
        Event::Switched(session.clone(), left).into()
    }

    /// Lets a session go on without a second factor that its user has to have, unless it is kept
    /// from all else already.
    pub fn spare_enrolment(&self, session: &Session) {
        let spared = session.access().limit.is_none();
        session.spared_enrolment.fetch_or(spared, Ordering::Relaxed);
    }

    /// Gives a session the rights that it has now in its organisation, as `access_of` says. If it
    /// may not be there any more, it ends for the reason that it says.
    ///
    /// Rights are asked for while nobody else can set them: of two changes at the same time, the
    /// later one wins.
    pub fn refresh(
        &self,
        session: &Arc<Session>,
        now: Timestamp,
        access_of: impl FnOnce(&Who, OrgId) -> Result<Access, Reason>,
    ) -> Events {
        let mut context = session.context.write();
        if session.end.get().is_some() {
            return Events::default();
        }
        match access_of(&session.who, context.access.org.id) {
            Ok(access) if access == *context.access => Events::default(),
            Ok(access) => {
                session.set_access(&mut context, Arc::new(access));
                Event::RightsChanged(session.clone()).into()
            }
            Err(reason) => {
                drop(context);
                self.end(session, reason, now)
            }
        }
    }

    /// Notes that a thing has another definition: its live sessions are listed by it from now on.
    pub fn set_definition(&self, thing: &Principal, definition: Option<ThingDefId>) -> Events {
        let mut events = Events::default();
        for session in self.of_principal(thing) {
            let mut context = session.context.write();
            if session.end.get().is_some() || context.definition == definition {
                continue;
            }
            context.definition = definition;
            let before = session.facets();
            let number = self.numbers.exchange(before.definition(), definition);
            let facets = before.with_definition(number);
            session.set_facets(facets);
            let roster = self.roster(context.access.org.id);
            roster.write().set_facets(session.order(), facets);
            drop(context);
            events.push(Event::Redefined(session));
        }
        events
    }

    /// The events of ended sessions that left the history.
    fn forget(&self, forgotten: Vec<Arc<Session>>) -> impl Iterator<Item = Event> {
        forgotten.into_iter().map(|session| {
            self.numbers.leave(session.facets());
            Event::Forgotten(session)
        })
    }

    /// Ends at most `max` sessions whose time is over. Fewer than `max` were looked at when the
    /// flag is false: then nothing more is due.
    pub fn expire(&self, now: Timestamp, max: usize) -> (Events, bool) {
        let mut events = Events::default();
        for _ in 0..max {
            let Some(session) = self.wheel.lock().pop(now.as_millis() / 1000) else {
                return (events, false);
            };
            let (due, reason) = session.deadline();
            if due <= now {
                events.append(self.end(&session, reason, now));
            } else {
                self.rearm(&session);
            }
        }
        (events, true)
    }

    /// Arms a session again that was used since it was armed.
    fn rearm(&self, session: &Arc<Session>) {
        // Against an end at the same time, which would leave the new timer behind.
        let context = session.context.write();
        if session.end.get().is_none() {
            self.arm(session);
        }
        drop(context);
    }

    /// Takes at most `max` ended sessions out of the history that are too old; if it is as many, there
    /// may be more.
    pub fn prune(&self, now: Timestamp, max: usize) -> Events {
        let forgotten = self.history.lock().prune(now, max);
        self.forget(forgotten).collect()
    }

    /// Puts sessions back that lived when the server stopped: all of them, in any order.
    pub fn restore_live(&self, sessions: Vec<Entry>) {
        // Those that started first come first: then each has its place at the end of every index.
        let mut sessions: Vec<_> = sessions
            .into_iter()
            .map(|session| (session.started, session.reference, Arc::new(session)))
            .collect();
        sessions.sort_unstable_by_key(|(started, reference, _)| (*started, *reference));
        for (_, _, mut session) in sessions {
            if let Some(session) = Arc::get_mut(&mut session) {
                session.serial = self.take_serial();
                self.enter(session);
            }
            // Those of a login that may have fewer now go when it starts the next.
            let _ = self.join(&session, false, usize::MAX);
            let org = session.org_id();
            self.roster(org).write().insert_unnamed(session.order(), session.clone());
            self.arm(&session);
            self.shares.lock().hold(org, session.who.principal_id(), 1);
            self.sessions.insert(session.uuid(), session);
        }
        for roster in &self.by_org {
            roster.write().name_all();
        }
    }

    /// Puts an ended session back; they come in the order of their ends.
    pub fn restore_ended(&self, mut session: Entry) -> Events {
        session.serial = self.take_serial();
        self.enter(&mut session);
        let org = session.org_id();
        let forgotten = self.history.lock().push(Arc::new(session), org);
        self.forget(forgotten).collect()
    }

    /// Makes a session that is not known yet one that listings find.
    fn enter(&self, session: &mut Session) {
        self.numbers.enter(session);
        self.hot.enter(&mut session.hot);
    }

    fn take_serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    fn arm(&self, session: &Arc<Session>) {
        let (due, _) = session.deadline();
        if due == Timestamp::NEVER {
            // All of these would be in one slot, and looked at one by one whenever it comes round.
            return;
        }
        // The first second at which the deadline has passed.
        let second = due.as_millis().div_euclid(1000).saturating_add(1);
        self.wheel.lock().insert(second, session.clone());
    }

    fn roster(&self, org: OrgId) -> Arc<RwLock<Roster>> {
        if let Some(roster) = self.by_org.get(&org) {
            return roster.value().clone();
        }
        self.by_org.entry(org).or_default().value().clone()
    }
}
