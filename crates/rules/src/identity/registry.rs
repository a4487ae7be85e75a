//! The records of identity in memory, with an index for every way they are looked up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, LazyLock};

use base::{
    ApplicationId, OrgId, RoleId, ThingDefId, Timestamp, TokenId, UserId, WebhookId, limits,
};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use super::lookalike::outlines;
use super::model::{Application, Org, Role, User};
use super::permission::{Permission, PermissionSet};
use super::record::{Record, Records};
use super::topic_rights::TopicFilters;
use super::{Identity, ThingDef, Token, Webhook};

/// The records, indexed. A change keeps every index, so that nothing is ever built anew.
///
/// Its own functions take no lock: whoever holds one calls these and not those of [`Identity`].
#[derive(Default)]
pub(super) struct Registry {
    /// Ordered by key, without regard to case; so are all lists below, by key, e-mail or name.
    orgs: Vec<Arc<Org>>,
    orgs_by_id: HashMap<OrgId, Arc<Org>>,
    orgs_by_key: HashMap<String, Arc<Org>>,
    orgs_by_slug: HashMap<String, Arc<Org>>,
    /// By what their keys look like.
    orgs_by_outline: Outlines<OrgId>,
    /// By the organisation above.
    orgs_below: HashMap<OrgId, Vec<Arc<Org>>>,
    org_ids_below: ById<OrgId, Org>,
    roles: HashMap<RoleId, Arc<Granted>>,
    roles_of: HashMap<OrgId, Vec<Arc<Granted>>>,
    users: HashMap<UserId, Arc<User>>,
    /// As sessions keep them; so that those of one user share it.
    users_of_sessions: HashMap<UserId, Arc<User>>,
    users_by_email: HashMap<String, Arc<User>>,
    users_of: HashMap<OrgId, Vec<Arc<User>>>,
    /// Those who are invited and no members yet.
    invited_to: HashMap<OrgId, Vec<Arc<User>>>,
    users_by_invite: HashMap<UserId, Arc<User>>,
    /// By what their addresses look like.
    users_by_outline: Outlines<UserId>,
    user_ids_of: ById<UserId, User>,
    applications: HashMap<ApplicationId, Arc<Application>>,
    applications_of_sessions: HashMap<ApplicationId, Arc<Application>>,
    /// By each of their tokens.
    applications_by_token: HashMap<[u8; 32], Arc<Application>>,
    users_by_token: HashMap<[u8; 32], Arc<User>>,
    /// When tokens end, and whose these are.
    token_ends: BTreeSet<(Timestamp, TokenHolder)>,
    applications_of: HashMap<OrgId, Vec<Arc<Application>>>,
    application_ids_of: ById<ApplicationId, Application>,
    thing_defs: HashMap<ThingDefId, Arc<ThingDef>>,
    thing_defs_of: HashMap<OrgId, Vec<Arc<ThingDef>>>,
    /// How many of these are closed; asked for every point of telemetry.
    closed_thing_defs: HashMap<OrgId, usize>,
    webhooks: HashMap<WebhookId, Arc<Webhook>>,
    webhooks_of: HashMap<OrgId, Vec<Arc<Webhook>>>,
}

/// Records by their organisation in the order of their ids, which no change of a name moves: whoever
/// reads page by page misses none and sees none twice.
type ById<Id, T> = HashMap<OrgId, BTreeMap<Id, Arc<T>>>;

/// Ids by what a name looks like. Those that were made before lookalikes were refused may share one.
type Outlines<Id> = HashMap<String, SmallVec<[Id; 1]>>;

/// Whose a token is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TokenHolder {
    /// A user's.
    User(UserId),
    /// An application's of this organisation.
    Application(OrgId, ApplicationId),
}

/// A role, and what it grants.
#[derive(Debug)]
pub struct Granted {
    /// The role.
    pub role: Role,
    /// What its names grant.
    pub permissions: PermissionSet,
    publish: TopicFilters,
    subscribe: TopicFilters,
}

static PUBLISH: LazyLock<Option<Permission>> = LazyLock::new(|| Permission::named("topic.publish"));

static SUBSCRIBE: LazyLock<Option<Permission>> =
    LazyLock::new(|| Permission::named("topic.subscribe"));

impl Granted {
    /// Filters of the ordinary topics that may be published to.
    pub fn topic_publish(&self) -> &[String] {
        with(&self.permissions, *PUBLISH, &self.role.topic_publish)
    }

