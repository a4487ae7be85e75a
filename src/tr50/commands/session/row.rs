//! The session object of replies (`docs/protocol/tr50.md` 3.3).

use std::sync::Arc;

use base::{
    Clock,
    json::{self, ObjectWriter, key},
};
use rules::directory::{Lifetime, OrgContext, OrgSwitch, Session, Who};
use rules::identity::Access;
use rules::identity::model::Application;
use rules::identity::permission::PermissionSet;

use super::list::Shown;

/// The texts that sessions of one listing mostly share, those that were written last; and the clock
/// by which their times are shown.
pub(super) struct SharedTexts<'a> {
    pub(super) clock: &'a Clock,
    access: Option<StandingTexts>,
    application: Option<(Arc<Application>, Vec<u8>)>,
}

/// What a access makes of a session.
struct StandingTexts {
    access: Arc<Access>,
    org: Vec<u8>,
    rights: Vec<u8>,
    /// How many bytes of `rights` are before `perms`.
    flags: usize,
}

impl<'c> SharedTexts<'c> {
    pub(super) const fn new(clock: &'c Clock) -> Self {
        Self { clock, access: None, application: None }
    }

    fn of_standing<'a>(
        last: &'a mut Option<StandingTexts>,
        access: &Arc<Access>,
    ) -> &'a StandingTexts {
        let known = last.take().filter(|known| known.access == *access);
        last.insert(known.unwrap_or_else(|| StandingTexts::of(access)))
    }

    fn of_application<'a>(
        last: &'a mut Option<(Arc<Application>, Vec<u8>)>,
        application: &Arc<Application>,
    ) -> &'a [u8] {
        let known = last.take().filter(|(known, _)| Arc::ptr_eq(known, application));
        let texts = || {
            let mut text = Vec::new();
            let mut object = ObjectWriter::further(&mut text);
            object.string(key!("appName"), &application.name);
            object.hex(key!("tokenId"), application.token_id.as_bytes());
            object.string(key!("tokenName"), &application.token_name);
            (application.clone(), text)
        };
        &last.insert(known.unwrap_or_else(texts)).1
    }
}

impl StandingTexts {
    fn of(access: &Arc<Access>) -> Self {
        let (mut org, mut rights) = (Vec::new(), Vec::new());
        let mut object = ObjectWriter::further(&mut org);
        object.hex(key!("orgId"), access.org.id.as_bytes());
        object.string(key!("orgKey"), &access.org.key);
        let mut object = ObjectWriter::further(&mut rights);
        object.flag(key!("hasSuperAdmin"), access.super_admin);
        object.flag(key!("hasSuperOps"), access.super_ops);
        object.flag(key!("hasOrgAdmin"), access.org_admin);
        let flags = rights.len();
        let mut object = ObjectWriter::further(&mut rights);
        if !access.administers_here() {
            write_perms(object.name(key!("perms")), access.permissions);
        }
        Self { access: access.clone(), org, rights, flags }
    }
}

impl StandingTexts {
    /// The value of `perms`; only who administers has none.
    fn perms(&self) -> &[u8] {
        self.rights.get(self.flags + br#","perms":"#.len()..).unwrap_or(b"{}")
    }
}

fn write_perms(out: &mut Vec<u8>, set: PermissionSet) {
    out.push(b'{');
    for (index, name) in set.names().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::push_string(out, name);
        out.extend_from_slice(b":true");
    }
    out.push(b'}');
}

/// The members of the session object that `list`, `find` and `info` share (`docs/protocol/tr50.md`
/// 3.3).
pub(super) fn write_session(object: &mut ObjectWriter<'_>, session: &Session, clock: &Clock) {
    session.with_context(|context| {
        write_in_context(object, session, context, &mut SharedTexts::new(clock))
    });
    write_user_agent(object, session);
}

pub(super) fn write_in_context(
    object: &mut ObjectWriter<'_>,
    session: &Session,
    context: &OrgContext,
    texts: &mut SharedTexts<'_>,
) {
    let access = &context.access;
    let shared = SharedTexts::of_standing(&mut texts.access, access);
    object.hex(key!("ref"), session.reference().as_bytes());
    object.members(&shared.org);
    let (name, locale) = match session.who() {
        Who::User(user) => {
            object.hex(key!("userId"), user.id.as_bytes());
            object.string(key!("userName"), &user.email);
            write_token(object, session);
            (user.email.as_str(), user.locale.as_str())
        }
        Who::Application { application, thing_key, .. } => {
            if session.token().is_some() {
                object.string(key!("appName"), &application.name);
                write_token(object, session);
            } else {
                object.members(SharedTexts::of_application(&mut texts.application, application));
            }
            object.string(key!("thingKey"), thing_key.as_str());
            (thing_key.as_str(), "")
        }
    };
    object.string(key!("whoAmI"), name);
    object.members(&shared.rights);
    write_conn(object, session);
    object.integer(key!("ttl"), session.ttl_s());
    object.string(key!("locale"), locale);
    write_sub_org_access(object, access);
    object.time(key!("startTime"), texts.clock.shown(session.started()));
    write_switches(object, context, texts.clock);
    object.integer(key!("commandCount"), session.command_count());
    object.time(key!("lastAccessed"), texts.clock.shown(session.last_accessed()));
    object.flag(key!("allAgreementsSigned"), false);
    if let Some(end) = session.end() {
        object.string(key!("status"), end.reason.status().as_str());
        object.string(key!("endReason"), end.reason.as_str());
        object.time(key!("endTime"), texts.clock.shown(end.at));
    }
}

