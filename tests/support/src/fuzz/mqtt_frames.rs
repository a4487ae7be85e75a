//! Single MQTT frames: what was decoded is written and decoded as the same.

use mqtt::encode::{self, PublishHead, TooLong};
use mqtt::packet::Connect;
use mqtt::properties::Repeated;
use mqtt::{ConnAckProperties, ConnectProperties, Packet, PublishProperties, Version, decode};

use super::Target;

const MAX: usize = 1 << 20;

/// The codec. The first byte chooses the version.
pub struct MqttFrames;

impl Target for MqttFrames {
    const NAME: &'static str = "mqtt_frames";

    fn new() -> Self {
        Self
    }

    fn check(&mut self, data: &[u8]) {
        let Some((choice, bytes)) = data.split_first() else { return };
        let version = [Version::V31, Version::V311, Version::V5][usize::from(choice % 3)];
        let Ok(Some((packet, length))) = decode(bytes, version, MAX) else {
            // What is no frame, or not yet, has no beginning that is one.
            for end in 0..bytes.len() {
                let begun = decode(&bytes[..end], version, MAX);
                assert!(!matches!(begun, Ok(Some(_))), "{begun:?}");
            }
            return;
        };
        for end in 0..length {
            assert_eq!(decode(&bytes[..end], version, MAX), Ok(None), "{end} of {packet:?}");
        }
        let version = match &packet {
            Packet::Connect(connect) => connect.version,
            _ => version,
        };
        let mut written = Vec::new();
        if !write(&mut written, &packet, version).expect("it was short enough before") {
            return;
        }
        let (again, length) = decode(&written, version, MAX)
            .unwrap_or_else(|error| panic!("{error} in {written:02x?} of {packet:?}"))
            .expect("a whole frame");
        assert_eq!(length, written.len());
        assert_eq!(describe(&packet, version), describe(&again, version));
    }
}

/// Writes a packet; false if there is nothing that writes such.
fn write(out: &mut Vec<u8>, packet: &Packet<'_>, version: Version) -> Result<bool, TooLong> {
    match packet {
        Packet::Connect(connect) => encode::connect(out, connect)?,
        Packet::ConnAck(ack) => {
            encode::connack(out, version, ack.session_present, ack.code, &ack.properties)?;
        }
        Packet::Publish(publish) => {
            let ids: Vec<_> = publish.properties.repeated.subscription_ids().collect();
            if ids.contains(&0) {
                // Refused by who looks at it, and never written.
                return Ok(false);
            }
            let head = PublishHead {
                dup: publish.dup,
                qos: publish.qos,
                retain: publish.retain,
                pkid: publish.pkid,
                topic: &[publish.topic.as_bytes()],
                properties: &publish.properties,
                subscription_ids: &ids,
            };
            encode::publish(out, version, &head, publish.payload)?;
        }
        Packet::PubAck(ack) => encode::puback(out, version, ack.pkid, ack.reason),
        Packet::PubRec(ack) => encode::pubrec(out, version, ack.pkid, ack.reason),
        Packet::PubRel(ack) => encode::pubrel(out, version, ack.pkid, ack.reason),
        Packet::PubComp(ack) => encode::pubcomp(out, version, ack.pkid, ack.reason),
        Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe.filters.collect();
            encode::subscribe(out, version, subscribe.pkid, &filters, subscribe.subscription_id)?;
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters: Vec<_> = unsubscribe.filters.collect();
            encode::unsubscribe(out, version, unsubscribe.pkid, &filters)?;
        }
        Packet::SubAck(ack) => encode::suback(out, version, ack.pkid, ack.codes)?,
        Packet::UnsubAck(ack) => encode::unsuback(out, version, ack.pkid, ack.codes)?,
        Packet::PingReq => encode::pingreq(out),
        Packet::PingResp => encode::pingresp(out),
        Packet::Disconnect(disconnect) => encode::disconnect(out, version, disconnect.reason),
        Packet::Auth(_) => return Ok(false),
    }
    Ok(true)
}

/// What a packet says, whatever the order of its properties, and without what is not written.
fn describe(packet: &Packet<'_>, version: Version) -> String {
    let none = Repeated::NONE;
    match packet {
        Packet::Connect(connect) => {
            let will = connect.will.map(|mut will| {
                let users = users(will.properties.repeated);
                will.properties.repeated = none;
                format!("{will:?} {users:?}")
            });
            let users = users(connect.properties.repeated);
            let properties = ConnectProperties { repeated: none, ..connect.properties };
            let bare = Connect { will: None, bridge: false, properties, ..*connect };
            format!("{bare:?} {users:?} {will:?}")
        }
        Packet::ConnAck(ack) => {
            let present = ack.session_present && ack.code == 0;
            let users = users(ack.properties.repeated);
            let properties = ConnAckProperties { repeated: none, ..ack.properties };
            format!("{present} {} {properties:?} {users:?}", ack.code)
        }
        Packet::Publish(publish) => {
            let mut bare = *publish;
            bare.properties = PublishProperties { repeated: none, ..publish.properties };
            let repeated = publish.properties.repeated;
            let ids: Vec<_> = repeated.subscription_ids().collect();
            format!("{bare:?} {:?} {ids:?}", users(repeated))
        }
        Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe.filters.collect();
            format!("{} {:?} {filters:?}", subscribe.pkid, subscribe.subscription_id)
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters: Vec<_> = unsubscribe.filters.collect();
            format!("{} {filters:?}", unsubscribe.pkid)
        }
        Packet::SubAck(ack) if version != Version::V5 => {
            let codes: Vec<_> = ack.codes.iter().map(|code| (*code).min(0x80)).collect();
            format!("{} {codes:?}", ack.pkid)
        }
        Packet::Disconnect(disconnect) => format!("{}", disconnect.reason),
        other => format!("{other:?}"),
    }
}

fn users(repeated: Repeated<'_>) -> Vec<(&str, &str)> {
    repeated.user_properties().collect()
}
