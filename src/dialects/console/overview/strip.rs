//! What matters most of the organisation and the server, above the list of sessions.

use maud::{Markup, html};

use super::{Groups, Series, minutes, status};
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::chart;
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::number;
use crate::dialects::console::parts::Parts;
use crate::dialects::console::respond::Refused;

/// Seconds of the ring that are shown.
const SECONDS: u64 = 60;

/// Where the stream has them, in an organisation.
pub(in crate::dialects::console) const STRIP: &str = "strip";

/// The figures in short.
pub(in crate::dialects::console) async fn strip(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let parts = strip_parts(asked).await?;
    let view = asked.to(STRIP);
    Ok(html! {
        section class="strip" aria-label="In short" data-view=[Parts::view(&view)] {
            dl class="facts" { (parts.all()) }
        }
    })
}

/// Each of them, which are live.
pub(in crate::dialects::console) async fn strip_parts(asked: &InOrg<'_>) -> Result<Parts, Refused> {
    let by_protocol = Params::default().with("groupBy", "protocol");
    let live: Groups = asked.ask("session.list", &by_protocol).await?;
    let mut parts = Parts::default();
    let mut add = |name, title: &str, value: &Markup| {
        parts.add(name, html! { dt { (title) } dd { (value) } });
    };
    add("connected", "Connected", &connected(asked, &live));
    let [connects, ends] = minutes::in_short(asked).await?;
    add("connects", "Connects in 15 minutes", &connects);
    add("ends", "Ended in 15 minutes, mostly", &ends);
    if asked.may("login.failures") {
        add("refused", "Refused logins in a day", &refused(asked).await?);
    }
    for (name, title, value) in server(asked).await {
        add(name, title, &value);
    }
    Ok(parts)
}

fn connected(asked: &InOrg<'_>, live: &Groups) -> Markup {
    let total: u64 = live.result.iter().map(|group| group.count).sum();
    html! {
        b { (number(total)) }
        @for group in &live.result { @if let Some(protocol) = &group.protocol {
            " · " a data-id=(protocol) href=(asked.to(&format!("sessions?protocol={protocol}"))) {
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
async fn server(asked: &InOrg<'_>) -> Vec<(&'static str, &'static str, Markup)> {
    if !asked.sees_server() {
        return Vec::new();
    }
    let params = Params::default().with("seconds", SECONDS);
    let series: Result<Series, _> = asked.ask("stats.series", &params).await;
    let status = status(asked).await;
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
    let status = status.as_ref();
    let count = |count: u64| html! { (number(count)) };
    let shown = [
        (
            "commands",
            "Commands a second",
            figure("commands", "Commands a second, the last minute", ""),
        ),
        (
            "p99",
            "99 of 100 take at most",
            figure("commandP99Ms", "Milliseconds, the last minute", " ms"),
        ),
        ("queue", "Waiting for the store", status.map(|status| count(status.store.queue))),
        ("mails", "Mails that wait", status.map(|status| count(status.mails))),
    ];
    shown.into_iter().filter_map(|(name, title, value)| Some((name, title, value?))).collect()
}
