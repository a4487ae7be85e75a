//! `session.explain`: which role, flag or path gives a session a right, or what takes it away. It
//! asks what the dispatcher and the handlers ask, and says what these answer.

use std::sync::Arc;

use base::{Code, Door, Failure, OrgId, RoleId, SessionRef, ThingKey, TokenId, excerpt, limits};
use rules::directory::{Session, Who};
use rules::identity::permission::{Permission, PermissionSet};
use rules::identity::{Granted, Limit, Source};
use serde::Serialize;

use super::FindParams;
use crate::tr50::commands::{self, Row, authorize};
use crate::tr50::dispatch::not_executable;
use crate::tr50::params::{Reach, params};
use crate::tr50::step::Call;
use crate::tr50::strict::Strict;

params! {
    /// What is to be explained.
    pub(super) struct ExplainParams {
        optional command: String = "command",
            "The command, or `topic.publish`, `topic.subscribe` or `metrics`; without it everything.";
        optional thing_key: ThingKey = "thingKey", "A thing on which it is to be used.";
        optional topic: String = "topic",
            "With `topic.publish` an ordinary MQTT topic, with `topic.subscribe` a filter.";
    }
}

/// Permissions that are no commands: those of ordinary topics, and of the path `/metrics`.
const OF_NO_COMMAND: [&str; 3] = ["metrics", "topic.publish", "topic.subscribe"];

/// The reply of `session.explain`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explained {
    #[serde(rename = "ref")]
    reference: SessionRef,
    who_am_i: String,
    org_id: OrgId,
    org_key: String,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Right(Right),
    Everything(Everything),
}

/// Whether a command may be used, and why.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Right {
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_key: Option<ThingKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    allowed: bool,
    reasons: Vec<Reason>,
    /// What is not allowed of a command that is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    except: Vec<Except>,
    /// Roles that give what is lacking.
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<NamedRole>>,
}

/// Something that gives or denies a right.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reason {
    kind: &'static str,
    gives: bool,
    text: String,
    #[serde(flatten)]
    origin: Origin,
    /// By which of its names a role gives the permission.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    perms: Vec<String>,
}

/// Where what gives rights comes from, as far as whoever asks may know it.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Origin {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<NamedRole>,
    /// The organisations from that in which it is held down to that of the session.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    path: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<TokenId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NamedRole {
    id: RoleId,
    key: String,
    name: String,
    org_id: OrgId,
}

#[derive(Serialize)]
struct Except {
    what: &'static str,
    text: String,
}

