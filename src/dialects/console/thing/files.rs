//! Files of a thing, down and up. They move as those of all clients do, with tickets: the cookie
//! opens no `/file`.

use hyper::StatusCode;
use hyper::header::HOST;
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::acts::{confirm, need};
use super::{back, of, part as said, see, table};
use crate::dialects::console::Answer;
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::layout::{self, Screen, csrf, number};
use crate::dialects::console::respond::{self, Refused};
use crate::dialects::console::sessions::Listed;
use crate::dialects::console::things::path_of;
use crate::dialects::console::time::ago;

/// A file, as `file.list` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRow {
    file_name: String,
    length: u64,
    upload_date: String,
}

/// A ticket, as `file.get` and `file.put` give it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticket {
    file_id: String,
}

/// Its files, and how another one comes.
pub(super) async fn part(asked: &InOrg<'_>, key: &str) -> Result<Markup, Refused> {
    let listed: Option<Listed<FileRow>> = said(asked, "file.list", &of(key)).await?;
    let Some(listed) = listed else { return Ok(html! {}) };
    let query = |name: &str| {
        form_urlencoded::Serializer::new(String::new()).append_pair("name", name).finish()
    };
    let row = |file: &FileRow| {
        let (name, query) = (&file.file_name, query(&file.file_name));
        vec![
            html! { bdi { (name) } },
            html! { (number(file.length)) " bytes" },
            ago(&file.upload_date, asked.now),
            html! {
                @if asked.may("file.get") {
                    a class="button small" href=(path_of(asked, key, &format!("file?{query}"))) {
                        "Download" span class="hidden" { " " bdi { (name) } }
                    }
                }
                @if asked.may("file.delete") {
                    " " a class="button small" data-dialog
                        href=(path_of(asked, key, &format!("file/delete?{query}"))) {
                        "Delete" span class="hidden" { " " bdi { (name) } }
                    }
                }
            },
        ]
    };
    let rows: Vec<_> = listed.result.iter().map(row).collect();
    Ok(html! {
        h2 { "Files" }
        @if rows.is_empty() { p class="hint" { "It has none." } }
        @else { (table("Files", &["File", "Size", "Age", ""], &rows)) }
        @if asked.may("file.put") { (upload_forms(asked, key)) }
    })
}

fn upload_forms(asked: &InOrg<'_>, key: &str) -> Markup {
    let most = asked.app.config.limits.max_frame_bytes as u64;
    html! {
        form method="post" enctype="multipart/form-data" action=(path_of(asked, key, "file"))
            class="filter" {
            (csrf(asked))
            label { "A file of up to about " (number(most)) " bytes"
                input type="file" name="file" required; }
            button type="submit" { "Upload" }
        }
        details {
            summary { "A larger file" }
            form method="post" action=(path_of(asked, key, "file/address")) class="filter" {
                (csrf(asked))
                label { "Its name" input name="name" required maxlength="255"; }
                button type="submit" { "Make an address for it" }
            }
        }
    }
}

/// Leads to a ticket for one download.
pub(super) async fn download(asked: &InOrg<'_>, key: &str) -> Answer {
    let params = of(key).with("fileName", asked.query.exact("name"));
    let ticket: Ticket = asked.ask("file.get", &params).await?;
    Ok(respond::see(&format!("/file/{}", ticket.file_id)))
}

/// Takes a file that a form has sent.
pub(super) async fn upload(asked: &InOrg<'_>, key: &str) -> Answer {
    let Some(file) = asked.file.as_ref().filter(|file| !file.name.is_empty()) else {
        let body = html! {
            h1 { "No file was chosen" }
            p role="alert" { "Nothing was stored." }
            (back(asked, key))
        };
        let mut response = layout::page(asked, Screen::Things, "No file was chosen", &body);
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let params = of(key).with("fileName", file.name.as_str());
    let ticket: Ticket = asked.ask("file.put", &params).await?;
    asked.app.receive_file(&ticket.file_id, file.bytes.clone()).await?;
    see(asked, key, "")
}

/// Shows where a large file can be sent to, by another program than a browser.
pub(super) async fn address(asked: &InOrg<'_>, key: &str) -> Answer {
    let name = asked.form.exact("name");
    let ticket: Ticket = asked.ask("file.put", &of(key).with("fileName", name)).await?;
    let host = asked.header(&HOST).unwrap_or("localhost");
    let scheme = asked.conn.protocol.as_str();
    let line = format!("curl -T FILE {scheme}://{host}/file/{}", ticket.file_id);
    let body = html! {
        h1 { "An address for " bdi { (name) } }
        p {
            "For one upload, within five minutes, by whoever knows it. The file is there when the \
             upload was answered."
        }
        pre class="secret" { (line) }
        (back(asked, key))
    };
    Ok(layout::page_with_secret(asked, Screen::Things, "An address for a file", &body))
}

pub(super) fn delete_form(asked: &InOrg<'_>, key: &str) -> Answer {
    need(asked, "file.delete")?;
    let name = asked.query.exact("name");
    let body = html! {
        h1 { "Delete " bdi { (name) } "?" }
        p { "The file of " bdi { (key) } " goes. A download that has begun goes on." }
        form method="post" action=(path_of(asked, key, "file/delete")) {
            (csrf(asked))
            input type="hidden" name="name" value=(name);
            (confirm(asked, key, "Delete the file"))
        }
    };
    Ok(layout::page(asked, Screen::Things, "Delete a file", &body))
}

pub(super) async fn delete(asked: &InOrg<'_>, key: &str) -> Answer {
    let params = of(key).with("fileName", asked.form.exact("name"));
    asked.ask::<IgnoredAny>("file.delete", &params).await?;
    see(asked, key, "")
}
