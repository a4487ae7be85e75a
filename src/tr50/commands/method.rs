//! `method.exec`: a thing is asked to execute a method (`docs/protocol/tr50.md` 4.1 and 4.2).

use base::{Failure, limits};
use serde_json::value::RawValue;

use super::commands;
use super::mailbox::sending::{Order, SendOptions, deliver, method_params};
use super::target::{Subject, Target};
use crate::things::mailbox::mail::METHOD_EXEC;
use crate::things::registry::Thing;
use crate::tr50::params::params;
use crate::tr50::step::{Call, FromDevice};

commands! {
    "method.exec" => exec, [NOT_FOUND, NO_ANSWER, MAILBOX_FULL],
        "Lets a thing execute a method and waits for its answer: code, text and parameters are the \
         thing's own. A singleton is not sent while a mail for the same method waits for the thing: \
         then the answer is that one's.",
        "what the thing gives to mailbox.ack; if it is not waited for: `id`";
}

params! {
    /// The parameters of `method.exec` beside the thing and the times.
    pub struct Exec {
        required method: String = "method", "The method's key.";
        optional params: Box<RawValue> = "params", "What the method is to work with.";
        optional parameters: Box<RawValue> = "parameters", "The same under another name.";
    }
}

/// `method.exec`.
pub fn exec(
    call: &Call<'_>,
    (target, (exec, options)): (Target, (Exec, SendOptions)),
) -> Result<FromDevice, Failure> {
    let (subject, wait_s) = match options.ack_timeout {
        Some(wait_s) => (target.subject(call)?, wait_s),
        None => {
            let thing = target.thing(call)?;
            let wait_s = default_wait_s(call, &thing, &exec.method);
            (Subject { id: thing.id, key: thing.key }, wait_s)
        }
    };
    let params = exec.params.or(exec.parameters);
    let params = method_params(&exec.method, params.as_deref())?;
    let order = Order { command: METHOD_EXEC.to_owned(), params: Some(params), wait_s };
    deliver(call, subject, order, &options)
}

/// How long the answer of a method is waited for if the caller does not say: as long as the thing's
/// definition says (`docs/protocol/tr50.md` 4.1, `defaultAckTimeout`).
fn default_wait_s(call: &Call<'_>, thing: &Thing, method: &str) -> f64 {
    let def = thing.def.and_then(|id| call.app.identity().thing_def(thing.org, id));
    def.and_then(|def| def.default_ack_timeout_s(method)).unwrap_or(limits::ACK_WAIT_S)
}
