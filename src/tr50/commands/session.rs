//! `session.*`: the session directory in TR50's words (`docs/protocol/tr50.md` 3.2, 3.3 and 3.5).

use std::sync::Arc;

use base::{
    Clock, Code, Failure, OrgId, SessionId, SessionRef, excerpt,
    json::{self, ObjectWriter, key},
};
use rules::directory::text::Words;
use rules::directory::{Kind, Session};
use rules::identity::model::{Org, User};
use serde::Serialize;

use super::commands;
use super::target::is_restricted;
use crate::app::{Effects, SessionChange};
use crate::tr50::params::{NoParams, missing, params};
use crate::tr50::step::{After, Call, Done, WriteReply};

mod end;
mod explain;
mod find;
mod list;
mod mine;
mod row;
mod template;

pub(super) use end::own_sessions;
pub(super) use list::{protocol_named, reasons_named};
use row::write_session;

commands! {
    act "session.end" => end::end, [NOT_FOUND],
        "Ends a session; without parameters the caller's own. With filters, which are those of \
         `session.list`, it ends all sessions of the current organisation that they find, never the \
         caller's own, and the reply comes when they are gone: `count` were found, of which it \
         `closed` some, others were `alreadyGone`, and those that are `refused` the caller may not \
         end; `closing` says how many peers have not read that. `dryRun` only counts. Who has no \
         permission for `session.list` ends own sessions only.",
        "of one, none; of many `count`, `closed`, `alreadyGone`, `refused`, `tookMs`",
        "sessions of others" where end::check_may_end,
        "many sessions by filters" where end::check_may_list;
    "session.explain" => explain::explain, [NOT_FOUND],
        "Says which role, flag or membership gives a session a right, or what takes it away: of the \
         caller's own session, or with `ref` or `id` of another one. Own sessions need no \
         permission; for those of others it is that of `session.find`, and these are found as there. \
         `reasons` are all that gives the permission of the command and, if it is denied, all that \
         denies it: `kind` is `role`, `hasSuperAdmin`, `hasSuperOps`, `hasOrgAdmin` or `everyone`; \
         or `noRole`, `apiToken`, `secondFactor`, `ownThing`, `needs`, `sessionKind`, `thing`, \
         `banned`, `otherOrg`, `topic`, `unknownCommand`, `notConfigured`. `except` says what of the \
         command is not allowed all the same, and `roles`, to who may list them, which roles would \
         give it. Without `command`, `sources` are all that gives rights and what each gives, and \
         `limits` what takes some away.",
        "`ref`, `whoAmI`, `orgId`, `orgKey`; `command`, `allowed`, `reasons`, `except`, `roles`; or \
         `sources`, `more`, `limits`",
        "sessions of others" where explain::check_explains;
    "session.find" => find::find, [NOT_FOUND],
        "Shows one session of the current organisation; to a restricted token, one of its own thing.",
        "the session";
    "session.info" => info, [],
        "Shows the caller's own session.",
        "the session";
    "session.list" => list::list, [],
        "Lists the sessions of the current organisation; to a restricted token, those of its own thing.",
        "`count`, with `show` also `fields`, `result`; with `groupBy` each group with its `count`";
    "session.mine" => mine::mine, [],
        "Lists the caller's own live sessions, the newest first: of the same user, in whatever \
         organisation, or of the same application on the same thing.",
        "`count`, `result`: sessions, each with `current`";
    "session.org.list" => org_list, [WRONG_SESSION_KIND],
        "Lists the organisations the user may work in.",
        "`result`, `recentOrgs`; of a part of the list also `count`, and `slug` in each";
    "session.org.switch" => org_switch where check_switches,
        [NOT_FOUND, WRONG_SESSION_KIND, LIMIT_REACHED],
        "Moves the session to another organisation.",
        "";
}

params! {
    /// Which session.
    pub struct FindParams {
        optional id: String = "id", "The session's secret id.";
        optional reference: String = "ref", "The session's public handle.";
    }
}

params! {
    /// The parameters of `session.org.list`.
    pub struct OrgList {
        optional include_roles: bool = "includeRoles", "Shows the user's roles in each.";
        optional include_recent_orgs: bool = "includeRecentOrgs",
            "Adds the organisations that this session was in.";
        optional query: String = "query",
            "Only organisations in whose name, key or slug these words occur, in any case; without \
             those below them.";
        optional offset: u64 = "offset", "With `limit`: organisations to leave out at the beginning.";
        optional limit: u64 = "limit",
            "Organisations to return at most, by name and without those below them.";
    }
}

