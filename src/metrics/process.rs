//! What the system says of this process, by the names that the libraries of Prometheus use.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::form::Page;

/// Adds what can be read of the process.
pub(super) fn write(page: &mut Page) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_s = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    page.number("process_cpu_seconds_total", "Time that the process had on processors", cpu_s);
    let mut known = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            page.number(name, help, value);
        }
    };
    let [resident, virtual_memory] = memory_bytes();
    known("process_resident_memory_bytes", "Memory that the process has", resident);
    known("process_virtual_memory_bytes", "Addresses that the process has", virtual_memory);
    known("process_open_fds", "File descriptors that are open", open_files());
    let most = getrlimit(Resource::Nofile).current.map(|most| most as f64);
    known("process_max_fds", "File descriptors that may be open", most);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    known("process_threads", "Threads of the process", field(&stat, THREADS));
    let start = "When the process began, in Unix seconds";
    known("process_start_time_seconds", start, start_seconds(&stat));
}

/// The resident memory of the process in bytes.
pub(super) fn resident_bytes() -> Option<f64> {
    let [resident, _] = memory_bytes();
    resident
}

/// Fields of `/proc/self/stat`, counted from the one behind the program's name (proc_pid_stat(5)).
const THREADS: usize = 17;
const START: usize = 19;

fn field(stat: &str, index: usize) -> Option<f64> {
    // The name may have spaces and brackets of its own.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(index)?.parse().ok()
}

/// Resident and virtual memory.
fn memory_bytes() -> [Option<f64>; 2] {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = pages.split(' ').map(|pages| pages.parse::<f64>().ok());
    let mut next = || pages.next().flatten().map(|pages| pages * page_size() as f64);
    let (all, resident) = (next(), next());
    [resident, all]
}

fn open_files() -> Option<f64> {
    let dir = "/proc/self/fd";
    // Newer kernels say how many there are; counting them takes a while if they are many.
    match fs::metadata(dir).ok()?.len() {
        0 => Some(fs::read_dir(dir).ok()?.count() as f64 - 1.0),
        count => Some(count as f64),
    }
}

fn start_seconds(stat: &str) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let ticks = field(stat, START)?;
    Some(boot.trim().parse::<f64>().ok()? + ticks / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_hides_no_field() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 21 18 900 20";
        assert_eq!((field(stat, THREADS), field(stat, START)), (Some(21.0), Some(900.0)));
        assert_eq!(field("", START), None);
    }
}
