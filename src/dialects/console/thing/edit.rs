//! What people say of a thing: its name, tags, attributes and definition, and how they change it.

use base::{Code, Failure};
use hyper::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Found, back, of, part, see};
use crate::dialects::console::Answer;
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::change::{done, hidden};
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::{self, Screen, csrf, number};
use crate::dialects::console::respond::Refused;
use crate::dialects::console::things::path_of;

/// Attributes that are shown, each with a form of its own.
const ATTRIBUTES_MAX: usize = 100;

/// Definitions from which one is chosen; of more, one types the key.
const DEFINITIONS_MAX: usize = 500;

/// The forms of the page: their names in addresses, the commands that they send, and what is said when
/// it is done.
const FORMS: [(&str, &str, &str); 6] = [
    ("name", "thing.update", "The name was changed."),
    ("tag", "thing.tag.add", "The tag was added."),
    ("untag", "thing.tag.delete", "The tag was taken away."),
    ("set", "thing.attr.set", "The attribute was set."),
    ("unset", "thing.attr.unset", "The attribute was unset."),
    ("definition", "thing.def.change", "The thing has another definition."),
];

/// Why a form changed nothing.
pub(super) struct Wrong {
    form: &'static str,
    failure: Failure,
}

#[derive(Deserialize)]
struct Keys {
    result: Vec<String>,
}

/// Whether there is something that one may change.
pub(super) fn may(asked: &InOrg<'_>) -> bool {
    FORMS.iter().any(|(_, command, _)| asked.may(command))
}

/// The screen; `wrong`: why the form that was sent changed nothing.
pub(super) async fn page(asked: &InOrg<'_>, key: &str, wrong: Option<Wrong>) -> Answer {
    if !may(asked) {
        return Err(Refused::NotFound);
    }
    let found: Found = asked.ask("thing.find", &Params::default().with("key", key)).await?;
    let words = FORMS.map(|(form, _, words)| (form, words));
    let page = Page { asked, key: &found.key, wrong: wrong.as_ref() };
    let body = html! {
        h1 { "Change " bdi { (found.key) } }
        (done(&asked.query, &words))
        @if asked.may("thing.update") { (page.names(&found)) }
        @if page.may_one_of(["thing.tag.add", "thing.tag.delete"]) { (page.tags(&found)) }
        @if page.may_one_of(["thing.attr.set", "thing.attr.unset"]) { (page.attributes(&found)) }
        @if asked.may("thing.def.change") { (page.definition(&found).await?) }
        (back(asked, key))
    };
    let mut response = layout::page(asked, Screen::Things, &format!("Change {key}"), &body);
    if let Some(wrong) = &wrong {
        let status = StatusCode::from_u16(wrong.failure.code.http_status());
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    }
    Ok(response)
}

