//! Who sees which events, and the way on which all readers get them: in memory while they keep up,
//! from the disk otherwise.

use std::sync::Arc;

use base::{Failure, OrgId, ThingId, ThingKey, limits};
use rules::directory::{Session, Who};
use rules::identity::Access;
use store::StoreError;

use super::{App, Worker};
use crate::events::{Class, Filter, Order, Query, Scope, Seen};

/// What somebody may see of the stream, at the moment when this was made: rights change, so whoever
/// goes on reading makes another one for each piece.
#[derive(Clone)]
pub struct Sight {
    access: Arc<Access>,
    /// With a token that is restricted to its own thing.
    own: Option<(ThingId, ThingKey)>,
    /// Of which classes, each at its place.
    classes: [bool; Class::ALL.len()],
}

/// What somebody sees who is no thing: all who have the same see the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    scope: Scope,
    classes: [bool; Class::ALL.len()],
}

#[cfg(test)]
impl View {
    /// All classes of these organisations.
    pub(super) const fn of_all(scope: Scope) -> Self {
        Self { scope, classes: [true; Class::ALL.len()] }
    }
}

/// A piece of the stream.
#[derive(Debug)]
pub struct News {
    /// The events, in the order of their numbers.
    pub events: Vec<Arc<Seen>>,
    /// Behind this number it goes on.
    pub next: u64,
    /// Whether there is more now.
    pub more: bool,
    /// If something behind the number that was asked for is not kept any more: from this number on,
    /// everything is.
    pub gone: Option<u64>,
}

impl Sight {
    /// What a session sees now.
    pub fn of(session: &Session) -> Self {
        let access = session.access();
        let own = match session.who() {
            Who::Application { thing_id, thing_key, .. } if access.restricted_to_self => {
                Some((*thing_id, thing_key.clone()))
            }
            _ => None,
        };
        Self { own, ..Self::of_access(access) }
    }

    /// What somebody with these rights sees who is no thing.
    pub fn of_access(access: Arc<Access>) -> Self {
        let may = |name: &str| access.allows(name);
        let restricted = access.restricted_to_self;
        let sees = |class: Class| {
            let of_things =
                !matches!(class, Class::Administration | Class::Refusals | Class::Limits);
            may("event.list") && class.permission().is_none_or(may) && (of_things || !restricted)
        };
        let classes = Class::ALL.map(sees);
        Self { own: None, classes, access }
    }

    /// The organisation from which it looks.
    pub fn org(&self) -> OrgId {
        self.access.org.id
    }

    /// The rights by which it sees.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether it may ask for events at all.
    pub fn may_look(&self) -> bool {
        self.access.allows("event.list")
    }

    /// Whether events of this class are seen at all.
    pub fn sees_class(&self, class: Class) -> bool {
        self.classes.get(class as usize).copied().unwrap_or(false)
    }

    /// What others see as well; none of somebody who sees only what concerns a thing.
    pub(super) fn view(&self) -> Option<View> {
        let is_shared = self.own.is_none() && !self.access.restricted_to_self;
        is_shared.then(|| View { scope: self.scope(), classes: self.classes })
    }

    /// Whether it sees every class, whatever an event is about.
    pub(super) fn sees_all_classes(&self) -> bool {
        !self.access.restricted_to_self && self.classes.iter().all(|sees| *sees)
    }

    /// What is looked at if nobody says of which organisations: the current one; of administrators
    /// also those below, of who sees all everything.
    pub fn scope(&self) -> Scope {
        match self.access.org.id {
            _ if self.access.authority().sees_all() => Scope::All,
            here if self.access.administers_here() => Scope::Within(here),
            here => Scope::One(here),
        }
    }
}

impl App {
    /// Whether events of an organisation are seen, and wanted.
    pub fn sees_org(&self, sight: &Sight, wanted: Scope, org: OrgId) -> bool {
        let is_in = |scope| match scope {
            Scope::All => true,
            Scope::One(one) => one == org,
            Scope::Within(top) => self.was_within(org, top),
        };
        is_in(wanted) && is_in(sight.scope())
    }

