//! Topics and their records.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ringmill_wire::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig,
};
use ringmill_wire::kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use ringmill_wire::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use ringmill_wire::kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
};

use super::{Admin, AdminError, check, text, unanswered};
use crate::assignor::TopicPartition;
use crate::cluster::Ask;
use crate::metadata::{Image, Topic, error_code};

/// The first version in which topics are deleted by name or id.
const FIRST_DELETE_BY_STATE: i16 = 6;
/// What asks the broker for its own default.
const BROKERS_DEFAULT: i32 = -1;

/// A topic to be created.
///
/// # Examples
/// ```
/// use ringmill_client::NewTopic;
///
/// // three copies of everything, whatever the brokers' default
/// let flights = NewTopic { replication: Some(3), ..NewTopic::of("flights", 12) };
/// # let _ = flights;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; the broker's default if not given.
    pub partitions: Option<i32>,
    /// How many replicas of each; the broker's default if not given.
    pub replication: Option<i16>,
    /// Settings by Kafka's names.
    pub configs: Vec<(String, String)>,
}

impl NewTopic {
    /// A topic with that many partitions, replicated as the brokers' default says.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::NewTopic;
    ///
    /// assert_eq!(NewTopic::of("flights", 12).partitions, Some(12));
    /// ```
    pub fn of(name: impl Into<String>, partitions: i32) -> Self {
        Self {
            name: name.into(),
            partitions: Some(partitions),
            ..Self::default()
        }
    }

    /// The same with a setting by Kafka's name, such as `retention.ms`.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::NewTopic;
    ///
    /// let latest = NewTopic::of("latest", 12)
    ///     .config("cleanup.policy", "compact")
    ///     .config("min.cleanable.dirty.ratio", 0.1);
    /// assert_eq!(latest.configs.len(), 2);
    /// ```
    pub fn config(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.configs.push((name.into(), value.to_string()));
        self
    }
}

impl Admin {
    /// Whether such a topic would be created; none is.
    pub async fn validate_topic(&self, topic: &NewTopic) -> Result<(), AdminError> {
        self.ask_for_topic(topic, true).await
    }

    async fn ask_for_topic(&self, topic: &NewTopic, only_check: bool) -> Result<(), AdminError> {
        let what = format!("topic {:?}", topic.name);
        let configs = topic.configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
        });
        let new = CreatableTopic::default()
            .with_name(text(&topic.name).into())
            .with_num_partitions(topic.partitions.unwrap_or(BROKERS_DEFAULT))
            .with_replication_factor(topic.replication.unwrap_or(BROKERS_DEFAULT as i16))
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_validate_only(only_check)
            .with_timeout_ms(self.timeout_ms());
        self.0
            .retried(async || {
                let connection = self.0.controller().await?;
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.topics.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message)
            })
            .await
    }

    /// Creates a topic; returns once its partitions have leaders.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<Topic, AdminError> {
        let what = format!("topic {:?}", topic.name);
        self.ask_for_topic(topic, false).await?;
        // the broker that is asked may hear of it a moment later
        self.0
            .retried(async || match self.0.topic(&topic.name, false).await {
                Err(crate::cluster::LookupError::NoTopic(_)) => Err(AdminError::Refused {
                    what: what.clone(),
                    code: ErrorCode::LeaderNotAvailable,
                    message: None,
                }),
                looked_up => Ok(looked_up?),
            })
            .await
    }

    /// Deletes a topic with all its records.
    pub async fn delete_topic(&self, name: &str) -> Result<(), AdminError> {
        let what = format!("topic {name:?}");
        self.0
            .retried(async || {
                let connection = self.0.controller().await?;
                let version = connection
                    .version(<DeleteTopicsRequest as Call>::KEY, i16::MAX)
                    .map_err(crate::connection::CallError::from)?;
                let request = DeleteTopicsRequest::default().with_timeout_ms(self.timeout_ms());
                let topic = Some(text(name).into());
                let request = match version {
                    FIRST_DELETE_BY_STATE.. => {
                        request.with_topics(vec![DeleteTopicState::default().with_name(topic)])
                    }
                    _ => request.with_topic_names(topic.into_iter().collect()),
                };
                let mut response = connection.call_at(version, &request, self.limit()).await?;
                let answer = response.responses.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message)
            })
            .await
    }

    /// All topics, the broker's internal ones among them, by name.
    pub async fn topics(&self) -> Result<Vec<Topic>, AdminError> {
        self.0.retried(async || self.ask(&Ask::all()).await).await
    }

    /// A topic as the cluster has it now.
    pub async fn describe_topic(&self, name: &str) -> Result<Topic, AdminError> {
        self.0
            .retried(async || {
                let topics = self.ask(&Ask::topics([name], false)).await?;
                let topic = topics.into_iter().next();
                topic.ok_or_else(|| crate::cluster::LookupError::NoTopic(name.to_owned()).into())
            })
            .await
    }

    async fn ask(&self, ask: &Ask) -> Result<Vec<Topic>, AdminError> {
        let response = self.0.metadata(ask).await?;
        for topic in &response.topics {
            let code = error_code(topic.error_code);
            // some partitions may be without a leader: that is what there is to see
            let seen = matches!(code, ErrorCode::None | ErrorCode::LeaderNotAvailable);
            if !seen && code != ErrorCode::UnknownTopicOrPartition {
                let name = topic.name.as_ref().map(|name| name.to_string());
                let what = format!("topic {:?}", name.unwrap_or_default());
                check(&what, topic.error_code, None)?;
            }
        }
        let mut image = Image::default();
        image.on_response(response);
        Ok(image.topics().cloned().collect())
    }

    /// Gives a topic more partitions: `count` in all.
    pub async fn create_partitions(&self, name: &str, count: i32) -> Result<(), AdminError> {
        let what = format!("topic {name:?}");
        let topic = CreatePartitionsTopic::default()
            .with_name(text(name).into())
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.timeout_ms());
        self.0
            .retried(async || {
                let connection = self.0.controller().await?;
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.results.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message)
            })
            .await
    }

    /// Deletes the records below an offset of each partition, −1 for all; returns the first offset
    /// that each has then.
    pub async fn delete_records(
        &self,
        below: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, i64>, AdminError> {
        let mut first = BTreeMap::new();
        for (partition, offset) in below {
            let low = self
                .0
                .retried(async || self.delete_records_of(partition, *offset).await)
                .await?;
            first.insert(partition.clone(), low);
        }
        Ok(first)
    }

    async fn delete_records_of(
        &self,
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<i64, AdminError> {
        let leader = self.0.leader(partition).await?;
        let connection = self.0.node(leader).await?;
        let wanted = DeleteRecordsPartition::default()
            .with_partition_index(partition.partition)
            .with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(text(&partition.topic).into())
            .with_partitions(vec![wanted]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.timeout_ms());
        let response = connection.call(&request, self.limit()).await?;
        let what = partition.to_string();
        let answer = response
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let answer = answer.ok_or_else(|| unanswered(&what))?;
        if error_code(answer.error_code).is_retriable() {
            self.0.request_refresh();
        }
        check(&what, answer.error_code, None)?;
        Ok(answer.low_watermark)
    }

    /// All partitions of a topic.
    pub async fn partitions(&self, name: &str) -> Result<Vec<TopicPartition>, AdminError> {
        let topic = self.describe_topic(name).await?;
        let name: Arc<str> = name.into();
        let partitions = topic.partitions.iter();
        Ok(partitions
            .map(|partition| TopicPartition::new(name.clone(), partition.index))
            .collect())
    }
}
