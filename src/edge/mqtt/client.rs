//! One MQTT client as a state machine: CONNECT first, then every other packet.
//!
//! It has no socket and no clock: packets and `now` come in, bytes go out. What takes time is kept
//! as pending work: some has to be finished before the next packet is read, some replies come
//! later.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use ::mqtt::packet::Ack;
use ::mqtt::{Frame, Malformed, Packet, QoS, Version, decode, encode, reason};
use base::{ConnInfo, Failure, STRANGERS, Timestamp, limits};
use rules::directory::{Outbox, Reason};

use super::MqttServer;
use super::connect::{self, Accepted, Login, Unread};
use super::logged_in::{AckReason, LoggedIn};
use super::promise::Promise;
use super::reply::{Reply, ReplyTo};
use super::thing_command::Outcome;
use super::topics::TopicWork;
use super::traced;
use crate::app::{Account, Asker, Cores, Lease, LoginCause, Payer, asker, stranger};
use crate::edge::driver::{LastReplies, Pass, Peer};
use crate::edge::pending::{Held, Pending};
use crate::edge::traced::Traced;
use crate::edge::wrong_door::Met;
use crate::tr50;

/// Why a connection closes, and the reason code for the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closing {
    /// Why the session ends.
    pub reason: Reason,
    /// The reason code of a DISCONNECT from the server (MQTT 5); none when there is nothing to say.
    pub code: Option<u8>,
    /// Whether the will is published.
    pub will: bool,
}

impl Closing {
    /// The connection is gone.
    pub const fn lost() -> Self {
        Self { reason: Reason::ConnectionLost, code: None, will: true }
    }

    /// The client broke the protocol.
    pub const fn broken(code: u8) -> Self {
        Self { reason: Reason::ProtocolError, code: Some(code), will: true }
    }

    /// The session ended for another reason.
    pub const fn ended(reason: Reason) -> Self {
        let code = match reason {
            Reason::Replaced => reason::TAKEN_OVER,
            Reason::KeepAlive => reason::KEEP_ALIVE_TIMEOUT,
            Reason::ServerStopped => reason::SHUTTING_DOWN,
            Reason::MadeWay => reason::QUOTA_EXCEEDED,
            Reason::LoggedOut => reason::SUCCESS,
            _ => reason::ADMINISTRATIVE_ACTION,
        };
        Self { reason, code: Some(code), will: !matches!(reason, Reason::LoggedOut) }
    }
}

/// What comes of work, and of replies that take time.
pub enum Done {
    /// A login: the CONNACK to send, and the client's state if it is accepted.
    Login(Box<Accepted>),
    /// Topics of the broker.
    Topics(TopicWork),
    /// The reply to a request.
    Reply(ReplyTo, tr50::Reply),
    /// A long request was inflated.
    Inflated(ReplyTo, Result<Vec<u8>, Failure>),
    /// A message was stored, or not, and is acknowledged.
    Stored {
        /// The quality of service of the PUBLISH.
        qos: QoS,
        /// Its packet id.
        pkid: u16,
        /// None: it was not stored, and may be sent again.
        reason: Option<AckReason>,
    },
    /// That the client has taken a message with QoS 2 is stored: it is released.
    Taken {
        /// The packet id.
        pkid: u16,
    },
    /// That the client has released a message with QoS 2 is stored: it is complete.
    Released {
        /// The packet id.
        pkid: u16,
    },
    /// The store may have room now for a PUBREC, or a PUBREL (`releases`), that came before.
    Again {
        /// The packet.
        ack: Ack,
        /// Whether it is a PUBREL.
        releases: bool,
    },
    /// A command that was published to a topic.
    Command {
        /// The quality of service of the PUBLISH.
        qos: QoS,
        /// Its packet id.
        pkid: u16,
        /// What became of it.
        outcome: Outcome,
    },
    /// A publish was withheld for too long.
    Lost {
        /// The quality of service of the PUBLISH.
        qos: QoS,
        /// Its packet id.
        pkid: u16,
    },
    /// The connection closes, as all of those whose publishes were lost.
    Closes,
}

