//! Rules of this tree that the compiler does not know.

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

/// Parts that have an `App` ask its clock; the wall clock can be set (`docs/decisions/0011-two-times.md`).
#[test]
fn what_is_due_goes_by_the_clock_of_the_app() {
    for room in ["app", "broker", "dialects", "edge", "things", "tr50"] {
        for (path, text) in sources(&format!("src/{room}")) {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test = path.ends_with("tests.rs");
            assert!(is_test || !code.contains("Timestamp::now"), "{}", path.display());
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
    ("app", &["broker", "config", "events", "logging", "metrics", "random", "things", "webhooks"]),
    ("backup", &["things"]),
    ("broker", &[]),
    ("cli", &["backup", "config", "control", "random", "serve", "things"]),
    ("config", &["things"]),
    ("control", &["app", "backup", "events", "things", "tr50"]),
    ("descriptors", &[]),
    ("dialects", &["app", "events", "random", "tr50"]),
    ("edge", &["app", "broker", "config", "logging", "metrics", "random", "things", "tr50"]),
    ("events", &[]),
    ("logging", &["config"]),
    ("metrics", &["broker", "events", "webhooks"]),
    ("openapi", &["dialects", "tr50"]),
    ("random", &[]),
    (
        "serve",
        &[
            "app",
            "backup",
            "config",
            "control",
            "descriptors",
            "dialects",
            "edge",
            "logging",
            "openapi",
            "things",
            "tr50",
        ],
    ),
    ("things", &["random"]),
    ("tr50", &["app", "events", "random", "things", "webhooks"]),
    ("webhooks", &[]),
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
            let is_macro = matches!(&*used, "peer_log" | "watched_log");
            let fits = used == room || is_macro || may.contains(&used.as_str());
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

/// A line of the log as JSON has the text under `message`, and these names beside it: a field of the same
/// name would stand there twice.
#[test]
fn no_field_of_the_log_has_a_name_twice() {
    const TAKEN: [&str; 4] = ["message", "level", "target", "timestamp"];
    for (path, text) in sources("src").into_iter().chain(sources("crates")) {
        let macros = ["peer_log!(", "watched_log!(", "info!(", "warn!(", "error!(", "debug!("];
        for start in macros.iter().flat_map(|name| text.match_indices(name)) {
            let call = text.get(start.0 + start.1.len()..).unwrap_or_default();
            let call = call.split(");").next().unwrap_or_default();
            for field in call.split([',', '(']) {
                let name = field.split('=').next().unwrap_or_default();
                let name = name.trim().trim_start_matches(['%', '?']);
                assert!(!TAKEN.contains(&name), "{} logs {name}", path.display());
            }
        }
    }
}

/// The folders that have files which people read.
const FOLDERS: [&str; 8] =
    ["benches", "config", "crates", "docs", "examples", "fixtures", "src", "tests"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source, page and configuration of the tree, and its name from the root.
fn papers() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }
    let top = fs::read_dir(root()).expect("the root").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = top.filter(|path| path.is_file()).collect();
    FOLDERS.iter().for_each(|folder| walk(&root().join(folder), &mut paths));
    paths.push(root().join(".ci/run"));
    paths.sort();
    let is_read = |path: &PathBuf| {
        let read = ["rs", "md", "toml", "py", "json"];
        path.extension().map_or(path.ends_with("run"), |own| read.iter().any(|other| own == *other))
    };
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below it").to_string_lossy().into_owned();
        Some((name, fs::read_to_string(&path).ok()?))
    };
    paths.into_iter().filter(is_read).filter_map(read).collect()
}

/// A line without the mark of a comment, and whether it has one.
fn uncommented(line: &str) -> (&str, bool) {
    let line = line.trim();
    let marks = ["//!", "///", "//", "#!", "#"];
    let text = marks.iter().find_map(|mark| line.strip_prefix(mark));
    (text.unwrap_or(line).trim(), text.is_some())
}

/// The paragraphs of a page, or of the comments of a source, each as one line, without blocks of code.
fn paragraphs(name: &str, text: &str) -> Vec<String> {
    let is_page = name.ends_with(".md");
    let (mut done, mut current, mut in_code) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        let (content, is_comment) = if is_page { (line.trim(), true) } else { uncommented(line) };
        let is_fence = is_comment && content.starts_with("```");
        in_code = is_comment && in_code != is_fence;
        if !is_comment || content.is_empty() || is_fence || in_code {
            done.push(std::mem::take(&mut current));
        } else {
            current.push_str(content);
            current.push(' ');
        }
    }
    done.push(current);
    done
}

/// What a paragraph has between backticks, and behind the texts of links.
fn mentioned(paragraph: &str) -> impl Iterator<Item = &str> {
    let links = paragraph.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    paragraph.split('`').skip(1).step_by(2).chain(links)
}

/// Whether it looks like the name of a file or folder of the tree.
fn is_path(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let is_in = |folder: &&str| text.strip_prefix(*folder).is_some_and(|r| r.starts_with('/'));
    text.chars().all(is_plain) && (FOLDERS.iter().any(is_in) || text.ends_with(".md"))
}

#[test]
fn every_file_that_is_mentioned_is_there() {
    let (mut count, mut missing) = (0, Vec::new());
    for (name, text) in papers() {
        let here = root().join(&name).parent().expect("a folder").to_owned();
        for paragraph in paragraphs(&name, &text) {
            for path in mentioned(&paragraph).filter(|text| is_path(text)) {
                let is_there = root().join(path).exists() || here.join(path).exists();
                missing.extend((!is_there).then(|| format!("{path} in {name}")));
                count += 1;
            }
        }
    }
    assert!(missing.is_empty(), "not there: {missing:#?}");
    assert!(count > 200, "only {count} files are mentioned: they are not found any more");
}

