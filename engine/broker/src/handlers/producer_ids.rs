//! InitProducerId. For an idempotent producer every request gets an id that was never given out,
//! with epoch 0. An id or epoch that the client sends along (KIP-360) matters to transactions alone,
//! whose coordinator answers: an idempotent producer raises its epoch by itself, and comes back for
//! a new id when that runs out.
//!
//! Ids are reserved in blocks, so that one change of the metadata serves many producers; what is
//! left of a block when the process ends is skipped.

use std::ops::Range;

use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::cluster::command::Command;
use crate::cluster::image::Image;
use crate::transactions::requests::Init;
use crate::transactions::{NO_EPOCH, NO_PRODUCER_ID, Producer, Reply, TransactionError};

/// How many ids a core reserves at a time, as Kafka.
pub const BLOCK: i64 = 1000;

/// Who asks for a producer id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// An idempotent producer.
    Idempotent,
    /// A transactional one.
    Transactional(Init),
}

/// Checks a request.
///
/// # Errors
/// The response that refuses it.
pub fn check(request: &InitProducerIdRequest) -> Result<Asker, InitProducerIdResponse> {
    let no_id = *request.producer_id == NO_PRODUCER_ID;
    let no_epoch = request.producer_epoch == NO_EPOCH;
    if no_id != no_epoch {
        return Err(refused(ErrorCode::InvalidRequest));
    }
    match request.transactional_id.as_ref() {
        None => Ok(Asker::Idempotent),
        Some(id) if id.is_empty() => Err(refused(ErrorCode::InvalidRequest)),
        Some(id) => Ok(Asker::Transactional(Init {
            id: id.to_string(),
            timeout_ms: request.transaction_timeout_ms,
            expected: (!no_id).then_some(Producer {
                id: *request.producer_id,
                epoch: request.producer_epoch,
            }),
        })),
    }
}

/// The answer to a transactional producer.
pub fn initialized(reply: Reply, version: i16) -> InitProducerIdResponse {
    match reply {
        Ok(producer) => granted(producer.id).with_producer_epoch(producer.epoch),
        // KIP-588: a code of its own came with version 4.
        Err(TransactionError::ProducerFenced) if version < 4 => {
            refused(ErrorCode::InvalidProducerEpoch)
        }
        Err(error) => refused(error.into()),
    }
}

/// The answer that gives a producer its id.
pub fn granted(producer_id: i64) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_producer_id(producer_id.into())
        .with_producer_epoch(0)
}

/// The answer that gives none.
pub fn refused(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(code.code())
        .with_producer_id(NO_PRODUCER_ID.into())
        .with_producer_epoch(NO_EPOCH)
}

/// The next block of free ids and the command that reserves it; none when 63 bits are used up.
pub fn reserve(image: &Image) -> Option<(Range<i64>, Command)> {
    let first = image.next_producer_id;
    let next = first.checked_add(BLOCK)?;
    Some((first..next, Command::ReserveProducerIds { next }))
}

#[cfg(test)]
mod tests {
    use ringmill_wire::StrBytes;
    use ringmill_wire::kafka_protocol::messages::TransactionalId;

    use super::*;
    use crate::config::BrokerConfig;

    fn request(id: i64, epoch: i16) -> InitProducerIdRequest {
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(id.into())
            .with_producer_epoch(epoch)
    }

    fn transactional(id: &'static str) -> InitProducerIdRequest {
        let id = TransactionalId(StrBytes::from_static_str(id));
        request(-1, -1).with_transactional_id(Some(id))
    }

    #[test]
    fn an_idempotent_producer_gets_a_new_id_whatever_it_had() {
        for (id, epoch) in [(-1, -1), (0, 0), (77, i16::MAX)] {
            assert_eq!(
                check(&request(id, epoch)),
                Ok(Asker::Idempotent),
                "{id} {epoch}"
            );
        }
        let answer = granted(5);
        assert_eq!((*answer.producer_id, answer.producer_epoch), (5, 0));
        assert_eq!(answer.error_code, 0);
    }

    #[test]
    fn half_an_identity_is_refused() {
        for (id, epoch) in [(-1, 0), (7, -1)] {
            let answer = check(&request(id, epoch)).unwrap_err();
            assert_eq!(answer.error_code, ErrorCode::InvalidRequest.code());
            assert_eq!((*answer.producer_id, answer.producer_epoch), (-1, -1));
        }
    }

    #[test]
    fn a_transactional_producer_says_who_it_is_or_nothing() {
        let init = |expected| {
            Ok(Asker::Transactional(Init {
                id: "t".to_owned(),
                timeout_ms: 0,
                expected,
            }))
        };
        let anew = transactional("t");
        assert_eq!(check(&anew), init(None));
        let again = anew.with_producer_id(7.into()).with_producer_epoch(3);
        assert_eq!(check(&again), init(Some(Producer { id: 7, epoch: 3 })));
        let answer = check(&transactional("")).unwrap_err();
        assert_eq!(answer.error_code, ErrorCode::InvalidRequest.code());
    }

    #[test]
    fn older_clients_learn_of_their_fencing_by_the_code_that_they_know() {
        let code = |version| {
            let fenced = initialized(Err(TransactionError::ProducerFenced), version);
            ErrorCode::from_code(fenced.error_code)
        };
        assert_eq!(code(3), Some(ErrorCode::InvalidProducerEpoch));
        assert_eq!(code(4), Some(ErrorCode::ProducerFenced));
        let answer = initialized(Ok(Producer { id: 7, epoch: 3 }), 4);
        assert_eq!((*answer.producer_id, answer.producer_epoch), (7, 3));
    }

    #[test]
    fn blocks_never_overlap_and_end_where_the_numbers_do() {
        let config = BrokerConfig::default();
        let mut image = Image::new(&config);
        let mut last = 0;
        for _ in 0..3 {
            let (block, command) = reserve(&image).unwrap();
            assert_eq!((block.start, block.end), (last, last + BLOCK));
            image.apply(&config, &command).unwrap();
            last = block.end;
        }
        let next = i64::MAX - BLOCK + 1;
        let command = Command::ReserveProducerIds { next };
        image.apply(&config, &command).unwrap();
        assert_eq!(reserve(&image), None);
    }
}
