//! The floor: the least that a tokio server can do for the same traffic. A task a connection reads
//! what has come and writes as many frames back; nothing is parsed but frame lengths.
//!
//! MQTT: CONNECT gets a CONNACK, SUBSCRIBE of one filter a SUBACK. A PUBLISH goes back as it is, with
//! a PUBACK before it if it has QoS 1; one to `api…` with `reply` instead in its topic, QoS 0, and its
//! own payload or the one that is prepared. TCP: the first line gets a login reply, every other line
//! goes back as it is.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves on a free port of loopback, which it prints, until the process is killed. `speech` is
/// `mqtt` or `tcp`; `prepared`, if any, is the payload of all answers over MQTT.
pub(crate) async fn serve(speech: &str, prepared: Option<&'static [u8]>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {speech} {}\nready", listener.local_addr()?);
    let over_mqtt = speech == "mqtt";
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        if over_mqtt {
            tokio::spawn(echo(stream, move |input, output| answer_mqtt(input, prepared, output)));
        } else {
            tokio::spawn(echo(stream, answer_tcp));
        }
    }
}

/// `answer` takes whole frames from the bytes, appends the answers, and says how many bytes it took.
async fn echo(
    mut stream: TcpStream,
    answer: impl Fn(&[u8], &mut Vec<u8>) -> usize,
) -> io::Result<()> {
    let (mut input, mut output) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    loop {
        input.reserve(4096);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let used = answer(&input, &mut output);
        input.drain(..used);
        stream.write_all(&output).await?;
        output.clear();
    }
}

fn answer_mqtt(input: &[u8], prepared: Option<&[u8]>, output: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some((first, body, length)) = frame(&input[used..]) {
        let whole = &input[used..used + length];
        used += length;
        match first & 0xf0 {
            0x10 => output.extend_from_slice(&[0x20, 2, 0, 0]),
            0x30 if body[2..].starts_with(b"api") => answer_publish(first, body, prepared, output),
            0x30 => echo_publish(whole, body, output),
            0x80 => output.extend_from_slice(&[0x90, 3, body[0], body[1], 0]),
            0xc0 => output.extend_from_slice(&[0xd0, 0]),
            _ => {}
        }
    }
    used
}

fn echo_publish(whole: &[u8], body: &[u8], output: &mut Vec<u8>) {
    if whole[0] & 0x06 != 0 {
        let topic_len = usize::from(body[0]) << 8 | usize::from(body[1]);
        output.extend_from_slice(&[0x40, 2, body[2 + topic_len], body[3 + topic_len]]);
    }
    output.extend_from_slice(whole);
}

fn answer_publish(first: u8, body: &[u8], prepared: Option<&[u8]>, output: &mut Vec<u8>) {
    let topic_len = usize::from(body[0]) << 8 | usize::from(body[1]);
    let suffix = &body[2 + 3..2 + topic_len];
    let mut payload = &body[2 + topic_len..];
    if first & 0x06 != 0 {
        output.extend_from_slice(&[0x40, 2, payload[0], payload[1]]);
        payload = &payload[2..];
    }
    let payload = prepared.unwrap_or(payload);
    output.push(0x30);
    let mut remaining = 2 + 5 + suffix.len() + payload.len();
    while remaining > 0x7f {
        output.push(remaining as u8 | 0x80);
        remaining >>= 7;
    }
    output.push(remaining as u8);
    output.extend_from_slice(&((5 + suffix.len()) as u16).to_be_bytes());
    output.extend_from_slice(b"reply");
    output.extend_from_slice(suffix);
    output.extend_from_slice(payload);
}

fn frame(input: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut remaining, mut size) = (0, 1);
    loop {
        let byte = *input.get(size)?;
        remaining |= usize::from(byte & 0x7f) << (7 * (size - 1));
        size += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((input[0], input.get(size..size + remaining)?, size + remaining))
}

fn answer_tcp(input: &[u8], output: &mut Vec<u8>) -> usize {
    const LOGIN: &[u8] = br#"{"auth":{"success":true,"params":{"sessionId":"0","orgKey":"x"}}}"#;
    let mut used = 0;
    while let Some(end) = input[used..].iter().position(|byte| *byte == b'\n') {
        let line = &input[used..used + end];
        let login = line.starts_with(br#"{"auth""#);
        output.extend_from_slice(if login { LOGIN } else { line });
        output.push(b'\n');
        used += end + 1;
    }
    used
}
