//! What a rank learns from its launcher: by environment variables, and, where ranks are on
//! several hosts, by a call to the launcher that tells it everybody's address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{ListenOptions, TcpListener, TcpStream, timeout};
use thiserror::Error;

use crate::tcp::{Card, GREETING_TIME, Mesh, read_line};

/// Names of the variables.
pub const RANK: &str = "RINGMILL_MPI_RANK";
/// Ranks of the job.
pub const SIZE: &str = "RINGMILL_MPI_SIZE";
/// Each rank's host by number, with commas between them.
pub const HOSTS: &str = "RINGMILL_MPI_HOSTS";
/// The path of the shared memory of this host's ranks.
pub const MEMORY: &str = "RINGMILL_MPI_MEMORY";
/// The launcher's address, if there are several hosts.
pub const LAUNCHER: &str = "RINGMILL_MPI_LAUNCHER";
/// What only ranks of this job know.
pub const COOKIE: &str = "RINGMILL_MPI_COOKIE";
/// The address under which other hosts reach this one.
pub const ADDRESS: &str = "RINGMILL_MPI_ADDRESS";

/// The processor that the rank is to run on, by its number among those that are allowed.
pub const PROCESSOR: &str = "RINGMILL_MPI_PROCESSOR";

/// Ranks of a job, at most.
pub const RANKS_MAX: usize = 4096;
/// Bytes of the table of addresses for each rank, at most.
const ADDRESS_BYTES: usize = 64;

/// A job, as one of its ranks sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The own rank.
    pub rank: u32,
    /// Each rank's host by number.
    pub hosts: Vec<u32>,
    /// The path of the shared memory of this host's ranks.
    pub memory: Option<String>,
    /// The launcher's address.
    pub launcher: Option<SocketAddr>,
    /// What only ranks of this job know.
    pub cookie: String,
    /// The address under which other hosts reach this one.
    pub address: IpAddr,
    /// The processor to run on, by its number among those that are allowed.
    pub processor: Option<usize>,
}

