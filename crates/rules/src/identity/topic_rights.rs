//! Which ordinary MQTT topics somebody may publish or subscribe to: the filters of roles, joined.

use std::sync::{Arc, LazyLock};

use base::{limits, topic};
use smallvec::SmallVec;

use super::model::User;

/// Stands for the key of the session's thing in a filter of a role.
const THING_KEY: &str = "%thingKey%";

/// Stands for the user of the session: for the id and for the e-mail address.
const USER: &str = "%user%";

/// The rule of the filters of roles.
pub const TOPIC_FILTER_RULE: &str = "a topic filter of at most 1024 bytes and 64 levels that does \
                                     not begin with \"$\", and has \"%\" in %thingKey% and %user% only";

/// Whether a role may have this filter.
pub fn is_topic_filter(text: &str) -> bool {
    let filter = filter_of(text, "x");
    text.len() <= limits::FILTER_BYTES_MAX
        && text.split('/').count() <= limits::ROLE_FILTER_LEVELS_MAX
        && topic::valid_filter(&filter)
        && !filter.starts_with('$')
        && !filter.contains('%')
}

/// The filter with something in the place of what stands for the session's own names.
fn filter_of(text: &str, own: &str) -> String {
    text.replace(THING_KEY, own).replace(USER, own)
}

/// The topics that somebody may publish to, or subscribe to. Ordinary topics never begin with `$`.
/// Each session has some, so they hold no more than what is the session's own.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TopicRights {
    /// All of them.
    all: bool,
    /// Of the others only those below the key of the session's own thing.
    below_own_key: bool,
    /// Whether they are a user's, who has no thing.
    of_user: bool,
    /// The names of the user, if filters ask for them.
    users: Box<[Box<str>]>,
    filters: SmallVec<[TopicFilters; 1]>,
}

/// The filters of a role, which all who hold it share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicFilters(Arc<Root>);

/// Level by level which filters have what there. A walk looks each level up once, however many filters
/// go on from it: with nodes for what begins alike, 500 that differ only at their ends would be as many
/// looks a level, in every publish.
#[derive(PartialEq, Eq, Default, Debug)]
struct Root {
    /// How many there are.
    count: usize,
    levels: Vec<Level>,
    /// Whether one asks for the names of a user.
    named: bool,
}

/// Filters of a role: a bit for each, by their numbers.
type Set = SmallVec<[u64; 2]>;

/// Which filters have what at a level.
#[derive(PartialEq, Eq, Default, Debug)]
struct Level {
    /// In their order.
    texts: Vec<(Box<str>, Set)>,
    keyed: Vec<(Keyed, Set)>,
    /// A `+`.
    any: Set,
    /// Nothing: they end before it.
    end: Set,
    /// A `#`.
    below: Set,
}

/// A level with one of the session's own names in it, and the texts around it.
#[derive(PartialEq, Eq, Debug)]
struct Keyed {
    name: Name,
    around: Box<[Box<str>]>,
}

/// Which of the session's own names a level has in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Thing,
    User,
}

/// The session's own names, where it has them.
#[derive(Clone, Copy)]
struct Own<'o> {
    thing: Option<&'o str>,
    user: Option<&'o str>,
}

impl<'o> Own<'o> {
    fn named(self, name: Name) -> Option<&'o str> {
        match name {
            Name::Thing => self.thing,
            Name::User => self.user,
        }
    }
}

/// The filter of all topics.
static ALL: LazyLock<TopicFilters> = LazyLock::new(|| TopicFilters::new(["#"]));

impl TopicFilters {
    /// Reads the filters of a role.
    pub fn new<'f>(filters: impl IntoIterator<Item = &'f str>) -> Self {
        // Nobody has both names.
        let possible = |filter: &&str| !(filter.contains(THING_KEY) && filter.contains(USER));
        let mut filters: Vec<_> = filters.into_iter().filter(possible).collect();
        filters.sort_unstable();
        filters.dedup();
        let named = filters.iter().any(|filter| filter.contains(USER));
        let mut root = Root { count: filters.len(), levels: Vec::new(), named };
        for (number, filter) in filters.into_iter().enumerate() {
            root.add(number, filter);
        }
        Self(Arc::new(root))
    }

    /// The filter of all topics.
    pub fn all() -> Self {
        ALL.clone()
    }
}

