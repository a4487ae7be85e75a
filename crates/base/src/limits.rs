//! Every bound of the program that the configuration does not set, with its reason.
//!
//! What an operator may want to change is a key of the configuration (`config/`); what is here
//! follows from the protocol or protects the machine and has no reason to differ between sites.

use std::time::Duration;

/// Commands in one request. The gateways' aggregator fills messages of 20,000 bytes
/// (`docs/protocol/tr50.md` 0, fact 30); the shortest command takes 24 of them.
pub const COMMANDS_PER_REQUEST: usize = 1000;

/// Fields of a form of the console that are looked at: some more than a form may choose, so that it
/// hears that these are too many.
pub const FORM_FIELDS_MAX: usize = 4096;

/// Logins in one request. A gateway logs its things in one by one; more in one go only serve to
/// flood the directory and the password checks.
pub const LOGINS_PER_REQUEST: usize = 10;

/// Bytes of a reply, after which the remaining commands of its request are not executed; a listing
/// of 10,000 sessions, the most that can be asked for, fits.
pub const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The same for commands that wait for a device, maybe for minutes: a thousand requests of one
/// connection may hold so much meanwhile.
pub const REPLY_BYTES_BEFORE_DEVICE: usize = 256 * 1024;

/// Time from accept to a finished login (CONNECT, first line, request head). libtr50 waits 5 s for
/// its CONNACK, a modem on a slow link needs several round trips for TLS.
pub const LOGIN_WAIT: Duration = Duration::from_secs(15);

/// Connections that the system holds until they are accepted: a fleet that reconnects comes all at
/// once.
pub const ACCEPT_BACKLOG: u32 = 4096;

/// File descriptors that are left to the store: it keeps up to 256 tables open, and so does the copy
/// that a backup makes; those that it writes and merges come on top. Of a small limit (`ulimit -n`) it
/// is a third.
pub const STORE_FILES_MAX: usize = 512;

/// File descriptors for listeners, pipes, the control socket, and sockets that are being refused. Of a
/// small limit it is a sixth.
pub const OTHER_FILES_MAX: usize = 48;

/// Connections above the limit that get as far as their login, before any more are just closed: then
/// it is known whether another one makes way for them.
pub const TOLD_FULL_MAX: usize = 100;

/// How often those that were told to leave are waited for until they have, behind all that is ready,
/// before a new connection is just closed.
pub const LEAVING_WAITS: usize = 16;

/// Connections a second that make way for those of others who have less: a fleet that comes has its
/// places in time, and none that is connected goes all at once.
pub const CONNECTIONS_MADE_WAY_PER_S: u32 = 10;

/// Addresses and extensions of a PROXY header of version 2 together. The largest in use (TLS names,
/// cloud ids) have a few hundred bytes.
pub const PROXY_V2_BYTES_MAX: usize = 4096;

/// For how long half a request may wait before a large one of others takes its room. In this time a
/// megabyte comes over any link but a modem's.
pub const UNAUTHENTICATED_WAIT: Duration = Duration::from_secs(2);

/// When a peer without room looks again whether somebody has waited for so long.
pub const UNAUTHENTICATED_AGAIN: Duration = Duration::from_millis(250);

/// Failed logins on one TCP connection, and other failures before its login, after which it closes:
/// a failure is a hundred times as long as the `{}` that causes it.
pub const TCP_REFUSALS_MAX: u32 = 5;

/// Days before a certificate's end from which `check` and the log warn of it. Programs that renew
/// certificates begin 30 days before; those that have not by then have failed.
pub const CERTIFICATE_NEAR_DAYS: u64 = 21;

/// Bytes of a connection that are encrypted and wait for its peer to read: two records. While there are
/// any, so many count in `limits.memory_bytes`.
pub const TLS_UNSENT_BYTES_MAX: usize = 32 * 1024;

/// Time for answers in flight and the journal when the server stops; the whole stop takes 5 s.
pub const STOP_WAIT: Duration = Duration::from_secs(3);

/// Time for what a connection has begun when it is told to close; with a second for the last words
/// it fits into [`STOP_WAIT`].
pub const LAST_WORK_WAIT: Duration = Duration::from_millis(1500);

/// Time for the last words to a peer whose connection closes.
pub const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);

/// For so long nothing more may close before a command that ended many sessions is answered: longer
/// than a connection takes for its last work and words.
pub const LAST_CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Time for the last answers to a peer that has ended its own side and may read slowly.
pub const SLOW_READER_WAIT: Duration = Duration::from_secs(30);

/// Time in which a peer takes not one byte of what waits for it, after which its connection closes.
/// The answers would be kept for as long as it sends a PINGREQ now and then; a modem that hands
/// over between cells is back in less.
pub const WRITE_STALL_WAIT: Duration = Duration::from_secs(30);

/// Bytes that are written to one peer before others have their turn: some fifty microseconds.
pub const WRITE_AT_ONCE_BYTES: usize = 256 * 1024;

/// Bytes that may wait for one slow peer before no more of its requests are looked at: one answer
/// of the largest kind (`session.list` of 5,000 sessions is about 5 MB) and as much again.
pub const UNSENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Messages that may wait in a connection's outbox.
pub const OUTBOX_MESSAGES_MAX: usize = 1000;

/// Replies of one connection that take time and are promised at once.
pub const PENDING_MAX: usize = 1000;

/// Promised replies that take work, wait neither for the store nor for a device, and are begun at once:
/// each may come to a reply of the largest kind before the peer reads it.
pub const BEGUN_ASIDE_MAX: usize = 4;

/// What a promised reply that waits for the store or a device takes until it is there.
pub const PROMISE_BYTES: usize = 256;

/// What one that takes work takes, with all that it needs for it (measured: 2 kB for a list of things).
pub const PROMISE_ASIDE_BYTES: usize = 2048;

/// Replies that take work, promised at once to who is above the share of full cores.
pub const ASIDE_IN_TURN_MAX: usize = 16;

/// Bytes of the requests of one connection that are worked on, and of the replies that wait there
/// until it reads: four of the largest replies. A thousand of either would be gigabytes.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes that a connection may hold before it counts in the budget of memory, and by which what it
/// holds changes before that is noted: with 100,000 connections, 800 MB that nobody counts.
pub const MEMORY_STEP_BYTES: usize = 8 * 1024;

/// Bytes that a TLS handshake counts for until it is done: as many of half a message as rustls keeps, and
/// it does not tell how many those are.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// Of what waits for a client in a queue of the broker, the step in which its connection hears of it.
pub const WAITING_STEP_BYTES: usize = 64 * 1024;

/// The part of the machine's memory that clients may have the server use if the configuration does not
/// say: a half. The store, its caches and the rest of the machine have the other.
pub const MEMORY_PART: u64 = 2;

/// Bytes read from a socket at once; one such buffer serves a whole thread.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes of an HTTP request's head, and of what hyper buffers at once. Clients send a few hundred.
pub const HTTP_HEAD_BYTES_MAX: usize = 32 * 1024;