#[test]
fn nothing_outside_the_tree_is_mentioned() {
    // In pieces, for this file is read, too.
    let outside = [
        ["DESIGN", ".md"],
        ["HOUSE", ".md"],
        ["STYLE", ".md"],
        ["PERFORMANCE", ".md"],
        ["session-apis", ".md"],
        ["../", "shared"],
        ["see", "ds/"],
        ["/wo", "rk/"],
    ];
    for (name, text) in papers() {
        for word in outside {
            assert!(!text.contains(&word.concat()), "{name} has {}", word.concat());
        }
    }
}

/// A page of `docs/protocol`: its sections by number, each with those below it.
struct Page(Vec<(String, String)>);

impl Page {
    fn read(name: &str) -> Self {
        let path = root().join("docs/protocol").join(name).with_extension("md");
        let text = fs::read_to_string(path).unwrap_or_else(|_| panic!("no page {name}"));
        let lines: Vec<&str> = text.lines().collect();
        let depth = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
        let section = |(at, line): (usize, &&str)| {
            let number = number(line.trim_start_matches(['#', ' ']))?.0;
            let own = depth(line);
            let below = |line: &&&str| !(1..=own).contains(&depth(line));
            let text: Vec<_> = lines.iter().skip(at + 1).take_while(below).copied().collect();
            (own > 0).then(|| (number.to_owned(), text.join("\n").to_lowercase()))
        };
        Self(lines.iter().enumerate().filter_map(section).collect())
    }

    fn section(&self, number: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == number).map(|(_, text)| &**text)
    }
}

/// The number of a section at the beginning of a text, such as `4.1`, `A2` or `Annex A`, and the rest.
fn number(text: &str) -> Option<(&str, &str)> {
    let annex = text.strip_prefix("Annex ").map_or(0, |rest| 6 + usize::from(!rest.is_empty()));
    let letter = usize::from(text.starts_with(['A', 'B']));
    let rest = text.get(letter..)?;
    let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let end = if annex > 0 { annex } else { letter + digits };
    let (number, rest) = text.split_at_checked(end)?;
    let number = number.trim_end_matches('.');
    (annex > 0 || number.ends_with(|c: char| c.is_ascii_digit())).then_some((number, rest))
}

/// What follows on a part of a citation, if it goes on.
fn more(text: &str) -> Option<&str> {
    [", and ", ", ", "; ", " and ", " to "].iter().find_map(|joint| text.strip_prefix(joint))
}

/// Checks one citation, which begins behind the name of its page: sections, and what they have to
/// have, in quotation marks or backticks. Returns how many sections it names.
fn check_citation(page: &Page, citation: &str) -> Result<usize, String> {
    let (mut count, mut section, mut is_fact) = (0, "", false);
    let mut next = Some(citation.trim_start_matches(['`', ' ']));
    while let Some(part) = next {
        let facts = part.strip_prefix("facts ").or_else(|| part.strip_prefix("fact "));
        is_fact |= facts.is_some();
        if let Some((number, behind)) = number(facts.unwrap_or(part)) {
            // Facts are numbered without a full stop, and looked for elsewhere.
            if is_fact && !number.contains('.') {
                next = more(behind);
                continue;
            }
            section = page.section(number).ok_or_else(|| format!("no section {number}"))?;
            (count, next) = (count + 1, more(behind));
        } else if let (true, Some(mark @ ('"' | '`'))) = (count > 0, part.chars().next()) {
            let (quoted, behind) = part[1..].split_once(mark).unwrap_or((part, ""));
            if !quoted.starts_with("docs/") && !section.contains(&quoted.to_lowercase()) {
                return Err(format!("{quoted:?} is not in the section"));
            }
            next = more(behind);
        } else {
            next = None;
        }
    }
    Ok(count)
}

#[test]
fn every_section_and_fact_that_is_cited_is_there() {
    let pages = ["tr50", "cognite", "element"].map(|name| (format!("{name}.md"), Page::read(name)));
    let section_0 = pages[0].1.section("0").expect("the facts");
    let facts = section_0.lines().filter(|line| number(line).is_some()).count();
    let (mut sections, mut cited) = (0, 0);
    for (name, text) in papers() {
        let lines: Vec<_> = text.lines().map(|line| uncommented(line).0).collect();
        let text = lines.join(" ").replace('\\', "");
        for citation in text.split("docs/protocol/").skip(1) {
            let mut known = pages.iter();
            let found =
                known.find_map(|(name, page)| Some((page, citation.strip_prefix(&**name)?)));
            let Some((page, citation)) = found else { continue };
            let count = check_citation(page, citation);
            sections += count.unwrap_or_else(|error| panic!("{name}: {error}: {citation:.40}"));
        }
        for list in text.split("fact").skip(1) {
            let mut next = Some(list.strip_prefix('s').unwrap_or(list).trim_start());
            while let Some((fact, behind)) = next.and_then(number) {
                let Ok(fact) = fact.parse::<usize>() else { break };
                assert!((1..=facts).contains(&fact), "{name} cites fact {fact} of {facts}");
                (cited, next) = (cited + 1, more(behind));
            }
        }
        if !name.starts_with("docs/protocol") {
            let is_whole = |(at, _): (usize, &str)| text[..at].ends_with("protocol/");
            let bare = !text.match_indices(&*pages[0].0).all(is_whole);
            assert!(!bare, "{name} cites {} without its folder", pages[0].0);
        }
    }
    assert!(sections > 100 && cited > 30, "{sections} sections, {cited} facts: none are found");
}
