//! The TCP edge: one JSON value a line in, one line out, in order (`docs/protocol/tr50.md` 1.2).
//! Values without a line end between them are taken as a stream.
//!
//! Only the reply to a request that waits for a device (`method.exec`, `mailbox.send`) may be
//! overtaken by later ones: the device may be on this very connection, and has to fetch its mail
//! meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base::{
    Code, ConnInfo, Failure, STRANGERS, Timestamp,
    json::{ObjectWriter, key, push_string},
    limits,
};
use rules::directory::{Link, Outbox, Push, Reason, Session};
use rules::identity::Refusal as LoginRefusal;
use tokio_util::sync::CancellationToken;

use crate::app::{
    Account, App, Arrival, Asker, Cores, Credentials, Lease, LoginCause, LoginError, NoPlace,
    Payer, Place, address_full, asker, login_failure, stranger,
};
use crate::edge::Stream;
use crate::edge::driver::{self, LastReplies, Pass, Peer};
use crate::edge::pending::{Held, Pending, Work};
use crate::edge::traced::Traced;
use crate::edge::wrong_door::{self, Met};
use crate::tr50::dispatch::{self, Caller, Reply, execute_request, write_refusal};
use crate::tr50::envelope::Request;
use crate::tr50::exchange::{self, TcpAuth};

mod framing;
mod traced;

use framing::{Framing, Next};

/// The longest silence in seconds that is measured, a year: a point in time more than centuries
/// away can't be told.
const SILENCE_S_MAX: u64 = 365 * 86_400;

/// Serves a TCP connection until it ends, or until `stop` when no session is bound to it. `full`:
/// the server has no room, and says so.
pub fn serve(
    app: Arc<App>,
    stream: Stream,
    info: ConnInfo,
    full: bool,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    driver::serve(Client::new(app, info, full), stream, stop)
}

/// A TCP client.
struct Client {
    app: Arc<App>,
    full: bool,
    caller: Caller,
    /// The session that is bound to this connection; the caller may be in another one.
    bound: Option<Arc<Session>>,
    outbox: Arc<Outbox>,
    /// Its place among those that are logged in.
    place: Option<Place>,
    framing: Framing,
    refusals: u32,
    traced: Traced,
    /// Bytes of what is to be written whose frames are kept already.
    noted: usize,
}

/// A reply for which a device is waited.
struct FromDevice(dispatch::Pending);

impl Future for FromDevice {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        Pin::new(&mut self.0).poll(cx).map(|reply| Done::Reply { reply, login: None })
    }
}

/// What comes of work.
enum Done {
    /// A reply that took time, and the login that was part of its request.
    Reply {
        reply: Reply,
        login: Option<LoggedIn>,
    },
    Login(Login),
}

impl Held for Done {
    fn bytes(&self) -> usize {
        match self {
            Self::Reply { reply, .. } => reply.bytes(),
            Self::Login(login) => login.text.len(),
        }
    }
}

/// A session that has started and becomes the connection's own when its request is answered.
struct LoggedIn {
    session: Arc<Session>,
    /// Whether the client asked for messages.
    notify: bool,
}

/// A login that was checked, and the request that it is part of.
struct Login {
    outcome: Result<(Arc<Session>, Option<Place>), LoginError>,
    /// Whether the client asked for messages.
    notify: bool,
    text: Vec<u8>,
    now: Timestamp,
}

impl Client {
    fn new(app: Arc<App>, conn: ConnInfo, full: bool) -> Self {
        Self {
            app,
            full,
            caller: Caller::new(None, conn),
            bound: None,
            outbox: Arc::new(Outbox::new(false)),
            place: None,
            framing: Framing::default(),
            refusals: 0,
            traced: Traced::default(),
            noted: 0,
        }
    }