/// Time until the next request's head on an HTTP connection: browsers and proxies keep one for a
/// minute.
pub const HTTP_KEEP_ALIVE_WAIT: Duration = Duration::from_secs(75);

/// Time from an HTTP request's head to the end of its body: the largest body at 17 kB/s.
pub const HTTP_BODY_WAIT: Duration = Duration::from_secs(60);

/// Time in which, after the last words on a connection, what still comes is read and thrown away:
/// closing a socket that holds unread bytes resets the connection, which can destroy those words on
/// their way (`docs/protocol/tr50.md` 0, facts 23 and 24; RFC 9112, section 9.6).
pub const LINGER_WAIT: Duration = Duration::from_secs(2);

/// Bytes that are thrown away so.
pub const LINGER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Seconds for which a file's ticket is good (`docs/protocol/tr50.md` 0, fact 18).
pub const FILE_TICKET_S: u64 = 300;

/// Seconds from its issue after which a ticket is over, however often its transfer broke: a
/// gigabyte over a slow modem takes most of a day.
pub const FILE_TICKET_LIFE_S: u64 = 86_400;

/// Seconds after a complete download in which its rest may be fetched again: the server can't know
/// that its last bytes arrived, and a device that lost its cell is back in less.
pub const FILE_REST_S: u64 = 30;

/// Tickets for files, about 50 MB; 300 MB if all are for files with all that
/// [`FILE_EXTRAS_BYTES_MAX`] allows.
pub const FILE_TICKETS_MAX: u64 = 100_000;

/// Of these, those that one user or thing asked for: a thing out of order takes none from the others
/// that log in with its token.
pub const FILE_TICKETS_OF_ONE_MAX: usize = 1000;

/// Bytes of the tags, the security tags and the login of a file in all: each of its tickets holds
/// them, and so does each of its rows in a listing.
pub const FILE_EXTRAS_BYTES_MAX: usize = 2048;

/// Files moved at once: each takes a buffer on its way to or from the disk, together 256 MB.
pub const FILE_TRANSFERS_MAX: u64 = 1000;

/// Transfers at once with one ticket: a device that has lost its connection tries again before the
/// server knows.
pub const FILE_TRANSFERS_OF_TICKET_MAX: usize = 4;

/// Bytes of an upload that are gathered for one write to the disk.
pub const FILE_WRITE_BYTES: usize = 256 * 1024;

/// The same as [`WRITE_STALL_WAIT`] for a connection over which a file was fetched, which keeps
/// little for its peer. The system holds up to 4 MB of a file, and takes more when a third of that
/// has left: at 10 kB/s after more than two minutes.
pub const DOWNLOAD_STALL_WAIT: Duration = Duration::from_secs(300);

/// Bytes of a download that are read from the disk at once.
pub const FILE_READ_BYTES: usize = 64 * 1024;

/// Time without a byte after which an upload is given up.
pub const FILE_STALL_WAIT: Duration = Duration::from_secs(60);

/// Bytes a second of the slowest upload that is taken, after [`FILE_STALL_WAIT`]: GPRS at its worst
/// has a kilobyte.
pub const FILE_UPLOAD_RATE_MIN: u64 = 256;

/// Files of one owner that a listing looks through: some ten megabytes while it runs.
pub const FILES_SEARCHED_MAX: usize = 100_000;

/// Bytes of an order through the control socket: one request.
pub const CONTROL_ORDER_BYTES_MAX: u64 = 1024 * 1024;

/// Time until the control socket is tried again that could not take a connection.
pub const CONTROL_PAUSE: Duration = Duration::from_millis(50);

/// Read buffer of one WebSocket: a device's packets are small, and most connections are idle.
pub const WEBSOCKET_READ_BYTES: usize = 4096;

/// Such reads, one after the other, until others have their turn: a frame may be six bytes of a message
/// that goes on, and four reads 2,700 of those, which is some [`PASS_TIME`].
pub const WEBSOCKET_READS_AT_ONCE: usize = 4;

/// Messages of a WebSocket without a payload, pings among them, until others have their turn. A ping is a
/// write, some microseconds.
pub const WEBSOCKET_EMPTY_AT_ONCE: usize = 32;

/// Room in a WebSocket message beside the payload: MQTT's header, topic and properties, or more
/// packets.
pub const WEBSOCKET_EXTRA_BYTES: usize = 128 * 1024;

/// Inflated size of an `apiz` request, as a multiple of the frame limit's bytes.
pub const INFLATE_FACTOR: usize = 4;

/// Inflated size of an `apiz` request, or of a body over HTTP, as a multiple of its deflated size,
/// above [`INFLATE_ALWAYS_BYTES`]. Requests with names and values of their own stay far below it;
/// zeros reach 1000.
pub const INFLATE_RATIO_MAX: usize = 100;

/// Bytes to which an `apiz` request, or a body over HTTP, may inflate whatever its deflated size:
/// that is little work, and 8,000 equal letters are no attack.
pub const INFLATE_ALWAYS_BYTES: usize = 64 * 1024;

/// Bytes to which an `apiz` request is inflated at once, in a fraction of a millisecond; a longer one
/// is inflated on a thread of long work.
pub const INFLATE_AT_ONCE_BYTES: usize = 64 * 1024;

/// Bytes of the shortest answer over HTTP that is compressed: a shorter one fits into a packet anyway.
pub const GZIP_BYTES_MIN: usize = 1024;

/// Bytes of the longest reply that is deflated at once, in a millisecond or two; longer ones are
/// deflated on a thread of their own.
pub const DEFLATE_AT_ONCE_BYTES: usize = 64 * 1024;

/// Password checks waiting for a core: at 30 ms each, 64 are two seconds of a core.
pub const PASSWORD_QUEUE_MAX: usize = 64;

/// Password checks of one network (IPv4: an address, IPv6: a /64) that wait or are being made: an
/// eighth of the queue, so that one guesser does not keep everybody else out.
pub const PASSWORDS_PER_NETWORK_MAX: usize = PASSWORD_QUEUE_MAX / 8;

/// New passwords, and proofs of old ones, that wait for their own thread: two seconds of a core.
pub const PASSWORD_CHANGES_MAX: usize = 64;

/// The same of one principal, so that one who changes passwords without end leaves room for others.
pub const PASSWORD_CHANGES_PER_PRINCIPAL_MAX: usize = PASSWORD_CHANGES_MAX / 8;

/// The longest password that is checked. Nobody types more; hashing megabytes is for attackers.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Failed logins in a row before a lock (deviceWISE has 8 or more in the same 30 minutes,
/// `docs/protocol/tr50.md` 3.1).
pub const LOGIN_FAILURES_MAX: u32 = 10;

/// Failed logins count together when the first of them is not older than this.
pub const LOGIN_FAILURES_WITHIN_MS: u64 = 30 * 60 * 1000;

