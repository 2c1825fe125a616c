//! Starts the ranks of a job, and ends them all when one of them fails.

mod hosts;
mod rendezvous;

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use crate::job;
use crate::shm::{self, Life, Region};
pub use hosts::{Host, HostError, parse as parse_hosts};
use hosts::{Places, deal};
use rendezvous::Rendezvous;

/// How often the ranks are looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How long ranks that are to end may take, before they are killed.
const GRACE: Duration = Duration::from_secs(2);

/// What is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many ranks.
    pub ranks: usize,
    /// Where; on this host if there are none.
    pub hosts: Vec<Host>,
    /// The program and its arguments.
    pub program: Vec<String>,
    /// Connections even between ranks of one host.
    pub only_tcp: bool,
    /// A folder for what ranks write, each into a file of its own; none: where we write.
    pub output: Option<PathBuf>,
}

/// Why a job ended badly.
#[derive(Debug, Error)]
pub enum Failure {
    /// It could not be started.
    #[error("cannot start the job: {0}")]
    Start(#[from] io::Error),
    /// The program could not be started.
    #[error("cannot start {0:?}: {1}")]
    Program(String, io::Error),
    /// A rank was killed.
    #[error("rank {rank} (process {process}) was killed by signal {signal}; the job is ended")]
    Signal {
        /// The rank.
        rank: usize,
        /// Its process.
        process: u32,
        /// The signal's number.
        signal: i32,
    },
    /// A rank said that it failed.
    #[error("rank {rank} (process {process}) ended with exit code {code}; the job is ended")]
    Code {
        /// The rank.
        rank: usize,
        /// Its process.
        process: u32,
        /// The code.
        code: i32,
    },
    /// A rank is gone without a word to the others.
    #[error("rank {rank} (process {process}) ended without MPI_Finalize; the job is ended")]
    Unfinished {
        /// The rank.
        rank: usize,
        /// Its process.
        process: u32,
    },
    /// Ranks did not find each other.
    #[error("ranks {0:?} have not called in time; the job is ended")]
    Missing(Vec<usize>),
}

impl Failure {
    /// The exit code that tells of it.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Signal { signal, .. } => u8::try_from(128 + signal).unwrap_or(255),
            Failure::Code { code, .. } => u8::try_from(*code).unwrap_or(1),
            _ => 1,
        }
    }
}

struct Running {
    rank: usize,
    child: Child,
    region: Rc<Region>,
    place: usize,
    ended: bool,
}

/// Runs a job to its end.
///
/// # Errors
/// The first failure of a rank, when all have ended.
pub fn launch(options: &Options) -> Result<(), Failure> {
    let places = deal(&options.hosts, options.ranks, options.only_tcp);
    let cookie = format!("{:016x}{:016x}", random()?, random()?);
    let rendezvous = match places.hosts() > 1 {
        true => Some(Rendezvous::start(options.ranks, cookie.clone())?),
        false => None,
    };
    let regions: io::Result<Vec<Rc<Region>>> = (0..places.hosts())
        .map(|host| Region::create(places.on(host).len()))
        .collect();
    let regions = regions?;
    let mut running: Vec<Running> = Vec::new();
    for rank in 0..options.ranks {
        let host = places.host_of(rank);
        let mut command = command(options, &places, rank, &cookie)?;
        command.env(job::MEMORY, regions[host].path());
        if let Some(rendezvous) = &rendezvous {
            command.env(job::LAUNCHER, rendezvous.address().to_string());
        }
        match command.spawn() {
            Ok(child) => running.push(Running {
                rank,
                child,
                region: regions[host].clone(),
                place: places
                    .on(host)
                    .iter()
                    .position(|at| *at == rank)
                    .unwrap_or(0),
                ended: false,
            }),
            Err(error) => {
                end(&mut running);
                return Err(Failure::Program(options.program[0].clone(), error));
            }
        }
    }
    let result = watch(&mut running, rendezvous.as_ref());
    end(&mut running);
    result
}

fn command(options: &Options, places: &Places, rank: usize, cookie: &str) -> io::Result<Command> {
    let mut command = Command::new(&options.program[0]);
    command
        .args(&options.program[1..])
        .env(job::RANK, rank.to_string())
        .env(job::SIZE, options.ranks.to_string())
        .env(job::HOSTS, places.as_list())
        .env(job::COOKIE, cookie)
        .env(job::ADDRESS, places.address_of(rank).to_string());
    // Where there are as many ranks as processors, each gets its own: the system would have two
    // share one for a while, and each of them wait for the other's turn. With processors to
    // spare, a program's threads may want them.
    if options.ranks > 1 && options.ranks == shm::processors() {
        command.env(job::PROCESSOR, rank.to_string());
    }
    if rank > 0 {
        command.stdin(Stdio::null());
    }
    if let Some(folder) = &options.output {
        std::fs::create_dir_all(folder)?;
        let file = File::create(folder.join(format!("rank-{rank}")))?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    Ok(command)
}

/// Waits until all have ended well, or the first has not.
fn watch(running: &mut [Running], rendezvous: Option<&Rendezvous>) -> Result<(), Failure> {
    loop {
        let mut alive = false;
        for rank in running.iter_mut().filter(|rank| !rank.ended) {
            match rank.child.try_wait()? {
                None => alive = true,
                Some(status) => {
                    rank.ended = true;
                    rank.judge(status)?;
                }
            }
        }
        if !alive {
            return Ok(());
        }
        if let Some(missing) = rendezvous.and_then(Rendezvous::missing) {
            return Err(Failure::Missing(missing));
        }
        thread::sleep(LOOK);
    }
}

impl Running {
    fn judge(&self, status: ExitStatus) -> Result<(), Failure> {
        let (rank, process) = (self.rank, self.child.id());
        if let Some(signal) = status.signal() {
            return Err(Failure::Signal {
                rank,
                process,
                signal,
            });
        }
        match status.code() {
            Some(0) if self.region.life(self.place) == Life::Running => {
                Err(Failure::Unfinished { rank, process })
            }
            Some(0) => Ok(()),
            code => Err(Failure::Code {
                rank,
                process,
                code: code.unwrap_or(1),
            }),
        }
    }
}

/// Ends all that still run: asks first, then kills.
fn end(running: &mut [Running]) {
    let until = Instant::now() + GRACE;
    for rank in running.iter().filter(|rank| !rank.ended) {
        if let Some(pid) = Pid::from_raw(rank.child.id().cast_signed()) {
            // It may have ended by itself, and is then a child that nobody waited for yet.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    while running.iter().any(|rank| !rank.ended) {
        let late = Instant::now() > until;
        for rank in running.iter_mut().filter(|rank| !rank.ended) {
            if late {
                let _ = rank.child.kill();
            }
            rank.ended = !matches!(rank.child.try_wait(), Ok(None));
        }
        thread::sleep(LOOK);
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
