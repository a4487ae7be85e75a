//! The parameters that name a thing (`docs/protocol/tr50.md` 2, "Thing identifier parameters").

use std::collections::BTreeMap;

use base::{Code, Failure, ThingId, ThingKey, excerpt};
use rules::directory::Who;

use crate::things::registry::{Alias, Thing};
use crate::tr50::envelope::Members;
use crate::tr50::params::{Field, Params, Reach, missing, params};
use crate::tr50::step::Call;

params! {
    /// The parameters by which a command names a thing. An application that gives none means its
    /// own; a user has to name one.
    #[derive(Default)]
    pub struct Target of Thing {
        optional thing_key: ThingKey = "thingKey", "The thing's key; own thing by default.";
        optional thing_id: ThingId = "thingId", "Its id, instead.";
        optional iccid: String = "iccid", "Its ICCID, instead.";
        optional esn: String = "esn", "Its ESN, instead.";
        optional imei: String = "imei", "Its IMEI, instead.";
        optional meid: String = "meid", "Its MEID, instead.";
        optional imsi: String = "imsi", "Its IMSI, instead.";
        optional msisdn: String = "msisdn", "Its telephone number, instead.";
    }
}

params! {
    /// What commands of the family `thing` take beside that.
    pub struct ByKey {
        optional key: ThingKey = "key", "The thing's key; own thing by default.";
        optional id: ThingId = "id", "Its id, instead.";
    }
}

/// The thing that a command is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Its id.
    pub id: ThingId,
    /// Its key.
    pub key: ThingKey,
}

impl Target {
    /// The thing meant, without a look into the store when it is the caller's own.
    ///
    /// # Errors
    ///
    /// There is no such thing here, the caller may not name it, or a user names none.
    pub fn subject(&self, call: &Call<'_>) -> Result<Subject, Failure> {
        if let Who::Application { thing_id, thing_key, .. } = call.session.who()
            && self.is_or_defaults_to(*thing_id, thing_key)
        {
            return Ok(Subject { id: *thing_id, key: thing_key.clone() });
        }
        self.thing(call).map(|thing| Subject { id: thing.id, key: thing.key })
    }

    /// As [`Speaker::subject`].
    pub(super) fn speaker(&self, call: &Call<'_>) -> Result<Subject, Failure> {
        if let Who::Application { thing_id, thing_key, .. } = call.session.who()
            && self.is_or_defaults_to(*thing_id, thing_key)
        {
            // Its session would have ended.
            return Ok(Subject { id: *thing_id, key: thing_key.clone() });
        }
        let thing = self.thing(call)?;
        check_not_banned(call, &thing)?;
        Ok(Subject { id: thing.id, key: thing.key })
    }

    /// As [`Past::subject`].
    fn subject_of_past(&self, call: &Call<'_>) -> Result<Subject, Failure> {
        let Who::Application { thing_id, thing_key, .. } = call.session.who() else {
            return self.subject(call);
        };
        if self.is_or_defaults_to(*thing_id, thing_key) || sees_past_of_all(call) {
            return self.subject(call);
        }
        let thing = self.thing(call)?;
        if thing.id == *thing_id || thing.bound_to == Some(*thing_id) {
            return Ok(Subject { id: thing.id, key: thing.key });
        }
        Err(not_its_past(call))
    }

    /// The thing meant, as it is stored.
    ///
    /// # Errors
    ///
    /// As [`Target::subject`].
    pub fn thing(&self, call: &Call<'_>) -> Result<Thing, Failure> {
        self.find(call, "thingKey")
    }

    /// The thing meant by a command of the family `thing`.
    ///
    /// # Errors
    ///
    /// As [`Target::subject`].
    pub fn thing_by_key(mut self, by_key: ByKey, call: &Call<'_>) -> Result<Thing, Failure> {
        self.thing_key = by_key.key.or(self.thing_key);
        self.thing_id = by_key.id.or(self.thing_id);
        self.find(call, "key")
    }

