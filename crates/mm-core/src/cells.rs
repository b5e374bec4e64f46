//! Cells of tables: which are missing, which texts are numbers, and the rows that hold them.

mod date;
mod number;
mod record;

pub use number::NumberFormat;
pub use record::{Record, RecordPacker, cell_text};

/// Texts that stand for a missing value, as pandas reads them; the empty text is one as well.
pub const MISSING_VALUES: [&str; 18] = [
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
];

/// Whether a table cell holds no value: empty, or one of [`MISSING_VALUES`].
///
/// ```
/// use mm_core::cells::is_missing;
/// assert!(is_missing(" ") && is_missing("NA") && is_missing("None"));
/// assert!(!is_missing("none") && !is_missing("nancy"));
/// ```
pub fn is_missing(cell: &str) -> bool {
    let cell = cell.trim();
    cell.is_empty() || MISSING_VALUES.contains(&cell)
}

/// Whether a cell of a numeric column holds no value: missing, or a number that is not finite (`inf`).
pub fn is_missing_number(cell: &str) -> bool {
    is_missing(cell) || cell.trim().parse().is_ok_and(|n: f64| !n.is_finite())
}