    /// Deals with one value. The answer's line end is added here, or when its work is done.
    fn value(
        &mut self,
        text: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Pending<FromDevice>,
    ) -> Result<(), Reason> {
        let mut mended = String::new();
        self.outbox.counters().add_message_in();
        let request = match Request::parse(text, &mut mended) {
            Ok(request) => request,
            Err(failure) => {
                self.note_in(text, "malformed");
                self.fail(&failure, now, out);
                return self.refused();
            }
        };
        let auth = exchange::tcp_auth(&self.app, &request, self.caller.conn, now);
        self.note_request(text, &auth, out);
        let auth = auth.map_err(Refusal::from);
        let tried =
            auth.and_then(|auth| self.try_request(&request, auth, text.len(), now, out, owed));
        match tried {
            Ok(None) => self.end_line(out),
            Ok(executed) => self.executed(executed, text.len(), None, out, owed),
            Err(Refusal::Login(credentials, notify)) => {
                owed.block(self.login(credentials, notify, text.to_vec(), now));
            }
            Err(Refusal::Failure(failure)) => {
                dispatch::note_failed(&self.app, &self.caller, "", &failure, now);
                write_refusal(&request, &failure.to_json(), out);
                self.end_line(out);
                self.refused()?;
            }
            Err(Refusal::Full(full)) => {
                write_failure(&full.into(), out);
                return Err(Reason::ProtocolError);
            }
        }
        Ok(())
    }

    /// Ends the line of a reply to a request of so many bytes, or lets it come later: in order,
    /// unless a device is waited for.
    fn executed(
        &mut self,
        executed: Option<dispatch::Pending>,
        bytes: usize,
        login: Option<LoggedIn>,
        out: &mut Vec<u8>,
        owed: &mut Pending<FromDevice>,
    ) {
        match executed {
            None => self.end_line(out),
            Some(pending) if pending.waits_for_device => {
                owed.push_from_device(bytes + pending.bytes(), FromDevice(pending));
            }
            Some(pending) => {
                let written = pending.bytes();
                let reply = async move { Done::Reply { reply: pending.await, login } };
                owed.block(Box::pin(reply));
                return owed.note_blocked(written);
            }
        }
        self.bind(login, out);
    }

