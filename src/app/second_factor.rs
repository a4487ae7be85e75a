//! Second factors of users at logins: a right password opens, for a while and for whoever gave it,
//! the way for a code (`docs/protocol/tr50.md` 3.1).
//!
//! Who may send a code is known by the address, over TCP by the connection. A guess of a password is
//! told right only where the protocol has a second call; elsewhere it fails as a wrong one does.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base::{ConnInfo, Failure, Protocol, Timestamp, UserId, limits};
use parking_lot::Mutex;
use rules::directory::Session;
use rules::identity::model::User;
use rules::identity::{Accepted, Refusal, SecondFactor};
use store::StoreError;

use super::App;
use super::login::LoginError;

/// Who has given a right password and may send a code, and codes that were taken.
#[derive(Default)]
pub(super) struct SecondFactors(Mutex<State>);

#[derive(Default)]
struct State {
    /// A few for each user with a second factor who has logged in lately.
    awaited: HashMap<UserId, Vec<Awaited>>,
    /// The last 30 seconds whose code was taken, where the store may not have that.
    taken: HashMap<UserId, i64>,
}

struct Awaited {
    from: Origin,
    until: Timestamp,
    tries: u32,
    /// Of the password that was right: with another one since, this is over.
    password_hash: String,
}

/// By what somebody is known from one call to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Address(IpAddr),
    Connection(SocketAddr),
}

impl Origin {
    fn of(conn: ConnInfo) -> Self {
        match conn.protocol {
            Protocol::Tcp | Protocol::Tcps => Self::Connection(conn.remote_addr),
            _ => Self::Address(conn.remote_addr.ip().to_canonical()),
        }
    }
}

/// How a client can show a second factor.
pub(super) enum CodeBy {
    /// In a second call, as the password.
    Call,
    /// With the password.
    Given(String),
    /// Not at all.
    Nothing,
}

impl SecondFactors {
    /// Notes that the password of the user was right.
    fn await_code(&self, user: &User, conn: ConnInfo, now: Timestamp) {
        let awaited = &mut self.0.lock().awaited;
        let of_user = awaited.entry(user.id).or_default();
        let from = Origin::of(conn);
        of_user.retain(|other| other.from != from && now < other.until);
        if of_user.len() >= limits::CODES_AWAITED_MAX {
            of_user.remove(0);
        }
        let until = now.plus_seconds(limits::CODE_WITHIN_S);
        let password_hash = user.password_hash.clone();
        of_user.push(Awaited { from, until, tries: 0, password_hash });
    }

    /// Whether who asks may send a code now, which counts as one.
    fn take_try(&self, user: &User, conn: ConnInfo, now: Timestamp) -> bool {
        let awaited = &mut self.0.lock().awaited;
        let from = Origin::of(conn);
        let found = awaited.get_mut(&user.id).and_then(|of_user| {
            of_user.iter_mut().find(|awaited| awaited.from == from && now < awaited.until)
        });
        let is_awaited = found.is_some_and(|found| {
            found.tries += 1;
            found.tries <= limits::CODE_TRIES_MAX && found.password_hash == user.password_hash
        });
        if !is_awaited {
            forget(awaited, user.id, from);
        }
        is_awaited
    }

    fn done(&self, user: UserId, conn: ConnInfo) {
        forget(&mut self.0.lock().awaited, user, Origin::of(conn));
    }

    /// The connection has closed: a right password over it opens nothing any more.
    fn connection_closed(&self, conn: ConnInfo) {
        let from = Origin::of(conn);
        self.0.lock().awaited.retain(|_, of_user| {
            of_user.retain(|awaited| awaited.from != from);
            !of_user.is_empty()
        });
    }

    /// Forgets what is over.
    pub(super) fn expire(&self, now: Timestamp) {
        self.0.lock().awaited.retain(|_, of_user| {
            of_user.retain(|awaited| now < awaited.until);
            !of_user.is_empty()
        });
    }
}

fn forget(awaited: &mut HashMap<UserId, Vec<Awaited>>, user: UserId, from: Origin) {
    if let Some(of_user) = awaited.get_mut(&user) {
        of_user.retain(|awaited| awaited.from != from);
        if of_user.is_empty() {
            awaited.remove(&user);
        }
    }
}

impl App {
    /// Whether what came as the password is to be read as a code: it can be one, and the user's
    /// password was right a moment ago.
    pub(super) fn is_second_call(
        &self,
        user: &User,
        password: &str,
        conn: ConnInfo,
        now: Timestamp,
    ) -> bool {
        user.second_factor.may_be_code(password) && self.second_factors.take_try(user, conn, now)
    }

