//! Periodic work: expiry, storing counters, and removing what is too old.

use std::sync::Arc;

use base::{Failure, Jump, LastTime, STRANGERS, Timestamp, limits};
use rules::directory::{Event, Session};
use store::{Batch, Receipt, Store, StoreError, Table};

use super::App;
use super::journal;
use super::turns::Worker;

/// Where the last time is, in [`Table::Meta`].
const TIME_KEY: &[u8] = b"time";

/// The last time of the last run; none in a new store, or one of an older program.
pub(super) fn last_time(store: &dyn Store) -> Result<Option<LastTime>, StoreError> {
    let row = store.read(Table::Meta, TIME_KEY)?;
    Ok(row.as_deref().and_then(LastTime::from_bytes))
}

impl App {
    /// Looks whether the wall clock was set; a jump is stored with the time.
    pub fn look_at_clock(&self) {
        if let Some(Jump { by_ms }) = self.clock.look() {
            let seconds = by_ms / 1000;
            tracing::warn!(seconds, "the wall clock jumped; what is due does not move with it");
            self.store_time();
        }
    }

    /// Stores the time, which the next run goes on from.
    pub fn store_time(&self) {
        let mut batch = Batch::default();
        batch.put(Table::Meta, TIME_KEY, self.clock.last_time().to_bytes());
        // Lost or refused, the next one is as good.
        let _ = self.tables.submit(batch);
    }

    /// Expires what is due, in steps between which other work gets its turn, and forgets ended
    /// sessions that are too old, and tokens whose time is over.
    pub async fn expire(&self, now: Timestamp) {
        let mut more = true;
        while more {
            let begun = tokio::time::Instant::now();
            let (events, others) = self.sessions.expire(now, limits::ENDED_STEP);
            self.notify(&events);
            more = others;
            // The tasks of closed connections wait in one queue with those that have commands:
            // without turns, commands would wait until all of them have closed.
            let closed = events.iter().filter(|event| closes(event)).count() as u32;
            let ended = limits::END_WORK * events.iter().count() as u32;
            // A core that others use, too, takes longer than is thought.
            let work = limits::CLOSE_WORK * closed + ended.max(begun.elapsed());
            self.pace.wait(STRANGERS, work).await;
        }
        // What ended together is too old together, and nobody ends or begins while it goes.
        let mut more = true;
        while more {
            let begun = tokio::time::Instant::now();
            let forgotten = self.sessions.prune(now, limits::ENDED_STEP);
            self.notify(&forgotten);
            more = forgotten.len() == limits::ENDED_STEP;
            self.pace.wait(STRANGERS, begun.elapsed()).await;
        }
        self.forget_tokens(now);
        self.second_factors.expire(now);
    }

    /// Ends MQTT sessions whose time is over, in steps as other sessions, and retained messages.
    pub async fn expire_topics(&self, now: Timestamp) {
        let mut more = true;
        while more {
            let begun = tokio::time::Instant::now();
            more = self.broker.expire_sessions(now, limits::ENDED_STEP);
            self.pace.wait(STRANGERS, begun.elapsed()).await;
        }
        let broker = self.broker.clone();
        let expired = tokio::task::spawn_blocking(move || broker.expire_retained(now)).await;
        if let Ok(Err(error)) = expired {
            store::report(&error, "what is over of MQTT topics was not removed");
        }
    }

    /// Writes what was refused, and removes events that are too many or, with `expire`, too old. It
    /// reads the disk, so it is offloaded.
    pub async fn keep_events(self: &Arc<Self>, expire: bool, now: Timestamp) {
        self.event_pieces.expire(tokio::time::Instant::now());
        let app = self.clone();
        let (shown, settled) = (self.clock.shown(now), self.clock.settled(now));
        let kept = self.offload(Worker::Server, move || {
            // On a full disk these are refused, and the rest makes room.
            let written = app.events.write_refusals(shown).map(drop);
            let written = written.and(app.note_limits(now).map(drop));
            let written = written.and(app.events.store_sums());
            if expire {
                app.events.expire(settled)?;
            }
            for _ in 0..limits::EVENTS_TRIMMED_STEPS {
                if !app.events.trim(|org| app.tenant_of(org))? {
                    break;
                }
            }
            written
        });
        if let Ok(Err(error)) = kept.await {
            store::report(&error, "the trail was not kept in order");
        }
    }

