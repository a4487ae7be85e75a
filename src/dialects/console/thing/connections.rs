//! The sessions of a thing, live and ended.

use maud::{Markup, html};

use super::{FEW, live_table, of, part as said};
use crate::dialects::console::asked::{InOrg, segment};
use crate::dialects::console::layout::badge;
use crate::dialects::console::respond::Refused;
use crate::dialects::console::sessions::{Listed, SessionRow};
use crate::dialects::console::time::{ago, clock, lasted};

/// Its sessions, live and ended.
pub(super) async fn part(asked: &InOrg<'_>, key: &str) -> Result<Markup, Refused> {
    let params = of(key).with("status", vec!["ALL"]).with("limit", FEW);
    let listed: Option<Listed<SessionRow>> = said(asked, "session.list", &params).await?;
    let Some(listed) = listed else { return Ok(html! {}) };
    let all = form_urlencoded::Serializer::new(String::new())
        .append_pair("thingKey", key)
        .append_pair("state", "all")
        .finish();
    let row = |session: &SessionRow| {
        let ended = session.end_time.as_deref();
        let cells = vec![
            html! { a href=(asked.to(&format!("sessions/{}", segment(&session.reference)))) {
                (clock(&session.start_time, asked.now))
            } },
            match ended {
                Some(ended) => html! { (lasted(&session.start_time, ended)) },
                None => ago(&session.start_time, asked.now),
            },
            html! { (session.conn_info.protocol) },
            html! { (session.conn_info.remote_addr) },
            match (&session.end_reason, ended) {
                (Some(reason), Some(at)) => html! {
                    (badge("bad", &reason.replace('_', " "))) " " (clock(at, asked.now))
                },
                _ => badge("good", "live"),
            },
        ];
        (session.reference.clone(), cells)
    };
    let rows: Vec<_> = listed.result.iter().map(row).collect();
    Ok(html! {
        h2 { "Connections" }
        @if rows.is_empty() {
            p class="hint" { "None that is known. Ended ones are kept for a while." }
        } @else {
            (live_table("Connections", &["Since", "For", "Protocol", "From", "End"], &rows))
            p { a href=(asked.to(&format!("sessions?{all}"))) { "All sessions of this thing" } }
        }
    })
}
