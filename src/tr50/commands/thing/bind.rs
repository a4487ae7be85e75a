//! `thing.bind` and `thing.unbind`: things that are served by the connection of another one, such
//! as the sensors of a gateway (`docs/protocol/tr50.md` 4.1 and 4.2).

use base::{Code, Failure, ThingId, ThingKey, limits};
use rules::directory::Who;
use store::Receipt;

use super::change::make as create;
use super::change::{change, check_tags, check_text, conflict_failure, definition, distinct};
use crate::app::Effects;
use crate::random::random;
use crate::things::registry::{Thing, ThingConflict};
use crate::tr50::commands::target::{Subject, can_access, is_restricted, no_thing, restricted};
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, Done, Later};

params! {
    /// The parameters of `thing.bind`.
    pub(super) struct Bind {
        required key: ThingKey = "key", "The thing to bind; an unknown one is made.";
        optional auto_def_key: String = "autoDefKey",
            "The key of the definition of a thing that is made.";
        optional auto_def_thing_name: String = "autoDefThingName",
            "The name of a thing that is made; `auto:` and the key by default.";
        optional auto_def_tags: Vec<String> = "autoDefTags", "The tags of a thing that is made.";
        optional auto_def_sec_tags: Vec<String> = "autoDefSecTags",
            "The security tags of a thing that is made.";
        optional bind_to: ThingKey = "bindTo", "The thing to bind it to; own thing by default.";
    }
}

params! {
    /// The parameters of `thing.unbind`.
    pub(super) struct Unbind {
        required key: ThingKey = "key", "The thing to unbind.";
    }
}

/// `thing.bind`. A token that is restricted to its own thing binds new things, and those that are
/// bound to its own already: whatever else it bound, it could read afterwards. If mail waits for
/// the thing, the connections that serve it now get a notice.
pub(super) fn bind(call: &Call<'_>, params: Bind) -> Result<Later, Failure> {
    let app = call.app.clone();
    let (known, receipt) = bind_at_once(call, params)?;
    Ok(Later::new(async move {
        // Not before: whoever is told asks at once, and what it serves is read from the store.
        receipt.await?;
        if let Some(thing) = known {
            app.announce_mail(thing);
        }
        Ok(After(Done, Effects::default()))
    }))
}

/// Binds the thing; which one, if it was known.
fn bind_at_once(call: &Call<'_>, params: Bind) -> Result<(Option<ThingId>, Receipt), Failure> {
    let parent = parent(call, params.bind_to.as_ref())?;
    let (org, key) = (call.session.org_id(), &params.key);
    if *key == parent.key {
        let sentence = "Parameter \"key\" must be another thing than the one to bind it to.";
        return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
    }
    for (name, tags) in
        [("autoDefTags", &params.auto_def_tags), ("autoDefSecTags", &params.auto_def_sec_tags)]
    {
        tags.as_deref().map_or(Ok(()), |tags| check_tags(name, tags))?;
    }
    if let Some(name) = &params.auto_def_thing_name {
        check_text("autoDefThingName", name)?;
    }
    let known = call.app.things.get(org, key)?;
    if known.as_ref().is_none_or(|thing| thing.bound_to != Some(parent.id)) {
        check_room(call, &parent)?;
    }
    let receipt = match &known {
        Some(thing) => bind_known(call, thing, parent.id)?,
        None => make(call, &params, parent.id)?,
    };
    Ok((known.map(|thing| thing.id), receipt))
}

/// Fails for users.
pub(super) fn check_binds(call: &Call<'_>) -> Result<(), Failure> {
    match call.session.who() {
        Who::Application { .. } => Ok(()),
        Who::User(_) => Err(binds_nothing()),
    }
}

fn binds_nothing() -> Failure {
    let sentence = "Only applications bind things; users update them.";
    Failure::new(Code::WRONG_SESSION_KIND, sentence)
}

