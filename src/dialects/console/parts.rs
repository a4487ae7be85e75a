//! Parts of a page that are no lists, and live: the same on the page and in the stream.

use base::limits;
use maud::{Markup, html};

use super::window::{Column, Row, Window};

/// What the stream calls the whole of a part.
const WHOLE: &[Column] = &[Column::new("html", "")];

/// Parts by their names. Several people may get the same, so nothing that is for one only, such as a
/// form with its token, may be in them.
#[derive(Default)]
pub(super) struct Parts(Vec<(&'static str, Markup)>);

impl Parts {
    /// One more.
    pub(super) fn add(&mut self, name: &'static str, content: Markup) {
        self.0.push((name, content));
    }

    /// One of them, as it stands on the page.
    pub(super) fn part(&self, name: &str) -> Markup {
        let found = self.0.iter().find(|(known, _)| *known == name);
        html! { @if let Some((name, content)) = found { div data-part=(name) { (content) } } }
    }

    /// All of them, one below the other.
    pub(super) fn all(&self) -> Markup {
        html! { @for (name, content) in &self.0 { div data-part=(name) { (content) } } }
    }

    /// The address by which the stream follows them; none if it is too long for that.
    pub(super) fn view(address: &str) -> Option<&str> {
        Some(address).filter(|address| address.len() <= limits::VIEW_BYTES_MAX)
    }

    /// The same as a window, a row for each.
    pub(super) fn into_window(self) -> Window {
        let row = |(name, content): (&str, Markup)| Row {
            id: name.to_owned(),
            cells: vec![content],
            is_over: false,
            choice: None,
        };
        let rows: Vec<Row> = self.0.into_iter().map(row).collect();
        Window {
            caption: "",
            nouns: ["part", "parts"],
            columns: WHOLE.into(),
            has_choice: false,
            total: rows.len() as u64,
            is_at_least: false,
            offset: 0,
            limit: rows.len() as u64,
            sort: String::new(),
            rows,
        }
    }
}
