//! `thing.find`, `thing.list` and `thing.search`.

use base::{Code, Failure, OrgId, ThingKey, Timestamp, limits, yield_point};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::StoreError;

use super::change::check_tags;
use super::object::{CurrentValues, FIELDS, FOREIGN_FIELDS, ThingObject};
use super::query::Query;
use super::traits::{GroupBy, Groups, Traits, last_end, sort_things};
use crate::app::App;
use crate::things::registry::Thing;
use crate::things::telemetry::point::Kind;
use crate::tr50::commands::paging::{ListReply, View, members};
use crate::tr50::commands::target::{ByKey, Target};
use crate::tr50::params::params;
use crate::tr50::step::{Call, Later};

params! {
    /// The parameters of `thing.list` and `thing.search` beside those of every list.
    #[derive(Debug)]
    pub(super) struct ListParams {
        optional tags: Vec<String> = "tags", "Only things that have all of these tags.";
        optional_exact keys: Vec<String> = "keys", "Only things with these keys.";
        optional_exact prefix: String = "prefix", "Only things whose keys begin so.";
        optional_exact who_am_i: String = "whoAmI",
            "Only things with this key, in which `*` stands for any text.";
        optional_exact def_key: String = "defKey", "Only things with this definition.";
        optional_exact app_id: String = "appId",
            "Only things with this application id; for administrators.";
        optional connected: bool = "connected", "Only things that are connected; false: the others.";
        optional protocol: String = "protocol", "Only things that are here by this protocol.";
        optional remote_addr: String = "remoteAddr",
            "Only things that are here from an `ip:port` that begins so.";
        optional last_seen_after: Timestamp = "lastSeenAfter",
            "Only things with a later sign of life.";
        optional last_seen_before: Timestamp = "lastSeenBefore",
            "Only things without a sign of life since then; those never seen, too.";
        optional idle_longer_than: u64 = "idleLongerThan",
            "Only things without a command for more than so many seconds.";
        optional ended_after: Timestamp = "endedAfter",
            "Only things whose last session that is known ended later.";
        optional ended_before: Timestamp = "endedBefore",
            "Only things whose last session that is known ended earlier.";
        optional end_reason: Vec<String> = "endReason",
            "Only things whose last session that is known ended so, such as `keep_alive`.";
        optional disabled: bool = "disabled", "Only things that are disabled; false: the others.";
        optional group_by: String = "groupBy",
            "Counts them by `definition`, `protocol`, `application` or `reason` instead of listing \
             them; `offset` and `limit` are of the groups then.";
        optional has_loc: bool = "hasLoc", "Only things whose location is known; false: the others.";
        optional show_count: bool = "showCount", "False leaves `count` out of the reply.";
        optional iterator: String = "iterator",
            "`new`, or what the last reply gave, for the next things by key; its page has the \
             filters of the first, and no other order.";
    }
}

params! {
    /// What `thing.list` takes beside that.
    pub(super) struct Words {
        optional query: String = "query",
            "Only things in which these words occur, as for `thing.search`.";
    }
}

params! {
    /// What `thing.search` takes beside that.
    pub(super) struct Search {
        required query: String = "query",
            "Words that have to occur in key, name, description, tags or identifiers; `*` stands \
             for any text, `field:word` looks in one field.";
    }
}

/// Which things a listing is about.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(in crate::tr50::commands) struct Selection {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    has_loc: Option<bool>,
    #[serde(default, skip_serializing_if = "Traits::is_any")]
    traits: Traits,
}

/// Where a listing in pages stands. The client keeps it, so that it costs nothing here and
/// outlives a restart; the cloud's own is a text of the same kind (`docs/protocol/tr50.md` 4.1).
#[derive(Serialize, Deserialize)]
struct Iterator {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<ThingKey>,
    /// There is nothing behind that.
    done: bool,
    count: usize,
    selection: Selection,
}

/// Things that are read at once on the way to a page.
const STEP: usize = 1000;

