//! Tickets: who may move which file over HTTP, and for how long (`docs/protocol/tr50.md` 0, fact
//! 18, and 4.3).
//!
//! A ticket is for one complete transfer. One that breaks may be tried again in time, a download
//! from where it broke. The last bytes of a download can be lost on the way although the server has
//! sent them all, so a used download's ticket still serves a moment for such a rest, never again
//! for the whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use base::pool::{OverShare, Pool, Pools};
use base::shares::Shares;
use base::{FileId, OrgId, TicketId, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::{Principal, PrincipalId};

use super::{FileRecord, Owner, Put};

/// What a ticket is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// To store a file.
    Upload(Arc<Put>),
    /// To fetch a file.
    Download(Arc<FileRecord>),
}

/// Why a ticket is not issued or can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TicketError {
    /// The asker has too many.
    #[error("too many transfers of files are waiting")]
    TooMany,
    /// There is no such ticket, or no more.
    #[error("the file id is unknown, was used, or is older than 300 seconds")]
    Unknown,
    /// Too many transfers are under way with this ticket.
    #[error("too many files are being moved; try again")]
    Busy,
    /// All together have too many tickets or transfers, or somebody has the share of them.
    #[error("{0}; try again")]
    OverShare(OverShare),
}

/// Who asked for a ticket.
#[derive(Clone)]
pub struct Asker {
    login: Principal,
    principal: PrincipalId,
    /// Whether it may still do what the ticket is for.
    may: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Asker {
    /// A login of a principal, and whether it may still do what it asks for: asked whenever the
    /// ticket is used.
    pub fn new(
        login: Principal,
        principal: PrincipalId,
        may: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { login, principal, may: Arc::new(may) }
    }
}

struct Ticket {
    asker: Asker,
    /// By the order in which they were issued.
    number: u64,
    owner: Owner,
    purpose: Purpose,
    issued: Timestamp,
    expires: Timestamp,
    /// Transfers under way.
    moving: usize,
    /// A transfer was complete.
    used: bool,
}

impl Ticket {
    /// Whose share it is.
    const fn payer(&self) -> (OrgId, PrincipalId) {
        (self.owner.org, self.asker.principal)
    }

    fn lives(&self, now: Timestamp) -> bool {
        self.moving > 0 || now < self.expires
    }

    /// Whether a transfer may begin: after a complete one, only that of a download's rest.
    const fn serves(&self, rest: bool) -> bool {
        !self.used || (rest && matches!(self.purpose, Purpose::Download(_)))
    }
}

/// All tickets, in memory: a restart ends them.
pub struct Tickets(Mutex<State>);

struct State {
    tickets: HashMap<TicketId, Ticket>,
    /// Those of each login.
    logins: HashMap<Principal, HashSet<TicketId>>,
    /// How many there are, and who asked for them.
    shares: Shares<PrincipalId>,
    /// Those without a transfer under way, in the order in which they were issued.
    idle: BTreeMap<(OrgId, PrincipalId, u64), TicketId>,
    next: u64,
    /// The transfers under way, and who asked for their tickets.
    transfers: Shares<PrincipalId>,
}

impl State {
    fn remove(&mut self, id: TicketId) -> Option<Ticket> {
        let ticket = self.tickets.remove(&id)?;
        let (org, principal) = ticket.payer();
        self.idle.remove(&(org, principal, ticket.number));
        self.shares.give_back(org, principal, 1);
        self.forget_login(&ticket.asker.login, id);
        Some(ticket)
    }

