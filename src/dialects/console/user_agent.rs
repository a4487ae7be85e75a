//! What browsers call themselves, in words of people.

/// Browsers by the word that only they, or only those before them in the list, have.
const BROWSERS: [(&str, &str); 7] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];

/// Systems, in the same way.
const SYSTEMS: [(&str, &str); 7] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
];

/// A browser and its system, such as Firefox on Linux; else what the text begins with.
pub(super) fn named(text: &str) -> String {
    let find = |words: &[(&str, &'static str)]| {
        words.iter().find(|(word, _)| text.contains(word)).map(|(_, name)| *name)
    };
    let first = text.split_whitespace().next().unwrap_or(text);
    match (first.starts_with("Mozilla/").then(|| find(&BROWSERS)).flatten(), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, _) => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn browsers_have_names() {
        let check = |text: &str, expected: &str| assert_eq!(named(text), expected, "{text}");
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/131.0.0.0 Safari/537.36";
        check(chrome, "Chrome on Linux");
        check(&format!("{chrome} Edg/131.0.0.0"), "Edge on Linux");
        check("Mozilla/5.0 (Windows NT 10.0; rv:133.0) Gecko Firefox/133.0", "Firefox on Windows");
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 \
                     (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1";
        check(phone, "Safari on iPhone");
        check("curl/8.5.0", "curl/8.5.0");
        check("Mozilla/5.0", "Mozilla/5.0");
        check("", "");
    }
}
