//! The mailboxes of things: messages to them, and what comes back (`docs/protocol/tr50.md` 4.2).
//!
//! A mail is new, then in flight (fetched by a session), then in progress, then done. Those that
//! are not done are held in memory, which is what counts; the store follows in the same step. Which
//! session has a mail in flight is known in memory only: after a restart it is new again.
//!
//! A function here that returns a `StoreError`, and says nothing of errors, fails only when the
//! store does.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::pool::OverShare;
use base::{MailId, OrgId, ThingId, ThingKey, Timestamp, limits};
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use rules::directory::PrincipalId;
use serde_json::value::RawValue;
use store::{Batch, Receipt, Row, StoreError, Table, Tables};
use tokio::time::Instant;

mod callers;
pub mod mail;
mod rows;
#[cfg(test)]
mod tests;
mod waiting;

pub use callers::{Answer, Waiter};
use callers::{Caller, Callers};
use mail::{METHOD_EXEC, Mail, Message, Outcome, Status};
use waiting::{NoRoom, Waiting};

use super::stored_bytes::{Difference, StoredBytes};

/// Rows read at once from the store.
const SCAN_ROWS: usize = 1000;

/// Messages read at once: each may be as long as a frame.
const SCAN_MESSAGES: usize = 16;

/// The mailboxes of all things.
pub struct Mailbox {
    tables: Tables,
    config: MailboxConfig,
    bytes: Arc<StoredBytes>,
    state: Arc<Mutex<State>>,
    journal: OnceLock<Box<dyn Journal>>,
}

/// Who keeps a record of mails, in the batch of each change.
pub trait Journal: Send + Sync {
    /// Submits a batch in which these mails are made or end.
    ///
    /// # Errors
    /// The store takes no more.
    fn submit(&self, batch: Batch, mails: &[&Mail], now: Timestamp) -> Result<Receipt, StoreError>;
}

/// What the configuration says of mailboxes.
#[derive(Clone, Copy, Debug)]
pub struct MailboxConfig {
    /// Mails that may wait for one thing.
    pub waiting_max: usize,
    /// Seconds for which a mail that is done is kept.
    pub keep_s: u64,
    /// Bytes of all mails that wait.
    pub bytes_max: u64,
}

/// Changed under one lock, which is held until the change is with the store's writer: so the order
/// of the records is the order of the changes.
struct State {
    waiting: Waiting,
    callers: Callers,
}

/// A mail that is to be made.
pub struct NewMessage {
    /// The organisation of the thing.
    pub org: OrgId,
    /// The thing that it is for.
    pub thing: ThingId,
    /// Its key.
    pub thing_key: ThingKey,
    /// What is to be done.
    pub command: String,
    /// The method, if the command is `method.exec`.
    pub method: Option<String>,
    /// The command's parameters.
    pub params: Option<Box<RawValue>>,
    /// Who sends it.
    pub from: String,
    /// Whose share it is.
    pub sender: PrincipalId,
    /// When it expires; none: it waits until it is done.
    pub expires: Option<Timestamp>,
    /// Whether it is made only if none like it waits.
    pub singleton: bool,
    /// How long the sender waits for what becomes of it; none: not at all.
    pub wait: Option<Duration>,
}

/// A mail that was made, or one like it that waits already.
pub struct Sent {
    /// What was sent.
    pub message: Arc<Message>,
    /// Whether it was made, and the thing needs a notice.
    pub is_new: bool,
    /// When it is durable.
    pub receipt: Receipt,
    /// The sender's own end, if it waits.
    pub waiter: Option<Waiter>,
}

