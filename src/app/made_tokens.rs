//! Tokens that the server made, for the session that had them made: setup scripts create an
//! application with an empty token and read the token with `app.find` (`docs/protocol/tr50.md`
//! 3.4). They are in memory only, for ten minutes.

use std::collections::VecDeque;
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{ApplicationId, OrgId, SessionRef, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::{PrincipalId, Session};
use rules::identity::model::Application;
use sha2::{Digest, Sha256};

use super::App;

/// The tokens.
pub(super) struct MadeTokens(Mutex<State>);

struct State {
    /// The oldest first.
    tokens: VecDeque<MadeToken>,
    shares: Shares<PrincipalId>,
}

struct MadeToken {
    application: ApplicationId,
    token: String,
    maker: SessionRef,
    /// Whose share it is.
    payer: (OrgId, PrincipalId),
    until: Timestamp,
}

impl MadeTokens {
    pub(super) fn new(pools: &Arc<Pools>) -> Self {
        let shares = Shares::new(Pool::MadeTokens, limits::MADE_TOKENS_MAX, pools);
        Self(Mutex::new(State { tokens: VecDeque::new(), shares }))
    }
}

impl State {
    /// Forgets the oldest of those.
    fn forget_oldest(&mut self, is_one: impl Fn(&MadeToken) -> bool) {
        let oldest = self.tokens.iter().position(is_one);
        if let Some(made) = oldest.and_then(|oldest| self.tokens.remove(oldest)) {
            self.shares.give_back(made.payer.0, made.payer.1, 1);
        }
    }

    fn add(&mut self, made: MadeToken) {
        let Self { tokens, shares } = self;
        let taken = shares.take_from_most_or_own(made.payer, 1, |org, principal| {
            let oldest = tokens.iter().position(|made| made.payer == (org, principal));
            oldest.and_then(|oldest| tokens.remove(oldest)).map_or(0, |_| 1)
        });
        if taken.is_ok() {
            tokens.push_back(made);
        }
    }
}

impl App {
    /// Remembers a token that was made for the session. Of a session that has many made, and of
    /// whoever has most of all, the oldest are forgotten.
    pub fn remember_token(
        &self,
        application: ApplicationId,
        token: String,
        maker: &Session,
        now: Timestamp,
    ) {
        let until = now.plus_seconds(limits::MADE_TOKEN_S);
        let payer = (maker.org_id(), maker.who().principal_id());
        let maker = maker.reference();
        let state = &mut *self.made_tokens.0.lock();
        let of_maker = state.tokens.iter().filter(|made| made.maker == maker).count();
        if of_maker >= limits::MADE_TOKENS_PER_SESSION {
            state.forget_oldest(|made| made.maker == maker);
        }
        state.add(MadeToken { application, token, maker, payer, until });
    }

    /// The application's token, if it was made for this session not long ago and has not been
    /// changed since.
    pub fn made_token(
        &self,
        application: &Application,
        session: &Session,
        now: Timestamp,
    ) -> Option<String> {
        let state = self.made_tokens.0.lock();
        let made = state.tokens.iter().find(|made| {
            made.application == application.id
                && made.maker == session.reference()
                && now < made.until
        })?;
        let hash: [u8; 32] = Sha256::digest(&made.token).into();
        (hash == application.token_hash).then(|| made.token.clone())
    }

    /// Forgets tokens whose time is over.
    pub(super) fn forget_tokens(&self, now: Timestamp) {
        let state = &mut *self.made_tokens.0.lock();
        while state.tokens.front().is_some_and(|made| made.until <= now) {
            state.forget_oldest(|_| true);
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{ConnInfo, Protocol};

    use super::super::tests::{NOW, demo};
    use super::super::{App, Credentials};
    use super::*;

    async fn session(app: &App, key: &str) -> std::sync::Arc<Session> {
        let remote_addr = "192.0.2.1:5".parse().expect("an address");
        let conn = ConnInfo::new(Protocol::Http, remote_addr);
        let credentials = Credentials::Application {
            thing_key: key.into(),
            token: "demo-token-basicorg".into(),
            app_id: String::new(),
        };
        app.login_unbound(credentials, conn, NOW).await.expect("welcome")
    }

    fn application(number: usize, token: &str) -> Application {
        let (app, _) = demo();
        let pattern = app.identity().application_by_token("demo-token-basicorg").expect("it");
        let mut id = [0; 12];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Application {
            id: ApplicationId::from_bytes(id),
            token_hash: Sha256::digest(token).into(),
            ..Application::clone(&pattern)
        }
    }

    #[tokio::test]
    async fn a_token_is_shown_to_its_maker_for_ten_minutes() {
        let (app, _) = demo();
        let (maker, other) = (session(&app, "a").await, session(&app, "b").await);
        let made = application(1, "made");
        app.remember_token(made.id, "made".into(), &maker, NOW);
        let shown = |application: &Application, session: &Session, after_s: u64| {
            app.made_token(application, session, NOW.plus_seconds(after_s))
        };
        assert_eq!(shown(&made, &maker, 599).as_deref(), Some("made"));
        assert_eq!(shown(&made, &maker, 600), None);
        assert_eq!(shown(&made, &other, 0), None);
        assert_eq!(shown(&application(2, "made"), &maker, 0), None);
        assert_eq!(shown(&application(1, "changed"), &maker, 0), None);
        app.forget_tokens(NOW.plus_seconds(599));
        assert!(shown(&made, &maker, 0).is_some());
        app.forget_tokens(NOW.plus_seconds(600));
        assert!(app.made_tokens.0.lock().tokens.is_empty());
    }

    #[tokio::test]
    async fn the_memory_for_them_has_a_bound() {
        let (app, _) = demo();
        let (eager, other) = (session(&app, "a").await, session(&app, "b").await);
        let first = application(0, "first");
        app.remember_token(first.id, "first".into(), &other, NOW);
        for number in 1..=limits::MADE_TOKENS_PER_SESSION + 5 {
            let made = application(number, "t");
            app.remember_token(made.id, "t".into(), &eager, NOW);
        }
        assert_eq!(app.made_tokens.0.lock().tokens.len(), limits::MADE_TOKENS_PER_SESSION + 1);
        assert!(app.made_token(&first, &other, NOW).is_some());
        assert!(app.made_token(&application(5, "t"), &eager, NOW).is_none());
        assert!(app.made_token(&application(6, "t"), &eager, NOW).is_some());
    }
}
