//! The silences of many cases as a chart: a band for each fault, a row in it for each client, a dot for
//! each partition of each case.

use std::collections::BTreeSet;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::fault::Fault;
use super::page::Result as Case;

const WIDTH: u32 = 900;
/// Height of a client's row.
const ROW: u32 = 18;
/// Room above and below.
const ENDS: u32 = 110;
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const DOT: i32 = 3;
/// The axis of time, in milliseconds.
const AXIS: std::ops::Range<f64> = 1.0..100_000.0;
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x5f, 0x0e),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x7b, 0x4f, 0xa3),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One fault and one client: a row.
struct Row<'a> {
    fault: Fault,
    client: &'a str,
    colour: RGBColor,
    millis: Vec<f64>,
}

/// Draws the chart.
///
/// # Errors
/// What the drawing library says.
pub fn draw(results: &[Case]) -> Result<String, String> {
    let rows = rows(results);
    let mut svg = String::new();
    {
        let size = (WIDTH, ENDS + ROW * rows.len() as u32);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = draw_on(&area, &rows);
        drawn.and_then(|()| area.present().map_err(|error| error.to_string()))?;
    }
    Ok(svg)
}

fn rows(results: &[Case]) -> Vec<Row<'_>> {
    let clients: BTreeSet<&str> = results.iter().map(|case| &*case.client).collect();
    let mut rows = Vec::new();
    for fault in Fault::all() {
        for (client, colour) in clients.iter().zip(COLOURS.into_iter().cycle()) {
            let of_it = |case: &&Case| case.fault == fault && case.client == *client;
            let mut cases = results.iter().filter(of_it).peekable();
            if cases.peek().is_none() {
                continue;
            }
            let seen = cases.filter_map(|case| case.ended.as_ref().ok());
            let struck = seen.flat_map(|seen| &seen.struck);
            let millis = struck.map(|time: &Duration| time.as_secs_f64() * 1e3);
            rows.push(Row {
                fault,
                client,
                colour,
                millis: millis.map(|ms| ms.clamp(AXIS.start, AXIS.end)).collect(),
            });
        }
    }
    rows
}

fn draw_on(area: &Area<'_>, rows: &[Row<'_>]) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    area.fill(&WHITE).map_err(|error| text(&error))?;
    let titled = area.titled(
        "silence of each partition whose leader was struck",
        ("sans-serif", 16),
    );
    let count = rows.len() as f64;
    // The first row is at the top; the axis of rows goes down.
    let mut chart = ChartBuilder::on(&titled.map_err(|error| text(&error))?)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(90)
        .right_y_label_area_size(80)
        .build_cartesian_2d(AXIS.log_scale(), count..0.0)
        .map_err(|error| text(&error))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .x_desc("milliseconds")
        .x_label_formatter(&|ms| format!("{ms:.0}"))
        .draw()
        .map_err(|error| text(&error))?;
    for (nth, row) in rows.iter().enumerate() {
        let middle = nth as f64 + 0.5;
        let dots = row
            .millis
            .iter()
            .map(|ms| Circle::new((*ms, middle), DOT, row.colour.mix(0.5).filled()));
        chart.draw_series(dots).map_err(|error| text(&error))?;
        let is_first = nth == 0 || rows[nth - 1].fault != row.fault;
        if is_first {
            let line = PathElement::new([(AXIS.start, nth as f64), (AXIS.end, nth as f64)], FAINT);
            chart.draw_series([line]).map_err(|error| text(&error))?;
        }
        let (left, y) = chart.backend_coord(&(AXIS.start, middle));
        let (right, _) = chart.backend_coord(&(AXIS.end, middle));
        let font = ("sans-serif", 12).into_font();
        let above = y - 7;
        if is_first {
            let name = row.fault.to_string();
            area.draw(&Text::new(name, (left - 85, above), font.clone()))
                .map_err(|error| text(&error))?;
        }
        let font = font.color(&row.colour);
        area.draw(&Text::new(row.client, (right + 8, above), font))
            .map_err(|error| text(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::seen::Seen;

    #[test]
    fn each_silence_has_its_dot() {
        let case = |fault, client: &str, struck: &[u64]| Case {
            fault,
            client: client.to_owned(),
            ended: Ok(Seen {
                struck: struck.iter().copied().map(Duration::from_millis).collect(),
                ..Seen::default()
            }),
        };
        let svg = draw(&[
            case(Fault::Kill, "ours", &[700, 900]),
            case(Fault::Kill, "theirs", &[0]),
            case(Fault::Pair, "ours", &[1_000_000]),
        ]);
        let svg = svg.unwrap();
        assert_eq!(svg.matches("<circle").count(), 4);
        for word in ["kill", "pair", "theirs"] {
            assert!(svg.contains(word), "{word}");
        }
        draw(&[]).unwrap();
    }
}
