//! Results on the wire.

use base::{ApplicationId, OrgId, SessionRef, ThingDefId, Timestamp, UserId};
use rules::directory::{Kind, Session};
use rules::identity::model::User;
use serde::Serialize;
use store::StoreError;

use super::best::{Hit, What};
use crate::tr50::commands::thing::ThingBrief;
use crate::tr50::step::Call;

/// A result: where it is, how it was found, what it is known by.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResultView {
    #[serde(rename = "_type")]
    kind: &'static str,
    #[serde(rename = "match")]
    class: &'static str,
    field: &'static str,
    org_id: OrgId,
    org_key: String,
    org_slug: String,
    #[serde(flatten)]
    what: WhatView,
}

/// What was found.
#[derive(Serialize)]
#[serde(untagged)]
enum WhatView {
    Thing(Box<ThingBrief>),
    Session(SessionView),
    User(UserView),
    Pending(PendingView),
    Record(RecordView),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionView {
    #[serde(rename = "ref")]
    reference: SessionRef,
    /// `whoAmI`.
    name: String,
    kind: &'static str,
    protocol: &'static str,
    remote_addr: String,
    start_time: Timestamp,
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserView {
    id: UserId,
    /// First and last name; without either, the address.
    name: String,
    email_address: String,
}

/// Of who is invited and has not accepted, the address is known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PendingView {
    name: String,
    email_address: String,
    pending: bool,
}

/// An organisation, an application or a definition.
#[derive(Serialize)]
struct RecordView {
    id: RecordId,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    name: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RecordId {
    Org(OrgId),
    App(ApplicationId),
    ThingDef(ThingDefId),
}

impl ResultView {
    /// The result as it is now; none if it is gone from where it was found.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub(super) fn of(call: &Call<'_>, hit: Hit) -> Result<Option<Self>, StoreError> {
        let (kind, org) = (hit.what.kind().as_str(), hit.org);
        let record = |id, key: Option<&String>, name: &String| {
            WhatView::Record(RecordView { id, key: key.cloned(), name: name.clone() })
        };
        let what = match hit.what {
            What::Thing(key) => {
                let thing = call.app.things.get(org.id, &key)?;
                let brief = thing.map(|thing| ThingBrief::of(call, thing)).transpose()?;
                brief.map(|brief| WhatView::Thing(Box::new(brief)))
            }
            What::Session(session) => {
                let is_here = session.org_id() == org.id;
                is_here.then(|| WhatView::Session(SessionView::of(call, &session)))
            }
            What::User(user) => Some(WhatView::User(UserView::of(&user))),
            What::Pending(user) => Some(WhatView::Pending(PendingView {
                name: user.email.clone(),
                email_address: user.email.clone(),
                pending: true,
            })),
            What::Org => Some(record(RecordId::Org(org.id), Some(&org.key), &org.name)),
            What::App(app) => Some(record(RecordId::App(app.id), None, &app.name)),
            What::ThingDef(def) => {
                Some(record(RecordId::ThingDef(def.id), Some(&def.key), &def.name))
            }
        };
        Ok(what.map(|what| Self {
            kind,
            class: hit.found.class.as_str(),
            field: hit.field,
            org_id: org.id,
            org_key: org.key.clone(),
            org_slug: org.slug.clone(),
            what,
        }))
    }
}

impl SessionView {
    fn of(call: &Call<'_>, session: &Session) -> Self {
        Self {
            reference: session.reference(),
            name: session.who().name().to_owned(),
            kind: match session.kind() {
                Kind::User => "user",
                Kind::Application => "application",
            },
            protocol: session.conn().protocol.as_str(),
            remote_addr: session.conn().remote_addr.to_string(),
            start_time: call.app.clock.shown(session.started()),
            status: session.status().as_str(),
        }
    }
}

impl UserView {
    fn of(user: &User) -> Self {
        let name = [&user.first_name[..], " ", &user.last_name].concat();
        let name = Some(name.trim()).filter(|name| !name.is_empty()).unwrap_or(&user.email);
        Self { id: user.id, name: name.to_owned(), email_address: user.email.clone() }
    }
}
