//! How much memory this process may use: what the machine has, or the control group if that is less.

use std::fs;
use std::path::Path;

/// Bytes of memory. A kernel that does not say is taken to have little.
pub(super) fn memory() -> u64 {
    memory_below(Path::new("/")).unwrap_or(1 << 30)
}

/// The same of the files below this directory.
fn memory_below(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let of_group = groups.lines().filter_map(|line| limit(root, line)).min();
    let total = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total(&text));
    total.into_iter().chain(of_group).min()
}

/// `MemTotal:       16316412 kB`
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The least limit of a group and of those above it. `0::/a/b` is version 2, `4:memory:/a/b` version
/// 1; what is not in the mount, as in a container, is `/` there.
fn limit(root: &Path, line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, group) = rest.split_once(':')?;
    let (mount, name) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let group = Path::new(group.trim_start_matches('/'));
    // "max" is no number, and no limit.
    let read = |dir: &Path| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    let mount = root.join(mount);
    group.ancestors().filter_map(|group| read(&mount.join(group))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        }
        memory_below(dir.path())
    }

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        let total = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:       16 kB\n");
        assert_eq!(machine(&[]), None);
        assert_eq!(machine(&[total]), Some(16_384));
        let two = ("proc/self/cgroup", "0::/a/b\n");
        let above = ("sys/fs/cgroup/a/memory.max", "4096\n");
        let unlimited = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(machine(&[total, two, above, unlimited]), Some(4096));
        assert_eq!(machine(&[total, two, unlimited]), Some(16_384));
        let one = ("proc/self/cgroup", "5:cpu:/x\n4:memory:/a\n1:name=systemd:/a\n");
        let limit = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8192\n");
        assert_eq!(machine(&[total, one, limit]), Some(8192));
        // Seen from within a container.
        let root = ("sys/fs/cgroup/memory.max", "2048\n");
        assert_eq!(machine(&[total, ("proc/self/cgroup", "0::/\n"), root]), Some(2048));
    }

    #[test]
    fn this_machine_has_some() {
        assert!(memory() > 1 << 20);
    }
}