    /// Filters of those that may be subscribed to.
    pub fn topic_subscribe(&self) -> &[String] {
        with(&self.permissions, *SUBSCRIBE, &self.role.topic_subscribe)
    }

    /// The first, for those who hold the role.
    pub const fn publish(&self) -> &TopicFilters {
        &self.publish
    }

    /// The others.
    pub const fn subscribe(&self) -> &TopicFilters {
        &self.subscribe
    }
}

fn with<'f>(
    permissions: &PermissionSet,
    switch: Option<Permission>,
    filters: &'f [String],
) -> &'f [String] {
    let on = switch.is_some_and(|permission| permissions.allows(permission));
    if on { filters } else { &[] }
}

impl From<Role> for Granted {
    fn from(role: Role) -> Self {
        let permissions = PermissionSet::from_names(&role.permissions);
        let filters = |switch, filters| {
            TopicFilters::new(with(&permissions, switch, filters).iter().map(String::as_str))
        };
        let publish = filters(*PUBLISH, &role.topic_publish);
        let subscribe = filters(*SUBSCRIBE, &role.topic_subscribe);
        Self { role, permissions, publish, subscribe }
    }
}

impl Registry {
    /// Indexes the records.
    pub(super) fn new(mut records: Records) -> Self {
        // In their order, so that each goes to the end of its lists.
        records.orgs.sort_by_cached_key(|org| org.key.to_lowercase());
        records.roles.sort_by_cached_key(|role| role.key.to_lowercase());
        records.users.sort_by_cached_key(|user| user.email.to_lowercase());
        records.applications.sort_by_cached_key(|application| application.name.to_lowercase());
        records.thing_defs.sort_by_cached_key(|def| def.key.to_lowercase());
        records.webhooks.sort_by_cached_key(|webhook| webhook.name.to_lowercase());
        let mut registry = Self::default();
        records.orgs.into_iter().for_each(|org| registry.put_org(org));
        records.roles.into_iter().for_each(|role| registry.put_role(role));
        records.users.into_iter().for_each(|user| registry.put_user(user));
        for application in records.applications {
            registry.put_application(application);
        }
        records.thing_defs.into_iter().for_each(|def| registry.put_thing_def(def));
        records.webhooks.into_iter().for_each(|webhook| registry.put_webhook(webhook));
        registry
    }

    /// Adds a record, or replaces the one with its id.
    pub(super) fn put(&mut self, record: Record) {
        self.remove(&record);
        match record {
            Record::Org(org) => self.put_org(org),
            Record::Role(role) => self.put_role(role),
            Record::User(user) => self.put_user(user),
            Record::Application(application) => self.put_application(application),
            Record::ThingDef(def) => self.put_thing_def(def),
            Record::Webhook(webhook) => self.put_webhook(webhook),
        }
    }

    /// Takes the record with this one's id out, if it is there.
    pub(super) fn remove(&mut self, record: &Record) {
        match record {
            Record::Org(org) => self.remove_org(org.id),
            Record::Role(role) => self.remove_role(role.id),
            Record::User(user) => self.remove_user(user.id),
            Record::Application(application) => self.remove_application(application.id),
            Record::ThingDef(def) => self.remove_thing_def(def.id),
            Record::Webhook(webhook) => self.remove_webhook(webhook.id),
        }
    }

    fn put_org(&mut self, org: Org) {
        let org = Arc::new(org);
        insert(&mut self.orgs, &org, |org| &org.key);
        if let Some(parent) = org.parent {
            insert(self.orgs_below.entry(parent).or_default(), &org, |org| &org.key);
            self.org_ids_below.entry(parent).or_default().insert(org.id, org.clone());
        }
        self.orgs_by_key.insert(org.key.to_lowercase(), org.clone());
        self.orgs_by_slug.insert(org.slug.clone(), org.clone());
        insert_outlines(&mut self.orgs_by_outline, &org.key, org.id);
        self.orgs_by_id.insert(org.id, org);
    }

    fn remove_org(&mut self, id: OrgId) {
        let Some(org) = self.orgs_by_id.remove(&id) else { return };
        self.orgs.retain(|other| other.id != id);
        if let Some(parent) = org.parent {
            take_out(&mut self.orgs_below, parent, |other| other.id == id);
            take_out_by_id(&mut self.org_ids_below, parent, id);
        }
        self.orgs_by_key.remove(&org.key.to_lowercase());
        self.orgs_by_slug.remove(&org.slug);
        take_out_outlines(&mut self.orgs_by_outline, &org.key, id);
    }

