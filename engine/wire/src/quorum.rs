//! Messages of the quorum that keeps the metadata, by hand: an API of our own, for nodes alone. What
//! a message says is the quorum's; here it is bytes.
//!
//! ```text
//! request   cluster id [16], sender's node id i32, the message: all that follows
//! response  error code i16, the answer: all that follows
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::api::ApiKey;
use crate::header::{RequestHeader, TooLarge, finish_frame, response_body, start_frame};
use crate::primitive::{ReadError, Reader};

/// A node's message to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumRequest {
    /// The cluster that the sender belongs to.
    pub cluster: Uuid,
    /// The sender.
    pub sender: i32,
    /// What the quorum says.
    pub message: Bytes,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumResponse {
    /// Zero, or why there is no answer.
    pub error_code: i16,
    /// What the quorum says.
    pub answer: Bytes,
}

impl QuorumRequest {
    /// Decodes a request's body; the message shares its memory.
    pub fn decode(body: &Bytes) -> Result<Self, ReadError> {
        let mut reader = Reader::new(body);
        Ok(Self {
            cluster: Uuid::from_bytes(reader.uuid()?),
            sender: reader.i32()?,
            message: body.slice(reader.position()..),
        })
    }

    /// Encodes the request as the buffers of one frame.
    pub fn encode(&self, header: &RequestHeader) -> Result<Vec<Bytes>, TooLarge> {
        let mut front = BytesMut::new();
        start_frame(&mut front);
        header.encode(&mut front);
        front.put_slice(self.cluster.as_bytes());
        front.put_i32(self.sender);
        finish_frame(&mut front, self.message.len())?;
        Ok(vec![front.freeze(), self.message.clone()])
    }
}

impl QuorumResponse {
    /// Decodes a response's frame; the answer shares its memory.
    pub fn decode(frame: &Bytes) -> Result<Self, ReadError> {
        let body = response_body(ApiKey::QuorumMessage, 0, frame)?;
        let mut reader = Reader::of_response(&body);
        Ok(Self {
            error_code: reader.i16()?,
            answer: body.slice(reader.position()..),
        })
    }

    /// Encodes the response as the whole frame to send.
    pub fn encode(&self, header: &RequestHeader) -> Result<Bytes, TooLarge> {
        let mut frame = BytesMut::new();
        start_frame(&mut frame);
        header.encode_response_header(&mut frame);
        frame.put_i16(self.error_code);
        frame.put_slice(&self.answer);
        finish_frame(&mut frame, 0)?;
        Ok(frame.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::LENGTH_LEN;

    fn header() -> RequestHeader {
        RequestHeader {
            key: ApiKey::QuorumMessage,
            version: 0,
            correlation_id: 7,
            client_id: None,
        }
    }

    #[test]
    fn a_message_and_its_answer_come_through() {
        for text in [&b""[..], b"a vote"] {
            let request = QuorumRequest {
                cluster: Uuid::from_u128(1 << 100),
                sender: 3,
                message: Bytes::from_static(text),
            };
            let frame = Bytes::from(request.encode(&header()).unwrap().concat());
            let (read, body) = RequestHeader::decode(&frame.slice(LENGTH_LEN..)).unwrap();
            assert_eq!(read, header());
            assert_eq!(QuorumRequest::decode(&body), Ok(request));
            for cut in 0..20 {
                assert!(QuorumRequest::decode(&body.slice(..cut)).is_err());
            }

            let response = QuorumResponse {
                error_code: -1,
                answer: Bytes::from_static(text),
            };
            let frame = response.encode(&header()).unwrap().slice(LENGTH_LEN..);
            assert_eq!(QuorumResponse::decode(&frame), Ok(response));
            for cut in 0..6 {
                assert!(QuorumResponse::decode(&frame.slice(..cut)).is_err());
            }
        }
    }
}
