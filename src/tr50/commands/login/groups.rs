//! `login.failures` with `groupBy`: who tries, how often, and with what.

use std::cmp::Reverse;
use std::collections::HashMap;

use base::Failure;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::app::App;
use crate::tr50::commands::audit::Wanted;
use crate::tr50::commands::span::one_of;

/// What of each other kind is shown with a group: enough to see what it is about.
const SHOWN_MAX: usize = 10;

/// What logins have in common that were refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GroupBy {
    Address,
    Name,
    Cause,
    Protocol,
}

impl GroupBy {
    const ALL: [Self; 4] = [Self::Address, Self::Name, Self::Cause, Self::Protocol];

    /// The one that a client names.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub(super) fn read(name: &str) -> Result<Self, Failure> {
        one_of("groupBy", name, &Self::ALL, |by| by.as_str())
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Name => "name",
            Self::Cause => "cause",
            Self::Protocol => "protocol",
        }
    }

    /// How several are called in a reply.
    const fn plural(self) -> &'static str {
        match self {
            Self::Address => "addresses",
            Self::Name => "names",
            Self::Cause => "causes",
            Self::Protocol => "protocols",
        }
    }

    /// What a refusal has of this kind, if that is known. Addresses are those of machines: ports
    /// change with each attempt.
    fn of(self, row: &Map<String, Value>) -> Option<&str> {
        let text = |member: &str| row.get(member)?.as_str().filter(|text| !text.is_empty());
        match self {
            Self::Address => {
                let (address, _) = text("remoteAddr")?.rsplit_once(':')?;
                let bare = address.strip_prefix('[').and_then(|bare| bare.strip_suffix(']'));
                Some(bare.unwrap_or(address))
            }
            Self::Name => text("whoAmI"),
            Self::Cause => text("cause"),
            Self::Protocol => text("protocol"),
        }
    }
}

/// Logins that have one thing in common.
#[derive(Default)]
struct Group {
    count: u64,
    first: String,
    last: String,
    /// What they have of each kind, in the order of [`GroupBy::ALL`].
    with: [Vec<String>; 4],
}

impl Group {
    fn add(&mut self, row: &Map<String, Value>) {
        let text = |member: &str| row.get(member).and_then(Value::as_str).unwrap_or_default();
        self.count += row.get("count").and_then(Value::as_u64).unwrap_or(1);
        // Times of one form are in the order of their texts.
        if self.first.is_empty() || text("first") < &*self.first {
            self.first = text("first").to_owned();
        }
        if text("last") > &*self.last {
            self.last = text("last").to_owned();
        }
        for (by, with) in GroupBy::ALL.into_iter().zip(&mut self.with) {
            let held = by.of(row).filter(|_| with.len() < SHOWN_MAX);
            if let Some(held) = held.filter(|held| with.iter().all(|other| other != held)) {
                with.push(held.to_owned());
            }
        }
    }

    fn into_row(self, name: Option<String>, by: GroupBy) -> Map<String, Value> {
        let mut row = Map::new();
        row.insert(by.as_str().to_owned(), name.into());
        row.insert("count".to_owned(), self.count.into());
        row.insert("first".to_owned(), self.first.into());
        row.insert("last".to_owned(), self.last.into());
        for (other, with) in GroupBy::ALL.into_iter().zip(self.with) {
            if other != by {
                row.insert(other.plural().to_owned(), with.into());
            }
        }
        row
    }
}

/// Groups of logins, the largest first.
#[derive(Serialize)]
pub(super) struct Groups {
    count: usize,
    result: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

impl Groups {
    /// Counts the logins that are wanted.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub(super) fn read(app: &App, wanted: &Wanted, by: GroupBy) -> Result<Self, Failure> {
        let mut groups = HashMap::<Option<String>, Group>::new();
        let page = wanted.each(app, |row| {
            groups.entry(by.of(&row).map(str::to_owned)).or_default().add(&row);
            true
        })?;
        let count = groups.len();
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by(|(name, group), (other_name, other)| {
            let place = (Reverse(group.count), Reverse(&group.last), name);
            place.cmp(&(Reverse(other.count), Reverse(&other.last), other_name))
        });
        let shown = groups.into_iter().skip(wanted.offset).take(wanted.limit());
        let result = shown.map(|(name, group)| group.into_row(name, by)).collect();
        Ok(Self { count, result, truncated: page.truncated })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_is_that_of_a_machine() {
        let of = |remote_addr: &str| {
            let row = json!({"remoteAddr": remote_addr});
            GroupBy::Address.of(row.as_object().expect("an object")).map(str::to_owned)
        };
        assert_eq!(of("192.0.2.1:1883").as_deref(), Some("192.0.2.1"));
        assert_eq!(of("[2001:db8::1]:1883").as_deref(), Some("2001:db8::1"));
        assert_eq!(of(""), None);
        assert_eq!(of("unknown"), None);
    }
}
