//! Request and response headers: which API in which version, and which answer belongs to which
//! request.
//!
//! A request header has version 1 or, in flexible versions, 2; a response header 0 or 1 (KIP-482).
//! The client id is a plain string in both.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use thiserror::Error;

use crate::api::{Api, ApiKey};
use crate::frame::LENGTH_LEN;
use crate::primitive::{ReadError, Reader, put_no_tags, put_nullable_string};

/// A request's header, its API and version known to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub key: ApiKey,
    /// The version of request and response.
    pub version: i16,
    /// Returned in the response.
    pub correlation_id: i32,
    /// What the client calls itself; for logs, metrics and quotas only.
    pub client_id: Option<StrBytes>,
}

/// Why a request's header cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The bytes are no header.
    #[error("request header: {0}")]
    Malformed(#[from] ReadError),
    /// The table has no such API. The connection is to be closed.
    #[error("API {key} is not served")]
    UnknownApi {
        /// As on the wire.
        key: i16,
        /// As on the wire.
        version: i16,
        /// As on the wire.
        correlation_id: i32,
    },
    /// The table has the API, but not in this version. Answered for ApiVersions by
    /// [`crate::control::unsupported_api_versions`] (KIP-511); else the connection is to be closed.
    #[error("{} version {version} is not served, versions {} to {} are", key.api().name, key.api().min, key.api().max)]
    UnsupportedVersion {
        /// The API.
        key: ApiKey,
        /// As on the wire.
        version: i16,
        /// To be returned.
        correlation_id: i32,
    },
}

impl RequestHeader {
    /// Whether request and response have the flexible encoding.
    pub fn is_flexible(&self) -> bool {
        self.key.api().is_flexible(self.version)
    }

    /// Takes a request's frame apart: its header, and its body sharing the frame's memory.
    pub fn decode(frame: &Bytes) -> Result<(Self, Bytes), HeaderError> {
        let mut reader = Reader::new(frame);
        let number = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let Some(api) = Api::by_number(number) else {
            return Err(HeaderError::UnknownApi {
                key: number,
                version,
                correlation_id,
            });
        };
        let key = api.key;
        if !api.serves(version) {
            return Err(HeaderError::UnsupportedVersion {
                key,
                version,
                correlation_id,
            });
        }
        let client_id = reader.nullable_str(false, frame)?;
        reader.tagged_fields(api.is_flexible(version), |_, _| Ok(false))?;
        let body = frame.slice(reader.position()..);
        Ok((
            Self {
                key,
                version,
                correlation_id,
                client_id,
            },
            body,
        ))
    }

    /// Appends the header.
    ///
    /// # Panics
    /// If the client id is longer than `i16::MAX` bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_i16(self.key.code());
        out.put_i16(self.version);
        out.put_i32(self.correlation_id);
        put_nullable_string(out, false, self.client_id.as_deref());
        put_no_tags(out, self.is_flexible());
    }

    /// Appends the header of the response to this request.
    pub fn encode_response_header(&self, out: &mut BytesMut) {
        out.put_i32(self.correlation_id);
        put_no_tags(
            out,
            self.key.api().has_flexible_response_header(self.version),
        );
    }
}

/// The correlation id of a response's frame: which request it answers, and so how to go on reading.
pub fn response_correlation_id(frame: &[u8]) -> Result<i32, ReadError> {
    Reader::new(frame).i32()
}

/// The body of a response's frame, sharing its memory.
pub fn response_body(key: ApiKey, version: i16, frame: &Bytes) -> Result<Bytes, ReadError> {
    let mut reader = Reader::of_response(frame);
    reader.i32()?;
    let flexible = key.api().has_flexible_response_header(version);
    reader.tagged_fields(flexible, |_, _| Ok(false))?;
    Ok(frame.slice(reader.position()..))
}

/// Starts a frame in an empty buffer; [`finish_frame`] sets its length.
pub(crate) fn start_frame(out: &mut BytesMut) {
    debug_assert!(out.is_empty());
    out.put_bytes(0, LENGTH_LEN);
}

/// A message is larger than a frame's length can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("message of {0} bytes exceeds what a frame can hold")]
pub struct TooLarge(pub usize);

