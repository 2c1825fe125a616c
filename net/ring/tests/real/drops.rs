//! Futures dropped at random moments, of every kind of operation, while what they work on is
//! checked: no byte is lost, moved or overwritten, no descriptor stays open.
//!
//! The moments come from a seed, which a failure prints; `RINGMILL_SEED` runs it again (as far
//! as the kernel's own timing allows).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, File, JoinHandle, ListenOptions, Notify, OpenOptions, TcpListener, TcpStream, UdpSocket,
    UnixDatagram, UnixListener, UnixStream, fs, sleep, spawn, timeout,
};

use super::{alone, any, folder, pattern, ring};

/// Rounds of each kind of operation.
const ROUNDS: usize = 300;

/// Where the moments come from.
#[derive(Clone)]
struct Chance(Rc<Cell<u64>>);

impl Chance {
    fn below(&self, limit: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x % limit
    }

    /// Runs a future for a random short time; None if it was dropped.
    async fn maybe<F: Future>(&self, future: F) -> Option<F::Output> {
        // Often before the first completion can come, sometimes long after it.
        let limit = match self.below(4) {
            0 => Duration::ZERO,
            1 => Duration::from_micros(self.below(20)),
            2 => Duration::from_micros(self.below(200)),
            _ => Duration::from_millis(self.below(5)),
        };
        timeout(limit, future).await.ok()
    }
}

/// Prints the seed when a test fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with RINGMILL_SEED={}", self.0);
        }
    }
}

/// Memory of the size of a dropped operation's buffer, allocated right after the drop: were the
/// buffer freed, this would lie in its place, and the kernel would write into it.
#[derive(Default)]
struct Canaries(RefCell<VecDeque<Vec<u8>>>);

impl Canaries {
    fn add(&self, len: usize) {
        let mut all = self.0.borrow_mut();
        all.push_back(vec![0xA5; len]);
        if all.len() > 32 {
            let old = all.pop_front().unwrap();
            assert!(
                old.iter().all(|byte| *byte == 0xA5),
                "freed memory was written"
            );
        }
    }
}

async fn reads(chance: Chance, file: File, content: Bytes) {
    let canaries = Canaries::default();
    for _ in 0..ROUNDS {
        let at = chance.below(1 << 19) as usize;
        let len = 1 + chance.below(200_000) as usize;
        let into = BytesMut::from(&b"before"[..]);
        match chance.maybe(file.read_into(at as u64, into, len)).await {
            Some((count, buf)) => {
                assert_eq!(count.unwrap(), len);
                assert!(buf[..6] == *b"before" && buf[6..] == content[at..at + len]);
            }
            None => canaries.add(len + 6),
        }
    }
}

/// A write that was begun is done, wholly or not at all begun: its buffer must live till then.
async fn writes(chance: Chance, dir: PathBuf, content: Bytes) {
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = File::open(dir.join("written"), options).await.unwrap();
    let len = 20_000;
    file.set_len((ROUNDS * len) as u64).await.unwrap();
    for round in 0..ROUNDS {
        let bufs: Vec<Bytes> = (0..4)
            .map(|part| Bytes::from(content[round..][part * 5_000..][..5_000].to_vec()))
            .collect();
        let offset = (round * len) as u64;
        let done = match chance.below(2) {
            0 => chance.maybe(file.write_at(offset, bufs)).await,
            _ => chance.maybe(file.write_at_sync(offset, bufs)).await,
        };
        done.unwrap_or(Ok(())).unwrap();
        let _ = chance.maybe(file.sync_data()).await;
        let _ = chance.maybe(file.metadata()).await;
        let _ = chance.maybe(file.allocate(offset, 100)).await;
    }
    // What the kernel still has is done before the ring gives the file back.
    drop(file);
    sleep(Duration::from_millis(100)).await;
    let back = std::fs::read(dir.join("written")).unwrap();
    for (round, part) in back.chunks(len).enumerate() {
        let whole = part == &content[round..][..len];
        let none = part.iter().all(|byte| *byte == 0);
        assert!(
            whole || none,
            "write {round} was torn or took another's bytes"
        );
    }
}

