//! Changes of things, told to those who subscribed to their topics (`tr50.md` 5).

use crate::id::{OrgId, ThingKey};

/// What of a thing has changed: the rest of its topic, behind `thing/<key>/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic<'a> {
    /// `property/<name>`: the value.
    Property(&'a str),
    /// `alarm/<name>`: the state.
    Alarm(&'a str),
    /// `attribute/<name>`: the value.
    Attribute(&'a str),
    /// `location`: latitude, longitude, heading, speed, altitude, fix type.
    Location,
    /// `connected`: whether the thing has a connection.
    Connected,
}

/// Those who want to know.
#[derive(Default)]
pub struct Feed {}

impl Feed {
    /// Tells everybody who subscribed to it of a change. `payload` is only made if there is
    /// somebody.
    pub fn publish(
        &self,
        _org: OrgId,
        _thing: &ThingKey,
        _topic: Topic<'_>,
        _payload: impl FnOnce() -> String,
    ) {
    }
}
