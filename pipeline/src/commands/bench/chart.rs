//! The figures as a bar chart.

use super::Part;
use super::report::{Report, rounded};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
/// Where bars begin, and what stays free behind them for the figure.
const LEFT: f64 = 300.0;
const RIGHT: f64 = 80.0;
const TOP: f64 = 72.0;
const BAR: f64 = 26.0;

/// An SVG document: a bar a line of the table, a thin line over it for the spread.
pub(super) fn chart(report: &Report) -> String {
    let lines = &report.measurements;
    let height = TOP + lines.len() as f64 * BAR + 34.0;
    let most = lines.iter().map(|line| line.readings_per_second.max).fold(1.0, f64::max);
    let x = |rate: f64| LEFT + rate / most * (WIDTH - LEFT - RIGHT);
    let setting = &report.setting;
    let mut out = format!(
        concat!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="13">"#,
            "\n",
            r#"<rect width="{w}" height="{h}" fill="white"/>"#,
            "\n",
            r#"<text x="16" y="26" font-size="16">drivetrain bench: readings per second</text>"#,
            "\n",
            r##"<text x="16" y="48" fill="#666">{cores} cores, {readings} readings of {vehicles} vehicles, {bytes:.0} B each; "##,
            "median of {rounds} rounds</text>\n"
        ),
        w = WIDTH,
        h = height,
        cores = setting.cores,
        readings = setting.readings,
        vehicles = setting.vehicles,
        bytes = setting.record_bytes,
        rounds = report.rounds,
    );
    for (i, line) in lines.iter().enumerate() {
        let (y, rate) = (TOP + i as f64 * BAR, line.readings_per_second);
        let (middle, left) = (y + BAR / 2.0, LEFT - 8.0);
        let colour = match line.part {
            Part::Parse | Part::Rows => "#b8b8b8",
            Part::Answers | Part::Job => "#1f6f8b",
            _ => "#7fb3c4",
        };
        let _ = writeln!(
            out,
            r##"<text x="{left}" y="{base:.1}" text-anchor="end">{title}</text>
<rect x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{thick}" fill="{colour}"/>
<line x1="{from:.1}" x2="{to:.1}" y1="{middle:.1}" y2="{middle:.1}" stroke="#222"/>
<text x="{after:.1}" y="{base:.1}">{figure}</text>"##,
            base = middle + 4.0,
            title = line.title(),
            y = y + 3.0,
            width = x(rate.median) - LEFT,
            thick = BAR - 6.0,
            from = x(rate.min),
            to = x(rate.max),
            after = x(rate.max) + 8.0,
            figure = rounded(rate.median),
        );
    }
    if setting.development_build {
        let _ = writeln!(
            out,
            r##"<text x="16" y="{:.1}" fill="#b00">A development build: its figures say nothing of a release.</text>"##,
            height - 12.0
        );
    }
    out.push_str("</svg>\n");
    out
}
