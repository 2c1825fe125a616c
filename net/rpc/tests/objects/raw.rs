//! A peer that writes its messages itself, to say what no library would.

use bytes::BytesMut;
use capnp::Result;
use capnp::message::{Builder, HeapAllocator, Reader};
use capnp_rpc::rpc_capnp::{call, message};
use ringmill_ring::{TcpStream, timeout};
use ringmill_rpc::objects::{Frame, FrameLimits, Framing};

use crate::lab::{SECOND, server_address};

/// The interface and the methods of the name service and the factory, by their schemas.
pub(crate) const RESOLVE: (u64, u16) = (name_service_id(), 0);
pub(crate) const MAKE: u16 = 0;
pub(crate) const ALIVE: u16 = 1;
pub(crate) const WAIT: u16 = 4;

const fn name_service_id() -> u64 {
    use capnp::traits::HasTypeId;
    ringmill_rpc::objects::names_capnp::name_service::Client::TYPE_ID
}

pub(crate) const fn factory_id() -> u64 {
    use capnp::traits::HasTypeId;
    ringmill_rpc::objects::interop::counter_factory::Client::TYPE_ID
}

/// A message's bytes, framed.
pub(crate) fn bytes_of(message: &Builder<HeapAllocator>) -> Vec<u8> {
    capnp::serialize::write_message_to_words(message)
}

/// A message of any kind.
pub(crate) fn message(write: impl FnOnce(message::Builder<'_>)) -> Vec<u8> {
    let mut builder = Builder::new_default();
    write(builder.init_root());
    bytes_of(&builder)
}

/// A call on the factory, of whatever `write` makes of it; the factory is what question 1 asked
/// for.
pub(crate) fn factory_call(
    question: u32,
    method: u16,
    write: impl FnOnce(call::Builder<'_>),
) -> Vec<u8> {
    message(|root| {
        let mut call = root.init_call();
        call.set_question_id(question);
        call.set_interface_id(factory_id());
        call.set_method_id(method);
        let mut target = call.reborrow().init_target().init_promised_answer();
        target.set_question_id(1);
        target.init_transform(1).get(0).set_get_pointer_field(0);
        write(call);
    })
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Abort(String),
    Results(u32),
    Exception(u32, String),
    Cancelled(u32),
    Elsewhere(u32),
    Release(u32, u32),
    CallOnImport(u32, u32),
    Other,
}

pub(crate) struct Raw {
    stream: TcpStream,
    framing: Framing,
    received: BytesMut,
}

impl Raw {
    pub(crate) fn over(stream: TcpStream) -> Self {
        let limits = FrameLimits {
            segments_max: 512,
            bytes_max: 64 << 20,
        };
        Raw {
            stream,
            framing: Framing::new(limits),
            received: BytesMut::new(),
        }
    }

    /// Connects, asks for the first object (question 0) and in it for the factory (question 1).
    pub(crate) async fn at_factory() -> Self {
        let stream = TcpStream::connect(server_address()).await.unwrap();
        let mut raw = Raw::over(stream);
        raw.bootstrap(0).await.unwrap();
        raw.send(message(|root| {
            let mut call = root.init_call();
            call.set_question_id(1);
            call.set_interface_id(RESOLVE.0);
            call.set_method_id(RESOLVE.1);
            let target = call.reborrow().init_target();
            target.init_promised_answer().set_question_id(0);
            use ringmill_rpc::objects::names_capnp::name_service::resolve_params;
            let content = call.init_params().get_content();
            let mut params = content.init_as::<resolve_params::Builder<'_>>();
            params.set_name(ringmill_rpc::objects::interop::FACTORY);
        }))
        .await
        .unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Results(0)));
        assert_eq!(raw.kind().await, Some(Kind::Results(1)));
        raw
    }

    pub(crate) async fn bootstrap(&mut self, question: u32) -> std::io::Result<()> {
        let bytes = message(|root| root.init_bootstrap().set_question_id(question));
        self.send(bytes).await
    }

    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> std::io::Result<()> {
        self.stream.send(vec![bytes.into()]).await
    }

    /// Asks the name service for a name of so many bytes, which the answer repeats.
    pub(crate) async fn echo(&mut self, question: u32, bytes: usize) -> std::io::Result<()> {
        let call = message(|root| {
            let mut call = root.init_call();
            call.set_question_id(question);
            call.set_interface_id(RESOLVE.0);
            call.set_method_id(RESOLVE.1);
            let target = call.reborrow().init_target();
            target.init_promised_answer().set_question_id(0);
            use ringmill_rpc::objects::names_capnp::name_service::resolve_params;
            let content = call.init_params().get_content();
            let mut params = content.init_as::<resolve_params::Builder<'_>>();
            params.set_name(&*"x".repeat(bytes));
        });
        self.send(call).await
    }

    /// The next message; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.framing.next(&mut self.received).unwrap() {
                return Some(frame);
            }
            match timeout(30 * SECOND, self.stream.recv(&mut self.received)).await {
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) => return None,
                Err(_) => panic!("neither a message nor an end"),
            }
        }
    }

    /// What the next message is; none at the end.
    pub(crate) async fn kind(&mut self) -> Option<Kind> {
        let frame = self.next().await?;
        Some(kind_of(&frame).expect("the server's messages are well-formed"))
    }

    /// What all messages are until the end.
    pub(crate) async fn rest(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        while let Some(kind) = self.kind().await {
            kinds.push(kind);
        }
        kinds
    }
}

fn kind_of(frame: &Frame) -> Result<Kind> {
    use capnp_rpc::rpc_capnp::{message_target, return_};
    let reader = Reader::new(frame, Default::default());
    let root: message::Reader<'_> = reader.get_root()?;
    Ok(match root.which()? {
        message::Abort(it) => Kind::Abort(it?.get_reason()?.to_string()?),
        message::Release(it) => {
            let it = it?;
            Kind::Release(it.get_id(), it.get_reference_count())
        }
        message::Return(it) => {
            let it = it?;
            let question = it.get_answer_id();
            match it.which()? {
                return_::Results(_) => Kind::Results(question),
                return_::Exception(it) => Kind::Exception(question, it?.get_reason()?.to_string()?),
                return_::ResultsSentElsewhere(()) => Kind::Elsewhere(question),
                _ => Kind::Cancelled(question),
            }
        }
        message::Call(it) => {
            let it = it?;
            match it.get_target()?.which()? {
                message_target::ImportedCap(id) => Kind::CallOnImport(it.get_question_id(), id),
                _ => Kind::Other,
            }
        }
        _ => Kind::Other,
    })
}
