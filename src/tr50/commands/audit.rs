//! `audit.*`: the trail of what administrators did and of what was refused (`docs/trail.md`).

use base::{Failure, OrgId, Timestamp, excerpt, limits};
use rules::directory::text::{AddressPrefix, Pattern};
use rules::identity::Access;
use serde::Serialize;
use serde_json::{Map, Value};

use super::event::acts;
use super::history::Ago;
use super::span::{Asked, Span, one_of};
use super::target::check_unrestricted;
use super::{authorize, commands};
use crate::app::{App, LOGIN, LoginCause, Sight};
use crate::events::{Class, Entry, Page, Query, Scope};
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, Later};
use crate::tr50::strict::Strict;

commands! {
    "audit.list" => list where check_unrestricted, [NOT_FOUND],
        "Lists events of the trail, the newest first: those of the current organisation; for its \
         administrators also of those below it, for super administrators and super operators of all.",
        "`result`, an array of events with `number`, `ts`, `class`, `command`, `outcome`, `whoAmI` \
         and what else is known; `iterator` if there may be more; `truncated` if that is so because \
         too many were looked at";
}

params! {
    /// Which events.
    #[derive(Default)]
    pub struct ListParams {
        optional org_id: OrgId = "orgId", "Only those of this organisation.";
        optional_exact org_key: String = "orgKey", "The same, by its key.";
        optional class: String = "class", "`administration` or `refusals`.";
        optional user: String = "user",
            "Only those of who has this name: e-mail address, thing key or application; in it `*` \
             stands for any text.";
        optional command: String = "command",
            "Only those of this command, or of a family such as `role`; `login` is a refused login.";
        optional target: String = "target", "Only those on what has this id or name.";
        optional outcome: String = "outcome", "`success` or `failure`.";
        optional cause: String = "cause", "Only logins that were refused for this.";
        optional protocol: String = "protocol", "Only those that came by this, such as `mqtts`.";
        optional remote_addr: String = "remoteAddr", "Only those whose `ip:port` begins so.";
        optional last: Ago = "last", "Those of this time until now.";
        optional start: Timestamp = "start", "Those at this time or later.";
        optional end: Timestamp = "end", "Those at this time or earlier.";
        optional after: u64 = "after", "Only those with a greater number.";
        optional before: u64 = "before", "Only those with a smaller number.";
        optional sort: String = "sort",
            "`-number` (default), the newest first, or `number`, the oldest first.";
        optional limit: u64 = "limit",
            "Events to return at most; 1000 by default, up to `sessions.list_limit`.";
        optional iterator: String = "iterator", "What the reply before gave, to go on there.";
    }
}

impl ListParams {
    /// An empty text is no filter.
    fn without_empty(mut self) -> Self {
        let texts = [
            &mut self.org_key,
            &mut self.class,
            &mut self.user,
            &mut self.command,
            &mut self.target,
            &mut self.outcome,
            &mut self.cause,
            &mut self.protocol,
            &mut self.remote_addr,
            &mut self.sort,
            &mut self.iterator,
        ];
        for text in texts {
            text.take_if(|text| text.is_empty());
        }
        self
    }
}

