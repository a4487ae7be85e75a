//! The way of a message to its subscribers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{OrgId, carried_on, limits as bounds, topic};
use rules::directory::PrincipalId;
use store::{Batch, Receipt, StoreError};
use tokio::time::Instant;

use super::message::Message;
use super::retained::Unretained;
use super::session::{Offered, Session};
use super::shares::NOBODY;
use super::tree::{Match, Matches, Page, Tree};
use super::{Broker, Org, limits};

/// How far a message got at once.
pub enum FanOut {
    /// Everybody has it.
    Published(Published),
    /// There are many subscribers, or the store has no room now.
    More(Box<Publishing>),
}

/// Who publishes a message.
#[derive(Clone, Copy)]
pub struct Publisher<'a> {
    /// The session, for No Local.
    pub session: Option<&'a Session>,
    /// For whom it is counted, if it is retained.
    pub principal: PrincipalId,
    /// Whether it hears that a message could not be retained.
    pub hears: bool,
}

impl Publisher<'_> {
    /// Nobody who waits for it, such as the will of a client that is gone.
    pub const fn gone(principal: PrincipalId) -> Self {
        Self { session: None, principal, hears: false }
    }

    /// The server itself.
    pub const fn server() -> Self {
        Self::gone(NOBODY)
    }
}

/// A message on its way.
pub struct Publishing {
    broker: Broker,
    org_id: OrgId,
    /// The publisher's session.
    from: Option<u64>,
    by: Publisher<'static>,
    org: Option<Arc<Org>>,
    message: Arc<Message>,
    listed: Listed,
    /// Whether it is those now who have it kept: all others have it.
    keeps: bool,
    /// Those of them that were met.
    kept: Vec<Match>,
    /// Whether there are more.
    more_kept: bool,
    /// What goes to the store with it.
    batch: Batch,
    /// Whether anything of it is to be stored.
    stores: bool,
    /// Whether it is still to take the place of what is retained. First of all: who subscribes before
    /// that gets it with the others, and who does later as a retained message.
    retains: bool,
    unretained: Option<Unretained>,
    crowded: bool,
    receipt: Receipt,
}

/// Those that get a message, page by page.
#[derive(Default)]
struct Listed {
    start: Page,
    /// A page, the first last.
    matches: Matches,
    /// The next one, if there is one.
    next: Option<Page>,
}

impl Listed {
    /// Lists the first of who is subscribed now; whether there were many filters to look at.
    fn begin(&mut self, tree: &Tree, name: &str, from: Option<u64>) -> bool {
        self.start = tree.first_page(from);
        self.list(tree, name, self.start)
    }

    fn list(&mut self, tree: &Tree, name: &str, page: Page) -> bool {
        let collected = tree.collect(name, &page, &mut self.matches);
        self.next = collected.next.map(|next| page.at_session(next));
        collected.levels > limits::DEAR_LEVELS
    }
}

/// What became of a message.
pub struct Published {
    /// Resolves when everything of it that is to be kept is durable.
    pub receipt: Receipt,
    /// Why it is not retained, if that was asked for.
    pub unretained: Option<Unretained>,
    /// Whether a subscriber has much waiting, or there were many filters to look at: others should have
    /// their turn before the next one.
    pub crowded: bool,
}

impl Broker {
    /// Publishes to the subscribers of an organisation; none if the topic is not one that can be
    /// published to. `batch`: what goes to the store with the message, in one with it.
    ///
    /// # Errors
    /// The store takes no more: who has the message kept may not get it.
    pub fn publish(
        &self,
        org: OrgId,
        message: Message,
        by: Publisher<'_>,
        batch: Batch,
    ) -> Option<Result<FanOut, StoreError>> {
        let name = message.topic();
        if !topic::valid_topic(name) || name.starts_with('$') {
            return None;
        }
        let found = self.0.orgs.get(&org).map(|found| found.clone());
        let from = by.session.map(Session::number);
        let (mut listed, mut dear) = (Listed::default(), false);
        if let (Some(found), false) = (&found, message.retain) {
            dear = listed.begin(&found.tree.read(), name, from);
        }
        let has_kept = || listed.matches.iter().any(|found| found.is_kept(&message));
        let stores = message.retain || !batch.0.is_empty() || has_kept();
        let message = Arc::new(message);
        if !stores && listed.next.is_none() && listed.matches.len() <= limits::FAN_OUT_STEP {
            let mut crowded = dear;
            for found in listed.matches {
                crowded |= self.offer(&found, &message);
            }
            let receipt = Receipt::nothing();
            return Some(Ok(FanOut::Published(Published { receipt, unretained: None, crowded })));
        }
        let mut publishing = Box::new(Publishing {
            broker: self.clone(),
            org_id: org,
            from,
            by: Publisher { session: None, ..by },
            org: found,
            stores,
            retains: message.retain,
            message,
            listed,
            keeps: false,
            kept: Vec::new(),
            more_kept: false,
            batch,
            unretained: None,
            crowded: dear,
            receipt: Receipt::nothing(),
        });
        if publishing.waits() {
            return Some(Ok(FanOut::More(publishing)));
        }
        Some(publishing.run().map(|done| match done {
            Some(published) => FanOut::Published(published),
            None => FanOut::More(publishing),
        }))
    }

