//! All records of identity as one value: what is stored, and what the registry is built from.

use base::TokenId;

use super::model::{Application, Org, Role, User};
use super::{Ban, ThingDef, Token, Webhook};

/// All records.
#[derive(Default, Debug)]
pub struct Records {
    /// The organisations.
    pub orgs: Vec<Org>,
    /// The roles.
    pub roles: Vec<Role>,
    /// The users.
    pub users: Vec<User>,
    /// The applications.
    pub applications: Vec<Application>,
    /// The definitions of things.
    pub thing_defs: Vec<ThingDef>,
    /// The webhooks.
    pub webhooks: Vec<Webhook>,
}

/// One of them.
#[derive(Clone, Debug)]
pub enum Record {
    /// An organisation.
    Org(Org),
    /// A role.
    Role(Role),
    /// A user.
    User(User),
    /// An application.
    Application(Application),
    /// A definition of things.
    ThingDef(ThingDef),
    /// A webhook.
    Webhook(Webhook),
}

impl Record {
    /// Whether this only takes something away from who had the record before: it disables, or ends a
    /// token or a second factor. A full disk is no reason to refuse that.
    pub fn takes_from(&self, before: &Self) -> bool {
        let begins = |was: &Ban, is: &Ban| was.is_none() && !is.is_none();
        let ends = |was: &[Token], is: &[Token]| {
            was.iter().any(|was| match is.iter().find(|is| is.id == was.id) {
                Some(is) => begins(&was.terms.ban, &is.terms.ban),
                None => true,
            })
        };
        match (before, self) {
            (Self::User(was), Self::User(is)) => {
                let loses_factor = !was.second_factor.is_none() && is.second_factor.is_none();
                begins(&was.ban, &is.ban) || ends(&was.tokens, &is.tokens) || loses_factor
            }
            (Self::Application(was), Self::Application(is)) => {
                begins(&was.ban, &is.ban) || ends(&was.all_tokens(), &is.all_tokens())
            }
            (Self::Webhook(was), Self::Webhook(is)) => was.enabled && !is.enabled,
            _ => false,
        }
    }

    /// The tokens that it has.
    pub fn token_ids(&self) -> Vec<TokenId> {
        match self {
            Self::User(user) => user.tokens.iter().map(|token| token.id).collect(),
            Self::Application(found) => found.all_tokens().iter().map(|token| token.id).collect(),
            _ => Vec::new(),
        }
    }
}

macro_rules! records {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Record {
            fn from(record: $kind) -> Self {
                Self::$kind(record)
            }
        }
    )*};
}

records!(Org, Role, User, Application, ThingDef, Webhook);

impl Records {
    /// Each of them, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        let orgs = self.orgs.iter().cloned().map(Record::Org);
        let roles = self.roles.iter().cloned().map(Record::Role);
        let users = self.users.iter().cloned().map(Record::User);
        let applications = self.applications.iter().cloned().map(Record::Application);
        let thing_defs = self.thing_defs.iter().cloned().map(Record::ThingDef);
        let webhooks = self.webhooks.iter().cloned().map(Record::Webhook);
        orgs.chain(roles).chain(users).chain(applications).chain(thing_defs).chain(webhooks)
    }
}
