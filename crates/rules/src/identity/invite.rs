//! Invitations: memberships that an organisation offers to users of others, who decide themselves.

use base::{ApplicationId, UserId};
use serde::{Deserialize, Serialize};

use super::model::Membership;
use super::permission::Permission;
use super::topic_rights::TopicRights;
use super::{Access, Identity};

/// A membership that is offered to a user. It gives no rights, and shows the user's address alone
/// to the organisation that offers it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invite {
    /// Under which id the organisation knows the user until then: not the user's own, which would
    /// be the first thing that it learns.
    pub id: UserId,
    /// What the user becomes by accepting; `added_by` and `added_on` say who offers it, and when.
    pub terms: Membership,
    /// The same who, for a look at what they may do when it is accepted.
    pub by: Inviter,
}

/// Who invites.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inviter {
    /// A user.
    User(UserId),
    /// A session of an application.
    Application(ApplicationId),
}

impl Identity {
    /// Whether who invites could still do so: is there, and may grant there what is offered. An
    /// invitation whose inviter is gone is as none.
    pub fn is_offered(&self, invite: &Invite) -> bool {
        let terms = &invite.terms;
        let access = self.inviting_access(invite);
        let Some(access) = access.filter(may_invite) else { return false };
        if access.administers_here() {
            return true;
        }
        let mut offered = terms.roles.iter().filter_map(|id| self.role_within(*id, terms.org));
        let covers = |rights: &TopicRights, filters: &[String]| {
            filters.iter().all(|filter| rights.covers_of_all(filter, None))
        };
        !terms.org_admin
            && !terms.sub_orgs
            && offered.all(|role| {
                access.permissions.contains(&role.permissions)
                    && covers(&access.topic_publish, role.topic_publish())
                    && covers(&access.topic_subscribe, role.topic_subscribe())
            })
    }

    /// What who invites is in the organisation now.
    fn inviting_access(&self, invite: &Invite) -> Option<Access> {
        let org = self.org(invite.terms.org)?;
        match invite.by {
            Inviter::User(id) => self.user_access(&*self.user(id)?, &org),
            Inviter::Application(id) => {
                let application = self.application(id)?;
                let here =
                    application.org == org.id || application.authority().administers(self, org.id);
                self.application_access(&application).filter(|_| here)
            }
        }
    }
}

/// Whether who has this access may invite: with the permission for either command that does so.
fn may_invite(access: &Access) -> bool {
    let mut commands = ["user.org.add", "user.create"].into_iter().filter_map(Permission::named);
    commands.any(|command| access.permissions.allows(command))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::model::User;
    use super::super::tests::{NOW, demo};
    use super::*;

    #[test]
    fn an_invitation_stands_and_falls_with_who_invites() {
        let identity = demo();
        let basic = identity.org_by_key("BasicOrg").expect("an organisation of the demo").id;
        let device = identity.role_by_key(basic, "device").expect("a role").role.id;
        let user = |email: &str| User::clone(&identity.user_by_email(email).expect("a user"));
        let (mut operator, viewer) =
            (user("operator@basicorg.example"), user("viewer@basicorg.example"));
        let terms = Membership {
            org: basic,
            roles: vec![device],
            org_admin: false,
            sub_orgs: true,
            tags: Vec::new(),
            added_on: NOW,
            added_by: operator.email.clone(),
        };
        let by = Inviter::User(operator.id);
        let invite = Invite { id: UserId::from_bytes([9; 12]), terms, by };
        assert!(identity.is_offered(&invite));
        assert!(!identity.is_offered(&Invite { by: Inviter::User(viewer.id), ..invite.clone() }));
        let application =
            identity.application_by_token("demo-token-basicorg").expect("of the demo");
        let by = Inviter::Application(application.id);
        assert!(!identity.is_offered(&Invite { by, ..invite.clone() }));

        let mut york = user("admin@devicewise.com");
        york.invites = vec![invite.clone()];
        identity.apply(identity.turn().put(york.clone()));
        let emails = |users: Vec<Arc<User>>| -> Vec<_> {
            users.iter().map(|user| user.email.clone()).collect()
        };
        assert_eq!(emails(identity.invited_to(basic)), ["admin@devicewise.com"]);
        assert_eq!(identity.user_by_invite(invite.id).map(|user| user.id), Some(york.id));
        assert_eq!(identity.users_of(basic).len(), 2);
        york.invites.clear();
        identity.apply(identity.turn().put(york));
        assert!(identity.invited_to(basic).is_empty());
        assert_eq!(identity.user_by_invite(invite.id), None);

        operator.memberships[0].org_admin = false;
        identity.apply(identity.turn().put(operator.clone()));
        assert!(!identity.is_offered(&invite));
        identity.apply(identity.turn().delete([operator.into()]));
        assert!(!identity.is_offered(&invite));
    }
}
