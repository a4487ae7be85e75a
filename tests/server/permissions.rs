//! The reviewed table of who may what: `fixtures/permissions`, whose README.md describes its form.
//! Every command and every path, for every kind of caller, on what is in the own organisation, in
//! another one, and nowhere. `session.explain` has to say beforehand what comes of each command.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tr50d::tr50::commands::COMMANDS;

mod world;

use world::{CALLERS, Reply, Target, World};

/// With this variable, the tables are written anew where the server answers something else.
const UPDATE: &str = "UPDATE_PERMISSIONS";

/// Servers at a time.
const THREADS: usize = 2;

/// A request of the table, and what it says of each target.
struct Row {
    /// Its place in the table.
    number: usize,
    /// Whether it tells what is elsewhere from what is not: names that are unique on the server.
    tells: bool,
    /// Whether it has a server of its own, because it changes its callers.
    alone: bool,
    request: String,
    /// As they are in the file.
    outcomes: String,
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/permissions")
}

fn read(file: &str) -> (String, Vec<Row>) {
    let text = std::fs::read_to_string(directory().join(file)).expect(file);
    let (mut head, mut rows) = (String::new(), Vec::<Row>::new());
    for line in text.lines() {
        match rows.last_mut() {
            None if line.starts_with('#') => {
                head += line;
                head.push('\n');
            }
            Some(row) if line.starts_with(' ') => {
                row.outcomes += line;
                row.outcomes.push('\n');
            }
            _ if line.is_empty() => {}
            _ => {
                let (tells, rest) = without(line, "tells ");
                let (alone, request) = without(rest, "alone ");
                let (number, request) = (rows.len(), request.to_owned());
                rows.push(Row { number, tells, alone, request, outcomes: String::new() });
            }
        }
    }
    (head, rows)
}

/// Whether a line has the prefix, and the line without it.
fn without<'a>(line: &'a str, prefix: &str) -> (bool, &'a str) {
    line.strip_prefix(prefix).map_or((false, line), |rest| (true, rest))
}

/// Asks what every row asks, and compares, or rewrites the table.
fn walk(file: &str, ask: impl Fn(&World, &str, usize, Target) -> Reply + Sync) {
    let (head, rows) = read(file);
    let requests: Vec<_> = rows.iter().map(|row| row.request.as_str()).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(vec![None; rows.len()]));
    let work = || {
        let mut shared = None;
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answered = if row.alone {
                answers(&World::start(&requests), row, &ask)
            } else {
                answers(shared.get_or_insert_with(|| World::start(&requests)), row, &ask)
            };
            found.lock().expect("no panic")[row.number] = Some(answered);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
    let updates = std::env::var_os(UPDATE).is_some();
    let (mut text, mut wrong) = (head, String::new());
    for (row, answered) in rows.iter().zip(found.into_inner().expect("no panic")) {
        let (outcomes, unlike) = answered.expect("each was asked");
        wrong += &unlike;
        if outcomes != row.outcomes && !updates {
            let (request, was) = (&row.request, &row.outcomes);
            let _ = writeln!(wrong, "{request}\n{was} is now\n{outcomes}");
        }
        let tells = if row.tells { "tells " } else { "" };
        let alone = if row.alone { "alone " } else { "" };
        let _ = write!(text, "\n{tells}{alone}{}\n{outcomes}", row.request);
    }
    if updates {
        std::fs::write(directory().join(file), text).expect("written");
    }
    assert!(wrong.is_empty(), "{file}:\n{wrong}");
}

/// The lines of a row, and where callers learn from it what is elsewhere.
fn answers(
    world: &World,
    row: &Row,
    ask: &impl Fn(&World, &str, usize, Target) -> Reply,
) -> (String, String) {
    let targets = match row.request.contains('<') {
        true => &[Target::Own, Target::Other, Target::Missing][..],
        false => &[Target::Own],
    };
    world.prepare(row.number, &row.request);
    let all: Vec<Vec<Reply>> = targets
        .iter()
        .map(|target| {
            (0..CALLERS.len()).map(|caller| ask(world, &row.request, caller, *target)).collect()
        })
        .collect();
    let mut lines = String::new();
    let mut unlike: String = all.iter().flatten().map(|reply| reply.untrue.as_str()).collect();
    for (target, replies) in targets.iter().zip(&all) {
        let name = if targets.len() == 1 { "" } else { target.name() };
        let _ = write!(lines, "  {name:<8}");
        for reply in replies {
            let _ = write!(lines, "{:<12}", reply.outcome);
        }
        lines.truncate(lines.trim_end().len());
        lines.push('\n');
    }
    for (index, caller) in CALLERS.iter().enumerate() {
        let Some(foreign) = caller.foreign.filter(|_| targets.len() > 1 && !row.tells) else {
            continue;
        };
        let (elsewhere, nowhere) = (&all[foreign as usize][index], &all[2][index]);
        if elsewhere.text != nowhere.text {
            let (request, name) = (&row.request, caller.name);
            let (elsewhere, nowhere) = (&elsewhere.text, &nowhere.text);
            let _ = writeln!(unlike, "{request}, {name}: elsewhere {elsewhere}\nnowhere {nowhere}");
        }
    }
    (lines, unlike)
}

#[test]
fn who_may_use_which_command() {
    walk("commands.txt", World::command);
}

#[test]
fn who_may_use_which_path() {
    walk("routes.txt", World::route);
}

#[test]
fn every_command_is_in_the_table() {
    let (_, rows) = read("commands.txt");
    let asked: BTreeSet<_> = rows.iter().filter_map(|row| row.request.split(' ').next()).collect();
    let commands: BTreeSet<_> = COMMANDS.iter().map(|info| info.name).collect();
    assert_eq!(asked, commands);
}

#[test]
fn every_path_is_in_the_table() {
    let (_, rows) = read("routes.txt");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = |name: &str| std::fs::read_to_string(root.join(name)).expect(name);
    let requests: Vec<_> = rows.iter().map(|row| row.request.as_str()).collect();
    // Each text in the router that looks like a path.
    let router = text("src/edge/http/routes.rs");
    for path in router.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/')) {
        let asked =
            |request: &&str| request.split(' ').nth(1).is_some_and(|at| at.starts_with(path));
        assert!(requests.iter().any(asked), "{path}");
    }
    let document: Value = serde_json::from_str(&text("docs/openapi.json")).expect("JSON");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        // Of commands there is a table of its own.
        if path.starts_with("/rest/_/") {
            continue;
        }
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase();
            assert!(
                requests.iter().any(|request| is_of(request, &method, path)),
                "{method} {path}"
            );
        }
    }
    for name in text("docs/element.md").lines().filter_map(|line| line.strip_prefix("## ")) {
        let called = format!(r#""method":"{name}""#);
        let is_method = name != "Errors";
        assert!(!is_method || requests.iter().any(|request| request.contains(&called)), "{name}");
    }
}

/// Whether the request is for a path of the OpenAPI document, whose names are in braces.
fn is_of(request: &str, method: &str, path: &str) -> bool {
    let mut words = request.split(' ');
    let (Some(asked_method), Some(asked)) = (words.next(), words.next()) else { return false };
    let (asked, path) = (asked.split('/'), path.split('/'));
    let fits = |(asked, name): (&str, &str)| {
        asked == name || name.starts_with('{') && asked.starts_with('<')
    };
    asked_method == method
        && asked.clone().count() == path.clone().count()
        && asked.zip(path).all(fits)
}
