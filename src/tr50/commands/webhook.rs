//! `webhook.*`: URLs to which the events of an organisation are sent (`docs/webhooks.md`).
//!
//! What is sent goes by the rights of who made or changed the webhook last, as they are when it is
//! sent, and never by more than they were then.

use std::sync::Arc;

use base::{Code, Failure, ThingKey, Timestamp, WebhookId, excerpt, limits};
use rules::directory::Who;
use rules::identity::{SwitchedOff, Webhook, WebhookOwner, WebhookRights, WebhookStart};
use serde::Serialize;

use super::authorize::{self, Edit, Unset, invalid_param};
use super::commands;
use super::event::types_named;
use super::paging::{ListReply, View};
use super::target::check_unrestricted;
use crate::app::{App, Effects, LastFailure};
use crate::random::random;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done};
use crate::tr50::strict::Strict;
use crate::webhooks::{SECRET_RULE, Secret, Target, URL_RULE};

commands! {
    act "webhook.create" => create where check_sends_events, [ALREADY_EXISTS],
        "Has events of the current organisation sent to a URL, by the rights of the caller.",
        "`id`; `secret`, which is shown only here; `after`, behind which number it begins",
        "`includeSubOrgs`" where check_may_include;
    act "webhook.delete" => delete where check_unrestricted, [NOT_FOUND],
        "Deletes a webhook: nothing more is sent.",
        "";
    "webhook.list" => list where check_unrestricted, [],
        "Lists the webhooks of the current organisation, by name, without their secrets, and how \
         they are.",
        "`count`, `fields`, `result`";
    act "webhook.update" => update where check_sends_events, [NOT_FOUND, ALREADY_EXISTS],
        "Changes a webhook, found by `id`, or without it by `name`. From then on the rights of the \
         caller count; what is under way begins anew, and so does the count of failures.",
        "`secret`, if the server made a new one; `after`, behind which number it goes on",
        "`includeSubOrgs`" where check_may_include;
}

params! {
    /// Which webhook.
    pub struct FindParams {
        optional id: WebhookId = "id", "The webhook's id.";
        optional_exact name: String = "name", "Its name, unique in the organisation in any case.";
    }
}

params! {
    /// A webhook's members.
    pub struct UpdateParams {
        optional_exact url: String = "url",
            "Where events are sent with POST: `https://…` or `http://…`, without user and fragment.";
        optional types: Vec<String> = "types",
            "Types of events, as in `event.list`: `session.started`, or a family, `session`; all by \
             default.";
        optional thing_keys: Vec<String> = "thingKey",
            "Only events of the things with these keys.";
        optional include_sub_orgs: bool = "includeSubOrgs",
            "Also events of organisations below; for administrators.";
        optional_exact secret: String = "secret",
            "What deliveries are signed with; without it, or with an empty one, the server makes one.";
        optional enabled: bool = "enabled", "Whether anything is sent; by default it is.";
        optional max_events: u64 = "maxEvents", "Events in one delivery at most, up to 1000; 100 by default.";
        optional description: String = "description", "What it is for.";
        optional after: u64 = "after",
            "Goes on behind the event with this number; a new one begins with what happens then.";
    }
}

/// The reply of `webhook.create`.
#[derive(Serialize)]
pub struct Made {
    id: WebhookId,
    secret: String,
    after: u64,
}

/// The reply of `webhook.update`.
#[derive(Serialize)]
pub struct Changed {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    after: u64,
}

/// A webhook on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebhookView {
    id: WebhookId,
    name: String,
    description: String,
    url: String,
    types: Vec<String>,
    thing_key: Vec<String>,
    include_sub_orgs: bool,
    enabled: bool,
    max_events: u32,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    switched_off: Option<SwitchedOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<LastFailure>,
    failures: u64,
    after: u64,
    lag: u64,
    missed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    created_by: String,
    created_on: Timestamp,
    updated_by: String,
    updated_on: Timestamp,
}

const FIELDS: &[&str] = &[
    "id",
    "name",
    "description",
    "url",
    "types",
    "thingKey",
    "includeSubOrgs",
    "enabled",
    "maxEvents",
    "state",
    "switchedOff",
    "lastSuccess",
    "lastFailure",
    "failures",
    "after",
    "lag",
    "missed",
    "owner",
    "createdBy",
    "createdOn",
    "updatedBy",
    "updatedOn",
];

