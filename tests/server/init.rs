//! `tr50d init`, from outside: what it makes, that it can be served at once, and what it refuses. At a
//! terminal (util-linux's `script`) and as another user (its `setpriv`) only when `TR50D_TEST_CLIENTS`
//! is set.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use serde_json::Value;

use super::outside_clients::wanted;
use support::process::run;
use support::{SOON, ServerProcess};

const PROGRAM: &str = super::TR50D.0;

/// What `init` makes, with TLS.
const ALL: [&str; 4] = ["bootstrap.toml", "cert.pem", "key.pem", "tr50d.toml"];

/// A directory for sites, and the one that is to be made.
struct Place {
    dir: tempfile::TempDir,
}

/// What `init` said.
struct Said {
    out: String,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn site(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    /// `tr50d init site …`, in the directory, with nothing to read.
    fn init(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.dir.path()).args(["init", "site"]).args(args);
        command
    }

    fn makes(&self, args: &[&str]) -> Said {
        let (status, out, err) = run(self.init(args));
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{args:?}: {out}");
        Said { out }
    }

    /// `init` with this refuses with exit status 2, says why in a sentence, and leaves nothing.
    fn refuses(&self, command: Command, word: &str) {
        let before = listing(self.dir.path());
        let shown = format!("{command:?}");
        let (status, out, err) = run(command);
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{shown}: {err}");
        assert!(err.contains(word), "{shown}: not {word:?} but {err}");
        assert_eq!(listing(self.dir.path()), before, "{shown} left something");
    }

    /// Serves the site on free ports, from another working directory.
    fn serve(&self) -> ServerProcess {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(self.site().join("tr50d.toml"));
        command.current_dir("/").stderr(Stdio::null());
        for section in ["MQTT", "TCP", "HTTP"] {
            command.env(format!("TR50D_{section}__LISTEN"), "127.0.0.1:0");
        }
        if self.site().join("cert.pem").exists() {
            for section in ["MQTT", "TCP", "HTTP"] {
                command.env(format!("TR50D_{section}__TLS_LISTEN"), "127.0.0.1:0");
            }
        }
        ServerProcess::spawn(command)
    }
}

impl Said {
    /// The first word after a label at the beginning of a line.
    fn word(&self, label: &str) -> Option<&str> {
        let line = self.out.lines().find_map(|line| line.strip_prefix(label))?;
        line.split_whitespace().next()
    }

    fn token(&self) -> &str {
        self.word("Device token").expect("a token")
    }
}

/// All paths below a directory, with mode and bytes.
fn listing(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let mode = fs::symlink_metadata(&path).expect("there").permissions().mode();
        let bytes = fs::read(&path).unwrap_or_default();
        if path.is_dir() {
            found.extend(listing(&path));
        }
        found.push((path, mode, bytes));
    }
    found.sort();
    found
}

/// `tr50d call` with this URL; the reply has to be a success.
fn call(command: &str, url: &str) -> Value {
    let mut call = Command::new(PROGRAM);
    call.args(["call", command, "--url", url]);
    let (status, out, err) = run(call);
    assert_eq!(status.code(), Some(0), "{command} at {url}: {out}{err}");
    serde_json::from_str(&out).expect("JSON")
}

#[test]
fn what_init_makes_is_served_as_it_is() {
    let place = Place::new();
    let said = place.makes(&[]);
    let mut check = Command::new(PROGRAM);
    check.current_dir("/").args(["check", "--config"]).arg(place.site().join("tr50d.toml"));
    assert_eq!(run(check).0.code(), Some(0));
    let password = said.word("Password").expect("one that was made").to_owned();
    assert_eq!(said.word("Administrator"), Some("admin@localhost"));
    assert!(password.len() >= 16 && said.token().len() >= 16, "{}", said.out);

    let server = place.serve();
    for scheme in ["mqtt", "tcp", "http"] {
        let address = server.address(scheme);
        let device = format!("{scheme}://mower-{scheme}:{}@{address}", said.token());
        let info = call("session.info", &device);
        assert_eq!(info["params"]["orgKey"], "Main", "{info}");
        let admin = format!("{scheme}://admin%40localhost:{password}@{address}");
        let info = call("session.info", &admin);
        assert_eq!(info["params"]["hasSuperAdmin"], true, "{info}");
        let things = call("thing.list", &admin);
        let found = things["params"]["result"].as_array().expect("things");
        assert!(found.iter().any(|thing| thing["key"] == format!("mower-{scheme}")), "{things}");
    }
    drop(server);
    // A second start finds the state of the first.
    let server = place.serve();
    let admin = format!("tcp://admin%40localhost:{password}@{}", server.address("tcp"));
    assert_eq!(call("thing.list", &admin)["params"]["count"], 3);
    assert!(place.site().join("data").is_dir());
}

