//! README.md, as its reader goes through it: every command, top-down, in one session of bash and in
//! one of zsh, each with output of the shape that is shown; and the programs in Python. They run
//! when `TR50D_TEST_CLIENTS` is set, as in [`outside_clients`](super::outside_clients).
//!
//! What differs from what a reader does: the commands with `serve` are started by the test, and
//! stopped with SIGINT (Ctrl-C) when the next one starts; listeners have free ports, which take the
//! place of the usual ones in the commands, and `target/release/tr50d` (and `cargo run --release --`)
//! is the program under test. Ids that a reader copies from what was shown are those of this session.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::outside_clients::wanted;
use super::paho::python;
use super::shape;
use support::process::run;
use support::{SOON, ServerProcess, Signal, TestServer};

/// Where README.md, `config/` and the like are.
const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

fn readme() -> String {
    std::fs::read_to_string(Path::new(SOURCES).join("README.md")).expect("it is there")
}

/// Blocks that are no session: packages to install, which `tests/run` does, and `tests/run`.
const NOT_RUN: [&str; 2] =
    ["sudo apt-get install build-essential mosquitto-clients netcat-openbsd curl\n", "tests/run\n"];

/// After so long without its output, what follows a command in the background is run again.
const AGAIN: Duration = Duration::from_secs(2);

/// A block of code.
struct Block<'a> {
    language: &'a str,
    text: &'a str,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut parts = text.split("\n```");
    parts.next();
    let mut blocks = Vec::new();
    while let Some(part) = parts.next() {
        let (language, text) = part.split_once('\n').expect("a line after ```");
        blocks.push(Block { language, text });
        parts.next().expect("the block ends");
    }
    blocks
}

/// A command, and what it shows.
#[derive(Debug)]
struct Step {
    command: String,
    shown: String,
}

/// The commands of a block; none if it has no prompt.
fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { command: command.to_owned(), shown: String::new() });
            }
            (None, Some(step)) if step.command.ends_with('\\') && step.shown.is_empty() => {
                step.command += "\n";
                step.command += line;
            }
            (None, Some(step)) => {
                step.shown += line;
                step.shown += "\n";
            }
            (None, None) => return Vec::new(),
        }
    }
    steps
}

#[test]
fn every_block_of_the_readme_is_known() {
    let readme = readme();
    let all = blocks(&readme);
    let sessions = all.iter().filter(|block| !steps(block.text).is_empty()).count();
    let python = all.iter().filter(|block| block.language == "python").count();
    let others: Vec<&str> = all
        .iter()
        .filter(|block| steps(block.text).is_empty() && block.language != "python")
        .map(|block| block.text)
        .map(|text| {
            NOT_RUN.iter().find(|known| **known == format!("{text}\n")).map_or(text, |_| "")
        })
        .filter(|text| !text.is_empty())
        .collect();
    assert_eq!(others, [""; 0], "blocks that nobody runs");
    assert!(sessions >= 12 && python == 2, "{sessions} sessions, {python} of Python");
    for block in &all {
        for Step { command, .. } in steps(block.text) {
            // An interactive zsh takes it for an argument.
            assert!(!command.contains(" # "), "a comment in {command}");
        }
    }
}

/// A shell that is fed one command at a time, as from a keyboard.
struct Shell {
    child: Child,
    output: Receiver<Vec<u8>>,
    /// What came, from the end of the command before.
    text: String,
    number: usize,
}

impl Shell {
    fn start(program: &str, args: &[&str], dir: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).env("PS1", "").env("PS2", "").env_remove("HISTFILE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut out = child.stdout.take().expect("piped");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut shell = Self { child, output, text: String::new(), number: 0 };
        // From here on, standard error is part of what is shown, as on a terminal.
        shell.does("exec 2>&1");
        shell
    }