/// The reply of `thing.find`.
#[derive(Serialize)]
pub(super) struct Found {
    #[serde(flatten)]
    thing: ThingObject,
    #[serde(flatten)]
    values: CurrentValues,
}

/// `thing.find`.
pub(super) fn find(call: &Call<'_>, (by_key, target): (ByKey, Target)) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let thing = target.thing_by_key(by_key, call)?;
        let values = CurrentValues::of(call, thing.id)?;
        Ok(Found { thing: ThingObject::of(call, thing)?, values })
    })
}

/// `thing.list`: the things of the current organisation, ordered by key.
pub(super) fn list(
    call: &Call<'_>,
    (view, (wanted, words)): (View, (ListParams, Words)),
) -> Result<Later, Failure> {
    let query = words.query.filter(|query| !query.trim().is_empty());
    let key = shared_key(call, "list", &format!("{view:?} {wanted:?} {query:?}"));
    call.look_shared(key, move |call| listing(call, view, wanted, query))
}

/// By what askers are known who get the same: what a row shows depends on who asks, unless that is
/// an administrator.
fn shared_key(call: &Call<'_>, command: &str, question: &str) -> String {
    let org = call.session.org_id();
    match call.session.access().administers_here() {
        true => format!("thing.{command} {org} {question}"),
        false => format!("thing.{command} {org} {} {question}", call.session.reference()),
    }
}

/// `thing.search`.
pub(super) fn search(
    call: &Call<'_>,
    (view, (wanted, search)): (View, (ListParams, Search)),
) -> Result<Later, Failure> {
    let key = shared_key(call, "search", &format!("{view:?} {wanted:?} {}", search.query));
    call.look_shared(key, move |call| listing(call, view, wanted, Some(search.query)))
}

fn listing(
    call: &Call<'_>,
    view: View,
    wanted: ListParams,
    query: Option<String>,
) -> Result<Answer, Failure> {
    let view = view.without_shown(FOREIGN_FIELDS);
    let traits = Traits::of(call, &wanted)?;
    let mut selection = Selection::of(wanted.tags, wanted.keys, query);
    (selection.has_loc, selection.traits) = (wanted.has_loc, traits);
    selection.check()?;
    if let Some(by) = &wanted.group_by {
        let by = GroupBy::named(by)?;
        let groups = Groups::of(call, &selection.things(call)?, by, selection.looks_at_all(call));
        return Ok(Answer::Groups(groups.page(&view)));
    }
    let reply = match &wanted.iterator {
        Some(iterator) => next_page(call, &view, selection, iterator)?,
        None => page(call, &view, &selection)?,
    };
    let hides_count = wanted.show_count == Some(false);
    Ok(Answer::List(if hides_count { reply.without_count() } else { reply }))
}

/// The reply of `thing.list`.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    List(ListReply),
    Groups(Groups),
}

fn page(call: &Call<'_>, view: &View, selection: &Selection) -> Result<ListReply, Failure> {
    let (offset, limit) = view.page();
    if view.sort().is_none() && selection.is_all() {
        let page = rows(call, call.app.things.page(call.session.org_id(), offset, limit)?)?;
        return filled(call, view, selection.count(call)?, page);
    }
    if view.sort().is_none() && !selection.traits.is_any() && selection.keys.is_none() {
        let (things, count, is_all) = selection.first(call, offset, limit)?;
        let reply = filled(call, view, count, rows(call, things)?)?;
        return Ok(if is_all { reply } else { reply.with_count_at_least() });
    }
    let mut things = selection.things(call)?;
    let count = things.len();
    let sorted = match view.sort_key(&[FIELDS, &FURTHER, &OF_SESSIONS].concat())? {
        None => true,
        Some((field, descending)) => sort_things(call, &mut things, field, descending)?,
    };
    let page = if sorted {
        rows(call, things.into_iter().skip(offset).take(limit).collect())?
    } else {
        let mut rows = rows(call, things)?;
        view.order(FIELDS, &mut rows)?;
        rows.into_iter().skip(offset).take(limit).collect()
    };
    let reply = filled(call, view, count, page)?;
    Ok(if selection.looks_at_all(call) { reply } else { reply.with_count_at_least() })
}

