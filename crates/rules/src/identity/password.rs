//! Password hashes: argon2id in PHC form.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

/// What a hash costs: 19 MiB and two passes, OWASP's first choice for argon2id; about 30 ms of a
/// core.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// What a hash from a bootstrap file may cost: a second of a core, and memory that a small machine
/// has for each of its cores.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 10;
const LANES_MAX: u32 = 8;

/// The hash that an unknown user is checked against, so that the time tells nobody who exists. It
/// costs what [`hash_password`]'s cost.
pub const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
                                AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Makes the argon2id hash of a password, in PHC form.
pub fn hash_password(password: &str, salt: [u8; 16]) -> String {
    let hash: PasswordHash = hasher()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .expect("costs and salt are within argon2's bounds, and there are 19 MiB of memory");
    hash.to_string()
}

/// Whether the text is an argon2id hash in PHC form that this program would check.
pub fn is_usable_hash(text: &str) -> bool {
    let Ok(hash) = PasswordHash::new(text) else {
        return false;
    };
    let cheap = Params::try_from(&hash).is_ok_and(|params| {
        params.m_cost() <= MEMORY_KIB_MAX
            && params.t_cost() <= PASSES_MAX
            && params.p_cost() <= LANES_MAX
    });
    let whole = hash.salt.is_some() && hash.hash.is_some();
    cheap && whole && hash.algorithm.as_str() == Algorithm::Argon2id.as_str()
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("within argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Whether the password is the one of this hash.
pub fn is_right(password: &str, hash: &str) -> bool {
    hasher().verify_password(password.as_bytes(), hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_costs_what_everybody_costs() {
        let params = |hash: &str| Params::try_from(&PasswordHash::new(hash).expect("PHC"));
        let costs = |hash: &str| {
            let params = params(hash).expect("argon2's");
            (params.m_cost(), params.t_cost(), params.p_cost(), params.output_len())
        };
        assert!(is_usable_hash(NOBODYS_HASH));
        assert_eq!(costs(NOBODYS_HASH), costs(&hash_password("x", [1; 16])));
    }

    #[test]
    fn only_hashes_that_can_be_checked_are_usable() {
        let good = hash_password("x", [1; 16]);
        let check = |hash: &str, usable| assert_eq!(is_usable_hash(hash), usable, "{hash}");
        check(&good, true);
        check(&good.replace("argon2id", "argon2i"), false);
        check(&good.replace("m=19456", "m=4194304"), false);
        check(&good.replace("t=2", "t=1000"), false);
        check(good.rsplit_once('$').expect("parts").0, false);
        check("plain", false);
        check("", false);
    }
}
