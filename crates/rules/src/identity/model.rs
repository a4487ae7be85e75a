//! The records of identity: organisations, users, roles, applications.

use std::collections::BTreeMap;
use std::fmt;

use base::{ApplicationId, OrgId, RoleId, ThingDefId, Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};

use super::{Ban, Invite, SecondFactor, Terms, Token};

/// An organisation. The organisations form a tree by `parent`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// TR50's key, unique without regard to case, such as `BasicOrg`.
    pub key: String,
    /// Cognite's name for it, `^[a-z][a-z0-9-]{1,62}[a-z0-9]$`, unique.
    pub slug: String,
    /// A name for people.
    pub name: String,
    /// The organisation above; none for the root.
    pub parent: Option<OrgId>,
    /// What it is, for people.
    #[serde(default)]
    pub desc: String,
    /// The locale of its users, `en_US` or empty.
    #[serde(default)]
    pub locale: String,
    /// The internet domain that it claims, or empty; for people.
    #[serde(default)]
    pub domain: String,
    /// What its customer calls it, or empty.
    #[serde(default)]
    pub customer_ref_id: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// No organisation can be made below it.
    #[serde(default)]
    pub no_sub_orgs: bool,
    /// Whoever is at home or a member here or below needs a second factor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mfa_required: bool,
    /// When it was made.
    pub created_on: Timestamp,
    /// By whom: an e-mail address, a thing's key, or `SYSTEM`.
    #[serde(default = "system")]
    pub created_by: String,
    /// When it was last changed, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<(Timestamp, String)>,
}

/// A named set of permissions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Role {
    /// Its id.
    pub id: RoleId,
    /// Its key, unique in its organisation, such as `device`.
    pub key: String,
    /// A name for people.
    pub name: String,
    /// The organisation that owns it; it is known there and below.
    pub org: OrgId,
    /// Command names or group names such as `session`. Names of no command are kept.
    pub permissions: Vec<String>,
    /// What it is for, for people.
    #[serde(default)]
    pub desc: String,
    /// Security tags of things that its holders may see. Kept, and without effect here.
    #[serde(default)]
    pub view_tags: Vec<String>,
    /// Security tags of things that its holders may change. Kept, and without effect here.
    #[serde(default)]
    pub update_tags: Vec<String>,
    /// Filters of the ordinary topics that its holders may publish to, with the permission
    /// `topic.publish`.
    #[serde(default)]
    pub topic_publish: Vec<String>,
    /// The same for subscriptions, with `topic.subscribe`.
    #[serde(default)]
    pub topic_subscribe: Vec<String>,
    /// When it was made.
    #[serde(default = "long_ago")]
    pub created_on: Timestamp,
    /// By whom: an e-mail address, a thing's key, or `SYSTEM`.
    #[serde(default = "system")]
    pub created_by: String,
    /// When it was last changed, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<(Timestamp, String)>,
}

impl Role {
    /// Gives its holders all ordinary topics: what everybody had before topics had rights.
    pub fn give_all_topics(&mut self) {
        for name in ["topic.publish", "topic.subscribe"] {
            if !self.permissions.iter().any(|held| held.eq_ignore_ascii_case(name)) {
                self.permissions.push(name.to_owned());
            }
        }
        self.topic_publish = vec!["#".to_owned()];
        self.topic_subscribe = vec!["#".to_owned()];
    }
}

/// What a user is in one organisation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// The organisation.
    pub org: OrgId,
    /// The roles held there.
    pub roles: Vec<RoleId>,
    /// Administrator of this organisation, with every permission in it.
    pub org_admin: bool,
    /// May also switch to the organisations below, with the same roles.
    pub sub_orgs: bool,
    /// Security tags. Kept, and without effect here.
    #[serde(default)]
    pub tags: Vec<String>,
    /// When it was made.
    #[serde(default = "long_ago")]
    pub added_on: Timestamp,
    /// By whom: an e-mail address, a thing's key, or `SYSTEM`.
    #[serde(default = "system")]
    pub added_by: String,
}

