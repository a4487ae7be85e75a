//! The task of one connection: it reads bytes, hands them to a [`Peer`], and writes the replies.
//!
//! So that an idle connection needs no memory, buffers belong to the thread, not to the connection:
//! bytes are read into one shared scratch buffer and dealt with at once, and all replies of one
//! read go out in one write. A connection keeps bytes of its own only while half a frame has come
//! or a slow peer has not read its replies.

mod close;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use base::{Timestamp, done_for, limits, working_for};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Stream;
use super::pending::{Held, Pending};
use crate::app::{Account, Asker, Cores, Lease, Turn};

/// The replies that a connection of this peer has still to send.
pub type Owed<P> = Pending<<P as Peer>::Reply>;

/// Which replies are still waited for when a connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastReplies {
    /// None: nobody reads them.
    None,
    /// All that wait for no device.
    NoDevices,
    /// All.
    All,
}

/// One side of a conversation: a protocol without its socket and clock.
pub trait Peer: Send + Sized {
    /// What comes of work and of a reply that takes time.
    type Done: Send + Held;
    /// A reply that takes time.
    type Reply: Future<Output = Self::Done> + Send + Unpin;
    /// Why a connection closes, which it does when a function here fails.
    type Closing: Send;

    /// For how long the other side may take nothing of what waits for it.
    const STALL_WAIT: Duration = limits::WRITE_STALL_WAIT;

    /// Deals with bytes. Returns how many were used; the others come again, with more behind them
    /// or when the work is done. Stops when `owed` is blocked, and when `out` holds
    /// [`limits::PASS_WRITE_BYTES`]: small requests can have large answers.
    fn receive(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed<Self>,
    ) -> Result<usize, Self::Closing>;

    /// The server's time.
    fn now(&self) -> Timestamp;

    /// Takes what came of work, or a reply that is there.
    fn finish(
        &mut self,
        done: Self::Done,
        out: &mut Vec<u8>,
        owed: &mut Owed<Self>,
    ) -> Result<(), Self::Closing>;

    /// Whether the work that the next bytes wait for may take long: some more are read meanwhile, for
    /// [`Peer::look_ahead`], and silence does not count.
    fn is_paused(&self) -> bool {
        false
    }

    /// Answers what needs no order among bytes that wait; they come to [`Peer::receive`] later.
    fn look_ahead(&mut self, _bytes: &[u8], _out: &mut Vec<u8>) {}

    /// The connection closes: work that may take long comes to its end.
    fn give_up(&self) {}

    /// Room for half a frame before the login; none if that needs none.
    fn lease(&self) -> Option<Lease> {
        None
    }

    /// The cores, of which the peer's organisation has a share.
    fn cores(&self) -> Option<&Arc<Cores>> {
        None
    }

    /// Who works, and in which organisation; before the login those of its network.
    fn asker(&self) -> Option<Asker> {
        None
    }

    /// Bytes that it holds itself, and that wait for it elsewhere.
    fn held(&self) -> usize {
        0
    }

    /// An account for what the connection holds; none if that need not be counted.
    fn account(&self) -> Option<Account> {
        None
    }

    /// The connection makes room for others, which holds more than they do.
    fn on_made_way(&self) -> Self::Closing;

    /// Has the task woken when something comes from elsewhere. Asked for whenever the task runs,
    /// before it looks.
    fn set_waker(&self, waker: &Waker);

