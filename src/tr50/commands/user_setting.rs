//! `user.setting.*`: what programs keep for a user, such as the views of a console. Nobody sees
//! another's.

use std::sync::Arc;

use base::{Code, Failure, excerpt, limits};
use rules::identity::model::User;
use serde::Serialize;

use super::{authorize, commands};
use crate::app::Effects;
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, Done};
use crate::tr50::strict::Strict;

commands! {
    "user.setting.get" => get where check_has_settings, [NOT_FOUND, WRONG_SESSION_KIND],
        "Shows a setting of the caller.",
        "`key`, `value`";
    "user.setting.list" => list where check_has_settings, [WRONG_SESSION_KIND],
        "Lists the settings of the caller, by key.",
        "`count`, `result`, an array of `key` and `value`";
    "user.setting.set" => set where check_has_settings, [LIMIT_REACHED, WRONG_SESSION_KIND],
        "Keeps a text for the caller, in all of the caller's sessions, until it is set anew. A user \
         has 50 settings of 4096 bytes at most, and 32768 bytes together.",
        "";
}

params! {
    /// Which setting.
    pub struct WhichSetting {
        required_exact key: String = "key", "Its key, of 1 to 64 bytes.";
    }
}

params! {
    /// What it is set to.
    pub struct NewValue {
        optional_exact value: String = "value",
            "The text, of at most 4096 bytes; without it, or empty, the setting goes.";
    }
}

params! {
    /// Which settings.
    pub struct ListParams {
        optional_exact prefix: String = "prefix", "Only those whose keys begin so.";
    }
}

/// A setting on the wire.
#[derive(Serialize)]
pub struct Setting {
    key: String,
    value: String,
}

/// The reply of `user.setting.list`.
#[derive(Serialize)]
pub struct Settings {
    count: usize,
    result: Vec<Setting>,
}

fn check_has_settings(call: &Call<'_>) -> Result<(), Failure> {
    own(call).map(drop)
}

fn own(call: &Call<'_>) -> Result<Arc<User>, Failure> {
    call.user().ok_or_else(|| Failure::new(Code::WRONG_SESSION_KIND, "Only users have settings."))
}

/// `user.setting.get`.
pub fn get(call: &Call<'_>, Strict(which): Strict<WhichSetting>) -> Result<Setting, Failure> {
    let user = own(call)?;
    match user.settings.get(&which.key) {
        Some(value) => Ok(Setting { key: which.key, value: value.clone() }),
        None => Err(Failure::not_found(format!("Setting \"{}\"", excerpt(&which.key)))),
    }
}

/// `user.setting.list`.
pub fn list(call: &Call<'_>, Strict(params): Strict<ListParams>) -> Result<Settings, Failure> {
    let prefix = params.prefix.unwrap_or_default();
    let user = own(call)?;
    let wanted = user.settings.iter().filter(|(key, _)| key.starts_with(&prefix));
    let setting =
        |(key, value): (&String, &String)| Setting { key: key.clone(), value: value.clone() };
    let result: Vec<_> = wanted.map(setting).collect();
    Ok(Settings { count: result.len(), result })
}

/// `user.setting.set`.
pub fn set(
    call: &Call<'_>,
    Strict((which, new)): Strict<(WhichSetting, NewValue)>,
) -> Result<After<Done>, Failure> {
    authorize::check_name("key", &which.key)?;
    let value = new.value.unwrap_or_default();
    if value.len() > limits::SETTING_BYTES_MAX {
        let rule = format!("a text of at most {} bytes", limits::SETTING_BYTES_MAX);
        return Err(authorize::invalid_param("value", &rule));
    }
    let turn = call.app.identity().turn();
    let mut user = User::clone(&*own(call)?);
    let before = match value.is_empty() {
        true => user.settings.remove(&which.key),
        false => user.settings.insert(which.key, value.clone()),
    };
    if before.as_ref() == Some(&value) || (before.is_none() && value.is_empty()) {
        return Ok(After(Done, Effects::default()));
    }
    check_room(&user)?;
    Ok(After(Done, turn.put(user).into()))
}

fn check_room(user: &User) -> Result<(), Failure> {
    let bytes: usize = user.settings.iter().map(|(key, value)| key.len() + value.len()).sum();
    let (count, most) = (limits::SETTINGS_MAX, limits::SETTINGS_BYTES_MAX);
    if user.settings.len() <= count && bytes <= most {
        return Ok(());
    }
    let sentence = format!("A user has at most {count} settings, and {most} bytes of them.");
    Err(Failure::new(Code::LIMIT_REACHED, sentence))
}
