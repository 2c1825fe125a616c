//! DescribeClientQuotas and AlterClientQuotas (KIP-546). Quotas of addresses (`ip`), which limit
//! new connections, are not offered.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::alter_client_quotas_request::{
    EntityData, EntryData, OpData,
};
use ringmill_wire::kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use ringmill_wire::kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse, alter_client_quotas_response, describe_client_quotas_response,
};

use super::refusal::Refusal;
use crate::cluster::command::Command;
use crate::cluster::image::Image;
use crate::config::Overrides;
use crate::quotas::{ENTITIES_MAX, Entity, Limit, NAME_BYTES_MAX, Part, is_quota};

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";

/// How a component matches an entity's part.
enum Match {
    Is(Part),
    Any,
}

/// What is asked for of one kind of part; nothing if that kind is not mentioned.
type Wanted = BTreeMap<&'static str, Match>;

fn kind_of(name: &str) -> Option<&'static str> {
    [USER, CLIENT_ID].into_iter().find(|kind| *kind == name)
}

// ---- DescribeClientQuotas ----

/// Answers DescribeClientQuotas.
pub fn describe_client_quotas(
    image: &Image,
    request: &DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let answer = DescribeClientQuotasResponse::default();
    let wanted = match wanted(&request.components) {
        Ok(wanted) => wanted,
        Err(refusal) => {
            return answer
                .with_error_code(refusal.code.code())
                .with_error_message(refusal.message())
                .with_entries(None);
        }
    };
    let found = image.quotas.iter();
    let found = found.filter(|(entity, _)| matches(entity, &wanted, request.strict));
    let entries = found.map(|(entity, limits)| {
        let values = limits.iter().map(|(limit, value)| {
            describe_client_quotas_response::ValueData::default()
                .with_key(StrBytes::from_static_str(limit.name()))
                .with_value(*value)
        });
        let parts = parts(entity).map(|(kind, name)| {
            describe_client_quotas_response::EntityData::default()
                .with_entity_type(StrBytes::from_static_str(kind))
                .with_entity_name(name)
        });
        describe_client_quotas_response::EntryData::default()
            .with_entity(parts.collect())
            .with_values(values.collect())
    });
    answer.with_entries(Some(entries.collect()))
}

fn wanted(components: &[ComponentData]) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted::new();
    for component in components {
        let Some(kind) = kind_of(&component.entity_type) else {
            let reason = format!("There are no quotas by {}", &*component.entity_type);
            return Err(Refusal::new(ErrorCode::UnsupportedVersion, reason));
        };
        let part = match (component.match_type, &component._match) {
            (0, Some(name)) => Match::Is(Part::Named(name.to_string())),
            (1, None) => Match::Is(Part::Default),
            (2, None) => Match::Any,
            _ => return Err(Refusal::request(format!("The match for {kind} is none"))),
        };
        if wanted.insert(kind, part).is_some() {
            return Err(Refusal::request(format!("{kind} is given twice")));
        }
    }
    Ok(wanted)
}

fn matches(entity: &Entity, wanted: &Wanted, strict: bool) -> bool {
    let each = [(USER, &entity.user), (CLIENT_ID, &entity.client_id)];
    each.into_iter()
        .all(|(kind, part)| match (wanted.get(kind), part) {
            (None, part) => part.is_none() || !strict,
            (Some(Match::Any), part) => part.is_some(),
            (Some(Match::Is(wanted)), part) => part.as_ref() == Some(wanted),
        })
}

/// An entity as it goes over the wire; whoever has none of their own has no name.
fn parts(entity: &Entity) -> impl Iterator<Item = (&'static str, Option<StrBytes>)> {
    let each = [(USER, &entity.user), (CLIENT_ID, &entity.client_id)];
    each.into_iter().filter_map(|(kind, part)| {
        let name = match part.as_ref()? {
            Part::Default => None,
            Part::Named(name) => Some(StrBytes::from_string(name.clone())),
        };
        Some((kind, name))
    })
}

// ---- AlterClientQuotas ----

