//! The echo servers that are compared: the same work by each way to it, each a process of its own.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use ringmill_ring::{ListenOptions, RingConfig, TcpListener, TcpStream, socket};

use super::bare;

/// Bytes that one read takes at most, where the reader has a buffer of its own.
const BUFFER: usize = 64 << 10;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A way to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Server {
    /// A loop over completions of io_uring
    Bare,
    /// This ring's asynchronous sockets
    Ring,
    /// The same, each connection with a buffer of its own
    Owned,
    /// This ring's sockets for plain threads, a thread for each connection
    Threads,
    /// std::net, a thread for each connection
    Std,
    /// tokio on one thread
    Tokio,
    /// compio on one thread
    Compio,
}

impl Server {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Server::Bare => "bare ring loop",
            Server::Ring => "ringmill",
            Server::Owned => "ringmill, own buffers",
            Server::Threads => "ringmill, threads",
            Server::Std => "std::net, threads",
            Server::Tokio => "tokio",
            Server::Compio => "compio",
        }
    }

    /// So many connections are no load for a thread each.
    pub(crate) fn serves(self, connections: usize) -> bool {
        match self {
            Server::Threads | Server::Std => connections <= 1000,
            _ => true,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    server: Server,
    /// Bytes of a request
    size: usize,
}

/// Serves until the process is killed; tells its port first.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    if let Some(first) = core_affinity::get_core_ids().unwrap_or_default().first() {
        core_affinity::set_for_current(*first);
    }
    match args.server {
        Server::Bare => bare::serve(listen()?, args.size),
        Server::Ring => ringmill_ring::run(RingConfig::default(), ring(echo))?,
        Server::Owned => ringmill_ring::run(RingConfig::default(), ring(echo_owned))?,
        Server::Threads => threads(),
        Server::Std => standard(),
        Server::Tokio => tokio(),
        Server::Compio => compio(),
    }
}

fn tell(addr: SocketAddr) {
    println!("{}", addr.port());
}

fn listen() -> io::Result<std::net::TcpListener> {
    let options = ListenOptions {
        backlog: BACKLOG,
        ..ListenOptions::default()
    };
    let listener = socket::TcpListener::bind_with((Ipv4Addr::LOCALHOST, 0).into(), options)?;
    tell(listener.local_addr()?);
    let fd = std::os::fd::AsFd::as_fd(&listener).try_clone_to_owned()?;
    Ok(fd.into())
}

async fn ring<F>(each: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let options = ListenOptions {
        backlog: BACKLOG,
        ..ListenOptions::default()
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into(), options).await?;
    tell(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        ringmill_ring::spawn(each(stream));
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buf = BytesMut::new();
    while stream.recv(&mut buf).await? > 0 {
        stream.send(vec![buf.split().freeze()]).await?;
    }
    Ok(())
}

async fn echo_owned(stream: TcpStream) -> io::Result<()> {
    let mut buf = BytesMut::with_capacity(BUFFER);
    loop {
        let (count, filled) = stream.recv_owned(buf).await;
        if count? == 0 {
            return Ok(());
        }
        let answer = filled.freeze();
        stream.send(vec![answer.clone()]).await?;
        // The ring has given its share back: the memory is used again.
        buf = answer.try_into_mut().unwrap_or_default();
        buf.clear();
        buf.reserve(BUFFER);
    }
}

fn threads() -> io::Result<()> {
    let listener = socket::TcpListener::try_from(std::os::fd::OwnedFd::from(listen()?))?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || echo_blocking(&stream, &stream));
    }
    Ok(())
}

fn standard() -> io::Result<()> {
    for stream in listen()?.incoming() {
        let stream = stream?;
        std::thread::spawn(move || echo_blocking(&stream, &stream));
    }
    Ok(())
}

fn echo_blocking(mut read: impl Read, mut write: impl Write) -> io::Result<()> {
    let mut buf = vec![0; BUFFER];
    loop {
        match read.read(&mut buf)? {
            0 => return Ok(()),
            count => write.write_all(&buf[..count])?,
        }
    }
}

fn tokio() -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_io().build()?.block_on(async {
        let listener = listen()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut buf = vec![0; BUFFER];
                loop {
                    match stream.read(&mut buf).await? {
                        0 => return io::Result::Ok(()),
                        count => stream.write_all(&buf[..count]).await?,
                    }
                }
            });
        }
    })
}

fn compio() -> io::Result<()> {
    use compio::buf::{BufResult, IoBuf};
    use compio::io::{AsyncRead, AsyncWriteExt};
    compio::runtime::Runtime::new()?.block_on(async {
        let listener = compio::net::TcpListener::from_std(listen()?)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            let task = compio::runtime::spawn(async move {
                let mut buf = Vec::with_capacity(BUFFER);
                loop {
                    let BufResult(count, filled) = stream.read(buf).await;
                    if count? == 0 {
                        return io::Result::Ok(());
                    }
                    let BufResult(sent, slice) = stream.write_all(filled.slice(..)).await;
                    sent?;
                    buf = compio::buf::IntoInner::into_inner(slice);
                    buf.clear();
                }
            });
            task.detach();
        }
    })
}
