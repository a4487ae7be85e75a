//! Group commit: one thread takes all changes that wait and commits them as one group, so that
//! many connections share one write and one sync.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use base::histogram::Histogram;
use base::pool::{OverShare, Pool, Pools};
use base::shares::Shares;
use base::{Holder, OrgId, STRANGERS, current_asker, limits};
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::{Batch, Change, LOG_TARGET, Room, Store, StoreError, Table};

/// What a commit survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The end of the process (`kill -9`): the changes are with the operating system.
    Os,
    /// The loss of power: the changes are on the disk.
    Disk,
}

/// The way to change the store. A clone is a second handle of the same writer.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Work>,
    /// Held until a batch is in the queue, so that what waits for a key is always the last that was
    /// submitted.
    entry: Arc<Mutex<Entry>>,
    waiting: Arc<Waiting>,
    room: Arc<Room>,
}

/// What a batch gets when it enters the queue.
struct Entry {
    /// The number of the next.
    next: u64,
    /// A part of what waits beyond [`limits::STORE_QUEUE_FREE`].
    shares: Shares<Option<Holder>>,
}

/// What is asked before a batch is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whether disk and share have room.
    Ordinary,
    /// Nothing: it is small, and takes something away though it puts a row.
    Removal,
    /// Whether the disk has: the share had when it was asked.
    Admitted,
}

/// Whose share a batch is a part of, and how much it is.
type Part = (OrgId, Option<Holder>, u64);

/// For whom this thread works; the server's own work is one of the strangers.
fn owner() -> (OrgId, Option<Holder>) {
    current_asker().map_or((STRANGERS, None), |(org, holder)| (org, Some(holder)))
}

/// The number of a batch and the value that it puts; none: it removes the key.
type NumberedValue = (u64, Option<Vec<u8>>);

/// What was submitted and is not committed, for readers that must not miss it.
#[derive(Default)]
struct Waiting {
    values: DashMap<(Table, Vec<u8>), NumberedValue>,
    /// The memory that all batches take which are not committed.
    bytes: AtomicUsize,
    /// Whether the writer is to end even though the store fails.
    stopping: AtomicBool,
    /// What commits took.
    commits: Histogram,
    /// Errors by [`WriteError`].
    errors: [AtomicU64; WriteError::ALL.len()],
}

/// Why changes were not taken, or not committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// The queue was full.
    Busy,
    /// The disk has no room.
    NoRoom,
    /// The engine does not work, or the writer has stopped.
    Unavailable,
    /// A commit failed. It may have been tried again.
    Commit,
}

impl WriteError {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Busy, Self::NoRoom, Self::Unavailable, Self::Commit];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NoRoom => "no_room",
            Self::Unavailable => "unavailable",
            Self::Commit => "commit",
        }
    }
}

impl Waiting {
    fn count_error(&self, error: WriteError) {
        if let Some(count) = self.errors.get(error as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn add(&self, number: u64, batch: &Batch) {
        for change in &batch.0 {
            let (table, key, value) = match change {
                Change::Put(table, key, value) => (table, key, Some(value)),
                Change::Delete(table, key) => (table, key, None),
            };
            if table.shows_waiting(key) {
                self.values.insert((*table, key.clone()), (number, value.cloned()));
            }
        }
    }

    fn remove(&self, number: u64, batch: Batch) {
        for change in batch.0 {
            let (Change::Put(table, key, _) | Change::Delete(table, key)) = change;
            if table.shows_waiting(&key) {
                self.values.remove_if(&(table, key), |_, (last, _)| *last == number);
            }
        }
    }
}

impl Writer {
    /// Starts the writer's thread.
    pub fn spawn(store: Arc<dyn Store>, durability: Durability, pools: &Arc<Pools>) -> Self {
        let (queue, work) = mpsc::channel(limits::STORE_QUEUE_MAX);
        let waiting = Arc::<Waiting>::default();
        let shared = limits::STORE_QUEUE_BYTES_MAX - limits::STORE_QUEUE_FREE;
        let shares = Shares::new(Pool::StoreQueue, shared as u64, pools);
        let entry = Arc::new(Mutex::new(Entry { next: 0, shares }));
        let writer = Self { queue, entry, waiting, room: store.room().clone() };
        let (entry, waiting) = (writer.entry.clone(), writer.waiting.clone());
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&*store, durability, (&entry, &waiting), work))
            .expect("the system has a thread left when the program starts");
        writer
    }

