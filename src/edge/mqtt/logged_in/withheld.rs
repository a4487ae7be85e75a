//! Publishes that can't be carried out now but may be later: over the rate, or while the store takes
//! nothing. A client of MQTT 5 is told so. An earlier one knows only the acknowledgement, which
//! would be a lie: its connection is not read until the publish is carried out, and closes without
//! the acknowledgement when that takes too long, so that the client sends it again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::mqtt::{QoS, Version, reason};
use base::{Code, Failure, Timestamp, limits};
use rules::directory::Session;
use store::Batch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{AckReason, LoggedIn};
use crate::broker::Publishing;
use crate::edge::mqtt::MqttServer;
use crate::edge::mqtt::client::{Closing, Done, Owed};
use crate::edge::mqtt::thing_command::{Begun, Outcome, ThingCommand};
use crate::edge::mqtt::topics::TopicWork;
use crate::random::random;
use crate::tr50::dispatch::{Caller, note_failed};

/// A command that could not be carried out, and the packet that it came in.
pub(super) struct Withheld {
    pub qos: QoS,
    pub pkid: u16,
    pub command: ThingCommand,
    pub failure: Failure,
    /// What is to be stored with it.
    pub id: Batch,
}

/// How long something is tried.
pub(in crate::edge::mqtt) struct Trial {
    until: Instant,
}

impl Trial {
    pub(in crate::edge::mqtt) fn new() -> Self {
        Self { until: Instant::now() + limits::WITHHELD_WAIT + spread() }
    }

    /// Waits until it may succeed; false when it was tried for long enough.
    pub(in crate::edge::mqtt) async fn wait(&self, failure: &Failure, now: Timestamp) -> bool {
        let now = now.as_millis();
        let pause = match failure.code {
            // Commands are counted by the second.
            Code::RATE_LIMITED => Duration::from_millis((1000 - now.rem_euclid(1000)) as u64),
            _ => limits::WITHHELD_POLL,
        };
        let over = Instant::now() + pause > self.until;
        tokio::time::sleep_until((Instant::now() + pause).min(self.until)).await;
        !over
    }
}

/// Whether a publish that failed so is worth another trial: what the server failed at, too, for
/// nothing is wrong with what was published.
pub(in crate::edge::mqtt) const fn may_succeed_later(failure: &Failure) -> bool {
    failure.is_temporary() || failure.code.0 == Code::INTERNAL.0
}

/// By how much longer a client waits, at random.
fn spread() -> Duration {
    let share = random::<2>().map_or(0, u16::from_be_bytes);
    limits::WITHHELD_SPREAD * u32::from(share) / u32::from(u16::MAX)
}

impl LoggedIn {
    /// Whether the acknowledgement is all that the client will know of a publish.
    pub(super) fn knows_only_acks(&self, qos: QoS) -> bool {
        qos != QoS::AtMostOnce && self.options.version != Version::V5
    }

    /// Takes what became of a command that was published.
    pub fn finish_command(
        &mut self,
        server: &Arc<MqttServer>,
        (qos, pkid): (QoS, u16),
        outcome: Outcome,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        match outcome {
            Outcome::Stored(code) => {
                self.acknowledge_later(server, qos, pkid, Some(code.into()), out, owed)
            }
            Outcome::Failed(command, failure)
                if self.knows_only_acks(qos) && may_succeed_later(&failure) =>
            {
                let id = Batch::default();
                self.withhold(server, Withheld { qos, pkid, command, failure, id }, owed);
                Ok(())
            }
            Outcome::Failed(command, failure) => {
                let code = self.judge(server, qos, &command, &failure);
                if qos == QoS::AtMostOnce {
                    return Ok(());
                }
                self.acknowledge_later(server, qos, pkid, Some(code), out, owed)
            }
        }
    }

