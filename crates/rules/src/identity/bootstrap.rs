//! The bootstrap file: the organisations, users, roles and applications of an empty store.
//! `fixtures/demo.toml` shows its form and explains every key.

use std::collections::{BTreeMap, HashMap, HashSet};

use base::{ApplicationId, OrgId, RoleId, ThingDefId, Timestamp, TokenId, UserId, limits};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Ban;
use super::model::{Application, Membership, Org, Role, User, system};
use super::password::{hash_password, is_usable_hash};
use super::permission::Permission;
use super::record::Records;
use super::second_factor::SecondFactor;
use super::standard_role::StandardRole;
use super::token::Terms;
use super::topic_rights::{TOPIC_FILTER_RULE, is_topic_filter};

/// What is wrong with a bootstrap file: a part of a sentence that names the culprit, never a
/// password or a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is no TOML, has an unknown key, lacks one, or has a value of the wrong kind.
    #[error("line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What the reader says.
        message: String,
    },
    /// Nobody could log in.
    #[error("it has no organisation ([[org]])")]
    NoOrg,
    /// A name that must be unique is not.
    #[error("the {what} {name:?} is given twice")]
    Twice {
        /// The kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two applications can't share a token: it alone tells them apart.
    #[error("the application {0:?} has the token of another one")]
    SameToken(String),
    /// A reference to what is not there.
    #[error("{holder} names the {what} {name:?}, which is not there")]
    Unknown {
        /// Who refers.
        holder: String,
        /// To what kind of thing.
        what: &'static str,
        /// By which name.
        name: String,
    },
    /// A value outside of its rule.
    #[error("{holder} has an unfit {what}: {rule}")]
    Unfit {
        /// Who has it.
        holder: String,
        /// The key.
        what: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// An organisation is its own ancestor.
    #[error("the organisation {0:?} is below itself")]
    Ring(String),
    /// The tree is too deep.
    #[error("the organisation {0:?} is more than {max} levels deep", max = limits::ORG_DEPTH_MAX)]
    Deep(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    org: Vec<OrgEntry>,
    #[serde(default)]
    role: Vec<RoleEntry>,
    #[serde(default)]
    user: Vec<UserEntry>,
    #[serde(default)]
    application: Vec<ApplicationEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrgEntry {
    id: Option<OrgId>,
    key: String,
    slug: String,
    name: Option<String>,
    parent: Option<String>,
    #[serde(default)]
    mfa_required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry {
    id: Option<RoleId>,
    key: String,
    name: Option<String>,
    org: String,
    permissions: Option<Vec<String>>,
    topic_publish: Option<Vec<String>>,
    topic_subscribe: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    id: Option<UserId>,
    email: String,
    password: Option<String>,
    password_hash: Option<String>,
    #[serde(default)]
    first_name: String,
    #[serde(default)]
    last_name: String,
    home: String,
    #[serde(default)]
    super_admin: bool,
    #[serde(default)]
    super_ops: bool,
    #[serde(default)]
    mfa_required: bool,
    #[serde(default)]
    locale: String,
    #[serde(default)]
    membership: Vec<MembershipEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MembershipEntry {
    org: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    org_admin: bool,
    #[serde(default)]
    sub_orgs: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplicationEntry {
    id: Option<ApplicationId>,
    name: String,
    org: String,
    token: Option<String>,
    token_hash: Option<String>,
    token_id: Option<TokenId>,
    token_name: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    auto_register: bool,
    auto_register_def: Option<ThingDefId>,
    #[serde(default)]
    auto_register_tags: Vec<String>,
    #[serde(default)]
    restrict_access_to_self: bool,
    #[serde(default)]
    org_admin: bool,
}

/// Reads and checks the file's text.
pub fn read(
    text: &str,
    now: Timestamp,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Records, Problem> {
    let file: File = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    if file.org.is_empty() {
        return Err(Problem::NoOrg);
    }
    let mut reader = Reader { now, random, names: HashSet::new(), orgs: HashMap::new() };
    let mut records = Records { orgs: reader.orgs(file.org)?, ..Records::default() };
    for entry in file.role {
        let role = reader.role(entry)?;
        records.roles.push(role);
    }
    for entry in file.user {
        let user = reader.user(entry, &records.roles)?;
        records.users.push(user);
    }
    for entry in file.application {
        let application = reader.application(entry, &records.roles)?;
        records.applications.push(application);
    }
    Ok(records)
}

/// Whether the file's text can be read. Ids and salts that are forgotten at once need no
/// randomness, but no two of them are the same.
pub fn check_text(text: &str, now: Timestamp) -> Result<(), Problem> {
    let mut count = 0_u64;
    let mut distinct = |bytes: &mut [u8]| {
        count += 1;
        bytes.fill(0);
        bytes.iter_mut().zip(count.to_le_bytes()).for_each(|(byte, of_count)| *byte = of_count);
    };
    read(text, now, &mut distinct).map(drop)
}

struct Reader<'a> {
    now: Timestamp,
    random: &'a mut dyn FnMut(&mut [u8]),
    /// Names that are taken, with their kind.
    names: HashSet<(&'static str, String)>,
    /// By key in lower case: id, key and parent.
    orgs: HashMap<String, (OrgId, String, Option<String>)>,
}

impl Reader<'_> {
    fn orgs(&mut self, entries: Vec<OrgEntry>) -> Result<Vec<Org>, Problem> {
        let mut ids = Vec::with_capacity(entries.len());
        for entry in &entries {
            let holder = || format!("the organisation {:?}", entry.key);
            check(is_name(&entry.key), holder, "key", NAME_RULE)?;
            check(is_slug(&entry.slug), holder, "slug", SLUG_RULE)?;
            self.claim("organisation key", &entry.key)?;
            self.claim("slug", &entry.slug)?;
            let id = entry.id.unwrap_or_else(|| OrgId::from_bytes(self.random_bytes()));
            self.claim("organisation id", &id.to_string())?;
            ids.push(id);
            let place = (id, entry.key.clone(), entry.parent.clone());
            self.orgs.insert(entry.key.to_lowercase(), place);
        }
        let mut orgs = Vec::with_capacity(entries.len());
        for (entry, id) in entries.into_iter().zip(ids) {
            let holder = || format!("the organisation {:?}", entry.key);
            let parent = entry.parent.as_deref().map(|key| self.org(key, holder)).transpose()?;
            self.check_ancestors(&entry.key)?;
            orgs.push(Org {
                id,
                name: entry.name.unwrap_or_else(|| entry.key.clone()),
                key: entry.key,
                slug: entry.slug,
                parent,
                desc: String::new(),
                locale: String::new(),
                domain: String::new(),
                customer_ref_id: String::new(),
                tags: Vec::new(),
                no_sub_orgs: false,
                mfa_required: entry.mfa_required,
                created_on: self.now,
                created_by: system(),
                updated: None,
            });
        }
        Ok(orgs)
    }

    fn role(&mut self, entry: RoleEntry) -> Result<Role, Problem> {
        let holder = || format!("the role {:?}", entry.key);
        check(is_name(&entry.key), holder, "key", NAME_RULE)?;
        let org = self.org(&entry.org, holder)?;
        self.claim("role", &format!("{} of {}", entry.key, entry.org))?;
        let id = entry.id.unwrap_or_else(|| RoleId::from_bytes(self.random_bytes()));
        self.claim("role id", &id.to_string())?;
        let standard = StandardRole::named(&entry.key);
        let lists =
            [("topic_publish", &entry.topic_publish), ("topic_subscribe", &entry.topic_subscribe)];
        for (what, list) in lists {
            let few = list.iter().flatten().count() <= limits::RECORD_LIST_MAX;
            let fit = few && list.iter().flatten().all(|filter| is_topic_filter(filter));
            check(fit, holder, what, TOPIC_FILTER_RULE)?;
        }
        // Who says nothing of a standard role means all that it has.
        let whole = standard.filter(|_| entry.permissions.is_none());
        let topics = |list: Option<Vec<String>>| {
            list.or_else(|| Some(whole?.topic_filters())).unwrap_or_default()
        };
        let (topic_publish, topic_subscribe) =
            (topics(entry.topic_publish), topics(entry.topic_subscribe));
        let permissions = entry.permissions.or_else(|| Some(standard?.permissions()));
        let Some(permissions) = permissions else {
            let rule = "only device, automation and developer have some of their own";
            return Err(Problem::Unfit { holder: holder(), what: "permissions", rule });
        };
        let unknown = |name: &&String| !name.is_empty() && Permission::named(name).is_none();
        if let Some(name) = permissions.iter().find(unknown) {
            let (what, name) = ("permission", name.clone());
            return Err(Problem::Unknown { holder: holder(), what, name });
        }
        let standard = standard.map(|standard| standard.name.to_owned());
        Ok(Role {
            id,
            name: entry.name.or(standard).unwrap_or_else(|| entry.key.clone()),
            key: entry.key,
            org,
            permissions,
            desc: String::new(),
            view_tags: Vec::new(),
            update_tags: Vec::new(),
            topic_publish,
            topic_subscribe,
            created_on: self.now,
            created_by: system(),
            updated: None,
        })
    }

    fn user(&mut self, entry: UserEntry, roles: &[Role]) -> Result<User, Problem> {
        let holder = || format!("the user {:?}", entry.email);
        check(is_email(&entry.email), holder, "email", "it is no e-mail address")?;
        self.claim("email", &entry.email)?;
        let id = entry.id.unwrap_or_else(|| UserId::from_bytes(self.random_bytes()));
        self.claim("user id", &id.to_string())?;
        let home = self.org(&entry.home, holder)?;
        let mut memberships = Vec::with_capacity(entry.membership.len());
        for held in &entry.membership {
            let org = self.org(&held.org, holder)?;
            self.claim("membership", &format!("of {} in {}", entry.email, held.org))?;
            memberships.push(Membership {
                org,
                roles: self.roles(&held.roles, &held.org, roles, holder)?,
                org_admin: held.org_admin,
                sub_orgs: held.sub_orgs,
                tags: Vec::new(),
                added_on: self.now,
                added_by: system(),
            });
        }
        let password_hash = match (&entry.password, entry.password_hash) {
            (Some(password), None) => {
                check(!password.is_empty(), holder, "password", "it is empty")?;
                hash_password(password, self.random_bytes())
            }
            (None, Some(hash)) => {
                let rule = "it is no argon2id hash in PHC form, or one that costs too much";
                check(is_usable_hash(&hash), holder, "password_hash", rule)?;
                hash
            }
            _ => {
                let rule = "exactly one of password and password_hash is needed";
                return Err(Problem::Unfit { holder: holder(), what: "password", rule });
            }
        };
        Ok(User {
            id,
            email: entry.email,
            password_hash,
            first_name: entry.first_name,
            last_name: entry.last_name,
            home,
            memberships,
            owner: None,
            invites: Vec::new(),
            super_admin: entry.super_admin,
            super_ops: entry.super_ops,
            second_factor: SecondFactor::default(),
            mfa_required: entry.mfa_required,
            tokens: Vec::new(),
            locale: entry.locale,
            company: String::new(),
            title: String::new(),
            office_phone: String::new(),
            mobile_phone: String::new(),
            settings: BTreeMap::new(),
            ban: Ban::default(),
            created_on: self.now,
            created_by: system(),
            updated: None,
        })
    }

    fn application(
        &mut self,
        entry: ApplicationEntry,
        roles: &[Role],
    ) -> Result<Application, Problem> {
        let holder = || format!("the application {:?}", entry.name);
        check(is_name(&entry.name), holder, "name", NAME_RULE)?;
        let token_hash = token_hash(&entry, holder)?;
        let org = self.org(&entry.org, holder)?;
        self.claim("application", &format!("{} of {}", entry.name, entry.org))?;
        if !self.names.insert(("token", HEXLOWER.encode(&token_hash))) {
            return Err(Problem::SameToken(entry.name));
        }
        let id = entry.id.unwrap_or_else(|| ApplicationId::from_bytes(self.random_bytes()));
        self.claim("application id", &id.to_string())?;
        let token_id = entry.token_id.unwrap_or_else(|| TokenId::from_bytes(self.random_bytes()));
        self.claim("token id", &token_id.to_string())?;
        Ok(Application {
            roles: self.roles(&entry.roles, &entry.org, roles, holder)?,
            id,
            name: entry.name,
            org,
            token_id,
            token_name: entry.token_name,
            token_hash,
            first_terms: Terms::default(),
            tokens: Vec::new(),
            auto_register: entry.auto_register,
            auto_register_def: entry.auto_register_def,
            auto_register_tags: entry.auto_register_tags,
            restrict_access_to_self: entry.restrict_access_to_self,
            org_admin: entry.org_admin,
            super_admin: false,
            super_ops: false,
            desc: String::new(),
            auto_register_sec_tags: Vec::new(),
            license: String::new(),
            ban: Ban::default(),
            created_on: self.now,
            created_by: system(),
            updated: None,
        })
    }

    fn org(&self, key: &str, holder: impl Fn() -> String) -> Result<OrgId, Problem> {
        let found = self.orgs.get(&key.to_lowercase()).map(|(id, ..)| *id);
        found.ok_or_else(|| Problem::Unknown {
            holder: holder(),
            what: "organisation",
            name: key.to_owned(),
        })
    }

    /// The roles with these keys, as known in the organisation: its own, else the nearest above.
    fn roles(
        &self,
        keys: &[String],
        org: &str,
        roles: &[Role],
        holder: impl Fn() -> String,
    ) -> Result<Vec<RoleId>, Problem> {
        let known = |key: &String| {
            self.line_of(org).take(limits::ORG_DEPTH_MAX).find_map(|(org, ..)| {
                roles
                    .iter()
                    .find(|role| role.org == *org && role.key.to_lowercase() == key.to_lowercase())
            })
        };
        let found = keys.iter().map(|key| {
            known(key).map(|role| role.id).ok_or_else(|| Problem::Unknown {
                holder: holder(),
                what: "role",
                name: key.clone(),
            })
        });
        found.collect()
    }

    /// The organisation and all above it, the nearest first. Without end in a ring.
    fn line_of(&self, key: &str) -> impl Iterator<Item = &(OrgId, String, Option<String>)> {
        let org = |key: &str| self.orgs.get(&key.to_lowercase());
        std::iter::successors(org(key), move |(.., parent)| parent.as_deref().and_then(org))
    }

    fn check_ancestors(&self, key: &str) -> Result<(), Problem> {
        let mut seen = Vec::new();
        for (id, above, _) in self.line_of(key) {
            if seen.contains(id) {
                return Err(Problem::Ring(above.clone()));
            }
            seen.push(*id);
            if seen.len() > limits::ORG_DEPTH_MAX {
                return Err(Problem::Deep(key.to_owned()));
            }
        }
        Ok(())
    }

    /// Takes a name that nothing else of its kind may have, whatever its case.
    fn claim(&mut self, what: &'static str, name: &str) -> Result<(), Problem> {
        if self.names.insert((what, name.to_lowercase())) {
            return Ok(());
        }
        Err(Problem::Twice { what, name: name.to_owned() })
    }

    fn random_bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.random)(&mut bytes);
        bytes
    }
}

/// The rule of names and keys.
pub const NAME_RULE: &str =
    "1 to 64 bytes without control characters and without blanks at the ends";

/// The rule of slugs.
pub const SLUG_RULE: &str = "3 to 64 of a-z, 0-9 and '-', the first a letter, the last no '-'";

fn check(
    fits: bool,
    holder: impl Fn() -> String,
    what: &'static str,
    rule: &'static str,
) -> Result<(), Problem> {
    if fits { Ok(()) } else { Err(Problem::Unfit { holder: holder(), what, rule }) }
}

/// The SHA-256 of an application's token, which is given itself or by its hash.
fn token_hash(entry: &ApplicationEntry, holder: impl Fn() -> String) -> Result<[u8; 32], Problem> {
    match (&entry.token, &entry.token_hash) {
        (Some(token), None) => {
            check(is_token(token), holder, "token", "16 to 256 printable ASCII characters")?;
            Ok(Sha256::digest(token).into())
        }
        (None, Some(hash)) => {
            let bytes = HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).ok();
            let rule = "it is no SHA-256 in 64 hexadecimal digits";
            let unfit = || Problem::Unfit { holder: holder(), what: "token_hash", rule };
            bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(unfit)
        }
        _ => {
            let rule = "exactly one of token and token_hash is needed";
            Err(Problem::Unfit { holder: holder(), what: "token", rule })
        }
    }
}

/// Whether the text follows [`NAME_RULE`].
pub fn is_name(text: &str) -> bool {
    let plain = !text.chars().any(is_unseen) && text.trim() == text;
    (1..=64).contains(&text.len()) && plain
}

/// Whether the character has no place in a line that people read: it controls a terminal, or the
/// direction in which what is around it is shown.
pub fn is_unseen(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `^[a-z][a-z0-9-]{1,62}[a-z0-9]$`
pub fn is_slug(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(inner)
        && !text.ends_with('-')
}

/// Whether the text looks like an e-mail address that has one way to be written: without quotes,
/// names for people, comments and lists, and without dots that lead nowhere (RFC 5322, 3.4.1).
pub fn is_email(text: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !r#""(),:;<>[\]"#.contains(c);
    let dotted = |part: &str| part.split('.').all(|piece| !piece.is_empty());
    let parts = text.split_once('@').filter(|(_, domain)| !domain.contains('@'));
    text.len() <= 254
        && text.chars().all(plain)
        && parts.is_some_and(|(who, domain)| dotted(who) && dotted(domain))
}

/// Whether the text can be an application's token.
pub fn is_token(text: &str) -> bool {
    (limits::TOKEN_BYTES_MIN..=limits::TOKEN_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let line = base::utf8::line_at(text, error.span().map_or(0, |span| span.start));
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    Problem::Syntax { line, message }
}

#[cfg(test)]
mod tests;
