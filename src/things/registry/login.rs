//! A device's login finds its thing, or registers it (`docs/protocol/tr50.md` 1.1,
//! "auto-registration").

use base::{ThingId, ThingKey, Timestamp, beginning, limits};
use rules::directory::PrincipalId;
use rules::identity::model::Application;
use store::{Batch, Receipt};

use super::{NotAdded, Thing, Things};

/// What a device that logs in finds of its thing.
pub enum Found {
    /// The thing, and the receipt for what changed of it.
    Thing(Box<Thing>, Receipt),
    /// It is disabled.
    Banned,
    /// It is unknown, and the token registers none.
    Nothing,
}

#[cfg(test)]
impl Found {
    fn thing(self) -> (Thing, Receipt) {
        match self {
            Self::Thing(thing, receipt) => (*thing, receipt),
            Self::Banned | Self::Nothing => panic!("no thing"),
        }
    }
}

impl Things {
    /// The thing with this key, for a device that logs in with the application's token. When it is
    /// new or has another application id than before, the receipt is for that.
    ///
    /// `fresh_id` is the id of the thing, should it register now, which it does at the second time,
    /// as it is shown; `registers` adds to the batch then.
    ///
    /// # Errors
    /// It would register, and there is no room for it; or the store failed.
    pub fn log_in(
        &self,
        application: &Application,
        key: ThingKey,
        app_id: &str,
        (now, shown): (Timestamp, Timestamp),
        fresh_id: ThingId,
        registers: impl FnOnce(&Thing, &mut Batch),
    ) -> Result<Found, NotAdded> {
        let app_id = beginning(app_id, limits::APP_ID_BYTES_MAX);
        let _lock = self.lock(application.org, &key);
        let before = self.get(application.org, &key)?;
        let mut thing = match &before {
            Some(thing) if thing.ban.is_banned(now) => return Ok(Found::Banned),
            Some(thing) => thing.clone(),
            None if application.auto_register => new_thing(application, key, shown, fresh_id),
            None => return Ok(Found::Nothing),
        };
        // A client that sends no application id has not changed it.
        if !app_id.is_empty() {
            app_id.clone_into(&mut thing.app_id);
        }
        let mut receipt = Receipt::nothing();
        if before.as_ref() != Some(&thing) {
            let mut batch = Batch::default();
            self.put(&mut batch, &thing, before.as_ref());
            if before.is_none() {
                registers(&thing, &mut batch);
            }
            receipt = match (self.submit(batch, &thing, before.as_ref()), before) {
                // It gets in all the same, and is known by its application's old id.
                (Err(error), Some(before)) if error.is_temporary() => {
                    thing = before;
                    Receipt::nothing()
                }
                (submitted, _) => submitted?,
            };
        }
        Ok(Found::Thing(Box::new(thing), receipt))
    }
}

/// The thing that registers itself, named as deviceWISE does (`docs/protocol/tr50.md` 1.1,
/// "auto-registration").
fn new_thing(application: &Application, key: ThingKey, now: Timestamp, id: ThingId) -> Thing {
    Thing {
        name: format!("auto:{key}"),
        def: application.auto_register_def,
        tags: application.auto_register_tags.clone(),
        sec_tags: application.auto_register_sec_tags.clone(),
        maker: Some(PrincipalId::Application(application.id)),
        ..Thing::new(id, application.org, key, "AUTOREG", now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::{Durability, Tables, memory::MemoryStore};

    use super::super::tests::NOW;
    use super::*;
    use crate::app;

    /// The things of an empty store, and the application of the demo.
    fn demo() -> (Things, Arc<Application>) {
        let tables = Tables::new(Arc::new(MemoryStore::new()), Durability::Os, &Arc::default());
        let (app, _) = app::tests::demo();
        let application = app.identity().application_by_token("demo-token-basicorg");
        let things = Things::open(tables, 1, &Arc::default()).expect("empty");
        (things, application.expect("of the demo"))
    }

    fn id(number: u8) -> ThingId {
        ThingId::from_bytes([number; 12])
    }

    fn key() -> ThingKey {
        ThingKey::parse("mower-1").expect("a key")
    }

    #[tokio::test]
    async fn an_unknown_thing_registers_once() {
        let (things, application) = demo();
        let login = |number| {
            let login =
                things.log_in(&application, key(), "app", (NOW, NOW), id(number), |_, _| ());
            login.expect("stored").thing()
        };
        let (first, stored) = login(1);
        assert_eq!(first.name, "auto:mower-1");
        assert_eq!((first.created_by.as_str(), first.created_on), ("AUTOREG", NOW));
        assert_eq!(first.org, application.org);

        // Before it is stored it must not become a second thing.
        let (second, _) = login(2);
        assert_eq!(second, first);
        assert_eq!(things.count(first.org), 1);

        stored.await.expect("stored");
        let (third, _) = login(3);
        assert_eq!(third, first);
        assert_eq!(things.by_id(first.org, id(1)).expect("read"), Some(first));
    }

    #[test]
    fn above_the_share_none_registers_and_known_ones_come_in() {
        let (things, application) = demo();
        let login = |key: &str| {
            let key = ThingKey::parse(key).expect("a key");
            things.log_in(&application, key, "app", (NOW, NOW), id(1), |_, _| ()).map(drop)
        };
        login("mower-1").expect("room");
        assert!(matches!(login("mower-2"), Err(NotAdded::Full(_))));
        login("mower-1").expect("it is there");
        drop(things.remove(application.org, &key(), |_, _| ()).expect("stored").expect("there"));
        login("mower-2").expect("room again");
    }

    #[test]
    fn an_unknown_thing_stays_out_if_the_token_registers_none() {
        let (things, application) = demo();
        let strict = Application { auto_register: false, ..Application::clone(&application) };
        let login =
            things.log_in(&strict, key(), "app", (NOW, NOW), id(1), |_, _| ()).expect("read");
        assert!(matches!(login, Found::Nothing));
        assert_eq!(things.count(strict.org), 0);
    }

    #[tokio::test]
    async fn a_thing_that_the_store_does_not_take_is_not_counted() {
        let (things, application) = demo();
        things.tables.writer().stop().await.expect("stopped");
        assert!(things.log_in(&application, key(), "app", (NOW, NOW), id(1), |_, _| ()).is_err());
        assert_eq!(things.count(application.org), 0);
    }

    #[test]
    fn another_application_id_is_kept() {
        let (things, application) = demo();
        let login = |app_id: &str| {
            let login = things.log_in(&application, key(), app_id, (NOW, NOW), id(1), |_, _| ());
            login.expect("stored").thing().0.app_id
        };
        assert_eq!(login("first"), "first");
        assert_eq!(login("second"), "second");
        assert_eq!(login(""), "second");
        let long = "é".repeat(limits::APP_ID_BYTES_MAX);
        assert_eq!(login(&long), "é".repeat(limits::APP_ID_BYTES_MAX / 2));
    }
}
