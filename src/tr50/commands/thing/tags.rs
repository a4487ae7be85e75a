//! `thing.tag.*` and `thing.sectag.*`: tags of one thing or of many.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Code, Failure, OrgId, ThingId, ThingKey, Timestamp, limits};
use rules::directory::Session;
use serde::Serialize;
use store::Receipt;

use super::change::{change_as, check_tags, distinct};
use super::find::Selection;
use crate::app::{App, Effects, Worker};
use crate::things::registry::Thing;
use crate::tr50::commands::target::{Target, check_unrestricted};
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done, Later};

params! {
    /// The things that are to get or lose tags (`docs/protocol/tr50.md` 4.1 and 4.5). An
    /// application that names none means its own; a user has to name one.
    pub(super) struct Things {
        optional_exact thing_key: Vec<String> = "thingKey", "A thing's key, or an array of them.";
        optional_exact key: Vec<String> = "key", "The same.";
        optional thing_id: ThingId = "thingId", "A thing's id, instead.";
        optional thing_tag: Vec<String> = "thingTag", "All things with these tags, instead.";
        optional thing_query: String = "thingQuery",
            "All things that `thing.search` finds with this query, instead.";
        optional thing_all: bool = "thingAll", "All things of the organisation, instead.";
    }
}

params! {
    /// The tags of `thing.tag.add` and `thing.tag.delete`.
    pub(super) struct Tags {
        required tags: Vec<String> = "tags", "The tags.";
    }
}

params! {
    /// The tags of `thing.sectag.add` and `thing.sectag.delete`.
    pub(super) struct SecTags {
        optional sec_tags: Vec<String> = "secTags", "The security tags.";
        optional tags: Vec<String> = "tags", "The same.";
    }
}

params! {
    /// The parameters of `thing.tag.cloud` and `thing.sectag.cloud`.
    pub(super) struct Cloud {
        optional tags: Vec<String> = "tags", "Only of things that have all of these tags.";
        optional sec_tags: Vec<String> = "secTags",
            "Only of things that have all of these security tags.";
        optional_exact keys: Vec<String> = "keys", "Only of things with these keys.";
    }
}

/// The reply of `thing.tag.cloud` and `thing.sectag.cloud`: an object for each tag.
#[derive(Serialize)]
pub(super) struct TagCloud {
    result: Vec<BTreeMap<String, usize>>,
}

/// `thing.tag.add`.
pub(super) fn add(call: &Call<'_>, (things, tags): (Things, Tags)) -> Result<Later, Failure> {
    things.edit(call, Edit { kind: Kind::Plain, adds: true, tags: tags.tags })
}

/// `thing.tag.delete`.
pub(super) fn delete(call: &Call<'_>, (things, tags): (Things, Tags)) -> Result<Later, Failure> {
    things.edit(call, Edit { kind: Kind::Plain, adds: false, tags: tags.tags })
}

/// `thing.sectag.add`.
pub(super) fn sec_add(
    call: &Call<'_>,
    (things, tags): (Things, SecTags),
) -> Result<Later, Failure> {
    things.edit(call, Edit { kind: Kind::Security, adds: true, tags: tags.all()? })
}

/// `thing.sectag.delete`.
pub(super) fn sec_delete(
    call: &Call<'_>,
    (things, tags): (Things, SecTags),
) -> Result<Later, Failure> {
    things.edit(call, Edit { kind: Kind::Security, adds: false, tags: tags.all()? })
}

