//! `session.end`: one session as the vendor's clients end it, or all that filters find.

use std::sync::Arc;

use base::{Code, Failure};
use rules::directory::query::{Filter, Query, SortKey};
use rules::directory::{Session, Who};
use serde::Serialize;
use serde_json::{Map, Value};

use super::FindParams;
use super::list::Filters;
use crate::app::{Effects, SessionChange};
use crate::tr50::commands::thing::Selection;
use crate::tr50::envelope::Members;
use crate::tr50::params::{Field, Params, params};
use crate::tr50::step::{After, AfterOrLater, Call, Done, Later};
use crate::tr50::strict::Strict;

params! {
    /// What `session.end` takes beside one session and the filters of many.
    pub(super) struct Options {
        optional dry_run: bool = "dryRun", "Only counts what would end.";
        optional all: bool = "all",
            "All sessions of the organisation, if no filter narrows that; without it, such a request is refused.";
        optional mine: bool = "mine", "The caller's own other sessions, wherever they are.";
        optional others: bool = "others", "The same.";
    }
}

/// The parameters of `session.end`.
pub(super) struct EndParams {
    one: FindParams,
    options: Options,
    filters: Filters,
    /// The members that say which of many, as they came; null is none, but not the same as none of
    /// these at all, which means the caller's own session.
    named: Option<Map<String, Value>>,
}

impl Params for EndParams {
    fn fields() -> Vec<Field> {
        [FindParams::fields(), Options::fields(), Filters::fields()].concat()
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        let of_many = [Options::fields(), Filters::fields()].concat();
        let named = members.0.iter().filter_map(|(name, value)| {
            let known = of_many.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            let value = match (value.json(), value.bare_text()) {
                (Some(json), _) => serde_json::from_str(json.get()).unwrap_or_default(),
                (None, text) => text.map_or(Value::Null, |text| text.into()),
            };
            Some((known.name.to_owned(), value))
        });
        let named: Map<_, _> = named.collect();
        Ok(Self {
            one: FindParams::from_members(members)?,
            options: Options::from_members(members)?,
            filters: Filters::from_members(members)?,
            named: Some(named).filter(|named| !named.is_empty()),
        })
    }
}

