//! The codec against itself and against arbitrary bytes; below, against rumqttd's codec and
//! against what the specification forbids.

mod oracle;
mod refusals;

use std::num::NonZeroU16;

use proptest::prelude::*;

use super::encode::PublishHead;
use super::packet::{Connect, RetainHandling, Will};
use super::*;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const MAX: usize = 1 << 20;

fn whole(bytes: &[u8], version: Version) -> Packet<'_> {
    let (packet, length) = decode(bytes, version, MAX).expect("well-formed").expect("complete");
    assert_eq!(length, bytes.len());
    packet
}

/// Every proper beginning of a frame is incomplete, never an error and never a packet.
fn check_splits(bytes: &[u8], version: Version) {
    for end in 0..bytes.len() {
        let half = bytes.get(..end).expect("shorter");
        assert_eq!(decode(half, version, MAX), Ok(None), "{version:?} {end} of {bytes:02x?}");
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 äß/_-]{0,20}"
}

fn topic_text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9äß/_-]{1,20}"
}

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(VERSIONS.to_vec())
}

fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

prop_compose! {
    /// A property block of PUBLISH.
    fn publish_block()(
        expiry in any::<Option<u32>>(),
        is_text in any::<Option<bool>>(),
        content_type in prop::option::of(text()),
        response_topic in prop::option::of(topic_text()),
        correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        user in prop::collection::vec((text(), text()), 0..3),
    ) -> Vec<u8> {
        let mut users = Vec::new();
        for (name, value) in &user {
            users.push(0x26);
            for text in [name, value] {
                users.extend_from_slice(&(text.len() as u16).to_be_bytes());
                users.extend_from_slice(text.as_bytes());
            }
        }
        let repeated = PublishProperties::parse(&users).expect("user properties").repeated;
        let mut block = Vec::new();
        PublishProperties {
            payload_is_text: is_text,
            expiry,
            content_type: content_type.as_deref(),
            response_topic: response_topic.as_deref(),
            correlation_data: correlation.as_deref(),
            topic_alias: None,
            repeated,
        }
        .put_block(&mut block);
        block
    }
}

/// Equal but for the block they came in.
fn same_properties(one: &PublishProperties<'_>, other: &PublishProperties<'_>) -> bool {
    let users = |set: &PublishProperties<'_>| {
        let pairs = set.repeated.user_properties();
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let bare = |set: &PublishProperties<'_>| {
        format!("{:?}", PublishProperties { repeated: Default::default(), ..*set })
    };
    users(one) == users(other) && bare(one) == bare(other)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        version in version(),
    ) {
        let _ = decode(&bytes, version, MAX);
        let _ = PublishProperties::parse(&bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        first in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..80),
        version in version(),
    ) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend_from_slice(&body);
        if let Ok(Some((packet, length))) = decode(&bytes, version, MAX) {
            prop_assert_eq!(length, bytes.len());
            match packet {
                Packet::Subscribe(subscribe) => prop_assert!(subscribe.filters.count() > 0),
                Packet::Unsubscribe(unsubscribe) => prop_assert!(unsubscribe.filters.count() > 0),
                _ => {}
            }
        }
    }

    #[test]
    fn publishes_come_back(
        version in version(),
        qos in qos(),
        retain in any::<bool>(),
        dup in any::<bool>(),
        pkid in 1_u16..,
        topic in topic_text(),
        block in publish_block(),
        ids in prop::collection::vec(1_u32..=REMAINING_LENGTH_MAX as u32, 0..3),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let properties = PublishProperties::parse(&block).expect("a block");
        let dup = dup && qos != QoS::AtMostOnce;
        let pkid = if qos == QoS::AtMostOnce { 0 } else { pkid };
        let (start, end) = topic.as_bytes().split_at(topic.len() / 2);
        let head = PublishHead {
            dup, qos, retain, pkid,
            topic: &[start, end],
            properties: &properties,
            subscription_ids: &ids,
        };
        let mut bytes = Vec::new();
        encode::publish(&mut bytes, version, &head, &payload).expect("fits");
        check_splits(&bytes, version);
        let Packet::Publish(read) = whole(&bytes, version) else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };
        prop_assert_eq!((read.dup, read.qos, read.retain, read.pkid), (dup, qos, retain, pkid));
        prop_assert_eq!((read.topic, read.payload), (topic.as_str(), payload.as_slice()));
        if version == Version::V5 {
            prop_assert!(same_properties(&read.properties, &properties));
            let read_ids: Vec<u32> = read.properties.repeated.subscription_ids().collect();
            prop_assert_eq!(read_ids, ids);
        } else {
            prop_assert_eq!(read.properties, PublishProperties::default());
        }
    }

    #[test]
    fn connects_come_back(
        version in version(),
        clean in any::<bool>(),
        keep_alive in any::<u16>(),
        client_id in text(),
        login in prop::option::of((text(), prop::option::of(prop::collection::vec(0_u8.., 0..9)))),
        will in prop::option::of(
            (topic_text(), prop::collection::vec(0_u8.., 0..9), qos(), any::<bool>())
        ),
        session_expiry in any::<Option<u32>>(),
    ) {
        let will = will.as_ref().map(|(topic, payload, qos, retain)| Will {
            topic, payload, qos: *qos, retain: *retain, properties: Default::default(),
        });
        let properties = match version {
            Version::V5 => ConnectProperties { session_expiry, ..Default::default() },
            _ => ConnectProperties::default(),
        };
        let packet = Connect {
            version,
            bridge: false, clean, keep_alive, will, properties,
            client_id: &client_id,
            username: login.as_ref().map(|(name, _)| name.as_str()),
            password: login.as_ref().and_then(|(_, password)| password.as_deref()),
        };
        let mut bytes = Vec::new();
        encode::connect(&mut bytes, &packet).expect("fits");
        for any in VERSIONS {
            check_splits(&bytes, any);
            let Packet::Connect(read) = whole(&bytes, any) else {
                return Err(TestCaseError::fail("not a CONNECT"));
            };
            let same = |one: &Connect<'_>| format!("{one:?}").replace(['[', ']'], "");
            prop_assert_eq!(read.version, version);
            prop_assert_eq!(read.properties.session_expiry, properties.session_expiry);
            let bare = Connect { properties, ..read };
            prop_assert_eq!(same(&bare), same(&packet));
        }
    }
}