impl Held for Done {
    fn bytes(&self) -> usize {
        match self {
            Self::Reply(_, reply) => reply.bytes(),
            _ => 0,
        }
    }
}

/// What the connection of a client has still to send.
pub type Owed = Pending<Promise>;

/// A client, before and after its login.
pub struct Client {
    server: Arc<MqttServer>,
    info: ConnInfo,
    full: bool,
    version: Version,
    outbox: Arc<Outbox>,
    logged_in: Option<Box<LoggedIn>>,
    /// Bytes of the next packets that were looked at already while one before them waits.
    ahead: usize,
    traced: Traced,
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(server: Arc<MqttServer>, info: ConnInfo, full: bool) -> Self {
        let outbox = Arc::new(Outbox::new(true));
        let (version, traced) = (Version::V311, Traced::default());
        Self { server, info, full, version, outbox, logged_in: None, ahead: 0, traced }
    }

    /// Bytes of the largest frame that is accepted. Before the login it is small: there is no
    /// reason to buffer a megabyte for a stranger.
    fn frame_max(&self) -> usize {
        let max = self.server.app.config.limits.max_frame_bytes;
        if self.logged_in.is_some() { max } else { max.min(limits::CONNECT_BYTES_MAX) }
    }

    /// Closes the connection of who begins with anything but a CONNECT ([MQTT-3.1.0-1]). What only
    /// looks like a packet could be waited for.
    fn check_door(&self, bytes: &[u8]) -> Result<(), Closing> {
        match (Met::of(bytes), bytes.first()) {
            (Some(Met::Mqtt), _) | (_, None) => Ok(()),
            (Some(met), _) => {
                self.server.log_wrong_door(&self.info, met);
                Err(Closing::lost())
            }
            // A CONNECT with flags: the codec says what is wrong.
            (None, Some(first)) if first >> 4 == 1 => Ok(()),
            (None, Some(first)) => {
                self.server.log_no_connect(&self.info, *first);
                Err(Closing::lost())
            }
        }
    }

    /// Whether the frames of this connection are kept.
    #[inline]
    fn is_traced(&mut self) -> bool {
        let session = self.logged_in.as_ref().map(|logged_in| &**logged_in.session());
        self.traced.check(&self.server.app, session, &self.info)
    }

    /// Keeps a frame that came.
    #[cold]
    fn note_in(&mut self, frame: &[u8]) {
        let (app, mut version) = (&self.server.app, self.version);
        if self.logged_in.is_none()
            && let Ok(Some((Packet::Connect(connect), _))) = decode(frame, version, usize::MAX)
        {
            version = connect.version;
            let token = std::str::from_utf8(connect.password.unwrap_or_default());
            let name = connect.username.unwrap_or_default();
            self.traced.begin(app, (name, token.unwrap_or_default()), &self.info);
            self.traced.hold(app, frame);
        }
        self.traced.record(app, false, frame, |masker, bytes| traced::mask(version, masker, bytes));
    }

    /// Deals with a frame.
    #[inline]
    fn frame(
        &mut self,
        frame: &Frame<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        if let Some(logged_in) = &mut self.logged_in {
            match frame.publish(self.version) {
                Ok(Some(publish)) => {
                    self.outbox.counters().add_message_in();
                    return logged_in.publish(&self.server, &publish, now, out, owed);
                }
                Ok(None) => {}
                Err(malformed) => return Err(self.refuse(malformed, out)),
            }
        }
        match frame.packet(self.version) {
            Ok(packet) => self.packet(packet, now, out, owed),
            Err(malformed) => Err(self.refuse(malformed, out)),
        }
    }

