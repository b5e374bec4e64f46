//! Standard output (results) and standard error (warnings and notes).

use anyhow::Context as _;
use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Turns progress and notes off (`--quiet`); warnings and errors are still printed.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether `--quiet` was given.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints one line of results. Exits with 0 when the reader closed the pipe (`mm … | head`), and with 1 when the line
/// cannot be written.
pub(crate) fn line(text: impl std::fmt::Display) {
    written(writeln!(std::io::stdout(), "{text}"));
}

/// A text of the user's data within a line of results: control characters, which could move the cursor or end the line,
/// are escaped.
pub(crate) fn one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// A path as text in JSON; parts that are not UTF-8 are replaced.
pub(crate) fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// Prints text without a line break, at once; failures as for [`line`].
pub(crate) fn part(text: &str) {
    let mut out = std::io::stdout();
    written(write!(out, "{text}").and_then(|()| out.flush()));
}

/// Checks that results were written; failures as for [`line`].
pub(crate) fn written(result: std::io::Result<()>) {
    if let Err(error) = result {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        stderr(format!("error: standard output cannot be written: {error}\n"));
        std::process::exit(1);
    }
}

/// Prints text on standard error. Nobody may read it any more, which is no reason to stop.
pub(crate) fn stderr(text: impl std::fmt::Display) {
    let _ = std::io::stderr().write_all(text.to_string().as_bytes());
}

/// Something the user should know about although the command goes on.
pub(crate) fn warning(text: impl std::fmt::Display) {
    stderr(format!("warning: {text}\n"));
}

/// Progress in words; silent with `--quiet`.
pub(crate) fn note(text: impl std::fmt::Display) {
    if !is_quiet() {
        stderr(format!("note: {text}\n"));
    }
}

/// Prints the first `LIMIT` items as warnings, and how many more there are.
pub(crate) fn warnings<T: std::fmt::Display>(items: impl ExactSizeIterator<Item = T>) {
    const LIMIT: usize = 20;
    let count = items.len();
    items.take(LIMIT).for_each(warning);
    if count > LIMIT {
        warning(format!("… and {} more", count - LIMIT));
    }
}

/// Saves the image of `--explain`.
pub(crate) fn save_explanation(image: &image::RgbImage, path: &std::path::Path) -> anyhow::Result<()> {
    image.save(path).with_context(|| {
        format!("--explain {}: cannot be written; expected a file name that ends in .png", path.display())
    })
}

/// Prints a table; the first column is left-aligned, the others right-aligned.
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

/// Peak resident memory of this process in bytes, where the system reports it.
pub(crate) fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024)
}
