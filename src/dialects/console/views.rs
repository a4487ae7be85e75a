//! Views of the list of sessions that a user keeps: addresses, as settings of one's own.

use maud::{Markup, html};
use serde::Deserialize;

use super::asked::InOrg;
use super::form::{Fields, Params};
use super::layout::csrf;
use super::respond::{Refused, see};
use super::{Answer, sessions};

/// Settings that are views begin so.
const PREFIX: &str = "view.sessions.";

#[derive(Deserialize)]
struct Settings {
    result: Vec<Setting>,
}

#[derive(Deserialize)]
struct Setting {
    key: String,
    value: String,
}

/// The views that are kept, and a form to keep this one.
pub(super) async fn list(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let kept: Settings =
        asked.ask("user.setting.list", &Params::default().with("prefix", PREFIX)).await?;
    let query = asked.query.query_with(&[("offset", "")]);
    Ok(html! {
        details class="views" {
            summary { "Views" }
            div {
                @if kept.result.is_empty() { p class="hint" { "None is kept yet." } }
                @for view in &kept.result {
                    @let name = view.key.strip_prefix(PREFIX).unwrap_or(&view.key);
                    form method="post" action=(asked.to("sessions/views")) {
                        a href=(format!("{}?{}", asked.path, view.value)) { bdi { (name) } }
                        (csrf(asked))
                        input type="hidden" name="name" value=(name);
                        button type="submit" class="small" name="forget" value="1" {
                            "Forget" span class="hidden" { " " bdi { (name) } }
                        }
                    }
                }
                @if !query.is_empty() {
                    form method="post" action=(asked.to("sessions/views")) {
                        (csrf(asked))
                        input type="hidden" name="query" value=(query);
                        label { "Keep this view as" input name="name" required maxlength="40"; }
                        button type="submit" { "Keep" }
                    }
                }
            }
        }
    })
}

/// Keeps or forgets a view.
pub(super) async fn keep(asked: &InOrg<'_>) -> Answer {
    let name = asked.form.get("name").unwrap_or("view");
    let mut params = Params::default().with("key", format!("{PREFIX}{name}"));
    let query = asked.form.get("query").filter(|_| asked.form.get("forget").is_none());
    let query = query.map(|query| {
        sessions::in_order(&Fields::read(query.as_bytes())).unwrap_or_else(|| query.to_owned())
    });
    params.set_some("value", query.as_deref());
    asked.ask::<serde::de::IgnoredAny>("user.setting.set", &params).await?;
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    Ok(see(&asked.to(&format!("sessions{query}"))))
}
