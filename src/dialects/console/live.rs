//! What keeps pages up to date: the cells of windows that have changed, as server-sent events.
//!
//! A stream follows several windows, for all tabs of a browser share one. A window is made at most a
//! few times a second, when something happened, and once for all who see the same of it: what a
//! viewer costs does not grow with what happens.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Code, ConnInfo, Failure, limits};
use bytes::Bytes;
use hyper::HeaderMap;
use parking_lot::Mutex;
use rules::identity::Access;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::asked::{Asked, InOrg};
use super::form::Fields;
use super::respond::Refused;
use super::window::Window;
use super::{cookie, events, sessions, things};
use crate::app::{App, EventReaderPlace, Viewer};
use crate::events::Listener;
use crate::tr50::asker::Asker;

/// How long a window of a whole list is good.
const WHOLE_FOR: Duration = Duration::from_millis(250);

/// How long a window is good for which a list is looked through, and how often one is made anew when
/// nothing happened but counters that went on.
const FILTERED_FOR: Duration = Duration::from_secs(1);

/// The screens with a window.
const SCREENS: [&str; 3] = ["sessions", "events", "things"];

/// What of an address only says which part of a list is shown.
const PLAIN: [&str; 3] = ["sort", "offset", "columns"];

/// Windows that several look at.
#[derive(Default)]
pub struct Windows(Mutex<HashMap<String, Vec<Arc<Shared>>>>);

/// A window of who has these rights.
struct Shared {
    access: Arc<Access>,
    made: tokio::sync::Mutex<Option<(Instant, Arc<Window>)>>,
}

/// Somebody who looks at windows.
pub struct Watching {
    views: Vec<View>,
    asker: Asker,
    windows: Arc<Windows>,
    heard: Listener,
    first: Option<Bytes>,
    /// When the last windows were looked at.
    looked: Instant,
    beat_at: Instant,
    /// Whether the session has ended.
    is_over: bool,
    stop: CancellationToken,
    _place: EventReaderPlace,
}

/// A window that somebody looks at.
struct View {
    address: String,
    asked: Asked,
    slug: String,
    screen: &'static str,
    fresh_for: Duration,
    shared: Option<Arc<Shared>>,
    /// What the viewer has.
    seen: Option<Arc<Window>>,
}

/// What has changed in a window.
#[derive(Serialize)]
struct News<'a> {
    view: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<i64>,
    /// By row and column.
    cells: HashMap<&'a str, HashMap<&'a str, Cow<'a, str>>>,
    /// Rows that are over.
    over: Vec<&'a str>,
    /// All rows, if others are there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<Vec<&'a str>>,
}

impl Windows {
    /// That of who has these rights.
    fn of(&self, address: &str, access: &Arc<Access>) -> Arc<Shared> {
        let mut all = self.0.lock();
        let is_seen = |shared: &Arc<Shared>| Arc::strong_count(shared) > 1;
        if !all.contains_key(address) {
            all.retain(|_, of_address| {
                of_address.retain(is_seen);
                !of_address.is_empty()
            });
        }
        let of_address = all.entry(address.to_owned()).or_default();
        if let Some(shared) = of_address.iter().find(|shared| shared.access == *access) {
            return shared.clone();
        }
        of_address.retain(is_seen);
        let shared = Arc::new(Shared::of(access));
        of_address.push(shared.clone());
        shared
    }
}

impl Shared {
    fn of(access: &Arc<Access>) -> Self {
        Self { access: access.clone(), made: tokio::sync::Mutex::default() }
    }
}

impl View {
    fn read(asker: &Asker, address: &str, conn: ConnInfo) -> Option<Self> {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let (slug, screen) = path.strip_prefix("/o/")?.split_once('/')?;
        let screen = SCREENS.into_iter().find(|known| *known == screen)?;
        let query = Fields::read(query.as_bytes());
        let is_plain = query.iter().all(|(name, _)| PLAIN.contains(&name));
        let asked = Asked::of_view(asker.clone(), path.to_owned(), query, conn);
        Some(Self {
            address: address.to_owned(),
            asked,
            slug: slug.to_owned(),
            screen,
            fresh_for: if is_plain { WHOLE_FOR } else { FILTERED_FOR },
            shared: None,
            seen: None,
        })
    }

    /// The window as it is now, or was a moment ago.
    async fn look(&mut self, windows: &Windows) -> Result<Arc<Window>, Refused> {
        self.asked.look_at_clock();
        let in_org = self.asked.in_org(&self.slug)?;
        let access = in_org.asker.placed().access();
        let known = self.shared.take().filter(|shared| shared.access == access);
        // What is seen with such rights depends on whose thing it is.
        let shared = known.unwrap_or_else(|| match access.restricted_to_self {
            true => Arc::new(Shared::of(&access)),
            false => windows.of(&self.address, &access),
        });
        let mut made = shared.made.lock().await;
        let window = match &*made {
            Some((at, window)) if at.elapsed() < self.fresh_for => window.clone(),
            _ => {
                let window = Arc::new(window(&in_org, self.screen).await?);
                *made = Some((Instant::now(), window.clone()));
                window
            }
        };
        drop(made);
        self.shared = Some(shared);
        Ok(window)
    }