/// The reply of `audit.list`.
#[derive(Serialize)]
pub struct Trail {
    pub(super) result: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterator: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

/// Which events are wanted, after the parameters were looked at.
pub(super) struct Wanted {
    scope: Scope,
    classes: Vec<Class>,
    span: Span,
    params: ListParams,
    from: Option<AddressPrefix>,
    /// The names of `user`, in lower case, if a star stands for others.
    named: Option<Pattern>,
    /// Whoever reads may want fewer.
    pub(super) client_id: Option<String>,
    /// Events to leave out before the first.
    pub(super) offset: usize,
}

/// `audit.list`. What was refused a moment ago is written first, so that it is in the list.
pub fn list(call: &Call<'_>, Strict(params): Strict<ListParams>) -> Result<Later, Failure> {
    let wanted = Wanted::of(call, params)?;
    let (app, worker) = (call.app.clone(), call.worker());
    Ok(Later::new(async move {
        app.settle_events().await?;
        let inner = app.clone();
        let trail = app.offload(worker, move || wanted.read(&inner)).await??;
        Ok(After(trail, crate::app::Effects::default()))
    }))
}

impl Wanted {
    /// Looks at the parameters.
    ///
    /// # Errors
    ///
    /// One is wrong, or the caller may not see the organisation.
    pub(super) fn of(call: &Call<'_>, params: ListParams) -> Result<Self, Failure> {
        let params = params.without_empty();
        let classes = match params.class.as_deref() {
            None => Class::TRAIL.to_vec(),
            Some(name) => vec![one_of("class", name, &Class::TRAIL, |class| class.as_str())?],
        };
        let known: [(_, _, &[&'static str]); 3] = [
            ("outcome", &params.outcome, &["success", "failure"]),
            ("cause", &params.cause, &LoginCause::ALL.map(LoginCause::as_str)),
            ("protocol", &params.protocol, &PROTOCOLS),
        ];
        for (parameter, value, known) in known {
            if let Some(value) = value {
                one_of(parameter, value, known, |name| *name)?;
            }
        }
        if let Some(command) = params.command.as_deref().filter(|name| !is_act(name)) {
            let rule =
                format!("a command, a family of them, or login; it is \"{}\"", excerpt(command));
            return Err(authorize::invalid_param("command", &rule));
        }
        let span = Span::of(
            call,
            "-number",
            Asked {
                last: params.last.as_ref(),
                start: params.start,
                end: params.end,
                after: params.after,
                before: params.before,
                sort: params.sort.as_deref(),
                limit: params.limit,
                iterator: params.iterator.as_deref(),
            },
        )?;
        let scope = scope(call, &params)?;
        let from = params.remote_addr.as_deref().map(AddressPrefix::read);
        let named = params.user.as_deref().filter(|name| name.contains('*'));
        let named = named.map(|name| Pattern::read(&name.to_lowercase()));
        let (client_id, offset) = (None, 0);
        Ok(Self { scope, classes, span, params, from, named, client_id, offset })
    }

    /// Reads them.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub(super) fn read(&self, app: &App) -> Result<Trail, Failure> {
        let (mut result, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        let page = self.each(app, |row| {
            if left_out < self.offset {
                left_out += 1;
                return true;
            }
            bytes += serde_json::to_string(&row).map_or(0, |text| text.len());
            result.push(row);
            result.len() < self.span.limit && bytes < limits::REPLY_BYTES_MAX / 2
        })?;
        let iterator = page.next.map(|number| number.to_string());
        Ok(Trail { result, iterator, truncated: page.truncated })
    }

    /// How many may be shown.
    pub(super) const fn limit(&self) -> usize {
        self.span.limit
    }

    /// Has each of them looked at, in their order, as long as `take` wants another one.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub(super) fn each(
        &self,
        app: &App,
        mut take: impl FnMut(Map<String, Value>) -> bool,
    ) -> Result<Page, Failure> {
        let sees = |org| match self.scope {
            Scope::All => true,
            Scope::One(one) => org == one,
            Scope::Within(top) => app.was_within(org, top),
        };
        let span = &self.span;
        let query = Query {
            after: span.after,
            before: span.before,
            order: span.order,
            classes: &self.classes,
            sees: &sees,
        };
        let mut is_over = false;
        let page = app.events().read(&query, |Entry { row, .. }| {
            let ts = row.get("ts").and_then(Value::as_str).and_then(Timestamp::parse);
            let ts = ts.unwrap_or(Timestamp::from_millis(0));
            is_over = span.is_over(ts);
            !is_over && (!self.matches(&row, ts) || take(row))
        })?;
        Ok(Page { next: page.next.filter(|_| !is_over), ..page })
    }

    fn matches(&self, row: &Map<String, Value>, ts: Timestamp) -> bool {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let of_target = |name| row.get("target").and_then(|target| target.get(name));
        let is = |wanted: &Option<String>, names: &[&str]| {
            let same = |held: &str| {
                wanted.as_ref().is_none_or(|wanted| held.to_lowercase() == wanted.to_lowercase())
            };
            names.iter().any(|name| same(text(name)))
        };
        let params = &self.params;
        let is_user = |wanted: &Option<String>| match &self.named {
            Some(pattern) => pattern.matches(&text("whoAmI").to_lowercase()),
            None => is(wanted, &["whoAmI", "userId", "appName"]),
        };
        self.span.has(ts)
            && is_user(&params.user)
            && is(&self.client_id, &["clientId"])
            && is(&params.outcome, &["outcome"])
            && is(&params.cause, &["cause"])
            && is(&params.protocol, &["protocol"])
            && params.command.as_ref().is_none_or(|wanted| is_of(text("command"), wanted))
            && self.from.as_ref().is_none_or(|from| {
                let address = text("remoteAddr").parse();
                address.is_ok_and(|address| from.begins(address))
            })
            && params.target.as_ref().is_none_or(|wanted| {
                ["id", "name"]
                    .into_iter()
                    .filter_map(of_target)
                    .filter_map(Value::as_str)
                    .any(|held| held.to_lowercase() == wanted.to_lowercase())
            })
    }
}

/// By what an event can come: the protocols of sessions, this machine, and the server itself.
const PROTOCOLS: [&str; 10] =
    ["mqtt", "mqtts", "ws", "wss", "tcp", "tcps", "http", "https", "control", "server"];

/// Whether there can be an act of this name, or of this family.
fn is_act(wanted: &str) -> bool {
    acts().chain([LOGIN]).any(|act| is_of(act, wanted))
}

/// Whether a command is the wanted one, or of the wanted family.
fn is_of(command: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_suffix('*').unwrap_or(wanted);
    let wanted = wanted.strip_suffix('.').unwrap_or(wanted);
    let head = command.get(..wanted.len()).unwrap_or_default();
    let rest = command.get(wanted.len()..).unwrap_or_default();
    head.eq_ignore_ascii_case(wanted) && (rest.is_empty() || rest.starts_with('.'))
}

/// The organisations that the caller may see, or the one of them that is asked for.
fn scope(call: &Call<'_>, params: &ListParams) -> Result<Scope, Failure> {
    let asked = (params.org_id, params.org_key.as_deref());
    let named = named_org(call.app, &call.session.access(), asked)?;
    Ok(named.map_or_else(|| Sight::of(call.session).scope(), Scope::One))
}

/// The organisation that is asked for, if one is; the caller may see its events.
///
/// # Errors
///
/// There is none, or none that the caller may see.
pub(super) fn named_org(
    app: &App,
    access: &Access,
    (id, key): (Option<OrgId>, Option<&str>),
) -> Result<Option<OrgId>, Failure> {
    let (sees_all, here) = (access.authority().sees_all(), access.org.id);
    let (named, wanted) = match (key, id) {
        (Some(key), Some(id)) if app.identity().org_by_key(key).is_none_or(|org| org.id != id) => {
            return Err(authorize::invalid_param("orgKey", "the key of orgId, if both are given"));
        }
        (_, Some(id)) => (id.to_string(), Some(id)),
        (Some(key), None) => (excerpt(key), app.identity().org_by_key(key).map(|org| org.id)),
        (None, None) => return Ok(None),
    };
    let may = |org: &OrgId| {
        let is_known =
            || app.identity().org(*org).is_some() || app.events().above_gone(*org).is_some();
        *org == here
            || sees_all && is_known()
            || access.administers_here() && app.was_within(*org, here)
    };
    let found = wanted.filter(may);
    found.map(Some).ok_or_else(|| Failure::not_found(format!("Organisation \"{named}\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_not_the_beginning_of_a_name() {
        let check = |command, wanted, expected| {
            assert_eq!(is_of(command, wanted), expected, "{command} {wanted}");
        };
        check("user.org.add", "User", true);
        check("user.org.add", "user.org.", true);
        check("user.org.add", "user.*", true);
        check("user.update", "user.org", false);
        check("thing_def.create", "thing", false);
        check("login", "login", true);
        check("login", "", false);
    }
}
