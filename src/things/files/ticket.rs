//! Tickets: who may move which file over HTTP, and for how long (`docs/protocol/tr50.md` 0, fact
//! 18, and 4.3).
//!
//! A ticket is for one complete transfer. One that breaks may be tried again in time, a download
//! from where it broke. The last bytes of a download can be lost on the way although the server has
//! sent them all, so a used download's ticket still serves a moment for such a rest, never again
//! for the whole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::{FileId, TicketId, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::Principal;

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
    /// The asker has too many, or all together have.
    #[error("too many transfers of files are waiting")]
    TooMany,
    /// There is no such ticket, or no more.
    #[error("the file id is unknown, was used, or is older than 300 seconds")]
    Unknown,
    /// Too many transfers are under way, with this ticket or in all.
    #[error("too many files are being moved; try again")]
    Busy,
}

/// Who asked for a ticket.
#[derive(Clone)]
pub struct Asker {
    principal: Principal,
    /// Whether it may still do what the ticket is for.
    may: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Asker {
    /// A login, and whether it may still do what it asks for: asked whenever the ticket is used.
    pub fn new(principal: Principal, may: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { principal, may: Arc::new(may) }
    }
}

struct Ticket {
    asker: Asker,
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
    fn lives(&self, now: Timestamp) -> bool {
        self.moving > 0 || now < self.expires
    }

    /// Whether a transfer may begin: after a complete one, only that of a download's rest.
    const fn serves(&self, rest: bool) -> bool {
        !self.used || (rest && matches!(self.purpose, Purpose::Download(_)))
    }
}

/// All tickets, in memory: a restart ends them.
#[derive(Default)]
pub struct Tickets(Mutex<State>);

struct State {
    tickets: HashMap<TicketId, Ticket>,
    askers: HashMap<Principal, usize>,
    moving: usize,
    transfers_max: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            tickets: HashMap::new(),
            askers: HashMap::new(),
            moving: 0,
            transfers_max: limits::FILE_TRANSFERS_MAX,
        }
    }
}

impl State {
    fn retain(&mut self, mut keep: impl FnMut(&Ticket) -> bool) {
        let askers = &mut self.askers;
        self.tickets.retain(|_, ticket| {
            let kept = keep(ticket);
            if !kept {
                release(askers, &ticket.asker.principal);
            }
            kept
        });
    }
}

fn release(askers: &mut HashMap<Principal, usize>, asker: &Principal) {
    if let Some(count) = askers.get_mut(asker) {
        *count -= 1;
        if *count == 0 {
            askers.remove(asker);
        }
    }
}

impl Tickets {
    /// Issues a ticket.
    ///
    /// # Errors
    /// [`TicketError::TooMany`].
    pub fn issue(
        &self,
        id: TicketId,
        asker: Asker,
        owner: Owner,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), TicketError> {
        let principal = asker.principal.clone();
        let state = &mut *self.0.lock();
        let full = |state: &State| {
            state.tickets.len() >= limits::FILE_TICKETS_MAX
                || state
                    .askers
                    .get(&principal)
                    .is_some_and(|n| *n >= limits::FILE_TICKETS_OF_ONE_MAX)
        };
        if full(state) {
            state.retain(|ticket| ticket.lives(now) && !ticket.used);
        }
        if full(state) {
            return Err(TicketError::TooMany);
        }
        *state.askers.entry(principal).or_insert(0) += 1;
        let expires = now.plus_seconds(limits::FILE_TICKET_S);
        let ticket = Ticket { asker, owner, purpose, issued: now, expires, moving: 0, used: false };
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
        self.0.lock().transfers_max = most;
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
        let state = &mut *self.0.lock();
        if let Some(ticket) = state.tickets.remove(&id) {
            release(&mut state.askers, &ticket.asker.principal);
        }
        Err(TicketError::Unknown)
    }

    /// Begins a transfer with a ticket; `rest`: of a download's rest, not of its whole. Every
    /// transfer that began has to end.
    ///
    /// # Errors
    /// [`TicketError::Unknown`], or [`TicketError::Busy`].
    pub fn begin(&self, id: TicketId, rest: bool, now: Timestamp) -> Result<(), TicketError> {
        let state = &mut *self.0.lock();
        let found = state.tickets.get_mut(&id).filter(|ticket| ticket.lives(now));
        let ticket = found.filter(|ticket| ticket.serves(rest)).ok_or(TicketError::Unknown)?;
        if state.moving >= state.transfers_max
            || ticket.moving >= limits::FILE_TRANSFERS_OF_TICKET_MAX
        {
            return Err(TicketError::Busy);
        }
        state.moving += 1;
        ticket.moving += 1;
        Ok(())
    }

