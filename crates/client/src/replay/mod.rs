//! Sends what a thing once sent to a test server, and compares what comes back with what came back
//! then: for recordings of `thing.trace`.

mod compare;
mod http;
mod lines;
mod mqtt;
mod recording;

use std::collections::BTreeMap;
use std::time::Duration;

use base::Protocol;
use tokio::time::{Instant, sleep_until, timeout};

pub use recording::{BadRecording, Recording};

use super::{ClientError, Target, Url};
use recording::Recorded;

/// How a recording is sent.
#[derive(Clone, Copy, Debug)]
pub struct ReplayOptions {
    /// How many times as fast as then; 0: without any pause.
    pub speed: f64,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

/// One line of what happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The client's frame was sent.
    Sent(String),
    /// The same came as then.
    Same(String),
    /// Something else came: then, and now.
    Differs(String, String),
    /// What came then did not come.
    Missing(String),
    /// This did not come then.
    Extra(String),
    /// A frame was not sent, for this reason.
    Skipped(String),
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Replayed {
    /// Frames that were sent.
    pub sent: usize,
    /// Answers that were as then.
    pub same: usize,
    /// Answers that were others.
    pub differing: usize,
    /// Answers that did not come.
    pub missing: usize,
    /// Answers that nobody expected.
    pub extra: usize,
}

/// An answer, as it is compared.
struct Answer {
    /// Which answers are the same one: its packet and topic.
    kind: String,
    /// All of it, for people and for the comparison.
    text: String,
}

/// A connection on which frames are sent again.
enum Wire {
    Mqtt(mqtt::Wire),
    Lines(lines::Wire),
    Http(http::Wire),
}

/// The kinds of doors whose frames are alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Mqtt,
    Lines,
    Http,
}

const fn family(protocol: Protocol) -> Family {
    match protocol {
        Protocol::Mqtt | Protocol::Mqtts | Protocol::Ws | Protocol::Wss => Family::Mqtt,
        Protocol::Tcp | Protocol::Tcps => Family::Lines,
        Protocol::Http | Protocol::Https => Family::Http,
    }
}

/// Sends the client's frames of those doors that the URL's protocol is like, in their order, and
/// tells each step.
///
/// # Errors
///
/// The server can't be reached, refuses the login, or closes the connection before the client did.
pub async fn replay(
    recording: &Recording,
    (target, url): (&Target, &Url),
    options: ReplayOptions,
    mut tell: impl FnMut(Step),
) -> Result<Replayed, ClientError> {
    let mut replay = Replay {
        target,
        url,
        options,
        wires: BTreeMap::new(),
        done: Replayed::default(),
        patience: options.timeout,
    };
    let begun = Instant::now();
    let first = recording.frames.first().map_or(0, |frame| frame.ts_ms);
    let wanted = family(url.protocol);
    for frame in recording.frames.iter().filter(|frame| family(frame.door) == wanted) {
        if options.speed > 0.0 && !frame.outgoing {
            let after_ms = frame.ts_ms.saturating_sub(first) as f64 / options.speed;
            sleep_until(begun + Duration::from_millis(after_ms as u64)).await;
        }
        replay.step(frame, &mut tell).await?;
    }
    replay.finish(&mut tell).await;
    Ok(replay.done)
}

struct Replay<'a> {
    target: &'a Target,
    url: &'a Url,
    options: ReplayOptions,
    wires: BTreeMap<u64, (Wire, Vec<Answer>)>,
    done: Replayed,
    /// How long the next answer is waited for: less once one has not come.
    patience: Duration,
}

