//! Logins of devices with an application's token (`docs/protocol/tr50.md` 1.1, "app login"; 3.1).

use std::sync::Arc;

use super::access::Access;
use super::model::Application;
use super::{Identity, Lapsed};

/// Why a login is refused. For the log and for choosing an error code; a peer that failed must not
/// learn more than that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Unknown name, wrong password or wrong token.
    #[error("unknown name or wrong password")]
    BadCredentials,
    /// The thing is unknown and the token registers none.
    #[error("unknown thing, and the token registers none")]
    UnknownThing,
    /// The thing key can't be one.
    #[error("not a thing key")]
    BadThingKey,
    /// The principal may not enter the organisation.
    #[error("no access to the organisation")]
    NoAccess,
    /// The password is right, and a code of the second factor is to follow.
    #[error("the code of the second factor is wanted")]
    CodeWanted,
    /// The password is right, and who asks can't send a code.
    #[error("a second factor is wanted, or an API token")]
    CodeMissing,
    /// The code of the second factor is wrong, or was taken before.
    #[error("the code of the second factor is wrong")]
    BadCode,
    /// The token is known, and not taken.
    #[error(transparent)]
    Lapsed(#[from] Lapsed),
    /// Too many logins wait.
    #[error("too many logins wait to be checked")]
    Busy,
    /// Too many failures.
    #[error("locked for {seconds} s after too many failures")]
    Locked {
        /// How long it lasts.
        seconds: u64,
    },
}

impl Identity {
    /// The application with this token, and what its sessions may do.
    ///
    /// # Errors
    /// [`Refusal::BadCredentials`] for an unknown token, then [`Refusal::NoAccess`].
    pub fn admit_application(&self, token: &str) -> Result<(Arc<Application>, Access), Refusal> {
        let application = self.application_by_token(token).ok_or(Refusal::BadCredentials)?;
        let access = self.application_access(&application).ok_or(Refusal::NoAccess)?;
        Ok((application, access))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::demo;
    use super::*;

    #[test]
    fn a_token_admits_to_the_rights_of_its_application() {
        let identity = demo();
        let (application, access) =
            identity.admit_application("demo-token-basicorg").expect("welcome");
        assert_eq!(application.name, "demo-app");
        assert_eq!(
            (access.org.id, &access.role_keys[..]),
            (application.org, &["device".to_owned()][..])
        );
        for unknown in ["no such token", ""] {
            let refused = identity.admit_application(unknown);
            assert!(matches!(refused, Err(Refusal::BadCredentials)));
        }
    }
}