/// Does what a form says.
pub(super) async fn change(asked: &InOrg<'_>, key: &str, what: &str) -> Answer {
    // Both are of one form, and its button says which.
    let what = if what == "set" && asked.form.get("unset").is_some() { "unset" } else { what };
    let found = FORMS.into_iter().find(|(form, ..)| *form == what);
    let (form, command, _) = found.ok_or(Refused::NotFound)?;
    let text = |name: &str| asked.form.exact(name);
    let params = match form {
        "name" => {
            let mut params = of(key);
            params.set_some("name", asked.form.get("name"));
            match asked.form.get("desc") {
                Some(_) => params.with("desc", lines(text("desc"))),
                None => params.with("unset", vec!["desc"]),
            }
        }
        // Each is one, whatever it is made of.
        "tag" | "untag" => {
            Params::default().with("thingKey", vec![key]).with("tags", vec![text("tag")])
        }
        "set" => of(key).with("key", text("attribute")).with("value", lines(text("value"))),
        "unset" => of(key).with("key", text("attribute")),
        _ => of(key).with("newDefKey", text("definition").trim()),
    };
    let asking = async {
        // The command takes no tag at all for success.
        if form == "tag" && text("tag").trim().is_empty() {
            return Err(Failure::new(Code::PARAMETER_INVALID, "The tag is empty."));
        }
        asked.ask::<IgnoredAny>(command, &params).await
    };
    match asking.await {
        Ok(_) => see(asked, key, &format!("edit?done={form}")),
        // What can be mended in the form is said beside it.
        Err(failure) if is_of_form(form, &failure) => {
            page(asked, key, Some(Wrong { form, failure })).await
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Whether a failure is of what the form says: what there is not may be the definition.
fn is_of_form(form: &str, failure: &Failure) -> bool {
    match failure.code {
        Code::NOT_FOUND => form == "definition",
        code => !matches!(code, Code::SESSION_INVALID | Code::PERMISSION_DENIED),
    }
}

/// A text of several lines as other clients have it: browsers end lines with two characters.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

struct Page<'a> {
    asked: &'a InOrg<'a>,
    key: &'a str,
    wrong: Option<&'a Wrong>,
}

impl Page<'_> {
    fn may_one_of(&self, commands: [&str; 2]) -> bool {
        commands.iter().any(|command| self.asked.may(command))
    }

    fn path(&self, form: &str) -> String {
        path_of(self.asked, self.key, &format!("edit/{form}"))
    }

    /// Why the form changed nothing, if it was sent.
    fn why(&self, form: &str) -> Markup {
        let wrong = self.wrong.filter(|wrong| wrong.form == form);
        html! { @if let Some(wrong) = wrong {
            p class="notice bad" role="alert" { (wrong.failure.message) }
        } }
    }

    /// What a field of this form holds: what was typed if it was sent.
    fn typed<'a>(&'a self, form: &str, field: &str, held: &'a str) -> &'a str {
        match self.wrong.is_some_and(|wrong| wrong.form == form) {
            true => self.asked.form.exact(field),
            false => held,
        }
    }

    fn names(&self, found: &Found) -> Markup {
        html! {
            h2 { "Name" }
            (self.why("name"))
            form class="stack" method="post" action=(self.path("name")) {
                (csrf(self.asked))
                label { "Name for people"
                    input name="name" value=(self.typed("name", "name", &found.name)); }
                label { "Description"
                    textarea name="desc" rows="3" cols="40" {
                        (area(self.typed("name", "desc", &found.desc)))
                    }
                }
                button type="submit" { "Change the name" }
            }
        }
    }

    fn tags(&self, found: &Found) -> Markup {
        html! {
            h2 { "Tags" }
            (self.why("untag"))
            @if found.tags.is_empty() { p class="hint" { "It has none." } }
            @for tag in &found.tags {
                form class="many" method="post" action=(self.path("untag")) {
                    (csrf(self.asked))
                    (hidden("tag", tag))
                    span class="badge" { bdi { (tag) } }
                    @if self.asked.may("thing.tag.delete") {
                        button type="submit" class="small" {
                            "Take away" span class="hidden" { " the tag " bdi { (tag) } }
                        }
                    }
                }
            }
            @if self.asked.may("thing.tag.add") {
                (self.why("tag"))
                form class="filter" method="post" action=(self.path("tag")) {
                    (csrf(self.asked))
                    label { "Another tag"
                        input name="tag" required value=(self.typed("tag", "tag", "")); }
                    button type="submit" { "Add" }
                }
            }
        }
    }

    fn attributes(&self, found: &Found) -> Markup {
        let sent = |form: &str, name: &str| {
            self.wrong.is_some_and(|wrong| wrong.form == form)
                && self.asked.form.exact("attribute") == name
        };
        let (may_set, may_unset) =
            (self.asked.may("thing.attr.set"), self.asked.may("thing.attr.unset"));
        let is_new = self.asked.form.get("new").is_some();
        let count = found.attrs.len();
        let mut shown = found.attrs.keys().take(ATTRIBUTES_MAX);
        let is_shown = shown.any(|name| sent("set", name) || sent("unset", name));
        html! {
            h2 { "Attributes" }
            @if !is_shown && !is_new { (self.why("set")) (self.why("unset")) }
            @for (name, attribute) in found.attrs.iter().take(ATTRIBUTES_MAX) {
                @let is_sent = sent("set", name) && !is_new;
                @if is_sent { (self.why("set")) }
                @if sent("unset", name) { (self.why("unset")) }
                form class="filter" method="post" action=(self.path("set")) {
                    (csrf(self.asked))
                    (hidden("attribute", name))
                    label { span { bdi { (name) } }
                        textarea name="value" rows="1" cols="40" readonly[!may_set] {
                            @if is_sent { (area(self.asked.form.exact("value"))) }
                            @else { (area(&attribute.value)) }
                        }
                    }
                    @if may_set {
                        button type="submit" { "Set" span class="hidden" { " " bdi { (name) } } }
                    }
                    @if may_unset {
                        button type="submit" name="unset" value="1" {
                            "Unset" span class="hidden" { " " bdi { (name) } }
                        }
                    }
                }
            }
            @if count > ATTRIBUTES_MAX {
                p class="hint" {
                    "The first " (number(ATTRIBUTES_MAX as u64)) " of " (number(count as u64))
                    ". Another one is set by its name."
                }
            }
            @if may_set {
                @if is_new { (self.why("set")) }
                form class="filter" method="post" action=(self.path("set")) {
                    (csrf(self.asked))
                    (hidden("new", "1"))
                    @let typed = |field| if is_new { self.asked.form.exact(field) } else { "" };
                    label { "Another attribute"
                        input name="attribute" required maxlength="256" value=(typed("attribute")); }
                    label { "Its value"
                        textarea name="value" rows="1" cols="40" { (area(typed("value"))) } }
                    button type="submit" { "Set it" }
                }
            }
        }
    }

    async fn definition(&self, found: &Found) -> Result<Markup, Refused> {
        let keys: Option<Keys> = part(self.asked, "thing_def.keys", &Params::default()).await?;
        let mut keys = keys.map(|keys| keys.result).unwrap_or_default();
        keys.retain(|key| !key.is_empty());
        keys.sort();
        keys.dedup();
        let chosen = self.typed("definition", "definition", &found.def_key);
        let is_known = keys.iter().any(|key| key == chosen);
        Ok(html! {
            h2 { "Definition" }
            (self.why("definition"))
            form class="filter" method="post" action=(self.path("definition")) {
                (csrf(self.asked))
                label { "What kind of thing it is"
                    @if keys.is_empty() || keys.len() > DEFINITIONS_MAX {
                        input name="definition" required value=(chosen);
                    } @else {
                        select name="definition" {
                            @if !is_known { option value=(chosen) selected { (chosen) } }
                            @for key in &keys {
                                option value=(key) selected[key == chosen] { (key) }
                            }
                        }
                    }
                }
                button type="submit" { "Change the definition" }
            }
            p class="hint" { "What it has measured stays." }
        })
    }
}

/// A text in a field of several lines, of which browsers leave out a line feed at its beginning.
fn area(text: &str) -> Markup {
    html! { @if text.starts_with('\n') { "\n" } (text) }
}
