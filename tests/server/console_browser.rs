//! The pages of the server in a browser, headless Chromium: each test runs a script of `tests/console`
//! against a server of its own. They run when `TR50D_TEST_CLIENTS` is set, as in [`outside_clients`].
//!
//! A script prints a line for each step and `passed` at its end. When it fails, pictures of what it saw
//! are in `target/console`.
//!
//! [`outside_clients`]: super::outside_clients

use std::process::Command;

use support::{Endpoints, SOON, TestServer};

use super::outside_clients::{Running, wanted};

/// A script with the server that it looks at.
fn command(script: &str, server: &Endpoints) -> Command {
    let mut command = Command::new("node");
    command.arg(format!("{}/tests/console/{script}.mjs", env!("CARGO_MANIFEST_DIR")));
    command.arg(format!("http://{}", server.address("http")));
    command.arg(server.address("tcp").to_string());
    command
}

/// The script's next line, which comes when a step is done; none if it has ended.
async fn next_line(script: Running) -> (Running, Option<String>) {
    // It gives up itself before that, and says why.
    let wait = 6 * SOON;
    let line = tokio::task::spawn_blocking(move || {
        let line = script.line_within(wait);
        (script, line)
    });
    line.await.expect("it says something")
}

/// Runs a script of `tests/console` against a demo server.
async fn passes(script: &str) {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let mut running = Running::start(command(script, &server));
    let mut steps = Vec::new();
    while let (left, Some(step)) = next_line(running).await {
        running = left;
        steps.push(step);
    }
    assert_eq!(steps.last().map(String::as_str), Some("passed"), "{steps:?}");
}

#[tokio::test]
async fn what_a_page_must_not_do_is_seen() {
    passes("harness").await;
}

#[tokio::test]
async fn everybody_can_read_the_documentation() {
    passes("docs").await;
}