    /// Hands changes over, to be committed after all that was submitted before. Who does not
    /// wait for the receipt finds a failure in the log.
    ///
    /// What is taken is committed, if need be when the store works again: whoever has changed its
    /// own state with it need not take that back.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the queue is full, or half of it and whoever this thread works for has
    /// its share of the rest; [`StoreError::Closed`] after `stop`, and what
    /// [`Room::admit`] says.
    pub fn submit(&self, batch: Batch) -> Result<Receipt, StoreError> {
        if batch.0.is_empty() {
            return Ok(Receipt::nothing());
        }
        self.queue(batch, Kind::Ordinary)
    }

    /// The same for changes for which [`Writer::has_room`] has found room, and after that state was
    /// changed which can't be changed back: others of the same share may have taken it meanwhile.
    ///
    /// # Errors
    /// As [`Writer::submit`]; not for a share that is used up.
    pub fn submit_admitted(&self, batch: Batch) -> Result<Receipt, StoreError> {
        if batch.0.is_empty() {
            return Ok(Receipt::nothing());
        }
        self.queue(batch, Kind::Admitted)
    }

    /// The same for a small change that takes something away though it puts a row: below the mark, too,
    /// and whatever others of the same share have in the queue.
    ///
    /// # Errors
    /// As [`Writer::submit`]; not for the disk, nor for a share that is used up.
    pub fn submit_removal(&self, batch: Batch) -> Result<Receipt, StoreError> {
        self.queue(batch, Kind::Removal)
    }

    /// A receipt that resolves when all that was submitted before is committed: from then on a scan
    /// sees it.
    ///
    /// # Errors
    /// As [`Writer::submit`].
    pub fn barrier(&self) -> Result<Receipt, StoreError> {
        self.queue(Batch::default(), Kind::Ordinary)
    }

    /// Whether the store takes something small that adds, as far as its disk and its engine are
    /// concerned: for those who change their own state before they submit.
    ///
    /// # Errors
    /// As [`Room::admit`].
    pub fn check(&self) -> Result<(), StoreError> {
        self.room.admit_bytes(|| true, self.waiting.bytes.load(Ordering::Relaxed) + 1)
    }

    /// Whether a batch of so many bytes would find room in the queue now.
    pub fn has_room(&self, bytes: usize) -> bool {
        let (org, holder) = owner();
        self.is_uncounted() || self.entry.lock().shares.has_room(org, holder, cost(bytes)).is_ok()
    }

    /// Whether so little waits that it does not matter whose it is.
    fn is_uncounted(&self) -> bool {
        self.queue.capacity() > limits::STORE_QUEUE_MAX / 2
            && self.waiting.bytes.load(Ordering::Relaxed) < limits::STORE_QUEUE_FREE
    }

    /// The part of a batch of so many bytes, which is taken.
    fn take_part(
        &self,
        entry: &mut Entry,
        bytes: usize,
        kind: Kind,
    ) -> Result<Option<Part>, OverShare> {
        if self.is_uncounted() || kind == Kind::Removal {
            return Ok(None);
        }
        let ((org, holder), cost) = (owner(), cost(bytes));
        match kind {
            Kind::Admitted => entry.shares.hold(org, holder, cost),
            _ => entry.shares.take(org, holder, cost)?,
        }
        Ok(Some((org, holder, cost)))
    }

    fn queue(&self, batch: Batch, kind: Kind) -> Result<Receipt, StoreError> {
        self.try_queue(batch, kind).inspect_err(|error| {
            self.waiting.count_error(match error {
                StoreError::Busy(_) => WriteError::Busy,
                StoreError::NoRoom => WriteError::NoRoom,
                _ => WriteError::Unavailable,
            });
        })
    }

