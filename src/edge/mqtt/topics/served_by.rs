//! Who serves the filters that clients subscribe to.

use base::topic;

use crate::app::is_event_filter;
use crate::things::feed::ThingTopic;

/// Who serves a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ServedBy {
    /// The edge: only the dispatcher publishes there.
    Edge,
    /// The feed of changes of things: one of its topics, without wildcards.
    Feed,
    /// The broker; also for topics of things, if there are wildcards.
    Broker,
    /// The broker, for events.
    Events,
    /// Nobody: it is not for clients to read.
    Nobody,
}

impl ServedBy {
    pub(super) fn of(filter: &str) -> Self {
        let first = |filter| str::split(filter, '/').next().unwrap_or_default();
        match first(filter) {
            "reply" | "replyz" | "notify" => Self::Edge,
            "api" | "apiz" => Self::Nobody,
            "thing" if filter.contains(['+', '#']) || filter == "thing" => Self::Broker,
            "thing" if ThingTopic::parse(filter).is_some() => Self::Feed,
            "thing" => Self::Nobody,
            // The broker shares what it has, and none of these.
            "$share" => match topic::parse_shared(filter).map(|shared| first(shared.filter)) {
                Some("reply" | "replyz" | "notify" | "api" | "apiz") => Self::Nobody,
                _ => Self::Broker,
            },
            "$events" if is_event_filter(filter) => Self::Events,
            first if first.starts_with('$') => Self::Nobody,
            _ => Self::Broker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_one_server() {
        let check = |filter, expected| assert_eq!(ServedBy::of(filter), expected, "{filter}");
        check("reply/#", ServedBy::Edge);
        check("reply", ServedBy::Edge);
        check("notify/mailbox_activity", ServedBy::Edge);
        check("api/#", ServedBy::Nobody);
        check("$SYS/#", ServedBy::Nobody);
        check("$events/#", ServedBy::Events);
        check("$events", ServedBy::Nobody);
        check("$share/g/a/b", ServedBy::Broker);
        check("#", ServedBy::Broker);
        check("replies/1", ServedBy::Broker);
        check("thing/mower-1/property/temp", ServedBy::Feed);
        check("thing/self/location", ServedBy::Feed);
        check("thing/mower-1/property/a/b", ServedBy::Feed);
        check("thing/mower-1/property/+", ServedBy::Broker);
        check("$share/g/thing/mower-1/location", ServedBy::Broker);
        check("thing", ServedBy::Broker);
        check("thing/mower-1", ServedBy::Nobody);
        check("thing/mower-1/property", ServedBy::Nobody);
        check("thing/mower-1/property/", ServedBy::Nobody);
        check("thing//location", ServedBy::Nobody);
    }
}