/// The reply with a page, to which the current values are added if they are asked for: of no more
/// things than are shown.
fn filled(
    call: &Call<'_>,
    view: &View,
    count: usize,
    mut page: Vec<Map<String, Value>>,
) -> Result<ListReply, Failure> {
    if CurrentValues::FIELDS.iter().any(|field| view.shows(field)) {
        let mut bytes = 0;
        for row in &mut page {
            let id = row.get("id").and_then(|id| id.as_str()?.parse().ok());
            let Some(id) = id else { continue };
            let values = CurrentValues::of(call, id)?;
            bytes += values.bytes();
            if bytes > limits::LISTED_VALUES_BYTES_MAX {
                return Err(too_much());
            }
            row.extend(members(&values).unwrap_or_default());
        }
    }
    let further: Vec<_> = FURTHER.into_iter().filter(|field| view.names(field)).collect();
    if !further.is_empty() {
        for row in &mut page {
            add_further(call, row, &further)?;
        }
    }
    view.reply(&[FIELDS, &further].concat(), count, page.into_iter())
}

/// Members of `session.list` by which things can be sorted, too.
const OF_SESSIONS: [&str; 2] = ["whoAmI", "lastAccessed"];

/// Members of a row that are looked for only if they are named.
const FURTHER: [&str; 4] = ["endReason", "endTime", "alarmsRaised", "alarmState"];

/// Adds to a row how the last session ended, and what the alarms come to.
fn add_further(
    call: &Call<'_>,
    row: &mut Map<String, Value>,
    further: &[&str],
) -> Result<(), StoreError> {
    let wants = |names: [&str; 2]| names.iter().any(|name| further.contains(name));
    let key = row.get("key").and_then(|key| ThingKey::parse(key.as_str()?).ok());
    if wants(["endReason", "endTime"])
        && let Some(key) = key
        && let Some(end) = last_end(call.app, call.session.org_id(), key)
    {
        row.insert("endReason".to_owned(), end.reason.as_str().into());
        row.insert("endTime".to_owned(), call.app.clock.shown(end.at).to_string().into());
    }
    let id = row.get("id").and_then(|id| id.as_str()?.parse().ok());
    if wants(["alarmsRaised", "alarmState"])
        && let Some(id) = id
    {
        let (raised, worst) = call.app.telemetry.raised_alarms(id)?;
        row.insert("alarmsRaised".to_owned(), raised.into());
        row.insert("alarmState".to_owned(), worst.into());
    }
    Ok(())
}

fn too_much() -> Failure {
    let most = limits::LISTED_VALUES_BYTES_MAX;
    let sentence = format!(
        "The current values of these things are more than {most} bytes; ask for fewer things, or \
         with `show` for other members."
    );
    Failure::new(Code::REPLY_TOO_LARGE, sentence)
}

fn rows(call: &Call<'_>, things: Vec<Thing>) -> Result<Vec<Map<String, Value>>, StoreError> {
    let row = |thing| {
        yield_point::pass();
        ThingObject::row(call, thing)
    };
    things.into_iter().map(row).collect()
}

/// The next things by key, and where the listing stands then.
fn next_page(
    call: &Call<'_>,
    view: &View,
    selection: Selection,
    iterator: &str,
) -> Result<ListReply, Failure> {
    let mut iterator = if iterator.eq_ignore_ascii_case("new") {
        Iterator { after: None, done: false, count: selection.count(call)?, selection }
    } else {
        Iterator::read(iterator)?
    };
    // The client could have changed it.
    iterator.selection.check()?;
    if iterator.done {
        return Err(Failure::new(Code::END_OF_RESULTS, "Search has reached end of results."));
    }
    let things = iterator.advance(call, view.page().1)?;
    let reply = filled(call, view, iterator.count, rows(call, things)?)?;
    let selection = &iterator.selection;
    let is_counted = selection.is_all() || selection.looks_at_all(call);
    let reply = if is_counted { reply } else { reply.with_count_at_least() };
    Ok(reply.with_iterator(iterator.text()))
}

