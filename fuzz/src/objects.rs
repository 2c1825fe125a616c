//! A client of remote objects that says any bytes at all: its stream is cut into messages or
//! refused, its connection ends, and the server serves others and holds nothing for it.
//!
//! The first byte of the input says in what pieces the rest is sent.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{ListenOptions, TcpListener, TcpStream, timeout};
use ringmill_rpc::objects::names_capnp::name_service;
use ringmill_rpc::objects::{
    FrameLimits, Framing, NameLimits, Names, ObjectClient, ObjectOptions, ObjectPeer, ObjectServer,
    within,
};

/// How large messages may be: less than what an input claims for nothing.
const LIMITS: FrameLimits = FrameLimits {
    segments_max: 16,
    bytes_max: 64 << 10,
};
/// How long the client listens for more.
const PATIENCE: Duration = Duration::from_millis(50);
/// Within this time everything is over.
const OVER: Duration = Duration::from_secs(100);

/// The target.
pub(crate) fn objects(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else {
        return;
    };
    let step = match usize::from(*step) {
        0 => stream.len().max(1),
        step => step,
    };
    cut(stream, step);
    converse(stream, step);
}

fn cut(stream: &[u8], step: usize) {
    let mut framing = Framing::new(LIMITS);
    let mut input = BytesMut::new();
    for piece in stream.chunks(step) {
        input.extend_from_slice(piece);
        loop {
            match framing.next(&mut input) {
                Ok(Some(frame)) => assert!(frame.size() <= LIMITS.bytes_max),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// The server's name.
pub(crate) fn address() -> std::net::SocketAddr {
    ([10, 0, 0, 1], 7000).into()
}

pub(crate) fn machines(world: &mut World) -> (NodeId, NodeId) {
    let server = world.add_node("server", [10, 0, 0, 1].into());
    (server, world.add_node("client", [10, 0, 0, 2].into()))
}

fn converse(stream: &[u8], step: usize) {
    let mut world = World::new(1);
    let (server, client) = machines(&mut world);
    let peers: Rc<RefCell<Vec<ObjectPeer>>> = Rc::default();
    let names: Rc<RefCell<Option<Names>>> = Rc::default();
    let (seen, made) = (peers.clone(), names.clone());
    world.start(server, async move {
        let listener = TcpListener::bind(address(), ListenOptions::default());
        let listener = listener.await.expect("a free address");
        let names = Names::new(NameLimits::default());
        *made.borrow_mut() = Some(names.clone());
        let first = move |peer: &ObjectPeer| {
            seen.borrow_mut().push(peer.clone());
            names.session(peer)
        };
        let options = ObjectOptions {
            message_bytes_max: LIMITS.bytes_max,
            segments_max: LIMITS.segments_max,
            ..ObjectOptions::default()
        };
        let server = ObjectServer::new(first, options);
        server.serve(listener, std::future::pending()).await;
    });
    let pieces: Vec<Bytes> = stream.chunks(step).map(Bytes::copy_from_slice).collect();
    world.block_on(client, say(pieces));
    world.run_for(OVER);
    assert!(peers.borrow().iter().all(ObjectPeer::has_ended));
    let names = names.borrow();
    assert!(names.as_ref().is_some_and(Names::is_empty));
    world.block_on(client, async {
        let client = ObjectClient::connect(address(), ObjectOptions::default()).await;
        let client = client.expect("the server goes on");
        let list = client.first::<name_service::Client>().list_request();
        let listed = within(Duration::from_secs(5), list.send().promise).await;
        assert!(listed.is_ok(), "others are served");
    });
}

async fn say(pieces: Vec<Bytes>) {
    let stream = TcpStream::connect(address()).await.expect("it listens");
    for piece in pieces {
        if stream.send(vec![piece]).await.is_err() {
            return;
        }
    }
    let mut answers = BytesMut::new();
    while let Ok(Ok(count)) = timeout(PATIENCE, stream.recv(&mut answers)).await {
        if count == 0 {
            return;
        }
        answers.clear();
    }
}
