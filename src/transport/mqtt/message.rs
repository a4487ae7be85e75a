//! Messages that outlive the packet they came in: wills, and publishes that wait for the broker.

use super::codec::{PublishProperties, QoS};
use crate::broker::{Broker, BrokerError, Message};
use crate::id::OrgId;

/// A message of its own.
pub struct OwnedMessage {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
    /// The properties as a block.
    block: Vec<u8>,
    publisher: u64,
}

impl OwnedMessage {
    /// A copy.
    pub fn of(message: &Message<'_>) -> Self {
        let mut block = Vec::new();
        message.properties.put_block(&mut block);
        Self {
            topic: message.topic.to_owned(),
            payload: message.payload.to_vec(),
            qos: message.qos,
            retain: message.retain,
            block,
            publisher: message.publisher,
        }
    }

    /// Hands it to the broker, and waits while the broker is busy.
    ///
    /// # Errors
    ///
    /// The broker does not take it.
    pub async fn publish(&self, broker: &Broker, org: OrgId) -> Result<(), BrokerError> {
        // The block was written from properties that were read: it reads back.
        let properties = PublishProperties::parse(&self.block).unwrap_or_default();
        let message = Message {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            properties: &properties,
            publisher: self.publisher,
        };
        broker.publish(org, &message).await
    }
}