    /// Writes what comes from elsewhere, until the pass is over. `unsent`: the bytes that the peer has not
    /// read yet. True if there is more, for when it has read some.
    fn poll_pushed(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass,
        unsent: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Self::Closing>;

    /// Which replies are waited for before the connection closes. `half_closed`: the other side has
    /// only ended its own (`nc -N`), or is gone.
    fn last_replies(&self, closing: &Self::Closing, half_closed: bool) -> LastReplies;

    /// How long nothing may come, counted from the last bytes; none: for ever. Before the login it
    /// is counted from the beginning.
    fn idle_timeout(&self) -> Option<Duration>;

    /// Whether the login is done.
    fn is_online(&self) -> bool;

    /// Whether a session is bound to the connection, which is told to close when the server stops.
    fn is_bound(&self) -> bool;

    /// So many bytes came.
    fn on_bytes(&mut self, count: usize, now: Timestamp);

    /// These frames go, or wait until the peer has read others.
    fn note_out(&mut self, _frames: &[u8]) {}

    /// So many bytes went.
    fn on_written(&self, count: usize);

    /// Nothing came for too long.
    fn on_timeout(&self) -> Self::Closing;

    /// The connection is gone, or the peer sends nothing more.
    fn on_eof(&self) -> Self::Closing;

    /// When the end of the connection may begin: of many at once, each has its turn. None: now.
    fn turn(&self) -> Option<Instant>;

    /// Whether the session that is bound to it lives, which is to end with it.
    fn has_session(&self) -> bool;

    /// Adds what is to be said before the connection closes.
    fn farewell(&mut self, closing: &Self::Closing, out: &mut Vec<u8>);

    /// Ends everything that belongs to the connection. Nobody reads the replies that are pending.
    fn end(self, closing: Self::Closing, owed: Owed<Self>) -> impl Future<Output = ()> + Send;
}

/// What all connections of a thread share.
struct Scratch {
    input: Box<[u8]>,
    output: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; limits::READ_BYTES].into_boxed_slice(),
        output: Vec::with_capacity(limits::READ_BYTES),
    });
}

/// Serves a connection until it ends; without a session of its own, until `stop`.
///
/// Made at once and not in the future, which would hold its arguments beside what is made of them.
pub fn serve<P: Peer>(
    peer: P,
    stream: Stream,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let stop = Box::pin(stop.cancelled_owned());
    let mut connection = Connection {
        before_login: Some(Box::new(BeforeLogin { stop, lease: peer.lease() })),
        peer,
        stream,
        partial: Vec::new(),
        looked: 0,
        paused: false,
        held: false,
        unsent: BytesMut::new(),
        unsent_room: 0,
        account: None,
        stalled: None,
        turn: None,
        unflushed: false,
        owed: Pending::default(),
        at_end: false,
        timer: Box::pin(tokio::time::sleep(limits::LOGIN_WAIT)),
        last_bytes: Instant::now(),
    };
    async move {
        let closing = std::future::poll_fn(|cx| connection.poll(cx)).await;
        let asker = connection.peer.asker();
        // Boxed: an idle connection need not hold the room for its end.
        Box::pin(done_for(asker, connection.close(closing))).await;
    }
}

struct Connection<P: Peer> {
    peer: P,
    stream: Stream,
    /// The beginning of a frame whose rest has not come, or what waits for work or for room.
    partial: Vec<u8>,
    /// How much of it the peer has looked at: it is never given less of a frame than before.
    looked: usize,
    /// Whether there may be whole frames in `partial`, which wait until others had their turn or the
    /// peer has read answers.
    paused: bool,
    /// Whether replies, or what comes from elsewhere, were not looked at for want of room.
    held: bool,
    /// Answers that the peer has not taken yet.
    unsent: BytesMut,
    /// The room that they take: more than is left of them, when some have gone.
    unsent_room: usize,
    /// For all that the connection holds; none while that is little.
    account: Option<Box<Account>>,
    /// Runs while the peer takes none of them.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Waits for a turn to read, while the cores are full of what others above their share do.
    turn: Option<Pin<Box<dyn Future<Output = Turn> + Send>>>,
    /// Whether the stream holds written bytes back (TLS, WebSocket).
    unflushed: bool,
    owed: Owed<P>,
    /// Whether the peer sends nothing more.
    at_end: bool,
    /// Until a session is bound: an idle connection need not hold the room for it.
    before_login: Option<Box<BeforeLogin>>,
    timer: Pin<Box<Sleep>>,
    last_bytes: Instant,
}

/// How much of what is ready to go was offered to the peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offered {
    /// All; it may not have taken all.
    All,
    /// A part, which it has taken: the task is woken for the rest.
    Part,
}

/// What a connection does before others have their turn. If more comes than a few frames, the time in
/// which it deals with that is bounded.
#[derive(Default)]
pub struct Pass {
    bytes: usize,
    begun: Option<Instant>,
}

impl Pass {
    /// Whether others should have their turn, when some answers or deliveries were dealt with and there
    /// are more.
    pub fn is_over_after_some(&mut self) -> bool {
        self.begin(limits::PASS_PART_BYTES + 1);
        self.is_over()
    }

