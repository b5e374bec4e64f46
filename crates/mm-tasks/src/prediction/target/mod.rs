//! The prediction target: the type of problem, its classes, and labels as values.

mod infer;
mod loss;

pub(super) use infer::count_labels;

use crate::{Error, Result};
use mm_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// The type of a prediction problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// Inferred from the labels.
    #[default]
    Auto,
    /// One of two classes.
    Binary,
    /// One of several classes.
    Multiclass,
    /// Any number of labels, separated by `;` or `|`.
    Multilabel,
    /// A number.
    Regression,
    /// One of several ordered classes: numbers, or `classes` of the config in their order.
    Ordinal,
}

const PROBLEMS: [Problem; 6] =
    [Problem::Auto, Problem::Binary, Problem::Multiclass, Problem::Multilabel, Problem::Regression, Problem::Ordinal];

impl Problem {
    /// The name in a config and on the command line.
    pub fn name(self) -> &'static str {
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
        let found = PROBLEMS.into_iter().find(|p| p.name() == text);
        Ok(found.ok_or_else(|| mm_core::Error::unknown("problem", text, PROBLEMS.map(Self::name)))?)
    }
}

/// The label of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// Index of the class.
    Class(usize),
    /// For each label, whether the row has it.
    Labels(Vec<bool>),
    /// The number of a regression.
    Number(f64),
}

/// A problem with its classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The type; never [`Problem::Auto`].
    pub problem: Problem,
    /// Names of the classes or labels; empty for a regression.
    pub classes: Vec<String>,
}

fn parse_number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|v| v.is_finite())
}

/// What equal labels have in common, however they are written: `1` and `1.0` are one class, as are `True` and `true`;
/// `01` is another than `1`.
fn canonical(text: &str) -> &str {
    let text = text.trim();
    for flag in ["true", "false"] {
        if text.eq_ignore_ascii_case(flag) {
            return flag;
        }
    }
    let is_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) if is_digits(whole.strip_prefix('-').unwrap_or(whole)) && is_digits(fraction) => {
            match fraction.trim_end_matches('0').len() {
                0 => whole,
                length => &text[..whole.len() + 1 + length],
            }
        }
        _ => text,
    }
}

/// The labels of a multilabel cell.
fn split_labels(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '|']).map(str::trim).filter(|p| !p.is_empty())
}

impl Target {
    /// Number of outputs of a head.
    pub fn num_outputs(&self) -> i64 {
        match self.problem {
            Problem::Regression => 1,
            Problem::Ordinal => (self.classes.len() as i64 - 1).max(1),
            _ => self.classes.len() as i64,
        }
    }

    /// Whether a row has one of several classes.
    pub fn is_classes(&self) -> bool {
        matches!(self.problem, Problem::Binary | Problem::Multiclass | Problem::Ordinal)
    }

    /// The label of a cell; `None` for an unknown class, or text that is no number in a regression.
    pub fn encode(&self, text: &str) -> Option<Label> {
        let text = text.trim();
        let class = |t: &str| self.class(t);
        match self.problem {
            Problem::Regression => parse_number(text).map(Label::Number),
            Problem::Multilabel => {
                let mut labels = vec![false; self.classes.len()];
                for index in split_labels(text).filter_map(class) {
                    labels[index] = true;
                }
                Some(Label::Labels(labels))
            }
            _ => class(text).map(Label::Class),
        }
    }

    /// The index of a class or label.
    fn class(&self, text: &str) -> Option<usize> {
        let found = self.classes.iter().position(|c| c == text);
        found.or_else(|| self.classes.iter().position(|c| canonical(c) == canonical(text)))
    }

    /// Whether a cell holds a class or label that training did not have, or no number in a regression.
    pub(super) fn is_unknown(&self, text: &str) -> bool {
        match self.problem {
            Problem::Multilabel => split_labels(text).any(|label| self.class(label).is_none()),
            _ => self.encode(text).is_none(),
        }
    }

    /// The name of the class in a cell as the model has it, where it has it; else the text itself.
    pub(super) fn class_name<'a>(&'a self, text: &'a str) -> &'a str {
        match self.is_classes().then(|| self.encode(text)).flatten() {
            Some(Label::Class(index)) => &self.classes[index],
            _ => text,
        }
    }

    /// The labels of a batch for [`Target::loss`]: `[rows]` int64 classes, −1 where there is none; `[rows, labels]` f32
    /// for a multilabel problem, −1 where there is none; or `[rows]` f32 for a regression, standardized by `stats`
    /// (mean, standard deviation), NaN where there is none.
    pub(super) fn to_tensor(&self, labels: &[Option<Label>], stats: (f64, f64), device: Device) -> Result<Tensor> {
        let rows = labels.len() as i64;
        let tensor = match self.problem {
            Problem::Regression => {
                let value = |label: &Option<Label>| match label {
                    Some(Label::Number(v)) => ((v - stats.0) / stats.1) as f32,
                    _ => f32::NAN,
                };
                Tensor::from_slice(&labels.iter().map(value).collect::<Vec<f32>>())?
            }
            Problem::Multilabel => {
                let count = self.classes.len();
                let value = |label: &Option<Label>| match label {
                    Some(Label::Labels(labels)) => labels.iter().map(|l| f32::from(u8::from(*l))).collect(),
                    _ => vec![-1.0; count],
                };
                let values: Vec<f32> = labels.iter().flat_map(value).collect();
                Tensor::from_vec(&values, &[rows, count as i64])?
            }
            _ => {
                let value = |label: &Option<Label>| if let Some(Label::Class(c)) = label { *c as i64 } else { -1 };
                Tensor::from_slice(&labels.iter().map(value).collect::<Vec<i64>>())?
            }
        };
        Ok(tensor.to_device(device)?)
    }