async fn names(chance: Chance, dir: PathBuf) {
    for round in 0..ROUNDS {
        let name = dir.join(format!("name-{}", round % 7));
        let other = dir.join(format!("other-{}", round % 5));
        let options = OpenOptions::new().write(true).create(true);
        match chance.below(8) {
            0 => drop(chance.maybe(File::open(&name, options)).await),
            1 => drop(chance.maybe(fs::rename(&name, &other)).await),
            2 => drop(chance.maybe(fs::remove_file(&other)).await),
            3 => drop(chance.maybe(fs::create_dir_all(dir.join("a/b/c"))).await),
            4 => drop(chance.maybe(fs::remove_dir_all(dir.join("a"))).await),
            5 => drop(chance.maybe(fs::sync_dir(&dir)).await),
            6 => drop(chance.maybe(fs::metadata(&name)).await),
            _ => {
                let content = vec![Bytes::from_static(b"whole")];
                drop(chance.maybe(fs::write_atomic(&name, content)).await);
            }
        }
    }
}

/// Receives that are dropped must not lose a byte, nor take one twice.
async fn receives(chance: Chance, content: Bytes) {
    let listener = UnixListener::bind(folder("drops-unix").join("s"));
    let listener = listener.await.unwrap();
    let path =
        std::env::temp_dir().join(format!("ringmill-ring-drops-unix-{}", std::process::id()));
    let connecting = spawn(UnixStream::connect(path.join("s")));
    let server = listener.accept().await.unwrap();
    let client = connecting.await.unwrap().unwrap();
    let sent = content.clone();
    let sender = spawn(async move {
        for chunk in sent.chunks(3_333) {
            server.send(vec![sent.slice_ref(chunk)]).await.unwrap();
        }
    });
    let mut got = BytesMut::new();
    let mut split = BytesMut::new();
    while got.len() + split.len() < content.len() {
        let _ = chance.maybe(client.recv(&mut split)).await;
        // The caller's buffer changes between the calls, as a reader of frames changes it.
        match chance.below(3) {
            0 => got.extend_from_slice(&split.split()),
            1 => got.extend_from_slice(&split.split_to(split.len() / 2)),
            _ => {}
        }
    }
    got.extend_from_slice(&split);
    assert!(got == content, "the stream is not what was sent");
    sender.await.unwrap();
}

/// The same into buffers of the caller's own, and by both ways in turn.
async fn owned_receives(chance: Chance, content: Bytes) {
    let (client, server) = UnixStream::pair().unwrap();
    let sent = content.clone();
    let sender = spawn(async move {
        for chunk in sent.chunks(3_333) {
            server.send(vec![sent.slice_ref(chunk)]).await.unwrap();
        }
    });
    let canaries = Canaries::default();
    let mut got = BytesMut::new();
    while got.len() < content.len() {
        if chance.below(100) == 0 {
            let _ = chance.maybe(client.recv(&mut got)).await;
            continue;
        }
        let room = 1 + chance.below(5_000) as usize;
        let own = BytesMut::with_capacity(room);
        match chance.maybe(client.recv_owned(own)).await {
            Some((count, own)) => {
                assert_eq!(count.unwrap(), own.len());
                got.extend_from_slice(&own);
            }
            None => canaries.add(room),
        }
    }
    assert!(got == content, "the stream is not what was sent");
    sender.await.unwrap();
}

