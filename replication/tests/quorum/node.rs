//! One node: the quorum, its messages by TCP, and somebody who proposes commands.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use ringmill_replication::quorum::{
    Address, Links, Machine, OpenError, ProposeError, Quorum, SnapshotEntries,
};
use ringmill_ring::{ListenOptions, TcpListener, TcpStream, fs, random_u64, sleep, spawn};

use crate::history::Shared;

const PORT: u16 = 7000;
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The list of all commands, by index.
pub(crate) struct List {
    node: i32,
    history: Shared,
    state: RefCell<Vec<(u64, u64)>>,
}

impl Machine for List {
    fn apply(&self, index: u64, command: &Bytes) -> Bytes {
        let id = command.clone().get_u64();
        self.history.borrow_mut().on_applied(self.node, index, id);
        self.state.borrow_mut().push((index, id));
        command.clone()
    }

    fn snapshot(&self) -> Bytes {
        let mut out = BytesMut::new();
        for (index, id) in self.state.borrow().iter() {
            out.put_u64(*index);
            out.put_u64(*id);
        }
        out.freeze()
    }

    fn restore(&self, snapshot: &Bytes) -> io::Result<()> {
        let mut bytes = snapshot.clone();
        let mut state = Vec::new();
        while bytes.has_remaining() {
            state.push((bytes.get_u64(), bytes.get_u64()));
        }
        let mut history = self.history.borrow_mut();
        history.snapshots += 1;
        for (index, id) in &state {
            history.on_applied(self.node, *index, *id);
        }
        self.state.replace(state);
        Ok(())
    }
}

/// A connection for each message.
struct Tcp;

impl Links for Tcp {
    fn call(
        &self,
        _: i32,
        address: &Address,
        message: Bytes,
    ) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        let address = SocketAddr::new(address.host.parse().expect("an IP"), address.port);
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            send(&stream, message).await?;
            receive(&stream, &mut BytesMut::new()).await
        })
    }
}

async fn send(stream: &TcpStream, message: Bytes) -> io::Result<()> {
    let len = Bytes::copy_from_slice(&(message.len() as u32).to_be_bytes());
    stream.send(vec![len, message]).await
}

