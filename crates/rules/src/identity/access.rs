//! Access: what a principal is and may do in one organisation.

use std::sync::{Arc, LazyLock};

use base::OrgId;

use super::grants::{Grants, Source};
use super::model::{Application, Membership, Org, User};
use super::permission::PermissionSet;
use super::registry::{Registry, orgs_of};
use super::topic_rights::TopicRights;
use super::{Identity, Token};

/// What everyone who is logged in may do. Of users, to themselves.
pub const EVERYONE: &[&str] = &[
    "api.authenticate",
    "api.ping",
    "diag.echo",
    "diag.ping",
    "diag.time",
    "locale.get",
    "locale.list",
    "locale.set",
    "search.omni",
    "session.end",
    "session.explain",
    "session.info",
    "session.mine",
    "session.org.list",
    "session.org.switch",
    "user.invite.accept",
    "user.invite.decline",
    "user.invite.list",
    "user.mfa.confirm",
    "user.mfa.enrol",
    "user.mfa.find",
    "user.mfa.remove",
    "user.org.find",
    "user.org.list",
    "user.org.set",
    "user.setting.get",
    "user.setting.list",
    "user.setting.set",
    "user.token.create",
    "user.token.delete",
    "user.token.list",
    "user.token.update",
    "user.update",
];

pub(super) static EVERYONE_SET: LazyLock<PermissionSet> =
    LazyLock::new(|| PermissionSet::from_names(EVERYONE));

/// All that a user may do who needs a second factor and has none.
static ENROLMENT_SET: LazyLock<PermissionSet> = LazyLock::new(|| {
    let mut names: Vec<_> = EVERYONE.iter().filter(|name| name.starts_with("user.mfa.")).collect();
    names.extend(&["api.authenticate", "api.ping", "session.end"]);
    PermissionSet::from_names(names)
});

/// What no API token gives: whoever has one could make it last.
static LOGIN_SET: LazyLock<PermissionSet> = LazyLock::new(|| {
    PermissionSet::of_names_that(|name| {
        name.starts_with("user.mfa.") || name.starts_with("user.token.")
    })
});

/// What super operators may do everywhere: all that reads, nothing that changes.
pub(super) static READING_SET: LazyLock<PermissionSet> =
    LazyLock::new(|| PermissionSet::of_names_that(only_reads).union(&EVERYONE_SET));

/// What a principal is and may do in one organisation; the flags are those of the session object
/// (`docs/protocol/tr50.md` 3.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// The organisation.
    pub org: Arc<Org>,
    /// What may be done in it.
    pub permissions: PermissionSet,
    /// The ordinary topics that may be published to.
    pub topic_publish: TopicRights,
    /// Those that may be subscribed to.
    pub topic_subscribe: TopicRights,
    /// `hasSuperAdmin`: everything, everywhere.
    pub super_admin: bool,
    /// `hasSuperOps`: sees everything, everywhere.
    pub super_ops: bool,
    /// `hasOrgAdmin`: everything in this organisation.
    pub org_admin: bool,
    /// Whether commands may only name the session's own thing and those bound to it; never for
    /// administrators (`docs/protocol/tr50.md` 5, restrictAccessToSelf).
    pub restricted_to_self: bool,
    /// `roleKeys`: the roles held here, sorted; none for administrators, who need none.
    pub role_keys: Vec<String>,
    /// `allowSubOrgAccess`: whether a membership reaches below its organisation; none for those
    /// whose reach does not come from a membership.
    pub allow_sub_org_access: Option<bool>,
    /// What keeps the session from all else that its principal may do.
    pub limit: Option<Limit>,
}

/// What keeps a session from what its principal may do otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// The user needs a second factor and has none.
    Enrolment,
    /// It is by an API token, with all that the user may do but for the user's own login.
    Token,
    /// It is by an API token that gives some permissions only.
    NarrowToken,
}

impl Access {
    /// What somebody is in an organisation who has no rights there.
    pub fn nothing(org: Arc<Org>) -> Self {
        Self {
            org,
            permissions: PermissionSet::EMPTY,
            topic_publish: TopicRights::default(),
            topic_subscribe: TopicRights::default(),
            super_admin: false,
            super_ops: false,
            org_admin: false,
            restricted_to_self: false,
            role_keys: Vec::new(),
            allow_sub_org_access: None,
            limit: None,
        }
    }

    /// The same without the topics, which may be many; of who has ended and publishes no more.
    #[must_use]
    pub fn without_topics(&self) -> Self {
        let (topic_publish, topic_subscribe) = (TopicRights::default(), TopicRights::default());
        Self {
            topic_publish,
            topic_subscribe,
            org: self.org.clone(),
            role_keys: self.role_keys.clone(),
            ..*self
        }
    }