/// How long a lock lasts: long enough against guessing, short enough for the one who mistyped.
pub const LOGIN_LOCK_S: u64 = 5 * 60;

/// Pairs of name and address whose failed logins are remembered, about 2 MB. Each costs an attacker
/// a check of 30 ms, so pushing one's own out takes longer than the lock lasts.
pub const FAILING_LOGINS_MAX: usize = 16_384;

/// Failed logins of one account, at addresses from which it has never logged in, after which it has
/// one try at each of them until a lock is over: people who travel mistype at one or two.
pub const ACCOUNT_FAILURES_MAX: u32 = 20;

/// Pairs of name and address that have logged in, 7 MB of one account and 26 MB of as many accounts: a
/// year of a large staff. Organisations share them: who logs in from ever new networks pushes out only
/// the oldest of its own.
pub const KNOWN_LOGINS_MAX: usize = 65_536;

/// Wrong tokens from one network within [`TOKEN_FAILURES_WITHIN_MS`] after which only those are let
/// in that were before: a site with some devices whose token is out of date tries less often.
pub const TOKEN_FAILURES_MAX: u32 = 60;

/// Wrong tokens count together when the first of them is not older than this.
pub const TOKEN_FAILURES_WITHIN_MS: u64 = 60 * 1000;

/// Networks whose wrong tokens are counted, and pairs of network and application that were let in:
/// some megabytes each. Of the first, the oldest goes: who has so many networks can guess from each.
pub const TOKEN_NETWORKS_MAX: usize = 65_536;

/// Names taken by those whom a caller can't see (e-mail addresses, keys, slugs, tokens) that one may
/// find within [`TAKEN_NAMES_WITHIN_MS`] before they get no answer: who makes users by hand meets
/// one now and then; who looks for customers of others tries thousands.
pub const TAKEN_NAMES_PER_PRINCIPAL_MAX: u32 = 5;

/// The same of all who ask in one organisation: two administrators at work do not hinder each other.
pub const TAKEN_NAMES_PER_ORG_MAX: u32 = 2 * TAKEN_NAMES_PER_PRINCIPAL_MAX;

/// Such names count together when the first of them is not older than this.
pub const TAKEN_NAMES_WITHIN_MS: u64 = 60 * 1000;

/// Callers and organisations that are counted so, about a megabyte. Only those who may make users or
/// organisations come here.
pub const TAKEN_NAMES_ASKERS_MAX: u64 = 8192;

/// Bytes of an application id that are kept. Clients send up to 64 (`docs/protocol/tr50.md` 1.1);
/// MQTT would allow 65,535.
pub const APP_ID_BYTES_MAX: usize = 128;

/// Bytes of a text message (`sms.send`): ten parts of 160 characters are more than a network sends.
pub const SMS_BYTES_MAX: usize = 1600;

/// Characters that are kept of each text by which a modem registers; real ones have some twenty.
pub const MODEM_TEXT_CHARS_MAX: usize = 200;

/// Sources of rights, roles and filters that `session.explain` shows: an administrator looks at some.
pub const EXPLAINED_SOURCES: usize = 100;

/// Records of one kind (roles, users, applications, definitions, organisations directly below) that
/// an organisation owns: all are in memory.
pub const RECORDS_PER_ORG_MAX: usize = 10_000;

/// Bytes of all records, by their rows; in memory they take about twice as much. It is a hundred
/// thousand users with their applications, or four thousand of the largest definitions.
pub const RECORDS_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What a level of a topic filter of a role takes in memory beside its text, at most: its place and its
/// set of filters.
pub const TOPIC_LEVEL_BYTES: u64 = 128;

/// Bytes of a topic filter for which it counts as one filter, and as one subscription; real ones are
/// shorter. One of a thousand bytes takes two kilobytes of memory (measured).
pub const FILTER_PLACE_BYTES: u64 = 256;

/// Bytes of the memberships, tokens and settings of one user, which are written as a whole by each
/// change: two thousand memberships.
pub const USER_BYTES_MAX: usize = 512 * 1024;

/// Bytes of one membership or invitation: a hundred roles. Others than the user's home make them.
pub const MEMBERSHIP_BYTES_MAX: usize = 4 * 1024;

/// Invitations of one organisation that wait for those who are invited: a department of users who
/// have a home elsewhere. Each is in the record of a user.
pub const INVITES_PER_ORG_MAX: usize = 1000;

/// Invitations of one user, each of another organisation: nobody reads through more.
pub const INVITES_PER_USER_MAX: usize = 100;

/// Invitations of one organisation that wait and are of one inviter: a few are left to colleagues.
pub const INVITES_PER_INVITER_MAX: usize = INVITES_PER_ORG_MAX / 8 * 7;

/// Bytes of a text in such a record: a description, a telephone number, a tag.
pub const RECORD_TEXT_BYTES_MAX: usize = 1024;

/// Texts in a list of such a record: tags, roles, permissions, of which there are some 230.
pub const RECORD_LIST_MAX: usize = 500;

/// Bytes of a thing definition's members. The largest real ones have some hundred properties of a
/// hundred bytes.
pub const THING_DEF_BYTES_MAX: usize = 256 * 1024;

/// The shortest password that a user may be given (NIST SP 800-63B, 5.1.1.1); those of the
/// bootstrap file are the operator's business.
pub const PASSWORD_BYTES_MIN: usize = 8;

/// For how long a code of a second factor may follow a right password: long enough to take a
/// telephone out and wait for the next code.
pub const CODE_WITHIN_S: u64 = 120;

/// Codes that may be tried after one right password.
pub const CODE_TRIES_MAX: u32 = 5;

/// Addresses and connections from which a code of one user is awaited at a time.
pub const CODES_AWAITED_MAX: usize = 16;

/// Wrong codes of one user within [`LOGIN_FAILURES_WITHIN_MS`], from wherever, after which codes
/// are taken only from where the user has logged in before: with one try at each address, whoever
/// has the password and many addresses would find a code in the end.
pub const USER_CODE_FAILURES_MAX: u32 = 50;

/// The shortest token that an application may be given (`docs/protocol/tr50.md` 3.4).
pub const TOKEN_BYTES_MIN: usize = 16;

/// Characters of tokens that `app.token.create` and `user.token.create` make: no vendor's tool reads
/// them, and nobody types them.
pub const FURTHER_TOKEN_CHARS: usize = 32;

/// Tokens of one application beside its first, and of one user: programs and sites, and those that
/// are being replaced.
pub const TOKENS_PER_HOLDER_MAX: usize = 64;

/// The longest token.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Seconds for which `app.find` shows a token to the session that had it made: a setup script reads
/// it right away.
pub const MADE_TOKEN_S: u64 = 600;

/// Tokens that are remembered for one session: a setup script makes some dozens.
pub const MADE_TOKENS_PER_SESSION: usize = 100;