/// All that a session may do, by what gives it.
#[derive(Serialize)]
struct Everything {
    sources: Vec<Gives>,
    /// Whether there are more sources than are shown.
    more: bool,
    limits: Vec<Takes>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gives {
    kind: &'static str,
    text: String,
    #[serde(flatten)]
    origin: Origin,
    perms: Vec<&'static str>,
    topic_publish: Vec<String>,
    topic_subscribe: Vec<String>,
}

#[derive(Serialize)]
struct Takes {
    kind: &'static str,
    text: String,
    #[serde(flatten)]
    origin: Origin,
    /// What of all that is given it takes away.
    perms: Vec<&'static str>,
}

/// `session.explain`: of the own sessions for everybody, of others for who may find them.
pub(super) fn explain(
    call: &Call<'_>,
    Strict((which, params)): Strict<(FindParams, ExplainParams)>,
) -> Result<Explained, Failure> {
    let found = which.find(call);
    let own = call.session.who().principal();
    let is_own = |session: &Arc<Session>| session.who().principal() == own;
    if !found.as_ref().is_ok_and(|found| found.as_ref().is_none_or(is_own)) {
        // First, so that who may find nobody learns nothing of who is there.
        check_explains(call)?;
    }
    let session = found?.unwrap_or_else(|| call.session.clone());
    let access = session.access();
    let look = Look {
        asker: call,
        of: Call { app: call.app, session: &session, conn: *session.conn(), now: call.now },
        sources: call.app.sources_of(&session),
    };
    let answer = match params.command.as_deref().map(str::trim) {
        None | Some("") => Answer::Everything(look.everything()),
        Some(command) => Answer::Right(look.right(command, params.thing_key, params.topic)?),
    };
    Ok(Explained {
        reference: session.reference(),
        who_am_i: session.who().name().to_owned(),
        org_id: access.org.id,
        org_key: access.org.key.clone(),
        answer,
    })
}

/// Fails unless the caller may know what sessions of others may do.
pub(super) fn check_explains(call: &Call<'_>) -> Result<(), Failure> {
    if call.session.access().allows("session.find") {
        return Ok(());
    }
    let who = call.session.who().name();
    let sentence = format!(
        "{who} has no permission for session.find in this organisation, and can only have the \
         rights of own sessions explained."
    );
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

/// A look at the rights of a session.
struct Look<'a> {
    /// Who wants to know.
    asker: &'a Call<'a>,
    /// As if the session itself used a command.
    of: Call<'a>,
    sources: Vec<Source>,
}

impl Look<'_> {
    fn right(
        &self,
        command: &str,
        thing_key: Option<ThingKey>,
        topic: Option<String>,
    ) -> Result<Right, Failure> {
        let named = OF_NO_COMMAND.iter().find(|name| name.eq_ignore_ascii_case(command));
        let mut right = Right {
            command: excerpt(command),
            thing_key,
            topic,
            allowed: false,
            reasons: Vec::new(),
            except: Vec::new(),
            roles: None,
        };
        let permission = match (commands::find(command), named) {
            (Some(row), _) => {
                right.command = row.info.name.to_owned();
                row.permission
            }
            (None, Some(name)) => {
                right.command = (*name).to_owned();
                let permission = Permission::named(name);
                permission.ok_or_else(|| not_executable(true, command))?
            }
            (None, None) => {
                let failure = not_executable(true, command);
                let kind = match failure.code {
                    Code::NOT_CONFIGURED => "notConfigured",
                    _ => "unknownCommand",
                };
                right.reasons.push(Reason::denies(kind, failure.message.into_owned()));
                return Ok(right);
            }
        };
        right.reasons.extend(self.given(permission));
        right.allowed = self.of.session.may(permission);
        if !right.allowed {
            self.say_what_denies(permission, &mut right);
            return Ok(right);
        }
        match commands::find(&right.command) {
            Some(row) => self.needed(row, &mut right)?,
            None => self.of_topic(&mut right),
        }
        Ok(right)
    }

    /// What gives a permission, whether or not something takes it away.
    fn given(&self, permission: Permission) -> impl Iterator<Item = Reason> {
        let giving = self.sources.iter().filter(move |one| one.permissions().allows(permission));
        giving.take(limits::EXPLAINED_SOURCES).map(move |source| {
            let names = source.names_of(permission);
            let by = match names[..] {
                [] => String::new(),
                [name] if name.eq_ignore_ascii_case(permission.name()) => String::new(),
                _ => format!(", by \"{}\"", names.join("\", \"")),
            };
            let gives = match source {
                Source::Login => " may use",
                Source::Role(..) => ", gives",
                _ => ", which gives",
            };
            let text = format!("{}{gives} {}{by}.", self.words_of(source), permission.name());
            let perms = names.into_iter().map(str::to_owned).collect();
            Reason { kind: kind_of(source), gives: true, text, origin: self.origin(source), perms }
        })
    }

    /// Why a permission is lacking: nothing gives it, or something takes it away.
    fn say_what_denies(&self, permission: Permission, right: &mut Right) {
        let (who, org) = (self.of.session.who().name(), &self.of.session.access().org.key);
        let name = permission.name();
        if right.reasons.is_empty() {
            let text = match self.sources.iter().any(|one| matches!(one, Source::Role(..))) {
                true => format!("No role that {who} holds in {org} has {name}."),
                false => format!("{who} holds no role in {org}, and {name} needs one that has it."),
            };
            right.reasons.push(Reason::denies("noRole", text));
            right.roles = self.roles_with(permission);
        }
        for (limit, set) in self.limits() {
            if !set.allows(permission) {
                let takes = self.takes(limit);
                let text = format!("{} {name} is not among it.", takes.text);
                let denies = Reason::denies(takes.kind, text);
                right.reasons.push(Reason { origin: takes.origin, ..denies });
            }
        }
    }

