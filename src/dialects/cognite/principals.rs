//! Principals: the users who have an organisation as home or have a membership in it, and its
//! applications, as service accounts (`docs/protocol/cognite.md` A4, A5).

use std::collections::HashSet;
use std::sync::Arc;

use base::{ApplicationId, OrgId, Timestamp, UserId, excerpt, limits};
use rules::identity::Identity;
use rules::identity::model::{Application, User};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Account;
use super::cursor::Cursors;
use super::error::{self, Error, Reference};
use super::query::Above;
use super::{Asked, Page};

/// A principal of an organisation.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(discriminator(
    property_name = "type",
    mapping(
        ("USER" = "#/components/schemas/UserPrincipal"),
        ("SERVICE_ACCOUNT" = "#/components/schemas/ServiceAccount"),
    )
))]
pub enum Principal {
    /// A person.
    User(UserPrincipal),
    /// An application.
    ServiceAccount(ServiceAccount),
}

/// A person who can log in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPrincipal {
    /// What kind of principal it is.
    #[serde(rename = "type")]
    kind: UserType,
    /// The user's id: 24 hexadecimal digits.
    #[schema(value_type = String)]
    id: UserId,
    /// First and last name; without these the e-mail address.
    name: String,
    /// Always empty: users have no pictures here.
    picture_url: &'static str,
    /// The e-mail address. It can change; the id does not.
    email: String,
    /// The first name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    given_name: Option<String>,
    /// The last name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    family_name: Option<String>,
}

/// An application, whose token devices log in with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// What kind of principal it is.
    #[serde(rename = "type")]
    kind: ServiceAccountType,
    /// The application's id: 24 hexadecimal digits.
    #[schema(value_type = String)]
    id: ApplicationId,
    /// Its name.
    name: String,
    /// Who made it.
    created_by: Creator,
    /// When it was made, in milliseconds since 1970 (UTC).
    #[schema(minimum = 0)]
    created_time: i64,
    /// When it was last changed, in milliseconds since 1970 (UTC).
    #[schema(minimum = 0)]
    last_updated_time: i64,
    /// Always empty: applications have no pictures here.
    picture_url: &'static str,
    /// Its name, which is unique in the organisation.
    external_id: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    description: Option<String>,
}

/// The type of a person.
#[derive(Serialize, ToSchema)]
enum UserType {
    /// The only one.
    #[serde(rename = "USER")]
    User,
}

/// The type of an application.
#[derive(Serialize, ToSchema)]
enum ServiceAccountType {
    /// The only one.
    #[serde(rename = "SERVICE_ACCOUNT")]
    ServiceAccount,
}

/// Who made a service account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Creator {
    /// The slug of the organisation where the creator is at home; if the creator is no user, or
    /// none any more, of the service account's own.
    org_id: String,
    /// The id of the user; if there is none, the name that was noted: an e-mail address, a thing's
    /// key, or `SYSTEM`.
    user_id: String,
}

/// The types of principals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PrincipalType {
    /// A person.
    User,
    /// An application.
    ServiceAccount,
}

/// Which principals are to be shown.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalReferences {
    /// 1 to 1000 of them.
    #[schema(value_type = Vec<Reference>, min_items = 1, max_items = 1000)]
    items: Vec<Item>,
    /// Leaves out those that do not exist; otherwise one of them fails the whole request.
    #[schema(value_type = Option<bool>, default = false)]
    ignore_unknown_ids: Option<bool>,
}

/// One of them; what else it says is ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: Option<String>,
    external_id: Option<String>,
}

/// The principals that were asked for.
#[derive(Serialize, ToSchema)]
pub struct PrincipalList {
    items: Vec<Principal>,
}

/// A place in the order of principals, which no change of a name moves: users before service
/// accounts, by id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    User(UserId),
    ServiceAccount(ApplicationId),
}

