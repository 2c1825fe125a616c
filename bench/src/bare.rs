//! The least that a durable request can cost on this machine: a server on a core of its own that
//! knows no protocol, takes bytes from a connection, writes and flushes them over blocks of a file
//! that were written before, and answers with a few bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, File, Instant, ListenOptions, RingConfig, Shutdown, TcpListener, TcpStream, now, spawn,
};

use crate::Failure;
use crate::disk::{self, Load, Mode};
use crate::measure::Gathered;

/// Bytes of an answer.
const ANSWER: usize = 32;

/// As many connections as the load has writers, each with one request in flight and a file of its
/// own.
pub(crate) async fn measure(load: &Load) -> Result<Gathered, Failure> {
    let folder = disk::Folder::make(&load.dir).await?;
    let (size, writers, path) = (load.size, load.writers, folder.path().to_owned());
    let (tell, told) = mpsc::channel();
    let server = Cores::new(1)
        .launch(RingConfig::default(), move |_| {
            serve(path.clone(), writers, size, tell.clone())
        })
        .map_err(Failure::new)?;
    let measured = match told.recv() {
        Ok(address) => request(load, address).await,
        Err(_) => Ok(Gathered::new()),
    };
    let served = server.join().map_err(Failure::new)?;
    folder.remove().await?;
    served
        .into_iter()
        .collect::<std::io::Result<()>>()
        .and(measured)
        .map_err(Failure::new)
}

/// Serves so many connections until each has ended.
async fn serve(
    folder: PathBuf,
    connections: usize,
    size: usize,
    tell: mpsc::Sender<SocketAddr>,
) -> std::io::Result<()> {
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = TcpListener::bind(any, ListenOptions::default()).await?;
    let mut files = Vec::new();
    for nth in 0..connections {
        files.push(disk::prepare(&folder.join(nth.to_string()), Mode::Overwrite).await?);
    }
    // the one that asked waits for this
    let _ = tell.send(listener.local_addr()?);
    let mut tasks = Vec::new();
    for file in files {
        let (stream, _) = listener.accept().await?;
        tasks.push(spawn(answer(stream, file, size)));
    }
    for task in tasks {
        task.await.map_err(std::io::Error::other)??;
    }
    Ok(())
}

async fn answer(stream: TcpStream, file: File, size: usize) -> std::io::Result<()> {
    let done = Bytes::from_static(&[0; ANSWER]);
    let (mut received, mut offset) = (BytesMut::new(), 0);
    loop {
        while received.len() < size {
            if stream.recv(&mut received).await? == 0 {
                return Ok(());
            }
        }
        let content = received.split_to(size).freeze();
        file.write_at_sync(offset, vec![content]).await?;
        stream.send(vec![done.clone()]).await?;
        offset = disk::next_offset(offset, size as u64, Mode::Overwrite);
    }
}

async fn request(load: &Load, address: SocketAddr) -> std::io::Result<Gathered> {
    let mut streams = Vec::new();
    for _ in 0..load.writers {
        streams.push(TcpStream::connect(address).await?);
    }
    let gathered = Gathered::new();
    gathered.start();
    let end = now() + load.duration;
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|stream| spawn(ask(stream, load.size, end, gathered.clone())))
        .collect();
    for task in tasks {
        task.await.map_err(std::io::Error::other)??;
    }
    Ok(gathered)
}

async fn ask(
    stream: TcpStream,
    size: usize,
    end: Instant,
    gathered: Gathered,
) -> std::io::Result<()> {
    let content = Bytes::from(vec![0xa5; size]);
    let mut received = BytesMut::new();
    while now() < end {
        let begun = now();
        stream.send(vec![content.clone()]).await?;
        received.clear();
        while received.len() < ANSWER {
            if stream.recv(&mut received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        gathered.took(now() - begun);
        gathered.done(1, size as u64);
    }
    // the server's core is waited for by this thread, which closes nothing meanwhile
    stream.shutdown(Shutdown::Write).await
}
