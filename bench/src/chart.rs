//! Charts as SVG: throughput over time above, latency by percentile below.

use hdrhistogram::Histogram;
use plotters::prelude::*;

use crate::measure::Series;

const SIZE: (u32, u32) = (900, 640);
const CURVE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// The percentile axis ends where one in a hundred thousand is left.
const NINES_MAX: f64 = 5.0;

/// Draws what there is.
pub(crate) fn draw(
    title: &str,
    series: Option<&Series>,
    latencies: Option<&Histogram<u64>>,
) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = draw_on(&area, title, series, latencies);
        drawn.and_then(|()| area.present().map_err(|error| error.to_string()))?;
    }
    Ok(svg)
}

/// Characters of the title that fit into the chart's width.
const LINE: usize = 100;

/// A long title in several lines, broken at its commas.
fn lines(title: &str) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), title);
    while rest.len() > LINE
        && let Some(at) = rest
            .match_indices(", ")
            .map(|(at, _)| at + 2)
            .take_while(|at| *at <= LINE)
            .last()
    {
        let (line, after) = rest.split_at(at);
        lines.push(line.trim_end());
        rest = after;
    }
    lines.push(rest);
    lines
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_on(
    area: &Area<'_>,
    title: &str,
    series: Option<&Series>,
    latencies: Option<&Histogram<u64>>,
) -> Result<(), String> {
    area.fill(&WHITE).map_err(|error| error.to_string())?;
    let mut rest = area.clone();
    for line in lines(title) {
        rest = rest
            .titled(line, ("sans-serif", 16))
            .map_err(|error| error.to_string())?;
    }
    match (series, latencies) {
        (Some(series), Some(latencies)) => {
            let (above, below) = rest.split_vertically(SIZE.1 as i32 / 2 - 24);
            throughput(&above, series)?;
            percentiles(&below, latencies)
        }
        (Some(series), None) => throughput(&rest, series),
        (None, Some(latencies)) => percentiles(&rest, latencies),
        (None, None) => Ok(()),
    }
}

fn throughput(area: &Area<'_>, series: &Series) -> Result<(), String> {
    let points = series.points();
    let end = points.last().map_or(1.0, |point| point.seconds);
    let top = points.iter().map(|point| point.records).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..end, 0.0..top)
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .x_desc("seconds")
        .y_desc("records/s")
        .y_label_formatter(&|value| crate::report::grouped(*value as u64))
        .draw()
        .map_err(|error| error.to_string())?;
    let curve = points.iter().map(|point| (point.seconds, point.records));
    let line = LineSeries::new(curve, CURVE.stroke_width(2));
    chart.draw_series(line).map_err(|error| error.to_string())?;
    Ok(())
}

/// Several curves over the same axes, both of them logarithmic.
pub(crate) struct Comparison {
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) curves: Vec<Curve>,
}

/// One of them.
pub(crate) struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Curve {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            points: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    pub(crate) fn add(&mut self, x: f64, y: f64) {
        self.points.push((x.max(1e-3), y.max(1e-3)));
    }
}

impl Comparison {
    pub(crate) fn draw(&self, title: &str) -> Result<String, String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let drawn = self.draw_on(&area, title);
            drawn.and_then(|()| area.present().map_err(|error| error.to_string()))?;
        }
        Ok(svg)
    }

    /// Where the axes begin and end, with some room.
    fn range(&self, of: impl Fn(&(f64, f64)) -> f64) -> std::ops::Range<f64> {
        let values = || self.curves.iter().flat_map(|c| c.points.iter().map(&of));
        let low = values().fold(f64::MAX, f64::min).min(1e9);
        let high = values().fold(0.0, f64::max).max(low);
        low / 1.2..high * 1.2
    }

    fn draw_on(&self, area: &Area<'_>, title: &str) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        area.fill(&WHITE).map_err(|e| text(&e))?;
        let mut rest = area.clone();
        for line in lines(title) {
            rest = rest
                .titled(line, ("sans-serif", 16))
                .map_err(|e| text(&e))?;
        }
        let mut chart = ChartBuilder::on(&rest)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(84)
            .build_cartesian_2d(
                self.range(|point| point.0).log_scale(),
                self.range(|point| point.1).log_scale(),
            )
            .map_err(|e| text(&e))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(FAINT)
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| crate::report::grouped(*value as u64))
            .draw()
            .map_err(|e| text(&e))?;
        for (nth, curve) in self.curves.iter().enumerate() {
            let colour = Palette99::pick(nth).to_rgba();
            let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(line.point_size(3))
                .map_err(|e| text(&e))?
                .label(&curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(FAINT)
            .draw()
            .map_err(|e| text(&e))
    }
}

/// The share above: p90 is 1, p99 is 2, p99.9 is 3.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-9).log10()
}

fn percentiles(area: &Area<'_>, latencies: &Histogram<u64>) -> Result<(), String> {
    let ms = |us: u64| (us.max(1)) as f64 / 1e3;
    let top = ms(latencies.max()) * 1.5;
    let bottom = ms(latencies.min()) / 1.5;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..NINES_MAX, (bottom..top.max(bottom * 2.0)).log_scale())
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .x_desc("percentile")
        .y_desc("latency, ms")
        .x_labels(6)
        .x_label_formatter(&|nines| percentile_name(*nines))
        .draw()
        .map_err(|error| error.to_string())?;
    let curve = latencies
        .iter_quantiles(8)
        .map(|step| {
            (
                nines(step.quantile_iterated_to()),
                ms(step.value_iterated_to()),
            )
        })
        .take_while(|(at, _)| *at <= NINES_MAX);
    let line = LineSeries::new(curve, CURVE.stroke_width(2));
    chart.draw_series(line).map_err(|error| error.to_string())?;
    Ok(())
}

fn percentile_name(nines: f64) -> String {
    let share = 1.0 - 10_f64.powf(-nines);
    let text = format!("{:.3}", share * 100.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("p{text}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringmill_ring::Instant;

    use super::*;

    #[test]
    fn percentiles_have_their_usual_names() {
        let names: Vec<String> = (0..5).map(|n| percentile_name(f64::from(n))).collect();
        assert_eq!(names, ["p0", "p90", "p99", "p99.9", "p99.99"]);
        assert!((nines(0.999) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_long_title_is_broken_at_commas() {
        assert_eq!(lines("a, b"), ["a, b"]);
        let long = "word, ".repeat(30);
        let broken = lines(&long);
        assert!(broken.len() > 1 && broken.iter().all(|line| line.len() <= LINE));
        assert_eq!(lines(&"x".repeat(300)).len(), 1);
    }

    #[test]
    fn charts_hold_a_curve_for_each_thing_measured() {
        let mut series = Series::default();
        series.start(Instant::default());
        for ms in (0..2000).step_by(10) {
            series.add(Instant::default() + Duration::from_millis(ms), 10, 100);
        }
        let mut latencies = Histogram::new(3).unwrap();
        latencies.record_n(200, 1000).unwrap();
        latencies.record(90_000).unwrap();
        let both = draw("t", Some(&series), Some(&latencies)).unwrap();
        assert!(both.starts_with("<svg") && both.contains("records/s"));
        assert!(both.contains("p99.9") && both.matches("<polyline").count() >= 2);
        assert!(
            !draw("t", Some(&series), None)
                .unwrap()
                .contains("percentile")
        );
        draw("nothing", None, None).unwrap();
        // a measure without a single record
        draw(
            "empty",
            Some(&Series::default()),
            Some(&Histogram::new(3).unwrap()),
        )
        .unwrap();
    }
}