    /// Whether an event of such an organisation is seen: by its class, and with a restricted token
    /// by the thing that it is about.
    ///
    /// # Errors
    ///
    /// What the store reports, which is asked for the things that are bound to a restricted one.
    pub fn sees_about(
        &self,
        sight: &Sight,
        class: Class,
        thing: Option<&str>,
    ) -> Result<bool, StoreError> {
        if !sight.sees_class(class) {
            return Ok(false);
        }
        let Some((own_id, own_key)) = &sight.own else {
            return Ok(!sight.access.restricted_to_self);
        };
        let Some(thing) = thing else { return Ok(false) };
        // As the lists of both: of sessions only its own.
        if thing == own_key.as_str() || class == Class::Sessions {
            return Ok(thing == own_key.as_str());
        }
        let Ok(key) = ThingKey::parse(thing) else { return Ok(false) };
        let found = self.things.get(sight.org(), &key)?;
        Ok(found.is_some_and(|found| found.bound_to == Some(*own_id)))
    }

    /// Events behind a number that are wanted and seen, at most `max` of them. Those that were not
    /// there a moment ago come without a look at the disk as long as somebody listens.
    ///
    /// # Errors
    ///
    /// The store failed, or there is too much work of this kind.
    pub async fn events_after(
        self: &Arc<Self>,
        after: u64,
        filter: &Filter,
        sight: &Sight,
        worker: Worker,
        max: usize,
    ) -> Result<News, Failure> {
        self.events_between((after, u64::MAX), filter, sight, worker, max).await
    }

    /// The same; of those in memory none behind the second number.
    pub(super) async fn events_between(
        self: &Arc<Self>,
        (after, upto): (u64, u64),
        filter: &Filter,
        sight: &Sight,
        worker: Worker,
        max: usize,
    ) -> Result<News, Failure> {
        let last = self.events.last();
        if after > last {
            // Numbers of another store, or of one that a crash took back.
            return Ok(News { events: Vec::new(), next: last, more: false, gone: Some(last + 1) });
        }
        if let Some(news) = self.live_events((after, upto), filter, sight, max)? {
            return Ok(news);
        }
        // Up to this number all can be read then.
        self.tables.writer().barrier()?.await?;
        let (app, filter, sight) = (self.clone(), filter.clone(), sight.clone());
        let read = move || app.stored_events((after, last), &filter, &sight, max);
        Ok(self.offload(worker, read).await??)
    }

    /// The same of what is in memory; none if something of it is not.
    fn live_events(
        &self,
        (after, upto): (u64, u64),
        filter: &Filter,
        sight: &Sight,
        max: usize,
    ) -> Result<Option<News>, StoreError> {
        let Some(live) = self.events.live_after(after, max) else { return Ok(None) };
        let (mut more, mut next, mut bytes) = (live.len() == max, after, 0);
        let mut orgs: Vec<(OrgId, bool)> = Vec::new();
        let mut sees_org = |org: OrgId| match orgs.iter().find(|(known, _)| *known == org) {
            Some((_, sees)) => *sees,
            None => {
                let sees = self.sees_org(sight, filter.scope, org);
                orgs.push((org, sees));
                sees
            }
        };
        let mut events = Vec::new();
        for event in live {
            if bytes >= limits::EVENTS_PAGE_BYTES || event.number() > upto {
                more = true;
                break;
            }
            next = event.number();
            if let Some(seen) = event.seen(&mut sees_org)
                && self.is_wanted(filter, sight, &seen)?
            {
                bytes += seen.text.len();
                events.push(seen);
            }
        }
        Ok(Some(News { events, next, more, gone: None }))
    }

    fn is_wanted(&self, filter: &Filter, sight: &Sight, seen: &Seen) -> Result<bool, StoreError> {
        Ok(filter.wants(seen) && self.sees_about(sight, seen.class, seen.thing.as_deref())?)
    }

    /// The same of what is on the disk, in the range behind the first number up to the last one.
    fn stored_events(
        &self,
        (after, last): (u64, u64),
        filter: &Filter,
        sight: &Sight,
        max: usize,
    ) -> Result<News, StoreError> {
        let mut classes = filter.classes();
        classes.retain(|class| sight.sees_class(*class));
        let sees = |org| self.sees_org(sight, filter.scope, org);
        let gone = self.events.first_kept((after, last), &classes, &sees);
        let query = Query {
            after,
            before: last.saturating_add(1),
            order: Order::OldestFirst,
            classes: &classes,
            sees: &sees,
        };
        let mut events = Vec::new();
        let mut bytes = 0;
        let page = self.events.read_seen(&query, |seen| {
            if self.is_wanted(filter, sight, &seen)? {
                bytes += seen.text.len();
                events.push(seen);
            }
            Ok(events.len() < max && bytes < limits::EVENTS_PAGE_BYTES)
        })?;
        let next = page.next.unwrap_or(last);
        let more = page.next.is_some() || self.events.last() > last;
        Ok(News { events, next, more, gone })
    }
}