/// Tokens that are remembered for all sessions: at most 300 bytes each, some three megabytes.
pub const MADE_TOKENS_MAX: u64 = 10_000;

/// Levels of the tree of organisations. Real ones have three or four; the bound keeps every walk
/// up the tree short, and finite should a damaged store hold a ring.
pub const ORG_DEPTH_MAX: usize = 32;

/// Memory that a connection takes while nothing waits on it, about.
pub const CONNECTION_BYTES: u64 = 3 * 1024;

/// Batches waiting for the store's writer.
pub const STORE_QUEUE_MAX: usize = 65_536;

/// How often the store's disk is measured. In between, what is written is counted.
pub const STORE_CHECK_EVERY: Duration = Duration::from_millis(500);

/// How long a caller waits for a change over which the engine failed. Reopening takes less, unless
/// the cause lasts.
pub const STORE_HELD_WAIT: Duration = Duration::from_secs(10);

/// Ends of sessions that wait for a store that has failed. Of more, sessions over HTTP live again after a
/// restart in that state; those of connections end with it in any case.
pub const UNSAVED_ENDS_MAX: usize = 100_000;

/// The pause between two tries with an engine that fails again, from the first to the longest.
pub const STORE_REOPEN_PAUSE: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_secs(8));

/// The mark below which nothing is added, where the configuration sets none: about what the engine
/// needs at once, its journals, what it has in memory, and a table of each level that it merges.
pub const MIN_FREE_BYTES: u64 = 512 * 1024 * 1024;

/// The largest part of a disk that the mark takes, where the configuration sets none: a tenth.
pub const MIN_FREE_PART: u64 = 10;

/// Things of which it is in memory whose share their telemetry is: some 50 bytes each. That of the
/// others is read.
pub const PAYERS_KNOWN_MAX: usize = 65_536;

/// What of the disk is left for those below their share: a sixteenth of what is above the mark, and not
/// more than this.
pub const DISK_RESERVE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// For so long, and up to twice as long, what was removed counts for whose it was: the engine removes it
/// from the disk later, and who writes and removes without end would be below the share meanwhile.
pub const DISK_GOING_WAIT: Duration = Duration::from_secs(60);

/// Bytes set aside in a file that is let go of when others have filled the disk, so that deleting
/// goes on: an eighth of the mark, and not more than this. It is enough for 100,000 deletions.
pub const STORE_RESERVE_BYTES: u64 = 32 * 1024 * 1024;

/// Memory of the batches that wait for the store's writer: a million points of telemetry, which it
/// writes in two seconds. More is refused with the advice to try again.
pub const STORE_QUEUE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How much of that waits before it matters whose it is: mostly next to nothing does, and to count it
/// would cost each change more than its way through the queue.
pub const STORE_QUEUE_FREE: usize = STORE_QUEUE_BYTES_MAX / 2;

/// What a batch counts at least of the rest, so that many small ones are no more than the queue holds.
pub const STORE_QUEUE_BATCH_BYTES: usize = STORE_QUEUE_BYTES_MAX / STORE_QUEUE_MAX;

/// Batches committed as one group. A thousand small ones are some hundred kilobytes: enough to
/// make the write's own cost vanish, and no batch waits long for its neighbours.
pub const GROUP_BATCHES_MAX: usize = 1024;

/// Sessions whose counters are stored, or mails that expire, in one step before other work gets its
/// turn; and sessions, and as many kept MQTT sessions, that one command changes on its connection's own
/// thread.
pub const EXPIRY_STEP: usize = 256;

/// Sessions that end in one step: a tenth of a millisecond.
pub const ENDED_STEP: usize = 16;

/// What the end of a session takes of one core, its record with it (measured: 4 to 6 µs).
pub const END_WORK: Duration = Duration::from_micros(6);

/// What closing a connection takes beside that (measured: 49 µs).
pub const CLOSE_WORK: Duration = Duration::from_micros(50);

/// Work that comes all at once has this part of a core for each that the machine has: a half.
pub const PACED_STRETCH: f64 = 2.0;

/// How far ahead of its turn such work may begin: what is little begins at once.
pub const PACED_AT_ONCE: Duration = Duration::from_millis(2);

/// What a tenant may have of such work at a time before it goes behind that of others.
pub const PACED_LITTLE: Duration = Duration::from_millis(10);

/// Tenants of which that is known; who has had its turns is forgotten beyond.
pub const PACED_TENANTS: usize = 1024;

/// Logins and organisations whose commands of the current second are remembered though nobody has a
/// session, about a megabyte; above it, whoever ends a session begins anew.
pub const WINDOWS_KEPT_MAX: usize = 10_000;

/// Users and things whose logins are counted, some megabytes. Above it, those are forgotten that
/// logged in least.
pub const LOGIN_BUCKETS_MAX: usize = 65_536;

/// Seconds of `limits.logins_per_s` that may come at once: whoever runs a script that logs in for
/// each command should not have to know of the limit.
pub const LOGIN_BURST_S: u32 = 10;

/// Seconds in which a login may open as many connections again as it had at once lately, when the
/// burst for that is used up: a gateway whose network flaps.
pub const LOGIN_FLEET_S: f64 = 10.0;

/// Seconds in which half is forgotten of how many connections a login had at once: a gateway comes
/// back after an outage of minutes, and an hour later hardly more than a quarter counts.
pub const LOGIN_PEAK_HALVES_S: f64 = 1800.0;

/// How often it is looked whether the cores are full, and who uses them: until then, others stand behind
/// a flood that has begun.
pub const CORES_LOOK: Duration = Duration::from_millis(20);

/// For how long no thread may have rested until the cores count as full before the next look, and
/// until it is found out who uses them: others wait for as long as it takes to do all that is there.
pub const WITHOUT_REST: Duration = Duration::from_millis(3);

/// Pieces of work after which a thread looks at the clock: a piece takes up to [`PASS_TIME`].
pub const PIECES_BETWEEN_LOOKS: usize = 8;

/// The part of the time between two looks for which the threads were busy, in percent, from which
/// the cores count as full: some wait is certain by then, and turns cost those above the share little.
pub const CORES_FULL_PERCENT: u32 = 75;

/// The same below which they are not full any more.
pub const CORES_FREE_PERCENT: u32 = 50;

/// The part of the time that all use, in percent, which is shared max-min to find out who uses more
/// than a share: what is above the level that this fills.
pub const CORES_SHARED_PERCENT: u64 = 75;

/// Bytes that a connection of who is above the share may read in a turn: some fifty commands, about a
/// tenth of a millisecond.
pub const TURN_READ_BYTES: usize = 4096;

/// Bytes of replies that a connection makes and writes at once, before others have their turn; one that
/// is larger goes whole.
pub const PASS_WRITE_BYTES: usize = 256 * 1024;

/// For how long a connection deals with what has come before others have their turn: commands may
/// take a hundred times as long as the shortest, and 64 KiB of them are hundreds. Looked at after each
/// [`PASS_PART_BYTES`].
pub const PASS_TIME: Duration = Duration::from_micros(250);

