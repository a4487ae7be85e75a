//! Topic names and topic filters: which are valid, and which match (MQTT 4.7 and 4.8).

/// Bytes of the longest topic name or filter ([MQTT-4.7.3-3]).
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Whether `name` can be published to: 1 to 65,535 bytes, no wildcard, no U+0000.
pub fn valid_topic(name: &str) -> bool {
    fits(name) && !has_wildcard(name)
}

/// Whether `filter` can be subscribed to, shared or not: wildcards stand alone in their level,
/// `#` at the end ([MQTT-4.7.1-1], [MQTT-4.7.1-2]); a share has a name and a filter
/// ([MQTT-4.8.2-1], [MQTT-4.8.2-2]).
pub fn valid_filter(filter: &str) -> bool {
    if !fits(filter) {
        return false;
    }
    if !is_shared(filter) {
        return valid_levels(filter);
    }
    match parse_shared(filter) {
        Some(shared) => valid_levels(shared.filter),
        None => false,
    }
}

/// Whether `filter` asks for a shared subscription, well-formed or not.
pub fn is_shared(filter: &str) -> bool {
    filter == "$share" || filter.starts_with("$share/")
}

/// A shared subscription, `$share/<group>/<filter>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared<'a> {
    /// The share name: not empty, no `/`, `+` or `#`.
    pub group: &'a str,
    /// The filter: not empty, not judged.
    pub filter: &'a str,
}

/// Takes a shared subscription apart; `None` if it is not one or not well-formed.
pub fn parse_shared(filter: &str) -> Option<Shared<'_>> {
    let (group, filter) = filter.strip_prefix("$share/")?.split_once('/')?;
    let well = !group.is_empty() && !has_wildcard(group) && !filter.is_empty();
    well.then_some(Shared { group, filter })
}

/// Whether a topic name falls under a filter, both valid and not shared. Wildcards at the
/// beginning do not match names that begin with `$` ([MQTT-4.7.2-1]); `a/#` matches `a` too.
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(_) if level == "+" => {}
            Some(name) if name == level => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// Whether `text` has a `+` or a `#` anywhere.
#[inline]
fn has_wildcard(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

fn fits(text: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&text.len()) && !text.as_bytes().contains(&0)
}

fn valid_levels(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let well = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !has_wildcard(level),
        };
        if !well {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topic_names_have_no_wildcards() {
        let check = |name: &str, valid| assert_eq!(valid_topic(name), valid, "{name:?}");
        check("a", true);
        check("/", true);
        check("$SYS/x", true);
        check("reply/0001", true);
        check("", false);
        check("a/+", false);
        check("a#", false);
        check("a\0", false);
        check(&"x".repeat(65_536), false);
    }

    #[test]
    fn wildcards_stand_alone() {
        let check = |filter: &str, valid| assert_eq!(valid_filter(filter), valid, "{filter:?}");
        check("#", true);
        check("+", true);
        check("a/+/b/#", true);
        check("/+", true);
        check("//", true);
        check("$share/g/a/#", true);
        check("$share/g//", true);
        check("$shared/x", true);
        check("", false);
        check("a/#/b", false);
        check("a#", false);
        check("a/b+", false);
        check("++", false);
        check("$share", false);
        check("$share/g", false);
        check("$share/g/", false);
        check("$share//a", false);
        check("$share/g+/a", false);
        check("$share/g/a/#/b", false);
    }

    #[test]
    fn filters_match_as_the_specification_shows() {
        let check = |filter: &str, name: &str, expected| {
            assert_eq!(matches(filter, name), expected, "{filter:?} {name:?}");
        };
        check("sport/tennis/player1/#", "sport/tennis/player1", true);
        check("sport/tennis/player1/#", "sport/tennis/player1/ranking", true);
        check("sport/#", "sport", true);
        check("sport/#", "sports", false);
        check("#", "a/b", true);
        check("sport/tennis/+", "sport/tennis/player1", true);
        check("sport/tennis/+", "sport/tennis/player1/ranking", false);
        check("sport/+", "sport", false);
        check("sport/+", "sport/", true);
        check("+/+", "/finance", true);
        check("/+", "/finance", true);
        check("+", "/finance", false);
        check("#", "$SYS/x", false);
        check("+/monitor/Clients", "$SYS/monitor/Clients", false);
        check("$SYS/#", "$SYS/x", true);
        check("$SYS/monitor/+", "$SYS/monitor/Clients", true);
        check("ä/+", "ä/ö", true);
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_what_is_above_it(name in "[a-c/]{1,12}") {
            prop_assert!(matches(&name, &name));
            prop_assert!(matches("#", &name));
            for (at, _) in name.match_indices('/') {
                let above = name.get(..at).expect("at a slash");
                let filter = format!("{}/#", above);
                prop_assert!(matches(&filter, &name));
            }
        }
    }
}