    /// The roles that whoever asks could give to have a permission in the organisation of the
    /// session; none: roles are not for the asker.
    fn roles_with(&self, permission: Permission) -> Option<Vec<NamedRole>> {
        if !self.asker.session.access().allows("role.list") {
            return None;
        }
        let roles = self.asker.app.identity().roles_of(self.of.session.org_id());
        let mut seen = std::collections::HashSet::new();
        let with = roles.iter().filter(|granted| {
            // Of two with one key the nearer one is meant.
            seen.insert(granted.role.key.to_lowercase()) && granted.permissions.allows(permission)
        });
        Some(with.take(limits::EXPLAINED_SOURCES).map(|granted| NamedRole::of(granted)).collect())
    }

    /// What a command needs beside its permission.
    fn needed(&self, row: &Row, right: &mut Right) -> Result<(), Failure> {
        for need in row.info.needs {
            match (need.check)(&self.of) {
                Ok(()) => {}
                Err(failure) if need.part.is_empty() => {
                    right.allowed = false;
                    let kind = self.kind_of_failure(&failure, "needs");
                    right.reasons.push(Reason::denies(kind, failure.message.into_owned()));
                }
                Err(failure) => {
                    right
                        .except
                        .push(Except { what: need.part, text: failure.message.into_owned() });
                }
            }
        }
        if let (Some(key), true) = (right.thing_key.clone(), right.allowed) {
            self.on_thing(row.info.reach, &key, right)?;
        }
        Ok(())
    }

    /// Whether a command may be used on a thing.
    fn on_thing(&self, reach: Reach, key: &ThingKey, right: &mut Right) -> Result<(), Failure> {
        if reach == Reach::Nothing {
            let text = format!("{} is about no thing that its parameters name.", right.command);
            right.except.push(Except { what: "thingKey", text });
            return Ok(());
        }
        let is_own = self.asker.session.who().principal() == self.of.session.who().principal();
        if !is_own && !self.asker.session.access().allows("thing.find") {
            let who = self.asker.session.who().name();
            let text = format!("{who} has no permission for thing.find, by which this is told.");
            right.except.push(Except { what: "thingKey", text });
            return Ok(());
        }
        match reach.check(&self.of, key) {
            Ok(()) => {
                let text = self.words_of_thing(key)?;
                right.reasons.push(Reason::gives("thing", text));
            }
            Err(failure) if failure.is_temporary() => return Err(failure),
            Err(failure) => {
                right.allowed = false;
                let kind = self.kind_of_failure(&failure, "thing");
                right.reasons.push(Reason::denies(kind, failure.message.into_owned()));
                right.reasons.extend(self.elsewhere(key)?);
            }
        }
        Ok(())
    }

    fn words_of_thing(&self, key: &ThingKey) -> Result<String, Failure> {
        let (session, access) = (self.of.session, self.of.session.access());
        let Who::Application { thing_id, thing_key, .. } = session.who() else {
            return Ok(format!("{key} may be named: every thing of {} may.", access.org.key));
        };
        if thing_key == key {
            return Ok(format!("{key} is the session's own thing."));
        }
        let found = self.of.app.things.get(access.org.id, key)?;
        Ok(match found.is_some_and(|thing| thing.bound_to == Some(*thing_id)) {
            true => format!("{key} is bound to {thing_key}, the session's own thing."),
            false => format!("{key} may be named: every thing of {} may.", access.org.key),
        })
    }

    /// The organisation that has the thing, if the session could move there and whoever asks may
    /// act in it.
    fn elsewhere(&self, key: &ThingKey) -> Result<Option<Reason>, Failure> {
        let Some(user) = self.of.user() else { return Ok(None) };
        let here = self.of.session.org_id();
        let orgs = self.of.app.identity().enterable_orgs(&user);
        for org in orgs.into_iter().take(limits::EXPLAINED_SOURCES) {
            if org.id != here
                && authorize::may_act_in(self.asker, org.id)
                && self.of.app.things.get(org.id, key)?.is_some()
            {
                let text = format!(
                    "{key} is in {}: {} reaches it there, after session.org.switch.",
                    org.key, user.email
                );
                return Ok(Some(Reason::denies("otherOrg", text)));
            }
        }
        Ok(None)
    }