/// Bytes that are dealt with between two looks at the time: some ten commands.
pub const PASS_PART_BYTES: usize = 1024;

/// Replies that came later and are written between two looks at the time.
pub const REPLIES_IN_PART: usize = 16;

/// Bytes of messages for a subscriber that are dealt with between two looks at the time: one that is
/// not for it, after all, takes as long to find out.
pub const DELIVERIES_PART_BYTES: usize = 4096;

/// What a login takes beside the checks of who it is: a connection comes, is read, and closes
/// (measured: 60 to 90 µs of a core).
pub const LOGIN_WORK: Duration = Duration::from_micros(70);

/// Bytes of a reply from which it waits for its turn to be sent: a tenth of a millisecond's work, as a
/// turn of who is above the share. A list of 2,000 things is half a megabyte.
pub const LARGE_REPLY_BYTES: usize = 64 * 1024;

/// Of those who have asked for the same, as many are told at once what was found.
pub const TOLD_AT_ONCE: usize = 8;

/// The nice value of threads that do long work and check passwords: on a core that is full, they
/// have a quarter of it beside one that serves connections.
pub const LONG_WORK_NICE: i32 = 5;

/// How long a thread of long work works before it yields: on one core, others wait as long. The
/// scheduler of the system takes the core from it after a tick, up to 4 ms. Who yields gives away more
/// than its share, so more often would make lists take much longer while the core is full.
pub const YIELD_AFTER: Duration = Duration::from_millis(1);

/// Bytes of messages on their way to many subscribers that nobody waits for: about ten thousand
/// messages, each with the list of who gets it next.
pub const FAN_OUTS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Long work that waits for its turn, of all principals: some seconds of each core, were every one
/// the longest listing. Who has most of it makes way.
pub const LONG_WORK_WAITING_MAX: u64 = 1000;

/// Sessions of an organisation that a listing with a filter or another order looks through at once;
/// with more, some milliseconds' work, it runs apart from the connections.
pub const LISTED_AT_ONCE_MAX: usize = 10_000;

/// The same where one array of the organisation answers, some nanoseconds for each session.
pub const LISTED_FACETS_AT_ONCE_MAX: usize = 200_000;

/// Bytes for which a listing of sessions makes room before it is written: 5,000 sessions of the
/// usual length. One very long session at its beginning must not ask for ten times as much.
pub const LISTING_BYTES_RESERVED_MAX: usize = 16 * 1024 * 1024;

/// Sessions, or users, in one list in Element's words, which have no pages: some 40 MB. With more,
/// the list is refused rather than cut.
pub const ELEMENT_LISTED_MAX: usize = 100_000;

/// Such lists that are made or on their way, on a server with more than [`LISTED_AT_ONCE_MAX`]
/// sessions: 320 MB at the most, while their peers read.
pub const ELEMENT_LONG_ANSWERS_MAX: u64 = 8;

/// Sessions that one method of Element's ends: a second's work. Of one login it ends all, however
/// many the configuration allows.
pub const ELEMENT_ENDED_MAX: usize = 10_000;

/// Records in one reply of a list command at most (`docs/protocol/tr50.md` 2, "Limits").
pub const LIST_MAX: u64 = 2000;

/// Things that one `thing.list` with a filter or an order of its own looks through: some hundred
/// megabytes while it runs.
pub const THINGS_SEARCHED_MAX: usize = 100_000;

/// Bytes of the query of one `thing.search`: every thing is searched for every word, a hundred
/// thousand of them. People look for two or three.
pub const QUERY_BYTES_MAX: usize = 256;

/// Bytes that are kept in memory of what `search.omni` looks for in a thing, beside its key: of the
/// name, identifiers and tags that are longer, the rest is not searched. Mostly they are some
/// twenty.
pub const SEARCHED_BYTES_MAX: usize = 512;

/// Results of one `search.omni` if it does not say how many: as many as people look at.
pub const SEARCH_RESULTS: u64 = 50;

/// Results of one `search.omni` at most: for each thing among them some rows are read.
pub const SEARCH_RESULTS_MAX: u64 = 200;

/// Results that `offset` reaches. Who wants more has to say more.
pub const SEARCH_DEPTH_MAX: usize = 2000;

/// Things whose keys match of which `search.omni` looks whether they have sessions: a millisecond.
pub const SEARCH_SESSIONS_OF_MAX: usize = 5000;

/// Bytes of a name, description, tag or identifier of a thing: each is read whenever the thing is,
/// and people write lines, not books.
pub const THING_TEXT_BYTES_MAX: usize = 2048;

/// Tags, or security tags, of a thing. Portals show some ten.
pub const THING_TAGS_MAX: usize = 100;

/// Bytes of current values in one `thing.list`: two thousand things of three hundred properties. A
/// thing may have a hundred megabytes of attributes.
pub const LISTED_VALUES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Things that one command changes or looks at at once, each in some microseconds; for more, it does so
/// on a thread that serves no connection.
pub const THINGS_AT_ONCE_MAX: usize = 100;

/// Things that are changed in one step before other work gets its turn.
pub const THINGS_STEP: usize = 1000;

/// Things bound to one. Gateways have some hundred.
pub const CHILDREN_MAX: usize = 10_000;

/// Entries of a session's `orgSwitches`; the oldest go first.
pub const ORG_SWITCHES_MAX: usize = 100;

/// Questions to a connection about itself that wait for its task. Several people may look at one.
pub const QUESTIONS_MAX: usize = 16;

/// How long a connection may take to tell of itself. One that is healthy needs microseconds.
pub const CONNECTION_DETAILS_WAIT: Duration = Duration::from_secs(2);

/// Subscriptions of a connection that are shown. Devices have a handful.
pub const SUBSCRIPTIONS_SHOWN_MAX: usize = 200;

/// Messages of a connection that are shown, of those in flight and of those that wait.
pub const MESSAGES_SHOWN_MAX: usize = 100;

/// Bytes of a topic that are kept to show what is in flight. Most topics are shorter.
pub const TOPIC_SHOWN_MAX: usize = 256;

/// Settings of one user. A console keeps some views there.
pub const SETTINGS_MAX: usize = 50;

/// Bytes of the value of a setting.
pub const SETTING_BYTES_MAX: usize = 4096;

/// Bytes of the keys and values of all settings of one user, which are in memory.
pub const SETTINGS_BYTES_MAX: usize = 32 * 1024;

/// Bytes of one part of `thing.dump`; a part that is longer is left out.
pub const DUMP_PART_BYTES_MAX: usize = 1024 * 1024;

/// Holders of a role that are named.
pub const HOLDERS_SHOWN_MAX: usize = 100;

/// Characters that a session keeps of what its client over HTTP calls itself. Browsers need about
/// 120.
pub const USER_AGENT_CHARS_MAX: usize = 200;

