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

    /// Has the system make its table of descriptors as large as it may become. Each time that it
    /// grows, the thread for which it does waits for all cores: of 20,000 connections that came at
    /// once, a few kept everybody waiting for up to 26 ms.
    pub fn make_table(self) {
        let files = limits::STORE_FILES_MAX + limits::OTHER_FILES_MAX;
        let wanted = self.connections.saturating_add(self.beyond + self.transfers + files);
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let allowed = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let Ok(last) = i32::try_from(wanted.min(allowed).saturating_sub(1)) else { return };
        // One with this number, which closes at once. Without standard error there is none to copy,
        // and the table grows when it has to.
        let _ = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last);
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

    #[cfg(target_os = "linux")]
    #[test]
    fn the_table_is_as_large_as_it_may_become() {
        raise();
        let shares = Shares::of_process(3000);
        shares.make_table();
        let status = std::fs::read_to_string("/proc/self/status").expect("a process");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let size: usize = size.expect("a table").trim().parse().expect("a number");
        assert!(size >= shares.connections, "{size}");
    }

    #[test]
    fn more_than_is_wanted_is_never_taken() {
        assert_eq!(Shares::of_process(1).connections, 1);
        assert!(Shares::of_process(usize::MAX).connections > 1);
    }
}
