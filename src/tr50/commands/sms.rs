//! `sms.send`: accepted and not sent, for there is no telephone network here, but a client that
//! sends one must not fail (`docs/protocol/tr50.md` 4.1).

use base::{Code, Failure, excerpt, limits};

use super::commands;
use super::target::Target;
use crate::tr50::params::params;
use crate::tr50::step::{Call, Done};

commands! {
    "sms.send" => send, [NOT_FOUND],
        "Writes a text message to a thing into the server's log (target `sms`) instead of sending it, \
         and counts it in the metrics, so that clients that wake a device by SMS go on.",
        "";
}

params! {
    /// The parameters of `sms.send` beside those that name the thing.
    pub struct Text {
        required message: String = "message", "The text.";
        optional coding: String = "coding", "How it would be coded, such as `SEVEN_BIT`.";
    }
}

/// `sms.send`: whoever collects the log's lines with the target `sms` can send them.
pub fn send(call: &Call<'_>, (target, text): (Target, Text)) -> Result<Done, Failure> {
    if text.message.len() > limits::SMS_BYTES_MAX {
        let most = limits::SMS_BYTES_MAX;
        let sentence = format!("Parameter \"message\" is longer than {most} bytes.");
        return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
    }
    let thing = target.subject(call)?;
    tracing::info!(
        target: "sms",
        org = call.session.access().org.key,
        from = call.session.who().name(),
        thing = thing.key.as_str(),
        coding = text.coding.as_deref().map(excerpt),
        text = text.message,
        "a text message to a thing"
    );
    call.app.metrics.sms_logged();
    Ok(Done)
}