    /// What has changed since the viewer got the last news; none: nothing.
    fn news(&self, window: &Window) -> Option<String> {
        let seen = self.seen.as_deref();
        let known: HashMap<&str, &super::window::Row> = seen
            .map(|seen| seen.rows.iter().map(|row| (row.id.as_str(), row)).collect())
            .unwrap_or_default();
        let own = self.asked.own_reference();
        let mut cells = HashMap::new();
        for row in &window.rows {
            let before = known.get(row.id.as_str());
            let mut changed = HashMap::new();
            for (index, (column, cell)) in window.columns.iter().zip(&row.cells).enumerate() {
                let before = before.and_then(|before| before.cells.get(index));
                let same = before.is_some_and(|before| before.0 == cell.0);
                let own = column.own.filter(|_| row.id == own);
                if !same {
                    let cell = own.map_or(Cow::Borrowed(&*cell.0), |own| own(cell).0.into());
                    changed.insert(column.key, cell);
                }
            }
            if !changed.is_empty() {
                cells.insert(row.id.as_str(), changed);
            }
        }
        let ids = |window| Window::ids(window).collect::<Vec<_>>();
        let order = seen.is_none_or(|seen| ids(seen) != ids(window));
        let total = seen.is_none_or(|seen| seen.count() != window.count());
        if cells.is_empty() && !order && !total {
            return None;
        }
        let over =
            window.rows.iter().filter(|row| row.is_over).map(|row| row.id.as_str()).collect();
        let news = News {
            view: &self.address,
            total: total.then(|| window.count()),
            rows: total.then(|| window.row_count()),
            cells,
            over,
            order: order.then(|| ids(window)),
        };
        serde_json::to_string(&news).ok()
    }
}

/// The window of a screen; the query is that of the request.
async fn window(asked: &InOrg<'_>, screen: &str) -> Result<Window, Refused> {
    match screen {
        "sessions" => sessions::window(asked, &asked.query).await,
        "events" => events::window(asked, &asked.query).await,
        _ => things::window(asked, &asked.query).await,
    }
}

impl Watching {
    /// Begins to look at the windows of these addresses, for who shows a session's cookie.
    ///
    /// # Errors
    ///
    /// Nobody is known by the cookie; there is no place; an address is that of no window.
    pub fn begin(
        app: &Arc<App>,
        windows: &Arc<Windows>,
        headers: &HeaderMap,
        views: &[String],
        conn: ConnInfo,
        stop: CancellationToken,
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
        let place = app.event_readers.take(asker.session().org_id(), &viewer)?;
        let heard = app.events().listen();
        let first = format!("retry: 2000\nid: {}\n\n", app.events().last()).into();
        let now = Instant::now();
        Ok(Self {
            views,
            asker,
            windows: windows.clone(),
            heard,
            first: Some(first),
            looked: now.checked_sub(FILTERED_FOR).unwrap_or(now),
            beat_at: now + limits::EVENT_HEARTBEAT,
            is_over: false,
            stop,
            _place: place,
        })
    }

    /// The next bytes for the viewer; none at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while !self.is_over {
            let stop = self.stop.clone();
            let (next, latest) = (self.looked + WHOLE_FOR, self.looked + FILTERED_FOR);
            tokio::select! {
                () = async { sleep_until(next).await; self.heard.changed().await } => {}
                () = sleep_until(latest) => {}
                () = stop.cancelled() => return None,
            }
            self.looked = Instant::now();
            if self.asker.session().end().is_some() {
                self.is_over = true;
                return Some("event: ended\ndata: {}\n\n".into());
            }
            let number = self.asker.app().events().last();
            let mut text = String::new();
            for view in &mut self.views {
                match view.look(&self.windows).await {
                    Ok(window) => {
                        if let Some(news) = view.news(&window) {
                            text += &format!("event: window\ndata: {news}\n");
                            text += &format!("id: {number}\n\n");
                        }
                        view.seen = Some(window);
                    }
                    Err(Refused::Failure(failure)) if failure.is_temporary() => {}
                    Err(_) => {
                        // The page says why.
                        let view = serde_json::to_string(&view.address).unwrap_or_default();
                        text += &format!("event: ended\ndata: {{\"view\":{view}}}\n\n");
                    }
                }
            }
            if !text.is_empty() {
                self.beat_at = self.looked + limits::EVENT_HEARTBEAT;
                return Some(text.into());
            }
            if self.looked >= self.beat_at {
                self.beat_at = self.looked + limits::EVENT_HEARTBEAT;
                return Some(format!(": heartbeat\nid: {number}\n\n").into());
            }
        }
        None
    }
}
