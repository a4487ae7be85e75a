//! Permissions as a tree: families, and what is in each.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::change::check;

/// Families with their permissions.
pub(super) type Families = BTreeMap<String, Vec<String>>;

/// Names in their families; the name of a family alone stands for all in it.
pub(super) fn families<'a>(names: impl IntoIterator<Item = &'a str>) -> Families {
    let mut families = Families::new();
    for name in names {
        let family = name.split_once('.').map_or(name, |(family, _)| family);
        let members = families.entry(family.to_owned()).or_default();
        if family != name {
            members.push(name.to_owned());
        }
    }
    families
}

/// The tree as boxes of a form, `perms`; `held`: those that are chosen.
pub(super) fn choice(families: &Families, held: &[String]) -> Markup {
    let held: BTreeSet<&str> = held.iter().map(String::as_str).collect();
    html! {
        div class="tree" {
            @for (family, members) in families {
                @let whole = held.contains(family.as_str());
                @let chosen = members.iter().filter(|name| held.contains(name.as_str())).count();
                details open[!whole && chosen > 0] {
                    summary {
                        b { bdi { (family) } }
                        " "
                        span class="hint" { (said(whole, chosen, members.len())) }
                    }
                    fieldset {
                        legend class="hidden" { "Permissions of " bdi { (family) } }
                        (check("perms", family, &html! { "all, also those to come" }, whole))
                        @for name in members {
                            (check("perms", name, &html! { bdi { (name) } }, held.contains(name.as_str())))
                        }
                    }
                }
            }
        }
    }
}

/// The same to look at.
pub(super) fn shown(held: &[String]) -> Markup {
    let families = families(held.iter().map(String::as_str));
    html! {
        @if held.is_empty() { p { "None." } }
        ul class="tree" {
            @for (family, members) in &families {
                li {
                    b { (family) }
                    @if held.iter().any(|name| name == family) { " " span class="hint" { "all" } }
                    @if !members.is_empty() { ul { @for name in members { li { (name) } } } }
                }
            }
        }
    }
}

fn said(whole: bool, chosen: usize, count: usize) -> String {
    match (whole, chosen) {
        (true, _) => "all".to_owned(),
        (false, chosen) => format!("{chosen} of {count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_alone_is_there_without_members() {
        let families = families(["thing.find", "alarm", "thing.list"]);
        let expected = [("alarm", vec![]), ("thing", vec!["thing.find", "thing.list"])];
        let expected = expected.map(|(family, names): (&str, Vec<&str>)| {
            (family.to_owned(), names.into_iter().map(str::to_owned).collect())
        });
        assert_eq!(families, Families::from(expected));
    }

    #[test]
    fn what_is_held_is_chosen() {
        let page = choice(&families(["thing.find", "thing.list"]), &["thing.list".to_owned()]);
        let page = page.into_string();
        assert!(page.contains("1 of 2"), "{page}");
        assert!(page.contains(r#"value="thing.list" checked"#), "{page}");
        assert!(!page.contains(r#"value="thing.find" checked"#), "{page}");
    }
}
