//! House rules that the compiler does not know.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(below), &mut found);
    found
}

/// The packages that a package of the workspace and its tests build on, as its manifest names them.
fn dependencies(manifest: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest);
    let text = fs::read_to_string(path).expect("a manifest");
    let manifest: toml::Table = text.parse().expect("TOML");
    assert!(!manifest.contains_key("target"), "dependencies of one platform would be missed");
    let tables = ["dependencies", "build-dependencies", "dev-dependencies"];
    let of = |table: &&str| manifest.get(*table).and_then(toml::Value::as_table);
    tables.iter().filter_map(of).flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn the_language_knows_no_socket_no_clock_and_no_chance() {
    let banned = ["tokio::", "std::net::TcpStream", "SystemTime", "Instant::now", "getrandom"];
    for (path, text) in sources("src/tr50") {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in banned {
            assert!(!code.contains(word), "{} uses {word}", path.display());
        }
    }
}

/// What else the rules must not use is in their clippy.toml.
#[test]
fn the_rules_have_no_tokio_and_no_getrandom() {
    let names = dependencies("crates/rules/Cargo.toml");
    assert!(names.contains(&"base".to_owned()), "{names:?}");
    for banned in ["tokio", "getrandom", "store", "tr50d"] {
        assert!(!names.contains(&banned.to_owned()), "the rules use {banned}");
    }
    let banned =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/rules/clippy.toml"));
    let banned = banned.expect("the rules of the rules");
    for name in ["SystemTime", "Instant", "TcpStream", "fs::File", "thread::spawn"] {
        assert!(banned.contains(name), "{name} is not banned");
    }
}

#[test]
fn the_client_does_not_know_the_server() {
    let names = dependencies("crates/client/Cargo.toml");
    assert!(names.contains(&"base".to_owned()), "{names:?}");
    for banned in ["tr50d", "rules", "store"] {
        assert!(!names.contains(&banned.to_owned()), "the client uses {banned}");
    }
}

#[test]
fn only_the_command_line_names_the_client() {
    let is_word = |last: char| last.is_alphanumeric() || last == '_';
    // Behind another name it is a module of ours.
    let begins_path =
        |before: &str| !before.strip_suffix("::").unwrap_or(before).ends_with(is_word);
    for (path, text) in sources("src") {
        if path.ends_with("src/main.rs") || path.parent().is_some_and(|dir| dir.ends_with("cli")) {
            continue;
        }
        for (start, _) in text.match_indices("client::") {
            let before = text.get(..start).unwrap_or_default();
            assert!(!begins_path(before), "{} names the client", path.display());
        }
    }
}

#[test]
fn nothing_unfinished_is_left_in_the_program() {
    for (path, text) in sources("src").into_iter().chain(sources("crates")) {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["todo!(", "unimplemented!(", "dbg!(", "TODO", "FIXME"] {
            assert!(!code.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn every_configuration_key_of_the_demo_is_one_of_the_template() {
    let keys = |name: &str| -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        let text = fs::read_to_string(path).expect("a configuration");
        let key = |line: &str| {
            let line = line.trim_start_matches(['#', ' ']);
            line.split_once('=').map(|(key, _)| key.trim().to_owned())
        };
        text.lines().filter_map(key).collect()
    };
    let known = keys("tr50d.toml");
    for key in keys("demo.toml") {
        assert!(known.contains(&key), "{key}");
    }
}

/// The rooms of `src`, and which others each may use: arrows point down only (ARCHITECTURE.md).
const ARROWS: &[(&str, &[&str])] = &[
    ("app", &["config", "metrics", "random", "things"]),
    ("backup", &["things"]),
    ("broker", &[]),
    ("cli", &["backup", "config", "control", "serve", "things"]),
    ("config", &["things"]),
    ("control", &["backup", "things"]),
    ("descriptors", &[]),
    ("dialects", &["app", "random"]),
    ("edge", &["app", "broker", "config", "logging", "metrics", "random", "things", "tr50"]),
    ("logging", &["config"]),
    ("metrics", &[]),
    ("random", &[]),
    (
        "serve",
        &[
            "app",
            "backup",
            "broker",
            "config",
            "control",
            "descriptors",
            "dialects",
            "edge",
            "logging",
            "things",
            "tr50",
        ],
    ),
    ("things", &["random"]),
    ("tr50", &["app", "random", "things"]),
];

#[test]
fn arrows_point_down_only() {
    let position = |room: &str| ARROWS.iter().position(|(name, _)| *name == room);
    for (path, text) in sources("src") {
        let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let first = below.expect("a source").iter().next().expect("a name").to_string_lossy();
        let room = first.trim_end_matches(".rs");
        if matches!(room, "lib" | "main") || path.ends_with("tests.rs") {
            continue;
        }
        let known = position(room).map(|index| ARROWS[index].1);
        let may = known.unwrap_or_else(|| panic!("{room} has no arrows here"));
        let code = text.split("mod tests {").next().unwrap_or_default();
        for used in code.split("crate::").skip(1) {
            let used: String =
                used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let fits = used == room || used == "peer_log" || may.contains(&used.as_str());
            assert!(fits, "{} uses {used}, which is not below it", path.display());
        }
    }
    // No circle: whoever is used by nobody who is left can be taken away, until none is left.
    let mut left: Vec<_> = ARROWS.iter().collect();
    while !left.is_empty() {
        let top = left.iter().position(|(room, _)| left.iter().all(|(_, may)| !may.contains(room)));
        left.remove(top.expect("a circle"));
    }
}