impl TopicRights {
    /// Every topic.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// What these filters of roles allow; `user`: the holder, if it is one.
    pub fn new<'f>(
        filters: impl IntoIterator<Item = &'f TopicFilters>,
        user: Option<&User>,
    ) -> Self {
        let mut rights = Self { of_user: user.is_some(), ..Self::default() };
        for more in filters {
            if !rights.filters.iter().any(|known| Arc::ptr_eq(&known.0, &more.0)) {
                rights.filters.push(more.clone());
            }
        }
        if let (Some(user), true) = (user, rights.filters.iter().any(|one| one.0.named)) {
            let names = [user.id.to_string(), user.email.clone()];
            let names = names.into_iter().filter(|name| is_level(name));
            rights.users = names.map(String::into_boxed_str).collect();
        }
        if rights.covers("#", None) { Self::all() } else { rights }
    }

    /// The same, but only below the key of the session's own thing.
    #[must_use]
    pub fn below_own_key(mut self) -> Self {
        if std::mem::take(&mut self.all) {
            self.filters.push(TopicFilters::all());
        }
        self.below_own_key = true;
        self
    }

    pub(super) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Whether the topic is among them. `own`: the key of the session's thing. Free of allocations
    /// for who has a few roles, and one branch for who may everything.
    pub fn allows(&self, name: &str, own: Option<&str>) -> bool {
        self.all || self.covers_some(name, own)
    }

    /// Whether all ordinary topics are among them that a filter matches, which is not shared.
    pub fn covers(&self, filter: &str, own: Option<&str>) -> bool {
        self.all || self.covers_some(filter, own)
    }

    /// Whether they are as many as a filter of a role gives to whoever may hold it.
    pub fn covers_of_all(&self, filter: &str, own: Option<&str>) -> bool {
        let widest = |level: &str| match level.contains(THING_KEY) || level.contains(USER) {
            true => "+".to_owned(),
            false => level.to_owned(),
        };
        self.covers(&filter.split('/').map(widest).collect::<Vec<_>>().join("/"), own)
    }

    fn covers_some(&self, filter: &str, own: Option<&str>) -> bool {
        let own = own.filter(|own| is_level(own));
        if self.below_own_key {
            let first = filter.split('/').next();
            if own.is_none() || first != own {
                return false;
            }
        }
        let thing = own.filter(|_| !self.of_user);
        if self.users.is_empty() {
            return cover(&self.filters, filter, Own { thing, user: None });
        }
        // Each of the names by itself: no filter has a part of both.
        let by = |user: &str| cover(&self.filters, filter, Own { thing, user: Some(user) });
        self.users.iter().any(|user| by(user))
    }
}

/// Whether a name can be a level of a topic, or a part of one: then it makes no filter wider.
fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#', '\0'])
}

impl Root {
    fn add(&mut self, number: usize, filter: &str) {
        let mut depth = 0;
        for level in filter.split('/') {
            let at = self.at(depth);
            let set = match level {
                "#" => return put(&mut at.below, number),
                "+" => &mut at.any,
                keyed if keyed.contains(THING_KEY) => at.keyed(Name::Thing, THING_KEY, keyed),
                keyed if keyed.contains(USER) => at.keyed(Name::User, USER, keyed),
                text => at.text(text),
            };
            put(set, number);
            depth += 1;
        }
        put(&mut self.at(depth).end, number);
    }

    fn at(&mut self, depth: usize) -> &mut Level {
        if self.levels.len() <= depth {
            self.levels.resize_with(depth + 1, Level::default);
        }
        &mut self.levels[depth]
    }
}

fn put(set: &mut Set, number: usize) {
    let (word, bit) = (number / 64, number % 64);
    if set.len() <= word {
        set.resize(word + 1, 0);
    }
    set[word] |= 1 << bit;
}

fn meets(set: &[u64], other: &[u64]) -> bool {
    set.iter().zip(other).any(|(word, other)| word & other != 0)
}

impl Level {
    fn text(&mut self, text: &str) -> &mut Set {
        let found = self.texts.binary_search_by(|(known, _)| (**known).cmp(text));
        let index = found.unwrap_or_else(|index| {
            // Most levels have one.
            self.texts.reserve_exact(1);
            self.texts.insert(index, (text.into(), Set::default()));
            index
        });
        &mut self.texts[index].1
    }

    fn keyed(&mut self, name: Name, place: &str, level: &str) -> &mut Set {
        let level = Keyed { name, around: level.split(place).map(Into::into).collect() };
        let found = self.keyed.iter().position(|(known, _)| *known == level);
        let index = found.unwrap_or_else(|| {
            self.keyed.reserve_exact(1);
            self.keyed.push((level, Set::default()));
            self.keyed.len() - 1
        });
        &mut self.keyed[index].1
    }
}

/// The filters of a role that have come as far as what is looked for.
struct Walk<'f> {
    filters: &'f Root,
    left: SmallVec<[u64; 8]>,
}

