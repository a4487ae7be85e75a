//! Permissions: the names of commands, and of groups of commands (`docs/protocol/tr50.md` 3.4 and
//! Annex A).

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU64, Ordering as Memory};

/// Every permission, sorted: the commands of `docs/protocol/tr50.md` 3.2 and 4 and the names of
/// Annex A, each family's bare name beside its members, and commands of our own.
const NAMES: &[&str] = &[
    "activity_log",
    "activity_log.publish",
    "alarm",
    "alarm.batch",
    "alarm.current",
    "alarm.delete",
    "alarm.history",
    "alarm.history.multi",
    "alarm.publish",
    "alarm.summary",
    "api",
    "api.authenticate",
    "api.ping",
    "app",
    "app.create",
    "app.delete",
    "app.find",
    "app.list",
    "app.token.create",
    "app.token.delete",
    "app.token.list",
    "app.token.update",
    "app.update",
    "attribute",
    "attribute.batch",
    "attribute.current",
    "attribute.delete",
    "attribute.history",
    "attribute.publish",
    "audit",
    "audit.list",
    "aws",
    "aws.kinesis.firehose.put_record",
    "aws.kinesis.stream.put_record",
    "aws.lambda.invoke",
    "azure",
    "azure.event_hub.send",
    "azure.service_bus.send",
    "campaign",
    "campaign.create",
    "campaign.find",
    "campaign.list",
    "campaign.member.add",
    "campaign.member.list",
    "campaign.member.remove",
    "campaign.pause",
    "campaign.resume",
    "campaign.schedule",
    "campaign.start",
    "campaign.unschedule",
    "campaign.update",
    "cloudsms",
    "cloudsms.send",
    "config",
    "config.get",
    "config.set",
    "counter",
    "counter.count",
    "counter.fields",
    "counter.types",
    "diag",
    "diag.echo",
    "diag.ping",
    "diag.time",
    "email",
    "email.send",
    "event",
    "event.list",
    "export",
    "export.export_thing",
    "file",
    "file.delete",
    "file.get",
    "file.list",
    "file.put",
    "file.tag.cloud",
    "geofence",
    "geofence.create",
    "geofence.delete",
    "geofence.find",
    "geofence.history",
    "geofence.list",
    "geofence.locate",
    "geofence.report",
    "geofence.summary",
    "geofence.tag.cloud",
    "geofence.things.within",
    "geofence.update",
    "locale",
    "locale.get",
    "locale.list",
    "locale.set",
    "location",
    "location.batch",
    "location.current",
    "location.decode",
    "location.delete",
    "location.encode",
    "location.fixtypes",
    "location.history",
    "location.network.decode",
    "location.network.donate",
    "location.publish",
    "location.speedlimit",
    "location.summary",
    "location.weather",
    "log",
    "log.list",
    "log.publish",
    "login",
    "login.failures",
    "mailbox",
    "mailbox.ack",
    "mailbox.alias.create",
    "mailbox.alias.delete",
    "mailbox.alias.find",
    "mailbox.alias.update",
    "mailbox.check",
    "mailbox.find",
    "mailbox.list",
    "mailbox.purge",
    "mailbox.send",
    "mailbox.summary",
    "mailbox.update",
    "method",
    "method.exec",
    "metrics",
    "module",
    "module.diag",
    "module.exec",
    "module.exec.history",
    "module.locate",
    "module.ping",
    "module.register",
    "org",
    "org.create",
    "org.delete",
    "org.find",
    "org.list",
    "org.update",
    "property",
    "property.aggregate",
    "property.batch",
    "property.current",
    "property.delete",
    "property.history",
    "property.publish",
    "property.stats",
    "property.summary",
    "role",
    "role.create",
    "role.delete",
    "role.find",
    "role.list",
    "role.perms",
    "role.update",
    "search",
    "search.omni",
    "server",
    "server.log.level",
    "server.log.watch",
    "server.status",
    "session",
    "session.end",
    "session.explain",
    "session.find",
    "session.info",
    "session.list",
    "session.mine",
    "session.org.list",
    "session.org.switch",
    "slack",
    "slack.send",
    "sms",
    "sms.send",
    "stats",
    "stats.series",
    "test",
    "thing",
    "thing.aggregate",
    "thing.aggregate.locations",
    "thing.alarm.states",
    "thing.appid.reset",
    "thing.attr.get",
    "thing.attr.set",
    "thing.attr.unset",
    "thing.bind",
    "thing.bulk.update",
    "thing.controltag.add",
    "thing.create",
    "thing.def.change",
    "thing.delete",
    "thing.diagnose",
    "thing.dump",
    "thing.find",
    "thing.list",
    "thing.near",
    "thing.search",
    "thing.sectag.add",
    "thing.sectag.cloud",
    "thing.sectag.delete",
    "thing.share.add",
    "thing.share.remove",
    "thing.tag.add",
    "thing.tag.cloud",
    "thing.tag.delete",
    "thing.trace",
    "thing.unbind",
    "thing.update",
    "thing_def",
    "thing_def.column_map",
    "thing_def.create",
    "thing_def.delete",
    "thing_def.find",
    "thing_def.keys",
    "thing_def.list",
    "thing_def.update",
    "topic",
    "topic.publish",
    "topic.subscribe",
    "trigger",
    "trigger.action.list",
    "trigger.create",
    "trigger.delete",
    "trigger.dynamic.exec",
    "trigger.dynamic.list",
    "trigger.event.list",
    "trigger.find",
    "trigger.list",
    "trigger.report.find",
    "trigger.report.list",
    "trigger.reset_counters",
    "trigger.start",
    "trigger.stop",
    "trigger.template.generate",
    "trigger.template.list",
    "trigger.update",
    "tunnel",
    "tunnel.close",
    "tunnel.history",
    "tunnel.open",
    "twilio",
    "twilio.sms.send",
    "usage",
    "usage.connection.history",
    "usage.thing.history",
    "user",
    "user.create",
    "user.delete",
    "user.find",
    "user.invite.accept",
    "user.invite.decline",
    "user.invite.list",
    "user.list",
    "user.mfa.confirm",
    "user.mfa.enrol",
    "user.mfa.find",
    "user.mfa.remove",
    "user.org.add",
    "user.org.find",
    "user.org.list",
    "user.org.remove",
    "user.org.set",
    "user.org.update",
    "user.setting.get",
    "user.setting.list",
    "user.setting.set",
    "user.token.create",
    "user.token.delete",
    "user.token.list",
    "user.token.update",
    "user.update",
    "webhook",
    "webhook.create",
    "webhook.delete",
    "webhook.list",
    "webhook.update",
];

