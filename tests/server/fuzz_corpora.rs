//! What fuzzing found worth keeping, once more: each file of `fuzz/corpus` and `fuzz/regressions`.

use support::fuzz::{
    Cursors, DirectorySteps, Envelope, HttpBodies, MqttFrames, MqttStream, ProxyHeader, Restore,
    SharesSteps, TcpStreams, replay,
};

#[test]
fn mqtt_frames() {
    replay::<MqttFrames>();
}

#[test]
fn mqtt_stream() {
    replay::<MqttStream>();
}

#[test]
fn envelope() {
    replay::<Envelope>();
}

#[test]
fn tcp_stream() {
    replay::<TcpStreams>();
}

#[test]
fn proxy() {
    replay::<ProxyHeader>();
}

#[test]
fn http_bodies() {
    replay::<HttpBodies>();
}

#[test]
fn cursors() {
    replay::<Cursors>();
}

#[test]
fn restore() {
    replay::<Restore>();
}

#[test]
fn directory() {
    replay::<DirectorySteps>();
}

#[test]
fn shares() {
    replay::<SharesSteps>();
}