type Walks<'f> = SmallVec<[Walk<'f>; 4]>;

impl<'f> Walk<'f> {
    fn new(TopicFilters(filters): &'f TopicFilters) -> Self {
        let words = (0..filters.count).step_by(64);
        let left = words.map(|first| u64::MAX >> (64 - (filters.count - first).min(64)));
        Self { filters, left: left.collect() }
    }

    /// Whether one of them is in this set of a level.
    fn has(&self, depth: usize, set: fn(&Level) -> &Set) -> bool {
        let set = self.filters.levels.get(depth).map(set);
        set.is_some_and(|set| meets(set, &self.left))
    }

    /// Leaves those that have this text at this level; false if none has.
    fn go_on(&mut self, depth: usize, text: &str, own: Own<'_>) -> bool {
        let Some(level) = self.filters.levels.get(depth) else { return false };
        let mut sets: SmallVec<[&Set; 8]> = SmallVec::new();
        sets.push(&level.any);
        if text != "+" {
            let found = level.texts.binary_search_by(|(known, _)| (**known).cmp(text));
            sets.extend(found.ok().map(|index| &level.texts[index].1));
            let is = |keyed: &Keyed, set: &Set| {
                let own = own.named(keyed.name).filter(|_| meets(set, &self.left));
                own.is_some_and(|own| is_around(text, &keyed.around, own))
            };
            let keyed = level.keyed.iter().filter(|(keyed, set)| is(keyed, set));
            sets.extend(keyed.map(|(_, set)| set));
        }
        let mut some = 0;
        for (word, left) in self.left.iter_mut().enumerate() {
            *left &= sets.iter().filter_map(|set| set.get(word)).fold(0, |all, word| all | word);
            some |= *left;
        }
        some != 0
    }
}

/// Whether all names that a filter matches fall under filters of these roles. A wildcard of one level
/// stands for a text that none of them has: what matches that matches every text.
fn cover(roles: &[TopicFilters], filter: &str, own: Own<'_>) -> bool {
    // A name has a level at least.
    let filter = if filter == "#" { "+/#" } else { filter };
    let mut walks: Walks<'_> = roles.iter().map(Walk::new).collect();
    let mut depth = 0;
    for level in filter.split('/') {
        if walks.iter().any(|walk| walk.has(depth, |level| &level.below)) {
            return true;
        }
        if level == "#" {
            return cover_rest(walks, depth, own);
        }
        walks.retain(|walk| walk.go_on(depth, level, own));
        // A topic may have 65,535 levels.
        if walks.is_empty() {
            return false;
        }
        depth += 1;
    }
    let ends = |walk: &Walk<'_>| {
        walk.has(depth, |level| &level.end) || walk.has(depth, |level| &level.below)
    };
    walks.iter().any(ends)
}

/// Whether all names that go on from here fall under a filter.
fn cover_rest(mut walks: Walks<'_>, mut depth: usize, own: Own<'_>) -> bool {
    loop {
        if walks.iter().any(|walk| walk.has(depth, |level| &level.below)) {
            return true;
        }
        if !walks.iter().any(|walk| walk.has(depth, |level| &level.end)) {
            return false;
        }
        walks.retain(|walk| walk.go_on(depth, "+", own));
        depth += 1;
    }
}

