//! What the list commands have in common: `offset`, `limit`, `sort`, `show`, and the reply with
//! `count`, `fields` and `result` (`docs/protocol/tr50.md` 4.1).

use std::cmp::Ordering;

use base::{Code, Failure, excerpt, limits, yield_point};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::tr50::params::params;

params! {
    /// The page and form of a list: the parameters that all list commands but `session.list` take.
    #[derive(Debug)]
    pub struct View {
        optional show: Vec<String> = "show", "The members to show; all by default.";
        optional offset: u64 = "offset", "Records to leave out at the beginning.";
        optional limit: u64 = "limit", "Records to return at most, up to 2000.";
        optional sort: String = "sort", "A member's name, with `-` before it for descending.";
        optional hide_fields: bool = "hideFields", "Leaves `fields` out of the reply.";
    }
}

/// The reply of a list command.
#[derive(Serialize)]
pub struct ListReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(rename = "countAtLeast", skip_serializing_if = "Option::is_none")]
    count_at_least: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterator: Option<String>,
    /// As text, which takes less room than the members.
    result: Vec<Box<RawValue>>,
}

impl ListReply {
    /// Without the number of all records.
    #[must_use]
    pub fn without_count(self) -> Self {
        Self { count: None, count_at_least: None, ..self }
    }

    /// As it is, but not all records were looked at: there are at least as many.
    #[must_use]
    pub fn with_count_at_least(self) -> Self {
        Self { count: None, count_at_least: self.count, ..self }
    }

    /// With the text by which the client asks for the next page.
    #[must_use]
    pub fn with_iterator(self, iterator: String) -> Self {
        Self { iterator: Some(iterator), ..self }
    }
}

impl View {
    /// The member's name by which the client wants the list sorted, if any.
    pub fn sort(&self) -> Option<&str> {
        self.sort.as_deref().filter(|sort| !sort.is_empty())
    }

    /// As it is, but sorted by this member if the client does not name one.
    #[must_use]
    pub fn or_sorted_by(self, member: &str) -> Self {
        let sort = self.sort.filter(|sort| !sort.is_empty()).or_else(|| Some(member.to_owned()));
        Self { sort, ..self }
    }

    /// As it is, but without members in `show` that this server has not; the key is shown if they
    /// were all.
    #[must_use]
    pub fn without_shown(mut self, foreign: &[&str]) -> Self {
        if let Some(show) = self.show.as_mut().filter(|show| !show.is_empty()) {
            show.retain(|name| !foreign.iter().any(|known| known.eq_ignore_ascii_case(name)));
            if show.is_empty() {
                show.push("key".to_owned());
            }
        }
        self
    }

    /// Whether the rows show this member.
    pub fn shows(&self, field: &str) -> bool {
        let all = |show: &Vec<String>| show.is_empty() || show.iter().any(|name| name == "*");
        let named = |show: &Vec<String>| show.iter().any(|name| name.eq_ignore_ascii_case(field));
        self.show.as_ref().is_none_or(|show| all(show) || named(show))
    }

    /// Whether the client names this member, which is not shown otherwise.
    pub fn names(&self, field: &str) -> bool {
        self.show.iter().flatten().any(|name| name.eq_ignore_ascii_case(field))
    }

    /// Sorts, cuts and projects `items`, whose members a client may name are `fields`.
    ///
    /// # Errors
    ///
    /// `sort` or `show` names no field.
    pub fn apply<T: Serialize>(&self, fields: &[&str], items: &[T]) -> Result<ListReply, Failure> {
        let mut rows: Vec<Map<String, Value>> = items.iter().filter_map(members).collect();
        self.order(fields, &mut rows)?;
        let count = rows.len();
        let (offset, limit) = self.page();
        self.reply(fields, count, rows.into_iter().skip(offset).take(limit))
    }

    /// Sorts rows as the client wants it; without a wish they stay as they are.
    ///
    /// # Errors
    ///
    /// `sort` names no field.
    pub fn order(&self, fields: &[&str], rows: &mut [Map<String, Value>]) -> Result<(), Failure> {
        let Some((key, descending)) = self.sort_key(fields)? else { return Ok(()) };
        rows.sort_by(|a, b| {
            let order = compare(a.get(key), b.get(key));
            if descending { order.reverse() } else { order }
        });
        Ok(())
    }

    /// The member by which the client wants the list sorted, and whether the greatest comes first.
    ///
    /// # Errors
    ///
    /// `sort` names no field.
    pub fn sort_key<'f>(&self, fields: &[&'f str]) -> Result<Option<(&'f str, bool)>, Failure> {
        let Some(sort) = self.sort() else { return Ok(None) };
        let (descending, name) = match sort.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, sort.strip_prefix('+').unwrap_or(sort)),
        };
        Ok(Some((named(fields, name, "sort")?, descending)))
    }

    /// The reply with a page that is cut already, of `count` records in all.
    ///
    /// # Errors
    ///
    /// `show` names no field.
    pub fn reply(
        &self,
        fields: &[&str],
        count: usize,
        page: impl Iterator<Item = Map<String, Value>>,
    ) -> Result<ListReply, Failure> {
        let shown: Vec<&str> = match &self.show {
            Some(show) if !show.is_empty() && show.iter().all(|name| name != "*") => {
                show.iter().map(|name| named(fields, name, "show")).collect::<Result<_, _>>()?
            }
            _ => fields.to_vec(),
        };
        let project = |mut row: Map<String, Value>| {
            yield_point::pass();
            row.retain(|name, _| shown.contains(&name.as_str()));
            to_raw_value(&row).ok()
        };
        let result = page.filter_map(project).collect();
        let fields = || shown.iter().map(|name| (*name).to_owned()).collect();
        let hidden = self.hide_fields.unwrap_or(false);
        let fields = (!hidden).then(fields);
        Ok(ListReply { count: Some(count), count_at_least: None, fields, iterator: None, result })
    }

    /// Offset and limit; 0 and absent mean as many as allowed.
    pub fn page(&self) -> (usize, usize) {
        let (offset, limit) = self.asked();
        (offset, limit.min(limits::LIST_MAX as usize))
    }

    /// Offset and limit as the client has them; 0 and absent are no limit.
    pub fn asked(&self) -> (usize, usize) {
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let limit = self.limit.filter(|limit| *limit > 0).map_or(usize::MAX, number);
        (self.offset.map_or(0, number), limit)
    }
}

/// The field with this name, in any case.
pub(super) fn named<'f>(
    fields: &[&'f str],
    name: &str,
    parameter: &str,
) -> Result<&'f str, Failure> {
    let field = fields.iter().find(|field| field.eq_ignore_ascii_case(name));
    field.copied().ok_or_else(|| {
        let (name, fields) = (excerpt(name), fields.join(", "));
        let signs = if parameter == "sort" { ", with - before it or not" } else { "" };
        let sentence =
            format!("Parameter \"{parameter}\" must be one of {fields}{signs}; it is \"{name}\".");
        Failure::new(Code::PARAMETER_INVALID, sentence)
    })
}

/// The members of a serialisable struct.
pub(super) fn members<T: Serialize>(item: &T) -> Option<Map<String, Value>> {
    match serde_json::to_value(item) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}

pub(super) fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::String(a)), Some(Value::String(b))) => a.to_lowercase().cmp(&b.to_lowercase()),
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (Some(_), None | Some(Value::Null)) => Ordering::Greater,
        (None | Some(Value::Null), Some(_)) => Ordering::Less,
        _ => Ordering::Equal,
    }
}