    /// Probabilities of classes or labels, float64 `[rows, classes]`, or values of a regression `[rows, 1]`, from the
    /// outputs `[rows, outputs]` of a head.
    pub(super) fn probabilities(&self, outputs: &Tensor, temperature: f64, stats: (f64, f64)) -> Result<Tensor> {
        let x = outputs.to_dtype(DType::F64)?;
        Ok(match self.problem {
            Problem::Regression => x.mul_scalar(stats.1)?.add_scalar(stats.0)?,
            Problem::Multilabel => x.sigmoid()?,
            Problem::Ordinal => {
                let above = x.sigmoid()?; // [rows, classes − 1]
                // Running minima, so that the probabilities of exceeding higher and higher classes never rise.
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

    fn infer(problem: Problem, labels: &[&str]) -> Result<Target> {
        let labels: Vec<(usize, &str)> = labels.iter().enumerate().map(|(n, l)| (n + 1, *l)).collect();
        Target::infer("y", problem, &labels).map(|(t, _)| t)
    }

    #[test]
    fn problems_are_inferred_and_invalid_labels_are_reported() {
        assert_eq!(infer(Problem::Auto, &["a", "b", "a"]).unwrap().problem, Problem::Binary);
        assert_eq!(infer(Problem::Auto, &["1", "2", "10"]).unwrap().classes, ["1", "2", "10"]);
        assert_eq!(infer(Problem::Auto, &["1.5", "2", "10"]).unwrap().problem, Problem::Regression);
        let many = infer(Problem::Auto, &["a;b", "b", "c|a"]).unwrap();
        assert_eq!((many.problem, many.classes.len()), (Problem::Multilabel, 3));
        assert_eq!(many.encode("c;b;unknown"), Some(Label::Labels(vec![false, true, true])));
        let error = |p, l: &[&str]| infer(p, l).unwrap_err().to_string();
        assert!(error(Problem::Auto, &["x", "x"]).contains("`x` in each of 2 rows"));
        assert!(error(Problem::Regression, &["1", "two"]).contains("row 2: found `two`"));
        assert!(error(Problem::Auto, &[]).contains("no training row"));
        let mixed: Vec<String> = (0..60).map(|i| if i == 9 { "many".into() } else { i.to_string() }).collect();
        assert!(
            error(Problem::Auto, &mixed.iter().map(String::as_str).collect::<Vec<_>>())
                .contains("row 10: found `many`")
        );
        let binary = infer(Problem::Auto, &["0", "1", "1"]).unwrap();
        assert_eq!(binary.encode("1.0"), Some(Label::Class(1)));
        assert_eq!(binary.encode("7"), None);
        assert!(binary.is_unknown("7") && !binary.is_unknown("1.0") && many.is_unknown("b;z"));
        assert_eq!("ordinal".parse::<Problem>().unwrap(), Problem::Ordinal);
        assert!("ordnal".parse::<Problem>().unwrap_err().to_string().contains("did you mean `ordinal`"));
    }

    #[test]
    fn classes_keep_the_names_that_they_were_written_with() {
        let names = |labels: &[&str]| infer(Problem::Auto, labels).unwrap().classes;
        assert_eq!(names(&["01", "1", "01"]), ["01", "1"]);
        assert_eq!(names(&["Yes", "yes", "no"]), ["Yes", "no", "yes"]);
        assert_eq!(names(&["1.0", "1", "0", "1"]), ["0", "1"]);
        assert_eq!(names(&["True", "False", "true", "True"]), ["False", "True"]);
        let padded = infer(Problem::Auto, &["01", "1", "01"]).unwrap();
        assert_eq!((padded.encode("1.0"), padded.encode("01")), (Some(Label::Class(1)), Some(Label::Class(0))));
        assert_eq!((padded.class_name("1.0"), padded.class_name("7")), ("1", "7"));
    }

    #[test]
    fn codes_of_classes_are_classes_and_other_whole_numbers_are_not() {
        let labels = |values: Vec<usize>| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let problem = |labels: &[String]| {
            infer(Problem::Auto, &labels.iter().map(String::as_str).collect::<Vec<_>>()).unwrap().problem
        };
        assert_eq!(problem(&labels((0..2000).map(|i| i % 100).collect())), Problem::Multiclass);
        // Ages: not from 0 or 1 on; counts: mostly small.
        assert_eq!(problem(&labels((0..2000).map(|i| 18 + i % 70).collect())), Problem::Regression);
        assert_eq!(problem(&labels((0..2000).map(|i| (i % 64) * (i % 63) / 64).collect())), Problem::Regression);
    }

    #[test]
    fn a_class_name_with_a_separator_is_no_set_of_labels() {
        assert_eq!(infer(Problem::Auto, &["yes; sure", "no", "yes; sure"]).unwrap().classes, ["no", "yes; sure"]);
        assert_eq!(infer(Problem::Auto, &["1;2", "2", "1;2"]).unwrap().problem, Problem::Multilabel);
    }

    #[test]
    fn ordinal_probabilities_sum_to_one_and_are_never_negative() {
        let target = infer(Problem::Ordinal, &["1", "2", "3", "4"]).unwrap();
        let x = Tensor::from_vec(&[2f32, -1.0, 3.0, -3.0, 0.0, 1.0], &[2, 3]).unwrap();
        let p = target.probabilities(&x, 1.0, (0.0, 1.0)).unwrap().to_vec::<f64>().unwrap();
        for row in p.chunks(4) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9 && row.iter().all(|v| *v >= 0.0), "{row:?}");
        }
    }
}
