//! [`App::apply`], through which all changes go: effects of commands, ends of connections, expiry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Code, Failure, STRANGERS, SessionRef, Timestamp, excerpt, limits};
use rules::directory::{Event, Events, Full, Lifetime, Reason, Session, Start};
use rules::identity::model::User;
use rules::identity::{Record, RecordChange, RecordChanges};
use store::{Change, Receipt, StoreError, rows::encode};

use crate::events::{Event as StreamEvent, NewEvent};

use super::effects::{Affected, Applied, Effects, Goodbyes, Outcome, SessionChange};
use super::happened::{Acts, By};
use super::journal::Unsaved;
use super::recorder::TraceEnd;
use super::turns::Worker;
use super::{App, journal, records};

impl App {
    /// Carries effects out: records, then sessions, and notifies everybody. When this returns they
    /// hold, unless many sessions change: those change on another thread. What it returns says when
    /// they are durable.
    pub fn apply(self: &Arc<Self>, effects: Effects, now: Timestamp) -> Applied {
        let Effects { receipt, records, affected, gone, sessions, deed, found_by, .. } = effects;
        let (closes_at_once, worker) = (effects.closes_at_once, effects.worker);
        debug_assert!(
            effects.after_reply.is_none(),
            "who sends the reply has taken what comes behind it"
        );
        if let Err(error) = self.check_room(&sessions) {
            return Applied::new(Err(error), Goodbyes::default());
        }
        let acts = |deed: Box<_>| match found_by {
            Some(found_by) => self.act_on_many(&deed, found_by, &sessions, now),
            None => self.acts(&deed, records.as_ref(), &sessions, now),
        };
        let by = deed.as_ref().and_then(|deed| deed.actor.by());
        let by = by.map(|(name, reference)| By { name, reference });
        let mut acts = Acts { events: deed.map_or_else(Vec::new, acts), by };
        let stored = match records {
            Some(records) => self.change_records(records, std::mem::take(&mut acts.events)),
            None => Ok(Receipt::nothing()),
        };
        let receipt = match stored {
            Ok(stored) => receipt.and(stored),
            Err(error) => return Applied::new(Err(error), Goodbyes::default()),
        };
        if let Some(gone) = gone {
            self.recorder.stop(&gone, TraceEnd::Deleted, self.clock.now());
            self.end_kept_sessions(&gone);
        }
        if affected.is_none() && sessions.is_empty() {
            return Applied::new(Ok(receipt), Goodbyes::default());
        }
        let (mut changes, mut followed) = (Vec::new(), None);
        if let Some(affected) = affected {
            match self.follow(affected) {
                Some(few) => changes.extend(few.into_iter().map(SessionChange::Refresh)),
                None => followed = Some(self.follow_in_steps(affected, acts.by.clone(), worker)),
            }
        }
        self.expand(sessions, &mut changes);
        if followed.is_none() && changes.len() <= limits::EXPIRY_STEP {
            return self.apply_to_sessions((changes, acts), receipt, closes_at_once, now);
        }
        let app = self.clone();
        Applied::offloaded(async move {
            let mut outcome = match followed {
                Some(followed) => followed.await.map_or_else(|_| failed().into(), Outcome::from),
                None => Outcome { stored: Ok(()), goodbyes: Goodbyes::default() },
            };
            let changes = (changes, acts);
            let own = app.apply_in_steps(changes, receipt, closes_at_once, worker, now).await;
            outcome.stored = outcome.stored.and(own.stored);
            outcome.goodbyes.append(own.goodbyes);
            if closes_at_once {
                outcome.goodbyes.close();
            }
            outcome
        })
    }

    /// Has everything but live sessions follow a change of rights; the live sessions that are to
    /// follow. None if there are many, and nothing has followed.
    fn follow(&self, affected: Affected) -> Option<Vec<Arc<Session>>> {
        if !matches!(affected, Affected::User(_)) {
            // Out of date, or of applications that are gone.
            self.accesses.clear();
        }
        if self.recorder.is_on() {
            self.tend_traces(self.clock.now());
        }
        let followers = self.followers(affected);
        self.are_few(&followers).then(|| {
            self.follow_at_once(affected, &followers);
            self.sessions_of(&followers)
        })
    }