/// 64-bit words in a set: a power of two, so that a masked index needs no bounds check.
const WORDS: usize = NAMES.len().div_ceil(64).next_power_of_two();

/// A permission: the name of a command, or of a family of commands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Permission(u16);

impl Permission {
    /// The permission with this name, whatever its case; none if no command is called so. For
    /// start-up: keep what it returns.
    pub fn named(name: &str) -> Option<Self> {
        let found = NAMES.binary_search_by(|known| compare_case_blind(known, name));
        found.ok().and_then(|index| u16::try_from(index).ok()).map(Self)
    }

    /// Its name, such as `session.list`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PermissionSet([u64; WORDS]);

impl PermissionSet {
    /// No permission.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Every permission.
    pub const ALL: Self = {
        let mut words = [0; WORDS];
        let mut index = 0;
        while index < NAMES.len() {
            words[index / 64] |= 1 << (index % 64);
            index += 1;
        }
        Self(words)
    };

    /// The set that these names grant, whatever their case. A family's bare name (`session`)
    /// grants the whole family; a name that no command has grants nothing.
    pub fn from_names<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Self {
        let mut set = Self::EMPTY;
        for name in names {
            let Some(permission) = Permission::named(name.as_ref()) else {
                continue;
            };
            let granted = permission.name();
            set.insert(permission);
            if !granted.contains('.') {
                set = set.union(&Self::of_names_that(|member| family(member) == granted));
            }
        }
        set
    }

    /// The set of just these names: a family's bare name stands for itself alone.
    pub fn from_exact_names<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Self {
        let mut set = Self::EMPTY;
        names.into_iter().filter_map(|name| Permission::named(name.as_ref())).for_each(|known| {
            set.insert(known);
        });
        set
    }

