//! Who there is in a test's server.

use std::io::Write;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use tempfile::NamedTempFile;

/// The demo's organisations, users and tokens.
pub const DEMO: &str = include_str!("../../../fixtures/demo.toml");

/// The name of the setting that names the bootstrap file.
const SETTING: &str = "TR50D_SERVER__BOOTSTRAP";

/// A copy of the bootstrap file that the settings name, or of the demo's, with a hash in the place of
/// each password in the clear. The hashes cost the least that argon2 takes: otherwise most of what
/// the tests do would be to hash three passwords for each server. A wrong name, and a password that
/// is set by a command, cost what they cost in use.
pub(crate) fn cheap_copy(settings: &[(&str, &str)]) -> NamedTempFile {
    let named = settings.iter().rev().find(|(name, _)| *name == SETTING);
    let text = match named {
        Some((_, path)) => std::fs::read_to_string(path).expect("a bootstrap file"),
        None => DEMO.to_owned(),
    };
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(cheap(&text).as_bytes()).expect("written");
    file
}

/// The setting that names this file.
pub(crate) fn setting(file: &NamedTempFile) -> (&'static str, &str) {
    (SETTING, file.path().to_str().expect("a path in UTF-8"))
}

fn cheap(text: &str) -> String {
    let mut cheap = String::with_capacity(text.len());
    for line in text.lines() {
        match line.strip_prefix("password = \"").and_then(|rest| rest.strip_suffix('"')) {
            Some(password) => cheap.push_str(&format!("password_hash = \"{}\"", hash(password))),
            None => cheap.push_str(line),
        }
        cheap.push('\n');
    }
    cheap
}

fn hash(password: &str) -> String {
    let params = Params::new(Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST, None);
    let params = params.expect("the least is within bounds");
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash =
        hasher.hash_password_with_salt(password.as_bytes(), &[7; 16]).expect("a hash");
    hash.to_string()
}