    /// The answer to a command that failed, which is counted.
    pub(super) fn judge(
        &self,
        server: &MqttServer,
        qos: QoS,
        command: &ThingCommand,
        failure: &Failure,
    ) -> AckReason {
        note_failed(&server.app, &self.caller, command.name(), failure, server.app.clock.now());
        let (code, why) = match failure.code {
            Code::PERMISSION_DENIED | Code::WRONG_SESSION_KIND => {
                (reason::NOT_AUTHORIZED, "not_authorized")
            }
            Code::NOT_FOUND | Code::PARAMETER_MISSING => (reason::TOPIC_INVALID, "topic"),
            Code::PARAMETER_INVALID => (reason::PAYLOAD_FORMAT_INVALID, "payload"),
            Code::LIMIT_REACHED => (reason::QUOTA_EXCEEDED, "limit"),
            Code::RATE_LIMITED => (reason::QUOTA_EXCEEDED, "rate"),
            Code::BUSY | Code::STORE_UNAVAILABLE => (reason::QUOTA_EXCEEDED, "store"),
            Code::INTERNAL => (reason::UNSPECIFIED, "failure"),
            _ => (reason::IMPLEMENTATION_SPECIFIC, "other"),
        };
        server.app.metrics.publish_refused(qos, why);
        match failure.code {
            Code::LIMIT_REACHED | Code::RATE_LIMITED | Code::BUSY => {
                AckReason::quota(&failure.message)
            }
            _ => code.into(),
        }
    }

    /// Tries a command again when it may succeed; its acknowledgement is among those that wait.
    pub(super) fn withhold(&mut self, server: &MqttServer, withheld: Withheld, owed: &mut Owed) {
        server.app.metrics.publish_withheld();
        self.session.failures_kept().withhold(true);
        self.withheld.push_back(withheld);
        self.try_withheld(server, owed);
    }

    /// Tries the first of the commands that are withheld, if nothing else is waited for.
    pub fn try_withheld(&mut self, server: &MqttServer, owed: &mut Owed) {
        if owed.is_blocked() {
            return;
        }
        let Some(withheld) = self.withheld.pop_front() else { return };
        let (app, caller) = (server.app.clone(), self.caller.clone());
        let Withheld { qos, pkid, mut command, mut failure, id } = withheld;
        let (session, name) = (self.session.clone(), command.name());
        let work = async move {
            let trial = Trial::new();
            let code = loop {
                // Who is thrown out has nothing more to say.
                if !trial.wait(&failure, app.clock.now()).await || session.end().is_some() {
                    break None;
                }
                let outcome = match command.begin(&app, &caller, app.clock.now()) {
                    Begun::Done => Outcome::Stored(reason::SUCCESS),
                    Begun::Failed(command, failure) => Outcome::Failed(command, failure),
                    Begun::Later(judged) => judged.await,
                };
                (command, failure) = match outcome {
                    Outcome::Stored(code) => break Some(Ok(code)),
                    Outcome::Failed(command, failure) if !may_succeed_later(&failure) => {
                        break Some(Err((command, failure)));
                    }
                    Outcome::Failed(command, failure) => (command, failure),
                };
            };
            session.failures_kept().withhold(false);
            // Also when it failed: what is in memory is in the store then, and is taken back there.
            let stored = match app.broker.submit(id) {
                Ok(receipt) => receipt.await.is_ok(),
                Err(_) => false,
            };
            match code {
                Some(Ok(code)) => Outcome::Stored(if stored { code } else { reason::UNSPECIFIED }),
                Some(Err((command, failure))) => Outcome::Failed(command, failure),
                None => {
                    note_failed(&app, &caller, name, &failure, app.clock.now());
                    return Done::Lost { qos, pkid };
                }
            }
            .into_done(qos, pkid)
        };
        self.pause(owed, Done::Lost { qos, pkid }, work);
    }

    /// Publishes to many subscribers, or when the store has room; meanwhile the client waits.
    pub(super) fn publish_later(
        &mut self,
        publishing: Box<Publishing>,
        (qos, pkid): (QoS, u16),
        owed: &mut Owed,
    ) {
        let lost = TopicWork::Published { qos, pkid, done: None };
        // A client of MQTT 5 can be told, and QoS 0 promises nothing. The end of others is spread
        // when the message is lost.
        let wait = if self.knows_only_acks(qos) { limits::WITHHELD_WAIT } else { Duration::ZERO };
        let bytes = publishing.bytes();
        self.pause(owed, Done::Topics(lost), async move {
            let done = super::finished(publishing, wait).await;
            Done::Topics(TopicWork::Published { qos, pkid, done })
        });
        owed.note_blocked(bytes);
    }

