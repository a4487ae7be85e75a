//! The pieces of the server's work: what is timed by `cargo bench --bench micro`, and what is
//! counted by `tests/instruction_counts.rs`.

use std::hint::black_box;
use std::rc::Rc;

use base::{Code, Failure, limits};
use mqtt::encode::{self, PublishHead};
use mqtt::{PublishProperties, QoS, Version, decode};
use tr50d::tr50::envelope::Request;
use tr50d::tr50::exchange;
use tr50d::tr50::step::{Done, WriteReply};

use super::device::Device;
use super::setup::{NOW, Setup};

/// A piece of work that is done again and again.
pub struct Piece {
    /// What one step does.
    pub name: &'static str,
    /// Makes ready what a step needs.
    pub prepare: fn(&Rc<Setup>) -> Step,
}

/// Does a piece of work once.
pub type Step = Box<dyn FnMut()>;

/// Every piece but the expiry, which leaves nothing to be done again.
pub const PIECES: &[Piece] = &[
    Piece { name: "parse", prepare: parse },
    Piece { name: "write", prepare: write },
    Piece { name: "decode 20 frames", prepare: decode_frames },
    Piece { name: "encode 20 frames", prepare: encode_frames },
    Piece { name: "touch 1,000 sessions", prepare: touch },
    Piece { name: "diag.ping", prepare: ping },
    Piece { name: PAGE, prepare: list_page },
    Piece { name: "session.list, all", prepare: list_all },
    Piece { name: "property.publish", prepare: publish },
    Piece { name: "property.batch, 200 rows", prepare: batch },
    Piece { name: "MQTT, 20 diag.ping", prepare: mqtt_pings },
    Piece { name: "MQTT, CONNECT to end", prepare: mqtt_connection },
];

/// The name of the piece that lists 50 sessions.
pub const PAGE: &str = "session.list, 50";

/// Frames of one read.
const FRAMES: u16 = 20;

/// Sessions that are touched in one step.
const TOUCHED: usize = 1000;

/// Rows of one batch of telemetry.
const ROWS: u64 = 200;

/// What the browser client of TR50's documentation sends, and every benchmark.
const PING: &str = r#"{"cmd":{"command":"diag.ping"}}"#;

/// A sample of a device that writes JSON as Python does.
const PUBLISH: &str = concat!(
    r#"{"1": {"command": "property.publish", "params": {"thingKey": "device-0", "#,
    r#""key": "battery-voltage", "value": 24.125, "ts": "2025-11-22T00:00:00.000Z"}}}"#,
);

fn parse(_: &Rc<Setup>) -> Step {
    Box::new(|| {
        let mut mended = String::new();
        let request = Request::parse(black_box(PUBLISH.as_bytes()), &mut mended);
        black_box(request).expect("a request");
    })
}

/// A reply with a login's answer, a success with something to say, one without, and a failure.
fn write(setup: &Rc<Setup>) -> Step {
    let (setup, mut out) = (setup.clone(), Vec::new());
    let text = "The temperature is 21.5 \u{b0}C; \"high\" begins at 30.";
    let failure = Failure::new(Code::NOT_FOUND, "Thing \"mower-7\" was not found.");
    Box::new(move || {
        out.clear();
        exchange::push_login(setup.session(), &mut out);
        black_box(text).write_reply(&mut out);
        Done.write_reply(&mut out);
        black_box(&failure).write(&mut out);
        black_box(&out);
    })
}

/// What one read brings of a client with 20 requests on their way.
fn decode_frames(_: &Rc<Setup>) -> Step {
    let mut bytes = Vec::new();
    for pkid in 1..=FRAMES {
        let topic = format!("api/{pkid:04}");
        put_publish(&mut bytes, QoS::AtLeastOnce, pkid, &[topic.as_bytes()], PUBLISH.as_bytes());
    }
    Box::new(move || {
        let mut rest = black_box(bytes.as_slice());
        while !rest.is_empty() {
            let decoded = decode(rest, Version::V311, usize::MAX).expect("well-formed");
            let (packet, size) = decoded.expect("complete");
            black_box(packet);
            rest = &rest[size..];
        }
    })
}

/// What one write takes to it: acknowledgements and replies.
fn encode_frames(_: &Rc<Setup>) -> Step {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for pkid in 1..=FRAMES {
            encode::puback(&mut out, Version::V311, pkid, 0);
            let topic: &[&[u8]] = black_box(&[b"reply", b"/0001"]);
            put_publish(&mut out, QoS::AtMostOnce, 0, topic, br#"{"1":{"success":true}}"#);
        }
        black_box(&out);
    })
}

