//! Listeners without TLS that others could reach: only on request.

use std::process::Command;

use support::process::run;
use support::{ServerProcess, Signal};

use crate::TR50D;

/// A configuration in a directory of its own; its plain listeners are on free ports of these hosts.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new(mqtt: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.toml");
        let data = dir.path().join("data");
        let text = format!(
            "[server]\ndata_dir = {data:?}\nbootstrap = {fixture:?}\n{more}\n\
             [mqtt]\nlisten = \"{mqtt}:0\"\n[tcp]\nlisten = \"none\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\n"
        );
        std::fs::write(dir.path().join("tr50d.toml"), text).expect("written");
        Self { dir }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(TR50D.0);
        command.args([name, "--config"]).arg(self.dir.path().join("tr50d.toml"));
        command
    }
}

#[tokio::test]
async fn a_plain_listener_beyond_loopback_needs_a_word() {
    for host in ["0.0.0.0", "[::]"] {
        let site = Site::new(host, "");
        for command in ["serve", "check"] {
            let (status, out, err) = run(site.command(command));
            assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{command}: {err}");
            let lines = err.lines().filter(|line| line.starts_with("tr50d: "));
            let sentences: Vec<&str> = lines.collect();
            let [sentence] = sentences[..] else { panic!("{command}: {err}") };
            assert!(sentence.contains(&format!("mqtt.listen is {host}:0")), "{sentence}");
            assert!(sentence.contains("server.allow_plaintext = true"), "{sentence}");
        }
        assert!(!site.dir.path().join("data").exists());
    }
    let site = Site::new("0.0.0.0", "allow_plaintext = true");
    assert_eq!(run(site.command("check")).0.code(), Some(0));
    let mut serve = site.command("serve");
    serve.stderr(std::process::Stdio::null());
    let mut server = ServerProcess::spawn(serve);
    assert!(server.lines().iter().any(|line| line.starts_with("listening mqtt 0.0.0.0:")));
    assert_eq!(server.end(Signal::TERM).await.code(), Some(0));
}