/// Answers AlterClientQuotas, with the commands that carry it out.
pub fn alter_client_quotas(
    image: &Image,
    request: &AlterClientQuotasRequest,
) -> (AlterClientQuotasResponse, Vec<Command>) {
    let (mut next, mut commands, mut entries) = (image.quotas.clone(), Vec::new(), Vec::new());
    for entry in &request.entries {
        let altered = alter(&next, entry);
        let answer = answer(entry);
        entries.push(match altered {
            Ok((entity, limits)) => {
                next.set(&entity, &limits);
                commands.push(Command::SetQuotas { entity, limits });
                answer
            }
            Err(refusal) => answer
                .with_error_code(refusal.code.code())
                .with_error_message(refusal.message()),
        });
    }
    if request.validate_only {
        commands.clear();
    }
    (
        AlterClientQuotasResponse::default().with_entries(entries),
        commands,
    )
}

/// Every entry refused alike.
pub fn alter_client_quotas_failed(
    request: &AlterClientQuotasRequest,
    code: ErrorCode,
) -> AlterClientQuotasResponse {
    let entries = request.entries.iter();
    let entries = entries.map(|entry| answer(entry).with_error_code(code.code()));
    AlterClientQuotasResponse::default().with_entries(entries.collect())
}

fn answer(entry: &EntryData) -> alter_client_quotas_response::EntryData {
    let parts = entry.entity.iter().map(|part| {
        alter_client_quotas_response::EntityData::default()
            .with_entity_type(part.entity_type.clone())
            .with_entity_name(part.entity_name.clone())
    });
    alter_client_quotas_response::EntryData::default().with_entity(parts.collect())
}

/// What the entity has after the change.
fn alter(
    quotas: &crate::quotas::Quotas,
    entry: &EntryData,
) -> Result<(Entity, Overrides), Refusal> {
    let entity = entity_of(&entry.entity)?;
    let mut limits = quotas.of(&entity);
    let is_new = limits.is_empty();
    let mut seen = BTreeSet::new();
    for op in &entry.ops {
        let limit = limit_of(op)?;
        if !seen.insert(limit) {
            return Err(Refusal::request(format!("{} is given twice", &*op.key)));
        }
        if op.remove {
            limits.remove(&limit);
        } else {
            limits.insert(limit, op.value);
        }
    }
    if is_new && !limits.is_empty() && quotas.len() >= ENTITIES_MAX {
        let reason = format!("There are quotas for {ENTITIES_MAX} entities already");
        return Err(Refusal::new(ErrorCode::PolicyViolation, reason));
    }
    let text = |(limit, value): (Limit, f64)| (limit.name().to_owned(), value.to_string());
    Ok((entity, limits.into_iter().map(text).collect()))
}

fn entity_of(parts: &[EntityData]) -> Result<Entity, Refusal> {
    let mut entity = Entity {
        user: None,
        client_id: None,
    };
    for part in parts {
        let Some(kind) = kind_of(&part.entity_type) else {
            let reason = format!("There are no quotas by {}", &*part.entity_type);
            return Err(Refusal::request(reason));
        };
        let name = match part.entity_name.as_deref() {
            None => Part::Default,
            Some(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
                let reason = format!("The name of the {kind} is empty or too long");
                return Err(Refusal::request(reason));
            }
            Some(name) => Part::Named(name.to_owned()),
        };
        let place = if kind == USER {
            &mut entity.user
        } else {
            &mut entity.client_id
        };
        if place.replace(name).is_some() {
            return Err(Refusal::request(format!("{kind} is given twice")));
        }
    }
    if entity.user.is_none() && entity.client_id.is_none() {
        return Err(Refusal::request("The entity is empty".to_owned()));
    }
    Ok(entity)
}