    fn end_line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        self.outbox.counters().add_message_out();
    }

    /// Makes a session that has started the connection's own.
    fn bind(&mut self, login: Option<LoggedIn>, out: &mut Vec<u8>) {
        let Some(LoggedIn { session, notify }) = login else { return };
        // One connection has one session of its own.
        self.end_bound(Reason::LoggedOut);
        self.bound = Some(session);
        self.caller.session.clone_from(&self.bound);
        self.follow_traces(out);
        self.outbox.set_open(notify);
        self.greet(out);
    }

    /// Sends the notice of waiting mail to a client that has logged in and asked for notices.
    fn greet(&self, out: &mut Vec<u8>) {
        if self.outbox.is_open()
            && let Some(message) = self.bound.as_ref().and_then(|s| self.app.waiting_mail(s))
        {
            push_notice(&message, out);
        }
    }

    /// Bytes of the largest value that is accepted. Before the login it is small: there is no
    /// reason to buffer a megabyte for a stranger.
    fn frame_max(&self) -> usize {
        let max = self.app.config.limits.max_frame_bytes;
        if self.is_online() { max } else { max.min(limits::READ_BYTES) }
    }

    /// Answers what is no request that could be executed.
    fn fail(&self, failure: &Failure, now: Timestamp, out: &mut Vec<u8>) {
        dispatch::note_failed(&self.app, &self.caller, "", failure, now);
        write_failure(failure, out);
    }

    /// Notes a failure that is no command's.
    fn refused(&mut self) -> Result<(), Reason> {
        self.refusals += u32::from(!self.is_online());
        if self.refusals < limits::TCP_REFUSALS_MAX { Ok(()) } else { Err(Reason::ProtocolError) }
    }

    /// Tells who has not logged in and speaks something else what is spoken here, and closes: other
    /// protocols have no line ends to wait for.
    fn check_door(&self, bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) -> Result<(), Reason> {
        let Some(met) = Met::of(bytes).filter(|met| *met != Met::Json) else { return Ok(()) };
        let conn = &self.caller.conn;
        self.app.metrics.connection_refused("malformed");
        wrong_door::log(conn, met);
        self.fail(&Failure::new(Code::MALFORMED, met.sentence(conn.protocol)), now, out);
        Err(Reason::ProtocolError)
    }

    /// Executes a request that came in so many bytes, unless it has to wait for its login.
    fn try_request(
        &mut self,
        request: &Request<'_>,
        auth: TcpAuth,
        bytes: usize,
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &Pending<FromDevice>,
    ) -> Result<Option<dispatch::Pending>, Refusal> {
        let mut head: &[u8] = b"";
        match auth {
            TcpAuth::Login { credentials, notify } => {
                return Err(Refusal::Login(credentials, notify));
            }
            TcpAuth::Session(session) => {
                if self.place.is_none() {
                    let hosted = self.app.host(&self.caller.conn, &session, &self.outbox);
                    self.place = hosted.map_err(Refusal::Full)?;
                }
                self.caller.session = Some(session);
                head = br#""auth":{"success":true}"#;
            }
            TcpAuth::None => match &self.caller.session {
                None if exchange::all_open(&request.commands) => {}
                None => return Err(Failure::authentication_missing().into()),
                Some(session) if session.end().is_some() => {
                    return Err(Failure::session_invalid("has ended.").into());
                }
                Some(_) => {}
            },
        }
        if !owed.has_room(bytes) && dispatch::waits_for_device(&request.commands) {
            return Err(exchange::too_many_pending().into());
        }
        Ok(execute_request(&self.app, &self.caller, request, head, now, out))
    }

    /// Checks a login; the rest of its request is executed when that is done.
    fn login(
        &self,
        credentials: Credentials,
        notify: bool,
        text: Vec<u8>,
        now: Timestamp,
    ) -> Work<Done> {
        let arrival = Arrival {
            conn: self.caller.conn,
            client_id: Box::default(),
            link: Link::default(),
            takes_over: false,
            has_place: self.place.is_some(),
            outbox: self.outbox.clone(),
        };
        let app = self.app.clone();
        Box::pin(async move {
            let outcome = app.login_bound(credentials, arrival, now).await;
            Done::Login(Login { outcome, notify, text, now })
        })
    }

    /// Executes the rest of a login's request in the new session.
    fn logged_in(
        &mut self,
        login: Login,
        out: &mut Vec<u8>,
        owed: &mut Pending<FromDevice>,
    ) -> Result<(), Reason> {
        let Login { outcome, notify, text, now } = login;
        // It was a request before; it still is.
        let mut mended = String::new();
        let request = Request::parse(&text, &mut mended).unwrap_or_default();
        let session = match outcome {
            Ok((session, place)) => {
                self.place = self.place.take().or(place);
                session
            }
            Err(LoginError::NoPlace(full)) => {
                self.fail(&full.into(), now, out);
                return Err(Reason::ProtocolError);
            }
            Err(error) => {
                let failure = login_failure(&error);
                let stranger = Caller::new(None, self.caller.conn);
                dispatch::note_failed(&self.app, &stranger, "", &failure, now);
                write_refusal(&request, &exchange::login_failed(&failure), out);
                self.end_line(out);
                if self.caller.session.is_some() {
                    self.follow_traces(out);
                }
                // Counted even in a session: passwords could be guessed from there. Whose password is
                // right goes on with a code.
                let is_half = matches!(error, LoginError::Refused(LoginRefusal::CodeWanted));
                self.refusals += u32::from(!is_half);
                let few = self.refusals < limits::TCP_REFUSALS_MAX;
                return if few { Ok(()) } else { Err(Reason::ProtocolError) };
            }
        };
        let mut head = Vec::new();
        exchange::push_login(&session, &mut head);
        if !owed.has_room(text.len()) && dispatch::waits_for_device(&request.commands) {
            self.bind(Some(LoggedIn { session, notify }), out);
            let failure = exchange::too_many_pending();
            dispatch::note_failed(&self.app, &self.caller, "", &failure, now);
            write_refusal(&request, &failure.to_json(), out);
            self.end_line(out);
            return Ok(());
        }
        let caller = Caller::new(Some(session.clone()), self.caller.conn);
        let executed = execute_request(&self.app, &caller, &request, &head, now, out);
        self.executed(executed, text.len(), Some(LoggedIn { session, notify }), out, owed);
        Ok(())
    }

    fn end_bound(&mut self, reason: Reason) {
        if let Some(session) = self.bound.take() {
            self.app.end(&session, reason, self.app.clock.now());
        }
    }
}