    fn find(&self, call: &Call<'_>, parameter: &str) -> Result<Thing, Failure> {
        let (things, org) = (&call.app.things, call.session.org_id());
        let (found, named) = if let Some(key) = &self.thing_key {
            (things.get(org, key)?, format!("\"{key}\""))
        } else if let Some(id) = self.thing_id {
            (things.by_id(org, id)?, format!("\"{id}\""))
        } else if let Some((alias, value)) = self.alias() {
            let named = format!("with {} \"{}\"", alias.as_str(), excerpt(value));
            (things.by_alias(org, alias, value)?, named)
        } else if let Who::Application { thing_key, .. } = call.session.who() {
            (things.get(org, thing_key)?, format!("\"{thing_key}\""))
        } else {
            return Err(missing(parameter));
        };
        let found = found.filter(|thing| can_access(call, thing));
        found.ok_or_else(|| no_thing(call, &named))
    }

    /// Has a user who names no thing mean the one with the first of these identifiers.
    pub fn set_alias_of_user(&mut self, call: &Call<'_>, aliases: &BTreeMap<Alias, String>) {
        if let (Who::User(_), Some((alias, value))) = (call.session.who(), aliases.iter().next()) {
            let parameter = match alias {
                Alias::Iccid => &mut self.iccid,
                Alias::Esn => &mut self.esn,
                Alias::Imei => &mut self.imei,
                Alias::Meid => &mut self.meid,
                Alias::Imsi => &mut self.imsi,
                Alias::Msisdn => &mut self.msisdn,
            };
            *parameter = Some(value.clone());
        }
    }

    /// Whether no thing is named.
    pub fn names_nothing(&self) -> bool {
        self.thing_key.is_none() && self.thing_id.is_none() && self.alias().is_none()
    }

    fn alias(&self) -> Option<(Alias, &str)> {
        let named = [&self.iccid, &self.esn, &self.imei, &self.meid, &self.imsi, &self.msisdn];
        let mut named = Alias::ALL.into_iter().zip(named);
        named.find_map(|(alias, value)| Some((alias, value.as_deref()?)))
    }

    fn is_or_defaults_to(&self, own_id: ThingId, own_key: &ThingKey) -> bool {
        match (&self.thing_key, self.thing_id) {
            (Some(key), _) => key == own_key,
            (None, Some(id)) => id == own_id,
            (None, None) => self.alias().is_none(),
        }
    }
}

/// The thing for which something is published.
pub struct Speaker(Target);

impl Speaker {
    /// The thing. A disabled one says nothing, not even by others.
    ///
    /// # Errors
    ///
    /// As [`Target::subject`], or it is disabled.
    pub fn subject(&self, call: &Call<'_>) -> Result<Subject, Failure> {
        self.0.speaker(call)
    }
}

impl Params for Speaker {
    const REACH: Reach = Reach::Speaker;

    fn fields() -> Vec<Field> {
        Target::fields()
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        Target::from_members(members).map(Self)
    }
}

/// The thing whose past is asked for.
pub struct Past(Target);

impl Past {
    /// The thing. Applications may read of their own and of what is bound to it; their role opens the
    /// others' with `thing.list`, and so do administrator rights.
    ///
    /// # Errors
    ///
    /// As [`Target::subject`], or it is not for the caller.
    pub fn subject(&self, call: &Call<'_>) -> Result<Subject, Failure> {
        self.0.subject_of_past(call)
    }
}

impl Params for Past {
    const REACH: Reach = Reach::Past;

    fn fields() -> Vec<Field> {
        Target::fields()
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        Target::from_members(members).map(Self)
    }
}

impl Reach {
    /// Fails unless the caller may use a command on a thing that has this of it.
    ///
    /// # Errors
    ///
    /// Those of the command.
    pub(super) fn check(self, call: &Call<'_>, key: &ThingKey) -> Result<(), Failure> {
        let target = Target { thing_key: Some(key.clone()), ..Target::default() };
        match self {
            Self::Nothing => Ok(()),
            Self::Thing => target.subject(call).map(drop),
            Self::Speaker => target.speaker(call).map(drop),
            Self::Past => target.subject_of_past(call).map(drop),
            Self::Name => check_may_ask(call, key.as_str()),
        }
    }
}

/// Fails for what nobody may do in the name of a thing that is disabled.
pub(super) fn check_not_banned(call: &Call<'_>, thing: &Thing) -> Result<(), Failure> {
    if !thing.ban.is_banned(call.app.clock.now()) {
        return Ok(());
    }
    let sentence = format!("Thing \"{}\" is disabled.", thing.key);
    Err(Failure::new(Code::THING_DISABLED, sentence))
}

