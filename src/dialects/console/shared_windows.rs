//! Windows that several look at: each is made once for all who see the same of it, and so is what
//! has changed in it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rules::identity::Access;
use serde::Serialize;
use tokio::time::Instant;

use super::respond::Refused;
use super::window::{Row, Window};

/// How long a window of a whole list is good when it was the same for a while.
pub(super) const WHOLE_FOR: Duration = Duration::from_millis(250);

/// How long a window is good for which a list is looked through, and at most one that changes all
/// the time.
pub(super) const CHANGING_FOR: Duration = Duration::from_secs(1);

/// The same if most rows are others each time, faster than anybody reads.
const TORRENT_FOR: Duration = Duration::from_secs(4);

/// How long parts of a page are good, which take several commands.
pub(super) const PARTS_FOR: Duration = Duration::from_secs(4);

/// They rest for so many times as long as they take: a viewer costs a thousandth of a core at most.
const REST: u32 = 1000;

/// But they are good for no longer than this, however busy the server is.
const RESTS_FOR: Duration = Duration::from_secs(12);

/// Differences that are kept of a window: most viewers have seen the one before it.
const NEWS_KEPT: usize = 4;

/// Windows that several look at.
#[derive(Default)]
pub struct Windows(Mutex<HashMap<String, Vec<Arc<Shared>>>>);

/// A window of who has these rights.
pub(super) struct Shared {
    pub(super) access: Arc<Access>,
    made: tokio::sync::Mutex<Option<Made>>,
}

/// A window that was made.
struct Made {
    at: Instant,
    good_for: Duration,
    window: Arc<Window>,
    /// What has changed since those windows; none: for who has seen none.
    news: Vec<(Option<Arc<Window>>, Option<Bytes>)>,
}

/// Somebody who looks at a window.
#[derive(Clone, Copy)]
pub(super) struct Looker<'a> {
    /// The address of the window's page.
    pub(super) address: &'a str,
    /// The window that the viewer has; none: no one yet.
    pub(super) seen: Option<&'a Arc<Window>>,
    /// The row of the viewer's own session.
    pub(super) own: &'a str,
    /// Since when: the page, which is older, must not be followed by what was before it.
    pub(super) since: Instant,
}

/// What somebody sees who looks.
pub(super) struct Looked {
    pub(super) window: Arc<Window>,
    /// What has changed in it since the looker has seen one; none: nothing.
    pub(super) news: Option<Bytes>,
    pub(super) age: Age,
}

/// How old a window is.
#[derive(Clone, Copy)]
pub(super) struct Age {
    /// When it was made.
    pub(super) made: Instant,
    /// When a newer one will be.
    pub(super) due: Instant,
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
    /// Forgets the windows of an address at which nobody looks.
    pub(super) fn forget_unseen(&self, address: &str) {
        let mut all = self.0.lock();
        if let Some(of_address) = all.get_mut(address) {
            of_address.retain(|shared| Arc::strong_count(shared) > 1);
            if of_address.is_empty() {
                all.remove(address);
            }
        }
    }

    /// That of who has these rights.
    pub(super) fn of(&self, address: &str, access: &Arc<Access>) -> Arc<Shared> {
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
    pub(super) fn of(access: &Arc<Access>) -> Self {
        Self { access: access.clone(), made: tokio::sync::Mutex::default() }
    }

    /// The age of this window, if there is no newer one, nor time for one.
    pub(super) async fn still(&self, seen: &Arc<Window>) -> Option<Age> {
        let made = self.made.lock().await;
        let is_still = |made: &&Made| made.is_good() && Arc::ptr_eq(&made.window, seen);
        made.as_ref().filter(is_still).map(Made::age)
    }

    /// The window as it is now, or was a moment ago: one that has to be made is good for at least so
    /// long.
    pub(super) async fn look(
        &self,
        looker: Looker<'_>,
        least: Duration,
        make: impl AsyncFnOnce() -> Result<Window, Refused>,
    ) -> Result<Looked, Refused> {
        let mut made = self.made.lock().await;
        if !made.as_ref().is_some_and(|made| made.is_good_for(&looker)) {
            let at = Instant::now();
            let window = make().await?;
            let least = rested(least, at.elapsed());
            *made = Some(Made::next(made.take(), at, least, window));
        }
        // It was made above if it was not there.
        made.as_mut().map(|made| made.look(looker)).ok_or(Refused::NotFound)
    }
}

impl Made {
    fn is_good(&self) -> bool {
        self.at.elapsed() < self.good_for
    }

    fn is_good_for(&self, looker: &Looker<'_>) -> bool {
        self.is_good() && (looker.seen.is_some() || self.at >= looker.since)
    }

    fn age(&self) -> Age {
        Age { made: self.at, due: self.at + self.good_for }
    }

