//! Webhooks: which events go to which URL, and by whose rights.

use base::{ApplicationId, OrgId, Timestamp, TokenId, UserId, WebhookId};
use serde::{Deserialize, Serialize};

use super::model::Application;
use super::permission::PermissionSet;
use super::{Access, Identity, Token};

/// A webhook. It belongs to an organisation and ends with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// The organisation whose events it gets.
    pub org: OrgId,
    /// A name for people, unique in the organisation without regard to case.
    pub name: String,
    /// What it is for.
    pub desc: String,
    /// Where the events go.
    pub url: String,
    /// What deliveries are signed with: as it is, for a signature needs it.
    pub secret: String,
    /// Types of events, or families of them; empty: all.
    pub types: Vec<String>,
    /// Keys of the things whose events it gets; empty: all, and those that are of no thing.
    pub thing_keys: Vec<String>,
    /// Whether it gets the events of organisations below, too.
    pub include_sub_orgs: bool,
    /// Events in one delivery at most.
    pub max_events: u32,
    /// Whether anything is sent.
    pub enabled: bool,
    /// Why and when the server switched it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_off: Option<SwitchedOff>,
    /// By whose rights events are sent: of who made or changed it last.
    pub owner: WebhookOwner,
    /// The token by which the owner had logged in, unless it was an application's first one: without
    /// it nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// What the owner might do then: events are never sent by more than that.
    pub rights: WebhookRights,
    /// Where it begins.
    pub start: WebhookStart,
    /// When it was made.
    pub created_on: Timestamp,
    /// By whom: an e-mail address or a thing's key.
    pub created_by: String,
    /// When it was last changed, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<(Timestamp, String)>,
}

/// That the server switched a webhook off.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SwitchedOff {
    /// When.
    pub at: Timestamp,
    /// Why, in a sentence.
    pub reason: String,
}

/// By whose rights a webhook's events are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookOwner {
    /// A user's.
    User(UserId),
    /// An application's.
    Application(ApplicationId),
}

/// What the owner of a webhook might do when it was made or changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WebhookRights {
    /// Names of permissions; none stands for all.
    pub permissions: Option<Vec<String>>,
    /// Whether it was a super administrator.
    pub super_admin: bool,
    /// Whether it was a super operator.
    pub super_ops: bool,
    /// Whether it was an administrator of the organisation.
    pub org_admin: bool,
}

impl WebhookRights {
    /// What somebody may do now.
    pub fn of(access: &Access) -> Self {
        let set = access.permissions;
        let names = || set.names().map(str::to_owned).collect();
        Self {
            permissions: (set != PermissionSet::ALL).then(names),
            super_admin: access.super_admin,
            super_ops: access.super_ops,
            org_admin: access.org_admin,
        }
    }

    /// What is left of the rights that somebody has now.
    fn cut(&self, access: Access) -> Access {
        let permissions = match &self.permissions {
            Some(names) => PermissionSet::from_exact_names(names),
            None => PermissionSet::ALL,
        };
        Access {
            permissions: access.permissions.intersection(&permissions),
            super_admin: access.super_admin && self.super_admin,
            super_ops: access.super_ops && self.super_ops,
            org_admin: access.org_admin && self.org_admin,
            ..access
        }
    }
}

/// Where a webhook begins to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WebhookStart {
    /// Behind the event with this number.
    pub after: u64,
    /// How often it was made to begin anew: what is known of an earlier beginning does not count.
    pub epoch: u32,
}

impl Identity {
    /// What the owner of a webhook may do in its organisation now; none: nothing, as long as it is
    /// banned, too.
    pub fn webhook_access(&self, webhook: &Webhook, now: Timestamp) -> Option<Access> {
        let is_good = |tokens: &[Token]| {
            let found = |id| tokens.iter().find(|token| token.id == id);
            let good = |token: &Token| token.terms.check(now).is_ok();
            webhook.token.is_none_or(|id| found(id).is_some_and(good))
        };
        let access = match webhook.owner {
            WebhookOwner::User(id) => {
                let user = self
                    .user(id)
                    .filter(|user| !user.ban.is_banned(now) && is_good(&user.tokens))?;
                let org = self.org(webhook.org)?;
                self.user_access(&user, &org)?
            }
            WebhookOwner::Application(id) => {
                let found = self.application(id).filter(|found| !found.ban.is_banned(now));
                // Its first token is not among the others; one that has become it is as good.
                let is_first = |found: &Application| webhook.token == Some(found.token_id);
                let application = found.filter(|a| is_first(a) || is_good(&a.tokens))?;
                let access = self.application_access(&application)?;
                Some(access).filter(|access| access.org.id == webhook.org)?
            }
        };
        // Of one that was restricted since, nothing is its own: no thing has made the webhook.
        Some(webhook.rights.cut(access)).filter(|access| !access.restricted_to_self)
    }
}