    /// Deals with a packet that is no PUBLISH of a client that is logged in.
    fn packet(
        &mut self,
        packet: Packet<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        match (&mut self.logged_in, packet) {
            (Some(logged_in), packet) => logged_in.receive(&self.server, packet, out, owed),
            (None, Packet::Connect(mut packet)) => {
                if self.info.certified {
                    // Who is named by a certificate may leave these out.
                    packet.username = packet.username.or(Some(""));
                    packet.password = packet.password.or(Some(b""));
                }
                self.version = packet.version;
                let said = (packet.username.unwrap_or_default(), packet.client_id);
                if self.full {
                    let cause = LoginCause::Full;
                    self.server.note_unread(&self.info, said, packet.version, cause);
                    connect::refuse_full(&packet, out);
                    return Err(Closing::refused());
                }
                match Login::read(&packet, &self.server, self.info, &self.outbox) {
                    Ok(login) => {
                        owed.block(Box::pin(login.run(self.server.clone(), now)));
                        Ok(())
                    }
                    Err(Unread { code, cause }) => {
                        self.server.note_unread(&self.info, said, packet.version, cause);
                        connect::refuse(packet.version, code, None, out);
                        Err(Closing::refused())
                    }
                }
            }
            // [MQTT-3.1.0-1]: the first packet is CONNECT.
            (None, _) => Err(Closing::lost()),
        }
    }

    /// Sends what others have put into the connection, and obeys the order to close it.
    fn send_pushed(&mut self, room: bool, out: &mut Vec<u8>) -> Result<(), Closing> {
        if !self.outbox.is_filled() {
            return Ok(());
        }
        let (pushes, close) = self.outbox.take(room);
        if let Some(logged_in) = &mut self.logged_in {
            for push in pushes {
                logged_in.send(&self.server, push, out);
            }
            logged_in.follow_access();
            if !logged_in.is_at_work() {
                for question in self.outbox.take_questions() {
                    question.answer(logged_in.details(&self.server));
                }
            }
        }
        close.map_or(Ok(()), |reason| Err(Closing::ended(reason)))
    }

    /// Answers to bytes that are no MQTT.
    fn refuse(&self, malformed: Malformed, out: &mut Vec<u8>) -> Closing {
        self.server.log_broken(&self.info, &malformed);
        if self.logged_in.is_some() {
            return Closing::broken(malformed.reason());
        }
        match malformed.connack() {
            Some((version, code)) => {
                let cause = LoginCause::Malformed;
                self.server.note_unread(&self.info, ("", ""), version, cause);
                connect::refuse(version, code, None, out);
                Closing::refused()
            }
            None => Closing::lost(),
        }
    }
}

impl Peer for Client {
    type Done = Done;
    type Reply = Promise;
    type Closing = Closing;

    fn now(&self) -> Timestamp {
        self.server.app.clock.now()
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<usize, Closing> {
        if self.logged_in.is_none() && !owed.is_blocked() {
            self.check_door(bytes)?;
        }
        let mut used = 0;
        let traced =
            self.is_traced() || (self.logged_in.is_none() && self.server.app.recorder.is_on());
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty())
            && out.len() < limits::PASS_WRITE_BYTES
            && !owed.is_blocked()
        {
            match Frame::find(rest, self.version, self.frame_max()) {
                Ok(Some(frame)) => {
                    if traced {
                        self.note_in(rest.get(..frame.length).unwrap_or_default());
                    }
                    let answered = used < self.ahead;
                    used += frame.length;
                    if !(answered && matches!(frame.packet(self.version), Ok(Packet::PingReq))) {
                        self.frame(&frame, now, out, owed)?;
                    }
                }
                Ok(None) => break,
                Err(malformed) => {
                    if traced {
                        self.note_in(rest.get(..limits::READ_BYTES).unwrap_or(rest));
                    }
                    return Err(self.refuse(malformed, out));
                }
            }
        }
        self.ahead = self.ahead.saturating_sub(used);
        Ok(used)
    }