/// Whatever was sent when a send was dropped, it is a beginning of what was to be sent.
async fn sends(chance: Chance, file: File, content: Bytes) {
    let listener = TcpListener::bind(any(), ListenOptions::default())
        .await
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let copied = |part: &[u8]| Bytes::from(part.to_vec());
    let canaries = Canaries::default();
    for _ in 0..ROUNDS / 4 {
        let connecting = spawn(TcpStream::connect(addr));
        let (server, _) = listener.accept().await.unwrap();
        let client = connecting.await.unwrap().unwrap();
        let len = 1 + chance.below(1 << 20) as usize;
        let end = match chance.below(5) {
            0 => chance.maybe(server.send(vec![content.slice(..len)])).await,
            // Memory that is freed at once if nobody else has it, and used again.
            2 | 3 => {
                let (a, b) = (copied(&content[..len / 2]), copied(&content[len / 2..len]));
                let end = chance.maybe(server.send_zero_copy(vec![a, b])).await;
                canaries.add(len / 2);
                end
            }
            1 => {
                let (a, b) = (content.slice(..len / 2), content.slice(len / 2..len));
                chance.maybe(server.send(vec![a, b])).await
            }
            _ => chance.maybe(server.send_file(&file, 0, len as u64)).await,
        };
        drop(server);
        let mut got = BytesMut::new();
        while client.recv(&mut got).await.is_ok_and(|count| count > 0) {}
        assert!(content.starts_with(&got), "not a beginning");
        if let Some(sent) = end {
            sent.unwrap();
            assert_eq!(got.len(), len);
        }
    }
}

/// Accepts that are dropped lose no connection.
async fn connections(chance: Chance) {
    let listener = TcpListener::bind(any(), ListenOptions::default())
        .await
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let mut expected: Vec<TcpStream> = Vec::new();
    let mut accepted = Vec::new();
    for _ in 0..ROUNDS {
        match chance.below(3) {
            0 => expected.push(TcpStream::connect(addr).await.unwrap()),
            1 => drop(chance.maybe(TcpStream::connect(addr)).await),
            _ => {
                if let Some(stream) = chance.maybe(listener.accept()).await {
                    accepted.push(stream.unwrap().1);
                }
            }
        }
    }
    while let Ok(stream) = timeout(Duration::from_millis(200), listener.accept()).await {
        accepted.push(stream.unwrap().1);
    }
    for stream in expected {
        let addr = stream.local_addr().unwrap();
        assert!(
            accepted.contains(&addr),
            "the connection of {addr} was lost"
        );
    }
}

async fn datagrams(chance: Chance) {
    let (a, b) = (
        UdpSocket::bind(any()).await.unwrap(),
        UdpSocket::bind(any()).await.unwrap(),
    );
    let to = b.local_addr().unwrap();
    let canaries = Canaries::default();
    for round in 0..ROUNDS {
        let sent = pattern(1 + chance.below(1500) as usize, round as u64);
        drop(chance.maybe(a.send_to(vec![sent], to)).await);
        match chance
            .maybe(b.recv_from(BytesMut::with_capacity(2048)))
            .await
        {
            Some((got, buf)) => {
                let (count, from) = got.unwrap();
                assert_eq!((count, from), (buf.len(), a.local_addr().unwrap()));
            }
            None => canaries.add(2048),
        }
    }
}

/// Unix datagrams: none is lost that was sent, and none comes that was not.
async fn messages(chance: Chance, dir: PathBuf) {
    // An earlier round may have left it.
    let _ = fs::remove_file(dir.join("datagrams")).await;
    let receiver = UnixDatagram::bind(dir.join("datagrams")).await.unwrap();
    let sender = UnixDatagram::unbound().await.unwrap();
    sender.connect(dir.join("datagrams")).await.unwrap();
    let canaries = Canaries::default();
    let (mut sent, mut doubtful, mut got) = (0_usize, 0, 0);
    for round in 0..ROUNDS {
        let message = pattern(1 + chance.below(1500) as usize, round as u64);
        match chance.maybe(sender.send(vec![message])).await {
            Some(done) => sent += usize::from(done.is_ok()),
            // Given up, and sent all the same or not.
            None => doubtful += 1,
        }
        match chance
            .maybe(receiver.recv(BytesMut::with_capacity(2048)))
            .await
        {
            Some((count, buf)) => {
                assert_eq!(count.unwrap(), buf.len());
                got += 1;
            }
            // Given up, and perhaps taken with its message.
            None => {
                doubtful += 1;
                canaries.add(2048);
            }
        }
    }
    let rest = receiver.recv(BytesMut::with_capacity(2048));
    let mut rest = timeout(Duration::from_millis(50), rest).await;
    while let Ok((count, _)) = rest {
        count.unwrap();
        got += 1;
        let next = receiver.recv(BytesMut::with_capacity(2048));
        rest = timeout(Duration::from_millis(50), next).await;
    }
    assert!(
        sent.abs_diff(got) <= doubtful,
        "{got} of {sent}, {doubtful}"
    );
}

