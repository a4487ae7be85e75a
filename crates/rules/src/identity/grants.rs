//! Where rights come from: what gives them, and what all of that gives together.

use std::sync::{Arc, LazyLock};

use base::OrgId;

use super::Identity;
use super::access::{EVERYONE_SET, READING_SET, reaches};
use super::model::{Application, User};
use super::permission::{Permission, PermissionSet};
use super::registry::{Granted, Registry};
use super::topic_rights::{TopicFilters, TopicRights};

/// What gives rights in an organisation.
#[derive(Clone, Debug)]
pub enum Source {
    /// The flag `hasSuperAdmin`.
    SuperAdmin,
    /// The flag `hasSuperOps`.
    SuperOps,
    /// The flag `hasOrgAdmin`, which is held in this organisation: the one that is looked at, or one
    /// above.
    OrgAdmin(OrgId),
    /// A role that is held in this organisation; the same.
    Role(Arc<Granted>, OrgId),
    /// A login, whoever it is.
    Login,
}

/// All topics.
static ALL_TOPICS: LazyLock<Vec<String>> = LazyLock::new(|| vec!["#".to_owned()]);

/// The same, for those who may have them.
static ALL_FILTERS: LazyLock<TopicFilters> = LazyLock::new(TopicFilters::all);

impl Source {
    /// What gives the user rights in an organisation; none: the user may not enter it.
    ///
    /// A membership counts in its organisation and, for an administrator or with `sub_orgs`, in
    /// all below.
    pub(super) fn of_user(registry: &Registry, user: &User, org: OrgId) -> Option<Vec<Self>> {
        let reaching = || user.memberships.iter().filter(|held| reaches(registry, held, org));
        let enters = user.super_admin || user.super_ops || user.home == org;
        if !enters && reaching().next().is_none() {
            return None;
        }
        let mut sources = Self::of_flags(user.super_admin, user.super_ops);
        let admin_of = reaching().filter(|held| held.org_admin);
        sources.extend(admin_of.map(|held| Self::OrgAdmin(held.org)));
        sources.extend(reaching().flat_map(|held| {
            let roles = held.roles.iter().filter_map(|id| registry.role_within(*id, org));
            roles.map(|granted| Self::Role(granted.clone(), held.org))
        }));
        sources.push(Self::Login);
        Some(sources)
    }

    /// What gives the application rights in its organisation.
    pub(super) fn of_application(registry: &Registry, application: &Application) -> Vec<Self> {
        let org = application.org;
        let mut sources = Self::of_flags(application.super_admin, application.super_ops);
        sources.extend(application.org_admin.then_some(Self::OrgAdmin(org)));
        let roles = application.roles.iter().filter_map(|id| registry.role_within(*id, org));
        sources.extend(roles.map(|granted| Self::Role(granted.clone(), org)));
        sources.push(Self::Login);
        sources
    }

    fn of_flags(super_admin: bool, super_ops: bool) -> Vec<Self> {
        let flags = [super_admin.then_some(Self::SuperAdmin), super_ops.then_some(Self::SuperOps)];
        flags.into_iter().flatten().collect()
    }

    /// The permissions that it gives.
    pub fn permissions(&self) -> PermissionSet {
        match self {
            Self::SuperAdmin | Self::OrgAdmin(_) => PermissionSet::ALL,
            Self::SuperOps => *READING_SET,
            Self::Role(granted, _) => granted.permissions,
            Self::Login => *EVERYONE_SET,
        }
    }

    /// Filters of the ordinary topics to which it lets publish.
    pub fn topic_publish(&self) -> &[String] {
        match self {
            Self::SuperAdmin | Self::OrgAdmin(_) => &ALL_TOPICS,
            Self::Role(granted, _) => granted.topic_publish(),
            Self::SuperOps | Self::Login => &[],
        }
    }

    /// Filters of those to which it lets subscribe.
    pub fn topic_subscribe(&self) -> &[String] {
        match self {
            Self::SuperAdmin | Self::OrgAdmin(_) | Self::SuperOps => &ALL_TOPICS,
            Self::Role(granted, _) => granted.topic_subscribe(),
            Self::Login => &[],
        }
    }

    fn publish(&self) -> Option<&TopicFilters> {
        match self {
            Self::SuperAdmin | Self::OrgAdmin(_) => Some(&ALL_FILTERS),
            Self::Role(granted, _) => Some(granted.publish()),
            Self::SuperOps | Self::Login => None,
        }
    }

