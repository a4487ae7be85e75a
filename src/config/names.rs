//! Names of keys, in the file and in the environment, and which one a wrong name may mean.

use super::KEYS;

/// What every variable of the environment that is for this program starts with.
pub(super) const PREFIX: &str = "TR50D_";

/// Between a section and its key in the name of a variable.
pub(super) const BETWEEN: &str = "__";

/// Variables that begin like those of the configuration and are for others: the commands that are
/// clients, and the tests of the sources.
const OTHERS: [&str; 4] =
    ["TR50D_URL", "TR50D_PASSWORD_FILE", "TR50D_CONTEXT", "TR50D_TEST_CLIENTS"];

/// Whether a variable is for `serve`: it must be a key of the configuration then.
pub fn is_variable(name: &str) -> bool {
    name.starts_with(PREFIX) && !OTHERS.contains(&name)
}

/// Section and key of a variable; `None` if its name has no section.
pub(super) fn of_variable(name: &str) -> Option<(String, String)> {
    let (section, key) = name.strip_prefix(PREFIX)?.split_once(BETWEEN)?;
    Some((section.to_ascii_lowercase(), key.to_ascii_lowercase()))
}

/// The question which variables were meant by one that there is not; empty if none is near.
pub(super) fn near_variable(name: &str) -> String {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let mut near: Vec<_> = near(rest).iter().map(|key| key.variable()).collect();
    if near.is_empty() {
        let other = OTHERS.iter().find(|other| strsim::damerau_levenshtein(name, other) == 1);
        near.extend(other.map(|other| (*other).to_owned()));
    }
    if !near.is_empty() {
        return question(&near);
    }
    // Of a service named tr50d; a pod can do without (enableServiceLinks).
    let parts = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
    match !name.contains(BETWEEN) && parts.iter().any(|part| name.contains(part)) {
        true => "; Kubernetes sets it for a Service of this name, unless the pod says \
                 enableServiceLinks: false"
            .to_owned(),
        false => String::new(),
    }
}

/// The question which keys of the file were meant by one that there is not; empty if none is near.
pub(super) fn near_key(section: &str, key: &str) -> String {
    let near = near(&format!("{section}{BETWEEN}{key}"));
    question(
        &near.iter().map(|key| format!("\"{}\" in [{}]", key.key, key.section)).collect::<Vec<_>>(),
    )
}

fn question(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [first @ .., last] => format!("; did you mean {} or {last}?", first.join(", ")),
    }
}

/// A key that there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    section: &'static str,
    key: &'static str,
}

impl Key {
    fn variable(self) -> String {
        let (section, key) = (self.section.to_ascii_uppercase(), self.key.to_ascii_uppercase());
        format!("{PREFIX}{section}{BETWEEN}{key}")
    }
}

fn keys() -> impl Iterator<Item = Key> {
    KEYS.iter().flat_map(|(section, keys)| keys.iter().map(|key| Key { section, key }))
}

/// The keys nearest to `SECTION__KEY`, or to whatever stands in its place: those that need fewest
/// letters changed if a third at most has to, else those of another section with this very key.
fn near(wrong: &str) -> Vec<Key> {
    let letters = |text: &str| text.replace('_', "").to_ascii_lowercase();
    let wrong_letters = letters(wrong);
    let distance = |key: &Key| {
        let right = letters(key.section) + &letters(key.key);
        strsim::damerau_levenshtein(&wrong_letters, &right)
    };
    let nearest = keys().map(|key| distance(&key)).min().unwrap_or(usize::MAX);
    if nearest <= wrong_letters.len() / 3 {
        return keys().filter(|key| distance(key) == nearest).collect();
    }
    let wrong_key = wrong.rsplit_once(BETWEEN).map_or(wrong, |(_, key)| key);
    keys().filter(|key| letters(key.key) == letters(wrong_key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let check =
            |wrong: &str, expected: &str| assert_eq!(near_variable(wrong), expected, "{wrong}");
        check("TR50D_MQTT_LISTEN", "; did you mean TR50D_MQTT__LISTEN?");
        check("TR50D_MQTT__LISTNE", "; did you mean TR50D_MQTT__LISTEN?");
        check("TR50D_MQQT__LISTEN", "; did you mean TR50D_MQTT__LISTEN?");
        check("TR50D_MQTT__TLSLISTEN", "; did you mean TR50D_MQTT__TLS_LISTEN?");
        check("TR50D_HTTPS__LISTEN", "; did you mean TR50D_HTTP__LISTEN?");
        check("TR50D_DATA_DIR", "; did you mean TR50D_SERVER__DATA_DIR?");
        check("TR50D_MQTT__CLIENT_CA", "; did you mean TR50D_TLS__CLIENT_CA?");
        check("TR50D_LOG_LEVEL", "; did you mean TR50D_LOG__LEVEL?");
        check("TR50D_URI", "; did you mean TR50D_URL?");
        check(
            "TR50D_LISTEN",
            "; did you mean TR50D_MQTT__LISTEN, TR50D_TCP__LISTEN, TR50D_HTTP__LISTEN or \
             TR50D_METRICS__LISTEN?",
        );
        check("TR50D_HOME", "");
        check("TR50D_", "");
        check("TR50D_MQTT__PORT", "");
        assert!(near_variable("TR50D_PORT_1883_TCP_ADDR").contains("enableServiceLinks"));
        assert_eq!(near_key("mqtt", "lissen"), "; did you mean \"listen\" in [mqtt]?");
        assert_eq!(near_key("server", "cert"), "; did you mean \"cert\" in [tls]?");
    }

    #[test]
    fn variables_for_others_are_not_of_the_configuration() {
        for other in OTHERS {
            assert!(!is_variable(other), "{other}");
        }
        assert!(is_variable("TR50D_URL_") && is_variable("TR50D_") && !is_variable("TR50DURL"));
    }
}
