//! `limits`: what this machine could do at most, by the same ring that the broker uses: memory
//! copies, bytes and round trips between two cores over loopback TCP, bytes from the page cache to a
//! socket, sequential writes, and fdatasync by so many writers. What a broker does with the same
//! load can be told as a part of these.

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, File, ListenOptions, OpenOptions, RingConfig, Shutdown, TcpListener, TcpStream, now,
    yield_now,
};
use serde_json::json;

use crate::Failure;
use crate::disk::{self, Load, Mode};
use crate::options::{Output, time};
use crate::report::{Report, grouped};

/// Bytes of one copy: more than the caches hold.
const COPIED: usize = 64 << 20;
/// Bytes of one send, one write, and one piece of a file.
const PIECE: usize = 1 << 20;
/// Bytes of a file that is read from the page cache.
const CACHED: u64 = 256 << 20;
/// Bytes of a message that goes back and forth.
const MESSAGE: usize = 64;
/// A sequential write ends here at the latest.
const WRITTEN_MAX: u64 = 4 << 30;
/// What is written is flushed after so many bytes.
const FLUSH_EVERY: u64 = 64 << 20;
/// Bytes of each write that is flushed by itself.
const FLUSHED: usize = 4 << 10;
/// How many writers flush at once.
const WRITERS: [usize; 4] = [1, 4, 16, 64];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
    /// A folder on the disk to measure
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How long each is measured
    #[arg(long, default_value = "2s", value_parser = time)]
    duration: Duration,
}

/// What the machine did, per second.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limits {
    /// Bytes copied by one core.
    pub(crate) copied: f64,
    /// Bytes from one core to another over loopback TCP.
    pub(crate) streamed: f64,
    /// Messages back and forth over loopback TCP, one at a time.
    pub(crate) round_trips: f64,
    /// Bytes of a file in the page cache over loopback TCP.
    pub(crate) sent_from_file: f64,
    /// Bytes written one after the other, with their fdatasyncs.
    pub(crate) written: f64,
    /// Writes with an fdatasync of their own.
    pub(crate) flushes: Vec<Flushes>,
}

/// What so many writers that flush each of their writes come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Flushes {
    pub(crate) writers: usize,
    /// Per second, of all together.
    pub(crate) rate: f64,
    /// Milliseconds that the longest of them took: whoever promises to flush waits for that as well.
    pub(crate) longest_ms: f64,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let limits = measure(&args.dir, args.duration).await?;
    let mut report = Report::new(
        "limits",
        "limits: what this machine does at most".to_owned(),
    );
    limits.tell(&mut report);
    report.finish(&args.output).await
}

impl Limits {
    /// The rows and keys of a report.
    pub(crate) fn tell(&self, report: &mut Report) {
        let mut bytes = |name: &str, key: &str, value: f64| {
            let shown = format!("{:.2} GB/s", value / 1e9);
            report.figure(name, key, json!(value), shown);
        };
        bytes("memory copied by a core", "copied_bytes_s", self.copied);
        bytes("loopback TCP", "streamed_bytes_s", self.streamed);
        bytes(
            "page cache to a socket",
            "sent_from_file_bytes_s",
            self.sent_from_file,
        );
        bytes("written and flushed", "written_bytes_s", self.written);
        let shown = format!("{} /s", grouped(self.round_trips as u64));
        let key = "round_trips_s";
        report.figure("64 B there and back", key, json!(self.round_trips), shown);
        for flushes in &self.flushes {
            let writers = flushes.writers;
            let name = format!("fdatasync, {writers} writer(s)");
            let key = format!("flushes_s_{writers}");
            let (rate, longest) = (grouped(flushes.rate as u64), flushes.longest_ms);
            let shown = format!("{rate} /s, the longest {longest:.1} ms");
            report.figure(&name, &key, json!(flushes.rate), shown);
        }
    }
}

/// Measures all of them, each for so long, with files in a fresh folder within `dir`.
pub(crate) async fn measure(dir: &Path, duration: Duration) -> Result<Limits, Failure> {
    let mut flushes = Vec::new();
    for writers in WRITERS {
        let load = Load {
            dir: dir.to_owned(),
            writers,
            size: FLUSHED,
            duration,
            mode: Mode::Overwrite,
        };
        let gathered = disk::measure(&load).await?;
        let series = gathered.series();
        flushes.push(Flushes {
            writers,
            rate: per_second(series.records(), series.elapsed()),
            longest_ms: gathered.latencies().max() as f64 / 1e3,
        });
    }
    let folder = disk::Folder::make(dir).await?;
    let measured = async {
        Ok(Limits {
            copied: copied(duration).await,
            streamed: streamed(duration).await?,
            round_trips: round_trips(duration).await?,
            sent_from_file: sent_from_file(&folder.path().join("cached"), duration).await?,
            written: written(&folder.path().join("written"), duration).await?,
            flushes,
        })
    };
    let measured: io::Result<Limits> = measured.await;
    folder.remove().await?;
    measured.map_err(Failure::new)
}

fn per_second(done: u64, elapsed: Duration) -> f64 {
    done as f64 / elapsed.as_secs_f64().max(1e-9)
}

