//! What the tokens of applications and of users have in common: parameters, rows, their making.

use base::{Code, Failure, Timestamp, TokenId, limits};
use rules::identity::{Ban, Terms, Token};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::app;
use super::authorize::{self, Edit};
use super::ban::{BanParams, BanView};
use crate::app::TokenUse;
use crate::random::random;
use crate::tr50::params::{self, Value, params};
use crate::tr50::step::Call;

params! {
    /// Which token.
    pub struct WhichToken {
        required token_id: TokenId = "tokenId", "The token's id.";
    }
}

params! {
    /// What a token is to be.
    pub struct New {
        required_exact name: String = "name", "A name for people, such as where it is used.";
        optional expires: Timestamp = "expires", "When it ends; without it, it does not.";
    }
}

params! {
    /// What is to change of a token.
    pub struct TermsParams {
        optional_exact name: String = "name", "Another name.";
        optional expires: End = "expires", "When it ends; an empty text: never.";
    }
}

/// When a token ends, or that it does not.
pub struct End(Option<Timestamp>);

impl Value for End {
    const EXPECTED: &'static str = "a time such as 2026-03-02T08:15:00Z, or an empty text";

    fn read(param: crate::tr50::envelope::Param<'_>) -> Option<Self> {
        if param.text().is_some_and(|text| text.is_empty()) {
            return Some(Self(None));
        }
        <Timestamp as params::Value>::read(param).map(|end| Self(Some(end)))
    }
}

/// The reply to the making of a token, the only one that shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    token_id: TokenId,
    token: String,
}

/// A token in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    token_id: TokenId,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    perms: Option<Vec<String>>,
    #[serde(flatten)]
    ban: BanView,
    expired: bool,
    expires: Option<Timestamp>,
    created_on: Timestamp,
    created_by: String,
    last_used_on: Option<Timestamp>,
    last_used_from: Option<String>,
    use_count: u64,
}

/// The reply of lists of tokens.
#[derive(Serialize)]
pub struct Tokens {
    count: usize,
    result: Vec<Row>,
}

impl New {
    /// Makes a token, and what is kept of it.
    ///
    /// # Errors
    ///
    /// Its name or end can't be such, or there are as many as there may be.
    pub(super) fn make(
        self,
        call: &Call<'_>,
        others: &[Token],
        permissions: Option<Vec<String>>,
    ) -> Result<(Made, Token), Failure> {
        check_name(&self.name, others, None)?;
        if others.len() >= limits::TOKENS_PER_HOLDER_MAX {
            let most = limits::TOKENS_PER_HOLDER_MAX;
            let sentence = format!("There are {most} tokens, which is all there can be.");
            return Err(Failure::new(Code::BUSY, sentence));
        }
        let token = app::new_token(limits::FURTHER_TOKEN_CHARS, random()?);
        let made = Made { token_id: TokenId::from_bytes(random()?), token };
        let kept = Token {
            id: made.token_id,
            name: self.name,
            hash: Sha256::digest(&made.token).into(),
            permissions,
            terms: Terms { ban: Ban::default(), expires: end_of(call, self.expires)? },
            created_on: call.now,
            created_by: authorize::author(call),
        };
        Ok((made, kept))
    }
}

/// The server's time of an end that is shown so, which has to come.
fn end_of(call: &Call<'_>, shown: Option<Timestamp>) -> Result<Option<Timestamp>, Failure> {
    match shown {
        Some(shown) if shown <= call.now => {
            Err(authorize::invalid_param("expires", "a time that is to come"))
        }
        shown => Ok(shown.map(|shown| call.app.clock.of_shown(shown))),
    }
}

fn check_name(name: &str, others: &[Token], own: Option<TokenId>) -> Result<(), Failure> {
    authorize::check_name("name", name)?;
    let same =
        |other: &&Token| Some(other.id) != own && other.name.to_lowercase() == name.to_lowercase();
    match others.iter().find(same) {
        Some(_) => Err(authorize::already_exists("Token", name)),
        None => Ok(()),
    }
}

impl TermsParams {
    /// The name and terms that a token is to have.
    ///
    /// # Errors
    ///
    /// They can't be such.
    pub(super) fn change(
        self,
        call: &Call<'_>,
        ban: BanParams,
        token: &mut Token,
        others: &[Token],
    ) -> Result<(), Failure> {
        if let Some(name) = self.name {
            check_name(&name, others, Some(token.id))?;
            token.name = name;
        }
        if let Some(ban) = ban.apply(call, &token.terms.ban, &Edit::new(None), false)? {
            token.terms.ban = ban;
        }
        if let Some(End(end)) = self.expires {
            token.terms.expires = end_of(call, end)?;
        }
        Ok(())
    }
}

impl Tokens {
    /// The rows of these tokens, without what opens anything.
    pub(super) fn of(call: &Call<'_>, tokens: impl IntoIterator<Item = Token>) -> Self {
        let result: Vec<_> = tokens.into_iter().map(|token| Row::of(call, token)).collect();
        Self { count: result.len(), result }
    }
}

impl Row {
    fn of(call: &Call<'_>, token: Token) -> Self {
        let clock = &call.app.clock;
        let used: Option<TokenUse> = call.app.token_use(token.id);
        Self {
            token_id: token.id,
            name: token.name,
            perms: token.permissions,
            ban: BanView::of(&token.terms.ban, clock),
            expired: token.terms.expires.is_some_and(|end| end <= clock.now()),
            expires: token.terms.expires.map(|end| clock.shown(end)),
            created_on: token.created_on,
            created_by: token.created_by,
            last_used_on: used.as_ref().map(|used| used.at),
            last_used_from: used.as_ref().map(|used| used.from.to_string()),
            use_count: used.map_or(0, |used| used.count),
        }
    }
}

/// The failure for a token that is not there.
pub(super) fn not_found(id: TokenId) -> Failure {
    Failure::not_found(format!("Token \"{id}\""))
}