/// Why a value is not executed at once.
enum Refusal {
    Failure(Failure),
    /// There is no place for the connection.
    Full(NoPlace),
    Login(Credentials, bool),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Appends the line of a message that was not asked for. Payloads on `notify/…` are JSON.
fn push_notice(message: &Push, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"notify":{"topic":"#);
    push_string(out, &message.topic);
    out.extend_from_slice(br#","payload":"#);
    out.extend_from_slice(&message.payload);
    out.extend_from_slice(b"}}\n");
}

fn write_failure(failure: &Failure, out: &mut Vec<u8>) {
    failure.write(out);
    out.push(b'\n');
}

impl Peer for Client {
    type Done = Done;
    type Reply = FromDevice;
    type Closing = Reason;

    fn now(&self) -> Timestamp {
        self.app.clock.now()
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Pending<FromDevice>,
    ) -> Result<usize, Reason> {
        if self.full {
            self.app.note_bad_login("", self.caller.conn.into(), LoginCause::Full, now);
            self.fail(&address_full(), now, out);
            return Err(Reason::ProtocolError);
        }
        let mut used = 0;
        while out.len() < limits::PASS_WRITE_BYTES && !owed.is_blocked() {
            let max = self.frame_max();
            let rest = bytes.get(used..).unwrap_or_default();
            if !self.is_online() {
                self.check_door(rest, now, out)?;
            }
            let next = self.framing.next(rest);
            let length = match next {
                Next::Value { start, end } => end - start,
                Next::Garbage { end } => end,
                Next::Nothing { start } => rest.len() - start,
            };
            if length > max {
                let sentence = format!("The value is larger than {max} bytes.");
                self.fail(&Failure::new(Code::TOO_LARGE, sentence), now, out);
                return Err(Reason::ProtocolError);
            }
            match next {
                Next::Value { start, end } => {
                    used += end;
                    let text = rest.get(start..end).unwrap_or_default();
                    self.value(text, now, out, owed)?;
                }
                Next::Garbage { end } => {
                    used += end;
                    self.note_in(rest.get(..end).unwrap_or_default(), "malformed");
                    let sentence = "The line is not one JSON object.";
                    self.fail(&Failure::new(Code::MALFORMED, sentence), now, out);
                    self.refused()?;
                }
                Next::Nothing { start } => return Ok(used + start),
            }
        }
        Ok(used)
    }

    fn finish(
        &mut self,
        done: Done,
        out: &mut Vec<u8>,
        owed: &mut Pending<FromDevice>,
    ) -> Result<(), Reason> {
        match done {
            Done::Reply { reply, login } => {
                reply.send(|text| {
                    out.extend_from_slice(&text);
                    self.end_line(out);
                });
                self.bind(login, out);
                Ok(())
            }
            Done::Login(login) => self.logged_in(login, out, owed),
        }
    }

    fn lease(&self) -> Option<Lease> {
        Some(self.app.unauthenticated.lease(self.caller.conn.network()))
    }

    fn cores(&self) -> Option<&Arc<Cores>> {
        Some(&self.app.cores)
    }

    fn asker(&self) -> Option<Asker> {
        let session = self.caller.session.as_deref();
        Some(session.map_or_else(|| stranger(&self.caller.conn), asker))
    }

    fn held(&self) -> usize {
        self.outbox.waiting()
    }

    fn account(&self) -> Option<Account> {
        let (app, conn) = (&self.app, &self.caller.conn);
        Some(match &self.caller.session {
            Some(session) => app.open_account(session, conn),
            None => app.memory.open(Payer::stranger(conn)),
        })
    }

    fn on_made_way(&self) -> Reason {
        Reason::MadeWay
    }

    fn set_waker(&self, waker: &Waker) {
        self.outbox.set_waker(waker);
    }

    fn poll_pushed(
        &mut self,
        _: &mut Context<'_>,
        _: &mut Pass,
        unsent: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Reason> {
        if !self.outbox.is_filled() {
            return Ok(false);
        }
        let (messages, close) = self.outbox.take(unsent < limits::UNSENT_BYTES_MAX);
        for message in &messages {
            push_notice(message, out);
            self.outbox.counters().add_message_out();
        }
        let Some(reason) = close else { return Ok(false) };
        // The order may have been meant for the session of an earlier login on this connection,
        // which the next login ended: what counts is how the present one is.
        match &self.bound {
            Some(bound) => bound.end().map_or(Ok(false), |end| Err(end.reason)),
            None => Err(reason),
        }
    }

    fn last_replies(&self, reason: &Reason, half_closed: bool) -> LastReplies {
        match reason {
            Reason::ServerStopped => LastReplies::All,
            _ if half_closed => LastReplies::All,
            _ => LastReplies::NoDevices,
        }
    }

    /// A silent connection ends with its own session's TTL, not by a timer of its own. One that
    /// only uses a session that is not bound to it would outlive that for ever.
    fn idle_timeout(&self) -> Option<Duration> {
        match (&self.bound, &self.caller.session) {
            (Some(_), _) => None,
            (None, Some(session)) => {
                let ttl_s = Some(session.ttl_s()).filter(|ttl_s| *ttl_s > 0);
                let silence_s = ttl_s.map_or(SILENCE_S_MAX, |ttl_s| ttl_s.min(SILENCE_S_MAX));
                Some(Duration::from_secs(silence_s))
            }
            (None, None) => Some(limits::LOGIN_WAIT),
        }
    }

    fn is_online(&self) -> bool {
        self.caller.session.is_some()
    }

    fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    fn on_bytes(&mut self, count: usize, now: Timestamp) {
        self.outbox.counters().add_bytes_in(count);
        if let Some(session) = &self.bound {
            session.keep_alive(now);
        }
    }

    fn note_out(&mut self, frames: &[u8]) {
        let noted = std::mem::take(&mut self.noted);
        if self.is_traced() {
            traced::lines(&mut self.traced, &self.app, frames.get(noted..).unwrap_or_default());
        }
    }

    fn on_written(&self, count: usize) {
        self.outbox.counters().add_bytes_out(count);
    }

    fn on_timeout(&self) -> Reason {
        Reason::ConnectionLost
    }

    fn on_eof(&self) -> Reason {
        Reason::ConnectionLost
    }

    fn turn(&self) -> Option<tokio::time::Instant> {
        let org = self.bound.as_ref().map_or(STRANGERS, |session| session.org_id());
        self.app.pace.turn(self.app.pools.tenant_of(org), limits::CLOSE_WORK)
    }

    fn has_session(&self) -> bool {
        self.bound.as_ref().is_some_and(|session| session.end().is_none())
    }

    fn farewell(&mut self, reason: &Reason, out: &mut Vec<u8>) {
        let told = matches!(reason, Reason::ConnectionLost | Reason::ProtocolError);
        let notify = self.outbox.is_open();
        if let (Some(session), true, false) = (&self.bound, notify, told) {
            let mut text = Vec::new();
            let mut payload = ObjectWriter::new(&mut text);
            payload.hex(key!("ref"), session.reference().as_bytes());
            payload.string(key!("reason"), reason.as_str());
            payload.end();
            push_notice(&Push::message("session/end".into(), text.into()), out);
        }
    }

    async fn end(mut self, reason: Reason, _: Pending<FromDevice>) {
        self.end_bound(reason);
        self.outbox.note_gone();
        self.app.forget_awaited_code(self.caller.conn);
    }
}

#[cfg(test)]
mod tests {
    use base::Protocol;

    use super::*;
    use crate::app::tests::demo;

    #[tokio::test]
    async fn a_silent_connection_ends_whatever_its_session() {
        let (app, _) = demo();
        let now = app.clock.now();
        let remote_addr = "192.0.2.1:5".parse().expect("an address");
        let conn = ConnInfo::new(Protocol::Tcp, remote_addr);
        let credentials = Credentials::Application {
            thing_key: "mower-1".into(),
            token: "demo-token-basicorg".into(),
            app_id: String::new(),
        };
        let session = app.login_unbound(credentials, conn, now).await.expect("welcome");
        let mut client = Client::new(app, conn, false);
        assert_eq!(client.idle_timeout(), Some(limits::LOGIN_WAIT));
        client.caller.session = Some(session.clone());
        assert_eq!(client.idle_timeout(), Some(Duration::from_secs(86_400)));
        client.bound = Some(session);
        assert_eq!(client.idle_timeout(), None, "its end closes the connection");
    }
}