async fn receive(stream: &TcpStream, buf: &mut BytesMut) -> io::Result<Bytes> {
    loop {
        if let Some(mut len) = buf.get(..4) {
            let len = len.get_u32() as usize;
            assert!(len <= MESSAGE_BYTES_MAX, "a message is too long");
            if buf.len() >= 4 + len {
                buf.advance(4);
                return Ok(buf.split_to(len).freeze());
            }
        }
        if stream.recv(buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn serve(quorum: Quorum<List>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let quorum = quorum.clone();
        spawn(async move {
            let mut buf = BytesMut::new();
            while let Ok(message) = receive(&stream, &mut buf).await {
                let Ok(answer) = quorum.answer(message).await else {
                    return;
                };
                if send(&stream, answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// What a node does in its life.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) node: i32,
    pub(crate) nodes: i32,
    pub(crate) history: Shared,
    /// The first node begins alone and takes the others in.
    pub(crate) grows: bool,
    /// Between commands.
    pub(crate) pause: Duration,
    pub(crate) state: Rc<RefCell<BTreeMap<i32, Rc<List>>>>,
}

pub(crate) fn address(node: i32) -> Address {
    Address {
        host: format!("10.0.0.{node}"),
        port: PORT,
    }
}

/// Lives until the world ends it; or until the disk fails at the start.
pub(crate) async fn live(plan: Plan) -> Result<(), String> {
    let list = Rc::new(List {
        node: plan.node,
        history: Rc::clone(&plan.history),
        state: RefCell::default(),
    });
    plan.state.borrow_mut().insert(plan.node, Rc::clone(&list));
    let folder = Path::new("/data");
    fs::create_dir_all(folder)
        .await
        .map_err(|e| e.to_string())?;
    let snapshots = SnapshotEntries::default();
    let opened = Quorum::open(folder, plan.node, list, Rc::new(Tcp), true, snapshots).await;
    let quorum = opened.map_err(|error: OpenError| error.to_string())?;
    let bind = SocketAddr::new(address(plan.node).host.parse().expect("an IP"), PORT);
    let listener = TcpListener::bind(bind, ListenOptions::default()).await;
    let listener = listener.map_err(|e| e.to_string())?;
    spawn(serve(quorum.clone(), listener));
    spawn(watch(quorum.clone(), plan.clone()));
    if plan.node == 1 && quorum.is_new() {
        let first = if plan.grows { 1 } else { plan.nodes };
        let nodes = (1..=first).map(|node| (node, address(node))).collect();
        quorum.begin(nodes).await.map_err(|e| e.to_string())?;
    }
    if plan.node == 1 && plan.grows {
        spawn(grow(quorum.clone(), plan.nodes));
    }
    propose(quorum, plan).await
}

/// The first node of a quorum, nobody else being there.
pub(crate) async fn alone(is_settled: bool) -> Quorum<List> {
    let list = Rc::new(List {
        node: 1,
        history: Shared::default(),
        state: RefCell::default(),
    });
    let folder = Path::new("/data");
    fs::create_dir_all(folder).await.expect("a disk");
    let snapshots = SnapshotEntries::default();
    let opened = Quorum::open(folder, 1, list, Rc::new(Tcp), is_settled, snapshots).await;
    opened.expect("a journal")
}

/// Waits until the first node leads.
pub(crate) async fn wait_to_lead(quorum: &Quorum<List>) {
    let mut view = quorum.view();
    while view.leader != Some(1) {
        view = quorum.changed(&view).await.expect("it goes on");
    }
}

/// Takes everybody in, and tries until that is so.
async fn grow(quorum: Quorum<List>, nodes: i32) {
    let all: BTreeSet<i32> = (1..=nodes).collect();
    while quorum.view().voters != all {
        sleep(Duration::from_millis(50)).await;
        if quorum.view().leader != Some(1) {
            continue;
        }
        for node in 2..=nodes {
            let _ = quorum.add_observer(node, address(node)).await;
        }
        let _ = quorum.set_voters(all.clone()).await;
    }
}

async fn watch(quorum: Quorum<List>, plan: Plan) {
    let mut view = quorum.view();
    loop {
        if view.leader == Some(plan.node) {
            plan.history.borrow_mut().on_leader(view.term, plan.node);
        }
        match quorum.changed(&view).await {
            Ok(next) => view = next,
            Err(_) => return,
        }
    }
}

async fn propose(quorum: Quorum<List>, plan: Plan) -> Result<(), String> {
    loop {
        sleep(plan.pause + Duration::from_micros(random_u64() % 5_000)).await;
        if quorum.view().leader != Some(plan.node) {
            continue;
        }
        let id = plan.history.borrow_mut().fresh_id();
        let (quorum, history) = (quorum.clone(), Rc::clone(&plan.history));
        spawn(async move {
            let command = Bytes::copy_from_slice(&id.to_be_bytes());
            let proposed = quorum.propose(command.clone()).await;
            let mut history = history.borrow_mut();
            match proposed {
                Ok(answer) => {
                    assert_eq!(answer, command, "the machine's own answer");
                    history.acknowledged.insert(id);
                }
                Err(ProposeError::NotLeader(_) | ProposeError::Members(_)) => {
                    history.on_refused(id)
                }
                Err(ProposeError::Unknown | ProposeError::Ended) => {}
            }
        });
    }
}

impl List {
    pub(crate) fn last_index(&self) -> u64 {
        self.state.borrow().last().map_or(0, |(index, _)| *index)
    }

    pub(crate) fn state(&self) -> Vec<(u64, u64)> {
        self.state.borrow().clone()
    }
}