#[test]
fn answers_have_the_sizes_that_libtr50_wants() {
    let check = |write: &dyn Fn(&mut Vec<u8>), expected: &[u8]| {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out, expected);
    };
    for version in [Version::V31, Version::V311] {
        let none = ConnAckProperties::default();
        let connack = |out: &mut Vec<u8>| encode::connack(out, version, false, 4, &none).expect("");
        check(&connack, &[0x20, 2, 0, 4]);
        check(&|out| encode::suback(out, version, 0, &[0]).expect(""), &[0x90, 3, 0, 0, 0]);
        check(&|out| encode::suback(out, version, 0, &[0x97]).expect(""), &[0x90, 3, 0, 0, 0x80]);
        check(&|out| encode::unsuback(out, version, 1, &[0]).expect(""), &[0xb0, 2, 0, 1]);
        check(&|out| encode::puback(out, version, 1, 0x87), &[0x40, 2, 0, 1]);
        check(&|out| encode::pubrec(out, version, 1, 0x87), &[0x50, 2, 0, 1]);
        check(&|out| encode::pubrel(out, version, 1, 0x92), &[0x62, 2, 0, 1]);
        check(&|out| encode::pubcomp(out, version, 1, 0x92), &[0x70, 2, 0, 1]);
    }
    check(&|out| encode::puback(out, Version::V5, 1, 0), &[0x40, 2, 0, 1]);
    check(&|out| encode::puback(out, Version::V5, 1, 0x87), &[0x40, 3, 0, 1, 0x87]);
    check(&|out| encode::pubrec(out, Version::V5, 1, 0), &[0x50, 2, 0, 1]);
    check(&|out| encode::pubrel(out, Version::V5, 1, 0), &[0x62, 2, 0, 1]);
    check(&|out| encode::pubrel(out, Version::V5, 1, 0x92), &[0x62, 3, 0, 1, 0x92]);
    check(&|out| encode::pubcomp(out, Version::V5, 1, 0x92), &[0x70, 3, 0, 1, 0x92]);
    check(&|out| encode::disconnect(out, Version::V311, 0x8e), &[0xe0, 0]);
    check(&|out| encode::disconnect(out, Version::V5, 0x8e), &[0xe0, 1, 0x8e]);
    check(&encode::pingresp, &[0xd0, 0]);
}

#[test]
fn acknowledgements_come_back() {
    for version in VERSIONS {
        for code in [0x00, 0x92] {
            let expected = if version == Version::V5 { code } else { 0 };
            let mut out = Vec::new();
            encode::pubrel(&mut out, version, 0xfffe, code);
            check_splits(&out, version);
            let Packet::PubRel(ack) = whole(&out, version) else { panic!("not a PUBREL") };
            assert_eq!((ack.pkid, ack.reason), (0xfffe, expected));
        }
    }
    let long = [0x40, 9, 0, 1, 0x10, 5, 0x1f, 0, 2, b'n', b'o'];
    let Packet::PubAck(ack) = whole(&long, Version::V5) else { panic!("not a PUBACK") };
    assert_eq!((ack.pkid, ack.reason), (1, 0x10));
}

