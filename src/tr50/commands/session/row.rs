//! The session object of replies (`docs/protocol/tr50.md` 3.3).

use base::{
    Clock, Timestamp,
    json::{self, ObjectWriter, key},
};
use rules::directory::{Lifetime, OrgContext, OrgSwitch, Reason, Session, Who};
use rules::identity::Access;
use rules::identity::permission::PermissionSet;

use super::list::Shown;

/// A value that each session has of its own: all else, sessions of a listing mostly have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Own {
    Ref,
    UserId,
    /// E-mail address or thing key.
    Name,
    Locale,
    RemoteAddr,
    StartTime,
    OrgSwitches,
    CommandCount,
    LastAccessed,
    EndTime,
    UserAgent,
    ClientId,
    KeepAlive,
    LastSeen,
    BytesIn,
    BytesOut,
    MessagesIn,
    MessagesOut,
    Outbox,
    OutboxBytes,
}

impl Own {
    /// The time that it is, if it is one.
    pub(super) fn time(self, session: &Session) -> Option<Timestamp> {
        match self {
            Self::StartTime => Some(session.started()),
            Self::LastAccessed => Some(session.last_accessed()),
            Self::EndTime => Some(session.end().map(|end| end.at).unwrap_or_default()),
            Self::LastSeen => Some(session.last_active()),
            _ => None,
        }
    }

    /// Writes the value.
    pub(super) fn write(
        self,
        out: &mut Vec<u8>,
        session: &Session,
        context: &OrgContext,
        clock: &Clock,
    ) {
        if let Some(time) = self.time(session) {
            return json::push_time(out, clock.shown(time));
        }
        match self {
            Self::Ref => json::push_hex(out, session.reference().as_bytes()),
            Self::UserId => match session.who() {
                Who::User(user) => json::push_hex(out, user.id.as_bytes()),
                Who::Application { .. } => out.extend_from_slice(b"null"),
            },
            Self::Name => json::push_string(out, session.who().name()),
            Self::Locale => match session.who() {
                Who::User(user) => json::push_string(out, &user.locale),
                Who::Application { .. } => json::push_string(out, ""),
            },
            Self::RemoteAddr => json::push_address(out, session.conn().remote_addr),
            Self::OrgSwitches => {
                let shown = |s: &OrgSwitch| OrgSwitch { ts: clock.shown(s.ts), ..s.clone() };
                let switches: Vec<_> = context.switches.iter().map(shown).collect();
                json::push_value(out, &switches);
            }
            Self::CommandCount => json::push_unsigned(out, session.command_count()),
            Self::UserAgent => {
                let user_agent = session.user_agent().map_or("", |agent| agent.as_str());
                json::push_string(out, user_agent);
            }
            Self::ClientId => json::push_string(out, session.client_id()),
            Self::KeepAlive => json::push_unsigned(out, session.link().keep_alive_s.into()),
            Self::StartTime | Self::LastAccessed | Self::EndTime | Self::LastSeen => {}
            Self::BytesIn | Self::BytesOut | Self::MessagesIn | Self::MessagesOut => {
                let traffic = session.traffic().unwrap_or_default();
                json::push_unsigned(
                    out,
                    match self {
                        Self::BytesIn => traffic.bytes_in,
                        Self::BytesOut => traffic.bytes_out,
                        Self::MessagesIn => traffic.messages_in,
                        _ => traffic.messages_out,
                    },
                );
            }
            Self::Outbox => {
                let waiting = session.outbox().map_or(0, |outbox| outbox.messages_waiting());
                json::push_unsigned(out, waiting as u64);
            }
            Self::OutboxBytes => {
                let waiting = session.outbox().map_or(0, |outbox| outbox.waiting());
                json::push_unsigned(out, waiting as u64);
            }
        }
    }
}

/// Where in the output a value of a session's own is.
pub(super) struct Place {
    pub(super) own: Own,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Writes the members of one session.
pub(super) struct Row<'r, 'o> {
    object: &'r mut ObjectWriter<'o>,
    session: &'r Session,
    context: &'r OrgContext,
    clock: &'r Clock,
    /// Why it has ended: looked at once, for it may end meanwhile.
    reason: Option<Reason>,
    /// What of the session's own was written, in order.
    pub(super) places: Vec<Place>,
}

/// The members of the session object that `find` and `info` show (`docs/protocol/tr50.md` 3.3).
pub(super) fn write_session(object: &mut ObjectWriter<'_>, session: &Session, clock: &Clock) {
    session.with_context(|context| {
        let mut row = Row::new(object, session, context, clock, ended(session));
        row.write();
        row.write_user_agent();
    });
}

impl<'r, 'o> Row<'r, 'o> {
    pub(super) const fn new(
        object: &'r mut ObjectWriter<'o>,
        session: &'r Session,
        context: &'r OrgContext,
        clock: &'r Clock,
        reason: Option<Reason>,
    ) -> Self {
        Self { object, session, context, clock, reason, places: Vec::new() }
    }

