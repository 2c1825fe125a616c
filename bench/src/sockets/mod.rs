//! `sockets`: an echo over TCP by several ways to it, each a server on the first processor, asked by
//! the same client on the second: requests per second, and the server's processor time for each.
//! Servers take turns, round after round; what counts are ratios.

#[expect(unsafe_code, reason = "the raw loop that the ring is measured against")]
mod bare;
mod client;
mod serve;

use std::collections::BTreeMap;
use std::time::Duration;

use ringmill_ring::RingConfig;
use serde_json::json;

use crate::Failure;
use crate::chart::Curve;
use crate::options::{Output, size, time};
use crate::report::{Report, grouped};
use client::Figures;
use serve::Server;
pub(crate) use serve::{Args as ServeArgs, run as serve};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
    /// Connections, with one request in flight on each
    #[arg(long, value_delimiter = ',', default_value = "1,1000,10000")]
    connections: Vec<usize>,
    /// Bytes of a request and of its answer
    #[arg(long, value_delimiter = ',', value_parser = size, default_value = "64,64k")]
    sizes: Vec<usize>,
    /// Which servers
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "bare,ring,owned,threads,std,tokio,compio"
    )]
    servers: Vec<Server>,
    /// How often each is measured; medians are told
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// For how long each time
    #[arg(long, default_value = "1s", value_parser = time)]
    duration: Duration,
}

/// Figures of all rounds by server.
type Rounds = BTreeMap<usize, Vec<Figures>>;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let title = format!(
        "sockets: an echo over loopback TCP, one request in flight on each connection; server and \
         client on a processor each; medians of {} rounds of {:?}",
        args.rounds, args.duration,
    );
    let mut report = Report::new("sockets", title);
    let mut curves: Vec<Curve> = args.servers.iter().map(|s| Curve::new(s.name())).collect();
    let mut levels = Vec::new();
    for &size in &args.sizes {
        for &connections in &args.connections {
            let rounds = level(&args, connections, size)?;
            tell(&mut report, &args, connections, size, &rounds);
            for (at, figures) in &rounds {
                let cost = median(figures, |f| f.cpu_us);
                if size == args.sizes[0] {
                    curves[*at].add(connections as f64, cost);
                }
                levels.push(json!({
                    "server": args.servers[*at].name(),
                    "connections": connections,
                    "size": size,
                    "requests_per_second": figures.iter().map(|f| f.rate).collect::<Vec<_>>(),
                    "cpu_us_per_request": figures.iter().map(|f| f.cpu_us).collect::<Vec<_>>(),
                    "p99_us": figures.iter().map(|f| f.p99_us).collect::<Vec<_>>(),
                    "memory": figures.iter().map(|f| f.memory).collect::<Vec<_>>(),
                }));
            }
        }
    }
    report.data("levels", json!(levels));
    curves.retain(|curve| !curve.is_empty());
    report.curves("connections", "server's µs of CPU per request", curves);
    let config = RingConfig {
        pin: false,
        ..RingConfig::default()
    };
    ringmill_ring::run(config, report.finish(&args.output)).map_err(Failure::new)?
}

fn level(args: &Args, connections: usize, size: usize) -> Result<Rounds, Failure> {
    let mut rounds = Rounds::new();
    for round in 0..args.rounds {
        let servers = args.servers.iter().enumerate();
        let mut order: Vec<_> = servers.filter(|(_, s)| s.serves(connections)).collect();
        // Nobody is always first.
        let count = order.len().max(1);
        order.rotate_left(round % count);
        for (at, server) in order {
            let figures = client::measure(*server, connections, size, args.duration)?;
            rounds.entry(at).or_default().push(figures);
        }
    }
    Ok(rounds)
}

fn tell(report: &mut Report, args: &Args, connections: usize, size: usize, rounds: &Rounds) {
    let servers = args.servers.iter();
    let tokio = servers.clone().position(|s| *s == Server::Tokio);
    let tokio = tokio.and_then(|at| rounds.get(&at));
    for (at, figures) in rounds {
        let (rate, cost) = (median(figures, |f| f.rate), median(figures, |f| f.cpu_us));
        // Each round beside its neighbour of the same round.
        let beside = |of: fn(&Figures) -> f64| match tokio {
            Some(tokio) => {
                let pairs = figures.iter().zip(tokio);
                format!("{:.2}", middle(pairs.map(|(a, b)| of(a) / of(b)).collect()))
            }
            None => "-".to_owned(),
        };
        let name = format!(
            "{} B, {} connections, {}",
            grouped(size as u64),
            grouped(connections as u64),
            args.servers[*at].name()
        );
        let shown = format!(
            "{:>9} requests/s (tokio x {}), {:>7.2} µs CPU each (tokio x {}), p50 {:.0} p99 {:.0} µs, {:.1} MiB",
            grouped(rate as u64),
            beside(|f| f.rate),
            cost,
            beside(|f| f.cpu_us),
            median(figures, |f| f.p50_us),
            median(figures, |f| f.p99_us),
            median(figures, |f| f.memory) / f64::from(1 << 20),
        );
        report.row(&name, shown);
    }
}

fn median(figures: &[Figures], of: fn(&Figures) -> f64) -> f64 {
    middle(figures.iter().map(of).collect())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