    fn put_role(&mut self, role: Role) {
        let granted = Arc::new(Granted::from(role));
        let list = self.roles_of.entry(granted.role.org).or_default();
        insert(list, &granted, |granted| &granted.role.key);
        self.roles.insert(granted.role.id, granted);
    }

    fn remove_role(&mut self, id: RoleId) {
        let Some(granted) = self.roles.remove(&id) else { return };
        take_out(&mut self.roles_of, granted.role.org, |other| other.role.id == id);
    }

    fn put_user(&mut self, user: User) {
        let user = Arc::new(user);
        for org in orgs_of(&user) {
            insert(self.users_of.entry(org).or_default(), &user, |user| &user.email);
            self.user_ids_of.entry(org).or_default().insert(user.id, user.clone());
        }
        for invite in &user.invites {
            let list = self.invited_to.entry(invite.terms.org).or_default();
            insert(list, &user, |user| &user.email);
            self.users_by_invite.insert(invite.id, user.clone());
        }
        for token in &user.tokens {
            self.users_by_token.insert(token.hash, user.clone());
        }
        let holder = TokenHolder::User(user.id);
        self.token_ends.extend(user.token_ends().map(|end| (end, holder)));
        insert_outlines(&mut self.users_by_outline, &user.email, user.id);
        self.users_by_email.insert(user.email.to_lowercase(), user.clone());
        self.users_of_sessions.insert(user.id, Arc::new(user.of_sessions()));
        self.users.insert(user.id, user);
    }

    fn remove_user(&mut self, id: UserId) {
        let Some(user) = self.users.remove(&id) else { return };
        for org in orgs_of(&user) {
            take_out(&mut self.users_of, org, |other| other.id == id);
            take_out_by_id(&mut self.user_ids_of, org, id);
        }
        for invite in &user.invites {
            take_out(&mut self.invited_to, invite.terms.org, |other| other.id == id);
            self.users_by_invite.remove(&invite.id);
        }
        for token in &user.tokens {
            self.users_by_token.remove(&token.hash);
        }
        for end in user.token_ends() {
            self.token_ends.remove(&(end, TokenHolder::User(id)));
        }
        take_out_outlines(&mut self.users_by_outline, &user.email, id);
        self.users_by_email.remove(&user.email.to_lowercase());
        self.users_of_sessions.remove(&id);
    }

    fn put_application(&mut self, application: Application) {
        let application = Arc::new(application);
        let list = self.applications_of.entry(application.org).or_default();
        insert(list, &application, |application| &application.name);
        let ids = self.application_ids_of.entry(application.org).or_default();
        ids.insert(application.id, application.clone());
        let further = application.tokens.iter().map(|token| token.hash);
        for hash in further.chain([application.token_hash]) {
            self.applications_by_token.insert(hash, application.clone());
        }
        let holder = TokenHolder::Application(application.org, application.id);
        self.token_ends.extend(application.token_ends().map(|end| (end, holder)));
        let kept = Arc::new(application.of_sessions());
        self.applications_of_sessions.insert(application.id, kept);
        self.applications.insert(application.id, application);
    }

    fn remove_application(&mut self, id: ApplicationId) {
        let Some(application) = self.applications.remove(&id) else { return };
        self.applications_of_sessions.remove(&id);
        take_out(&mut self.applications_of, application.org, |other| other.id == id);
        take_out_by_id(&mut self.application_ids_of, application.org, id);
        let further = application.tokens.iter().map(|token| token.hash);
        for hash in further.chain([application.token_hash]) {
            self.applications_by_token.remove(&hash);
        }
        let holder = TokenHolder::Application(application.org, id);
        for end in application.token_ends() {
            self.token_ends.remove(&(end, holder));
        }
    }

    fn put_thing_def(&mut self, def: ThingDef) {
        let def = Arc::new(def);
        insert(self.thing_defs_of.entry(def.org).or_default(), &def, |def| &def.key);
        if def.is_closed() {
            *self.closed_thing_defs.entry(def.org).or_default() += 1;
        }
        self.thing_defs.insert(def.id, def);
    }