/// Why a mail could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// As many mails wait for the thing as may.
    #[error("{0} mails wait for the thing, as many as may")]
    Full(usize),
    /// As many mails of the sender wait for the thing as it may have of those that may wait.
    #[error("the sender has its share of the {0} mails that may wait for the thing")]
    Share(usize),
    /// As many callers wait, or as many bytes of mail, as may, or somebody has the share of them.
    #[error(transparent)]
    OverShare(#[from] OverShare),
    /// The server stops, or can't make a mail now.
    #[error("the server takes no mail now")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What `mailbox.check` gives out.
pub struct Fetched {
    /// The mails, oldest first.
    pub mails: Vec<Mail>,
    /// When what has changed is durable.
    pub receipt: Receipt,
}

/// Which mails a listing is about.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// Those of an organisation.
    Org(OrgId),
    /// Those of a thing.
    Thing(OrgId, ThingId),
}

impl Mailbox {
    /// The mailboxes in these tables, without the mails that wait there.
    pub fn new(tables: Tables, config: MailboxConfig, bytes: &Arc<StoredBytes>) -> Self {
        let waiting = Waiting::new(config.bytes_max, bytes.pools());
        let state = State { waiting, callers: Callers::new(bytes.pools()) };
        let (state, journal) = (Arc::new(Mutex::new(state)), OnceLock::new());
        Self { tables, config, bytes: bytes.clone(), state, journal }
    }

    /// Has mails that are made and that end recorded there from now on.
    pub fn record_in(&self, journal: Box<dyn Journal>) {
        // There is one, for good.
        let _ = self.journal.set(journal);
    }

    fn submit(&self, batch: Batch, mails: &[&Mail], now: Timestamp) -> Result<Receipt, StoreError> {
        match self.journal.get() {
            Some(journal) => journal.submit(batch, mails, now),
            None => self.tables.submit(batch),
        }
    }

