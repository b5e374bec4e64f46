//! What is predicted: which kind of problem a column of labels is, and labels as numbers.

use crate::{Error, Result};
use mm_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// Whatever the labels look like.
    #[default]
    Auto,
    /// One of two classes.
    Binary,
    /// One of several.
    Multiclass,
    /// Any of several, parted by `;` or `|`, or a list.
    Multilabel,
    /// A number.
    Regression,
    /// One of several classes that stand in an order (numbers, or `classes` in the config).
    Ordinal,
}

impl Problem {
    /// Its name in a config.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Binary => "binary",
            Self::Multiclass => "multiclass",
            Self::Multilabel => "multilabel",
            Self::Regression => "regression",
            Self::Ordinal => "ordinal",
        }
    }
}

impl std::str::FromStr for Problem {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "auto" => Self::Auto,
            "binary" => Self::Binary,
            "multiclass" => Self::Multiclass,
            "multilabel" => Self::Multilabel,
            "regression" => Self::Regression,
            "ordinal" => Self::Ordinal,
            other => {
                let known = ["auto", "binary", "multiclass", "multilabel", "regression", "ordinal"];
                return Err(mm_core::Error::unknown("problem", other, known).into());
            }
        })
    }
}

/// One label as numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// Number of the class.
    Class(usize),
    /// Which of the labels hold.
    Labels(Vec<bool>),
    /// The number itself.
    Number(f64),
}

/// A problem with its classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The kind; never [`Problem::Auto`].
    pub problem: Problem,
    /// Names of the classes, or of the labels; none for numbers.
    pub classes: Vec<String>,
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|v| v.is_finite())
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '|']).map(str::trim).filter(|p| !p.is_empty())
}

