//! What a first-time reader copies from `--help`, against the demo as it is; and that a fleet says
//! why commands failed.

use std::process::Command;

use serde_json::Value;

use super::readme::with_port;
use support::TestServer;
use support::process::run;

/// Devices in an example that a test does not wait for.
const DEVICES_MAX: usize = 200;

/// The examples of a subcommand, each in one line.
fn of(subcommand: &str) -> Vec<String> {
    let mut help = Command::new(super::TR50D.0);
    help.args([subcommand, "--help"]);
    let (_, out, _) = run(help);
    let out = out.replace("\\\n", " ");
    let Some((_, examples)) = out.split_once("\nExamples") else { return Vec::new() };
    let lines = examples.lines().skip(1).take_while(|line| !line.is_empty());
    lines.map(|line| line.trim().to_owned()).collect()
}

/// An example for this server: for a second, and with fewer devices where there are many.
fn adapted(example: &str, server: &TestServer) -> String {
    let port = |listener: &str| server.address(listener).port().to_string();
    let mut words: Vec<String> = example.split(' ').map(str::to_owned).collect();
    for index in 1..words.len() {
        if words[index - 1] == "--devices" {
            let devices: usize = words[index].parse().expect("a number");
            words[index] = devices.min(DEVICES_MAX).to_string();
        }
    }
    let mut line = words.join(" ").replace("127.0.0.1:8080", "127.0.0.1");
    for scheme in ["mqtt", "tcp", "http"] {
        let (with_login, port) = (format!("{scheme}://127.0.0.1"), port(scheme));
        line = line.replace(&with_login, &format!("{scheme}://@127.0.0.1"));
        line = with_port(&line, scheme, &port);
    }
    if example.contains(" fleet ") { format!("{line} --duration 1") } else { line }
}

#[test]
fn every_example_of_every_help_works() {
    // The demo as it is: with a bound on the commands of a session.
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "100")]);
    let dir = tempfile::tempdir().expect("a directory");
    let mut count = 0;
    for subcommand in ["init", "serve", "call", "fleet", "check", "backup", "restore"] {
        for example in of(subcommand) {
            let line = adapted(&example, &server);
            let mut shell = Command::new("sh");
            let function = format!("tr50d() {{ {} \"$@\"; }}", super::TR50D.0);
            shell.current_dir(dir.path()).args(["-c", &format!("{function}\n{line}")]);
            let (status, out, err) = run(shell);
            assert!(status.success(), "{line}\n{out}{err}");
            count += 1;
        }
    }
    assert!(count >= 12, "{count} examples");
}

#[test]
fn a_fleet_says_why_commands_failed() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "5")]);
    let address = server.address("mqtt");
    let http = server.address("http");
    let url = format!("mqtt://:demo-token-basicorg@{address}");
    let sentence = "The session sent more than 5 commands in a second (limits.commands_per_s).";
    let fleet = |more: &[&str]| {
        let mut fleet = Command::new(super::TR50D.0);
        fleet.args(["fleet", "--url", &url, "--devices", "2", "--duration", "0.5"]).args(more);
        let (status, out, err) = run(fleet);
        assert_eq!(status.code(), Some(1), "{more:?}: {out}{err}");
        out
    };
    let files_url = format!("http://{http}");
    let modes: [&[&str]; 4] = [
        &["--window", "20"],
        &["--telemetry", "3"],
        &["--methods", "1", "--timeout", "1"],
        &["--files", "10", "--files-url", &files_url],
    ];
    for mode in modes {
        let out = fleet(mode);
        let end = format!(" × [-95010] {sentence}");
        let is_it = |line: &str| line.starts_with("failure      ") && line.ends_with(&end);
        assert!(out.lines().any(is_it), "{mode:?}: {out}");
        let json = fleet(&[mode, &["--json"]].concat());
        let report: Value = serde_json::from_str(&json).expect("JSON");
        let failures = report["failures"].as_array().expect("a list");
        let is_it = |failure: &Value| failure["code"] == -95010 && failure["message"] == sentence;
        assert!(failures.iter().any(is_it), "{mode:?}: {json}");
        let counts = failures.iter().map(|failure| failure["count"].as_u64());
        let all: u64 = counts.map(|count| count.expect("a number")).sum();
        assert_eq!(report["commands"]["failed"], all, "{mode:?}: {json}");
    }
    // Who may not even connect says so in every mode, too.
    let wrong = format!("mqtt://:wrong-token@{address}");
    let out = fleet(&["--url", &wrong, "--idle"]);
    assert!(out.contains("error        1 × the server refused the login"), "{out}");
}
