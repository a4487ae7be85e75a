//! The records of identity in memory, with an index for every way to ask for them.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Identity;
use super::model::{Application, Org, Role, User};
use super::permission::PermissionSet;
use super::record::Records;
use crate::id::{ApplicationId, OrgId, RoleId, UserId};
use crate::limits;

/// The records, indexed. It never changes after it was made, so that reading takes no lock.
#[derive(Default)]
pub struct Registry {
    /// Ordered by key, without regard to case; so are all lists below, by key, e-mail or name.
    orgs: Vec<Arc<Org>>,
    orgs_by_id: HashMap<OrgId, Arc<Org>>,
    orgs_by_key: HashMap<String, Arc<Org>>,
    roles: HashMap<RoleId, (Role, PermissionSet)>,
    users: HashMap<UserId, Arc<User>>,
    users_by_email: HashMap<String, Arc<User>>,
    users_of: HashMap<OrgId, Vec<Arc<User>>>,
    applications: HashMap<ApplicationId, Arc<Application>>,
    applications_by_token: HashMap<[u8; 32], Arc<Application>>,
}

impl Registry {
    /// Indexes the records.
    pub fn new(records: Records) -> Self {
        let mut registry = Self::default();
        registry.index_orgs(records.orgs);
        registry.index_roles(records.roles);
        registry.index_users(records.users);
        registry.index_applications(records.applications);
        registry
    }

    fn index_orgs(&mut self, orgs: Vec<Org>) {
        self.orgs = in_order(orgs, |org| &org.key);
        for org in &self.orgs {
            self.orgs_by_id.insert(org.id, org.clone());
            self.orgs_by_key.insert(org.key.to_lowercase(), org.clone());
        }
    }

    fn index_roles(&mut self, roles: Vec<Role>) {
        for role in roles {
            let permissions = PermissionSet::from_names(&role.permissions);
            self.roles.insert(role.id, (role, permissions));
        }
    }

    fn index_users(&mut self, users: Vec<User>) {
        for user in in_order(users, |user| &user.email) {
            let mut orgs: Vec<OrgId> = user.memberships.iter().map(|held| held.org).collect();
            orgs.push(user.home);
            orgs.sort_unstable();
            orgs.dedup();
            for org in orgs {
                self.users_of.entry(org).or_default().push(user.clone());
            }
            self.users_by_email.insert(user.email.to_lowercase(), user.clone());
            self.users.insert(user.id, user);
        }
    }

    fn index_applications(&mut self, applications: Vec<Application>) {
        for application in applications.into_iter().map(Arc::new) {
            self.applications_by_token.insert(application.token_hash, application.clone());
            self.applications.insert(application.id, application);
        }
    }
}

/// Reads of the records. None of them blocks.
impl Identity {
    /// The organisation with this id.
    pub fn org(&self, id: OrgId) -> Option<Arc<Org>> {
        self.registry.orgs_by_id.get(&id).cloned()
    }

    /// The organisation with this key, whatever its case.
    pub fn org_by_key(&self, key: &str) -> Option<Arc<Org>> {
        self.registry.orgs_by_key.get(&key.to_lowercase()).cloned()
    }

    /// All organisations, ordered by key.
    pub fn orgs(&self) -> Vec<Arc<Org>> {
        self.registry.orgs.clone()
    }

    /// Whether `org` is `ancestor` or somewhere below it.
    pub fn is_within(&self, org: OrgId, ancestor: OrgId) -> bool {
        let parent = |org: &OrgId| self.registry.orgs_by_id.get(org).and_then(|org| org.parent);
        std::iter::successors(Some(org), parent)
            .take(limits::ORG_DEPTH_MAX)
            .any(|org| org == ancestor)
    }

    /// The user with this id.
    pub fn user(&self, id: UserId) -> Option<Arc<User>> {
        self.registry.users.get(&id).cloned()
    }

    /// The user with this e-mail address, whatever its case.
    pub fn user_by_email(&self, email: &str) -> Option<Arc<User>> {
        self.registry.users_by_email.get(&email.to_lowercase()).cloned()
    }

    /// The users who are at home or have a membership in the organisation, ordered by address.
    pub fn users_of(&self, org: OrgId) -> Vec<Arc<User>> {
        self.registry.users_of.get(&org).cloned().unwrap_or_default()
    }

    /// The application with this id.
    pub fn application(&self, id: ApplicationId) -> Option<Arc<Application>> {
        self.registry.applications.get(&id).cloned()
    }

    /// The application with this token. The map is asked for the token's hash, which tells a
    /// listener to our timing nothing about the token; the hashes are compared in constant time.
    pub(super) fn application_by_token(&self, token: &str) -> Option<Arc<Application>> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let application = self.registry.applications_by_token.get(&hash)?;
        bool::from(application.token_hash.ct_eq(&hash)).then(|| application.clone())
    }

    /// What the role grants in `org`: nothing unless it is owned there or above.
    pub(super) fn role_within(&self, id: RoleId, org: OrgId) -> Option<(&Role, &PermissionSet)> {
        let (role, permissions) = self.registry.roles.get(&id)?;
        self.is_within(org, role.org).then_some((role, permissions))
    }
}

fn in_order<T>(records: Vec<T>, name: impl Fn(&T) -> &str) -> Vec<Arc<T>> {
    let mut records: Vec<Arc<T>> = records.into_iter().map(Arc::new).collect();
    records.sort_by_cached_key(|record| name(record).to_lowercase());
    records
}

#[cfg(test)]
mod tests {
    use super::super::tests::demo;

    #[test]
    fn organisations_are_below_others() {
        let (identity, _) = demo();
        let org = |key| identity.org_by_key(key).expect("an organisation of the demo");
        let (system, basic, york) = (org("system"), org("BASICORG"), org("YorkOrg"));
        assert_eq!(identity.org(basic.id), Some(basic.clone()));
        assert_eq!(identity.orgs(), [basic.clone(), system.clone(), york.clone()]);
        assert!(identity.is_within(basic.id, system.id) && identity.is_within(basic.id, basic.id));
        assert!(!identity.is_within(system.id, basic.id) && !identity.is_within(york.id, basic.id));
    }

    #[test]
    fn people_are_found_by_every_name() {
        let (identity, _) = demo();
        let basic = identity.org_by_key("BasicOrg").expect("an organisation of the demo");
        let emails: Vec<_> =
            identity.users_of(basic.id).iter().map(|user| user.email.clone()).collect();
        assert_eq!(emails, ["operator@basicorg.example", "viewer@basicorg.example"]);
        let admin = identity.user_by_email("Admin@deviceWISE.com").expect("the administrator");
        assert_eq!(identity.user(admin.id), Some(admin));
        let application = identity.application_by_token("demo-token-basicorg");
        let application = application.expect("the application of the demo");
        assert_eq!(application.org, basic.id);
        assert_eq!(identity.application(application.id), Some(application.clone()));
        assert_eq!(identity.application_by_token("demo-token-basicor"), None);
        let role = identity.role_within(application.roles[0], basic.id);
        assert!(role.is_some_and(|(role, _)| role.id == application.roles[0]));
    }
}