impl Target {
    /// Finds out what labels are: `labels` are (row in the file, text) of the training rows. What was found out is told in words.
    pub fn fit(column: &str, problem: Problem, labels: &[(usize, &str)]) -> Result<(Self, String)> {
        let bad = |reason: String| Error::Config(format!("label `{column}`: {reason}"));
        if labels.is_empty() {
            return Err(bad("no training row has one; name another column with --label".into()));
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        labels.iter().for_each(|(_, l)| *counts.entry(l.trim()).or_default() += 1);
        let (rows, distinct) = (labels.len(), counts.len());
        if distinct == 1 {
            let only = counts.keys().next().copied().unwrap_or_default();
            return Err(bad(format!("found `{only}` in each of {rows} rows; wanted at least two different values")));
        }
        let numeric = labels.iter().filter(|(_, l)| number(l).is_some()).count();
        let stranger = || labels.iter().find(|(_, l)| number(l).is_none()).copied().unwrap_or((0, ""));
        let several = labels.iter().filter(|(_, l)| l.contains([';', '|'])).count();
        let (found, why) = match problem {
            Problem::Auto => {
                let whole = labels.iter().filter_map(|(_, l)| number(l)).all(|v| v.fract() == 0.0);
                if several * 10 > rows {
                    (Problem::Multilabel, format!("{several} of {rows} rows have several labels"))
                } else if numeric == rows && (!whole || distinct > 20.max(rows / 50)) {
                    (Problem::Regression, format!("{distinct} different numbers"))
                } else if numeric * 2 > rows && numeric < rows && distinct > 20 {
                    let (row, text) = stranger();
                    return Err(bad(format!(
                        "numbers and words are mixed: row {row} has `{text}`, and {numeric} of {rows} rows are numbers; clean it, or say --problem multiclass"
                    )));
                } else if distinct * 2 > rows && rows > 20 {
                    return Err(bad(format!(
                        "{distinct} different values in {rows} rows are no classes; name another column, or say --problem"
                    )));
                } else if distinct == 2 {
                    (Problem::Binary, "two different values".into())
                } else {
                    (Problem::Multiclass, format!("{distinct} different values"))
                }
            }
            given => (given, "as told".into()),
        };
        let mut classes: Vec<String> = match found {
            Problem::Regression => {
                if numeric < rows {
                    let (row, text) = stranger();
                    return Err(bad(format!("row {row}: found `{text}`, wanted a number")));
                }
                Vec::new()
            }
            Problem::Multilabel => {
                let all: BTreeSet<&str> = labels.iter().flat_map(|(_, l)| parts(l)).collect();
                all.into_iter().map(ToOwned::to_owned).collect()
            }
            _ => counts.keys().map(|c| (*c).to_owned()).collect(),
        };
        if numeric == rows && found != Problem::Multilabel {
            classes.sort_by(|a, b| number(a).unwrap_or(0.0).total_cmp(&number(b).unwrap_or(0.0)));
        } else if found == Problem::Ordinal {
            let (row, text) = stranger();
            return Err(bad(format!(
                "row {row}: found `{text}`; an ordinal problem wants numbers, so that their order is known (or `classes` in their order in a config)"
            )));
        }
        if found == Problem::Binary && classes.len() != 2 {
            return Err(bad(format!("found {} different values, wanted two for a binary problem", classes.len())));
        }
        Ok((Self { problem: found, classes }, why))
    }

    /// Numbers that a network gives for a row.
    pub fn outputs(&self) -> i64 {
        match self.problem {
            Problem::Regression => 1,
            Problem::Ordinal => (self.classes.len() as i64 - 1).max(1),
            _ => self.classes.len() as i64,
        }
    }

    /// Whether a row is one of several classes.
    pub fn is_classes(&self) -> bool {
        matches!(self.problem, Problem::Binary | Problem::Multiclass | Problem::Ordinal)
    }

    /// A label as numbers; `None` for one that is no known class or no number.
    pub fn encode(&self, text: &str) -> Option<Label> {
        let text = text.trim();
        let class = |t: &str| {
            self.classes.iter().position(|c| c == t).or_else(|| {
                // `1` and `1.0` are one class.
                let value = number(t)?;
                self.classes.iter().position(|c| number(c) == Some(value))
            })
        };
        match self.problem {
            Problem::Regression => number(text).map(Label::Number),
            Problem::Multilabel => {
                let mut holds = vec![false; self.classes.len()];
                for part in parts(text) {
                    if let Some(place) = class(part) {
                        holds[place] = true;
                    }
                }
                Some(Label::Labels(holds))
            }
            _ => class(text).map(Label::Class),
        }
    }

    /// Labels of a batch for [`Target::loss`]: `[rows]` int64 with −1 for none, `[rows, labels]` f32 with −1, or `[rows]` f32 with NaN,
    /// brought to mean 0 and variance 1 by `level` (mean, deviation).
    pub(crate) fn tensor(&self, labels: &[Option<Label>], level: (f64, f64), device: Device) -> Result<Tensor> {
        let rows = labels.len() as i64;
        let tensor = match self.problem {
            Problem::Regression => {
                let values: Vec<f32> = labels
                    .iter()
                    .map(|l| if let Some(Label::Number(v)) = l { ((v - level.0) / level.1) as f32 } else { f32::NAN })
                    .collect();
                Tensor::from_slice(&values)?
            }
            Problem::Multilabel => {
                let width = self.classes.len();
                let values: Vec<f32> = labels
                    .iter()
                    .flat_map(|l| match l {
                        Some(Label::Labels(holds)) => holds.iter().map(|h| f32::from(u8::from(*h))).collect(),
                        _ => vec![-1.0; width],
                    })
                    .collect();
                Tensor::from_vec(&values, &[rows, width as i64])?
            }
            _ => {
                let values: Vec<i64> =
                    labels.iter().map(|l| if let Some(Label::Class(c)) = l { *c as i64 } else { -1 }).collect();
                Tensor::from_slice(&values)?
            }
        };
        Ok(tensor.to_device(device)?)
    }

    /// Mean loss of `[rows, outputs]` over the rows that have a label and whose `counts` `[rows]` (all when absent) is 1; none when no row
    /// does.
    pub(crate) fn loss(
        &self,
        outputs: &Tensor,
        labels: &Tensor,
        counts: Option<&Tensor>,
        smoothing: f64,
    ) -> mm_core::Result<Option<Tensor>> {
        let labelled = match self.problem {
            Problem::Regression => labels.eq(labels)?,
            Problem::Multilabel => labels.select(1, 0)?.gt_scalar(-0.5)?,
            _ => labels.gt_scalar(-0.5)?,
        };
        let chosen = match counts {
            Some(counts) => labelled.logical_and(&counts.gt_scalar(0.5)?)?,
            None => labelled,
        };
        let places = chosen.nonzero()?;
        if places.size(0)? == 0 {
            return Ok(None);
        }
        let (x, y) = (outputs.index_select(0, &places)?, labels.index_select(0, &places)?);
        // Cross-entropy of independent yes-or-no answers from their logits.
        let binary = |x: &Tensor, t: &Tensor| x.softplus()?.sub(&x.mul(t)?)?.mean();
        Ok(Some(match self.problem {
            Problem::Regression => x.squeeze(1)?.sub(&y)?.pow(2.0)?.mean()?,
            Problem::Multilabel => binary(&x, &y)?,
            Problem::Ordinal => {
                // Is the class above the first, the second …? (Cao 2020.)
                let steps = Tensor::arange(0, self.outputs(), y.device())?.unsqueeze(0)?;
                binary(&x, &y.unsqueeze(1)?.gt(&steps)?.to_dtype(DType::F32)?)?
            }
            _ => x.cross_entropy(&y, -1, smoothing)?,
        }))
    }

    /// Probabilities of classes or labels (float64 `[rows, classes]`), or numbers `[rows, 1]`, from outputs.
    pub(crate) fn probabilities(&self, outputs: &Tensor, temperature: f64, level: (f64, f64)) -> Result<Tensor> {
        let x = outputs.to_dtype(DType::F64)?;
        Ok(match self.problem {
            Problem::Regression => x.mul_scalar(level.1)?.add_scalar(level.0)?,
            Problem::Multilabel => x.sigmoid()?,
            Problem::Ordinal => {
                let above = x.sigmoid()?; // [rows, classes − 1]
                // What exceeds a class exceeds those below it: running minima.
                let mut steps = vec![above.narrow(1, 0, 1)?];
                for step in 1..above.size(1)? {
                    steps.push(steps[step as usize - 1].minimum(&above.narrow(1, step, 1)?)?);
                }
                let above = Tensor::cat(&steps.iter().collect::<Vec<_>>(), 1)?;
                above.pad(&[1, 0], 1.0)?.sub(&above.pad(&[0, 1], 0.0)?)?
            }
            _ => x.mul_scalar(1.0 / temperature)?.softmax(1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(problem: Problem, labels: &[&str]) -> Result<Target> {
        let labels: Vec<(usize, &str)> = labels.iter().enumerate().map(|(n, l)| (n + 1, *l)).collect();
        Target::fit("y", problem, &labels).map(|(t, _)| t)
    }

    #[test]
    fn problems_are_guessed_and_labels_that_make_no_sense_are_told() {
        assert_eq!(fit(Problem::Auto, &["a", "b", "a"]).unwrap().problem, Problem::Binary);
        assert_eq!(fit(Problem::Auto, &["1", "2", "10"]).unwrap().classes, ["1", "2", "10"]);
        assert_eq!(fit(Problem::Auto, &["1.5", "2", "10"]).unwrap().problem, Problem::Regression);
        let many = fit(Problem::Auto, &["a;b", "b", "c|a"]).unwrap();
        assert_eq!((many.problem, many.classes.len()), (Problem::Multilabel, 3));
        assert_eq!(many.encode("c;b;unknown"), Some(Label::Labels(vec![false, true, true])));
        let told = |p, l: &[&str]| fit(p, l).unwrap_err().to_string();
        assert!(told(Problem::Auto, &["x", "x"]).contains("`x` in each of 2 rows"));
        assert!(told(Problem::Regression, &["1", "two"]).contains("row 2: found `two`"));
        assert!(told(Problem::Auto, &[]).contains("no training row"));
        let mixed: Vec<String> = (0..60).map(|i| if i == 9 { "many".into() } else { i.to_string() }).collect();
        assert!(
            told(Problem::Auto, &mixed.iter().map(String::as_str).collect::<Vec<_>>()).contains("row 10 has `many`")
        );
        let binary = fit(Problem::Auto, &["0", "1", "1"]).unwrap();
        assert_eq!(binary.encode("1.0"), Some(Label::Class(1)));
        assert_eq!(binary.encode("7"), None);
    }

    #[test]
    fn ordinal_probabilities_sum_to_one_and_never_go_below_zero() {
        let target = fit(Problem::Ordinal, &["1", "2", "3", "4"]).unwrap();
        let x = Tensor::from_vec(&[2f32, -1.0, 3.0, -3.0, 0.0, 1.0], &[2, 3]).unwrap();
        let p = target.probabilities(&x, 1.0, (0.0, 1.0)).unwrap().to_vec::<f64>().unwrap();
        for row in p.chunks(4) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9 && row.iter().all(|v| *v >= 0.0), "{row:?}");
        }
    }
}
