//! When, from where and how often tokens were used: noted with each login, and stored with the other
//! counters, every few seconds.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};

use base::{ConnInfo, Timestamp, TokenId};
use dashmap::DashMap;
use rules::identity::{Identity, TokenHolder};
use serde::{Deserialize, Serialize};
use store::rows::{decode, encode, for_each_row};
use store::{Batch, Receipt, Store, StoreError, Table};

use super::App;
use super::effects::{Affected, Effects};

/// With what their keys begin in [`Table::Meta`], before the token's id.
const PREFIX: &[u8] = b"token_use/";

fn key_of(id: TokenId) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}

/// What is known of tokens that were used.
pub(super) struct TokenUses {
    of: DashMap<TokenId, Known>,
    /// Tokens that end after this time of the server have not ended their sessions yet.
    ended_until_ms: AtomicI64,
}

struct Known {
    last: TokenUse,
    is_stale: bool,
}

/// The last use of a token, and how many there were.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenUse {
    /// When, as it is shown.
    pub at: Timestamp,
    /// From which address.
    pub from: IpAddr,
    /// How often it was used.
    pub count: u64,
}

impl TokenUses {
    /// Those in the store, of tokens that there are; rows of others are removed.
    pub(super) fn open(store: &dyn Store, identity: &Identity) -> Result<Self, StoreError> {
        let ids = identity.token_ids();
        let (of, mut gone) = (DashMap::new(), Batch::default());
        for_each_row(store, Table::Meta, |(key, value)| {
            let Some(id) = key.strip_prefix(PREFIX) else { return Ok(()) };
            match <[u8; 12]>::try_from(id).map(TokenId::from_bytes) {
                Ok(id) if ids.contains(&id) => {
                    let last = decode(Table::Meta, key, value)?;
                    of.insert(id, Known { last, is_stale: false });
                }
                _ => gone.delete(Table::Meta, key.clone()),
            }
            Ok(())
        })?;
        if !gone.0.is_empty() {
            store.commit(&[gone])?;
        }
        Ok(Self { of, ended_until_ms: AtomicI64::new(i64::MIN) })
    }
}

impl App {
    /// Notes that somebody has logged in with a token.
    pub(super) fn note_token_use(&self, id: TokenId, conn: ConnInfo, now: Timestamp) {
        let (at, from) = (self.clock.shown(now), conn.remote_addr.ip().to_canonical());
        let fresh = || Known { last: TokenUse { at, from, count: 0 }, is_stale: true };
        let mut known = self.token_uses.of.entry(id).or_insert_with(fresh);
        known.is_stale = true;
        known.last = TokenUse { at, from, count: known.last.count + 1 };
    }

    /// When a token was used last; none: never.
    pub fn token_use(&self, id: TokenId) -> Option<TokenUse> {
        self.token_uses.of.get(&id).map(|known| known.last.clone())
    }

    /// Forgets the use of a token that is gone.
    pub(super) fn forget_token_use(&self, id: TokenId) {
        if self.token_uses.of.remove(&id).is_some() {
            let mut batch = Batch::default();
            batch.delete(Table::Meta, key_of(id));
            // Left behind, the next start removes it.
            let _ = self.tables.submit(batch);
        }
    }

    /// Hands over what was noted since the last time.
    pub(super) fn store_token_uses(&self) -> Result<Receipt, StoreError> {
        let mut batch = Batch::default();
        for mut known in self.token_uses.of.iter_mut() {
            if std::mem::take(&mut known.is_stale) {
                let (id, last) = (*known.key(), encode(&known.last));
                batch.put(Table::Meta, key_of(id), last);
            }
        }
        if batch.0.is_empty() { Ok(Receipt::nothing()) } else { self.tables.submit(batch) }
    }

    /// Ends the sessions that began with tokens whose time is over.
    pub fn expire_tokens(self: &std::sync::Arc<Self>, now: Timestamp) {
        let until = &self.token_uses.ended_until_ms;
        let from = until.swap(now.as_millis(), Ordering::Relaxed);
        let from = Timestamp::from_millis(from.saturating_add(1));
        for holder in self.records.tokens_ended(from, now) {
            let affected = match holder {
                TokenHolder::User(id) => Affected::User(id),
                TokenHolder::Application(org, _) => Affected::Org(org),
            };
            let effects = Effects::default().followed_by(affected).closing_at_once();
            self.apply(effects, now).detach();
        }
    }
}
