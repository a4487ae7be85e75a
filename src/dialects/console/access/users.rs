//! The users of the organisation.

use maud::{Markup, html};
use serde::Deserialize;

use super::super::Answer;
use super::super::asked::{InOrg, segment};
use super::super::change;
use super::super::form::Params;
use super::super::layout::{self, badge, input, select};
use super::super::sessions::Listed;
use super::super::time::clock;
use super::super::window::{Column, PAGE, Row};
use super::{at, show, window};

const COLUMNS: &[Column] = &[
    Column::sorted("who", "E-mail address", "emailAddress"),
    Column::sorted("name", "Name", "lastName"),
    Column::new("roles", "Roles"),
    Column::sorted("factor", "Second factor", "mfa"),
    Column::new("state", "State"),
    Column::sorted("since", "Since", "createdOn"),
];

/// A user, as commands show them; of one who is invited, the address alone.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UserRow {
    pub(super) id: String,
    pub(super) email_address: String,
    pub(super) first_name: String,
    pub(super) last_name: String,
    pub(super) company: String,
    pub(super) is_super_admin: bool,
    pub(super) is_super_ops: bool,
    pub(super) is_org_admin: bool,
    pub(super) mfa: bool,
    pub(super) mfa_required: bool,
    pub(super) disabled: bool,
    pub(super) reason: Option<String>,
    pub(super) disabled_until: Option<String>,
    pub(super) created_by: String,
    pub(super) created_on: String,
    pub(super) updated_by: String,
    pub(super) updated_on: String,
    pub(super) pending: bool,
    roles: Vec<String>,
}

impl UserRow {
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.first_name, self.last_name).trim().to_owned()
    }

    /// What the user is beside the roles.
    pub(super) fn flags(&self) -> Markup {
        html! {
            @if self.is_super_admin { (badge("warn", "super administrator")) " " }
            @if self.is_super_ops { (badge("warn", "super operator")) " " }
            @if self.is_org_admin { (badge("warn", "administrator")) " " }
        }
    }

    pub(super) fn second_factor(&self) -> Markup {
        match (self.mfa, self.mfa_required) {
            (true, _) => badge("good", "on"),
            (false, true) => badge("bad", "required, off"),
            (false, false) => html! { "off" },
        }
    }

    pub(super) fn state(&self, asked: &InOrg<'_>) -> Markup {
        if !self.disabled {
            return badge("good", "good");
        }
        html! {
            (badge("bad", "banned"))
            @if let Some(until) = &self.disabled_until { " until " (clock(until, asked.now)) }
        }
    }

    fn cells(&self, asked: &InOrg<'_>) -> Vec<Markup> {
        let one = at(asked, &format!("users/{}", segment(&self.id)));
        vec![
            html! { a href=(one) { bdi { (self.email_address) } } },
            html! { bdi { (self.name()) } },
            html! { (self.flags()) bdi { (self.roles.join(", ")) } },
            self.second_factor(),
            self.state(asked),
            clock(&self.created_on, asked.now),
        ]
    }
}

/// The list.
pub(super) async fn page(asked: &InOrg<'_>) -> Answer {
    let query = &asked.query;
    let sort = query.get("sort").unwrap_or("emailAddress").to_owned();
    let offset = query.number("offset").unwrap_or(0);
    let mut params = Params::default()
        .with("pending", false)
        .with("includeRoles", true)
        .with("hideFields", true)
        .with("sort", sort.as_str())
        .with("offset", offset)
        .with("limit", PAGE);
    params.set_some("query", query.get("query"));
    params.set_some("admins", query.get("admins"));
    let listed: Listed<UserRow> = asked.ask("user.list", &params).await?;
    let row = |user: UserRow| Row {
        cells: user.cells(asked),
        is_over: user.disabled,
        id: user.id,
        choice: None,
    };
    let words = ("Users", ["user", "users"], COLUMNS);
    let window = window(listed, words, (offset, sort), row);
    let invite = at(asked, "invites");
    let body = html! {
        h1 { "Users" }
        (change::done(query, &[
            ("deleted", "The user is deleted, and their sessions have ended."),
            ("removed", "The user is no member any more."),
        ]))
        form class="filter" action=(asked.path) {
            (input("query", "Address, name or company", query.get("query"), "words"))
            (select("admins", "Who", query.get("admins"),
                &[("", "all"), ("true", "administrators")]))
            button type="submit" { "Show" }
        }
        @if window.rows.is_empty() {
            (layout::empty("No users", &html! {
                "Nobody fits. " a href=(at(asked, "users")) { "Show all" }
            }))
        } @else {
            (window.table(asked, None))
            (window.foot(asked))
        }
        @if asked.may("user.org.add") {
            p class="buttons" { a class="button" href=(invite) { "Add or invite somebody" } }
        }
    };
    show(asked, "users", "Users", &body)
}
