//! Offsets by their meaning: the ends of a partition, and where a time begins (ListOffsets).

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmill_wire::StrBytes;
use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::IsolationLevel;
use ringmill_wire::kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use ringmill_wire::kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use thiserror::Error;

use crate::assignor::TopicPartition;
use crate::backoff::Backoff;
use crate::cluster::Client;
use crate::connection::CallError;
use crate::metadata::error_code;
use crate::transport::{now, random_u64, sleep};

/// The first version with [`OffsetSpec::MaxTimestamp`] (KIP-734).
const FIRST_WITH_MAX_TIMESTAMP: i16 = 7;
/// Ordinary consumers' replica id.
const CONSUMER: i32 = -1;

/// What to look for in a partition.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::{OffsetSpec, TopicPartition};
///
/// let partition = TopicPartition::new("flights", 0);
/// let midnight = OffsetSpec::Time(1_767_225_600_000);
/// let found = admin.offsets([(partition.clone(), midnight)]).await?;
/// println!("{:?}", found[&partition]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OffsetSpec {
    /// The first record there is.
    Earliest,
    /// What comes after the last record there is.
    Latest,
    /// The record with the latest timestamp.
    MaxTimestamp,
    /// The first record of this time or later, in milliseconds since the Unix epoch.
    Time(i64),
}

impl OffsetSpec {
    const fn code(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::Time(ms) => ms,
        }
    }
}

/// A place that was found.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::{OffsetSpec, TopicPartition};
///
/// let partition = TopicPartition::new("flights", 0);
/// let found = admin.offsets([(partition.clone(), OffsetSpec::MaxTimestamp)]).await?;
/// match found[&partition] {
///     Some(latest) => println!("{} is of {:?}", latest.offset, latest.timestamp),
///     None => println!("it is empty"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The record's offset.
    pub offset: i64,
    /// Its timestamp, where a record was looked for.
    pub timestamp: Option<i64>,
}

/// Why a partition's offset is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OffsetError {
    /// There is no such topic or partition, or nobody leads it.
    #[error("{partition}: {code}")]
    Refused {
        /// The partition.
        partition: TopicPartition,
        /// The broker's code, or what this client's metadata says.
        code: ErrorCode,
    },
    /// The broker did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl OffsetError {
    /// Whether the same may be known a moment later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.is_retriable(),
            Self::Call(error) => error.is_retriable(),
            Self::Closed => false,
        }
    }
}

/// What was found, by partition; `None` where no record is that late.
pub type FoundOffsets = BTreeMap<TopicPartition, Option<FoundOffset>>;

impl Client {
    /// Looks places up at the partitions' leaders, repeatedly until all are known or the client's
    /// time-out is over (`default.api.timeout.ms`).
    ///
    /// # Errors
    /// The first partition's failure that remained.
    pub async fn offsets(
        &self,
        wanted: impl IntoIterator<Item = (TopicPartition, OffsetSpec)>,
    ) -> Result<FoundOffsets, OffsetError> {
        self.offsets_as(IsolationLevel::ReadUncommitted, wanted)
            .await
    }

    /// The same as a consumer of this isolation sees it: to one that reads committed records, the
    /// latest is the last stable offset.
    pub async fn offsets_as(
        &self,
        isolation: IsolationLevel,
        wanted: impl IntoIterator<Item = (TopicPartition, OffsetSpec)>,
    ) -> Result<FoundOffsets, OffsetError> {
        let mut wanted: BTreeMap<_, _> = wanted.into_iter().collect();
        let mut found = FoundOffsets::new();
        let config = self.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        let deadline = now() + config.api_timeout;
        loop {
            let failure = self.offsets_once(isolation, &mut wanted, &mut found).await;
            let Some(error) = failure else {
                return Ok(found);
            };
            let wait = backoff.on_failure(random_u64());
            if !error.is_retriable() || now() + wait >= deadline {
                return Err(error);
            }
            self.request_refresh();
            sleep(wait).await;
        }
    }

