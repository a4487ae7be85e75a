//! How far a webhook has got, as it is stored.

use std::time::Duration;

use base::{Timestamp, WebhookId, limits};
use rules::identity::WebhookStart;
use serde::{Deserialize, Serialize};
use store::rows::{decode, encode};
use store::{Batch, StoreError, Table, Tables};

use crate::webhooks::Answer;

/// What a webhook has done.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Which of its beginnings this is of ([`WebhookStart`]).
    pub epoch: u32,
    /// It has sent, or need not send, everything up to this number.
    pub cursor: u64,
    /// What failed went up to this number: it is tried again as it was.
    pub upto: Option<u64>,
    /// Deliveries that failed one after the other, since the last success.
    pub failures: u64,
    /// When the first of these did.
    pub failing_since: Option<Timestamp>,
    /// When the last delivery succeeded, as it is shown.
    pub last_success: Option<Timestamp>,
    /// The last one that did not.
    pub last_failure: Option<LastFailure>,
    /// Events behind this number were removed before they could be sent, which the receiver has
    /// yet to be told.
    pub missed_after: Option<u64>,
    /// How often that happened.
    pub missed: u64,
}

/// A delivery that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastFailure {
    /// When, as it is shown.
    pub at: Timestamp,
    /// What the receiver answered, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `status`, or why there was no answer.
    pub cause: String,
    /// The same in a sentence.
    pub message: String,
}

/// What keys begin with in [`Table::Meta`].
const PREFIX: &[u8] = b"webhook_progress/";

/// Where it is.
pub(super) fn key(id: WebhookId) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}

impl Progress {
    /// What is stored of a webhook.
    pub(super) fn read(tables: &Tables, id: WebhookId) -> Result<Option<Self>, StoreError> {
        let key = key(id);
        let row = tables.read(Table::Meta, &key)?;
        row.map(|row| decode(Table::Meta, &key, &row)).transpose()
    }

    /// Stores it. Nobody waits for that: what a crash loses is sent once more.
    pub(super) fn store(&self, tables: &Tables, id: WebhookId) {
        let mut batch = Batch::default();
        batch.put(Table::Meta, key(id), encode(self));
        if let Err(error) = tables.submit(batch) {
            store::report(&error, "how far a webhook has got was not stored");
        }
    }

    /// The same, unless the webhook was made to begin anew since.
    pub(super) fn begun_at(self, start: WebhookStart) -> Self {
        if self.epoch == start.epoch {
            return self;
        }
        Self {
            epoch: start.epoch,
            cursor: start.after,
            last_success: self.last_success,
            last_failure: self.last_failure,
            missed: self.missed,
            // Where it begins says nothing of what was missed before if it goes on from there.
            missed_after: self.missed_after.filter(|_| self.cursor == start.after),
            ..Self::default()
        }
    }

    /// Notes that everything up to a number was sent, at this time as it is shown.
    pub(super) fn succeed(&mut self, cursor: u64, shown: Timestamp) {
        self.cursor = cursor;
        self.upto = None;
        self.failures = 0;
        self.failing_since = None;
        self.last_success = Some(shown);
        self.missed_after = None;
    }

    /// Notes that a delivery up to a number failed; `now`: what is due goes by it.
    pub(super) fn fail(&mut self, answer: &Answer, upto: u64, now: Timestamp, shown: Timestamp) {
        self.upto = Some(upto);
        self.failures += 1;
        self.failing_since.get_or_insert(now);
        let (status, cause, message) = match answer {
            Answer::Taken(status) | Answer::Refused(status, _) => {
                (Some(*status), "status", format!("the receiver answered {status}"))
            }
            Answer::Failed(cause, why) => (None, cause.as_str(), why.clone()),
        };
        self.last_failure =
            Some(LastFailure { at: shown, status, cause: cause.to_owned(), message });
    }

    /// Whether it has failed for so long that it is switched off.
    pub(super) fn is_lost(&self, now: Timestamp) -> bool {
        let for_ms = self.failing_since.map_or(0, |since| now.millis_since(since));
        for_ms >= limits::WEBHOOK_FAILING_S_MAX * 1000
    }

    /// After which time it is tried again; `chance` is any number, `wanted` what the receiver asks
    /// for.
    pub(super) fn wait(&self, chance: u16, wanted: Option<Duration>) -> Duration {
        if let Some(wanted) = wanted {
            let least = Duration::from_secs(limits::WEBHOOK_RETRY_S);
            let most = Duration::from_secs(limits::WEBHOOK_RETRY_AFTER_S_MAX);
            return wanted.clamp(least, most);
        }
        let doubled = self.failures.saturating_sub(1).min(16) as u32;
        let seconds = limits::WEBHOOK_RETRY_S << doubled;
        let wait = Duration::from_secs(seconds.min(limits::WEBHOOK_RETRY_S_MAX));
        wait + wait * u32::from(chance) / (4 * u32::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(times: u64) -> Progress {
        Progress { failures: times, ..Progress::default() }
    }

    #[test]
    fn tries_come_less_and_less_often() {
        let check = |failures, chance, wanted: Option<u64>, expected_ms| {
            let wait = failed(failures).wait(chance, wanted.map(Duration::from_secs));
            assert_eq!(wait.as_millis(), expected_ms, "{failures} {chance} {wanted:?}");
        };
        check(1, 0, None, 1000);
        check(1, u16::MAX, None, 1250);
        check(2, 0, None, 2000);
        check(8, 0, None, 128_000);
        check(9, 0, None, 240_000);
        check(9, u16::MAX, None, 300_000);
        check(u64::MAX, u16::MAX, None, 300_000);
        check(9, 0, Some(7), 7000);
        check(1, 0, Some(0), 1000);
        check(1, 0, Some(u64::MAX), 3_600_000);
    }

    #[test]
    fn a_success_ends_what_failed_and_a_day_of_failures_the_webhook() {
        let start = Timestamp::from_millis(1_000_000);
        let after = |seconds: u64| start.plus_seconds(seconds);
        let mut progress = Progress::default();
        let refused = Answer::Refused(500, None);
        progress.fail(&refused, 7, start, start);
        progress.fail(&refused, 7, after(5), after(5));
        assert_eq!((progress.failures, progress.upto), (2, Some(7)));
        assert!(!progress.is_lost(after(24 * 3600 - 1)) && progress.is_lost(after(24 * 3600)));
        progress.succeed(7, after(6));
        assert_eq!((progress.failures, progress.upto, progress.cursor), (0, None, 7));
        assert!(!progress.is_lost(after(48 * 3600)));
        assert_eq!(progress.last_failure.and_then(|failure| failure.status), Some(500));
    }

    #[test]
    fn who_begins_anew_keeps_only_what_is_shown() {
        let mut before = Progress { missed: 2, cursor: 9, ..Progress::default() };
        before.fail(
            &Answer::Refused(500, None),
            12,
            Timestamp::from_millis(5),
            Timestamp::from_millis(6),
        );
        let anew = before.clone().begun_at(WebhookStart { after: 3, epoch: 1 });
        assert_eq!((anew.cursor, anew.epoch, anew.failures, anew.upto), (3, 1, 0, None));
        assert_eq!((anew.missed, &anew.last_failure), (2, &before.last_failure));
        assert_eq!(before.clone().begun_at(WebhookStart { after: 3, epoch: 0 }), before);
    }
}
