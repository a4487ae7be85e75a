//! Writes `docs/commands.md`, `docs/errors.md` and `docs/limits.md` from the tables of commands, error
//! codes and pools.

use std::fmt::Write as _;

use base::pool::{MakesWay, Max, Memory, POOLS, PoolInfo};
use base::{CODES, limits};

use super::commands::{COMMANDS, not_configured};
use super::step::{CommandInfo, Waits};
use super::strict::without_effect;

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
    if info.is_strict {
        text.push_str(" A parameter that is none of these is refused.");
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
    let ignored: Vec<_> =
        without_effect(info.name).iter().map(|name| format!("`{name}`")).collect();
    if !ignored.is_empty() {
        let _ = writeln!(text, "\nAccepted, without effect here: {}.", ignored.join(", "));
    }
}

/// The text of `docs/errors.md`.
pub fn errors() -> String {
    let mut text = String::from(
        "# Errors\n\n\
         A command that fails answers `{\"success\":false,\"errorCodes\":[code],\"errorMessages\":\
         [\"sentence\"]}` under its name; a\nrequest that fails as a whole answers the same at the \
         root. Over HTTP the status is 200 in both cases, or for those who ask for\nit the one of the table ([http.md](http.md)). \
         The sentence names the culprit. Codes whose source is \"ours\" are this\nserver's own; the others \
         are the vendor's, as clients know them, with the section of [protocol/tr50.md](protocol/tr50.md) that has them.\n\n\
         | code | HTTP | meaning | what to do | source |\n| --- | --- | --- | --- | --- |\n",
    );
    for info in CODES {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            info.code.0, info.http_status, info.meaning, info.advice, info.source
        );
    }
    text
}

/// The text of `docs/limits.md`.
pub fn limits_page() -> String {
    let mut text = String::from(
        "# Limits\n\n\
         Of everything that somebody can use up there is a pool: a bound for all together, which is \
         shared. Whoever is alone may\nhave nearly all of it. When others come, each tenant (an \
         organisation directly below the topmost, with all that are\nbelow it) may have what it asks \
         for up to an equal part, and what one does not use is the others'. In each tenant its\n\
         organisations share in the same way, and in each organisation its principals: users, and \
         applications with all things\nthat log in with their tokens.\n\n\
         Where nothing makes way, what somebody has is never taken away: who is above the share can't \
         add, and a sixteenth of the\npool (and of each part) is left for those who are below. Where \
         something makes way, it is of whoever has most.\n\n\
         A refusal names the limit and whose share is used up. For each pool `/metrics` has \
         `tr50d_pool_used`, `tr50d_pool_limit`,\n`tr50d_pool_refused_total` (somebody got no more) and \
         `tr50d_pool_evicted_total` (somebody made way) with its name as the label `pool`;\nof \
         `sessions_of_login`, which every login has for itself, only the last two.\n\n\
         Memory is what one takes, about, in bytes, and the part of `limits.memory_bytes` that all may take: \
         there may be fewer than\nthe column before says. What has none there is on the disk, is little, or \
         counts in `memory`; what the others take,\nconnections have less of.\n\n\
         | pool | what is counted | how much | memory | why | what makes way | who gets no more sees |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (_, info) in POOLS {
        let max = match info.max {
            Max::Key(key, default) => format!("`{key}`: {default}"),
            Max::Auto(key, words) => format!("`{key}`: {words}"),
            Max::Fixed(max) => max.to_string(),
            Max::Each(key, default) => format!("`{key}`: {default} for each"),
        };
        let makes_way = match info.makes_way {
            MakesWay::Nobody => "nothing",
            MakesWay::Holder(what) => what,
        };
        let memory = match info.memory {
            None => String::new(),
            Some(Memory { bytes, part }) => format!("{bytes}; 1/{part}"),
        };
        let PoolInfo { name, unit, reason, refused, .. } = info;
        let _ = writeln!(
            text,
            "| `{name}` | {unit} | {max} | {memory} | {reason} | {makes_way} | {refused} |"
        );
    }
    text.push_str(
        "\nWhat one has for itself, at most, whatever others have:\n\n| of one | at most |\n| --- | --- |\n",
    );
    let kib = 1024;
    for (whose, what, most) in [
        (
            "organisation",
            "users, applications, roles and definitions, of each",
            limits::RECORDS_PER_ORG_MAX,
        ),
        ("organisation", "organisations directly below it", limits::RECORDS_PER_ORG_MAX),
        ("organisation", "invitations that wait", limits::INVITES_PER_ORG_MAX),
        ("inviter", "of these", limits::INVITES_PER_INVITER_MAX),
        (
            "user",
            "invitations that wait; the tenant with most loses its oldest",
            limits::INVITES_PER_USER_MAX,
        ),
        ("user", "KiB of memberships, tokens and settings", limits::USER_BYTES_MAX / kib),
        ("membership or invitation", "KiB", limits::MEMBERSHIP_BYTES_MAX / kib),
        ("user or application", "tokens beside the first", limits::TOKENS_PER_HOLDER_MAX),
        ("thing", "things bound to it", limits::CHILDREN_MAX),
        ("thing", "series", limits::SERIES_PER_THING_MAX),
        ("MQTT client", "subscriptions", limits::SUBSCRIPTIONS_MAX),
        (
            "MQTT client",
            "levels of filters that begin with `reply`, `replyz`, `notify`, `thing` or a wildcard",
            limits::OWN_LEVELS_MAX,
        ),
    ] {
        let _ = writeln!(text, "| {whose} | {most} {what} |");
    }
    text
}

/// The page on events with the table of their types.
#[cfg(test)]
fn events(page: &str) -> String {
    const MARKS: [&str; 2] = ["<!-- types -->\n", "<!-- end of types -->"];
    let (before, rest) = page.split_once(MARKS[0]).expect("where the table begins");
    let (_, after) = rest.split_once(MARKS[1]).expect("where it ends");
    let row = |info: &crate::events::KindInfo| {
        let (name, class, doc) = (info.name, info.class.as_str(), info.doc);
        format!("| `{name}` | {class} | {doc} | {} |\n", info.members)
    };
    let rows: String = crate::events::KINDS.iter().map(row).collect();
    let head = "| type | class | what has happened | members |\n| --- | --- | --- | --- |\n";
    let acts = "| the command's name | administration | what an administrator did | those of docs/trail.md |\n";
    format!("{before}{}{head}{rows}{acts}{}{after}", MARKS[0], MARKS[1])
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
        check("limits.md", &super::limits_page());
        check("events.md", &super::events(include_str!("../../docs/events.md")));
    }
}
