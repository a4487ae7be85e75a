//! The TCP edge: one JSON value a line in, one line out, in order (DESIGN.md, "What users rely
//! on"). Values without a line end between them are taken as a stream.
//!
//! Only a request that waits for a device (`method.exec`, `mailbox.send`) is answered when its
//! answer is there: the device may be this connection's own, which has to fetch its mail meanwhile.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Arrival, LoginError, login_failure};
use crate::directory::{Outlet, Pushed, Reason, Session};
use crate::edge::driver::{self, Peer, Work};
use crate::edge::{ConnInfo, Stream};
use crate::limits;
use crate::timestamp::Timestamp;
use crate::tr50::Answer;
use crate::tr50::authenticate::Credentials;
use crate::tr50::dispatch::{Caller, Execution, Pending, execute};
use crate::tr50::envelope::Request;
use crate::tr50::error::{Code, Failure};
use crate::tr50::exchange::{self, TcpAuth};
use crate::tr50::json::{ObjectWriter, key, push_string};

mod framing;

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

/// The way into a connection's task.
#[derive(Default)]
struct TcpOutlet {
    waker: AtomicWaker,
    /// Whether the client asked for messages.
    notify: AtomicBool,
    /// Whether there is something in `put`; spares the connection the lock.
    filled: AtomicBool,
    put: Mutex<Put>,
}

/// What others put into a connection: messages, and the order to close.
#[derive(Default)]
struct Put {
    messages: VecDeque<Pushed>,
    close: Option<Reason>,
}

impl TcpOutlet {
    fn wake(&self) {
        self.filled.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The messages that have come, if there is room for them, and the order to close after them,
    /// which stays.
    fn take(&self, room: bool) -> (VecDeque<Pushed>, Option<Reason>) {
        if !self.filled.load(Ordering::Acquire) {
            return (VecDeque::new(), None);
        }
        let mut put = self.put.lock();
        let messages = if room { std::mem::take(&mut put.messages) } else { VecDeque::new() };
        let more = !put.messages.is_empty() || put.close.is_some();
        self.filled.store(more, Ordering::Release);
        (messages, put.close)
    }
}

impl Outlet for TcpOutlet {
    fn close(&self, reason: Reason) {
        self.put.lock().close.get_or_insert(reason);
        self.wake();
    }

    fn push(&self, message: Pushed) {
        if !self.notify.load(Ordering::Acquire) {
            return;
        }
        let mut put = self.put.lock();
        if put.messages.len() < limits::OUTBOX_MESSAGES_MAX {
            put.messages.push_back(message);
            drop(put);
            self.wake();
        }
    }
}

/// A TCP client.
struct Client {
    app: Arc<App>,
    full: bool,
    caller: Caller,
    /// The session that is bound to this connection; the caller may be in another one.
    bound: Option<Arc<Session>>,
    outlet: Arc<TcpOutlet>,
    framing: Framing,
    refusals: u32,
    /// Requests that wait for devices.
    waiting: FuturesUnordered<Waiting>,
    /// Their bytes.
    waiting_bytes: usize,
}

/// A request that waits for a device: how many bytes it had, and its answer.
type Waiting = Pin<Box<dyn Future<Output = (usize, Answer)> + Send>>;

/// What comes of work.
enum Done {
    /// A reply that took time.
    Answer(Answer),
    /// Replies that took long, until the other side had ended its own.
    LastAnswers(Vec<Answer>),
    /// A login, and the reply to its request.
    LoggedIn(Unbound, bool, Answer),
    /// A login, the bytes of its request, and the reply, which takes long.
    LoggedInWaiting(Unbound, bool, usize, Pending),
    /// A login that was refused.
    Refused(LoginError),
}

/// A session that has started and is not yet the connection's: it ends when that never comes to be,
/// because the connection closed while the rest of the login's request was executed.
struct Unbound {
    app: Arc<App>,
    session: Option<Arc<Session>>,
}

impl Drop for Unbound {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.app.end(&session, Reason::ConnectionLost, Timestamp::now());
        }
    }
}

impl Client {
    fn new(app: Arc<App>, conn: ConnInfo, full: bool) -> Self {
        Self {
            app,
            full,
            caller: Caller { session: None, conn },
            bound: None,
            outlet: Arc::default(),
            framing: Framing::default(),
            refusals: 0,
            waiting: FuturesUnordered::new(),
            waiting_bytes: 0,
        }
    }

