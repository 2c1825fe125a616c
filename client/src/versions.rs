//! Which version of each API a client and a broker speak with each other.
//!
//! Pure: the highest that both know, from the broker's ApiVersions answer and this side's table.

use std::collections::BTreeMap;

use ringmill_wire::api::ApiKey;
use ringmill_wire::kafka_protocol::messages::ApiVersionsResponse;
use thiserror::Error;

/// The broker and this client share no version of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VersionError {
    /// The broker does not serve the API at all.
    #[error("the broker does not serve {0}")]
    Unserved(&'static str),
    /// It serves other versions only.
    #[error("the broker serves {api} in versions {min} to {max}, none of which this client speaks")]
    Disjoint {
        /// The API's name.
        api: &'static str,
        /// The broker's lowest.
        min: i16,
        /// The broker's highest.
        max: i16,
    },
}

/// What one broker serves, by API number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Versions {
    ranges: BTreeMap<i16, (i16, i16)>,
    /// Levels of the features that the cluster has settled on (KIP-584).
    features: BTreeMap<String, i16>,
}

impl Versions {
    pub(crate) fn of(response: &ApiVersionsResponse) -> Self {
        let rows = response.api_keys.iter();
        let features = response.finalized_features.iter();
        Self {
            ranges: rows
                .map(|row| (row.api_key, (row.min_version, row.max_version)))
                .collect(),
            features: features
                .map(|feature| (feature.name.to_string(), feature.max_version_level))
                .collect(),
        }
    }

    /// The level of a feature; 0 if the cluster does not have it.
    pub(crate) fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// The highest version of `key` that both sides know, at most `cap`.
    pub(crate) fn pick(&self, key: ApiKey, cap: i16) -> Result<i16, VersionError> {
        let api = key.api();
        let Some(&(min, max)) = self.ranges.get(&key.code()) else {
            return Err(VersionError::Unserved(api.name));
        };
        let version = max.min(api.max).min(cap);
        if version < min || version < api.min {
            return Err(VersionError::Disjoint {
                api: api.name,
                min,
                max,
            });
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use ringmill_wire::kafka_protocol::messages::api_versions_response::ApiVersion;

    use super::*;

    fn broker(key: ApiKey, min: i16, max: i16) -> Versions {
        let row = ApiVersion::default()
            .with_api_key(key.code())
            .with_min_version(min)
            .with_max_version(max);
        Versions::of(&ApiVersionsResponse::default().with_api_keys(vec![row]))
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        let ours = ApiKey::Metadata.api();
        let pick = |min, max, cap| broker(ApiKey::Metadata, min, max).pick(ApiKey::Metadata, cap);
        assert_eq!(pick(0, 99, i16::MAX), Ok(ours.max));
        assert_eq!(pick(0, 5, i16::MAX), Ok(5));
        assert_eq!(pick(0, 99, 7), Ok(7));
    }

    #[test]
    fn nothing_in_common_is_an_error_that_says_so() {
        let too_new = broker(ApiKey::Metadata, 90, 99).pick(ApiKey::Metadata, i16::MAX);
        assert_eq!(
            too_new.unwrap_err().to_string(),
            "the broker serves Metadata in versions 90 to 99, none of which this client speaks"
        );
        let too_old = broker(ApiKey::Produce, 0, 2).pick(ApiKey::Produce, i16::MAX);
        assert!(matches!(too_old, Err(VersionError::Disjoint { .. })));
        let capped = broker(ApiKey::Metadata, 8, 9).pick(ApiKey::Metadata, 7);
        assert!(matches!(capped, Err(VersionError::Disjoint { .. })));
        let absent = Versions::default().pick(ApiKey::Metadata, i16::MAX);
        assert_eq!(absent, Err(VersionError::Unserved("Metadata")));
    }
}
