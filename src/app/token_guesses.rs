//! Wrong tokens: who guesses them is slowed, by address.
//!
//! A token is checked in no time, so guesses would only be bounded by the line. After some wrong
//! ones a network gets no answer but for those applications that have logged in from there before:
//! one device with a wrong token keeps out none of its neighbours.

use std::collections::VecDeque;
use std::collections::hash_map::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::{ApplicationId, OrgId, Timestamp, limits};
use parking_lot::Mutex;
use rules::identity::Refusal;

use super::known_networks::KnownNetworks;

/// What was guessed, and who is known.
pub(super) struct TokenGuesses(Mutex<State>);

struct State {
    /// Whoever has many networks pushes others out, and learns no more by it than by guessing from
    /// each of them.
    wrong: HashMap<IpAddr, Wrong>,
    oldest_first: VecDeque<IpAddr>,
    known: KnownNetworks<ApplicationId>,
}

/// An application, and its organisation.
type Payer = (OrgId, ApplicationId);

struct Wrong {
    count: u32,
    since: Timestamp,
}

impl TokenGuesses {
    pub(super) fn new(pools: &Arc<Pools>) -> Self {
        let most = limits::TOKEN_NETWORKS_MAX;
        Self(Mutex::new(State {
            wrong: HashMap::new(),
            oldest_first: VecDeque::new(),
            known: KnownNetworks::new(Pool::KnownApplications, most, pools),
        }))
    }

    /// Notes what became of a token that was looked up: the application, or nothing.
    ///
    /// # Errors
    /// [`Refusal::Locked`] if too many were wrong from this network, whatever this one is, unless
    /// its application has logged in from there before; else [`Refusal::BadCredentials`] for a
    /// wrong one.
    pub(super) fn note(
        &self,
        found: Option<Payer>,
        network: IpAddr,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut state = self.0.lock();
        if let Some(seconds) = state.locked_s(network, now) {
            let known = found.is_some_and(|(_, id)| state.known.knows(network, id));
            return if known { Ok(()) } else { Err(Refusal::Locked { seconds }) };
        }
        match found {
            Some(payer) => {
                state.known.know(network, payer);
                Ok(())
            }
            None => {
                state.count(network, now);
                Err(Refusal::BadCredentials)
            }
        }
    }
}

impl TokenGuesses {
    /// Forgets the wrong tokens of a network; whether it was locked.
    pub(super) fn unlock(&self, network: IpAddr, now: Timestamp) -> bool {
        let mut state = self.0.lock();
        let locked = state.locked_s(network, now).is_some();
        if let Some(wrong) = state.wrong.get_mut(&network) {
            wrong.count = 0;
        }
        locked
    }
}

impl State {
    /// For how many seconds the network is locked; none if it is not.
    fn locked_s(&mut self, network: IpAddr, now: Timestamp) -> Option<u64> {
        let wrong = self.wrong.get_mut(&network)?;
        let age = now.millis_since(wrong.since);
        if age >= limits::TOKEN_FAILURES_WITHIN_MS {
            *wrong = Wrong { count: 0, since: now };
        }
        let locked = wrong.count >= limits::TOKEN_FAILURES_MAX;
        locked.then(|| (limits::TOKEN_FAILURES_WITHIN_MS - age).div_ceil(1000))
    }

    fn count(&mut self, network: IpAddr, now: Timestamp) {
        if !self.wrong.contains_key(&network) {
            if self.wrong.len() >= limits::TOKEN_NETWORKS_MAX
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.wrong.remove(&oldest);
            }
            self.oldest_first.push_back(network);
        }
        let wrong = self.wrong.entry(network).or_insert(Wrong { count: 0, since: now });
        wrong.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::NOW;
    use super::*;

    fn payer(number: u8) -> Payer {
        (OrgId::from_bytes([number; 12]), ApplicationId::from_bytes([number; 12]))
    }

    #[test]
    fn after_many_wrong_tokens_only_those_who_are_known_come_in() {
        let guesses = TokenGuesses::new(&Arc::default());
        let (here, there) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let [known, fresh] = [1, 2].map(|number| Some(payer(number)));
        guesses.note(known, here, NOW).expect("welcome");
        for _ in 0..limits::TOKEN_FAILURES_MAX {
            let wrong = guesses.note(None, here, NOW);
            assert!(matches!(wrong, Err(Refusal::BadCredentials)));
        }
        for found in [None, fresh] {
            let locked = guesses.note(found, here, NOW.plus_seconds(1));
            assert!(matches!(locked, Err(Refusal::Locked { seconds: 59 })));
        }
        assert!(guesses.note(known, here, NOW.plus_seconds(1)).is_ok());
        assert!(guesses.note(fresh, there, NOW.plus_seconds(1)).is_ok());
        let later = NOW.plus_millis(limits::TOKEN_FAILURES_WITHIN_MS as i64);
        assert!(guesses.note(fresh, here, later).is_ok());
        assert!(matches!(guesses.note(None, here, later), Err(Refusal::BadCredentials)));
    }

    #[test]
    fn the_memory_for_networks_has_a_bound() {
        let guesses = TokenGuesses::new(&Arc::default());
        let other = IpAddr::from([192, 0, 2, 1]);
        guesses.note(Some(payer(2)), other, NOW).expect("welcome");
        let id = Some(payer(1));
        for number in 0..limits::TOKEN_NETWORKS_MAX as u32 + 10 {
            let network = IpAddr::from(number.to_be_bytes());
            guesses.note(id, network, NOW).expect("welcome");
            guesses.note(None, network, NOW).expect_err("wrong");
        }
        let state = guesses.0.lock();
        let most = limits::TOKEN_NETWORKS_MAX;
        assert_eq!((state.wrong.len(), state.oldest_first.len()), (most, most));
        assert!(state.known.knows(other, payer(2).1));
    }
}
