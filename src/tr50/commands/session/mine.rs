//! `session.mine`: the caller's own sessions, which everybody may see.

use std::cmp::Reverse;
use std::sync::Arc;

use base::{
    Clock, Failure,
    json::{self, key},
};
use rules::directory::Session;

use super::end::own_sessions;
use super::template::{Members, Rows};
use crate::tr50::params::params;
use crate::tr50::step::{Call, WriteReply};
use crate::tr50::strict::Strict;

params! {
    /// The parameters of `session.mine`.
    pub(super) struct MineParams {
        optional offset: u64 = "offset", "Sessions to leave out at the beginning.";
        optional limit: u64 = "limit",
            "Sessions to return at most; 0 means as many as allowed.";
    }
}

/// The reply of `session.mine`.
pub(super) struct OwnSessions {
    count: usize,
    page: Vec<Arc<Session>>,
    current: Arc<Session>,
    clock: Clock,
}

/// `session.mine`: the last that started first.
pub(super) fn mine(
    call: &Call<'_>,
    Strict(params): Strict<MineParams>,
) -> Result<OwnSessions, Failure> {
    let most = call.app.config.sessions.list_limit;
    let number = |asked: u64| usize::try_from(asked).unwrap_or(usize::MAX);
    let limit = params.limit.filter(|limit| *limit > 0).map_or(most, number).min(most);
    let mut page = own_sessions(call);
    page.sort_by_key(|session| Reverse((session.started(), session.number())));
    let count = page.len();
    let page = page.into_iter().skip(params.offset.map_or(0, number)).take(limit).collect();
    let (current, clock) = (call.session.clone(), call.app.clock.clone());
    Ok(OwnSessions { count, page, current, clock })
}

impl WriteReply for OwnSessions {
    fn write_reply(&self, out: &mut Vec<u8>) {
        let mut rows = Rows::new(Members::All { with_client_id: true }, &self.clock);
        out.extend_from_slice(br#"{"success":true,"params":{"count":"#);
        json::push_value(out, &self.count);
        out.extend_from_slice(br#","result":["#);
        for (index, session) in self.page.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            session.with_context(|context| {
                let mut object = rows.begin(out, session, context);
                let is_current = session.reference() == self.current.reference();
                object.flag(key!("current"), is_current);
                object.end();
            });
        }
        out.extend_from_slice(b"]}}");
    }
}
