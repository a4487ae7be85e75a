//! When a device sends its next command, and how many wait for an answer. Without socket and clock:
//! `now` is an argument.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::report::{Board, Reason};

/// The rules that one device sends by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Commands that may be on their way.
    pub window: usize,
    /// The first command is due then.
    pub start: Instant,
    /// Time between two commands; `None` to send whenever the window lets one through.
    pub interval: Option<Duration>,
    /// No command is sent from then on.
    pub end: Instant,
    /// A command without an answer for so long is lost.
    pub timeout: Duration,
}

/// The commands of one device, numbered from 0; counted on the fleet's board.
pub(super) struct Flow<'a> {
    pace: Pace,
    board: &'a Board,
    due: Instant,
    /// When each command from `first_id` on was sent; `None` once it is answered.
    sent: VecDeque<Option<Instant>>,
    first_id: u32,
    /// Why the last command could not be sent in time was the window, not the timer.
    held_back: bool,
}

impl<'a> Flow<'a> {
    pub(super) fn new(pace: Pace, board: &'a Board) -> Self {
        let sent = VecDeque::new();
        Self { due: pace.start, pace, board, sent, first_id: 0, held_back: false }
    }

    /// The id to send a command under, if one is due and the window is open.
    pub(super) fn next(&mut self, now: Instant) -> Option<u32> {
        if now >= self.pace.end || now < self.due {
            return None;
        }
        if self.sent.len() >= self.pace.window {
            self.held_back = self.pace.interval.is_some();
            return None;
        }
        // A command that waited for the window counts from when it was due: a server that stalls
        // must not look fast because it was asked less. One that waited for the timer's next
        // millisecond counts from now.
        self.sent.push_back(Some(if self.held_back { self.due } else { now }));
        self.held_back = false;
        if let Some(interval) = self.pace.interval {
            self.due += interval;
        }
        let id = self.first_id.wrapping_add(self.sent.len() as u32 - 1);
        self.board.sent.fetch_add(1, Relaxed);
        Some(id)
    }

    /// Counts the answer to `id`, or to the oldest command where answers come in order. One that
    /// nobody waits for (it was lost before) is not counted again.
    pub(super) fn answered(&mut self, id: Option<u32>, outcome: Result<(), Reason>, now: Instant) {
        let index = id.map_or(0, |id| id.wrapping_sub(self.first_id) as usize);
        let Some(sent) = self.sent.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.board.latency.record(now.saturating_duration_since(sent));
        self.board.answered.fetch_add(1, Relaxed);
        if let Err(reason) = outcome {
            self.board.count_failure(reason);
        }
        self.forget_answered();
    }

    /// Gives up commands that have waited too long, and returns how many.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        while let Some(Some(sent)) = self.sent.front()
            && now.saturating_duration_since(*sent) >= self.pace.timeout
        {
            lost += 1;
            self.sent.pop_front();
            self.first_id = self.first_id.wrapping_add(1);
            self.forget_answered();
        }
        self.board.lost.fetch_add(lost, Relaxed);
        lost
    }

    /// When there is something to do though nothing was answered.
    pub(super) fn wake(&self, now: Instant) -> Instant {
        let patience = self.sent.front().and_then(|sent| Some((*sent)? + self.pace.timeout));
        let end = if now < self.pace.end { Some(self.pace.end) } else { None };
        let open = now < self.pace.end && self.sent.len() < self.pace.window;
        let due = open.then_some(self.due).filter(|_| self.pace.interval.is_some());
        let start = Some(self.pace.start).filter(|start| *start > now);
        let wake = [patience, end, due, start].into_iter().flatten().min();
        wake.unwrap_or(now + self.pace.timeout)
    }

    /// Whether no more commands are sent and none is on its way.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.pace.end && self.sent.is_empty()
    }

    /// Sends nothing more; what is on its way gets `patience`.
    pub(super) fn stop(&mut self, now: Instant, patience: Duration) {
        self.pace.end = now;
        self.pace.timeout = self.pace.timeout.min(patience);
    }

    fn forget_answered(&mut self) {
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first_id = self.first_id.wrapping_add(1);
        }
    }
}

