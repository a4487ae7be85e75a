//! What waits for a login's MQTT clients, for an operator who asks why one does nothing.

use base::Timestamp;
use rules::directory::Principal;
use store::{StoreError, Table};

use super::{Broker, rows};

/// Rows of messages that are counted at most of a session that nobody has looked at.
const COUNTED_MAX: usize = 10_000;

/// A session that outlives its connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptState {
    /// The client id.
    pub client_id: Box<str>,
    /// Messages that wait for the client.
    pub messages: usize,
    /// Since when the client is away; none while it is connected.
    pub away: Option<Timestamp>,
    /// How many subscriptions it has.
    pub subscriptions: usize,
}

impl Broker {
    /// The sessions of a login that outlive its connections. It may read the disk.
    ///
    /// # Errors
    /// The store failed.
    pub fn kept_of(&self, principal: &Principal) -> Result<Vec<KeptState>, StoreError> {
        let sessions = self.0.kept.lock().of(principal);
        let state = |session: &std::sync::Arc<super::Session>| {
            let (counted, away) = session.lock().waiting();
            let messages = match counted {
                Some(messages) => messages,
                None => {
                    let (table, prefix) = (Table::MqttMessages, session.number().to_be_bytes());
                    let found = self.0.tables.scan_prefix(table, &prefix, None, COUNTED_MAX)?;
                    found.iter().filter(|(key, _)| rows::seq_of(key) > 0).count()
                }
            };
            Ok(KeptState {
                client_id: session.owner().client_id.as_ref().into(),
                messages,
                away,
                subscriptions: session.with_subscriptions(<[_]>::len),
            })
        };
        sessions.iter().map(state).collect()
    }
}
