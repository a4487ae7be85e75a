//! File descriptors: who may have how many of those that the process is allowed. Nobody takes what
//! the store needs: its engine stops to work when it can't open a file.

use base::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Asks for as many as this user may have: the usual default of 1024 is meant for programs of
/// another kind. What is refused shows in [`Shares`].
pub fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Who may have how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shares {
    /// Connections.
    pub connections: usize,
    /// Connections beyond them that get as far as their login; any more are just closed.
    pub beyond: usize,
    /// Files that are moved.
    pub transfers: usize,
}

impl Shares {
    /// The shares of this process, with a word in the log when fewer connections are possible than
    /// the configuration wants.
    pub fn of_process(wanted: usize) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current;
        let shares = Self::of(descriptors.unwrap_or(u64::MAX), wanted);
        if shares.connections < wanted {
            tracing::warn!(
                descriptors,
                connections = shares.connections,
                "limits.connections does not fit into the limit of open files (ulimit -n): fewer \
                 are taken"
            );
        }
        shares
    }

    fn of(descriptors: u64, wanted: usize) -> Self {
        let all = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let part = |most: usize, part: usize| most.min(all / part);
        let beyond = part(limits::TOLD_FULL_MAX, 16);
        let transfers = part(limits::FILE_TRANSFERS_MAX as usize, 8);
        let store = part(limits::STORE_FILES_MAX, 3);
        let rest = part(limits::OTHER_FILES_MAX, 6);
        let connections = all - beyond - transfers - store - rest;
        Self { connections: connections.min(wanted), beyond, transfers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_some_of_few() {
        let check = |all, connections, transfers| {
            let shares = Shares::of(all, usize::MAX);
            assert_eq!((shares.connections, shares.transfers), (connections, transfers), "{all}");
        };
        check(0, 0, 0);
        check(300, 97, 37);
        check(1024, 443, 128);
        check(4096, 2924, 512);
        check(20_000, 18_340, 1000);
        check(u64::MAX, usize::MAX - 1660, 1000);
    }

    #[test]
    fn more_than_is_wanted_is_never_taken() {
        assert_eq!(Shares::of_process(1).connections, 1);
        assert!(Shares::of_process(usize::MAX).connections > 1);
    }
}