fn limit_of(op: &OpData) -> Result<Limit, Refusal> {
    let Some(limit) = Limit::of_name(&op.key) else {
        let reason = format!("There is no quota called {}", &*op.key);
        return Err(Refusal::request(reason));
    };
    if !op.remove && !is_quota(op.value) {
        let reason = format!("{} cannot be {}", limit.name(), op.value);
        return Err(Refusal::request(reason));
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::lab::Lab;

    fn part(kind: &'static str, name: Option<&'static str>) -> EntityData {
        EntityData::default()
            .with_entity_type(StrBytes::from_static_str(kind))
            .with_entity_name(name.map(StrBytes::from_static_str))
    }

    fn entry(entity: Vec<EntityData>, ops: &[(&'static str, Option<f64>)]) -> EntryData {
        let ops = ops.iter().map(|(key, value)| {
            OpData::default()
                .with_key(StrBytes::from_static_str(key))
                .with_value(value.unwrap_or(0.0))
                .with_remove(value.is_none())
        });
        EntryData::default()
            .with_entity(entity)
            .with_ops(ops.collect())
    }

    fn alter(lab: &mut Lab, entries: Vec<EntryData>) -> Vec<i16> {
        let request = AlterClientQuotasRequest::default().with_entries(entries);
        let (response, commands) = alter_client_quotas(&lab.image, &request);
        for command in &commands {
            lab.image.apply(&lab.config, command).unwrap();
        }
        response.entries.iter().map(|e| e.error_code).collect()
    }

    fn describe(lab: &Lab, components: &[(&'static str, i8, Option<&'static str>)]) -> Vec<String> {
        let components = components.iter().map(|(kind, match_type, name)| {
            ComponentData::default()
                .with_entity_type(StrBytes::from_static_str(kind))
                .with_match_type(*match_type)
                .with_match(name.map(StrBytes::from_static_str))
        });
        let request = DescribeClientQuotasRequest::default().with_components(components.collect());
        let response = describe_client_quotas(&lab.image, &request);
        if response.error_code != 0 {
            return vec![format!("{}", response.error_code)];
        }
        let entries = response.entries.unwrap();
        let names = entries.iter().map(|entry| {
            let parts = entry.entity.iter().map(|part| {
                let name = part.entity_name.as_deref().unwrap_or("*");
                format!("{}={name}", &*part.entity_type)
            });
            let values = entry
                .values
                .iter()
                .map(|v| format!("{}={}", &*v.key, v.value));
            parts.chain(values).collect::<Vec<_>>().join(" ")
        });
        names.collect()
    }

    #[test]
    fn quotas_are_set_shown_and_removed() {
        let mut lab = Lab::new(&[]);
        let user = || part("user", Some("u"));
        let entries = vec![
            entry(vec![user()], &[("producer_byte_rate", Some(1024.0))]),
            entry(
                vec![part("client-id", None)],
                &[("request_percentage", Some(12.5))],
            ),
            entry(
                vec![user(), part("client-id", Some("c"))],
                &[("consumer_byte_rate", Some(1.0))],
            ),
        ];
        assert_eq!(alter(&mut lab, entries), [0, 0, 0]);
        let all = [
            "client-id=* request_percentage=12.5",
            "user=u producer_byte_rate=1024",
            "user=u client-id=c consumer_byte_rate=1",
        ];
        assert_eq!(describe(&lab, &[]), all);
        assert_eq!(describe(&lab, &[("user", 0, Some("u"))]), all[1..]);
        assert_eq!(describe(&lab, &[("client-id", 1, None)]), all[..1]);
        assert_eq!(describe(&lab, &[("client-id", 2, None)]), [all[0], all[2]]);
        assert_eq!(describe(&lab, &[("ip", 2, None)]), ["35"]);
        assert_eq!(describe(&lab, &[("user", 0, None)]), ["42"]);
        let removed = entry(vec![user()], &[("producer_byte_rate", None)]);
        assert_eq!(alter(&mut lab, vec![removed]), [0]);
        assert_eq!(describe(&lab, &[]).len(), 2);
        // what the journal would be rewritten as
        let mut again = Image::new(&lab.config);
        for command in lab.image.commands() {
            again.apply(&lab.config, &command).unwrap();
        }
        assert_eq!(again.quotas, lab.image.quotas);
    }

    #[test]
    fn what_is_no_quota_is_refused_alone() {
        let mut lab = Lab::new(&[]);
        let user = || part("user", Some("u"));
        let wrong = vec![
            entry(vec![], &[("producer_byte_rate", Some(1.0))]),
            entry(vec![part("ip", None)], &[("producer_byte_rate", Some(1.0))]),
            entry(vec![user(), user()], &[]),
            entry(vec![part("user", Some(""))], &[]),
            entry(vec![user()], &[("connection_creation_rate", Some(1.0))]),
            entry(vec![user()], &[("producer_byte_rate", Some(-1.0))]),
            entry(
                vec![user()],
                &[
                    ("producer_byte_rate", Some(1.0)),
                    ("producer_byte_rate", None),
                ],
            ),
        ];
        let codes = alter(&mut lab, wrong);
        assert_eq!(codes, [ErrorCode::InvalidRequest.code(); 7]);
        assert!(lab.image.quotas.is_empty());
        let fine = entry(vec![user()], &[("producer_byte_rate", Some(5.0))]);
        assert_eq!(alter(&mut lab, vec![fine]), [0]);
    }
}