#[test]
fn refusals_say_why() {
    let mut out = Vec::new();
    encode::publish_refused(&mut out, QoS::AtLeastOnce, 1, 0x97, "no").expect("short");
    assert_eq!(out, [0x40, 9, 0, 1, 0x97, 5, 0x1f, 0, 2, b'n', b'o']);
    let Packet::PubAck(ack) = whole(&out, Version::V5) else { panic!("not a PUBACK") };
    assert_eq!((ack.pkid, ack.reason), (1, 0x97));
    out.clear();
    encode::publish_refused(&mut out, QoS::ExactlyOnce, 1, 0x97, "no").expect("short");
    assert_eq!(out, [0x50, 9, 0, 1, 0x97, 5, 0x1f, 0, 2, b'n', b'o']);
    out.clear();
    encode::subscribe_refused(&mut out, 7, &[1, 0x97], "no").expect("short");
    assert_eq!(out, [0x90, 10, 0, 7, 5, 0x1f, 0, 2, b'n', b'o', 1, 0x97]);
    let Packet::SubAck(acked) = whole(&out, Version::V5) else { panic!("not a SUBACK") };
    assert_eq!((acked.pkid, acked.codes), (7, &[1, 0x97][..]));
}

#[test]
fn subscription_options_come_back() {
    let filters = [
        Subscription {
            filter: "a/+",
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::IfNew,
        },
        Subscription::new("$share/g/x", QoS::AtMostOnce),
    ];
    let mut out = Vec::new();
    encode::subscribe(&mut out, Version::V5, 1, &filters, Some(268_435_455)).expect("fits");
    check_splits(&out, Version::V5);
    let Packet::Subscribe(read) = whole(&out, Version::V5) else { panic!("not a SUBSCRIBE") };
    assert_eq!((read.pkid, read.subscription_id), (1, Some(268_435_455)));
    assert!(read.filters.eq(filters));
}

#[test]
fn libtr50_connects_with_mqisdp() {
    let bytes = b"\x10\x1c\x00\x06MQIsdp\x03\xc0\x00\x3c\x00\x03app\x00\x02m1\x00\x05token";
    let Packet::Connect(connect) = whole(bytes, Version::V311) else { panic!("not a CONNECT") };
    assert_eq!(connect.version, Version::V31);
    assert!(!connect.clean);
    assert_eq!((connect.keep_alive, connect.client_id), (60, "app"));
    assert_eq!((connect.username, connect.password), (Some("m1"), Some(&b"token"[..])));
    let zero = b"\x82\x06\x00\x00\x00\x01a\x01";
    let Packet::Subscribe(subscribe) = whole(zero, Version::V31) else { panic!("no SUBSCRIBE") };
    assert_eq!(subscribe.pkid, 0);
    let zero = b"\x32\x06\x00\x01a\x00\x00x";
    let Packet::Publish(publish) = whole(zero, Version::V31) else { panic!("not a PUBLISH") };
    assert_eq!((publish.pkid, publish.payload), (0, &b"x"[..]));
}

#[test]
fn mqtt_3_1_is_read_with_tolerance() {
    let check = |bytes: &[u8]| assert!(matches!(decode(bytes, Version::V31, MAX), Ok(Some(_))));
    // Flags in CONNECT's fixed header, whatever version the connection was thought to have.
    for first in 0x10..=0x1f {
        let bytes = [&[first], &b"\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a"[..]].concat();
        for version in VERSIONS {
            let Packet::Connect(connect) = whole(&bytes, version) else { panic!("{first:#x}") };
            assert_eq!((connect.version, connect.client_id), (Version::V31, "a"));
            check_splits(&bytes, version);
        }
    }
    // The reserved flag; user name and password flags without the texts; will flags without will.
    check(b"\x10\x0f\x00\x06MQIsdp\x03\x03\x00\x3c\x00\x01a");
    check(b"\x10\x0f\x00\x06MQIsdp\x03\xc2\x00\x3c\x00\x01a");
    check(b"\x10\x0f\x00\x06MQIsdp\x03\x2a\x00\x3c\x00\x01a");
    // DUP on SUBSCRIBE, PUBREL and a PUBLISH with QoS 0.
    check(b"\x8a\x06\x00\x01\x00\x01a\x01");
    check(b"\x6a\x02\x00\x01");
    check(b"\x38\x03\x00\x01a");
}

