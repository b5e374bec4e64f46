//! Charts as SVG text.

use crate::{Error, Result};
use plotters::prelude::*;

/// The color-blind safe palette of Okabe and Ito (2008).
pub(super) const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A named line.
pub struct Line {
    /// The name.
    pub name: String,
    /// The points.
    pub points: Vec<(f64, f64)>,
}

fn bad(error: impl std::fmt::Display) -> Error {
    Error::Config(format!("the chart could not be rendered: {error}"))
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.filter(|v| v.is_finite()).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = ((high - low) * 0.05).max(1e-6);
    (low - margin, high + margin)
}

/// Lines over a common axis.
pub fn lines(lines: &[Line], x_name: &str, y_name: &str) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (640, 320)).into_drawing_area();
        let all = || lines.iter().flat_map(|l| l.points.iter());
        let (x0, x1) = bounds(all().map(|p| p.0));
        let (y0, y1) = bounds(all().map(|p| p.1));
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(x0..x1, y0..y1)
            .map_err(bad)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(x_name)
            .y_desc(y_name)
            .label_style(("sans-serif", 13))
            .draw()
            .map_err(bad)?;
        for (number, line) in lines.iter().enumerate() {
            let color = COLORS[number % COLORS.len()];
            let element =
                chart.draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2))).map_err(bad)?;
            element
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(("sans-serif", 13))
            .draw()
            .map_err(bad)?;
        root.present().map_err(bad)?;
    }
    Ok(svg)
}

/// Points in groups, with faint links between pairs.
pub fn scatter(groups: &[(String, Vec<[f64; 2]>)], links: &[([f64; 2], [f64; 2])]) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (560, 480)).into_drawing_area();
        let all = || groups.iter().flat_map(|(_, p)| p.iter());
        let (x0, x1) = bounds(all().map(|p| p[0]));
        let (y0, y1) = bounds(all().map(|p| p[1]));
        let mut chart = ChartBuilder::on(&root).margin(8).build_cartesian_2d(x0..x1, y0..y1).map_err(bad)?;
        chart
            .draw_series(links.iter().map(|(a, b)| PathElement::new([(a[0], a[1]), (b[0], b[1])], BLACK.mix(0.12))))
            .map_err(bad)?;
        for (number, (name, points)) in groups.iter().enumerate() {
            let color = COLORS[number % COLORS.len()];
            let dots = points.iter().map(|p| Circle::new((p[0], p[1]), 3, color.mix(0.75).filled()));
            chart
                .draw_series(dots)
                .map_err(bad)?
                .label(name)
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, color.filled()));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(("sans-serif", 14))
            .draw()
            .map_err(bad)?;
        root.present().map_err(bad)?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let name = "<script>alert(1)</script>".to_owned();
        let svg = scatter(&[(name.clone(), vec![[0.0, 1.0], [1.0, 0.0]])], &[]).unwrap();
        let line = Line { name, points: vec![(0.0, 0.0), (1.0, 1.0)] };
        let chart = lines(&[line], "<b>", "y").unwrap();
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script>"), "{svg}");
        assert!(chart.contains("&lt;script&gt;") && !chart.contains("<script>") && !chart.contains("<b>"), "{chart}");
    }
}
