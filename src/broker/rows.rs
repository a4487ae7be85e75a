//! Sessions and what waits in them as rows of the store.

use std::ops::Bound;
use std::sync::Arc;

use base::{OrgId, ThingKey, UserId};
use mqtt::QoS;
use rules::directory::Principal;
use serde::{Deserialize, Serialize};
use store::{StoreError, Table, Tables};

use super::limits;
use super::message::{DELIVERY_IDS_MAX, Delivery, Message, SubscriptionIds};
use super::session::{Identity, Owner, Subscription};

/// A session that outlives its connections. There may be a million, so the names are short.
#[derive(Serialize, Deserialize)]
pub(super) struct SessionRow {
    #[serde(rename = "o")]
    pub org: OrgId,
    #[serde(rename = "l")]
    pub login: Login,
    #[serde(rename = "c")]
    pub client_id: String,
    #[serde(rename = "i")]
    pub identity: Identity,
    /// Seconds for which it outlives the connection; `u32::MAX`: for ever.
    #[serde(rename = "e")]
    pub expiry_s: u32,
    /// Since when the client is away, in milliseconds; none: it was connected.
    #[serde(rename = "a")]
    pub away: Option<i64>,
    #[serde(rename = "s")]
    pub subscriptions: Vec<Subscription>,
    /// It is over, and its messages are being removed.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// It has lost subscriptions with rights.
    #[serde(rename = "n", default, skip_serializing_if = "std::ops::Not::not")]
    pub narrowed: bool,
}

/// A login, as a row names it.
#[derive(Serialize, Deserialize)]
pub(super) enum Login {
    #[serde(rename = "u")]
    User(UserId),
    /// A thing of the session's organisation.
    #[serde(rename = "t")]
    Thing(ThingKey),
}

impl From<&Principal> for Login {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::User(id) => Self::User(*id),
            Principal::Thing(_, key) => Self::Thing(key.clone()),
        }
    }
}

impl SessionRow {
    pub(super) fn owner(&self) -> Owner {
        let principal = match &self.login {
            Login::User(id) => Principal::User(*id),
            Login::Thing(key) => Principal::Thing(self.org, key.clone()),
        };
        Owner { principal, client_id: self.client_id.as_str().into() }
    }
}

/// The key of a message in [`store::Table::MqttMessages`]. Under 0 there is the number of the last
/// one that was sent.
pub(super) fn message_key(session: u64, seq: u64) -> Vec<u8> {
    [session.to_be_bytes(), seq.to_be_bytes()].concat()
}

/// The number of a message, from its key.
pub(super) fn seq_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The number in the row of the last message that was sent.
pub(super) fn sent(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The key of a packet id in [`store::Table::MqttReceived`].
pub(super) fn received_key(session: u64, pkid: u16) -> Vec<u8> {
    [&session.to_be_bytes()[..], &pkid.to_be_bytes()].concat()
}

/// A packet id and its session, from its key.
pub(super) fn received(key: &[u8]) -> Option<(u64, u16)> {
    let (session, pkid) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*session), u16::from_be_bytes(*pkid.first_chunk()?)))
}

/// Reads a table page by page; a page is small, for its rows may be large.
pub(super) fn for_each_page(
    tables: &Tables,
    table: Table,
    mut visit: impl FnMut(&[(Vec<u8>, Vec<u8>)]),
) -> Result<(), StoreError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = tables.scan(table, from, Bound::Unbounded, limits::PAGE_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        after = Some(last.clone());
        visit(&rows);
    }
}

/// What is in the store of a message for a session.
pub(super) enum MessageRow {
    /// The message.
    Message {
        /// As the client gets it.
        delivery: Delivery,
        /// Whether it went to the client at once.
        live: bool,
    },
    /// The client has taken it; what is left is its release.
    Released,
}

const RETAIN: u8 = 0x04;
const LIVE: u8 = 0x08;
const RELEASED: u8 = 0x80;

/// The row of a message, given as its own row.
pub(super) fn message(delivery: &Delivery, live: bool, row: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(delivery.row_len());
    let retain = if delivery.retain { RETAIN } else { 0 };
    value.push(delivery.qos as u8 | retain | if live { LIVE } else { 0 });
    let ids = delivery.ids.get(..delivery.ids.len().min(DELIVERY_IDS_MAX)).unwrap_or_default();
    value.push(ids.len() as u8);
    ids.iter().for_each(|id| value.extend_from_slice(&id.to_be_bytes()));
    value.extend_from_slice(row);
    value
}

/// The row of a message that was taken.
pub(super) fn released() -> Vec<u8> {
    vec![RELEASED]
}

/// Reads the row of a message; none if it is damaged.
pub(super) fn read_message(value: &[u8]) -> Option<MessageRow> {
    let (&flags, rest) = value.split_first()?;
    if flags & RELEASED != 0 {
        return Some(MessageRow::Released);
    }
    let (&count, rest) = rest.split_first()?;
    let (ids, row) = rest.split_at_checked(4 * usize::from(count))?;
    let ids: SubscriptionIds =
        ids.as_chunks().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
    let delivery = Delivery {
        message: Arc::new(Message::from_row(row)?),
        qos: QoS::from_bits(flags)?,
        retain: flags & RETAIN != 0,
        dup: false,
        ids,
        seq: 0,
        shared: None,
    };
    Some(MessageRow::Message { delivery, live: flags & LIVE != 0 })
}
