//! The codec for `tokio_util`'s `Framed`, for clients: whole frames in and out.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{Malformed, Packet, Version, decode, frame_length};

/// Takes a byte stream apart into frames.
#[derive(Clone, Copy, Debug)]
pub struct MqttCodec {
    /// The version that the connection speaks.
    pub version: Version,
    /// Bytes of the largest frame.
    pub frame_max: usize,
}

/// One packet's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
    version: Version,
}

impl Frame {
    /// The packet.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn packet(&self) -> Result<Packet<'_>, Malformed> {
        match decode(&self.bytes, self.version, usize::MAX)? {
            Some((packet, _)) => Ok(packet),
            None => Err(Malformed::Truncated),
        }
    }
}

/// A stream that broke or does not speak MQTT.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The bytes are not MQTT.
    #[error("the peer sent what is not MQTT")]
    Malformed(#[from] Malformed),
}

impl Decoder for MqttCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = frame_length(bytes, self.version, self.frame_max)? else {
            return Ok(None);
        };
        if bytes.len() < length {
            bytes.reserve(length - bytes.len());
            return Ok(None);
        }
        let frame = bytes.split_to(length).freeze();
        Ok(Some(Frame { bytes: frame, version: self.version }))
    }
}

/// Sends bytes that `encode` has written.
impl Encoder<&[u8]> for MqttCodec {
    type Error = FrameError;

    fn encode(&mut self, frames: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
        out.extend_from_slice(frames);
        Ok(())
    }
}
