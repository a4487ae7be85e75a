//! Somebody who follows the stream of events over HTTP: the text of server-sent events (the HTML
//! standard, 9.2), piece by piece, by the rights of each moment.

use std::sync::Arc;
use std::time::Duration;

use base::{ConnInfo, limits};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::event_pieces::{Audience, Found, Piece};
use super::{App, EventReaderPlace, SIGN_OF_LIFE, Sight, Viewer};
use crate::events::{Filter, Listener};

/// Somebody who follows the stream.
pub struct Following {
    app: Arc<App>,
    viewer: Viewer,
    conn: ConnInfo,
    filter: Filter,
    /// What was seen last, for whoever sees the same.
    audience: Option<Arc<Audience>>,
    after: u64,
    heard: Listener,
    /// What is sent before anything else.
    first: Option<Bytes>,
    begun: Instant,
    /// Whether something came the last time, and more is probably on its way.
    flows: bool,
    /// When something is to be sent next, so that everybody knows that the connection is there.
    beat_at: Instant,
    /// Ends it.
    stop: CancellationToken,
    place: EventReaderPlace,
}

impl Following {
    /// Begins behind a number, or with what comes from now on.
    pub fn begin(
        app: &Arc<App>,
        (viewer, conn): (Viewer, ConnInfo),
        place: EventReaderPlace,
        filter: Filter,
        after: Option<u64>,
        stop: CancellationToken,
    ) -> Self {
        // Before the last number is asked for: what comes then wakes this one.
        let heard = app.events().listen();
        let after = after.unwrap_or_else(|| app.events().last());
        let first = format!("retry: {RETRY_MS}\nid: {after}\n\n").into();
        let begun = Instant::now();
        Self {
            app: app.clone(),
            viewer,
            conn,
            filter,
            audience: None,
            after,
            heard,
            first: Some(first),
            begun,
            flows: false,
            beat_at: begun + limits::EVENT_HEARTBEAT,
            stop,
            place,
        }
    }

    async fn wait_for_turn(&self, work: Duration) {
        let tenant = self.app.pools.tenant_of(self.place.org());
        self.app.readers_pace.wait(tenant, work).await;
    }

    /// The next bytes for the reader; none at the end: its session, the right to events or the server
    /// has ended, or the store failed.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if std::mem::take(&mut self.flows) {
            self.wait_for_more().await?;
        }
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            let piece = self.piece().await?;
            self.after = piece.next;
            let work = limits::EVENT_PIECE_WORK + limits::EVENT_SENT_WORK * piece.events;
            if !piece.text.is_empty() {
                // Others first: whoever reads events waits for them.
                self.wait_for_turn(work).await;
                self.beat_at = Instant::now() + limits::EVENT_HEARTBEAT;
                self.flows = !piece.more;
                return Some(piece.text);
            }
            if piece.more {
                self.wait_for_turn(work).await;
                continue;
            }
            tokio::select! {
                () = self.heard.changed() => {}
                () = sleep_until(self.beat_at) => {
                    self.beat_at += limits::EVENT_HEARTBEAT;
                    // Also how far it is: who connects anew goes on there.
                    self.sight()?;
                    return Some(format!(": heartbeat\nid: {}\n\n", self.after).into());
                }
                () = self.place.asked() => return Some(SIGN_OF_LIFE.into()),
                () = self.stop.cancelled() => return None,
            }
            self.wait_for_more().await?;
        }
    }

    /// In a flood, many come in one piece. Readers that began at different times do not all come
    /// back at the same one.
    async fn wait_for_more(&self) -> Option<()> {
        let together = limits::EVENTS_TOGETHER.as_nanos();
        let over = self.begun.elapsed().as_nanos() % together;
        let left = u64::try_from(together - over).unwrap_or(0);
        let turn = Instant::now() + Duration::from_nanos(left);
        tokio::select! {
            () = sleep_until(turn) => Some(()),
            () = self.stop.cancelled() => None,
        }
    }

    /// What may be seen now; none: the session has ended, or the right to events was taken away.
    fn sight(&self) -> Option<Sight> {
        self.app.sight_of(&self.viewer, self.conn).filter(Sight::may_look)
    }

    /// What there is behind the number that was reached.
    async fn piece(&mut self) -> Option<Piece> {
        let sight = self.sight()?;
        let Some(audience) = self.audience_of(&sight) else {
            return self.read(&sight, None).await;
        };
        let now = Instant::now();
        let upto = match self.app.event_pieces.find(&audience, self.after, now) {
            Found::Piece(piece) => return Some(piece),
            Found::Nothing(upto) => upto,
        };
        let piece = self.read(&sight, upto).await?;
        self.app.event_pieces.keep(&audience, self.after, now, &piece);
        Some(piece)
    }

    /// Who sees and wants the same; none: nobody else may.
    fn audience_of(&mut self, sight: &Sight) -> Option<Arc<Audience>> {
        let view = sight.view()?;
        if let Some(known) = self.audience.as_ref().filter(|known| known.view == view) {
            return Some(known.clone());
        }
        let audience = Arc::new(Audience { filter: self.filter.clone(), view });
        self.audience = Some(audience.clone());
        Some(audience)
    }

    async fn read(&self, sight: &Sight, upto: Option<u64>) -> Option<Piece> {
        let worker = self.viewer.worker(sight.org());
        let most = limits::EVENTS_AT_ONCE;
        let wanted = (self.after, upto.unwrap_or(u64::MAX));
        let read = self.app.events_between(wanted, &self.filter, sight, worker, most);
        tokio::select! {
            news = read => Some(Piece::of(&news.ok()?)),
            () = self.stop.cancelled() => None,
        }
    }
}

/// After how long a browser connects anew.
const RETRY_MS: u32 = 2000;
