//! A thing, and the identifiers that it has beside its key.

use std::collections::BTreeMap;

use base::{OrgId, ThingDefId, ThingId, ThingKey, Timestamp};
use rules::identity::Ban;
use serde::{Deserialize, Serialize};

use crate::things::{Maker, Payer};

/// A device, as the organisation knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Thing {
    /// Its id.
    pub id: ThingId,
    /// Its organisation.
    pub org: OrgId,
    /// Its key, unique in the organisation.
    pub key: ThingKey,
    /// A name for people; `auto:<key>` when it registered itself.
    pub name: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub desc: String,
    /// Its definition.
    pub def: Option<ThingDefId>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its security tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sec_tags: Vec<String>,
    /// The identifiers of its modem, each unique in the organisation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<Alias, String>,
    /// The thing whose connection serves it (`thing.bind`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<ThingId>,
    /// Whether its location is of interest.
    #[serde(default)]
    pub loc_enabled: bool,
    /// The application id that it last logged in with.
    pub app_id: String,
    /// When it was made.
    pub created_on: Timestamp,
    /// Who made it: `AUTOREG`, a thing's key, or a user's e-mail address.
    pub created_by: String,
    /// Whose share it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Maker,
    /// Whether its logins are refused.
    #[serde(default, skip_serializing_if = "Ban::is_none")]
    pub ban: Ban,
    /// When it was last changed, and by whom, in the same words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<(Timestamp, String)>,
}

impl Thing {
    /// Whose share it is, and that of its series.
    pub const fn payer(&self) -> Payer {
        (self.org, self.maker)
    }

    /// A thing that has nothing but its names yet.
    pub fn new(id: ThingId, org: OrgId, key: ThingKey, created_by: &str, now: Timestamp) -> Self {
        Self {
            id,
            org,
            name: key.to_string(),
            key,
            desc: String::new(),
            def: None,
            tags: Vec::new(),
            sec_tags: Vec::new(),
            aliases: BTreeMap::new(),
            bound_to: None,
            loc_enabled: false,
            app_id: String::new(),
            created_on: now,
            created_by: created_by.to_owned(),
            maker: None,
            ban: Ban::default(),
            updated: None,
        }
    }
}

/// A kind of identifier that a thing has beside its key (`docs/protocol/tr50.md` 2, "Thing
/// identifier parameters").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Alias {
    /// Of the SIM card.
    Iccid = 1,
    /// Electronic serial number.
    Esn = 2,
    /// Of the modem.
    Imei = 3,
    /// Of a CDMA modem.
    Meid = 4,
    /// Of the subscriber.
    Imsi = 5,
    /// The telephone number.
    Msisdn = 6,
}

impl Alias {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Iccid, Self::Esn, Self::Imei, Self::Meid, Self::Imsi, Self::Msisdn];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Iccid => "iccid",
            Self::Esn => "esn",
            Self::Imei => "imei",
            Self::Meid => "meid",
            Self::Imsi => "imsi",
            Self::Msisdn => "msisdn",
        }
    }
}
