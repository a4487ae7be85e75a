//! Requests of TR50, beside what serde_json makes of them.

use serde_json::Value;
use serde_json::value::RawValue;
use tr50d::tr50::envelope::Request;

use super::Target;
use crate::micro::Setup;

/// Inputs before the server is made anew: what it keeps grows.
const INPUTS_MAX: usize = 2000;

/// The reader of requests, and a device that sends them.
pub struct Envelope {
    server: Setup,
    inputs: usize,
}

impl Target for Envelope {
    const NAME: &'static str = "envelope";

    fn new() -> Self {
        Self { server: Setup::with_sessions(0), inputs: 0 }
    }

    fn check(&mut self, data: &[u8]) {
        let mut mended = String::new();
        let request = Request::parse(data, &mut mended);
        if let Ok(text) = std::str::from_utf8(data) {
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            let not_json = request.as_ref().is_err_and(|failure| {
                failure.message.starts_with("The request is not a JSON object")
            });
            assert_eq!(!not_json, is_object(text), "{request:?}");
        }
        let ids = request.map(|request| {
            let mut ids: Vec<_> = request.commands.iter().map(|one| one.id.to_string()).collect();
            ids.sort();
            ids
        });
        let reply = self.server.reply(data);
        let reply: Value = serde_json::from_slice(&reply)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&reply)));
        let reply = reply.as_object().expect("a reply is an object");
        match ids {
            Err(_) => assert_eq!(reply["success"], false),
            // As one: who asks is not there any more, or a device would have to be waited for.
            Ok(_) if reply.get("success").is_some_and(|success| success == false) => {
                if self.server.session().end().is_some() {
                    *self = Self::new();
                }
            }
            Ok(ids) => {
                let mut answered: Vec<_> = reply.keys().cloned().collect();
                answered.sort();
                let named = |id: &String| answered.contains(id);
                assert!(ids.iter().all(named), "{ids:?} in {answered:?}");
            }
        }
        self.inputs += 1;
        if self.inputs == INPUTS_MAX {
            *self = Self::new();
        }
    }
}

/// Whether the text begins with a JSON object.
fn is_object(text: &str) -> bool {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    matches!(values.next(), Some(Ok(value)) if value.get().starts_with('{'))
}
