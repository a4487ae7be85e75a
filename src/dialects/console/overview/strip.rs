//! What matters most of the organisation and the server, above the list of sessions.

use maud::{Markup, html};

use super::{Groups, Series, Status, minutes};
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::chart;
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::{facts, number};
use crate::dialects::console::respond::Refused;

/// Seconds of the ring that are shown.
const SECONDS: u64 = 60;

/// The figures in short.
pub(in crate::dialects::console) async fn strip(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let by_protocol = Params::default().with("groupBy", "protocol");
    let live: Groups = asked.ask("session.list", &by_protocol).await?;
    let [connects, ends] = minutes::in_short(asked).await?;
    let mut shown = vec![("Connected", Some(connected(asked, &live))), connects, ends];
    if asked.may("login.failures") {
        shown.push(("Refused logins in a day", Some(refused(asked).await?)));
    }
    shown.extend(server(asked).await);
    Ok(html! { section class="strip" aria-label="In short" { (facts(&shown)) } })
}

fn connected(asked: &InOrg<'_>, live: &Groups) -> Markup {
    let total: u64 = live.result.iter().map(|group| group.count).sum();
    html! {
        b { (number(total)) }
        @for group in &live.result { @if let Some(protocol) = &group.protocol {
            " · " a href=(asked.to(&format!("sessions?protocol={protocol}"))) {
                (protocol) " " (number(group.count))
            }
        } }
    }
}

async fn refused(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let params = Params::default().with("groupBy", "cause").with("last", "24h");
    let causes: Groups = asked.ask("login.failures", &params).await?;
    let count: u64 = causes.result.iter().map(|group| group.count).sum();
    Ok(html! {
        (number(count)) " "
        a href=(asked.to("logins")) { "by address" span aria-hidden="true" { " ▸" } }
    })
}

/// Those of the whole server, for who may see them.
async fn server(asked: &InOrg<'_>) -> Vec<(&'static str, Option<Markup>)> {
    if !asked.sees_server() {
        return Vec::new();
    }
    let params = Params::default().with("seconds", SECONDS);
    let series: Result<Series, _> = asked.ask("stats.series", &params).await;
    let status: Result<Status, _> = asked.ask("server.status", &Params::default()).await;
    let figure = |name: &str, title: &str, unit: &str| {
        let values = series.as_ref().ok()?.series.get(name)?;
        let last = values.iter().rev().flatten().next();
        Some(html! {
            @match last {
                Some(last) => { (chart::rough(*last)) (unit) " " (chart::sparkline(title, values)) }
                None => "none yet",
            }
        })
    };
    let status = status.as_ref().ok();
    let count = |count: u64| html! { (number(count)) };
    vec![
        ("Commands a second", figure("commands", "Commands a second, the last minute", "")),
        ("99 of 100 take at most", figure("commandP99Ms", "Milliseconds, the last minute", " ms")),
        ("Waiting for the store", status.map(|status| count(status.store.queue))),
        ("Mails that wait", status.map(|status| count(status.mails))),
    ]
}