    /// Whether it holds filters of roles.
    pub fn has_filters(&self) -> bool {
        self.topic_publish.has_filters() || self.topic_subscribe.has_filters()
    }

    /// Whether it has the permission of this name, if there is such a one.
    pub fn allows(&self, name: &str) -> bool {
        self.permissions.allows_named(name)
    }

    /// Whether it is that of an administrator, of the server or of the organisation.
    pub const fn is_administrators(&self) -> bool {
        self.super_admin || self.super_ops || self.org_admin
    }
}

impl Identity {
    /// What the user is in the organisation; none: the user may not enter it.
    ///
    /// A membership counts in its organisation and, for an administrator or with `sub_orgs`, in
    /// all below. At home everyone may enter. Who needs a second factor and has none may only set
    /// it up.
    pub fn user_access(&self, user: &User, org: &Arc<Org>) -> Option<Access> {
        let access = self.user_rights(user, org)?;
        Some(if self.must_enrol(user) { access.for_enrolment() } else { access })
    }

    /// Whether the user needs a second factor and has none: the user's own record says so, or an
    /// organisation in which the user is at home or a member, or one above such.
    pub fn must_enrol(&self, user: &User) -> bool {
        !user.second_factor.is_active() && self.needs_second_factor(user)
    }

    /// The same, whether or not the user has one.
    pub fn needs_second_factor(&self, user: &User) -> bool {
        let registry = self.registry.read();
        let requires = |org: OrgId| registry.org(org).is_some_and(|org| org.mfa_required);
        let above = |org: &OrgId| registry.line_of(*org).any(requires);
        user.mfa_required || orgs_of(user).iter().any(above)
    }

    /// The same as [`Identity::user_access`], whether or not the user needs a second factor.
    pub fn user_rights(&self, user: &User, org: &Arc<Org>) -> Option<Access> {
        let registry = self.registry.read();
        let sources = Source::of_user(&registry, user, org.id)?;
        let administers = |source: &Source| matches!(source, Source::OrgAdmin(_));
        let org_admin = !user.super_admin && sources.iter().any(administers);
        let grants = Grants::of(&sources, Some(user));
        let mut reaching = user.memberships.iter().filter(|held| reaches(&registry, held, org.id));
        let below = || reaching.any(|held| held.sub_orgs || held.org_admin);
        Some(Access {
            org: org.clone(),
            permissions: grants.permissions,
            topic_publish: grants.topic_publish,
            topic_subscribe: grants.topic_subscribe,
            super_admin: user.super_admin,
            super_ops: user.super_ops,
            org_admin,
            restricted_to_self: false,
            role_keys: grants.role_keys,
            allow_sub_org_access: (!user.super_admin && !user.super_ops).then(below),
            limit: None,
        })
    }

    /// What a user is at home; by an API token, what that leaves of it.
    pub fn home_access(&self, user: &User, token: Option<&Token>) -> Option<Access> {
        let access = self.user_access(user, &self.org(user.home)?)?;
        Some(match token {
            Some(token) => access.by_token(token),
            None => access,
        })
    }

    /// What sessions of the application are in its organisation; none if that is gone.
    pub fn application_access(&self, application: &Application) -> Option<Access> {
        let registry = self.registry.read();
        let org = registry.org(application.org)?.clone();
        let mut grants = Grants::of(&Source::of_application(&registry, application), None);
        let everything = application.org_admin || application.super_admin;
        let restricted = application.restrict_access_to_self && !everything;
        if restricted {
            grants.topic_publish = grants.topic_publish.below_own_key();
            grants.topic_subscribe = grants.topic_subscribe.below_own_key();
        }
        Some(Access {
            org,
            permissions: grants.permissions,
            topic_publish: grants.topic_publish,
            topic_subscribe: grants.topic_subscribe,
            super_admin: application.super_admin,
            super_ops: application.super_ops,
            org_admin: application.org_admin && !application.super_admin,
            restricted_to_self: restricted,
            role_keys: grants.role_keys,
            allow_sub_org_access: None,
            limit: None,
        })
    }

    /// The organisations that the user may enter, ordered by key.
    pub fn enterable_orgs(&self, user: &User) -> Vec<Arc<Org>> {
        let registry = self.registry.read();
        let mut orgs = registry.orgs().to_vec();
        if !user.super_admin && !user.super_ops {
            let member = |org| user.memberships.iter().any(|held| reaches(&registry, held, org));
            orgs.retain(|org| org.id == user.home || member(org.id));
        }
        orgs
    }
}

