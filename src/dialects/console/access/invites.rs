//! Who is invited and has not decided, and the form by which people come in.

use hyper::Method;
use maud::{Markup, html};
use serde::de::IgnoredAny;

use super::super::Answer;
use super::super::asked::{InOrg, segment};
use super::super::change::{self, back, confirm, hidden};
use super::super::form::Params;
use super::super::layout::{self, Screen, csrf};
use super::super::respond::{Refused, see};
use super::super::sessions::Listed;
use super::super::window::{Column, PAGE, Row};
use super::roles;
use super::user::{flags_choice, membership};
use super::users::UserRow;
use super::{at, show, window};

const COLUMNS: &[Column] =
    &[Column::sorted("who", "E-mail address", "emailAddress"), Column::new("act", "")];

/// The pages of invitations.
pub(super) async fn routed(asked: &InOrg<'_>, path: &[&str]) -> Answer {
    match (&asked.method, path) {
        (&Method::GET, []) => page(asked).await,
        (&Method::POST, []) => invite(asked).await,
        (&Method::GET, ["withdraw"]) => withdrawal(asked),
        (&Method::POST, ["withdraw"]) => withdraw(asked).await,
        _ => Err(Refused::NotFound),
    }
}

async fn page(asked: &InOrg<'_>) -> Answer {
    let offset = asked.query.number("offset").unwrap_or(0);
    let params = Params::default()
        .with("pending", true)
        .with("hideFields", true)
        .with("offset", offset)
        .with("limit", PAGE);
    let listed: Listed<UserRow> = asked.ask("user.list", &params).await?;
    let row = |user: UserRow| {
        let email = segment(&user.email_address);
        let withdraw = at(asked, &format!("invites/withdraw?emailAddress={email}"));
        Row {
            cells: vec![
                html! { bdi { (user.email_address) } },
                html! { @if asked.may("user.org.remove") {
                    a class="button small" href=(withdraw) data-dialog {
                        "Withdraw" span class="hidden" { " that of " bdi { (user.email_address) } }
                    }
                } },
            ],
            id: user.email_address,
            is_over: false,
            choice: None,
        }
    };
    let words = ("Invitations", ["invitation", "invitations"], COLUMNS);
    let window = window(listed, words, (offset, "emailAddress".into()), row);
    let body = html! {
        h1 { "Invitations" }
        (change::done(&asked.query, &[
            ("invited", "The invitation is there: the user's own page shows it."),
            ("added", "The user is a member now."),
            ("withdrawn", "The invitation is withdrawn."),
        ]))
        @if window.rows.is_empty() {
            (layout::empty("Nobody is invited", &html! {
                "Users of other organisations are invited, and decide themselves; until then their \
                 address is all that is known here."
            }))
        } @else { (window.table(asked, None)) (window.foot(asked)) }
        @if asked.may("user.org.add") {
            h2 { "Add or invite somebody" }
            (form(asked).await?)
        }
    };
    show(asked, "invites", "Invitations", &body)
}

async fn form(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let known = roles::known(asked).await?;
    let held: Vec<String> = asked.form.all("roles").map(str::to_owned).collect();
    let form = &asked.form;
    let is_sent = |name: &str| form.get(name).is_some();
    Ok(html! {
        form class="stack" method="post" action=(at(asked, "invites")) {
            (csrf(asked))
            label {
                "E-mail address"
                input name="emailAddress" type="email" required value=[form.get("emailAddress")];
            }
            @if asked.may("user.create") {
                label {
                    "First password, for somebody who has no login on this server"
                    input name="password" type="password" autocomplete="new-password"
                        aria-describedby="password-hint";
                }
                p id="password-hint" class="hint" {
                    "Who has a login keeps the own password: leave it empty."
                }
            }
            (roles::choice(&known, &held))
            (flags_choice(is_sent("isOrgAdmin"), is_sent("allowSubOrgAccess")))
            button type="submit" class="main" { "Add or invite" }
        }
    })
}

/// What `user.org.add` says.
#[derive(serde::Deserialize, Default)]
struct Added {
    #[serde(default)]
    pending: bool,
}

async fn invite(asked: &InOrg<'_>) -> Answer {
    let email = asked.form.get("emailAddress").unwrap_or_default();
    let password = asked.form.exact("password");
    if !password.is_empty() {
        let new = Params::default().with("emailAddress", email).with("password", password);
        if let Err(failure) = asked.ask::<IgnoredAny>("user.create", &new).await {
            let retry = html! { (form(asked).await?) (back(&at(asked, "invites"))) };
            return change::refused(asked, Screen::Access, failure, &retry);
        }
    }
    let params = membership(asked).with("emailAddress", email);
    match asked.ask::<Option<Added>>("user.org.add", &params).await {
        Ok(added) => {
            let done = if added.unwrap_or_default().pending { "invited" } else { "added" };
            Ok(change::saved(&at(asked, "invites"), done))
        }
        Err(failure) => {
            let is_new = failure.code == base::Code::NOT_FOUND && password.is_empty();
            let retry = html! {
                @if is_new && asked.may("user.create") {
                    p {
                        "Nobody on this server has this address. With a first password, a user is \
                         made."
                    }
                }
                (form(asked).await?)
                (back(&at(asked, "invites")))
            };
            change::refused(asked, Screen::Access, failure, &retry)
        }
    }
}

fn withdrawal(asked: &InOrg<'_>) -> Answer {
    let email = asked.query.get("emailAddress").ok_or(Refused::NotFound)?;
    let list = at(asked, "invites");
    let fields = hidden("emailAddress", email);
    let body = html! {
        h1 { "Withdraw the invitation of " bdi { (email) } "?" }
        p { "The user can't accept it any more, and can be invited again." }
        (confirm(asked, &at(asked, "invites/withdraw"), &fields, "Withdraw it", &list))
    };
    show(asked, "invites", "Withdraw an invitation", &body)
}

async fn withdraw(asked: &InOrg<'_>) -> Answer {
    let list = at(asked, "invites");
    let params = asked.form.params(&["emailAddress"]);
    // Whoever has accepted meanwhile is a member, of whom another page is.
    let found: UserRow = asked.ask("user.find", &params).await?;
    if !found.pending {
        return Ok(see(&at(asked, &format!("users/{}", segment(&found.id)))));
    }
    match asked.ask::<IgnoredAny>("user.org.remove", &params).await {
        Ok(_) => Ok(change::saved(&list, "withdrawn")),
        Err(failure) => change::refused(asked, Screen::Access, failure, &back(&list)),
    }
}