    /// Whether a topic is among those of the roles.
    fn of_topic(&self, right: &mut Right) {
        let (access, own) = (self.of.session.access(), self.of.session.who().own_key());
        let publishes = right.command == "topic.publish";
        let (rights, filters): (_, fn(&Source) -> &[String]) = match right.command.as_str() {
            "topic.publish" => (&access.topic_publish, Source::topic_publish),
            "topic.subscribe" => (&access.topic_subscribe, Source::topic_subscribe),
            _ => return,
        };
        let mut filters: Vec<_> = self.sources.iter().flat_map(filters).cloned().collect();
        filters.sort_unstable();
        filters.dedup();
        filters.truncate(limits::EXPLAINED_SOURCES);
        let listed = match filters.is_empty() {
            true => "none".to_owned(),
            false => filters.join(", "),
        };
        let Some(topic) = &right.topic else {
            let text = format!("The roles have these filters: {listed}.");
            right.except.push(Except { what: "topic", text });
            return;
        };
        let covered = match publishes {
            true => rights.allows(topic, own),
            false => rights.covers(topic, own),
        };
        let whose = match access.restricted_to_self {
            true => " The token is restricted to topics below its own thing's key.",
            false => "",
        };
        let topic = excerpt(topic);
        if covered {
            let text = format!("\"{topic}\" is covered by the filters of the roles: {listed}.");
            right.reasons.push(Reason::gives("topic", text));
        } else {
            right.allowed = false;
            let text =
                format!("\"{topic}\" is not covered by the filters of the roles: {listed}.{whose}");
            right.reasons.push(Reason::denies("topic", text));
        }
    }

    fn everything(&self) -> Everything {
        let all = self.sources.iter().map(Source::permissions);
        let all = all.fold(PermissionSet::EMPTY, |all, set| all.union(&set));
        let gives = |source: &Source| Gives {
            kind: kind_of(source),
            text: format!("{}.", self.words_of(source)),
            origin: self.origin(source),
            perms: source.permissions().names().collect(),
            topic_publish: source.topic_publish().to_vec(),
            topic_subscribe: source.topic_subscribe().to_vec(),
        };
        let takes = |(limit, set): (Limit, PermissionSet)| Takes {
            perms: all.without(&set).names().collect(),
            ..self.takes(limit)
        };
        let mut limits: Vec<_> = self.limits().into_iter().map(takes).collect();
        if self.of.session.access().restricted_to_self {
            let text = "The token is restricted to its own thing, and to those bound to it.";
            limits.push(Takes {
                kind: "ownThing",
                text: text.to_owned(),
                origin: Origin::default(),
                perms: Vec::new(),
            });
        }
        Everything {
            sources: self.sources.iter().take(limits::EXPLAINED_SOURCES).map(gives).collect(),
            more: self.sources.len() > limits::EXPLAINED_SOURCES,
            limits,
        }
    }

    /// What takes rights away, with what it leaves.
    fn limits(&self) -> Vec<(Limit, PermissionSet)> {
        let session = self.of.session;
        let Some(limit) = session.access().limit else { return Vec::new() };
        let token = session.token().map(|token| &**token);
        match (limit, token) {
            (Limit::Enrolment, Some(token)) => vec![
                (limit, limit.leaves(None)),
                (Limit::NarrowToken, Limit::NarrowToken.leaves(Some(token))),
            ],
            _ => vec![(limit, limit.leaves(token))],
        }
    }

    fn takes(&self, limit: Limit) -> Takes {
        let who = self.of.session.who().name();
        let token = self.of.session.token();
        let named = token.map_or("", |token| &token.name);
        let (kind, text) = match limit {
            Limit::Enrolment => (
                "secondFactor",
                format!(
                    "{who} has to set up a second factor first: user.mfa.enrol, then \
                     user.mfa.confirm."
                ),
            ),
            Limit::Token => {
                ("apiToken", format!("The API token \"{named}\" gives all but {who}'s own login."))
            }
            Limit::NarrowToken => {
                ("apiToken", format!("The API token \"{named}\" gives some permissions only."))
            }
        };
        let token_id = token.filter(|_| limit != Limit::Enrolment).map(|token| token.id);
        let origin = Origin { token_id, ..Origin::default() };
        Takes { kind, text, origin, perms: Vec::new() }
    }