    fn finish(&mut self, done: Done, out: &mut Vec<u8>, owed: &mut Owed) -> Result<(), Closing> {
        if let Some(logged_in) = self.logged_in.as_mut().filter(|_| !owed.is_blocked()) {
            logged_in.resume_reading();
        }
        match (done, &mut self.logged_in) {
            (Done::Login(accepted), _) => {
                let Accepted { connack, logged_in } = *accepted;
                out.extend_from_slice(&connack);
                let logged_in = self.logged_in.insert(logged_in.ok_or(Closing::refused())?);
                let version = self.version;
                if self.server.app.recorder.is_on() {
                    let (app, session) = (&self.server.app, logged_in.session());
                    self.traced.logged_in(app, session, &self.info, |masker, bytes| {
                        traced::mask(version, masker, bytes)
                    });
                }
                if connack.is_empty() {
                    return Err(Closing::broken(reason::PACKET_TOO_LARGE));
                }
                logged_in.greet(&self.server, out);
            }
            (Done::Topics(work), Some(logged_in)) => {
                logged_in.finish_topics(&self.server, work, out, owed)?;
                // What came meanwhile makes room for what the client sends next.
                self.send_pushed(out.len() < limits::UNSENT_BYTES_MAX, out)?;
            }
            (Done::Reply(to, reply), Some(logged_in)) => {
                reply.send(|body| logged_in.send_reply(&self.server, Reply { to, body }, out));
            }
            (Done::Inflated(to, text), Some(logged_in)) => {
                logged_in.inflated(&self.server, to, text, out, owed);
            }
            (Done::Again { ack, releases: true }, Some(logged_in)) => {
                logged_in.released(&self.server, ack, out, owed);
            }
            (Done::Again { ack, releases: false }, Some(logged_in)) => {
                logged_in.taken(&self.server, ack, out, owed);
            }
            (Done::Command { qos, pkid, outcome }, Some(logged_in)) => {
                logged_in.finish_command(&self.server, (qos, pkid), outcome, out, owed)?;
            }
            (Done::Stored { qos, pkid, reason }, Some(logged_in)) => {
                logged_in.acknowledge_later(&self.server, qos, pkid, reason, out, owed)?;
            }
            (Done::Lost { qos, pkid }, Some(logged_in)) => {
                return Err(logged_in.lost(&self.server, qos, pkid));
            }
            (Done::Closes, Some(_)) => return Err(Closing::broken(reason::UNSPECIFIED)),
            (Done::Taken { pkid }, Some(_)) => {
                encode::pubrel(out, self.version, pkid, reason::SUCCESS);
            }
            (Done::Released { pkid }, Some(_)) => {
                encode::pubcomp(out, self.version, pkid, reason::SUCCESS);
            }
            (_, None) => {}
        }
        if let Some(logged_in) = &mut self.logged_in {
            logged_in.try_withheld(&self.server, owed);
        }
        Ok(())
    }

    fn is_paused(&self) -> bool {
        self.logged_in.as_ref().is_some_and(|logged_in| logged_in.is_paused())
    }

    fn look_ahead(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        while let Some(rest) = bytes.get(self.ahead..).filter(|rest| !rest.is_empty())
            && let Ok(Some(frame)) = Frame::find(rest, self.version, self.frame_max())
        {
            self.ahead += frame.length;
            if matches!(frame.packet(self.version), Ok(Packet::PingReq)) {
                encode::pingresp(out);
            }
        }
    }

    fn give_up(&self) {
        if let Some(logged_in) = &self.logged_in {
            logged_in.give_up();
        }
    }

    fn lease(&self) -> Option<Lease> {
        Some(self.server.app.unauthenticated.lease(self.info.network()))
    }

    fn cores(&self) -> Option<&Arc<Cores>> {
        Some(&self.server.app.cores)
    }

    fn asker(&self) -> Option<Asker> {
        let session = self.logged_in.as_ref().map(|logged_in| logged_in.session());
        Some(session.map_or_else(|| stranger(&self.info), |session| asker(session)))
    }

