//! What a broken connection or stream means to a call.
//!
//! Source: gRPC over HTTP/2, "Errors": from HTTP/2's error codes to gRPC's.

use std::error::Error;
use std::io;
use std::sync::Arc;

use h2::Reason;
use tonic::{Code, Status};

/// The status of a call that hyper could not bring to its end.
pub(crate) fn of_hyper(error: &hyper::Error) -> Status {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(status) = error.downcast_ref::<Status>() {
            return status.clone();
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return of_h2(h2);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return of_io("the connection broke", io);
        }
        cause = error.source();
    }
    if error.is_timeout() {
        return Status::unavailable("the peer does not answer");
    }
    let code = match error.is_canceled() || error.is_closed() || error.is_incomplete_message() {
        true => Code::Unavailable,
        false => Code::Internal,
    };
    Status::new(code, format!("http/2: {error}"))
}

/// The cause of a call's failure is that there was no connection: it has never left.
#[derive(Debug, thiserror::Error)]
#[error("the call was not sent")]
struct Unsent;

/// Says of a call's failure that the call was not sent.
pub(crate) fn unsent(mut status: Status) -> Status {
    status.set_source(Arc::new(Unsent));
    status
}

/// The call was certainly not sent.
pub(crate) fn is_unsent(status: &Status) -> bool {
    status.source().is_some_and(|cause| cause.is::<Unsent>())
}

/// The status of a call whose connection failed in the system.
pub(crate) fn of_io(what: &str, error: &io::Error) -> Status {
    Status::unavailable(format!("{what}: {error}"))
}

fn of_h2(error: &h2::Error) -> Status {
    if let Some(io) = error.get_io() {
        return of_io("the connection broke", io);
    }
    if error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) {
        return Status::unavailable("the peer closes its connections");
    }
    let code = error.reason().map_or(Code::Unknown, of_reason);
    Status::new(code, format!("http/2: {error}"))
}

fn of_reason(reason: Reason) -> Code {
    match reason {
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        Reason::NO_ERROR
        | Reason::PROTOCOL_ERROR
        | Reason::INTERNAL_ERROR
        | Reason::FLOW_CONTROL_ERROR
        | Reason::SETTINGS_TIMEOUT
        | Reason::FRAME_SIZE_ERROR
        | Reason::COMPRESSION_ERROR
        | Reason::CONNECT_ERROR => Code::Internal,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_http2_are_codes_of_grpc() {
        for (reason, code) in [
            (Reason::REFUSED_STREAM, Code::Unavailable),
            (Reason::CANCEL, Code::Cancelled),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
            (Reason::PROTOCOL_ERROR, Code::Internal),
            (Reason::STREAM_CLOSED, Code::Unknown),
        ] {
            assert_eq!(of_h2(&h2::Error::from(reason)).code(), code, "{reason:?}");
        }
    }
}
