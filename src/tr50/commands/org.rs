//! `org.*`: organisations (`tr50.md` 4.1).

use std::sync::Arc;

use serde::Serialize;

use super::read;
use super::view::{ListReply, View};
use crate::directory::Who;
use crate::id::OrgId;
use crate::identity::model::Org;
use crate::timestamp::Timestamp;
use crate::tr50::dispatch::{Call, CommandInfo, shown};
use crate::tr50::error::Failure;
use crate::tr50::params::params;

/// The family's rows in the table of commands.
pub const COMMANDS: &[CommandInfo] = &[
    read!(
        "org.find",
        find,
        "Shows one organisation; without parameters the current one.",
        "the organisation",
        [NOT_FOUND]
    ),
    read!(
        "org.list",
        list,
        "Lists the current organisation and, for a user, all that the user may work in; by key.",
        "`count`, `fields`, `result`",
        []
    ),
];

params! {
    /// The parameters of `org.find`; none means the current organisation.
    pub struct Find {
        optional id: OrgId = "id", "The organisation's id.";
        optional key: String = "key", "The organisation's key.";
    }
}

/// An organisation on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrgView {
    id: OrgId,
    key: String,
    name: String,
    slug: String,
    parent_id: Option<OrgId>,
    created_on: Timestamp,
}

const FIELDS: &[&str] = &["id", "key", "name", "slug", "parentId", "createdOn"];

impl From<&Arc<Org>> for OrgView {
    fn from(org: &Arc<Org>) -> Self {
        Self {
            id: org.id,
            key: org.key.clone(),
            name: org.name.clone(),
            slug: org.slug.clone(),
            parent_id: org.parent,
            created_on: org.created_on,
        }
    }
}

/// `org.find`: one organisation that the caller can see.
pub fn find(call: &Call<'_>, params: Find) -> Result<OrgView, Failure> {
    let identity = &call.core.identity;
    let (found, named) = match (params.id, &params.key) {
        (Some(id), _) => (identity.org(id), id.to_string()),
        (None, Some(key)) => (identity.org_by_key(key), shown(key)),
        (None, None) => return Ok((&call.session.standing().org).into()),
    };
    let visible = visible(call);
    let found = found.filter(|org| visible.iter().any(|other| other.id == org.id));
    found
        .map(|org| (&org).into())
        .ok_or_else(|| Failure::not_found(format!("Organisation \"{named}\"")))
}

/// `org.list`: the organisations that the caller can see, ordered by key.
pub fn list(call: &Call<'_>, view: View) -> Result<ListReply, Failure> {
    let orgs: Vec<OrgView> = visible(call).iter().map(OrgView::from).collect();
    view.or_sorted_by("key").apply(FIELDS, &orgs)
}

/// What a caller can see: the current organisation, and for users those they may switch to.
fn visible(call: &Call<'_>) -> Vec<Arc<Org>> {
    match call.session.who() {
        Who::User(user) => call.core.identity.enterable_orgs(user),
        Who::Application { .. } => vec![call.session.standing().org.clone()],
    }
}