impl Selection {
    fn is_all(&self) -> bool {
        let unasked = self.tags.is_none() && self.keys.is_none() && self.traits.is_any();
        unasked && self.query.is_none() && self.has_loc.is_none()
    }

    /// Fails when it asks so much of each thing that to look at all would take minutes.
    pub(super) fn check(&self) -> Result<(), Failure> {
        check_tags("tags", self.tags.as_deref().unwrap_or_default())?;
        let most = limits::QUERY_BYTES_MAX;
        if self.query.as_ref().is_none_or(|query| query.len() <= most) {
            return Ok(());
        }
        let sentence = format!("The query has more than {most} bytes.");
        Err(Failure::new(Code::PARAMETER_INVALID, sentence))
    }

    fn count(&self, call: &Call<'_>) -> Result<usize, StoreError> {
        if self.is_all() {
            let count = call.app.things.count(call.session.org_id());
            return Ok(usize::try_from(count).unwrap_or(usize::MAX));
        }
        Ok(self.things(call)?.len())
    }

    /// Things with these tags, with these keys, that a query finds.
    pub(in crate::tr50::commands) const fn of(
        tags: Option<Vec<String>>,
        keys: Option<Vec<String>>,
        query: Option<String>,
    ) -> Self {
        Self { tags, keys, query, has_loc: None, traits: Traits::ANY }
    }

    /// Whether [`Selection::things`] looks at all things that there are.
    fn looks_at_all(&self, call: &Call<'_>) -> bool {
        let most = limits::THINGS_SEARCHED_MAX as u64;
        self.keys.is_some() || call.app.things.count(call.session.org_id()) <= most
    }

    /// A page in the order of keys, how many there are, and whether that is all. When the page is
    /// full, the rest of a large organisation is not looked through to count it.
    fn first(
        &self,
        call: &Call<'_>,
        offset: usize,
        limit: usize,
    ) -> Result<(Vec<Thing>, usize, bool), StoreError> {
        const FEW: usize = limits::LISTED_AT_ONCE_MAX;
        if let Some(def) = self.traits.def
            && call.app.things.keys_of_def(def, FEW)?.len() < FEW
        {
            let things = self.things(call)?;
            let count = things.len();
            return Ok((things.into_iter().skip(offset).take(limit).collect(), count, true));
        }
        let (org, has) = (call.session.org_id(), self.filter(call.app));
        let end = offset.saturating_add(limit);
        let (mut page, mut count, mut looked) = (Vec::new(), 0, 0);
        let mut after = None;
        loop {
            let things = self.step(call.app, org, after.as_ref(), STEP)?;
            let is_last = things.len() < STEP;
            looked += things.len();
            after = things.last().map(|thing| thing.key.clone());
            for thing in things.into_iter().filter(&has) {
                if (offset..end).contains(&count) {
                    page.push(thing);
                }
                count += 1;
            }
            if is_last || looked >= limits::THINGS_SEARCHED_MAX {
                return Ok((page, count, is_last));
            }
            // Counted to the end only where that is little.
            let is_large = call.app.things.count(org) > limits::LISTED_AT_ONCE_MAX as u64;
            if count > end && is_large {
                return Ok((page, count, false));
            }
        }
    }

    /// The next things that may be meant, by key.
    fn step(
        &self,
        app: &App,
        org: OrgId,
        after: Option<&ThingKey>,
        limit: usize,
    ) -> Result<Vec<Thing>, StoreError> {
        match self.traits.prefix() {
            "" => app.things.page_after(org, after, limit),
            prefix => app.things.page_with_prefix(org, prefix, after, limit),
        }
    }

