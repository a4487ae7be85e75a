//! `event.*`: the stream of what happened (`docs/events.md`).

use std::sync::Arc;

use base::{Code, Failure, OrgId, ThingKey, Timestamp, excerpt, json, limits};
use rules::directory::text::AddressPrefix;

use super::audit::named_org;
use super::history::Ago;
use super::span::{Asked, Span, one_of};
use super::{authorize, commands};
use crate::app::{App, Sight};
use crate::events::{ACTS, Class, Filter, KINDS, Order, Query, Scope, Seen, TypeFilter};
use crate::tr50::params::params;
use crate::tr50::step::{Call, Later, WriteReply};
use crate::tr50::strict::Strict;

commands! {
    "event.list" => list, [NOT_FOUND],
        "Lists events of the stream that the caller may see: those of the current organisation; for \
         its administrators also of those below it, for super administrators and super operators of \
         all. With `after` the oldest first, as one follows the stream, otherwise the newest first. \
         Each type needs the permission of what it is about (docs/events.md).",
        "`result`, an array of events with `number`, `ts`, `type`, `class` and what else is known; \
         `last`, a number behind which there is nothing of it yet: `after` the next time; \
         `iterator` if there may be more; `truncated` if that is so because too many were looked \
         at; `resync` if something behind `after` is not kept any more, with `first`, from which on \
         everything is";
}

params! {
    /// Which events.
    #[derive(Default)]
    pub struct ListParams {
        optional org_id: OrgId = "orgId", "Only those of this organisation.";
        optional_exact org_key: String = "orgKey", "The same, by its key.";
        optional include_sub_orgs: bool = "includeSubOrgs",
            "Also those of the organisations below it; true by default if none is named.";
        optional types: Vec<String> = "types",
            "Only those of these types, such as `session.started`, or of families such as \
             `session.*`.";
        optional class: String = "class",
            "Only those of this class, such as `sessions` or `alarms`.";
        optional thing_key: Vec<String> = "thingKey", "Only those about these things.";
        optional key: String = "key", "The same, of one thing.";
        optional remote_addr: String = "remoteAddr",
            "Only those from where `ip:port` begins so, as far as they tell it.";
        optional last: Ago = "last", "Those of this time until now.";
        optional start: Timestamp = "start", "Those at this time or later.";
        optional end: Timestamp = "end", "Those at this time or earlier.";
        optional after: u64 = "after", "Only those with a greater number.";
        optional before: u64 = "before", "Only those with a smaller number.";
        optional sort: String = "sort",
            "`number`, the oldest first (default with `after`), or `-number`, the newest first.";
        optional limit: u64 = "limit",
            "Events to return at most; 1000 by default, up to `sessions.list_limit`.";
        optional iterator: String = "iterator", "What the reply before gave, to go on there.";
    }
}

/// The reply of `event.list`.
struct Listed {
    result: Vec<Arc<Seen>>,
    last: u64,
    iterator: Option<u64>,
    truncated: bool,
    /// From which number on everything is there, if something is missing before it.
    first: Option<u64>,
}

/// Which events are wanted, after the parameters were looked at.
struct Wanted {
    filter: Filter,
    /// With what the address begins from which they have come.
    from: Option<AddressPrefix>,
    classes: Vec<Class>,
    sight: Sight,
    span: Span,
    /// What was asked for, of which may be told that it is gone.
    asked_after: Option<u64>,
}

/// `event.list`. What was refused a moment ago is written first, so that it is in the list.
pub fn list(call: &Call<'_>, Strict(params): Strict<ListParams>) -> Result<Later, Failure> {
    let wanted = Wanted::of(call, params)?;
    let (app, worker) = (call.app.clone(), call.worker());
    Ok(Later::written(async move {
        app.settle_events().await?;
        let inner = app.clone();
        let write = move || {
            let mut text = Vec::new();
            wanted.read(&inner)?.write_reply(&mut text);
            Ok(text)
        };
        app.offload(worker, write).await?
    }))
}

/// The names that acts of administrators and of the server may have.
pub(super) fn acts() -> impl Iterator<Item = &'static str> {
    super::COMMANDS.iter().map(|info| info.name).chain(ACTS)
}

/// The types that a parameter names.
///
/// # Errors
///
/// One is none, or there are too many.
pub fn types_named(names: &[String]) -> Result<Vec<TypeFilter>, Failure> {
    let mut types = Vec::new();
    for name in names {
        let read = TypeFilter::parse_list(name);
        types.extend(read.map_err(|bad| authorize::invalid_param("types", &bad.to_string()))?);
    }
    if types.len() > limits::EVENT_TYPES_MAX {
        let most = format!("at most {} types", limits::EVENT_TYPES_MAX);
        return Err(authorize::invalid_param("types", &most));
    }
    let kinds = || KINDS.iter().map(|info| info.name);
    let is_known = |kind: &&TypeFilter| kinds().chain(acts()).any(|name| kind.matches(name));
    if let Some(unknown) = types.iter().find(|kind| !is_known(kind)) {
        let kinds: Vec<_> = kinds().collect();
        let sentence = format!(
            "Parameter \"types\" names no type of event: \"{}\"; there are {}, the names of \
             commands, and families of these.",
            excerpt(unknown.as_str()),
            kinds.join(", ")
        );
        return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
    }
    Ok(types)
}

