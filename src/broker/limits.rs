//! The bounds of the broker that the configuration does not set, with their reasons.

/// Bytes of messages with QoS 1 and 2 that wait for one client that is connected: as much as may
/// wait in its connection. More is kept in the store for a session that outlives its connection,
/// and lost to one that does not.
pub(super) const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of messages with QoS 0 that wait for one client. Nobody promised them.
pub(super) const WAITING_QOS0_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that wait for one client from which on a publisher lets others run before it goes on.
pub(super) const CROWDED_BYTES: usize = 256 * 1024;

/// Messages kept for a session whose client is away or does not keep up.
pub(super) const KEPT_MESSAGES_MAX: usize = 10_000;

/// Bytes kept for a session.
pub(super) const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Subscribers that get a message in one go; then other tasks of the thread have their turn.
pub(super) const FAN_OUT_STEP: usize = 256;

/// Shared subscriptions of one filter, by name: each message goes to all of them at once.
pub(super) const GROUPS_MAX: usize = 1000;

/// Members of a shared subscription that are looked at for one that is connected and keeps up.
pub(super) const MEMBERS_LOOKED_AT: usize = 64;

/// Bytes of the rows of one step for sessions that have it kept: of the room that the store has for
/// all a small part.
pub(super) const FAN_OUT_STEP_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a row beside the topic and the payload of its message, at most: its key, its head, and what a
/// change takes in the store's queue.
pub(super) const ROW_BYTES: usize = 256;

/// Subscriptions that go, and messages that are passed on, in one step of sessions that end: each takes
/// about a microsecond. One session has a thousand at most, and ends whole.
pub(super) const ENDED_WORK_STEP: usize = 256;

/// Rows of what waits that are read at once, and messages that are retained.
pub(super) const PAGE_ROWS: usize = 100;

/// Rows of what waits that are read at once to show them: few, for each may be large.
pub(super) const SHOWN_ROWS: usize = 10;

/// Bytes of either that are read at once for one client.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;

/// What it counts to look for a retained message, in bytes that could be read meanwhile.
pub(super) const LOOK_BYTES: usize = 1024;

/// Topics of retained messages that are looked at in one go for one filter with wildcards.
pub(super) const PAGE_LOOKS: usize = 4096;

/// Levels of filters with wildcards from which on a publish lets others run before the next one.
pub(super) const DEAR_LEVELS: usize = 500;

/// Bytes of the longest topic with a retained message: with the time of its end it is a key.
pub(super) const RETAINED_TOPIC_BYTES_MAX: usize = 65_500;

/// Sessions that outlive their connections of one login, whose client ids a client may make up.
pub(super) const LOGIN_KEPT_SESSIONS_MAX: usize = 100;
