//! Listings of an organisation's sessions: filter, order and page.

use std::cmp::Reverse;
use std::sync::Arc;

use base::{Protocol, Timestamp};

use super::session::{Kind, Principal, Session, Status, Who};
use super::{Directory, OrgId};

/// What a listing is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SortKey {
    /// The start, which is the order of the directory.
    #[default]
    StartTime,
    /// The last command.
    LastAccessed,
    /// The number of commands.
    CommandCount,
    /// E-mail address or thing key.
    WhoAmI,
}

/// A question to the directory about one organisation.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Sessions to leave out at the beginning.
    pub offset: usize,
    /// Sessions to return at most.
    pub limit: usize,
    /// What to sort by.
    pub sort: SortKey,
    /// Smallest first; otherwise greatest (newest) first.
    pub ascending: bool,
    /// Which ones.
    pub filter: Filter,
}

/// Which sessions a listing shows; what is none is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this login.
    pub principal: Option<Principal>,
    /// Of users or of applications.
    pub kind: Option<Kind>,
    /// Of applications with this name, without regard to case.
    pub app_name: Option<String>,
    /// That arrive by this protocol.
    pub protocol: Option<Protocol>,
    /// Whose peer's `ip:port` begins so.
    pub remote_addr: Option<String>,
    /// That started after this time.
    pub started_after: Option<Timestamp>,
    /// That started before this time.
    pub started_before: Option<Timestamp>,
    /// With one of these statuses; none means the live ones.
    pub status: Option<Vec<Status>>,
}

/// The answer to a [`Query`].
#[derive(Debug)]
pub struct Listing {
    /// How many sessions there are in all pages together.
    pub count: usize,
    /// The page.
    pub sessions: Vec<Arc<Session>>,
}

impl Query {
    /// Whether it asks for a page in the directory's own order, which costs the page and not the
    /// organisation.
    pub fn is_page(&self) -> bool {
        self.filter.is_empty() && self.sort == SortKey::StartTime
    }
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.principal.is_none()
            && self.kind.is_none()
            && self.app_name.is_none()
            && self.protocol.is_none()
            && self.remote_addr.is_none()
            && self.started_after.is_none()
            && self.started_before.is_none()
            && self.status.is_none()
    }

    fn wants(&self, status: Status) -> bool {
        self.status.as_ref().map_or(status == Status::Active, |wanted| wanted.contains(&status))
    }

    fn matches(&self, session: &Session) -> bool {
        let started = session.started();
        self.wants(session.status())
            && self.kind.is_none_or(|kind| session.kind() == kind)
            && self.protocol.is_none_or(|protocol| session.conn().protocol == protocol)
            && self.started_after.is_none_or(|after| started > after)
            && self.started_before.is_none_or(|before| started < before)
            && self.principal.as_ref().is_none_or(|wanted| session.who().principal() == *wanted)
            && self.app_name.as_ref().is_none_or(|name| match session.who() {
                Who::Application { application, .. } => application.name.eq_ignore_ascii_case(name),
                Who::User(_) => false,
            })
            && self.remote_addr.as_ref().is_none_or(|prefix| {
                session.conn().remote_addr.to_string().starts_with(prefix.as_str())
            })
    }
}

impl Directory {
    /// Lists sessions whose current organisation is `org`.
    ///
    /// Without filter and sort it costs the page, not the organisation. A filter by principal
    /// costs that principal's sessions; any other filter or sort visits the organisation once.
    pub fn list(&self, org: OrgId, query: &Query) -> Listing {
        if query.is_page() {
            return self.page(org, query);
        }
        let mut found = self.matching(org, &query.filter);
        // The counters go on changing; a sort has to see each of them once.
        match (query.sort, query.ascending) {
            (SortKey::StartTime, true) => found.sort_by_key(|s| s.order()),
            (SortKey::StartTime, false) => found.sort_by_key(|s| Reverse(s.order())),
            (SortKey::LastAccessed, true) => found.sort_by_cached_key(|s| s.last_accessed()),
            (SortKey::LastAccessed, false) => {
                found.sort_by_cached_key(|s| Reverse(s.last_accessed()));
            }
            (SortKey::CommandCount, true) => found.sort_by_cached_key(|s| s.command_count()),
            (SortKey::CommandCount, false) => {
                found.sort_by_cached_key(|s| Reverse(s.command_count()));
            }
            (SortKey::WhoAmI, true) => found.sort_by(|a, b| a.who().name().cmp(b.who().name())),
            (SortKey::WhoAmI, false) => found.sort_by(|a, b| b.who().name().cmp(a.who().name())),
        }
        let count = found.len();
        let sessions = found.into_iter().skip(query.offset).take(query.limit).collect();
        Listing { count, sessions }
    }

    fn page(&self, org: OrgId, query: &Query) -> Listing {
        let Some(roster) = self.by_org.get(&org).map(|roster| roster.value().clone()) else {
            return Listing { count: 0, sessions: Vec::new() };
        };
        let roster = roster.read();
        let sessions = roster.page(!query.ascending, query.offset, query.limit);
        Listing { count: roster.len(), sessions }
    }

    fn matching(&self, org: OrgId, filter: &Filter) -> Vec<Arc<Session>> {
        // Compared when no lock is held any more: logins and ends would wait for the comparisons.
        let mut found = Vec::new();
        if filter.wants(Status::Active) {
            if let Some(principal) = &filter.principal {
                found = self.of_principal(principal);
            } else if let Some(roster) = self.by_org.get(&org).map(|r| r.value().clone()) {
                let roster = roster.read();
                let times = roster.newest_first(filter.started_after, filter.started_before);
                found.extend(times.cloned());
            }
        }
        if Status::ALL[1..].iter().any(|status| filter.wants(*status)) {
            let live = found.len();
            found.extend(self.history.lock().iter().cloned());
            if live > 0 {
                // What ended in between is in both.
                found.sort_by_key(|session| session.order());
                found.dedup_by(|a, b| Arc::ptr_eq(a, b));
            }
        }
        found.retain(|session| session.org_id() == org && filter.matches(session));
        found
    }
}
