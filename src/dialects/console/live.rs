//! What keeps pages up to date: the cells of windows that have changed, as server-sent events.
//!
//! A stream follows several windows, for all tabs of a browser share one. A window is made when
//! something happened, less often while it changes all the time, and once for all who see the same
//! of it ([`Shared`]): what a viewer costs does not grow with what happens.

use std::sync::Arc;
use std::time::Duration;

use base::{Code, ConnInfo, Failure, limits};
use bytes::Bytes;
use hyper::HeaderMap;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::asked::{Asked, InOrg};
use super::form::Fields;
use super::respond::Refused;
use super::shared_windows::{Age, CHANGING_FOR, Looker, PARTS_FOR, Shared, WHOLE_FOR, Windows};
use super::window::Window;
use super::{asked, cookie, events, me, overview, sessions, thing, things};
use crate::app::{App, EventReaderPlace, Part, SIGN_OF_LIFE, Viewer};
use crate::events::Listener;
use crate::tr50::asker::Asker;

/// The page of one's own sessions, which is in no organisation.
pub(super) const OWN: &str = "/me";

/// What of an address only says which part of a list is shown.
const PLAIN: [&str; 3] = ["sort", "offset", "columns"];

/// Somebody who looks at windows.
pub struct Watching {
    views: Vec<View>,
    asker: Asker,
    windows: Arc<Windows>,
    heard: Listener,
    first: Option<Bytes>,
    /// When the last windows were looked at.
    looked: Instant,
    /// When there is a window with what has happened since the one that was looked at.
    due: Option<Instant>,
    beat_at: Instant,
    /// Whether the session has ended.
    is_over: bool,
    stop: CancellationToken,
    place: EventReaderPlace,
    /// What of the memory the windows are that it has seen.
    held: Part,
}

/// The screens with a window.
enum Screen {
    Sessions,
    Events,
    Things,
    Own,
    Overview,
    /// What is above the list of sessions.
    Strip,
    Thing(String),
    Mail(String, String),
}

/// A window that somebody looks at.
struct View {
    address: String,
    asked: Asked,
    /// Of the organisation; none of what is one's own.
    slug: Option<String>,
    screen: Screen,
    /// A window is good for at least so long.
    least: Duration,
    shared: Option<Arc<Shared>>,
    since: Instant,
    /// What the viewer has.
    seen: Option<Arc<Window>>,
    /// Of that window.
    bytes: usize,
    /// The same.
    age: Option<Age>,
}

impl View {
    fn read(asker: &Asker, address: &str, conn: ConnInfo) -> Option<Self> {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let (slug, screen) = match path.strip_prefix("/o/") {
            Some(path) => {
                let (slug, screen) = path.split_once('/')?;
                (Some(slug.to_owned()), Screen::at(screen)?)
            }
            None => (None, (path == OWN).then_some(Screen::Own)?),
        };
        let query = Fields::read(query.as_bytes());
        let is_plain = query.iter().all(|(name, _)| PLAIN.contains(&name));
        let least = screen.least(is_plain);
        let asked = Asked::of_view(asker.clone(), path.to_owned(), query, conn);
        Some(Self {
            address: address.to_owned(),
            asked,
            slug,
            screen,
            least,
            shared: None,
            since: Instant::now(),
            seen: None,
            bytes: 0,
            age: None,
        })
    }

    /// What has changed since the viewer looked; none: nothing.
    async fn look(&mut self, windows: &Windows) -> Result<Option<Bytes>, Refused> {
        if let (Some(shared), Some(seen)) = (&self.shared, &self.seen)
            && let Some(age) = shared.still(seen).await
        {
            self.age = Some(age);
            return Ok(None);
        }
        self.asked.look_at_clock();
        let in_org = match &self.slug {
            Some(slug) => self.asked.in_org(slug)?,
            None => self.asked.at_home()?,
        };
        let access = in_org.asker.placed().access();
        let own = self.asked.own_reference();
        let known = self.shared.take().filter(|shared| shared.access == access);
        // What is seen with such rights depends on whose thing it is, and what is one's own is nobody
        // else's.
        let is_alone = access.restricted_to_self || self.slug.is_none();
        let shared = known.unwrap_or_else(|| match is_alone {
            true => Arc::new(Shared::of(&access)),
            false => windows.of(&self.address, &access),
        });
        let (seen, since) = (self.seen.as_ref(), self.since);
        let looker = Looker { address: &self.address, seen, own: &own, since };
        let make = async || self.screen.window(&in_org).await;
        let looked = shared.look(looker, self.least, make).await?;
        self.bytes = looked.window.bytes();
        (self.seen, self.age) = (Some(looked.window), Some(looked.age));
        self.shared = Some(shared);
        Ok(looked.news)
    }
}

impl Screen {
    /// That of a path within an organisation.
    fn at(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.split('/').collect();
        Some(match segments.as_slice() {
            [""] => Self::Overview,
            [overview::STRIP] => Self::Strip,
            ["sessions"] => Self::Sessions,
            ["events"] => Self::Events,
            ["things"] => Self::Things,
            ["things", key] if !key.is_empty() => Self::Thing(things::key_of(key)),
            ["things", key, "mails", id] => Self::Mail(things::key_of(key), asked::decoded(id)),
            _ => return None,
        })
    }

