//! A client's stream through the TCP edge and its driver, cut anywhere.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tr50d::edge::{Stream, tcp};

use super::{Target, cut, pieces};
use crate::SOON;
use crate::micro::{Setup, conn};

/// Inputs before the servers are made anew: what they keep grows.
const INPUTS_MAX: usize = 500;

const LOGIN: &[u8] = concat!(
    r#"{"auth":{"command":"api.authenticate","params":"#,
    r#"{"appToken":"the-token-of-org-0","appId":"","thingKey":"device-fuzz"}}}"#,
    "\n"
)
.as_bytes();

/// Commands that wait for a device, and would for half a minute.
const WAITING: [&[u8]; 2] = [b"method", b"mailbox"];

/// Two servers that get the same streams: one as a whole, the other in pieces. The first byte says
/// whether a login goes before; then `cut`.
pub struct TcpStreams {
    servers: [Setup; 2],
    inputs: usize,
}

impl Target for TcpStreams {
    const NAME: &'static str = "tcp_stream";

    fn new() -> Self {
        Self { servers: [(); 2].map(|()| Setup::with_sessions(0)), inputs: 0 }
    }

    fn check(&mut self, data: &[u8]) {
        let Some((choice, rest)) = data.split_first() else { return };
        let (sizes, bytes) = cut(rest);
        let lower = bytes.to_ascii_lowercase();
        let waits = |word: &&[u8]| lower.windows(word.len()).any(|part| part == *word);
        // Their names can be written with escapes as well.
        if WAITING.iter().any(waits) || lower.windows(2).any(|part| part == b"\\u") {
            return;
        }
        let login = if choice & 0x01 != 0 { LOGIN } else { b"" };
        let [whole, cut] = &self.servers;
        let whole = converse(whole, &[&[login, bytes].concat()]);
        let cut = converse(cut, &[&[login], pieces(bytes, &sizes).as_slice()].concat());
        let (whole, cut) = (lines(&whole), lines(&cut));
        // Who ends the session hears of what came in the same piece that it is too late.
        let most = whole.len().min(cut.len());
        assert_eq!(whole[..most], cut[..most], "as a whole, and in pieces");
        let mut late = whole[most..].iter().chain(&cut[most..]);
        assert!(late.all(|line| line.starts_with("errorCodes")), "{whole:?}, in pieces {cut:?}");
        self.inputs += 1;
        if self.inputs == INPUTS_MAX {
            *self = Self::new();
        }
    }
}

/// What the server says to the pieces until it closes.
fn converse(server: &Setup, pieces: &[&[u8]]) -> Vec<u8> {
    server.runtime.block_on(async {
        // Small enough for the server to be kept waiting.
        let (mut near, far) = tokio::io::duplex(4096);
        let (app, stop) = (server.app.clone(), CancellationToken::new());
        let served = tcp::serve(app, Stream::Boxed(Box::new(far)), conn(0), false, stop);
        let talk = async {
            let (mut from, mut to) = tokio::io::split(&mut near);
            let write = async {
                for piece in pieces {
                    // Who is refused is not listened to.
                    let _ = to.write_all(piece).await;
                    tokio::task::yield_now().await;
                }
                let _ = to.shutdown().await;
            };
            let mut said = Vec::new();
            let (_, read) = tokio::join!(write, from.read_to_end(&mut said));
            read.expect("it closes in order");
            said
        };
        let both = async { tokio::join!(served, talk).1 };
        timeout(SOON, both).await.expect("it comes to its end")
    })
}

/// Which lines succeeded, which failed and which are both; each is JSON.
fn lines(said: &[u8]) -> Vec<String> {
    let said = std::str::from_utf8(said).expect("text");
    assert!(said.is_empty() || said.ends_with('\n'), "half a line: {said}");
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let object = value.as_object().expect("an object");
        let members = object.iter();
        members.map(|(name, value)| format!("{name}:{}", value["success"])).collect()
    };
    said.lines().filter(|text| !text.starts_with(r#"{"notify""#)).map(line).collect()
}