#[test]
fn nobody_else_reads_what_init_makes_and_no_secret_is_in_it() {
    let place = Place::new();
    let mut init = place.init(&["--password-stdin", "--self-signed"]);
    init.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = init.spawn().expect("the program");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"correct horse\r\nbattery\n").expect("it reads");
    drop(stdin);
    let out = child.wait_with_output().expect("its output");
    assert!(out.status.success());
    let said = Said { out: String::from_utf8(out.stdout).expect("UTF-8") };
    assert_eq!(said.word("Password"), None, "it is known to the one who chose it");
    let made = listing(&place.site());
    let names: Vec<_> =
        made.iter().map(|(path, ..)| path.file_name().expect("a name").to_owned()).collect();
    assert_eq!(names, ALL);
    for (path, mode, bytes) in &made {
        assert_eq!(mode & 0o777, 0o600, "{path:?}");
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("correct horse") && !text.contains(said.token()), "{path:?}");
    }
    let mode = fs::metadata(place.site()).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let server = place.serve();
    let address = server.address("tcp");
    call("diag.ping", &format!("tcp://admin%40localhost:correct%20horse@{address}"));
}

#[test]
fn clients_trust_the_certificate_that_init_makes() {
    let place = Place::new();
    let said = place.makes(&["--self-signed", "tr50.example.org"]);
    assert!(said.out.contains("mqtts 0.0.0.0:8883, tcps 0.0.0.0:5051"), "{}", said.out);
    let server = place.serve();
    let ca = place.site().join("cert.pem");
    let ca = ca.to_str().expect("UTF-8");
    for (scheme, listener) in
        [("mqtts", "mqtts"), ("tcps", "tcps"), ("https", "https"), ("wss", "https")]
    {
        let address = server.address(listener);
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("{scheme}://d:{}@{host}:{}/?ca={ca}", said.token(), address.port());
            call("diag.ping", &url);
        }
    }
    let port = server.address("https").port();
    if !wanted() {
        return;
    }
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--cacert", ca, "--resolve", &format!("tr50.example.org:{port}:127.0.0.1")]);
    curl.arg(format!("https://tr50.example.org:{port}/healthz"));
    let (status, out, err) = run(curl);
    assert!(status.success(), "{out}{err}");
    let port = server.address("mqtts").port().to_string();
    let mut rr = Command::new("mosquitto_rr");
    rr.args(["-h", "localhost", "-p", &port, "--cafile", ca, "-i", "d", "-u", "d"]);
    rr.args(["-P", said.token(), "-t", "api/1", "-e", "reply/1", "-W", "20"]);
    rr.args(["-m", r#"{"cmd":{"command":"diag.ping"}}"#]);
    let (status, out, err) = run(rr);
    assert!(status.success() && out.contains("\"success\":true"), "{out}{err}");
}

/// The commands under "Next", which somebody copies.
#[test]
fn the_commands_that_init_prints_work() {
    let place = Place::new();
    let said = place.makes(&["--self-signed", "--org", "Green Lawns", "--email", "me@x.example"]);
    let commands: Vec<&str> = said.out.lines().filter(|line| line.contains("--")).collect();
    let is = |word: &'static str| commands.iter().filter(move |line| line.contains(word));
    assert_eq!((is(" check ").count(), is(" serve ").count(), is(" call ").count()), (1, 1, 3));
    let shell = |line: &str| {
        let mut shell = Command::new("sh");
        shell.current_dir(place.dir.path()).args(["-c", line]);
        let (status, out, err) = run(shell);
        assert!(status.success(), "{line}: {out}{err}");
    };
    is(" check ").for_each(|line| shell(line));
    let mut serve = Command::new("sh");
    let line = is(" serve ").next().expect("one").trim();
    serve.current_dir(place.dir.path()).args(["-c", &format!("exec {line}")]);
    for section in ["MQTT", "TCP", "HTTP"] {
        serve.env(format!("TR50D_{section}__LISTEN"), "127.0.0.1:0");
        serve.env(format!("TR50D_{section}__TLS_LISTEN"), "127.0.0.1:0");
    }
    serve.stderr(Stdio::null());
    let server = ServerProcess::spawn(serve);
    for line in is(" call ") {
        let scheme =
            ["mqtts", "mqtt", "tcp"].into_iter().find(|s| line.contains(&format!("'{s}:")));
        let port = server.address(scheme.expect("a scheme")).port();
        // The ports are the usual ones there, and may be taken here.
        let line = match line.split_once("@127.0.0.1").or_else(|| line.split_once("@localhost")) {
            Some((start, end)) => format!("{start}@127.0.0.1:{port}{end}"),
            None => panic!("no host in {line}"),
        };
        shell(&line);
    }
}

#[test]
fn what_can_not_be_made_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let refuses = |args: &[&str], word: &str| place.refuses(place.init(args), word);
    refuses(&["--email", "nobody"], "it is no e-mail address");
    refuses(&["--slug", "A"], "3 to 64 of a-z");
    refuses(&["--slug", "1st-org"], "the first a letter");
    refuses(&["--org", " x"], "1 to 64 bytes");
    refuses(&["--org", "日本"], "--slug");
    refuses(&["--self-signed", "no name"], "no host name and no IP address");
    refuses(&["--colour"], "--colour");
    let mut nowhere = Command::new(PROGRAM);
    nowhere.args(["init"]).arg(place.dir.path().join("no/such"));
    place.refuses(nowhere, "No such file");
    for (password, word) in [
        ("", "no password"),
        ("\n", "less than 8 bytes"),
        ("1234567\n", "less than 8 bytes"),
        ("me@x.example", "the e-mail address"),
        ("aaaaaaaaaa\n", "one character"),
        (&*"long".repeat(300), "more than 1024 bytes"),
    ] {
        let input = place.dir.path().join("input");
        fs::write(&input, password).expect("written");
        let mut shell = Command::new("sh");
        shell.current_dir(place.dir.path()).args(["-c", "exec \"$0\" \"$@\" <input", PROGRAM]);
        shell.args(["init", "site", "--email", "me@x.example", "--password-stdin"]);
        place.refuses(shell, word);
    }
    // Its path would have to stand in the configuration.
    let mut odd = Command::new(PROGRAM);
    odd.current_dir(place.dir.path()).arg("init");
    odd.arg(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"odd\xff"));
    place.refuses(odd, "not UTF-8");
}