    fn own(&mut self, key: json::Key, own: Own) {
        let out = self.object.name(key);
        let start = out.len();
        own.write(out, self.session, self.context, self.clock);
        self.places.push(Place { own, start, end: out.len() });
    }

    /// Writes the members that `list`, `find` and `info` share.
    pub(super) fn write(&mut self) {
        let access: &Access = &self.context.access;
        self.own(key!("ref"), Own::Ref);
        self.object.hex(key!("orgId"), access.org.id.as_bytes());
        self.object.string(key!("orgKey"), &access.org.key);
        match self.session.who() {
            Who::User(_) => {
                self.own(key!("userId"), Own::UserId);
                self.own(key!("userName"), Own::Name);
                self.write_token();
            }
            Who::Application { application, .. } => {
                self.object.string(key!("appName"), &application.name);
                self.write_token();
                self.own(key!("thingKey"), Own::Name);
            }
        }
        self.own(key!("whoAmI"), Own::Name);
        self.object.flag(key!("hasSuperAdmin"), access.super_admin);
        self.object.flag(key!("hasSuperOps"), access.super_ops);
        self.object.flag(key!("hasOrgAdmin"), access.org_admin);
        self.write_perms();
        self.write_conn();
        self.object.integer(key!("ttl"), self.session.ttl_s());
        self.write_locale();
        self.write_sub_org_access();
        self.own(key!("startTime"), Own::StartTime);
        self.write_switches();
        self.own(key!("commandCount"), Own::CommandCount);
        self.own(key!("lastAccessed"), Own::LastAccessed);
        self.object.flag(key!("allAgreementsSigned"), false);
        if let Some(reason) = self.reason {
            self.object.string(key!("status"), reason.status().as_str());
            self.object.string(key!("endReason"), reason.as_str());
            self.own(key!("endTime"), Own::EndTime);
        }
    }

    /// Writes which token the session began with.
    fn write_token(&mut self) {
        self.write_token_id();
        self.write_token_name();
    }

    fn write_token_id(&mut self) {
        match (self.session.token(), self.session.who()) {
            (Some(token), _) => self.object.hex(key!("tokenId"), token.id.as_bytes()),
            (None, Who::Application { application, .. }) => {
                self.object.hex(key!("tokenId"), application.token_id.as_bytes());
            }
            (None, Who::User(_)) => {}
        }
    }

    fn write_token_name(&mut self) {
        match (self.session.token(), self.session.who()) {
            (Some(token), _) => self.object.string(key!("tokenName"), &token.name),
            (None, Who::Application { application, .. }) => {
                self.object.string(key!("tokenName"), &application.token_name);
            }
            (None, Who::User(_)) => {}
        }
    }

    /// Only who administers has no `perms`.
    fn write_perms(&mut self) {
        let access = &self.context.access;
        if !access.administers_here() {
            push_perms(self.object.name(key!("perms")), access.permissions);
        }
    }

