//! What somebody did, as the row of an event: who, what, on whom, and what it was before and after,
//! without secrets.

use std::net::SocketAddr;

use base::{ConnInfo, Door, OrgId, limits};
use rules::directory::{Session, Who};
use rules::identity::model::{Application, User};
use rules::identity::{Record, Token};
use serde_json::{Map, Value, json};

/// Names of acts that are no command's: of the server, of the control socket, and those of the
/// dialects.
pub const ACTS: [&str; 10] = [
    "DeleteAuthSession",
    "DeleteAuthSessionsByClusterAdmin",
    "DeleteAuthSessionsByUsername",
    "SetLoginSessionInfo",
    "backup",
    "bootstrap",
    "revokeLoginSessionsForUserPrincipal",
    "server.stop",
    "unlock",
    "webhook.disabled",
];

/// Who did something, from where.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Its members in the row.
    row: Map<String, Value>,
    /// The organisation in which it acts; none for the server and who is on its machine.
    org: Option<OrgId>,
}

/// Somebody who asks without a session.
pub enum Known<'a> {
    /// A user.
    User(&'a User),
    /// An application, by its token alone.
    Application(&'a Application),
}

impl Actor {
    /// Who has this session, over the connection of the request.
    pub fn of_session(session: &Session, conn: ConnInfo) -> Self {
        if conn.door == Door::Control {
            return Self::by_control(session.who().name());
        }
        let mut actor = match session.who() {
            Who::User(user) => Self::of(&Known::User(user), conn),
            Who::Application { application, thing_key, .. } => {
                let mut actor = Self::of(&Known::Application(application), conn);
                actor.set("whoAmI", thing_key.as_str());
                actor.set("thingKey", thing_key.as_str());
                actor
            }
        };
        if let Some(token) = session.token() {
            actor.set("tokenId", token.id.to_string());
            actor.set("tokenName", &*token.name);
        }
        actor.set("sessionRef", session.reference().to_string());
        actor.org = Some(session.org_id());
        actor
    }

    /// Who asks without a session.
    pub fn of(known: &Known<'_>, conn: ConnInfo) -> Self {
        let mut actor = Self::at(conn.protocol.as_str(), Some(conn.remote_addr));
        match known {
            Known::User(user) => {
                actor.set("whoAmI", &*user.email);
                actor.set("userId", user.id.to_string());
                actor.org = Some(user.owner());
            }
            Known::Application(application) => {
                actor.set("whoAmI", &*application.name);
                actor.set("appName", &*application.name);
                actor.set("tokenId", application.token_id.to_string());
                actor.org = Some(application.org);
            }
        }
        actor
    }

    /// Who has an account on this machine and came by the control socket.
    pub fn on_machine(uid: Option<u32>) -> Self {
        Self::by_control(&Self::name_on_machine(uid))
    }

    /// The name of who has an account on this machine.
    pub fn name_on_machine(uid: Option<u32>) -> String {
        uid.map_or_else(|| "unknown".to_owned(), |uid| format!("uid {uid}"))
    }

    fn by_control(name: &str) -> Self {
        let mut actor = Self::at("control", None);
        actor.set("whoAmI", name);
        actor
    }

    /// The server itself.
    pub fn server() -> Self {
        let mut actor = Self::at("server", None);
        actor.set("whoAmI", "SYSTEM");
        actor
    }

    fn at(protocol: &str, from: Option<SocketAddr>) -> Self {
        let mut actor = Self { row: Map::new(), org: None };
        actor.set("protocol", protocol);
        if let Some(from) = from {
            actor.set("remoteAddr", from.to_string());
        }
        actor
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.row.insert(name.to_owned(), value.into());
    }

    /// The organisation in which it acts.
    pub const fn org(&self) -> Option<OrgId> {
        self.org
    }

    /// Its name, and the ref of its session if it has one.
    pub fn by(&self) -> Option<(String, Option<String>)> {
        let text = |name: &str| Some(self.row.get(name)?.as_str()?.to_owned());
        Some((text("whoAmI")?, text("sessionRef")))
    }

    /// What an organisation is told that it does not belong to: the name, if that is known there.
    #[must_use]
    pub fn seen_from_elsewhere(&self, known: &str) -> Self {
        let mut row = self.row.clone();
        let is_known = row.get("whoAmI").and_then(Value::as_str) == Some(known);
        row.retain(|name, _| name == "whoAmI" && is_known || name == "protocol");
        Self { row, org: self.org }
    }

    /// Its members in a row.
    pub fn into_row(self) -> Map<String, Value> {
        self.row
    }
}

/// On what something was done.
#[derive(Clone, Debug)]
pub struct Target {
    /// `org`, `user`, `role`, `app`, `thing_def`, `session`, `thing`, `file`, …
    pub kind: &'static str,
    /// Its id, key or ref.
    pub id: String,
    /// Its name for people.
    pub name: String,
}

/// Something that was done.
pub struct Act<'a> {
    /// Who did it.
    pub actor: &'a Actor,
    /// The command.
    pub command: &'a str,
    /// On what.
    pub target: Target,
    /// The members that changed, as they were.
    pub before: Map<String, Value>,
    /// And as they are.
    pub after: Map<String, Value>,
}