/// Lists the principals of an organisation: users by id, then service accounts by id.
///
/// The caller has to be logged into the organisation, or an administrator of it or of one above; an
/// application that is restricted to its own thing is not enough. A `limit` above 100 is read as
/// 100. A cursor is good for the same organisation and types.
#[utoipa::path(
    get,
    path = "/api/v1/orgs/{org}/principals",
    operation_id = "listPrincipals",
    tag = "Principals",
    params(
        ("org" = String, Path, description = "The organisation's slug.",
            pattern = "^([a-z][a-z0-9-]{1,62}[a-z0-9])$"),
        ("types" = Option<Vec<PrincipalType>>, Query, style = Form, explode = true,
            description = "Only these; separated by commas, or as several parameters. Without it, all."),
        ("limit" = Option<u32>, Query, minimum = 1,
            description = "Items on the page at most; 100 by default, and at most."),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before."),
    ),
    responses(
        (status = 200, body = Page<Principal>, description = "A page."),
        (status = 400, body = error::Body, description = "A parameter is wrong."),
        (status = 401, body = error::Body, description = "No session and no token."),
        (status = 403, body = error::Body, description = "No access, or no such organisation."),
    )
)]
pub fn list(asked: &Asked<'_>, org: &str) -> Result<Page<Principal>, Error> {
    let org = asked.org_seen(org)?;
    let types = types(asked)?;
    let max = limits::PRINCIPALS_PAGE_MAX;
    let limit = asked.query.limit(max, max, Above::IsClamped)?;
    let wanted = |wanted| u8::from(types.contains(&wanted));
    let filter = [wanted(PrincipalType::User), wanted(PrincipalType::ServiceAccount)];
    let cursors = Cursors::new(asked.secret, "principals", org.id, &filter);
    let after = cursors.read(&asked.query)?.map(Key::from_bytes);
    let identity = &asked.app.identity();
    // One more tells whether another page follows.
    let found = accounts(identity, org.id, &types, after, limit + 1);
    let cursor = |last: &Account| cursors.write(&Key::of(last).bytes());
    Ok(Page::of(found, limit, cursor, |account| Principal::of(identity, account)))
}

/// Shows principals by their ids, or service accounts by their `externalId`.
///
/// Each is shown once, in the order in which it is first named. Access as for the list. Up to 1000
/// may be named, as the Python SDK does.
#[utoipa::path(
    post,
    path = "/api/v1/orgs/{org}/principals/byids",
    operation_id = "getPrincipalsById",
    tag = "Principals",
    params(("org" = String, Path, description = "The organisation's slug.")),
    request_body = PrincipalReferences,
    responses(
        (status = 200, body = PrincipalList, description = "Those that were found."),
        (status = 400, body = error::Body,
            description = "The body is wrong, or names principals that are not found: then `missing` lists them."),
        (status = 401, body = error::Body, description = "No session and no token."),
        (status = 403, body = error::Body, description = "No access, or no such organisation."),
    )
)]
pub fn by_ids(asked: &Asked<'_>, org: &str) -> Result<PrincipalList, Error> {
    let org = asked.org_seen(org)?;
    let wanted: PrincipalReferences = asked.body()?;
    let max = limits::PRINCIPALS_NAMED_MAX;
    if !(1..=max).contains(&wanted.items.len()) {
        return Err(Error::parameter("items", &format!("has to have 1 to {max} items")));
    }
    let references: Result<Vec<_>, _> = wanted.items.into_iter().map(Item::reference).collect();
    let identity = &asked.app.identity();
    let (mut seen, mut items, mut missing) = (HashSet::new(), Vec::new(), Vec::new());
    for reference in references? {
        let found = match &reference {
            Reference::Id(id) => asked.principal_in(org.id, id),
            Reference::ExternalId(name) => identity
                .application_by_name(org.id, name)
                .filter(|application| application.name == *name)
                .map(Account::Application),
        };
        match found {
            Some(account) if seen.insert(Key::of(&account).bytes()) => {
                items.push(Principal::of(identity, &account));
            }
            Some(_) => {}
            None => missing.push(reference),
        }
    }
    if missing.is_empty() || wanted.ignore_unknown_ids == Some(true) {
        return Ok(PrincipalList { items });
    }
    let first = match &missing[0] {
        Reference::Id(text) | Reference::ExternalId(text) => excerpt(text),
    };
    let message = format!("{} of the principals are not found, \"{first}\" first.", missing.len());
    Err(Error::bad_request(message).with_missing(missing))
}

/// Shows the caller.
#[utoipa::path(
    get,
    path = "/api/v1/principals/me",
    operation_id = "getMe",
    tag = "Principals",
    responses(
        (status = 200, body = Principal, description = "The caller."),
        (status = 401, body = error::Body, description = "No session and no token."),
    )
)]
pub fn me(asked: &Asked<'_>) -> Result<Principal, Error> {
    Ok(Principal::of(asked.app.identity(), &asked.caller.account))
}