    /// One round: what is found moves from `wanted` to `found`. Returns a failure, if any: one that
    /// is final rather than one that may pass.
    pub(crate) async fn offsets_once(
        &self,
        isolation: IsolationLevel,
        wanted: &mut BTreeMap<TopicPartition, OffsetSpec>,
        found: &mut FoundOffsets,
    ) -> Option<OffsetError> {
        let mut failures = Vec::new();
        let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, OffsetSpec)>> = BTreeMap::new();
        for (partition, spec) in &*wanted {
            match self.leader(partition).await {
                Ok(leader) => {
                    let of_leader = by_leader.entry(leader).or_default();
                    of_leader.push((partition.clone(), *spec));
                }
                Err(error) => failures.push(error),
            }
        }
        for (leader, of_leader) in by_leader {
            match self.ask_leader(leader, isolation, &of_leader).await {
                Ok(answers) => {
                    for (partition, answer) in answers {
                        match answer {
                            Ok(place) => {
                                wanted.remove(&partition);
                                found.insert(partition, place);
                            }
                            Err(error) => failures.push(error),
                        }
                    }
                }
                Err(error) => failures.push(error.into()),
            }
        }
        failures.sort_by_key(OffsetError::is_retriable);
        failures.into_iter().next()
    }

    /// A partition's leader; looks the topic up if it is not known.
    pub(crate) async fn leader(&self, partition: &TopicPartition) -> Result<i32, OffsetError> {
        let refused = |code| OffsetError::Refused {
            partition: partition.clone(),
            code,
        };
        let known = |client: &Self| client.image().leader(&partition.topic, partition.partition);
        if let Some(leader) = known(self) {
            return Ok(leader);
        }
        let topic = self.topic(&partition.topic, false).await;
        let topic = topic.map_err(|error| match error {
            crate::cluster::LookupError::Call(error) => error.into(),
            crate::cluster::LookupError::NoTopic(_) => refused(ErrorCode::UnknownTopicOrPartition),
            crate::cluster::LookupError::Refused { code, .. } => refused(code),
            crate::cluster::LookupError::Closed => OffsetError::Closed,
        })?;
        match topic.partition(partition.partition) {
            Some(partition) => partition
                .leader
                .ok_or(refused(ErrorCode::LeaderNotAvailable)),
            // final: the topic was looked up just now
            None => Err(refused(ErrorCode::InvalidPartitions)),
        }
    }

    async fn ask_leader(
        &self,
        leader: i32,
        isolation: IsolationLevel,
        wanted: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<(TopicPartition, Result<Option<FoundOffset>, OffsetError>)>, CallError> {
        let connection = self.node(leader).await?;
        let version = connection.version(<ListOffsetsRequest as Call>::KEY, i16::MAX)?;
        let by_max = wanted
            .iter()
            .any(|(_, spec)| *spec == OffsetSpec::MaxTimestamp);
        if by_max && version < FIRST_WITH_MAX_TIMESTAMP {
            return Err(CallError::Malformed {
                api: "ListOffsets",
                cause: "the broker is too old to look for the latest timestamp".to_owned(),
            });
        }
        let config = self.config();
        let timeout = i32::try_from(config.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let request = match version {
            10.. => request(wanted).with_timeout_ms(timeout),
            _ => request(wanted),
        };
        let request = match version {
            2.. => request.with_isolation_level(isolation as i8),
            _ => request,
        };
        let limit = config.request_timeout;
        let response = connection.call_at(version, &request, limit).await?;
        Ok(answers(response))
    }
}

fn request(wanted: &[(TopicPartition, OffsetSpec)]) -> ListOffsetsRequest {
    let mut by_topic: BTreeMap<&Arc<str>, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (partition, spec) in wanted {
        let of_topic = by_topic.entry(&partition.topic).or_default();
        of_topic.push(
            ListOffsetsPartition::default()
                .with_partition_index(partition.partition)
                .with_timestamp(spec.code()),
        );
    }
    let topics = by_topic.into_iter().map(|(topic, partitions)| {
        ListOffsetsTopic::default()
            .with_name(StrBytes::from_string(topic.to_string()).into())
            .with_partitions(partitions)
    });
    ListOffsetsRequest::default()
        .with_replica_id(CONSUMER.into())
        .with_topics(topics.collect())
}

fn answers(
    response: ListOffsetsResponse,
) -> Vec<(TopicPartition, Result<Option<FoundOffset>, OffsetError>)> {
    let mut answers = Vec::new();
    for topic in response.topics {
        let name: Arc<str> = (&*topic.name.0).into();
        for answer in topic.partitions {
            let partition = TopicPartition::new(name.clone(), answer.partition_index);
            let found = match error_code(answer.error_code) {
                ErrorCode::None => Ok((answer.offset >= 0).then_some(FoundOffset {
                    offset: answer.offset,
                    timestamp: (answer.timestamp >= 0).then_some(answer.timestamp),
                })),
                code => Err(OffsetError::Refused {
                    partition: partition.clone(),
                    code,
                }),
            };
            answers.push((partition, found));
        }
    }
    answers
}
