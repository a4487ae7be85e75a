//! `server.status`: what the server has and uses now, and what was refused since its start.

use std::collections::BTreeMap;

use base::pool::{Max, POOLS};
use base::{Failure, Timestamp};
use serde::Serialize;
use store::Condition;

use crate::app::{App, ByCause};
use crate::tr50::params::NoParams;
use crate::tr50::step::{Call, Later};
use crate::tr50::strict::Strict;

/// The reply of `server.status`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    server_id: String,
    version: &'static str,
    ts: Timestamp,
    pools: Vec<PoolUse>,
    store: StoreStatus,
    certificates: Vec<Certificate>,
    mails: usize,
    webhooks: WebhookStatus,
    /// Since the start, as all that follows.
    session_starts: u64,
    session_ends: BTreeMap<String, u64>,
    refused_connections: BTreeMap<String, u64>,
    refused_logins: BTreeMap<String, u64>,
    failed_commands: BTreeMap<String, u64>,
}

/// A pool, and what is used of it.
#[derive(Serialize)]
struct PoolUse {
    name: &'static str,
    unit: &'static str,
    used: u64,
    limit: u64,
    /// How often somebody got no more.
    refused: u64,
    /// How often somebody made way.
    evicted: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreStatus {
    available: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    free_bytes: u64,
    /// Below these free bytes only what removes is taken.
    min_free_bytes: u64,
    queue: usize,
    bytes: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    key: &'static str,
    not_after: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebhookStatus {
    lag: u64,
    failing: u64,
    switched_off: u64,
}

/// `server.status`. It asks the disk how much is on it: not for a thread that serves connections.
pub(super) fn status(call: &Call<'_>, _: Strict<NoParams>) -> Result<Later, Failure> {
    call.look_later(|call| Ok(Status::of(call.app, call.now)))
}

impl Status {
    fn of(app: &App, now: Timestamp) -> Self {
        let webhooks = app.webhook_load();
        let (room, metrics) = (app.store_room(), &app.metrics);
        let condition = room.condition();
        let available = condition == Condition::Good;
        let end = metrics.certificate_end();
        let map = |counted: ByCause| counted.into_iter().collect();
        Self {
            server_id: app.server_id.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            ts: now,
            pools: pools(app),
            store: StoreStatus {
                available,
                problem: (!available).then(|| condition.to_string()),
                free_bytes: room.free(),
                min_free_bytes: room.mark(),
                queue: app.store_queue(),
                bytes: app.store_bytes().into_iter().collect(),
            },
            certificates: end
                .into_iter()
                .map(|not_after| Certificate { key: "tls.cert", not_after })
                .collect(),
            mails: app.mailbox.counts().0,
            webhooks: WebhookStatus {
                lag: webhooks.lag,
                failing: webhooks.failing,
                switched_off: webhooks.switched_off,
            },
            session_starts: metrics.starts(),
            session_ends: map(metrics.ends()),
            refused_connections: map(metrics.refused_connections()),
            refused_logins: map(metrics.refused_logins()),
            failed_commands: map(metrics.failed_commands()),
        }
    }
}

/// The pools, but for those of which everybody has the same for itself.
fn pools(app: &App) -> Vec<PoolUse> {
    let shared = POOLS.iter().filter(|(_, info)| !matches!(info.max, Max::Each(..)));
    let pool = |(pool, info): &'static (base::pool::Pool, base::pool::PoolInfo)| {
        let usage = app.pools.usage(*pool);
        PoolUse {
            name: info.name,
            unit: info.unit,
            used: usage.used(),
            limit: usage.max(),
            refused: usage.refused(),
            evicted: usage.evicted(),
        }
    };
    shared.map(pool).collect()
}
