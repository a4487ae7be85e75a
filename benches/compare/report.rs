//! The table with what is needed to judge it: date, machine and command.

use std::fs;
use std::path::Path;

use base::Timestamp;

use super::table::{self, Row};
use super::{Bench, Result};

/// Between these lines of the page is what the program writes.
const BEGIN: &str = "<!-- cargo bench --bench compare -- --write: from here -->";
const END: &str = "<!-- to here -->";

/// The whole report, in Markdown.
pub(crate) fn text(bench: &Bench, rows: &[Row]) -> Result<String> {
    let now = Timestamp::now().to_string();
    let date = now.get(..16).unwrap_or_default().replace('T', " ");
    let options: Vec<_> =
        std::env::args().skip(1).filter(|arg| !["--bench", "--write"].contains(&&**arg)).collect();
    let options =
        if options.is_empty() { String::new() } else { format!(" -- {}", options.join(" ")) };
    Ok(format!(
        "{date} UTC, {}. `cargo bench --bench compare{options}`:\n\n{}",
        machine(bench)?,
        table::markdown(rows)
    ))
}

/// Puts the report into `docs/performance.md`.
pub(crate) fn write(report: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let page = fs::read_to_string(&path)?;
    let parts = page.split_once(BEGIN).zip(page.split_once(END));
    let ((before, _), (_, after)) = parts.ok_or("docs/performance.md has no place for it")?;
    Ok(fs::write(&path, format!("{before}{BEGIN}\n{report}{END}{after}"))?)
}

fn machine(bench: &Bench) -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let field = |line: &str| Some(line.strip_prefix("model name")?.split_once(": ")?.1.to_owned());
    let model = processors.lines().find_map(field).unwrap_or_else(|| "unknown".to_owned());
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kibibytes = memory.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    let gibibytes = kibibytes.unwrap_or_default() as f64 / f64::from(1 << 20);
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or_default();
    let system = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let (cores, system, pages) = (bench.cores.count, system.trim(), huge_pages());
    Ok(format!(
        "{cores} cores ({model}), {gibibytes:.0} GiB, Linux {system}, transparent huge pages {pages}, \
         load average at the end {load}"
    ))
}

/// When the system gives a process huge pages that did not ask for any; resident memory depends on
/// it.
fn huge_pages() -> String {
    let modes = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let modes = modes.unwrap_or_default();
    let chosen = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or("unknown", |(mode, _)| mode).to_owned()
}
