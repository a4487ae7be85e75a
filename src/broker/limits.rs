//! The bounds of the broker that the configuration does not set, with their reasons.

use std::time::Duration;

/// Commands waiting for the broker's thread. It executes some 300,000 a second; more than this only
/// adds delay.
pub(super) const COMMANDS_MAX: usize = 1024;

/// Controls waiting for a session's task: its client's acknowledgements, of which a hundred can be
/// on the way, and one change at a time.
pub(super) const CONTROLS_MAX: usize = 128;

/// Deliveries with QoS 1 or 2 that wait for their acknowledgement in one session.
pub(super) const UNACKED_MAX: usize = 100;

/// Deliveries kept for a session whose client is away; Mosquitto keeps as many. What comes then
/// stays in the router's logs as long as they hold it.
pub(super) const AWAY_MESSAGES_MAX: usize = 1000;

/// Bytes kept for a session whose client is away.
pub(super) const AWAY_BYTES_MAX: usize = 1024 * 1024;

/// Filters of one session, of `max` in all: a tenth, so that no client takes all of them; but ten,
/// which any client may need, however few there are.
pub(super) const fn session_filters_max(max: usize) -> usize {
    if max / 10 > 10 { max / 10 } else { 10 }
}

/// Filters of one organisation, of `max` in all: half. One that has the broker to itself may have
/// more, but a tenth stays free, so that another one can begin.
pub(super) const fn org_filters_max(max: usize, alone: bool) -> usize {
    if alone { max - max / 10 } else { max.div_ceil(2) }
}

/// Retained messages of all organisations. A subscription to everything gets a list of them: 32
/// bytes for each.
pub(super) const RETAINED_MESSAGES_MAX: usize = 10_000;

/// Topics of retained messages that are looked at for one SUBSCRIBE, some tenths of a second of the
/// broker's thread; what its filters bring beyond them is not sent.
pub(super) const RETAINED_LOOKS_MAX: usize = 100 * RETAINED_MESSAGES_MAX;

/// Bytes of all retained messages.
pub(super) const RETAINED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Retained messages that may wait to be sent to one session; a client that subscribes again and
/// again and reads nothing gets no further ones.
pub(super) const REPLAY_MAX: usize = 2 * RETAINED_MESSAGES_MAX;

/// Bytes of a segment of a slot's log in the router, counting topic and payload only. With
/// [`SEGMENTS_PER_SLOT`] a subscriber may be 384 KiB behind before it loses messages.
pub(super) const SEGMENT_BYTES: usize = 128 * 1024;

/// Segments of a slot's log. A log holds 512 KiB, or about 4 MB of memory if all messages are tiny.
pub(super) const SEGMENTS_PER_SLOT: usize = 4;

/// Messages that the router hands to a subscriber in one go.
pub(super) const FORWARDS_MAX: u64 = 100;

/// Messages given to the router before it has to say that it took them. It appends whatever it
/// finds waiting before it forwards any: a heap of more than a slot's log would push messages
/// out before anyone could read them.
pub(super) const BATCH_MESSAGES: usize = 128;

/// Bytes given to the router before it has to say that it took them.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

/// Time for the router to answer. It needs microseconds; after this it is taken for dead.
pub(super) const ROUTER_WAIT: Duration = Duration::from_secs(5);

/// Pause before a router that could not be started is started again.
pub(super) const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Sessions that may be ending while others already take their places.
pub(super) const ENDING_MAX: usize = 64;
