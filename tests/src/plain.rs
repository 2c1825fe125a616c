//! A Kafka client without mercy or cleverness: blocking sockets, one request at a time, no retries,
//! every answer as it came. Tests see through it exactly what the broker said.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{self, Call, DecodeError, EncodeError};
use ringmill_wire::fetch::{
    CONSUMER_REPLICA_ID, FINAL_SESSION_EPOCH, FetchPartition, FetchRequest, FetchResponse,
    FetchTopic, FetchedPartition, IsolationLevel, NO_SESSION_ID,
};
use ringmill_wire::header::{RequestHeader, TooLarge};
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig,
};
use ringmill_wire::kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use ringmill_wire::kafka_protocol::messages::{CreateTopicsRequest, ListOffsetsRequest, TopicName};
use ringmill_wire::primitive::ReadError;
use ringmill_wire::produce::{
    ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic, ProducedPartition,
};
use ringmill_wire::topic::TopicRef;
use thiserror::Error;

/// Largest answer that is read.
const MAX_FRAME: usize = 256 << 20;
/// Versions before topic ids, so that topics go by name.
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;

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
        RequestHeader {
            key,
            version,
            correlation_id: self.correlation_id,
            client_id: Some(StrBytes::from_static_str("plain")),
        }
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
        let text = |s: &str| StrBytes::from_string(s.to_owned());
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let response = self.call(5, &request)?;
        match &response.topics[..] {
            [topic] => Ok(topic.error_code),
            other => Err(PlainError::Unexpected(format!("{} topics", other.len()))),
        }
    }

    /// Sends records to one partition; with `acks` 0 nothing is answered.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        records: Bytes,
    ) -> Result<Option<ProducedPartition>, PlainError> {
        let header = self.header(ApiKey::Produce, PRODUCE_VERSION);
        let request = ProduceRequest {
            transactional_id: None,
            acks,
            timeout_ms: 20_000,
            topics: vec![ProduceTopic {
                topic: TopicRef::Name(StrBytes::from_string(topic.to_owned())),
                partitions: vec![ProducePartition {
                    index: partition,
                    records,
                }],
            }],
        };
        for buffer in request.encode(&header)? {
            self.stream.write_all(&buffer)?;
        }
        if acks == 0 {
            return Ok(None);
        }
        let frame = self.answer(&header)?;
        let mut response = ProduceResponse::decode(PRODUCE_VERSION, &frame)?;
        let answered = response
            .topics
            .pop()
            .and_then(|mut topic| topic.partitions.pop());
        answered
            .map(Some)
            .ok_or_else(|| PlainError::Unexpected("no partition".into()))
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
        let header = self.header(ApiKey::Fetch, FETCH_VERSION);
        let request = FetchRequest {
            replica_id: CONSUMER_REPLICA_ID,
            replica_epoch: -1,
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes,
            isolation_level: IsolationLevel::ReadUncommitted,
            session_id: NO_SESSION_ID,
            session_epoch: FINAL_SESSION_EPOCH,
            topics: vec![FetchTopic {
                topic: TopicRef::Name(StrBytes::from_string(topic.to_owned())),
                partitions: vec![FetchPartition {
                    partition,
                    current_leader_epoch: -1,
                    fetch_offset: offset,
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    max_bytes,
                }],
            }],
            forgotten: Vec::new(),
            rack_id: StrBytes::default(),
        };
        let frame = request.encode(&header).map_err(PlainError::from)?;
        self.stream.write_all(&frame)?;
        let frame = self.answer(&header)?;
        let mut response = FetchResponse::<Bytes>::decode(FETCH_VERSION, &frame)?;
        if response.error_code != 0 {
            return Err(PlainError::Unexpected(format!(
                "fetch error {}",
                response.error_code
            )));
        }
        let fetched = response
            .topics
            .pop()
            .and_then(|mut topic| topic.partitions.pop());
        fetched.ok_or_else(|| PlainError::Unexpected("no partition".into()))
    }

    /// The offset for a timestamp: -2 the log's start, -1 its end.
    pub fn offset_for(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<i64, PlainError> {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        let response = self.call(5, &request)?;
        let answered = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first());
        match answered {
            Some(partition) if partition.error_code == 0 => Ok(partition.offset),
            Some(partition) => Err(PlainError::Unexpected(format!(
                "list offsets error {}",
                partition.error_code
            ))),
            None => Err(PlainError::Unexpected("no partition".into())),
        }
    }
}
