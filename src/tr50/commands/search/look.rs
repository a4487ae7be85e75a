//! How each type is looked for.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use base::{Failure, OrgId, SessionRef, ThingId};
use rules::identity::model::{Org, User};
use rules::search::{Class, Match, Needle, fold, push_field};

use super::best::{Best, Hit, What};
use super::scope::Place;
use super::sessions::Keys;
use super::{Asked, Type};
use crate::things::registry::{FoundText, OrgTexts, thing_query};
use crate::tr50::step::Call;

/// What is known by an id is known by all of it.
pub(super) const BY_ID: (Match, &str) = (Match { class: Class::Exact, field: 0 }, "id");

const USER_FIELDS: [&str; 6] =
    ["emailAddress", "name", "lastName", "company", "officePhone", "mobilePhone"];

/// One search.
pub(super) struct Looker<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) asked: &'a Asked,
    pub(super) needle: &'a Needle,
    pub(super) places: &'a [Place],
    pub(super) best: &'a mut Best,
}

impl Looker<'_> {
    /// Looks for all that is asked; whether all of it was counted.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub(super) fn look(&mut self) -> Result<bool, Failure> {
        let mut keys = Keys::default();
        self.things(&mut keys)?;
        let is_complete = !self.wants(Type::Session) || self.sessions(keys);
        if self.wants(Type::User) {
            self.users();
        }
        if self.wants(Type::Org) {
            self.orgs();
        }
        if self.wants(Type::App) {
            self.applications();
        }
        if self.wants(Type::ThingDef) {
            self.thing_defs();
        }
        Ok(is_complete)
    }

    fn wants(&self, it: Type) -> bool {
        self.asked.types.contains(&it)
    }

    /// Where these are looked for.
    pub(super) fn places_of(&self, it: Type) -> impl Iterator<Item = &Place> + use<'_> {
        self.places.iter().filter(move |place| place.may_list(it))
    }

    /// Things, and the keys that match, for sessions.
    fn things(&mut self, keys: &mut Keys) -> Result<(), Failure> {
        let of_things = Needle::read(thing_query(&self.asked.query));
        let needle = of_things.as_ref().unwrap_or(self.needle);
        for (index, place) in self.places.iter().enumerate() {
            let may_list = |it| self.wants(it) && place.may_list(it) && !place.is_restricted;
            let lists = may_list(Type::Thing);
            let org = place.org.id;
            let asks_sessions = may_list(Type::Session) && self.call.app.directory().count(org) > 0;
            if !lists && !asks_sessions {
                continue;
            }
            self.call.app.things.texts(org).find(needle, |text, found| {
                if lists {
                    add_thing(self.best, place, &text, found);
                }
                if asks_sessions {
                    keys.add(&text, needle, found, index);
                }
            });
            if lists
                && let Some(id) = self.id::<ThingId>()
                && let Some(thing) = self.call.app.things.by_id(org, id)?
            {
                let name = folded(thing.key.as_str());
                let what = What::Thing(thing.key);
                self.best.add(Hit::new(BY_ID, &place.org, what, (&name, &[])));
            }
        }
        Ok(())
    }

    fn users(&mut self) {
        let identity = self.call.app.identity();
        let sees_all = self.call.session.access().authority().sees_all()
            && self.places.first().is_some_and(|here| here.may_list(Type::User));
        let mut found = HashSet::new();
        let listable: HashSet<OrgId> = self.places_of(Type::User).map(|p| p.org.id).collect();
        let mut candidates: Vec<(Arc<User>, Arc<Org>)> = Vec::new();
        for place in self.places_of(Type::User) {
            let users = identity.users_of(place.org.id);
            candidates.extend(users.into_iter().map(|user| (user, place.org.clone())));
        }
        if sees_all {
            let at_home = |user: Arc<User>| Some((identity.org(user.home)?, user));
            let users = identity.users().into_iter().filter_map(at_home);
            candidates.extend(users.map(|(org, user)| (user, org)));
        }
        let own = self.call.user();
        let here = self.call.session.access().org.clone();
        candidates.extend(own.clone().map(|user| (user, here)));
        let mut entry = Vec::new();
        for (user, org) in candidates {
            if let Some(at) = self.find_user(&user, &mut entry)
                && found.insert(user.id)
            {
                self.best.add(user_hit(at, &org, What::User, &user));
            }
        }
        let mut pending = Vec::new();
        for place in self.places_of(Type::User) {
            let invited = identity.invited_to(place.org.id).into_iter();
            pending.extend(invited.map(|user| (user, place.org.clone())));
        }
        let is_own = |user: &User| own.as_ref().is_some_and(|own| own.id == user.id);
        let is_seen = |user: &User| sees_all || is_own(user) || is_within(user, &listable);
        for (user, org) in pending.into_iter().filter(|(user, _)| !is_seen(user)) {
            // What is known of the user is the address.
            if let Some(at) = self.find_in(&mut entry, &[(USER_FIELDS[0], &user.email)])
                && found.insert(user.id)
            {
                self.best.add(user_hit(at, &org, What::Pending, &user));
            }
        }
    }

    fn find_user(&self, user: &User, entry: &mut Vec<u8>) -> Option<(Match, &'static str)> {
        if self.id() == Some(user.id) {
            return Some(BY_ID);
        }
        let name = [&user.first_name[..], " ", &user.last_name].concat();
        let texts = [
            user.email.as_str(),
            &name,
            &user.last_name,
            &user.company,
            &user.office_phone,
            &user.mobile_phone,
        ];
        let mut fields = [("", ""); USER_FIELDS.len()];
        for ((field, name), text) in fields.iter_mut().zip(USER_FIELDS).zip(texts) {
            *field = (name, text);
        }
        self.find_in(entry, &fields)
    }

    fn orgs(&mut self) {
        let mut entry = Vec::new();
        let mut hits = Vec::new();
        for org in self.places_of(Type::Org).map(|place| &place.org) {
            let fields = [("key", &org.key[..]), ("name", &org.name), ("slug", &org.slug)];
            let of_texts = self.find_in(&mut entry, &fields);
            if let Some(at) = self.of_id(org.id).or(of_texts) {
                hits.push(Hit::new(at, org, What::Org, (&folded(&org.key), &[])));
            }
        }
        hits.into_iter().for_each(|hit| self.best.add(hit));
    }

    fn applications(&mut self) {
        let mut entry = Vec::new();
        let mut hits = Vec::new();
        for place in self.places_of(Type::App) {
            for application in self.call.app.identity().applications_of(place.org.id) {
                let of_name = self.find_in(&mut entry, &[("name", &application.name)]);
                if let Some(at) = self.of_id(application.id).or(of_name) {
                    let (name, id) = (folded(&application.name), application.id);
                    let what = What::App(application);
                    hits.push(Hit::new(at, &place.org, what, (&name, id.as_bytes())));
                }
            }
        }
        hits.into_iter().for_each(|hit| self.best.add(hit));
    }

    /// Those that are known here; one that is known below, too, is found once.
    fn thing_defs(&mut self) {
        let mut entry = Vec::new();
        let mut hits = Vec::new();
        let mut found = HashSet::new();
        for place in self.places_of(Type::ThingDef) {
            for def in self.call.app.identity().thing_defs_of(place.org.id) {
                let fields = [("key", &def.key[..]), ("name", &def.name)];
                let of_texts = self.find_in(&mut entry, &fields);
                if let Some(at) = self.of_id(def.id).or(of_texts)
                    && found.insert(def.id)
                {
                    let (name, id) = (folded(&def.key), def.id);
                    let what = What::ThingDef(def);
                    hits.push(Hit::new(at, &place.org, what, (&name, id.as_bytes())));
                }
            }
        }
        hits.into_iter().for_each(|hit| self.best.add(hit));
    }

    /// The best of these fields, and how it is called.
    pub(super) fn find_in(
        &self,
        entry: &mut Vec<u8>,
        fields: &[(&'static str, &str)],
    ) -> Option<(Match, &'static str)> {
        entry.clear();
        for (number, (_, text)) in (0..).zip(fields) {
            push_field(entry, number, text);
        }
        let found = self.needle.find(entry)?;
        Some((found, fields.get(usize::from(found.field))?.0))
    }

    fn of_id<T: FromStr + PartialEq>(&self, id: T) -> Option<(Match, &'static str)> {
        (self.id() == Some(id)).then_some(BY_ID)
    }

    /// The id that is looked for, if it can be one.
    fn id<T: FromStr>(&self) -> Option<T> {
        self.asked.query.trim().parse().ok()
    }

    /// The handle of a session that is looked for, if it can be one.
    pub(super) fn reference(&self) -> Option<SessionRef> {
        self.id()
    }
}

fn add_thing(best: &mut Best, place: &Place, text: &FoundText<'_>, found: Match) {
    best.note(Type::Thing, 1);
    if !best.admits(Type::Thing, found, text.folded_key()) {
        return;
    }
    let Some(key) = text.key() else { return };
    let at = (found, OrgTexts::field(found.field));
    let written = key.clone();
    let rest = written.as_str().as_bytes();
    best.keep(Hit::new(at, &place.org, What::Thing(key), (text.folded_key(), rest)));
}

fn user_hit(
    at: (Match, &'static str),
    org: &Arc<Org>,
    what: fn(Arc<User>) -> What,
    user: &Arc<User>,
) -> Hit {
    Hit::new(at, org, what(user.clone()), (&folded(&user.email), user.id.as_bytes()))
}

/// Whether the user is at home or a member in one of these.
fn is_within(user: &User, orgs: &HashSet<OrgId>) -> bool {
    orgs.contains(&user.home) || user.memberships.iter().any(|held| orgs.contains(&held.org))
}

pub(super) fn folded(text: &str) -> Vec<u8> {
    let mut folded = Vec::new();
    fold(text, &mut folded);
    folded
}
