//! Which column of a table is which modality.

use super::{options::FitOptions, row_numbers::are_row_numbers};
use crate::{Error, Result};
use mm_core::{
    Registry,
    cells::{NumberFormat, Record, is_missing_number},
};
use mm_data::{Table, column_name_rank, file_modality, is_id_name, is_index_name};
use serde_json::Value;
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
    Modality(String),
    Number(NumberFormat),
    Category,
    Ignored(String),
}

impl ColumnKind {
    fn ignored(reason: &str) -> Self {
        Self::Ignored(reason.to_owned())
    }

    fn modality(name: &str) -> Self {
        Self::Modality(name.to_owned())
    }
}

/// Infers the columns of each modality; those that the options name are checked and used alone.
///
/// # Errors
/// When a named column does not exist, or no column can be used.
pub(super) fn infer_columns(table: &Table, options: &FitOptions, registry: &Registry) -> Result<InferredColumns> {
    let find = |what: &'static str, name: &String| -> Result<()> {
        let known = table.columns.iter().map(String::as_str);
        if table.has_column(name) { Ok(()) } else { Err(Error::unknown_column(&options.data, what, name, known)) }
    };
    find("label column", &options.label_column)?;
    options.group_column.iter().try_for_each(|group| find("group column", group))?;
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
    let is_input = |name: &&String| **name != options.label_column && Some(*name) != options.group_column.as_ref();
    for name in table.columns.iter().filter(is_input) {
        inferred.add(name, table, registry);
    }
    inferred.choose_files();
    // A video also has an audio track.
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
    fn add(&mut self, name: &str, table: &Table, registry: &Registry) {
        let has_tabular = registry.proposable_modalities().any(|m| m == "tabular");
        let mut ignore = |reason: &str| self.log.push(format!("{name}: left out ({reason})"));
        let modality = match ColumnKind::of(name, table, registry) {
            ColumnKind::Number(_) | ColumnKind::Category if !has_tabular => {
                return ignore("numbers and categories need mm-tabular");
            }
            ColumnKind::Number(format) => {
                if format != NumberFormat::Plain {
                    self.log.push(format!("{name}: {}", format.describe()));
                }
                "tabular".to_owned()
            }
            ColumnKind::Category => "tabular".to_owned(),
            ColumnKind::Modality(modality) => modality,
            ColumnKind::Ignored(reason) => return ignore(&reason),
        };
        self.columns.entry(modality).or_default().push(name.to_owned());
    }

    /// Of several columns of one modality that are not joined, takes the one whose name fits best.
    fn choose_files(&mut self) {
        for (modality, columns) in &mut self.columns {
            if JOINED_MODALITIES.contains(&modality.as_str()) {
                continue;
            }
            // An id that looks like a file name comes last.
            columns.sort_by_key(|c| (is_id_name(c), column_name_rank(modality, c)));
            let taken = columns[0].clone();
            for other in columns.drain(1..) {
                self.log.push(format!(
                    "{other}: left out ({modality} is {taken}; choose with --column {modality}={other})"
                ));
            }
        }
    }
}

impl ColumnKind {
    fn of(name: &str, table: &Table, registry: &Registry) -> Self {
        let sample = table.sample(name, MAX_INSPECTED_ROWS);
        let values: Vec<&Value> = sample.iter().collect();
        let Some(first) = values.first() else { return Self::ignored("empty") };
        if let Some(modality) = registry.modality_of_column(name, &values) {
            return Self::modality(modality);
        }
        if let Some(modality) = file_modality(&values) {
            let folder = table.path.parent().unwrap_or(Path::new("."));
            return match first.as_str() {
                Some(file) if is_id_name(name) && !folder.join(file).is_file() => {
                    Self::Ignored(format!("an identifier that looks like a file name; there is no file {file}"))
                }
                _ => Self::modality(modality),
            };
        }
        if is_vector(first) {
            return Self::modality("vector");
        }
        let cells: Vec<String> = values.iter().filter_map(|v| mm_data::cell_text(v)).collect();
        if cells.is_empty() {
            let example: String = first.to_string().chars().take(60).collect();
            return Self::Ignored(format!("neither text, numbers nor files of a known kind, for instance {example}"));
        }
        Self::of_texts(name, &cells, table)
    }

    /// The kind of a column with these cells, a sample of its own.
    fn of_texts(name: &str, cells: &[String], table: &Table) -> Self {
        if ["split", "fold"].contains(&name.to_lowercase().as_str()) {
            return Self::ignored("names the split of a row");
        }
        let distinct = cells.iter().collect::<BTreeSet<_>>().len();
        let count = cells.len();
        if distinct == 1 && table.rows.iter().all(|row| row.has_value(name)) {
            return Self::ignored("the same in every row");
        }
        let finite: Vec<&str> = cells.iter().map(String::as_str).filter(|t| !is_missing_number(t)).collect();
        if let Some(format) = NumberFormat::infer(finite.iter().copied()) {
            return Self::of_numbers(name, format, &finite, distinct, table);
        }
        let words = cells.iter().map(|t| t.split_whitespace().count()).sum::<usize>() as f64 / count as f64;
        if words >= 3.0 || (distinct * 2 > count && words >= 1.5) {
            Self::modality("text")
        } else if distinct <= 100 && distinct * 3 <= count.max(30) {
            Self::Category
        } else if distinct * 10 > count * 9 && words < 1.5 {
            Self::ignored("a row name")
        } else {
            Self::modality("text")
        }
    }

    /// Numbers, unless they are those of the rows; `cells` are a sample with this many different ones.
    fn of_numbers(name: &str, format: NumberFormat, cells: &[&str], distinct: usize, table: &Table) -> Self {
        let is_integer = || cells.iter().filter_map(|t| format.parse(t)).all(|v| v.fract() == 0.0);
        if format != NumberFormat::Plain || !is_integer() {
            return Self::Number(format);
        }
        if is_index_name(name) {
            return Self::ignored("the index of a pandas table; use it with --column tabular=…");
        }
        if is_id_name(name) && distinct * 10 > cells.len() * 9 {
            return Self::ignored("an identifier");
        }
        let number = |row: &Record| row.get(name).and_then(|text| format.parse(text));
        // Where some repeat, they do not number the rows.
        let is_distinct = distinct == cells.len();
        if is_distinct && are_row_numbers(&table.rows.iter().filter_map(number).collect::<Vec<_>>()) {
            return Self::ignored(
                "a row number: different in every row, with few gaps; use it with --column tabular=…",
            );
        }
        Self::Number(format)
    }
}

/// Whether a cell is a list of numbers.
fn is_vector(cell: &Value) -> bool {
    cell.as_array().is_some_and(|items| items.len() > 1 && items.iter().all(Value::is_number))
}

#[cfg(test)]
mod tests;