    /// A publish was not carried out, and its client will know only that by the missing
    /// acknowledgement: the connection closes, but not together with those of all others.
    pub(super) fn lose(&mut self, owed: &mut Owed) -> Result<(), Closing> {
        if owed.is_blocked() {
            return Err(Closing::broken(reason::UNSPECIFIED));
        }
        self.pause(owed, Done::Closes, async {
            sleep(spread()).await;
            Done::Closes
        });
        Ok(())
    }

    /// Lets the client wait for this; `given_up`: what it comes to when the connection closes.
    fn pause(
        &mut self,
        owed: &mut Owed,
        given_up: Done,
        work: impl Future<Output = Done> + Send + 'static,
    ) {
        let paused = CancellationToken::new();
        self.paused = Some(paused.clone());
        owed.block(Box::pin(async move {
            tokio::select! {
                biased;
                done = work => done,
                () = paused.cancelled() => given_up,
            }
        }));
    }

    /// The same for what is carried out even if the connection closes.
    pub(super) fn pause_until(
        &mut self,
        owed: &mut Owed,
        work: impl Future<Output = Done> + Send + 'static,
    ) {
        self.paused = Some(CancellationToken::new());
        owed.block(Box::pin(work));
    }

    /// Whether the client waits for a publish that is withheld, or may take long.
    pub const fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Work is done: nothing is waited for.
    pub fn resume_reading(&mut self) {
        self.paused = None;
    }

    /// The connection closes.
    pub fn give_up(&self) {
        if let Some(paused) = &self.paused {
            paused.cancel();
        }
    }
}

/// Carries out the command of a will, which nobody sends again, if `may` still says so.
pub(in crate::edge::mqtt) async fn carry_out(
    server: &MqttServer,
    session: Arc<Session>,
    mut command: ThingCommand,
    may: impl Fn() -> bool,
) {
    let conn = *session.conn();
    let (caller, trial) = (Caller::new(Some(session), conn), Trial::new());
    while may() {
        let outcome = match command.begin(&server.app, &caller, server.app.clock.now()) {
            Begun::Done => return,
            Begun::Failed(command, failure) => Outcome::Failed(command, failure),
            Begun::Later(judged) => judged.await,
        };
        let Outcome::Failed(failed, failure) = outcome else { return };
        if !may_succeed_later(&failure) || !trial.wait(&failure, server.app.clock.now()).await {
            let now = server.app.clock.now();
            return note_failed(&server.app, &caller, failed.name(), &failure, now);
        }
        command = failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trial_comes_to_its_end() {
        let failure = |code| Failure::new(code, "");
        let now = Timestamp::default();
        let over = Trial { until: Instant::now() };
        assert!(!over.wait(&failure(Code::RATE_LIMITED), now).await);
        assert!(!over.wait(&failure(Code::BUSY), now).await);
        let before = Instant::now() + limits::WITHHELD_WAIT;
        let new = Trial::new();
        assert!(new.until >= before);
        assert!(new.until <= Instant::now() + limits::WITHHELD_WAIT + limits::WITHHELD_SPREAD);
        assert!(new.wait(&failure(Code::BUSY), now).await);
    }

    #[test]
    fn only_what_time_mends_is_tried_again() {
        let tried = |code| may_succeed_later(&Failure::new(code, ""));
        for code in [Code::RATE_LIMITED, Code::BUSY, Code::STORE_UNAVAILABLE, Code::INTERNAL] {
            assert!(tried(code), "{code:?}");
        }
        for code in [Code::PERMISSION_DENIED, Code::NOT_FOUND, Code::PARAMETER_INVALID] {
            assert!(!tried(code), "{code:?}");
        }
    }
}
