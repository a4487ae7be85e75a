//! Password checks. Each takes some 30 ms of a core, so they run on threads of their own, and
//! failed logins are limited.
//!
//! Logins and changes wait in queues of their own, for threads of their own: however many logins
//! are tried, from wherever, who is logged in can change a password.

mod queue;

use std::collections::VecDeque;
use std::collections::hash_map::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::{OrgId, Timestamp, limits, network_of};
use parking_lot::Mutex;
use rules::directory::Principal;
use rules::identity::Refusal;
use rules::identity::model::User;
use rules::identity::password::{NOBODYS_HASH, hash_password, is_right};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use queue::{Asker, Key, Queue};

use super::cores::Cores;
use super::known_networks::KnownNetworks;

/// Checks passwords.
pub(super) struct Passwords {
    logins: Queue<Work>,
    changes: Queue<Work>,
    pools: Arc<Pools>,
    cores: Arc<Cores>,
    failures: Mutex<Failures>,
}

/// What the threads do; both take the same time.
enum Work {
    Check { user: Option<Arc<User>>, password: String, answer: oneshot::Sender<bool> },
    Hash { password: String, salt: [u8; 16], answer: oneshot::Sender<String> },
}

impl Passwords {
    /// Starts that many threads for logins, at least one, and one for changes.
    pub(super) fn new(workers: usize, pools: &Arc<Pools>, cores: &Arc<Cores>) -> Self {
        let queue =
            |pool, threads, room| Queue::new(threads, room, pools.usage(pool).clone(), work);
        let logins = (limits::PASSWORD_QUEUE_MAX, limits::PASSWORDS_PER_NETWORK_MAX);
        let changes = (limits::PASSWORD_CHANGES_MAX, limits::PASSWORD_CHANGES_PER_PRINCIPAL_MAX);
        Self {
            logins: queue(Pool::PasswordChecks, workers.max(1), logins),
            changes: queue(Pool::PasswordChanges, 1, changes),
            pools: pools.clone(),
            cores: cores.clone(),
            failures: Mutex::new(Failures::new(pools)),
        }
    }

    /// Notes that the user has logged in from there.
    pub(super) fn note_known(&self, user: &User, from: IpAddr) {
        self.failures.lock().known.know(network_of(from), payer_of(user));
    }

    /// Forgets what failed of this account, or at this network: how many names were locked.
    pub(super) fn unlock(&self, name: &str, network: Option<IpAddr>, now: Timestamp) -> usize {
        let account = account_of(name);
        let mut failures = self.failures.lock();
        failures.accounts.remove(&account);
        failures.accounts.remove(&codes_of(name));
        let mut locked = 0;
        for failing in failures.of.values_mut() {
            let Some((of, from)) = failing.who else { continue };
            if of == account || Some(from) == network {
                locked += usize::from(failing.locked_until.is_some_and(|until| until > now));
                (failing.count, failing.locked_until) = (0, None);
            }
        }
        locked
    }

    /// Notes that the user has shown all that a login needs.
    pub(super) fn note_right(&self, user: &User, from: IpAddr) {
        let network = network_of(from);
        let mut failures = self.failures.lock();
        failures.forgive(&Source::new(&user.email, network));
        failures.known.know(network, payer_of(user));
    }

    /// Counts a login that failed behind a right password.
    pub(super) fn count_failure(&self, name: &str, from: IpAddr, now: Timestamp) {
        let network = network_of(from);
        let source = Source::new(name, network);
        self.failures.lock().count(source, (account_of(name), network), now);
    }

    /// The same, for a wrong code.
    pub(super) fn count_wrong_code(&self, name: &str, from: IpAddr, now: Timestamp) {
        self.count_failure(name, from, now);
        let failures = &mut *self.failures.lock();
        let (of, order) = (&mut failures.accounts, &mut failures.oldest_accounts_first);
        failing(of, order, codes_of(name), now);
    }

