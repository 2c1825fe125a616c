//! Client telemetry (KIP-714): clients ask which of their own metrics somebody subscribes to, and
//! push them at an interval. What was pushed is decoded and kept as the latest value of each metric,
//! and logged for whoever wants to see it (target `client_metrics`, level `debug`).
//!
//! A client instance belongs to the core that its id names, so that its connections meet wherever
//! they are. Pure, but for `service`.

pub mod instances;
pub mod otlp;
pub(crate) mod service;
pub mod subscriptions;

use ringmill_wire::Uuid;

use crate::cluster::identity::id_text;

/// What software a client is until it says so (Kafka's `ClientInformation`).
const UNKNOWN_SOFTWARE: &str = "unknown";

/// The longest client id that patterns are run over, in bytes.
pub const MATCHED_BYTES_MAX: usize = 1024;

/// A client as subscriptions see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// What it calls itself in its requests; none either if that is longer than
    /// [`MATCHED_BYTES_MAX`].
    pub client_id: Option<String>,
    /// What its ApiVersions request said.
    pub software: Option<Software>,
    /// Its address, without a port.
    pub address: String,
    /// Its port.
    pub port: u16,
}

/// What a client is, as its ApiVersions request said (KIP-511).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Software {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What of a client a subscription may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// The id of the instance, as Kafka writes ids.
    InstanceId,
    /// What it calls itself.
    ClientId,
    /// The name of its software.
    SoftwareName,
    /// The version of its software.
    SoftwareVersion,
    /// Its address.
    SourceAddress,
    /// Its port.
    SourcePort,
}

impl Attribute {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::InstanceId,
        Self::ClientId,
        Self::SoftwareName,
        Self::SoftwareVersion,
        Self::SourceAddress,
        Self::SourcePort,
    ];

    /// Kafka's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InstanceId => "client_instance_id",
            Self::ClientId => "client_id",
            Self::SoftwareName => "client_software_name",
            Self::SoftwareVersion => "client_software_version",
            Self::SourceAddress => "client_source_address",
            Self::SourcePort => "client_source_port",
        }
    }

    /// By Kafka's name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Its value; none if the client has none.
    fn of(self, instance: Uuid, client: &Client) -> Option<String> {
        let software = |part: fn(&Software) -> &String| {
            let told = client.software.as_ref().map(|told| part(told).clone());
            Some(told.unwrap_or_else(|| UNKNOWN_SOFTWARE.to_owned()))
        };
        match self {
            Self::InstanceId => Some(id_text(instance)),
            Self::ClientId => client.client_id.clone(),
            Self::SoftwareName => software(|told| &told.name),
            Self::SoftwareVersion => software(|told| &told.version),
            Self::SourceAddress => Some(client.address.clone()),
            Self::SourcePort => Some(client.port.to_string()),
        }
    }
}

#[cfg(test)]
pub(crate) fn client_of_tests() -> Client {
    Client {
        client_id: Some("app-1".to_owned()),
        software: Some(Software {
            name: "apache-kafka-java".to_owned(),
            version: "4.3.1".to_owned(),
        }),
        address: "10.0.0.2".to_owned(),
        port: 40_000,
    }
}
