//! The table of commands, and one file for each family: parameters, handlers, replies, tests.
//!
//! Where a function returns a [`Failure`] and says nothing of errors, only the store can have
//! failed.

use std::sync::LazyLock;

use base::Failure;
use rules::identity::permission::{Permission, PermissionSet};

use super::params::{Field, Params, Reach};
use super::step::{Call, CommandInfo, IntoStep, OpenCall, Waits};

pub mod alarm;
pub mod api;
pub mod app;
pub mod app_token;
pub mod attribute;
pub mod audit;
mod authorize;
mod ban;
pub mod diag;
pub mod event;
pub mod file;
mod history;
pub mod locale;
pub mod location;
pub mod log;
pub mod login;
pub mod mailbox;
pub mod method;
pub mod module;
pub mod org;
mod paging;
pub mod property;
pub mod publish;
pub mod role;
pub mod search;
pub mod server;
pub mod session;
pub mod sms;
mod span;
pub mod stats;
mod target;
pub mod thing;
pub mod thing_attr;
pub mod thing_def;
pub mod token;
pub mod usage;
pub mod user;
pub mod user_invite;
pub mod user_mfa;
pub mod user_org;
pub mod user_setting;
pub mod user_token;
pub mod webhook;

/// The rows of a family: name, handler, codes of failures that not every command has; what it does;
/// members of `params` in the reply. `open` stands before a command that needs no session, `act` before
/// one whose use is in the trail: what changes organisations, users, roles, applications and
/// definitions, ends sessions of others, or removes what belongs to others. `where` says what every
/// use needs beside the permission, and after the reply what some uses need, which the handler
/// checks. How the reply is waited for is said by the handler's type.
macro_rules! commands {
    ($($($mark:ident)? $name:literal => $handler:path $(where $need:path)?, [$($error:ident),*],
        $doc:literal, $reply:literal $(, $part:literal where $of_part:path)*;)*) => {
        /// The family's rows in the table of commands.
        pub(in crate::tr50) const COMMANDS: &[$crate::tr50::step::CommandInfo] =
            &[$($crate::tr50::commands::command!(
                $($mark)? $name, $handler, [$($need)?], $doc, $reply, [$($error),*],
                [$($part, $of_part;)*]
            )),*];
    };
}

/// One row of [`commands`].
macro_rules! command {
    ($name:literal, $($row:tt)*) => {
        $crate::tr50::commands::command!(in_session false, $name, $($row)*)
    };
    // A command whose use is in the trail.
    (act $name:literal, $($row:tt)*) => {
        $crate::tr50::commands::command!(in_session true, $name, $($row)*)
    };
    (in_session $act:literal, $name:literal, $handler:path, [$($need:path)?], $doc:literal,
     $reply:literal, [$($error:ident),*], [$($part:literal, $of_part:path;)*]) => {
        $crate::tr50::commands::command!(
            InSession, $act, $name, $handler, [$($need)?], $doc, $reply, [$($error),*],
            &[
                $($crate::tr50::step::Need { part: "", check: $need },)?
                $($crate::tr50::step::Need { part: $part, check: $of_part },)*
            ],
            $crate::tr50::commands::fields_of($handler),
            $crate::tr50::commands::waits_of($handler),
            $crate::tr50::commands::is_strict($handler),
            $crate::tr50::commands::reach_of($handler)
        )
    };
    // A command that needs no session.
    (open $name:literal, $handler:path, [], $doc:literal, $reply:literal, [$($error:ident),*], []) => {
        $crate::tr50::commands::command!(
            Open, false, $name, $handler, [], $doc, $reply, [$($error),*],
            &[],
            $crate::tr50::commands::open_fields_of($handler),
            $crate::tr50::commands::open_waits_of($handler),
            false,
            $crate::tr50::params::Reach::Nothing
        )
    };
    ($kind:ident, $act:literal, $name:literal, $handler:path, [$($need:path)?], $doc:literal,
     $reply:literal, [$($error:ident),*],
     $needs:expr, $params:expr, $waits:expr, $strict:expr, $reach:expr) => {
        $crate::tr50::step::CommandInfo {
            name: $name,
            doc: $doc,
            reply: $reply,
            errors: &[$(base::Code::$error),*],
            params: $params,
            waits: $waits,
            is_act: $act,
            is_strict: $strict,
            needs: $needs,
            reach: $reach,
            handler: $crate::tr50::step::Handler::$kind(|call, params, out| {
                let params = $crate::tr50::strict::read($name, params)?;
                $($need(call)?;)?
                let done = $handler(call, params)?;
                Ok($crate::tr50::step::IntoStep::into_step(done, out))
            }),
        }
    };
}

