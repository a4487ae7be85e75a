//! The standard roles: `device`, `automation` and `developer`, which every new organisation owns and
//! which the vendor's setup scripts change by their keys (`docs/protocol/tr50.md` 3.4 and Annex A).

use base::{OrgId, RoleId, Timestamp};

use super::model::{Role, system};

/// A role that every organisation should own.
#[derive(Debug)]
pub struct StandardRole {
    /// Its key.
    pub key: &'static str,
    /// A name for people.
    pub name: &'static str,
    /// A family each, or what stands alone: see [`StandardRole::permissions`].
    families: &'static [&'static [&'static str]],
}

/// Of the published role of devices without the bare names of families, which would grant
/// `thing.delete` and the like, and what libtr50's sample, the apps of mowers and the README's
/// examples call besides.
const DEVICE: &[&str] = &[
    "alarm: batch current history publish",
    "attribute: batch current history publish",
    "file: get put",
    "location: batch current decode delete encode fixtypes history network.decode publish speedlimit \
     summary weather",
    "log: list publish",
    "mailbox: ack check send update",
    "method: exec",
    "module: register",
    "org: find",
    "property: batch current history publish",
    "session: find info list",
    "sms: send",
    "thing: attr.get attr.set attr.unset bind create find list tag.add tag.delete unbind update",
];

/// What the published role of developers has. A name alone is a family's.
const DEVELOPER: &[&str] = &[
    "alarm",
    "alarm: batch current delete history publish summary",
    "attribute",
    "attribute: batch current delete history publish",
    "aws",
    "aws: kinesis.firehose.put_record kinesis.stream.put_record lambda.invoke",
    "azure",
    "azure: event_hub.send service_bus.send",
    "campaign",
    "campaign: create find list member.add member.list member.remove pause resume schedule start \
     unschedule update",
    "counter",
    "counter: count fields types",
    "email",
    "email: send",
    "export",
    "export: export_thing",
    "file",
    "file: delete get list put tag.cloud",
    "geofence",
    "geofence: create delete find history list locate report summary tag.cloud things.within update",
    "location",
    "location: batch current decode delete encode fixtypes history network.decode network.donate \
     publish speedlimit summary weather",
    "log",
    "log: list publish",
    "mailbox",
    "mailbox: ack check find list send summary update",
    "method",
    "method: exec",
    "property",
    "property: aggregate batch current delete history publish stats summary",
    "search",
    "search: omni",
    "session",
    "session: list org.list",
    "slack",
    "slack: send",
    "sms: send",
    "thing",
    "thing: attr.get attr.set attr.unset bind create def.change delete find list near search \
     sectag.add sectag.cloud sectag.delete share.add share.remove tag.add tag.cloud tag.delete \
     unbind update",
    "thing_def",
    "thing_def: create delete find keys list update",
    "trigger",
    "trigger: create delete dynamic.exec dynamic.list find list report.find report.list \
     reset_counters start stop update",
    "twilio",
    "twilio: sms.send",
];

/// The published permissions that developers do not have.
const AUTOMATION_ALONE: &[&str] = &[
    "alarm: history.multi",
    "config",
    "config: get set",
    "mailbox: alias.create alias.delete alias.find alias.update",
    "module",
    "module: exec.history",
    "test",
    "thing: bulk.update",
    "thing_def: column_map",
];

/// Ours: ordinary topics of the organisation, which the vendor's roles do not know.
const TOPICS: &[&str] = &["topic: publish subscribe"];

/// The standard roles.
pub const STANDARD_ROLES: &[StandardRole] = &[
    StandardRole { key: "device", name: "Device", families: &[DEVICE, TOPICS] },
    StandardRole {
        key: "automation",
        name: "Automation",
        families: &[DEVELOPER, AUTOMATION_ALONE, TOPICS],
    },
    StandardRole { key: "developer", name: "Developer", families: &[DEVELOPER, TOPICS] },
];

impl StandardRole {
    /// The one with this key, in any case.
    pub fn named(key: &str) -> Option<&'static Self> {
        STANDARD_ROLES.iter().find(|role| role.key.eq_ignore_ascii_case(key))
    }

    /// It as a record without an id of its own, made by nobody.
    pub fn to_role(&self, org: OrgId, now: Timestamp) -> Role {
        Role {
            id: RoleId::from_bytes([0; 12]),
            key: self.key.to_owned(),
            name: self.name.to_owned(),
            org,
            permissions: self.permissions(),
            desc: String::new(),
            view_tags: Vec::new(),
            update_tags: Vec::new(),
            topic_publish: self.topic_filters(),
            topic_subscribe: self.topic_filters(),
            created_on: now,
            created_by: system(),
            updated: None,
        }
    }

    /// Filters of the ordinary topics that it has: all.
    pub fn topic_filters(&self) -> Vec<String> {
        vec!["#".to_owned()]
    }

    /// Its permissions, sorted.
    pub fn permissions(&self) -> Vec<String> {
        let mut names = Vec::new();
        for line in self.families.iter().copied().flatten() {
            match line.split_once(": ") {
                Some((family, commands)) => {
                    let commands = commands.split_whitespace();
                    names.extend(commands.map(|command| format!("{family}.{command}")));
                }
                None => names.push((*line).to_owned()),
            }
        }
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::permission::{Permission, PermissionSet};
    use super::*;

    #[test]
    fn every_name_is_a_permission_and_stands_once() {
        for role in STANDARD_ROLES {
            let names = role.permissions();
            let distinct: BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "{}", role.key);
            for name in names {
                assert!(Permission::named(&name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn they_have_as_many_as_are_published_and_topics() {
        let published = |role: &StandardRole| {
            let names = role.permissions().into_iter();
            names.filter(|name| !name.starts_with("topic.")).count()
        };
        let count = |key| StandardRole::named(key).map(published);
        assert_eq!(
            (count("DEVELOPER"), count("automation"), count("nobody")),
            (Some(147), Some(160), None)
        );
    }

    #[test]
    fn a_device_may_delete_nothing_but_what_it_publishes() {
        let device = StandardRole::named("device").expect("it is there");
        let granted = PermissionSet::from_names(device.permissions());
        for name in ["thing.delete", "thing.search", "file.delete", "app.create", "user.find"] {
            let permission = Permission::named(name).expect("a permission");
            assert!(!granted.allows(permission), "{name}");
        }
    }
}