    fn remove_thing_def(&mut self, id: ThingDefId) {
        let Some(def) = self.thing_defs.remove(&id) else { return };
        take_out(&mut self.thing_defs_of, def.org, |other| other.id == id);
        if let (true, Some(count)) = (def.is_closed(), self.closed_thing_defs.get_mut(&def.org)) {
            *count -= 1;
        }
    }

    fn put_webhook(&mut self, webhook: Webhook) {
        let webhook = Arc::new(webhook);
        let list = self.webhooks_of.entry(webhook.org).or_default();
        insert(list, &webhook, |webhook| &webhook.name);
        self.webhooks.insert(webhook.id, webhook);
    }

    fn remove_webhook(&mut self, id: WebhookId) {
        let Some(webhook) = self.webhooks.remove(&id) else { return };
        take_out(&mut self.webhooks_of, webhook.org, |other| other.id == id);
    }

    /// The organisation with this id.
    pub(super) fn org(&self, id: OrgId) -> Option<&Arc<Org>> {
        self.orgs_by_id.get(&id)
    }

    /// All organisations, ordered by key.
    pub(super) fn orgs(&self) -> &[Arc<Org>] {
        &self.orgs
    }

    /// The organisation and all above it, the nearest first.
    pub(super) fn line_of(&self, org: OrgId) -> impl Iterator<Item = OrgId> {
        let parent = |org: &OrgId| self.orgs_by_id.get(org).and_then(|org| org.parent);
        std::iter::successors(Some(org), parent).take(limits::ORG_DEPTH_MAX)
    }

    /// Whether `org` is `ancestor` or somewhere below it.
    pub(super) fn is_within(&self, org: OrgId, ancestor: OrgId) -> bool {
        self.line_of(org).any(|org| org == ancestor)
    }

    /// The role, if it is known in `org`: owned there or above.
    pub(super) fn role_within(&self, id: RoleId, org: OrgId) -> Option<&Arc<Granted>> {
        self.roles.get(&id).filter(|granted| self.is_within(org, granted.role.org))
    }
}

/// Reads of the records. They block for as long as another thread changes one, which is some
/// microseconds.
/// Those who hold a role in an organisation.
#[derive(Default)]
pub struct Holders {
    /// Users.
    pub users: Vec<Arc<User>>,
    /// Applications.
    pub applications: Vec<Arc<Application>>,
}

impl Identity {
    /// The organisation with this id.
    pub fn org(&self, id: OrgId) -> Option<Arc<Org>> {
        self.registry.read().org(id).cloned()
    }

    /// The organisation with this key, whatever its case.
    pub fn org_by_key(&self, key: &str) -> Option<Arc<Org>> {
        self.registry.read().orgs_by_key.get(&key.to_lowercase()).cloned()
    }

    /// The organisation with this slug.
    pub fn org_by_slug(&self, slug: &str) -> Option<Arc<Org>> {
        self.registry.read().orgs_by_slug.get(slug).cloned()
    }

    /// Another organisation than `own` whose key looks like this one.
    pub fn org_like(&self, key: &str, own: Option<OrgId>) -> Option<Arc<Org>> {
        let registry = self.registry.read();
        registry.org(like(&registry.orgs_by_outline, key, own)?).cloned()
    }

    /// The organisations right below this one, ordered by key.
    pub fn orgs_below(&self, org: OrgId) -> Vec<Arc<Org>> {
        self.registry.read().orgs_below.get(&org).cloned().unwrap_or_default()
    }

    /// At most `max` of the organisations right below this one, ordered by id, from behind `after`.
    pub fn orgs_below_page(&self, org: OrgId, after: Option<OrgId>, max: usize) -> Vec<Arc<Org>> {
        page(&self.registry.read().org_ids_below, org, after, max)
    }

    /// All organisations, ordered by key.
    pub fn orgs(&self) -> Vec<Arc<Org>> {
        self.registry.read().orgs.clone()
    }

    /// Whether `org` is `ancestor` or somewhere below it.
    pub fn is_within(&self, org: OrgId, ancestor: OrgId) -> bool {
        self.registry.read().is_within(org, ancestor)
    }

    /// How many organisations are above this one, itself included.
    pub fn depth(&self, org: OrgId) -> usize {
        self.registry.read().line_of(org).count()
    }

    /// The organisation at the top of its tree.
    pub fn root_of(&self, org: OrgId) -> OrgId {
        self.registry.read().line_of(org).last().unwrap_or(org)
    }

