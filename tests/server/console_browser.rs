//! The pages of the server in a browser, headless Chromium: each test runs a script of `tests/console`
//! against a server of its own. They run when `TR50D_TEST_CLIENTS` is set, as in [`outside_clients`].
//!
//! A script prints a line for each step and `passed` at its end. When it fails, pictures of what it saw
//! are in `target/console`.
//!
//! [`outside_clients`]: super::outside_clients

use std::io::Write;
use std::process::{ChildStdin, Command};

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

/// A script, and the lines that it has printed.
struct Script {
    running: Option<Running>,
    input: ChildStdin,
    lines: Vec<String>,
}

impl Script {
    fn start(script: &str, server: &Endpoints, args: &[&str]) -> Self {
        let mut command = command(script, server);
        command.args(args);
        let (running, input) = Running::start_telling(command);
        Self { running: Some(running), input, lines: Vec::new() }
    }

    /// Waits for an order, or for the end of the script, which has to have passed.
    async fn order(&mut self) -> Option<String> {
        loop {
            let running = self.running.take().expect("it is put back");
            let (running, line) = next_line(running).await;
            self.running = Some(running);
            let Some(line) = line else { break };
            if let Some(order) = line.strip_prefix("! ") {
                return Some(order.to_owned());
            }
            self.lines.push(line);
        }
        assert_eq!(self.lines.last().map(String::as_str), Some("passed"), "{:?}", self.lines);
        None
    }

    /// Says that an order is carried out.
    fn tell(&mut self, order: &str) {
        writeln!(self.input, "{order}").expect("it listens");
    }
}

/// Runs a script of `tests/console` against a demo server.
async fn passes(script: &str) {
    passes_with(script, &[]).await;
}

/// The same with more of its arguments.
async fn passes_with(script: &str, args: &[&str]) {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let mut script = Script::start(script, &server, args);
    assert_eq!(script.order().await, None);
}

#[tokio::test]
async fn what_a_page_must_not_do_is_seen() {
    passes("harness").await;
}

#[tokio::test]
async fn everybody_can_read_the_documentation() {
    passes("docs").await;
}

#[tokio::test]
async fn a_user_logs_in_with_a_second_factor() {
    passes("login").await;
}

#[tokio::test]
async fn rows_of_a_live_list_come_and_go() {
    passes("live").await;
}

#[tokio::test]
async fn a_live_list_holds_while_somebody_is_at_a_row() {
    passes("hold").await;
}

#[tokio::test]
async fn one_session_ends_and_many_that_were_counted() {
    passes("end_many").await;
}

#[tokio::test]
async fn pages_that_are_no_lists_are_live() {
    passes("parts").await;
}

#[tokio::test]
async fn events_are_shown_as_they_happen() {
    passes("events").await;
}

#[tokio::test]
async fn two_tabs_are_in_two_organisations() {
    passes("two_organisations").await;
}

#[tokio::test]
async fn eight_tabs_share_a_stream() {
    passes("tabs").await;
}

#[tokio::test]
async fn all_works_without_javascript() {
    passes("without_javascript").await;
}

#[tokio::test]
async fn everybody_can_read_every_screen() {
    passes("screens").await;
}

#[tokio::test]
async fn everybody_can_read_what_there_is_of_things() {
    passes_with("crawl", &["/o/basic-org/things"]).await;
}

#[tokio::test]
async fn everybody_can_read_who_may_do_what() {
    passes_with("crawl", &["/o/basic-org/access/users", "/o/basic-org/access"]).await;
}

#[tokio::test]
async fn everybody_can_read_what_is_their_own() {
    passes_with("crawl", &["/me"]).await;
}

#[tokio::test]
async fn a_user_sets_up_a_second_factor_and_ends_other_sessions() {
    passes("me").await;
}

#[tokio::test]
async fn everything_is_found_from_every_page() {
    passes("search").await;
}

#[tokio::test]
async fn a_thing_is_looked_after_on_its_page() {
    passes("thing").await;
}

#[tokio::test]
async fn who_may_do_what_is_changed_in_the_console() {
    passes("access").await;
}

#[tokio::test]
async fn a_page_of_a_session_that_is_over_becomes_the_login() {
    passes("over").await;
}

#[tokio::test]
async fn sessions_are_ended_by_keyboard_alone() {
    passes("keyboard").await;
}

#[tokio::test]
async fn a_page_that_follows_stays_small() {
    passes("heap").await;
}

#[tokio::test]
async fn readme_has_a_picture() {
    passes("picture").await;
}

#[tokio::test]
async fn a_page_comes_back_with_its_server() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::in_dir(dir.path(), &[]);
    let mut script = Script::start("restart", &server, &[]);
    let restart = script.order().await;
    assert_eq!(restart.as_deref(), Some("restart"), "{:?}", script.lines);
    let listens = |name| server.address(name).to_string();
    let (http, tcp) = (listens("http"), listens("tcp"));
    server.stop().await;
    let same = [("TR50D_HTTP__LISTEN", http.as_str()), ("TR50D_TCP__LISTEN", tcp.as_str())];
    let _server = TestServer::in_dir(dir.path(), &same);
    script.tell("restart");
    assert_eq!(script.order().await, None);
}