/// Whether a level is these texts with the key between them.
fn is_around(level: &str, around: &[Box<str>], key: &str) -> bool {
    let mut rest = level;
    for (index, text) in around.iter().enumerate() {
        let begin = if index == 0 { Some(rest) } else { rest.strip_prefix(key) };
        let Some(left) = begin.and_then(|left| left.strip_prefix(&**text)) else { return false };
        rest = left;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::demo;
    use super::*;

    fn rights(filters: &[&str]) -> TopicRights {
        TopicRights::new([&TopicFilters::new(filters.iter().copied())], None)
    }

    #[test]
    fn a_filter_is_covered_by_what_matches_all_of_it() {
        let check = |filters: &[&str], filter: &str, expected: bool| {
            assert_eq!(rights(filters).covers(filter, None), expected, "{filters:?} {filter}");
        };
        for all in [&["#"][..], &["+/#"], &["+", "+/+/#"], &["+", "+/+", "+/+/#"]] {
            for filter in ["#", "+", "a", "+/+", "a/#", "/", "+/#"] {
                check(all, filter, true);
            }
        }
        check(&[], "#", false);
        check(&[], "a", false);
        check(&["a"], "a", true);
        check(&["a"], "a/#", false);
        check(&["a"], "+", false);
        check(&["a"], "a/b", false);
        check(&["a/#"], "a", true);
        check(&["a/#"], "a/#", true);
        check(&["a/#"], "a/+/b", true);
        check(&["a/#"], "#", false);
        check(&["a/#"], "+/b", false);
        check(&["a/#"], "ab/c", false);
        check(&["a/+"], "a/+", true);
        check(&["a/+"], "a/", true);
        check(&["a/+"], "a", false);
        check(&["a/+"], "a/#", false);
        check(&["a/+"], "a/b/c", false);
        check(&["a", "a/+/#"], "a/#", true);
        check(&["a", "a/+", "a/+/+/#"], "a/#", true);
        check(&["a", "a/+/+/#"], "a/#", false);
        check(&["a/+/c", "+/b/+"], "a/b/+", true);
        check(&["a/+/c", "+/b/+"], "a/+/+", false);
        check(&["a/b", "+/c"], "+/b", false);
        check(&["+"], "#", false);
        check(&["+/+"], "a", false);
        assert_eq!(rights(&["+", "+/+/#"]), TopicRights::all());
    }

    #[test]
    fn own_names_make_no_filter_wider() {
        let keyed = rights(&["%thingKey%/#", "dev-%thingKey%-x/%thingKey%/+", "all"]);
        let check = |own: Option<&str>, filter: &str, expected: bool| {
            assert_eq!(keyed.covers(filter, own), expected, "{own:?} {filter}");
        };
        check(Some("m1"), "m1/#", true);
        check(Some("m1"), "m1", true);
        check(Some("m1"), "m10/#", false);
        check(Some("m1"), "m2/#", false);
        check(Some("m1"), "+/#", false);
        check(Some("m1"), "dev-m1-x/m1/+", true);
        check(Some("m1"), "dev-m2-x/m1/+", false);
        check(Some("m1"), "dev-m1-xm1/m1/+", false);
        check(Some("a%thingKey%"), "a%thingKey%/b", true);
        check(Some("%user%"), "x/b", false);
        check(None, "m1/a", false);
        check(None, "all", true);
        for own in ["", "+", "#", "a/b", "a+", "a\0"] {
            check(Some(own), "+/x", false);
            check(Some(own), "a/b/c", false);
            check(Some(own), &format!("{own}/x"), false);
        }
        assert!(!rights(&["u/%user%/#"]).covers("u/%user%/a", Some("m")));
    }

    #[test]
    fn a_user_is_meant_by_id_and_by_address() {
        let identity = demo();
        let viewer = identity.user_by_email("viewer@basicorg.example").expect("a user");
        let check = |user: &User, name: &str, expected: bool| {
            let filters = ["u/%user%/#", "%thingKey%/#"].map(|filter| TopicFilters::new([filter]));
            let rights = TopicRights::new(&filters, Some(user));
            assert_eq!(rights.covers(&format!("u/{name}/#"), Some(name)), expected, "{name}");
            assert!(!rights.covers(&format!("{name}/#"), Some(name)));
        };
        check(&viewer, "viewer@basicorg.example", true);
        check(&viewer, &viewer.id.to_string(), true);
        check(&viewer, "operator@basicorg.example", false);
        for email in ["a+b@c", "a/b@c", "#@c", "+", "%thingKey%@b"] {
            let user = User { email: email.to_owned(), ..User::clone(&viewer) };
            check(&user, email, email == "%thingKey%@b");
            check(&user, "+", false);
            check(&user, &viewer.id.to_string(), true);
        }
    }

    #[test]
    fn who_is_restricted_has_what_is_below_the_own_key() {
        for given in [&["#"][..], &["+/#"]] {
            let rights = rights(given).below_own_key();
            for (filter, expected) in
                [("m/#", true), ("m", true), ("m/a", true), ("n/a", false), ("#", false)]
            {
                assert_eq!(rights.covers(filter, Some("m")), expected, "{filter}");
                assert!(!rights.covers(filter, None));
            }
            assert!(!rights.covers("+/a", Some("+")) && !rights.covers("+/a", Some("m")));
        }
        let some = rights(&["m/a", "n/a"]).below_own_key();
        assert!(some.allows("m/a", Some("m")) && !some.allows("n/a", Some("m")));
        assert!(!some.allows("m/b", Some("m")));
        assert!(!TopicRights::default().below_own_key().allows("m/b", Some("m")));
    }

    #[test]
    fn nobody_gives_more_than_there_is_of_all() {
        let check = |held: &[&str], given: &str, expected: bool| {
            assert_eq!(rights(held).covers_of_all(given, Some("m")), expected, "{held:?} {given}");
        };
        check(&["#"], "%thingKey%/#", true);
        check(&["+/#"], "%thingKey%/#", true);
        check(&["a/+/#"], "a/%user%/b", true);
        check(&["%thingKey%/#"], "%thingKey%/#", false);
        check(&["%thingKey%/#"], "m/#", true);
        check(&["a/x-%thingKey%"], "a/x-%thingKey%", false);
    }

    #[test]
    fn filters_of_roles_have_a_rule() {
        let check = |text: &str, expected: bool| {
            assert_eq!(is_topic_filter(text), expected, "{text}");
        };
        for good in ["#", "a/+/#", "%thingKey%/#", "u/%user%", "x%thingKey%y/%user%", "/"] {
            check(good, true);
        }
        for bad in ["", "a/#/b", "a+", "$SYS/#", "$share/g/a", "%thingkey%/#", "100%", "a\0"] {
            check(bad, false);
        }
        check(&"x".repeat(1025), false);
        check(&vec!["x"; 64].join("/"), true);
        check(&vec!["x"; 65].join("/"), false);
    }

    #[test]
    fn filters_that_go_on_together_are_looked_at_together() {
        // Each goes on to the end, which is its own; stored ones may be deeper than new ones.
        let one_of = |number: usize| {
            let begin = (0..9).map(|bit| if number >> bit & 1 == 0 { "a" } else { "+" });
            let levels: Vec<_> = begin.chain(["a"; 400]).collect();
            format!("{}/end{number}", levels.join("/"))
        };
        let held: Vec<_> = (0..500).map(one_of).collect();
        let filters = TopicFilters::new(held.iter().map(String::as_str));
        // Of a level there is as much to look at as it has texts, not filters.
        let looks = |level: &Level| level.texts.len();
        let (last, before) = filters.0.levels[..410].split_last().expect("levels");
        assert_eq!(looks(last), 500);
        assert!(before.iter().all(|level| looks(level) == 1));
        let rights = TopicRights::new([&filters], None);
        let name = |end: &str| [&["a"; 409][..], &[end]].concat().join("/");
        assert!(rights.allows(&name("end0"), None) && rights.allows(&name("end499"), None));
        assert!(!rights.allows(&name("a"), None) && !rights.allows(&name("a/a"), None));
        assert!(rights.covers(&held[77], None) && !rights.covers("a/#", None));
    }

    #[test]
    fn more_filters_than_a_word_has_bits_are_told_apart() {
        for count in [1, 63, 64, 65, 128, 129, 500, 700] {
            let held: Vec<_> =
                (0..count).map(|number| format!("a/{number:03}/%thingKey%")).collect();
            let rights =
                TopicRights::new([&TopicFilters::new(held.iter().map(String::as_str))], None);
            for number in 0..count + 1 {
                let name = format!("a/{number:03}/m");
                assert_eq!(rights.allows(&name, Some("m")), number < count, "{count} {name}");
            }
            assert!(!rights.covers("a/+/m", Some("m")));
        }
    }

    proptest! {
        /// Covered is what has no name that the filter matches and the filters do not, among names
        /// of a few levels of texts that they know and one that they do not.
        #[test]
        fn covering_is_what_matching_says(
            held in proptest::collection::vec("([ab+]/){0,2}[ab+#]", 0..5),
            filter in "([ab+]/){0,2}[ab+#]",
        ) {
            let rights = TopicRights::new([&TopicFilters::new(held.iter().map(String::as_str))], None);
            // Of several roles, all filters count together.
            let apart: Vec<_> = held.iter().map(|filter| TopicFilters::new([&**filter])).collect();
            let apart = TopicRights::new(&apart, None);
            let mut names = vec![String::new()];
            let mut all = Vec::new();
            for _ in 0..5 {
                let longer = |name: &String| {
                    let slash = if name.is_empty() { "" } else { "/" };
                    ["a", "b", "x"].map(|level| format!("{name}{slash}{level}"))
                };
                names = names.iter().flat_map(longer).collect();
                all.extend(names.iter().cloned());
            }
            let matched = |filters: &[String], name: &str| {
                filters.iter().any(|filter| topic::matches(filter, name))
            };
            let matching = all.iter().filter(|name| topic::matches(&filter, name));
            let expected = matching.clone().all(|name| matched(&held, name));
            prop_assert_eq!(rights.covers(&filter, None), expected);
            prop_assert_eq!(apart.covers(&filter, None), expected);
            for name in &all {
                prop_assert_eq!(rights.allows(name, None), matched(&held, name));
            }
        }
    }
}
