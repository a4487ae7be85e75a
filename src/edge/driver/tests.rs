//! How connections are driven, with peers that do what a test says.

use std::future::poll_fn;
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::{ConnInfo, OrgId, Protocol};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::app::{Memory, Payer};

const MEBIBYTE: usize = 1024 * 1024;

/// What became of a [`Probe`].
#[derive(Default)]
struct Seen {
    /// Where the bytes of each call were.
    places: Vec<usize>,
    /// How many questions were answered, and replies that came later.
    answers: usize,
    /// Whether the work was finished before the end.
    finished: bool,
    /// Whether it has ended.
    ended: bool,
}

/// Speaks a protocol of one frame, which ends with `!`, or with `?` if it causes work, during
/// which the connection closes; or of questions, `#`, with an answer of a mebibyte each; or `*`,
/// for three replies of as much as may wait, which come later; or `%`, for one that never comes; or
/// `~`, which take long; or of what ends with `^`, for work that never ends.
#[derive(Default)]
struct Probe {
    seen: Arc<Mutex<Seen>>,
    works: bool,
    memory: Option<Arc<Memory>>,
    /// When its connection may end.
    turn: Option<Instant>,
    cores: Option<Arc<Cores>>,
}

impl Peer for Probe {
    /// Bytes of a reply that came later.
    type Done = usize;
    type Reply = BoxFuture<'static, usize>;
    type Closing = ();

    // Long enough for a busy machine that moves a hundred megabytes.
    const STALL_WAIT: Duration = Duration::from_secs(1);

    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        _: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed<Self>,
    ) -> Result<usize, ()> {
        assert_eq!(base::current_asker(), self.asker());
        self.seen.lock().places.push(bytes.as_ptr() as usize);
        let mut used = 0;
        while bytes.get(used) == Some(&b'#') && out.len() < limits::UNSENT_BYTES_MAX {
            out.resize(out.len() + MEBIBYTE, b'a');
            self.seen.lock().answers += 1;
            used += 1;
        }
        if used > 0 {
            return Ok(used);
        }
        if bytes == b"*" {
            for _ in 0..3 {
                owed.push(0, Box::pin(std::future::ready(limits::UNSENT_BYTES_MAX)));
            }
            return Ok(1);
        }
        if bytes == b"%" {
            owed.push(0, Box::pin(std::future::pending()));
            return Ok(1);
        }
        if bytes.starts_with(b"~") {
            let begun = Instant::now();
            while begun.elapsed() < limits::PASS_TIME {}
            return Ok(bytes.len());
        }
        if bytes.ends_with(b"^") {
            owed.block(Box::pin(std::future::pending()));
            return Ok(bytes.len());
        }
        if bytes.ends_with(b"?") {
            self.works = true;
            owed.block(Box::pin(async {
                tokio::task::yield_now().await;
                0
            }));
            return Ok(bytes.len());
        }
        Ok(if bytes.ends_with(b"!") { bytes.len() } else { 0 })
    }

    fn finish(&mut self, bytes: usize, out: &mut Vec<u8>, _: &mut Owed<Self>) -> Result<(), ()> {
        out.resize(out.len() + bytes, b'r');
        let mut seen = self.seen.lock();
        (seen.finished, seen.answers) = (true, seen.answers + 1);
        Ok(())
    }

    fn account(&self) -> Option<Account> {
        self.memory.as_ref().map(|memory| memory.open(stranger()))
    }

    fn cores(&self) -> Option<&Arc<Cores>> {
        self.cores.as_ref()
    }

    fn asker(&self) -> Option<Asker> {
        Some(asker())
    }

    fn set_waker(&self, _: &Waker) {}

    fn poll_pushed(
        &mut self,
        _: &mut Context<'_>,
        _: &mut Pass,
        _: usize,
        _: &mut Vec<u8>,
    ) -> Result<bool, ()> {
        if self.works { Err(()) } else { Ok(false) }
    }

    fn last_replies(&self, (): &(), _: bool) -> LastReplies {
        LastReplies::None
    }

    fn idle_timeout(&self) -> Option<Duration> {
        None
    }

    fn is_bound(&self) -> bool {
        true
    }

    fn is_online(&self) -> bool {
        true
    }

    fn on_bytes(&mut self, _: usize, _: Timestamp) {}

    fn on_written(&self, _: usize) {}

    fn on_timeout(&self) {}

    fn on_made_way(&self) {}

    fn on_eof(&self) {}

    fn turn(&self) -> Option<Instant> {
        self.turn
    }

    fn has_session(&self) -> bool {
        true
    }

    fn farewell(&mut self, (): &(), _: &mut Vec<u8>) {}

    async fn end(self, (): (), _: Owed<Self>) {
        self.seen.lock().ended = true;
    }
}

