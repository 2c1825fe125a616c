//! The page of a comparison: tables, charts, and how it was measured.

use std::fmt::Write;
use std::path::Path;

use super::results::{Figure, Measured, number};
use super::{Args, by_work, title};
use crate::Failure;
use crate::bars::Bars;
use crate::chart::{Comparison, Curve};
use crate::limits::Limits;
use crate::report::{Report, write as write_file};

/// A figure of all systems: the first as it is, the others beside it.
pub(super) fn cells(works: &[Measured], figure: &Figure) -> Vec<String> {
    let one = works.first().map_or(0.0, figure.of);
    let cell = |(at, measured): (usize, &Measured)| {
        let value = (figure.of)(measured);
        let (system, shown, unit) = (&measured.system, number(value), figure.unit);
        match at == 0 || one == 0.0 {
            true => format!("{system} {shown}{unit}"),
            false => format!("{system} {shown}{unit} (×{})", number(value / one)),
        }
    };
    works.iter().enumerate().map(cell).collect()
}

/// How far each is from what the machine would allow.
pub(super) fn distance(works: &[Measured], limits: &Limits) -> Option<(String, Vec<String>)> {
    let (name, most) = works.first()?.bound(limits)?;
    let share = |measured: &Measured| {
        let share = measured.records_per_second() / most.max(1e-9);
        format!("{} {}", measured.system, number(share))
    };
    let shares = works.iter().map(share).collect();
    Some((format!("of what {name} allows"), shares))
}

/// The latency that one record in so many has, or more.
pub(super) fn curves(
    all: &[Measured],
    name: impl Fn(&Measured) -> String,
) -> Result<Vec<Curve>, Failure> {
    let mut curves = Vec::new();
    for measured in all {
        let Some(latencies) = measured.latencies()? else {
            continue;
        };
        let mut curve = Curve::new(&name(measured));
        for step in latencies.iter_quantiles(4) {
            let left = 1.0 - step.quantile_iterated_to();
            if left <= 0.0 || 1.0 / left > latencies.len() as f64 {
                break;
            }
            curve.add(1.0 / left, step.value_iterated_to() as f64 / 1e3);
        }
        curves.push(curve);
    }
    Ok(curves)
}

/// A chart that the page shows.
struct Chart {
    /// Which of the page's charts it is.
    file: String,
    title: String,
    svg: String,
}

fn charts(args: &Args, all: &[Measured]) -> Result<Vec<Chart>, Failure> {
    let races = || by_work(all).filter(|works| works.first().is_some_and(Measured::is_race));
    let bars = |title: &str, of: fn(&Measured) -> f64| {
        let mut bars = Bars::new(args.systems.iter().map(|s| s.name.clone()).collect());
        for works in races() {
            let values = args.systems.iter().map(|system| {
                let measured = works.iter().find(|m| m.system == system.name);
                measured.map(of)
            });
            bars.group(&works[0].work.name(), values.collect());
        }
        bars.draw(title)
    };
    let mut charts = Vec::new();
    let mut add = |file: &str, title: &str, svg: Result<String, String>| {
        charts.push(Chart {
            file: file.to_owned(),
            title: title.to_owned(),
            svg: svg.map_err(Failure)?,
        });
        Ok::<(), Failure>(())
    };
    let title = "Records per second";
    add(
        "throughput",
        title,
        bars(title, Measured::records_per_second),
    )?;
    let title = "Records per CPU second of the system";
    add("cpu", title, bars(title, Measured::records_per_cpu_second))?;
    let title = "Most memory, MiB";
    add("memory", title, bars(title, Measured::peak_memory))?;
    for works in by_work(all) {
        let curves = curves(works, |measured| measured.system.clone())?;
        if !curves.is_empty() {
            let comparison = Comparison {
                x: "one record in so many",
                y: "ms",
                curves,
            };
            let title = format!("{}: how long the slowest take", works[0].title());
            add(&latency_file(&works[0]), &title, comparison.draw(&title))?;
        }
    }
    Ok(charts)
}

