//! Tokens of users and of applications: their list, their making and what becomes of them.

use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Answer;
use super::asked::{InOrg, segment};
use super::change::{self, back, confirm, hidden};
use super::form::Params;
use super::layout::{self, Screen, badge, csrf, facts, number};
use super::respond::Refused;
use super::sessions::as_time;
use super::time::{ago, clock};

/// Whose tokens they are.
pub(super) struct Holder {
    pub(super) screen: Screen,
    /// The commands that list, make, change and delete them.
    pub(super) commands: [&'static str; 4],
    /// The parameters that name the holder.
    pub(super) which: Params,
    /// The page on which they are listed.
    pub(super) page: String,
    /// Where the pages of tokens are.
    pub(super) path: String,
}

/// A token, as lists show it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenRow {
    token_id: String,
    pub(super) name: String,
    perms: Option<Vec<String>>,
    #[serde(default)]
    disabled: bool,
    reason: Option<String>,
    disabled_until: Option<String>,
    expired: bool,
    expires: Option<String>,
    created_on: String,
    created_by: String,
    last_used_on: Option<String>,
    last_used_from: Option<String>,
    use_count: u64,
}

#[derive(Deserialize)]
struct Tokens {
    result: Vec<TokenRow>,
}

/// A token that was made.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    token: String,
}

impl Holder {
    const LIST: usize = 0;
    const CREATE: usize = 1;
    const UPDATE: usize = 2;
    const DELETE: usize = 3;

    pub(super) fn may_create(&self, asked: &InOrg<'_>) -> bool {
        asked.may(self.commands[Self::CREATE])
    }

    pub(super) async fn list(&self, asked: &InOrg<'_>) -> Result<Vec<TokenRow>, Refused> {
        let tokens: Tokens = asked.ask(self.commands[Self::LIST], &self.which).await?;
        Ok(tokens.result)
    }

    /// The list, as a table.
    pub(super) fn table(&self, asked: &InOrg<'_>, tokens: &[TokenRow]) -> Markup {
        let may_change = asked.may(self.commands[Self::UPDATE]);
        html! {
            div class="scroll" tabindex="0" role="group" aria-label="Tokens" { table {
                caption class="hidden" { "Tokens" }
                thead { tr {
                    th scope="col" { "Name" } th scope="col" { "State" } th scope="col" { "Gives" }
                    th scope="col" { "Ends" } th scope="col" { "Last use" }
                    th scope="col" class="number" { "Uses" }
                    th scope="col" { span class="hidden" { "Actions" } }
                } }
                tbody { @for token in tokens { tr class=[token.is_over().then_some("over")] {
                    td { bdi { (token.name) } }
                    td { (token.state()) }
                    td { (token.gives()) }
                    td {
                        @match &token.expires {
                            Some(at) => (clock(at, asked.now)), None => "never"
                        }
                    }
                    td { (token.last_use(asked)) }
                    td class="number" { (number(token.use_count)) }
                    td { @if may_change {
                        a class="button small" href=(self.of(token)) {
                            "Change" span class="hidden" { " " bdi { (token.name) } }
                        }
                    } }
                } } }
            } }
        }
    }

    fn of(&self, token: &TokenRow) -> String {
        format!("{}/{}", self.path, segment(&token.token_id))
    }

    /// The form for a new one; `more`: further fields.
    pub(super) fn form(&self, asked: &InOrg<'_>, more: &Markup) -> Markup {
        html! {
            form class="stack" method="post" action=(self.path) {
                (csrf(asked))
                label {
                    "Name, such as what uses it"
                    input name="name" required maxlength="128" value=[asked.form.get("name")];
                }
                (expiry(asked.form.get("expires")))
                (more)
                button type="submit" { "Make a token" }
            }
        }
    }

    /// Makes one, and shows it. `more`: further parameters.
    pub(super) async fn create(&self, asked: &InOrg<'_>, more: Params, form: &Markup) -> Answer {
        let mut params = self.which.and(more).with("name", asked.form.exact("name").trim());
        params.set_some("expires", asked.form.get("expires").map(as_time));
        let made: Made = match asked.ask(self.commands[Self::CREATE], &params).await {
            Ok(made) => made,
            Err(failure) => return change::refused(asked, self.screen, failure, form),
        };
        let body = html! {
            h1 { "The new token" }
            p {
                "It is shown here only, now. Put it where the program reads it; who has it can log \
                 in."
            }
            pre class="secret" { (made.token) }
            p { a class="button" href=(self.page) { "I have kept it" } }
        };
        Ok(layout::page_with_secret(asked, self.screen, "The new token", &body))
    }

    async fn find(&self, asked: &InOrg<'_>, id: &str) -> Result<TokenRow, Refused> {
        let tokens = self.list(asked).await?;
        tokens.into_iter().find(|token| token.token_id == id).ok_or(Refused::NotFound)
    }