    /// The one that comes next: at once if nothing has changed for a while, then more and more slowly
    /// while it changes. `least`: it is good for so long in any case.
    fn next(before: Option<Self>, at: Instant, least: Duration, window: Window) -> Self {
        let Some(before) = before else {
            return Self { at, good_for: least, window: Arc::new(window), news: Vec::new() };
        };
        if before.window.is_same(&window) {
            return Self { at, good_for: least, ..before };
        }
        let most = match is_mostly_new(&before.window, &window) {
            true => TORRENT_FOR,
            false => CHANGING_FOR,
        };
        let good_for = (before.good_for * 2).min(most).max(least);
        Self { at, good_for, window: Arc::new(window), news: Vec::new() }
    }

    fn look(&mut self, looker: Looker<'_>) -> Looked {
        Looked { news: self.news_for(looker), window: self.window.clone(), age: self.age() }
    }

    fn news_for(&mut self, looker: Looker<'_>) -> Option<Bytes> {
        let seen = looker.seen.map(|seen| &**seen);
        if seen.is_some_and(|seen| ptr::eq(seen, &*self.window)) {
            return None;
        }
        if is_otherwise(seen, &self.window, looker.own) {
            return news(looker.address, seen, &self.window, looker.own);
        }
        let is_seen = |other: &Option<Arc<Window>>| match (other, looker.seen) {
            (Some(other), Some(seen)) => Arc::ptr_eq(other, seen),
            (None, None) => true,
            _ => false,
        };
        if let Some((_, news)) = self.news.iter().find(|(other, _)| is_seen(other)) {
            return news.clone();
        }
        let news = news(looker.address, seen, &self.window, "");
        if self.news.len() < NEWS_KEPT {
            self.news.push((looker.seen.cloned(), news.clone()));
        }
        news
    }
}

/// For how long a window is good that took so long.
fn rested(least: Duration, took: Duration) -> Duration {
    if least < PARTS_FOR { least } else { (took * REST).clamp(least, RESTS_FOR) }
}

/// Whether more than half of the rows were not there before.
fn is_mostly_new(before: &Window, window: &Window) -> bool {
    let known: HashSet<&str> = before.ids().collect();
    let new = window.ids().filter(|id| !known.contains(id)).count();
    new > window.rows.len() / 2
}

/// Whether what has changed is otherwise for who has this row.
fn is_otherwise(seen: Option<&Window>, window: &Window, own: &str) -> bool {
    let Some(row) = window.row(own) else { return false };
    let before = seen.and_then(|seen| seen.row(own));
    window.columns.iter().enumerate().any(|(index, column)| {
        column.own.is_some() && row.cell(index) != before.and_then(|before| before.cell(index))
    })
}

/// What has changed since a window was seen, as an event of the stream; none: nothing.
fn news(address: &str, seen: Option<&Window>, window: &Window, own: &str) -> Option<Bytes> {
    let known: HashMap<&str, &Row> = seen
        .map(|seen| seen.rows.iter().map(|row| (row.id.as_str(), row)).collect())
        .unwrap_or_default();
    let mut cells = HashMap::new();
    for row in &window.rows {
        let before = known.get(row.id.as_str());
        let mut changed = HashMap::new();
        for (index, (column, cell)) in window.columns.iter().zip(&row.cells).enumerate() {
            let own = column.own.filter(|_| row.id == own);
            if before.and_then(|before| before.cell(index)) != Some(&cell.0) {
                let cell = own.map_or(Cow::Borrowed(&*cell.0), |own| own(cell).0.into());
                changed.insert(column.key, cell);
            }
        }
        if !changed.is_empty() {
            cells.insert(row.id.as_str(), changed);
        }
    }
    let order = seen.is_none_or(|seen| !seen.ids().eq(window.ids()));
    let total = seen.is_none_or(|seen| seen.count() != window.count());
    if cells.is_empty() && !order && !total {
        return None;
    }
    let over = window.rows.iter().filter(|row| row.is_over).map(|row| row.id.as_str()).collect();
    let news = News {
        view: address,
        total: total.then(|| window.count()),
        rows: total.then(|| window.row_count()),
        cells,
        over,
        order: order.then(|| window.ids().collect()),
    };
    let news = serde_json::to_string(&news).ok()?;
    Some(format!("event: window\ndata: {news}\n\n").into())
}

#[cfg(test)]
mod tests {
    use maud::{PreEscaped, html};

    use super::super::window::{Column, PAGE};
    use super::*;

    const ADDRESS: &str = "/o/a/sessions?";
    const COLUMNS: &[Column] =
        &[Column::new("who", "Who").with_own(|who| html! { (who) " you" }), Column::new("n", "N")];

    fn window(rows: &[(&str, &str)]) -> Window {
        let row = |(id, count): &(&str, &str)| Row {
            id: (*id).to_owned(),
            cells: vec![PreEscaped(format!("<b>{id}</b>")), PreEscaped((*count).to_owned())],
            is_over: false,
            choice: None,
        };
        Window {
            caption: "Rows",
            nouns: ["row", "rows"],
            columns: COLUMNS.into(),
            has_choice: false,
            rows: rows.iter().map(row).collect(),
            total: rows.len() as u64,
            is_at_least: false,
            offset: 0,
            limit: PAGE,
            sort: String::new(),
        }
    }