impl WebhookView {
    fn of(app: &App, webhook: &Webhook) -> Self {
        let state = app.webhook_state(webhook.id);
        let progress = state.progress;
        let updated = webhook.updated.clone();
        let (updated_on, updated_by) =
            authorize::last_change(updated, webhook.created_on, &webhook.created_by);
        let may_read = app.webhook_may_read(webhook);
        Self {
            id: webhook.id,
            name: webhook.name.clone(),
            description: webhook.desc.clone(),
            url: webhook.url.clone(),
            types: webhook.types.clone(),
            thing_key: webhook.thing_keys.clone(),
            include_sub_orgs: webhook.include_sub_orgs,
            enabled: webhook.enabled,
            max_events: webhook.max_events,
            state: match () {
                () if webhook.switched_off.is_some() => "switchedOff",
                () if !webhook.enabled => "disabled",
                () if !may_read => "noRights",
                () if progress.failures > 0 => "failing",
                () if state.is_sending => "sending",
                () => "waiting",
            },
            switched_off: webhook.switched_off.clone(),
            last_success: progress.last_success,
            last_failure: progress.last_failure,
            failures: progress.failures,
            after: progress.cursor,
            lag: state.lag,
            missed: progress.missed,
            owner: owner_name(app, webhook.owner),
            created_by: webhook.created_by.clone(),
            created_on: webhook.created_on,
            updated_by,
            updated_on,
        }
    }
}

/// By whose rights events are sent; none if nobody is there any more.
fn owner_name(app: &App, owner: WebhookOwner) -> Option<String> {
    match owner {
        WebhookOwner::User(id) => app.identity().user(id).map(|user| user.email.clone()),
        WebhookOwner::Application(id) => {
            app.identity().application(id).map(|application| application.name.clone())
        }
    }
}

impl FindParams {
    /// The webhook of the current organisation.
    fn find(&self, call: &Call<'_>) -> Result<Arc<Webhook>, Failure> {
        let (identity, org) = (call.app.identity(), call.session.org_id());
        let (found, named) = match (self.id, &self.name) {
            (Some(id), _) => {
                let found = identity.webhook(id).filter(|found| found.org == org);
                (found, format!("Webhook \"{id}\""))
            }
            (None, Some(name)) => {
                (identity.webhook_by_name(org, name), format!("Webhook \"{}\"", excerpt(name)))
            }
            (None, None) => return Err(missing("id")),
        };
        found.ok_or_else(|| Failure::not_found(named))
    }
}