    /// Deals with one value. The answer's line end is added here, or when its work is done.
    fn value(
        &mut self,
        text: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<Option<Work<Done>>, Reason> {
        match self.try_value(text, now, out) {
            Ok(Execution::Done) => {
                out.push(b'\n');
                Ok(None)
            }
            Ok(Execution::Pending(pending)) => {
                Ok(Some(Box::pin(async move { Done::Answer(pending.await) })))
            }
            Ok(Execution::Waiting(pending)) => {
                self.wait_for(text.len(), pending, out);
                Ok(None)
            }
            Err(Refusal::Login(credentials, notify)) => {
                Ok(Some(self.login(credentials, notify, text.to_vec(), now)))
            }
            Err(Refusal::Failure(failure)) => {
                write_failure(&failure, out);
                self.refused()?;
                Ok(None)
            }
        }
    }

    /// Lets the answer to a request of so many bytes come when it is ready; meanwhile the client
    /// goes on. What the request changes is changed here, before the next line is looked at.
    fn wait_for(&mut self, bytes: usize, mut pending: Pending, out: &mut Vec<u8>) {
        if self.waiting.len() >= limits::TCP_WAITING_MAX
            || self.waiting_bytes + bytes > limits::OUTBOX_BYTES_MAX
        {
            let sentence = "Too many requests wait for their replies.";
            return write_failure(&Failure::new(Code::BUSY, sentence), out);
        }
        match pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => write_answer(answer, out),
            Poll::Pending => {
                self.waiting_bytes += bytes;
                self.waiting.push(Box::pin(async move { (bytes, pending.await) }));
            }
        }
    }

    /// Writes the answers that were waited for.
    fn write_waited(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        while let Poll::Ready(Some((bytes, answer))) = self.waiting.poll_next_unpin(cx) {
            self.waiting_bytes -= bytes;
            write_answer(answer, out);
            if out.len() >= limits::UNSENT_BYTES_MAX {
                // The others come when these are read.
                cx.waker().wake_by_ref();
                break;
            }
        }
    }

    /// Makes a session the connection's own.
    fn bind(&mut self, mut unbound: Unbound, notify: bool) {
        // One connection has one session of its own.
        self.end_bound(Reason::LoggedOut);
        self.bound = unbound.session.take();
        self.caller.session.clone_from(&self.bound);
        self.outlet.notify.store(notify, Ordering::Release);
    }

