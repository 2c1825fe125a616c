//! One measure: a server as a process, the load, and what the server's threads took for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringmill_ring::socket::TcpStream;

use super::bare;
use super::serve::Server;
use crate::Failure;
use crate::process;

/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(400);
/// How long anything of the preparation may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one measure came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Microseconds of the server's processor time for one.
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Bytes that the server has at the end.
    pub(crate) memory: f64,
}

/// A server that ends with its measure.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn measure(
    server: Server,
    connections: usize,
    size: usize,
    duration: Duration,
) -> Result<Figures, Failure> {
    let (running, port) = start(server, size)?;
    let pid = running.0.id();
    if let Some(second) = core_affinity::get_core_ids().unwrap_or_default().get(1) {
        core_affinity::set_for_current(*second);
    }
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        streams.push(connect(port)?);
    }
    check(&streams[0], size).map_err(Failure::new)?;
    let fds: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
    let mut used = Vec::new();
    let seen = bare::request(&fds, size, WARM_UP, duration, || {
        used.push(process::thread_time(pid));
    });
    let seen = seen.map_err(|e| Failure::new(format!("{}: {e}", server.name())))?;
    let memory = process::resident(pid)? as f64;
    let cpu: Vec<Duration> = used.into_iter().collect::<Result<_, _>>()?;
    let [before, after] = cpu[..] else {
        return Err(Failure::new("a measure has a beginning and an end"));
    };
    let requests = seen.requests.max(1) as f64;
    let percentile = |p| seen.latencies.value_at_percentile(p) as f64;
    Ok(Figures {
        rate: seen.requests as f64 / seen.elapsed.as_secs_f64(),
        cpu_us: (after - before).as_secs_f64() * 1e6 / requests,
        p50_us: percentile(50.0),
        p99_us: percentile(99.0),
        memory,
    })
}

fn start(server: Server, size: usize) -> Result<(Running, u16), Failure> {
    let program = std::env::current_exe().map_err(Failure::new)?;
    let name = clap::ValueEnum::to_possible_value(&server).expect("no server is hidden");
    let mut child = Command::new(program)
        .args(["sockets-serve", name.get_name(), &size.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Failure::new)?;
    let stdout = child.stdout.take().expect("piped");
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .map_err(Failure::new)?;
    let port = line.trim().parse();
    let port = port.map_err(|_| Failure::new(format!("{} does not start", server.name())))?;
    Ok((running, port))
}

/// A connection whose end leaves nothing behind: tens of thousands of addresses would wait.
fn connect(port: u16) -> Result<TcpStream, Failure> {
    let addr = (Ipv4Addr::LOCALHOST, port).into();
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(Failure::new)?;
    let reset = stream.set_linger(Some(Duration::ZERO));
    reset.map_err(Failure::new)?;
    Ok(stream)
}

/// The server is one: what it sends back is what it got.
fn check(stream: &TcpStream, size: usize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent: Vec<u8> = (0..size).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut back = vec![0; size];
    let (mut writer, mut reader) = (stream, stream);
    writer.write_all(&sent)?;
    reader.read_exact(&mut back)?;
    match back == sent {
        true => Ok(()),
        false => Err(std::io::Error::other("the answer is not the question")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each server in this process, asked by plain sockets.
    #[test]
    fn the_load_counts_what_a_server_answers() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || bare::serve(listener, 64));
        for size in [64, 100_000] {
            let streams: Vec<_> = (0..20).map(|_| connect(port).unwrap()).collect();
            for stream in &streams {
                check(stream, size).unwrap();
            }
            let fds: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
            let (mut calls, short) = (0, Duration::from_millis(50));
            let seen = bare::request(&fds, size, short, short, || calls += 1).unwrap();
            assert_eq!(calls, 2);
            assert!(seen.requests > 0 && seen.latencies.len() == seen.requests);
        }
    }
}
