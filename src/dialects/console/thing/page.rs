//! The page of one thing.

use base::{Code, Failure};
use hyper::StatusCode;
use maud::{Markup, html};

use super::values::{alarms, attributes, values};
use super::{
    Diagnosis, FEW, Found, Location, acts, connections, definition, files, history, mails,
};
use super::{of, part};
use crate::dialects::console::Answer;
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::{self, Screen, facts};
use crate::dialects::console::parts::Parts;
use crate::dialects::console::respond::Refused;
use crate::dialects::console::things::{ever, path_of, state, tags};
use crate::dialects::console::time::{ago, clock};

/// The screen.
pub(super) async fn answer(asked: &InOrg<'_>, key: &str) -> Answer {
    let found: Result<Found, Failure> = find(asked, key).await;
    let found = match found {
        Ok(found) => found,
        Err(failure)
            if matches!(failure.code, Code::NOT_FOUND | Code::PARAMETER_INVALID)
                && asked.may("thing.diagnose") =>
        {
            return unknown(asked, key).await;
        }
        Err(failure) => return Err(failure.into()),
    };
    let parts = parts_of(asked, &found).await?;
    let body = html! {
        div data-view=[Parts::view(&asked.path)] {
            h1 {
                bdi { (found.key) } " "
                span data-part="state" { (state(found.connected, found.disabled)) }
                " " span class="badge" data-live {}
            }
            (parts.part("known"))
            (acts::buttons(asked, key, found.disabled))
            @for name in ["values", "alarms", "attributes", "location", "mails"] { (parts.part(name)) }
            (files::part(asked, key).await?)
            (parts.part("connections"))
            (parts.part("diagnosis"))
        }
    };
    Ok(layout::page(asked, Screen::Things, &found.key, &body))
}

async fn find(asked: &InOrg<'_>, key: &str) -> Result<Found, Failure> {
    asked.ask("thing.find", &Params::default().with("key", key)).await
}

/// What of the page is live: nothing with a form in it.
pub(in crate::dialects::console) async fn parts(
    asked: &InOrg<'_>,
    key: &str,
) -> Result<Parts, Refused> {
    parts_of(asked, &find(asked, key).await?).await
}

async fn parts_of(asked: &InOrg<'_>, found: &Found) -> Result<Parts, Refused> {
    let key = found.key.as_str();
    let def = definition(asked, &found.def_key).await?;
    let diagnosis: Option<Diagnosis> = part(asked, "thing.diagnose", &of(key)).await?;
    let mut parts = Parts::default();
    parts.add("state", state(found.connected, found.disabled));
    let known = html! {
        @if let Some(diagnosis) = &diagnosis { p { bdi { (diagnosis.summary) } } }
        @if found.disabled { (banned(asked, found)) }
        (what_is_known(asked, found))
    };
    parts.add("known", known);
    parts.add("values", values(asked, found, &def).await?);
    parts.add("alarms", alarms(asked, found, &def));
    parts.add("attributes", attributes(asked, found, &def));
    let location = found.loc.as_ref().map(|loc| location(asked, key, loc));
    parts.add("location", location.unwrap_or_default());
    parts.add("mails", mails::part(asked, key, FEW).await?);
    parts.add("connections", connections::part(asked, key).await?);
    let diagnosis = html! { @if let Some(diagnosis) = &diagnosis {
        h2 { "Diagnosis" }
        (findings(diagnosis))
    } };
    parts.add("diagnosis", diagnosis);
    Ok(parts)
}

/// The page of a key that no thing has: whoever has a device in hand that does not appear wants to
/// know why.
async fn unknown(asked: &InOrg<'_>, key: &str) -> Answer {
    let diagnosis: Diagnosis = asked.ask("thing.diagnose", &of(key)).await?;
    let body = html! {
        h1 { "No thing has the key " bdi { (key) } }
        (findings(&diagnosis))
        p class="buttons" {
            @if asked.may("thing.trace") {
                a class="button" href=(path_of(asked, key, "trace")) { "Trace its next login" }
            }
            a class="button" href=(asked.to("things")) { "All things" }
        }
    };
    let mut response = layout::page(asked, Screen::Things, key, &body);
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}

fn findings(diagnosis: &Diagnosis) -> Markup {
    html! { ul { @for finding in &diagnosis.findings { li { bdi { (finding) } } } } }
}

fn banned(asked: &InOrg<'_>, found: &Found) -> Markup {
    html! {
        p class="notice bad" {
            "Banned"
            @if let Some(until) = &found.disabled_until { " until " (clock(until, asked.now)) " UTC" }
            @if let Some(reason) = &found.reason { ": " bdi { (reason) } }
        }
    }
}

fn what_is_known(asked: &InOrg<'_>, found: &Found) -> Markup {
    let text = |text: &str| {
        Some(text).filter(|text| !text.is_empty()).map(|text| html! { bdi { (text) } })
    };
    let seen = |time: &str| Some(ever(time).map_or(html! { "never" }, |time| ago(time, asked.now)));
    let definition = match found.def_name.is_empty() || found.def_name == found.def_key {
        true => found.def_key.clone(),
        false => format!("{} ({})", found.def_name, found.def_key),
    };
    let parent = found.bound_to.as_ref().map(|key| {
        html! { a href=(path_of(asked, key, "")) { bdi { (key) } } }
    });
    let by = |at: &str, by: &str| Some(html! { (clock(at, asked.now)) " by " bdi { (by) } });
    let all = |texts: &[String]| (!texts.is_empty()).then(|| tags(texts));
    let from = text(format!("{} {}", found.proto, found.remote_addr).trim());
    facts(&[
        ("Name", text(&found.name)),
        ("Description", text(&found.desc)),
        ("Last seen", seen(&found.last_seen)),
        ("Last command", seen(&found.last_communication)),
        ("From", from),
        ("Definition", text(&definition)),
        ("Tags", all(&found.tags)),
        ("Security tags", all(&found.sec_tags)),
        ("Bound to", parent),
        ("IMEI", text(&found.imei)),
        ("ICCID", text(&found.iccid)),
        ("IMSI", text(&found.imsi)),
        ("Telephone number", text(&found.msisdn)),
        ("ESN", text(&found.esn)),
        ("MEID", text(&found.meid)),
        ("Application id", text(&found.app_id)),
        ("Id", text(&found.id)),
        ("Made", by(&found.created_on, &found.created_by)),
        ("Changed", by(&found.updated_on, &found.updated_by)),
    ])
}

fn location(asked: &InOrg<'_>, key: &str, loc: &Location) -> Markup {
    let address: Vec<&str> = ["street", "streetNumber", "zipCode", "city", "state", "country"]
        .into_iter()
        .filter_map(|line| loc.addr.get(line).map(String::as_str))
        .collect();
    let address = (!address.is_empty()).then(|| html! { bdi { (address.join(", ")) } });
    let found = loc.fix_type.as_ref().map(|fix| html! { bdi { (fix) } });
    html! {
        h2 { "Location" }
        (facts(&[
            ("Latitude, longitude", Some(html! { (loc.lat) ", " (loc.lng) })),
            ("Address", address),
            ("Found by", found),
            ("Age", Some(ago(&loc.since, asked.now))),
        ]))
        @if asked.may("location.history") {
            p { a href=(history::path(asked, key, "location", "")) { "Where it was" } }
        }
    }
}