    /// Tells a client that has logged in and asked for notices of mail that waits for it.
    fn greet(&self, out: &mut Vec<u8>) {
        if self.outlet.notify.load(Ordering::Acquire)
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

    /// Notes a failure that is no command's.
    fn refused(&mut self) -> Result<(), Reason> {
        self.refusals += u32::from(!self.is_online());
        if self.refusals < limits::TCP_REFUSALS_MAX { Ok(()) } else { Err(Reason::ProtocolError) }
    }

    fn try_value(
        &mut self,
        text: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<Execution, Refusal> {
        let request = Request::parse(text)?;
        let mut head: &[u8] = b"";
        match exchange::tcp_auth(&self.app, &request)? {
            TcpAuth::Login { credentials, notify } => {
                return Err(Refusal::Login(credentials, notify));
            }
            TcpAuth::Session(session) => {
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
        Ok(execute(&self.app, &self.caller, &request.commands, head, now, out))
    }

    /// Logs in and executes the rest of the request in the new session.
    fn login(
        &self,
        credentials: Credentials,
        notify: bool,
        text: Vec<u8>,
        now: Timestamp,
    ) -> Work<Done> {
        let (app, conn) = (self.app.clone(), self.caller.conn);
        let arrival = Arrival {
            conn,
            client_id: Box::default(),
            takes_over: false,
            outlet: self.outlet.clone(),
        };
        Box::pin(async move {
            let session = match app.login_bound(credentials, arrival, now).await {
                Ok(session) => session,
                Err(error) => return Done::Refused(error),
            };
            let unbound = Unbound { app: app.clone(), session: Some(session.clone()) };
            let (mut head, mut out) = (Vec::new(), Vec::new());
            exchange::push_login(&session, &mut head);
            let caller = Caller { session: Some(session), conn };
            // It was a request before; it still is.
            let commands = Request::parse(&text).map(|request| request.commands);
            let commands = commands.unwrap_or_default();
            let answer = match execute(&app, &caller, &commands, &head, now, &mut out) {
                Execution::Done => Answer::from_bytes(out),
                Execution::Pending(pending) => pending.await,
                Execution::Waiting(pending) => {
                    return Done::LoggedInWaiting(unbound, notify, text.len(), pending);
                }
            };
            Done::LoggedIn(unbound, notify, answer)
        })
    }

    fn end_bound(&mut self, reason: Reason) {
        if let Some(session) = self.bound.take() {
            self.app.end(&session, reason, Timestamp::now());
        }
    }
}

/// Why a value is not executed at once.
enum Refusal {
    Failure(Failure),
    Login(Credentials, bool),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Appends the line of a message that was not asked for. Payloads on `notify/…` are JSON.
fn push_notice(message: &Pushed, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"notify":{"topic":"#);
    push_string(out, &message.topic);
    out.extend_from_slice(br#","payload":"#);
    out.extend_from_slice(&message.payload);
    out.extend_from_slice(b"}}\n");
}

fn write_answer(answer: Answer, out: &mut Vec<u8>) {
    out.extend_from_slice(&answer.bytes);
    out.push(b'\n');
    answer.close();
}

fn write_failure(failure: &Failure, out: &mut Vec<u8>) {
    failure.write(out);
    out.push(b'\n');
}

impl Peer for Client {
    type Done = Done;
    type Closing = Reason;

    fn receive(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Work<Done>>), Reason> {
        if self.full {
            write_failure(&Failure::new(Code::BUSY, "The server is full; try again."), out);
            return Err(Reason::ProtocolError);
        }
        let mut used = 0;
        while out.len() < limits::UNSENT_BYTES_MAX {
            let max = self.frame_max();
            let rest = bytes.get(used..).unwrap_or_default();
            let next = self.framing.next(rest);
            let length = match next {
                Next::Value { start, end } => end - start,
                Next::Garbage { end } => end,
                Next::Nothing { start } => rest.len() - start,
            };
            if length > max {
                let sentence = format!("The value is larger than {max} bytes.");
                write_failure(&Failure::new(Code::TOO_LARGE, sentence), out);
                return Err(Reason::ProtocolError);
            }
            match next {
                Next::Value { start, end } => {
                    used += end;
                    let text = rest.get(start..end).unwrap_or_default();
                    if let Some(work) = self.value(text, now, out)? {
                        return Ok((used, Some(work)));
                    }
                }
                Next::Garbage { end } => {
                    used += end;
                    let sentence = "The line is not one JSON object.";
                    write_failure(&Failure::new(Code::MALFORMED, sentence), out);
                    self.refused()?;
                }
                Next::Nothing { start } => return Ok((used + start, None)),
            }
        }
        Ok((used, None))
    }

    fn finish(&mut self, done: Done, out: &mut Vec<u8>) -> Result<(), Reason> {
        match done {
            Done::Answer(answer) => write_answer(answer, out),
            Done::LastAnswers(answers) => {
                answers.into_iter().for_each(|answer| write_answer(answer, out));
            }
            Done::LoggedIn(unbound, notify, answer) => {
                self.bind(unbound, notify);
                write_answer(answer, out);
                self.greet(out);
            }
            Done::LoggedInWaiting(unbound, notify, bytes, pending) => {
                self.bind(unbound, notify);
                self.wait_for(bytes, pending, out);
                self.greet(out);
            }
            Done::Refused(error) => {
                out.extend_from_slice(&exchange::login_failed(&login_failure(&error)));
                out.push(b'\n');
                self.refusals += 1;
                if self.refusals >= limits::TCP_REFUSALS_MAX {
                    return Err(Reason::ProtocolError);
                }
            }
        }
        Ok(())
    }

    fn register(&self, waker: &Waker) {
        self.outlet.waker.register(waker);
    }

    fn poll_pushed(
        &mut self,
        cx: &mut Context<'_>,
        room: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let (messages, close) = self.outlet.take(room);
        messages.iter().for_each(|message| push_notice(message, out));
        if room && !self.waiting.is_empty() {
            self.write_waited(cx, out);
        }
        let Some(reason) = close else { return Ok(()) };
        // The order may have been meant for the session of an earlier login on this connection,
        // which the next login ended: what counts is how the present one is.
        match &self.bound {
            Some(bound) => bound.end().map_or(Ok(()), |end| Err(end.reason)),
            None => Err(reason),
        }
    }

    fn last_work(&mut self) -> Option<Work<Done>> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let some = !waiting.is_empty();
        let answers =
            async { Done::LastAnswers(waiting.map(|(_, answer)| answer).collect().await) };
        some.then(|| Box::pin(answers) as Work<Done>)
    }

    /// A silent connection ends with its own session's TTL, not by a timer of its own. One that
    /// only uses a session that is not bound to it would outlive that for ever.
    fn patience(&self) -> Option<Duration> {
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

    fn alive(&self, now: Timestamp) {
        if let Some(session) = &self.bound {
            session.keep_alive(now);
        }
    }

    fn silent(&self) -> Reason {
        Reason::ConnectionLost
    }

    fn lost(&self) -> Reason {
        Reason::ConnectionLost
    }

    fn last_words(&mut self, reason: &Reason, out: &mut Vec<u8>) {
        let told = matches!(reason, Reason::ConnectionLost | Reason::ProtocolError);
        let notify = self.outlet.notify.load(Ordering::Acquire);
        if let (Some(session), true, false) = (&self.bound, notify, told) {
            let mut text = Vec::new();
            let mut payload = ObjectWriter::new(&mut text);
            payload.hex(key!("ref"), session.reference().as_bytes());
            payload.string(key!("reason"), reason.as_str());
            payload.end();
            push_notice(&Pushed { topic: "session/end".into(), payload: text.into() }, out);
        }
    }

    async fn end(mut self, reason: Reason) {
        self.end_bound(reason);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::app::Parts;
    use crate::directory::Directory;
    use crate::edge::Protocol;
    use crate::identity::Identity;
    use crate::identity::password::Passwords;
    use crate::metrics::Metrics;
    use crate::store::Tables;
    use crate::store::memory::MemoryStore;
    use crate::store::writer::Durability;

    fn app(now: Timestamp) -> Arc<App> {
        let config = Config::default();
        let tables = Tables::new(Arc::new(MemoryStore::new()), Durability::Os);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml");
        let identity = Identity::open(tables.clone(), Some(&path), now, &mut |bytes| bytes.fill(7));
        let identity = identity.expect("the demo's file is right");
        let things = Things::open(tables.clone()).expect("empty");
        let directory = Directory::new(App::terms(&config), now);
        let metrics = Metrics::new(&["api.ping"]);
        let passwords = Passwords::new(1);
        let server_id = "x".into();
        let parts =
            Parts { config, tables, identity, things, directory, passwords, metrics, server_id };
        Arc::new(App::new(parts))
    }

    #[tokio::test]
    async fn requests_that_wait_have_a_bound_of_bytes() {
        let conn = ConnInfo {
            protocol: Protocol::Tcp,
            remote_addr: "192.0.2.1:5".parse().expect("an address"),
        };
        let mut client = Client::new(app(Timestamp::now()), conn, false);
        let mut out = Vec::new();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let first = async { answered.await.unwrap_or_default() };
        client.wait_for(limits::OUTBOX_BYTES_MAX / 2, Box::pin(first), &mut out);
        let never = || Box::pin(std::future::pending());
        client.wait_for(limits::OUTBOX_BYTES_MAX / 2, never(), &mut out);
        assert!(out.is_empty());
        client.wait_for(1, never(), &mut out);
        assert!(String::from_utf8_lossy(&out).contains("Too many requests wait"));
        out.clear();
        answer.send(Answer::from_bytes(b"{}".to_vec())).map_err(drop).expect("it is waited for");
        let mut cx = Context::from_waker(Waker::noop());
        client.poll_pushed(&mut cx, true, &mut out).expect("no end");
        assert_eq!(out, b"{}\n");
        client.wait_for(limits::OUTBOX_BYTES_MAX / 2, never(), &mut out);
        assert_eq!((out.len(), client.waiting.len()), (3, 2), "the answer made room");
    }

    #[tokio::test]
    async fn a_silent_connection_ends_whatever_its_session() {
        let now = Timestamp::now();
        let app = app(now);
        let conn = ConnInfo {
            protocol: Protocol::Tcp,
            remote_addr: "192.0.2.1:5".parse().expect("an address"),
        };
        let credentials = Credentials::Application {
            thing_key: "mower-1".into(),
            token: "demo-token-basicorg".into(),
            app_id: String::new(),
        };
        let session = app.login_unbound(credentials, conn, now).await.expect("welcome");
        let mut client = Client::new(app, conn, false);
        assert_eq!(client.patience(), Some(limits::LOGIN_WAIT));
        client.caller.session = Some(session.clone());
        assert_eq!(client.patience(), Some(Duration::from_secs(86_400)));
        client.bound = Some(session);
        assert_eq!(client.patience(), None, "its end closes the connection");
    }
}
