//! All records of identity as one value: what is stored, and what the registry is built from.

use super::model::{Application, Org, Role, User};
use super::{ThingDef, Webhook};

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