    fn kind_of_failure(&self, failure: &Failure, other: &'static str) -> &'static str {
        match failure.code {
            Code::WRONG_SESSION_KIND => "sessionKind",
            Code::THING_DISABLED => "banned",
            Code::PERMISSION_DENIED if self.of.session.access().restricted_to_self => "ownThing",
            Code::PERMISSION_DENIED => "needs",
            _ => other,
        }
    }

    /// What gives rights, in words.
    fn words_of(&self, source: &Source) -> String {
        let (who, here) = (self.of.session.who().name(), self.of.session.access().org.clone());
        let held_in = |org: OrgId| match self.key_of(org) {
            Some(key) if org == here.id => format!("in {key}"),
            Some(key) => format!("in {key}, above {}", here.key),
            None => format!("in an organisation above {}", here.key),
        };
        match source {
            Source::SuperAdmin if self.of.session.conn().door == Door::Control => {
                format!("{who} has the server's data directory")
            }
            Source::SuperAdmin => format!("{who} is super administrator (hasSuperAdmin)"),
            Source::SuperOps => format!("{who} is super operator (hasSuperOps)"),
            Source::OrgAdmin(org) => {
                format!("{who} is administrator (hasOrgAdmin) {}", held_in(*org))
            }
            Source::Role(granted, org) => {
                format!("Role \"{}\", held {}", granted.role.key, held_in(*org))
            }
            Source::Login => "Everyone who is logged in".to_owned(),
        }
    }

    fn origin(&self, source: &Source) -> Origin {
        let (role, org) = match source {
            Source::Role(granted, org) => (Some(NamedRole::of(granted)), *org),
            Source::OrgAdmin(org) => (None, *org),
            _ => return Origin::default(),
        };
        Origin { role, path: self.path_from(org), token_id: None }
    }

    /// The organisations from one down to that of the session; from where whoever asks may know.
    fn path_from(&self, org: OrgId) -> Vec<String> {
        let identity = self.asker.app.identity();
        let mut path = Vec::new();
        let mut at = Some(self.of.session.org_id());
        while let Some(id) = at.take() {
            path.extend(self.key_of(id));
            if id != org && path.len() < limits::ORG_DEPTH_MAX {
                at = identity.org(id).and_then(|org| org.parent);
            }
        }
        path.reverse();
        path
    }

    /// The key of an organisation, if it is not above what whoever asks may know of: those who ask
    /// for themselves know where they hold something.
    fn key_of(&self, org: OrgId) -> Option<String> {
        let asker = self.asker.session;
        let known = org == self.of.session.org_id()
            || asker.who().principal() == self.of.session.who().principal()
            || authorize::may_act_in(self.asker, org)
            || asker.access().authority().sees_all();
        let found = self.asker.app.identity().org(org).filter(|_| known);
        found.map(|org| org.key.clone())
    }
}

const fn kind_of(source: &Source) -> &'static str {
    match source {
        Source::SuperAdmin => "hasSuperAdmin",
        Source::SuperOps => "hasSuperOps",
        Source::OrgAdmin(_) => "hasOrgAdmin",
        Source::Role(..) => "role",
        Source::Login => "everyone",
    }
}

impl Reason {
    fn gives(kind: &'static str, text: String) -> Self {
        Self { kind, gives: true, text, origin: Origin::default(), perms: Vec::new() }
    }

    fn denies(kind: &'static str, text: String) -> Self {
        Self { gives: false, ..Self::gives(kind, text) }
    }
}

impl NamedRole {
    fn of(granted: &Granted) -> Self {
        let role = &granted.role;
        Self { id: role.id, key: role.key.clone(), name: role.name.clone(), org_id: role.org }
    }
}
