//! Requests and answers of single messages, kept whole so that they can be sent again.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Request, Response, request, response};
use http_body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tonic::{Code, Status};

use super::at_most_once::CallName;

/// A body in one piece.
#[derive(Clone, Debug, Default)]
pub(super) struct WholeBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

/// Bytes beyond the limit were found.
#[derive(Debug)]
pub(super) enum Broken {
    TooLarge,
    By(Status),
}

impl WholeBody {
    /// Reads a body to its end.
    pub(super) async fn read<B>(body: B, bytes_max: usize) -> Result<Self, Broken>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let mut body = body;
        let mut whole = WholeBody::default();
        let mut rest = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Broken::By(Status::from_error(error.into())))?;
            match frame.into_data() {
                Ok(data) if whole.data.len() + rest.len() + data.len() > bytes_max => {
                    return Err(Broken::TooLarge);
                }
                // Most are of one piece, which is not copied.
                Ok(data) if whole.data.is_empty() => whole.data = data,
                Ok(data) => rest.extend_from_slice(&data),
                Err(frame) => whole.trailers = frame.into_trailers().ok(),
            }
        }
        if !rest.is_empty() {
            let mut data = BytesMut::from(whole.data);
            data.unsplit(rest);
            whole.data = data.freeze();
        }
        Ok(whole)
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// The body once more.
    pub(super) fn body(&self) -> Body {
        Body::new(Replay(Some(self.clone())))
    }
}

/// A kept body on its way.
struct Replay(Option<WholeBody>);

impl HttpBody for Replay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(whole) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let data = std::mem::take(&mut whole.data);
        if !data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = self.0.take().and_then(|whole| whole.trailers);
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        let over = |whole: &WholeBody| whole.data.is_empty() && whole.trailers.is_none();
        self.0.as_ref().is_none_or(over)
    }
}

/// A request that can be sent again.
#[derive(Debug)]
pub(super) struct WholeRequest {
    head: request::Parts,
    body: WholeBody,
}

impl WholeRequest {
    /// Keeps a request.
    pub(super) async fn keep<B>(request: Request<B>, bytes_max: usize) -> Result<Self, Status>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let (head, body) = request.into_parts();
        let body = WholeBody::read(body, bytes_max).await;
        let body = body.map_err(|broken| match broken {
            Broken::By(status) => status,
            Broken::TooLarge => Status::out_of_range(format!(
                "a request to be kept of more than {bytes_max} bytes"
            )),
        })?;
        Ok(WholeRequest { head, body })
    }

    /// Gives it the name of a call, in place of one that it had.
    pub(super) fn name(&mut self, name: &CallName) {
        name.write(&mut self.head.headers);
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The request once more.
    pub(super) fn request(&self) -> Request<Body> {
        Request::from_parts(self.head.clone(), self.body.body())
    }
}

/// An answer that can be given again.
#[derive(Clone, Debug)]
pub(super) struct WholeAnswer {
    head: response::Parts,
    body: WholeBody,
}

impl WholeAnswer {
    pub(super) async fn keep<B>(response: Response<B>, bytes_max: usize) -> Result<Self, Broken>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let (head, body) = response.into_parts();
        let body = WholeBody::read(body, bytes_max).await?;
        Ok(WholeAnswer { head, body })
    }

    /// An answer that is only a status.
    pub(super) fn of(status: Status) -> Self {
        let (head, ()) = status.into_http::<()>().into_parts();
        let body = WholeBody::default();
        WholeAnswer { head, body }
    }

    /// Bytes that it takes to keep.
    pub(super) fn len(&self) -> usize {
        let fields = self.head.headers.iter();
        let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
        self.body.len() + fields.sum::<usize>()
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// How the call ended.
    pub(super) fn code(&self) -> Code {
        let trailers = self.body.trailers.as_ref().unwrap_or(&self.head.headers);
        match Status::from_header_map(trailers) {
            Some(status) => status.code(),
            None => Code::Unknown,
        }
    }

    /// The answer once more.
    pub(super) fn response(&self) -> Response<Body> {
        Response::from_parts(self.head.clone(), self.body.body())
    }
}
