//! A window: the part of a long list that a page shows. The same cells are on the page and in the
//! stream that keeps it up to date.

use std::borrow::Cow;

use base::limits;
use maud::{Markup, html};

use super::asked::InOrg;
use super::form::Fields;
use super::layout::{self, number};

/// A column of a list.
#[derive(Clone, Copy)]
pub(super) struct Column {
    /// Its name in the stream.
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    /// By what of the command it is sorted; empty: not at all.
    pub(super) sort: &'static str,
    /// What it shows in one's own row, made of what it shows in others'; none: the same.
    pub(super) own: Option<fn(&Markup) -> Markup>,
    /// Whether its cells are numbers, which stand one below the other.
    pub(super) is_number: bool,
}

impl Column {
    /// A column by which the list is not sorted.
    pub(super) const fn new(key: &'static str, title: &'static str) -> Self {
        Self { key, title, sort: "", own: None, is_number: false }
    }

    /// One by which it can be.
    pub(super) const fn sorted(key: &'static str, title: &'static str, sort: &'static str) -> Self {
        Self { key, title, sort, own: None, is_number: false }
    }

    /// The same, of numbers.
    #[must_use]
    pub(super) const fn of_numbers(self) -> Self {
        Self { is_number: true, ..self }
    }

    fn class(&self) -> Option<&'static str> {
        self.is_number.then_some("number")
    }

    /// The same, which is otherwise in one's own row.
    #[must_use]
    pub(super) const fn with_own(self, own: fn(&Markup) -> Markup) -> Self {
        Self { own: Some(own), ..self }
    }
}

/// A row.
pub(super) struct Row {
    /// By which it is known again.
    pub(super) id: String,
    /// One for each column.
    pub(super) cells: Vec<Markup>,
    /// Whether it is over, such as an ended session.
    pub(super) is_over: bool,
    /// By which name it can be chosen for what is done with many.
    pub(super) choice: Option<String>,
}

impl Row {
    /// A cell.
    pub(super) fn cell(&self, index: usize) -> Option<&String> {
        Some(&self.cells.get(index)?.0)
    }
}

/// Part of a list.
pub(super) struct Window {
    pub(super) caption: &'static str,
    /// One and many of what is listed.
    pub(super) nouns: [&'static str; 2],
    pub(super) columns: Cow<'static, [Column]>,
    /// Whether rows can be chosen.
    pub(super) has_choice: bool,
    pub(super) rows: Vec<Row>,
    /// How many there are in all.
    pub(super) total: u64,
    /// Whether there may be more than `total`.
    pub(super) is_at_least: bool,
    pub(super) offset: u64,
    pub(super) limit: u64,
    /// How it is sorted, in the command's words.
    pub(super) sort: String,
}

/// Rows of one page.
pub(super) const PAGE: u64 = 60;

impl Window {
    /// The bytes of its cells.
    pub(super) fn bytes(&self) -> usize {
        let cells = |row: &Row| row.cells.iter().map(|cell| cell.0.len()).sum::<usize>();
        self.rows.iter().map(cells).sum()
    }

    /// The list as a table. `view`: the address of its page, if the stream keeps it up to date.
    pub(super) fn table(&self, asked: &InOrg<'_>, view: Option<&str>) -> Markup {
        self.written(asked, view, None)
    }

    /// The same of a log: what the stream does not keep up to date any more stays below the rest, as
    /// much as is shown now at most.
    pub(super) fn log(&self, asked: &InOrg<'_>, view: Option<&str>) -> Markup {
        self.written(asked, view, Some(self.limit))
    }

