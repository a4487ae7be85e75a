//! The flight recorder: the frames of one thing, both directions, for a while (`thing.trace`).
//!
//! As long as nothing is traced, a connection compares one number when bytes come or go. What is
//! kept is in memory only, and has no secrets in it: [`mask`] writes over them before.

mod mask;
mod value;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::pool::{OverShare, Pool, Pools};
use base::shares::Shares;
use base::{ConnInfo, OrgId, Protocol, ThingId, ThingKey, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::{Principal, PrincipalId, Session};

use super::App;
use super::memory::Account;

pub use mask::Masker;
use mask::Secrets;

/// The command that begins and reads traces: whoever had one begun has to have its permission still.
const COMMAND: &str = "thing.trace";

/// All traces.
pub struct Recorder {
    /// Changes whenever a trace begins or ends: connections look anew whether they are traced.
    epoch: AtomicU32,
    /// Whether one runs.
    on: AtomicBool,
    traces: Mutex<Traces>,
}

struct Traces {
    shares: Shares<PrincipalId>,
    of: HashMap<Principal, Arc<Trace>>,
}

/// The frames of one thing.
pub struct Trace {
    org: OrgId,
    thing: Option<ThingId>,
    /// Who had it begun, and may have lost the right to it meanwhile.
    by: Arc<Session>,
    /// Who pays for its place.
    payer: (OrgId, PrincipalId),
    /// When it began, by the clock that is shown.
    started: Timestamp,
    until: Timestamp,
    open: AtomicBool,
    kept: Mutex<Kept>,
}

struct Kept {
    frames: Vec<Arc<Frame>>,
    next: u64,
    bytes: usize,
    /// When it ended, and why.
    end: Option<(Timestamp, TraceEnd)>,
    account: Account,
}

/// Why a trace ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceEnd {
    /// Its seconds were over.
    Time,
    /// It had its megabyte.
    Full,
    /// Somebody ended it.
    Stopped,
    /// Who had it begun may not trace the thing any more.
    Revoked,
    /// The thing was deleted.
    Deleted,
    /// Connections needed the memory: its frames are gone.
    Memory,
}

impl TraceEnd {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Full => "full",
            Self::Stopped => "stopped",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
            Self::Memory => "memory",
        }
    }
}

/// One frame.
pub struct Frame {
    /// Its number in the trace, from 1.
    pub number: u64,
    /// When it was read, or written.
    pub ts: Timestamp,
    /// Whether the server sent it.
    pub outgoing: bool,
    /// By which door.
    pub door: Protocol,
    /// On which connection.
    pub connection: u32,
    /// What it is.
    pub what: What,
    /// Its bytes, without secrets.
    pub bytes: Box<[u8]>,
    /// Whether there were any.
    pub redacted: bool,
}

/// What a frame is, as the door sees it.
#[derive(Default)]
pub struct What {
    /// The name of its packet, the path of a request, the status of an answer.
    pub packet: Cow<'static, str>,
    /// The version of MQTT.
    pub version: Option<&'static str>,
    /// The topic of a PUBLISH.
    pub topic: Option<Box<str>>,
    /// Where the payload of a PUBLISH begins.
    pub payload_at: Option<usize>,
}

/// How a trace stands.
pub struct TraceState {
    /// When it began.
    pub started: Timestamp,
    /// Until when it runs, at most.
    pub until: Timestamp,
    /// Who had it begun.
    pub by: String,
    /// When it ended, and why.
    pub end: Option<(Timestamp, TraceEnd)>,
    /// Bytes that it has.
    pub bytes: usize,
}

/// What a connection needs to be traced.
pub struct Tap {
    trace: Arc<Trace>,
    secrets: Secrets,
    conn: ConnInfo,
}

impl Recorder {
    pub(super) fn new(pools: &Arc<Pools>) -> Self {
        let shares = Shares::new(Pool::Traces, limits::TRACES_MAX, pools);
        let shares = shares.with_org_max(limits::TRACES_OF_ORG_MAX);
        Self {
            epoch: AtomicU32::new(0),
            on: AtomicBool::new(false),
            traces: Mutex::new(Traces { shares, of: HashMap::new() }),
        }
    }

    /// Changes whenever a trace begins or ends.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether a trace runs.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The trace of a thing that runs, or ended not long ago.
    pub fn find(&self, principal: &Principal) -> Option<Arc<Trace>> {
        self.traces.lock().of.get(principal).cloned()
    }

    fn running(&self, principal: &Principal) -> Option<Arc<Trace>> {
        if self.is_on() { self.find(principal).filter(|trace| trace.is_open()) } else { None }
    }

    /// Ends the trace of a thing.
    pub fn stop(&self, principal: &Principal, end: TraceEnd, now: Timestamp) {
        if let Some(trace) = self.find(principal) {
            trace.end(end, now);
            self.note(&self.traces.lock());
        }
    }