/// Tasks that are aborted in the middle of anything, rings of bells and mailboxes among it.
async fn aborts(chance: Chance, file: File) {
    let ports = Cores::new(1).mesh::<u64>(2);
    let port = Rc::new(ports.into_iter().next().unwrap());
    let bell = Rc::new(Notify::new());
    let mut tasks: VecDeque<JoinHandle<()>> = VecDeque::new();
    for round in 0..ROUNDS {
        let (file, to, rung) = (file.clone(), port.clone(), bell.clone());
        let kind = chance.below(4);
        tasks.push_back(spawn(async move {
            match kind {
                0 => drop(file.read_at(0, 1 << 20).await),
                1 => to.send(0, round as u64).await,
                2 => rung.notified().await,
                _ => sleep(Duration::from_micros(round as u64)).await,
            }
        }));
        sleep(Duration::from_micros(chance.below(50))).await;
        match chance.below(3) {
            0 => bell.notify_one(),
            1 => drop(port.try_recv()),
            _ => {}
        }
        if tasks.len() > 10 {
            tasks.pop_front().unwrap().abort();
        }
    }
    for task in tasks {
        task.abort();
    }
    // Nobody who waited in vain blocks those who come after.
    while port.try_recv().is_some() {}
    timeout(Duration::from_secs(10), port.send(0, 7))
        .await
        .unwrap();
    assert_eq!(
        timeout(Duration::from_secs(10), port.recv()).await,
        Ok((0, 7))
    );
    let rung = bell.notified();
    bell.notify_all();
    timeout(Duration::from_secs(10), rung).await.unwrap();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn all(chance: Chance, dir: &Path, content: Bytes) {
    let options = OpenOptions::new().read(true);
    let file = File::open(dir.join("f"), options).await.unwrap();
    let tasks = [
        spawn(reads(chance.clone(), file.clone(), content.clone())),
        spawn(writes(chance.clone(), dir.to_owned(), content.clone())),
        spawn(names(chance.clone(), dir.to_owned())),
        spawn(receives(chance.clone(), content.clone())),
        spawn(owned_receives(chance.clone(), content.clone())),
        spawn(sends(chance.clone(), file.clone(), content.clone())),
        spawn(connections(chance.clone())),
        spawn(datagrams(chance.clone())),
        spawn(messages(chance.clone(), dir.to_owned())),
        spawn(aborts(chance.clone(), file)),
    ];
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn futures_of_every_kind_dropped_at_random_harm_nothing() {
    alone(
        "drops::futures_of_every_kind_dropped_at_random_harm_nothing",
        || {
            let given = std::env::var("RINGMILL_SEED")
                .ok()
                .and_then(|seed| seed.parse().ok());
            let seed = given.unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + 1);
            let _replay = Replay(seed);
            let dir = folder("drops");
            let content = pattern(1 << 20, 11);
            std::fs::write(dir.join("f"), &content).unwrap();
            let before = descriptors();
            for round in 0..3 {
                let chance = Chance(Rc::new(Cell::new(seed + round)));
                let all = timeout(Duration::from_secs(60), all(chance, &dir, content.clone()));
                ring(all).expect("somebody waits for what was lost");
                assert_eq!(descriptors(), before, "descriptors were left open");
            }
        },
    );
}