/// Whether the caller may name this thing: every thing of its organisation, or, with a restricted
/// token, its own and those that are bound to it.
pub(super) fn can_access(call: &Call<'_>, thing: &Thing) -> bool {
    match call.session.who() {
        Who::Application { thing_id, .. } if is_restricted(call) => {
            thing.id == *thing_id || thing.bound_to == Some(*thing_id)
        }
        _ => true,
    }
}

/// Fails for who may not ask for what is known of this key, of a thing that does not exist, too: a
/// restricted token has its own thing, and those that are bound to it.
pub(super) fn check_may_ask(call: &Call<'_>, key: &str) -> Result<(), Failure> {
    if !is_restricted(call) || call.session.who().own_key() == Some(key) {
        return Ok(());
    }
    let Ok(key) = ThingKey::parse(key) else { return Err(restricted()) };
    let found = call.app.things.get(call.session.org_id(), &key)?;
    if found.is_some_and(|thing| can_access(call, &thing)) { Ok(()) } else { Err(restricted()) }
}

/// The failure for a thing that is not there, or not for the caller: with a restricted token both
/// are the same, so that nobody learns from it which things there are.
pub(super) fn no_thing(call: &Call<'_>, named: &str) -> Failure {
    if is_restricted(call) { restricted() } else { Failure::not_found(format!("Thing {named}")) }
}

/// The failure for what a restricted token can't reach.
pub(super) fn restricted() -> Failure {
    let sentence = "The application's token is restricted to its own thing.";
    Failure::new(Code::PERMISSION_DENIED, sentence)
}

/// Whether the caller may ask for what was, of every thing and of the organisation.
pub(super) fn sees_past_of_all(call: &Call<'_>) -> bool {
    matches!(call.session.who(), Who::User(_)) || call.session.access().allows("thing.list")
}

/// The failure for a past that is not for the caller.
pub(super) fn not_its_past(call: &Call<'_>) -> Failure {
    let who = call.session.who().name();
    let sentence = format!(
        "{who} may read histories and logs of its own thing and of those bound to it; those of \
         others need thing.list in its role."
    );
    Failure::new(Code::PERMISSION_DENIED, sentence)
}

/// Fails for a token that is restricted to its own thing, which what is asked for goes beyond.
pub(super) fn check_unrestricted(call: &Call<'_>) -> Result<(), Failure> {
    if is_restricted(call) { Err(restricted()) } else { Ok(()) }
}

/// Whether the caller's token is restricted to its own thing, as it is now.
pub(super) fn is_restricted(call: &Call<'_>) -> bool {
    call.session.access().restricted_to_self
}

/// Fails for users, who have no thing.
pub(super) fn check_is_thing(call: &Call<'_>) -> Result<(), Failure> {
    match call.session.who() {
        Who::Application { .. } => Ok(()),
        Who::User(_) => Err(no_thing_of_its_own()),
    }
}

/// The failure for a user who asks for the own thing.
pub(super) fn no_thing_of_its_own() -> Failure {
    let sentence = "Only applications have a thing of their own.";
    Failure::new(Code::WRONG_SESSION_KIND, sentence)
}

/// At most so many of the things that are bound to the caller's own.
///
/// # Errors
///
/// The caller is a user, or the store fails.
pub(super) fn children(call: &Call<'_>, most: usize) -> Result<Vec<(ThingId, ThingKey)>, Failure> {
    match call.session.who() {
        Who::Application { thing_id, .. } => Ok(call.app.things.children(*thing_id, most)?),
        Who::User(_) => Err(no_thing_of_its_own()),
    }
}

/// The things that the caller's connection serves: its own, and of those that are bound to it what
/// gets something. What is disabled does not.
pub(super) fn served(
    call: &Call<'_>,
    children: Vec<(ThingId, ThingKey)>,
) -> Result<Vec<ThingId>, Failure> {
    let Who::Application { thing_id, .. } = call.session.who() else {
        return Err(no_thing_of_its_own());
    };
    let mut served = vec![*thing_id];
    for (id, key) in children {
        let found = call.app.things.get(call.session.org_id(), &key)?;
        if found.is_none_or(|thing| check_not_banned(call, &thing).is_ok()) {
            served.push(id);
        }
    }
    Ok(served)
}
