//! Counters of what was refused: every label value is there from the start, and each has a handle.

use base::{CODES, Code, Protocol};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::counters;
use crate::events::LoginCause;

/// Logins, by outcome, cause and protocol.
pub(super) struct Logins(Vec<OfDoor>);

/// Those by one protocol.
struct OfDoor {
    success: Counter,
    refused: [Counter; LoginCause::ALL.len()],
}

impl Logins {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let help = "Logins, by outcome, cause of the refusal and protocol";
        let family = counters(registry, "logins", help);
        let of = |outcome, cause, door: Protocol| {
            let labels = [("outcome", outcome), ("cause", cause), ("door", door.as_str())];
            family.get_or_create_owned(&labels)
        };
        let door = |door| OfDoor {
            success: of("success", "none", door),
            refused: LoginCause::ALL.map(|cause| of(cause.outcome(), cause.as_str(), door)),
        };
        Self(Protocol::ALL.into_iter().map(door).collect())
    }

    pub(super) fn success(&self, door: Protocol) {
        if let Some(of_door) = self.0.get(door as usize) {
            of_door.success.inc();
        }
    }

    /// All that were refused for a cause.
    pub(super) fn refused_by(&self, cause: LoginCause) -> u64 {
        let counters = self.0.iter().filter_map(|door| door.refused.get(cause as usize));
        counters.map(Counter::get).sum()
    }

    pub(super) fn refused(&self, door: Protocol, cause: LoginCause) {
        let of_door = self.0.get(door as usize);
        if let Some(counter) = of_door.and_then(|door| door.refused.get(cause as usize)) {
            counter.inc();
        }
    }
}

/// Commands that failed, by code.
pub(super) struct Failures(Vec<Counter>);

impl Failures {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let family = Family::<[(&str, String); 1], Counter>::default();
        registry.register("command_failures", "Commands that failed, by code", family.clone());
        let of = |code: Code| family.get_or_create_owned(&[("code", code.0.to_string())]);
        Self(CODES.iter().map(|info| of(info.code)).collect())
    }

    pub(super) fn note(&self, code: Code) {
        if let Some(counter) = code.index().and_then(|index| self.0.get(index)) {
            counter.inc();
        }
    }

    /// Those of each code, in their order.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(Counter::get)
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}