#[test]
fn nothing_that_is_there_is_changed() {
    for name in ALL.iter().chain(&["data"]) {
        let place = Place::new();
        fs::create_dir(place.site()).expect("made");
        fs::write(place.site().join(name), "mine").expect("written");
        place.refuses(place.init(&[]), &format!("site/{name} exists already"));
    }
    let place = Place::new();
    fs::write(place.site(), "a file").expect("written");
    place.refuses(place.init(&[]), "is not a directory");
    // An empty directory of somebody's is taken, and stays theirs.
    let place = Place::new();
    fs::create_dir(place.site()).expect("made");
    fs::write(place.site().join("notes"), "mine").expect("written");
    place.makes(&[]);
    assert_eq!(listing(&place.site()).len(), 3);
    place.refuses(place.init(&[]), "site/tr50d.toml exists already");
    // Out of what can be written: everything goes again.
    let place = Place::new();
    let mut init = place.init(&["--self-signed"]);
    init.stdout(fs::OpenOptions::new().write(true).open("/dev/full").expect("a device"));
    let out = init.stdin(Stdio::null()).stderr(Stdio::piped()).output().expect("the program");
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && err.contains("nothing was"), "{err}");
    assert_eq!(listing(place.dir.path()), []);
}

/// Who must not write there. The tests may run as root, who may everything: then as somebody else.
#[test]
fn a_place_that_can_not_be_written_is_refused() {
    let place = Place::new();
    let closed = place.dir.path().join("closed");
    fs::create_dir(&closed).expect("made");
    let readable = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    readable(place.dir.path(), 0o755);
    readable(&closed, 0o555);
    let is_root = fs::write(closed.join("probe"), "").is_ok();
    let mut init = match is_root {
        true if !wanted() => return,
        true => {
            fs::remove_file(closed.join("probe")).expect("removed");
            // The program may lie where only root comes.
            fs::copy(PROGRAM, place.dir.path().join("tr50d")).expect("copied");
            let mut init = Command::new("setpriv");
            init.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            init.arg(place.dir.path().join("tr50d"));
            init
        }
        false => Command::new(PROGRAM),
    };
    init.arg("init").arg(closed.join("site"));
    place.refuses(init, "Permission denied");
}