async fn copied(duration: Duration) -> f64 {
    let from = vec![0xa5_u8; COPIED];
    let mut to = vec![0_u8; COPIED];
    let (begun, mut bytes) = (now(), 0);
    while now() - begun < duration {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        bytes += COPIED as u64;
        // the core's clock goes on between turns
        yield_now().await;
    }
    per_second(bytes, now() - begun)
}

async fn streamed(duration: Duration) -> io::Result<f64> {
    let serve = async |stream: TcpStream| {
        let mut received = BytesMut::new();
        while stream.recv(&mut received).await? > 0 {
            received.clear();
        }
        Ok(())
    };
    with_server(serve, async |stream| {
        let piece = Bytes::from(vec![0xa5; PIECE]);
        let (begun, mut bytes) = (now(), 0);
        while now() - begun < duration {
            stream.send(vec![piece.clone()]).await?;
            bytes += PIECE as u64;
        }
        Ok(per_second(bytes, now() - begun))
    })
    .await
}

async fn round_trips(duration: Duration) -> io::Result<f64> {
    let serve = async |stream: TcpStream| {
        let mut received = BytesMut::new();
        while stream.recv(&mut received).await? > 0 {
            stream.send(vec![received.split().freeze()]).await?;
        }
        Ok(())
    };
    with_server(serve, async |stream| {
        let (message, mut received) = (Bytes::from_static(&[0xa5; MESSAGE]), BytesMut::new());
        let (begun, mut trips) = (now(), 0);
        while now() - begun < duration {
            stream.send(vec![message.clone()]).await?;
            received.clear();
            while received.len() < MESSAGE {
                if stream.recv(&mut received).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            trips += 1;
        }
        Ok(per_second(trips, now() - begun))
    })
    .await
}

async fn sent_from_file(path: &Path, duration: Duration) -> io::Result<f64> {
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = File::open(path, options).await?;
    let piece = Bytes::from(vec![0xa5; PIECE]);
    for at in (0..CACHED).step_by(PIECE) {
        file.write_at(at, vec![piece.clone()]).await?;
    }
    let (path, has_enough) = (path.to_owned(), Arc::new(AtomicBool::new(false)));
    let is_over = Arc::clone(&has_enough);
    let serve = async move |stream: TcpStream| {
        let file = File::open(&path, OpenOptions::new().read(true)).await?;
        for at in (0..CACHED).step_by(PIECE).cycle() {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            stream.send_file(&file, at, PIECE as u64).await?;
        }
        stream.shutdown(Shutdown::Write).await
    };
    with_server(serve, async |stream| {
        let (mut received, mut bytes) = (BytesMut::new(), 0);
        let (begun, mut rate) = (now(), None);
        loop {
            received.clear();
            let len = stream.recv(&mut received).await?;
            if len == 0 {
                return rate.ok_or(io::ErrorKind::UnexpectedEof.into());
            }
            bytes += len as u64;
            if rate.is_none() && now() - begun >= duration {
                rate = Some(per_second(bytes, now() - begun));
                has_enough.store(true, Ordering::Relaxed);
            }
        }
    })
    .await
}

async fn written(path: &Path, duration: Duration) -> io::Result<f64> {
    let file = File::open(path, OpenOptions::new().write(true).create(true)).await?;
    let piece = Bytes::from(vec![0xa5; PIECE]);
    let (begun, mut bytes) = (now(), 0);
    while now() - begun < duration && bytes < WRITTEN_MAX {
        file.write_at(bytes, vec![piece.clone()]).await?;
        bytes += PIECE as u64;
        if bytes.is_multiple_of(FLUSH_EVERY) {
            file.sync_data().await?;
        }
    }
    file.sync_data().await?;
    Ok(per_second(bytes, now() - begun))
}

/// A connection to a server on a core of its own; what is asked of it ends before the server does.
async fn with_server<S, F, A>(serve: S, ask: A) -> io::Result<f64>
where
    S: FnOnce(TcpStream) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<()>>,
    A: AsyncFnOnce(&TcpStream) -> io::Result<f64>,
{
    let (tell, told) = mpsc::channel::<SocketAddr>();
    let server = Cores::new(1).launch(RingConfig::default(), move |_| {
        let (serve, tell) = (serve.clone(), tell.clone());
        async move {
            let any = (Ipv4Addr::LOCALHOST, 0).into();
            let listener = TcpListener::bind(any, ListenOptions::default()).await?;
            // the one that asked waits for this
            let _ = tell.send(listener.local_addr()?);
            let (stream, _) = listener.accept().await?;
            serve(stream).await
        }
    })?;
    let asked = match told.recv() {
        Ok(address) => {
            let stream = TcpStream::connect(address).await?;
            let asked = ask(&stream).await;
            // the server's core is waited for by this thread, which closes nothing meanwhile
            stream.shutdown(Shutdown::Write).await?;
            asked
        }
        Err(_) => Err(io::ErrorKind::NotConnected.into()),
    };
    let served: io::Result<Vec<()>> = server.join()?.into_iter().collect();
    served.and(asked)
}