    /// What is promised to survive a restart is not begun when the store takes nothing.
    fn check_room(&self, sessions: &[SessionChange]) -> Result<(), StoreError> {
        let lasts = |change: &SessionChange| match change {
            SessionChange::Switch(session, _) => session.lifetime() != Lifetime::Connection,
            _ => false,
        };
        if sessions.iter().any(lasts) { self.tables.writer().check() } else { Ok(()) }
    }

    fn apply_to_sessions(
        &self,
        (changes, acts): (Vec<SessionChange>, Acts),
        receipt: Receipt,
        closes_at_once: bool,
        now: Timestamp,
    ) -> Applied {
        let events = self.change_sessions(changes, now);
        let mut goodbyes = Goodbyes::of(&events, (&self.pace, &self.pools));
        if closes_at_once {
            goodbyes.close();
        }
        let recorded = self.record_with(&events, acts);
        Applied::new(recorded.map(|recorded| receipt.and(recorded)), goodbyes)
    }

    /// The same for many sessions, on threads that serve no connection: what was done is in the commit
    /// of the first step.
    pub(super) async fn apply_in_steps(
        self: &Arc<Self>,
        (changes, mut acts): (Vec<SessionChange>, Acts),
        receipt: Receipt,
        closes_at_once: bool,
        worker: Worker,
        now: Timestamp,
    ) -> Outcome {
        let (mut stored, mut goodbyes) = (Ok(receipt), Goodbyes::default());
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let some: Vec<_> = changes.by_ref().take(limits::EXPIRY_STEP).collect();
            let (app, acts) = (self.clone(), acts.first());
            let thought = limits::END_WORK * some.len() as u32;
            let work = move || app.apply_to_some(some, acts, now);
            let (recorded, ended) = match self.do_some(worker, thought, work).await {
                Ok(done) => done,
                Err(failure) => return Outcome { stored: Err(failure), goodbyes },
            };
            stored = stored.and_then(|before| Ok(recorded?.and(before)));
            goodbyes.append(ended);
        }
        if closes_at_once {
            goodbyes.close();
        }
        Applied::new(stored, goodbyes).await
    }

    /// Each step is a commit of its own: nobody's waits long for the journal.
    fn apply_to_some(
        &self,
        changes: Vec<SessionChange>,
        mut acts: Acts,
        now: Timestamp,
    ) -> (Result<Receipt, StoreError>, Goodbyes) {
        let (mut stored, mut goodbyes) = (Ok(Receipt::nothing()), Goodbyes::default());
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let events = self.change_sessions(changes.by_ref().take(limits::ENDED_STEP), now);
            let recorded = self.record_with(&events, acts.first());
            stored = stored.and_then(|before: Receipt| Ok(recorded?.and(before)));
            goodbyes.append(Goodbyes::of(&events, (&self.pace, &self.pools)));
        }
        (stored, goodbyes)
    }

    /// Does some of much work on a thread that serves no connection, which takes so much at least, and
    /// waits then until the rest may go on. Others have their turns meanwhile.
    pub(super) async fn do_some<T: Send + 'static>(
        &self,
        worker: Worker,
        thought: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let timed = move || {
            let begun = Instant::now();
            (work(), begun.elapsed())
        };
        let (done, took) = self.offload(worker, timed).await?;
        let tenant = worker.asker().map_or(STRANGERS, |(org, _)| self.pools.tenant_of(org));
        self.pace.wait(tenant, thought.max(took)).await;
        Ok(done)
    }

    /// Adds changes of sessions, one by one. Looked for behind the change of records: who logs in later
    /// finds that.
    fn expand(&self, sessions: Vec<SessionChange>, changes: &mut Vec<SessionChange>) {
        for change in sessions {
            match change {
                SessionChange::EndOthers(principal, session) => {
                    let mut others = self.sessions.of_principal(&principal);
                    others.retain(|other| !Arc::ptr_eq(other, &session));
                    let end = |other| SessionChange::End(other, Reason::Revoked);
                    changes.extend(others.into_iter().map(end));
                }
                change => changes.push(change),
            }
        }
    }

    /// Starts a session, as [`rules::directory::DirectoryWriter::start`] says, and does not wait for
    /// the store.
    ///
    /// # Errors
    ///
    /// There is no room.
    pub fn start(
        &self,
        start: Start,
        takes_over: bool,
        now: Timestamp,
    ) -> Result<Arc<Session>, Full> {
        let (session, events) = self.sessions.start(start, takes_over, now)?;
        self.notify(&events);
        Ok(session)
    }

    /// Ends a session whose connection is gone.
    pub fn end(&self, session: &Arc<Session>, reason: Reason, now: Timestamp) {
        self.notify(&self.sessions.end(session, reason, now));
    }

    /// Ends every session that is bound to a connection; the connections close.
    pub fn end_bound(&self, now: Timestamp) {
        self.pace.stop();
        self.readers_pace.stop();
        let mut sessions = self.sessions.all();
        sessions.retain(|session| session.lifetime() == Lifetime::Connection);
        self.note_stop(sessions.iter().map(|session| session.org_id()), now);
        // Many in one batch: the writer's queue is shorter than a fleet is large.
        for step in sessions.chunks(limits::EXPIRY_STEP) {
            let mut events = Events::default();
            for session in step {
                events.append(self.sessions.end(session, Reason::ServerStopped, now));
            }
            self.notify(&events);
        }
    }

    /// Records what nobody waits for; connections of ended sessions close now.
    pub(super) fn notify(&self, events: &Events) {
        let goodbyes = Goodbyes::of(events, (&self.pace, &self.pools));
        Applied::new(self.record(events), goodbyes).detach();
    }

    /// Notifies all listeners of changes of sessions, and submits them to the store.
    pub(super) fn record(&self, events: &Events) -> Result<Receipt, StoreError> {
        self.record_with(events, Acts::default())
    }

    /// The same, as what somebody did. If nothing has changed, nobody did anything.
    fn record_with(&self, events: &Events, acts: Acts) -> Result<Receipt, StoreError> {
        if events.is_empty() {
            return Ok(Receipt::nothing());
        }
        for event in events.iter() {
            if let Event::RightsChanged(session) = event
                && let Some(outbox) = session.outbox()
            {
                outbox.note_rights();
            }
        }
        self.hang_up(events);
        self.count(events);
        self.log_sessions(events);
        self.return_mail(events);
        self.publish_presence(events);
        self.count_usage(events);
        let by = acts.by.clone();
        let mut unsaved = self.journal.lock();
        let recorded = self.submit_events(events, &unsaved.begun, acts);
        let recorded = match recorded {
            // The ends go in all the same.
            Err(error @ StoreError::NoRoom) => {
                let ends: Vec<_> = events.iter().filter(|event| is_end(event)).cloned().collect();
                match ends.is_empty() {
                    true => Err((error, false)),
                    false => match self.submit_events(
                        &ends,
                        &unsaved.begun,
                        Acts { by, ..Acts::default() },
                    ) {
                        // In order: what comes later waits for it, too.
                        Ok(receipt) => {
                            drop(receipt);
                            Err((error, false))
                        }
                        Err(error) => Err((error, true)),
                    },
                }
            }
            recorded => recorded.map_err(|error| (error, true)),
        };
        match &recorded {
            Ok(_) if unsaved.begun.is_empty() => {}
            Ok(_) => self.note_unsaved(events, &mut unsaved, None),
            Err((_, ends)) => self.note_unsaved(events, &mut unsaved, Some(*ends)),
        }
        recorded.map_err(|(error, _)| error)
    }

    fn submit_events(
        &self,
        events: &[Event],
        unsaved: &HashSet<SessionRef>,
        Acts { events: acts, by }: Acts,
    ) -> Result<Receipt, StoreError> {
        let mut batch = journal::batch_of(events, unsaved, &self.connection_history)?;
        self.keep_seen(&mut batch, events, unsaved)?;
        // On a full disk, what only tells of sessions is not kept: they end all the same.
        let removes = || batch.0.iter().any(|change| matches!(change, Change::Delete(..)));
        let happened = match self.tables.writer().check().is_ok() || removes() {
            true => self.of_sessions(events, by.as_ref()),
            false => Vec::new(),
        };
        let submitted = if acts.is_empty() && happened.is_empty() {
            self.tables.submit(batch)
        } else {
            let acts = acts.into_iter().map(StreamEvent::from);
            let numbered = self.events.add(&mut batch, acts.chain(happened));
            numbered.settle(self.tables.submit(batch))
        };
        if submitted.is_ok() {
            let has_row = |session: &Session| !unsaved.contains(&session.reference());
            self.connection_history.count(events, has_row);
        }
        submitted
    }

    /// Remembers what the store has not of these events: with `refused` the beginnings, if it holds
    /// true also the ends.
    fn note_unsaved(&self, events: &[Event], unsaved: &mut Unsaved, refused: Option<bool>) {
        for event in events {
            match event {
                Event::Started(session) if refused.is_some() => {
                    unsaved.begun.insert(session.reference());
                    self.note_stale(session);
                }
                Event::Switched(session, _) | Event::Redefined(session) if refused.is_some() => {
                    self.note_stale(session);
                }
                Event::Ended(session, _) | Event::Revoked(session) => {
                    let is_new = unsaved.begun.remove(&session.reference());
                    let room = unsaved.ends.len() < limits::UNSAVED_ENDS_MAX;
                    if refused == Some(true) && !is_new && room {
                        unsaved.ends.push(event.clone());
                    }
                }
                _ => {}
            }
        }
    }

    /// Hands over the ends that were refused.
    ///
    /// # Errors
    ///
    /// They are refused again.
    pub(super) fn save_ends(&self) -> Result<Receipt, StoreError> {
        let mut unsaved = self.journal.lock();
        if unsaved.ends.is_empty() {
            return Ok(Receipt::nothing());
        }
        let ends = std::mem::take(&mut unsaved.ends);
        let submitted = self.submit_events(&ends, &unsaved.begun, Acts::default());
        if submitted.is_err() {
            unsaved.ends = ends;
        }
        submitted
    }

    /// To the store first, then in memory: what the store does not take has not happened.
    pub(super) fn change_records(
        &self,
        records: RecordChanges,
        acts: Vec<NewEvent>,
    ) -> Result<Receipt, StoreError> {
        // First: what comes with a new organisation counts for its tenant.
        let made = records.iter().filter_map(|change| match change {
            RecordChange::Put(Record::Org(org)) if self.records.org(org.id).is_none() => Some(org),
            _ => None,
        });
        let made: Vec<_> = made.map(|org| (org.id, org.parent)).collect();
        made.iter().for_each(|(org, above)| self.pools.add_org(*org, *above));
        let changed = self.try_change_records(records, acts);
        if changed.is_err() {
            made.iter().for_each(|(org, _)| self.pools.remove_org(*org));
        }
        changed
    }

    fn try_change_records(
        &self,
        records: RecordChanges,
        acts: Vec<NewEvent>,
    ) -> Result<Receipt, StoreError> {
        let mut batch = records::batch_of(&records);
        let before: Vec<_> = records.iter().map(|change| self.record_before(change)).collect();
        let takes = |(change, before): (&RecordChange, &Option<Record>)| match change {
            RecordChange::Put(record) => before.as_ref().is_some_and(|was| record.takes_from(was)),
            RecordChange::Delete(_) => true,
        };
        let is_removal = records.iter().zip(&before).all(takes);
        if !is_removal {
            let mut both = records.iter().zip(&before);
            both.try_for_each(|(change, was)| check_size(change, was.as_ref()))?;
        }
        let taken = self.record_space.take(&records, &batch, is_removal);
        let taken = taken.map_err(StoreError::OverShare)?;
        for change in records.iter() {
            if let RecordChange::Delete(Record::Org(org)) = change {
                self.events.org_goes(&mut batch, org.id, org.parent);
                self.telemetry.forget(&mut batch, org.id.into());
            }
        }
        self.webhooks.prepare(&records, &mut batch, &self.tables)?;
        let numbered = self.events.add(&mut batch, acts);
        let receipt = numbered.settle(match is_removal {
            true => self.tables.submit_removal(batch),
            false => self.tables.submit(batch),
        })?;
        taken.keep();
        for (change, before) in records.iter().zip(before) {
            let kept = match change {
                RecordChange::Put(record) => record.token_ids(),
                RecordChange::Delete(_) => Vec::new(),
            };
            let had = before.map_or_else(Vec::new, |before| before.token_ids());
            had.into_iter()
                .filter(|id| !kept.contains(id))
                .for_each(|id| self.forget_token_use(id));
        }
        self.webhooks.follow(&records);
        for change in records.iter() {
            match change {
                RecordChange::Put(Record::Org(org)) => self.events.name_org(org.id, &org.key),
                RecordChange::Delete(Record::Org(org)) => self.pools.remove_org(org.id),
                _ => {}
            }
        }
        self.records.apply(records);
        Ok(receipt)
    }

    /// The record that a change replaces or takes out, if it may have what others log in with.
    fn record_before(&self, change: &RecordChange) -> Option<Record> {
        let (RecordChange::Put(record) | RecordChange::Delete(record)) = change;
        let identity = &self.records;
        match record {
            Record::User(user) => identity.user(user.id).map(|was| Record::from((*was).clone())),
            Record::Application(found) => {
                identity.application(found.id).map(|was| Record::from((*was).clone()))
            }
            Record::Webhook(webhook) => {
                identity.webhook(webhook.id).map(|was| Record::from((*was).clone()))
            }
            _ => None,
        }
    }

    fn change_sessions(
        &self,
        changes: impl IntoIterator<Item = SessionChange>,
        now: Timestamp,
    ) -> Events {
        let sessions = &self.sessions;
        let mut events = Events::default();
        for change in changes {
            events.append(match change {
                SessionChange::End(session, reason) => sessions.end(&session, reason, now),
                SessionChange::EndFor(session, by) => sessions.end_for(&session, &by, now),
                SessionChange::Revoke(session) => sessions.revoke(&session, now),
                SessionChange::Switch(session, access) => sessions.switch(&session, access, now),
                SessionChange::Refresh(session) => self.refresh_access(&session, now),
                SessionChange::Redefine(thing, definition) => {
                    sessions.set_definition(&thing, definition)
                }
                SessionChange::EndOthers(..) => continue,
            });
        }
        events
    }

    /// Notes how many connections of its login there are when one has come.
    fn note_connection(&self, session: &Session) {
        if session.lifetime() == Lifetime::Connection {
            let principal = session.who().principal();
            let live = self.sessions.bound_of(&principal).unwrap_or_default();
            self.login_rates.started(&principal, live, session.started());
        }
    }

    fn count(&self, events: &[Event]) {
        for event in events {
            match event {
                Event::Started(session) => {
                    self.metrics.session_started(session.kind().as_str());
                    self.note_connection(session);
                }
                Event::Ended(session, reason) => {
                    self.metrics.session_ended(session.kind().as_str(), reason.as_str());
                }
                Event::Switched(..)
                | Event::RightsChanged(_)
                | Event::Redefined(_)
                | Event::Revoked(_)
                | Event::Forgotten(_) => {}
            }
        }
    }
}

fn failed() -> Failure {
    Failure::new(Code::INTERNAL, "The server failed.")
}

/// Whether what is stored of it ends something.
const fn is_end(event: &Event) -> bool {
    matches!(event, Event::Ended(..) | Event::Revoked(_) | Event::Forgotten(_))
}

/// Fails if what a user has grows beyond what is written for each small change. What is larger
/// already may stay so, and invitations have a bound of their own.
fn check_size(change: &RecordChange, before: Option<&Record>) -> Result<(), StoreError> {
    let RecordChange::Put(Record::User(user)) = change else { return Ok(()) };
    let taken = |user: &User| encode(&(&user.memberships, &user.tokens, &user.settings)).len();
    let was = || match before {
        Some(Record::User(user)) => taken(user),
        _ => 0,
    };
    let (bytes, most) = (taken(user), limits::USER_BYTES_MAX);
    if bytes <= most || bytes <= was() {
        return Ok(());
    }
    let email = excerpt(&user.email);
    let sentence = format!(
        "The memberships, tokens and settings of {email} would take more than {most} bytes."
    );
    Err(StoreError::TooLarge(sentence))
}