/// Whoever has events sent has to be one who may read them.
fn check_sends_events(call: &Call<'_>) -> Result<(), Failure> {
    check_unrestricted(call)?;
    if call.session.is_detached() {
        let sentence = "Events are sent by the rights of a user or an application: log in as one.";
        return Err(Failure::new(Code::WRONG_SESSION_KIND, sentence));
    }
    if call.session.access().allows(READS) {
        return Ok(());
    }
    let who = call.session.who().name();
    let sentence = format!("{who} can't have events sent without the permission {READS}.");
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

fn check_may_include(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().administers_here() {
        return Ok(());
    }
    let sentence =
        "Only administrators can have events of organisations below sent (includeSubOrgs).";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

fn check_scope(call: &Call<'_>, webhook: &Webhook) -> Result<(), Failure> {
    if webhook.include_sub_orgs { check_may_include(call) } else { Ok(()) }
}

/// The permission to read events.
const READS: &str = "event.list";

impl UpdateParams {
    /// Changes the webhook; the new secret, if the server made one.
    fn apply(
        self,
        call: &Call<'_>,
        webhook: &mut Webhook,
        edit: &Edit,
    ) -> Result<Option<String>, Failure> {
        edit.text("description", &mut webhook.desc, self.description)?;
        if let Some(url) = self.url {
            check_url(call.app, &url)?;
            webhook.url = url;
        }
        if let Some(types) = &self.types {
            check_types(types)?;
        }
        edit.list("types", &mut webhook.types, self.types)?;
        if let Some(keys) = &self.thing_keys {
            let is_key = |key: &String| key.is_empty() || ThingKey::parse(key).is_ok();
            if !keys.iter().all(is_key) {
                return Err(invalid_param("thingKey", "keys of things"));
            }
        }
        edit.list("thingKey", &mut webhook.thing_keys, self.thing_keys)?;
        edit.flag("includeSubOrgs", &mut webhook.include_sub_orgs, self.include_sub_orgs);
        match (self.max_events, edit.unsets("maxEvents")) {
            (Some(max), _) => {
                let most = limits::WEBHOOK_EVENTS_MAX;
                let max = u32::try_from(max).ok().filter(|max| (1..=most).contains(max));
                let rule = || invalid_param("maxEvents", &format!("from 1 to {most}"));
                webhook.max_events = max.ok_or_else(rule)?;
            }
            (None, true) => webhook.max_events = limits::WEBHOOK_EVENTS,
            (None, false) => {}
        }
        if let Some(enabled) = self.enabled {
            webhook.enabled = enabled;
            webhook.switched_off = None;
        }
        let made = match self.secret {
            Some(secret) if !secret.is_empty() => {
                Secret::parse(&secret).ok_or_else(|| invalid_param("secret", SECRET_RULE))?;
                webhook.secret = secret;
                None
            }
            None if !webhook.secret.is_empty() => None,
            _ => {
                webhook.secret = Secret::made_of(&random()?);
                Some(webhook.secret.clone())
            }
        };
        let last = call.app.events().last();
        if self.after.is_some_and(|after| after > last) {
            let rule = format!("the number of an event; the last one has {last}");
            return Err(invalid_param("after", &rule));
        }
        if let Some(after) = self.after {
            webhook.start.after = after;
        }
        Ok(made)
    }
}

fn check_url(app: &App, url: &str) -> Result<(), Failure> {
    let target = Target::parse(url).ok_or_else(|| invalid_param("url", URL_RULE))?;
    if app.webhook_may_reach(&target) {
        return Ok(());
    }
    let rule = match app.webhooks_allow_private() {
        true => "of one host: this address is nobody's or that of many",
        false => "of a host on the Internet: webhooks.allow_private is not set",
    };
    Err(invalid_param("url", rule))
}

/// Each is one type, as it is kept.
fn check_types(types: &[String]) -> Result<(), Failure> {
    if types.iter().any(|text| text.contains(',')) {
        return Err(invalid_param("types", "one type in each text"));
    }
    types_named(types).map(drop)
}

fn check_free(call: &Call<'_>, webhook: &Webhook) -> Result<(), Failure> {
    authorize::check_name("name", &webhook.name)?;
    let taken = call.app.identity().webhook_by_name(webhook.org, &webhook.name);
    match taken.is_some_and(|other| other.id != webhook.id) {
        true => Err(authorize::already_exists("Webhook", &webhook.name)),
        false => Ok(()),
    }
}

fn owner(call: &Call<'_>) -> WebhookOwner {
    match call.session.who() {
        Who::User(user) => WebhookOwner::User(user.id),
        Who::Application { application, .. } => WebhookOwner::Application(application.id),
    }
}

/// `webhook.create`.
pub fn create(
    call: &Call<'_>,
    Strict((name, members)): Strict<(NewName, UpdateParams)>,
) -> Result<After<Made>, Failure> {
    if members.url.is_none() {
        return Err(missing("url"));
    }
    let turn = call.app.identity().turn();
    let mut webhook = Webhook {
        id: WebhookId::from_bytes(random()?),
        org: call.session.org_id(),
        name: name.name,
        desc: String::new(),
        url: String::new(),
        secret: String::new(),
        types: Vec::new(),
        thing_keys: Vec::new(),
        include_sub_orgs: false,
        max_events: limits::WEBHOOK_EVENTS,
        enabled: true,
        switched_off: None,
        owner: owner(call),
        token: call.session.token().map(|token| token.id),
        rights: WebhookRights::of(&call.session.access()),
        // The first beginning: of none, nothing is known.
        start: WebhookStart { after: call.app.events().last(), epoch: 1 },
        created_on: call.now,
        created_by: authorize::author(call),
        updated: None,
    };
    members.apply(call, &mut webhook, &Edit::new(None))?;
    check_scope(call, &webhook)?;
    check_free(call, &webhook)?;
    let (id, secret, after) = (webhook.id, webhook.secret.clone(), webhook.start.after);
    Ok(After(Made { id, secret, after }, turn.put(webhook).into()))
}

params! {
    /// The name of a new webhook.
    pub struct NewName {
        required_exact name: String = "name", "Its name, unique in the organisation in any case.";
    }
}

/// `webhook.list`.
pub fn list(call: &Call<'_>, Strict(view): Strict<View>) -> Result<ListReply, Failure> {
    let webhooks = call.app.identity().webhooks_of(call.session.org_id());
    let webhooks: Vec<_> =
        webhooks.iter().map(|webhook| WebhookView::of(call.app, webhook)).collect();
    view.or_sorted_by("name").apply(FIELDS, &webhooks)
}

/// `webhook.update`.
pub fn update(
    call: &Call<'_>,
    Strict((which, members, unset)): Strict<(FindParams, UpdateParams, Unset)>,
) -> Result<After<Changed>, Failure> {
    let turn = call.app.identity().turn();
    let before = which.find(call)?;
    let mut webhook = Webhook::clone(&before);
    if let Some(name) = which.name {
        webhook.name = name;
    }
    // Where it is, unless the caller says otherwise.
    webhook.start = WebhookStart {
        after: call.app.webhook_state(before.id).progress.cursor,
        epoch: before.start.epoch.wrapping_add(1),
    };
    let had = members.secret.as_deref() == Some("");
    if had {
        webhook.secret.clear();
    }
    let edit = Edit::new(unset.unset);
    let secret = members.apply(call, &mut webhook, &edit)?;
    edit.check()?;
    (webhook.owner, webhook.rights) = (owner(call), WebhookRights::of(&call.session.access()));
    webhook.token = call.session.token().map(|token| token.id);
    check_scope(call, &webhook)?;
    check_free(call, &webhook)?;
    webhook.updated = authorize::stamp(call);
    let after = webhook.start.after;
    Ok(After(Changed { secret, after }, turn.put(webhook).into()))
}

/// `webhook.delete`.
pub fn delete(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let webhook = which.find(call)?;
    Ok(After(Done, Effects::from(turn.delete([Webhook::clone(&webhook).into()]))))
}