/// The thing to bind to.
fn parent(call: &Call<'_>, bind_to: Option<&ThingKey>) -> Result<Subject, Failure> {
    let Who::Application { thing_id, thing_key, .. } = call.session.who() else {
        return Err(binds_nothing());
    };
    let Some(key) = bind_to.filter(|key| *key != thing_key) else {
        return Ok(Subject { id: *thing_id, key: thing_key.clone() });
    };
    let parent = call.app.things.get(call.session.org_id(), key)?;
    let parent = parent.filter(|parent| can_access(call, parent));
    let parent = parent.ok_or_else(|| no_thing(call, &format!("\"{key}\"")))?;
    Ok(Subject { id: parent.id, key: parent.key })
}

fn check_room(call: &Call<'_>, parent: &Subject) -> Result<(), Failure> {
    let most = limits::CHILDREN_MAX;
    if call.app.things.children(parent.id, most)?.len() < most {
        return Ok(());
    }
    let sentence =
        format!("Thing \"{}\" has {most} bound things, the most it may have.", parent.key);
    Err(Failure::new(Code::BUSY, sentence))
}

fn bind_known(call: &Call<'_>, thing: &Thing, parent: ThingId) -> Result<Receipt, Failure> {
    if !can_access(call, thing) {
        return Err(restricted());
    }
    rebind(call, &thing.key, Some(parent))
}

/// Binds a thing to another one, or to none, and notifies of its connection.
fn rebind(call: &Call<'_>, key: &ThingKey, parent: Option<ThingId>) -> Result<Receipt, Failure> {
    let mut before = None;
    let receipt = change(call, key, |thing| {
        before = thing.bound_to;
        thing.bound_to = parent;
    })?;
    if let Some(thing) = call.app.things.get(call.session.org_id(), key)? {
        call.app.publish_binding(&thing, before)?;
    }
    Ok(receipt)
}

/// Makes the thing that is to be bound.
fn make(call: &Call<'_>, params: &Bind, parent: ThingId) -> Result<Receipt, Failure> {
    let id = ThingId::from_bytes(random()?);
    let (org, key) = (call.session.org_id(), &params.key);
    let mut thing = Thing::new(id, org, key.clone(), call.session.who().name(), call.now);
    let name = params.auto_def_thing_name.clone().filter(|name| !name.is_empty());
    thing.name = name.unwrap_or_else(|| format!("auto:{key}"));
    thing.tags = distinct(params.auto_def_tags.clone().unwrap_or_default());
    thing.sec_tags = distinct(params.auto_def_sec_tags.clone().unwrap_or_default());
    thing.def = definition(call, params.auto_def_key.as_deref(), None)?.map(|def| def.id);
    thing.bound_to = Some(parent);
    thing.maker = Some(call.session.who().principal_id());
    match create(call, &thing) {
        Ok(receipt) => {
            call.app.publish_binding(&thing, None)?;
            Ok(receipt)
        }
        // Somebody made it just now; an unrestricted token may bind it all the same.
        Err(ThingConflict::Key) if !is_restricted(call) => rebind(call, key, Some(parent)),
        Err(conflict) => Err(conflict_failure(conflict, key)),
    }
}

/// `thing.unbind`: of a thing that is bound to another one than the caller's too, unless the token
/// is restricted. One that is not bound stays so.
pub(super) fn unbind(call: &Call<'_>, params: Unbind) -> Result<After<Done>, Failure> {
    let found = call.app.things.get(call.session.org_id(), &params.key)?;
    let found = found.filter(|thing| can_access(call, thing));
    let thing = found.ok_or_else(|| no_thing(call, &format!("\"{}\"", params.key)))?;
    let receipt = rebind(call, &thing.key, None)?;
    call.app.mailbox.give_back(call.session.number(), thing.id, call.app.clock.now());
    call.app.announce_mail(thing.id);
    Ok(After(Done, receipt.into()))
}
