//! `file.*`: records of files, and the ids under which they are moved over HTTP
//! (`docs/protocol/tr50.md` 4.1 and 4.3).

use std::sync::Arc;

use base::{Clock, Code, Failure, FileId, TicketId, Timestamp, limits};
use rules::directory::Who;
use serde::Serialize;
use serde_json::Map;

use super::commands;
use super::paging::View;
use super::target::{Target, check_unrestricted};
use crate::app::App;
use crate::events::{NewEvent, Target as EventTarget};
use crate::random::random;
use crate::things::files::ticket::{Asker, TicketError};
use crate::things::files::transfer::TransferError;
use crate::things::files::{Credentials, FileName, FileRecord, Owner, Put};
use crate::tr50::envelope::{Members, Param, RawParams};
use crate::tr50::params::{Value, has_replacement, optional, params};
use crate::tr50::step::{After, Call, Done, Later};
use store::StoreError;

commands! {
    act "file.delete" => delete, [NOT_FOUND],
        "Deletes a file. A download that has begun goes on.",
        "",
        "files of the organisation" where check_unrestricted;
    "file.get" => get, [NOT_FOUND],
        "Reserves a file for one download: `GET /file/<fileId>`, within 300 seconds.",
        "`fileId`, `fileSize`, `crc32`, `sha256` if it was asked for";
    "file.list" => list, [NOT_FOUND],
        "Lists the files of a thing, or of the organisation, by name.",
        "`count`, `result`";
    "file.put" => put, [NOT_FOUND, STORAGE_FULL],
        "Announces one upload: `POST /file/<fileId>`, within 300 seconds. The file is there, in place \
         of an older one with its name, when that was answered.",
        "`fileId`",
        "files of the organisation" where check_unrestricted;
}

params! {
    /// Whose files a command is about.
    pub struct Whose {
        optional global: bool = "global", "A file of the organisation; no thing is meant then.";
    }
}

params! {
    /// The file that a command is about.
    pub struct Name {
        required file_name: FileName = "fileName", "The file's name.";
    }
}

params! {
    /// The parameters of `file.put` beside those.
    pub struct Announced {
        optional crc32: u64 = "crc32", "The CRC-32 (IEEE) that the bytes must have, unsigned.";
        optional public: bool = "public", "Whether other organisations may see it.";
        optional tags: Vec<String> = "tags", "Its tags.";
        optional sec_tags: Vec<String> = "secTags", "Its security tags.";
        optional ttl: u64 = "ttl", "Seconds after which it goes by itself; by default it stays.";
        optional log_complete: bool = "logComplete", "Whether the log is to say when it has come.";
        optional basic_auth: Login = "basicAuth", "What downloads have to be authenticated with.";
        optional sha256: bool = "calculateSha256", "Whether its SHA-256 is to be kept.";
    }
}

impl Announced {
    /// Fails when what is to be kept of the file, beside its bytes, is too much.
    fn check(&self) -> Result<(), Failure> {
        let mut bytes = 0;
        for (name, tags) in [("tags", &self.tags), ("secTags", &self.sec_tags)] {
            let tags = tags.as_deref().unwrap_or_default();
            let most = limits::THING_TAGS_MAX;
            if tags.len() > most {
                let sentence = format!("Parameter \"{name}\" has more than {most} tags.");
                return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
            }
            bytes += tags.iter().map(String::len).sum::<usize>();
        }
        let login = self.basic_auth.as_ref().and_then(|login| login.0.as_ref());
        bytes += login.map_or(0, |login| login.0.len());
        let most = limits::FILE_EXTRAS_BYTES_MAX;
        if bytes <= most {
            return Ok(());
        }
        let sentence =
            format!("The tags, secTags and basicAuth of a file have more than {most} bytes.");
        Err(Failure::new(Code::PARAMETER_INVALID, sentence))
    }
}

/// User name and password; without either of them there is no protection.
pub struct Login(Option<Credentials>);

impl Value for Login {
    const EXPECTED: &'static str = "an object with `username`, without a colon, and `password`";

    fn read(param: Param<'_>) -> Option<Self> {
        let members = Members::read(RawParams::Json(Some(param.json()?))).ok()?;
        let member = |name| optional::<String>(&members, name);
        let (name, password) = (member("username").ok()?, member("password").ok()?);
        // A colon divides them on the wire.
        if name.as_ref().is_some_and(|name| name.contains(':')) {
            return None;
        }
        let both = name.zip(password).filter(|(name, word)| !name.is_empty() && !word.is_empty());
        Some(Self(both.map(|(name, password)| Credentials(format!("{name}:{password}")))))
    }

