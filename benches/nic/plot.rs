//! Plots as SVG: lines over the number of NICs present, both axes logarithmic.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that people tell apart whatever their eyes (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// A line: its name, and (NICs present, value) in the order of the former.
pub struct Line {
    /// Shown at its end.
    pub name: String,
    /// Nobody present is drawn at one.
    pub points: Vec<(u16, f64)>,
}

/// Draws lines; `unit` is that of their values.
pub fn svg(title: &str, unit: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|it| &it.points);
    let x_of = |nics: u16| f64::from(nics.max(1)).log10();
    let widest = points().map(|it| x_of(it.0)).fold(1.0, f64::max);
    let low = points().map(|it| it.1).fold(f64::INFINITY, f64::min).log10().floor();
    let high = points().map(|it| it.1).fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let x = |nics: u16| LEFT + x_of(nics) / widest * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value.log10() - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"{}\">NICs present</text>\n",
        HEIGHT - 12.0
    );
    let mut line = |text: std::fmt::Arguments| {
        let _infallible = writeln!(out, "{text}");
    };
    for decade in low as i32..=high as i32 {
        for step in [1.0, 2.0, 5.0] {
            let value = step * 10_f64.powi(decade);
            if value.log10() > high {
                continue;
            }
            let at = y(value);
            line(format_args!(
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value} {unit}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            ));
        }
    }
    let mut counts: Vec<_> = points().map(|it| it.0).collect();
    counts.sort_unstable();
    counts.dedup();
    for nics in counts {
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{nics}</text>",
            x(nics),
            HEIGHT - BOTTOM + 18.0
        ));
    }
    // Names of lines that end close to each other stand below each other.
    let mut ends: Vec<_> = lines.iter().enumerate().filter_map(|(n, it)| Some((n, y(it.points.last()?.1)))).collect();
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut lowest = TOP - 14.0;
    for (number, end) in ends {
        let (Line { name, points }, colour) = (&lines[number], COLOURS[number % COLOURS.len()]);
        let path: Vec<_> = points.iter().map(|it| format!("{:.1},{:.1}", x(it.0), y(it.1))).collect();
        line(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        ));
        lowest = f64::max(lowest + 14.0, end);
        line(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            WIDTH - RIGHT + 8.0,
            lowest + 4.0
        ));
    }
    out + "</svg>\n"
}