/// Bytes of a topic filter. Real ones have some tens; a client's thousand may be kept for days.
pub const FILTER_BYTES_MAX: usize = 1024;

/// Levels of a topic filter of a role. Real ones have some ten; each publish of a holder is looked up level
/// by level in each role, which may be hundreds, and each filter of a new role in those of who makes it.
pub const ROLE_FILTER_LEVELS_MAX: usize = 64;

/// Subscriptions of one MQTT connection.
pub const SUBSCRIPTIONS_MAX: usize = 1000;

/// Filters of a SUBSCRIBE that are dealt with before others have their turn: each is compared with all
/// that the client has.
pub const FILTERS_AT_ONCE: usize = 64;

/// Levels of the filters of one MQTT connection that the server's own topics can fall under: each reply is
/// matched with all of them, in some tens of microseconds. All subscriptions that a client may have can
/// have ten levels each; real ones have two to five.
pub const OWN_LEVELS_MAX: usize = 10 * SUBSCRIPTIONS_MAX;

/// Replies kept for a subscriber with the same login, in case the asker is gone.
pub const UNCLAIMED_MAX: usize = 100;

/// Time after which an asker that is still there counts as having got its reply.
pub const UNCLAIMED_WAIT: Duration = Duration::from_secs(2);

/// Packet ids of inbound QoS 2 messages whose PUBREL has not come; the receive maximum that MQTT 5
/// clients are told.
pub const QOS2_MAX: u16 = 1000;

/// Bytes of the longest client id; clients use up to 23, or a UUID and a name.
pub const CLIENT_ID_BYTES_MAX: usize = 256;

/// Messages of the broker with QoS 1 and 2 that are on their way to one client, whatever more it
/// says that it takes.
pub const INFLIGHT_MAX: usize = 100;

/// Topic aliases that a client may set, each of which is a topic that is held for it.
pub const TOPIC_ALIASES_MAX: u16 = 16;

/// Topic aliases that the server sets for one client.
pub const TOPIC_ALIASES_SENT_MAX: u16 = 32;

/// Bytes of a CONNECT: five texts of 65,535 bytes (MQTT 3.1.3), and properties.
pub const CONNECT_BYTES_MAX: usize = 6 * 65_536;

/// How long a publish that can't be carried out now, over the rate or without room in the store, is
/// tried; meanwhile its client is not read. Longer than a device's burst, and less than the keep-alive
/// that most clients ask for.
pub const WITHHELD_WAIT: Duration = Duration::from_secs(30);

/// By how much longer at most, at random: a fleet whose connections close then, without the
/// acknowledgement, does not come back all at once.
pub const WITHHELD_SPREAD: Duration = Duration::from_secs(15);

/// How often it is tried while the store takes nothing: nothing else tells of its recovery.
pub const WITHHELD_POLL: Duration = Duration::from_millis(250);

/// How often a publisher that waits for room in the store asks for it.
pub const STORE_ROOM_POLL: Duration = Duration::from_millis(5);

/// Wills that wait for their delay.
pub const DELAYED_WILLS_MAX: u64 = 10_000;

/// Bytes of memory that each of them takes beside its topic and its message.
pub const DELAYED_WILL_BYTES: usize = 1024;

/// Levels of all filters with wildcards: some 300 MB.
pub const WILDCARD_LEVELS_MAX: u64 = 2_000_000;

/// Of these, those of one organisation. A publish looks at those that its topic passes, so this bounds
/// what a publish can cost: some milliseconds if a client sets its mind to it.
pub const ORG_WILDCARD_LEVELS_MAX: u64 = 150_000;

/// Points of telemetry in one `*.batch`. A frame of the default size holds half as many of the
/// shortest kind.
pub const BATCH_ITEMS_MAX: usize = 100_000;

/// Bytes of a batch of telemetry that is read at once, in a millisecond or two; longer ones are
/// read on a thread of their own. Gateways make messages of up to 20,000 (`docs/protocol/tr50.md` 0,
/// fact 30).
pub const BATCH_AT_ONCE_BYTES: usize = 24 * 1024;

/// Bytes of a batch of telemetry behind which is recorded what its client sends next. It takes some
/// milliseconds, in which nothing of the connection is looked at.
pub const BATCH_IN_ORDER_BYTES: usize = 64 * 1024;

/// Points of a batch of telemetry that the store gets at once: it takes some milliseconds for them,
/// and others' changes wait so long.
pub const BATCH_PIECE: usize = 2_000;

/// Bytes of the texts in these points: each may have 16 KiB that stand beside the list.
pub const BATCH_PIECE_BYTES: usize = 512 * 1024;

/// Bytes of the name of a property, alarm or attribute.
pub const SERIES_NAME_BYTES_MAX: usize = 256;

/// Bytes of a correlation id; clients use UUIDs and counters.
pub const CORR_ID_BYTES_MAX: usize = 256;

/// Bytes of an attribute's value: a serial number, a version, sometimes a small document. All of a
/// thing's are shown by `thing.find`.
pub const ATTRIBUTE_BYTES_MAX: usize = 16_384;

/// Bytes of the message of an alarm or a log's entry: a stack trace fits.
pub const MESSAGE_BYTES_MAX: usize = 16_384;

/// Bytes of a line of an address, or of the name of a way to find a position.
pub const ADDRESS_LINE_BYTES_MAX: usize = 256;

/// Points in one reply of a history (`docs/protocol/tr50.md` 2, "Limits").
pub const HISTORY_MAX: u64 = 5000;

/// Bytes of points collected for one reply of a history; their JSON is at most six times as long,
/// and usually hardly longer.
pub const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Points that a history with a filter or a count looks through.
pub const POINTS_SEARCHED_MAX: usize = 100_000;

/// Points read at once on the way through a history: 16 MB of the longest kind.
pub const POINTS_PAGE: usize = 1000;

/// Points that one `property.aggregate` looks through: about a second of a core.
pub const AGGREGATED_MAX: usize = 2_000_000;

/// Series whose names one command takes (`alarm.history.multi`, `property.summary`).
pub const SERIES_PER_COMMAND: usize = 100;

/// Current values of one thing that are shown with it. Devices have some tens.
pub const CURRENTS_MAX: usize = 10_000;

/// Series of one thing: as many as are shown with it. Who names a new property with each point finds
/// out before the disk is full of them.
pub const SERIES_PER_THING_MAX: usize = CURRENTS_MAX;

/// Bytes of the series of one thing that are shown with it: some hundred of the largest values, or
/// [`CURRENTS_MAX`] of the usual ones.
pub const CURRENTS_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Points of deleted things that are removed in one step: some tens of milliseconds of the writer.
pub const SWEEP_POINTS: usize = 10_000;

/// Series of deleted things that are removed in one step.
pub const SWEEP_SERIES: usize = 1000;
/// Mails in one reply to `mailbox.check`: a device works on one after the other, and is told of the
/// rest by another notice.
pub const MAILS_PER_CHECK: usize = 100;