    /// The user with this id.
    pub fn user(&self, id: UserId) -> Option<Arc<User>> {
        self.registry.read().users.get(&id).cloned()
    }

    /// A user as sessions keep it: of what only the record has it is free.
    pub fn user_of_sessions(&self, user: &Arc<User>) -> Arc<User> {
        let registry = self.registry.read();
        // One who has changed since is as it was when it was looked at.
        let is_same = registry.users.get(&user.id).is_some_and(|known| Arc::ptr_eq(known, user));
        let kept = registry.users_of_sessions.get(&user.id).filter(|_| is_same);
        kept.cloned().unwrap_or_else(|| Arc::new(user.of_sessions()))
    }

    /// The same of an application.
    pub fn application_of_sessions(&self, application: &Arc<Application>) -> Arc<Application> {
        let (registry, id) = (self.registry.read(), application.id);
        let known = registry.applications.get(&id);
        let is_same = known.is_some_and(|known| Arc::ptr_eq(known, application));
        let kept = registry.applications_of_sessions.get(&id).filter(|_| is_same);
        kept.cloned().unwrap_or_else(|| Arc::new(application.of_sessions()))
    }

    /// The user with this e-mail address, whatever its case.
    pub fn user_by_email(&self, email: &str) -> Option<Arc<User>> {
        self.registry.read().users_by_email.get(&email.to_lowercase()).cloned()
    }

    /// Another user than `own` whose address looks like this one.
    pub fn user_like(&self, email: &str, own: Option<UserId>) -> Option<Arc<User>> {
        let registry = self.registry.read();
        registry.users.get(&like(&registry.users_by_outline, email, own)?).cloned()
    }

    /// The user who is invited by the invitation with this id.
    pub fn user_by_invite(&self, invite: UserId) -> Option<Arc<User>> {
        self.registry.read().users_by_invite.get(&invite).cloned()
    }

    /// The users who are invited into the organisation and no members yet, ordered by address.
    pub fn invited_to(&self, org: OrgId) -> Vec<Arc<User>> {
        self.registry.read().invited_to.get(&org).cloned().unwrap_or_default()
    }

