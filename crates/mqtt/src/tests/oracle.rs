//! Our codec against rumqttd's: each reads what the other writes.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttd::protocol as oracle;
use rumqttd::protocol::Protocol;

use super::*;

proptest! {
    #[test]
    fn rumqttd_reads_what_we_write_and_we_what_it_writes(
        topic in topic_text(),
        payload in prop::collection::vec(any::<u8>(), 1..300),
        retain in any::<bool>(),
        block in publish_block(),
    ) {
        for version in [Version::V311, Version::V5] {
            let properties = PublishProperties::parse(&block).expect("a block");
            let head = PublishHead {
                dup: false, qos: QoS::AtMostOnce, retain, pkid: 0,
                topic: &[topic.as_bytes()], properties: &properties, subscription_ids: &[],
            };
            let mut ours = Vec::new();
            encode::publish(&mut ours, version, &head, &payload).expect("fits");
            let theirs = oracle_reads(&ours, version);
            let oracle::Packet::Publish(read, _) = &theirs else {
                return Err(TestCaseError::fail("not a PUBLISH"));
            };
            prop_assert_eq!(&read.topic[..], topic.as_bytes());
            prop_assert_eq!(&read.payload[..], &payload[..]);
            prop_assert_eq!(read.retain, retain);
            let written = oracle_writes(theirs, version);
            let Packet::Publish(back) = whole(&written, version) else {
                return Err(TestCaseError::fail("not a PUBLISH"));
            };
            prop_assert_eq!((back.topic, back.payload), (topic.as_str(), payload.as_slice()));
            if version == Version::V5 {
                prop_assert!(same_properties(&back.properties, &properties));
            }
        }
    }
}

fn oracle_reads(bytes: &[u8], version: Version) -> oracle::Packet {
    let mut buffer = BytesMut::from(bytes);
    let packet = match version {
        Version::V5 => oracle::v5::V5.read_mut(&mut buffer, MAX),
        _ => oracle::v4::V4.read_mut(&mut buffer, MAX),
    };
    assert!(buffer.is_empty(), "rumqttd left {buffer:02x?}");
    packet.expect("rumqttd reads it")
}

fn oracle_writes(packet: oracle::Packet, version: Version) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    match version {
        Version::V5 => oracle::v5::V5.write(packet, &mut buffer),
        _ => oracle::v4::V4.write(packet, &mut buffer),
    }
    .expect("rumqttd writes it");
    buffer.to_vec()
}

#[test]
fn rumqttd_reads_what_a_client_of_ours_writes() {
    for version in [Version::V311, Version::V5] {
        let mut bytes = Vec::new();
        let will = Will {
            topic: "w",
            payload: b"gone",
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Default::default(),
        };
        let connect = Connect {
            version,
            bridge: false,
            clean: true,
            keep_alive: 60,
            client_id: "app",
            will: Some(will),
            username: Some("mower-1"),
            password: Some(b"token"),
            properties: Default::default(),
        };
        encode::connect(&mut bytes, &connect).expect("fits");
        let read = oracle_reads(&bytes, version);
        let oracle::Packet::Connect(connect, _, Some(will), _, Some(login)) = read else {
            panic!("not that CONNECT: {read:?}");
        };
        assert_eq!((connect.keep_alive, connect.client_id.as_str()), (60, "app"));
        assert_eq!((login.username.as_str(), login.password.as_str()), ("mower-1", "token"));
        assert_eq!((&will.topic[..], &will.message[..]), (&b"w"[..], &b"gone"[..]));

        bytes.clear();
        let filters =
            [Subscription::new("a/#", QoS::AtLeastOnce), Subscription::new("b", QoS::AtMostOnce)];
        encode::subscribe(&mut bytes, version, 7, &filters, None).expect("fits");
        let read = oracle_reads(&bytes, version);
        let oracle::Packet::Subscribe(subscribe, _) = read else {
            panic!("not that SUBSCRIBE: {read:?}");
        };
        let paths: Vec<_> = subscribe.filters.iter().map(|f| (f.path.as_str(), f.qos)).collect();
        assert_eq!(subscribe.pkid, 7);
        assert_eq!(paths, [("a/#", oracle::QoS::AtLeastOnce), ("b", oracle::QoS::AtMostOnce)]);

        bytes.clear();
        encode::unsubscribe(&mut bytes, version, 8, &["a/#", "b"]).expect("fits");
        let read = oracle_reads(&bytes, version);
        let oracle::Packet::Unsubscribe(unsubscribe, _) = read else {
            panic!("not that UNSUBSCRIBE: {read:?}");
        };
        assert_eq!((unsubscribe.pkid, unsubscribe.filters), (8, vec!["a/#".into(), "b".into()]));
    }
}

#[test]
fn we_read_what_rumqttd_writes_as_a_server() {
    for version in [Version::V311, Version::V5] {
        let connack =
            oracle::ConnAck { session_present: true, code: oracle::ConnectReturnCode::Success };
        let properties = oracle::ConnAckProperties {
            topic_alias_max: Some(9),
            reason_string: Some("well".into()),
            ..Default::default()
        };
        let written = oracle_writes(oracle::Packet::ConnAck(connack, Some(properties)), version);
        let Packet::ConnAck(read) = whole(&written, version) else { panic!("not a CONNACK") };
        assert!(read.session_present);
        assert_eq!(read.code, reason::SUCCESS);
        if version == Version::V5 {
            assert_eq!(read.properties.topic_alias_max, Some(9));
            assert_eq!(read.properties.reason_string, Some("well"));
        }

        let suback = oracle::SubAck {
            pkid: 3,
            return_codes: vec![
                oracle::SubscribeReasonCode::QoS1,
                oracle::SubscribeReasonCode::Failure,
            ],
        };
        let written = oracle_writes(oracle::Packet::SubAck(suback, None), Version::V311);
        let Packet::SubAck(read) = whole(&written, Version::V311) else { panic!("not a SUBACK") };
        assert_eq!((read.pkid, read.codes), (3, &[0x01, 0x80][..]));

        let puback = oracle::PubAck { pkid: 4, reason: oracle::PubAckReason::Success };
        let written = oracle_writes(oracle::Packet::PubAck(puback, None), version);
        let Packet::PubAck(read) = whole(&written, version) else { panic!("not a PUBACK") };
        assert_eq!((read.pkid, read.reason), (4, 0));
    }
}
