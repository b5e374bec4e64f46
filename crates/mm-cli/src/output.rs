//! Lines for machines and tables for people.

use anyhow::Context as _;
use std::io::Write;

/// Prints a line; a reader that hung up (`mm … | head`) ends the program quietly.
pub(crate) fn line(text: impl std::fmt::Display) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Writes what `--explain` drew.
pub(crate) fn explanation(drawn: &image::RgbImage, path: &std::path::Path) -> anyhow::Result<()> {
    drawn
        .save(path)
        .with_context(|| format!("--explain {}: cannot be written; wanted a name that ends in .png", path.display()))
}

/// A table with columns as wide as they need to be; the first is set left, the others right.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells = row.iter().enumerate().map(|(c, cell)| {
            let space = " ".repeat(widths[c].saturating_sub(cell.chars().count()));
            if c == 0 { format!("{cell}{space}") } else { format!("{space}{cell}") }
        });
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// The most memory that this process has had resident, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024)
}
