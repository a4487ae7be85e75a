//! Errors of TOML texts: those of the configuration, and of the bootstrap file.

/// Where a TOML text is wrong, as a line from 1, and why, in one line.
pub fn place_of(text: &str, error: &toml::de::Error) -> (usize, String) {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    (before.matches('\n').count() + 1, message)
}