    /// All users, in no order.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.registry.read().users.values().cloned().collect()
    }

    /// How many users there are.
    pub fn user_count(&self) -> usize {
        self.registry.read().users.len()
    }

    /// The users who are at home or have a membership in the organisation, ordered by address.
    pub fn users_of(&self, org: OrgId) -> Vec<Arc<User>> {
        self.registry.read().users_of.get(&org).cloned().unwrap_or_default()
    }

    /// At most `max` of the users who are at home or have a membership in the organisation, ordered
    /// by id, from behind `after`.
    pub fn users_page(&self, org: OrgId, after: Option<UserId>, max: usize) -> Vec<Arc<User>> {
        page(&self.registry.read().user_ids_of, org, after, max)
    }

    /// The user with this id, if at home or with a membership in the organisation.
    pub fn user_in(&self, org: OrgId, id: UserId) -> Option<Arc<User>> {
        self.registry.read().user_ids_of.get(&org)?.get(&id).cloned()
    }

    /// The application with this id.
    pub fn application(&self, id: ApplicationId) -> Option<Arc<Application>> {
        self.registry.read().applications.get(&id).cloned()
    }

    /// The application with this token, whether or not that is good.
    pub fn application_by_token(&self, token: &str) -> Option<Arc<Application>> {
        self.token_of_application(token).map(|(application, _)| application)
    }

    /// The same, and the token unless it is the first. The map is asked for the token's hash, which
    /// tells a listener to our timing nothing about the token; the hashes are compared in constant
    /// time.
    pub fn token_of_application(
        &self,
        token: &str,
    ) -> Option<(Arc<Application>, Option<Arc<Token>>)> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let registry = self.registry.read();
        let application = registry.applications_by_token.get(&hash)?;
        if bool::from(application.token_hash.ct_eq(&hash)) {
            return Some((application.clone(), None));
        }
        let token = application.token_by_hash(&hash)?;
        Some((application.clone(), Some(token)))
    }

    /// The user with this API token, and the token, whether or not that is good.
    pub fn token_of_user(&self, token: &str) -> Option<(Arc<User>, Arc<Token>)> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let registry = self.registry.read();
        let user = registry.users_by_token.get(&hash)?;
        let same = |known: &&Token| bool::from(known.hash.ct_eq(&hash));
        let token = user.tokens.iter().find(same)?;
        Some((user.clone(), Arc::new(token.clone())))
    }

    /// Whose tokens have ended since `from`, up to `to`.
    pub fn tokens_ended(&self, from: Timestamp, to: Timestamp) -> Vec<TokenHolder> {
        let least = TokenHolder::User(UserId::from_bytes([0; 12]));
        let registry = self.registry.read();
        let ended = registry.token_ends.range((from, least)..);
        ended.take_while(|(end, _)| *end <= to).map(|(_, holder)| *holder).collect()
    }

    /// The ids of all tokens.
    pub fn token_ids(&self) -> HashSet<TokenId> {
        let registry = self.registry.read();
        let of_users = registry.users.values().flat_map(|user| &user.tokens).map(|t| t.id);
        let applications = registry.applications.values();
        let of_applications = applications.flat_map(|application| {
            application.tokens.iter().map(|token| token.id).chain([application.token_id])
        });
        of_users.chain(of_applications).collect()
    }

    /// The applications of the organisation, ordered by name.
    pub fn applications_of(&self, org: OrgId) -> Vec<Arc<Application>> {
        self.registry.read().applications_of.get(&org).cloned().unwrap_or_default()
    }

    /// At most `max` of the applications of the organisation, ordered by id, from behind `after`.
    pub fn applications_page(
        &self,
        org: OrgId,
        after: Option<ApplicationId>,
        max: usize,
    ) -> Vec<Arc<Application>> {
        page(&self.registry.read().application_ids_of, org, after, max)
    }

    /// The application of the organisation with this id.
    pub fn application_in(&self, org: OrgId, id: ApplicationId) -> Option<Arc<Application>> {
        self.registry.read().application_ids_of.get(&org)?.get(&id).cloned()
    }

    /// The application of the organisation with this name, whatever its case.
    pub fn application_by_name(&self, org: OrgId, name: &str) -> Option<Arc<Application>> {
        let registry = self.registry.read();
        find(registry.applications_of.get(&org)?, name, |application| &application.name)
    }

    /// The role with this id, if it is known in `org`: owned there or above.
    pub fn role_within(&self, id: RoleId, org: OrgId) -> Option<Arc<Granted>> {
        self.registry.read().role_within(id, org).cloned()
    }

    /// The role with this key, whatever its case, that is known in `org`: its own, else the
    /// nearest above.
    pub fn role_by_key(&self, org: OrgId, key: &str) -> Option<Arc<Granted>> {
        let registry = self.registry.read();
        let mut line = registry.line_of(org);
        line.find_map(|org| find(registry.roles_of.get(&org)?, key, |granted| &granted.role.key))
    }

    /// The roles that are known in the organisation: its own, by key, then those from above.
    pub fn roles_of(&self, org: OrgId) -> Vec<Arc<Granted>> {
        let registry = self.registry.read();
        let own = registry.line_of(org).filter_map(|org| registry.roles_of.get(&org));
        own.flatten().cloned().collect()
    }

    /// Whether a user or an application holds the role. It looks at all of them.
    pub fn is_held(&self, role: RoleId) -> bool {
        let registry = self.registry.read();
        let holds = |user: &Arc<User>| user.memberships.iter().any(|m| m.roles.contains(&role));
        registry.users.values().any(holds)
            || registry.applications.values().any(|held| held.roles.contains(&role))
    }

    /// Who holds roles in an organisation: users as members, applications as its own.
    pub fn holders_in(&self, org: OrgId) -> HashMap<RoleId, Holders> {
        let registry = self.registry.read();
        let mut holders: HashMap<RoleId, Holders> = HashMap::new();
        for user in registry.users.values() {
            let here = user.memberships.iter().filter(|membership| membership.org == org);
            for role in here.flat_map(|membership| &membership.roles) {
                holders.entry(*role).or_default().users.push(user.clone());
            }
        }
        for application in registry.applications.values().filter(|found| found.org == org) {
            for role in &application.roles {
                holders.entry(*role).or_default().applications.push(application.clone());
            }
        }
        holders
    }

    /// The definition with this id, if it is known in `org`: owned there or above.
    pub fn thing_def(&self, org: OrgId, id: ThingDefId) -> Option<Arc<ThingDef>> {
        let registry = self.registry.read();
        let def = registry.thing_defs.get(&id)?;
        registry.is_within(org, def.org).then(|| def.clone())
    }

    /// The definition with this key, whatever its case, that is known in `org`: its own, else the
    /// nearest above.
    pub fn thing_def_by_key(&self, org: OrgId, key: &str) -> Option<Arc<ThingDef>> {
        let registry = self.registry.read();
        let mut line = registry.line_of(org);
        line.find_map(|org| find(registry.thing_defs_of.get(&org)?, key, |def| &def.key))
    }

    /// The definitions that are known in the organisation: its own, by key, then those from above.
    pub fn thing_defs_of(&self, org: OrgId) -> Vec<Arc<ThingDef>> {
        let registry = self.registry.read();
        let own = registry.line_of(org).filter_map(|org| registry.thing_defs_of.get(&org));
        own.flatten().cloned().collect()
    }

    /// Whether a definition that is known in the organisation refuses what it does not define.
    pub fn has_closed_thing_def(&self, org: OrgId) -> bool {
        let registry = self.registry.read();
        let mut line = registry.line_of(org);
        line.any(|org| registry.closed_thing_defs.get(&org).is_some_and(|count| *count > 0))
    }

    /// The webhook with this id.
    pub fn webhook(&self, id: WebhookId) -> Option<Arc<Webhook>> {
        self.registry.read().webhooks.get(&id).cloned()
    }

    /// The webhooks of the organisation, ordered by name.
    pub fn webhooks_of(&self, org: OrgId) -> Vec<Arc<Webhook>> {
        self.registry.read().webhooks_of.get(&org).cloned().unwrap_or_default()
    }

    /// The webhook of the organisation with this name, whatever its case.
    pub fn webhook_by_name(&self, org: OrgId, name: &str) -> Option<Arc<Webhook>> {
        let registry = self.registry.read();
        find(registry.webhooks_of.get(&org)?, name, |webhook| &webhook.name)
    }

    /// All webhooks, in no order.
    pub fn webhooks(&self) -> Vec<Arc<Webhook>> {
        self.registry.read().webhooks.values().cloned().collect()
    }

    /// Whether an application registers things with the definition. It looks at all of them.
    pub fn registers(&self, def: ThingDefId) -> bool {
        let registry = self.registry.read();
        registry.applications.values().any(|other| other.auto_register_def == Some(def))
    }
}