fn put_publish(out: &mut Vec<u8>, qos: QoS, pkid: u16, topic: &[&[u8]], payload: &[u8]) {
    let properties = &PublishProperties::default();
    let (dup, retain, subscription_ids) = (false, false, [].as_slice());
    let head = PublishHead { dup, qos, retain, pkid, topic, properties, subscription_ids };
    encode::publish(out, Version::V311, &head, payload).expect("it is short");
}

fn touch(setup: &Rc<Setup>) -> Step {
    let setup = setup.clone();
    let mut sessions = setup.app.directory().all();
    sessions.truncate(TOUCHED);
    Box::new(move || {
        for session in &sessions {
            setup.app.touch(session, black_box(NOW), 1);
        }
    })
}

fn ping(setup: &Rc<Setup>) -> Step {
    request(setup, PING.to_owned())
}

fn list_page(setup: &Rc<Setup>) -> Step {
    let command = r#"{"cmd":{"command":"session.list","params":{"offset":100,"limit":50}}}"#;
    request(setup, command.to_owned())
}

/// As many as a reply may hold: 5,000 of 100,000 sessions.
fn list_all(setup: &Rc<Setup>) -> Step {
    request(setup, r#"{"cmd":{"command":"session.list"}}"#.to_owned())
}

fn publish(setup: &Rc<Setup>) -> Step {
    request(setup, PUBLISH.to_owned())
}

/// A gateway's batch: values of ten properties, a second apart (`docs/protocol/tr50.md` 0, fact
/// 30).
fn batch(setup: &Rc<Setup>) -> Step {
    let row = |number: u64| {
        let (property, value) = (number % 10, number as f64 / 8.0);
        let ts = NOW.plus_seconds(number);
        format!(r#"{{"key":"property{property}","value":{value},"ts":"{ts}"}}"#)
    };
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    let command = r#"{"cmd":{"command":"property.batch","params":{"data":["#;
    request(setup, format!("{command}{}]}}}}}}", rows.join(",")))
}

/// What people type, and who it is good for: nothing, one thing, all of them, each in another way.
pub const QUERIES: [&str; 7] =
    ["nowhere", "356938000077777", "mower", "e", "mower 7 site", "m*7*site", "10.0.77."];

/// One search, the whole command. It is on another thread in part.
pub fn search(setup: &Rc<Setup>, query: &str) -> Step {
    request(
        setup,
        format!(r#"{{"cmd":{{"command":"search.omni","params":{{"query":"{query}"}}}}}}"#),
    )
}

/// A request, from its bytes to those of the reply, without the transport.
fn request(setup: &Rc<Setup>, request: String) -> Step {
    let (setup, mut out) = (setup.clone(), Vec::with_capacity(limits::REPLY_BYTES_MAX / 8));
    setup.answer(&request, &mut out);
    let text = String::from_utf8_lossy(&out);
    let done = text.contains(r#""success":true"#) && !text.contains(r#""success":false"#);
    assert!(done, "{request}: {text}");
    Box::new(move || {
        setup.answer(black_box(&request), &mut out);
        black_box(&out);
    })
}

/// One read of a client with 20 requests on their way, from the bytes to those of the write.
fn mqtt_pings(setup: &Rc<Setup>) -> Step {
    let mut device = Device::connect(setup, &Device::connect_frame("device-1"));
    let (mut frames, mut out) = (Vec::new(), Vec::new());
    for number in 1..=FRAMES {
        let topic = format!("api/{number}");
        put_publish(&mut frames, QoS::AtMostOnce, 0, &[topic.as_bytes()], PING.as_bytes());
    }
    device.send(&frames, &mut out);
    let answers = out.windows(7).filter(|bytes| bytes == b"success").count();
    assert_eq!(answers, usize::from(FRAMES));
    Box::new(move || {
        device.send(black_box(&frames), &mut out);
        black_box(&out);
    })
}

/// A connection of a device that is known, from its CONNECT with a token to its end.
fn mqtt_connection(setup: &Rc<Setup>) -> Step {
    let (setup, frame) = (setup.clone(), Device::connect_frame("device-2"));
    Box::new(move || Device::connect(&setup, black_box(&frame)).disconnect())
}

/// The expiry of so many sessions that are all due; to be done once.
pub fn expiry(sessions: usize) -> Step {
    let setup = Setup::with_sessions(sessions);
    Box::new(move || setup.expire())
}