impl Held for usize {
    fn bytes(&self) -> usize {
        *self
    }
}

fn info() -> ConnInfo {
    ConnInfo::new(Protocol::Tcp, "192.0.2.1:5".parse().expect("an address"))
}

fn stranger() -> Payer {
    Payer::stranger(&info())
}

fn asker() -> Asker {
    crate::app::stranger(&info())
}

/// A connection over a socket; `inside`: over what is inside another stream, such as a tunnel.
async fn over_tcp(probe: Probe, inside: bool) -> (TcpStream, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let near = TcpStream::connect(address).await.expect("a connection");
    let (far, _) = listener.accept().await.expect("accepted");
    let stream = Stream::Tcp(far);
    let stream = if inside { Stream::Boxed(Box::new(stream)) } else { stream };
    (near, tokio::spawn(serve(probe, stream, CancellationToken::new())))
}

/// A connection whose peer's words come in pieces of `piece` bytes.
fn probe(piece: usize) -> (DuplexStream, Arc<Mutex<Seen>>, impl Future<Output = ()>) {
    probe_in(piece, None)
}

/// The same, which counts in this budget.
fn probe_in(
    piece: usize,
    memory: Option<Arc<Memory>>,
) -> (DuplexStream, Arc<Mutex<Seen>>, impl Future<Output = ()>) {
    let (near, far) = tokio::io::duplex(piece);
    let seen = Arc::<Mutex<Seen>>::default();
    let probe = Probe { seen: seen.clone(), memory, ..Probe::default() };
    let served = serve(probe, Stream::Boxed(Box::new(far)), CancellationToken::new());
    (near, seen, served)
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_is_not_copied_with_every_byte() {
    let (mut near, seen, served) = probe(1);
    let sent = async {
        near.write_all(&[b'x'; 20_000]).await.expect("sent");
        near.write_all(b"!").await.expect("sent");
        drop(near);
    };
    tokio::join!(sent, served);
    let places = &seen.lock().places;
    assert!(places.len() > 10_000, "{} pieces", places.len());
    let moves = places.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(moves < 100, "{moves} copies");
}

#[tokio::test]
async fn work_is_finished_when_the_connection_closes_meanwhile() {
    let (mut near, seen, served) = probe(16);
    near.write_all(b"?").await.expect("sent");
    served.await;
    assert!(seen.lock().finished);
}

#[tokio::test]
async fn questions_wait_until_the_answers_to_others_are_read() {
    let (mut near, seen, served) = probe(4 * MEBIBYTE);
    near.write_all(&[b'#'; 100]).await.expect("sent");
    let mut served = std::pin::pin!(served);
    let pending = poll_fn(|cx| Poll::Ready(served.as_mut().poll(cx).is_pending())).await;
    assert!(pending);
    let answers = seen.lock().answers;
    // What one call writes comes on top of what waits already, and some has left.
    assert!(answers <= 2 * limits::UNSENT_BYTES_MAX / MEBIBYTE + 4, "{answers} in memory");
    let read = async {
        let mut answers = vec![0; 100 * MEBIBYTE];
        near.read_exact(&mut answers).await.expect("all answers");
        drop(near);
    };
    tokio::join!(read, served);
    assert_eq!(seen.lock().answers, 100);
}

#[tokio::test]
async fn replies_for_which_there_was_no_room_come_without_another_question() {
    let most = 3 * limits::UNSENT_BYTES_MAX;
    // All that is written leaves at once, so that nobody waits for room.
    let (mut near, _, served) = probe(2 * most);
    near.write_all(b"*").await.expect("sent");
    let read = async {
        near.read_exact(&mut vec![0; most]).await.expect("all replies");
        drop(near);
    };
    tokio::join!(read, served);
}

#[tokio::test]
async fn of_replies_that_nobody_reads_no_more_than_one_is_there() {
    let (mut near, seen, served) = probe(MEBIBYTE);
    near.write_all(b"*").await.expect("sent");
    let mut served = std::pin::pin!(served);
    for _ in 0..10 {
        let pending = poll_fn(|cx| Poll::Ready(served.as_mut().poll(cx).is_pending())).await;
        assert!(pending && seen.lock().answers <= 1);
    }
    let read = async {
        let mut replies = vec![0; 3 * limits::UNSENT_BYTES_MAX];
        near.read_exact(&mut replies).await.expect("all replies");
        drop(near);
    };
    tokio::join!(read, served);
    assert_eq!(seen.lock().answers, 3);
}

#[tokio::test]
async fn who_takes_nothing_is_given_up_and_who_is_slow_is_not() {
    // Its last words are waited for as well.
    let wait = limits::LAST_WORDS_WAIT + limits::LINGER_WAIT + 2 * Probe::STALL_WAIT;
    for takes in [false, true] {
        let (mut near, _, served) = probe(16);
        near.write_all(b"#").await.expect("sent");
        let peer = async {
            loop {
                tokio::time::sleep(Probe::STALL_WAIT / 10).await;
                if takes {
                    near.read_exact(&mut [0]).await.expect("a byte");
                }
            }
        };
        let ended = tokio::select! {
            () = served => true,
            () = peer => false,
            () = tokio::time::sleep(wait) => false,
        };
        assert_eq!(ended, !takes);
    }
}

#[tokio::test]
async fn who_has_ended_its_own_side_gets_the_whole_answer() {
    let (mut near, _, served) = probe(MEBIBYTE);
    near.write_all(b"####").await.expect("sent");
    near.shutdown().await.expect("ended");
    let read = async {
        // Longer than others are waited for.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let mut answers = Vec::new();
        near.read_to_end(&mut answers).await.expect("answers");
        answers.len()
    };
    let (length, ()) = tokio::join!(read, served);
    assert_eq!(length, 4 * MEBIBYTE);
}
/// Lets all other tasks run until they wait.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_waits_for_memory_goes_on_however_often_it_is_short() {
    let memory = Memory::new(Some(MEBIBYTE as u64), &Arc::default());
    let (mut near, seen, served) = probe_in(MEBIBYTE, Some(memory.clone()));
    let served = tokio::spawn(served);
    near.write_all(&[b'x'; MEBIBYTE / 8]).await.expect("sent");
    settle().await;
    let mut large = memory.open(stranger());
    large.set(MEBIBYTE);
    assert!(large.is_over());
    for _ in 0..3 {
        large.set(2 * MEBIBYTE);
        let before = seen.lock().places.len();
        near.write_all(b"x").await.expect("sent");
        settle().await;
        assert_eq!(seen.lock().places.len(), before, "it waits");
        large.set(MEBIBYTE / 2);
        settle().await;
        assert_eq!(seen.lock().places.len(), before + 1, "it goes on");
    }
    drop(near);
    served.await.expect("served");
}

