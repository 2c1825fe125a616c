//! InitProducerId for idempotent producers: every request gets an id that was never given out, with
//! epoch 0. An id or epoch that the client sends along (KIP-360) matters to transactions alone: an
//! idempotent producer raises its epoch by itself, and comes back for a new id when that runs out.
//!
//! Ids are reserved in blocks, so that one change of the metadata serves many producers; what is
//! left of a block when the process ends is skipped.

use std::ops::Range;

use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::cluster::image::{Command, Image};

/// How many ids a core reserves at a time, as Kafka.
pub const BLOCK: i64 = 1000;

/// "No producer id", and "no epoch".
const NONE: i16 = -1;

/// Checks a request: what passes gets an id of its own ([`granted`]).
///
/// # Errors
/// The response that refuses it.
pub fn check(request: &InitProducerIdRequest) -> Result<(), InitProducerIdResponse> {
    let no_id = *request.producer_id == i64::from(NONE);
    let no_epoch = request.producer_epoch == NONE;
    if no_id != no_epoch {
        return Err(refused(ErrorCode::InvalidRequest));
    }
    match request.transactional_id.as_ref() {
        None => Ok(()),
        Some(id) if id.is_empty() => Err(refused(ErrorCode::InvalidRequest)),
        // There are no transactions yet. Of all codes this is the one that every client takes for
        // final and reports at once, instead of trying again until its time is up.
        Some(_) => Err(refused(ErrorCode::TransactionalIdAuthorizationFailed)),
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
        .with_producer_id(i64::from(NONE).into())
        .with_producer_epoch(NONE)
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
            assert_eq!(check(&request(id, epoch)), Ok(()), "{id} {epoch}");
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
    fn a_transactional_producer_is_told_at_once_and_for_good() {
        let answer = check(&transactional("t")).unwrap_err();
        let code = ErrorCode::from_code(answer.error_code).unwrap();
        assert_eq!(code, ErrorCode::TransactionalIdAuthorizationFailed);
        assert!(!code.is_retriable());
        let answer = check(&transactional("")).unwrap_err();
        assert_eq!(answer.error_code, ErrorCode::InvalidRequest.code());
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