/// Which chart shows how long a work's records take. Its rate is another each time, its chart's name is not.
fn latency_file(measured: &Measured) -> String {
    let name = measured.work.name().replace(", ", "-").replace(' ', "-");
    format!("latency-{name}")
}

/// The file of a chart, beside its page.
fn chart_file(page: &Path, chart: &str) -> String {
    let stem = page.file_stem().unwrap_or_default().to_string_lossy();
    format!("{}-{chart}.svg", stem.to_lowercase())
}

/// Writes the page and its charts.
pub(super) async fn write(
    args: &Args,
    all: &[Measured],
    limits: Option<&Limits>,
    page: &Path,
) -> Result<(), Failure> {
    let charts = charts(args, all)?;
    let folder = page.parent().unwrap_or(Path::new("."));
    for chart in &charts {
        let file = folder.join(chart_file(page, &chart.file));
        write_file(&file, chart.svg.clone()).await?;
    }
    write_file(page, text(args, all, limits, page, &charts)).await
}

fn text(
    args: &Args,
    all: &[Measured],
    limits: Option<&Limits>,
    page: &Path,
    charts: &[Chart],
) -> String {
    let mut text = String::from(
        "# Performance\n\nWritten by a command; whoever runs it on another machine gets that \
         machine's figures. The same client program does the same work on each system in turn, in \
         another order each round; what is told are medians. The machine is shared by systems and \
         client, so compare within a row, not across pages.\n\n",
    );
    for fact in &args.facts {
        let (name, what) = fact.split_once('=').unwrap_or((fact, ""));
        let _ = writeln!(text, "- {name}: {what}");
    }
    let _ = writeln!(text, "- {}\n", title(args));
    let picture = |chart: &Chart| {
        let file = chart_file(page, &chart.file);
        format!("![{}]({file})\n\n", chart.title)
    };
    // those of one work stand with its table
    let is_of_all = |chart: &&Chart| !chart.file.starts_with("latency");
    text.extend(charts.iter().filter(is_of_all).map(picture));
    if let Some(limits) = limits {
        text.push_str(&limits_table(limits));
    }
    for works in by_work(all) {
        text.push_str(&table(works, limits));
        let file = works.first().map(latency_file);
        let mut of_work = charts.iter();
        text.extend(
            of_work
                .find(|chart| Some(&chart.file) == file.as_ref())
                .map(picture),
        );
    }
    text
}

/// What the machine does at most.
fn limits_table(limits: &Limits) -> String {
    let mut report = Report::new("limits", String::new());
    limits.tell(&mut report);
    let mut text =
        "## What the machine does at most\n\n| what | by a bare loop on the ring |\n|---|---|\n"
            .to_owned();
    for (name, shown) in report.rows() {
        let _ = writeln!(text, "| {name} | {shown} |");
    }
    text.push('\n');
    text
}

/// One work, a column for each system.
fn table(works: &[Measured], limits: Option<&Limits>) -> String {
    let Some(first) = works.first() else {
        return String::new();
    };
    let bare = |cell: String, system: &str| {
        let shown = cell.strip_prefix(system).unwrap_or(&cell);
        shown.trim().to_owned()
    };
    let row = |name: &str, cells: Vec<String>| {
        let shown = cells.into_iter().zip(works);
        let shown: Vec<String> = shown.map(|(cell, m)| bare(cell, &m.system)).collect();
        format!("| {name} | {} |\n", shown.join(" | "))
    };
    let systems: Vec<&str> = works.iter().map(|m| m.system.as_str()).collect();
    let mut text = format!("## {}\n\n| | {} |\n", first.title(), systems.join(" | "));
    let _ = writeln!(text, "|---{}|", "|---".repeat(works.len()));
    for figure in first.figures() {
        text.push_str(&row(figure.name, cells(works, figure)));
    }
    if let Some((name, shares)) = limits.and_then(|limits| distance(works, limits)) {
        text.push_str(&row(&name, shares));
    }
    text.push('\n');
    text
}