    fn try_queue(&self, batch: Batch, kind: Kind) -> Result<Receipt, StoreError> {
        let (answer, answered) = oneshot::channel();
        let mut entry = self.entry.lock();
        let (bytes, waiting) = (batch.bytes(), self.waiting.bytes.load(Ordering::Relaxed));
        self.room.admit_bytes(|| kind != Kind::Removal && batch.adds(), bytes + waiting)?;
        let place = self.queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => StoreError::BUSY,
            mpsc::error::TrySendError::Closed(()) => StoreError::Closed,
        })?;
        let part = self.take_part(&mut entry, bytes, kind).map_err(StoreError::Busy)?;
        let number = entry.next;
        entry.next += 1;
        self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.waiting.add(number, &batch);
        place.send(Work::Commit(number, batch, part, answer));
        Ok(Receipt::of(answered))
    }

    /// The value that waits to be committed under this key; `Some(None)` when its removal waits.
    pub(super) fn waiting_value(&self, table: Table, key: &[u8]) -> Option<Option<Vec<u8>>> {
        self.waiting.values.get(&(table, key.to_vec())).map(|entry| entry.1.clone())
    }

    /// How many batches wait.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// The memory that those take which are not committed.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.bytes.load(Ordering::Relaxed)
    }

    /// What commits of groups took, the sync included.
    pub fn commit_times(&self) -> &Histogram {
        &self.waiting.commits
    }

    /// How often this happened since the start.
    pub fn errors(&self, error: WriteError) -> u64 {
        self.waiting.errors.get(error as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Commits what waits, makes it survive the loss of power, and ends the thread. Nothing is
    /// taken afterwards; a second call does nothing.
    ///
    /// # Errors
    /// What the store reports for the last sync.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.waiting.stopping.store(true, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        if self.queue.send(Work::Stop(answer)).await.is_err() {
            return Ok(());
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// How much of the queue a batch of so many bytes counts.
fn cost(bytes: usize) -> u64 {
    bytes.max(limits::STORE_QUEUE_BATCH_BYTES) as u64
}

/// For changes that were submitted: resolves when they are as durable as promised. Whoever does
/// not wait for it finds a failure in the log.
#[derive(Debug, Default)]
#[must_use = "without waiting nobody knows whether the changes are durable"]
pub struct Receipt {
    last: Option<oneshot::Receiver<Stored>>,
    /// For what was submitted before.
    others: Vec<oneshot::Receiver<Stored>>,
}

/// What became of a batch.
type Stored = Result<(), StoreError>;

impl Receipt {
    /// Resolves at once: there was nothing to store.
    pub fn nothing() -> Self {
        Self::default()
    }

    const fn of(answered: oneshot::Receiver<Stored>) -> Self {
        Self { last: Some(answered), others: Vec::new() }
    }

    /// Whether it is for nothing.
    pub fn is_nothing(&self) -> bool {
        self.last.is_none()
    }

    /// A receipt for both.
    pub fn and(self, mut other: Self) -> Self {
        if other.is_nothing() {
            return self;
        }
        other.others.extend(self.others);
        other.others.extend(self.last);
        other
    }

    /// The same receipt, with work that runs as soon as the changes are durable (true) or lost
    /// (false), whether or not somebody still waits for the receipt, which resolves first.
    pub fn followed_by(self, work: impl FnOnce(bool) + Send + 'static) -> Self {
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let stored = self.await;
            let durable = stored.is_ok();
            // Nobody need wait for it.
            let _ = answer.send(stored);
            work(durable);
        });
        Self::of(answered)
    }
}

impl Future for Receipt {
    type Output = Stored;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Stored> {
        // The writer goes in order: the last is the one to wait for, those before it are there then.
        while let Some(last) = &mut self.last {
            let stored = ready!(Pin::new(last).poll(cx)).unwrap_or(Err(StoreError::Closed));
            self.last = self.others.pop();
            stored?;
        }
        Poll::Ready(Ok(()))
    }
}

type Answer = oneshot::Sender<Stored>;

enum Work {
    Commit(u64, Batch, Option<Part>, Answer),
    Stop(Answer),
}