    /// The set of all permissions whose name passes the test.
    pub fn of_names_that(pass: impl Fn(&str) -> bool) -> Self {
        let mut set = Self::EMPTY;
        for permission in every().filter(|permission| pass(permission.name())) {
            set.insert(permission);
        }
        set
    }

    /// Whether the permission is in the set. No branch: it is asked for every command.
    pub const fn allows(&self, permission: Permission) -> bool {
        let index = permission.0 as usize;
        self.0[(index / 64) & (WORDS - 1)] >> (index % 64) & 1 == 1
    }

    /// Whether the permission of this name is in the set, if there is such a one.
    pub fn allows_named(&self, name: &str) -> bool {
        Permission::named(name).is_some_and(|permission| self.allows(permission))
    }

    /// What is in this set or in the other.
    pub fn union(mut self, other: &Self) -> Self {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        self
    }

    /// What is in this set and not in the other.
    pub fn without(mut self, other: &Self) -> Self {
        for (word, less) in self.0.iter_mut().zip(other.0) {
            *word &= !less;
        }
        self
    }

    /// What is in this set and in the other.
    pub fn intersection(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word &= other;
        }
        self
    }

    /// Whether everything of the other set is in this one.
    pub fn contains(&self, other: &Self) -> bool {
        self.union(other) == *self
    }

    /// The names in the set, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let set = *self;
        every().filter(move |permission| set.allows(*permission)).map(Permission::name)
    }

    fn insert(&mut self, permission: Permission) {
        let index = usize::from(permission.0);
        self.0[index / 64] |= 1 << (index % 64);
    }
}

/// A set that is asked while it changes. Each permission is in one word, so that an answer is never
/// a mixture.
#[derive(Debug)]
pub struct SharedPermissions([AtomicU64; WORDS]);

impl SharedPermissions {
    /// Whether the permission is in the set.
    pub fn allows(&self, permission: Permission) -> bool {
        let index = usize::from(permission.0);
        self.0[(index / 64) & (WORDS - 1)].load(Memory::Acquire) >> (index % 64) & 1 == 1
    }

    /// Takes the place of the set.
    pub fn set(&self, permissions: PermissionSet) {
        for (word, new) in self.0.iter().zip(permissions.0) {
            word.store(new, Memory::Release);
        }
    }
}

impl From<PermissionSet> for SharedPermissions {
    fn from(permissions: PermissionSet) -> Self {
        Self(permissions.0.map(AtomicU64::new))
    }
}

impl std::fmt::Debug for PermissionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

fn every() -> impl Iterator<Item = Permission> {
    (0..NAMES.len()).filter_map(|index| u16::try_from(index).ok()).map(Permission)
}

/// The name up to its first dot.
fn family(name: &str) -> &str {
    name.split_once('.').map_or(name, |(family, _)| family)
}

