//! Client quotas: how much users and clients may produce, fetch and ask for (KIP-546).

use std::collections::BTreeMap;

use ringmill_wire::kafka_protocol::messages::alter_client_quotas_request::{
    EntityData as NewEntity, EntryData as NewEntry, OpData,
};
use ringmill_wire::kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use ringmill_wire::kafka_protocol::messages::{
    AlterClientQuotasRequest, DescribeClientQuotasRequest,
};

use super::{Admin, AdminError, check, text, unanswered};

/// How a component of a filter is matched, on the wire.
const EXACTLY: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

/// Whom a quota is for: a user, a client id, or both, each by name or as the default of all who have
/// no quota of their own.
///
/// # Examples
/// ```
/// use ringmill_client::QuotaEntity;
///
/// let reports = QuotaEntity::user("alice").and_client("reports");
/// assert_eq!(reports.to_string(), "user alice, client-id reports");
/// assert_eq!(QuotaEntity::default_client().to_string(), "client-id <default>");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct QuotaEntity {
    /// By kind (`user`, `client-id`, `ip`); none for the default.
    pub parts: BTreeMap<String, Option<String>>,
}

impl QuotaEntity {
    fn of(kind: &str, name: Option<&str>) -> Self {
        Self::default().and(kind, name)
    }

    fn and(mut self, kind: &str, name: Option<&str>) -> Self {
        self.parts.insert(kind.to_owned(), name.map(str::to_owned));
        self
    }

    /// One user.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::QuotaEntity;
    /// assert_eq!(QuotaEntity::user("alice").to_string(), "user alice");
    /// ```
    pub fn user(name: &str) -> Self {
        Self::of("user", Some(name))
    }

    /// All users without a quota of their own.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::QuotaEntity;
    /// assert_eq!(QuotaEntity::default_user().to_string(), "user <default>");
    /// ```
    pub fn default_user() -> Self {
        Self::of("user", None)
    }

    /// All clients of one `client.id`.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::QuotaEntity;
    /// assert_eq!(QuotaEntity::client("reports").to_string(), "client-id reports");
    /// ```
    pub fn client(id: &str) -> Self {
        Self::of("client-id", Some(id))
    }

    /// All clients without a quota of their own.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::QuotaEntity;
    /// assert_eq!(QuotaEntity::default_client().to_string(), "client-id <default>");
    /// ```
    pub fn default_client() -> Self {
        Self::of("client-id", None)
    }

    /// The same user, with one `client.id` alone.
    ///
    /// # Examples
    /// ```
    /// # use ringmill_client::QuotaEntity;
    /// let entity = QuotaEntity::default_user().and_client("reports");
    /// assert_eq!(entity.parts["client-id"].as_deref(), Some("reports"));
    /// ```
    pub fn and_client(self, id: &str) -> Self {
        self.and("client-id", Some(id))
    }
}

impl std::fmt::Display for QuotaEntity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the user first, as Kafka's tools say it
        for (place, (kind, name)) in self.parts.iter().rev().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let name = name.as_deref().unwrap_or("<default>");
            write!(f, "{comma}{kind} {name}")?;
        }
        Ok(())
    }
}

/// Which entities' quotas to describe.
///
/// # Examples
/// ```
/// use ringmill_client::{QuotaEntity, QuotaFilter};
///
/// let all = QuotaFilter::default();
/// let every_user = QuotaFilter::any("user");
/// let only_alice = QuotaFilter::exactly(&QuotaEntity::user("alice"));
/// # let _ = (all, every_user, only_alice);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuotaFilter {
    /// By kind of entity what its name must be; all, without any.
    pub components: BTreeMap<String, QuotaMatch>,
    /// Entities with further components are left out.
    pub strict: bool,
}

/// What a component of an entity must be.
///
/// # Examples
/// ```
/// use ringmill_client::{QuotaFilter, QuotaMatch};
///
/// // clients of any id, of users without a quota of their own
/// let filter = QuotaFilter {
///     components: [
///         ("user".into(), QuotaMatch::Default),
///         ("client-id".into(), QuotaMatch::Any),
///     ]
///     .into(),
///     strict: true,
/// };
/// # let _ = filter;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaMatch {
    /// Of this name.
    Named(String),
    /// The default.
    Default,
    /// Either.
    Any,
}

