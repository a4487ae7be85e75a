//! Instructions that pieces of the server's work take, against those in
//! `fixtures/instructions.toml`: 1.5 times as many fail. Timings differ from run to run and from
//! machine to machine, counts hardly do.
//!
//! valgrind counts them (callgrind, which simulates the processor). `tests/run` installs it; where
//! it is missing, the test says so and passes, unless `TR50D_TEST_CLIENTS` is set.
//!
//! What counts is what users get, so this is built as packages are, and `cargo test` alone leaves it
//! out: `cargo test --profile bench --test instruction_counts`, with `UPDATE_COUNTS=1` after a change
//! that is meant to be. Only the thread that does the work is counted, and only while it does: not
//! the making of the sessions, nor the store's thread.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use support::micro::{PAGE, PIECES, Setup, Step, expiry};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sessions beside those that expire: fewer than `cargo bench` has, for valgrind is slow.
const SESSIONS: usize = 10_000;

/// Enough for a page of 50 from the hundredth on.
const FEWER_SESSIONS: usize = 4_000;

const EXPIRING: usize = 1_000;

/// How often each piece is done while it is counted.
const STEPS: u64 = 10;

/// The page of a directory with fewer sessions.
const PAGE_OF_FEWER: &str = "session.list, 50, of fewer sessions";

/// The expiry of [`EXPIRING`] sessions that are due at the same time.
const EXPIRY: &str = "expire 1,000 sessions";

/// What a piece may not take, in terms of what it took.
const GROWTH_MAX: f64 = 1.5;

/// What a page may take of many sessions in terms of what it takes of few.
const PAGE_GROWTH_MAX: f64 = 1.1;

/// Set in the process that is counted.
const COUNTED: &str = "COUNTED_PIECES";

#[test]
fn no_piece_takes_many_more_instructions_than_it_took() {
    if !is_valgrind_here() {
        return;
    }
    let counts = count();
    if env::var_os("UPDATE_COUNTS").is_some() {
        fs::write(fixture(), written(&counts)).expect("the fixture");
    }
    let text = fs::read_to_string(fixture()).expect("the fixture");
    let committed: BTreeMap<String, u64> = toml::from_str(&text).expect("the fixture's form");
    let names = |counts: &BTreeMap<String, u64>| counts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&counts), names(&committed), "the pieces of the fixture");
    let mut slower = Vec::new();
    for (name, count) in &counts {
        let before = committed[name];
        let growth = *count as f64 / before as f64;
        eprintln!("{name}: {count} instructions, committed {before}, {growth:.3}");
        if growth >= GROWTH_MAX {
            slower.push(format!("{name}: {count} instructions instead of {before}"));
        }
    }
    assert!(slower.is_empty(), "{GROWTH_MAX} times as many or more:\n{}", slower.join("\n"));
    let growth = counts[PAGE] as f64 / counts[PAGE_OF_FEWER] as f64;
    assert!(growth < PAGE_GROWTH_MAX, "a page takes {growth:.3} times as many of more sessions");
}

/// Not a test: the process that is counted, which is this program again.
#[test]
fn do_the_work_that_is_counted() {
    if env::var_os(COUNTED).is_none() {
        return;
    }
    let setup = Rc::new(Setup::with_sessions(SESSIONS));
    let count = |prepare: fn(&Rc<Setup>) -> Step, setup: &Rc<Setup>| {
        let mut step = prepare(setup);
        // What is made ready with its first use.
        step();
        write_count_after(STEPS, &mut step);
    };
    for piece in PIECES {
        count(piece.prepare, &setup);
    }
    let page = PIECES.iter().find(|piece| piece.name == PAGE).expect("it is one");
    count(page.prepare, &Rc::new(Setup::with_sessions(FEWER_SESSIONS)));
    expiry(1)();
    write_count_after(1, &mut expiry(EXPIRING));
}

/// What [`do_the_work_that_is_counted`] counts, in order, and how often each is done.
fn counted() -> Vec<(&'static str, u64)> {
    let pieces = PIECES.iter().map(|piece| (piece.name, STEPS));
    pieces.chain([(PAGE_OF_FEWER, STEPS), (EXPIRY, 1)]).collect()
}

/// callgrind knows these two by their names: it counts what is called from the first, and writes
/// its sum into a file each time that the second returns.
#[inline(never)]
fn repeat_counted(steps: u64, step: &mut Step) {
    for _ in 0..steps {
        step();
    }
}

#[inline(never)]
fn write_count_after(steps: u64, step: &mut Step) {
    repeat_counted(steps, step);
    // Something to do behind it, so that it is a call of its own in every build.
    std::hint::black_box(step);
}

/// Instructions of each piece, done once.
fn count() -> BTreeMap<String, u64> {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("counts");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=*repeat_counted*"]);
    valgrind.arg("--dump-after=*write_count_after*");
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(env::current_exe().expect("this program"));
    valgrind.args(["--exact", "do_the_work_that_is_counted", "--test-threads=1", "--nocapture"]);
    let output = valgrind.env(COUNTED, "1").output().expect("valgrind runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let sums = (1..).map_while(|number| sum(&out.with_extension(number.to_string())));
    let (sums, counted) = (sums.collect::<Vec<_>>(), counted());
    assert_eq!(sums.len(), counted.len(), "{said}");
    let each = |((name, steps), sum): ((&str, u64), u64)| (name.to_owned(), sum / steps);
    counted.into_iter().zip(sums).map(each).collect()
}

/// The sum in a file of callgrind's; none if there is no such file.
fn sum(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let sum = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Some(sum.and_then(|sum| sum.trim().parse().ok()).expect("a file of callgrind's has a sum"))
}

fn is_valgrind_here() -> bool {
    let here = Command::new("valgrind").arg("--version").output().is_ok();
    let wanted = env::var_os("TR50D_TEST_CLIENTS").is_some();
    assert!(here || !wanted, "valgrind is not here");
    if !here {
        eprintln!("valgrind is not here: no instructions are counted");
    }
    here
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/instructions.toml")
}

fn written(counts: &BTreeMap<String, u64>) -> String {
    let head = "# Instructions of each piece, done once, built as packages are.\n\
                # What they are, and how they are written anew: tests/instruction_counts.rs.\n";
    let row = |(name, count): (&String, &u64)| format!("\"{name}\" = {count}\n");
    head.to_owned() + &counts.iter().map(row).collect::<String>()
}
