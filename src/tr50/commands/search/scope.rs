//! Where a caller may look, and for what.

use std::sync::Arc;

use rules::identity::Access;
use rules::identity::model::Org;
use rules::identity::permission::PermissionSet;

use super::Type;
use crate::tr50::step::Call;

/// An organisation that the caller may work in.
pub(super) struct Place {
    pub(super) org: Arc<Org>,
    permissions: PermissionSet,
    /// Whether the caller has a token for its own thing only.
    pub(super) is_restricted: bool,
}

impl Place {
    fn of(access: &Access) -> Self {
        Self {
            org: access.org.clone(),
            permissions: access.permissions,
            is_restricted: access.restricted_to_self,
        }
    }

    /// Whether the caller may list these here.
    pub(super) fn may_list(&self, it: Type) -> bool {
        it.permission().is_none_or(|permission| self.permissions.allows(permission))
    }
}

/// The organisations in which a session could be, as `session.org.switch` would give them, the
/// current one first, the others by key.
pub(super) fn of(call: &Call<'_>) -> Vec<Place> {
    let access = call.session.access();
    let mut places = vec![Place::of(&access)];
    let Some(user) = call.user() else { return places };
    let identity = call.app.identity();
    let others = identity.enterable_orgs(&user).into_iter().filter(|org| org.id != access.org.id);
    places.extend(others.filter_map(|org| {
        // Whose rights are the same everywhere.
        if access.super_admin {
            return Some(Place { org, ..Place::of(&access) });
        }
        let there = identity.user_access(&user, &org)?;
        Some(Place::of(&match call.session.token() {
            Some(token) => there.by_token(token),
            None => there,
        }))
    }));
    places
}