    fn note(&self, traces: &Traces) {
        self.on.store(traces.of.values().any(|trace| trace.is_open()), Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }
}

impl Traces {
    fn remove(&mut self, principal: &Principal) {
        if let Some(trace) = self.of.remove(principal) {
            let (org, payer) = trace.payer;
            self.shares.give_back(org, payer, 1);
        }
    }

    /// Forgets the oldest trace of the organisation that has ended, if there is one.
    fn forget_one(&mut self, org: OrgId) -> bool {
        let ended = self.of.iter().filter(|(_, trace)| trace.payer.0 == org && !trace.is_open());
        let oldest = ended.min_by_key(|(_, trace)| trace.started).map(|(key, _)| key.clone());
        let found = oldest.is_some();
        if let Some(oldest) = oldest {
            self.remove(&oldest);
        }
        found
    }
}

impl App {
    /// Begins a trace of a thing, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// The organisation, or who asks, has as many as it may.
    pub fn start_trace(
        &self,
        session: &Arc<Session>,
        conn: &ConnInfo,
        (org, key, thing): (OrgId, ThingKey, Option<ThingId>),
        seconds: u64,
    ) -> Result<Arc<Trace>, OverShare> {
        let now = self.clock.now();
        let who = session.who();
        let payer = (org, who.principal_id());
        let account = self.memory.open(self.payer(payer, who.name(), conn));
        let kept = Kept { frames: Vec::new(), next: 1, bytes: 0, end: None, account };
        let trace = Arc::new(Trace {
            org,
            thing,
            by: session.clone(),
            payer,
            started: self.clock.shown(now),
            until: now.plus_seconds(seconds),
            open: AtomicBool::new(true),
            kept: Mutex::new(kept),
        });
        let principal = Principal::Thing(org, key);
        let mut traces = self.recorder.traces.lock();
        if let Some(before) = traces.of.get(&principal).cloned() {
            before.end(TraceEnd::Stopped, now);
            traces.remove(&principal);
        }
        while let Err(over) = traces.shares.take(payer.0, payer.1, 1) {
            if !traces.forget_one(org) {
                self.recorder.note(&traces);
                return Err(over);
            }
        }
        traces.of.insert(principal, trace.clone());
        self.recorder.note(&traces);
        Ok(trace)
    }

    /// Ends traces whose time is over, whose memory others need, or whose owner lost the right to
    /// them, and forgets those that ended long ago.
    pub fn tend_traces(&self, now: Timestamp) {
        let recorder = &self.recorder;
        let all: Vec<_> = {
            let traces = recorder.traces.lock();
            traces.of.iter().map(|(key, trace)| (key.clone(), trace.clone())).collect()
        };
        let mut changed = false;
        for (principal, trace) in all {
            changed |= trace.tend(self, now);
            let ended = trace.kept.lock().end;
            let kept_for = ended.map(|(at, _)| now.millis_since(at) / 1000);
            if kept_for.is_some_and(|seconds| seconds >= limits::TRACE_KEPT_S) {
                let mut traces = recorder.traces.lock();
                if traces.of.get(&principal).is_some_and(|now| Arc::ptr_eq(now, &trace)) {
                    traces.remove(&principal);
                }
            }
        }
        if changed {
            recorder.note(&recorder.traces.lock());
        }
    }

    /// What a connection on which this session is needs, if its thing is traced.
    pub fn tap_of(&self, session: &Session, conn: &ConnInfo) -> Option<Box<Tap>> {
        let trace = self.recorder.running(&session.who().principal())?;
        let mut tap = Tap { trace, secrets: Secrets::default(), conn: *conn };
        if let Some(id) = session.id() {
            tap.secrets.add(id.secret().as_bytes());
        }
        Some(Box::new(tap))
    }

    /// The same before a login: for whoever shows the token of an application of the organisation in
    /// which a thing of this key is traced.
    pub fn tap_at_login(&self, key: &str, token: &str, conn: &ConnInfo) -> Option<Box<Tap>> {
        if !self.recorder.is_on() {
            return None;
        }
        let application = self.records.application_by_token(token)?;
        let key = ThingKey::parse(key).ok()?;
        let trace = self.recorder.running(&Principal::Thing(application.org, key))?;
        let mut tap = Tap { trace, secrets: Secrets::default(), conn: *conn };
        tap.secrets.add(token.as_bytes());
        Some(Box::new(tap))
    }
}

impl Tap {
    /// Whether its trace runs.
    pub fn is_open(&self) -> bool {
        self.trace.is_open()
    }