    fn held(&self) -> usize {
        let logged_in = self.logged_in.as_ref().map_or(0, |logged_in| logged_in.held());
        self.outbox.waiting() + logged_in
    }

    fn account(&self) -> Option<Account> {
        let app = &self.server.app;
        Some(match &self.logged_in {
            Some(logged_in) => app.open_account(logged_in.session(), &self.info),
            None => app.memory.open(Payer::stranger(&self.info)),
        })
    }

    fn on_made_way(&self) -> Closing {
        Closing::ended(Reason::MadeWay)
    }

    fn set_waker(&self, waker: &Waker) {
        self.outbox.set_waker(waker);
    }

    fn poll_pushed(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass,
        unsent: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Closing> {
        self.send_pushed(unsent < limits::UNSENT_BYTES_MAX, out)?;
        match &mut self.logged_in {
            Some(logged_in) => logged_in.poll_deliveries(cx, pass, unsent, out),
            None => Ok(false),
        }
    }

    fn last_replies(&self, closing: &Closing, _: bool) -> LastReplies {
        match closing.code {
            Some(reason::SHUTTING_DOWN) => LastReplies::All,
            // Its session has ended, and it is there to read why.
            Some(_) => LastReplies::NoDevices,
            None => LastReplies::None,
        }
    }

    fn idle_timeout(&self) -> Option<Duration> {
        self.logged_in.as_ref().map_or(Some(limits::LOGIN_WAIT), |logged_in| logged_in.keep_alive())
    }

    fn is_online(&self) -> bool {
        self.logged_in.is_some()
    }

    fn is_bound(&self) -> bool {
        self.is_online()
    }

    fn on_bytes(&mut self, count: usize, now: Timestamp) {
        self.outbox.counters().add_bytes_in(count);
        if let Some(logged_in) = &mut self.logged_in {
            logged_in.on_bytes();
            logged_in.session().keep_alive(now);
        }
    }

    fn note_out(&mut self, frames: &[u8]) {
        if !self.is_traced() {
            return;
        }
        let (app, version) = (&self.server.app, self.version);
        let mut rest = frames;
        while let Ok(Some(frame)) = Frame::find(rest, version, usize::MAX) {
            let (bytes, others) = rest.split_at(frame.length.min(rest.len()));
            self.traced
                .record(app, true, bytes, |masker, bytes| traced::mask(version, masker, bytes));
            rest = others;
        }
    }

    fn on_written(&self, count: usize) {
        self.outbox.counters().add_bytes_out(count);
    }

    fn on_timeout(&self) -> Closing {
        if self.logged_in.is_some() { Closing::ended(Reason::KeepAlive) } else { Closing::lost() }
    }

    fn on_eof(&self) -> Closing {
        Closing::lost()
    }

    fn turn(&self) -> Option<tokio::time::Instant> {
        let org = self.logged_in.as_ref().map_or(STRANGERS, |it| it.session().org_id());
        let app = &self.server.app;
        app.pace.turn(app.pools.tenant_of(org), limits::CLOSE_WORK)
    }

    fn has_session(&self) -> bool {
        self.logged_in.as_ref().is_some_and(|logged_in| logged_in.session().end().is_none())
    }

    fn farewell(&mut self, closing: &Closing, out: &mut Vec<u8>) {
        // Only MQTT 5 knows a DISCONNECT from the server.
        if let (Some(code), Version::V5, true) = (closing.code, self.version, self.is_online()) {
            encode::disconnect(out, self.version, code);
        }
    }

    async fn end(self, closing: Closing, owed: Owed) {
        let unread = self.outbox.shut();
        if let Some(logged_in) = self.logged_in {
            logged_in.end(&self.server, closing, unread, owed).await;
        }
        self.outbox.note_gone();
    }
}

impl Closing {
    /// A client that was refused: what was written still goes out.
    const fn refused() -> Self {
        Self { reason: Reason::ProtocolError, code: None, will: false }
    }
}
