//! The organisations that one may enter, searched by the server; and the keys.

use maud::{Markup, html};
use serde::Deserialize;

use super::Answer;
use super::asked::Asked;
use super::form::Params;
use super::layout::{self, Screen};
use super::sessions::Listed;

/// Organisations on one page.
const PAGE: u64 = 50;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrgRow {
    org_key: String,
    org_name: String,
    slug: String,
    roles: Vec<String>,
}

/// What `/o` shows.
pub(super) async fn page(asked: &Asked) -> Answer {
    let at_home = asked.at_home()?;
    if asked.query.get("keys").is_some() {
        return Ok(layout::page(&at_home, Screen::Own, "Keys", &keys()));
    }
    let offset = asked.query.number("offset").unwrap_or(0);
    let words = asked.query.get("q");
    let mut params = Params::default();
    params.set("includeRoles", true);
    params.set("offset", offset);
    params.set("limit", PAGE);
    params.set_some("query", words);
    let listed: Listed<OrgRow> = at_home.ask("session.org.list", &params).await?;
    let at =
        |offset: u64| format!("/o?{}", asked.query.query_with(&[("offset", &offset.to_string())]));
    let body = html! {
        h1 { "Organisations" }
        form class="filter" action="/o" data-typed {
            label {
                "Name, key or slug"
                input type="search" name="q" value=[words] autofocus autocomplete="off";
            }
            button type="submit" { "Search" }
            @if asked.wants_piece() { a class="button" href="/" data-close { "Close" } }
        }
        div data-found { (found(&listed, &at, offset)) }
    };
    Ok(layout::page(&at_home, Screen::Own, "Organisations", &body))
}

/// Those that are found, and the ways to the rest.
fn found(listed: &Listed<OrgRow>, at: &dyn Fn(u64) -> String, offset: u64) -> Markup {
    let (count, shown) = (listed.count.unwrap_or_default(), listed.result.len() as u64);
    html! {
        @if listed.result.is_empty() {
            (layout::empty("No organisation", &html! {
                "There is none of this name that you may enter. " a href="/o" { "Show all" }
            }))
        } @else {
            div class="scroll" { table {
                caption class="hidden" { "Organisations" }
                thead { tr {
                    th scope="col" { "Name" } th scope="col" { "Key" } th scope="col" { "Your roles" }
                } }
                tbody { @for org in &listed.result { tr {
                    td data-cell="who" { a href=(format!("/o/{}/", org.slug)) { bdi { (org.org_name) } } }
                    td { bdi { (org.org_key) } }
                    td class="wrap" { bdi { (org.roles.join(", ")) } }
                } } }
            } }
            nav class="pages" aria-label="Pages" {
                span { (layout::number(count)) @if count == 1 { " organisation" } @else { " organisations" } }
                @if offset > 0 { a rel="prev" href=(at(offset.saturating_sub(PAGE))) { "Previous" } }
                @if offset.saturating_add(shown) < count { a rel="next" href=(at(offset + PAGE)) { "Next" } }
            }
        }
    }
}

fn keys() -> Markup {
    let keys = [
        ("/", "Search everywhere"),
        ("j, k", "The next row, the one before"),
        ("Enter", "Open the row"),
        ("Esc", "Close what is open"),
        ("?", "These keys"),
    ];
    html! {
        h1 { "Keys" }
        table {
            caption class="hidden" { "Keys" }
            tbody { @for (key, what) in keys { tr { th scope="row" { kbd { (key) } } td { (what) } } } }
        }
        p class="buttons" { a class="button" href="/" data-close { "Close" } }
    }
}