pub(crate) use {command, commands};

/// Every command, in the order of its name. A family's rows are in its file.
pub static COMMANDS: LazyLock<Vec<&'static CommandInfo>> = LazyLock::new(|| {
    let families: [&'static [CommandInfo]; 35] = [
        alarm::COMMANDS,
        api::COMMANDS,
        app::COMMANDS,
        app_token::COMMANDS,
        attribute::COMMANDS,
        audit::COMMANDS,
        diag::COMMANDS,
        event::COMMANDS,
        file::COMMANDS,
        locale::COMMANDS,
        location::COMMANDS,
        log::COMMANDS,
        login::COMMANDS,
        mailbox::COMMANDS,
        method::COMMANDS,
        module::COMMANDS,
        org::COMMANDS,
        property::COMMANDS,
        role::COMMANDS,
        search::COMMANDS,
        server::COMMANDS,
        session::COMMANDS,
        sms::COMMANDS,
        stats::COMMANDS,
        thing::COMMANDS,
        thing_attr::COMMANDS,
        thing_def::COMMANDS,
        usage::COMMANDS,
        user::COMMANDS,
        user_invite::COMMANDS,
        user_mfa::COMMANDS,
        user_org::COMMANDS,
        user_setting::COMMANDS,
        user_token::COMMANDS,
        webhook::COMMANDS,
    ];
    let mut commands: Vec<_> = families.into_iter().flatten().collect();
    commands.sort_unstable_by_key(|info| info.name);
    commands
});