/// A person who logs in with e-mail address and password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The id.
    pub id: UserId,
    /// The login name, unique without regard to case.
    pub email: String,
    /// Argon2id hash of the password, in PHC form.
    pub password_hash: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// The organisation in which a session of this user starts.
    pub home: OrgId,
    /// Organisations that the user may work in.
    pub memberships: Vec<Membership>,
    /// Whose administrators administer the user, if the user has chosen another home since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OrgId>,
    /// Memberships that are offered and not accepted yet: they give no rights. One an organisation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invites: Vec<Invite>,
    /// Every permission in every organisation.
    pub super_admin: bool,
    /// May see every organisation and its sessions; changes nothing.
    pub super_ops: bool,
    /// What logins need beside the password.
    #[serde(default, skip_serializing_if = "SecondFactor::is_none")]
    pub second_factor: SecondFactor,
    /// Whether the user needs a second factor, whatever the organisations say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mfa_required: bool,
    /// Tokens with which programs log in as the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Token>,
    /// `en_US`, or empty.
    pub locale: String,
    /// The employer, or empty, as all that follows.
    #[serde(default)]
    pub company: String,
    /// The post.
    #[serde(default)]
    pub title: String,
    /// The telephone in the office.
    #[serde(default)]
    pub office_phone: String,
    /// The mobile telephone.
    #[serde(default)]
    pub mobile_phone: String,
    /// What programs of the user keep for the user, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Whether logins are refused.
    #[serde(default, skip_serializing_if = "Ban::is_none")]
    pub ban: Ban,
    /// When it was made.
    pub created_on: Timestamp,
    /// By whom: an e-mail address, a thing's key, or `SYSTEM`.
    #[serde(default = "system")]
    pub created_by: String,
    /// When it was last changed, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<(Timestamp, String)>,
}

impl User {
    /// One of whom only this is known: without rights, and nobody can log in so.
    pub fn bare(id: UserId, email: String, home: OrgId) -> Self {
        Self {
            id,
            email,
            password_hash: String::new(),
            first_name: String::new(),
            last_name: String::new(),
            home,
            memberships: Vec::new(),
            owner: None,
            invites: Vec::new(),
            super_admin: false,
            super_ops: false,
            second_factor: SecondFactor::default(),
            mfa_required: false,
            tokens: Vec::new(),
            locale: String::new(),
            company: String::new(),
            title: String::new(),
            office_phone: String::new(),
            mobile_phone: String::new(),
            settings: BTreeMap::new(),
            created_on: long_ago(),
            created_by: String::new(),
            updated: None,
            ban: Ban::default(),
        }
    }

    /// The same without what sessions have no use for, of which it may be hundreds of kilobytes. What is
    /// known of a session keeps its user as it was at the login, whatever changes then.
    pub(super) fn of_sessions(&self) -> Self {
        let Self { id, email, home, .. } = self;
        Self {
            password_hash: self.password_hash.clone(),
            first_name: self.first_name.clone(),
            last_name: self.last_name.clone(),
            owner: self.owner,
            super_admin: self.super_admin,
            super_ops: self.super_ops,
            second_factor: self.second_factor.clone(),
            mfa_required: self.mfa_required,
            locale: self.locale.clone(),
            ban: self.ban.clone(),
            created_on: self.created_on,
            created_by: self.created_by.clone(),
            updated: self.updated.clone(),
            ..Self::bare(*id, email.clone(), *home)
        }
    }

    /// Who has the server's data directory, as a super administrator that is no record and has no
    /// password.
    pub fn on_machine(name: String, home: OrgId, now: Timestamp) -> Self {
        Self {
            super_admin: true,
            created_on: now,
            created_by: system(),
            ..Self::bare(UserId::from_bytes([0; 12]), name, home)
        }
    }
}

/// Without the password's hash, which has no place in a log.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

