//! Definitions of things: what their properties, attributes, alarms and methods are
//! (`docs/protocol/tr50.md` 4.1, `thing_def.find`).

use base::{OrgId, ThingDefId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A definition of things. It is known in its organisation and in all below.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ThingDef {
    /// Its id.
    pub id: ThingDefId,
    /// The organisation that owns it.
    pub org: OrgId,
    /// Its key, unique in the organisation without regard to case.
    pub key: String,
    /// A name for people.
    pub name: String,
    /// 1 when it is made, and one more with every change.
    pub version: u32,
    /// Whether things may publish properties that it does not define; absent: yes.
    pub auto_def_props: Option<bool>,
    /// Whether things may publish attributes that it does not define; absent: yes.
    pub auto_def_attrs: Option<bool>,
    /// Everything else as it was sent: `properties`, `attributes`, `alarms`, `methods`, `tunnels`,
    /// and what this server knows nothing of.
    pub members: Map<String, Value>,
    /// When it was made.
    pub created_on: Timestamp,
    /// By whom: an e-mail address, a thing's key, or `SYSTEM`.
    pub created_by: String,
    /// When it was last changed, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<(Timestamp, String)>,
}

impl ThingDef {
    /// Whether it refuses any property or attribute.
    pub fn is_closed(&self) -> bool {
        self.auto_def_props == Some(false) || self.auto_def_attrs == Some(false)
    }

    /// Whether a thing of this definition may publish this property.
    pub fn admits_property(&self, key: &str) -> bool {
        self.auto_def_props != Some(false) || self.part("properties", key).is_some()
    }

    /// Whether a thing of this definition may publish this attribute.
    pub fn admits_attribute(&self, key: &str) -> bool {
        self.auto_def_attrs != Some(false) || self.part("attributes", key).is_some()
    }

    /// The value that an attribute has on things that have not set it (`docs/protocol/tr50.md` 4.1,
    /// `thing.attr.get`).
    pub fn attribute_default(&self, key: &str) -> Option<&str> {
        self.part("attributes", key)?.get("default")?.as_str()
    }

    /// `defaultAckTimeout` of a method in seconds, also when it was sent as a string.
    pub fn default_ack_timeout_s(&self, method: &str) -> Option<f64> {
        match self.part("methods", method)?.get("defaultAckTimeout")? {
            Value::Number(seconds) => seconds.as_f64(),
            Value::String(seconds) => seconds.trim().parse().ok(),
            _ => None,
        }
    }

    fn part(&self, section: &str, key: &str) -> Option<&Value> {
        self.members.get(section)?.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_things_may_publish() {
        let def = |auto: Option<bool>| ThingDef {
            id: ThingDefId::from_bytes([1; 12]),
            org: OrgId::from_bytes([2; 12]),
            key: "mower".into(),
            name: "Mower".into(),
            version: 1,
            auto_def_props: auto,
            auto_def_attrs: auto,
            members: serde_json::from_str(
                r#"{"properties":{"temp":{"name":"Temperature"}},
                    "attributes":{"vin":{"default":"none"},"owner":null},
                    "methods":{"mow":{"defaultAckTimeout":5},"stop":{"defaultAckTimeout":"7"},
                        "park":{}}}"#,
            )
            .expect("JSON"),
            created_on: Timestamp::from_millis(0),
            created_by: "SYSTEM".into(),
            updated: None,
        };
        for (auto, undefined) in [(None, true), (Some(true), true), (Some(false), false)] {
            let def = def(auto);
            assert!(def.admits_property("temp") && def.admits_attribute("owner"));
            assert_eq!(def.admits_property("speed"), undefined);
            assert_eq!(def.admits_attribute("temp"), undefined);
            assert_eq!(def.is_closed(), !undefined);
        }
        let def = def(None);
        assert_eq!(def.attribute_default("vin"), Some("none"));
        assert_eq!(def.attribute_default("owner"), None);
        let timeouts = ["mow", "stop", "park", "fly"].map(|name| def.default_ack_timeout_s(name));
        assert_eq!(timeouts, [Some(5.0), Some(7.0), None, None]);
    }
}
