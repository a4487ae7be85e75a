//! One's own second factor.

use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::Answer;
use super::super::asked::InOrg;
use super::super::change::{self, back};
use super::super::form::Params;
use super::super::layout::{self, Screen, badge, csrf};
use super::super::qr;
use super::super::respond::Refused;
use super::of_user;

/// What `user.mfa.find` shows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecondFactor {
    mfa: bool,
    mfa_required: bool,
    recovery_codes_left: u64,
}

/// A secret for an authenticator.
#[derive(Deserialize)]
struct Enrolled {
    secret: String,
    uri: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Confirmed {
    recovery_codes: Vec<String>,
}

/// The part of the page.
pub(super) async fn section(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let factor: Option<SecondFactor> = of_user(asked, "user.mfa.find").await?;
    let Some(factor) = factor else { return Ok(html! {}) };
    let left = factor.recovery_codes_left;
    Ok(html! {
        h2 {
            "Second factor "
            @if factor.mfa { (badge("good", "on")) } @else { (badge("warn", "off")) }
        }
        @if factor.mfa {
            p {
                "Logins need a code of your authenticator. Recovery codes left: " (left) "."
                @if left < 3 { " Replace them in time." }
            }
            details class="part" {
                summary { "Another authenticator, or new recovery codes" }
                (enrolment(asked))
            }
            @if factor.mfa_required { p class="hint" { "Your organisation requires it." } }
            @else {
                p {
                    a class="button" href="/me/factor/remove" data-dialog {
                        "Remove the second factor…"
                    }
                }
            }
        } @else if factor.mfa_required {
            p class="notice" {
                "Your organisation requires a second factor. Set it up now: until then you can do \
                 nothing else."
            }
            (enrolment(asked))
        } @else {
            p { "With one, a stolen password alone opens nothing. You need an authenticator app." }
            details class="part" { summary { "Set it up" } (enrolment(asked)) }
        }
    })
}

fn enrolment(asked: &InOrg<'_>) -> Markup {
    html! {
        form class="stack" method="post" action="/me/factor" {
            (csrf(asked))
            label {
                "Your password"
                input type="password" name="password" required autocomplete="current-password";
            }
            button type="submit" { "Show the secret" }
        }
    }
}

/// Makes a secret and shows it.
pub(super) async fn enrol(asked: &InOrg<'_>) -> Answer {
    let params = Params::default().with("password", asked.form.exact("password"));
    let enrolled: Enrolled = match asked.ask("user.mfa.enrol", &params).await {
        Ok(enrolled) => enrolled,
        Err(failure) => {
            let retry = html! { (enrolment(asked)) (back("/me")) };
            return change::refused(asked, Screen::Own, failure, &retry);
        }
    };
    let body = html! {
        h1 { "Set up the second factor" }
        ol class="steps" {
            li {
                "Read this with your authenticator app:"
                @if let Some(picture) = qr::picture(&enrolled.uri, "QR code of the secret") {
                    (picture)
                }
                p {
                    "On this device "
                    a href=(enrolled.uri) { "open the app" }
                    ", or type the secret:"
                }
                pre class="secret" { (grouped(&enrolled.secret)) }
                p class="hint" { "It is shown here only, now." }
            }
            li { "Type what the app shows now:" (code_form(asked)) }
        }
        (back("/me"))
    };
    Ok(layout::page_with_secret(asked, Screen::Own, "Set up the second factor", &body))
}

/// A secret as people type it.
fn grouped(secret: &str) -> String {
    let mut text = String::with_capacity(secret.len() * 5 / 4);
    for (index, letter) in secret.chars().enumerate() {
        if index > 0 && index % 4 == 0 {
            text.push(' ');
        }
        text.push(letter);
    }
    text
}

fn code_form(asked: &InOrg<'_>) -> Markup {
    html! {
        form class="stack" method="post" action="/me/factor/confirm" {
            (csrf(asked))
            label {
                "Six digits"
                input name="code" inputmode="numeric" autocomplete="one-time-code" required;
            }
            button type="submit" class="main" { "Turn it on" }
        }
    }
}

/// Takes the first code, and shows the recovery codes.
pub(super) async fn confirm(asked: &InOrg<'_>) -> Answer {
    let code: String = asked.form.exact("code").split_whitespace().collect();
    let params = Params::default().with("code", code);
    let confirmed: Confirmed = match asked.ask("user.mfa.confirm", &params).await {
        Ok(confirmed) => confirmed,
        Err(failure) => {
            let retry = html! {
                p {
                    "The secret in your authenticator is still good: wait for its next code, and \
                     try again."
                }
                (code_form(asked))
                (back("/me"))
            };
            return change::refused(asked, Screen::Own, failure, &retry);
        }
    };
    let body = html! {
        h1 { "The second factor is on" }
        p { "From now on logins need a code. Your other sessions have ended." }
        h2 { "Recovery codes" }
        p {
            "Each is good for one login without the authenticator. They are shown here only, now: \
             print them, or put them where you keep keys."
        }
        ul class="codes" { @for code in &confirmed.recovery_codes { li { code { (code) } } } }
        p { a class="button" href="/" { "I have kept them" } }
    };
    Ok(layout::page_with_secret(asked, Screen::Own, "Recovery codes", &body))
}

/// Asks for what removes it.
pub(super) fn removal(asked: &InOrg<'_>) -> hyper::Response<bytes::Bytes> {
    let title = "Remove the second factor?";
    let body = html! {
        h1 { (title) }
        p { "Then your password alone opens everything that you may do." }
        (removal_form(asked))
    };
    layout::page(asked, Screen::Own, title, &body)
}

fn removal_form(asked: &InOrg<'_>) -> Markup {
    html! {
        form class="stack" method="post" action="/me/factor/remove" {
            (csrf(asked))
            label {
                "Your password"
                input type="password" name="password" autocomplete="current-password";
            }
            label {
                "Or a code of your authenticator, or a recovery code"
                input name="code" inputmode="numeric" autocomplete="one-time-code";
            }
            p class="buttons" {
                button type="submit" class="danger" { "Remove it" }
                a class="button" href="/me" data-close { "Leave it" }
            }
        }
    }
}

/// Removes it.
pub(super) async fn remove(asked: &InOrg<'_>) -> Answer {
    let mut params = Params::default();
    let password = asked.form.exact("password");
    params.set_some("password", Some(password).filter(|password| !password.is_empty()));
    let code: String = asked.form.exact("code").split_whitespace().collect();
    params.set_some("code", Some(code).filter(|code| !code.is_empty()));
    match asked.ask::<IgnoredAny>("user.mfa.remove", &params).await {
        Ok(_) => Ok(change::saved("/me", "factor-removed")),
        Err(failure) => change::refused(asked, Screen::Own, failure, &removal_form(asked)),
    }
}