/// The parameters of a handler.
const fn fields_of<P: Params, R>(_: fn(&Call<'_>, P) -> R) -> fn() -> Vec<Field> {
    P::fields
}

/// Whether a handler takes no unknown parameter.
const fn is_strict<P: Params, R>(_: fn(&Call<'_>, P) -> R) -> bool {
    P::IS_STRICT
}

/// What is asked of the thing that the parameters of a handler name.
const fn reach_of<P: Params, R>(_: fn(&Call<'_>, P) -> R) -> Reach {
    P::REACH
}

/// What the reply of a handler waits for.
const fn waits_of<P, S: IntoStep>(_: fn(&Call<'_>, P) -> Result<S, Failure>) -> Waits {
    S::WAITS
}

/// As [`fields_of`], for a handler that needs no session.
const fn open_fields_of<P: Params, R>(_: fn(&OpenCall<'_>, P) -> R) -> fn() -> Vec<Field> {
    P::fields
}

/// As [`waits_of`], for a handler that needs no session.
const fn open_waits_of<P, S: IntoStep>(_: fn(&OpenCall<'_>, P) -> Result<S, Failure>) -> Waits {
    S::WAITS
}

/// A command as it is looked up.
pub struct Row {
    /// Its number in [`COMMANDS`].
    pub index: usize,
    /// The permission that it needs: the one of its name.
    pub permission: Permission,
    /// Everything else.
    pub info: &'static CommandInfo,
}

/// The command with this name, read without regard to case.
pub fn find(name: &str) -> Option<&'static Row> {
    let Table { rows, slots } = &*TABLE;
    let mut slot = slot_of(name.as_bytes());
    loop {
        let row = rows.get(usize::from(slots[slot]))?;
        if row.info.name == name || row.info.name.eq_ignore_ascii_case(name) {
            return Some(row);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// Several times as many as there are commands, so that few names share one.
const SLOTS: usize = 1024;

/// Where to find a name: every request looks one up, and a binary search of strings was the dearest
/// part of it.
struct Table {
    rows: Vec<Row>,
    /// Indices of rows; [`NO_ROW`] where none is.
    slots: [u16; SLOTS],
}

const NO_ROW: u16 = u16::MAX;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let row = |(index, info): (usize, &&'static CommandInfo)| {
        let permission = Permission::named(info.name).unwrap_or_else(|| {
            panic!("{} is no permission: add it to NAMES in crates/rules", info.name)
        });
        Row { index, permission, info }
    };
    let rows: Vec<_> = COMMANDS.iter().enumerate().map(row).collect();
    let mut slots = [NO_ROW; SLOTS];
    for row in &rows {
        let mut slot = slot_of(row.info.name.as_bytes());
        while slots[slot] != NO_ROW {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = u16::try_from(row.index).expect("some hundred commands");
    }
    Table { rows, slots }
});

/// Mixes the length of a name and its first and last eight letters, in lower case: all of them, one
/// by one, would take several times as long. Shorter names share a slot; no command has one.
fn slot_of(name: &[u8]) -> usize {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) else { return 0 };
    let (first, last) = (u64::from_le_bytes(*first) | LOWER, u64::from_le_bytes(*last) | LOWER);
    let mixed =
        (first ^ last.rotate_left(29) ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize % SLOTS
}

/// Families of names that clients may know, of which nobody has a list: the portal's passwords, and
/// the gateways of the API of 2012 (`docs/protocol/tr50.md` 4.1 and 4.5).
const UNLISTED: [&str; 2] = ["gateway.", "user.password."];

/// Whether the name is one of TR50's commands that no family here implements. They need a foreign
/// service (telephone, weather, mail) or another of the vendor's products (triggers, campaigns).
pub fn is_not_configured(name: &str) -> bool {
    let listed = Permission::named(name).is_some_and(|known| known.name().contains('.'));
    let unlisted = |family: &&str| {
        name.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family))
    };
    find(name).is_none() && (listed || UNLISTED.iter().any(unlisted))
}

/// The command that may be meant by a name that nobody knows: the one with the fewest letters
/// changed, if these are few. Names are compared that are almost as long; a few hundred short ones.
pub fn nearest(name: &str) -> Option<&'static str> {
    const BYTES_MAX: usize = 64;
    const CHANGES_MAX: usize = 3;
    if name.len() > BYTES_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let changes_max = (name.len() / 4).min(CHANGES_MAX);
    let candidates = PermissionSet::ALL
        .names()
        .filter(|known| known.contains('.') && known.len().abs_diff(name.len()) <= changes_max);
    let changes = |known| (strsim::osa_distance(&name, known), find(known).is_none(), known);
    let near = candidates.map(changes).filter(|(changes, ..)| *changes <= changes_max);
    near.min().map(|(.., known)| known)
}

/// The names that [`is_not_configured`], sorted; `gateway.` stands for all that begin so.
pub fn not_configured() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = PermissionSet::ALL.names().chain(UNLISTED).collect();
    names.sort_unstable();
    names.into_iter().filter(|name| is_not_configured(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_command_has_its_permission() {
        assert!(COMMANDS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for (index, info) in COMMANDS.iter().enumerate() {
            let row = find(info.name).expect("a row");
            assert_eq!((row.index, row.permission.name()), (index, info.name));
        }
    }

    #[test]
    fn what_nobody_implements_is_told_from_what_nobody_knows() {
        let check = |name: &str, expected| assert_eq!(is_not_configured(name), expected, "{name}");
        check("twilio.sms.send", true);
        check("Campaign.START", true);
        check("thing.alarm.states", true);
        check("trigger.action.list", true);
        check("thing.aggregate", true);
        check("thing.aggregate.locations", true);
        check("gateway.list", true);
        check("USER.PASSWORD.reset", true);
        check("diag.ping", false);
        check("twilio", false);
        check("twilio.sms.snd", false);
        check("gateway", false);
        check("gatewäy.list", false);
        check("", false);
        assert!(not_configured().all(|name| COMMANDS.iter().all(|info| info.name != name)));
        assert!(not_configured().any(|name| name == "gateway."));
    }

    #[test]
    fn the_near_command_is_found() {
        let check =
            |name: &str, expected: Option<&str>| assert_eq!(nearest(name), expected, "{name}");
        check("diag.pign", Some("diag.ping"));
        check("DIAG.PNG", Some("diag.ping"));
        check("sesion.list", Some("session.list"));
        check("session_list", Some("session.list"));
        check("things.list", Some("thing.list"));
        check("property.publsh", Some("property.publish"));
        check("campain.start", Some("campaign.start"));
        for far in ["", "a", "abc", "reboot", "thing", "do.what.i.mean", "\u{fffd}\u{fffd}"] {
            check(far, None);
        }
        check(&"session.list".repeat(100), None);
    }

    #[test]
    fn names_are_read_without_regard_to_case() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(find(name).map(|row| row.info.name), expected, "{name}");
        };
        check("diag.ping", Some("diag.ping"));
        check("Session.LIST", Some("session.list"));
        check("session.lis", None);
        check("", None);
        check(&"x".repeat(100), None);
        check("sessioñ.list", None);
    }
}