/// `session.end`: everybody may end the own sessions, an administrator any in the organisation.
pub(super) fn end(
    call: &Call<'_>,
    Strict(params): Strict<EndParams>,
) -> Result<AfterOrLater<Done>, Failure> {
    let EndParams { one, options, filters, named } = params;
    let Some(mut named) = named else { return end_one(call, &one).map(AfterOrLater::After) };
    if one.id.is_some() || one.reference.is_some() {
        let sentence = "Parameters \"id\" and \"ref\" name one session, and go with no filter.";
        return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
    }
    named.retain(|_, value| !value.is_null());
    let is_mine = options.mine == Some(true) || options.others == Some(true);
    if !is_mine {
        check_may_list(call)?;
        if options.all != Some(true) && !filters.narrows() {
            let sentence = "These parameters would end every session of the organisation; with \
                            \"all\":true they do.";
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
    }
    let dry_run = options.dry_run == Some(true);
    filters.check()?;
    // What is wrong with them is told at once.
    filters.clone().into_filter(call, call.session.org_id())?;
    let many = Many { filters, named, is_mine, dry_run };
    many.end(call).map(AfterOrLater::Later)
}

fn end_one(call: &Call<'_>, which: &FindParams) -> Result<After<Done>, Failure> {
    let session = which.find(call)?.unwrap_or_else(|| call.session.clone());
    if !is_own(call, &session) {
        check_may_end(call)?;
    }
    let by = call.session.who().principal();
    Ok(After(Done, SessionChange::EndFor(session, by).into()))
}

fn is_own(call: &Call<'_>, session: &Session) -> bool {
    session.who().principal() == call.session.who().principal()
}

/// Fails unless the caller may end sessions of others.
pub(super) fn check_may_end(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().administers_here() {
        return Ok(());
    }
    let sentence = "Only an administrator of the organisation may end sessions of others.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// Fails unless the caller may know which sessions there are.
pub(super) fn check_may_list(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().allows("session.list") {
        return Ok(());
    }
    let who = call.session.who().name();
    let sentence = format!(
        "{who} has no permission for session.list in this organisation, and can only end own \
         sessions: one by \"ref\", or with \"others\":true all but this."
    );
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// The live sessions of the caller, wherever they are: of the same user, or of the same application
/// on the same thing.
pub(in crate::tr50::commands) fn own_sessions(call: &Call<'_>) -> Vec<Arc<Session>> {
    let own = call.session.who();
    let mut sessions = call.app.directory().of_principal(&own.principal());
    sessions.retain(|other| match (own, other.who()) {
        (Who::User(_), Who::User(_)) => true,
        (Who::Application { application, .. }, Who::Application { application: other, .. }) => {
            application.id == other.id
        }
        _ => false,
    });
    sessions
}

/// Sessions that filters find.
struct Many {
    filters: Filters,
    /// What the caller said.
    named: Map<String, Value>,
    is_mine: bool,
    dry_run: bool,
}

/// The reply: what became of all that were found, which are never the caller's own.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    /// All of them.
    count: usize,
    /// Those that this command ended; with `dryRun`, would end.
    closed: usize,
    /// Those that had ended before it came to them.
    already_gone: usize,
    /// Those of others that the caller may not end.
    refused: usize,
    /// Of those that were closed, how many have a connection that is still to be closed: its peer
    /// reads nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    closing: Option<usize>,
    took_ms: i64,
}

impl Many {
    /// Finds them aside, and ends them in turns with what else comes all at once.
    fn end(self, call: &Call<'_>) -> Result<Later, Failure> {
        let start = call.app.clock.now();
        let (app, session, conn, now) =
            (call.app.clone(), call.session.clone(), call.conn, call.now);
        let worker = call.worker();
        Ok(Later::new(async move {
            let inner = (app.clone(), session.clone());
            let (many, found) = app
                .offload(worker, move || {
                    let (app, session) = inner;
                    let found = self.find(&Call { app: &app, session: &session, conn, now });
                    found.map(|found| (self, found))
                })
                .await??;
            let call = Call { app: &app, session: &session, conn, now };
            let count = found.len();
            let may_end = check_may_end(&call);
            let (mine, others): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|session| may_end.is_ok() || is_own(&call, session));
            let (live, gone): (Vec<_>, Vec<_>) =
                mine.into_iter().partition(|session| session.end().is_none());
            let mut ended = Ended {
                dry_run: many.dry_run,
                count,
                closed: live.len(),
                already_gone: gone.len(),
                refused: others.len(),
                ..Ended::default()
            };
            if !many.dry_run && !live.is_empty() {
                let by = session.who().principal();
                let deed = call.deed("session.end");
                let ends = live.into_iter().map(|one| SessionChange::EndFor(one, by.clone()));
                let whose = (session.org_id(), session.who().principal_id());
                let effects = Effects::on_sessions(ends).caused_by(whose).by(deed);
                let effects = effects.as_one(many.named).closing_at_once();
                let outcome = app.apply(effects, app.clock.now()).await;
                outcome.stored?;
                let closed = outcome.goodbyes.sessions().count();
                ended.already_gone += ended.closed - closed.min(ended.closed);
                ended.closed = closed;
                ended.closing = Some(outcome.goodbyes.gone().await).filter(|open| *open > 0);
            }
            ended.took_ms = app.clock.now().as_millis() - start.as_millis();
            Ok(After(ended, Effects::default()))
        }))
    }

    fn find(&self, call: &Call<'_>) -> Result<Vec<Arc<Session>>, Failure> {
        let own = call.session;
        let mut found = match self.is_mine {
            false => self.find_in(call, own.org_id(), None)?,
            true => {
                let sessions = own_sessions(call);
                let mut orgs: Vec<_> = sessions.iter().map(|session| session.org_id()).collect();
                orgs.sort_unstable();
                orgs.dedup();
                let mut found = Vec::new();
                for org in orgs {
                    found.extend(self.find_in(call, org, Some(&sessions))?);
                }
                found
            }
        };
        found.retain(|session| session.reference() != own.reference());
        Ok(found)
    }

    /// Those of an organisation; if `among` says so, of these only.
    fn find_in(
        &self,
        call: &Call<'_>,
        org: base::OrgId,
        among: Option<&[Arc<Session>]>,
    ) -> Result<Vec<Arc<Session>>, Failure> {
        let mut filters = self.filters.clone();
        let tags = filters.tags.take().filter(|tags| !tags.is_empty());
        let Some(mut filter) = filters.into_filter(call, org)? else { return Ok(Vec::new()) };
        if among.is_some() {
            let own = call.session.who().principal();
            if filter.principal.as_ref().is_some_and(|named| *named != own) {
                return Ok(Vec::new());
            }
            filter.principal = Some(own);
        }
        if let Some(tags) = tags {
            let things = Selection::of(Some(tags), None, None).things_of(call.app, org)?;
            filter.things = Some(things.into_iter().map(|thing| thing.id).collect());
        }
        let mut found = list_all(call, org, filter);
        if let Some(among) = among {
            found.retain(|session| among.iter().any(|own| Arc::ptr_eq(own, session)));
        }
        Ok(found)
    }
}

fn list_all(call: &Call<'_>, org: base::OrgId, filter: Filter) -> Vec<Arc<Session>> {
    let query =
        Query { offset: 0, limit: usize::MAX, sort: SortKey::StartTime, ascending: true, filter };
    call.app.directory().list(org, &query).sessions
}