    /// Publishes one of the server's own messages, with QoS 0, to those who are connected and keep
    /// up: to some with each step, which says how many.
    pub fn publish_live(
        &self,
        org: OrgId,
        message: Message,
    ) -> impl Iterator<Item = u32> + Send + use<> {
        let org = self.0.orgs.get(&org).map(|found| found.clone());
        let (broker, message) = (self.clone(), Arc::new(message));
        let (mut listed, mut page) = (Listed::default(), None);
        if let Some(org) = &org {
            page = Some(org.tree.read().first_page(None));
        }
        std::iter::from_fn(move || {
            listed.list(&org.as_ref()?.tree.read(), message.topic(), page?);
            page = listed.next;
            let some = std::mem::take(&mut listed.matches);
            for found in &some {
                broker.offer(found, &message);
            }
            Some(some.len() as u32)
        })
    }

    /// Whether a topic, which is not one of the server's own, falls under any filter.
    pub fn has_filter(&self, org: OrgId, name: &str) -> bool {
        self.0.orgs.get(&org).is_some_and(|org| org.tree.read().has(name))
    }

    /// Publishes where nobody waits for it.
    pub fn publish_detached(&self, org: OrgId, message: Message, by: PrincipalId) {
        let log = |error: StoreError| {
            store::report(&error, "a message was not kept for all subscribers");
        };
        match self.publish(org, message, Publisher::gone(by), Batch::default()) {
            Some(Ok(FanOut::More(publishing))) => {
                let Some(place) = self.0.shares.fan_out((org, by), publishing.bytes()) else {
                    self.note(Offered::Dropped);
                    return;
                };
                tokio::spawn(carried_on(async move {
                    let _place = place;
                    publishing.finish(bounds::WITHHELD_WAIT).await.map_err(log)
                }));
            }
            Some(Err(error)) => log(error),
            Some(Ok(FanOut::Published(_))) | None => {}
        }
    }

    /// Hands a message to a subscriber that does not have it kept; whether it has much waiting.
    fn offer(&self, found: &Match, message: &Arc<Message>) -> bool {
        let offered = found.session.offer(found.delivery(message));
        self.note(offered)
    }

    fn note(&self, offered: Offered) -> bool {
        if offered == Offered::Dropped {
            self.0.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        offered == Offered::Taken { crowded: true }
    }
}

impl Publishing {
    /// Hands the message to some subscribers; none if there are more. Those that do not have it kept
    /// come first.
    fn run(&mut self) -> Result<Option<Published>, StoreError> {
        if std::mem::take(&mut self.retains) {
            self.retain()?;
        }
        let mut steps = limits::FAN_OUT_STEP;
        while let Some(found) = self.listed.matches.pop() {
            if found.is_kept(&self.message) {
                // Of several pages, they come when all others have it.
                if self.keeps || self.is_last() || found.shared.is_some() {
                    self.kept.push(found);
                    self.stores = true;
                } else {
                    self.more_kept = true;
                }
            } else if !self.keeps {
                self.crowded |= self.broker.offer(&found, &self.message);
                steps -= 1;
                if steps == 0 && !self.listed.matches.is_empty() {
                    return Ok(None);
                }
            }
        }
        if self.keeps || self.is_last() {
            let has_rows = !self.kept.is_empty() || !self.batch.0.is_empty();
            if has_rows && self.waits() {
                return Ok(None);
            }
            self.keep()?;
            if !self.kept.is_empty() {
                return Ok(None);
            }
        }
        if self.is_last() {
            return Ok(Some(Published {
                receipt: std::mem::take(&mut self.receipt),
                unretained: self.unretained,
                crowded: self.crowded,
            }));
        }
        let next = self.listed.next.take().unwrap_or_else(|| {
            (self.keeps, self.more_kept, self.stores) = (true, false, true);
            self.listed.start.at_session(0)
        });
        let org = self.org();
        self.listed.list(&org.tree.read(), self.message.topic(), next);
        Ok(None)
    }