impl SecTags {
    fn all(self) -> Result<Vec<String>, Failure> {
        self.sec_tags.or(self.tags).ok_or_else(|| missing("secTags"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Security,
}

impl Kind {
    fn of_mut(self, thing: &mut Thing) -> &mut Vec<String> {
        match self {
            Self::Plain => &mut thing.tags,
            Self::Security => &mut thing.sec_tags,
        }
    }

    const fn of(self, thing: &Thing) -> &Vec<String> {
        match self {
            Self::Plain => &thing.tags,
            Self::Security => &thing.sec_tags,
        }
    }
}

/// What is to become of the things' tags.
struct Edit {
    kind: Kind,
    adds: bool,
    tags: Vec<String>,
}

impl Edit {
    fn apply(&self, thing: &mut Thing) {
        let held = self.kind.of_mut(thing);
        if self.adds {
            let all = held.iter().chain(&self.tags).cloned().collect();
            *held = distinct(all);
            // What a thing has is not taken from it; what is too much is not added.
            held.truncate(limits::THING_TAGS_MAX);
        } else {
            held.retain(|tag| !self.tags.contains(tag));
        }
    }

    /// Changes some things; the receipt is for all of them.
    fn apply_to(
        &self,
        app: &App,
        org: OrgId,
        keys: &[ThingKey],
        by: (Timestamp, &str),
    ) -> Result<Receipt, Failure> {
        let mut stored = Receipt::nothing();
        for key in keys {
            match change_as(&app.things, org, key, by, |thing| self.apply(thing)) {
                Ok(receipt) => stored = stored.and(receipt),
                // It was deleted meanwhile.
                Err(failure) if failure.code == Code::NOT_FOUND => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(stored)
    }
}

impl Things {
    /// Edits the tags of all things that are meant: some at once, many apart, in steps.
    fn edit(self, call: &Call<'_>, edit: Edit) -> Result<Later, Failure> {
        check_tags(if edit.kind == Kind::Plain { "tags" } else { "secTags" }, &edit.tags)?;
        let (org, now) = (call.session.org_id(), call.now);
        let by = call.session.who().name().to_owned();
        if let Some(selection) = self.selection() {
            check_unrestricted(call)?;
            selection.check()?;
            let (app, session) = (call.app.clone(), call.session.clone());
            return Ok(Later::new(edit_selected(app, session, selection, edit, (now, by))));
        }
        if self.texts().len() > limits::THINGS_AT_ONCE_MAX {
            let (app, session) = (call.app.clone(), call.session.clone());
            return Ok(Later::new(edit_named(app, session, self, edit, (now, by))));
        }
        let keys = self.named(call)?;
        let receipt = edit.apply_to(call.app, org, &keys, (now, &by))?;
        Ok(Later::new(async { Ok(After(Done, receipt.into())) }))
    }

    /// The things meant, if they are not named one by one.
    fn selection(&self) -> Option<Selection> {
        let named = self.thing_key.is_some() || self.key.is_some() || self.thing_id.is_some();
        let all = self.thing_all.unwrap_or(false);
        let any = self.thing_tag.is_some() || self.thing_query.is_some() || all;
        (!named && any)
            .then(|| Selection::of(self.thing_tag.clone(), None, self.thing_query.clone()))
    }

    /// What is given as keys.
    fn texts(&self) -> &[String] {
        self.thing_key.as_ref().or(self.key.as_ref()).map_or(&[], Vec::as_slice)
    }

    /// The keys of the things that are named one by one. All have to be there.
    fn named(&self, call: &Call<'_>) -> Result<Vec<ThingKey>, Failure> {
        let mut keys = Vec::new();
        for text in self.texts() {
            let key = ThingKey::parse(text).map_err(|why| {
                let sentence = format!("Parameter \"thingKey\" names no thing: {why}.");
                Failure::new(Code::PARAMETER_INVALID, sentence)
            })?;
            let target = Target { thing_key: Some(key), ..Target::default() };
            keys.push(target.thing(call)?.key);
        }
        if keys.is_empty() {
            let target = Target { thing_id: self.thing_id, ..Target::default() };
            keys.push(target.thing(call)?.key);
        }
        Ok(keys)
    }
}

async fn edit_named(
    app: Arc<App>,
    session: Arc<Session>,
    things: Things,
    edit: Edit,
    (now, by): (Timestamp, String),
) -> Result<After<Done>, Failure> {
    let shared = app.clone();
    let worker = Worker::of(&session);
    let work = move || {
        let conn = *session.conn();
        let call = Call { app: &shared, session: &session, conn, now };
        let keys = things.named(&call)?;
        edit.apply_to(&shared, session.org_id(), &keys, (now, &by))
    };
    Ok(After(Done, app.offload(worker, work).await??.into()))
}

async fn edit_selected(
    app: Arc<App>,
    session: Arc<Session>,
    selection: Selection,
    edit: Edit,
    (now, by): (Timestamp, String),
) -> Result<After<Done>, Failure> {
    let shared = app.clone();
    let (org, principal) = (session.org_id(), session.who().principal_id());
    let first = Worker::Principal(org, principal);
    let selected = app.offload(first, move || selection.things_of(&shared, org)).await??;
    let keys: Vec<ThingKey> = selected.into_iter().map(|thing| thing.key).collect();
    let edit = Arc::new((edit, by));
    for step in keys.chunks(limits::THINGS_STEP) {
        let (shared, edit, step) = (app.clone(), edit.clone(), step.to_vec());
        let work = move || edit.0.apply_to(&shared, org, &step, (now, &edit.1));
        app.offload(Worker::Begun(org, principal), work).await??.await?;
    }
    Ok(After(Done, Effects::default()))
}

/// `thing.tag.cloud`: how many things have each tag.
pub(super) fn cloud(call: &Call<'_>, params: Cloud) -> Result<Later, Failure> {
    call.look_later(move |call| count(call, params, Kind::Plain))
}

/// `thing.sectag.cloud`: how many things have each security tag.
pub(super) fn sec_cloud(call: &Call<'_>, params: Cloud) -> Result<Later, Failure> {
    call.look_later(move |call| count(call, params, Kind::Security))
}

fn count(call: &Call<'_>, params: Cloud, kind: Kind) -> Result<TagCloud, Failure> {
    let selection = Selection::of(params.tags, params.keys, None);
    selection.check()?;
    check_tags("secTags", params.sec_tags.as_deref().unwrap_or_default())?;
    let has = |thing: &Thing| {
        let wanted = params.sec_tags.iter().flatten();
        wanted.into_iter().all(|tag| thing.sec_tags.contains(tag))
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let things = selection.things_of(call.app, call.session.org_id())?;
    for thing in things.iter().filter(|thing| has(thing)) {
        for tag in kind.of(thing) {
            *counts.entry(tag.clone()).or_default() += 1;
        }
    }
    let one = |(tag, count)| BTreeMap::from([(tag, count)]);
    Ok(TagCloud { result: counts.into_iter().map(one).collect() })
}
