//! Which column of a table is which modality.

use super::options::FitOptions;
use crate::{Error, Result, prediction::dataset::HEADER_ROWS};
use mm_data::Cells;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Rows of a table that are inspected, about.
const MAX_INSPECTED_ROWS: usize = 5000;

/// Modalities that several columns are joined into.
const JOINED_MODALITIES: [&str; 2] = ["text", "tabular"];

/// The columns of each modality, and a line for each decision.
#[derive(Default)]
pub(super) struct InferredColumns {
    pub(super) columns: BTreeMap<String, Vec<String>>,
    pub(super) log: Vec<String>,
}

/// What a column holds, or why it is left out.
enum ColumnKind {
    Modality(&'static str),
    Number,
    Category,
    Ignored(&'static str),
}

/// Infers the columns of each modality; those that the options name are checked and used alone.
///
/// # Errors
/// When a named column does not exist, or no column can be used.
pub(super) fn infer_columns(table: &[Cells], options: &FitOptions, has_tabular: bool) -> Result<InferredColumns> {
    let mut names: Vec<&String> = Vec::new();
    let mut seen = BTreeSet::new();
    for row in table.iter().take(HEADER_ROWS) {
        names.extend(row.keys().filter(|k| seen.insert(*k)));
    }
    let find = |what: &'static str, name: &String| -> Result<()> {
        let known = names.iter().map(|n| n.as_str());
        if seen.contains(name) { Ok(()) } else { Err(Error::unknown_column(&options.data, what, name, known)) }
    };
    find("label column", &options.label_column)?;
    if !options.columns.is_empty() {
        for column in options.columns.values().flatten() {
            find("column", column)?;
            if *column == options.label_column {
                return Err(Error::invalid("columns", format!("the label column `{column}`"), "other columns"));
            }
        }
        let line = |(modality, columns): (&String, &Vec<String>)| {
            format!("{modality}: {} (as specified)", columns.join(" + "))
        };
        let log = options.columns.iter().map(line).collect();
        return Ok(InferredColumns { columns: options.columns.clone(), log });
    }
    let mut inferred = InferredColumns::default();
    let step = (table.len() / MAX_INSPECTED_ROWS).max(1);
    let rows: Vec<&Cells> = table.iter().step_by(step).collect();
    let is_input = |name: &&String| **name != options.label_column && Some(*name) != options.group_column.as_ref();
    for name in names.iter().copied().filter(is_input) {
        inferred.add(name, &rows, has_tabular);
    }
    // A video is also its sound.
    if let (Some(video), false) = (inferred.columns.get("video").cloned(), inferred.columns.contains_key("audio")) {
        inferred.columns.insert("audio".into(), video);
    }
    if inferred.columns.is_empty() {
        let path = options.data.display().to_string();
        let found = format!("no usable column besides `{}` ({})", options.label_column, inferred.log.join("; "));
        return Err(Error::invalid(path, found, "at least one"));
    }
    let lines = inferred.columns.iter().map(|(modality, columns)| format!("{modality}: {}", columns.join(" + ")));
    inferred.log.extend(lines);
    Ok(inferred)
}

impl InferredColumns {
    fn add(&mut self, name: &str, rows: &[&Cells], has_tabular: bool) {
        let mut ignore = |reason: &str| self.log.push(format!("{name}: left out ({reason})"));
        let modality = match ColumnKind::of(name, rows) {
            ColumnKind::Number | ColumnKind::Category if has_tabular => "tabular",
            ColumnKind::Number | ColumnKind::Category => return ignore("numbers and categories need mm-tabular"),
            ColumnKind::Modality(modality) => modality,
            ColumnKind::Ignored(reason) => return ignore(reason),
        };
        let columns = self.columns.entry(modality.to_owned()).or_default();
        match columns.first() {
            Some(first) if !JOINED_MODALITIES.contains(&modality) => {
                ignore(&format!("{modality} is {first} already; choose with --column"));
            }
            _ => columns.push(name.to_owned()),
        }
    }
}

/// The text of a cell; `None` for a missing one.
fn cell_text(value: &serde_json::Value) -> Option<String> {
    mm_data::cell_text(value).filter(|t| !mm_core::is_missing_cell(t))
}

impl ColumnKind {
    fn of(name: &str, rows: &[&Cells]) -> Self {
        let is_vector = rows.iter().filter_map(|r| r.get(name)).find(|v| !v.is_null()).is_some_and(|v| {
            v.as_array().is_some_and(|items| items.len() > 1 && items.iter().all(serde_json::Value::is_number))
        });
        if is_vector {
            return Self::Modality("vector");
        }
        let cells: Vec<String> = rows.iter().filter_map(|r| cell_text(r.get(name)?)).collect();
        Self::of_texts(name, &cells, rows.len())
    }

    /// The kind of a column with these cells in `num_rows` rows.
    fn of_texts(name: &str, cells: &[String], num_rows: usize) -> Self {
        let name = name.to_lowercase();
        if cells.is_empty() {
            return Self::Ignored("empty");
        }
        if ["split", "fold"].contains(&name.as_str()) {
            return Self::Ignored("names the split of a row");
        }
        for (modality, extensions) in mm_data::FILE_EXTENSIONS {
            let has_extension = |cell: &&String| {
                let extension = Path::new(cell).extension().and_then(|e| e.to_str()).unwrap_or("");
                extensions.contains(&extension.to_ascii_lowercase().as_str())
            };
            if cells.iter().filter(has_extension).count() * 2 > cells.len() {
                return Self::Modality(modality);
            }
        }
        let distinct = cells.iter().collect::<BTreeSet<_>>().len();
        let count = cells.len();
        if distinct == 1 && count == num_rows {
            return Self::Ignored("the same in every row");
        }
        let numbers: Vec<f64> = cells.iter().filter_map(|t| t.trim().parse().ok()).collect();
        if numbers.len() * 20 >= count * 19 {
            let is_integer = numbers.iter().all(|v| v.fract() == 0.0);
            let is_id_name =
                ["id", "index", "idx", "row", "unnamed: 0", ""].contains(&name.as_str()) || name.ends_with("_id");
            if is_id_name && is_integer && distinct * 10 > count * 9 {
                return Self::Ignored("a row number");
            }
            return Self::Number;
        }
        let words = cells.iter().map(|t| t.split_whitespace().count()).sum::<usize>() as f64 / count as f64;
        if words >= 3.0 || (distinct * 2 > count && words >= 1.5) {
            Self::Modality("text")
        } else if distinct <= 100 && distinct * 3 <= count.max(30) {
            Self::Category
        } else if distinct * 10 > count * 9 && words < 1.5 {
            Self::Ignored("a row name")
        } else {
            Self::Modality("text")
        }
    }
}
