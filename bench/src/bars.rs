//! Bars of several systems for several works, on one logarithmic axis: twice as long means more than
//! twice as much, so each bar has its number beside it.

use plotters::prelude::*;

const WIDTH: u32 = 900;
/// Pixels of one row: a group's name, or a bar.
const ROW: u32 = 22;
/// Pixels of what is above and below the rows.
const AROUND: u32 = 110;
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// See the module.
pub(crate) struct Bars {
    systems: Vec<String>,
    groups: Vec<(String, Vec<Option<f64>>)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Bars {
    pub(crate) fn new(systems: Vec<String>) -> Self {
        Self {
            systems,
            groups: Vec::new(),
        }
    }

    /// A value of each system that has one.
    pub(crate) fn group(&mut self, name: &str, values: Vec<Option<f64>>) {
        self.groups.push((name.to_owned(), values));
    }

    pub(crate) fn draw(&self, title: &str) -> Result<String, String> {
        let bars = |(_, values): &(String, Vec<Option<f64>>)| 1 + values.iter().flatten().count();
        let rows = self.groups.iter().map(bars).sum::<usize>() as u32;
        let mut svg = String::new();
        {
            let size = (WIDTH, AROUND + rows * ROW);
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let drawn = self.draw_on(&area, title, rows);
            drawn.and_then(|()| area.present().map_err(|error| error.to_string()))?;
        }
        Ok(svg)
    }

    /// Where the axis begins and ends, with room for the numbers.
    fn range(&self) -> std::ops::Range<f64> {
        let values = || {
            let all = self.groups.iter().flat_map(|(_, values)| values);
            all.flatten().copied().filter(|value| *value > 0.0)
        };
        let low = values().fold(f64::MAX, f64::min).min(1e12);
        let high = values().fold(0.0, f64::max).max(low);
        low / 3.0..high * 4.0
    }

    fn draw_on(&self, area: &Area<'_>, title: &str, rows: u32) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        area.fill(&WHITE).map_err(|e| text(&e))?;
        let range = self.range();
        let low = range.start;
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(28)
            .build_cartesian_2d(range.log_scale(), f64::from(rows.max(1))..0.0)
            .map_err(|e| text(&e))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .bold_line_style(FAINT)
            .x_label_formatter(&|value| crate::report::grouped(*value as u64))
            .draw()
            .map_err(|e| text(&e))?;
        let mut row = 0.0;
        for (name, values) in &self.groups {
            let label = Text::new(name.clone(), (low, row + 0.35), ("sans-serif", 14));
            chart.draw_series([label]).map_err(|e| text(&e))?;
            row += 1.0;
            let there = values.iter().enumerate();
            for (nth, value) in there.filter_map(|(nth, value)| Some((nth, (*value)?))) {
                let colour = Palette99::pick(nth).mix(0.8);
                let bar = Rectangle::new(
                    [(low, row + 0.1), (value.max(low), row + 0.9)],
                    colour.filled(),
                );
                chart.draw_series([bar]).map_err(|e| text(&e))?;
                let shown = format!("  {} {}", crate::compare::shown(value), self.systems[nth]);
                let number = Text::new(shown, (value.max(low), row + 0.25), ("sans-serif", 13));
                chart.draw_series([number]).map_err(|e| text(&e))?;
                row += 1.0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_bar_and_its_number() {
        let mut bars = Bars::new(vec!["ours".to_owned(), "theirs".to_owned()]);
        bars.group("produce", vec![Some(2_000_000.0), Some(300_000.0)]);
        bars.group("nothing", vec![Some(0.0), None]);
        let svg = bars.draw("t").unwrap();
        assert!(svg.contains("2,000,000 ours") && svg.contains("300,000 theirs"));
        assert!(svg.contains("produce") && svg.contains("0.00 ours"));
        // background, and a bar each
        assert!(svg.matches("<rect").count() >= 4);
        Bars::new(Vec::new()).draw("empty").unwrap();
    }
}