/// At a terminal: `script` makes one.
struct Terminal {
    child: Child,
    output: Receiver<Vec<u8>>,
    shown: String,
    /// How far it was read.
    seen: usize,
}

impl Terminal {
    fn start(command: &str, dir: &Path) -> Self {
        let mut script = Command::new("script");
        script.current_dir(dir).args(["--quiet", "--return", "--command", command, "/dev/null"]);
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).env("SHELL", "/bin/sh");
        let mut child = script.spawn().expect("util-linux");
        let mut out = child.stdout.take().expect("piped");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, output, shown: String::new(), seen: 0 }
    }

    /// Takes what is shown next; whether there was something before the end.
    fn reads(&mut self) -> bool {
        match self.output.recv_timeout(SOON) {
            Ok(bytes) => self.shown += &String::from_utf8_lossy(&bytes),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("nothing more after {}", self.shown),
        }
        true
    }

    /// Reads until this is shown, after what was read before.
    fn until(&mut self, text: &str) {
        loop {
            if let Some(at) = self.shown[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(self.reads(), "never {text:?} in {}", self.shown);
        }
    }

    fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().expect("piped").write_all(text.as_bytes()).expect("typed");
    }

    /// All that is shown, and the exit status.
    fn ends(mut self) -> (String, Option<i32>) {
        while self.reads() {}
        let status = self.child.wait().expect("ended").code();
        (std::mem::take(&mut self.shown), status)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_password_is_asked_for_twice_and_does_not_show() {
    if !wanted() {
        return;
    }
    let place = Place::new();
    let mut terminal =
        Terminal::start(&format!("{PROGRAM} init site --email me@x.example"), place.dir.path());
    terminal.until("Password for me@x.example (empty: one is made): ");
    terminal.types("short\r");
    terminal.until("less than 8 bytes\r\nPassword for me@x.example (empty: one is made): ");
    terminal.types("correct horse\r");
    terminal.until("The same again: ");
    terminal.types("correct house\r");
    terminal.until("not the same\r\nPassword for me@x.example (empty: one is made): ");
    terminal.types("correct horse\r");
    terminal.until("The same again: ");
    terminal.types("correct horse\r");
    let (shown, status) = terminal.ends();
    assert_eq!(status, Some(0), "{shown}");
    assert!(!shown.contains("horse") && !shown.contains("short\r"), "{shown}");
    assert!(!shown.contains("shown only now)\r\nPassword"), "{shown}");
    let server = place.serve();
    call("diag.ping", &format!("tcp://me%40x.example:correct%20horse@{}", server.address("tcp")));

    // Not for ever.
    let place = Place::new();
    let mut terminal = Terminal::start(&format!("{PROGRAM} init site"), place.dir.path());
    for _ in 0..3 {
        terminal.until("one is made): ");
        terminal.types("short\r");
    }
    let (shown, status) = terminal.ends();
    assert!(status == Some(2) && shown.contains("no password in 3 attempts"), "{shown}");
    assert_eq!(listing(place.dir.path()), []);

    // Nothing entered: one is made.
    let place = Place::new();
    let mut terminal = Terminal::start(&format!("{PROGRAM} init site"), place.dir.path());
    terminal.until("one is made): ");
    terminal.types("\r");
    let (shown, status) = terminal.ends();
    assert!(status == Some(0) && shown.contains("\nPassword       "), "{shown}");
}

#[test]
fn ctrl_c_at_the_question_leaves_nothing_and_an_echo() {
    if !wanted() {
        return;
    }
    let place = Place::new();
    let command = format!("trap : INT; {PROGRAM} init site; echo status $?; stty -a");
    let mut terminal = Terminal::start(&command, place.dir.path());
    terminal.until("one is made): ");
    terminal.types("\x03");
    let (shown, _) = terminal.ends();
    assert!(shown.contains("nothing was made") && shown.contains("status 2"), "{shown}");
    assert!(shown.contains(" echo ") && !shown.contains("-echo "), "{shown}");
    assert_eq!(listing(place.dir.path()), []);
}
