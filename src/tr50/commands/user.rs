//! `user.*`: users (`tr50.md` 4.1).

use std::sync::Arc;

use serde::Serialize;

use super::read;
use super::view::{ListReply, View};
use crate::id::{OrgId, UserId};
use crate::identity::model::User;
use crate::timestamp::Timestamp;
use crate::tr50::dispatch::{Call, CommandInfo, shown};
use crate::tr50::error::Failure;
use crate::tr50::params::{missing, params};

/// The family's rows in the table of commands.
pub const COMMANDS: &[CommandInfo] = &[
    read!(
        "user.find",
        find,
        "Shows one user of the current organisation.",
        "the user",
        [NOT_FOUND]
    ),
    read!(
        "user.list",
        list,
        "Lists the users of the current organisation, by e-mail address.",
        "`count`, `fields`, `result`",
        []
    ),
];

params! {
    /// The parameters of `user.find`.
    pub struct Find {
        optional email_address: String = "emailAddress", "The user's e-mail address.";
        optional username: String = "username", "The same, as older clients call it.";
        optional id: UserId = "id", "The user's id.";
    }
}

params! {
    /// The parameters of `user.list` beside those of every list.
    pub struct Wanted {
        optional admins: bool = "admins", "Only administrators of the organisation.";
    }
}

/// A user on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserView {
    id: UserId,
    email_address: String,
    default_org_id: OrgId,
    first_name: String,
    last_name: String,
    is_super_admin: bool,
    is_super_ops: bool,
    is_org_admin: bool,
    created_on: Timestamp,
}

const FIELDS: &[&str] = &[
    "id",
    "emailAddress",
    "defaultOrgId",
    "firstName",
    "lastName",
    "isSuperAdmin",
    "isSuperOps",
    "isOrgAdmin",
    "createdOn",
];

impl UserView {
    fn of(user: &User, org: OrgId) -> Self {
        let membership = user.memberships.iter().find(|membership| membership.org == org);
        Self {
            id: user.id,
            email_address: user.email.clone(),
            default_org_id: user.home,
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            is_super_admin: user.super_admin,
            is_super_ops: user.super_ops,
            is_org_admin: membership.is_some_and(|membership| membership.org_admin),
            created_on: user.created_on,
        }
    }
}

/// `user.find`: a user of the current organisation, or for super administrators any.
pub fn find(call: &Call<'_>, params: Find) -> Result<UserView, Failure> {
    let identity = &call.core.identity;
    let name = params.email_address.or(params.username);
    let (found, named) = match (&name, params.id) {
        (Some(name), _) => (identity.user_by_email(name), shown(name)),
        (None, Some(id)) => (identity.user(id), id.to_string()),
        (None, None) => return Err(missing("emailAddress")),
    };
    let standing = call.session.standing();
    let here = |user: &Arc<User>| {
        standing.super_admin || identity.users_of(standing.org.id).iter().any(|u| u.id == user.id)
    };
    found
        .filter(here)
        .map(|user| UserView::of(&user, standing.org.id))
        .ok_or_else(|| Failure::not_found(format!("User \"{named}\"")))
}

/// `user.list`: the users of the current organisation, ordered by e-mail address.
pub fn list(call: &Call<'_>, (view, wanted): (View, Wanted)) -> Result<ListReply, Failure> {
    let org = call.session.org_id();
    let only_admins = wanted.admins.unwrap_or(false);
    let users = call.core.identity.users_of(org);
    let users: Vec<UserView> = users
        .iter()
        .map(|user| UserView::of(user, org))
        .filter(|user| !only_admins || user.is_org_admin)
        .collect();
    view.or_sorted_by("emailAddress").apply(FIELDS, &users)
}