/// Bytes of mails in one reply to `mailbox.check`, beside the first: libtr50 and other small
/// devices hold the whole reply in memory.
pub const CHECKED_BYTES_MAX: usize = 256 * 1024;

/// Bytes of all mails that wait, in memory: a hundred for each of ten thousand devices, of half a
/// kilobyte each.
pub const MAILS_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Steps of a mail's history that are kept: a thing may report its progress for ever.
pub const MAIL_HISTORY_MAX: usize = 100;

/// Bytes of what a thing says of its work on a mail, for the history: a line or two. The rest is
/// cut off.
pub const MAIL_TEXT_BYTES_MAX: usize = 1024;

/// Mails that one `mailbox.list` or `mailbox.summary` looks through; it runs apart.
pub const MAILS_SEARCHED_MAX: usize = 100_000;

/// Callers that wait for things' answers, about a kilobyte each.
pub const WAITING_CALLS_MAX: u64 = 100_000;

/// The longest time in seconds for which a caller waits for a thing's answer
/// (`docs/protocol/tr50.md` 2, "Limits").
pub const ACK_WAIT_S_MAX: f64 = 300.0;

/// The time in seconds for which a caller waits that does not say how long: what mower
/// integrations ask for (`docs/protocol/tr50.md` 4.1, HA).
pub const ACK_WAIT_S: f64 = 30.0;

/// Principals on a page of Cognite's list (`docs/protocol/cognite.md` A4).
pub const PRINCIPALS_PAGE_MAX: usize = 100;

/// Principals that one request of Cognite's dialect can name. The vendor's page says 100, its
/// Python SDK sends 1000 (`docs/protocol/cognite.md` A5).
pub const PRINCIPALS_NAMED_MAX: usize = 1000;

/// Login sessions on a page of Cognite's list that does not say how many: what its toolkit asks
/// for.
pub const LOGIN_SESSIONS_PAGE: usize = 100;

/// Login sessions on a page of Cognite's list at most (`docs/protocol/cognite.md` A2).
pub const LOGIN_SESSIONS_PAGE_MAX: usize = 1000;

/// Sessions of a user that such a page looks at, most of which may be in other organisations: some
/// hundred microseconds of work. A page that stops there is shorter, and the next goes on.
pub const LOGIN_SESSIONS_LOOKED_AT_MAX: usize = 4 * LOGIN_SESSIONS_PAGE_MAX;

/// Sessions that it looks at in one go at least: fetching so many costs little more than the way to
/// the first.
pub const LOGIN_SESSIONS_STEP_MIN: usize = 64;

/// Login sessions that one request of Cognite's dialect revokes (`docs/protocol/cognite.md` A5).
pub const LOGIN_SESSIONS_REVOKED_MAX: usize = 10;

/// Organisations on a page of Cognite's list, which has no parameter for it.
pub const ORGS_PAGE: usize = 1000;

/// Bytes of a request's id that is sent back as it came; a UUID has 36.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Lines that wait to be written into the log of events (`events.log`), a few megabytes. More are
/// lost, and counted: nobody waits for a slow disk.
pub const EVENT_LOG_LINES_MAX: usize = 8192;

/// Numbers of events that are reserved on disk before they are given away, so that one which somebody
/// has seen and a crash took back is never another event's: twice as many as the store's queue has
/// room for.
pub const EVENT_NUMBERS_AHEAD: u64 = 1_000_000;

/// Sums of events that are stored in one step.
pub const EVENT_SUMS_STEP: usize = 4096;

/// Events that are removed in one step, and read at once when they are counted: some hundred
/// kilobytes.
pub const EVENTS_TRIMMED_STEP: usize = 1000;

/// Steps of removing events that follow each other before others get their turn: a million a second
/// would not be behind.
pub const EVENTS_TRIMMED_STEPS: usize = 16;

/// Rows of the connection history that are removed in one step.
pub const CONNECTIONS_TRIMMED_STEP: usize = 1000;

/// Hours that are written at once when nobody has counted for long: the process stood still.
pub const USAGE_HOURS_FILLED_MAX: u32 = 48;

/// Things that were connected today and are not any more, of which that is known: some thirty
/// megabytes. Of more, those that come again count again.
pub const USAGE_THINGS_MAX: usize = 1_000_000;

/// Hours or days in one reply.
pub const USAGE_POINTS_MAX: usize = 2_500;

/// Figures that one reply is made of: a second of work on a thread of its own.
pub const USAGE_FIGURES_MAX: usize = 1_000_000;

/// Events that one request looks at: a tenth of a second of work on a thread of its own. Then it
/// says where to go on.
pub const EVENTS_LOOKED_AT_MAX: usize = 20_000;

/// Bytes of events on one page, or read at once for somebody who follows the stream: more pieces
/// keep nobody waiting, and each is in memory until its reader has taken it.
pub const EVENTS_PAGE_BYTES: usize = 512 * 1024;

/// Bytes of the newest events that are in memory while somebody follows the stream: seconds of ten
/// thousand events a second. Who is further behind reads the disk.
pub const EVENTS_LIVE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of one member of a record as it is kept in an event; a longer one is cut.
pub const EVENT_TEXT_BYTES_MAX: usize = 8192;

/// Readers of the stream of events over HTTP.
pub const EVENT_READERS_MAX: u64 = 1000;

/// How often somebody for whom there is no place asks whether all readers of events are there, and how
/// long it waits each time: the first sign of life makes who has gone say so, the second one meets that.
pub const EVENT_READER_ASKS: [Duration; 5] = [
    Duration::from_millis(150),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(300),
    Duration::from_millis(300),
];

/// How often readers of events are asked in this time at most, whoever finds no place: fewer would keep
/// who comes then from asking twice.
pub const EVENT_READERS_ASKED: (usize, Duration) = (3, Duration::from_secs(1));

/// Between two signs of life to a reader of events that has none for it.
pub const EVENT_HEARTBEAT: Duration = Duration::from_secs(15);

/// Windows that one stream of the console keeps up to date: more tabs than people look at.
pub const VIEWS_MAX: usize = 32;

/// Bytes of the address of such a window, with all filters.
pub const VIEW_BYTES_MAX: usize = 4096;

/// How long a reader of events that has read all waits for more behind the first that comes: in a
/// flood they come together, and readers are not woken for each.
pub const EVENTS_TOGETHER: Duration = Duration::from_millis(20);

/// Events that are looked at for a reader in one step.
pub const EVENTS_AT_ONCE: usize = 256;

/// What one event takes of a core for one subscriber of its topic, the way into the connection
/// included.
pub const EVENT_WORK: Duration = Duration::from_nanos(700);

/// After so much of that, others get their turn.
pub const EVENT_TURN_WORK: Duration = Duration::from_micros(500);