impl Drop for Flow<'_> {
    /// What is still on its way has nobody left to wait for it.
    fn drop(&mut self) {
        let waiting = self.sent.iter().flatten().count();
        self.board.lost.fetch_add(waiting as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace(start: Instant, window: usize, interval: Option<Duration>) -> Pace {
        Pace { window, start, interval, end: start + 1000 * MS, timeout: 100 * MS }
    }

    fn counts(board: &Board) -> [u64; 4] {
        [&board.sent, &board.answered, &board.failed, &board.lost].map(|count| count.load(Relaxed))
    }

    #[test]
    fn a_window_bounds_what_is_on_its_way() {
        let (board, start) = (Board::default(), Instant::now());
        let mut flow = Flow::new(pace(start, 2, None), &board);
        assert_eq!(
            [flow.next(start), flow.next(start), flow.next(start)],
            [Some(0), Some(1), None]
        );
        flow.answered(Some(1), Ok(()), start + MS);
        assert_eq!(flow.next(start + MS), None, "the oldest is still on its way");
        flow.answered(Some(0), Err(Reason::own("no")), start + MS);
        assert_eq!(flow.next(start + MS), Some(2));
        flow.answered(Some(7), Ok(()), start + MS);
        flow.answered(Some(0), Ok(()), start + MS);
        assert_eq!(counts(&board), [3, 2, 1, 0]);
        drop(flow);
        assert_eq!(counts(&board), [3, 2, 1, 1]);
    }

    #[test]
    fn answers_in_order_need_no_id() {
        let (board, start) = (Board::default(), Instant::now());
        let mut flow = Flow::new(pace(start, 3, None), &board);
        assert_eq!([flow.next(start), flow.next(start)], [Some(0), Some(1)]);
        flow.answered(None, Ok(()), start + MS);
        flow.answered(None, Ok(()), start + MS);
        flow.answered(None, Ok(()), start + MS);
        assert_eq!(counts(&board), [2, 2, 0, 0]);
    }

    #[test]
    fn a_rate_spaces_commands_and_catches_up_after_a_stall() {
        let (board, start) = (Board::default(), Instant::now());
        let mut flow = Flow::new(pace(start, 1, Some(10 * MS)), &board);
        assert_eq!(flow.wake(start), start);
        assert_eq!([flow.next(start), flow.next(start + 5 * MS)], [Some(0), None]);
        assert_eq!(flow.next(start + 10 * MS), None, "the window is full");
        flow.answered(Some(0), Ok(()), start + 35 * MS);
        // Due at 10 ms, sent at 35 ms, answered at 36 ms: 26 ms.
        assert_eq!(flow.next(start + 35 * MS), Some(1));
        flow.answered(Some(1), Ok(()), start + 36 * MS);
        assert_eq!(flow.next(start + 36 * MS), Some(2));
        assert_eq!(board.latency.max(), 35 * MS);
        let median = board.latency.quantile(0.5).as_micros();
        assert!((25_700..26_300).contains(&median), "{median}");
    }

    #[test]
    fn silence_is_a_loss_and_a_late_answer_stays_one() {
        let (board, start) = (Board::default(), Instant::now());
        let mut flow = Flow::new(pace(start, 1, None), &board);
        assert_eq!(flow.next(start), Some(0));
        assert_eq!(flow.wake(start), start + 100 * MS);
        assert_eq!((flow.expire(start + 99 * MS), flow.expire(start + 100 * MS)), (0, 1));
        flow.answered(Some(0), Ok(()), start + 101 * MS);
        assert_eq!(flow.next(start + 101 * MS), Some(1));
        assert_eq!(counts(&board), [2, 0, 0, 1]);
    }

    #[test]
    fn after_the_end_only_answers_are_waited_for() {
        let (board, start) = (Board::default(), Instant::now());
        let mut flow = Flow::new(pace(start, 1, None), &board);
        assert_eq!(flow.next(start + 999 * MS), Some(0));
        let end = start + 1000 * MS;
        assert!(!flow.is_over(end));
        assert_eq!(flow.wake(end), start + 1099 * MS);
        flow.answered(None, Ok(()), end);
        assert!(flow.is_over(end));
        assert_eq!(flow.next(end), None);
    }
}
