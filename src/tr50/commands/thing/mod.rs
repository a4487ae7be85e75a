//! `thing.*`: things (`docs/protocol/tr50.md` 4.1, 4.4 and 4.5).

use super::commands;
use super::target::check_unrestricted;

mod bind;
mod change;
mod diagnose;
mod dump;
mod find;
mod object;
mod query;
mod tags;
mod trace;
mod traits;

pub(super) use change::check_tags;
pub(super) use find::Selection;
pub(super) use object::ThingBrief;

commands! {
    act "thing.appid.reset" => change::reset_app_id where change::check_administers, [NOT_FOUND],
        "Forgets the application id that a thing last logged in with; for administrators.",
        "";
    "thing.bind" => bind::bind where bind::check_binds, [NOT_FOUND, WRONG_SESSION_KIND],
        "Binds a thing to the application's own: its connection serves both. An unknown one is \
         made.",
        "",
        "things of others" where check_unrestricted;
    "thing.create" => change::create where check_unrestricted, [ALREADY_EXISTS, NOT_FOUND],
        "Makes a thing.",
        "`id`";
    "thing.def.change" => change::change_def, [NOT_FOUND],
        "Gives a thing another definition.",
        "";
    act "thing.delete" => change::delete, [NOT_FOUND],
        "Deletes a thing with all that belongs to it; its sessions end, things that are bound to \
         it are free. Of one that is disabled, key and ban stay, so that it does not register \
         anew: the reply says so by `disabled`, and when the ban is lifted it can be deleted again.",
        "`disabled` if the ban stays";
    "thing.diagnose" => diagnose::diagnose, [],
        "Says why a thing can't connect, or what it is up to: whether it was ever seen, since when and from \
         where it is connected, when and why it left, why its login was refused last, which limits \
         it has reached, what waits for it, what its definition refuses, and whether a login would \
         make it. A key that no thing has is answered, too.",
        "`key`, `exists`, `connected`, `summary`, `findings`, `thing`, `connections`, `left`, \
         `refused`, `failures`, `limits`, `waiting`, `definition`, `registration`; each part has a \
         `text` for people";
    "thing.dump" => dump::dump, [],
        "Shows all about one thing in one reply, as a file for its maker: what these commands show, \
         each as far as the caller may use it, without passwords, tokens and client ids. A key that no \
         thing has is answered, too.",
        "`key`, `serverId`, `version`; `diagnose`, `thing` (`thing.find`), `definition` \
         (`thing_def.find`), `sessions` (`session.list`, the last 20 of all), `mailbox` and `files` \
         (their lists, the first 100), `log` (`log.list`, the last 100), `events` (`event.list`, the \
         last 100); `leftOut`: for each part that is not there, why";
    "thing.find" => find::find, [NOT_FOUND],
        "Shows one thing of the current organisation.",
        "the thing";
    "thing.list" => find::list where check_unrestricted, [END_OF_RESULTS],
        "Lists the things of the current organisation, by key, in the order of its bytes. `show` may \
         also name what is looked for then only: `endReason` and `endTime` of the last session that is \
         known to have ended, `alarmsRaised`, how many alarms are in another state than 0, and \
         `alarmState`, the greatest state. `sort` may name these, too, and `whoAmI` (the key) and \
         `lastAccessed` (the last command).",
        "`count`, `fields`, `iterator`, `result`; with `groupBy` each group with its `count`";
    "thing.search" => find::search where check_unrestricted, [END_OF_RESULTS],
        "Lists the things in which words occur, as `thing.list` does.",
        "`count`, `fields`, `iterator`, `result`";
    "thing.sectag.add" => tags::sec_add, [NOT_FOUND],
        "Adds security tags to things.",
        "",
        "many things by filters" where check_unrestricted;
    "thing.sectag.cloud" => tags::sec_cloud where check_unrestricted, [],
        "Counts the things with each security tag.",
        "`result`";
    "thing.sectag.delete" => tags::sec_delete, [NOT_FOUND],
        "Takes security tags from things.",
        "",
        "many things by filters" where check_unrestricted;
    "thing.tag.add" => tags::add, [NOT_FOUND],
        "Adds tags to things.",
        "",
        "many things by filters" where check_unrestricted;
    "thing.tag.cloud" => tags::cloud where check_unrestricted, [],
        "Counts the things with each tag.",
        "`result`";
    "thing.tag.delete" => tags::delete, [NOT_FOUND],
        "Takes tags from things.",
        "",
        "many things by filters" where check_unrestricted;
    act "thing.trace" => trace::trace, [NOT_FOUND, LIMIT_REACHED],
        "Keeps the frames of one thing for a while, over whatever door it comes, both directions, \
         without passwords, tokens, ids of sessions and codes: from now on, or from its next login. \
         With `read` it shows them. It ends after its seconds, at one megabyte, with the thing, and \
         with the right of who began it; its frames are in memory until an hour later.",
        "`key`, `exists`, `connected`, `tracing`, `started`, `until`, `by`, `ended` and `reason` when it \
         has, `bytes`; with `read`: `result`, an array of frames with `number`, `ts`, `direction` \
         (`in`, `out`), `door`, `connection`, `packet`, `version`, `topic`, `payload`, `frame`, \
         `encoding` (`text`, `base64`) and `redacted`, `last`, and `more` if there are more";
    "thing.unbind" => bind::unbind, [NOT_FOUND],
        "Frees a thing that is bound to another one.",
        "";
    "thing.update" => change::update, [NOT_FOUND, ALREADY_EXISTS],
        "Changes a thing. Disabled, it loses its sessions, logs in no more, and others publish nothing \
         in its name; what it has stays, and what is sent to it waits as for one that is not \
         connected. Nobody disables themselves.",
        "",
        "`disabled`" where check_unrestricted;
}
