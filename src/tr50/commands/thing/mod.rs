//! `thing.*`: things (`tr50.md` 4.1, 4.4 and 4.5).

use super::command;
use crate::tr50::step::CommandInfo;

mod bind;
mod change;
mod find;
mod object;
mod query;
mod tags;

/// The family's rows in the table of commands.
pub const COMMANDS: &[CommandInfo] = &[
    command!(
        "thing.appid.reset",
        change::reset_app_id,
        "Forgets the application id that a thing last logged in with; for administrators.",
        "",
        [NOT_FOUND]
    ),
    command!(
        "thing.bind",
        bind::bind,
        "Binds a thing to the application's own: its connection serves both. An unknown one is \
         made.",
        "",
        [NOT_FOUND, WRONG_SESSION_KIND]
    ),
    command!("thing.create", change::create, "Makes a thing.", "`id`", [ALREADY_EXISTS, NOT_FOUND]),
    command!(
        "thing.def.change",
        change::change_def,
        "Gives a thing another definition.",
        "",
        [NOT_FOUND]
    ),
    command!(
        "thing.delete",
        change::delete,
        "Deletes a thing with all that belongs to it; its sessions end, things that are bound to \
         it are free.",
        "",
        [NOT_FOUND]
    ),
    command!(
        "thing.find",
        find::find,
        "Shows one thing of the current organisation.",
        "the thing",
        [NOT_FOUND]
    ),
    command!(
        "thing.list",
        find::list,
        "Lists the things of the current organisation, by key, in the order of its bytes.",
        "`count`, `fields`, `iterator`, `result`",
        [END_OF_RESULTS]
    ),
    command!(
        "thing.search",
        find::search,
        "Lists the things in which words occur, as `thing.list` does.",
        "`count`, `fields`, `iterator`, `result`",
        [END_OF_RESULTS]
    ),
    command!("thing.sectag.add", tags::sec_add, "Adds security tags to things.", "", [NOT_FOUND]),
    command!(
        "thing.sectag.cloud",
        tags::sec_cloud,
        "Counts the things with each security tag.",
        "`result`",
        []
    ),
    command!(
        "thing.sectag.delete",
        tags::sec_delete,
        "Takes security tags from things.",
        "",
        [NOT_FOUND]
    ),
    command!("thing.tag.add", tags::add, "Adds tags to things.", "", [NOT_FOUND]),
    command!("thing.tag.cloud", tags::cloud, "Counts the things with each tag.", "`result`", []),
    command!("thing.tag.delete", tags::delete, "Takes tags from things.", "", [NOT_FOUND]),
    command!(
        "thing.unbind",
        bind::unbind,
        "Frees a thing that is bound to another one.",
        "",
        [NOT_FOUND]
    ),
    command!("thing.update", change::update, "Changes a thing.", "", [NOT_FOUND, ALREADY_EXISTS]),
];
