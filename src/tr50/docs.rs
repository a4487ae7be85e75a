//! Writes `docs/commands.md` and `docs/errors.md` from the table of commands and the error codes.

use std::fmt::Write as _;

use base::CODES;

use super::commands::{COMMANDS, not_configured};
use super::step::{CommandInfo, Waits};

/// The text of `docs/commands.md`.
pub fn commands() -> String {
    let mut text = String::from(
        "# Commands\n\n\
         Every command of this server. Names of commands and parameters are read without regard to \
         case, numbers may\ncome as strings, `params` may be absent, null or `[]`. The permission \
         that a command needs has its name; the name of\na family, such as `session`, stands for all \
         its commands. Failures are in [errors.md](errors.md); every \
         command can have those of a malformed, forbidden or\nunknown one (-95001 to -95006, \
         -90000, -99999), and -95010 to -95013.\n",
    );
    absent(&mut text);
    for info in COMMANDS.iter() {
        command(&mut text, info);
    }
    text
}

/// The names that are known and that nobody implements, a line for each family.
fn absent(text: &mut String) {
    text.push_str(
        "\n## What is not here\n\n\
         These commands of TR50 need a foreign service, or another of the vendor's products. In a \
         session they answer\n-95014, \"not configured here\"; a name that TR50 does not have \
         answers -95003. (A password is changed by `user.update`.)\n",
    );
    let mut last = "";
    for name in not_configured() {
        let (family, member) = name.split_once('.').unwrap_or((name, ""));
        let start = if family == last { ", ".to_owned() } else { format!("\n* {family}: ") };
        last = family;
        text.push_str(&start);
        match member.strip_suffix('.').unwrap_or(member) {
            "" => text.push_str("everything"),
            group if group.len() < member.len() => {
                let _ = write!(text, "`{group}.` and what follows");
            }
            _ => {
                let _ = write!(text, "`{member}`");
            }
        }
    }
    text.push('\n');
}

fn command(text: &mut String, info: &CommandInfo) {
    let _ = write!(text, "\n## {}\n\n{}", info.name, info.doc);
    if info.is_open() {
        text.push_str(" It can be sent without a login.");
    }
    if info.is_act {
        text.push_str(" It is in the trail ([trail.md](trail.md)).");
    }
    text.push_str(match info.waits {
        Waits::No | Waits::Work => "",
        Waits::Durable => " The reply is sent when the change is durable.",
        Waits::Device => " What comes behind it on a connection does not wait for it.",
    });
    text.push_str(match info.reply {
        "" => "\n\nReply: nothing but success.",
        _ => "\n\nReply: ",
    });
    text.push_str(info.reply);
    if !info.errors.is_empty() {
        let codes: Vec<_> = info.errors.iter().map(|code| code.0.to_string()).collect();
        let _ = write!(text, "\n\nFailures: {}.", codes.join(", "));
    }
    text.push('\n');
    let params = (info.params)();
    if params.is_empty() {
        return;
    }
    text.push_str("\n| parameter | type | | meaning |\n| --- | --- | --- | --- |\n");
    for field in params {
        let required = if field.required { "required" } else { "" };
        let _ = writeln!(
            text,
            "| `{}` | {} | {required} | {} |",
            field.name, field.expected, field.doc
        );
    }
}

/// The text of `docs/errors.md`.
pub fn errors() -> String {
    let mut text = String::from(
        "# Errors\n\n\
         A command that fails answers `{\"success\":false,\"errorCodes\":[code],\"errorMessages\":\
         [\"sentence\"]}` under its name; a\nrequest that fails as a whole answers the same at the \
         root. Over HTTP the status is 200 in both cases. The sentence\nnames the culprit. Codes whose \
         source is \"ours\" are this server's own; the others are the vendor's, as clients know\nthem, \
         with the section of [protocol/tr50.md](protocol/tr50.md) that has them.\n\n\
         | code | meaning | what to do | source |\n| --- | --- | --- | --- |\n",
    );
    for info in CODES {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            info.code.0, info.meaning, info.advice, info.source
        );
    }
    text
}

#[cfg(test)]
mod tests {
    /// Rewrites the file when `UPDATE_DOCS` is set, else compares.
    fn check(name: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, text).expect("a writable docs folder");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let hint = "UPDATE_DOCS=1 cargo test -p tr50d --lib document";
        assert!(written == text, "docs/{name} is out of date: {hint}");
    }

    #[test]
    fn the_committed_documents_are_those_of_the_code() {
        check("commands.md", &super::commands());
        check("errors.md", &super::errors());
    }
}
