//! Logins of devices with an application's token (`tr50.md` 1.1, "app login"; 3.1).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Identity;
use super::model::{Application, Thing};
use super::standing::Standing;
use super::thing::put_thing;
use crate::id::{OrgId, ThingId, ThingKey};
use crate::limits;
use crate::store::{Batch, StoreError};
use crate::timestamp::Timestamp;

/// A device that has logged in.
#[derive(Clone, Debug)]
pub struct ApplicationLogin {
    /// The application whose token it gave.
    pub application: Arc<Application>,
    /// The thing that it is.
    pub thing: Arc<Thing>,
    /// What it may do.
    pub standing: Standing,
}

/// Why a login is refused. For the log and for choosing an error code; a peer that failed must not
/// learn more than that.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Unknown name, wrong password or wrong token.
    #[error("unknown name or wrong password")]
    BadCredentials,
    /// The thing is unknown and the token registers none.
    #[error("unknown thing, and the token registers none")]
    UnknownThing,
    /// The thing key can't be one.
    #[error("not a thing key")]
    BadThingKey,
    /// The principal may not enter the organisation.
    #[error("no access to the organisation")]
    NoAccess,
    /// Too many logins wait.
    #[error("too many logins wait to be checked")]
    Busy,
    /// Too many failures.
    #[error("locked for {seconds} s after too many failures")]
    Locked {
        /// How long it lasts.
        seconds: u64,
    },
    /// The store failed.
    #[error("the login can't be checked")]
    Store(#[from] StoreError),
}

/// Things that registered a moment ago and are perhaps not in the store yet.
#[derive(Default)]
pub struct Registrations {
    things: HashMap<(OrgId, ThingKey), Arc<Thing>>,
    oldest_first: VecDeque<(Timestamp, (OrgId, ThingKey))>,
}

impl Registrations {
    /// The thing registered under this thing's key, which may be another one; whether it is new.
    fn add(&mut self, thing: Arc<Thing>, now: Timestamp) -> (Arc<Thing>, bool) {
        while let Some((at, key)) = self.oldest_first.front()
            && (now.millis_since(*at) >= limits::REGISTRATION_KEPT_MS
                || self.oldest_first.len() >= limits::REGISTRATIONS_MAX)
        {
            self.things.remove(key);
            self.oldest_first.pop_front();
        }
        let key = (thing.org, thing.key.clone());
        if let Some(known) = self.things.get(&key) {
            return (known.clone(), false);
        }
        self.oldest_first.push_back((now, key.clone()));
        self.things.insert(key, thing.clone());
        (thing, true)
    }
}

impl Identity {
    /// Logs a device in. When its thing is new or has another application id than before, there is
    /// a batch to be stored.
    ///
    /// `fresh_thing_id` is the id of the thing, should it register now.
    ///
    /// # Errors
    /// [`Refusal::BadCredentials`] for an unknown token, then [`Refusal::BadThingKey`],
    /// [`Refusal::UnknownThing`], [`Refusal::NoAccess`], and [`Refusal::Store`].
    pub fn login_application(
        &self,
        thing_key: &str,
        token: &str,
        app_id: &str,
        now: Timestamp,
        fresh_thing_id: ThingId,
    ) -> Result<(ApplicationLogin, Option<Batch>), Refusal> {
        let application = self.application_by_token(token).ok_or(Refusal::BadCredentials)?;
        let standing = self.application_standing(&application).ok_or(Refusal::NoAccess)?;
        let key = ThingKey::parse(thing_key).map_err(|_| Refusal::BadThingKey)?;
        let app_id = shortened(app_id, limits::APP_ID_BYTES_MAX);

        let (mut thing, mut changed) = match self.thing(application.org, &key)? {
            Some(thing) => (Arc::new(thing), false),
            None if application.auto_register => {
                let thing = new_thing(&application, key, app_id, now, fresh_thing_id);
                (self.register(thing, now), true)
            }
            None => return Err(Refusal::UnknownThing),
        };
        // A client that sends no application id has not changed it.
        if !app_id.is_empty() && thing.app_id != app_id {
            Arc::make_mut(&mut thing).app_id = app_id.to_owned();
            changed = true;
        }
        let batch = changed.then(|| {
            let mut batch = Batch::default();
            put_thing(&mut batch, &thing);
            batch
        });
        Ok((ApplicationLogin { application, thing, standing }, batch))
    }

    /// The thing as it is registered: this one, or the one that another login with the same key
    /// registered a moment ago and that is not stored yet.
    fn register(&self, thing: Thing, now: Timestamp) -> Arc<Thing> {
        let (thing, is_new) = self.registrations.lock().add(Arc::new(thing), now);
        if is_new {
            *self.thing_counts.lock().entry(thing.org).or_insert(0) += 1;
        }
        thing
    }
}