/// Where the user is listed: at home, wherever there is a membership, and where they are administered.
pub(super) fn orgs_of(user: &User) -> Vec<OrgId> {
    let mut orgs: Vec<OrgId> = user.memberships.iter().map(|held| held.org).collect();
    orgs.extend([user.home, user.owner()]);
    orgs.sort_unstable();
    orgs.dedup();
    orgs
}

/// Puts a record into a list that is ordered by name, without regard to case.
fn insert<T>(list: &mut Vec<Arc<T>>, record: &Arc<T>, name: impl Fn(&T) -> &str) {
    let own = name(record).to_lowercase();
    let place = list.partition_point(|other| name(other).to_lowercase() < own);
    list.insert(place, record.clone());
}

/// Takes a record out of an organisation's list.
fn take_out<T>(
    lists: &mut HashMap<OrgId, Vec<Arc<T>>>,
    org: OrgId,
    is_it: impl Fn(&Arc<T>) -> bool,
) {
    if let Some(list) = lists.get_mut(&org) {
        list.retain(|other| !is_it(other));
        if list.is_empty() {
            lists.remove(&org);
        }
    }
}

fn insert_outlines<Id: Copy>(all: &mut Outlines<Id>, name: &str, id: Id) {
    for outline in outlines(name) {
        all.entry(outline).or_default().push(id);
    }
}

fn take_out_outlines<Id: PartialEq>(all: &mut Outlines<Id>, name: &str, id: Id) {
    for outline in outlines(name) {
        if let Some(ids) = all.get_mut(&outline) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                all.remove(&outline);
            }
        }
    }
}

/// Whose name looks like this one, but for one's own.
fn like<Id: PartialEq + Copy>(all: &Outlines<Id>, name: &str, own: Option<Id>) -> Option<Id> {
    let outlines = outlines(name);
    let mut alike = outlines.iter().filter_map(|outline| all.get(outline)).flatten();
    alike.find(|id| Some(**id) != own).copied()
}