impl OrgList {
    /// Part of a list, in place of all of them as a forest.
    fn page(&self, mut orgs: Vec<Arc<Org>>) -> Option<(usize, Vec<Arc<Org>>)> {
        if self.query.is_none() && self.limit.is_none() && self.offset.is_none() {
            return None;
        }
        if let Some(words) = &self.query {
            let words = Words::read(words);
            orgs.retain(|org| words.occur_in(&[&org.name, &org.key, &org.slug]));
        }
        orgs.sort_by(|a, b| (&a.name, &a.key).cmp(&(&b.name, &b.key)));
        let number = |asked: u64| usize::try_from(asked).unwrap_or(usize::MAX);
        let limit = self.limit.filter(|limit| *limit > 0).map_or(usize::MAX, number);
        let count = orgs.len();
        let offset = number(self.offset.unwrap_or(0));
        Some((count, orgs.into_iter().skip(offset).take(limit).collect()))
    }
}

params! {
    /// The parameters of `session.org.switch`.
    pub struct Switch {
        optional_exact key: String = "key", "The organisation's key.";
        optional id: OrgId = "id", "The organisation's id, instead of its key.";
    }
}

/// `session.info`: the caller's own session.
pub fn info(call: &Call<'_>, _: NoParams) -> Result<OwnSession, Failure> {
    let (session, server_id) = (call.session.clone(), call.app.server_id.clone());
    Ok(OwnSession { session, server_id, clock: call.app.clock.clone() })
}

impl FindParams {
    /// The session that is meant; none when neither parameter is there. What the caller may not
    /// see does not exist.
    fn find(&self, call: &Call<'_>) -> Result<Option<Arc<Session>>, Failure> {
        self.find_among(call, false)
    }

    /// The same, if it is to be so also among those that ended lately.
    fn find_among(&self, call: &Call<'_>, ended: bool) -> Result<Option<Arc<Session>>, Failure> {
        let Some(text) = self.reference.as_ref().or(self.id.as_ref()) else { return Ok(None) };
        let directory = &call.app.directory();
        let found = match (text.parse::<SessionRef>(), SessionId::parse(text)) {
            (Ok(reference), _) if ended => {
                let found = directory.by_uuid(reference.uuid());
                found.filter(|session| session.reference() == reference)
            }
            (Ok(reference), _) => directory.get(&reference),
            (_, Some(id)) => directory.by_id(&id),
            _ => None,
        };
        let own = call.session.who().principal();
        let org = call.session.org_id();
        let here = |s: &Session| s.org_id() == org && !is_restricted(call);
        let visible = |s: &Arc<Session>| here(s) || s.who().principal() == own;
        match found.filter(visible) {
            Some(session) => Ok(Some(session)),
            // Not named in full: the text may be somebody's secret id.
            None => Err(Failure::not_found("The session")),
        }
    }
}

/// `session.org.list`: the organisations that the caller may work in, as a forest.
pub fn org_list(call: &Call<'_>, params: OrgList) -> Result<OrgForest, Failure> {
    let identity = &call.app.identity();
    let user = call.user();
    let orgs = match &user {
        Some(user) => identity.enterable_orgs(user),
        None => identity.org(call.session.org_id()).into_iter().collect(),
    };
    let roles = |org: &Arc<Org>| {
        let wanted = params.include_roles.unwrap_or(false);
        let access = user.as_ref().filter(|_| wanted);
        let access = access.and_then(|user| identity.user_access(user, org));
        wanted.then(|| access.map_or_else(Vec::new, |access| access.role_keys))
    };
    let wanted = params.include_recent_orgs.unwrap_or(false);
    let recent_orgs = wanted.then(|| recent_orgs(call));
    let Some((count, page)) = params.page(orgs.clone()) else {
        return Ok(OrgForest { count: None, result: forest(&orgs, None, &roles), recent_orgs });
    };
    let flat = |org: &Arc<Org>| OrgNode {
        slug: Some(org.slug.to_string()),
        ..OrgNode::new(org, Vec::new(), roles(org))
    };
    Ok(OrgForest { count: Some(count), result: page.iter().map(flat).collect(), recent_orgs })
}