    /// Whether a code of the user of this name may be tried from there.
    ///
    /// # Errors
    /// [`Refusal::Locked`] as for passwords; and where the user has never logged in, if many codes
    /// were wrong lately, from wherever.
    pub(super) fn check_code_lock(
        &self,
        name: &str,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let network = network_of(from);
        let failures = self.failures.lock();
        failures.check(&Source::new(name, network), now)?;
        let guessed = failures.accounts.get(&codes_of(name));
        let guessed = guessed.filter(|guessed| guessed.count > limits::USER_CODE_FAILURES_MAX);
        let age_ms = guessed.map(|guessed| now.millis_since(guessed.since));
        match age_ms.and_then(|age_ms| limits::LOGIN_FAILURES_WITHIN_MS.checked_sub(age_ms)) {
            Some(left_ms) if !failures.known.knows(network, account_of(name)) => {
                Err(Refusal::Locked { seconds: left_ms.div_ceil(1000) })
            }
            _ => Ok(()),
        }
    }

    /// Checks the password of the user whom the caller found under `name`, and returns the user.
    /// Without a user it takes as long and fails.
    ///
    /// # Errors
    /// [`Refusal::BadCredentials`] for a wrong password, [`Refusal::Locked`] after 10 failures in
    /// a row for this name from this address (IPv6: this /64) within 30 minutes, for 5 minutes;
    /// after the first one if the name fails at many addresses and has never logged in from this
    /// one. [`Refusal::Busy`] when too many checks wait, in all or from this network.
    pub(super) async fn verify(
        &self,
        user: Option<Arc<User>>,
        name: &str,
        password: String,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Arc<User>, Refusal> {
        let place = Place { from: key_of(b"network", network_of(from).to_string()), tenant: None };
        self.check(&self.logins, place, Try { user, name, password, from, now }).await
    }

    /// Checks the present password of a user who wants another one; the failures count with those
    /// of logins.
    ///
    /// # Errors
    /// As [`Passwords::verify`]; it is busy when too many changes wait, in all or of this principal.
    pub(super) async fn verify_to_change(
        &self,
        user: Arc<User>,
        password: String,
        changer: (OrgId, Principal),
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Arc<User>, Refusal> {
        let (name, place) = (user.email.clone(), self.place_of(changer));
        let user = Some(user);
        self.check(&self.changes, place, Try { user, name: &name, password, from, now }).await
    }

    async fn check(
        &self,
        queue: &Queue<Work>,
        place: Place,
        Try { user, name, password, from, now }: Try<'_>,
    ) -> Result<Arc<User>, Refusal> {
        let network = network_of(from);
        let (source, account) = (Source::new(name, network), account_of(name));
        let known = {
            let failures = self.failures.lock();
            failures.check(&source, now)?;
            failures.known.knows(network, account)
        };
        let Place { from, tenant } = place;
        let asker = Asker { from, account, tenant, known };
        let fits = password.len() <= limits::PASSWORD_BYTES_MAX;
        let user = user.filter(|_| fits);
        let password = if fits { password } else { String::new() };
        let (answer, answered) = oneshot::channel();
        queue.submit(asker, Work::Check { user: user.clone(), password, answer })?;
        // Who was there before is no stranger.
        let checking = known.then(|| self.cores.checking());
        let right = answered.await.map_err(|_| Refusal::Busy)?;
        drop(checking);

        let mut failures = self.failures.lock();
        // Guesses sent side by side must not get past a lock that one of them set off, not even
        // with the right password.
        failures.check(&source, now)?;
        match user {
            Some(user) if right => {
                // With a second factor, a right password is half of it.
                if !user.second_factor.is_active() {
                    failures.forgive(&source);
                    failures.known.know(network, (user.home, account));
                }
                Ok(user)
            }
            _ => {
                failures.count(source, (account, network), now);
                Err(Refusal::BadCredentials)
            }
        }
    }
}

impl Passwords {
    /// Makes the argon2id hash of a new password, in PHC form, as one of the changes that wait.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many changes wait, in all or of this principal or tenant.
    pub(super) async fn hash(
        &self,
        password: String,
        salt: [u8; 16],
        changer: (OrgId, Principal),
    ) -> Result<String, Refusal> {
        let (answer, answered) = oneshot::channel();
        let Place { from, tenant } = self.place_of(changer);
        let asker = Asker { from, account: from, tenant, known: true };
        self.changes.submit(asker, Work::Hash { password, salt, answer })?;
        answered.await.map_err(|_| Refusal::Busy)
    }

    fn place_of(&self, (org, principal): (OrgId, Principal)) -> Place {
        let tenant = key_of(b"tenant", self.pools.tenant_of(org).as_bytes());
        Place { from: key_of_principal(&principal), tenant: Some(tenant) }
    }
}

/// A password that is to be checked: whose it is said to be, from where it came and when.
struct Try<'a> {
    user: Option<Arc<User>>,
    name: &'a str,
    password: String,
    from: IpAddr,
    now: Timestamp,
}

/// From where somebody asks, or who is logged in; then, also the tenant.
struct Place {
    from: Key,
    tenant: Option<Key>,
}

/// Does one thing. Who has hung up needs no answer, and must not cost 30 ms. The place is given
/// back before the answer, so that who gets it can ask again.
fn work(work: Work, give_back: &dyn Fn()) {
    match work {
        Work::Check { user, password, answer } if !answer.is_closed() => {
            let hash = user.as_ref().map_or(NOBODYS_HASH, |user| &user.password_hash);
            let right = is_right(&password, hash);
            give_back();
            let _ = answer.send(right && user.is_some());
        }
        Work::Hash { password, salt, answer } if !answer.is_closed() => {
            let hash = hash_password(&password, salt);
            give_back();
            let _ = answer.send(hash);
        }
        Work::Check { .. } | Work::Hash { .. } => {}
    }
}

fn key_of(kind: &[u8], name: impl AsRef<[u8]>) -> Key {
    let mut hash = Sha256::new();
    hash.update(kind);
    hash.update([0]);
    hash.update(name);
    hash.finalize().into()
}

fn key_of_principal(principal: &Principal) -> Key {
    match principal {
        Principal::User(id) => key_of(b"user", id.to_string()),
        Principal::Thing(org, key) => key_of(b"thing", format!("{org} {key}")),
    }
}

fn account_of(name: &str) -> Key {
    key_of(b"account", name.to_lowercase())
}

/// The account of a user, and the organisation that has a share of what is known.
fn payer_of(user: &User) -> (OrgId, Key) {
    (user.home, account_of(&user.email))
}

fn codes_of(name: &str) -> Key {
    key_of(b"codes", name.to_lowercase())
}

/// Who fails: a hash of name and network, so that long names cost no memory.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Source([u8; 32]);

impl Source {
    fn new(name: &str, network: IpAddr) -> Self {
        let mut hash = Sha256::new();
        hash.update(network.to_string());
        hash.update([0]);
        hash.update(name.to_lowercase());
        Self(hash.finalize().into())
    }
}

struct Failures {
    of: HashMap<Source, Failing>,
    oldest_first: VecDeque<Source>,
    /// What fails of each account at addresses from which it has never logged in; and codes of second
    /// factors that fail, wherever.
    accounts: HashMap<Key, Failing>,
    oldest_accounts_first: VecDeque<Key>,
    /// From where accounts have logged in.
    known: KnownNetworks<Key>,
}

struct Failing {
    count: u32,
    since: Timestamp,
    locked_until: Option<Timestamp>,
    /// Which account fails, and from which network; of an account's own count, none.
    who: Option<(Key, IpAddr)>,
}

impl Failures {
    fn new(pools: &Arc<Pools>) -> Self {
        Self {
            of: HashMap::new(),
            oldest_first: VecDeque::new(),
            accounts: HashMap::new(),
            oldest_accounts_first: VecDeque::new(),
            known: KnownNetworks::new(Pool::KnownUsers, limits::KNOWN_LOGINS_MAX, pools),
        }
    }

