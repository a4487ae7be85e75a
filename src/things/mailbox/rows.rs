//! The rows of table `mails`, by the first byte of their keys. What changes together is written in
//! one batch.
//!
//! | key | value | for |
//! | --- | --- | --- |
//! | `m`, organisation, mail | the message | a mail by its id; those of an organisation in time order |
//! | `s`, organisation, mail | its state | history and outcome, without writing the message again |
//! | `t`, thing, mail | organisation | those of a thing in time order |
//! | `o`, organisation, mail | nothing | those that are not done, when the server starts |
//! | `e`, time of the end, organisation, thing, mail | its bytes and whose they are | those that are done, to forget them |

use base::{MailId, OrgId, ThingId, Timestamp};
use store::{Batch, Table};

use super::mail::{Mail, Message};
use crate::things::Payer;
use crate::things::tally::{bytes_of, payer_of};

/// The rows of a mail that was made.
pub(super) fn created(mail: &Mail) -> Batch {
    let mut batch = changed(mail);
    let message = &mail.message;
    batch.put(Table::Mails, message_of(message.org, Some(message.id)), mail.message_record());
    batch.put(Table::Mails, of_thing(message.thing, Some(message.id)), *message.org.as_bytes());
    batch.put(Table::Mails, open(Some((message.org, message.id))), "");
    batch
}

/// The row of a mail that has changed and is not done.
pub(super) fn changed(mail: &Mail) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Mails, state_of(mail.message.org, mail.message.id), mail.state_record());
    batch
}

/// Adds the rows of a mail that is done.
pub(super) fn finish(batch: &mut Batch, mail: &Mail, now: Timestamp) {
    let message = &mail.message;
    batch.put(Table::Mails, state_of(message.org, message.id), mail.state_record());
    batch.delete(Table::Mails, open(Some((message.org, message.id))));
    let bytes = (mail.bytes() as u64).to_be_bytes();
    let bytes = [&bytes[..], &bytes_of(message.payer())].concat();
    batch.put(Table::Mails, ended(now, Some(message)), bytes);
}

/// What a mail takes that is done, and whose share that is, from its row under `e`. An older program
/// did not note it.
pub(super) fn ended_bytes(row: &[u8]) -> Option<(Payer, usize)> {
    let (bytes, payer) = row.split_first_chunk()?;
    Some((payer_of(payer)?, usize::try_from(u64::from_be_bytes(*bytes)).ok()?))
}

/// Adds the removal of a mail that is done, by its key under `e`.
pub(super) fn forget(batch: &mut Batch, key: &[u8]) {
    let id = |at: usize| key.get(at..at + 12).and_then(|id| <[u8; 12]>::try_from(id).ok());
    if let (Some(org), Some(thing), Some(mail)) = (id(9), id(21), id(33)) {
        let (org, mail) = (OrgId::from_bytes(org), MailId::from_bytes(mail));
        batch.delete(Table::Mails, message_of(org, Some(mail)));
        batch.delete(Table::Mails, state_of(org, mail));
        batch.delete(Table::Mails, of_thing(ThingId::from_bytes(thing), Some(mail)));
    }
    batch.delete(Table::Mails, key);
}

/// The key of a mail's state.
pub(super) fn state_of(org: OrgId, mail: MailId) -> Vec<u8> {
    key(b's', &[org.as_bytes()], Some(mail))
}

/// The key of a message, or the beginning of the keys of an organisation.
pub(super) fn message_of(org: OrgId, mail: Option<MailId>) -> Vec<u8> {
    key(b'm', &[org.as_bytes()], mail)
}

/// The key of a mail under its thing, or the beginning of those of a thing.
pub(super) fn of_thing(thing: ThingId, mail: Option<MailId>) -> Vec<u8> {
    key(b't', &[thing.as_bytes()], mail)
}

/// The key of a mail among those that are not done, or the beginning of them.
pub(super) fn open(mail: Option<(OrgId, MailId)>) -> Vec<u8> {
    match mail {
        Some((org, mail)) => key(b'o', &[org.as_bytes()], Some(mail)),
        None => vec![b'o'],
    }
}

/// The key of a mail that was done at this time, or what is before all of them.
pub(super) fn ended(at: Timestamp, message: Option<&Message>) -> Vec<u8> {
    let mut row = vec![b'e'];
    row.extend_from_slice(&at.as_millis().to_be_bytes());
    if let Some(message) = message {
        row.extend_from_slice(message.org.as_bytes());
        row.extend_from_slice(message.thing.as_bytes());
        row.extend_from_slice(message.id.as_bytes());
    }
    row
}

/// The organisation in a key under `o`.
pub(super) fn org_of(key: &[u8]) -> Option<OrgId> {
    key.get(1..)?.first_chunk::<12>().map(|id| OrgId::from_bytes(*id))
}

/// The mail at the end of a key.
pub(super) fn mail_of(key: &[u8]) -> Option<MailId> {
    key.last_chunk::<12>().map(|id| MailId::from_bytes(*id))
}

fn key(kind: u8, parts: &[&[u8; 12]], mail: Option<MailId>) -> Vec<u8> {
    let mut row = vec![kind];
    parts.iter().for_each(|part| row.extend_from_slice(*part));
    row.extend(mail.iter().flat_map(|mail| mail.as_bytes()));
    row
}