/// Writes which token the session began with, unless that is an application's first.
fn write_token(object: &mut ObjectWriter<'_>, session: &Session) {
    if let Some(token) = session.token() {
        object.hex(key!("tokenId"), token.id.as_bytes());
        object.string(key!("tokenName"), &token.name);
    }
}

/// Writes what is known of the connection of a session that is or was bound to one. To who does not
/// administer the organisation the client id is a secret of the application
/// (`docs/protocol/tr50.md` 1.1).
pub(super) fn write_link(
    object: &mut ObjectWriter<'_>,
    session: &Session,
    shows_client_id: bool,
    clock: &Clock,
) {
    if let Some(tls) = session.conn().tls {
        object.string(key!("tlsVersion"), tls.as_str());
    }
    if session.lifetime() != Lifetime::Connection {
        return write_user_agent(object, session);
    }
    if shows_client_id {
        object.string(key!("clientId"), session.client_id());
    }
    if let Some(version) = session.link().mqtt_version() {
        object.string(key!("mqttVersion"), version);
        object.integer(key!("keepAlive"), session.link().keep_alive_s.into());
    }
    object.time(key!("lastSeen"), clock.shown(session.last_active()));
    if let Some(traffic) = session.traffic() {
        object.integer(key!("bytesIn"), traffic.bytes_in);
        object.integer(key!("bytesOut"), traffic.bytes_out);
        object.integer(key!("messagesIn"), traffic.messages_in);
        object.integer(key!("messagesOut"), traffic.messages_out);
    }
    write_waiting(object, session);
    write_waiting_bytes(object, session);
}

fn write_user_agent(object: &mut ObjectWriter<'_>, session: &Session) {
    if let Some(user_agent) = session.user_agent() {
        object.string(key!("userAgent"), user_agent.as_str());
    }
}

fn write_waiting(object: &mut ObjectWriter<'_>, session: &Session) {
    if session.end().is_none() {
        let waiting = session.outbox().map_or(0, |outbox| outbox.messages_waiting());
        object.integer(key!("outbox"), waiting as u64);
    }
}

fn write_waiting_bytes(object: &mut ObjectWriter<'_>, session: &Session) {
    if session.end().is_none() {
        let waiting = session.outbox().map_or(0, |outbox| outbox.waiting());
        object.integer(key!("outboxBytes"), waiting as u64);
    }
}

/// The members of [`write_link`].
pub(super) const LINK_FIELDS: [&str; 12] = [
    "tlsVersion",
    "userAgent",
    "clientId",
    "mqttVersion",
    "keepAlive",
    "lastSeen",
    "bytesIn",
    "bytesOut",
    "messagesIn",
    "messagesOut",
    "outbox",
    "outboxBytes",
];

fn write_of_link(
    object: &mut ObjectWriter<'_>,
    session: &Session,
    field: &str,
    shows_client_id: bool,
    clock: &Clock,
) {
    if field == "tlsVersion" {
        if let Some(tls) = session.conn().tls {
            object.string(key!("tlsVersion"), tls.as_str());
        }
        return;
    }
    if field == "userAgent" {
        return write_user_agent(object, session);
    }
    if session.lifetime() != Lifetime::Connection {
        return;
    }
    match (field, session.link().mqtt_version()) {
        ("clientId", _) if shows_client_id => {
            object.string(key!("clientId"), session.client_id());
        }
        ("mqttVersion", Some(version)) => object.string(key!("mqttVersion"), version),
        ("keepAlive", Some(_)) => {
            object.integer(key!("keepAlive"), session.link().keep_alive_s.into());
        }
        ("lastSeen", _) => object.time(key!("lastSeen"), clock.shown(session.last_active())),
        ("outbox", _) => write_waiting(object, session),
        ("outboxBytes", _) => write_waiting_bytes(object, session),
        _ => write_traffic(object, session, field),
    }
}

fn write_traffic(object: &mut ObjectWriter<'_>, session: &Session, field: &str) {
    let Some(traffic) = session.traffic() else { return };
    match field {
        "bytesIn" => object.integer(key!("bytesIn"), traffic.bytes_in),
        "bytesOut" => object.integer(key!("bytesOut"), traffic.bytes_out),
        "messagesIn" => object.integer(key!("messagesIn"), traffic.messages_in),
        "messagesOut" => object.integer(key!("messagesOut"), traffic.messages_out),
        _ => {}
    }
}

