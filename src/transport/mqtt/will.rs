//! Wills: what a client wants published when its connection is lost (MQTT 3.1.2.5, 3.1.3.2 of 5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::codec::packet;
use super::codec::reason;
use super::saved::Owner;
use super::{Edge, broker_code};
use crate::broker::{Broker, Message, Parcel};
use crate::id::OrgId;
use crate::limits;

/// A will, and how long to wait with it.
pub struct Will {
    parcel: Parcel,
    delay_s: u32,
}

impl Will {
    /// Reads the will of a CONNECT.
    ///
    /// # Errors
    ///
    /// The reason code to refuse the CONNECT with: the will's topic is not one to publish to.
    pub fn read(will: &packet::Will<'_>, broker: &Broker) -> Result<Self, u8> {
        let first = will.topic.split('/').next().unwrap_or_default();
        if matches!(first, "api" | "apiz" | "reply" | "replyz" | "notify") {
            return Err(reason::TOPIC_INVALID);
        }
        let message = Message {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: &will.properties.as_publish(),
            publisher: 0,
        };
        let parcel = broker.pack(&message).map_err(broker_code)?;
        Ok(Self { parcel, delay_s: will.properties.delay.unwrap_or(0) })
    }
}

/// Wills that wait for their delay.
#[derive(Default)]
pub struct Wills(Mutex<BTreeMap<Owner, Waiting>>);

struct Waiting {
    org: OrgId,
    parcel: Parcel,
    task: AbortHandle,
}

impl Wills {
    /// Publishes a will, after its delay or when the client's state ends, whichever comes first
    /// ([MQTT-3.1.3-9] of 5).
    pub fn publish(&self, edge: &Arc<Edge>, org: OrgId, will: Will, owner: Owner, expiry_s: u32) {
        let delay = Duration::from_secs(will.delay_s.min(expiry_s).into());
        let mut waiting = self.0.lock();
        waiting.retain(|_, will| !will.task.is_finished());
        let (edge, parcel) = (edge.clone(), will.parcel);
        if delay.is_zero() || waiting.len() >= limits::DELAYED_WILLS_MAX {
            tokio::spawn(async move { publish_now(&edge, org, parcel).await });
            return;
        }
        let later = parcel.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            publish_now(&edge, org, later).await;
        });
        let will = Waiting { org, parcel, task: task.abort_handle() };
        if let Some(former) = waiting.insert(owner, will) {
            former.task.abort();
        }
    }

    /// The client is back before its will's time, and goes on where it was.
    pub fn cancel(&self, owner: &Owner) {
        let _ = self.take(owner);
    }

    /// The client is back before its will's time, and begins anew: what it had been has ended.
    pub async fn fulfil(&self, edge: &Edge, owner: &Owner) {
        let waiting = self.take(owner);
        if let Some(will) = waiting {
            publish_now(edge, will.org, will.parcel).await;
        }
    }

    fn take(&self, owner: &Owner) -> Option<Waiting> {
        let will = self.0.lock().remove(owner).filter(|will| !will.task.is_finished())?;
        will.task.abort();
        Some(will)
    }
}

async fn publish_now(edge: &Edge, org: OrgId, parcel: Parcel) {
    if edge.broker.publish(org, parcel).await.is_err() {
        tracing::warn!("a will could not be published");
    }
}
