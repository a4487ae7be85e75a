//! What was counted since the start, by cause, for `server.status`.

use base::{CODES, Timestamp};
use rules::directory::{Kind, Reason};

use super::{Metrics, REFUSED};
use crate::events::LoginCause;

/// Names with how often each happened.
pub type ByCause = Vec<(String, u64)>;

impl Metrics {
    /// When the certificate in `tls.cert` ends; none: there is none.
    pub fn certificate_end(&self) -> Option<Timestamp> {
        let end = self.certificate_end.get(&[("key", "tls.cert")])?.get();
        Some(Timestamp::from_millis(end.saturating_mul(1000)))
    }

    /// Sessions that have started.
    pub fn starts(&self) -> u64 {
        let of = |kind: Kind| self.sessions_started.get_or_create(&[("kind", kind.as_str())]).get();
        Kind::ALL.into_iter().map(of).sum()
    }

    /// Sessions that have ended for a reason.
    pub fn ends_by(&self, reason: Reason) -> u64 {
        let reason = ("reason", reason.as_str());
        let of = |kind: Kind| self.sessions_ended.get_or_create(&[("kind", kind.as_str()), reason]);
        Kind::ALL.into_iter().map(|kind| of(kind).get()).sum()
    }

    /// Sessions that have ended, by reason; those that have not happened are left out, as in all of
    /// these.
    pub fn ends(&self) -> ByCause {
        happened(Reason::ALL.map(|reason| (reason.as_str().to_owned(), self.ends_by(reason))))
    }

    /// Connections that were refused before a login, by reason.
    pub fn refused_connections(&self) -> ByCause {
        let of = |reason| self.refused.get_or_create(&[("reason", reason)]).get();
        happened(REFUSED.map(|reason| (reason.to_owned(), of(reason))))
    }

    /// Logins that were refused, by cause.
    pub fn refused_logins(&self) -> ByCause {
        let of = |cause: LoginCause| (cause.as_str().to_owned(), self.logins.refused_by(cause));
        happened(LoginCause::ALL.map(of))
    }

    /// Commands that failed, by code.
    pub fn failed_commands(&self) -> ByCause {
        let counts = CODES.iter().zip(self.failures.counts());
        happened(counts.map(|(info, count)| (info.code.0.to_string(), count)))
    }
}

fn happened(counts: impl IntoIterator<Item = (String, u64)>) -> ByCause {
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}