/// Sets the length of the frame that starts in `out`, with `more` bytes to follow what `out` holds.
/// Returns the frame's size, length included.
pub(crate) fn finish_frame(out: &mut BytesMut, more: usize) -> Result<usize, TooLarge> {
    let size = out.len() + more;
    let length = i32::try_from(size - LENGTH_LEN).map_err(|_| TooLarge(size))?;
    out[..LENGTH_LEN].copy_from_slice(&length.to_be_bytes());
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata version 9, flexible: correlation id 5, client "me", a tagged field, body "body".
    const FLEXIBLE: &[u8] = b"\0\x03\0\x09\0\0\0\x05\0\x02me\x01\x63\x01xbody";

    fn decode(bytes: &[u8]) -> Result<(RequestHeader, Bytes), HeaderError> {
        RequestHeader::decode(&Bytes::copy_from_slice(bytes))
    }

    fn with(at: usize, bytes: &[u8]) -> HeaderError {
        let mut frame = FLEXIBLE.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        decode(&frame).unwrap_err()
    }

    #[test]
    fn a_flexible_header_is_read_to_its_last_tag() {
        let (header, body) = decode(FLEXIBLE).unwrap();
        assert_eq!((header.key, header.version), (ApiKey::Metadata, 9));
        assert_eq!(
            (header.correlation_id, header.client_id.as_deref()),
            (5, Some("me"))
        );
        assert_eq!(body, &b"body"[..]);
    }

    #[test]
    fn unknown_apis_and_versions_are_told_apart() {
        let unknown = HeaderError::UnknownApi {
            key: 99,
            version: 9,
            correlation_id: 5,
        };
        assert_eq!(with(0, &[0, 99]), unknown);
        assert!(matches!(
            with(0, &[0xff, 0xff]),
            HeaderError::UnknownApi { key: -1, .. }
        ));
        let (key, correlation_id) = (ApiKey::Metadata, 5);
        for version in [14, -1, i16::MIN, i16::MAX] {
            let error = with(2, &version.to_be_bytes());
            assert_eq!(
                error,
                HeaderError::UnsupportedVersion {
                    key,
                    version,
                    correlation_id
                }
            );
        }
        let text = with(2, &[0, 14]).to_string();
        assert_eq!(
            text,
            "Metadata version 14 is not served, versions 0 to 13 are"
        );
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let malformed = |error| match error {
            HeaderError::Malformed(error) => error,
            other => panic!("{other}"),
        };
        // the client id: below null, beyond the frame, not UTF-8
        assert!(matches!(
            malformed(with(8, &[0x80, 0])),
            ReadError::Length { .. }
        ));
        assert!(matches!(
            malformed(with(8, &[0x7f, 0xff])),
            ReadError::Short { .. }
        ));
        assert!(matches!(
            malformed(with(10, &[0xff])),
            ReadError::Utf8 { .. }
        ));
        // tagged fields: more than bytes, beyond the frame, a count without an end
        assert!(matches!(
            malformed(with(12, &[0x7f])),
            ReadError::Count { .. }
        ));
        assert!(matches!(
            malformed(with(14, &[0x7f])),
            ReadError::Short { .. }
        ));
        assert!(matches!(
            malformed(with(12, &[0xff; 5])),
            ReadError::Varint { at: 12 }
        ));
        for end in 0..FLEXIBLE.len() - 4 {
            assert!(decode(&FLEXIBLE[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_response_body_stands_behind_the_right_header() {
        let frame = Bytes::from_static(b"\0\0\0\x05\0body");
        assert_eq!(response_correlation_id(&frame), Ok(5));
        assert_eq!(
            response_body(ApiKey::Metadata, 9, &frame).unwrap(),
            &b"body"[..]
        );
        assert_eq!(
            response_body(ApiKey::Metadata, 8, &frame).unwrap(),
            &b"\0body"[..]
        );
        assert_eq!(
            response_body(ApiKey::ApiVersions, 3, &frame).unwrap(),
            &b"\0body"[..]
        );
        assert!(response_correlation_id(&frame[..3]).is_err());
    }
}