    /// Goes on behind a right password of a user with a second factor.
    ///
    /// # Errors
    ///
    /// A code is wanted, or it is wrong.
    pub(super) async fn ask_for_code(
        &self,
        user: &Arc<User>,
        code: CodeBy,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<Arc<User>, LoginError> {
        match code {
            CodeBy::Given(code) => self.check_code(user, &code, conn, now).await,
            CodeBy::Call => {
                self.second_factors.await_code(user, conn, now);
                Err(Refusal::CodeWanted.into())
            }
            CodeBy::Nothing => {
                // As a wrong one, or the lock would tell.
                self.passwords.count_failure(&user.email, conn.remote_addr.ip(), now);
                Err(Refusal::CodeMissing.into())
            }
        }
    }

    /// Checks a code of the user, which is not taken again: over a restart, too, unless the store
    /// takes nothing at the moment.
    ///
    /// # Errors
    ///
    /// It is wrong, or too many were.
    pub(super) async fn check_code(
        &self,
        user: &User,
        code: &str,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<Arc<User>, LoginError> {
        let from = conn.remote_addr.ip();
        self.passwords.check_code_lock(&user.email, from, now)?;
        let accepted = self.accept_code(user, code, now)?;
        let Some((user, receipt)) = accepted else {
            self.passwords.count_wrong_code(&user.email, from, now);
            return Err(Refusal::BadCode.into());
        };
        self.passwords.note_right(&user, from);
        self.second_factors.done(user.id, conn);
        receipt.await?;
        Ok(user)
    }

    /// The user after a code that was right; none if it was wrong.
    fn accept_code(
        &self,
        user: &User,
        code: &str,
        now: Timestamp,
    ) -> Result<Option<(Arc<User>, store::Receipt)>, LoginError> {
        let turn = self.records.turn();
        let Some(user) = self.records.user(user.id).filter(|found| same_login(found, user)) else {
            return Err(Refusal::NoAccess.into());
        };
        let taken = self.second_factors.0.lock().taken.get(&user.id).copied();
        let accepted = user.second_factor.accept(code, taken, self.clock.shown(now));
        let Some((second_factor, accepted)) = accepted else { return Ok(None) };
        if let Accepted::Step(step) = accepted {
            self.second_factors.0.lock().taken.insert(user.id, step);
        }
        let changed = turn.put(User { second_factor, ..User::clone(&user) });
        let receipt = match (self.change_records(changed, Vec::new()), &accepted) {
            (Ok(receipt), _) => receipt,
            // Whoever makes room has to get in; the process knows that it was taken.
            (Err(StoreError::NoRoom | StoreError::Unavailable), Accepted::Step(_)) => {
                store::Receipt::nothing()
            }
            (Err(error), _) => return Err(error.into()),
        };
        if let Accepted::Recovery(left) = accepted {
            let who = &*user.email;
            tracing::info!(who, left, "a recovery code of a second factor was used");
        }
        Ok(Some((self.records.user(user.id).unwrap_or(user), receipt)))
    }

    /// Checks that the session's user has a code at hand, as a login does.
    ///
    /// # Errors
    ///
    /// It is wrong, or too many were.
    pub async fn verify_code(
        &self,
        user: &User,
        code: &str,
        session: &Session,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let checked = self.check_code(user, code, *session.conn(), now).await;
        checked.map(drop).map_err(Failure::from)
    }

    /// A TCP connection has closed: what a password over it opened is over.
    pub fn forget_awaited_code(&self, conn: ConnInfo) {
        self.second_factors.connection_closed(conn);
    }

    /// Forgets a second factor that is gone, or was replaced.
    pub fn forget_codes(&self, user: UserId) {
        let state = &mut *self.second_factors.0.lock();
        state.awaited.remove(&user);
        state.taken.remove(&user);
    }
}

/// Whether somebody who has proved to be the user as the record was is so by the record as it is.
pub(super) fn same_login(now: &User, then: &User) -> bool {
    let factor = |of: &SecondFactor| of.is_active();
    now.password_hash == then.password_hash
        && (!factor(&now.second_factor) || factor(&then.second_factor))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, demo};
    use super::*;

    fn conn(protocol: Protocol, from: &str) -> ConnInfo {
        ConnInfo::new(protocol, from.parse().expect("an address"))
    }

    #[test]
    fn a_code_is_awaited_from_where_the_password_came() {
        let (app, _) = demo();
        let user = app.identity().user_by_email("viewer@basicorg.example").expect("a user");
        let factors = SecondFactors::default();
        let http = conn(Protocol::Http, "192.0.2.1:5");
        let tcp = conn(Protocol::Tcp, "192.0.2.1:5");
        factors.await_code(&user, http, NOW);
        let check = |from: ConnInfo, after_s, expected| {
            let found = factors.take_try(&user, from, NOW.plus_seconds(after_s));
            assert_eq!(found, expected, "{from:?} {after_s}");
        };
        check(conn(Protocol::Https, "192.0.2.2:5"), 0, false);
        check(tcp, 0, false);
        check(conn(Protocol::Https, "[::ffff:192.0.2.1]:6"), 119, true);
        check(http, 120, false);
        factors.await_code(&user, tcp, NOW);
        check(conn(Protocol::Tcp, "192.0.2.1:6"), 0, false);
        check(http, 0, false);
        check(tcp, 0, true);
        factors.connection_closed(tcp);
        check(tcp, 0, false);
        assert!(factors.0.lock().awaited.is_empty());
    }

    #[test]
    fn five_codes_are_tried_and_none_for_another_password() {
        let (app, _) = demo();
        let user = app.identity().user_by_email("viewer@basicorg.example").expect("a user");
        let factors = SecondFactors::default();
        let http = conn(Protocol::Http, "192.0.2.1:5");
        factors.await_code(&user, http, NOW);
        let tried = (0..9).filter(|_| factors.take_try(&user, http, NOW)).count();
        assert_eq!(tried, 5);
        factors.await_code(&user, http, NOW);
        let changed = User { password_hash: "another".into(), ..User::clone(&user) };
        assert!(!factors.take_try(&changed, http, NOW));
        for number in 0..20 {
            factors.await_code(&user, conn(Protocol::Http, &format!("192.0.2.{number}:5")), NOW);
        }
        assert_eq!(factors.0.lock().awaited[&user.id].len(), limits::CODES_AWAITED_MAX);
        factors.expire(NOW.plus_seconds(limits::CODE_WITHIN_S));
        assert!(factors.0.lock().awaited.is_empty());
    }
}
