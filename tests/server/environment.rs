//! The environment as configuration: `serve` and `check` without a file, and names that are wrong.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::process::run;
use support::{ServerProcess, Signal, call};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.toml");

/// A directory, and what serves in it without a file.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The program, with nothing in its environment that is for it.
    fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(super::TR50D.0);
        command.args(args).current_dir(self.dir.path()).stderr(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TR50D_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// The program, with all that a server needs in its environment.
    fn full(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command
            .env("TR50D_SERVER__DATA_DIR", self.data_dir())
            .env("TR50D_SERVER__BOOTSTRAP", FIXTURE)
            .env("TR50D_MQTT__LISTEN", "127.0.0.1:0")
            .env("TR50D_TCP__LISTEN", "127.0.0.1:0")
            .env("TR50D_HTTP__LISTEN", "none");
        command
    }
}

/// Runs what has to end with status 2 and one sentence on standard error that has these words.
fn refused(command: Command, words: &[&str]) {
    let shown = format!("{command:?}");
    let (status, out, err) = run(command);
    assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{shown}: {err}");
    assert_eq!(err.lines().count(), 1, "{shown}: {err}");
    for word in words {
        assert!(err.contains(word), "{shown}: no {word:?} in {err}");
    }
}

#[tokio::test]
async fn a_server_starts_from_the_environment_alone() {
    let place = Place::new();
    let mut server = ServerProcess::spawn(place.full(&["serve"]));
    let mut operator = server.operator("tcp").await;
    assert_eq!(call(&mut operator, "session.list", "").await["count"], 1);
    assert!(!server.lines().iter().any(|line| line.contains("listening http")));
    assert_eq!(server.end(Signal::TERM).await.code(), Some(0));
    assert!(place.data_dir().is_dir());
}

#[tokio::test]
async fn variables_of_clients_and_tests_are_let_be() {
    let others = ["TR50D_URL", "TR50D_PASSWORD_FILE", "TR50D_CONTEXT", "TR50D_TEST_CLIENTS"];
    let place = Place::new();
    let mut serve = place.full(&["serve"]);
    serve.envs(others.map(|name| (name, "/nowhere")));
    let mut server = ServerProcess::spawn(serve);
    assert_eq!(server.end(Signal::TERM).await.code(), Some(0));
    // They are no configuration either.
    let mut serve = place.bare(&["serve"]);
    serve.envs(others.map(|name| (name, "/nowhere")));
    refused(serve, &["--config", "--demo", "TR50D_SERVER__DATA_DIR"]);
    let mut check = place.bare(&["check"]);
    check.envs(others.map(|name| (name, "/nowhere")));
    refused(check, &["--config", "TR50D_SERVER__DATA_DIR"]);
}

#[test]
fn check_looks_the_environment_over() {
    let place = Place::new();
    let (status, out, err) = run(place.full(&["check"]));
    assert_eq!((status.code(), out.as_str()), (Some(0), "the environment is fine\n"), "{err}");
    assert!(!place.data_dir().exists());
    let mut bad = place.full(&["check"]);
    bad.env("TR50D_SERVER__BOOTSTRAP", "/nowhere/at/all.toml");
    refused(bad, &["/nowhere/at/all.toml"]);
}

#[test]
fn a_wrong_name_is_refused_with_the_near_one() {
    let place = Place::new();
    let file = place.dir.path().join("tr50d.toml");
    std::fs::write(&file, "").expect("written");
    let file = file.to_str().expect("UTF-8");
    let check = |name: &str, near: &str| {
        let words = [name, near];
        for args in [
            &["serve"][..],
            &["check"],
            &["serve", "--demo"],
            &["serve", "--config", file],
            &["check", "--config", file],
        ] {
            let mut command = place.full(args);
            command.env(name, "127.0.0.1:0");
            refused(command, &words);
        }
        // The wrong name alone: not "needs --config".
        for args in [&["serve"], &["check"]] {
            let mut command = place.bare(args);
            command.env(name, "127.0.0.1:0");
            refused(command, &words);
        }
        assert!(!place.data_dir().exists());
    };
    check("TR50D_MQTT_LISTEN", "did you mean TR50D_MQTT__LISTEN?");
    check("TR50D_MQTT__LISTNE", "did you mean TR50D_MQTT__LISTEN?");
    check("TR50D_DATA_DIR", "did you mean TR50D_SERVER__DATA_DIR?");
    check("TR50D_URLS", "did you mean TR50D_URL?");
    check("TR50D_HOME", "TR50D_<SECTION>__<KEY>");
    // Not only of `serve`: of the wrong directory, a backup is none.
    let mut backup = place.full(&["backup", "to"]);
    backup.env("TR50D_SERVER_DATA_DIR", "elsewhere");
    refused(backup, &["TR50D_SERVER_DATA_DIR", "TR50D_SERVER__DATA_DIR?"]);
}

#[test]
fn clients_do_not_mind_variables_of_servers() {
    let place = Place::new();
    let mut ping = place.bare(&["call", "diag.ping", "--url", "tcp://127.0.0.1:1"]);
    ping.env("TR50D_HOME", "/nowhere").env("TR50D_MQTT__LISTNE", "x");
    refused(ping, &["tr50d call: connect to 127.0.0.1:1 failed"]);
}

#[test]
fn a_value_that_is_no_text_is_refused() {
    let place = Place::new();
    let value = OsString::from_vec(b"/srv/\xe4".to_vec());
    for args in [["serve"], ["check"]] {
        let mut command = place.full(&args);
        command.env("TR50D_SERVER__DATA_DIR", &value);
        refused(command, &["TR50D_SERVER__DATA_DIR", "not UTF-8"]);
        let mut command = place.full(&args);
        command.env(OsString::from_vec(b"TR50D_\xe4".to_vec()), "1");
        refused(command, &["TR50D_\u{fffd}"]);
        // What is for others may be anything.
        let mut command = place.bare(&args);
        command.env("TR50D_PASSWORD_FILE", &value);
        refused(command, &["--config"]);
    }
}