    fn is_inexact(param: Param<'_>) -> bool {
        let members = param.json().and_then(Members::of);
        let inexact = |members: Members<'_>| {
            ["username", "password"]
                .into_iter()
                .filter_map(|name| members.find(name))
                .any(has_replacement)
        };
        members.is_some_and(inexact)
    }
}

params! {
    /// The parameters of `file.list` beside those of every list.
    pub struct ListParams {
        optional tags: Vec<String> = "tags", "Only files that have all of these tags.";
    }
}

/// The reply of `file.put`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    file_id: String,
}

/// The reply of `file.get`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    file_id: String,
    file_size: u64,
    crc32: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// A file in a listing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileView {
    id: FileId,
    file_name: FileName,
    length: u64,
    upload_date: Timestamp,
    public: bool,
    tags: Vec<String>,
}

const FIELDS: &[&str] = &["id", "fileName", "length", "uploadDate", "public", "tags"];

impl Whose {
    fn is_global(&self) -> bool {
        self.global.unwrap_or(false)
    }

    /// Whose files are meant.
    fn owner(&self, target: &Target, call: &Call<'_>) -> Result<Owner, Failure> {
        let org = call.session.org_id();
        let thing = if self.is_global() { None } else { Some(target.subject(call)?.id) };
        Ok(Owner { org, thing })
    }

    /// The same for a change. A token that is restricted to its own thing may read the
    /// organisation's files, for its firmware is among them, and change none.
    fn owner_to_change(&self, target: &Target, call: &Call<'_>) -> Result<Owner, Failure> {
        if self.is_global() {
            check_unrestricted(call)?;
        }
        // A gateway does not go on for what is disabled; administrators may see to its files.
        if matches!(call.session.who(), Who::Application { .. }) && !self.is_global() {
            let thing = Some(target.speaker(call)?.id);
            return Ok(Owner { org: call.session.org_id(), thing });
        }
        self.owner(target, call)
    }
}

/// `file.put`.
pub fn put(
    call: &Call<'_>,
    (target, (whose, (name, announced))): (Target, (Whose, (Name, Announced))),
) -> Result<Ticket, Failure> {
    let owner = whose.owner_to_change(&target, call)?;
    let crc32 = announced.crc32.map(u32::try_from).transpose().map_err(|_| {
        let sentence = "Parameter \"crc32\" must be a whole number from 0 to 4294967295.";
        Failure::new(Code::PARAMETER_INVALID, sentence)
    })?;
    announced.check()?;
    let maker = Some(call.session.who().principal_id());
    call.app.files.room(owner, &name.file_name, maker).map_err(no_room)?;
    let put = Put {
        name: name.file_name,
        crc32,
        public: announced.public.unwrap_or(false),
        tags: announced.tags.unwrap_or_default(),
        sec_tags: announced.sec_tags.unwrap_or_default(),
        ttl_s: announced.ttl.filter(|ttl| *ttl > 0),
        with_sha256: announced.sha256.unwrap_or(false),
        log_complete: announced.log_complete.unwrap_or(false),
        basic_auth: announced.basic_auth.and_then(|login| login.0),
    };
    let (id, asker) = (ticket_id()?, asker(call, owner, "file.put"));
    call.app.files.announce(id, asker, owner, put, call.app.clock.now()).map_err(too_many)?;
    Ok(Ticket { file_id: id.secret() })
}

/// `file.get`.
pub fn get(
    call: &Call<'_>,
    (target, (whose, name)): (Target, (Whose, Name)),
) -> Result<Offer, Failure> {
    let owner = whose.owner(&target, call)?;
    let found = call.app.files.find(owner, &name.file_name, call.app.clock.now())?;
    let record = found.ok_or_else(|| not_found(&name))?;
    let id = ticket_id()?;
    let offer = Offer {
        file_id: id.secret(),
        file_size: record.length,
        crc32: record.crc32,
        sha256: record.sha256.clone(),
    };
    let asker = asker(call, owner, "file.get");
    call.app.files.lend(id, asker, owner, record, call.app.clock.now()).map_err(too_many)?;
    Ok(offer)
}

