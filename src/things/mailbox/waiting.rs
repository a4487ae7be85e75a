//! The mails that are not done yet: of which thing, fetched by which session, when they expire.
//!
//! Rules without I/O; time and random numbers are arguments. Storing is the caller's business, and
//! comes first: nothing here changes a mail before its record is submitted.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use base::pool::{OverShare, Pool, Pools};
use base::shares::Shares;
use base::{MailId, ThingId, Timestamp};

use super::mail::{Mail, Message, Status, Step};
use crate::things::Maker;

/// All mails that are not done.
pub(super) struct Waiting {
    mails: HashMap<MailId, Waits>,
    boxes: HashMap<ThingId, Mailbox>,
    /// What each session has in flight.
    in_flight: HashMap<u64, BTreeSet<MailId>>,
    /// When they expire, those that do.
    due: BTreeSet<(Timestamp, MailId)>,
    /// The newest id so far.
    last: [u8; 12],
    /// Their bytes, by who sent them.
    pub(super) shares: Shares<Maker>,
}

/// A mail, and the session that has it in flight.
#[derive(Debug)]
struct Waits {
    mail: Mail,
    holder: Option<u64>,
}

/// The mails of a thing, in their order.
#[derive(Default, Debug)]
struct Mailbox {
    all: BTreeSet<MailId>,
    /// Those that are new.
    new: BTreeSet<MailId>,
    /// How many each sender has.
    of: HashMap<Maker, usize>,
}

/// Why a thing's mailbox takes no mail of a sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoRoom {
    /// It is full.
    Full,
    /// The sender has its share of it.
    Share,
}

impl Waiting {
    /// None, and room for so many bytes.
    pub(super) fn new(bytes_max: u64, pools: &Arc<Pools>) -> Self {
        Self {
            mails: HashMap::new(),
            boxes: HashMap::new(),
            in_flight: HashMap::new(),
            due: BTreeSet::new(),
            last: [0; 12],
            shares: Shares::new(Pool::MailBytes, bytes_max, pools),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.mails.len()
    }

    /// How many a thing has.
    pub(super) fn count(&self, thing: ThingId) -> usize {
        self.boxes.get(&thing).map_or(0, |mailbox| mailbox.all.len())
    }

    /// Whether a thing, which may have `max`, takes one more of a sender. The last eighth is for
    /// those who have less than an equal part: who sends without end leaves room for others.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn check_box(
        &self,
        thing: ThingId,
        sender: Maker,
        max: usize,
    ) -> Result<(), NoRoom> {
        let Some(mailbox) = self.boxes.get(&thing) else { return Ok(()) };
        let (all, own) = (mailbox.all.len(), mailbox.of.get(&sender).copied().unwrap_or(0));
        if all >= max {
            return Err(NoRoom::Full);
        }
        // The sender, those who have some, and the next that comes.
        let parts = mailbox.of.len() + usize::from(own == 0) + 1;
        let has_room = all < max - max / 8 || own < max / parts;
        if has_room { Ok(()) } else { Err(NoRoom::Share) }
    }

