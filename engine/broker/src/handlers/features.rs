//! UpdateFeatures (KIP-584, KIP-778, KIP-1022): the cluster goes to other levels of features. Pure; the
//! rules and words are those of Kafka's `FeatureControlManager`.

use std::collections::BTreeMap;

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::features::{Levels, RINGMILL_VERSION};
use ringmill_wire::kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use ringmill_wire::kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use ringmill_wire::kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::Context;
use super::refusal::Refusal;
use crate::cluster::command::Command;
use crate::cluster::features::{Asked, RECORDED, are_recorded, set_levels, supported_by};
use crate::cluster::image::Image;

/// The first version that says how a level may go down, and not only whether.
const FIRST_TYPED: i16 = 1;
/// The last version whose answer has a row for each feature.
const LAST_WITH_ROWS: i16 = 1;
/// Kafka's message of no error.
const NO_ERROR: &str = "NONE";

/// How a level may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpgradeType {
    /// It only goes up.
    Upgrade,
    /// It only goes down, if nothing is lost by it.
    SafeDowngrade,
    /// It only goes down, whatever is lost.
    UnsafeDowngrade,
    /// It goes where it is to: as the first version allows it, which says no more.
    Either,
}

impl UpgradeType {
    fn of(update: &FeatureUpdateKey, version: i16) -> Option<Self> {
        if version < FIRST_TYPED {
            return Some(match update.allow_downgrade {
                true => Self::Either,
                false => Self::Upgrade,
            });
        }
        match update.upgrade_type {
            1 => Some(Self::Upgrade),
            2 => Some(Self::SafeDowngrade),
            3 => Some(Self::UnsafeDowngrade),
            _ => None,
        }
    }
}

/// Answers UpdateFeatures: all of the levels change, or none. `asked` is what nodes say of themselves
/// where the metadata does not.
pub fn update_features(
    image: &Image,
    ctx: Context<'_>,
    request: &UpdateFeaturesRequest,
    version: i16,
    asked: &Asked,
) -> (UpdateFeaturesResponse, Vec<Command>) {
    let mut levels = image.levels().clone();
    for update in &request.feature_updates {
        set(&mut levels, update);
    }
    // Of a feature that is named twice the last counts, as for the levels.
    let updates = request.feature_updates.iter();
    let last: BTreeMap<&str, _> = updates.map(|update| (&*update.feature, update)).collect();
    let mut checked = last.into_values().map(|update| {
        check(image, ctx, update, version, asked)?;
        recordable(image, &levels, update)
    });
    if let Some(refusal) = checked.find_map(Result::err) {
        return (refused(&refusal), Vec::new());
    }
    let commands = match request.validate_only {
        true => Vec::new(),
        false => set_levels(image, &levels, asked),
    };
    let rows = request.feature_updates.iter().map(|update| {
        UpdatableFeatureResult::default()
            .with_feature(update.feature.clone())
            .with_error_message(Some(StrBytes::from_static_str(NO_ERROR)))
    });
    let response = UpdateFeaturesResponse::default().with_error_message(None);
    let response = match version {
        ..=LAST_WITH_ROWS => response.with_results(rows.collect()),
        _ => response,
    };
    (response, commands)
}

fn set(levels: &mut Levels, update: &FeatureUpdateKey) {
    match update.max_version_level {
        0 => levels.remove(&*update.feature),
        level => levels.insert(update.feature.to_string(), level),
    };
}

fn check(
    image: &Image,
    ctx: Context<'_>,
    update: &FeatureUpdateKey,
    version: i16,
    asked: &Asked,
) -> Result<(), Refusal> {
    let (name, level) = (&*update.feature, update.max_version_level);
    let invalid = |why: &str| Err(invalid(update, why));
    let Some(upgrade) = UpgradeType::of(update, version) else {
        return invalid("The controller does not support the given upgrade type.");
    };
    if level < 0 {
        return invalid("A feature version cannot be less than 0.");
    }
    let unsupported = |who: String, range: ringmill_wire::features::LevelRange| match range.max {
        0 => format!("{who} does not support this feature."),
        _ => format!("{who} only supports versions {range}"),
    };
    let own = ctx.config.supported.get(name).copied().unwrap_or_default();
    if !own.contains(level) {
        return invalid(&unsupported(
            format!("Local controller {}", ctx.node_id()),
            own,
        ));
    }
    // Those that are away, too: they come back as they went.
    for (node, state) in image.nodes() {
        let supported = supported_by(image, *node, state, asked);
        let range = supported.get(name).copied().unwrap_or_default();
        if !range.contains(level) {
            return invalid(&unsupported(format!("Broker {node}"), range));
        }
    }
    let now = image.level(name);
    if level < now && upgrade == UpgradeType::Upgrade {
        return invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.",
        );
    }
    let goes_down = [UpgradeType::SafeDowngrade, UpgradeType::UnsafeDowngrade].contains(&upgrade);
    if level > now && goes_down {
        return invalid("Can't downgrade to a newer version.");
    }
    // As Kafka's metadata.version, whose levels say how the metadata is to be read.
    if name == RINGMILL_VERSION && level < now {
        return invalid(match upgrade {
            UpgradeType::UnsafeDowngrade => {
                "Unsafe metadata downgrade is not supported in this version."
            }
            _ => {
                "Refusing to perform the requested downgrade because it might delete metadata information."
            }
        });
    }
    Ok(())
}

/// A change has to have its place in the metadata.
fn recordable(image: &Image, levels: &Levels, update: &FeatureUpdateKey) -> Result<(), Refusal> {
    let changes = image.level(&update.feature) != update.max_version_level;
    if !changes || are_recorded(levels) {
        return Ok(());
    }
    let why = format!(
        "The metadata has no levels yet: raise {RINGMILL_VERSION} to {RECORDED} before, or with it."
    );
    Err(invalid(update, &why))
}

fn invalid(update: &FeatureUpdateKey, why: &str) -> Refusal {
    let (name, level) = (&*update.feature, update.max_version_level);
    let message = format!("Invalid update version {level} for feature {name}. {why}");
    Refusal::new(ErrorCode::InvalidUpdateVersion, message)
}

/// As Kafka since version 4: the whole request fails, in all versions of it.
fn refused(refusal: &Refusal) -> UpdateFeaturesResponse {
    let message = refusal.message().unwrap_or_default();
    let message = format!(
        "The update failed for all features since the following feature had an error: {message}"
    );
    UpdateFeaturesResponse::default()
        .with_error_code(refusal.code.code())
        .with_error_message(Some(StrBytes::from_string(message)))
}

/// An answer to UpdateFeatures of which nothing counts.
pub fn update_features_failed(code: ErrorCode) -> UpdateFeaturesResponse {
    UpdateFeaturesResponse::default()
        .with_error_code(code.code())
        .with_error_message(None)
}

#[cfg(test)]
#[path = "features_test.rs"]
mod tests;
