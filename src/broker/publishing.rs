//! The way of a message to its subscribers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{OrgId, topic};
use mqtt::QoS;
use store::{Batch, Receipt, StoreError};

use super::message::Message;
use super::session::{Offered, Session};
use super::tree::Match;
use super::{Broker, Org, limits};

/// A message on its way.
pub struct Publishing {
    broker: Broker,
    org_id: OrgId,
    org: Option<Arc<Org>>,
    message: Arc<Message>,
    /// Those that get it, the first last.
    matches: Vec<Match>,
    /// Those of them that have it kept.
    kept: Vec<Match>,
    /// What goes to the store with it.
    batch: Batch,
    retained: bool,
    matched: bool,
    crowded: bool,
    receipt: Receipt,
}

/// What became of a message.
pub struct Published {
    /// Resolves when everything of it that is to be kept is durable.
    pub receipt: Receipt,
    /// Whether somebody subscribed to its topic.
    pub matched: bool,
    /// Whether it could be retained, if that was asked for.
    pub retained: bool,
    /// Whether a subscriber has much waiting: others should have their turn before the next one.
    pub crowded: bool,
}

impl Broker {
    /// Begins to publish to the subscribers of an organisation; none if the topic is not one that
    /// can be published to. `from`: the publisher's session, for No Local; `batch`: what goes to the
    /// store with the message, in one with it.
    pub fn publish(
        &self,
        org: OrgId,
        message: Arc<Message>,
        from: Option<&Session>,
        batch: Batch,
    ) -> Option<Publishing> {
        let name = message.topic();
        if !topic::valid_topic(name) || name.starts_with('$') {
            return None;
        }
        let found = self.0.orgs.get(&org).map(|found| found.clone());
        let mut matches = Vec::new();
        if let Some(found) = &found {
            found.tree.read().collect(name, from.map(Session::number), &mut matches);
        }
        Some(Publishing {
            broker: self.clone(),
            org_id: org,
            org: found,
            matched: !matches.is_empty(),
            message,
            matches,
            kept: Vec::new(),
            batch,
            retained: true,
            crowded: false,
            receipt: Receipt::nothing(),
        })
    }

    /// Publishes where nobody waits for it; the caller may be on any thread of the runtime.
    pub fn publish_detached(&self, org: OrgId, message: Arc<Message>) {
        let Some(mut publishing) = self.publish(org, message, None, Batch::default()) else {
            return;
        };
        match publishing.run() {
            Ok(None) => {
                tokio::spawn(async move {
                    if let Err(error) = publishing.finish().await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a message was not kept for all subscribers");
                    }
                });
            }
            Ok(Some(_)) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a message was not kept for all subscribers");
            }
        }
    }
}

impl Publishing {
    /// Hands the message to some subscribers; none if there are more. Those that are connected come
    /// first.
    ///
    /// # Errors
    /// The store takes no more: who has the message kept may not get it.
    pub fn run(&mut self) -> Result<Option<Published>, StoreError> {
        let mut steps = limits::FAN_OUT_STEP;
        while let Some(found) = self.matches.pop() {
            if found.qos.min(self.message.qos) != QoS::AtMostOnce && found.session.is_kept() {
                self.kept.push(found);
                continue;
            }
            let offered = found.session.offer(found.delivery(&self.message));
            self.note(offered);
            steps -= 1;
            if steps == 0 && !self.matches.is_empty() {
                return Ok(None);
            }
        }
        self.keep()?;
        if !self.kept.is_empty() {
            return Ok(None);
        }
        Ok(Some(Published {
            receipt: std::mem::take(&mut self.receipt),
            matched: self.matched,
            retained: self.retained,
            crowded: self.crowded,
        }))
    }

    /// Hands the message to all, and gives others their turn in between.
    ///
    /// # Errors
    /// As [`Publishing::run`].
    pub async fn finish(mut self) -> Result<Published, StoreError> {
        loop {
            if let Some(published) = self.run()? {
                return Ok(published);
            }
            tokio::task::yield_now().await;
        }
    }

    fn note(&mut self, offered: Offered) {
        match offered {
            Offered::Taken { crowded } => self.crowded |= crowded,
            Offered::Dropped => {
                self.broker.0.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Offered::Nobody => {}
        }
    }

    /// Stores the message for some of those who have it kept, and with the last of them what is
    /// retained and what goes with it.
    fn keep(&mut self) -> Result<(), StoreError> {
        if self.kept.is_empty() && !self.message.retain && self.batch.0.is_empty() {
            return Ok(());
        }
        let org = match &self.org {
            Some(org) => org.clone(),
            None => self.broker.org(self.org_id),
        };
        let (mut batch, mut row) = (Batch::default(), Vec::new());
        let _order = org.order.lock();
        if !self.kept.is_empty() {
            self.message.put_row(&mut row);
        }
        for _ in 0..limits::FAN_OUT_STEP {
            let Some(found) = self.kept.pop() else { break };
            let delivery = found.delivery(&self.message);
            let offered = found.session.keep(&self.broker.0.tables, delivery, &row, &mut batch)?;
            self.note(offered);
        }
        if self.kept.is_empty() {
            if self.message.retain {
                let retained = &self.broker.0.retained;
                self.retained = retained.change(self.org_id, &self.message, &mut batch)?.is_ok();
            }
            batch.0.append(&mut self.batch.0);
        }
        let receipt = self.broker.0.tables.submit(batch)?;
        self.receipt = std::mem::take(&mut self.receipt).and(receipt);
        Ok(())
    }
}