/// As much of the text as fits, in whole characters.
fn shortened(text: &str, bytes_max: usize) -> &str {
    let mut ends = (0..=bytes_max.min(text.len())).rev();
    ends.find_map(|end| text.get(..end)).unwrap_or_default()
}

/// The thing that registers itself, named as deviceWISE does (`tr50.md` 1.1, "auto-registration").
fn new_thing(
    application: &Application,
    key: ThingKey,
    app_id: &str,
    now: Timestamp,
    id: ThingId,
) -> Thing {
    Thing {
        id,
        org: application.org,
        name: format!("auto:{key}"),
        key,
        def: application.auto_register_def,
        tags: application.auto_register_tags.clone(),
        app_id: app_id.to_owned(),
        created_on: now,
        created_by: "AUTOREG".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, demo};
    use super::*;
    use crate::store::Store;

    const TOKEN: &str = "demo-token-basicorg";

    fn id(number: u8) -> ThingId {
        ThingId::from_bytes([number; 12])
    }

    #[test]
    fn an_unknown_thing_registers_once() {
        let (identity, store) = demo();
        let login = |number| {
            identity.login_application("mower-1", TOKEN, "app", NOW, id(number)).expect("welcome")
        };
        let (first, batch) = login(1);
        assert_eq!(first.thing.name, "auto:mower-1");
        assert_eq!((first.thing.created_by.as_str(), first.thing.created_on), ("AUTOREG", NOW));
        assert_eq!(first.thing.org, first.application.org);
        assert_eq!(first.standing.role_keys, ["device"]);

        // Before it is stored it must not become a second thing; both batches say the same.
        let (second, again) = login(2);
        assert_eq!(second.thing, first.thing);
        assert_eq!(again, batch);
        assert_eq!(identity.count_things(first.thing.org), 1);

        store.commit(&[batch.expect("a registration is stored")]).expect("commit");
        let (third, batch) = login(3);
        assert_eq!((third.thing, batch), (first.thing.clone(), None));
        let by_id = identity.thing_by_id(first.thing.org, id(1)).expect("read");
        assert_eq!(by_id.as_ref(), Some(&*first.thing));
    }

    #[test]
    fn another_application_id_is_kept() {
        let (identity, store) = demo();
        let login = |app_id: &str| {
            let login = identity.login_application("mower-1", TOKEN, app_id, NOW, id(1));
            let (login, batch) = login.expect("welcome");
            let stored = batch.is_some();
            store.commit(batch.as_slice()).expect("commit");
            (login.thing.app_id.clone(), stored)
        };
        assert_eq!(login("first"), ("first".into(), true));
        assert_eq!(login("first"), ("first".into(), false));
        assert_eq!(login("second"), ("second".into(), true));
        assert_eq!(login(""), ("second".into(), false));
        let long = "é".repeat(limits::APP_ID_BYTES_MAX);
        assert_eq!(login(&long), ("é".repeat(limits::APP_ID_BYTES_MAX / 2), true));
        assert_eq!(login(&long), ("é".repeat(limits::APP_ID_BYTES_MAX / 2), false));
    }

    #[test]
    fn refusals_say_the_token_first() {
        let (identity, _) = demo();
        let refused = |key: &str, token: &str| {
            let login = identity.login_application(key, token, "app", NOW, id(1));
            login.expect_err("refused")
        };
        assert!(matches!(refused("mower-1", "no such token"), Refusal::BadCredentials));
        assert!(matches!(refused("mower-1", ""), Refusal::BadCredentials));
        assert!(matches!(refused("a/b", "no such token"), Refusal::BadCredentials));
        assert!(matches!(refused("a/b", TOKEN), Refusal::BadThingKey));
    }

    #[test]
    fn registrations_are_remembered_for_a_while_and_bounded() {
        let (identity, _) = demo();
        let login = |number: u8, now| {
            let login = identity.login_application("mower-1", TOKEN, "app", now, id(number));
            login.expect("welcome").0.thing.id
        };
        assert_eq!(login(1, NOW), id(1));
        assert_eq!(login(2, NOW.plus_seconds(59)), id(1));
        assert_eq!(login(3, NOW.plus_seconds(60)), id(3));
        for number in 0..2 * limits::REGISTRATIONS_MAX {
            let key = format!("mower-{number}");
            identity.login_application(&key, TOKEN, "app", NOW, id(9)).expect("welcome");
        }
        let registrations = identity.registrations.lock();
        assert_eq!(registrations.things.len(), limits::REGISTRATIONS_MAX);
        assert_eq!(registrations.oldest_first.len(), limits::REGISTRATIONS_MAX);
    }
}
