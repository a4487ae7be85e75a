//! How sessions are looked for: by the users and things that they belong to, by address, by handle.

use std::collections::HashSet;
use std::sync::Arc;

use base::{SessionRef, ThingKey, limits};
use rules::directory::query::{Filter, Query};
use rules::directory::text::AddressPrefix;
use rules::directory::{Kind, Principal, Session};
use rules::identity::model::Org;
use rules::search::{Class, Match, Needle};

use super::Type;
use super::best::{First, Hit, What};
use super::look::{BY_ID, Looker, folded};
use crate::things::registry::FoundText;
use crate::tr50::commands::session::own_sessions;

/// Keys of things that match, whose sessions are looked for: names of sessions are not searched
/// themselves, for they are all over the memory.
pub(super) struct Keys {
    first: First<(Class, Vec<u8>, usize, ThingKey)>,
    count: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self { first: First::new(limits::SEARCH_SESSIONS_OF_MAX), count: 0 }
    }
}

impl Keys {
    /// Adds the key of a thing, if it matches, too.
    pub(super) fn add(
        &mut self,
        text: &FoundText<'_>,
        needle: &Needle,
        found: Match,
        place: usize,
    ) {
        let of_key = || text.find_in_key(needle);
        let class = if found.field == 0 { Some(found.class) } else { of_key() };
        let Some(class) = class else { return };
        self.count += 1;
        let name = text.folded_key();
        let is_worse = |worst: &(Class, Vec<u8>, usize, ThingKey)| {
            (worst.0, &worst.1[..], worst.2) < (class, name, place)
        };
        if !self.first.worst().is_some_and(is_worse)
            && let Some(key) = text.key()
        {
            self.first.add((class, name.to_vec(), place, key));
        }
    }
}

/// An address, or its beginning, that is looked for.
struct Address {
    text: String,
    prefix: AddressPrefix,
}

impl Address {
    fn read(query: &str) -> Option<Self> {
        let text = query.trim();
        let fits = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
        if !text.contains(['.', ':']) || !text.chars().all(fits) {
            return None;
        }
        Some(Self { text: text.to_owned(), prefix: AddressPrefix::read(text) })
    }

    fn find(&self, session: &Session) -> Option<(Match, &'static str)> {
        let address = session.conn().remote_addr;
        if !self.prefix.begins(address) {
            return None;
        }
        let is_all = address.ip().to_string() == self.text || address.to_string() == self.text;
        let class = if is_all { Class::Exact } else { Class::Prefix };
        Some((Match { class, field: 1 }, "remoteAddr"))
    }
}

impl Looker<'_> {
    /// Looks for sessions; whether all of them were counted.
    pub(super) fn sessions(&mut self, keys: Keys) -> bool {
        let mut added = HashSet::new();
        self.by_reference(&mut added);
        let address = Address::read(&self.asked.query);
        self.own(address.as_ref(), &mut added);
        let mut is_complete = keys.count <= limits::SEARCH_SESSIONS_OF_MAX;
        let directory = self.call.app.directory();
        for (class, _, place, key) in keys.first.into_sorted() {
            let Some(org) = self.places.get(place).map(|place| &place.org) else { continue };
            for session in directory.of_principal(&Principal::Thing(org.id, key)) {
                let at = (Match { class, field: 0 }, "whoAmI");
                self.add_session(at, session, org, &mut added);
            }
        }
        for org in self.open_orgs() {
            if directory.count(org.id) == 0 {
                continue;
            }
            let filter = Filter { kind: Some(Kind::User), ..Filter::default() };
            let of_users = Query { limit: usize::MAX, filter, ..Query::default() };
            for session in directory.list(org.id, &of_users).sessions {
                if let Some(at) = self.find_name(&session) {
                    self.add_session(at, session, &org, &mut added);
                }
            }
            let Some(address) = &address else { continue };
            let filter = Filter { remote_addr: Some(address.prefix.clone()), ..Filter::default() };
            let from_there = Query { limit: self.asked.depth(), filter, ..Query::default() };
            let listing = directory.list(org.id, &from_there);
            let others = listing.count - listing.sessions.len();
            if others > 0 && added.is_empty() {
                self.best.note(Type::Session, others);
            } else if others > 0 {
                // Some of these may be counted already.
                is_complete = false;
            }
            for session in listing.sessions {
                if let Some(at) = address.find(&session) {
                    self.add_session(at, session, &org, &mut added);
                }
            }
        }
        is_complete
    }

    /// The session with the handle that is looked for: also one that ended lately.
    fn by_reference(&mut self, added: &mut HashSet<SessionRef>) {
        let Some(reference) = self.reference() else { return };
        let found = self.call.app.directory().by_uuid(reference.uuid());
        let found = found.filter(|session| session.reference() == reference);
        let Some(session) = found else { return };
        let org = session.access().org.clone();
        let is_open = self.open_orgs().iter().any(|open| open.id == org.id);
        if is_open || session.who().principal() == self.call.session.who().principal() {
            self.add_session((BY_ID.0, "ref"), session, &org, added);
        }
    }

    /// The caller's own sessions, which everybody sees, and those of the own thing of a token that
    /// is restricted to it.
    fn own(&mut self, address: Option<&Address>, added: &mut HashSet<SessionRef>) {
        let mut own = own_sessions(self.call);
        if self.places_of(Type::Session).any(|place| place.is_restricted) {
            own = self.call.app.directory().of_principal(&self.call.session.who().principal());
        }
        for session in own {
            let of_address = || address.and_then(|address| address.find(&session));
            if let Some(at) = self.find_name(&session).or_else(of_address) {
                let org = session.access().org.clone();
                self.add_session(at, session, &org, added);
            }
        }
    }

    /// The organisations whose sessions the caller may list, whosever they are.
    fn open_orgs(&self) -> Vec<Arc<Org>> {
        let open = self.places_of(Type::Session).filter(|place| !place.is_restricted);
        open.map(|place| place.org.clone()).collect()
    }

    fn find_name(&self, session: &Session) -> Option<(Match, &'static str)> {
        self.find_in(&mut Vec::new(), &[("whoAmI", session.who().name())])
    }

    fn add_session(
        &mut self,
        at: (Match, &'static str),
        session: Arc<Session>,
        org: &Arc<Org>,
        added: &mut HashSet<SessionRef>,
    ) {
        if !added.insert(session.reference()) {
            return;
        }
        // Of the same login, the newest first.
        let newness = i64::MAX - session.started().as_millis();
        let rest = [&newness.to_be_bytes()[..], session.reference().as_bytes()].concat();
        let name = folded(session.who().name());
        self.best.add(Hit::new(at, org, What::Session(session), (&name, &rest)));
    }
}
