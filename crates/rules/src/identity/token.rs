//! Tokens: those of an application beside its first, and those of users, with which programs log in
//! where nobody types a code.

use std::fmt;
use std::sync::Arc;

use base::{Timestamp, TokenId};
use serde::{Deserialize, Serialize};

use super::Ban;
use super::model::{Application, User};

/// A part of the record of an application or a user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its public handle.
    pub id: TokenId,
    /// Its name for people.
    pub name: String,
    /// SHA-256 of the token. The token itself is not kept.
    pub hash: [u8; 32],
    /// Names of permissions, as roles have them, beyond which a user's token gives nothing; none:
    /// all that the user may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    /// Until when, and whether, it is good.
    #[serde(default, skip_serializing_if = "Terms::is_default")]
    pub terms: Terms,
    /// When it was made.
    pub created_on: Timestamp,
    /// By whom: an e-mail address or a thing's key.
    pub created_by: String,
}

/// Until when, and whether, a token is good.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// Whether logins with it are refused.
    #[serde(default, skip_serializing_if = "Ban::is_none")]
    pub ban: Ban,
    /// Its end, in the server's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// Why a token that is known is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Lapsed {
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Somebody disabled it.
    #[error("the token is disabled")]
    Disabled,
}

impl Terms {
    /// Whether they say nothing: records do not store them.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a token is good at this time of the server.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, now: Timestamp) -> Result<(), Lapsed> {
        if self.ban.is_banned(now) {
            return Err(Lapsed::Disabled);
        }
        match self.expires {
            Some(end) if end <= now => Err(Lapsed::Expired),
            _ => Ok(()),
        }
    }
}

/// Without the hash, which has no place in a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Application {
    /// The token with this hash: its terms, and itself if it is not the first.
    pub(super) fn token_by_hash(&self, hash: &[u8; 32]) -> Option<Arc<Token>> {
        self.tokens.iter().find(|token| token.hash == *hash).cloned().map(Arc::new)
    }

    /// All its tokens, the first one at the beginning.
    pub fn all_tokens(&self) -> Vec<Token> {
        [self.first_token()].into_iter().chain(self.tokens.iter().cloned()).collect()
    }

    /// Whether a token with which somebody logged in is still good; none: the first one, whose hash
    /// was this.
    ///
    /// # Errors
    /// Why not; none: it is gone.
    pub fn check_token(
        &self,
        token: Option<&Token>,
        first: &[u8; 32],
        now: Timestamp,
    ) -> Result<(), Option<Lapsed>> {
        let hash = token.map_or(first, |token| &token.hash);
        let terms = match self.tokens.iter().find(|known| known.hash == *hash) {
            Some(known) => &known.terms,
            None if self.token_hash == *hash => &self.first_terms,
            None => return Err(None),
        };
        terms.check(now).map_err(Some)
    }

    /// The first token, in the form of the others.
    pub fn first_token(&self) -> Token {
        Token {
            id: self.token_id,
            name: self.token_name.clone(),
            hash: self.token_hash,
            permissions: None,
            terms: self.first_terms.clone(),
            created_on: self.created_on,
            created_by: self.created_by.clone(),
        }
    }

    /// Takes the first token away; the next one is the first then. False: there is no other.
    pub fn drop_first_token(&mut self) -> bool {
        if self.tokens.is_empty() {
            return false;
        }
        let next = self.tokens.remove(0);
        (self.token_id, self.token_name) = (next.id, next.name);
        (self.token_hash, self.first_terms) = (next.hash, next.terms);
        true
    }

    /// When tokens of it end.
    pub(super) fn token_ends(&self) -> impl Iterator<Item = Timestamp> {
        let terms = self.tokens.iter().map(|token| &token.terms).chain([&self.first_terms]);
        terms.filter_map(|terms| terms.expires)
    }
}

impl User {
    /// Whether a token with which somebody logged in is still good.
    ///
    /// # Errors
    /// Why not; none: it is gone.
    pub fn check_token(&self, token: &Token, now: Timestamp) -> Result<(), Option<Lapsed>> {
        let known = self.tokens.iter().find(|known| known.id == token.id).ok_or(None)?;
        known.terms.check(now).map_err(Some)
    }

    /// When tokens of the user end.
    pub(super) fn token_ends(&self) -> impl Iterator<Item = Timestamp> {
        self.tokens.iter().filter_map(|token| token.terms.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, demo};
    use super::*;

    #[test]
    fn a_token_is_good_until_its_end_or_until_it_is_disabled() {
        let ends = Terms { expires: Some(NOW), ..Terms::default() };
        assert_eq!(Terms::default().check(Timestamp::NEVER), Ok(()));
        assert_eq!(ends.check(NOW.plus_seconds(0)), Err(Lapsed::Expired));
        assert_eq!(ends.check(Timestamp::from_millis(NOW.as_millis() - 1)), Ok(()));
        let ban = Ban { disabled: true, ..Ban::default() };
        let disabled = Terms { ban, ..ends };
        assert_eq!(disabled.check(Timestamp::from_millis(0)), Err(Lapsed::Disabled));
    }

    #[test]
    fn the_next_token_of_an_application_follows_the_first() {
        let identity = demo();
        let found = identity.application_by_token("demo-token-basicorg").expect("of the demo");
        let mut application = Application::clone(&found);
        let first = application.token_hash;
        assert!(!application.drop_first_token());
        let next = Token { hash: [7; 32], name: "next".into(), ..application.first_token() };
        application.tokens.push(next.clone());
        assert_eq!(application.check_token(None, &first, NOW), Ok(()));
        assert_eq!(application.check_token(Some(&next), &first, NOW), Ok(()));
        assert!(application.drop_first_token());
        assert_eq!(application.check_token(None, &first, NOW), Err(None));
        assert_eq!(application.check_token(Some(&next), &first, NOW), Ok(()));
        assert_eq!(application.first_token().name, "next");
    }
}
