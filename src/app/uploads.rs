//! Files that have come.

use base::{Code, Failure, TicketId, Timestamp};
use bytes::Bytes;
use store::StoreError;

use super::App;
use crate::things::files::ticket::TicketError;
use crate::things::files::transfer::{Stored, TransferError, Upload};
use crate::things::telemetry::NewPoint;
use crate::things::telemetry::point::{Entry, Kind, Value};

impl App {
    /// Stores a file all of whose bytes are here, with the ticket of a `file.put`.
    ///
    /// # Errors
    ///
    /// The ticket is not good for it, there is no room, or it can't be written.
    pub async fn receive_file(&self, ticket: &str, bytes: Bytes) -> Result<(), Failure> {
        let now = self.clock.now();
        let ticket = TicketId::parse(ticket).ok_or(TicketError::Unknown);
        let stored = async {
            let length = bytes.len() as u64;
            let mut upload = Upload::begin(&self.files, ticket?, Some(length), now)?;
            upload.write(bytes).await?;
            upload.finish(self.clock.now()).await
        };
        let stored = stored.await.map_err(failure)?;
        self.note_stored(&stored, self.clock.shown(now));
        Ok(())
    }

    /// Adds to its owner's log that a file has come, if that is wanted (`logComplete`).
    pub fn note_stored(&self, stored: &Stored, now: Timestamp) {
        if !stored.put.log_complete {
            return;
        }
        let (org, thing) = (stored.owner.org, stored.owner.thing);
        let owner = thing.map_or_else(|| org.into(), Into::into);
        let payer = || self.things.payer(org, thing);
        let msg = format!("File {} was uploaded.", stored.put.name.as_str()).into();
        let point = NewPoint {
            name: String::new(),
            ts: None,
            value: Value::Log(Entry { level: 2, msg }),
            corr_id: None,
            republish: false,
        };
        // The file is stored in any case; the writer says when it loses something.
        if let Err(error) = self.telemetry.publish(owner, payer, Kind::Log, &[point], now) {
            store::report(&error, "the end of an upload was not logged");
        }
    }
}

fn failure(error: TransferError) -> Failure {
    let code = match error {
        TransferError::Store(error) => return error.into(),
        TransferError::DiskFull => return StoreError::NoRoom.into(),
        TransferError::OverShare(_) | TransferError::Full | TransferError::TooLarge(_) => {
            Code::STORAGE_FULL
        }
        TransferError::Ticket(_) | TransferError::OnlyUpload | TransferError::OnlyDownload => {
            Code::NOT_FOUND
        }
        TransferError::Checksum { .. } => Code::PARAMETER_INVALID,
        TransferError::Disk(_) | TransferError::Random(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a file was not stored");
            Code::INTERNAL
        }
    };
    Failure::new(code, format!("The file was not stored: {error}."))
}
