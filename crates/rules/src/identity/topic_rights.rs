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
pub const TOPIC_FILTER_RULE: &str = "a topic filter of at most 1024 bytes that does not begin with \
                                     \"$\", and has \"%\" in %thingKey% and %user% only";

/// Whether a role may have this filter.
pub fn is_topic_filter(text: &str) -> bool {
    let filter = filter_of(text, "x");
    text.len() <= limits::FILTER_BYTES_MAX
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

#[derive(PartialEq, Eq, Default, Debug)]
struct Root {
    node: Node,
    /// Whether one asks for the names of a user.
    named: bool,
}

/// The filters that begin with the levels that lead here.
#[derive(PartialEq, Eq, Default, Debug)]
struct Node {
    /// In their order.
    texts: Vec<(Box<str>, Self)>,
    keyed: Vec<(Keyed, Self)>,
    any: Option<Box<Self>>,
    /// Whether a filter ends here.
    here: bool,
    /// Whether one ends with `#` behind this.
    below: bool,
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

/// The nodes that a filter has come to.
type Nodes<'n> = SmallVec<[&'n Node; 8]>;

/// The filter of all topics.
static ALL: LazyLock<TopicFilters> = LazyLock::new(|| TopicFilters::new(["#"]));

impl TopicFilters {
    /// Reads the filters of a role.
    pub fn new<'f>(filters: impl IntoIterator<Item = &'f str>) -> Self {
        let mut root = Root::default();
        for filter in filters {
            // Nobody has both names.
            if filter.contains(THING_KEY) && filter.contains(USER) {
                continue;
            }
            root.named |= filter.contains(USER);
            root.node.add(filter.split('/'));
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
        let roots: Nodes<'_> = self.filters.iter().map(|one| &one.0.node).collect();
        if self.users.is_empty() {
            return cover(roots, filter, Own { thing, user: None });
        }
        // Each of the names by itself: no filter has a part of both.
        let by = |user: &str| cover(roots.clone(), filter, Own { thing, user: Some(user) });
        self.users.iter().any(|user| by(user))
    }
}

/// Whether a name can be a level of a topic, or a part of one: then it makes no filter wider.
fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#', '\0'])
}

impl Node {
    fn add<'l>(&mut self, levels: impl Iterator<Item = &'l str>) {
        let mut node = self;
        for level in levels {
            node = match level {
                "#" => return node.below = true,
                "+" => node.any.get_or_insert_default(),
                keyed if keyed.contains(THING_KEY) => node.at_key(Name::Thing, THING_KEY, keyed),
                keyed if keyed.contains(USER) => node.at_key(Name::User, USER, keyed),
                text => node.at_text(text),
            };
        }
        node.here = true;
    }

    fn at_text(&mut self, text: &str) -> &mut Self {
        let found = self.texts.binary_search_by(|(known, _)| (**known).cmp(text));
        let index = found.unwrap_or_else(|index| {
            // Most levels have one behind them.
            self.texts.reserve_exact(1);
            self.texts.insert(index, (text.into(), Self::default()));
            index
        });
        &mut self.texts[index].1
    }

    fn at_key(&mut self, name: Name, place: &str, level: &str) -> &mut Self {
        let level = Keyed { name, around: level.split(place).map(Into::into).collect() };
        let found = self.keyed.iter().position(|(known, _)| *known == level);
        let index = found.unwrap_or_else(|| {
            self.keyed.reserve_exact(1);
            self.keyed.push((level, Self::default()));
            self.keyed.len() - 1
        });
        &mut self.keyed[index].1
    }

    /// The nodes behind a level of a filter.
    fn behind<'n>(&'n self, level: &str, own: Own<'_>) -> impl Iterator<Item = &'n Self> {
        let exact = level != "+";
        let found = self.texts.binary_search_by(|(known, _)| (**known).cmp(level));
        let text = found.ok().filter(|_| exact).map(|index| &self.texts[index].1);
        let is = |keyed: &Keyed| {
            exact && own.named(keyed.name).is_some_and(|own| is_around(level, &keyed.around, own))
        };
        let keyed = self.keyed.iter().filter(|(keyed, _)| is(keyed));
        let keyed: Nodes<'_> = keyed.map(|(_, node)| node).collect();
        text.into_iter().chain(keyed).chain(self.any.as_deref())
    }
}

/// Whether all names that a filter matches fall under filters from these nodes on. A wildcard of one
/// level stands for a text that none of them has: what matches that matches every text.
fn cover(mut nodes: Nodes<'_>, filter: &str, own: Own<'_>) -> bool {
    // A name has a level at least.
    let filter = if filter == "#" { "+/#" } else { filter };
    for level in filter.split('/') {
        if nodes.iter().any(|node| node.below) {
            return true;
        }
        if level == "#" {
            return cover_rest(nodes);
        }
        nodes = nodes.iter().flat_map(|node| node.behind(level, own)).collect();
    }
    nodes.iter().any(|node| node.here || node.below)
}

/// Whether all names that go on from one of these nodes fall under a filter.
fn cover_rest(mut nodes: Nodes<'_>) -> bool {
    loop {
        if nodes.iter().any(|node| node.below) {
            return true;
        }
        if !nodes.iter().any(|node| node.here) {
            return false;
        }
        nodes = nodes.iter().filter_map(|node| node.any.as_deref()).collect();
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
