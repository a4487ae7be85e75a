//! Logins of devices with an application's token (`tr50.md` 1.1, "app login"; 3.1).

use std::sync::Arc;

use super::Identity;
use super::access::Access;
use super::model::{Application, Thing};
use crate::id::{ThingId, ThingKey};
use crate::limits;
use crate::store::writer::Receipt;
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
    pub access: Access,
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

impl Identity {
    /// Logs a device in. When its thing is new or has another application id than before, the
    /// receipt is for that.
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
    ) -> Result<(ApplicationLogin, Receipt), Refusal> {
        let application = self.application_by_token(token).ok_or(Refusal::BadCredentials)?;
        let access = self.application_access(&application).ok_or(Refusal::NoAccess)?;
        let key = ThingKey::parse(thing_key).map_err(|_| Refusal::BadThingKey)?;
        let app_id = shortened(app_id, limits::APP_ID_BYTES_MAX);

        let _lock = self.lock_thing(application.org, &key);
        let before = self.thing(application.org, &key)?;
        let mut thing = match &before {
            Some(thing) => thing.clone(),
            None if application.auto_register => new_thing(&application, key, now, fresh_thing_id),
            None => return Err(Refusal::UnknownThing),
        };
        // A client that sends no application id has not changed it.
        if !app_id.is_empty() {
            app_id.clone_into(&mut thing.app_id);
        }
        let mut receipt = Receipt::nothing();
        if before.as_ref() != Some(&thing) {
            let mut batch = Batch::default();
            self.put_thing(&mut batch, &thing, before.as_ref());
            receipt = self.hand_over_thing(batch, &thing, before.as_ref())?;
        }
        Ok((ApplicationLogin { application, thing: Arc::new(thing), access }, receipt))
    }
}

/// As much of the text as fits, in whole characters.
fn shortened(text: &str, bytes_max: usize) -> &str {
    let mut ends = (0..=bytes_max.min(text.len())).rev();
    ends.find_map(|end| text.get(..end)).unwrap_or_default()
}

/// The thing that registers itself, named as deviceWISE does (`tr50.md` 1.1, "auto-registration").
fn new_thing(application: &Application, key: ThingKey, now: Timestamp, id: ThingId) -> Thing {
    Thing {
        name: format!("auto:{key}"),
        def: application.auto_register_def,
        tags: application.auto_register_tags.clone(),
        sec_tags: application.auto_register_sec_tags.clone(),
        ..Thing::new(id, application.org, key, "AUTOREG", now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, demo};
    use super::*;

    const TOKEN: &str = "demo-token-basicorg";

    fn id(number: u8) -> ThingId {
        ThingId::from_bytes([number; 12])
    }

    #[tokio::test]
    async fn an_unknown_thing_registers_once() {
        let (identity, _) = demo();
        let login = |number| {
            identity.login_application("mower-1", TOKEN, "app", NOW, id(number)).expect("welcome")
        };
        let (first, stored) = login(1);
        assert_eq!(first.thing.name, "auto:mower-1");
        assert_eq!((first.thing.created_by.as_str(), first.thing.created_on), ("AUTOREG", NOW));
        assert_eq!(first.thing.org, first.application.org);
        assert_eq!(first.access.role_keys, ["device"]);

        // Before it is stored it must not become a second thing.
        let (second, _) = login(2);
        assert_eq!(second.thing, first.thing);
        assert_eq!(identity.count_things(first.thing.org), 1);

        stored.await.expect("stored");
        let (third, _) = login(3);
        assert_eq!(third.thing, first.thing);
        let by_id = identity.thing_by_id(first.thing.org, id(1)).expect("read");
        assert_eq!(by_id.as_ref(), Some(&*first.thing));
    }

    #[tokio::test]
    async fn a_thing_that_the_store_does_not_take_is_not_counted() {
        let (identity, _) = demo();
        identity.tables.writer().stop().await.expect("stopped");
        let login = identity.login_application("mower-1", TOKEN, "app", NOW, id(1));
        assert!(matches!(login, Err(Refusal::Store(_))));
        let org = identity.application_by_token(TOKEN).expect("of the demo").org;
        assert_eq!(identity.count_things(org), 0);
    }

    #[test]
    fn another_application_id_is_kept() {
        let (identity, _) = demo();
        let login = |app_id: &str| {
            let login = identity.login_application("mower-1", TOKEN, app_id, NOW, id(1));
            login.expect("welcome").0.thing.app_id.clone()
        };
        assert_eq!(login("first"), "first");
        assert_eq!(login("second"), "second");
        assert_eq!(login(""), "second");
        let long = "é".repeat(limits::APP_ID_BYTES_MAX);
        assert_eq!(login(&long), "é".repeat(limits::APP_ID_BYTES_MAX / 2));
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
}
