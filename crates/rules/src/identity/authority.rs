//! Who may act where, in one vocabulary for commands and dialects.
//!
//! The rules of TR50, Element and Cognite differ on purpose: an administrator above an organisation
//! may change its records with `org.update`, but may not list its sessions in Cognite's words. Each
//! rule is written where it applies, and each is made of these words:
//!
//! * **administers** an organisation: is its administrator, or of one above, or super administrator;
//! * **administers directly**: is administrator of that very organisation by a membership in it;
//! * **sees all**: is super administrator or super operator, in every organisation.

use base::OrgId;
use smallvec::SmallVec;

use super::model::{Application, User};
use super::{Access, Identity, Limit};

/// Where somebody is an administrator, whichever record says so.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Authority {
    /// Changes everything, everywhere.
    pub super_admin: bool,
    /// Sees everything, everywhere.
    pub super_ops: bool,
    /// The organisations that say so themselves; those below follow.
    admin_of: SmallVec<[OrgId; 1]>,
}

impl Authority {
    /// Whether there is nothing that may not be seen.
    pub fn sees_all(&self) -> bool {
        self.super_admin || self.super_ops
    }

    /// Whether there is an organisation to administer.
    pub fn administers_any(&self) -> bool {
        self.super_admin || !self.admin_of.is_empty()
    }

    /// Whether this very organisation has made them its administrator.
    pub fn administers_directly(&self, org: OrgId) -> bool {
        self.admin_of.contains(&org)
    }

    /// Whether an organisation above this one has made them its administrator.
    pub fn administers_above(&self, identity: &Identity, org: OrgId) -> bool {
        self.admin_of.iter().any(|above| *above != org && identity.is_within(org, *above))
    }

    /// Whether they are administrator of the organisation, of one above, or of everything.
    pub fn administers(&self, identity: &Identity, org: OrgId) -> bool {
        self.super_admin || self.admin_of.iter().any(|above| identity.is_within(org, *above))
    }
}

impl User {
    /// The organisation whose administrators administer the user: the first home, which is nothing
    /// that users choose.
    pub fn owner(&self) -> OrgId {
        self.owner.unwrap_or(self.home)
    }

    /// Where the user is an administrator.
    pub fn authority(&self) -> Authority {
        let admin_of = self.memberships.iter().filter(|member| member.org_admin);
        Authority {
            super_admin: self.super_admin,
            super_ops: self.super_ops,
            admin_of: admin_of.map(|member| member.org).collect(),
        }
    }
}

impl Application {
    /// Where the application is an administrator.
    pub fn authority(&self) -> Authority {
        Authority {
            super_admin: self.super_admin,
            super_ops: self.super_ops,
            admin_of: self.org_admin.then_some(self.org).into_iter().collect(),
        }
    }
}

impl Access {
    /// Where the holder is an administrator, as far as the present organisation tells: a session
    /// acts there and below, wherever else its user may be an administrator.
    pub fn authority(&self) -> Authority {
        if self.limit == Some(Limit::Enrolment) {
            return Authority::default();
        }
        Authority {
            super_admin: self.super_admin,
            super_ops: self.super_ops,
            admin_of: self.org_admin.then_some(self.org.id).into_iter().collect(),
        }
    }

    /// Whether the holder administers the present organisation.
    pub fn administers_here(&self) -> bool {
        (self.super_admin || self.org_admin) && self.limit != Some(Limit::Enrolment)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::demo;
    use super::*;

    #[test]
    fn an_administrator_administers_what_is_below_and_only_the_own_directly() {
        let identity = demo();
        let org = |key| identity.org_by_key(key).expect("an organisation of the demo").id;
        let (system, basic, york) = (org("SYSTEM"), org("BasicOrg"), org("YorkOrg"));
        let mut user = User::clone(
            &identity.user_by_email("operator@basicorg.example").expect("a user of the demo"),
        );
        let check = |user: &User, administers: &[OrgId], directly: &[OrgId]| {
            let authority = user.authority();
            for org in [system, basic, york] {
                assert_eq!(authority.administers(&identity, org), administers.contains(&org));
                assert_eq!(authority.administers_directly(org), directly.contains(&org));
            }
            assert_eq!(authority.administers_any(), !administers.is_empty());
            assert_eq!(authority.administers_above(&identity, basic), directly.contains(&system));
        };
        check(&user, &[basic], &[basic]);
        user.memberships[0].org = system;
        check(&user, &[system, basic, york], &[system]);
        user.memberships[0].org_admin = false;
        check(&user, &[], &[]);
        assert!(!user.authority().sees_all());
        user.super_ops = true;
        check(&user, &[], &[]);
        assert!(user.authority().sees_all());
        user.super_admin = true;
        check(&user, &[system, basic, york], &[]);
    }
}