impl QuotaFilter {
    /// One entity.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{QuotaEntity, QuotaFilter};
    ///
    /// assert!(QuotaFilter::exactly(&QuotaEntity::user("alice")).strict);
    /// ```
    pub fn exactly(entity: &QuotaEntity) -> Self {
        let components = entity.parts.iter().map(|(kind, name)| {
            let named = name.clone().map_or(QuotaMatch::Default, QuotaMatch::Named);
            (kind.clone(), named)
        });
        Self {
            components: components.collect(),
            strict: true,
        }
    }

    /// All entities with such a component: `user`, `client-id` or `ip`.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::QuotaFilter;
    ///
    /// assert!(QuotaFilter::any("user").components.contains_key("user"));
    /// ```
    pub fn any(kind: &str) -> Self {
        Self {
            components: [(kind.to_owned(), QuotaMatch::Any)].into(),
            strict: false,
        }
    }
}

/// A change of one quota of an entity.
///
/// # Examples
/// ```
/// use ringmill_client::QuotaChange;
///
/// let slower = QuotaChange::Set("producer_byte_rate".into(), 1_000_000.0);
/// let unbounded = QuotaChange::Remove("consumer_byte_rate".into());
/// # let _ = (slower, unbounded);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum QuotaChange {
    /// To a value: `producer_byte_rate` and `consumer_byte_rate` in bytes per second,
    /// `request_percentage` of a thread's time.
    Set(String, f64),
    /// No such quota any more.
    Remove(String),
}

/// Quotas by entity, then by name.
pub type Quotas = BTreeMap<QuotaEntity, BTreeMap<String, f64>>;

impl Admin {
    /// The quotas of the entities that a filter lets pass.
    pub async fn quotas(&self, filter: &QuotaFilter) -> Result<Quotas, AdminError> {
        let components = filter.components.iter().map(|(kind, wanted)| {
            let (how, name) = match wanted {
                QuotaMatch::Named(name) => (EXACTLY, Some(text(name))),
                QuotaMatch::Default => (DEFAULT, None),
                QuotaMatch::Any => (ANY, None),
            };
            ComponentData::default()
                .with_entity_type(text(kind))
                .with_match_type(how)
                .with_match(name)
        });
        let request = DescribeClientQuotasRequest::default()
            .with_components(components.collect())
            .with_strict(filter.strict);
        self.0
            .retried(async || {
                let connection = self.0.any().await?;
                let response = connection.call(&request, self.limit()).await?;
                check("quotas", response.error_code, response.error_message)?;
                let entries = response.entries.unwrap_or_default().into_iter();
                let quotas = entries.map(|entry| {
                    let parts = entry.entity.into_iter();
                    let parts = parts.map(|part| {
                        let name = part.entity_name.map(|name| name.to_string());
                        (part.entity_type.to_string(), name)
                    });
                    let values = entry.values.into_iter();
                    let values = values.map(|value| (value.key.to_string(), value.value));
                    let parts = parts.collect();
                    (QuotaEntity { parts }, values.collect())
                });
                Ok(quotas.collect())
            })
            .await
    }

    /// Changes quotas of an entity; the others stay as they are.
    pub async fn alter_quotas(
        &self,
        entity: &QuotaEntity,
        changes: &[QuotaChange],
    ) -> Result<(), AdminError> {
        let parts = entity.parts.iter().map(|(kind, name)| {
            NewEntity::default()
                .with_entity_type(text(kind))
                .with_entity_name(name.as_deref().map(text))
        });
        let changes = changes.iter().map(|change| match change {
            QuotaChange::Set(name, value) => {
                OpData::default().with_key(text(name)).with_value(*value)
            }
            QuotaChange::Remove(name) => OpData::default().with_key(text(name)).with_remove(true),
        });
        let entry = NewEntry::default()
            .with_entity(parts.collect())
            .with_ops(changes.collect());
        let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
        let what = format!("quotas of {entity}");
        self.0
            .retried(async || {
                let connection = self.0.controller().await?;
                let mut response = connection.call(&request, self.limit()).await?;
                let answer = response.entries.pop().ok_or_else(|| unanswered(&what))?;
                check(&what, answer.error_code, answer.error_message)
            })
            .await
    }
}
