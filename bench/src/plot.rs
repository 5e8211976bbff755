//! The table as bars.

use std::fmt::Write as _;

use crate::measure::VARIANTS;
use crate::report::Report;

const COLOURS: [&str; VARIANTS.len()] = ["#9aa0a6", "#f29900", "#d93025", "#34a853", "#1a73e8"];
/// Pixels.
const BAR: usize = 14;
const LEFT: f64 = 160.0;
const WIDTH: f64 = 520.0;

/// Requests a second, each kind of load on its own scale: what counts is how variants compare.
pub(crate) fn svg(report: &Report) -> String {
    let mut bars = String::new();
    let mut top = 10;
    for (scenario, cells) in report.scenarios() {
        let most = cells.values().map(crate::report::Cell::rate).fold(1.0, f64::max);
        let _ = writeln!(bars, r#"<text x="10" y="{}">{scenario}</text>"#, top + BAR);
        for (variant, colour) in VARIANTS.into_iter().zip(COLOURS) {
            let Some(cell) = cells.get(variant) else { continue };
            let rate = cell.rate();
            let (width, height) = (rate / most * WIDTH, BAR - 2);
            let _ = writeln!(
                bars,
                r#"<rect x="{LEFT}" y="{top}" width="{width:.0}" height="{height}" fill="{colour}"/>"#
            );
            let (right, bottom) = (LEFT + width + 6.0, top + BAR - 3);
            let _ = writeln!(
                bars,
                r#"<text x="{right:.0}" y="{bottom}">{variant} {rate:.0}/s</text>"#
            );
            top += BAR;
        }
        top += BAR;
    }
    let width = LEFT + WIDTH + 160.0;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" font-family="sans-serif" font-size="11">{bars}</svg>"#
    )
}