/// Takes a record out of an organisation's records by id.
fn take_out_by_id<Id: Ord, T>(records: &mut ById<Id, T>, org: OrgId, id: Id) {
    if let Some(of_org) = records.get_mut(&org) {
        of_org.remove(&id);
        if of_org.is_empty() {
            records.remove(&org);
        }
    }
}

/// At most `max` records of an organisation, from behind `after`.
fn page<Id: Ord, T>(
    records: &ById<Id, T>,
    org: OrgId,
    after: Option<Id>,
    max: usize,
) -> Vec<Arc<T>> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let page = |of_org: &BTreeMap<Id, Arc<T>>| {
        of_org.range((from, Bound::Unbounded)).take(max).map(|(_, record)| record.clone()).collect()
    };
    records.get(&org).map_or_else(Vec::new, page)
}

/// The record with this name, whatever its case, in a list that is ordered so.
fn find<T>(list: &[Arc<T>], wanted: &str, name: impl Fn(&T) -> &str) -> Option<Arc<T>> {
    let wanted = wanted.to_lowercase();
    let place = list.partition_point(|other| name(other).to_lowercase() < wanted);
    list.get(place).filter(|found| name(found).to_lowercase() == wanted).cloned()
}

#[cfg(test)]
mod tests {
    use super::super::model::{Application, User};
    use super::super::tests::demo;

    #[test]
    fn organisations_are_below_others() {
        let identity = demo();
        let org = |key| identity.org_by_key(key).expect("an organisation of the demo");
        let (system, basic, york) = (org("system"), org("BASICORG"), org("YorkOrg"));
        assert_eq!(identity.org(basic.id), Some(basic.clone()));
        assert_eq!(identity.orgs(), [basic.clone(), system.clone(), york.clone()]);
        assert!(identity.is_within(basic.id, system.id) && identity.is_within(basic.id, basic.id));
        assert!(!identity.is_within(system.id, basic.id) && !identity.is_within(york.id, basic.id));
    }

    #[test]
    fn people_are_found_by_every_name() {
        let identity = demo();
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
        assert!(role.is_some_and(|held| held.role.id == application.roles[0]));
    }

    #[test]
    fn pages_are_in_an_order_that_no_name_moves() {
        let identity = demo();
        let basic = identity.org_by_key("BasicOrg").expect("an organisation of the demo").id;
        let viewer = identity.user_by_email("viewer@basicorg.example").expect("a user");
        let operator = identity.user_by_email("operator@basicorg.example").expect("a user");
        let ids = |after, max| -> Vec<_> {
            identity.users_page(basic, after, max).iter().map(|user| user.id).collect()
        };
        assert_eq!(ids(None, 1), [operator.id]);
        let renamed = User { email: "a@basicorg.example".into(), ..User::clone(&viewer) };
        identity.apply(identity.turn().put(renamed.clone()));
        assert_eq!(identity.users_of(basic)[0].id, viewer.id);
        assert_eq!(ids(Some(operator.id), 9), [viewer.id]);
        assert_eq!(ids(Some(viewer.id), 9), []);
        assert_eq!(identity.user_in(basic, viewer.id).as_deref(), Some(&renamed));
        let moved = User { home: identity.org_by_key("YorkOrg").expect("York").id, ..renamed };
        identity.apply(identity.turn().put(User { memberships: Vec::new(), ..moved }));
        assert_eq!((ids(None, 9), identity.user_in(basic, viewer.id)), (vec![operator.id], None));

        let system = identity.org_by_key("SYSTEM").expect("an organisation of the demo").id;
        let below = identity.orgs_below_page(system, None, 1);
        assert_eq!(below[0].key, "YorkOrg");
        let rest = identity.orgs_below_page(system, Some(below[0].id), 9);
        assert_eq!((rest.len(), rest[0].id), (1, basic));
        let application = identity.applications_page(basic, None, 9).remove(0);
        assert_eq!(identity.application_in(basic, application.id), Some(application.clone()));
        assert_eq!(identity.application_in(system, application.id), None);
        assert_eq!(identity.application_by_name(basic, "DEMO-app"), Some(application.clone()));
        identity.apply(identity.turn().delete([Application::clone(&application).into()]));
        let left = identity.applications_page(basic, None, 9);
        assert_eq!(left.iter().map(|left| &left.name).collect::<Vec<_>>(), ["demo-app-16"]);
        assert_eq!(identity.application_by_name(basic, "demo-app"), None);
    }
}
