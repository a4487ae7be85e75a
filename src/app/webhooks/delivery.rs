//! One delivery: what is to be sent, by whose rights, and what comes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Failure, Timestamp, limits};
use bytes::Bytes;
use rules::directory::PrincipalId;
use rules::identity::{SwitchedOff, Webhook, WebhookOwner, WebhookStart};

use super::super::audit::Deed;
use super::super::sight::Sight;
use super::super::{Effects, Worker};
use super::{Job, Progress, Then};
use crate::events::{Actor, Filter, Scope, Seen, TypeFilter};
use crate::logging::PeerLog;
use crate::peer_log;
use crate::random::random;
use crate::webhooks::{Answer, Post, Secret, Target};

/// What is to be sent now.
struct Read {
    events: Vec<Arc<Seen>>,
    /// When these are sent, everything up to this number is.
    cursor: u64,
    /// Whether there is more now.
    more: bool,
}

/// The command in the trail of a webhook that the server switches off.
const SWITCHED_OFF: &str = "webhook.disabled";

/// The receiver wants no more.
const GONE: u16 = 410;

impl Job {
    /// Sends the next events, if there are any.
    pub(super) async fn deliver(self) {
        let mut progress = self.progress.clone();
        let read = match self.read(&mut progress).await {
            Ok(read) => read,
            Err(failure) => {
                // The server's own trouble, which is in its log: the receiver does nothing wrong.
                tracing::debug!(webhook = %self.webhook.id, %failure.message, "nothing was read");
                let after = Duration::from_secs(limits::WEBHOOK_RETRY_S);
                let again = Then::Retry { after, matters: false };
                self.app.webhooks.go_on(&self, self.progress.clone(), again);
                return;
            }
        };
        if read.events.is_empty() {
            // Nothing of what failed is left, if something did.
            (progress.cursor, progress.upto) = (read.cursor, None);
            let then = if read.more { Then::GoOn { matters: false } } else { Then::Wait };
            self.app.webhooks.go_on(&self, progress, then);
            return;
        }
        let begun = Instant::now();
        let answer = self.send(&read, &progress).await;
        self.app.webhooks.times.note(begun.elapsed());
        self.app.metrics.webhook_answered(&answer);
        match answer {
            Answer::Taken(_) => self.succeeded(progress, read.cursor),
            _ => self.failed(progress, read.cursor, &answer),
        }
    }

    /// The next events that the webhook wants and its owner may see now.
    async fn read(&self, progress: &mut Progress) -> Result<Read, Failure> {
        let webhook = &*self.webhook;
        let Some(access) = self.app.identity().webhook_access(webhook, self.app.clock.now()) else {
            // Who may see nothing misses nothing.
            return Ok(Read { events: Vec::new(), cursor: self.last, more: false });
        };
        let sight = Sight::of_access(access.into());
        let worker = Worker::Principal(webhook.org, principal(webhook.owner));
        let (after, most) = (progress.cursor, webhook.max_events as usize);
        let filter = filter_of(webhook);
        let mut news = self.app.events_after(after, &filter, &sight, worker, most).await?;
        if news.gone.is_some() && progress.missed_after.is_none() {
            progress.missed_after = Some(after);
            progress.missed += 1;
            let (org, name) = (webhook.org, &*webhook.name);
            tracing::warn!(%org, name, after, "a webhook missed events: they were removed");
        }
        let (mut cursor, mut more) = (news.next, news.more);
        if let Some(upto) = progress.upto
            && let Some(end) = news.events.iter().position(|event| event.number > upto)
        {
            news.events.truncate(end);
            (cursor, more) = (upto, true);
        }
        let mut bytes = 0;
        let too_much = |event: &Arc<Seen>| {
            bytes += event.text.len() + 1;
            bytes > limits::WEBHOOK_BODY_BYTES_MAX
        };
        if let Some(end) = news.events.iter().position(too_much)
            && let Some(last) = end.max(1).checked_sub(1).and_then(|last| news.events.get(last))
        {
            cursor = last.number;
            news.events.truncate(end.max(1));
        }
        Ok(Read { events: news.events, cursor, more })
    }

