//! How each fault comes about, and goes.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::cluster::Cluster;
use super::fault::Fault;
use super::network::nodes_after;
use super::{PARTITIONS, PATIENCE, TOPIC};

/// How long a node is away.
const AWAY: Duration = Duration::from_secs(4);
/// How long a disk is full: until the room that partitions have taken ahead is used up as well.
const FULL: Duration = Duration::from_secs(20);
/// How far clocks are off: more than any time-out, less than what anything is kept for.
const OFF: i64 = 2 * 60 * 60;

/// Strikes, waits, and makes good.
pub(super) fn strike(cluster: &mut Cluster, fault: Fault, victim: u8) -> io::Result<()> {
    match fault {
        Fault::Kill | Fault::Pair => {
            let struck = fault.struck(victim);
            for node in &struck {
                cluster.kill(*node)?;
            }
            pause();
            cluster.start_nodes(&struck)
        }
        Fault::Shutdown => {
            cluster.stop(victim)?;
            pause();
            cluster.start_node(victim)
        }
        Fault::Pause => {
            cluster.signal(victim, "-STOP")?;
            pause();
            cluster.signal(victim, "-CONT")
        }
        Fault::Isolation => {
            cluster.network.set_link(victim, false)?;
            pause();
            cluster.network.set_link(victim, true)
        }
        Fault::Mute | Fault::Deaf | Fault::Split => {
            set_ways(cluster, fault, victim, false)?;
            pause();
            set_ways(cluster, fault, victim, true)
        }
        Fault::Roll => roll(cluster, fault.nodes()),
        Fault::Full => {
            cluster.disk(victim)?.fill()?;
            std::thread::sleep(FULL);
            cluster.disk(victim)?.free()
        }
        Fault::PowerCut | Fault::Blackout => {
            let struck = fault.struck(victim);
            cluster.cut_power(&struck)?;
            pause();
            cluster.start_nodes(&struck)
        }
        Fault::Clocks => set_clocks(cluster, victim, fault.nodes()),
        Fault::Emptied => {
            cluster.kill(victim)?;
            cluster.empty(victim)?;
            pause();
            cluster.start_node(victim)
        }
        Fault::Replaced => replace(cluster, victim, fault.machines()),
        Fault::Grown => grow(cluster, fault.machines()),
    }
}

fn pause() {
    std::thread::sleep(AWAY);
}

fn set_ways(cluster: &Cluster, fault: Fault, victim: u8, open: bool) -> io::Result<()> {
    for other in cluster.network.others(victim) {
        if fault != Fault::Deaf {
            cluster.network.set_way(victim, other, open)?;
        }
        if fault != Fault::Mute {
            cluster.network.set_way(other, victim, open)?;
        }
    }
    Ok(())
}

fn roll(cluster: &mut Cluster, nodes: u8) -> io::Result<()> {
    for node in 1..=nodes {
        cluster.stop(node)?;
        cluster.start_node(node)?;
        let _ = cluster.wait_in_sync(TOPIC, PATIENCE)?;
    }
    Ok(())
}

/// Two clocks jump, and jump back; the one that is ahead has to be seen in what its node stamped.
fn set_clocks(cluster: &mut Cluster, victim: u8, nodes: u8) -> io::Result<()> {
    let struck: Vec<u8> = nodes_after(victim, nodes).take(2).collect();
    for (node, off) in struck.iter().zip([OFF, -OFF]) {
        cluster.clock(*node)?.set(off)?;
    }
    pause();
    for node in &struck {
        cluster.clock(*node)?.set(0)?;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.map_err(io::Error::other)?.as_millis() as i64;
    let ahead = now + OFF * 500;
    let leaders = cluster.wait_in_sync(TOPIC, PATIENCE)?;
    for partition in 0..PARTITIONS {
        let leader = leaders.get(&partition).map_or(1, |seen| seen.leader);
        let found = cluster.client(leader)?.offset_for(TOPIC, partition, ahead);
        if found.map_err(io::Error::other)? >= 0 {
            return Ok(());
        }
    }
    Err(io::Error::other(
        "no record has a time ahead: the clock was not believed",
    ))
}

/// A node is gone for good; a new one gets its copies.
fn replace(cluster: &mut Cluster, victim: u8, new: u8) -> io::Result<()> {
    cluster.kill(victim)?;
    cluster.empty(victim)?;
    pause();
    cluster.start_node(new)?;
    let (from, to) = (victim.to_string(), new.to_string());
    cluster.administer(&["cluster", "move", "--from", &from, "--to", &to])?;
    cluster.wait_moved(PATIENCE)?;
    cluster.leave(victim)
}

/// A node joins, and half of the topic's partitions move to it; so it leads some of them.
fn grow(cluster: &mut Cluster, new: u8) -> io::Result<()> {
    cluster.start_node(new)?;
    let nodes = format!("{new},2,3");
    let mut words = vec!["topic", "reassign", TOPIC, "--nodes", &nodes];
    let moved: Vec<String> = (0..PARTITIONS / 2)
        .map(|p| format!("--partition={p}"))
        .collect();
    words.extend(moved.iter().map(String::as_str));
    cluster.administer(&words)?;
    cluster.wait_moved(PATIENCE)
}
