//! Why a part of a request is refused, as clients are told: Kafka's code and words for people.

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;

use crate::cluster::changes::TooManyChanges;
use crate::cluster::topics::TopicError;
use crate::config::ConfigError;

/// The most bytes of words: they may quote the request, which must not come back whole.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A code, which is never `NONE`, and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    message: String,
}

impl From<TooManyChanges> for Refusal {
    fn from(_: TooManyChanges) -> Self {
        let text = "Unable to perform excessively large batch operation.";
        Self::new(ErrorCode::PolicyViolation, text)
    }
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        assert!(code.is_error(), "a refusal has a reason");
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        Self { code, message }
    }

    /// INVALID_REQUEST, the most frequent one.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// The words as responses have them.
    pub(crate) fn message(&self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message.clone()))
    }
}

impl From<TopicError> for Refusal {
    fn from(error: TopicError) -> Self {
        Self::new(ErrorCode::from(&error), error.to_string())
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::from(&error), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_quote_a_huge_request_are_cut_between_characters() {
        let refusal = Refusal::request("ä".repeat(10_000));
        let message = refusal.message().unwrap();
        assert_eq!(message.len(), MESSAGE_BYTES_MAX);
        let odd = Refusal::request(format!("x{}", "ä".repeat(10_000)));
        assert_eq!(odd.message().unwrap().len(), MESSAGE_BYTES_MAX - 1);
    }
}