    /// Whether nobody gets it beside those who are listed.
    const fn is_last(&self) -> bool {
        self.listed.next.is_none() && !self.more_kept
    }

    /// About the memory that it takes.
    pub fn bytes(&self) -> usize {
        let listed = self.listed.matches.capacity() + self.kept.capacity();
        self.message.len() + self.batch.bytes() + listed * size_of::<Match>()
    }

    /// Hands the message to all, when the store has room, and gives others their turn in between.
    /// A store that takes nothing is waited for as long as `refused_wait` says.
    ///
    /// # Errors
    /// The store takes no more, or had no room for so long: who has the message kept may not get it.
    pub async fn finish(
        mut self: Box<Self>,
        refused_wait: Duration,
    ) -> Result<Published, StoreError> {
        loop {
            let since = Instant::now();
            while self.waits() {
                let refused = self.broker.0.tables.writer().check();
                let wait = if refused.is_err() { refused_wait } else { bounds::WITHHELD_WAIT };
                if since.elapsed() >= wait {
                    return Err(refused.err().unwrap_or(StoreError::BUSY));
                }
                tokio::time::sleep(bounds::STORE_ROOM_POLL).await;
            }
            if let Some(published) = self.run()? {
                return Ok(published);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether the store takes nothing, or has no room for what is to be stored.
    fn waits(&self) -> bool {
        let writer = self.broker.0.tables.writer();
        self.stores && (!self.broker.has_room(self.step_bytes()) || writer.check().is_err())
    }

    /// About what the next step submits: the message once, to retain it or for one who may have it kept,
    /// or for as many as do.
    fn step_bytes(&self) -> usize {
        let row = self.message.len() + limits::ROW_BYTES;
        let few = self.retains || !self.listed.matches.is_empty();
        let rows = if few { 1 } else { self.kept.len() };
        row * rows.clamp(1, rows_of_step(row)) + self.batch.bytes()
    }

    fn org(&self) -> Arc<Org> {
        self.org.clone().unwrap_or_else(|| self.broker.org(self.org_id))
    }

    /// Takes the place of what is retained, and finds all who get it.
    fn retain(&mut self) -> Result<(), StoreError> {
        let org = self.org();
        let order = org.order.lock();
        if !self.message.payload().is_empty() {
            self.broker.0.tables.writer().check()?;
        }
        (self.receipt, self.unretained) =
            self.broker.0.retained.change(self.org_id, &self.message, &self.by)?;
        drop(order);
        self.listed.begin(&org.tree.read(), self.message.topic(), self.from);
        Ok(())
    }

    /// Stores the message for some of those who have it kept, and with the last of them what goes
    /// with it.
    fn keep(&mut self) -> Result<(), StoreError> {
        if self.kept.is_empty() && self.batch.0.is_empty() {
            return Ok(());
        }
        let org = self.org();
        let (mut batch, mut row) = (Batch::default(), Vec::new());
        let _order = org.order.lock();
        // Before anything is numbered.
        self.broker.0.tables.writer().check()?;
        if !self.kept.is_empty() {
            self.message.put_row(&mut row);
        }
        for _ in 0..rows_of_step(row.len()) {
            let Some(found) = self.kept.pop() else { break };
            let delivery = found.delivery(&self.message);
            let offered = found.session.keep(&self.broker.0.tables, delivery, &row, &mut batch)?;
            self.crowded |= self.broker.note(offered);
        }
        if self.kept.is_empty() && self.is_last() {
            batch.0.append(&mut self.batch.0);
        }
        // It had room before anything was numbered.
        let receipt = self.broker.0.tables.submit_admitted(batch)?;
        self.receipt = std::mem::take(&mut self.receipt).and(receipt);
        Ok(())
    }
}

/// How many rows of so many bytes one step stores.
const fn rows_of_step(row: usize) -> usize {
    match limits::FAN_OUT_STEP_BYTES / (row + 1) {
        0 => 1,
        limits::FAN_OUT_STEP.. => limits::FAN_OUT_STEP,
        few => few,
    }
}
