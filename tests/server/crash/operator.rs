//! Operators, who make, change and delete: things, users, files, and sessions of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, Url};
use parking_lot::Mutex;
use serde_json::Value;
use support::{TOKEN, reply};

use super::{post, text, try_call, upload};

/// What is changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Object {
    /// By its key; its state is its name.
    Thing(String),
    /// By the e-mail address; its state is the first name.
    User(String),
    /// One of the organisation's, by its name; its state is its length.
    File(String),
    /// A session over HTTP, by its secret id; its state is empty.
    Session(String),
}

/// The state of an object; none: it is not there.
type State = Option<String>;

/// What an object may be after a kill: what was acknowledged last, or what was asked for then.
#[derive(Clone, Default, Debug)]
struct Known {
    acknowledged: State,
    asked: Option<State>,
}

/// What outlives a kill.
#[derive(Default)]
pub(super) struct Operator {
    /// What was changed since the last kill.
    changed: Mutex<BTreeMap<Object, Known>>,
}

impl Operator {
    /// Works until the server is gone; all names begin with `round`.
    pub(super) async fn work(self: Arc<Self>, url: Url, http: String, round: usize) {
        let Ok(mut client) = Client::connect(&url).await else { return };
        let mut number = 0;
        while self.step(&mut client, &http, &format!("{round}-{number}"), number).await.is_some() {
            number += 1;
        }
    }

    async fn step(&self, client: &mut Client, http: &str, name: &str, number: usize) -> Option<()> {
        let thing = Object::Thing(format!("made-{name}"));
        let key = format!(r#""key":"made-{name}""#);
        for (command, called) in [("thing.create", "new"), ("thing.update", "renamed")] {
            let params = format!(r#"{{{key},"name":"{called}"}}"#);
            self.change(&thing, Some(called), try_call(client, command, &params)).await?;
        }
        if !number.is_multiple_of(3) {
            let delete = format!("{{{key}}}");
            self.change(&thing, None, try_call(client, "thing.delete", &delete)).await?;
        }
        self.file(client, http, name, number).await?;
        self.session(client, http, number).await?;
        if number.is_multiple_of(4) {
            self.user(client, name, number).await?;
        }
        Some(())
    }

    async fn file(&self, client: &mut Client, http: &str, name: &str, number: usize) -> Option<()> {
        let (file, which) = (Object::File(name.to_owned()), format!(r#""fileName":"{name}""#));
        let put = format!(r#"{{{which},"global":true}}"#);
        let ticket = text(&try_call(client, "file.put", &put).await?["fileId"]);
        let length = name.len().to_string();
        self.change(&file, Some(&length), upload(http, &ticket, name)).await?;
        if number.is_multiple_of(2) {
            let delete = try_call(client, "file.delete", &put);
            self.change(&file, None, delete).await?;
        }
        Some(())
    }

    /// Two things log in over HTTP; the operator ends the session of one.
    async fn session(&self, client: &mut Client, http: &str, number: usize) -> Option<()> {
        for ends in [false, true] {
            let login = format!(
                r#"{{"auth":{{"command":"api.authenticate","params":
                {{"appToken":"{TOKEN}","appId":"a","thingKey":"caller-{number}"}}}}}}"#
            );
            let reply = post(http, &login).await?;
            let id = text(&reply["auth"]["params"]["sessionId"]);
            let session = Object::Session(id.clone());
            let there = Known { acknowledged: Some(String::new()), asked: None };
            self.changed.lock().insert(session.clone(), there);
            if ends {
                let end = format!(r#"{{"id":"{id}"}}"#);
                self.change(&session, None, try_call(client, "session.end", &end)).await?;
            }
        }
        Some(())
    }

    async fn user(&self, client: &mut Client, name: &str, number: usize) -> Option<()> {
        let address = format!("u{name}@basicorg.example");
        let user = Object::User(address.clone());
        let create = format!(
            r#"{{"emailAddress":"{address}","password":"a-password-of-{name}","firstName":"new"}}"#
        );
        let made = try_call(client, "user.create", &create);
        let id = text(&self.change(&user, Some("new"), made).await?["id"]);
        let update = format!(r#"{{"id":"{id}","firstName":"renamed"}}"#);
        self.change(&user, Some("renamed"), try_call(client, "user.update", &update)).await?;
        if number.is_multiple_of(8) {
            let delete = format!(r#"{{"id":"{id}"}}"#);
            self.change(&user, None, try_call(client, "user.delete", &delete)).await?;
        }
        Some(())
    }

    /// Notes what is asked for, and that it was acknowledged.
    async fn change<T>(
        &self,
        object: &Object,
        state: Option<&str>,
        done: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let state = state.map(str::to_owned);
        self.changed.lock().entry(object.clone()).or_default().asked = Some(state.clone());
        let done = done.await?;
        let known = Known { acknowledged: state, asked: None };
        self.changed.lock().insert(object.clone(), known);
        Some(done)
    }

    /// Everything is as it was acknowledged, or as it was asked for last. Returns how many changes
    /// were looked at.
    pub(super) async fn verify(&self, operator: &mut Client, http: &str) -> usize {
        let changed = std::mem::take(&mut *self.changed.lock());
        for (object, known) in &changed {
            let found = state_of(operator, http, object).await;
            let expected = found == known.acknowledged || known.asked.as_ref() == Some(&found);
            assert!(expected, "{object:?} is {found:?}, and was {known:?}");
        }
        changed.len()
    }
}

async fn state_of(operator: &mut Client, http: &str, object: &Object) -> State {
    let (command, params, member) = match object {
        Object::Thing(key) => ("thing.find", format!(r#"{{"key":"{key}"}}"#), "name"),
        Object::User(address) => {
            ("user.find", format!(r#"{{"emailAddress":"{address}"}}"#), "firstName")
        }
        Object::File(name) => {
            ("file.get", format!(r#"{{"fileName":"{name}","global":true}}"#), "fileSize")
        }
        Object::Session(id) => {
            let body =
                format!(r#"{{"auth":{{"sessionId":"{id}"}},"cmd":{{"command":"session.info"}}}}"#);
            let reply = post(http, &body).await.expect("an answer");
            return (reply["cmd"]["success"] == true).then(String::new);
        }
    };
    let reply = reply(operator, command, &params).await;
    match &reply["params"][member] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => {
            assert_eq!(reply["errorCodes"][0], -90008, "{reply}");
            None
        }
    }
}
