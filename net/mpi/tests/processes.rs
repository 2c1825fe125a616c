//! Real processes under the launcher: messages by shared memory and by TCP, and jobs that end
//! badly. The ranks are this very program, asked for one test that does nothing without a launcher.

use std::process::{Command, Output};

use ringmill_mpi::job::Job;
use ringmill_mpi::op::Op;
use ringmill_mpi::world::{Communicator, Error};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_ringmill-mpirun");

/// Starts ranks of one of the programs below.
fn launch(arguments: &[&str], program: &str) -> Output {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(LAUNCHER);
    command
        .args(arguments)
        .arg(this)
        .args([program, "--exact", "--nocapture"]);
    command.output().unwrap()
}

fn launch_shell(arguments: &[&str], script: &str) -> Output {
    Command::new(LAUNCHER)
        .args(arguments)
        .args(["sh", "-c", script])
        .output()
        .unwrap()
}

fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let own = text
        .lines()
        .filter(|line| line.starts_with("ringmill-mpirun:"));
    own.collect::<Vec<&str>>().join("\n")
}

/// Whether this process is a rank; if it is not, programs do nothing.
fn is_rank() -> bool {
    Job::from_environment().unwrap() != Job::alone()
}

fn everything(world: &Communicator) -> Result<(), Error> {
    let (rank, size) = (world.rank(), world.size());
    for len in [0, 1, 100, 5_000, 20_000, 300_000, 3_000_000] {
        let next = (rank + 1) % size;
        let before = (rank + size - 1) % size;
        let sent = world.issend(next, 3, vec![rank as u8; len])?;
        let (bytes, status) = world.receive(None, Some(3), len)?;
        assert_eq!(status.source, Some(before));
        assert!(bytes.len() == len && bytes.iter().all(|byte| *byte == before as u8));
        world.wait(sent)?;
    }
    for count in [1, 1000, 100_000] {
        let mut numbers: Vec<i64> = (0..count).map(|at| at + i64::from(rank)).collect();
        world.all_reduce(&mut numbers, Op::Sum)?;
        let ranks = i64::from(size * (size - 1) / 2);
        let right = |(at, sum): (usize, &i64)| *sum == at as i64 * i64::from(size) + ranks;
        assert!(numbers.iter().enumerate().all(right));
        let mut told = vec![rank; count as usize];
        world.broadcast(size - 1, &mut told)?;
        assert!(told.iter().all(|number| *number == size - 1));
    }
    let parts: Vec<u32> = (0..size).map(|to| rank * 100 + to).collect();
    let expected: Vec<u32> = (0..size).map(|from| from * 100 + rank).collect();
    assert_eq!(world.all_to_all(&parts)?, expected);
    let half = world.split(Some(rank % 2), -rank.cast_signed())?.unwrap();
    let ranks = half.all_gather(&[rank])?;
    assert!(ranks.iter().all(|other| other % 2 == rank % 2) && ranks.is_sorted_by(|a, b| a > b));
    if rank == 0 {
        world.send(size - 1, 9, &[1; 10])?;
    }
    if rank == size - 1 {
        assert!(matches!(
            world.receive(Some(0), Some(9), 4),
            Err(Error::Truncated)
        ));
    }
    world.barrier()
}

#[test]
fn program_everything() {
    if is_rank() {
        let world = Communicator::join().unwrap();
        everything(&world).unwrap();
        world.leave().unwrap();
    }
}

#[test]
fn program_that_waits_for_rank_1() {
    if is_rank() {
        let world = Communicator::join().unwrap();
        if world.rank() == 1 {
            world.barrier().unwrap();
            // As if it were killed.
            let own = std::process::id().to_string();
            Command::new("kill").args(["-9", &own]).status().unwrap();
        }
        world.barrier().unwrap();
        let _ = world.receive(Some(1), None, 10);
        unreachable!("the launcher ends who waits");
    }
}

#[test]
fn program_that_just_goes() {
    if is_rank() {
        let world = Communicator::join().unwrap();
        if world.rank() == 0 {
            world.receive(Some(1), None, 10).unwrap();
        }
        std::process::exit(0);
    }
}

#[test]
fn ranks_of_one_host_talk_by_memory() {
    for ranks in ["1", "2", "3", "5"] {
        let output = launch(&["-n", ranks], "program_everything");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn ranks_of_several_hosts_talk_by_tcp() {
    for arguments in [
        &["-n", "3", "--only-tcp"][..],
        &["-n", "4", "--host", "127.0.0.1:2,127.0.0.2:2"],
    ] {
        let output = launch(arguments, "program_everything");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_killed_rank_ends_the_job_with_one_clear_line() {
    for arguments in [&["-n", "3"][..], &["-n", "3", "--only-tcp"]] {
        let output = launch(arguments, "program_that_waits_for_rank_1");
        let complaint = complaint(&output);
        // By TCP, the others may notice before the launcher does.
        let killed = complaint.contains("rank 1") && complaint.contains("killed by signal 9");
        let noticed = arguments.len() > 2 && complaint.contains("ended with exit code");
        assert!(killed || noticed, "{output:?}");
        assert_eq!(complaint.lines().count(), 1);
        assert!(!output.status.success());
    }
}

#[test]
fn a_rank_that_fails_or_just_goes_ends_the_job() {
    let output = launch_shell(
        &["-n", "3"],
        "test $RINGMILL_MPI_RANK != 2 || exit 7; exec sleep 100",
    );
    assert!(complaint(&output).contains("rank 2"), "{output:?}");
    assert_eq!(output.status.code(), Some(7));

    let output = launch(&["-n", "2"], "program_that_just_goes");
    assert!(
        complaint(&output).contains("without MPI_Finalize"),
        "{output:?}"
    );
}

#[test]
fn programs_that_know_nothing_of_mpi_run_too() {
    let output = launch_shell(
        &["-n", "3"],
        "echo $RINGMILL_MPI_RANK of $RINGMILL_MPI_SIZE",
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0 of 3", "1 of 3", "2 of 3"]);
    let output = Command::new(LAUNCHER)
        .args(["-n", "2", "/nowhere/at/all"])
        .output()
        .unwrap();
    assert!(complaint(&output).contains("cannot start"), "{output:?}");
}