impl Replay<'_> {
    async fn step(
        &mut self,
        frame: &Recorded,
        tell: &mut impl FnMut(Step),
    ) -> Result<(), ClientError> {
        if !self.wires.contains_key(&frame.connection) {
            if frame.outgoing {
                return Ok(());
            }
            let opened = Wire::open(self.target, self.url, frame);
            let wire = timeout(self.options.timeout, opened).await;
            let wire = wire.unwrap_or(Err(ClientError::Timeout(self.options.timeout)))?;
            self.wires.insert(frame.connection, (wire, Vec::new()));
        }
        let Some((wire, waiting)) = self.wires.get_mut(&frame.connection) else { return Ok(()) };
        if frame.outgoing {
            return self.expect(frame, tell).await;
        }
        let sent = timeout(self.options.timeout, wire.send(self.url, frame, waiting)).await;
        match sent.unwrap_or(Err(ClientError::Timeout(self.options.timeout)))? {
            Ok(text) => {
                self.done.sent += 1;
                tell(Step::Sent(text));
            }
            Err(why) => tell(Step::Skipped(why)),
        }
        Ok(())
    }

    /// Waits for what came then.
    async fn expect(
        &mut self,
        frame: &Recorded,
        tell: &mut impl FnMut(Step),
    ) -> Result<(), ClientError> {
        let Some((wire, waiting)) = self.wires.get_mut(&frame.connection) else { return Ok(()) };
        let Some(then) = wire.read(frame) else { return Ok(()) };
        let until = Instant::now() + self.patience;
        let found = loop {
            if let Some(at) = waiting.iter().position(|answer| answer.kind == then.kind) {
                break Some(waiting.remove(at));
            }
            let more = tokio::time::timeout_at(until, wire.receive()).await;
            match more {
                Ok(Ok(answer)) => waiting.push(answer),
                // It has closed, as it may have done then.
                Ok(Err(ClientError::Closed | ClientError::Broken(_))) | Err(_) => break None,
                Ok(Err(error)) => return Err(error),
            }
        };
        match found {
            None => {
                self.patience = self.options.timeout / 10;
                self.done.missing += 1;
                tell(Step::Missing(then.text));
            }
            Some(now) if compare::same_texts(&then.text, &now.text) => {
                self.patience = self.options.timeout;
                self.done.same += 1;
                tell(Step::Same(now.text));
            }
            Some(now) => {
                self.patience = self.options.timeout;
                self.done.differing += 1;
                tell(Step::Differs(then.text, now.text));
            }
        }
        Ok(())
    }

    async fn finish(&mut self, tell: &mut impl FnMut(Step)) {
        for (mut wire, mut waiting) in std::mem::take(&mut self.wires).into_values() {
            let settle = Instant::now() + self.options.timeout / 20;
            while let Ok(Ok(answer)) = tokio::time::timeout_at(settle, wire.receive()).await {
                waiting.push(answer);
            }
            for answer in waiting {
                self.done.extra += 1;
                tell(Step::Extra(answer.text));
            }
        }
    }
}

impl Wire {
    async fn open(target: &Target, url: &Url, first: &Recorded) -> Result<Self, ClientError> {
        Ok(match family(url.protocol) {
            Family::Mqtt => Self::Mqtt(mqtt::Wire::open(target, url, first).await?),
            Family::Lines => Self::Lines(lines::Wire::open(target, url, first).await?),
            Family::Http => Self::Http(http::Wire::open(target, url).await?),
        })
    }

    /// Sends a frame; what was sent, or why it was not.
    async fn send(
        &mut self,
        url: &Url,
        frame: &Recorded,
        waiting: &mut Vec<Answer>,
    ) -> Result<Result<String, String>, ClientError> {
        match self {
            Self::Mqtt(wire) => wire.send(url, frame).await,
            Self::Lines(wire) => wire.send(url, frame).await.map(Ok),
            Self::Http(wire) => wire.send(url, frame, waiting).await,
        }
    }

    /// The next answer. Cancel safe.
    async fn receive(&mut self) -> Result<Answer, ClientError> {
        match self {
            Self::Mqtt(wire) => wire.receive().await,
            Self::Lines(wire) => wire.receive().await,
            // It comes with its request.
            Self::Http(_) => Err(ClientError::Closed),
        }
    }

    /// An answer of then.
    fn read(&self, frame: &Recorded) -> Option<Answer> {
        match self {
            Self::Mqtt(wire) => mqtt::read(&frame.bytes, wire.version()),
            Self::Lines(_) => Some(lines::read(&frame.bytes)),
            Self::Http(_) => http::read(&frame.bytes),
        }
    }
}
