//! Messages of an MQTT session: those in flight, and those that wait. Payloads are never shown.

use maud::{Markup, html};

use super::{Found, Message};
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::layout::number;
use crate::dialects::console::time::ago;

/// What is on its way to the client.
pub(super) fn in_flight(asked: &InOrg<'_>, found: &Found) -> Markup {
    let sent = &found.in_flight_messages;
    let count = found.in_flight.as_ref().map_or(0, |flight| flight.out.qos1 + flight.out.qos2);
    html! { @if !sent.is_empty() {
        h2 { "In flight" }
        (table(asked, "Messages that the client has not acknowledged", "Sent", sent))
        (more(count, sent.len()))
    } }
}

/// What waits for it in the broker.
pub(super) fn waiting(asked: &InOrg<'_>, found: &Found) -> Markup {
    let shown = &found.waiting_messages;
    let count = found.waiting.unwrap_or_default();
    html! { @if count > 0 {
        h2 { "Waiting in the broker" }
        p {
            (number(count)) @if count == 1 { " message" } @else { " messages" }
            @if let Some(bytes) = found.waiting_bytes { ", " (number(bytes)) " bytes" }
            "."
        }
        @if !shown.is_empty() {
            (table(asked, "Messages that wait for the client", "Published", shown))
            (more(count, shown.len()))
        }
    } }
}

fn more(count: u64, shown: usize) -> Markup {
    html! { @if count > shown as u64 {
        p class="hint" { "The first " (number(shown as u64)) " of " (number(count)) "." }
    } }
}

fn table(asked: &InOrg<'_>, caption: &str, since: &str, messages: &[Message]) -> Markup {
    let has_ids = messages.iter().any(|message| message.packet_id.is_some());
    html! {
        div class="scroll" tabindex="0" role="group" aria-label=(caption) { table {
            caption class="hidden" { (caption) }
            thead { tr {
                @if has_ids { th scope="col" class="number" { "Packet id" } }
                th scope="col" { "Topic" } th scope="col" class="number" { "QoS" }
                th scope="col" class="number" { "Bytes" } th scope="col" { (since) }
            } }
            tbody { @for message in messages { tr {
                @if has_ids { td class="number" { @if let Some(id) = message.packet_id { (id) } } }
                td { @match &message.topic {
                    Some(topic) => code { bdi { (topic) } },
                    None if message.released => "released, and not completed",
                    None => "a message of the server's own",
                } }
                td class="number" { (message.qos) }
                td class="number" { @if let Some(bytes) = message.bytes { (number(bytes)) } }
                td {
                    @if let Some(since) = &message.since { (ago(since, asked.now)) }
                    @if message.released && message.topic.is_some() { " released" }
                }
            } } }
        } }
    }
}