impl Access {
    /// What is left of a user's rights in a session by this API token. With permissions of its own,
    /// it makes nobody an administrator: what these could grant would be more than it says.
    #[must_use]
    pub fn by_token(self, token: &Token) -> Self {
        let left = token.leaves();
        let permissions = self.permissions.intersection(&left);
        if self.limit.is_some() {
            return Self { permissions, ..self };
        }
        if token.permissions.is_none() {
            return Self { permissions, limit: Some(Limit::Token), ..self };
        }
        let topics = |name, rights| {
            let gives = left.allows_named(name);
            if gives { rights } else { TopicRights::default() }
        };
        Self {
            permissions,
            topic_publish: topics("topic.publish", self.topic_publish),
            topic_subscribe: topics("topic.subscribe", self.topic_subscribe),
            super_admin: false,
            super_ops: false,
            org_admin: false,
            limit: Some(Limit::NarrowToken),
            ..self
        }
    }

    /// What is left of it for who has to set up a second factor first.
    fn for_enrolment(self) -> Self {
        Self {
            permissions: self.permissions.intersection(&ENROLMENT_SET),
            topic_publish: TopicRights::default(),
            topic_subscribe: TopicRights::default(),
            limit: Some(Limit::Enrolment),
            ..self
        }
    }
}

impl Limit {
    /// What a session may have that is limited so; by a token, what that leaves.
    pub fn leaves(self, token: Option<&Token>) -> PermissionSet {
        let by_token = token.map_or(PermissionSet::ALL, Token::leaves);
        match self {
            Self::Enrolment => by_token.intersection(&ENROLMENT_SET),
            Self::Token | Self::NarrowToken => by_token,
        }
    }
}

impl Token {
    /// What a session by this API token of a user may have, whatever the user may.
    fn leaves(&self) -> PermissionSet {
        let lasting = PermissionSet::ALL.without(&LOGIN_SET);
        match &self.permissions {
            None => lasting,
            Some(names) => {
                PermissionSet::from_names(names).union(&EVERYONE_SET).intersection(&lasting)
            }
        }
    }
}

pub(super) fn reaches(registry: &Registry, held: &Membership, org: OrgId) -> bool {
    held.org == org || (held.org_admin || held.sub_orgs) && registry.is_within(org, held.org)
}

/// Whether the command named so changes nothing, by the habit of TR50's names: the last word says
/// what is done.
fn only_reads(name: &str) -> bool {
    let (family, rest) = name.split_once('.').unwrap_or((name, ""));
    let verb = rest.rsplit('.').next().unwrap_or_default();
    let reading = [
        "aggregate",
        "cloud",
        "count",
        "current",
        "diagnose",
        "dump",
        "failures",
        "fields",
        "find",
        "get",
        "history",
        "info",
        "keys",
        "list",
        "mine",
        "multi",
        "near",
        "omni",
        "perms",
        "search",
        "stats",
        "status",
        "subscribe",
        "summary",
        "trace",
        "types",
        "watch",
        "within",
    ];
    matches!(family, "diag" | "metrics" | "stats") || reading.contains(&verb)
}

#[cfg(test)]
mod tests {
    use super::super::permission::Permission;
    use super::super::tests::demo;
    use super::*;

    fn allows(access: &Access, name: &str) -> bool {
        access.permissions.allows(Permission::named(name).expect("a command"))
    }

    fn org(identity: &Identity, key: &str) -> Arc<Org> {
        identity.org_by_key(key).expect("an organisation of the demo")
    }

    fn user(identity: &Identity, email: &str) -> User {
        User::clone(&identity.user_by_email(email).expect("a user of the demo"))
    }

    #[test]
    fn the_super_administrator_may_do_everything_everywhere() {
        let identity = demo();
        let admin = user(&identity, "admin@devicewise.com");
        for org in identity.orgs() {
            let access = identity.user_access(&admin, &org).expect("enters");
            assert_eq!(access.permissions, PermissionSet::ALL);
            assert!(access.super_admin && !access.super_ops && !access.org_admin);
            assert_eq!(access.allow_sub_org_access, None);
        }
        assert_eq!(identity.enterable_orgs(&admin), identity.orgs());
    }