/// `file.list`.
pub fn list(
    call: &Call<'_>,
    (view, (target, (whose, wanted))): (View, (Target, (Whose, ListParams))),
) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let owner = whose.owner(&target, call)?;
        let mut records = call.app.files.list(owner, call.app.clock.now())?;
        let tags = wanted.tags.unwrap_or_default();
        records.retain(|record| tags.iter().all(|tag| record.tags.contains(tag)));
        let clock = &call.app.clock;
        let views: Vec<_> = records.into_iter().map(|r| FileView::of(r, clock)).collect();
        // Unlike other lists, this one has no `fields` unless they are asked for.
        let hide_fields = view.hide_fields.or(Some(true));
        View { hide_fields, ..view }.apply(FIELDS, &views)
    })
}

/// `file.delete`.
pub fn delete(
    call: &Call<'_>,
    (target, (whose, name)): (Target, (Whose, Name)),
) -> Result<After<Done>, Failure> {
    let owner = whose.owner_to_change(&target, call)?;
    let now = call.app.clock.now();
    let mut numbered = None;
    let deleted = call.app.files.delete(owner, &name.file_name, now, |record, batch| {
        if !is_own(call, &owner) {
            numbered = Some(call.app.add_event(batch, deletion(call, &owner, record)));
        }
    });
    let deleted = match numbered {
        Some(numbered) => numbered.settle(deleted)?,
        None => deleted?,
    };
    Ok(After(Done, deleted.ok_or_else(|| not_found(&name))?.into()))
}

/// Whether a file is the caller's own.
fn is_own(call: &Call<'_>, owner: &Owner) -> bool {
    matches!(call.session.who(), Who::Application { thing_id, .. } if owner.thing == Some(*thing_id))
}

/// That a file was deleted which belongs to somebody else.
fn deletion(call: &Call<'_>, owner: &Owner, record: &FileRecord) -> NewEvent {
    let thing = owner.thing.map_or_else(String::new, |thing| thing.to_string());
    let target = EventTarget { kind: "file", id: thing, name: record.name.as_str().to_owned() };
    let mut before = Map::new();
    before.insert("length".to_owned(), record.length.into());
    call.app.act(&call.deed("file.delete"), owner.org, target, (before, Map::new()), call.now)
}

impl FileView {
    fn of(record: FileRecord, clock: &Clock) -> Self {
        Self {
            id: record.id,
            file_name: record.name,
            length: record.length,
            upload_date: clock.shown(record.upload_date),
            public: record.public,
            tags: record.tags,
        }
    }
}

/// The caller, whose ticket for a file of this owner is good as long as it may use this command.
fn asker(call: &Call<'_>, owner: Owner, command: &'static str) -> Asker {
    // The tickets are in the app.
    let (app, session) = (Arc::downgrade(call.app), call.session.clone());
    let who = session.who().clone();
    Asker::new(who.principal(), who.principal_id(), move || {
        let still = |app: Arc<App>| app.may_still(&session, (owner.org, owner.thing), command);
        app.upgrade().is_some_and(still)
    })
}

/// In the cloud's words (`docs/protocol/tr50.md` 4.3).
fn not_found(name: &Name) -> Failure {
    let sentence = format!("File {} not found", name.file_name.as_str());
    Failure::new(Code::NOT_FOUND, sentence)
}

fn ticket_id() -> Result<TicketId, Failure> {
    let bytes = random().map_err(|error| {
        tracing::error!(%error, "a file id could not be made");
        Failure::new(Code::INTERNAL, "The server has no random numbers.")
    })?;
    Ok(TicketId::from_random(bytes))
}

fn no_room(error: TransferError) -> Failure {
    match error {
        TransferError::Store(error) => error.into(),
        TransferError::DiskFull => StoreError::NoRoom.into(),
        TransferError::OverShare(over) => {
            Failure::new(Code::STORAGE_FULL, Failure::from(over).message)
        }
        _ => {
            let sentence = "The files of the organisation take all the room that it has \
                            (files.org_max_bytes).";
            Failure::new(Code::STORAGE_FULL, sentence)
        }
    }
}

fn too_many(error: TicketError) -> Failure {
    tracing::info!(%error, "a file id was refused");
    match error {
        TicketError::OverShare(over) => over.into(),
        _ => {
            let most = limits::FILE_TICKETS_OF_ONE_MAX;
            let sentence = format!(
                "Too many transfers of files are waiting: you have {most} tickets for files \
                 (file_tickets), as many as one login may; try again later."
            );
            Failure::new(Code::BUSY, sentence)
        }
    }
}