    /// Whether there is room for a mail that is to be made.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn check(&mut self, mail: &Mail) -> Result<(), OverShare> {
        let ((org, sender), bytes) = (mail.message.payer(), mail.bytes() as u64);
        self.shares.take(org, sender, bytes)?;
        self.shares.give_back(org, sender, bytes);
        Ok(())
    }

    /// Whether there is room for one more step of a mail with so many bytes of text.
    pub(super) fn has_room(&self, mail: &Mail, text: usize) -> bool {
        let (org, sender) = mail.message.payer();
        let bytes = size_of::<Step>() + text;
        self.shares.has_room(org, sender, bytes as u64).is_ok()
    }

    /// The id of the next mail: the time, then random bits, but always behind the last one, so that
    /// mails of one millisecond stay in the order in which they were made.
    pub(super) fn next_id(&mut self, now: Timestamp, random: [u8; 6]) -> MailId {
        let mut id = [0; 12];
        id[..6].copy_from_slice(&now.as_millis().to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random);
        if id <= self.last {
            id = self.last;
            for byte in id.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
        self.last = id;
        MailId::from_bytes(id)
    }

    /// A mail.
    pub(super) fn get(&self, id: MailId) -> Option<&Mail> {
        self.mails.get(&id).map(|waits| &waits.mail)
    }

    /// The mails of a thing, oldest first.
    pub(super) fn of_thing(&self, thing: ThingId) -> impl Iterator<Item = &Mail> {
        let ids = self.boxes.get(&thing).into_iter().flat_map(|mailbox| &mailbox.all);
        ids.filter_map(|id| self.get(*id))
    }

    /// A mail to the thing with the same command and, for `method.exec`, the same method, whose time
    /// is not over.
    pub(super) fn twin(
        &self,
        thing: ThingId,
        command: &str,
        method: Option<&str>,
        now: Timestamp,
    ) -> Option<&Mail> {
        let is_twin = |message: &Message| {
            message.command == command
                && message.method.as_deref() == method
                && message.expires.is_none_or(|expires| expires > now)
        };
        self.of_thing(thing).find(|mail| is_twin(&mail.message))
    }

    /// Adds a mail that is new or in progress.
    pub(super) fn insert(&mut self, mail: Mail) {
        let (id, message) = (mail.id(), mail.message.clone());
        self.last = self.last.max(*id.as_bytes());
        let (org, sender) = message.payer();
        self.shares.hold(org, sender, mail.bytes() as u64);
        let mailbox = self.boxes.entry(message.thing).or_default();
        if mailbox.all.insert(id) {
            *mailbox.of.entry(sender).or_default() += 1;
        }
        if mail.status() == Status::New {
            mailbox.new.insert(id);
        }
        self.due.extend(message.expires.map(|expires| (expires, id)));
        self.mails.insert(id, Waits { mail, holder: None });
    }

    /// The oldest new mails of these things: at most `count_max`, and no more after `bytes_max`
    /// bytes.
    pub(super) fn new_of(
        &self,
        things: &[ThingId],
        count_max: usize,
        bytes_max: usize,
    ) -> Vec<MailId> {
        // A gateway may serve thousands, each with as many: of each only the next is looked at.
        let next_of = |thing: ThingId, after: Bound<MailId>| {
            let next = self.boxes.get(&thing)?.new.range((after, Bound::Unbounded)).next();
            next.map(|id| Reverse((*id, thing)))
        };
        let first_of = |thing: &ThingId| next_of(*thing, Bound::Unbounded);
        let mut next: BinaryHeap<_> = things.iter().filter_map(first_of).collect();
        let (mut ids, mut bytes) = (Vec::new(), 0);
        while ids.len() < count_max
            && let Some(mut first) = next.peek_mut()
        {
            let Reverse((id, thing)) = *first;
            let before = bytes;
            bytes += self.get(id).map_or(0, |mail| mail.message.bytes());
            if before > 0 && bytes > bytes_max {
                break;
            }
            ids.push(id);
            match next_of(thing, Bound::Excluded(id)) {
                Some(behind) => *first = behind,
                None => drop(PeekMut::pop(first)),
            }
        }
        ids
    }

    /// Notes that a session has fetched a new mail; the mail as it is then.
    pub(super) fn take(&mut self, id: MailId, session: u64, now: Timestamp) -> Option<Mail> {
        let waits = self.mails.get_mut(&id)?;
        let mailbox = self.boxes.get_mut(&waits.mail.message.thing)?;
        if !mailbox.new.remove(&id) {
            return None;
        }
        step(&mut self.shares, &mut waits.mail, Status::InFlight, now);
        waits.holder = Some(session);
        self.in_flight.entry(session).or_default().insert(id);
        Some(waits.mail.clone())
    }

    /// Makes new again what a session has in flight, for one thing or for all, at most so many; these
    /// mails.
    pub(super) fn release(
        &mut self,
        session: u64,
        thing: Option<ThingId>,
        most: usize,
        now: Timestamp,
    ) -> Vec<MailId> {
        let is_for = |id: &&MailId| {
            thing.is_none_or(|thing| self.get(**id).is_some_and(|mail| mail.message.thing == thing))
        };
        let in_flight = self.in_flight.get(&session).into_iter().flatten();
        let ids: Vec<_> = in_flight.filter(is_for).take(most).copied().collect();
        for id in &ids {
            self.let_go(*id);
            let Some(waits) = self.mails.get_mut(id) else { continue };
            step(&mut self.shares, &mut waits.mail, Status::New, now);
            if let Some(mailbox) = self.boxes.get_mut(&waits.mail.message.thing) {
                mailbox.new.insert(*id);
            }
        }
        ids
    }

    /// Puts a mail that the thing works on in the place of what it was.
    pub(super) fn work_on(&mut self, mail: Mail) {
        let id = mail.id();
        self.let_go(id);
        if let Some(waits) = self.mails.get_mut(&id) {
            let (org, sender) = mail.message.payer();
            self.shares.give_back(org, sender, waits.mail.bytes() as u64);
            self.shares.hold(org, sender, mail.bytes() as u64);
            waits.mail = mail;
        }
    }

    /// Takes a mail out that is done.
    pub(super) fn remove(&mut self, id: MailId) {
        self.let_go(id);
        let Some(Waits { mail, .. }) = self.mails.remove(&id) else { return };
        let message = &mail.message;
        let (org, sender) = message.payer();
        self.shares.give_back(org, sender, mail.bytes() as u64);
        if let Some(expires) = message.expires {
            self.due.remove(&(expires, id));
        }
        if let Some(mailbox) = self.boxes.get_mut(&message.thing) {
            if mailbox.all.remove(&id)
                && let Some(count) = mailbox.of.get_mut(&sender)
            {
                *count -= 1;
                if *count == 0 {
                    mailbox.of.remove(&sender);
                }
            }
            if mailbox.all.is_empty() {
                self.boxes.remove(&message.thing);
            }
        }
    }

    /// The mails whose time is over, the first of them first.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = MailId> {
        self.due.iter().take_while(move |(expires, _)| *expires <= now).map(|(_, id)| *id)
    }

    /// Makes a mail neither new nor in flight.
    fn let_go(&mut self, id: MailId) {
        let Some(waits) = self.mails.get_mut(&id) else { return };
        if let Some(mailbox) = self.boxes.get_mut(&waits.mail.message.thing) {
            mailbox.new.remove(&id);
        }
        if let Some(session) = waits.holder.take()
            && let Some(in_flight) = self.in_flight.get_mut(&session)
        {
            in_flight.remove(&id);
            if in_flight.is_empty() {
                self.in_flight.remove(&session);
            }
        }
    }
}

/// Notes what a mail became, and what it takes then.
fn step(shares: &mut Shares<Maker>, mail: &mut Mail, status: Status, now: Timestamp) {
    let (org, sender) = mail.message.payer();
    let room = shares.has_room(org, sender, size_of::<Step>() as u64).is_ok();
    shares.give_back(org, sender, mail.bytes() as u64);
    mail.step(status, now, None, room);
    shares.hold(org, sender, mail.bytes() as u64);
}
