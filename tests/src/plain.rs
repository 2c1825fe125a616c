//! A Kafka client without mercy or cleverness: blocking sockets, one request at a time, no retries,
//! every answer as it came. Tests see through it exactly what the broker said.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{self, Call, DecodeError, EncodeError};
use ringmill_wire::fetch::FetchedPartition;
use ringmill_wire::header::{RequestHeader, TooLarge};
use ringmill_wire::primitive::ReadError;
use ringmill_wire::produce::{ProduceRequest, ProduceResponse, ProducedPartition};
use thiserror::Error;

use crate::ask;

/// Largest answer that is read.
const MAX_FRAME: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum PlainError {
    /// The connection failed: nobody knows what became of the request.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The request cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The request is larger than a frame.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The answer cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The answer cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The broker refuses, with this code.
    #[error("error code {0}")]
    Refused(i16),
    /// The answer is to another question, or has an error code where none may be.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

/// One connection.
#[derive(Debug)]
pub struct PlainClient {
    stream: TcpStream,
    correlation_id: i32,
}

impl PlainClient {
    /// Connects; answers are waited for at most half a minute, so that a test never hangs.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self {
            stream,
            correlation_id: 0,
        })
    }

    /// The socket, for tests that speak no Kafka at all.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    fn header(&mut self, key: ApiKey, version: i16) -> RequestHeader {
        self.correlation_id += 1;
        ask::header(key, version, self.correlation_id)
    }

    /// Reads one frame, without its length.
    pub fn read_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an answer of absurd size",
            ));
        }
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    fn answer(&mut self, header: &RequestHeader) -> Result<Bytes, PlainError> {
        let frame = self.read_frame()?;
        let id = ringmill_wire::header::response_correlation_id(&frame)?;
        if id != header.correlation_id {
            let expected = header.correlation_id;
            return Err(PlainError::Unexpected(format!(
                "request {id} instead of {expected}"
            )));
        }
        Ok(frame)
    }

    /// A control request and its answer.
    pub fn call<R: Call>(&mut self, version: i16, request: &R) -> Result<R::Response, PlainError> {
        let header = self.header(R::KEY, version);
        let frame = control::encode_request(&header, request)?;
        self.stream.write_all(&frame)?;
        let frame = self.answer(&header)?;
        Ok(control::decode_response::<R>(version, &frame)?)
    }

    /// Creates a topic with one replica; returns the broker's error code.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<i16, PlainError> {
        let request = ask::create_topic(name, partitions, configs);
        ask::created(&self.call(ask::CREATE_TOPICS_VERSION, &request)?)
    }

    /// Sends records to one partition; with `acks` 0 nothing is answered.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        records: Bytes,
    ) -> Result<Option<ProducedPartition>, PlainError> {
        let header = self.header(ApiKey::Produce, ask::PRODUCE_VERSION);
        for buffer in ask::produce(&header, topic, partition, acks, records)? {
            self.stream.write_all(&buffer)?;
        }
        if acks == 0 {
            return Ok(None);
        }
        ask::produced(&self.answer(&header)?).map(Some)
    }

    /// A whole produce request, of a version that names topics, and its answer.
    pub fn send_produce(
        &mut self,
        version: i16,
        request: &ProduceRequest,
    ) -> Result<ProduceResponse, PlainError> {
        let header = self.header(ApiKey::Produce, version);
        for buffer in request.encode(&header)? {
            self.stream.write_all(&buffer)?;
        }
        Ok(ProduceResponse::decode(version, &self.answer(&header)?)?)
    }

    /// As [`PlainClient::fetch`], of committed records alone.
    pub fn fetch_committed(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
    ) -> Result<FetchedPartition<Bytes>, PlainError> {
        let header = self.header(ApiKey::Fetch, ask::FETCH_VERSION);
        let frame = ask::fetch_committed(&header, topic, partition, offset, max_bytes)?;
        self.stream.write_all(&frame)?;
        ask::fetched(&self.answer(&header)?)
    }

    /// The end of a partition for readers of committed records.
    pub fn stable_end(&mut self, topic: &str, partition: i32) -> Result<i64, PlainError> {
        let request = ask::list_offsets(topic, partition, -1).with_isolation_level(1);
        ask::listed(&self.call(ask::LIST_OFFSETS_VERSION, &request)?)
    }

    /// Fetches from one partition, waiting at most `wait_ms` for a first byte.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
        wait_ms: i32,
    ) -> Result<FetchedPartition<Bytes>, PlainError> {
        let header = self.header(ApiKey::Fetch, ask::FETCH_VERSION);
        let frame = ask::fetch(&header, topic, partition, offset, max_bytes, wait_ms)?;
        self.stream.write_all(&frame)?;
        ask::fetched(&self.answer(&header)?)
    }

    /// The offset for a timestamp: -2 the log's start, -1 its end.
    pub fn offset_for(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<i64, PlainError> {
        let request = ask::list_offsets(topic, partition, timestamp);
        ask::listed(&self.call(ask::LIST_OFFSETS_VERSION, &request)?)
    }
}