    /// Reads the mails that are not done; how many there are.
    pub fn load(&self) -> Result<usize, StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let open = rows::open(None);
            let page = self.tables.scan_prefix(Table::Mails, &open, after.as_deref(), SCAN_ROWS)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, _) in page {
                if let (Some(org), Some(id)) = (rows::org_of(&key), rows::mail_of(&key))
                    && let Some(mail) = self.read(org, id)?
                {
                    self.state.lock().waiting.insert(mail);
                }
            }
        }
        Ok(self.state.lock().waiting.len())
    }

    /// Makes a mail, unless it is a singleton and one like it waits: then that one's result is the
    /// answer to this sender too. Its id is made of the time and of `random`.
    ///
    /// # Errors
    /// There is no room for it, or the store fails.
    pub fn send(
        &self,
        new: NewMessage,
        random: [u8; 6],
        session: u64,
        now: Timestamp,
    ) -> Result<Sent, SendError> {
        let deadline = new.wait.map(|wait| Instant::now() + wait);
        let caller = Caller { session, payer: (new.org, new.sender) };
        let mut state = self.state.lock();
        if deadline.is_some() {
            state.callers.check(caller)?;
        }
        let twin = new.singleton.then(|| {
            let method = new.method.as_deref();
            state.waiting.twin(new.thing, &new.command, method, now).cloned()
        });
        let (message, receipt, is_new) = match twin.flatten() {
            // The receipt speaks for the mail.
            Some(mail) => (mail.message.clone(), self.tables.writer().barrier()?, false),
            None => {
                let mail = self.make(&mut state, new, random, now)?;
                let message = mail.message.clone();
                let (payer, difference) = (message.payer(), Difference::new(0, mail.bytes()));
                let counted = self.bytes.change(payer, &difference)?;
                let receipt = self.submit(rows::created(&mail), &[&mail], now)?;
                counted.made();
                state.waiting.insert(mail);
                (message, receipt, true)
            }
        };
        let waiter = deadline
            .map(|deadline| state.callers.add(message.id, caller, deadline, self.state.clone()));
        Ok(Sent { message, is_new, receipt, waiter })
    }

    fn make(
        &self,
        state: &mut State,
        new: NewMessage,
        random: [u8; 6],
        now: Timestamp,
    ) -> Result<Mail, SendError> {
        let max = self.config.waiting_max;
        let room = state.waiting.check_box(new.thing, Some(new.sender), max);
        room.map_err(|why| match why {
            NoRoom::Full => SendError::Full(max),
            NoRoom::Share => SendError::Share(max),
        })?;
        let message = Message {
            id: state.waiting.next_id(now, random),
            org: new.org,
            thing: new.thing,
            thing_key: new.thing_key,
            command: new.command,
            method: new.method,
            params: new.params,
            from: new.from,
            sender: Some(new.sender),
            created: now,
            expires: new.expires,
        };
        let mail = Mail::new(message);
        state.waiting.check(&mail)?;
        Ok(mail)
    }

    /// Gives out the oldest new mails of these things to a session: at most `count_max`. They are
    /// in flight then, or, with `auto_complete`, done.
    pub fn fetch(
        &self,
        things: &[ThingId],
        session: u64,
        count_max: usize,
        auto_complete: bool,
        now: Timestamp,
    ) -> Result<Fetched, StoreError> {
        let mut state = self.state.lock();
        let count_max = count_max.min(limits::MAILS_PER_CHECK);
        let ids = state.waiting.new_of(things, count_max, limits::CHECKED_BYTES_MAX);
        let (mails, receipt) = if auto_complete {
            let mails = ids.iter().filter_map(|id| state.waiting.get(*id).cloned()).collect();
            (mails, self.end(&mut state, &ids, Status::CompletedAuto, None, now)?)
        } else {
            let take = |id| state.waiting.take(id, session, now);
            (ids.into_iter().filter_map(take).collect(), Receipt::nothing())
        };
        Ok(Fetched { mails, receipt })
    }

    /// One of the new mails of these things.
    pub fn new_for(&self, things: &[ThingId]) -> Option<Arc<Message>> {
        let state = self.state.lock();
        let first = state.waiting.new_of(things, 1, usize::MAX);
        first.first().and_then(|id| state.waiting.get(*id)).map(|mail| mail.message.clone())
    }

    /// Notes that the thing works on a mail; none when the mail is not waiting.
    pub fn update(
        &self,
        id: MailId,
        msg: Option<String>,
        now: Timestamp,
    ) -> Result<Option<Receipt>, StoreError> {
        let mut state = self.state.lock();
        let Some(mut mail) = state.waiting.get(id).cloned() else { return Ok(None) };
        let before = mail.bytes();
        let payer = mail.message.payer();
        // All that it has said is written again.
        if !self.bytes.may_write(payer, before) && mail.status() == Status::InProgress {
            return Ok(Some(Receipt::nothing()));
        }
        // That it works counts more than what it says.
        let room = state.waiting.has_room(&mail, msg.as_ref().map_or(0, String::len));
        mail.step(Status::InProgress, now, msg.filter(|_| room), room);
        let receipt = self.tables.submit(rows::changed(&mail))?;
        self.bytes.note(payer, &Difference::new(before, mail.bytes()));
        state.waiting.work_on(mail);
        Ok(Some(receipt))
    }

    /// Completes a mail; none when it is not waiting. Who waits for it is released when that is
    /// durable.
    pub fn complete(
        &self,
        id: MailId,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<Option<Receipt>, StoreError> {
        let status = if outcome.code == 0 { Status::CompletedOk } else { Status::CompletedError };
        let mut state = self.state.lock();
        let Some(mail) = state.waiting.get(id) else { return Ok(None) };
        // That it is done counts more than what it says; who waits for that gets it.
        let room = self.bytes.may_write(mail.message.payer(), mail.bytes() + outcome.bytes());
        let outcome = Arc::new(outcome);
        let kept = match room {
            true => outcome.clone(),
            false => Arc::new(Outcome { code: outcome.code, ..Outcome::default() }),
        };
        self.end(&mut state, &[id], status, Some((outcome, kept)), now).map(Some)
    }

    /// Takes a mail back; none when it is not waiting.
    pub fn purge(&self, id: MailId, now: Timestamp) -> Result<Option<Receipt>, StoreError> {
        let mut state = self.state.lock();
        if state.waiting.get(id).is_none() {
            return Ok(None);
        }
        self.end(&mut state, &[id], Status::Purged, None, now).map(Some)
    }

    /// Takes all mails of a thing back; how many.
    pub fn purge_thing(
        &self,
        thing: ThingId,
        now: Timestamp,
    ) -> Result<(usize, Receipt), StoreError> {
        let mut state = self.state.lock();
        let ids: Vec<_> = state.waiting.of_thing(thing).map(Mail::id).collect();
        Ok((ids.len(), self.end(&mut state, &ids, Status::Purged, None, now)?))
    }

    /// Ends mails whose time is over, some at once; whether there may be more.
    pub fn expire(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let ids: Vec<_> = state.waiting.due(now).take(limits::EXPIRY_STEP).collect();
        drop(self.end(&mut state, &ids, Status::Expired, None, now)?);
        Ok(ids.len() == limits::EXPIRY_STEP)
    }

    /// Ends mails that wait, in one batch; with what the thing says to it, and what of that is kept.
    fn end(
        &self,
        state: &mut State,
        ids: &[MailId],
        status: Status,
        outcome: Option<(Arc<Outcome>, Arc<Outcome>)>,
        now: Timestamp,
    ) -> Result<Receipt, StoreError> {
        let (outcome, kept) = outcome.unzip();
        let (mut batch, mut ended) = (Batch::default(), Vec::with_capacity(ids.len()));
        let mut grown = Vec::with_capacity(ids.len());
        for before in ids.iter().filter_map(|id| state.waiting.get(*id)) {
            let mut mail = before.clone();
            mail.step(status, now, None, true);
            mail.outcome.clone_from(&kept);
            rows::finish(&mut batch, &mail, now);
            grown.push((mail.message.payer(), Difference::new(before.bytes(), mail.bytes())));
            ended.push(mail);
        }
        let ended: Vec<_> = ended.iter().collect();
        let mut receipt = self.submit(batch, &ended, now)?;
        for (payer, difference) in &grown {
            self.bytes.note(*payer, difference);
        }
        let answer = match (status, outcome) {
            (Status::Expired, _) => Answer::Expired,
            (Status::Purged, _) => Answer::Purged,
            (_, outcome) => Answer::Completed(outcome.unwrap_or_default()),
        };
        for id in ids {
            state.waiting.remove(*id);
            let (released, answer) = (state.callers.take(*id), answer.clone());
            if !released.is_empty() {
                receipt = receipt.followed_by(move |durable| {
                    released.send(if durable { &answer } else { &Answer::NotStored });
                });
            }
        }
        Ok(receipt)
    }

    /// Makes new again what a session has in flight, because it has ended: some at once, until there
    /// are none.
    pub fn session_ended(&self, session: u64, now: Timestamp) -> Vec<Arc<Message>> {
        let mut state = self.state.lock();
        let ids = state.waiting.release(session, None, limits::EXPIRY_STEP, now);
        let message = |id: MailId| state.waiting.get(id).map(|mail| mail.message.clone());
        ids.into_iter().filter_map(message).collect()
    }

    /// Makes new again what a session has in flight for a thing, because it does not serve it any
    /// more.
    pub fn give_back(&self, session: u64, thing: ThingId, now: Timestamp) {
        self.state.lock().waiting.release(session, Some(thing), usize::MAX, now);
    }

    /// Answers those who called from a session and can't hear it any more.
    pub fn hang_up(&self, session: u64) {
        self.state.lock().callers.hang_up(session);
    }

    /// Answers all who wait: the server stops.
    pub fn stop_calls(&self) {
        self.state.lock().callers.stop();
    }

    /// How many mails of a thing are not done.
    pub fn waiting_for(&self, thing: ThingId) -> usize {
        self.state.lock().waiting.count(thing)
    }

    /// How many mails wait, and how many callers.
    pub fn counts(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.waiting.len(), state.callers.len())
    }

    /// A mail of the organisation, done or not.
    pub fn find(&self, org: OrgId, id: MailId) -> Result<Option<Mail>, StoreError> {
        match self.waiting(id) {
            Some(mail) => Ok(Some(mail).filter(|mail| mail.message.org == org)),
            None => self.read(org, id),
        }
    }

    /// A mail that is not done.
    pub fn waiting(&self, id: MailId) -> Option<Mail> {
        self.state.lock().waiting.get(id).cloned()
    }

    fn read(&self, org: OrgId, id: MailId) -> Result<Option<Mail>, StoreError> {
        match self.tables.read(Table::Mails, &rows::message_of(org, Some(id)))? {
            Some(message) => self.with_state(org, id, &message),
            None => Ok(None),
        }
    }

    /// The mail of a message that is stored. None: it was forgotten just now.
    fn with_state(
        &self,
        org: OrgId,
        id: MailId,
        message: &[u8],
    ) -> Result<Option<Mail>, StoreError> {
        let key = rows::state_of(org, id);
        let Some(state) = self.tables.read(Table::Mails, &key)? else { return Ok(None) };
        let mail = Mail::from_records(message, &state);
        mail.map(Some).map_err(|source| StoreError::Record {
            table: Table::Mails.name(),
            key: HEXLOWER.encode(&key),
            source,
        })
    }

    /// Visits mails, newest first, at most `limit` of them.
    pub fn visit(
        &self,
        scope: Scope,
        limit: usize,
        mut visit: impl FnMut(Mail),
    ) -> Result<(), StoreError> {
        let (prefix, page_max) = match scope {
            Scope::Org(org) => (rows::message_of(org, None), SCAN_MESSAGES),
            Scope::Thing(_, thing) => (rows::of_thing(thing, None), SCAN_ROWS),
        };
        let mut end = [&prefix[..], &[0xff; 12]].concat();
        let (mut left, mut first) = (limit, true);
        while left > 0 {
            let to = if first { Bound::Included(&end[..]) } else { Bound::Excluded(&end[..]) };
            first = false;
            let from = Bound::Included(&prefix[..]);
            let page = self.tables.scan_back(Table::Mails, from, to, left.min(page_max))?;
            left -= page.len();
            let Some((last, _)) = page.last() else { break };
            end.clone_from(last);
            for row in page {
                if let Some(mail) = self.mail_in(scope, row)? {
                    visit(mail);
                }
            }
        }
        Ok(())
    }

    /// The mail that a row tells of; what is in memory counts.
    fn mail_in(&self, scope: Scope, (key, value): Row) -> Result<Option<Mail>, StoreError> {
        let Some(id) = rows::mail_of(&key) else { return Ok(None) };
        match scope {
            Scope::Thing(org, _) => self.find(org, id),
            Scope::Org(org) => match self.waiting(id) {
                Some(mail) => Ok(Some(mail)),
                None => self.with_state(org, id, &value),
            },
        }
    }

    /// Forgets mails that were done long ago, some at once; whether there may be more, once these are
    /// gone.
    pub fn prune(&self, now: Timestamp) -> Result<(Receipt, bool), StoreError> {
        let keep_ms = i64::try_from(self.config.keep_s.saturating_mul(1000)).unwrap_or(i64::MAX);
        let until = now.as_millis().saturating_sub(keep_ms).max(0);
        let (from, to) = (
            rows::ended(Timestamp::default(), None),
            rows::ended(Timestamp::from_millis(until), None),
        );
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let page = self.tables.scan(Table::Mails, from, to, SCAN_ROWS)?;
        let mut batch = Batch::default();
        page.iter().for_each(|(key, _)| rows::forget(&mut batch, key));
        let receipt = self.tables.submit(batch)?;
        for (payer, bytes) in page.iter().filter_map(|(_, row)| rows::ended_bytes(row)) {
            self.bytes.note(payer, &Difference::new(bytes, 0));
        }
        Ok((receipt, page.len() == SCAN_ROWS))
    }
}

/// The method that a mail's parameters name.
pub fn method_in(command: &str, params: Option<&RawValue>) -> Option<String> {
    if command != METHOD_EXEC {
        return None;
    }
    // A map, in which the last of two members with one name counts.
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(params?.get()).ok()?;
    serde_json::from_str(members.get("method")?.get()).ok()
}