    /// The page of one.
    pub(super) async fn one(&self, asked: &InOrg<'_>, id: &str) -> Answer {
        let token = self.find(asked, id).await?;
        let at = self.of(&token);
        let delete = format!("{at}/delete");
        let body = html! {
            h1 { "Token " bdi { (token.name) } }
            (change::done(&asked.query, &[("token", "The change is stored, and holds at once.")]))
            (token.facts(asked))
            @if let Some(perms) = &token.perms {
                h2 { "Gives no more than" } (super::perms::shown(perms))
            }
            h2 { "Name and end" }
            form class="stack" method="post" action=(at) {
                (csrf(asked)) (hidden("what", "terms"))
                label { "Name" input name="name" required maxlength="128" value=(token.name); }
                (expiry(token.expires.as_deref().and_then(|at| at.get(..16))))
                button type="submit" { "Change" }
            }
            h2 { @if token.disabled { "Disabled" } @else { "Disable" } }
            @if token.disabled { form method="post" action=(at) {
                (csrf(asked)) (hidden("what", "enable"))
                button type="submit" { "Take logins with it again" }
            } } @else {
                p {
                    "Live sessions that began with it end, and logins with it are refused until it \
                     is enabled again."
                }
                form class="stack" method="post" action=(at) {
                    (csrf(asked)) (hidden("what", "disable"))
                    label { "Why, for people" input name="reason" maxlength="256"; }
                    button type="submit" class="danger" { "Disable" }
                }
            }
            h2 { "Delete" }
            p { a class="button" href=(delete) data-dialog { "Delete this token…" } }
            (back(&self.page))
        };
        Ok(layout::page(asked, self.screen, &token.name, &body))
    }

    /// Changes one.
    pub(super) async fn update(&self, asked: &InOrg<'_>, id: &str) -> Answer {
        let params = Params::default().with("tokenId", id);
        let params = match asked.form.get("what") {
            Some("enable") => params.with("disabled", false),
            Some("disable") => {
                params.with("disabled", true).with("reason", asked.form.exact("reason").trim())
            }
            _ => params
                .with("name", asked.form.exact("name").trim())
                .with("expires", asked.form.get("expires").map(as_time).unwrap_or_default()),
        };
        let at = format!("{}/{}", self.path, segment(id));
        match asked.ask::<IgnoredAny>(self.commands[Self::UPDATE], &params).await {
            Ok(_) => Ok(change::saved(&at, "token")),
            Err(failure) => change::refused(asked, self.screen, failure, &back(&at)),
        }
    }

    /// Asks whether one is to go.
    pub(super) async fn confirmation(&self, asked: &InOrg<'_>, id: &str) -> Answer {
        let token = self.find(asked, id).await?;
        let at = self.of(&token);
        let body = html! {
            h1 { "Delete the token " bdi { (token.name) } "?" }
            (token.facts(asked))
            p {
                "Live sessions that began with it end now, and what uses it can't log in any more. \
                 There is no way back."
            }
            (confirm(asked, &format!("{at}/delete"), &html! {}, "Delete this token", &at))
        };
        Ok(layout::page(asked, self.screen, "Delete a token", &body))
    }

    /// Deletes one.
    pub(super) async fn delete(&self, asked: &InOrg<'_>, id: &str) -> Answer {
        let params = self.which.clone().with("tokenId", id);
        match asked.ask::<IgnoredAny>(self.commands[Self::DELETE], &params).await {
            Ok(_) => Ok(change::saved(&self.page, "token-deleted")),
            Err(failure) => change::refused(asked, self.screen, failure, &back(&self.page)),
        }
    }
}

/// The field for the end of a token.
fn expiry(value: Option<&str>) -> Markup {
    html! {
        label {
            "Ends at, UTC; empty: never"
            input type="datetime-local" name="expires" value=[value];
        }
    }
}

impl TokenRow {
    fn is_over(&self) -> bool {
        self.disabled || self.expired
    }

    fn state(&self) -> Markup {
        match (self.disabled, self.expired) {
            (true, _) => badge("bad", "disabled"),
            (_, true) => badge("bad", "ended"),
            _ => badge("good", "good"),
        }
    }

    fn gives(&self) -> Markup {
        match self.perms.as_deref() {
            None => html! { "all of its holder" },
            Some([]) => html! { "a login only" },
            Some([one]) => html! { (one) },
            Some(several) => html! { (several.len()) " permissions" },
        }
    }

    fn last_use(&self, asked: &InOrg<'_>) -> Markup {
        html! { @match (&self.last_used_on, &self.last_used_from) {
            (Some(at), Some(from)) => { (ago(at, asked.now)) " ago from " (from) }
            (Some(at), None) => { (ago(at, asked.now)) " ago" }
            _ => "never",
        } }
    }

    fn facts(&self, asked: &InOrg<'_>) -> Markup {
        let until = self.disabled_until.as_deref().map(|at| clock(at, asked.now));
        facts(&[
            ("State", Some(self.state())),
            ("Why", self.reason.as_ref().map(|reason| html! { bdi { (reason) } })),
            ("Disabled until", until),
            (
                "Made",
                Some(
                    html! { (clock(&self.created_on, asked.now)) " by " bdi { (self.created_by) } },
                ),
            ),
            ("Last use", Some(self.last_use(asked))),
            ("Uses", Some(html! { (number(self.use_count)) })),
            ("Gives", Some(self.gives())),
        ])
    }
}
