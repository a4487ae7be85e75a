//! Bans: what is disabled keeps all that it has, and can neither log in nor hold a session.

use base::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether somebody is disabled; a part of the records of users and applications, and of things. A
/// ban whose time is over is as good as none: nobody has to lift it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ban {
    /// Whether there is a ban, which may be over.
    pub disabled: bool,
    /// Why, for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it ends by itself, in the server's time; none: when it is lifted.
    #[serde(default, rename = "disabledUntil", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Ban {
    /// Whether there is none: records do not store it.
    pub const fn is_none(&self) -> bool {
        !self.disabled
    }

    /// Whether it holds at this time of the server.
    pub fn is_banned(&self, now: Timestamp) -> bool {
        self.disabled && self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_ends_by_itself_at_its_time() {
        let at = Timestamp::from_millis;
        let ban = Ban { disabled: true, reason: "stolen".into(), until: Some(at(2000)) };
        assert!(ban.is_banned(at(1999)) && !ban.is_banned(at(2000)));
        assert!(Ban { until: None, ..ban.clone() }.is_banned(Timestamp::NEVER));
        assert!(!Ban { disabled: false, ..ban.clone() }.is_banned(at(0)));
        let text = serde_json::to_string(&ban).expect("JSON");
        assert_eq!(serde_json::from_str::<Ban>(&text).expect("read back"), ban);
    }
}
