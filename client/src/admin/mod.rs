//! Administration: topics, their settings and records, groups, the cluster itself.
//!
//! A shell alone: each operation is a request or two, sent to the broker that it concerns and
//! repeated while its failure may pass (`default.api.timeout.ms`).

mod configs;
mod features;
mod groups;
mod inspect;
mod nodes;
mod quotas;
mod replicas;
mod topics;
mod transactions;

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::DescribeClusterRequest;
use thiserror::Error;

use crate::cluster::{Client, LookupError, Retriable};
use crate::connection::CallError;
use crate::metadata::{Broker, error_code};
use crate::offsets::OffsetError;

pub use configs::{ConfigChange, ConfigEntry, ConfigKind, ConfigResource, ConfigSource};
pub use features::{ClusterFeatures, Feature, FeatureUpdate};
pub use groups::{GroupDescription, GroupFilter, GroupKind, GroupListing, GroupMember};
pub use inspect::{LogDir, PartitionReplicas, ProducerState};
pub use nodes::{ClusterNode, QuorumDescription, QuorumMember};
pub use quotas::{QuotaChange, QuotaEntity, QuotaFilter, QuotaMatch, Quotas};
pub use replicas::Reassignment;
pub use topics::NewTopic;
pub use transactions::{TransactionDescription, TransactionFilter, TransactionListing};

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdminError {
    /// The broker refuses.
    #[error("{what}: {}", said(*.code, .message.as_deref()))]
    Refused {
        /// What it concerns, as in `topic "x"`.
        what: String,
        /// The broker's code.
        code: ErrorCode,
        /// The broker's words.
        message: Option<String>,
    },
    /// An offset is not known.
    #[error(transparent)]
    Offset(#[from] OffsetError),
    /// A topic or coordinator is not known.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The broker did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// A code with the broker's own words in place of ours, if it has any.
pub(crate) fn said(code: ErrorCode, message: Option<&str>) -> String {
    match message {
        Some(message) if !message.is_empty() => format!("{} ({})", message, code.name()),
        _ => code.to_string(),
    }
}

impl Retriable for AdminError {
    fn may_pass(&self) -> bool {
        match self {
            // a topic that is not there will not come by waiting, whatever the code's class
            Self::Refused {
                code: ErrorCode::UnknownTopicOrPartition,
                ..
            } => false,
            Self::Refused { code, .. } => code.is_retriable(),
            Self::Offset(error) => error.is_retriable(),
            Self::Lookup(error) => error.is_retriable(),
            Self::Call(error) => error.is_retriable(),
            Self::Closed => false,
        }
    }
}

/// Fails unless the code says that all is well.
fn check(what: &str, code: i16, message: Option<StrBytes>) -> Result<(), AdminError> {
    match error_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(AdminError::Refused {
            what: what.to_owned(),
            code,
            message: message.map(|message| message.to_string()),
        }),
    }
}

/// The answer lacks what was asked for.
fn unanswered(what: &str) -> AdminError {
    AdminError::Refused {
        what: what.to_owned(),
        code: ErrorCode::UnknownServerError,
        message: Some("the broker's answer does not mention it".to_owned()),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A cluster as one of its brokers sees it.
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = admin.cluster().await?;
/// println!("{} has {} brokers", cluster.cluster_id, cluster.brokers.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's name for itself.
    pub cluster_id: String,
    /// The broker that takes administrative requests.
    pub controller: Option<i32>,
    /// By id.
    pub brokers: Vec<Broker>,
}

/// See the module.
#[derive(Clone)]
pub struct Admin(Client);

impl Admin {
    /// For the client's cluster.
    pub fn new(client: &Client) -> Self {
        Self(client.clone())
    }

    /// The cluster's name, controller and brokers.
    pub async fn cluster(&self) -> Result<ClusterDescription, AdminError> {
        self.0
            .retried(async || {
                let connection = self.0.any().await?;
                let request = DescribeClusterRequest::default();
                let response = connection.call(&request, self.limit()).await?;
                check("cluster", response.error_code, response.error_message)?;
                let brokers = response.brokers.into_iter().map(|broker| Broker {
                    id: broker.broker_id.0,
                    host: broker.host.to_string(),
                    port: broker.port,
                    rack: broker.rack.map(|rack| rack.to_string()),
                });
                Ok(ClusterDescription {
                    cluster_id: response.cluster_id.to_string(),
                    controller: Some(response.controller_id.0).filter(|id| *id >= 0),
                    brokers: brokers.collect(),
                })
            })
            .await
    }

    fn limit(&self) -> std::time::Duration {
        self.0.config().request_timeout
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.limit().as_millis()).unwrap_or(i32::MAX)
    }
}