fn compare_case_blind(known: &str, name: &str) -> Ordering {
    known.bytes().cmp(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Annex A of `docs/protocol/tr50.md`, word by word.
    const ANNEX_A: &str = "\
        alarm alarm.batch alarm.current alarm.delete alarm.history alarm.history.multi \
        alarm.publish alarm.summary attribute attribute.batch attribute.current \
        attribute.delete attribute.history attribute.publish aws \
        aws.kinesis.firehose.put_record aws.kinesis.stream.put_record aws.lambda.invoke \
        azure azure.event_hub.send azure.service_bus.send campaign campaign.create \
        campaign.find campaign.list campaign.member.add campaign.member.list \
        campaign.member.remove campaign.pause campaign.resume campaign.schedule \
        campaign.start campaign.unschedule campaign.update config config.get config.set \
        counter counter.count counter.fields counter.types email email.send export \
        export.export_thing file file.delete file.get file.list file.put file.tag.cloud \
        geofence geofence.create geofence.delete geofence.find geofence.history \
        geofence.list geofence.locate geofence.report geofence.summary geofence.tag.cloud \
        geofence.things.within geofence.update location location.batch location.current \
        location.decode location.delete location.encode location.fixtypes location.history \
        location.network.decode location.network.donate location.publish location.speedlimit \
        location.summary location.weather log log.list log.publish mailbox mailbox.ack \
        mailbox.alias.create mailbox.alias.delete mailbox.alias.find mailbox.alias.update \
        mailbox.check mailbox.find mailbox.list mailbox.send mailbox.summary mailbox.update \
        method method.exec module module.exec.history property property.aggregate \
        property.batch property.current property.delete property.history property.publish \
        property.stats property.summary search search.omni session session.list \
        session.org.list slack slack.send sms.send test thing thing.attr.get thing.attr.set \
        thing.attr.unset thing.bind thing.bulk.update thing.create thing.def.change \
        thing.delete thing.find thing.list thing.near thing.search thing.sectag.add \
        thing.sectag.cloud thing.sectag.delete thing.share.add thing.share.remove \
        thing.tag.add thing.tag.cloud thing.tag.delete thing.unbind thing.update thing_def \
        thing_def.column_map thing_def.create thing_def.delete thing_def.find thing_def.keys \
        thing_def.list thing_def.update trigger trigger.create trigger.delete \
        trigger.dynamic.exec trigger.dynamic.list trigger.find trigger.list \
        trigger.report.find trigger.report.list trigger.reset_counters trigger.start \
        trigger.stop trigger.update twilio twilio.sms.send";

    #[test]
    fn the_vocabulary_is_sorted_and_holds_annex_a() {
        assert!(NAMES.is_sorted_by(|a, b| a < b));
        assert!(NAMES.iter().all(|name| *name == name.to_ascii_lowercase()));
        let annex: Vec<&str> = ANNEX_A.split_whitespace().collect();
        assert_eq!(annex.len(), 160);
        for name in annex {
            assert_eq!(Permission::named(name).map(Permission::name), Some(name));
        }
        for name in NAMES {
            assert!(Permission::named(family(name)).is_some(), "{name} has a family");
        }
    }

    #[test]
    fn names_are_found_whatever_their_case() {
        let check = |name, found: Option<&str>| {
            assert_eq!(Permission::named(name).map(Permission::name), found, "{name}");
        };
        check("Session.LIST", Some("session.list"));
        check("session", Some("session"));
        check("session.", None);
        check("sessions", None);
        check("", None);
        check("séssion", None);
    }

    #[test]
    fn a_family_grants_its_members_and_nothing_else() {
        let check = |names: &[&str], allowed: &[&str], refused: &[&str]| {
            let set = PermissionSet::from_names(names);
            let allows = |name: &str| set.allows(Permission::named(name).expect("a name"));
            assert!(allowed.iter().all(|name| allows(name)), "{names:?}: {set:?}");
            assert!(!refused.iter().any(|name| allows(name)), "{names:?}: {set:?}");
        };
        check(&["session"], &["session.list", "session.org.list", "session"], &["search.omni"]);
        check(&["Thing"], &["thing.list", "thing.attr.get"], &["thing_def", "thing_def.list"]);
        check(&["alarm.history"], &["alarm.history"], &["alarm.history.multi", "alarm"]);
        check(&["no.such.name"], &[], &["session.list"]);
    }

    #[test]
    fn a_shared_set_is_asked_as_it_is_now() {
        let few = PermissionSet::from_names(["api.ping", "user"]);
        let shared = SharedPermissions::from(few);
        assert!(every().all(|permission| shared.allows(permission) == few.allows(permission)));
        shared.set(PermissionSet::ALL);
        assert!(every().all(|permission| shared.allows(permission)));
        shared.set(PermissionSet::EMPTY);
        assert!(!every().any(|permission| shared.allows(permission)));
    }

    #[test]
    fn all_and_empty_are_what_they_say() {
        assert_eq!(PermissionSet::ALL.names().count(), NAMES.len());
        assert_eq!(PermissionSet::EMPTY.names().count(), 0);
        assert_eq!(PermissionSet::from_names(PermissionSet::ALL.names()), PermissionSet::ALL);
        assert_eq!(PermissionSet::from_names(NAMES.iter().rev()), PermissionSet::ALL);
        let (some, more) = (["org.find"], ["org.find", "org.list"]);
        let (some, more) = (PermissionSet::from_names(some), PermissionSet::from_names(more));
        assert!(more.contains(&some) && more.contains(&more) && !some.contains(&more));
    }
}