    /// Stores figures and counts of the connection history, and removes what of it is too much or,
    /// with `expire`, too old. It reads the disk, so it is offloaded.
    pub async fn keep_connections(self: &Arc<Self>, expire: bool, now: Timestamp) {
        self.keep_figures(now);
        let mut expires = expire.then(|| self.clock.settled(now));
        for _ in 0..limits::EVENTS_TRIMMED_STEPS {
            let (app, settled) = (self.clone(), expires.take());
            let step = move || {
                if let Some(settled) = settled {
                    let months = app.connection_history.expire(settled)?;
                    if months > 0 {
                        tracing::info!(months, "connection history that is too old was dropped");
                    }
                }
                app.connection_history.keep(|org| app.identity().org(org).is_some())
            };
            // What was removed must not be found again: the next step comes behind the commit.
            let removed = match self.offload(Worker::Server, step).await {
                Ok(Ok(Some(removed))) => removed.await,
                Ok(Err(error)) => Err(error),
                Ok(Ok(None)) | Err(_) => return,
            };
            if let Err(error) = removed {
                return store::report(&error, "the connection history was not kept in order");
            }
        }
    }

    /// Ends the mails whose time is over, in steps between which other work gets its turn.
    ///
    /// # Errors
    ///
    /// The store failed; the mails are looked at again the next time.
    pub async fn expire_mail(&self, now: Timestamp) -> Result<(), StoreError> {
        while self.mailbox.expire(now)? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Forgets mails that were done long ago. It reads the disk, so it is offloaded.
    pub async fn prune_mail(self: &Arc<Self>, now: Timestamp) {
        loop {
            let app = self.clone();
            // What was forgotten must not be found again: the next step comes behind the commit.
            let forgotten = match self.offload(Worker::Server, move || app.mailbox.prune(now)).await
            {
                Ok(Ok((receipt, more))) => receipt.await.map(|()| more),
                Ok(Err(error)) => Err(error),
                Err(_) => return,
            };
            match forgotten {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return store::report(&error, "old mails were not forgotten"),
            }
        }
    }

    /// Stores the counters that have changed, in steps between which other work gets its turn and
    /// the journal its other changes.
    pub async fn store_counters(&self) -> Result<(), StoreError> {
        let stale = std::mem::take(&mut *self.stale.lock());
        // Before anything can fail: what is not stored now is noted again with its next command.
        stale.iter().for_each(|session| session.clear_stale());
        let bytes = self.stored_bytes.store(&self.tables);
        let mut written = vec![self.save_ends(), self.store_token_uses(), bytes];
        for step in stale.chunks(limits::EXPIRY_STEP) {
            let stored = self.store_step(step);
            if stored.is_err() {
                step.iter().for_each(|session| self.note_stale(session));
            }
            written.push(stored);
            tokio::task::yield_now().await;
        }
        for receipt in written {
            receipt?.await?;
        }
        Ok(())
    }

    fn store_step(&self, sessions: &[Arc<Session>]) -> Result<Receipt, StoreError> {
        let mut unsaved = self.journal.lock();
        let mut batch = Batch::default();
        for session in sessions {
            journal::put_live(&mut batch, session)?;
        }
        let receipt = self.tables.submit(batch)?;
        if !unsaved.begun.is_empty() {
            for session in sessions {
                unsaved.begun.remove(&session.reference());
            }
        }
        Ok(receipt)
    }

    /// Removes some of the telemetry whose thing is gone; with `expire`, also the months that are
    /// too old.
    pub async fn sweep_telemetry(
        self: &Arc<Self>,
        expire: bool,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let app = self.clone();
        let work = move || {
            let months = if expire { app.telemetry.expire(app.clock.settled(now))? } else { 0 };
            if months > 0 {
                tracing::info!(months, "telemetry that is too old was dropped");
            }
            app.telemetry.sweep()
        };
        if let Some(receipt) = self.offload(Worker::Server, work).await?? {
            receipt.await?;
        }
        Ok(())
    }
}

/// Whether a connection closes with this change.
fn closes(event: &Event) -> bool {
    matches!(event, Event::Ended(session, _) if session.outbox().is_some())
}