/// What a piece of the stream takes of a core for one reader over HTTP, and beside that one event
/// in it: the text is there mostly.
pub const EVENT_PIECE_WORK: Duration = Duration::from_micros(10);
/// What an event in it takes.
pub const EVENT_SENT_WORK: Duration = Duration::from_nanos(100);

/// For how long a piece of the stream is good for other readers: what they may see is asked anew,
/// what there is below an organisation is not.
pub const EVENT_PIECE_GOOD_FOR: Duration = Duration::from_millis(250);

/// Pieces of the stream that are kept for other readers: of so many audiences some.
pub const EVENT_PIECES_MAX: usize = 64;

/// Bytes of those pieces.
pub const EVENT_PIECES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Types of events, or keys of things, that one filter names.
pub const EVENT_TYPES_MAX: usize = 100;

/// Bytes of a message or a name as a device gave it, as an event shows it.
pub const EVENT_MESSAGE_BYTES_MAX: usize = 256;

/// Between two events that say that an organisation has reached one limit.
pub const LIMIT_EVENTS_EVERY_MS: u64 = 60_000;

/// Pools and organisations of which is noted that something was refused, until the next event.
pub const LIMITS_NOTED_MAX: usize = 10_000;

/// Sessions that one command ended and that each have an event; of the rest, the last says how many
/// there are.
pub const EVENT_SESSIONS_MAX: usize = 100;

/// Names that are told apart when they are refused at one network, of one organisation: a house
/// full of people who mistype. What is more is counted together.
pub const REFUSED_NAMES_PER_NETWORK_MAX: u64 = 100;

/// Refusals that are told apart in one organisation, however few the others have.
pub const REFUSALS_PER_ORG_MAX: u64 = 2000;

/// Refusals that are told apart in all, some 20 MB.
pub const REFUSALS_COUNTED_MAX: u64 = 20_000;

/// Seconds whose figures are kept for `stats.series`; one takes about 130 bytes.
pub const SERIES_SECONDS: usize = 3600;

/// Refusals that are written in one batch, for which others that are refused wait: some hundred
/// microseconds.
pub const REFUSALS_WRITTEN_STEP: usize = 32;

/// After how long without another one a refusal is a new event, not one more of the same.
pub const REFUSALS_TOGETHER_MS: u64 = 10 * 60 * 1000;

/// After how long it is in any case.
pub const REFUSALS_TOGETHER_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Things and addresses of which the log tells everything at once: an operator looks at few.
pub const WATCHED_MAX: usize = 16;

/// Seconds for which the log tells everything of one at most, so that nobody need remember to end
/// it.
pub const WATCHED_S_MAX: u64 = 3600;

/// Characters of a name that is refused, as it is kept.
pub const REFUSED_NAME_CHARS_MAX: usize = 128;

/// Webhooks of all organisations: whenever something happens, each is asked whether it wants it.
pub const WEBHOOKS_MAX: u64 = 2000;

/// Deliveries of webhooks that are under way at once. Of 64 receivers that take ten seconds each,
/// every one gets six bodies a minute; those of other organisations wait for none of them.
pub const WEBHOOK_DELIVERIES_MAX: u64 = 64;

/// Bytes of the URL of a webhook.
pub const WEBHOOK_URL_BYTES_MAX: usize = 2048;

/// Events in one delivery of a webhook that does not say how many, and of one that does.
pub const WEBHOOK_EVENTS: u32 = 100;
/// The most that one may ask for.
pub const WEBHOOK_EVENTS_MAX: u32 = 1000;

/// Bytes of events in one delivery, unless a single event is longer.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 256 * 1024;

/// For how long a delivery is waited for, from the look-up of the name to the head of the answer.
pub const WEBHOOK_WAIT: Duration = Duration::from_secs(10);

/// For how long a connection to one of a receiver's addresses is waited for, so that there is time
/// for another one.
pub const WEBHOOK_CONNECT_WAIT: Duration = Duration::from_secs(4);

/// Addresses of a receiver's name that are tried.
pub const WEBHOOK_ADDRESSES_MAX: usize = 16;

/// For how long the body of an answer is read, and how much of it: it says nothing to us, but a
/// receiver that is cut off may log an error.
pub const WEBHOOK_BODY_WAIT: Duration = Duration::from_secs(1);
/// See above.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 4096;

/// Bytes and headers of the head of an answer.
pub const WEBHOOK_ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
/// See above.
pub const WEBHOOK_ANSWER_HEADERS_MAX: usize = 64;

/// Bytes that are read of a receiver in all, heads of status 1xx among them, which no limit of a head
/// counts.
pub const WEBHOOK_READ_BYTES_MAX: u64 =
    (2 * WEBHOOK_ANSWER_HEAD_BYTES_MAX + WEBHOOK_ANSWER_BYTES_MAX) as u64;

/// Seconds until the second try of a delivery. Each time it fails, they are twice as many, up to
/// the most, and up to a quarter is added by chance: receivers that come back are not stormed.
pub const WEBHOOK_RETRY_S: u64 = 1;
/// See above.
pub const WEBHOOK_RETRY_S_MAX: u64 = 240;

/// The longest time that a receiver may ask for with `Retry-After`.
pub const WEBHOOK_RETRY_AFTER_S_MAX: u64 = 3600;

/// How long a URL may fail before its webhook is switched off.
pub const WEBHOOK_FAILING_S_MAX: u64 = 24 * 60 * 60;

/// How long events are collected before those that wait for them are looked for: a storm of events
/// is no storm of looks.
pub const WEBHOOK_COLLECT: Duration = Duration::from_millis(50);

/// Events that a webhook passes over, because they are not for it, before it is stored how far it
/// has got; after a crash it looks at these again.
pub const WEBHOOK_PASSED_OVER_MAX: u64 = 1000;
/// Sessions that administrators can start when there is no other room for them.
pub const ADMIN_SESSIONS: u64 = 64;

/// Connections that administrators can have when there is no other place for them. Each is one of
/// the descriptors that let strangers get as far as their login.
pub const ADMIN_CONNECTIONS: u64 = 16;

/// Seconds for which the frames of a thing are kept at most, so that nobody need remember to end it.
pub const TRACE_S_MAX: u64 = 3600;

/// Seconds for which they are kept when nobody says for how long.
pub const TRACE_S: u64 = 60;

/// Bytes of the frames of one trace, with what each takes beside its bytes: then it ends.
pub const TRACE_BYTES_MAX: usize = 1024 * 1024;

/// What a frame of a trace takes beside its bytes.
pub const TRACED_FRAME_BYTES: usize = 128;

/// Traces that run or can still be read, a megabyte each at most.
pub const TRACES_MAX: u64 = 128;

/// Those of one organisation.
pub const TRACES_OF_ORG_MAX: u64 = 16;

/// Seconds for which a trace that has ended can still be read.
pub const TRACE_KEPT_S: u64 = 3600;

/// Bytes of the longest word of a traced frame that is looked up among the tokens.
pub const TRACED_WORD_BYTES_MAX: usize = 256;