/// The environment does not describe a job.
#[derive(Debug, Error)]
pub enum JobError {
    /// A variable is missing or wrong.
    #[error(
        "the environment variable {0} is missing or wrong; start programs with ringmill-mpirun"
    )]
    Variable(&'static str),
    /// The launcher did not say who is where.
    #[error("the launcher did not answer with the addresses of all ranks")]
    Launcher,
    /// A call of the system's failed.
    #[error("cannot join the job: {0}")]
    System(#[from] io::Error),
}

impl Job {
    /// A job of this process alone.
    pub fn alone() -> Job {
        Job {
            rank: 0,
            hosts: vec![0],
            memory: None,
            launcher: None,
            cookie: String::new(),
            address: IpAddr::from([127, 0, 0, 1]),
            processor: None,
        }
    }

    /// The job that the environment describes; alone, if it says nothing of a job.
    ///
    /// # Errors
    /// If it says something that makes no sense.
    pub fn from_environment() -> Result<Job, JobError> {
        Job::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Job, JobError> {
        let Some(rank) = get(RANK) else {
            return Ok(Job::alone());
        };
        let number = |name, text: Option<String>| -> Result<u32, JobError> {
            text.and_then(|text| text.parse().ok())
                .ok_or(JobError::Variable(name))
        };
        let rank = number(RANK, Some(rank))?;
        let size = number(SIZE, get(SIZE))?;
        let hosts = get(HOSTS).ok_or(JobError::Variable(HOSTS))?;
        let hosts: Result<Vec<u32>, _> = hosts.split(',').map(str::parse).collect();
        let hosts = hosts.map_err(|_| JobError::Variable(HOSTS))?;
        if hosts.len() != size as usize || hosts.len() > RANKS_MAX || rank >= size {
            return Err(JobError::Variable(SIZE));
        }
        let parsed = |name, text: Option<String>| match text {
            Some(text) => text.parse().map(Some).map_err(|_| JobError::Variable(name)),
            None => Ok(None),
        };
        let address = match get(ADDRESS) {
            Some(text) => text.parse().map_err(|_| JobError::Variable(ADDRESS))?,
            None => IpAddr::from([127, 0, 0, 1]),
        };
        Ok(Job {
            rank,
            hosts,
            memory: get(MEMORY),
            launcher: parsed(LAUNCHER, get(LAUNCHER))?,
            cookie: get(COOKIE).unwrap_or_default(),
            address,
            processor: get(PROCESSOR).and_then(|text| text.parse().ok()),
        })
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.hosts.len() as u32
    }

    /// Whether a rank is on this one's host.
    pub fn is_near(&self, rank: u32) -> bool {
        self.hosts[rank as usize] == self.hosts[self.rank as usize]
    }

    /// The ranks on this host, in order: their positions are their places in its memory.
    pub fn near(&self) -> Vec<u32> {
        (0..self.size())
            .filter(|rank| self.is_near(*rank))
            .collect()
    }

    /// Connects with the ranks on other hosts. The connection to the launcher is open as long as
    /// the job is.
    ///
    /// # Errors
    /// If the launcher or a rank is not reached in time.
    pub async fn join(&self) -> Result<(Mesh, TcpStream), JobError> {
        let launcher = self.launcher.ok_or(JobError::Variable(LAUNCHER))?;
        let listener =
            TcpListener::bind(SocketAddr::new(self.address, 0), ListenOptions::default());
        let listener = listener.await?;
        let own = listener.local_addr()?;
        let stream = TcpStream::connect(launcher).await?;
        let line = format!("ringmill-mpi 1 {} {} {own}\n", self.cookie, self.rank);
        stream.send(vec![Bytes::from(line)]).await?;
        let longest = ADDRESS_BYTES * (self.hosts.len() + 1);
        let answer = timeout(GREETING_TIME + MARGIN, read_line(&stream, longest)).await;
        let (line, _) = answer.ok().flatten().ok_or(JobError::Launcher)?;
        let addresses: Result<Vec<SocketAddr>, _> = line.split(' ').map(str::parse).collect();
        let addresses = addresses.map_err(|_| JobError::Launcher)?;
        if addresses.len() != self.hosts.len() {
            return Err(JobError::Launcher);
        }
        let far =
            |(rank, address): (usize, SocketAddr)| (!self.is_near(rank as u32)).then_some(address);
        let addresses = addresses.into_iter().enumerate().map(far).collect();
        let card = Card {
            rank: self.rank,
            cookie: self.cookie.clone(),
        };
        Ok((Mesh::connect(card, listener, addresses).await?, stream))
    }
}

/// The launcher gives up first, and knows who is missing.
const MARGIN: Duration = Duration::from_secs(5);

/// The launcher's side of [`Job::join`]: hears all ranks and tells everybody everybody's address.
/// The time runs from the first call on. The connections are to stay open.
///
/// # Errors
/// If not all have called in time: which have not.
pub async fn introduce(
    listener: &TcpListener,
    ranks: usize,
    cookie: &str,
) -> Result<Vec<TcpStream>, Vec<usize>> {
    let mut heard: Vec<Option<(String, TcpStream)>> = (0..ranks).map(|_| None).collect();
    let mut call = Some(listener.accept().await);
    let all = async {
        while heard.iter().any(Option::is_none) {
            let accepted = match call.take() {
                Some(first) => first,
                None => listener.accept().await,
            };
            let Ok((stream, _)) = accepted else { continue };
            let line = timeout(CALL_TIME, read_line(&stream, ADDRESS_BYTES * 4)).await;
            let Ok(Some((line, _))) = line else { continue };
            let words: Vec<&str> = line.split(' ').collect();
            if let ["ringmill-mpi", "1", given, rank, address] = words[..]
                && given == cookie
                && let Ok(rank) = rank.parse::<usize>()
                && rank < ranks
                && address.parse::<SocketAddr>().is_ok()
            {
                heard[rank] = Some((address.to_owned(), stream));
            }
        }
    };
    let _ = timeout(GREETING_TIME, all).await;
    let missing: Vec<usize> = (0..ranks).filter(|rank| heard[*rank].is_none()).collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let heard: Vec<(String, TcpStream)> = heard.into_iter().flatten().collect();
    let addresses: Vec<&str> = heard.iter().map(|(address, _)| address.as_str()).collect();
    let table = Bytes::from(format!("{}\n", addresses.join(" ")));
    for (_, stream) in &heard {
        // Whoever is gone again is missed by its peers.
        let _ = stream.send(vec![table.clone()]).await;
    }
    Ok(heard.into_iter().map(|(_, stream)| stream).collect())
}

/// How long a caller has to say who it is.
const CALL_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn job(variables: &[(&str, &str)]) -> Result<Job, JobError> {
        let find = |name: &str| variables.iter().find(|(given, _)| *given == name);
        Job::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_process_without_a_launcher_is_alone() {
        assert_eq!(job(&[]).unwrap(), Job::alone());
    }

    #[test]
    fn hosts_say_who_is_near() {
        let job = job(&[(RANK, "2"), (SIZE, "4"), (HOSTS, "0,1,1,0"), (MEMORY, "/x")]).unwrap();
        assert_eq!(job.near(), [1, 2]);
        assert!(!job.is_near(3));
        assert_eq!((job.rank, job.size()), (2, 4));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            &[(RANK, "2"), (SIZE, "2"), (HOSTS, "0,0")][..],
            &[(RANK, "0"), (SIZE, "3"), (HOSTS, "0,0")],
            &[(RANK, "0"), (SIZE, "1"), (HOSTS, "x")],
            &[(RANK, "-1"), (SIZE, "1"), (HOSTS, "0")],
            &[(RANK, "0"), (SIZE, "1")],
            &[
                (RANK, "0"),
                (SIZE, "1"),
                (HOSTS, "0"),
                (LAUNCHER, "nowhere"),
            ],
        ] {
            assert!(job(bad).is_err(), "{bad:?}");
        }
    }
}
