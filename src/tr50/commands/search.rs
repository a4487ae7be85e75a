//! `search.*`: one search for everything that the caller may see (`docs/protocol/tr50.md` 4.1,
//! `search.omni`; `docs/decisions/0018-search.md`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base::{Code, Failure, excerpt, limits};
use rules::identity::permission::Permission;
use rules::search::Needle;
use serde::Serialize;

use super::commands;
use crate::tr50::params::params;
use crate::tr50::step::{Call, Later};

mod best;
mod look;
mod result;
mod scope;
mod sessions;

use best::Best;
use look::Looker;
use result::ResultView;

commands! {
    "search.omni" => omni, [],
        "Searches things (by key, name, identifiers, tags), live sessions (`whoAmI`, address, `ref`), \
         users, organisations, applications and definitions of things, in all organisations that the \
         caller may work in, as far as the caller may list them there; everybody finds themselves and \
         their own sessions. Words may be in any case; each has to occur, and `*` stands for any text. \
         First comes what is all of a member (`exact`), then what one begins with (`prefix`), then \
         the rest (`part`).",
        "`count`, or `countAtLeast` where not all was looked at; `more`; `counts` by type; `result`: \
         each with `_type`, `match`, `field`, `orgId`, `orgKey`, `orgSlug` and what it is known by";
}

params! {
    /// The parameters of `search.omni`.
    #[derive(Debug)]
    pub(super) struct OmniParams {
        required query: String = "query", "What is looked for. Without a word, nothing is found.";
        optional offset: u64 = "offset", "Results to leave out at the beginning.";
        optional limit: u64 = "limit",
            "Results to return at most, up to 200; 50 by default.";
        optional limit_per_type: u64 = "limitPerType",
            "Results of each type at most, so that many of one leave room for others.";
        optional types: Vec<String> = "types",
            "Only these: `thing`, `session`, `user`, `org`, `app`, `thing_def`.";
    }
}

/// What can be found, in the order of the results that match equally well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Type {
    Thing,
    Session,
    User,
    Org,
    App,
    ThingDef,
}

impl Type {
    const ALL: [Self; 6] =
        [Self::Thing, Self::Session, Self::User, Self::Org, Self::App, Self::ThingDef];

    /// `_type`; the vendor's, where it has one.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Thing => "thing",
            Self::Session => "session",
            Self::User => "user",
            Self::Org => "org",
            Self::App => "app",
            Self::ThingDef => "thing_def",
        }
    }

    /// The command that lists them, without whose permission nobody finds them; none: everybody
    /// sees these (`session.org.list`).
    fn permission(self) -> Option<Permission> {
        static LISTS: LazyLock<[Option<Permission>; 6]> = LazyLock::new(|| {
            Type::ALL.map(|it| match it {
                Type::Org => None,
                it => Permission::named(&format!("{}.list", it.as_str())),
            })
        });
        LISTS[self as usize]
    }

    fn named(name: &str) -> Result<Self, Failure> {
        let found = Self::ALL.into_iter().find(|it| it.as_str().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            let sentence =
                format!("Parameter \"types\" must be one of {all}; it is \"{}\".", excerpt(name));
            Failure::new(Code::PARAMETER_INVALID, sentence)
        })
    }
}

/// What is asked, read.
struct Asked {
    query: String,
    types: Vec<Type>,
    offset: usize,
    limit: usize,
    limit_per_type: usize,
}

impl Asked {
    fn read(params: OmniParams) -> Result<Self, Failure> {
        let most = limits::QUERY_BYTES_MAX;
        if params.query.len() > most {
            let sentence = format!("The query has more than {most} bytes.");
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        let names = params.types.unwrap_or_default();
        let names = names.iter().flat_map(|names| names.split(',')).map(str::trim);
        let types = names.filter(|name| !name.is_empty()).map(Type::named);
        let types = types.collect::<Result<Vec<_>, _>>()?;
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let limit = params.limit.filter(|limit| *limit > 0).unwrap_or(limits::SEARCH_RESULTS);
        let limit_per_type = params.limit_per_type.filter(|limit| *limit > 0);
        Ok(Self {
            query: params.query,
            types: if types.is_empty() { Type::ALL.to_vec() } else { types },
            offset: params.offset.map_or(0, number),
            limit: number(limit.min(limits::SEARCH_RESULTS_MAX)),
            limit_per_type: limit_per_type.map_or(usize::MAX, number),
        })
    }

    /// How many of each type may be shown.
    fn depth(&self) -> usize {
        let end = self.offset.saturating_add(self.limit);
        end.min(self.limit_per_type).min(limits::SEARCH_DEPTH_MAX)
    }
}

/// The reply of `search.omni`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_at_least: Option<usize>,
    more: bool,
    counts: BTreeMap<&'static str, usize>,
    result: Vec<ResultView>,
}

/// `search.omni`: what one asks again while the first waits is looked for once.
fn omni(call: &Call<'_>, params: OmniParams) -> Result<Later, Failure> {
    let (session, org) = (call.session.reference(), call.session.org_id());
    let key = format!("search.omni {session} {org} {params:?}");
    let asked = Asked::read(params)?;
    call.look_shared(key, move |call| search(call, &asked))
}

fn search(call: &Call<'_>, asked: &Asked) -> Result<Found, Failure> {
    let mut best = Best::new(asked.depth());
    let mut is_complete = true;
    if let Some(needle) = Needle::read(&asked.query) {
        let places = scope::of(call);
        let needle = &needle;
        let mut looker = Looker { call, asked, needle, places: &places, best: &mut best };
        is_complete = looker.look()?;
    }
    let counts: BTreeMap<_, _> = Type::ALL
        .into_iter()
        .map(|it| (it.as_str(), best.count(it)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let count = counts.values().sum();
    let page = best.into_sorted().into_iter().skip(asked.offset).take(asked.limit);
    let page: Vec<_> = page.collect();
    let end = asked.offset.saturating_add(page.len());
    // What is gone meanwhile, or has moved, is left out.
    let rows = page.into_iter().map(|hit| ResultView::of(call, hit));
    let result = rows.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    Ok(Found {
        count: is_complete.then_some(count),
        count_at_least: (!is_complete).then_some(count),
        more: !is_complete || count > end,
        counts,
        result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_the_permission_of_its_list() {
        for it in Type::ALL {
            let permission = it.permission().map(Permission::name);
            let expected = format!("{}.list", it.as_str());
            assert_eq!(permission, (it != Type::Org).then_some(&*expected));
            assert_eq!(Type::named(&it.as_str().to_uppercase()).expect("its name"), it);
        }
        assert!(Type::named("connection").is_err());
    }
}
