//! `thing.*`: things (`tr50.md` 4.1, 4.4 and 4.5).

use super::{change, heavy, store, wait};
use crate::tr50::dispatch::CommandInfo;

mod bind;
mod change;
mod find;
mod object;
mod query;
mod tags;

/// The family's rows in the table of commands.
pub const COMMANDS: &[CommandInfo] = &[
    store!(
        "thing.appid.reset",
        change::reset_app_id,
        "Forgets the application id that a thing last logged in with; for administrators.",
        "",
        [NOT_FOUND]
    ),
    wait!(
        "thing.bind",
        bind::bind,
        "Binds a thing to the application's own: its connection serves both. An unknown one is \
         made.",
        "",
        [NOT_FOUND, WRONG_SESSION_KIND]
    ),
    store!("thing.create", change::create, "Makes a thing.", "`id`", [ALREADY_EXISTS, NOT_FOUND]),
    store!(
        "thing.def.change",
        change::change_def,
        "Gives a thing another definition.",
        "",
        [NOT_FOUND]
    ),
    change!(
        "thing.delete",
        change::delete,
        "Deletes a thing with all that belongs to it; its sessions end, things that are bound to \
         it are free.",
        "",
        [NOT_FOUND]
    ),
    heavy!(
        "thing.find",
        find::find,
        find::is_long_list,
        "Shows one thing of the current organisation.",
        "the thing",
        [NOT_FOUND]
    ),
    heavy!(
        "thing.list",
        find::list,
        find::is_long_list,
        "Lists the things of the current organisation, by key, in the order of its bytes.",
        "`count`, `fields`, `iterator`, `result`",
        [END_OF_RESULTS]
    ),
    heavy!(
        "thing.search",
        find::search,
        find::is_long_list,
        "Lists the things in which words occur, as `thing.list` does.",
        "`count`, `fields`, `iterator`, `result`",
        [END_OF_RESULTS]
    ),
    wait!("thing.sectag.add", tags::sec_add, "Adds security tags to things.", "", [NOT_FOUND]),
    heavy!(
        "thing.sectag.cloud",
        tags::sec_cloud,
        tags::is_long_cloud,
        "Counts the things with each security tag.",
        "`result`",
        []
    ),
    wait!(
        "thing.sectag.delete",
        tags::sec_delete,
        "Takes security tags from things.",
        "",
        [NOT_FOUND]
    ),
    wait!("thing.tag.add", tags::add, "Adds tags to things.", "", [NOT_FOUND]),
    heavy!(
        "thing.tag.cloud",
        tags::cloud,
        tags::is_long_cloud,
        "Counts the things with each tag.",
        "`result`",
        []
    ),
    wait!("thing.tag.delete", tags::delete, "Takes tags from things.", "", [NOT_FOUND]),
    store!(
        "thing.unbind",
        bind::unbind,
        "Frees a thing that is bound to another one.",
        "",
        [NOT_FOUND]
    ),
    store!("thing.update", change::update, "Changes a thing.", "", [NOT_FOUND, ALREADY_EXISTS]),
];
