//! The table of commands, and one file for each family: parameters, rule, reply, tests.

use std::sync::LazyLock;

use super::dispatch::{Call, CommandInfo, Handler, WriteReply};
use super::error::Failure;
use super::params::{Field, NoParams, Params};
use crate::directory::Changes;
use crate::identity::permission::Permission;

pub mod api;
pub mod diag;
pub mod org;
pub mod session;
pub mod thing;
pub mod user;
mod view;

/// A command answered from memory.
macro_rules! read {
    ($name:literal, $handler:path, $doc:literal) => {
        CommandInfo {
            name: $name,
            doc: $doc,
            params: fields_of_read($handler),
            handler: Handler::Read(|call, params, out| {
                $handler(call, Params::read(params)?)?.write_reply(out);
                Ok(())
            }),
        }
    };
}

/// A command that reads so much, sometimes, that it runs apart.
macro_rules! heavy {
    ($name:literal, $handler:path, $is_heavy:path, $doc:literal) => {
        CommandInfo {
            handler: Handler::Heavy {
                is_heavy: $is_heavy,
                handler: |call, params, out| {
                    $handler(call, Params::read(params)?)?.write_reply(out);
                    Ok(())
                },
            },
            ..read!($name, $handler, $doc)
        }
    };
}

/// A command that changes state.
macro_rules! change {
    ($name:literal, $handler:path, $doc:literal) => {
        CommandInfo {
            name: $name,
            doc: $doc,
            params: fields_of_change($handler),
            handler: Handler::Change(|call, params, out| {
                let (reply, changes) = $handler(call, Params::read(params)?)?;
                reply.write_reply(out);
                Ok(changes)
            }),
        }
    };
}

/// Every command, in the order of its name. This is the only place that maps names to handlers.
pub static COMMANDS: &[CommandInfo] = &[
    CommandInfo {
        name: "api.authenticate",
        doc: "Logs a user or an application in and starts a session for use over HTTP.",
        params: api::Authenticate::fields,
        handler: Handler::Login(api::authenticate),
    },
    CommandInfo {
        name: "api.ping",
        doc: "Answers; needs no session.",
        params: NoParams::fields,
        handler: Handler::Open(api::ping),
    },
    read!("diag.echo", diag::echo, "Answers with its parameters."),
    read!("diag.ping", diag::ping, "Answers."),
    read!("diag.time", diag::time, "Tells the server's time in milliseconds since 1970."),
    read!("org.find", org::find, "Shows one organisation; without parameters the current one."),
    read!(
        "org.list",
        org::list,
        "Lists the current organisation and, for a user, all that the user may work in; by key."
    ),
    change!("session.end", session::end, "Ends a session; without parameters the caller's own."),
    read!("session.find", session::find, "Shows one session of the current organisation."),
    read!("session.info", session::info, "Shows the caller's own session."),
    heavy!(
        "session.list",
        session::list,
        session::is_long_list,
        "Lists the sessions of the current organisation."
    ),
    read!("session.org.list", session::org_list, "Lists the organisations the user may work in."),
    change!(
        "session.org.switch",
        session::org_switch,
        "Moves the session to another organisation."
    ),
    read!("thing.find", thing::find, "Shows one thing of the current organisation."),
    heavy!(
        "thing.list",
        thing::list,
        thing::is_long_list,
        "Lists the things of the current organisation, by key, in the order of its bytes."
    ),
    read!("user.find", user::find, "Shows one user of the current organisation."),
    read!(
        "user.list",
        user::list,
        "Lists the users of the current organisation, by e-mail address."
    ),
];

const fn fields_of_read<P: Params, R>(
    _: fn(&Call<'_>, P) -> Result<R, Failure>,
) -> fn() -> Vec<Field> {
    P::fields
}

type Changed<R> = Result<(R, Changes), Failure>;

const fn fields_of_change<P: Params, R>(_: fn(&Call<'_>, P) -> Changed<R>) -> fn() -> Vec<Field> {
    P::fields
}

/// The number of a command in [`COMMANDS`]; names are read without regard to case.
pub fn find(name: &str) -> Option<usize> {
    let mut slot = slot_of(name);
    loop {
        let index = usize::from(SLOTS[slot].checked_sub(1)?);
        if COMMANDS[index].name.eq_ignore_ascii_case(name) {
            return Some(index);
        }
        slot = (slot + 1) % SLOTS.len();
    }
}

/// Where to begin to look for a name: every request looks one up, and a binary search of strings
/// was the dearest part of it.
static SLOTS: LazyLock<[u8; 512]> = LazyLock::new(|| {
    let mut slots = [0; 512];
    for (index, info) in COMMANDS.iter().enumerate() {
        let mut slot = slot_of(info.name);
        while slots[slot] != 0 {
            slot = (slot + 1) % slots.len();
        }
        slots[slot] = u8::try_from(index + 1).expect("at most 255 commands");
    }
    slots
});

/// FNV-1a of the name in lower case.
fn slot_of(name: &str) -> usize {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193);
    let hash = name.bytes().fold(0x811c_9dc5, step);
    (hash ^ hash >> 16) as usize % 512
}

/// The permission that a command needs: the one of its name.
pub fn permission(index: usize) -> Permission {
    static PERMISSIONS: LazyLock<Vec<Permission>> = LazyLock::new(|| {
        let named = |info: &CommandInfo| Permission::named(info.name);
        COMMANDS.iter().map(|info| named(info).expect("every command is a permission")).collect()
    });
    PERMISSIONS[index]
}

/// Whether a command may be called before a login (`tr50.md` 3.1).
pub fn needs_no_session(name: &str) -> bool {
    matches!(name, "api.authenticate" | "api.ping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_command_has_its_permission() {
        assert!(COMMANDS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for (index, info) in COMMANDS.iter().enumerate() {
            assert_eq!(permission(index).name(), info.name);
        }
    }

    #[test]
    fn names_are_read_without_regard_to_case() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(find(name).map(|index| COMMANDS[index].name), expected, "{name}");
        };
        check("diag.ping", Some("diag.ping"));
        check("Session.LIST", Some("session.list"));
        check("session.lis", None);
        check("", None);
        check(&"x".repeat(100), None);
        check("sessioñ.list", None);
    }
}