    /// For how long a window of it is good at least; `is_plain`: of a whole list.
    fn least(&self, is_plain: bool) -> Duration {
        match self {
            Self::Overview | Self::Strip | Self::Thing(_) => PARTS_FOR,
            // Somebody waits for the answer.
            Self::Mail(..) => CHANGING_FOR,
            _ if is_plain => WHOLE_FOR,
            _ => CHANGING_FOR,
        }
    }

    /// Its window; the query is that of the request.
    async fn window(&self, asked: &InOrg<'_>) -> Result<Window, Refused> {
        let parts = match self {
            Self::Sessions => return sessions::window(asked, &asked.query).await,
            Self::Events => return events::window(asked, &asked.query).await,
            Self::Things => return things::window(asked, &asked.query).await,
            Self::Own => return me::window(asked).await,
            Self::Overview => overview::parts(asked).await?,
            Self::Strip => overview::strip_parts(asked).await?,
            Self::Thing(key) => thing::parts(asked, key).await?,
            Self::Mail(key, id) => thing::mail(asked, key, id).await?,
        };
        Ok(parts.into_window())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        for view in std::mem::take(&mut self.views) {
            // Nobody may look at it any more.
            drop((view.shared, view.seen));
            self.windows.forget_unseen(&view.address);
        }
    }
}

impl Watching {
    /// Begins to look at the windows of these addresses, for who shows a session's cookie.
    ///
    /// # Errors
    ///
    /// Nobody is known by the cookie; there is no place; an address is that of no window.
    pub async fn begin(
        app: &Arc<App>,
        windows: &Arc<Windows>,
        headers: &HeaderMap,
        views: &[String],
        conn: ConnInfo,
        (stop, held): (CancellationToken, Part),
    ) -> Result<Self, Failure> {
        let id = cookie::session_id(headers, &conn);
        let id = id.ok_or_else(|| Failure::session_invalid("is unknown: log in."))?;
        let asker = Asker::of_session(app, id, conn)?.watching();
        let wrong = |address: &str| {
            let sentence = format!("\"{}\" is no window.", base::excerpt(address));
            Failure::new(Code::PARAMETER_INVALID, sentence)
        };
        let read = views.iter().take(limits::VIEWS_MAX).map(|address| {
            let fits = address.len() <= limits::VIEW_BYTES_MAX;
            let view = fits.then(|| View::read(&asker, address, conn)).flatten();
            view.ok_or_else(|| wrong(address))
        });
        let views: Vec<View> = read.collect::<Result<_, _>>()?;
        let viewer = Viewer::Session(asker.session().clone());
        viewer.charge(app, asker.session().org_id())?;
        let place = app.event_readers.take(asker.session().org_id(), &viewer).await?;
        let heard = app.events().listen();
        let first = format!("retry: 2000\nid: {}\n\n", app.events().last()).into();
        let now = Instant::now();
        Ok(Self {
            views,
            asker,
            windows: windows.clone(),
            heard,
            first: Some(first),
            looked: now.checked_sub(CHANGING_FOR).unwrap_or(now),
            due: None,
            beat_at: now + limits::EVENT_HEARTBEAT,
            is_over: false,
            stop,
            place,
            held,
        })
    }

    /// The next bytes for the viewer; none at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while !self.is_over {
            let stop = self.stop.clone();
            let (next, latest) = (self.looked + WHOLE_FOR, self.looked + CHANGING_FOR);
            let latest = self.due.map_or(latest, |due| due.clamp(next, latest));
            let is_behind = tokio::select! {
                () = async { sleep_until(next).await; self.heard.changed().await } => true,
                () = sleep_until(latest) => self.due.is_some(),
                () = self.place.asked() => return Some(SIGN_OF_LIFE.into()),
                () = stop.cancelled() => return None,
            };
            self.looked = Instant::now();
            if self.asker.session().end().is_some() {
                self.is_over = true;
                return Some("event: ended\ndata: {}\n\n".into());
            }
            let mut texts = Vec::new();
            let mut held: usize = self.views.iter().map(|view| view.bytes).sum();
            for view in &mut self.views {
                // Its memory may be needed for others before it has looked at all.
                if stop.is_cancelled() {
                    return None;
                }
                held -= view.bytes;
                match view.look(&self.windows).await {
                    Ok(news) => texts.extend(news),
                    Err(Refused::Failure(failure)) if failure.is_temporary() => {}
                    Err(_) => {
                        // The page says why.
                        let view = serde_json::to_string(&view.address).unwrap_or_default();
                        let text = format!("event: ended\ndata: {{\"view\":{view}}}\n\n");
                        texts.push(text.into());
                    }
                }
                held += view.bytes;
                self.held.set(held + texts.iter().map(Bytes::len).sum::<usize>());
            }
            self.held.set(held);
            let ages = self.views.iter().filter_map(|view| view.age);
            let older = ages.filter(|age| is_behind && age.made < self.looked);
            self.due = older.map(|age| age.due).min();
            if !texts.is_empty() {
                self.beat_at = self.looked + limits::EVENT_HEARTBEAT;
                // One alone is that of all who have seen the same.
                return Some(match &*texts {
                    [text] => text.clone(),
                    texts => texts.concat().into(),
                });
            }
            if self.looked >= self.beat_at {
                self.beat_at = self.looked + limits::EVENT_HEARTBEAT;
                let number = self.asker.app().events().last();
                return Some(format!(": heartbeat\nid: {number}\n\n").into());
            }
        }
        None
    }
}
