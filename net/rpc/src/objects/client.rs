//! A client's connection to a server of objects.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use capnp::Error;
use capnp::capability::{Client, FromClientHook};
use capnp_rpc::rpc_twoparty_capnp::Side;
use ringmill_ring::{JoinHandle, Notify, TcpStream, UnixStream, spawn, timeout};

use crate::objects::ledger::Held;
use crate::objects::line::Line;
use crate::objects::options::ObjectOptions;
use crate::objects::session::Session;
use crate::objects::stream::ObjectStream;

/// A connection to a server of objects. References that came over it live as long as it does:
/// calls to them fail with an error of kind `Disconnected` once it has ended. Dropped, it ends at
/// once; what was called is given up.
///
/// There is no way back to a connection that ended: make another, and ask its first object anew.
pub struct ObjectClient {
    first: Client,
    line: Rc<Line>,
    ending: Rc<Ending>,
    session: JoinHandle<()>,
}

/// The end of a connection, for whoever waits for it.
#[derive(Default)]
struct Ending {
    reason: RefCell<Option<Error>>,
    changed: Notify,
}

impl ObjectClient {
    /// Connects by TCP, within [`ObjectOptions::connect_max`].
    ///
    /// # Errors
    /// Of kind `Disconnected` if there is no server, of kind `Overloaded` if the time was over.
    pub async fn connect(address: SocketAddr, options: ObjectOptions) -> capnp::Result<Self> {
        let connecting = timeout(options.connect_max, TcpStream::connect(address)).await;
        Self::connected(connecting.map(|stream| stream.map(Into::into)), options)
    }

    /// Connects to a Unix socket, as [`ObjectClient::connect`] does.
    ///
    /// # Errors
    /// As [`ObjectClient::connect`].
    pub async fn connect_unix(
        path: impl AsRef<Path>,
        options: ObjectOptions,
    ) -> capnp::Result<Self> {
        let connecting = timeout(options.connect_max, UnixStream::connect(path)).await;
        Self::connected(connecting.map(|stream| stream.map(Into::into)), options)
    }

    fn connected(
        stream: Result<std::io::Result<ObjectStream>, ringmill_ring::Elapsed>,
        options: ObjectOptions,
    ) -> capnp::Result<Self> {
        match stream {
            Ok(Ok(stream)) => Ok(Self::over(stream, options)),
            Ok(Err(error)) => Err(Error::disconnected(format!("cannot connect: {error}"))),
            Err(elapsed) => Err(Error::overloaded(format!("cannot connect: {elapsed}"))),
        }
    }

    /// Takes a stream that is connected.
    pub fn over(stream: impl Into<ObjectStream>, options: ObjectOptions) -> Self {
        let line = Line::new(options, false);
        let mut session = Session::new(stream.into(), Side::Client, line.clone(), None);
        let first = session.bootstrap();
        let ending = Rc::new(Ending::default());
        let told = ending.clone();
        let session = spawn(async move {
            let ended = session.run(std::future::pending()).await;
            *told.reason.borrow_mut() = Some(ended.reason);
            told.changed.notify_all();
        });
        ObjectClient {
            first,
            line,
            ending,
            session,
        }
    }

    /// The server's first object; calls may be made before it has come.
    pub fn first<C: FromClientHook>(&self) -> C {
        self.first.clone().cast_to()
    }

    /// What is held over the connection.
    pub fn held(&self) -> Held {
        self.line.held()
    }

    /// Waits until the connection has ended. Returns why.
    pub async fn ended(&self) -> Error {
        loop {
            let changed = self.ending.changed.notified();
            if let Some(reason) = self.ending.reason.borrow().clone() {
                return reason;
            }
            changed.await;
        }
    }

    /// Sends what has been written, and ends the connection. Calls that are not answered fail.
    pub async fn close(self) {
        let reason = "the client ended the connection";
        self.line.fail(Error::disconnected(reason.into()));
        self.ended().await;
    }
}

impl Drop for ObjectClient {
    fn drop(&mut self) {
        self.session.abort();
    }
}

impl fmt::Debug for ObjectClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectClient")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
