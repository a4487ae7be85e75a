//! The room that files take on the disk, in blocks: of those that are stored, and of what has come of
//! uploads.

use std::collections::HashSet;
use std::sync::Arc;

use base::pool::Pool;
use base::shares::Shares;
use parking_lot::Mutex;
use store::DiskShares;

use super::transfer::TransferError;
use super::{FileRecord, Files};
use crate::things::{Maker, Payer};

/// The unit of room.
const BLOCK: u64 = 4096;

/// What so many bytes take: whole blocks, and at least one, so that many empty files are not free.
pub(super) const fn room_of(length: u64) -> u64 {
    let blocks = length.div_ceil(BLOCK);
    (if blocks == 0 { 1 } else { blocks }).saturating_mul(BLOCK)
}

/// Who takes how much.
pub(super) struct Space(Mutex<State>);

struct State {
    shares: Shares<Maker>,
    /// Bytes of an organisation at the most; 0 is no limit.
    org_max: u64,
    /// The rows of files that uploads are about to replace: what such a file takes counts for one
    /// of them.
    replaced: HashSet<Vec<u8>>,
}

impl Space {
    pub(super) fn new((total_max, org_max): (u64, u64), disk: &Arc<DiskShares<Maker>>) -> Self {
        let shares = Shares::new(Pool::FileBytes, total_max, disk.pools()).within(disk.clone());
        Self(Mutex::new(State { shares, org_max, replaced: HashSet::new() }))
    }

    /// Notes a file that is stored already.
    pub(super) fn hold(&self, payer: Payer, bytes: u64) {
        self.0.lock().shares.hold(payer.0, payer.1, bytes);
    }

    /// Notes that a file has gone.
    pub(super) fn give_back(&self, payer: Payer, bytes: u64) {
        self.0.lock().shares.give_back(payer.0, payer.1, bytes);
    }

    /// What all take.
    pub(super) fn held(&self) -> u64 {
        self.0.lock().shares.held()
    }

    /// Bytes that somebody's file may have that replaces one of `freed` bytes.
    pub(super) fn room(&self, payer: Payer, freed: u64) -> Result<u64, TransferError> {
        let state = self.0.lock();
        let over = state.check(payer, BLOCK.saturating_sub(freed));
        let shared = state.shares.room(payer.0, payer.1).saturating_add(freed);
        let room = match state.org_max {
            0 => shared,
            most => {
                let others = state.shares.held_by(payer.0).saturating_sub(freed);
                shared.min(most.saturating_sub(others))
            }
        };
        match room / BLOCK {
            0 => {
                let over = over.err().unwrap_or(TransferError::Full);
                Err(state.refuse(payer, over))
            }
            blocks => Ok(blocks * BLOCK),
        }
    }
}

impl State {
    fn check(&self, (org, maker): Payer, more: u64) -> Result<(), TransferError> {
        if self.org_max > 0 && self.shares.held_by(org).saturating_add(more) > self.org_max {
            return Err(TransferError::Full);
        }
        Ok(self.shares.has_room(org, maker, more)?)
    }

    fn take(&mut self, payer: Payer, more: u64) -> Result<(), TransferError> {
        self.check(payer, more).map_err(|over| self.refuse(payer, over))?;
        self.shares.hold(payer.0, payer.1, more);
        Ok(())
    }

    /// Counts that somebody got no more.
    fn refuse(&self, (org, _): Payer, why: TransferError) -> TransferError {
        match &why {
            TransferError::OverShare(over) => self.shares.count_over(org, *over),
            _ => self.shares.count_refused(org),
        }
        why
    }
}

/// What an upload takes until its file is stored; given back when this is dropped.
pub(super) struct Reserved {
    files: Arc<Files>,
    payer: Payer,
    row: Vec<u8>,
    /// What the file takes that this upload replaces, if no other upload does.
    freed: Option<u64>,
    held: u64,
}

impl Reserved {
    /// Nothing yet, for an upload to this row.
    pub(super) fn new(files: &Arc<Files>, payer: Payer, row: Vec<u8>, freed: u64) -> Self {
        let is_first = freed > 0 && files.space.0.lock().replaced.insert(row.clone());
        let freed = is_first.then_some(freed);
        Self { files: files.clone(), payer, row, freed, held: 0 }
    }

    /// Whose share it is.
    pub(super) const fn payer(&self) -> Payer {
        self.payer
    }

    /// Why a file of so many bytes in all does not fit; it is counted as refused.
    pub(super) fn refuse(&self, bytes: u64) -> TransferError {
        let more = room_of(bytes).saturating_sub(self.freed.unwrap_or(0) + self.held);
        let state = self.files.space.0.lock();
        let why = state.check(self.payer, more).err().unwrap_or(TransferError::Full);
        state.refuse(self.payer, why)
    }

    /// Takes room for so many bytes in all.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), TransferError> {
        let wanted = room_of(bytes).saturating_sub(self.freed.unwrap_or(0));
        if let Some(more) = wanted.checked_sub(self.held).filter(|more| *more > 0) {
            self.files.space.0.lock().take(self.payer, more)?;
            self.held = wanted;
        }
        Ok(())
    }

    /// Has the file count in place of this, and of the one that it replaces, once it is `stored`.
    pub(super) fn store<T>(
        &mut self,
        file: &FileRecord,
        before: Option<&FileRecord>,
        stored: impl FnOnce() -> Result<T, TransferError>,
    ) -> Result<T, TransferError> {
        let files = self.files.clone();
        let space = &mut *files.space.0.lock();
        let before = before.map(|before| (before.maker, room_of(before.length)));
        let needed = room_of(file.length);
        let there = self.held + before.map_or(0, |(_, bytes)| bytes);
        space
            .check(self.payer, needed.saturating_sub(there))
            .map_err(|over| space.refuse(self.payer, over))?;
        let stored = stored()?;
        let (org, maker) = self.payer;
        let held = std::mem::take(&mut self.held);
        space.shares.hold(org, maker, needed.saturating_sub(held));
        space.shares.give_back(org, maker, held.saturating_sub(needed));
        before.inspect(|(maker, bytes)| space.shares.give_back(org, *maker, *bytes));
        Ok(stored)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let space = &mut *self.files.space.0.lock();
        space.shares.give_back(self.payer.0, self.payer.1, self.held);
        if self.freed.is_some() {
            space.replaced.remove(&self.row);
        }
    }
}