/// The thread: ends after `stop`, or when the last handle is gone.
fn run(
    store: &dyn Store,
    durability: Durability,
    (entry, waiting): (&Mutex<Entry>, &Waiting),
    mut queue: mpsc::Receiver<Work>,
) {
    let mut work = Vec::with_capacity(limits::GROUP_BATCHES_MAX);
    let mut stops = Vec::new();
    let mut failing = false;
    while queue.blocking_recv_many(&mut work, limits::GROUP_BATCHES_MAX) > 0 {
        let mut batches = Vec::with_capacity(work.len());
        let (mut numbers, mut answers, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for item in work.drain(..) {
            match item {
                Work::Commit(number, batch, part, answer) => {
                    numbers.push(number);
                    parts.extend(part);
                    batches.push(batch);
                    answers.push(answer);
                }
                Work::Stop(answer) => {
                    queue.close();
                    stops.push(answer);
                }
            }
        }
        let committed = commit_or_hold(store, durability, waiting, &batches, &mut answers);
        // One line, not one for each group.
        if let (Err(error), false) = (&committed, failing) {
            let error = &**error as &dyn std::error::Error;
            error!(target: LOG_TARGET, error, "changes are lost");
        }
        failing = committed.is_err();
        // Committed or lost: in either case the store is the one to ask from now on.
        let bytes = batches.iter().map(Batch::bytes).sum();
        for (number, batch) in numbers.into_iter().zip(batches) {
            waiting.remove(number, batch);
        }
        waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if !parts.is_empty() {
            let shares = &mut entry.lock().shares;
            parts.into_iter().for_each(|(org, who, amount)| shares.give_back(org, who, amount));
        }
        answer_all(answers, &committed);
    }
    let synced = store.finish().map_err(Arc::new);
    if let Err(error) = &synced {
        let error = &**error as &dyn std::error::Error;
        error!(target: LOG_TARGET, error, "the last changes may be lost");
    }
    answer_all(stops, &synced);
}

/// Commits a group. Of a store that fails and may recover, it waits for that, and commits the group
/// then: state in memory has it already, and a commit that failed halfway changes nothing about what
/// it writes. Who waits for a receipt hears of it when that takes long.
fn commit_or_hold(
    store: &dyn Store,
    durability: Durability,
    waiting: &Waiting,
    batches: &[Batch],
    answers: &mut Vec<Answer>,
) -> Result<(), Arc<StoreError>> {
    let since = Instant::now();
    loop {
        let begun = Instant::now();
        let error = match commit(store, durability, batches) {
            Ok(()) => {
                if !batches.is_empty() {
                    waiting.commits.note(begun.elapsed());
                }
                return Ok(());
            }
            Err(error) => error,
        };
        waiting.count_error(WriteError::Commit);
        let is_engine = matches!(error, StoreError::Engine { .. } | StoreError::Unavailable);
        let ends = waiting.stopping.load(Ordering::Relaxed);
        if ends || !is_engine || !store.recovers(limits::STORE_CHECK_EVERY) {
            return Err(Arc::new(error));
        }
        if since.elapsed() >= limits::STORE_HELD_WAIT {
            for answer in answers.drain(..) {
                let _ = answer.send(Err(StoreError::Held));
            }
        }
    }
}

fn commit(store: &dyn Store, durability: Durability, batches: &[Batch]) -> Result<(), StoreError> {
    if batches.is_empty() {
        return Ok(());
    }
    store.commit(batches)?;
    store.room().wrote(batches);
    match durability {
        Durability::Os => Ok(()),
        Durability::Disk => store.sync(),
    }
}

/// Resolves the receipts. One whose holder has gone meanwhile needs no answer.
fn answer_all(answers: Vec<Answer>, outcome: &Result<(), Arc<StoreError>>) {
    for answer in answers {
        let _ = answer.send(outcome.clone().map_err(|shared| StoreError::Engine {
            doing: "commit a group of changes",
            source: Box::new(shared),
        }));
    }
}

#[cfg(test)]
mod tests {
    use base::pool::Whose;
    use base::{Asker, PrincipalId, UserId, working_for};

    use super::*;
    use crate::Month;
    use crate::watched::{Step, Watched};

    fn batch(key: &str) -> Batch {
        let mut batch = Batch::default();
        batch.put(Table::Things, key, "value");
        batch
    }

    #[tokio::test]
    async fn what_waits_is_committed_as_one_group() {
        let store = Arc::new(Watched::default());
        let writer = Writer::spawn(store.clone(), Durability::Disk, &Arc::default());
        let closed_gate = store.gate.lock();
        drop(writer.submit(batch("first")).expect("room"));
        while store.commits.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        for number in 0..100 {
            drop(writer.submit(batch(&format!("{number}"))).expect("room"));
        }
        drop(closed_gate);
        writer.submit(batch("last")).expect("room").await.expect("committed");
        assert!(store.commits.load(Ordering::SeqCst) <= 3, "the hundred share a commit");
        assert_eq!(store.commits.load(Ordering::SeqCst), store.syncs.load(Ordering::SeqCst));
        assert!(store.read(Table::Things, b"99").expect("read").is_some());
    }

    #[tokio::test]
    async fn what_waits_can_be_read() {
        let store = Arc::new(Watched::default());
        let writer = Writer::spawn(store.clone(), Durability::Os, &Arc::default());
        let read = |key: &str| writer.waiting_value(Table::Things, key.as_bytes());
        let closed_gate = store.gate.lock();
        drop(writer.submit(batch("a")).expect("room"));
        assert_eq!(read("a"), Some(Some(b"value".to_vec())));
        let mut removal = Batch::default();
        removal.delete(Table::Things, "a");
        let removed = writer.submit(removal).expect("room");
        assert_eq!(read("a"), Some(None));
        assert_eq!(read("b"), None);
        drop(closed_gate);
        removed.await.expect("committed");
        assert_eq!(read("a"), None);
        assert_eq!(store.read(Table::Things, b"a").expect("read"), None);
    }

    /// A batch of so many bytes that does not show while it waits.
    fn large(bytes: usize) -> Batch {
        let mut batch = Batch::default();
        batch.put(Table::Telemetry(Month(600)), "a", vec![0; bytes]);
        batch
    }

    fn asker(org: u8, id: u8) -> Option<Asker> {
        let principal = PrincipalId::User(UserId::from_bytes([id; 12]));
        Some((OrgId::from_bytes([org; 12]), Holder::Principal(principal)))
    }

    /// What is taken of this one until something is refused, and whose share is used up.
    fn fill(writer: &Writer, asker: Option<Asker>, batch: impl Fn() -> Batch) -> (usize, Whose) {
        working_for(asker, || {
            for taken in 0..=limits::STORE_QUEUE_MAX + 2 * limits::GROUP_BATCHES_MAX {
                match writer.submit(batch()) {
                    Ok(receipt) => drop(receipt),
                    Err(StoreError::Busy(over)) => return (taken, over.whose),
                    Err(error) => panic!("{error}"),
                }
            }
            panic!("the queue has no bound")
        })
    }

    #[tokio::test]
    async fn who_fills_the_queue_leaves_room_for_others() {
        // Many small batches, and few large ones.
        for bytes in [1, limits::STORE_QUEUE_BYTES_MAX / 512] {
            let pools = Arc::<Pools>::default();
            let store = Arc::new(Watched::default());
            let writer = Writer::spawn(store.clone(), Durability::Os, &pools);
            let closed_gate = store.gate.lock();
            let (taken, whose) = fill(&writer, asker(1, 1), || large(bytes));
            assert_eq!(whose, Whose::Principal);
            let all = taken * large(bytes).bytes().max(limits::STORE_QUEUE_BATCH_BYTES);
            assert!(all > limits::STORE_QUEUE_BYTES_MAX * 7 / 8, "alone it has nearly all: {all}");
            for other in [asker(1, 2), asker(2, 1), None] {
                working_for(other, || {
                    assert!(writer.has_room(bytes));
                    for _ in 0..4 {
                        drop(writer.submit(large(bytes)).expect("it is below its share"));
                    }
                });
            }
            let error = working_for(asker(1, 1), || {
                assert!(!writer.has_room(bytes));
                writer.submit(large(bytes)).expect_err("still above its share")
            });
            assert!(error.to_string().contains("you have your share"), "{error}");
            assert_eq!(pools.usage(Pool::StoreQueue).refused(), 2);
            drop(closed_gate);
            writer.barrier().expect("room").await.expect("committed");
            working_for(asker(1, 1), || writer.submit(large(bytes)).expect("room again"))
                .await
                .expect("committed");
            assert_eq!(pools.usage(Pool::StoreQueue).used(), 0);
        }
    }

    #[tokio::test]
    async fn a_batch_that_is_larger_than_the_queue_waits_until_little_does() {
        let store = Arc::new(Watched::default());
        let writer = Writer::spawn(store.clone(), Durability::Os, &Arc::default());
        let closed_gate = store.gate.lock();
        let half = writer.submit(large(limits::STORE_QUEUE_FREE)).expect("room");
        let refused = writer.submit(large(limits::STORE_QUEUE_BYTES_MAX));
        assert!(matches!(refused, Err(StoreError::Busy(_))));
        let small = writer.submit(batch("small")).expect("room");
        drop(closed_gate);
        half.await.expect("committed");
        small.await.expect("committed");
        let whole = writer.submit(large(limits::STORE_QUEUE_BYTES_MAX + 1)).expect("room");
        whole.await.expect("committed");
    }

    #[tokio::test]
    async fn a_failed_group_fails_everyone_in_it() {
        let store = Arc::new(Watched::default());
        let writer = Writer::spawn(store.clone(), Durability::Os, &Arc::default());
        store.failing.store(true, Ordering::SeqCst);
        let taken = |key| writer.submit(batch(key)).expect("room");
        let (one, two) = tokio::join!(taken("a"), taken("b"));
        for refused in [one, two] {
            assert!(matches!(refused, Err(StoreError::Engine { .. })), "{refused:?}");
        }
        store.failing.store(false, Ordering::SeqCst);
        writer.submit(batch("a")).expect("room").await.expect("the writer goes on");
    }

    #[tokio::test]
    async fn what_was_taken_is_stored_when_a_full_disk_has_room_again() {
        for step in [Step::Begin, Step::Halfway, Step::End, Step::Sync] {
            let store = Arc::new(Watched::default());
            let writer = Writer::spawn(store.clone(), Durability::Disk, &Arc::default());
            *store.full.lock() = Some(step);
            let value = |value: &str| {
                let mut batch = Batch::default();
                batch.put(Table::Things, "twice", value);
                batch
            };
            let taken: Vec<_> = [batch("a"), value("1"), batch("b"), value("2")]
                .into_iter()
                .map(|batch| tokio::spawn(writer.submit(batch).expect("room")))
                .collect();
            while store.commits.load(Ordering::SeqCst) < 3 {
                tokio::task::yield_now().await;
            }
            assert!(taken.iter().all(|stored| !stored.is_finished()), "{step:?}");
            *store.full.lock() = None;
            for stored in taken {
                stored.await.expect("a task").expect("stored");
            }
            let read = |key: &[u8]| store.read(Table::Things, key).expect("read");
            assert!(read(b"a").is_some() && read(b"b").is_some());
            assert_eq!(read(b"twice"), Some(b"2".to_vec()), "in order");
        }
    }

    #[tokio::test]
    async fn a_writer_stops_although_its_store_fails() {
        let store = Arc::new(Watched::default());
        let writer = Writer::spawn(store.clone(), Durability::Os, &Arc::default());
        *store.full.lock() = Some(Step::Begin);
        let lost = writer.submit(batch("a")).expect("room");
        while store.commits.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        drop(writer.stop().await);
        assert!(lost.await.is_err());
    }

    #[tokio::test]
    async fn stopping_drains_and_closes() {
        let store = Arc::new(Watched::default());
        let writer = Writer::spawn(store.clone(), Durability::Os, &Arc::default());
        for number in 0..3000 {
            drop(writer.submit(batch(&format!("{number}"))).expect("room"));
        }
        writer.clone().stop().await.expect("synced");
        assert!(store.read(Table::Things, b"2999").expect("read").is_some());
        assert_eq!(store.syncs.load(Ordering::SeqCst), 1);
        assert!(matches!(writer.submit(batch("a")), Err(StoreError::Closed)));
        writer.stop().await.expect("a second stop does nothing");
    }
}
