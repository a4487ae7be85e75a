//! `locale.*`: the language and country of a user (`docs/protocol/tr50.md` 4.1).

use std::sync::Arc;

use base::{Code, Failure};
use rules::identity::model::User;
use serde::Serialize;

use super::commands;
use crate::tr50::params::{NoParams, params};
use crate::tr50::step::{After, Call, Done};

commands! {
    "locale.get" => get, [],
        "Shows the locale of the user, else of the current organisation; empty: none is set.",
        "`locale`";
    "locale.list" => list, [],
        "Lists locales to choose from; any other of the form `ll` or `ll_CC` can be set as well.",
        "`result` with `locale` and `name`";
    "locale.set" => set where check_has_locale, [WRONG_SESSION_KIND],
        "Sets the locale of the user. Sessions show it from their next login on.",
        "";
}

const LOCALES: [Named; 12] = [
    named("de_DE", "German (Germany)"),
    named("en_GB", "English (United Kingdom)"),
    named("en_US", "English (United States)"),
    named("es_ES", "Spanish (Spain)"),
    named("fr_FR", "French (France)"),
    named("it_IT", "Italian (Italy)"),
    named("ja_JP", "Japanese (Japan)"),
    named("ko_KR", "Korean (South Korea)"),
    named("nl_NL", "Dutch (Netherlands)"),
    named("pl_PL", "Polish (Poland)"),
    named("pt_BR", "Portuguese (Brazil)"),
    named("zh_CN", "Chinese (China)"),
];

/// A locale and its name.
#[derive(Clone, Copy, Serialize)]
pub struct Named {
    locale: &'static str,
    name: &'static str,
}

const fn named(locale: &'static str, name: &'static str) -> Named {
    Named { locale, name }
}

params! {
    /// The parameters of `locale.set`.
    pub struct Set {
        required locale: String = "locale", "Such as `en_US`; an empty text: none.";
    }
}

/// The reply of `locale.get`.
#[derive(Serialize)]
pub struct Current {
    locale: String,
}

/// The reply of `locale.list`.
#[derive(Serialize)]
pub struct Choice {
    result: [Named; LOCALES.len()],
}

/// `locale.get`.
pub fn get(call: &Call<'_>, _: NoParams) -> Result<Current, Failure> {
    let own = call.user().map(|user| user.locale.clone()).filter(|locale| !locale.is_empty());
    let org = || call.app.identity().org(call.session.org_id()).map(|org| org.locale.clone());
    Ok(Current { locale: own.or_else(org).unwrap_or_default() })
}

/// `locale.list`.
pub fn list(_: &Call<'_>, _: NoParams) -> Result<Choice, Failure> {
    Ok(Choice { result: LOCALES })
}

fn check_has_locale(call: &Call<'_>) -> Result<(), Failure> {
    user_of(call).map(drop)
}

fn user_of(call: &Call<'_>) -> Result<Arc<User>, Failure> {
    let sentence = "Only users have a locale.";
    call.user().ok_or_else(|| Failure::new(Code::WRONG_SESSION_KIND, sentence))
}

/// `locale.set`.
pub fn set(call: &Call<'_>, params: Set) -> Result<After<Done>, Failure> {
    if !is_locale(&params.locale) {
        let sentence = "Parameter \"locale\" must be a locale such as en_US, or empty.";
        return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
    }
    let turn = call.app.identity().turn();
    let user = user_of(call)?;
    let user = User { locale: params.locale, ..User::clone(&*user) };
    Ok(After(Done, turn.put(user).into()))
}

/// Whether the text is empty, or a language and maybe a country.
fn is_locale(text: &str) -> bool {
    let (language, country) = text.split_once(['_', '-']).unwrap_or((text, "XX"));
    let language_fits =
        (2..=3).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_lowercase());
    let country_fits = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
    text.is_empty() || language_fits && country_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales_are_told_from_other_texts() {
        let check = |text: &str, expected| assert_eq!(is_locale(text), expected, "{text}");
        LOCALES.iter().for_each(|named| check(named.locale, true));
        for good in ["", "en", "pt-BR", "fil"] {
            check(good, true);
        }
        for bad in ["english", "EN_us", "en_", "_US", "e", "en_USA", "en_US_POSIX"] {
            check(bad, false);
        }
    }
}
