//! Methods in the fleet: some devices call `method.exec`, the others fetch their mail when a notice
//! comes, and acknowledge it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::device::outcome;
use super::report::{Board, Reason};
use crate::{ClientError, Connection, Incoming};

/// What the devices of one run share.
pub(super) struct Exchange {
    /// The first devices are callers; all others answer.
    pub callers: usize,
    /// How many devices there are.
    pub devices: usize,
    /// The first part of their keys.
    pub key_prefix: String,
    /// The time that the times in requests count from.
    pub epoch: Instant,
    /// Callers that have not come to their end.
    pub calling: AtomicUsize,
    /// Cancelled when all have: then the others need not answer any more.
    pub done: CancellationToken,
}

impl Exchange {
    /// Whether this device is a caller.
    pub(super) const fn calls(&self, number: usize) -> bool {
        number < self.callers
    }

    /// The request of a caller: every call goes to the next of the devices that answer, with the
    /// time at which it was made.
    pub(super) fn request(
        &self,
        caller: usize,
        id: u32,
        now: Instant,
        timeout: Duration,
    ) -> String {
        let answering = self.devices.saturating_sub(self.callers).max(1);
        let number = self.callers + (caller + id as usize * self.callers) % answering;
        let (key, sent_ns) = (&self.key_prefix, nanos(now - self.epoch));
        let wait_s = timeout.as_secs().max(1);
        format!(
            r#"{{"cmd":{{"command":"method.exec","params":{{"thingKey":"{key}{number}","method":"echo","params":{{"sentNs":{sent_ns}}},"ackTimeout":{wait_s}}}}}}}"#
        )
    }

    /// A caller has come to its end.
    pub(super) fn called(&self) {
        if self.calling.fetch_sub(1, AcqRel) == 1 {
            self.done.cancel();
        }
    }
}

/// Answers methods until all callers have come to their end, or the fleet stops.
pub(super) async fn answer(
    connection: &mut Connection,
    keep_alive_s: u16,
    exchange: &Exchange,
    (board, stop): (&Board, &CancellationToken),
) -> Result<(), ClientError> {
    // Three quarters of the keep-alive: in time even if the timer and the network are slow.
    let ping_every = Duration::from_secs(keep_alive_s.into()) * 3 / 4;
    let mut answering = Answering { exchange, board, next_id: 0, asked: HashMap::new() };
    let (mut done, mut stopped) = (pin!(exchange.done.cancelled()), pin!(stop.cancelled()));
    let mut ping = pin!(sleep_until(Instant::now() + ping_every));
    let mut requests = Vec::new();
    loop {
        tokio::select! {
            biased;
            exchanged = connection.exchange() => {
                exchanged?;
                let now = Instant::now();
                while let Some(incoming) = connection.next_incoming()? {
                    match incoming {
                        Incoming::Notice => requests.push(answering.check(now)),
                        Incoming::Reply { id: Some(id), text } => {
                            answering.replied(id, text, &mut requests);
                        }
                        Incoming::Reply { .. } | Incoming::Other => {}
                    }
                }
                for (id, request) in requests.drain(..) {
                    connection.queue(id, request.as_bytes())?;
                }
            }
            () = ping.as_mut(), if keep_alive_s > 0 => {
                connection.queue_ping();
                ping.as_mut().reset(Instant::now() + ping_every);
            }
            () = done.as_mut() => return Ok(()),
            () = stopped.as_mut() => return Ok(()),
        }
    }
}

/// A device that answers, without its connection.
struct Answering<'a> {
    exchange: &'a Exchange,
    board: &'a Board,
    next_id: u32,
    /// Checks on their way, with the times of the notices that caused them.
    asked: HashMap<u32, Instant>,
}

/// What of a reply to `mailbox.check` is of interest.
#[derive(Deserialize)]
struct Checked<'a> {
    #[serde(borrow)]
    cmd: CheckedCommand<'a>,
}

#[derive(Deserialize)]
struct CheckedCommand<'a> {
    #[serde(borrow, default)]
    params: Option<CheckedParams<'a>>,
}

#[derive(Deserialize)]
struct CheckedParams<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    id: &'a str,
    #[serde(borrow)]
    params: Method<'a>,
}

#[derive(Deserialize)]
struct Method<'a> {
    #[serde(borrow)]
    params: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Echo {
    sent_ns: u64,
}