    fn write_conn(&mut self) {
        let conn = self.session.conn();
        let out = self.object.name(key!("connInfo"));
        out.extend_from_slice(br#"{"protocol":""#);
        out.extend_from_slice(conn.protocol.as_str().as_bytes());
        out.extend_from_slice(br#"","remoteAddr":""#);
        let (own, start) = (Own::RemoteAddr, out.len());
        own.write(out, self.session, self.context, self.clock);
        self.places.push(Place { own, start, end: out.len() });
        out.extend_from_slice(br#""}"#);
    }

    fn write_locale(&mut self) {
        match self.session.who() {
            Who::User(_) => self.own(key!("locale"), Own::Locale),
            Who::Application { .. } => self.object.string(key!("locale"), ""),
        }
    }

    fn write_sub_org_access(&mut self) {
        match self.context.access.allow_sub_org_access {
            Some(allowed) => self.object.flag(key!("allowSubOrgAccess"), allowed),
            None => self.object.name(key!("allowSubOrgAccess")).extend_from_slice(b"null"),
        }
    }

    fn write_switches(&mut self) {
        if self.context.switches.is_empty() {
            self.object.name(key!("orgSwitches")).extend_from_slice(b"[]");
        } else {
            self.own(key!("orgSwitches"), Own::OrgSwitches);
        }
    }

    /// Writes what is known of the connection of a session that is or was bound to one. To who does
    /// not administer the organisation the client id is a secret of the application
    /// (`docs/protocol/tr50.md` 1.1).
    pub(super) fn write_link(&mut self, shows_client_id: bool) {
        for field in LINK_FIELDS {
            self.write_of_link(field, shows_client_id);
        }
    }

    fn write_of_link(&mut self, field: &str, shows_client_id: bool) {
        if field == "tlsVersion" {
            if let Some(tls) = self.session.conn().tls {
                self.object.string(key!("tlsVersion"), tls.as_str());
            }
            return;
        }
        if field == "userAgent" {
            return self.write_user_agent();
        }
        if self.session.lifetime() != Lifetime::Connection {
            return;
        }
        let (lives, has_traffic) = (self.reason.is_none(), self.session.traffic().is_some());
        match (field, self.session.link().mqtt_version()) {
            ("clientId", _) if shows_client_id => self.own(key!("clientId"), Own::ClientId),
            ("mqttVersion", Some(version)) => self.object.string(key!("mqttVersion"), version),
            ("keepAlive", Some(_)) => self.own(key!("keepAlive"), Own::KeepAlive),
            ("lastSeen", _) => self.own(key!("lastSeen"), Own::LastSeen),
            ("bytesIn", _) if has_traffic => self.own(key!("bytesIn"), Own::BytesIn),
            ("bytesOut", _) if has_traffic => self.own(key!("bytesOut"), Own::BytesOut),
            ("messagesIn", _) if has_traffic => self.own(key!("messagesIn"), Own::MessagesIn),
            ("messagesOut", _) if has_traffic => self.own(key!("messagesOut"), Own::MessagesOut),
            ("outbox", _) if lives => self.own(key!("outbox"), Own::Outbox),
            ("outboxBytes", _) if lives => self.own(key!("outboxBytes"), Own::OutboxBytes),
            _ => {}
        }
    }

    fn write_user_agent(&mut self) {
        if self.session.user_agent().is_some() {
            self.own(key!("userAgent"), Own::UserAgent);
        }
    }

    /// Writes the members that are asked for, as [`Row::write`] writes all.
    pub(super) fn write_shown(&mut self, shown: &Shown) {
        let access: &Access = &self.context.access;
        for field in shown.fields() {
            match field {
                "ref" => self.own(key!("ref"), Own::Ref),
                "orgId" => self.object.hex(key!("orgId"), access.org.id.as_bytes()),
                "orgKey" => self.object.string(key!("orgKey"), &access.org.key),
                "hasSuperAdmin" => self.object.flag(key!("hasSuperAdmin"), access.super_admin),
                "hasSuperOps" => self.object.flag(key!("hasSuperOps"), access.super_ops),
                "hasOrgAdmin" => self.object.flag(key!("hasOrgAdmin"), access.org_admin),
                "perms" => self.write_perms(),
                "connInfo" => self.write_conn(),
                "ttl" => self.object.integer(key!("ttl"), self.session.ttl_s()),
                "allowSubOrgAccess" => self.write_sub_org_access(),
                "startTime" => self.own(key!("startTime"), Own::StartTime),
                "orgSwitches" => self.write_switches(),
                "commandCount" => self.own(key!("commandCount"), Own::CommandCount),
                "lastAccessed" => self.own(key!("lastAccessed"), Own::LastAccessed),
                "allAgreementsSigned" => self.object.flag(key!("allAgreementsSigned"), false),
                field if LINK_FIELDS.contains(&field) => {
                    self.write_of_link(field, shown.shows_client_id);
                }
                _ => self.write_shown_of_who(field),
            }
        }
    }

    /// Writes a member that says whose session it is, or how it has ended, if the session has it.
    fn write_shown_of_who(&mut self, field: &str) {
        match (field, self.session.who()) {
            ("tokenId", _) => self.write_token_id(),
            ("tokenName", _) => self.write_token_name(),
            ("whoAmI", _) => self.own(key!("whoAmI"), Own::Name),
            ("locale", _) => self.write_locale(),
            ("userId", Who::User(_)) => self.own(key!("userId"), Own::UserId),
            ("userName", Who::User(_)) => self.own(key!("userName"), Own::Name),
            ("appName", Who::Application { application, .. }) => {
                self.object.string(key!("appName"), &application.name);
            }
            ("thingKey", Who::Application { .. }) => self.own(key!("thingKey"), Own::Name),
            _ => {
                let Some(reason) = self.reason else { return };
                match field {
                    "status" => self.object.string(key!("status"), reason.status().as_str()),
                    "endReason" => self.object.string(key!("endReason"), reason.as_str()),
                    "endTime" => self.own(key!("endTime"), Own::EndTime),
                    _ => {}
                }
            }
        }
    }
}

/// Why a session has ended, if it has.
pub(super) fn ended(session: &Session) -> Option<Reason> {
    session.end().map(|end| end.reason)
}

fn push_perms(out: &mut Vec<u8>, set: PermissionSet) {
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

/// The members of [`Row::write_link`], in their order.
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
