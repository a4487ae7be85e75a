//! `login.*`: logins that were refused, over whatever door (`docs/trail.md`).

use base::{Failure, Timestamp};
use groups::{GroupBy, Groups};
use serde::Serialize;

use super::audit::{ListParams, Trail, Wanted};
use super::commands;
use super::history::Ago;
use super::target::check_unrestricted;
use crate::app::{Effects, LOGIN};
use crate::events::Class;
use crate::tr50::envelope::Param;
use crate::tr50::params::{self, params};
use crate::tr50::step::{After, Call, Later};
use crate::tr50::strict::Strict;

mod groups;

commands! {
    "login.failures" => failures where check_unrestricted, [NOT_FOUND],
        "Lists the logins that were refused, over whatever door, the last first: those of the current \
         organisation; for its administrators also of those below it, for super administrators and \
         super operators of all, of names and tokens that there are not, too. The same login from \
         one address for one cause is one of the list, with a count.",
        "`result`, an array of logins with `name`, `kind`, `cause`, `message`, `remoteAddr`, \
         `protocol`, `count`, `first`, `last` and, as far as it is known, `appName`, `clientId`, \
         `protocolVersion`, `orgId`; `iterator` if there may be more; `truncated` if that is so \
         because too many were looked at. With `groupBy`: `count` of the groups, and as `result` each \
         with its `count` of logins, `first`, `last`, and of what it is not grouped by the last ten: \
         `addresses`, `names`, `causes`, `protocols`; `truncated` if there may be more logins";
}

/// Where a list begins or ends: at a time, or at a number.
pub enum Mark {
    /// The number of an event.
    Number(u64),
    /// A time.
    Time(Timestamp),
}

impl params::Value for Mark {
    const EXPECTED: &'static str = "a time such as 2026-03-02T08:15:00Z, or the number of an event";

    fn read(param: Param<'_>) -> Option<Self> {
        let number = u64::read(param).map(Self::Number);
        number.or_else(|| Timestamp::read(param).map(Self::Time))
    }
}

params! {
    /// Which logins.
    pub struct FailuresParams {
        optional name: String = "name",
            "Only those that claimed this name: thing key or e-mail address; or with tokens of an \
             application of this name. In it `*` stands for any text.";
        optional address: String = "address", "Only those whose `ip:port` begins so.";
        optional cause: String = "cause", "Only those that were refused for this.";
        optional client_id: String = "clientId", "Only those with this client id.";
        optional protocol: String = "protocol", "Only those that came by this, such as `mqtts`.";
        optional org_id: base::OrgId = "orgId", "Only those of this organisation.";
        optional_exact org_key: String = "orgKey", "The same, by its key.";
        optional last: Ago = "last", "Those of this time until now.";
        optional start: Timestamp = "start", "Those whose last one was at this time or later.";
        optional end: Timestamp = "end", "Those whose last one was at this time or earlier.";
        optional after: Mark = "after", "As `start`; or only those with a greater number.";
        optional before: Mark = "before", "As `end`; or only those with a smaller number.";
        optional sort: String = "sort",
            "`-number` (default), the last first, or `number`, the first first.";
        optional group_by: String = "groupBy",
            "Counts them by `address` (without the port), `name`, `cause` or `protocol` instead of \
             listing them; the group with most comes first.";
        optional offset: u64 = "offset", "Leaves out so many.";
        optional limit: u64 = "limit",
            "Logins or groups to return at most; 1000 by default, up to `sessions.list_limit`.";
        optional iterator: String = "iterator", "What the reply before gave, to go on there.";
    }
}

/// `login.failures`. What was refused a moment ago is written first, so that it is in the list.
pub fn failures(call: &Call<'_>, Strict(params): Strict<FailuresParams>) -> Result<Later, Failure> {
    let group_by = params.group_by.as_deref().filter(|name| !name.is_empty());
    let group_by = group_by.map(GroupBy::read).transpose()?;
    let wanted = wanted(call, params)?;
    let (app, worker) = (call.app.clone(), call.worker());
    Ok(Later::new(async move {
        app.settle_events().await?;
        let inner = app.clone();
        let read = move || match group_by {
            Some(by) => Groups::read(&inner, &wanted, by).map(Answer::Groups),
            None => wanted.read(&inner).map(|trail| Answer::Logins(shown(trail))),
        };
        let answer = app.offload(worker, read).await??;
        Ok(After(answer, Effects::default()))
    }))
}

/// The reply of `login.failures`.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Logins(Trail),
    Groups(Groups),
}

fn wanted(call: &Call<'_>, params: FailuresParams) -> Result<Wanted, Failure> {
    let of_number = |mark: &Option<Mark>| match mark {
        Some(Mark::Number(number)) => Some(*number),
        _ => None,
    };
    let of_time = |mark: &Option<Mark>| match mark {
        Some(Mark::Time(time)) => Some(*time),
        _ => None,
    };
    let end = [params.end, of_time(&params.before)].into_iter().flatten().min();
    let listed = ListParams {
        org_id: params.org_id,
        org_key: params.org_key,
        class: Some(Class::Refusals.as_str().to_owned()),
        user: params.name,
        command: Some(LOGIN.to_owned()),
        cause: params.cause,
        protocol: params.protocol,
        remote_addr: params.address,
        last: params.last,
        start: params.start.max(of_time(&params.after)),
        end,
        after: of_number(&params.after),
        before: of_number(&params.before),
        sort: params.sort,
        limit: params.limit,
        iterator: params.iterator,
        ..ListParams::default()
    };
    let mut wanted = Wanted::of(call, listed)?;
    wanted.client_id = params.client_id.filter(|id| !id.is_empty());
    wanted.offset = usize::try_from(params.offset.unwrap_or(0)).unwrap_or(usize::MAX);
    Ok(wanted)
}

/// The events as logins: what is the same of all is left out.
fn shown(mut trail: Trail) -> Trail {
    for row in &mut trail.result {
        for same in ["class", "command", "outcome", "ts"] {
            row.remove(same);
        }
        if let Some(name) = row.remove("whoAmI") {
            row.insert("name".to_owned(), name);
        }
    }
    trail
}
