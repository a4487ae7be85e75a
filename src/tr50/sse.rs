//! What a reader of `/events` asks for. `docs/events.md` says the same for users.

use std::sync::Arc;

use base::{Code, ConnInfo, Failure, OrgId};
use tokio_util::sync::CancellationToken;

use super::commands::event::{scope_asked, things_named, types_named};
use crate::app::{App, Following, Viewer};
use crate::events::Filter;

/// What a reader asks for.
#[derive(Default)]
pub struct Asked {
    types: Vec<String>,
    things: Vec<String>,
    org_id: Option<OrgId>,
    org_key: Option<String>,
    include_sub_orgs: Option<bool>,
    after: Option<u64>,
}

/// The number of an event. One that is too large is of another store, as all are behind the last.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

impl Asked {
    /// Reads the parameters of a request's address, and the value of `Last-Event-ID`, which counts
    /// more: a browser that connects anew sends the address of the first time.
    ///
    /// # Errors
    ///
    /// A parameter is unknown or wrong.
    pub fn read<'a>(
        parameters: impl Iterator<Item = (std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>,
        last_event_id: Option<&str>,
    ) -> Result<Self, Failure> {
        let mut asked = Self::default();
        for (name, value) in parameters {
            let wrong = |what: &str| {
                let sentence = format!("Parameter \"{name}\" must be {what}.");
                Failure::new(Code::PARAMETER_INVALID, sentence)
            };
            let listed = || value.split(',').map(|one| one.trim().to_owned());
            match name.to_ascii_lowercase().as_str() {
                "types" | "type" => asked.types.extend(listed()),
                "thingkey" | "key" => asked.things.extend(listed()),
                "after" | "lasteventid" if value.is_empty() => {}
                "after" | "lasteventid" => {
                    let number = number(&value).ok_or_else(|| wrong("the number of an event"))?;
                    asked.after = Some(number);
                }
                "orgid" => {
                    let id = value.parse().map_err(|_| wrong("an organisation's id"))?;
                    asked.org_id = Some(id);
                }
                "orgkey" => asked.org_key = Some(value.into_owned()),
                "includesuborgs" => {
                    let flag = value.parse().map_err(|_| wrong("true or false"))?;
                    asked.include_sub_orgs = Some(flag);
                }
                // Who asks, which was read before.
                "sessionid" => {}
                _ => {
                    let name = base::excerpt(&name);
                    let sentence = format!("Parameter \"{name}\" is unknown; there are {NAMES}.");
                    return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
                }
            }
        }
        if let Some(id) = last_event_id.map(str::trim).filter(|id| !id.is_empty()) {
            let wrong = "Last-Event-ID must be the number of an event.";
            let wrong = || Failure::new(Code::PARAMETER_INVALID, wrong);
            asked.after = Some(number(id).ok_or_else(wrong)?);
        }
        Ok(asked)
    }

    /// Has somebody follow the stream.
    ///
    /// # Errors
    ///
    /// The viewer may not, asks for what there is not, or there is no place.
    pub async fn follow(
        self,
        app: &Arc<App>,
        viewer: Viewer,
        conn: ConnInfo,
        stop: CancellationToken,
    ) -> Result<Following, Failure> {
        let sight = app.sight_of(&viewer, conn);
        let sight = sight.ok_or_else(|| Failure::session_invalid("has ended."))?;
        if !sight.may_look() {
            let sentence = "Events need the permission event.list.";
            return Err(Failure::new(Code::PERMISSION_DENIED, sentence));
        }
        let named = (self.org_id, self.org_key.as_deref());
        let filter = Filter {
            types: types_named(&self.types)?,
            things: things_named(self.things)?,
            scope: scope_asked(app, &sight, named, self.include_sub_orgs)?,
        };
        viewer.charge(app, sight.org())?;
        let place = app.event_readers.take(sight.org(), &viewer).await?;
        Ok(Following::begin(app, (viewer, conn), place, filter, self.after, stop))
    }
}

/// The parameters, for who mistypes one.
const NAMES: &str = "types, thingKey, after, lastEventId, orgId, orgKey, includeSubOrgs, sessionId";