    fn subscribe(&self) -> Option<&TopicFilters> {
        match self {
            Self::SuperAdmin | Self::OrgAdmin(_) | Self::SuperOps => Some(&ALL_FILTERS),
            Self::Role(granted, _) => Some(granted.subscribe()),
            Self::Login => None,
        }
    }

    /// The names by which it gives a permission that it gives: that of the permission, and that of
    /// the family.
    pub fn names_of(&self, permission: Permission) -> Vec<&str> {
        let Self::Role(granted, _) = self else { return Vec::new() };
        let family = permission.name().split('.').next().unwrap_or_default();
        let may_give = |name: &str| {
            name.eq_ignore_ascii_case(permission.name()) || name.eq_ignore_ascii_case(family)
        };
        let gives =
            |name: &&String| may_give(name) && PermissionSet::from_names([name]).allows(permission);
        granted.role.permissions.iter().filter(gives).map(String::as_str).collect()
    }

    /// Whether it gives everything, so that nobody asks for roles.
    const fn is_everything(&self) -> bool {
        matches!(self, Self::SuperAdmin | Self::OrgAdmin(_))
    }
}

/// What all sources give together.
pub(super) struct Grants {
    pub(super) permissions: PermissionSet,
    pub(super) topic_publish: TopicRights,
    pub(super) topic_subscribe: TopicRights,
    /// The keys of the roles among them, sorted; of administrators none.
    pub(super) role_keys: Vec<String>,
}

impl Grants {
    /// Of these sources; `user`: who has them, if it is one.
    pub(super) fn of(sources: &[Source], user: Option<&User>) -> Self {
        let sets = sources.iter().map(Source::permissions);
        let permissions = sets.fold(PermissionSet::EMPTY, |all, set| all.union(&set));
        let key = |source: &Source| match source {
            Source::Role(granted, _) => Some(granted.role.key.clone()),
            _ => None,
        };
        let mut role_keys: Vec<_> = match sources.iter().any(Source::is_everything) {
            true => Vec::new(),
            false => sources.iter().filter_map(key).collect(),
        };
        role_keys.sort_unstable();
        role_keys.dedup();
        let filters = |of: fn(&Source) -> Option<&TopicFilters>| {
            TopicRights::new(sources.iter().filter_map(of), user)
        };
        Self {
            permissions,
            topic_publish: filters(Source::publish),
            topic_subscribe: filters(Source::subscribe),
            role_keys,
        }
    }
}

impl Identity {
    /// What gives the user rights in an organisation, before what a token or a missing second factor
    /// takes away; nothing: the user may not enter it.
    pub fn sources_of_user(&self, user: &User, org: OrgId) -> Vec<Source> {
        Source::of_user(&self.registry.read(), user, org).unwrap_or_default()
    }

    /// What gives the application rights in its organisation.
    pub fn sources_of_application(&self, application: &Application) -> Vec<Source> {
        Source::of_application(&self.registry.read(), application)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::demo;
    use super::*;

    /// Whether what is shown as the sources is what the rights are made of.
    #[test]
    fn the_sources_give_all_and_nothing_else() {
        let identity = demo();
        let union = |sources: &[Source]| {
            sources.iter().fold(PermissionSet::EMPTY, |all, one| all.union(&one.permissions()))
        };
        for email in
            ["admin@devicewise.com", "operator@basicorg.example", "viewer@basicorg.example"]
        {
            let mut user = User::clone(&identity.user_by_email(email).expect("a user"));
            for super_ops in [false, true] {
                user.super_ops = super_ops;
                for org in identity.orgs() {
                    let sources = identity.sources_of_user(&user, org.id);
                    let rights = identity.user_rights(&user, &org);
                    assert_eq!(sources.is_empty(), rights.is_none(), "{email}");
                    let Some(rights) = rights else { continue };
                    assert_eq!(union(&sources), rights.permissions, "{email}");
                }
            }
        }
        let device = identity.application_by_token("demo-token-basicorg").expect("of the demo");
        let sources = identity.sources_of_application(&device);
        let access = identity.application_access(&device).expect("its organisation is there");
        assert_eq!(union(&sources), access.permissions);
        let find = Permission::named("thing.find").expect("a command");
        let gives: Vec<_> = sources.iter().filter(|one| one.permissions().allows(find)).collect();
        let [role @ Source::Role(granted, held_in)] = gives[..] else { panic!("{gives:?}") };
        assert_eq!((granted.role.key.as_str(), *held_in), ("device", device.org));
        assert_eq!(role.names_of(find), ["thing.find"]);
    }
}
