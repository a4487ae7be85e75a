//! Malformed packets are refused, each with its reason code.

use super::*;

/// What a client that is connected gets for it is a DISCONNECT.
fn check_goodbye(malformed: Malformed) {
    let mut goodbye = Vec::new();
    encode::disconnect(&mut goodbye, Version::V5, malformed.reason());
    assert!(matches!(decode(&goodbye, Version::V5, MAX), Ok(Some(_))), "{malformed}");
}

#[test]
fn what_the_specification_forbids_is_refused() {
    use Malformed as M;
    let check = |version, bytes: &[u8], expected| {
        assert_eq!(decode(bytes, version, 100), Err(expected), "{bytes:02x?}");
        check_goodbye(expected);
    };
    let (v4, v5) = (Version::V311, Version::V5);
    check(v4, b"\x00", M::ReservedType(0));
    check(v4, b"\xf0", M::ReservedType(15));
    check(v4, b"\xc1", M::ReservedFlags(0xc1));
    check(v4, b"\x80", M::ReservedFlags(0x80));
    check(v4, b"\x30\xff\xff\xff\xff", M::VariableInteger);
    check(v5, b"\xc0\x80\x00", M::VariableInteger);
    check(v4, b"\x30\x64", M::TooLarge { length: 102, max: 100 });
    check(v4, b"\x30\x02\x00\x05", M::Truncated);
    check(v4, b"\xc0\x01\x00", M::TrailingBytes);
    check(v4, b"\x40\x03\x00\x01\x00", M::TrailingBytes);
    check(v4, b"\x30\x04\x00\x02\xc3\x28", M::Utf8);
    check(v4, b"\x30\x05\x00\x03\xed\xa0\x80", M::Utf8);
    check(v4, b"\x30\x04\x00\x02a\x00", M::Nul);
    check(v4, b"\x30\x05\x00\x03a/+", M::TopicWildcard);
    check(v4, b"\x30\x03\x00\x01#", M::TopicWildcard);
    check(v4, b"\x30\x02\x00\x00", M::TopicEmpty);
    check(v5, b"\x30\x03\x00\x00\x00", M::TopicEmpty);
    for first in [0x32, 0x34] {
        check(v5, &[first, 6, 0, 1, b'a', 0, 0, 0], M::PacketIdZero);
    }
    for first in [0x40, 0x50, 0x62, 0x70] {
        check(v5, &[first, 2, 0, 0], M::PacketIdZero);
    }
    check(v5, b"\x82\x07\x00\x00\x00\x00\x01a\x00", M::PacketIdZero);
    check(v5, b"\xa2\x06\x00\x00\x00\x00\x01a", M::PacketIdZero);
    check(v5, b"\x90\x04\x00\x00\x00\x00", M::PacketIdZero);
    check(v5, b"\xb0\x04\x00\x00\x00\x00", M::PacketIdZero);
    check(v5, b"\x82\x06\x00\x01\x00\x00\x00\x00", M::FilterEmpty);
    check(v5, b"\x82\x0a\x00\x01\x00\x00\x01a\x00\x00\x00\x00", M::FilterEmpty);
    check(v5, b"\xa2\x05\x00\x01\x00\x00\x00", M::FilterEmpty);
    assert_eq!([M::PacketIdZero, M::FilterEmpty].map(M::reason), [reason::PROTOCOL_ERROR; 2]);
    check(v5, b"\x30\x06\x00\x00\x03\x23\x00\x00", M::PropertyValue(0x23));
    check(v4, b"\x36\x05\x00\x01a\x00\x01", M::QoS3);
    check(v4, b"\x38\x03\x00\x01a", M::DupQoS0);
    check(v4, b"\x82\x02\x00\x01", M::SubscribeEmpty);
    check(v4, b"\x82\x06\x00\x01\x00\x01a\x03", M::SubscribeOptions);
    check(v4, b"\x82\x06\x00\x01\x00\x01a\x04", M::SubscribeOptions);
    check(v5, b"\x82\x07\x00\x01\x00\x00\x01a\x30", M::SubscribeOptions);
    check(v5, b"\x82\x07\x00\x01\x00\x00\x01a\x40", M::SubscribeOptions);
    check(v5, b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04", M::SharedNoLocal);
    check(v5, b"\x82\x09\x00\x01\x02\x0b\x00\x00\x01a\x00", M::PropertyValue(0x0b));
    check(v4, b"\xa2\x02\x00\x01", M::UnsubscribeEmpty);
    check(v5, b"\x30\x08\x00\x01a\x04\x01\x01\x01\x01", M::PropertyTwice(0x01));
    check(v5, b"\x30\x06\x00\x01a\x02\x01\x02", M::PropertyValue(0x01));
    check(v5, b"\x30\x06\x00\x01a\x02\x17\x01", M::PropertyUnexpected(0x17));
    check(v5, b"\x30\x06\x00\x01a\x02\x08\x00", M::Truncated);
    check(v5, b"\x30\x08\x00\x01a\x04\x08\x00\x01#", M::ResponseTopic);
    check(v5, b"\x40\x03\x00\x01\x01", M::ReasonCode(0x01));
    check(v5, b"\xe0\x01\x01", M::ReasonCode(0x01));
    check(v5, b"\xf0\x05\x18\x03\x16\x00\x00", M::AuthenticationDataAlone);
}

#[test]
fn bad_connects_are_refused_with_an_answer_where_one_is_understood() {
    use Malformed as M;
    let check = |bytes: &[u8], expected: Malformed, answer| {
        assert_eq!(decode(bytes, Version::V311, MAX), Err(expected), "{bytes:02x?}");
        assert_eq!(expected.connack(), answer);
        check_goodbye(expected);
    };
    let v3 = Some((Version::V311, 0x01));
    let v5 = Some((Version::V5, 0x84));
    check(b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x3c\x00\x00", M::UnknownProtocol { level: 3 }, v3);
    check(b"\x10\x0c\x00\x04MQTT\x00\x02\x00\x3c\x00\x00", M::UnknownProtocol { level: 1 }, v3);
    check(b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x3c\x00\x00", M::UnknownProtocol { level: 6 }, v5);
    // The bridge's bit makes no level of 5, and no name for another's level.
    check(b"\x10\x0c\x00\x04MQTT\x85\x02\x00\x3c\x00\x00", M::UnknownProtocol { level: 0x85 }, v5);
    check(b"\x10\x0c\x00\x04MQTT\x83\x02\x00\x3c\x00\x00", M::UnknownProtocol { level: 0x83 }, v3);
    for first in 0x11..=0x1f {
        for rest in [
            &b"\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"[..],
            b"\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00",
        ] {
            check(&[&[first], rest].concat(), M::ReservedFlags(first), None);
        }
    }
    check(b"\x10\x0c\x00\x04HTTP\x04\x02\x00\x3c\x00\x00", M::UnknownProtocol { level: 0 }, None);
    check(b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00", M::ConnectFlag, None);
    check(b"\x10\x0c\x00\x04MQTT\x04\x42\x00\x3c\x00\x00", M::PasswordAlone, None);
    check(b"\x10\x0c\x00\x04MQTT\x04\x22\x00\x3c\x00\x00", M::WillFlags, None);
    check(b"\x10\x0c\x00\x04MQTT\x04\x1e\x00\x3c\x00\x00", M::WillFlags, None);
    check(b"\x10\x0c\x00\x04MQTT\x04\x82\x00\x3c\x00\x00", M::Truncated, None);
    check(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x00x", M::TrailingBytes, None);
    check(
        b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x03\x16\x00\x00\x00\x00",
        M::AuthenticationDataAlone,
        None,
    );
}

#[test]
fn too_long_is_refused_and_nothing_is_written() {
    let long = vec![b'x'; 65_536];
    let text = String::from_utf8(long.clone()).expect("text");
    let mut out = Vec::new();
    let none = PublishProperties::default();
    let head = |topic| PublishHead {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        pkid: 0,
        topic,
        properties: &none,
        subscription_ids: &[],
    };
    let one = [&long[..]];
    let short = [&b"a"[..]];
    let filters = [Subscription::new(&text, QoS::AtMostOnce)];
    let expected = Err(encode::TooLong);
    assert_eq!(encode::publish(&mut out, Version::V311, &head(&one), b""), expected);
    let payload = REMAINING_LENGTH_MAX;
    let begun = encode::begin_publish(&mut out, Version::V5, &head(&short), payload);
    assert_eq!(begun.map(drop), expected);
    assert_eq!(encode::subscribe(&mut out, Version::V5, 1, &filters, None), expected);
    let properties = ConnAckProperties { reason_string: Some(&text), ..Default::default() };
    assert_eq!(encode::connack(&mut out, Version::V5, false, 0, &properties), expected);
    assert!(out.is_empty());
}