/// Writes the members that are asked for, as [`write_in_context`] writes all.
pub(super) fn write_shown(
    object: &mut ObjectWriter<'_>,
    session: &Session,
    context: &OrgContext,
    shown: &Shown,
    texts: &mut SharedTexts<'_>,
) {
    let access = &context.access;
    for field in shown.fields() {
        match field {
            "ref" => object.hex(key!("ref"), session.reference().as_bytes()),
            "orgId" => object.hex(key!("orgId"), access.org.id.as_bytes()),
            "orgKey" => object.string(key!("orgKey"), &access.org.key),
            "hasSuperAdmin" => object.flag(key!("hasSuperAdmin"), access.super_admin),
            "hasSuperOps" => object.flag(key!("hasSuperOps"), access.super_ops),
            "hasOrgAdmin" => object.flag(key!("hasOrgAdmin"), access.org_admin),
            "perms" if !access.administers_here() => {
                let known = SharedTexts::of_standing(&mut texts.access, access);
                object.name(key!("perms")).extend_from_slice(known.perms());
            }
            "connInfo" => write_conn(object, session),
            "ttl" => object.integer(key!("ttl"), session.ttl_s()),
            "allowSubOrgAccess" => write_sub_org_access(object, access),
            "startTime" => object.time(key!("startTime"), texts.clock.shown(session.started())),
            "orgSwitches" => write_switches(object, context, texts.clock),
            "commandCount" => object.integer(key!("commandCount"), session.command_count()),
            "lastAccessed" => {
                object.time(key!("lastAccessed"), texts.clock.shown(session.last_accessed()))
            }
            "allAgreementsSigned" => object.flag(key!("allAgreementsSigned"), false),
            field if LINK_FIELDS.contains(&field) => {
                write_of_link(object, session, field, shown.shows_client_id, texts.clock);
            }
            _ => write_shown_of_who(object, session, field, texts.clock),
        }
    }
}

/// Writes a member that says whose session it is, or how it has ended, if the session has it.
fn write_shown_of_who(
    object: &mut ObjectWriter<'_>,
    session: &Session,
    field: &str,
    clock: &Clock,
) {
    if let (Some(token), "tokenId" | "tokenName") = (session.token(), field) {
        return match field {
            "tokenId" => object.hex(key!("tokenId"), token.id.as_bytes()),
            _ => object.string(key!("tokenName"), &token.name),
        };
    }
    match (field, session.who()) {
        ("whoAmI", who) => object.string(key!("whoAmI"), who.name()),
        ("locale", Who::User(user)) => object.string(key!("locale"), &user.locale),
        ("locale", Who::Application { .. }) => object.string(key!("locale"), ""),
        ("userId", Who::User(user)) => object.hex(key!("userId"), user.id.as_bytes()),
        ("userName", Who::User(user)) => object.string(key!("userName"), &user.email),
        ("appName", Who::Application { application, .. }) => {
            object.string(key!("appName"), &application.name);
        }
        ("tokenId", Who::Application { application, .. }) => {
            object.hex(key!("tokenId"), application.token_id.as_bytes());
        }
        ("tokenName", Who::Application { application, .. }) => {
            object.string(key!("tokenName"), &application.token_name);
        }
        ("thingKey", Who::Application { thing_key, .. }) => {
            object.string(key!("thingKey"), thing_key.as_str());
        }
        _ => {
            let Some(end) = session.end() else { return };
            match field {
                "status" => object.string(key!("status"), end.reason.status().as_str()),
                "endReason" => object.string(key!("endReason"), end.reason.as_str()),
                "endTime" => object.time(key!("endTime"), clock.shown(end.at)),
                _ => {}
            }
        }
    }
}

fn write_switches(object: &mut ObjectWriter<'_>, context: &OrgContext, clock: &Clock) {
    if context.switches.is_empty() {
        return object.name(key!("orgSwitches")).extend_from_slice(b"[]");
    }
    let shown = |switch: &OrgSwitch| OrgSwitch { ts: clock.shown(switch.ts), ..switch.clone() };
    let switches: Vec<_> = context.switches.iter().map(shown).collect();
    json::push_value(object.name(key!("orgSwitches")), &switches);
}

fn write_sub_org_access(object: &mut ObjectWriter<'_>, access: &Access) {
    match access.allow_sub_org_access {
        Some(allowed) => object.flag(key!("allowSubOrgAccess"), allowed),
        None => object.name(key!("allowSubOrgAccess")).extend_from_slice(b"null"),
    }
}

fn write_conn(object: &mut ObjectWriter<'_>, session: &Session) {
    let conn = session.conn();
    let out = object.name(key!("connInfo"));
    out.extend_from_slice(br#"{"protocol":""#);
    out.extend_from_slice(conn.protocol.as_str().as_bytes());
    out.extend_from_slice(br#"","remoteAddr":""#);
    json::push_address(out, conn.remote_addr);
    out.extend_from_slice(br#""}"#);
}
