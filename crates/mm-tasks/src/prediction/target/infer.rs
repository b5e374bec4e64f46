//! The type of problem that a column of labels poses.

use super::{Problem, Target, canonical, parse_number, split_labels};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The labels of the training rows, counted.
struct LabelStats<'a> {
    column: &'a str,
    /// Row in the file and text of each label.
    labels: &'a [(usize, &'a str)],
    counts: BTreeMap<&'a str, usize>,
    /// Number of labels that are numbers.
    numeric: usize,
}

impl Target {
    /// The target of a column from its labels (row in the file, text) in the training rows; returns why as well.
    ///
    /// # Errors
    /// When there are no labels, only one value, or labels that do not fit the problem; names the row.
    pub fn infer(column: &str, problem: Problem, labels: &[(usize, &str)]) -> Result<(Self, String)> {
        let stats = LabelStats::new(column, labels)?;
        let (problem, reason) = match problem {
            Problem::Auto => stats.infer_problem()?,
            given => (given, "as specified".into()),
        };
        let classes = stats.classes(problem)?;
        Ok((Self { problem, classes }, reason))
    }
}

impl<'a> LabelStats<'a> {
    fn new(column: &'a str, labels: &'a [(usize, &'a str)]) -> Result<Self> {
        let counts = count_labels(labels.iter().map(|(_, l)| *l));
        let numeric = labels.iter().filter(|(_, l)| parse_number(l).is_some()).count();
        let stats = Self { column, labels, counts, numeric };
        let label = stats.counts.keys().next().copied().unwrap_or_default();
        match stats.counts.len() {
            0 => {
                Err(stats.error(None, "no training row with a label", "another column; choose one with --label-column"))
            }
            1 => {
                let found = format!("`{label}` in each of {} rows", labels.len());
                Err(stats.error(None, found, "at least two different values"))
            }
            _ => Ok(stats),
        }
    }

    fn error(&self, row: Option<usize>, found: impl ToString, expected: impl ToString) -> Error {
        let (found, expected) = (found.to_string(), expected.to_string());
        Error::Label { column: self.column.to_owned(), row, found, expected }
    }

    /// The error of the first label that is no number.
    fn non_numeric(&self, expected: impl ToString) -> Error {
        let first = self.labels.iter().find(|(_, l)| parse_number(l).is_none()).copied();
        self.error(first.map(|f| f.0), format!("`{}`", first.map_or("", |f| f.1)), expected)
    }

    fn infer_problem(&self) -> Result<(Problem, String)> {
        let (rows, distinct, numeric) = (self.labels.len(), self.counts.len(), self.numeric);
        let multiple = self.labels.iter().filter(|(_, l)| l.contains([';', '|'])).count();
        let integers = self.labels.iter().filter_map(|(_, l)| parse_number(l)).all(|v| v.fract() == 0.0);
        if multiple * 10 > rows && self.labels_recombine() {
            Ok((Problem::Multilabel, format!("{multiple} of {rows} rows have several labels")))
        } else if numeric == rows && (!integers || (distinct > 20.max(rows / 50) && !self.are_class_codes())) {
            Ok((Problem::Regression, format!("{distinct} different numbers")))
        } else if numeric * 2 > rows && numeric < rows && distinct > 20 {
            let advice = format!(
                "a number like {numeric} of {rows} labels; correct it, or use all values as classes with --problem multiclass"
            );
            Err(self.non_numeric(advice))
        } else if distinct * 2 > rows && rows > 20 {
            let found = format!("{distinct} different values in {rows} rows");
            Err(self.error(None, found, "fewer classes; choose another column, or state --problem"))
        } else if distinct == 2 {
            Ok((Problem::Binary, "two different values".into()))
        } else {
            Ok((Problem::Multiclass, format!("{distinct} different values")))
        }
    }

    /// Whether a part of a cell with several labels occurs in another cell as well; else `yes; sure` is a class name.
    fn labels_recombine(&self) -> bool {
        let mut cells: BTreeMap<&str, usize> = BTreeMap::new();
        for cell in self.counts.keys() {
            split_labels(cell).collect::<BTreeSet<_>>().into_iter().for_each(|l| *cells.entry(l).or_default() += 1);
        }
        cells.values().any(|count| *count > 1)
    }

    /// Whether whole numbers are codes of classes: from 0 or 1 on, nearly without gaps, each several times and none
    /// much rarer than the others.
    fn are_class_codes(&self) -> bool {
        let values: Vec<f64> = self.counts.keys().filter_map(|c| parse_number(c)).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (rows, distinct) = (self.labels.len() as f64, values.len() as f64);
        let rarest = self.counts.values().min().copied().unwrap_or(0) as f64;
        [0.0, 1.0].contains(&low)
            && distinct >= 0.95 * (high - low + 1.0)
            && distinct * 5.0 <= rows
            && rarest * 4.0 * distinct >= rows
    }

    fn classes(&self, problem: Problem) -> Result<Vec<String>> {
        let is_numeric = self.numeric == self.labels.len();
        let mut classes: Vec<String> = match problem {
            Problem::Regression if !is_numeric => return Err(self.non_numeric("a number")),
            Problem::Regression => Vec::new(),
            Problem::Multilabel => {
                let all: BTreeSet<&str> = self.labels.iter().flat_map(|(_, l)| split_labels(l)).collect();
                all.into_iter().map(ToOwned::to_owned).collect()
            }
            _ => self.counts.keys().map(|c| (*c).to_owned()).collect(),
        };
        if is_numeric && problem != Problem::Multilabel {
            let value = |class: &String| parse_number(class).unwrap_or(0.0);
            classes.sort_by(|a, b| value(a).total_cmp(&value(b)));
        } else if problem == Problem::Ordinal {
            return Err(self
                .non_numeric("a number, which gives the classes an order (or `classes` in their order in a config)"));
        }
        if problem == Problem::Binary && classes.len() != 2 {
            return Err(self.error(None, format!("{} different values", classes.len()), "two for a binary problem"));
        }
        Ok(classes)
    }
}

/// How often each label occurs. Labels that are written in several ways (`1`, `1.0`) are one, under the name that is
/// most frequent.
pub(in super::super) fn count_labels<'a>(labels: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut written: BTreeMap<&str, usize> = BTreeMap::new();
    labels.for_each(|l| *written.entry(l.trim()).or_default() += 1);
    let mut groups: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    written.into_iter().for_each(|(name, count)| groups.entry(canonical(name)).or_default().push((name, count)));
    let most_frequent = |group: Vec<(&'a str, usize)>| {
        let total = group.iter().map(|(_, count)| count).sum();
        // Of equally frequent names the first.
        group.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| (name, total))
    };
    groups.into_values().filter_map(most_frequent).collect()
}