/// An application definition with its token: what devices log in with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The id of the definition.
    pub id: ApplicationId,
    /// Its name, unique in the organisation.
    pub name: String,
    /// The organisation of all things that use it.
    pub org: OrgId,
    /// The public handle of the token.
    pub token_id: TokenId,
    /// The token's name for people.
    pub token_name: String,
    /// SHA-256 of the token. The token itself is not kept.
    pub token_hash: [u8; 32],
    /// Until when, and whether, this token is good.
    #[serde(default, skip_serializing_if = "Terms::is_default")]
    pub first_terms: Terms,
    /// Further tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Token>,
    /// The roles of every session of this token.
    pub roles: Vec<RoleId>,
    /// Registers unknown thing keys at their first login.
    pub auto_register: bool,
    /// The definition of things so registered.
    pub auto_register_def: Option<ThingDefId>,
    /// Tags of things so registered.
    pub auto_register_tags: Vec<String>,
    /// Commands may only name the session's own thing.
    pub restrict_access_to_self: bool,
    /// Administrator of its organisation.
    pub org_admin: bool,
    /// Every permission.
    #[serde(default)]
    pub super_admin: bool,
    /// May see everything; changes nothing.
    #[serde(default)]
    pub super_ops: bool,
    /// What it is for, for people.
    #[serde(default)]
    pub desc: String,
    /// Security tags of things so registered.
    #[serde(default)]
    pub auto_register_sec_tags: Vec<String>,
    /// A text that goes with it. Kept, and without effect here.
    #[serde(default)]
    pub license: String,
    /// Whether logins with its token are refused.
    #[serde(default, skip_serializing_if = "Ban::is_none")]
    pub ban: Ban,
    /// When it was made.
    pub created_on: Timestamp,
    /// By whom: an e-mail address, a thing's key, or `SYSTEM`.
    #[serde(default = "system")]
    pub created_by: String,
    /// When it was last changed, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<(Timestamp, String)>,
}

impl Application {
    /// The same without what sessions have no use for, as of users.
    pub(super) fn of_sessions(&self) -> Self {
        Self {
            token_id: self.token_id,
            token_name: self.token_name.clone(),
            token_hash: self.token_hash,
            first_terms: self.first_terms.clone(),
            auto_register: self.auto_register,
            auto_register_def: self.auto_register_def,
            restrict_access_to_self: self.restrict_access_to_self,
            org_admin: self.org_admin,
            super_admin: self.super_admin,
            super_ops: self.super_ops,
            ban: self.ban.clone(),
            created_on: self.created_on,
            created_by: self.created_by.clone(),
            updated: self.updated.clone(),
            ..Self::bare(self.id, self.name.clone(), self.org)
        }
    }

    /// One of which only this is known: without rights, and nobody can log in so.
    pub(crate) fn bare(id: ApplicationId, name: String, org: OrgId) -> Self {
        Self {
            id,
            name,
            org,
            token_id: TokenId::from_bytes([0; 12]),
            token_name: String::new(),
            token_hash: [0; 32],
            first_terms: Terms::default(),
            tokens: Vec::new(),
            roles: Vec::new(),
            auto_register: false,
            auto_register_def: None,
            auto_register_tags: Vec::new(),
            restrict_access_to_self: true,
            org_admin: false,
            super_admin: false,
            super_ops: false,
            desc: String::new(),
            auto_register_sec_tags: Vec::new(),
            license: String::new(),
            created_on: long_ago(),
            created_by: String::new(),
            updated: None,
            ban: Ban::default(),
        }
    }
}

/// Without the token's hash, which has no place in a log.
impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("org", &self.org)
            .finish_non_exhaustive()
    }
}

/// What stands in `createdBy` of the records that come with the bootstrap file, which no user made.
pub fn system() -> String {
    "SYSTEM".to_owned()
}

/// When the records were made that do not know it.
const fn long_ago() -> Timestamp {
    Timestamp::from_millis(0)
}