    /// Whether it is for the same trace.
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.trace, &other.trace)
    }

    /// Takes over the secrets that another knows.
    pub fn learn(&mut self, other: Self) {
        other.secrets.0.iter().for_each(|secret| self.secrets.add(secret));
    }

    /// Keeps a frame; `mask` writes over what is secret in it, and says what it is.
    pub fn record(
        &mut self,
        app: &App,
        outgoing: bool,
        bytes: &[u8],
        mask: impl FnOnce(&mut Masker<'_>, &mut Vec<u8>) -> What,
    ) {
        let ts = app.clock.shown(app.clock.now());
        self.record_at(app, ts, outgoing, bytes, mask);
    }

    /// The same of a frame that came then.
    pub fn record_at(
        &mut self,
        app: &App,
        ts: Timestamp,
        outgoing: bool,
        bytes: &[u8],
        mask: impl FnOnce(&mut Masker<'_>, &mut Vec<u8>) -> What,
    ) {
        // Before anything is looked at: what has no room is not worth it.
        if !self.trace.has_room(bytes.len(), app.clock.now()) {
            return;
        }
        let mut bytes = bytes.to_vec();
        let mut masker = Masker::new(app, &mut self.secrets, !outgoing);
        let what = mask(&mut masker, &mut bytes);
        let redacted = masker.masked();
        let frame = Frame {
            number: 0,
            ts,
            outgoing,
            door: self.conn.protocol,
            connection: self.conn.connection.number(),
            what,
            bytes: bytes.into(),
            redacted,
        };
        self.trace.add(frame, app.clock.now());
    }
}

impl Trace {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// How it stands.
    pub fn state(&self) -> TraceState {
        let kept = self.kept.lock();
        TraceState {
            started: self.started,
            until: self.until,
            by: self.by.who().name().to_owned(),
            end: kept.end,
            bytes: kept.bytes,
        }
    }

    /// The frames behind this number, at most so many; and whether there are more.
    pub fn frames(&self, after: u64, limit: usize) -> (Vec<Arc<Frame>>, bool) {
        let kept = self.kept.lock();
        let start = kept.frames.partition_point(|frame| frame.number <= after);
        let rest = kept.frames.get(start..).unwrap_or_default();
        (rest.iter().take(limit).cloned().collect(), rest.len() > limit)
    }

    fn has_room(&self, bytes: usize, now: Timestamp) -> bool {
        let mut kept = self.kept.lock();
        if kept.end.is_none() && now >= self.until {
            self.end_in(&mut kept, TraceEnd::Time, now);
        }
        let fits = kept.bytes + bytes + limits::TRACED_FRAME_BYTES <= limits::TRACE_BYTES_MAX;
        if kept.end.is_none() && !fits {
            self.end_in(&mut kept, TraceEnd::Full, now);
        }
        kept.end.is_none()
    }

    fn add(&self, mut frame: Frame, now: Timestamp) {
        let mut kept = self.kept.lock();
        if kept.end.is_some() {
            return;
        }
        let text = frame.what.topic.as_ref().map_or(0, |topic| topic.len());
        let more = frame.bytes.len() + text + frame.what.packet.len();
        let bytes = kept.bytes + more + limits::TRACED_FRAME_BYTES;
        if bytes > limits::TRACE_BYTES_MAX {
            return self.end_in(&mut kept, TraceEnd::Full, now);
        }
        kept.bytes = bytes;
        frame.number = kept.next;
        kept.next += 1;
        kept.frames.push(Arc::new(frame));
        if Account::is_worth(Some(&kept.account), bytes) {
            kept.account.set(bytes);
        }
        if kept.account.is_over() {
            self.end_in(&mut kept, TraceEnd::Memory, now);
        }
    }

    fn end(&self, end: TraceEnd, now: Timestamp) {
        self.end_in(&mut self.kept.lock(), end, now);
    }

    fn end_in(&self, kept: &mut Kept, end: TraceEnd, now: Timestamp) {
        self.open.store(false, Ordering::Relaxed);
        if end == TraceEnd::Memory {
            (kept.frames, kept.bytes) = (Vec::new(), 0);
            kept.account.set(0);
        }
        if kept.end.is_none() || end == TraceEnd::Memory {
            kept.end = Some((kept.end.map_or(now, |(at, _)| at), end));
        }
    }

    /// Looks whether it is over; true if it has ended since the last look.
    fn tend(&self, app: &App, now: Timestamp) -> bool {
        let may = || app.may_still(&self.by, (self.org, self.thing), COMMAND);
        let revoked = self.is_open() && !may();
        let mut kept = self.kept.lock();
        let end = match () {
            () if kept.account.is_over() && !kept.frames.is_empty() => TraceEnd::Memory,
            () if kept.end.is_some() => return false,
            () if revoked => TraceEnd::Revoked,
            () if now >= self.until => TraceEnd::Time,
            () => return false,
        };
        self.end_in(&mut kept, end, now);
        true
    }
}
