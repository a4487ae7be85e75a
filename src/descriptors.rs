//! File descriptors: how many connections the limit of the process allows. Every connection takes
//! one; the store and file transfers need some, too.

use base::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Asks for as many as this user may have: the usual default of 1024 is meant for programs of
/// another kind. What is refused shows in [`connections_max`].
pub fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many of the connections that the configuration allows this process can have, with a word in
/// the log when these are fewer. A connection beyond them is answered that the server is full;
/// without descriptors it would be kept waiting, and the store could not open its files.
pub fn connections_max(wanted: usize) -> usize {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return wanted };
    let possible = besides_files(descriptors);
    if possible < wanted {
        tracing::warn!(
            descriptors,
            connections = possible,
            "limits.connections does not fit into the limit of open files (ulimit -n): fewer are \
             taken"
        );
    }
    possible.min(wanted)
}

/// The descriptors that connections may have of all.
fn besides_files(descriptors: u64) -> usize {
    let kept = limits::FILES_OPEN_MAX.min(descriptors / 4);
    usize::try_from(descriptors - kept).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_and_files_keep_their_descriptors() {
        let check = |all, connections| assert_eq!(besides_files(all), connections, "{all}");
        check(0, 0);
        check(1024, 768);
        check(20_000, 17_952);
        check(1_048_576, 1_046_528);
    }

    #[test]
    fn more_than_is_wanted_is_never_taken() {
        assert_eq!(connections_max(1), 1);
        assert!(connections_max(usize::MAX) > 1);
    }
}