    async fn send(&self, read: &Read, progress: &Progress) -> Answer {
        let webhook = &*self.webhook;
        let number = read.events.first().map_or(0, |event| event.number);
        let last = read.events.last().map_or(0, |event| event.number);
        // They were looked at when the webhook was made.
        let (Some(target), Some(secret)) =
            (Target::parse(&webhook.url), Secret::parse(&webhook.secret))
        else {
            let why = "the URL or the secret can't be read".to_owned();
            return Answer::Failed(crate::webhooks::Cause::Address, why);
        };
        let post = Post {
            id: format!("{}-{number}-{last}", webhook.id),
            number,
            seconds: self.shown_now().as_millis().div_euclid(1000),
            body: body(webhook, &read.events, progress.missed_after),
        };
        self.app.webhooks.sender.post(&target, &secret, &post, self.place.clone()).await
    }

    fn shown_now(&self) -> Timestamp {
        self.app.clock.shown(self.app.clock.now())
    }

    fn succeeded(&self, mut progress: Progress, cursor: u64) {
        static LOG: PeerLog = PeerLog::new(5);
        let failures = progress.failures;
        progress.succeed(cursor, self.shown_now());
        self.app.webhooks.go_on(self, progress, Then::GoOn { matters: true });
        if failures > 0 {
            let (org, name) = (self.webhook.org, &*self.webhook.name);
            peer_log!(LOG, %org, name, failures, "a webhook is delivered again");
        }
    }

    fn failed(&self, mut progress: Progress, upto: u64, answer: &Answer) {
        static LOG: PeerLog = PeerLog::new(5);
        let now = self.app.clock.now();
        progress.fail(answer, upto, now, self.shown_now());
        let (status, wanted) = match answer {
            Answer::Refused(status, wanted) => (Some(*status), *wanted),
            _ => (None, None),
        };
        let why = progress.last_failure.as_ref().map(|last| last.message.clone());
        let why = why.unwrap_or_default();
        if progress.failures == 1 {
            let (org, name) = (self.webhook.org, &*self.webhook.name);
            peer_log!(LOG, %org, name, why, "a webhook fails, and is tried again");
        }
        // Without chance all wait equally long.
        let chance = random().map_or(0, u16::from_be_bytes);
        let wait = progress.wait(chance, wanted);
        let lost = progress.is_lost(now);
        let again = Then::Retry { after: wait, matters: true };
        if !self.app.webhooks.go_on(self, progress, again) {
            return;
        }
        if status == Some(GONE) {
            self.switch_off("the receiver answered 410: it wants no more".to_owned());
        } else if lost {
            self.switch_off(format!("it has failed for a day; the last time: {why}"));
        }
    }

    /// Switches the webhook off, which is in the trail.
    fn switch_off(&self, reason: String) {
        let turn = self.app.records.turn();
        let current = self.app.identity().webhook(self.webhook.id);
        let Some(current) = current.filter(|current| current.start == self.webhook.start) else {
            return;
        };
        let (org, name) = (current.org, current.name.clone());
        tracing::warn!(%org, name, reason, "a webhook is switched off");
        let now = self.app.clock.now();
        let after = self.app.webhook_state(current.id).progress.cursor;
        let at = self.app.clock.shown(now);
        let off = Webhook {
            enabled: false,
            switched_off: Some(SwitchedOff { at, reason }),
            start: WebhookStart { after, epoch: current.start.epoch + 1 },
            ..Webhook::clone(&current)
        };
        let deed = Deed { actor: Actor::server(), command: SWITCHED_OFF };
        self.app.apply(Effects::from(turn.put(off)).by(deed), now).detach();
    }
}

const fn principal(owner: WebhookOwner) -> PrincipalId {
    match owner {
        WebhookOwner::User(id) => PrincipalId::User(id),
        WebhookOwner::Application(id) => PrincipalId::Application(id),
    }
}

fn filter_of(webhook: &Webhook) -> Filter {
    let types = webhook.types.iter().filter_map(|text| TypeFilter::parse(text).ok());
    let scope = match webhook.include_sub_orgs {
        true => Scope::Within(webhook.org),
        false => Scope::One(webhook.org),
    };
    Filter { types: types.collect(), things: webhook.thing_keys.clone(), scope }
}

/// The JSON of a delivery.
fn body(webhook: &Webhook, events: &[Arc<Seen>], missed_after: Option<u64>) -> Bytes {
    let mut body = format!(r#"{{"webhook":"{}","#, webhook.id).into_bytes();
    if let Some(after) = missed_after {
        body.extend_from_slice(format!(r#""missed":true,"missedAfter":{after},"#).as_bytes());
    }
    body.extend_from_slice(br#""events":["#);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&event.text);
    }
    body.extend_from_slice(b"]}");
    body.into()
}