impl Act<'_> {
    /// The row of its event.
    pub fn into_row(self, now: base::Timestamp, org_key: Option<&str>) -> Map<String, Value> {
        let Target { kind, id, name } = self.target;
        let mut row = self.actor.row.clone();
        let mut set = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
        set("ts", json!(now));
        set("command", self.command.into());
        set("outcome", "success".into());
        set("target", json!({ "kind": kind, "id": id, "name": name }));
        for (name, members) in [("before", self.before), ("after", self.after)] {
            if !members.is_empty() {
                set(name, members.into());
            }
        }
        if let Some(key) = org_key {
            set("orgKey", key.into());
        }
        row
    }
}

impl Target {
    /// A record of identity.
    pub fn of_record(record: &Record) -> Self {
        let (kind, id, name) = match record {
            Record::Org(org) => ("org", org.id.to_string(), &org.key),
            Record::Role(role) => ("role", role.id.to_string(), &role.key),
            Record::User(user) => ("user", user.id.to_string(), &user.email),
            Record::Application(app) => ("app", app.id.to_string(), &app.name),
            Record::ThingDef(def) => ("thing_def", def.id.to_string(), &def.key),
            Record::Webhook(webhook) => ("webhook", webhook.id.to_string(), &webhook.name),
        };
        Self { kind, id, name: name.clone() }
    }

    /// A session.
    pub fn of_session(session: &Session) -> Self {
        let id = session.reference().to_string();
        Self { kind: "session", id, name: session.who().name().to_owned() }
    }
}

/// Members that the wire calls differently.
const RENAMED: [(&str, &str); 8] = [
    ("email", "emailAddress"),
    ("home", "homeOrgId"),
    ("orgAdmin", "isOrgAdmin"),
    ("parent", "parentId"),
    ("permissions", "perms"),
    ("startOrg", "defaultOrgId"),
    ("superAdmin", "isSuperAdmin"),
    ("superOps", "isSuperOps"),
];

/// Members that say nothing of what was done: they are in the row already.
const LEFT_OUT: [&str; 8] =
    ["id", "org", "owner", "createdOn", "createdBy", "updated", "addedOn", "addedBy"];

/// Members of which only is told that they changed.
const SECRET: [&str; 3] = ["passwordHash", "secret", "tokenHash"];

/// The members of a record by their names on the wire. Memberships and invitations are by
/// organisation.
pub fn members(record: &Record) -> Map<String, Value> {
    let value = match record {
        Record::Org(record) => json!(record),
        Record::Role(record) => json!(record),
        Record::User(record) => {
            let mut value = json!(record);
            if let Some(user) = value.as_object_mut() {
                // Of the secret, nothing at all.
                user.remove("second_factor");
                // The user's own affair.
                user.remove("settings");
                user.insert("mfa".to_owned(), record.second_factor.is_active().into());
                user.insert("tokens".to_owned(), tokens(&record.tokens));
            }
            value
        }
        Record::Application(record) => {
            let mut value = json!(record);
            if let Some(application) = value.as_object_mut() {
                application.insert("tokens".to_owned(), tokens(&record.tokens));
            }
            value
        }
        Record::ThingDef(record) => {
            let mut value = json!(record);
            let inner = value.as_object_mut().and_then(|def| def.remove("members"));
            if let (Some(def), Some(Value::Object(inner))) = (value.as_object_mut(), inner) {
                def.extend(inner);
            }
            value
        }
        Record::Webhook(record) => json!(record),
    };
    named(value)
}