#[tokio::test]
async fn what_is_worked_on_counts() {
    let pools = Arc::<Pools>::default();
    let memory = Memory::new(Some(64 * MEBIBYTE as u64), &pools);
    let (mut near, _, served) = probe_in(MEBIBYTE, Some(memory));
    let served = tokio::spawn(served);
    let used = || pools.usage(Pool::Memory).used() as usize;
    near.write_all(&[b'x'; MEBIBYTE / 2]).await.expect("sent");
    settle().await;
    let half = used();
    near.write_all(b"^").await.expect("sent");
    settle().await;
    assert!(half >= MEBIBYTE / 2 && used() >= MEBIBYTE / 2, "{half} {}", used());
    served.abort();
    settle().await;
    assert_eq!(used(), 0);
}

#[tokio::test]
async fn what_a_peer_that_has_gone_did_not_read_is_dropped_before_its_end_has_its_turn() {
    let pools = Arc::<Pools>::default();
    let memory = Some(Memory::new(Some(64 * MEBIBYTE as u64), &pools));
    let turn = Some(Instant::now() + Duration::from_secs(3600));
    let (mut near, served) = over_tcp(Probe { memory, turn, ..Probe::default() }, false).await;
    let used = || pools.usage(Pool::Memory).used() as usize;
    let until = async |is_so: &dyn Fn(usize) -> bool| {
        while !is_so(used()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    near.write_all(&[b'#'; 16]).await.expect("sent");
    until(&|used| used > 0).await;
    // The rest of its questions is not read any more. As answers are left, it is a reset.
    near.write_all(&[b'#'; 16]).await.expect("sent");
    drop(near);
    until(&|used| used == 0).await;
    assert!(!served.is_finished());
    served.abort();
}

#[tokio::test]
async fn who_has_gone_without_an_answer_needs_no_turn_for_the_rest() {
    let (of_network, holder) = asker();
    assert_ne!(of_network, OrgId::from_bytes([9; 12]));
    let other = (OrgId::from_bytes([9; 12]), holder);
    let used = [(asker(), Duration::from_millis(60)), (other, Duration::from_millis(1))];
    for (goes, inside) in [(false, false), (true, false), (true, true)] {
        let (cores, seen) = (Cores::full(1, &used), Arc::<Mutex<Seen>>::default());
        let probe = Probe {
            seen: seen.clone(),
            cores: Some(cores.clone()),
            turn: Some(Instant::now() + Duration::from_secs(2)),
            ..Probe::default()
        };
        let (mut near, served) = over_tcp(probe, inside).await;
        near.write_all(b"%").await.expect("sent");
        while seen.lock().places.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let turn = cores.clone().turn(asker()).await;
        near.write_all(b"####").await.expect("sent");
        if goes {
            near.set_zero_linger().expect("a reset");
            drop(near);
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(turn);
            let _turn = cores.turn(asker()).await;
            assert!(!seen.lock().ended, "its end waits, and not with a turn");
            served.await.expect("served");
            assert_eq!(seen.lock().answers, 0);
        } else {
            drop(turn);
            near.read_exact(&mut vec![0; 4 * MEBIBYTE]).await.expect("answers");
            served.abort();
        }
    }
}

#[tokio::test]
async fn others_come_between_the_parts_of_what_takes_long() {
    const PARTS: usize = 8;
    let (mut near, seen, served) = probe(limits::READ_BYTES);
    near.write_all(&vec![b'~'; PARTS * limits::PASS_PART_BYTES]).await.expect("sent");
    drop(near);
    let mut served = std::pin::pin!(served);
    for part in 1..PARTS {
        assert!(futures_util::poll!(&mut served).is_pending());
        assert_eq!(seen.lock().places.len(), part);
    }
    served.await;
    assert_eq!(seen.lock().places.len(), PARTS);
}

#[tokio::test]
async fn what_a_peer_that_has_ended_its_own_side_does_not_read_counts() {
    for reads in [true, false] {
        let pools = Arc::<Pools>::default();
        let memory = Memory::new(Some(8 * MEBIBYTE as u64), &pools);
        let (mut near, _, served) = probe_in(MEBIBYTE / 4, Some(memory.clone()));
        let served = tokio::spawn(served);
        near.write_all(b"####").await.expect("sent");
        near.shutdown().await.expect("ended");
        settle().await;
        let used = || pools.usage(Pool::Memory).used() as usize;
        assert!(used() > 3 * MEBIBYTE, "{} bytes", used());
        if reads {
            near.read_exact(&mut vec![0; 3 * MEBIBYTE]).await.expect("a part");
            settle().await;
            assert!(used() < 2 * MEBIBYTE, "{} bytes", used());
        } else {
            let mut other = memory.open(stranger());
            other.set(7 * MEBIBYTE / 2);
            settle().await;
            assert!(served.is_finished() && !other.is_over(), "the largest closes at once");
        }
        drop(near);
        served.await.expect("served");
        assert_eq!(used(), 0);
    }
}