    fn made(before: Option<Made>, rows: &[(&str, &str)]) -> Made {
        Made::next(before, Instant::now(), WHOLE_FOR, window(rows))
    }

    fn looker<'a>(seen: Option<&'a Arc<Window>>, own: &'a str) -> Looker<'a> {
        Looker { address: ADDRESS, seen, own, since: Instant::now() }
    }

    /// What somebody with this row gets of a window, who has seen another one.
    fn since(made: &mut Made, seen: Option<&Arc<Window>>, own: &str) -> (Arc<Window>, String) {
        let Looked { window, news, .. } = made.look(looker(seen, own));
        let news = news.map_or(String::new(), |news| String::from_utf8_lossy(&news).into_owned());
        (window, news)
    }

    #[test]
    fn what_has_changed_is_made_once_for_all_who_have_seen_the_same() {
        let mut first = made(None, &[("a", "1"), ("b", "1")]);
        let (seen, all) = since(&mut first, None, "");
        assert!(all.contains(r#""order":["a","b"]"#) && all.contains("<b>b</b>"), "{all}");
        let mut second = made(Some(first), &[("a", "2"), ("b", "1")]);
        let (window, news) = since(&mut second, Some(&seen), "");
        let whole = "event: window\ndata: {\"view\":\"/o/a/sessions?\",\
                     \"cells\":{\"a\":{\"n\":\"2\"}},\"over\":[]}\n\n";
        assert_eq!(news, whole);
        let again = second.news_for(looker(Some(&seen), ""));
        let other = second.news_for(looker(Some(&seen), ""));
        assert_eq!(again.expect("news").as_ptr(), other.expect("news").as_ptr());
        assert_eq!(since(&mut second, Some(&window), "").1, "", "nothing since");
        let (_, late) = since(&mut second, None, "");
        assert!(late.contains("order"), "{late}");
    }

    #[test]
    fn a_window_that_is_the_same_stays() {
        let mut first = made(None, &[("a", "1")]);
        let (seen, _) = since(&mut first, None, "");
        let mut same = made(Some(first), &[("a", "1")]);
        let (window, news) = since(&mut same, Some(&seen), "");
        assert!(Arc::ptr_eq(&window, &seen) && news.is_empty(), "{news}");
    }

    #[test]
    fn who_begins_to_look_gets_nothing_from_before() {
        let mut made = made(None, &[("a", "1")]);
        let (seen, _) = since(&mut made, None, "");
        assert!(made.is_good_for(&looker(Some(&seen), "")));
        let late = Looker { since: made.at + Duration::from_millis(1), ..looker(None, "") };
        assert!(!made.is_good_for(&late));
        assert!(made.is_good_for(&Looker { since: made.at, ..late }));
    }

    #[test]
    fn ones_own_row_is_otherwise_for_oneself_alone() {
        let mut first = made(None, &[("a", "1"), ("b", "1")]);
        let (seen, own) = since(&mut first, None, "a");
        assert!(own.contains("<b>a</b> you") && !own.contains("<b>b</b> you"), "{own}");
        let (_, others) = since(&mut first, None, "c");
        assert!(!others.contains("you"), "{others}");
        // What is the same for all is shared with all.
        let mut second = made(Some(first), &[("a", "2"), ("b", "1")]);
        let (_, own) = since(&mut second, Some(&seen), "a");
        assert!(!own.contains("you") && second.news.len() == 1, "{own}");
    }

    #[test]
    fn parts_that_take_long_are_made_less_often() {
        let took = |ms| rested(PARTS_FOR, Duration::from_millis(ms)).as_secs();
        assert_eq!([0, 1, 4, 7, 12, 9000].map(took), [4, 4, 4, 7, 12, 12]);
        assert_eq!(rested(WHOLE_FOR, Duration::from_secs(9)), WHOLE_FOR);
    }

    #[test]
    fn a_window_that_changes_all_the_time_comes_less_often() {
        let mut made = made(None, &[("a", "0"), ("b", "0")]);
        let mut good_for = vec![made.good_for];
        let mut next = |rows: &[(&str, &str)]| {
            let before = std::mem::replace(&mut made, self::made(None, &[]));
            made = self::made(Some(before), rows);
            good_for.push(made.good_for);
        };
        for count in ["1", "2", "3"] {
            next(&[("a", count), ("b", "0")]);
        }
        for new in ["c", "e", "g"] {
            next(&[(new, "0"), (&new.to_uppercase(), "0")]);
        }
        next(&[("g", "1"), ("G", "0")]);
        next(&[("g", "1"), ("G", "0")]);
        let ms: Vec<_> = good_for.iter().map(Duration::as_millis).collect();
        assert_eq!(ms, [250, 500, 1000, 1000, 2000, 4000, 4000, 1000, 250]);
    }
}