/// The parameter `types`; without it, all.
fn types(asked: &Asked<'_>) -> Result<Vec<PrincipalType>, Error> {
    let mut types = Vec::new();
    let names = asked.query.all("types").flat_map(|list| list.split(','));
    for name in names.map(str::trim).filter(|name| !name.is_empty()) {
        let one = match name.to_ascii_uppercase().as_str() {
            "USER" => PrincipalType::User,
            "SERVICE_ACCOUNT" => PrincipalType::ServiceAccount,
            _ => return Err(Error::parameter("types", "takes USER and SERVICE_ACCOUNT")),
        };
        if !types.contains(&one) {
            types.push(one);
        }
    }
    if types.is_empty() {
        types = vec![PrincipalType::User, PrincipalType::ServiceAccount];
    }
    Ok(types)
}

/// At most `max` principals of these types, from behind `after` on.
fn accounts(
    identity: &Identity,
    org: OrgId,
    types: &[PrincipalType],
    after: Option<Key>,
    max: usize,
) -> Vec<Account> {
    let mut found = Vec::new();
    let (user, application) = match after {
        None => (Some(None), None),
        Some(Key::User(id)) => (Some(Some(id)), None),
        Some(Key::ServiceAccount(id)) => (None, Some(id)),
    };
    if let Some(after) = user.filter(|_| types.contains(&PrincipalType::User)) {
        let users = identity.users_page(org, after, max);
        found.extend(users.into_iter().map(Account::User));
    }
    if types.contains(&PrincipalType::ServiceAccount) {
        let applications = identity.applications_page(org, application, max - found.len());
        found.extend(applications.into_iter().map(Account::Application));
    }
    found
}

impl Item {
    fn reference(self) -> Result<Reference, Error> {
        match (self.id, self.external_id) {
            (Some(id), None) => Ok(Reference::Id(id)),
            (None, Some(name)) => Ok(Reference::ExternalId(name)),
            _ => Err(Error::parameter("items", "has to have an id or an externalId in each item")),
        }
    }
}

impl Key {
    fn of(account: &Account) -> Self {
        match account {
            Account::User(user) => Self::User(user.id),
            Account::Application(application) => Self::ServiceAccount(application.id),
        }
    }

    fn bytes(self) -> [u8; 13] {
        let (kind, id) = match self {
            Self::User(id) => (0, *id.as_bytes()),
            Self::ServiceAccount(id) => (1, *id.as_bytes()),
        };
        let mut bytes = [kind; 13];
        bytes[1..].copy_from_slice(&id);
        bytes
    }

    fn from_bytes(bytes: [u8; 13]) -> Self {
        let [kind, id @ ..] = bytes;
        match kind {
            0 => Self::User(UserId::from_bytes(id)),
            _ => Self::ServiceAccount(ApplicationId::from_bytes(id)),
        }
    }
}

impl Principal {
    fn of(identity: &Identity, account: &Account) -> Self {
        match account {
            Account::User(user) => Self::User(UserPrincipal::of(user)),
            Account::Application(application) => {
                Self::ServiceAccount(ServiceAccount::of(identity, application))
            }
        }
    }
}

impl UserPrincipal {
    fn of(user: &User) -> Self {
        let given = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let name = format!("{} {}", user.first_name, user.last_name).trim().to_owned();
        Self {
            kind: UserType::User,
            id: user.id,
            name: if name.is_empty() { user.email.clone() } else { name },
            picture_url: "",
            email: user.email.clone(),
            given_name: given(&user.first_name),
            family_name: given(&user.last_name),
        }
    }
}

impl ServiceAccount {
    fn of(identity: &Identity, application: &Arc<Application>) -> Self {
        let updated = application.updated.as_ref().map_or(application.created_on, |(at, _)| *at);
        Self {
            kind: ServiceAccountType::ServiceAccount,
            id: application.id,
            name: application.name.clone(),
            created_by: Creator::of(identity, application),
            created_time: millis(application.created_on),
            last_updated_time: millis(updated),
            picture_url: "",
            external_id: application.name.clone(),
            description: (!application.desc.is_empty()).then(|| application.desc.clone()),
        }
    }
}

impl Creator {
    fn of(identity: &Identity, application: &Application) -> Self {
        let slug = |org| identity.org(org).map(|org| org.slug.clone()).unwrap_or_default();
        match identity.user_by_email(&application.created_by) {
            Some(user) => Self { org_id: slug(user.home), user_id: user.id.to_string() },
            None => Self { org_id: slug(application.org), user_id: application.created_by.clone() },
        }
    }
}

/// A time as this dialect has it: the clients take whole numbers that are not negative.
pub fn millis(time: Timestamp) -> i64 {
    time.as_millis().max(0)
}
