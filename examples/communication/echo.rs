//! A connection-oriented server and its client, by the primitives alone: bind, listen, accept;
//! connect, send, receive, shut one half, close. The same text runs on io_uring, where any TCP
//! tool is its peer.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{ListenOptions, Shutdown, TcpListener, TcpStream, sleep, spawn, with_timeout};

use crate::stage::{Stage, Told, receiver_address};

const PATIENCE: Duration = Duration::from_secs(5);

/// Serves each connection by a task of its own.
async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(receiver_address(), ListenOptions::default()).await?;
    loop {
        let (stream, _peer) = listener.accept().await?;
        spawn(async move {
            let mut received = BytesMut::new();
            // A peer that is silent for too long is left; so is one that reads nothing.
            while with_timeout(PATIENCE, stream.recv(&mut received)).await? > 0 {
                let answer = vec![received.split().freeze()];
                with_timeout(PATIENCE, stream.send(answer)).await?;
            }
            io::Result::Ok(())
        });
    }
}

/// Sends everything, says that this was all, and reads to the end.
async fn ask(question: Bytes) -> io::Result<BytesMut> {
    let stream = with_timeout(PATIENCE, TcpStream::connect(receiver_address())).await?;
    with_timeout(PATIENCE, stream.send(vec![question])).await?;
    stream.shutdown(Shutdown::Write).await?;
    let mut answer = BytesMut::new();
    while with_timeout(PATIENCE, stream.recv(&mut answer)).await? > 0 {}
    Ok(answer)
}

pub(crate) fn connections(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::new(seed), Told::default());
    stage.receive(async { drop(serve().await) });
    let client = told.clone();
    stage.send(async move {
        sleep(Duration::from_millis(1)).await;
        let answer = ask(Bytes::from_static(b"hello")).await.expect("an echo");
        assert_eq!(answer, "hello");
        client.tell("a connection brought back what was sent on it");
        let silent = TcpStream::connect(receiver_address())
            .await
            .expect("a server");
        let left = silent.recv(&mut BytesMut::new()).await;
        assert_eq!(left.expect("an end"), 0);
        client.tell("a client that says nothing is left after five seconds");
    });
    told.lines()
}
