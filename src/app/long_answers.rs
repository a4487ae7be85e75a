//! Places for long answers in Element's words, which are in memory until their peers have read them.

use std::sync::Arc;

use base::pool::{OverShare, Pool, Pools};
use base::shares::Shares;
use base::{OrgId, limits};
use parking_lot::Mutex;
use rules::directory::PrincipalId;

/// The places, and who has them.
pub struct LongAnswers(Mutex<Shares<PrincipalId>>);

/// A place; it is free again when this is dropped.
pub struct LongAnswerPlace {
    places: Arc<LongAnswers>,
    payer: (OrgId, PrincipalId),
}

impl LongAnswers {
    pub(super) fn new(pools: &Arc<Pools>) -> Arc<Self> {
        let most = limits::ELEMENT_LONG_ANSWERS_MAX;
        Arc::new(Self(Mutex::new(Shares::new(Pool::LongAnswers, most, pools))))
    }

    /// Takes a place for an answer to this principal.
    ///
    /// # Errors
    ///
    /// There is none for it.
    pub fn take(
        self: &Arc<Self>,
        payer: (OrgId, PrincipalId),
    ) -> Result<LongAnswerPlace, OverShare> {
        self.0.lock().take(payer.0, payer.1, 1)?;
        Ok(LongAnswerPlace { places: self.clone(), payer })
    }
}

impl Drop for LongAnswerPlace {
    fn drop(&mut self) {
        self.places.0.lock().give_back(self.payer.0, self.payer.1, 1);
    }
}