    fn things(&self, call: &Call<'_>) -> Result<Vec<Thing>, StoreError> {
        self.things_of(call.app, call.session.org_id())
    }

    /// All that it selects, by key; of a large organisation's things, the first
    /// [`limits::THINGS_SEARCHED_MAX`] are looked at.
    pub(in crate::tr50::commands) fn things_of(
        &self,
        app: &App,
        org: OrgId,
    ) -> Result<Vec<Thing>, StoreError> {
        let has = self.filter(app);
        if let Some(keys) = &self.keys {
            let mut keys: Vec<_> =
                keys.iter().filter_map(|key| ThingKey::parse(key).ok()).collect();
            keys.sort_unstable();
            keys.dedup();
            let mut things = Vec::new();
            for key in keys {
                things.extend(app.things.get(org, &key)?.filter(&has));
            }
            return Ok(things);
        }
        if let Some(def) = self.traits.def {
            let mut keys = app.things.keys_of_def(def, limits::THINGS_SEARCHED_MAX)?;
            keys.sort_unstable();
            let found = keys.iter().map(|key| app.things.get(org, key));
            let found = found.filter_map(|thing| thing.transpose());
            return found.filter(|thing| thing.as_ref().map_or(true, &has)).collect();
        }
        let mut things = self.step(app, org, None, limits::THINGS_SEARCHED_MAX)?;
        things.retain(has);
        Ok(things)
    }

    fn filter(&self, app: &App) -> impl Fn(&Thing) -> bool {
        let query = self.query.as_deref().map(Query::read);
        move |thing| {
            let has_tag = |tag: &String| thing.tags.contains(tag);
            self.tags.as_ref().is_none_or(|tags| tags.iter().all(has_tag))
                && query.as_ref().is_none_or(|query| query.matches(thing))
                && self.traits.are_of(app, thing)
                && self.has_loc.is_none_or(|wanted| wanted == is_located(app, thing))
        }
    }
}

impl Iterator {
    fn read(text: &str) -> Result<Self, Failure> {
        let json = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        let read = json.and_then(|json| serde_json::from_slice(&json).ok());
        read.ok_or_else(|| {
            let sentence = "Parameter \"iterator\" must be \"new\" or what the last reply gave.";
            Failure::new(Code::PARAMETER_INVALID, sentence)
        })
    }

    fn text(&self) -> String {
        // Texts and a number: there is nothing in it that JSON can't say.
        HEXLOWER.encode(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The next things, at most `limit`; fewer, when [`limits::THINGS_SEARCHED_MAX`] were looked
    /// at.
    fn advance(&mut self, call: &Call<'_>, limit: usize) -> Result<Vec<Thing>, StoreError> {
        let org = call.session.org_id();
        if self.selection.keys.is_some() {
            let mut things = self.selection.things(call)?;
            things.retain(|thing| self.after.as_ref().is_none_or(|after| thing.key > *after));
            self.done = things.len() <= limit;
            things.truncate(limit);
            self.after = things.last().map(|thing| thing.key.clone());
            return Ok(things);
        }
        let has = self.selection.filter(call.app);
        let mut found = Vec::new();
        for _ in 0..limits::THINGS_SEARCHED_MAX / STEP {
            let things = self.selection.step(call.app, org, self.after.as_ref(), STEP)?;
            self.done = things.len() < STEP;
            for thing in things {
                if found.len() == limit {
                    self.done = false;
                    return Ok(found);
                }
                self.after = Some(thing.key.clone());
                found.extend(Some(thing).filter(&has));
            }
            if self.done {
                break;
            }
        }
        Ok(found)
    }
}

fn is_located(app: &App, thing: &Thing) -> bool {
    let series = app.telemetry.series(thing.id.into(), Kind::Location, "");
    // What can't be read is not known.
    series.is_ok_and(|series| series.is_some())
}