#[test]
fn mosquittos_bridges_are_told_from_clients_by_the_protocol_level() {
    let check = |bytes: &[u8], version, bridge| {
        let Packet::Connect(connect) = whole(bytes, Version::V311) else { panic!("no CONNECT") };
        assert_eq!((connect.version, connect.bridge), (version, bridge), "{bytes:02x?}");
        // Who speaks for itself with this codec is no bridge.
        let mut out = Vec::new();
        encode::connect(&mut out, &connect).expect("fits");
        let Packet::Connect(again) = whole(&out, Version::V311) else { panic!("no CONNECT") };
        assert_eq!((again.version, again.bridge), (version, false));
    };
    check(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a", Version::V311, false);
    check(b"\x10\x0d\x00\x04MQTT\x84\x02\x00\x3c\x00\x01a", Version::V311, true);
    check(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a", Version::V31, false);
    check(b"\x10\x0f\x00\x06MQIsdp\x83\x02\x00\x3c\x00\x01a", Version::V31, true);
    check(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a", Version::V5, false);
}

/// Each packet with a packet identifier of the client's choice, here 0, and a filter of length 0.
#[test]
fn what_mqtt_5_calls_an_error_may_come_from_older_clients() {
    let read = |bytes: &[u8]| {
        for version in [Version::V31, Version::V311] {
            whole(bytes, version);
        }
    };
    read(b"\x32\x05\x00\x01a\x00\x00");
    read(b"\x34\x05\x00\x01a\x00\x00");
    for first in [0x40, 0x50, 0x62, 0x70, 0xb0] {
        read(&[first, 2, 0, 0]);
    }
    read(b"\x82\x06\x00\x00\x00\x01a\x01");
    read(b"\xa2\x05\x00\x00\x00\x01a");
    read(b"\x90\x03\x00\x00\x01");
    read(b"\x82\x05\x00\x01\x00\x00\x01");
    read(b"\xa2\x04\x00\x01\x00\x00");
}

/// All properties that a server may tell, [MQTT-3.2.2-8] and following.
#[test]
fn what_connack_and_connect_may_say_comes_back() {
    let properties = ConnAckProperties {
        session_expiry: Some(3600),
        assigned_client_id: Some("auto-1"),
        server_keep_alive: Some(60),
        response_info: Some("answers/7"),
        reason_string: Some("well"),
        receive_max: NonZeroU16::new(100),
        topic_alias_max: Some(9),
        ..Default::default()
    };
    let mut out = Vec::new();
    encode::connack(&mut out, Version::V5, true, 0, &properties).expect("fits");
    check_splits(&out, Version::V5);
    let Packet::ConnAck(read) = whole(&out, Version::V5) else { panic!("not a CONNACK") };
    let read = ConnAckProperties { repeated: Default::default(), ..read.properties };
    assert_eq!(read, properties);
    let bytes = b"\x10\x13\x00\x04MQTT\x05\x02\x00\x3c\x05\x19\x01\x22\x00\x07\x00\x01a";
    let Packet::Connect(read) = whole(bytes, Version::V5) else { panic!("not a CONNECT") };
    let properties = read.properties;
    assert_eq!(
        (properties.request_response_info, properties.topic_alias_max),
        (Some(true), Some(7))
    );
}

#[test]
fn an_alias_stands_for_a_topic() {
    let properties = PublishProperties { topic_alias: NonZeroU16::new(5), ..Default::default() };
    let written: [(&[&[u8]], &[u8]); 2] = [
        (&[b"a"], b"\x30\x08\x00\x01a\x03\x23\x00\x05x"),
        (&[], b"\x30\x07\x00\x00\x03\x23\x00\x05x"),
    ];
    for (topic, expected) in written {
        let mut out = Vec::new();
        let head = PublishHead {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            pkid: 0,
            topic,
            properties: &properties,
            subscription_ids: &[],
        };
        encode::publish(&mut out, Version::V5, &head, b"x").expect("fits");
        assert_eq!(out, expected);
    }
    let bytes = b"\x30\x07\x00\x00\x03\x23\x00\x05x";
    let Packet::Publish(publish) = whole(bytes, Version::V5) else { panic!("not a PUBLISH") };
    assert_eq!(publish.properties.topic_alias, NonZeroU16::new(5));
    assert_eq!((publish.topic, publish.payload), ("", &b"x"[..]));
}