/// One organisation of `session.org.list`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrgNode {
    org_id: OrgId,
    org_key: String,
    org_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<String>,
    sub_orgs: Vec<OrgNode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
}

impl OrgNode {
    fn new(org: &Org, sub_orgs: Vec<Self>, roles: Option<Vec<String>>) -> Self {
        let (org_key, org_name) = (org.key.clone(), org.name.clone());
        Self { org_id: org.id, org_key, org_name, slug: None, sub_orgs, roles }
    }
}

/// The reply of `session.org.list`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrgForest {
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    result: Vec<OrgNode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recent_orgs: Option<Vec<RecentOrg>>,
}

/// An organisation that the session was in.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentOrg {
    org_id: OrgId,
    org_key: String,
}

/// The organisations below `parent`; without one, those whose parent is not in the list.
fn forest(
    orgs: &[Arc<Org>],
    parent: Option<OrgId>,
    roles: &dyn Fn(&Arc<Org>) -> Option<Vec<String>>,
) -> Vec<OrgNode> {
    let listed = |id: OrgId| orgs.iter().any(|org| org.id == id);
    let here = |org: &&Arc<Org>| match parent {
        Some(parent) => org.parent == Some(parent),
        None => org.parent.is_none_or(|above| !listed(above)),
    };
    let node = |org: &Arc<Org>| OrgNode::new(org, forest(orgs, Some(org.id), roles), roles(org));
    orgs.iter().filter(here).map(node).collect()
}

fn recent_orgs(call: &Call<'_>) -> Vec<RecentOrg> {
    let mut recent: Vec<RecentOrg> = Vec::new();
    for switch in call.session.context().switches.into_iter().rev() {
        if recent.iter().all(|org| org.org_id != switch.org_id) {
            recent.push(RecentOrg { org_id: switch.org_id, org_key: switch.org_key });
        }
    }
    recent
}

/// Fails unless the caller is a user.
pub(super) fn check_switches(call: &Call<'_>) -> Result<(), Failure> {
    switcher(call).map(drop)
}

fn switcher(call: &Call<'_>) -> Result<Arc<User>, Failure> {
    let sentence = "Only user sessions can switch the organisation.";
    call.user().ok_or_else(|| Failure::new(Code::WRONG_SESSION_KIND, sentence))
}

/// `session.org.switch`: users only (`docs/protocol/tr50.md` 3.1). The session needs room in the
/// organisation as a new one would.
pub fn org_switch(call: &Call<'_>, params: Switch) -> Result<After<Done>, Failure> {
    let user = switcher(call)?;
    let identity = &call.app.identity();
    let (org, named) = match (&params.key, params.id) {
        (Some(key), _) => (identity.org_by_key(key), excerpt(key)),
        (None, Some(id)) => (identity.org(id), id.to_string()),
        (None, None) => return Err(missing("key")),
    };
    // An organisation that the user may not enter does not exist for the user.
    let access = org.and_then(|org| identity.user_access(&user, &org));
    let access = access.map(|access| match call.session.token() {
        Some(token) => access.by_token(token),
        None => access,
    });
    let access = access.ok_or_else(|| Failure::not_found(format!("Organisation \"{named}\"")))?;
    call.app.directory().may_move(call.session, &access)?;
    let switch = SessionChange::Switch(call.session.clone(), Arc::new(access));
    // What was changed since the rights were looked up did not find the session there.
    let refresh = SessionChange::Refresh(call.session.clone());
    Ok(After(Done, Effects::on_sessions([switch, refresh])))
}

/// The reply of `session.info`.
pub struct OwnSession {
    session: Arc<Session>,
    server_id: Arc<str>,
    clock: Clock,
}

impl WriteReply for OwnSession {
    fn write_reply(&self, out: &mut Vec<u8>) {
        let session = &self.session;
        out.extend_from_slice(br#"{"success":true,"params":"#);
        let mut object = ObjectWriter::new(out);
        if let Some(id) = session.id() {
            object.string(key!("id"), id.secret());
        }
        object.string(key!("serverId"), &self.server_id);
        write_session(&mut object, session, &self.clock);
        if session.kind() == Kind::Application {
            object.string(key!("appId"), session.client_id());
        }
        object.string(key!("ipAddress"), &session.conn().remote_addr.ip().to_string());
        json::push_value(object.name(key!("roleKeys")), &session.access().role_keys);
        object.end();
        out.push(b'}');
    }
}