    /// Runs a command to its end; its exit status.
    fn does(&mut self, command: &str) -> String {
        self.text.clear();
        self.number += 1;
        let mark = format!("<<{} ", self.number);
        let line = format!("{command}\nprintf '\\n<<%s %s>>\\n' {} $?\n", self.number);
        self.child.stdin.as_mut().expect("piped").write_all(line.as_bytes()).expect("it reads");
        let start = Instant::now();
        loop {
            if let Some((before, after)) = self.text.split_once(&mark)
                && let Some((status, rest)) = after.split_once(">>\n")
            {
                let status = status.to_owned();
                self.text = format!("{}{rest}", before.strip_suffix('\n').unwrap_or(before));
                return status;
            }
            assert!(start.elapsed() < SOON, "{command} does not end: {}", self.text);
            self.reads(AGAIN);
        }
    }

    /// Takes what comes within this time; whether something did.
    fn reads(&mut self, patience: Duration) -> bool {
        match self.output.recv_timeout(patience) {
            Ok(bytes) => {
                self.text += &String::from_utf8_lossy(&bytes);
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => panic!("the shell has ended: {}", self.text),
        }
    }

    /// What is on the screen, without what the shell says of its jobs.
    fn shown(&self) -> String {
        let is_job = |line: &&str| {
            let number = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            number.is_some_and(|(number, _)| number.parse::<u32>().is_ok())
        };
        self.text.lines().filter(|line| !is_job(line)).map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a reader is.
struct Reader {
    shell: Shell,
    dir: tempfile::TempDir,
    server: Option<ServerProcess>,
    /// What was shown in the README and what here in its place.
    learned: Vec<(String, String)>,
    /// The command before was put into the background.
    in_background: bool,
}

impl Reader {
    fn start(shell: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["README.md", "config", "fixtures"] {
            let place = Path::new(SOURCES).join(name);
            std::os::unix::fs::symlink(place, dir.path().join(name)).expect("a link");
        }
        let shell = Shell::start(shell, args, dir.path());
        Self { shell, dir, server: None, learned: Vec::new(), in_background: false }
    }

    async fn does(&mut self, step: &Step) {
        if step.command.contains(" serve ") {
            return self.serves(step).await;
        }
        let command = self.adapted(&step.command);
        let start = Instant::now();
        let pairs = loop {
            let status = self.shell.does(&command);
            let pairs = self.output_of(step);
            // What stands in the background is up when its output, or the next one's, is there.
            if let (Some(pairs), "0") = (&pairs, status.as_str()) {
                break pairs.clone();
            }
            assert!(
                self.in_background && start.elapsed() < SOON,
                "$ {command}\n{}\nhas status {status} and is not of the shape of\n{}",
                self.shell.shown(),
                step.shown
            );
        };
        self.learned.extend(pairs);
        self.in_background = command.ends_with('&');
    }

    /// What pairs of ids the output and what was to be shown have, if it has that shape.
    fn output_of(&mut self, step: &Step) -> Option<Vec<(String, String)>> {
        if step.shown.is_empty() {
            return Some(Vec::new());
        }
        loop {
            let pairs = shape::pairs(&step.shown, &self.shell.shown());
            if pairs.is_some() || !self.in_background || !self.shell.reads(AGAIN) {
                return pairs;
            }
        }
    }

    /// Starts the server of a command, and stops the one before.
    async fn serves(&mut self, step: &Step) {
        self.stops().await;
        let (_, args) = step.command.split_once(" serve ").expect("seen");
        let mut command = Command::new(super::TR50D.0);
        command.arg("serve").args(args.split_whitespace()).current_dir(self.dir.path());
        command.env("TMPDIR", self.dir.path()).stderr(Stdio::null());
        for section in ["MQTT", "TCP", "HTTP"] {
            command.env(format!("TR50D_{section}__LISTEN"), "127.0.0.1:0");
        }
        let server = ServerProcess::spawn(command);
        let temporary = self.dir.path().to_str().expect("UTF-8");
        let lines = server.lines().join("\n").replace(temporary, "/tmp");
        assert!(shape::pairs(&step.shown, &lines).is_some(), "{lines}\nis not\n{}", step.shown);
        self.server = Some(server);
    }

    async fn stops(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal(Signal::INT);
            assert!(server.wait().await.success());
        }
    }

    /// A command as it has to be here.
    fn adapted(&self, command: &str) -> String {
        let server = self.server.as_ref().expect("a server runs before the first other command");
        let port = |listener: &str| server.address(listener).port().to_string();
        let mut command = command
            .replace("target/release/tr50d", super::TR50D.0)
            .replace("-p 1883", &format!("-p {}", port("mqtt")))
            .replace("127.0.0.1 5050", &format!("127.0.0.1 {}", port("tcp")))
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", port("http")));
        for scheme in ["mqtt", "tcp"] {
            command = with_port(&command, scheme, &port(scheme));
        }
        let learned = self.learned.iter().rev();
        learned.fold(command, |command, (shown, here)| command.replace(shown, here))
    }
}

/// A command whose URLs of a scheme have this port.
pub(crate) fn with_port(command: &str, scheme: &str, port: &str) -> String {
    const HOST: &str = "@127.0.0.1";
    let Some((before, url)) = command.split_once(&format!("{scheme}://")) else {
        return command.to_owned();
    };
    let (login, after) = url.split_once(HOST).expect("a URL of this machine");
    format!("{before}{scheme}://{login}{HOST}:{port}{}", with_port(after, scheme, port))
}

/// Goes through the README in this shell.
async fn read_through(shell: &str, args: &[&str]) {
    let mut reader = Reader::start(shell, args);
    let readme = readme();
    for block in blocks(&readme) {
        for step in steps(block.text) {
            reader.does(&step).await;
        }
    }
    reader.stops().await;
    // What stays: the site, and what the backup's examples made; nothing of the demo.
    let mut left: Vec<_> = std::fs::read_dir(reader.dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    left.sort();
    assert_eq!(left, ["README.md", "config", "fixtures", "my-backup", "my-site", "restored"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works_in_bash() {
    if wanted() {
        read_through("bash", &["--norc", "--noprofile", "--noediting", "-i"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works_in_zsh() {
    if wanted() {
        read_through("zsh", &["-f", "-i", "-o", "no_prompt_sp", "-o", "no_prompt_cr"]).await;
    }
}

/// A server of the demo with a certificate that the test's own clients need not know.
fn server_with_tls(dir: &Path) -> TestServer {
    let mut init = Command::new(super::TR50D.0);
    init.current_dir(dir).args(["init", "site", "--self-signed"]);
    assert!(run(init).0.success());
    let path = |name: &str| dir.join("site").join(name).to_str().expect("UTF-8").to_owned();
    TestServer::with(&[
        ("TR50D_TLS__CERT", &path("cert.pem")),
        ("TR50D_TLS__KEY", &path("key.pem")),
        ("TR50D_HTTP__TLS_LISTEN", "127.0.0.1:0"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_of_the_readme_works() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let server = server_with_tls(dir.path());
    let _mower = server.thing("mqtt", "mower-1").await;
    let (http, https) = (server.address("http").port(), server.address("https").port());
    let of_element = |out: &str| out.contains("mower-1");
    let of_cognite = |out: &str| out.contains("operator@basicorg.example");
    let readme = readme();
    let programs: Vec<_> = blocks(&readme).into_iter().filter(|b| b.language == "python").collect();
    let right: [&dyn Fn(&str) -> bool; 2] = [&of_element, &of_cognite];
    assert_eq!(programs.len(), right.len());
    for (program, right) in programs.iter().zip(right) {
        let text = program
            .text
            .replace("port=8443", &format!("port={https}"))
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{http}"));
        let mut command = Command::new(python());
        command.current_dir(dir.path()).args(["-c", &text]);
        let (status, out, err) = run(command);
        assert!(status.success() && right(&out), "{text}\n{out}{err}");
    }
}
