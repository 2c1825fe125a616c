//! The reflection service: tools ask a server for its own descriptors.
//!
//! Source: grpc.reflection.v1; v1alpha, which older tools speak, has the same bytes under another
//! name. Messages and traits are `tonic-reflection`'s; its server starts tasks of tokio's.

mod descriptors;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::server_reflection_server::{
    ServerReflection, ServerReflectionServer,
};
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use tonic_reflection::pb::v1alpha::server_reflection_server as v1alpha;
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest as AlphaRequest, ServerReflectionResponse as AlphaResponse,
};

use self::descriptors::Descriptors;
pub use self::descriptors::NotDescriptors;

/// What a server tells of its services. Clones share it.
#[derive(Clone, Debug)]
pub struct Reflection(Arc<Descriptors>);

impl Reflection {
    /// Tells of the services of these files (each a `google.protobuf.FileDescriptorSet`, as
    /// tonic's code generation and `protoc --include_imports --descriptor_set_out` write them), and
    /// of the reflection service itself.
    ///
    /// # Errors
    /// If one of them is something else.
    ///
    /// ```
    /// use ringmill_rpc::{HEALTH_DESCRIPTORS, Reflection, Router};
    ///
    /// let reflection = Reflection::new(&[HEALTH_DESCRIPTORS])?;
    /// let router = Router::new().service(reflection.server()).service(reflection.server_v1alpha());
    /// assert_eq!(router.names().count(), 2);
    /// # Ok::<(), ringmill_rpc::NotDescriptors>(())
    /// ```
    pub fn new(sets: &[&[u8]]) -> Result<Self, NotDescriptors> {
        let mut descriptors = Descriptors::default();
        for set in sets {
            descriptors.add(set)?;
        }
        descriptors.add(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)?;
        descriptors.add(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)?;
        Ok(Reflection(Arc::new(descriptors)))
    }

    /// The service for [`Router::service`](crate::Router::service).
    pub fn server(&self) -> ServerReflectionServer<Reflection> {
        ServerReflectionServer::new(self.clone())
    }

    /// The same for older tools.
    pub fn server_v1alpha(&self) -> v1alpha::ServerReflectionServer<Reflection> {
        v1alpha::ServerReflectionServer::new(self.clone())
    }

    fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let found = match &request.message_request {
            None => Err((Code::InvalidArgument, "a request without a question".into())),
            Some(question) => self.find(question),
        };
        let answer = found.unwrap_or_else(|(code, error_message)| {
            MessageResponse::ErrorResponse(ErrorResponse {
                error_code: code.into(),
                error_message,
            })
        });
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        }
    }

    fn find(&self, question: &MessageRequest) -> Result<MessageResponse, (Code, String)> {
        let index = &self.0;
        let files = match question {
            MessageRequest::FileByFilename(name) => index.file(name),
            MessageRequest::FileContainingSymbol(symbol) => index.defining(symbol),
            MessageRequest::FileContainingExtension(extension) => {
                index.extending(&extension.containing_type, extension.extension_number)
            }
            MessageRequest::AllExtensionNumbersOfType(name) => {
                let numbers = index.extensions_of(name).ok_or_else(|| unknown(question))?;
                return Ok(MessageResponse::AllExtensionNumbersResponse(
                    ExtensionNumberResponse {
                        base_type_name: name.clone(),
                        extension_number: numbers,
                    },
                ));
            }
            MessageRequest::ListServices(_) => {
                let service = index.services().map(|name| ServiceResponse {
                    name: name.to_owned(),
                });
                return Ok(MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: service.collect(),
                }));
            }
        };
        let file_descriptor_proto = files.ok_or_else(|| unknown(question))?;
        Ok(MessageResponse::FileDescriptorResponse(
            FileDescriptorResponse {
                file_descriptor_proto,
            },
        ))
    }
}

fn unknown(question: &MessageRequest) -> (Code, String) {
    (Code::NotFound, format!("not known here: {question:?}"))
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let this = self.clone();
        let answers = requests
            .into_inner()
            .map(move |request| Ok(this.answer(request?)));
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl v1alpha::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<AlphaResponse>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<AlphaRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let this = self.clone();
        let answers = requests.into_inner().map(move |request| {
            let request: ServerReflectionRequest = same_bytes(&request?)?;
            same_bytes(&this.answer(request))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// A message as the type of another version.
fn same_bytes<T: Message + Default>(message: &impl Message) -> Result<T, Status> {
    T::decode(message.encode_to_vec().as_slice())
        .map_err(|error| Status::internal(format!("v1 and v1alpha differ: {error}")))
}