    /// Ends a transfer that was not completed. It may be tried again, and there is time for that
    /// after one that took longer than the ticket's own time.
    pub fn end(&self, id: TicketId, now: Timestamp) {
        let state = &mut *self.0.lock();
        state.moving = state.moving.saturating_sub(1);
        if let Some(ticket) = state.tickets.get_mut(&id) {
            ticket.moving = ticket.moving.saturating_sub(1);
            if !ticket.used {
                let last = ticket.issued.plus_seconds(limits::FILE_TICKET_LIFE_S);
                let again = now.plus_seconds(limits::FILE_TICKET_S).min(last);
                ticket.expires = ticket.expires.max(again);
            }
            if ticket.moving == 0 && !ticket.serves(true) {
                release(&mut state.askers, &ticket.asker.principal);
                state.tickets.remove(&id);
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
    pub fn moving(&self) -> usize {
        self.0.lock().moving
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

    use base::{OrgId, UserId};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);
    const OWNER: Owner = Owner { org: OrgId::from_bytes([1; 12]), thing: None };

    fn id(number: u64) -> TicketId {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&number.to_be_bytes());
        TicketId::from_random(bytes)
    }

    fn asker(number: u8) -> Asker {
        Asker::new(Principal::User(UserId::from_bytes([number; 12])), || true)
    }

    fn issue(tickets: &Tickets, number: u64, by: u8) -> Result<(), TicketError> {
        let purpose = Purpose::Download(Arc::new(FileRecord::example("a")));
        tickets.issue(id(number), asker(by), OWNER, purpose, NOW)
    }

    #[test]
    fn a_broken_transfer_may_be_tried_again_and_a_complete_one_not() {
        let tickets = Tickets::default();
        issue(&tickets, 1, 1).expect("room");
        tickets.begin(id(1), false, NOW).expect("valid");
        tickets.end(id(1), NOW);
        tickets.begin(id(1), true, NOW).expect("not used yet");
        tickets.downloaded(id(1), NOW);
        tickets.end(id(1), NOW);
        assert_eq!(tickets.begin(id(1), false, NOW), Err(TicketError::Unknown));
        tickets.begin(id(1), true, NOW).expect("a rest is no second use");
        tickets.end(id(1), NOW);
        let later = NOW.plus_seconds(limits::FILE_REST_S);
        assert_eq!(tickets.begin(id(1), true, later), Err(TicketError::Unknown));
    }

    #[test]
    fn a_ticket_ends_in_time_but_not_under_a_transfer() {
        let tickets = Tickets::default();
        issue(&tickets, 1, 1).expect("room");
        let over = NOW.plus_seconds(limits::FILE_TICKET_S);
        assert!(tickets.look_up(id(1), over.plus_millis(-1)).is_ok());
        assert!(tickets.look_up(id(1), over).is_err());
        tickets.begin(id(1), false, NOW).expect("valid");
        tickets.sweep(over.plus_seconds(1000));
        tickets.end(id(1), over.plus_seconds(1000));
        assert!(tickets.look_up(id(1), over.plus_seconds(1200)).is_ok(), "time to try again");
        let day = NOW.plus_seconds(limits::FILE_TICKET_LIFE_S);
        tickets.begin(id(1), false, over.plus_seconds(1200)).expect("valid");
        tickets.end(id(1), day);
        assert!(tickets.look_up(id(1), day).is_err(), "not for ever");
        assert_eq!(tickets.downloads().len(), 1);
        tickets.sweep(day);
        assert!(tickets.downloads().is_empty() && tickets.0.lock().askers.is_empty());
    }

    #[test]
    fn a_ticket_goes_with_the_right_of_its_asker() {
        let (tickets, may) = (Tickets::default(), Arc::new(AtomicBool::new(true)));
        let (asked, principal) = (may.clone(), Principal::User(UserId::from_bytes([1; 12])));
        let asker = Asker::new(principal, move || asked.load(Ordering::Relaxed));
        let purpose = Purpose::Download(Arc::new(FileRecord::example("a")));
        tickets.issue(id(1), asker, OWNER, purpose, NOW).expect("room");
        tickets.begin(id(1), false, NOW).expect("valid");
        tickets.check(id(1)).expect("it may");
        may.store(false, Ordering::Relaxed);
        assert_eq!(tickets.check(id(1)), Err(TicketError::Unknown));
        may.store(true, Ordering::Relaxed);
        assert!(tickets.look_up(id(1), NOW).is_err(), "it is gone");
        tickets.end(id(1), NOW);
        assert!(tickets.0.lock().askers.is_empty());
    }

    #[test]
    fn one_asker_can_not_take_all_and_used_tickets_make_room() {
        let tickets = Tickets::default();
        for number in 0..limits::FILE_TICKETS_OF_ONE_MAX as u64 {
            issue(&tickets, number, 1).expect("room");
        }
        assert_eq!(issue(&tickets, 1_000_000, 1), Err(TicketError::TooMany));
        issue(&tickets, 1_000_001, 2).expect("another one's");
        tickets.downloaded(id(0), NOW);
        issue(&tickets, 1_000_000, 1).expect("room again");
        tickets.take(id(1)).expect("there");
        assert!(tickets.take(id(1)).is_err(), "once");
        tickets.give_back(id(1));
        tickets.take(id(1)).expect("again");
        tickets.forget(OWNER);
        assert!(tickets.0.lock().tickets.is_empty() && tickets.0.lock().askers.is_empty());
    }
}
