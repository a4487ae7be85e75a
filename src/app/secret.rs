//! The secret that signs the cursors of listings. It is stored, so that cursors survive a restart.

use store::{Batch, StoreError, Table, Tables};
use tokio::sync::OnceCell;

use super::App;
use crate::random::{NoRandom, random};

/// Where it is, in [`Table::Meta`]: 32 bytes.
const KEY: &[u8] = b"page_secret";

/// The secret, as soon as somebody has asked for it.
#[derive(Default)]
pub(super) struct PageSecret(OnceCell<[u8; 32]>);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The store failed.
    #[error("the secret of listings can't be read or stored")]
    Store(#[from] StoreError),
    /// The system has no random numbers.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

impl App {
    /// The secret that seals cursors of listings. It is made once for a store and kept there, so
    /// that a cursor is good after a restart, too. Whoever knows it can make a listing begin
    /// anywhere, and gets to see nothing more by that.
    ///
    /// # Errors
    ///
    /// It could not be read or made; the next call tries again.
    pub async fn page_secret(&self) -> Result<&[u8; 32], SecretError> {
        self.page_secret.0.get_or_try_init(|| stored_or_made(&self.tables)).await
    }
}

async fn stored_or_made(tables: &Tables) -> Result<[u8; 32], SecretError> {
    let stored = tables.read(Table::Meta, KEY)?;
    if let Some(secret) = stored.and_then(|bytes| bytes.try_into().ok()) {
        return Ok(secret);
    }
    let secret = random()?;
    let mut batch = Batch::default();
    batch.put(Table::Meta, KEY, secret);
    match tables.submit(batch) {
        Ok(receipt) => receipt.await?,
        // Good until the server ends, then: listings are no change.
        Err(StoreError::NoRoom | StoreError::Unavailable) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(secret)
}