/// The keys of things that a parameter names.
pub fn things_named(keys: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut things = Vec::new();
    for key in keys.into_iter().filter(|key| !key.is_empty()) {
        if ThingKey::parse(&key).is_err() {
            let sentence = format!("Parameter \"thingKey\" names no thing: \"{}\".", excerpt(&key));
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        things.push(key);
    }
    if things.len() > limits::EVENT_TYPES_MAX {
        let most = format!("at most {} keys", limits::EVENT_TYPES_MAX);
        return Err(authorize::invalid_param("thingKey", &most));
    }
    Ok(things)
}

impl Wanted {
    fn of(call: &Call<'_>, params: ListParams) -> Result<Self, Failure> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut keys = params.thing_key.unwrap_or_default();
        keys.extend(params.key);
        let (sight, org_key) = (Sight::of(call.session), given(params.org_key));
        let named = (params.org_id, org_key.as_deref());
        let scope = scope_asked(call.app, &sight, named, params.include_sub_orgs)?;
        let filter = Filter {
            types: types_named(&params.types.unwrap_or_default())?,
            things: things_named(keys)?,
            scope,
        };
        let mut classes = filter.classes();
        if let Some(name) = given(params.class) {
            let class = one_of("class", &name, &Class::ALL, |class| class.as_str())?;
            classes.retain(|other| *other == class);
        }
        classes.retain(|class| sight.sees_class(*class));
        let usual = if params.after.is_some() { "number" } else { "-number" };
        let span = Span::of(
            call,
            usual,
            Asked {
                last: params.last.as_ref(),
                start: params.start,
                end: params.end,
                after: params.after,
                before: params.before,
                sort: given(params.sort).as_deref(),
                limit: params.limit,
                iterator: given(params.iterator).as_deref(),
            },
        )?;
        let asked_after = params.after.map(|_| span.after);
        let from = given(params.remote_addr).as_deref().map(AddressPrefix::read);
        Ok(Self { filter, from, classes, sight, span, asked_after })
    }

    fn read(&self, app: &App) -> Result<Listed, Failure> {
        let (span, last) = (&self.span, app.events().last());
        let sees = |org| app.sees_org(&self.sight, self.filter.scope, org);
        let kept = |after| app.events().first_kept((after, last), &self.classes, &sees);
        let first = self.asked_after.and_then(kept);
        let (mut result, mut bytes, mut is_over) = (Vec::new(), 0, false);
        let query = Query {
            after: span.after,
            before: span.before.min(last.saturating_add(1)),
            order: span.order,
            classes: &self.classes,
            sees: &sees,
        };
        let page = app.events().read_seen(&query, |seen| {
            if span.is_over(seen.ts) {
                is_over = true;
                return Ok(false);
            }
            let (class, thing) = (seen.class, seen.thing.as_deref());
            if span.has(seen.ts)
                && self.filter.wants(&seen)
                && self.from.as_ref().is_none_or(|from| seen.is_from(from))
                && app.sees_about(&self.sight, class, thing)?
            {
                bytes += seen.text.len();
                result.push(seen);
            }
            Ok(result.len() < span.limit && bytes < limits::REPLY_BYTES_MAX / 2)
        })?;
        let iterator = page.next.filter(|_| !is_over);
        // Whoever goes on behind it misses nothing of what was asked for.
        let reached = match span.order {
            Order::OldestFirst => iterator.unwrap_or(last),
            Order::NewestFirst => last,
        };
        Ok(Listed { result, last: reached, iterator, truncated: page.truncated, first })
    }
}

/// Of which organisations events are wanted, if one is named by id or key.
///
/// # Errors
///
/// There is none, or none whose events are seen.
pub fn scope_asked(
    app: &App,
    sight: &Sight,
    named: (Option<OrgId>, Option<&str>),
    include_sub_orgs: Option<bool>,
) -> Result<Scope, Failure> {
    let named = named_org(app, sight.access(), named)?;
    let here = sight.org();
    Ok(match (named, include_sub_orgs) {
        (Some(org), Some(true)) => Scope::Within(org),
        (Some(org), _) => Scope::One(org),
        (None, Some(false)) => Scope::One(here),
        // What is seen of it says the caller's sight.
        (None, _) => Scope::All,
    })
}

impl WriteReply for Listed {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.reserve(self.result.iter().map(|seen| seen.text.len() + 1).sum::<usize>() + 256);
        out.extend_from_slice(br#"{"success":true,"params":{"result":["#);
        for (index, seen) in self.result.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&seen.text);
        }
        out.push(b']');
        let mut object = json::ObjectWriter::further(out);
        object.integer(json::key!("last"), self.last);
        if let Some(number) = self.iterator {
            object.string(json::key!("iterator"), &number.to_string());
        }
        if self.truncated {
            object.flag(json::key!("truncated"), true);
        }
        if let Some(first) = self.first {
            object.flag(json::key!("resync"), true);
            object.integer(json::key!("first"), first);
        }
        object.end();
        out.push(b'}');
    }
}