    /// So many bytes are dealt with next.
    fn begin(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes > limits::PASS_PART_BYTES {
            self.begun.get_or_insert_with(Instant::now);
        }
    }

    fn is_over(&self) -> bool {
        self.begun.is_some_and(|begun| begun.elapsed() >= limits::PASS_TIME)
    }
}

/// What only a connection without a session of its own needs.
struct BeforeLogin {
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// For `partial`, until somebody is logged in.
    lease: Option<Lease>,
}

impl<P: Peer> Connection<P> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<P::Closing> {
        self.peer.set_waker(cx.waker());
        if let Some(account) = &self.account {
            // Before anything looks whether it has to wait: what changes after that wakes.
            account.set_waker(cx.waker());
        }
        let asker = self.peer.asker();
        if !self.peer.cores().is_some_and(|cores| cores.are_full_now()) {
            return working_for(asker, || self.poll_by_scratch(cx));
        }
        let begun = Instant::now();
        let polled = working_for(asker, || self.poll_by_scratch(cx));
        if let (Some(cores), Some(asker)) = (self.peer.cores(), self.peer.asker()) {
            cores.note(asker, begun.elapsed());
        }
        polled
    }

    fn poll_by_scratch(&mut self, cx: &mut Context<'_>) -> Poll<P::Closing> {
        SCRATCH.with_borrow_mut(|Scratch { input, output }| {
            let polled = self.poll_with(cx, input, output);
            if !output.is_empty() {
                self.peer.note_out(output);
            }
            self.keep_unsent(output);
            output.clear();
            // One listing of thousands must not keep its megabytes for ever.
            output.shrink_to(8 * limits::READ_BYTES);
            if polled.is_pending() { self.poll_account(cx) } else { polled }
        })
    }

    /// Counts what the connection holds. Ready if it has to make room for others.
    fn poll_account(&mut self, cx: &mut Context<'_>) -> Poll<P::Closing> {
        let held = self.partial.capacity() + self.unsent_room + self.owed.bytes();
        let held = held + self.stream.held() + self.peer.held();
        let is_worth = Account::is_worth(self.account.as_deref(), held);
        if is_worth && self.account.is_none() {
            self.account = self.peer.account().map(Box::new);
        }
        let Some(account) = &mut self.account else { return Poll::Pending };
        account.set_waker(cx.waker());
        if is_worth {
            account.set(held);
        }
        if account.is_over() {
            return Poll::Ready(self.peer.on_made_way());
        }
        if held == 0 {
            self.account = None;
        }
        Poll::Pending
    }

    /// Keeps what the peer does not take now.
    fn keep_unsent(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.unsent.extend_from_slice(bytes);
            self.unsent_room = self.unsent_room.max(self.unsent.capacity());
        }
    }

    /// The same of bytes that need not be copied.
    fn keep_whole(&mut self, bytes: Vec<u8>) {
        if self.unsent.is_empty() {
            self.unsent_room = bytes.capacity();
            self.unsent = Bytes::from(bytes).into();
        } else {
            self.keep_unsent(&bytes);
        }
    }

    /// Gives back the room of what has gone, when that is most of it.
    fn shrink_unsent(&mut self) {
        if self.unsent.is_empty() {
            (self.unsent, self.unsent_room) = (BytesMut::new(), 0);
        } else if 2 * self.unsent.len() + limits::READ_BYTES < self.unsent_room {
            self.unsent = BytesMut::from(&self.unsent[..]);
            self.unsent_room = self.unsent.capacity();
        }
    }

    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        output: &mut Vec<u8>,
    ) -> Poll<P::Closing> {
        // The next answer would end it, which may be thousands of rows. Turns are for who is there.
        if self.awaits_answers() && self.cores_are_full() && self.stream.is_broken() {
            return Poll::Ready(self.peer.on_eof());
        }
        let Poll::Ready(turn) = self.poll_turn(cx) else {
            if self.poll_stop(cx) {
                return Poll::Ready(self.peer.on_eof());
            }
            return self.poll_timer(cx);
        };
        let most = if turn.is_some() { limits::TURN_READ_BYTES } else { input.len() };
        let input = input.get_mut(..most).unwrap_or_default();
        let (mut came, mut went, mut pass) = (0, 0, Pass::default());
        loop {
            let later = match self.advance(cx, output, &mut pass) {
                Ok(later) => later,
                Err(closing) => return Poll::Ready(closing),
            };
            went += output.len();
            match self.poll_write(cx, output) {
                Ok(Offered::All) => {}
                // The rest when others had their turn.
                Ok(Offered::Part) => break,
                Err(_) => return Poll::Ready(self.peer.on_eof()),
            }
            if later || came >= most || went >= limits::PASS_WRITE_BYTES || pass.is_over() {
                // The rest comes behind what others have to do.
                cx.waker().wake_by_ref();
                break;
            }
            if self.owed.is_blocked() && self.has_room() && self.peer.is_paused() {
                match self.poll_ahead(cx, input, output) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(closing)) => return Poll::Ready(closing),
                    Poll::Pending => break,
                }
            }
            if self.owed.is_blocked() || !self.has_room() {
                break;
            }
            // What waits for the peer to read comes when it has: then this task is woken.
            if std::mem::take(&mut self.held) && self.unsent.len() < limits::READ_BYTES {
                continue;
            }
            if turn.is_some() && self.owed.has_many_aside() {
                break;
            }
            if std::mem::take(&mut self.paused) {
                if let Err(closing) = self.receive_kept(self.peer.now(), output, &mut pass) {
                    return Poll::Ready(closing);
                }
                if self.cores_are_full() {
                    came = most;
                }
                continue;
            }
            if self.at_end {
                return Poll::Ready(self.peer.on_eof());
            }
            match self.poll_room(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(closing)) => return Poll::Ready(closing),
                Poll::Pending => break,
            }
            match self.poll_read(cx, input, output, &mut pass) {
                Poll::Ready(Ok(count)) => came += count,
                Poll::Ready(Err(closing)) => return Poll::Ready(closing),
                Poll::Pending => break,
            }
        }
        self.poll_timer(cx)
    }

    fn awaits_answers(&self) -> bool {
        !self.unsent.is_empty() || !self.owed.is_empty()
    }

    fn has_room(&self) -> bool {
        let waits = self.account.as_deref().is_some_and(Account::waits);
        self.unsent.len() < limits::UNSENT_BYTES_MAX && !waits
    }

    /// Deals with everything but new bytes. True if kept bytes wait for a turn: while the cores are
    /// full, hundreds of commands may have come with each login, and logins are done many at once.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Vec<u8>,
        pass: &mut Pass,
    ) -> Result<bool, P::Closing> {
        let mut later = false;
        while self.owed.is_blocked() {
            let Poll::Ready(Some(done)) = self.owed.poll_work(cx) else { break };
            self.peer.finish(done, output, &mut self.owed)?;
            if let Some(timeout) = self.peer.idle_timeout() {
                self.timer.as_mut().reset(self.last_bytes + timeout);
            }
            if self.owed.is_blocked() {
                continue;
            }
            later = !self.partial.is_empty() && self.cores_are_full();
            if later {
                self.paused = true;
            } else {
                self.receive_kept(self.peer.now(), output, pass)?;
            }
        }
        self.note_login();
        if !self.owed.is_blocked() && self.poll_stop(cx) {
            return Err(self.peer.on_eof());
        }
        for count in 1.. {
            // What is there waits until the peer has read what was sent before.
            self.held = self.unsent.len() + output.len() >= limits::READ_BYTES;
            if self.held {
                self.owed.settle(cx);
                break;
            }
            let Poll::Ready(Some(done)) = self.owed.poll_reply(cx, true) else { break };
            self.peer.finish(done, output, &mut self.owed)?;
            if count % limits::REPLIES_IN_PART == 0 && pass.is_over_after_some() {
                break;
            }
        }
        self.held |= self.peer.poll_pushed(cx, pass, self.unsent.len(), output)?;
        Ok(later)
    }

    /// Whether the connection is told to close, without a session of its own.
    fn poll_stop(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.before_login.as_mut();
        before.is_some_and(|before| before.stop.as_mut().poll(cx).is_ready())
    }

    /// Lets go what only strangers need.
    fn note_login(&mut self) {
        let Some(before) = &mut self.before_login else { return };
        if before.lease.is_some() && self.peer.is_online() {
            before.lease = None;
            // Whoever it is pays from now on.
            self.account = None;
            self.stream.note_login();
        }
        if self.peer.is_bound() {
            self.before_login = None;
        }
    }

    /// Whether more may be read, for which a stranger needs room.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Closing>> {
        let before = self.before_login.as_mut();
        let Some(lease) = before.and_then(|before| before.lease.as_mut()) else {
            return Poll::Ready(Ok(()));
        };
        let held = ready!(lease.poll_hold(cx, self.partial.capacity()));
        Poll::Ready(held.map_err(|_| self.peer.on_timeout()))
    }

    /// Whether the connection may work now, for which those above their share of full cores need a
    /// turn: for what comes, and for answers that are ready. A login takes a turn itself, which would
    /// not be given back while this waits for another.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<Turn>> {
        if self.turn.is_none() {
            if self.owed.is_blocked() {
                return Poll::Ready(None);
            }
            let Some(cores) = self.peer.cores().filter(|cores| cores.are_full()) else {
                return Poll::Ready(None);
            };
            let Some(asker) = self.peer.asker().filter(|asker| cores.is_above(*asker)) else {
                return Poll::Ready(None);
            };
            self.turn = Some(Box::pin(cores.clone().turn(asker)));
        }
        // Ends have turns of their own: of thousands that are lost at once, the others of their
        // principal would wait for each.
        if self.partial.is_empty() && self.stream.has_gone(cx) {
            self.turn = None;
        }
        let Some(turn) = &mut self.turn else { return Poll::Ready(None) };
        let turn = ready!(turn.as_mut().poll(cx));
        self.turn = None;
        Poll::Ready(Some(turn))
    }

    /// Reads a bounded part of what comes while the peer is paused. Ready while that may bring an
    /// answer.
    fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        output: &mut Vec<u8>,
    ) -> Poll<Result<(), P::Closing>> {
        self.peer.look_ahead(&self.partial, output);
        if !output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.at_end || self.partial.len() >= limits::READ_BYTES {
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(input);
        if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).is_err() {
            return Poll::Ready(Err(self.peer.on_eof()));
        }
        let bytes = buffer.filled();
        self.at_end = bytes.is_empty();
        self.last_bytes = Instant::now();
        self.partial.extend_from_slice(bytes);
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        output: &mut Vec<u8>,
        pass: &mut Pass,
    ) -> Poll<Result<usize, P::Closing>> {
        let mut buffer = ReadBuf::new(input);
        if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).is_err() {
            return Poll::Ready(Err(self.peer.on_eof()));
        }
        let bytes = buffer.filled();
        let count = bytes.len();
        if bytes.is_empty() {
            self.at_end = true;
            return Poll::Ready(Ok(0));
        }
        let now = self.peer.now();
        self.last_bytes = Instant::now();
        self.peer.on_bytes(bytes.len(), now);
        if self.partial.is_empty() {
            let used = self.receive_parts(bytes, now, output, pass);
            let rest = used.map(|used| bytes.get(used..).unwrap_or_default());
            return Poll::Ready(rest.map(|rest| {
                self.partial.extend_from_slice(rest);
                count
            }));
        }
        self.partial.extend_from_slice(bytes);
        Poll::Ready(self.receive_kept(now, output, pass).map(|()| count))
    }

    fn cores_are_full(&self) -> bool {
        self.peer.cores().is_some_and(|cores| cores.are_full())
    }

    /// Has bytes dealt with, part by part, until that has taken its time: there may be hundreds of
    /// commands. Returns how many were used.
    fn receive_parts(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        output: &mut Vec<u8>,
        pass: &mut Pass,
    ) -> Result<usize, P::Closing> {
        pass.begin(bytes.len());
        let (mut used, mut most) = (0, self.looked + limits::PASS_PART_BYTES);
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let part = rest.get(..most).unwrap_or(rest);
            let count = self.peer.receive(part, now, output, &mut self.owed)?;
            used += count;
            self.owed.note_blocked(count);
            self.looked = part.len() - count;
            let is_full = output.len() >= limits::PASS_WRITE_BYTES;
            if is_full || self.owed.is_blocked() || part.len() == rest.len() {
                self.paused = is_full;
                return Ok(used);
            }
            if count > 0 && pass.is_over() {
                self.paused = true;
                return Ok(used);
            }
            // A frame that is longer than a part comes whole, soon.
            most = if count > 0 { self.looked + limits::PASS_PART_BYTES } else { 4 * most };
        }
    }

    /// Has the kept bytes dealt with. What is left of them stays where it is: a frame that comes
    /// byte by byte must not be copied with every byte.
    fn receive_kept(
        &mut self,
        now: Timestamp,
        output: &mut Vec<u8>,
        pass: &mut Pass,
    ) -> Result<(), P::Closing> {
        let kept = std::mem::take(&mut self.partial);
        let used = self.receive_parts(&kept, now, output, pass)?;
        if used >= kept.len() {
            return Ok(());
        }
        self.partial = kept;
        if used > 0 {
            self.partial.drain(..used);
            self.partial.shrink_to(limits::READ_BYTES);
        }
        Ok(())
    }

    /// Writes what has gathered in `output`; what the peer does not take stays in `unsent`.
    fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut Vec<u8>) -> io::Result<Offered> {
        if !output.is_empty() {
            self.peer.note_out(output);
        }
        let (written, offered) = if self.unsent.is_empty() {
            let (written, offered) = self.write_some(cx, output)?;
            if output.len() - written > limits::READ_BYTES {
                // A listing of thousands is megabytes: it is handed over as it is.
                let whole = std::mem::replace(output, Vec::with_capacity(limits::READ_BYTES));
                self.keep_whole(whole);
                self.unsent.advance(written);
            } else {
                self.keep_unsent(output.get(written..).unwrap_or_default());
            }
            (written, offered)
        } else {
            self.keep_unsent(output);
            let mut unsent = std::mem::take(&mut self.unsent);
            let (written, offered) = self.write_some(cx, &unsent).inspect_err(|_| {
                // It has gone. Of thousands that go at once each waits for its turn to end.
                self.drop_unsent();
            })?;
            unsent.advance(written);
            self.unsent = unsent;
            // What the peer takes is soon gone.
            if offered == Offered::All {
                self.shrink_unsent();
            }
            (written, offered)
        };
        output.clear();
        if written > 0 {
            self.peer.on_written(written);
        }
        self.watch_peer(cx, written > 0)?;
        if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(offered)
    }

    /// Fails when the peer has taken nothing of what waits for it for too long.
    fn watch_peer(&mut self, cx: &mut Context<'_>, takes: bool) -> io::Result<()> {
        if takes || self.unsent.is_empty() {
            self.stalled = None;
        }
        if self.unsent.is_empty() {
            return Ok(());
        }
        let clock = || Box::pin(tokio::time::sleep(P::STALL_WAIT));
        match self.stalled.get_or_insert_with(clock).as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Writes as much as the peer takes, but of megabytes only a part at once.
    fn write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<(usize, Offered)> {
        if bytes.is_empty() {
            return Ok((0, Offered::All));
        }
        let most = match self.stream {
            // It makes a frame of what it is given.
            Stream::Held(_) => bytes.len(),
            _ => bytes.len().min(limits::WRITE_AT_ONCE_BYTES),
        };
        let mut written = 0;
        while let Some(rest) = bytes.get(written..most).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => written += count,
                Poll::Pending => break,
            }
        }
        self.unflushed |= !matches!(self.stream, Stream::Tcp(_));
        if written < most || most == bytes.len() {
            return Ok((written, Offered::All));
        }
        // Woken behind all who wait, and those whose bytes have come meanwhile.
        let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
        Ok((written, Offered::Part))
    }

    /// Ends the connection when nothing has come for too long. The timer is not moved by every
    /// packet: when it rings, it is set again for what is left.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<P::Closing> {
        if self.turn.is_some() || self.owed.is_blocked() && self.peer.is_paused() {
            // It is not read, and so not silent; the timer is set when it is read again.
            return Poll::Pending;
        }
        loop {
            let Some(timeout) = self.peer.idle_timeout() else { return Poll::Pending };
            ready!(self.timer.as_mut().poll(cx));
            let due = self.last_bytes + timeout;
            if !self.peer.is_online() || due <= Instant::now() {
                return Poll::Ready(self.peer.on_timeout());
            }
            self.timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests;