/// Tokens by their ids, without hashes.
fn tokens(held: &[Token]) -> Value {
    let entry = |token: &Token| {
        let perms = &token.permissions;
        let shown = json!({ "name": token.name, "perms": perms, "terms": token.terms });
        (token.id.to_string(), shown)
    };
    Value::Object(held.iter().map(entry).collect())
}

fn named(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { return Map::new() };
    let mut named = Map::new();
    for (name, value) in members {
        let name = camel_case(&name);
        if let ("ban", Value::Object(ban)) = (&*name, &value) {
            named.extend(ban.clone());
            continue;
        }
        let value = match (&*name, value) {
            ("memberships", Value::Array(held)) => by_org(held).into(),
            ("invites", Value::Array(offered)) => {
                by_org(offered.into_iter().map(|mut invite| invite["terms"].take()).collect())
                    .into()
            }
            (_, value) => value,
        };
        let wire = RENAMED.iter().find(|(stored, _)| *stored == name).map(|(_, wire)| *wire);
        if !LEFT_OUT.contains(&&*name) {
            named.insert(wire.unwrap_or(&name).to_owned(), value);
        }
    }
    named
}

fn by_org(held: Vec<Value>) -> Map<String, Value> {
    let entry = |membership: Value| {
        let org = membership.get("org")?.as_str()?.to_owned();
        Some((org, named(membership).into()))
    };
    held.into_iter().filter_map(entry).collect()
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        text.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(chars.as_str());
    }
    text
}

/// What changed: the members as they were, and as they are. Of secrets, only that they changed; long
/// ones are cut.
pub fn diff(
    mut before: Map<String, Value>,
    mut after: Map<String, Value>,
) -> (Map<String, Value>, Map<String, Value>) {
    let both = !before.is_empty() && !after.is_empty();
    differ(&mut before, &mut after);
    for name in SECRET {
        let (_, has) = (before.remove(name), after.remove(name).is_some());
        if both && has {
            let name = name.trim_end_matches("Hash");
            after.insert(name.to_owned(), "changed".into());
        }
    }
    for members in [&mut before, &mut after] {
        members.values_mut().for_each(cut);
        if !both {
            members.retain(|_, value| !is_empty(value));
        }
    }
    (before, after)
}

fn differ(before: &mut Map<String, Value>, after: &mut Map<String, Value>) {
    let both: Vec<String> =
        before.keys().filter(|name| after.contains_key(*name)).cloned().collect();
    for name in both {
        let (Some(was), Some(is)) = (before.get_mut(&name), after.get_mut(&name)) else { continue };
        let is_same = match (&mut *was, &mut *is) {
            (Value::Object(was), Value::Object(is)) => {
                differ(was, is);
                was.is_empty() && is.is_empty()
            }
            (was, is) => was == is,
        };
        if is_same {
            before.remove(&name);
            after.remove(&name);
        }
    }
}

/// Whether a record that has just been made need not show it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(_) => false,
    }
}

/// Shortens what takes too many bytes.
fn cut(value: &mut Value) {
    let most = limits::EVENT_TEXT_BYTES_MAX;
    let bytes = serde_json::to_string(value).map_or(0, |text| text.len());
    if bytes <= most {
        return;
    }
    match value {
        Value::String(text) => {
            let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
            let end = ends.take_while(|end| *end <= most).last();
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        value => *value = format!("{bytes} bytes").into(),
    }
}

/// A name as somebody claimed it: short, and without what would be no part of a line.
pub fn shown_name(name: &str) -> String {
    let mut shown = String::new();
    for (count, c) in name.chars().enumerate() {
        if count == limits::REFUSED_NAME_CHARS_MAX {
            shown.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Whether it changes how others are shown, or shows nothing.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Takes memberships and invitations out, but for those in organisations to which `sees` says yes.
pub fn only_memberships(members: &mut Map<String, Value>, sees: impl Fn(OrgId) -> bool) {
    for name in MEMBERSHIPS {
        if let Some(Value::Object(held)) = members.get_mut(name) {
            held.retain(|org, _| org.parse().is_ok_and(&sees));
            if held.is_empty() {
                members.remove(name);
            }
        }
    }
}

/// Members of a user that say what the user is, or is to be, in organisations.
pub const MEMBERSHIPS: [&str; 2] = ["memberships", "invites"];
