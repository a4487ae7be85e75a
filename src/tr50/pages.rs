//! The documentation of the commands as web pages, made from the table: for whoever stands at the machine
//! without the internet. They load nothing but one style sheet of this server.

use std::fmt::Write as _;

use base::{CODES, Code};

use super::commands::{self, COMMANDS};
use super::openapi;
use super::step::{CommandInfo, Waits};

/// The style sheet of all pages.
pub const STYLE: &str = include_str!("pages.css");

/// Something that can be read below `/docs`.
pub enum Page {
    /// A web page.
    Html(String),
    /// The style sheet.
    Style,
}

/// What is at this path below `/docs`, which begins with a slash or is empty; none if there is nothing.
pub fn page(path: &str) -> Option<Page> {
    if matches!(path, "" | "/") {
        return Some(Page::Html(index()));
    }
    let name = path.strip_prefix('/')?;
    Some(match name.strip_suffix('/').unwrap_or(name) {
        "errors" => Page::Html(errors()),
        "style.css" => Page::Style,
        name => Page::Html(command(commands::find(name)?.info)),
    })
}

fn index() -> String {
    let mut body = String::from(
        "<p>A command is a POST to <code>/rest/_/&lt;command&gt;</code> with its parameters as JSON. Who asks \
         is said by a session: log in, and send its id as bearer token. Devices send the same commands in the \
         envelope of TR50, over MQTT, TCP and <code>/api</code>.</p>\
         <pre>curl $URL/rest/_/api.authenticate -H 'Content-Type: application/json' \\\n  -d \
         '{\"username\":\"…\",\"password\":\"…\"}'\ncurl $URL/rest/_/session.info -H \"Authorization: Bearer $ID\" \
         -d ''</pre>\
         <p><a href=\"/openapi.json\">OpenAPI document</a>, from which clients can be made. \
         <a href=\"/docs/errors\">Errors</a>.</p>",
    );
    let mut last = "";
    for info in COMMANDS.iter() {
        let family = info.name.split('.').next().unwrap_or_default();
        if family != last {
            let end = if last.is_empty() { "" } else { "</dl>" };
            let _ = write!(body, "{end}<h2 id=\"{family}\">{family}</h2><dl>");
            last = family;
        }
        let (name, doc) = (info.name, text(openapi::summary(info.doc)));
        let _ = write!(body, "<dt><a href=\"/docs/{name}\">{name}</a></dt><dd>{doc}</dd>");
    }
    body.push_str("</dl>");
    html("Commands", &body)
}

fn command(info: &CommandInfo) -> String {
    let CommandInfo { name, doc, reply, .. } = info;
    let mut body = format!("<p>{}</p><p>", text(doc));
    let _ = match info.is_open() {
        true => write!(body, "It can be sent without a login."),
        false => write!(body, "Permission: <code>{name}</code>."),
    };
    if info.is_act {
        body.push_str(" It is in the trail.");
    }
    if info.waits == Waits::Durable {
        body.push_str(" The reply is sent when the change is durable.");
    }
    let params = (info.params)();
    body.push_str("</p><h2>Parameters</h2>");
    body.push_str(if params.is_empty() { "<p>None.</p>" } else { "<dl>" });
    for field in &params {
        let (name, expected) = (escaped(field.name), escaped(field.expected));
        let required = if field.required { ", <strong>required</strong>" } else { "" };
        let doc = text(field.doc);
        let _ = write!(body, "<dt><code>{name}</code> {expected}{required}</dt><dd>{doc}</dd>");
    }
    if !params.is_empty() {
        body.push_str("</dl>");
    }
    let example = escaped(&openapi::example(&params).to_string().replace('\'', "'\\''"));
    let _ = write!(
        body,
        "<h2>Example</h2><pre>curl $URL/rest/_/{name} -H \"Authorization: Bearer $ID\" \\\n  \
         -H 'Content-Type: application/json' -d '{example}'</pre><h2>Reply</h2>"
    );
    let _ = match *reply {
        "" => write!(body, "<p><code>{{\"success\":true}}</code></p>"),
        reply => {
            write!(body, "<p><code>success</code>, and in <code>params</code>: {}</p>", text(reply))
        }
    };
    body.push_str("<h2>Failures</h2><dl>");
    let of_all =
        "<dt>and those of every command</dt><dd><a href=\"/docs/errors\">Errors</a></dd></dl>";
    info.errors.iter().for_each(|code| failure(&mut body, *code));
    body.push_str(of_all);
    html(name, &body)
}

fn failure(body: &mut String, code: Code) {
    let meaning = CODES.iter().find(|info| info.code == code).map_or("", |info| info.meaning);
    let (code, meaning) = (code.0, text(meaning));
    let _ =
        write!(body, "<dt><a href=\"/docs/errors#e{}\">{code}</a></dt><dd>{meaning}</dd>", -code);
}

fn errors() -> String {
    let mut body = String::from(
        "<p>A command that fails answers <code>{\"success\":false,\"errorCodes\":[code],\
         \"errorMessages\":[\"sentence\"]}</code>. Over HTTP the status is 200, or with \
         <code>?status=http</code> the one of the code.</p><dl>",
    );
    for info in CODES {
        let (code, status) = (info.code.0, info.http_status);
        let (meaning, advice) = (text(info.meaning), text(info.advice));
        let _ = write!(
            body,
            "<dt id=\"e{}\">{code} (HTTP {status})</dt><dd>{meaning} {advice}</dd>",
            -code
        );
    }
    body.push_str("</dl>");
    html("Errors", &body)
}

fn html(title: &str, body: &str) -> String {
    let way = match title {
        "Commands" => "",
        _ => "<p><a href=\"/docs\">Commands</a></p>",
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} – tr50d</title>\n<link rel=\"stylesheet\" href=\"/docs/style.css\">\n\
         <main>{way}<h1>{title}</h1>{body}</main>\n</html>\n"
    )
}

/// A line of documentation: what stands between backticks is code.
fn text(line: &str) -> String {
    let parts = line.split('`').enumerate();
    let part = |(index, part): (usize, &str)| match index % 2 {
        0 => escaped(part),
        _ => format!("<code>{}</code>", escaped(part)),
    };
    parts.map(part).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> String {
        match page(path) {
            Some(Page::Html(html)) => html,
            _ => panic!("{path}"),
        }
    }

    #[test]
    fn every_command_and_code_has_its_place() {
        let index = shown("");
        for info in COMMANDS.iter() {
            assert!(index.contains(&format!("href=\"/docs/{}\"", info.name)), "{}", info.name);
            let page = shown(&format!("/{}", info.name));
            for field in (info.params)() {
                assert!(page.contains(&format!("<code>{}</code>", field.name)), "{}", info.name);
            }
            assert!(
                page.len() < 64 * 1024
                    && page.matches("<dl>").count() == page.matches("</dl>").count()
            );
        }
        let errors = shown("/errors");
        for info in CODES {
            assert!(errors.contains(&format!("id=\"e{}\"", -info.code.0)), "{info:?}");
        }
        assert!(page("/no.such").is_none() && page("/errors/x").is_none() && page("//").is_none());
        assert_eq!(shown("/DIAG.ping/"), shown("/diag.ping"));
    }

    #[test]
    fn lines_are_text_and_code() {
        assert_eq!(text("a `<b>` & c"), "a <code>&lt;b&gt;</code> &amp; c");
        assert_eq!(text("`a`"), "<code>a</code>");
    }
}
