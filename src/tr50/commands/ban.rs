//! `disabled`, `reason` and `disabledUntil`: bans of things, users and applications, as commands set
//! and show them.

use base::{Clock, Code, Failure, Timestamp};
use rules::identity::Ban;
use serde::Serialize;

use super::authorize::{self, Edit};
use super::target::check_unrestricted;
use crate::tr50::params::params;
use crate::tr50::step::Call;

params! {
    /// A ban, or the end of one.
    #[derive(Clone, Debug)]
    pub struct BanParams {
        optional disabled: bool = "disabled",
            "True: sessions end with the reason `banned`, and logins are refused; what is stored stays. False: logins are welcome again.";
        optional reason: String = "reason", "Why it is disabled, for people.";
        optional until: Timestamp = "disabledUntil",
            "When logins are welcome again by themselves; without it, when `disabled` is false again.";
    }
}

/// A ban on the wire; nothing if there is none that holds.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BanView {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_until: Option<Timestamp>,
}

impl BanView {
    pub(super) fn of(ban: &Ban, clock: &Clock) -> Self {
        if !ban.is_banned(clock.now()) {
            return Self::default();
        }
        Self {
            disabled: true,
            reason: Some(ban.reason.clone()).filter(|reason| !reason.is_empty()),
            disabled_until: ban.until.map(|until| clock.shown(until)),
        }
    }
}

impl BanView {
    /// What people are told; empty if there is no ban.
    pub(super) fn sentence(&self) -> String {
        if !self.disabled {
            return String::new();
        }
        let reason = self.reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        let until = match self.disabled_until {
            Some(until) => format!("until {until}"),
            None => "until thing.update says \"disabled\":false".to_owned(),
        };
        format!("It is disabled{reason}, {until}: its logins are refused.")
    }
}

impl BanParams {
    /// What becomes of a ban, if anything; `is_own` says whether it is the caller's own.
    ///
    /// `disabled: true` is a ban anew: without `disabledUntil` it has no end. The other two alone
    /// change one that holds, and `disabledUntil` alone makes one.
    ///
    /// # Errors
    ///
    /// It can't be meant, or the caller may not.
    pub(super) fn apply(
        self,
        call: &Call<'_>,
        ban: &Ban,
        edit: &Edit,
        is_own: bool,
    ) -> Result<Option<Ban>, Failure> {
        let Self { disabled, reason, until } = self;
        let reason = reason.filter(|reason| !reason.is_empty());
        let names = ["disabled", "reason", "disabledUntil"];
        let [unsets_all, unsets_reason, unsets_until] = names.map(|name| edit.unsets(name));
        let nothing = disabled.is_none() && reason.is_none() && until.is_none();
        if nothing && !(unsets_all || unsets_reason || unsets_until) {
            return Ok(None);
        }
        check_unrestricted(call)?;
        let now = call.app.clock.now();
        let before = if ban.is_banned(now) { ban.clone() } else { Ban::default() };
        let lifted = disabled == Some(false) || disabled.is_none() && unsets_all;
        if lifted && (reason.is_some() || until.is_some()) {
            let sentence = "Parameters \"reason\" and \"disabledUntil\" go with \"disabled\":true.";
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        if lifted {
            return Ok(Some(Ban::default()));
        }
        if disabled.is_none() && until.is_none() && !before.disabled {
            if reason.is_none() {
                return Ok(None);
            }
            let sentence = "Parameter \"reason\" goes with \"disabled\":true; it is not disabled.";
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        if is_own {
            return Err(Failure::new(Code::IN_USE, "Nobody can disable themselves."));
        }
        let until = until.map(|until| call.app.clock.of_shown(until));
        if until.is_some_and(|until| until <= now) {
            return Err(authorize::invalid_param("disabledUntil", "a time to come"));
        }
        let anew = disabled == Some(true) || unsets_until;
        let mut after = Ban {
            disabled: true,
            reason: before.reason.clone(),
            until: until.or(before.until.filter(|_| !anew)),
        };
        edit.line("reason", &mut after.reason, reason)?;
        Ok(Some(after))
    }
}