    fn forget_login(&mut self, login: &Principal, id: TicketId) {
        if let Some(tickets) = self.logins.get_mut(login) {
            tickets.remove(&id);
            if tickets.is_empty() {
                self.logins.remove(login);
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(&Ticket) -> bool) {
        let gone = self.tickets.iter().filter(|(_, ticket)| !keep(ticket));
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    /// Makes sure that a login may have one more; tickets that are over make room.
    fn check_login(
        &mut self,
        (org, login): (OrgId, &Principal),
        now: Timestamp,
    ) -> Result<(), TicketError> {
        let is_full = |state: &Self| {
            let tickets = state.logins.get(login);
            tickets.is_some_and(|tickets| tickets.len() >= limits::FILE_TICKETS_OF_ONE_MAX)
        };
        if is_full(self) {
            for id in self.logins.get(login).cloned().unwrap_or_default() {
                if self.tickets.get(&id).is_none_or(|ticket| !ticket.lives(now) || ticket.used) {
                    self.remove(id);
                }
            }
        }
        if is_full(self) {
            self.shares.count_refused(org);
            return Err(TicketError::TooMany);
        }
        Ok(())
    }

    /// Takes room for one more ticket, if need be that of the oldest without a transfer of whoever
    /// has most.
    fn make_room(&mut self, payer: (OrgId, PrincipalId)) -> Result<(), TicketError> {
        let Self { tickets, idle, shares, .. } = self;
        let mut evicted = Vec::new();
        let taken = shares.take_from_most_or_own(payer, 1, |org, principal| {
            let range = (org, principal, 0)..=(org, principal, u64::MAX);
            let oldest = idle.range(range).next().map(|(key, id)| (*key, *id));
            let Some((key, id)) = oldest else { return 0 };
            idle.remove(&key);
            evicted.extend(tickets.remove(&id).map(|ticket| (ticket.asker.login, id)));
            1
        });
        for (login, id) in evicted {
            self.forget_login(&login, id);
        }
        taken.map_err(TicketError::OverShare)
    }
}

impl Tickets {
    /// None yet.
    pub fn new(pools: &Arc<Pools>) -> Self {
        Self(Mutex::new(State {
            tickets: HashMap::new(),
            logins: HashMap::new(),
            shares: Shares::new(Pool::FileTickets, limits::FILE_TICKETS_MAX, pools),
            idle: BTreeMap::new(),
            next: 0,
            transfers: Shares::new(Pool::FileTransfers, limits::FILE_TRANSFERS_MAX, pools),
        }))
    }

    /// Issues a ticket. When there are too many, somebody's oldest goes that nobody uses.
    ///
    /// # Errors
    /// [`TicketError::TooMany`] of this login; [`TicketError::OverShare`] if none can go.
    pub fn issue(
        &self,
        id: TicketId,
        asker: Asker,
        owner: Owner,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), TicketError> {
        let state = &mut *self.0.lock();
        state.check_login((owner.org, &asker.login), now)?;
        state.make_room((owner.org, asker.principal))?;
        state.logins.entry(asker.login.clone()).or_default().insert(id);
        let (number, expires) = (state.next, now.plus_seconds(limits::FILE_TICKET_S));
        state.next += 1;
        state.idle.insert((owner.org, asker.principal, number), id);
        let ticket =
            Ticket { asker, number, owner, purpose, issued: now, expires, moving: 0, used: false };
        state.tickets.insert(id, ticket);
        Ok(())
    }

    /// What a ticket is for, and whose file it is.
    ///
    /// # Errors
    /// [`TicketError::Unknown`].
    pub fn look_up(&self, id: TicketId, now: Timestamp) -> Result<(Owner, Purpose), TicketError> {
        self.check(id)?;
        let state = self.0.lock();
        let ticket = state.tickets.get(&id).filter(|t| t.lives(now) && t.serves(true));
        ticket.map(|t| (t.owner, t.purpose.clone())).ok_or(TicketError::Unknown)
    }

    /// Sets how many transfers may be under way.
    pub fn set_transfers_max(&self, most: usize) {
        self.0.lock().transfers.set_max(most as u64);
    }

    /// Fails when the ticket is gone, or its asker may no longer do what it is for: then it goes.
    ///
    /// # Errors
    /// [`TicketError::Unknown`].
    pub fn check(&self, id: TicketId) -> Result<(), TicketError> {
        let may = self.0.lock().tickets.get(&id).map(|ticket| ticket.asker.may.clone());
        // Without the lock: it looks at records.
        if may.ok_or(TicketError::Unknown)?() {
            return Ok(());
        }
        self.0.lock().remove(id);
        Err(TicketError::Unknown)
    }

    /// Begins a transfer with a ticket; `rest`: of a download's rest, not of its whole. Every
    /// transfer that began has to end, for the one who asked for the ticket.
    ///
    /// # Errors
    /// [`TicketError::Unknown`], [`TicketError::Busy`], or [`TicketError::OverShare`].
    pub fn begin(
        &self,
        id: TicketId,
        rest: bool,
        now: Timestamp,
    ) -> Result<(OrgId, PrincipalId), TicketError> {
        let state = &mut *self.0.lock();
        let found = state.tickets.get_mut(&id).filter(|ticket| ticket.lives(now));
        let ticket = found.filter(|ticket| ticket.serves(rest)).ok_or(TicketError::Unknown)?;
        if ticket.moving >= limits::FILE_TRANSFERS_OF_TICKET_MAX {
            return Err(TicketError::Busy);
        }
        let (org, principal) = ticket.payer();
        state.transfers.take(org, principal, 1).map_err(TicketError::OverShare)?;
        ticket.moving += 1;
        state.idle.remove(&(org, principal, ticket.number));
        Ok((org, principal))
    }

    /// Ends a transfer that was not completed. It may be tried again, and there is time for that
    /// after one that took longer than the ticket's own time.
    pub fn end(&self, id: TicketId, asker: (OrgId, PrincipalId), now: Timestamp) {
        let state = &mut *self.0.lock();
        state.transfers.give_back(asker.0, asker.1, 1);
        if let Some(ticket) = state.tickets.get_mut(&id) {
            ticket.moving = ticket.moving.saturating_sub(1);
            if !ticket.used {
                let last = ticket.issued.plus_seconds(limits::FILE_TICKET_LIFE_S);
                let again = now.plus_seconds(limits::FILE_TICKET_S).min(last);
                ticket.expires = ticket.expires.max(again);
            }
            if ticket.moving == 0 && ticket.serves(true) {
                state.idle.insert((asker.0, asker.1, ticket.number), id);
            } else if ticket.moving == 0 {
                state.remove(id);
            }
        }
    }

    /// Notes that a download was completed.
    pub fn downloaded(&self, id: TicketId, now: Timestamp) {
        if let Some(ticket) = self.0.lock().tickets.get_mut(&id) {
            ticket.used = true;
            ticket.expires = ticket.expires.min(now.plus_seconds(limits::FILE_REST_S));
        }
    }

    /// Takes the ticket of an upload of which all has come; only one of several gets it.
    ///
    /// # Errors
    /// [`TicketError::Unknown`].
    pub fn take(&self, id: TicketId) -> Result<(), TicketError> {
        let state = &mut *self.0.lock();
        let ticket = state.tickets.get_mut(&id).filter(|ticket| !ticket.used);
        ticket.ok_or(TicketError::Unknown)?.used = true;
        Ok(())
    }

    /// Gives back the ticket of an upload that could not be stored.
    pub fn give_back(&self, id: TicketId) {
        if let Some(ticket) = self.0.lock().tickets.get_mut(&id) {
            ticket.used = false;
        }
    }

    /// Forgets all tickets for files of this owner.
    pub fn forget(&self, owner: Owner) {
        self.0.lock().retain(|ticket| ticket.owner != owner);
    }

    /// Forgets the tickets that are over.
    pub fn sweep(&self, now: Timestamp) {
        self.0.lock().retain(|ticket| ticket.lives(now));
    }

    /// How many transfers are under way.
    pub fn moving(&self) -> u64 {
        self.0.lock().transfers.held()
    }

    /// The files that can be downloaded with some ticket.
    pub fn downloads(&self) -> HashSet<FileId> {
        let state = self.0.lock();
        let downloads = state.tickets.values().filter_map(|ticket| match &ticket.purpose {
            Purpose::Download(record) => Some(record.id),
            Purpose::Upload(_) => None,
        });
        downloads.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use base::UserId;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);
    const OWNER: Owner = Owner { org: OrgId::from_bytes([1; 12]), thing: None };

    fn id(number: u64) -> TicketId {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&number.to_be_bytes());
        TicketId::from_random(bytes)
    }

    fn tickets() -> Tickets {
        Tickets::new(&Arc::default())
    }

    fn user(number: u8) -> (OrgId, PrincipalId) {
        (OWNER.org, PrincipalId::User(UserId::from_bytes([number; 12])))
    }

    fn asker(number: u8) -> Asker {
        let login = Principal::User(UserId::from_bytes([number; 12]));
        Asker::new(login, user(number).1, || true)
    }

    /// Whether nothing is left of anybody's tickets and transfers.
    fn is_nobodys(tickets: &Tickets) -> bool {
        let state = tickets.0.lock();
        let held = state.shares.held() + state.transfers.held();
        held == 0 && state.logins.is_empty() && state.idle.is_empty()
    }

    fn issue(tickets: &Tickets, number: u64, by: u8) -> Result<(), TicketError> {
        let purpose = Purpose::Download(Arc::new(FileRecord::example("a")));
        tickets.issue(id(number), asker(by), OWNER, purpose, NOW)
    }

    #[test]
    fn a_broken_transfer_may_be_tried_again_and_a_complete_one_not() {
        let tickets = tickets();
        issue(&tickets, 1, 1).expect("room");
        tickets.begin(id(1), false, NOW).expect("valid");
        tickets.end(id(1), user(1), NOW);
        tickets.begin(id(1), true, NOW).expect("not used yet");
        tickets.downloaded(id(1), NOW);
        tickets.end(id(1), user(1), NOW);
        assert_eq!(tickets.begin(id(1), false, NOW), Err(TicketError::Unknown));
        tickets.begin(id(1), true, NOW).expect("a rest is no second use");
        tickets.end(id(1), user(1), NOW);
        let later = NOW.plus_seconds(limits::FILE_REST_S);
        assert_eq!(tickets.begin(id(1), true, later), Err(TicketError::Unknown));
    }

    #[test]
    fn a_ticket_ends_in_time_but_not_under_a_transfer() {
        let tickets = tickets();
        issue(&tickets, 1, 1).expect("room");
        let over = NOW.plus_seconds(limits::FILE_TICKET_S);
        assert!(tickets.look_up(id(1), over.plus_millis(-1)).is_ok());
        assert!(tickets.look_up(id(1), over).is_err());
        tickets.begin(id(1), false, NOW).expect("valid");
        tickets.sweep(over.plus_seconds(1000));
        tickets.end(id(1), user(1), over.plus_seconds(1000));
        assert!(tickets.look_up(id(1), over.plus_seconds(1200)).is_ok(), "time to try again");
        let day = NOW.plus_seconds(limits::FILE_TICKET_LIFE_S);
        tickets.begin(id(1), false, over.plus_seconds(1200)).expect("valid");
        tickets.end(id(1), user(1), day);
        assert!(tickets.look_up(id(1), day).is_err(), "not for ever");
        assert_eq!(tickets.downloads().len(), 1);
        tickets.sweep(day);
        assert!(tickets.downloads().is_empty() && is_nobodys(&tickets));
    }

    #[test]
    fn a_ticket_goes_with_the_right_of_its_asker() {
        let (tickets, may) = (tickets(), Arc::new(AtomicBool::new(true)));
        let asked = may.clone();
        let asker = Asker { may: Arc::new(move || asked.load(Ordering::Relaxed)), ..asker(1) };
        let purpose = Purpose::Download(Arc::new(FileRecord::example("a")));
        tickets.issue(id(1), asker, OWNER, purpose, NOW).expect("room");
        tickets.begin(id(1), false, NOW).expect("valid");
        tickets.check(id(1)).expect("it may");
        may.store(false, Ordering::Relaxed);
        assert_eq!(tickets.check(id(1)), Err(TicketError::Unknown));
        may.store(true, Ordering::Relaxed);
        assert!(tickets.look_up(id(1), NOW).is_err(), "it is gone");
        tickets.end(id(1), user(1), NOW);
        assert!(is_nobodys(&tickets));
    }

    #[test]
    fn one_asker_can_not_take_all_and_used_tickets_make_room() {
        let pools = Arc::default();
        let tickets = Tickets::new(&pools);
        for number in 0..limits::FILE_TICKETS_OF_ONE_MAX as u64 {
            issue(&tickets, number, 1).expect("room");
        }
        assert_eq!(issue(&tickets, 1_000_000, 1), Err(TicketError::TooMany));
        assert_eq!(pools.usage(Pool::FileTickets).refused(), 1);
        issue(&tickets, 1_000_001, 2).expect("another one's");
        tickets.downloaded(id(0), NOW);
        issue(&tickets, 1_000_000, 1).expect("room again");
        tickets.take(id(1)).expect("there");
        assert!(tickets.take(id(1)).is_err(), "once");
        tickets.give_back(id(1));
        tickets.take(id(1)).expect("again");
        tickets.forget(OWNER);
        assert!(tickets.0.lock().tickets.is_empty() && is_nobodys(&tickets));
    }

    #[test]
    fn the_oldest_unused_ticket_of_who_has_most_makes_way() {
        let tickets = tickets();
        tickets.0.lock().shares.set_max(4);
        (0..4).for_each(|number| issue(&tickets, number, 1).expect("room"));
        tickets.begin(id(0), false, NOW).expect("valid");
        issue(&tickets, 10, 2).expect("the second goes");
        assert!(tickets.look_up(id(1), NOW).is_err());
        issue(&tickets, 11, 2).expect("the third goes");
        let both = [id(0), id(3)].map(|id| tickets.look_up(id, NOW).is_ok());
        assert_eq!(both, [true, true]);
        issue(&tickets, 12, 2).expect("in the place of the own oldest");
        let own = [10, 11, 12].map(|number| tickets.look_up(id(number), NOW).is_ok());
        assert_eq!(own, [false, true, true]);
        tickets.begin(id(3), false, NOW).expect("valid");
        assert!(matches!(issue(&tickets, 13, 1), Err(TicketError::OverShare(_))), "both are used");
        tickets.end(id(0), user(1), NOW);
        issue(&tickets, 13, 1).expect("it is not used any more");
        assert!(tickets.look_up(id(0), NOW).is_err());
        tickets.end(id(3), user(1), NOW);
        tickets.forget(OWNER);
        assert!(is_nobodys(&tickets));
    }

    #[test]
    fn one_principal_leaves_transfers_to_others() {
        let tickets = tickets();
        tickets.set_transfers_max(16);
        (0..32).for_each(|number| issue(&tickets, number, 1 + (number / 30) as u8).expect("room"));
        let begun = (0..30).filter(|number| tickets.begin(id(*number), false, NOW).is_ok());
        let begun = begun.count();
        assert!((12..16).contains(&begun), "{begun}");
        tickets.begin(id(30), false, NOW).expect("another's");
        (0..begun as u64).for_each(|number| tickets.end(id(number), user(1), NOW));
        tickets.end(id(30), user(2), NOW);
        assert_eq!(tickets.moving(), 0);
    }
}
