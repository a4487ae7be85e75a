//! The columns of the list of sessions: those that there are, and those that an address chooses.

use maud::{Markup, html};

use super::{MANY_STARTS, SHOW, SessionRow};
use crate::dialects::console::asked::{InOrg, segment};
use crate::dialects::console::form::Fields;
use crate::dialects::console::layout::{badge, number};
use crate::dialects::console::time::{ago, clock};
use crate::dialects::console::window::Column;

/// The field of an address that names columns.
pub(in crate::dialects::console) const FIELD: &str = "columns";

/// A column, and how its cells are made.
struct Choice {
    column: Column,
    /// The member of a session that it needs; none: one that all rows have.
    member: Option<&'static str>,
    shown: Shown,
    cell: fn(&InOrg<'_>, &SessionRow) -> Markup,
}

/// When a column is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Whatever is chosen: a row is nothing without it.
    Always,
    /// Unless an address chooses others.
    Mostly,
    /// If an address chooses it.
    Chosen,
}

impl Choice {
    const fn always(column: Column, cell: fn(&InOrg<'_>, &SessionRow) -> Markup) -> Self {
        Self { column, member: None, shown: Shown::Always, cell }
    }

    const fn mostly(column: Column, cell: fn(&InOrg<'_>, &SessionRow) -> Markup) -> Self {
        Self { column, member: None, shown: Shown::Mostly, cell }
    }

    const fn chosen(
        column: Column,
        member: &'static str,
        cell: fn(&InOrg<'_>, &SessionRow) -> Markup,
    ) -> Self {
        Self { column, member: Some(member), shown: Shown::Chosen, cell }
    }
}

/// All columns, in the order of the table.
static CHOICES: [Choice; 26] = [
    Choice::always(
        Column::sorted("who", "Who", "whoAmI")
            .with_own(|who| html! { (who) " " (badge("", "you")) }),
        who,
    ),
    Choice::mostly(Column::new("kind", "Kind"), |_, session| {
        html! { @if session.user_id.is_some() { "user" } @else { "application" } }
    }),
    Choice::mostly(Column::new("protocol", "Protocol"), |_, session| {
        html! { (session.conn_info.protocol) }
    }),
    Choice::mostly(Column::new("from", "From"), |_, session| {
        html! { (session.conn_info.remote_addr) }
    }),
    Choice::mostly(Column::sorted("since", "Since", "startTime"), |asked, session| {
        clock(&session.start_time, asked.now)
    }),
    Choice::mostly(Column::sorted("idle", "Idle", "lastAccessed"), |asked, session| {
        ago(&session.last_accessed, asked.now)
    }),
    Choice::mostly(
        Column::sorted("commands", "Commands", "commandCount").of_numbers(),
        |_, session| {
            html! { (number(session.command_count)) }
        },
    ),
    Choice::chosen(Column::sorted("seen", "Last sign of life", "lastSeen"), "lastSeen", seen),
    Choice::chosen(Column::new("org", "Organisation"), "orgKey", |_, s| text(s.org_key.as_deref())),
    Choice::chosen(Column::new("app", "Application"), "appName", |_, s| {
        text(s.app_name.as_deref())
    }),
    Choice::chosen(Column::new("token", "Token"), "tokenName", |_, s| {
        text(s.token_name.as_deref())
    }),
    Choice::chosen(Column::new("clientId", "Client id"), "clientId", |_, s| {
        text(s.client_id.as_deref())
    }),
    Choice::chosen(Column::new("mqtt", "MQTT"), "mqttVersion", |_, s| {
        text(s.mqtt_version.as_deref())
    }),
    Choice::chosen(Column::new("tls", "TLS"), "tlsVersion", |_, s| text(s.tls_version.as_deref())),
    Choice::chosen(Column::new("with", "With"), "userAgent", |_, s| text(s.user_agent.as_deref())),
    Choice::chosen(Column::new("keepAlive", "Keep-alive").of_numbers(), "keepAlive", |_, s| {
        seconds(s.keep_alive)
    }),
    Choice::chosen(Column::new("ttl", "Expires when idle for").of_numbers(), "ttl", |_, s| {
        seconds(s.ttl)
    }),
    Choice::chosen(Column::new("bytesIn", "Bytes in").of_numbers(), "bytesIn", |_, s| {
        count(s.bytes_in)
    }),
    Choice::chosen(Column::new("bytesOut", "Bytes out").of_numbers(), "bytesOut", |_, s| {
        count(s.bytes_out)
    }),
    Choice::chosen(Column::new("messagesIn", "Messages in").of_numbers(), "messagesIn", |_, s| {
        count(s.messages_in)
    }),
    Choice::chosen(
        Column::new("messagesOut", "Messages out").of_numbers(),
        "messagesOut",
        |_, s| count(s.messages_out),
    ),
    Choice::chosen(Column::new("outbox", "Messages that wait").of_numbers(), "outbox", |_, s| {
        count(s.outbox)
    }),
    Choice::chosen(
        Column::new("outboxBytes", "Bytes that wait").of_numbers(),
        "outboxBytes",
        |_, s| count(s.outbox_bytes),
    ),
    Choice::chosen(
        Column::new("starts", "Starts in the last hour").of_numbers(),
        "startsLastHour",
        |_, s| count(s.starts_last_hour),
    ),
    Choice::mostly(Column::sorted("state", "State", "endTime"), state),
    Choice::always(Column::new("act", "").with_own(|_| Markup::default()), act),
];

/// The columns that an address chooses.
pub(super) struct Chosen(Vec<&'static Choice>);

impl Chosen {
    /// Those that the fields of an address or a form name. A name that there is not is left out; if
    /// nothing is left, they are those that there mostly are.
    pub(super) fn of(fields: &Fields) -> Self {
        let names: Vec<&str> =
            fields.all(FIELD).flat_map(|names| names.split(',')).map(str::trim).collect();
        let is_named = |choice: &&Choice| names.contains(&choice.column.key);
        let are_known = CHOICES.iter().any(|choice| is_named(&choice));
        let is_chosen = |choice: &&'static Choice| match choice.shown {
            Shown::Always => true,
            _ if are_known => is_named(choice),
            shown => shown == Shown::Mostly,
        };
        Self(CHOICES.iter().filter(is_chosen).collect())
    }

    /// How an address names them; empty: those that there mostly are.
    pub(super) fn named(&self) -> String {
        let is_usual = |choice: &&Choice| choice.shown != Shown::Chosen;
        let usual = CHOICES.iter().filter(is_usual).count();
        if self.0.len() == usual && self.0.iter().copied().all(|choice| is_usual(&choice)) {
            return String::new();
        }
        // The last one is of buttons, and has no name for people.
        let named = self.0.iter().filter(|choice| !choice.column.title.is_empty());
        let names: Vec<&str> = named.map(|choice| choice.column.key).collect();
        names.join(",")
    }

    pub(super) fn columns(&self) -> Vec<Column> {
        self.0.iter().map(|choice| choice.column).collect()
    }

    /// Members of a session that they need, beside those that all rows have.
    pub(super) fn members(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter_map(|choice| choice.member).filter(|member| !SHOW.contains(member))
    }

    pub(super) fn cells(&self, asked: &InOrg<'_>, session: &SessionRow) -> Vec<Markup> {
        self.0.iter().map(|choice| (choice.cell)(asked, session)).collect()
    }

    /// Boxes to choose from, as a part of a form.
    pub(super) fn boxes(&self) -> Markup {
        let is_chosen = |key| self.0.iter().any(|choice| choice.column.key == key);
        html! {
            details {
                summary { "Columns" }
                fieldset class="choices" {
                    legend class="hidden" { "Columns" }
                    @for choice in &CHOICES { @match choice.shown {
                        // So that a form without any other one says that it wants none.
                        Shown::Always if !choice.column.title.is_empty() => {
                            input type="hidden" name=(FIELD) value=(choice.column.key);
                        }
                        Shown::Always => {}
                        _ => label class="choice" {
                            input type="checkbox" name=(FIELD) value=(choice.column.key)
                                checked[is_chosen(choice.column.key)];
                            (choice.column.title)
                        }
                    } }
                }
            }
        }
    }
}

fn who(asked: &InOrg<'_>, session: &SessionRow) -> Markup {
    let path = asked.to(&format!("sessions/{}", segment(&session.reference)));
    let starts = session.starts_last_hour.unwrap_or_default();
    let is_flapping = session.user_id.is_none() && starts >= MANY_STARTS;
    html! {
        a href=(path) { bdi { (session.who_am_i) } }
        @if is_flapping { " " (badge("warn", &format!("⚠ {starts}×/h"))) }
    }
}

fn seen(asked: &InOrg<'_>, session: &SessionRow) -> Markup {
    html! { @if let Some(seen) = &session.last_seen { (ago(seen, asked.now)) } }
}

fn state(asked: &InOrg<'_>, session: &SessionRow) -> Markup {
    html! {
        @match (&session.end_reason, &session.end_time) {
            (Some(reason), Some(at)) => {
                (badge("bad", &reason.replace('_', " "))) " " (clock(at, asked.now))
            }
            _ => (badge("good", "live")),
        }
    }
}

fn act(asked: &InOrg<'_>, session: &SessionRow) -> Markup {
    let end = asked.to(&format!("sessions/end?ref={}", segment(&session.reference)));
    html! {
        @if session.end_time.is_none() && asked.may_end_sessions() {
            a class="button small" href=(end) data-dialog { "End" span class="hidden" { " " bdi { (session.who_am_i) } } }
        }
    }
}

fn text(text: Option<&str>) -> Markup {
    html! { @if let Some(text) = text { bdi { (text) } } }
}

fn count(count: Option<u64>) -> Markup {
    html! { @if let Some(count) = count { (number(count)) } }
}

fn seconds(seconds: Option<u64>) -> Markup {
    html! { @if let Some(seconds) = seconds { (number(seconds)) " s" } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_columns() {
        let named = |query: &str| Chosen::of(&Fields::read(query.as_bytes())).named();
        assert_eq!(named(""), "");
        assert_eq!(named("columns="), "");
        assert_eq!(named("columns=nothing,,x"), "");
        assert_eq!(named("columns=who"), "who");
        assert_eq!(named("columns=act"), "who");
        assert_eq!(named("columns=idle&columns=nothing&columns=bytesIn"), "who,idle,bytesIn");
        assert_eq!(named("columns=bytesIn,+idle,who,idle"), "who,idle,bytesIn");
        let usual = "columns=kind,protocol,from,since,idle,commands,state";
        assert_eq!(named(usual), "");
        assert_eq!(
            named(&format!("{usual},tls")),
            "who,kind,protocol,from,since,idle,commands,tls,state"
        );
    }

    #[test]
    fn names_are_of_one_column() {
        let mut names: Vec<&str> = CHOICES.iter().map(|choice| choice.column.key).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHOICES.len());
        assert!(names.iter().all(|name| !name.contains(',')), "{names:?}");
    }
}