impl Answering<'_> {
    /// The request that fetches the mail of a notice.
    fn check(&mut self, now: Instant) -> (u32, String) {
        let id = self.take_id();
        self.asked.insert(id, now);
        (id, r#"{"cmd":{"command":"mailbox.check","params":{"autoComplete":false}}}"#.to_owned())
    }

    /// Takes a reply: for each mail in it, the requests that tell of work and of its end, with what
    /// was asked as the answer.
    fn replied(&mut self, id: u32, text: &[u8], requests: &mut Vec<(u32, String)>) {
        let noticed = self.asked.remove(&id);
        if let Err(reason) = outcome(text) {
            return self.board.count_failure(reason);
        }
        let Some(noticed) = noticed else { return };
        let Ok(Checked { cmd: CheckedCommand { params: Some(params) } }) =
            serde_json::from_slice(text)
        else {
            let reason = "a reply to mailbox.check without messages";
            return self.board.count_failure(Reason::own(reason));
        };
        for Message { id, params: Method { params } } in params.messages {
            if let Ok(Echo { sent_ns }) = serde_json::from_str(params.get()) {
                let arrived = nanos(noticed - self.exchange.epoch);
                // One notice can bring two mails, of which the second was sent after it.
                let latency = Duration::from_nanos(arrived.saturating_sub(sent_ns));
                self.board.notice.record(latency);
                self.board.mails.fetch_add(1, Relaxed);
            }
            let update = format!(
                r#"{{"cmd":{{"command":"mailbox.update","params":{{"id":"{id}","msg":"echoing"}}}}}}"#
            );
            let ack = format!(
                r#"{{"cmd":{{"command":"mailbox.ack","params":{{"id":"{id}","errorCode":0,"params":{params}}}}}}}"#
            );
            requests.push((self.take_id(), update));
            requests.push((self.take_id(), ack));
        }
    }

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        Exchange {
            callers: 2,
            devices: 5,
            key_prefix: "fleet-".to_owned(),
            epoch: Instant::now(),
            calling: AtomicUsize::new(2),
            done: CancellationToken::new(),
        }
    }

    #[test]
    fn callers_ask_the_others_in_turn() {
        let exchange = exchange();
        let key_of = |caller, id| {
            let request = exchange.request(caller, id, exchange.epoch, Duration::from_secs(10));
            let request: serde_json::Value = serde_json::from_str(&request).expect("JSON");
            request["cmd"]["params"]["thingKey"].as_str().expect("a key").to_owned()
        };
        let keys: Vec<_> = (0..3).flat_map(|id| [key_of(0, id), key_of(1, id)]).collect();
        assert_eq!(keys, ["fleet-2", "fleet-3", "fleet-4", "fleet-2", "fleet-3", "fleet-4"]);
        exchange.called();
        assert!(!exchange.done.is_cancelled());
        exchange.called();
        assert!(exchange.done.is_cancelled());
    }

    #[test]
    fn a_device_answers_each_mail_with_what_it_was_asked() {
        let (exchange, board) = (exchange(), Board::default());
        let mut answering =
            Answering { exchange: &exchange, board: &board, next_id: 0, asked: HashMap::new() };
        let (id, _) = answering.check(exchange.epoch + Duration::from_millis(3));
        let reply = br#"{"cmd":{"success":true,"params":{"messages":[{"id":"a1","thingKey":"x",
            "command":"method.exec","params":{"method":"echo","params":{"sentNs":1000000}}}]}}}"#;
        let mut requests = Vec::new();
        answering.replied(id, reply, &mut requests);
        let texts: Vec<_> = requests.iter().map(|(_, text)| text.as_str()).collect();
        let update = r#"{"cmd":{"command":"mailbox.update","params":{"id":"a1","msg":"echoing"}}}"#;
        let ack = r#"{"cmd":{"command":"mailbox.ack","params":{"id":"a1","errorCode":0,"params":{"sentNs":1000000}}}}"#;
        assert_eq!(texts, [update, ack]);
        assert_eq!(board.notice.max(), Duration::from_millis(2));
        // An answer to something else.
        answering.replied(requests[0].0, br#"{"cmd":{"success":true}}"#, &mut requests);
        assert_eq!(requests.len(), 2);
        assert_eq!(board.failed.load(Relaxed), 0);
        // Whatever the device could not do is a failure with its reason.
        let refused =
            br#"{"cmd":{"success":false,"errorCodes":[-1],"errorMessages":["as you wish"]}}"#;
        let (id, _) = answering.check(exchange.epoch);
        for id in [id, requests[1].0] {
            answering.replied(id, refused, &mut requests);
        }
        let report = board.report(Duration::from_secs(1));
        assert!(report.to_string().contains("failure      2 × [-1] as you wish"), "{report}");
    }
}