    fn written(&self, asked: &InOrg<'_>, view: Option<&str>, kept: Option<u64>) -> Markup {
        let can_choose = self.has_choice;
        // One that the stream refuses would end it for all tabs.
        let view = view.filter(|view| view.len() <= limits::VIEW_BYTES_MAX);
        let by_keys = self.columns.iter().all(|column| column.sort.is_empty());
        html! {
            div class="scroll" tabindex=[by_keys.then_some("0")] role=[by_keys.then_some("group")]
                aria-label=[by_keys.then_some(self.caption)] {
                table data-view=[view] data-kept=[kept] aria-rowcount=(self.row_count()) {
                    caption class="hidden" { (self.caption) }
                    thead { tr aria-rowindex="1" {
                        @if can_choose {
                            th scope="col" class="choose" { span class="hidden" { "Choose" } }
                        }
                        @for column in self.columns.iter() { (self.head(&asked.query, &asked.path, column)) }
                    } }
                    tbody {
                        @for (index, row) in self.rows.iter().enumerate() {
                            tr data-id=(row.id) class=[row.is_over.then_some("over")]
                                aria-rowindex=(self.offset + index as u64 + 2) {
                                @if can_choose {
                                    td class="choose" { @if let Some(name) = &row.choice {
                                        input type="checkbox" name="ref" value=(row.id) form="chosen"
                                            aria-label=(format!("Choose {name}"));
                                    } }
                                }
                                @for (column, cell) in self.columns.iter().zip(&row.cells) {
                                    td class=[column.class()] data-cell=(column.key) { (cell) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn head(&self, query: &Fields, path: &str, column: &Column) -> Markup {
        if column.sort.is_empty() {
            return html! {
                th scope="col" class=[column.class()] data-cell=(column.key) {
                    // A column of buttons says so to those who only hear it.
                    @if column.title.is_empty() { span class="hidden" { "Actions" } }
                    @else { (column.title) }
                }
            };
        }
        let (bare, falls) = match self.sort.strip_prefix('-') {
            Some(bare) => (bare, true),
            None => (self.sort.as_str(), false),
        };
        let is_sorted = bare == column.sort;
        let direction = is_sorted.then_some(if falls { "descending" } else { "ascending" });
        let next =
            if is_sorted && falls { column.sort.into() } else { format!("-{}", column.sort) };
        let href = format!("{path}?{}", query.query_with(&[("sort", &next), ("offset", "")]));
        html! {
            th scope="col" class=[column.class()] data-cell=(column.key) aria-sort=[direction] {
                a href=(href) {
                    (column.title)
                    @if is_sorted { span aria-hidden="true" { @if falls { " ▾" } @else { " ▴" } } }
                }
            }
        }
    }

    /// How much of it is shown, and the ways to the rest.
    pub(super) fn foot(&self, asked: &InOrg<'_>) -> Markup {
        let last = self.offset.saturating_add(self.rows.len() as u64);
        let first = self.offset.saturating_add(1);
        let at = |offset: u64| {
            let offset = if offset == 0 { String::new() } else { offset.to_string() };
            format!("{}?{}", asked.path, asked.query.query_with(&[("offset", &offset)]))
        };
        let has_more = self.is_at_least || last < self.total;
        html! {
            nav class="pages" aria-label="Pages" {
                span class="count" data-total { (self.count()) }
                @if !self.rows.is_empty() {
                    span { " · " (number(first)) "–" (number(last)) }
                }
                @if self.offset > 0 {
                    a rel="prev" href=(at(self.offset.saturating_sub(self.limit))) { "Previous" }
                }
                @if has_more && !self.rows.is_empty() {
                    a rel="next" href=(at(self.offset + self.limit)) { "Next" }
                }
            }
        }
    }

    /// Where the list is, if an address leads behind its end.
    pub(super) fn way_back(&self, asked: &InOrg<'_>) -> Option<Markup> {
        if !self.rows.is_empty() || self.offset == 0 || self.total == 0 {
            return None;
        }
        let first = format!("{}?{}", asked.path, asked.query.query_with(&[("offset", "")]));
        let advice = html! { a href=(first.trim_end_matches('?')) { "The beginning of the list" } };
        Some(layout::empty(&format!("There are only {}", self.count()), &advice))
    }

    /// The rows, in their order.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.id.as_str())
    }

    /// The row with this id.
    pub(super) fn row(&self, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// Whether another one of the same list says the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_same = |(own, other): (&Row, &Row)| {
            let mut cells = own.cells.iter().zip(&other.cells);
            own.is_over == other.is_over && cells.all(|(own, other)| own.0 == other.0)
        };
        self.count() == other.count()
            && self.ids().eq(other.ids())
            && self.rows.iter().zip(&other.rows).all(is_same)
    }

    /// Rows of the whole table with its head, as `aria-rowcount` has it: -1 if nobody knows.
    pub(super) fn row_count(&self) -> i64 {
        if self.is_at_least { -1 } else { i64::try_from(self.total + 1).unwrap_or(-1) }
    }

    /// How many there are, in words.
    pub(super) fn count(&self) -> String {
        let noun = if self.total == 1 { self.nouns[0] } else { self.nouns[1] };
        let more = if self.is_at_least { "at least " } else { "" };
        format!("{more}{} {noun}", number(self.total))
    }
}