    fn check(&self, source: &Source, now: Timestamp) -> Result<(), Refusal> {
        let locked_until = self.of.get(source).and_then(|failing| failing.locked_until);
        match locked_until.map(|until| until.millis_since(now)) {
            None | Some(0) => Ok(()),
            Some(millis) => Err(Refusal::Locked { seconds: millis.div_ceil(1000) }),
        }
    }

    fn count(&mut self, source: Source, (account, network): (Key, IpAddr), now: Timestamp) {
        let known = self.known.knows(network, account);
        // Where the owner logs in, strangers elsewhere change nothing; and wherever there was no
        // failure yet, there is one try.
        let attacked = !known && {
            let (of, order) = (&mut self.accounts, &mut self.oldest_accounts_first);
            failing(of, order, account, now).count > limits::ACCOUNT_FAILURES_MAX
        };
        let failing = failing(&mut self.of, &mut self.oldest_first, source, now);
        failing.who = Some((account, network));
        if attacked || failing.count >= limits::LOGIN_FAILURES_MAX {
            failing.locked_until = Some(now.plus_seconds(limits::LOGIN_LOCK_S));
        }
    }

    fn forgive(&mut self, source: &Source) {
        if let Some(failing) = self.of.get_mut(source) {
            failing.count = 0;
            failing.locked_until = None;
        }
    }
}

/// Counts one more failure. Those of long ago, or before a lock that is over, are forgotten; so is
/// the one that fails for longest if there are too many.
fn failing<'a, K: Clone + Eq + std::hash::Hash>(
    of: &'a mut HashMap<K, Failing>,
    oldest_first: &mut VecDeque<K>,
    key: K,
    now: Timestamp,
) -> &'a mut Failing {
    if !of.contains_key(&key) {
        if of.len() >= limits::FAILING_LOGINS_MAX
            && let Some(oldest) = oldest_first.pop_front()
        {
            of.remove(&oldest);
        }
        oldest_first.push_back(key.clone());
    }
    let fresh = || Failing { count: 0, since: now, locked_until: None, who: None };
    let failing = of.entry(key).or_insert_with(fresh);
    let lapsed = failing.locked_until.is_some()
        || now.millis_since(failing.since) > limits::LOGIN_FAILURES_WITHIN_MS;
    if lapsed {
        *failing = fresh();
    }
    failing.count += 1;
    failing
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::tests::{NOW, demo};
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const NAME: &str = "viewer@basicorg.example";
    const PASSWORD: &str = "demo-viewer-password";

    /// That many threads, and cores for which nobody waits.
    fn of_threads(threads: usize) -> Passwords {
        let pools = Arc::default();
        Passwords::new(threads, &pools, &Cores::new(1, &pools, Default::default()))
    }

    fn viewer() -> Option<Arc<User>> {
        demo().0.identity().user_by_email(NAME)
    }

    #[tokio::test]
    async fn only_the_right_password_opens() {
        let passwords = of_threads(2);
        let user = viewer();
        let check = async |user: &Option<Arc<User>>, password: &str, welcome: bool| {
            let outcome = passwords.verify(user.clone(), NAME, password.into(), HERE, NOW).await;
            assert_eq!(outcome.is_ok(), welcome, "{password}");
            assert!(matches!(outcome, Ok(_) | Err(Refusal::BadCredentials)));
        };
        check(&user, PASSWORD, true).await;
        check(&user, "demo-viewer-passwor", false).await;
        check(&user, "", false).await;
        check(&user, &"x".repeat(limits::PASSWORD_BYTES_MAX + 1), false).await;
        check(&None, PASSWORD, false).await;
        check(&None, "", false).await;
    }

    #[tokio::test]
    async fn a_new_password_opens() {
        let passwords = of_threads(1);
        let user = viewer().expect("a user of the demo");
        let hash = passwords
            .hash("new password".into(), [3; 16], (user.home, Principal::User(user.id)))
            .await;
        let hash = hash.expect("room");
        assert_eq!(hash, hash_password("new password", [3; 16]));
        let mut user = User::clone(&user);
        user.password_hash = hash;
        let verify = |password: &str| {
            passwords.verify(Some(Arc::new(user.clone())), NAME, password.into(), HERE, NOW)
        };
        verify("new password").await.expect("the new one");
        assert!(matches!(verify(PASSWORD).await, Err(Refusal::BadCredentials)));
        assert!(passwords.logins.is_idle());
        assert!(passwords.changes.is_idle());
    }

    #[tokio::test]
    async fn a_full_queue_says_so() {
        let passwords = of_threads(1);
        let checks: Vec<_> = (0..limits::PASSWORD_QUEUE_MAX + 8)
            .map(|number| {
                let from = IpAddr::V4(Ipv4Addr::from_bits(number as u32));
                passwords.verify(None, NAME, String::new(), from, NOW)
            })
            .collect();
        let outcomes = futures_util::future::join_all(checks).await;
        let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(Refusal::Busy))).count();
        assert!((1..=8).contains(&busy), "{busy} were turned away");
    }

    #[tokio::test]
    async fn one_network_does_not_fill_the_queue() {
        let passwords = of_threads(1);
        let user = viewer();
        let names: Vec<_> = (0..90).map(|number| number.to_string()).collect();
        let guesses =
            names.iter().map(|name| passwords.verify(None, name, String::new(), HERE, NOW));
        let guesses = futures_util::future::join_all(guesses);
        let there = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let other = passwords.verify(user.clone(), NAME, PASSWORD.into(), there, NOW);
        let (guesses, other) = futures_util::future::join(guesses, other).await;
        let busy = guesses.iter().filter(|guess| matches!(guess, Err(Refusal::Busy))).count();
        assert_eq!(busy, names.len() - limits::PASSWORDS_PER_NETWORK_MAX);
        other.expect("another network is not kept out");
        assert!(passwords.logins.is_idle());
        let here = passwords.verify(user, NAME, PASSWORD.into(), HERE, NOW).await;
        here.expect("the places are given back");
    }

    #[tokio::test]
    async fn changes_have_a_place_while_logins_fill_theirs() {
        let passwords = of_threads(1);
        let user = viewer().expect("a user of the demo");
        let names: Vec<_> = (0..90).map(|number| number.to_string()).collect();
        let guesses =
            names.iter().map(|name| passwords.verify(None, name, String::new(), HERE, NOW));
        let guesses = futures_util::future::join_all(guesses);
        let principal = || (user.home, Principal::User(user.id));
        let most = limits::PASSWORD_CHANGES_PER_PRINCIPAL_MAX;
        let hashes = (0..most - 1).map(|_| passwords.hash("new".into(), [3; 16], principal()));
        let hashes = futures_util::future::join_all(hashes);
        let old = passwords.verify_to_change(user.clone(), PASSWORD.into(), principal(), HERE, NOW);
        let more = passwords.hash("new".into(), [3; 16], principal());
        let other = (user.home, Principal::User(base::UserId::from_bytes([9; 12])));
        let other = passwords.hash("new".into(), [3; 16], other);
        let all = tokio::join!(guesses, hashes, old, more, other);
        assert!(all.0.iter().any(|guess| matches!(guess, Err(Refusal::Busy))));
        assert!(all.1.iter().all(Result::is_ok) && all.2.is_ok() && all.4.is_ok());
        assert!(matches!(all.3, Err(Refusal::Busy)), "one principal leaves room for others");
        assert!(passwords.changes.is_idle());
    }

    #[tokio::test]
    async fn a_lock_is_no_help_to_the_right_password() {
        let passwords = of_threads(2);
        let user = viewer();
        let verify = |password: &str, now| {
            passwords.verify(user.clone(), NAME, password.to_owned(), HERE, now)
        };
        for _ in 0..limits::LOGIN_FAILURES_MAX {
            assert!(matches!(verify("wrong", NOW).await, Err(Refusal::BadCredentials)));
        }
        let locked = verify(PASSWORD, NOW).await;
        assert!(matches!(locked, Err(Refusal::Locked { seconds: limits::LOGIN_LOCK_S })));
        verify(PASSWORD, NOW.plus_seconds(limits::LOGIN_LOCK_S)).await.expect("the lock is over");
    }

    #[test]
    fn failures_count_in_a_row_and_within_half_an_hour() {
        let source = Source::new(NAME, HERE);
        let mut failures = Failures::new(&Arc::default());
        let fail = |failures: &mut Failures, times, at: u64| {
            for _ in 0..times {
                failures.count(source.clone(), (account_of(NAME), HERE), NOW.plus_seconds(at));
            }
            failures.check(&source, NOW.plus_seconds(at)).is_err()
        };
        assert!(!fail(&mut failures, 9, 0));
        failures.forgive(&source);
        assert!(!fail(&mut failures, 9, 10), "a success starts anew");
        assert!(!fail(&mut failures, 9, 1811), "the old ones do not count");
        assert!(fail(&mut failures, 1, 1812));
        assert!(failures.check(&source, NOW.plus_seconds(1812 + 299)).is_err());
        assert!(failures.check(&source, NOW.plus_seconds(1812 + 300)).is_ok());
        assert!(!fail(&mut failures, 9, 1812 + 300), "after a lock the count starts anew");
    }

    #[test]
    fn failures_are_those_of_a_name_and_a_network() {
        let check = |(name, from): (&str, &str), (other, there): (&str, &str), same| {
            let source =
                |name, from: &str| Source::new(name, network_of(from.parse().expect("an address")));
            assert_eq!(source(name, from) == source(other, there), same, "{from} {there}");
        };
        check(("a", "10.0.0.1"), ("A", "10.0.0.1"), true);
        check(("a", "10.0.0.1"), ("b", "10.0.0.1"), false);
        check(("a", "10.0.0.1"), ("a", "10.0.0.2"), false);
        check(("a", "10.0.0.1"), ("a", "::ffff:10.0.0.1"), true);
        check(("a", "2001:db8::1"), ("a", "2001:db8::ffff:1"), true);
        check(("a", "2001:db8::1"), ("a", "2001:db8:0:1::1"), false);
    }

    #[test]
    fn the_memory_for_failures_has_a_bound() {
        let mut failures = Failures::new(&Arc::default());
        for number in 0..limits::FAILING_LOGINS_MAX + 100 {
            let name = number.to_string();
            failures.count(Source::new(&name, HERE), (account_of(&name), HERE), NOW);
        }
        assert_eq!(
            (failures.of.len(), failures.oldest_first.len()),
            (limits::FAILING_LOGINS_MAX, limits::FAILING_LOGINS_MAX)
        );
        assert!(!failures.of.contains_key(&Source::new("0", HERE)));
    }

    #[test]
    fn many_addresses_get_one_guess_each_and_the_owner_all_of_hers() {
        let mut failures = Failures::new(&Arc::default());
        let address = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
        let source = |number| Source::new(NAME, address(number));
        failures.known.know(address(0), (OrgId::from_bytes([1; 12]), account_of(NAME)));
        let mut guess = |number: u32| {
            let free = failures.check(&source(number), NOW).is_ok();
            if free {
                failures.count(source(number), (account_of(NAME), address(number)), NOW);
            }
            free
        };
        let checked = (0..270).filter(|number| guess(1 + number % 30)).count();
        let most = limits::ACCOUNT_FAILURES_MAX as usize + 30;
        assert!((30..=most).contains(&checked), "{checked} guesses were checked");
        // She mistypes nine times where she is at home, and once where she has never been.
        assert!((0..9).all(|_| guess(0)));
        assert!(guess(1000) && !guess(1000));
        assert!(failures.check(&source(0), NOW).is_ok());
        assert!(failures.check(&source(1001), NOW).is_ok());
        let other = Source::new("other", address(1));
        assert!(failures.check(&other, NOW).is_ok());
        let later = NOW.plus_seconds(limits::LOGIN_LOCK_S);
        assert!(failures.check(&source(1), later).is_ok());
    }

    #[tokio::test]
    async fn strangers_at_many_addresses_do_not_keep_out_who_was_there_before() {
        let passwords = of_threads(1);
        let user = viewer();
        let login = || passwords.verify(user.clone(), NAME, PASSWORD.into(), HERE, NOW);
        login().await.expect("welcome");
        let guesses = (0..10 * limits::PASSWORD_QUEUE_MAX).map(|number| {
            let from = IpAddr::V4(Ipv4Addr::from_bits(number as u32));
            passwords.verify(None, "other", String::new(), from, NOW)
        });
        let guesses = futures_util::future::join_all(guesses);
        let (_, mine) = futures_util::future::join(guesses, login()).await;
        mine.expect("a place in front of all strangers");
    }
}