    #[test]
    fn an_administrator_reaches_the_organisations_below_and_no_other() {
        let identity = demo();
        let mut operator = user(&identity, "operator@basicorg.example");
        let (system, basic, york) =
            (org(&identity, "SYSTEM"), org(&identity, "BasicOrg"), org(&identity, "YorkOrg"));
        let access = identity.user_access(&operator, &basic).expect("enters");
        assert_eq!(access.permissions, PermissionSet::ALL);
        assert!(access.org_admin && !access.super_admin);
        assert_eq!(identity.user_access(&operator, &york), None);
        assert_eq!(identity.user_access(&operator, &system), None);
        assert_eq!(identity.enterable_orgs(&operator), [basic]);

        operator.memberships[0].org = system.id;
        assert!(identity.user_access(&operator, &york).expect("below").org_admin);
        assert_eq!(identity.enterable_orgs(&operator), identity.orgs());
    }

    #[test]
    fn without_roles_only_what_everyone_may() {
        let identity = demo();
        let viewer = user(&identity, "viewer@basicorg.example");
        let basic = org(&identity, "BasicOrg");
        let access = identity.user_access(&viewer, &basic).expect("enters");
        assert_eq!(access.permissions.names().collect::<Vec<_>>(), EVERYONE);
        assert_eq!(access.allow_sub_org_access, Some(false));
        assert!(!allows(&access, "session.list"));
        assert!(
            !access.topic_subscribe.covers("a", None) && !access.topic_publish.allows("a", None)
        );
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_role_gives_topics_with_its_permission_only() {
        let identity = demo();
        let basic = org(&identity, "BasicOrg");
        let device = identity.role_by_key(basic.id, "device").expect("a role of the demo");
        let check = |names: &[&str], lists: [&[&str]; 2], expected: [bool; 2]| {
            let mut role = device.role.clone();
            role.permissions = owned(names);
            [role.topic_publish, role.topic_subscribe] = lists.map(owned);
            identity.apply(identity.turn().put(role));
            let application = identity.application_by_token("demo-token-basicorg");
            let application = application.expect("the application of the demo");
            let access = identity.application_access(&application).expect("it exists");
            let found = [&access.topic_publish, &access.topic_subscribe];
            let found = found.map(|rights| rights.allows("m/a", Some("m")));
            assert_eq!(found, expected, "{names:?} {lists:?}");
        };
        check(&["topic.publish"], [&["#"], &["#"]], [true, false]);
        check(&["topic.subscribe"], [&["#"], &["%thingKey%/#"]], [false, true]);
        check(&["Topic"], [&["n/#"], &["m/+"]], [false, true]);
        check(&["topic.publish", "topic.subscribe"], [&[], &[]], [false, false]);
        check(&["thing"], [&["#"], &["#"]], [false, false]);
    }

    #[test]
    fn roles_reach_below_with_sub_orgs_and_only_where_they_are_known() {
        let identity = demo();
        let (system, york) = (org(&identity, "SYSTEM"), org(&identity, "YorkOrg"));
        let device = identity.role_by_key(system.id, "device").expect("a role of the demo").role.id;
        let mut member = user(&identity, "viewer@basicorg.example");
        member.memberships[0] =
            Membership { org: system.id, roles: vec![device], ..member.memberships[0].clone() };
        assert_eq!(identity.user_access(&member, &york), None);
        member.memberships[0].sub_orgs = true;
        let access = identity.user_access(&member, &york).expect("enters");
        assert!(allows(&access, "session.list") && !allows(&access, "thing.delete"));
        assert_eq!(access.role_keys, ["device"]);
        assert_eq!(access.allow_sub_org_access, Some(true));
        assert!(!access.org_admin);
    }

    #[test]
    fn super_operators_see_everything_and_change_nothing() {
        let identity = demo();
        let mut operator = user(&identity, "viewer@basicorg.example");
        operator.super_ops = true;
        let access = identity.user_access(&operator, &org(&identity, "YorkOrg")).expect("enters");
        for name in ["session.list", "org.find", "thing.list", "alarm.history.multi", "diag.ping"] {
            assert!(allows(&access, name), "{name}");
        }
        for name in ["thing.delete", "mailbox.check", "user.delete", "method.exec", "thing"] {
            assert!(!allows(&access, name), "{name}");
        }
        assert!(access.super_ops && !access.super_admin && !access.org_admin);
        assert!(
            access.topic_subscribe.covers("#", None) && !access.topic_publish.allows("a", None)
        );
    }

    #[test]
    fn devices_of_the_demo_may_do_what_the_readme_shows() {
        let identity = demo();
        let application = identity.application_by_token("demo-token-basicorg");
        let application = application.expect("the application of the demo");
        let access = identity.application_access(&application).expect("the organisation exists");
        for name in
            ["session.list", "session.find", "thing.find", "thing.list", "org.find", "mailbox.ack"]
        {
            assert!(allows(&access, name), "{name}");
        }
        assert!(!allows(&access, "user.list") && !access.org_admin);
        assert_eq!(access.role_keys, ["device"]);
    }
}
