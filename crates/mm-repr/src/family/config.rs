//! Reading `config.json`.

use serde_json::Value;

/// Number of classes: `num_labels` (timm: `num_classes`), else the size of `id2label`, else transformers' default of
/// two.
pub fn num_labels(config: &Value) -> i64 {
    let named = config["id2label"].as_object().map(|l| l.len() as i64);
    let stated = ["num_labels", "num_classes"].iter().find_map(|k| config[*k].as_i64());
    stated.or(named).unwrap_or(2)
}

/// Maximum number of class names. A larger `num_labels` belongs to a damaged config, which no classifier's weights fit.
const MAX_LABELS: i64 = 1 << 20;

/// Class names in order; `LABEL_i` where the config has none.
pub fn labels(config: &Value, num_labels: i64) -> Vec<String> {
    let transformers = |i: i64| config["id2label"][i.to_string()].as_str().map(ToOwned::to_owned);
    let timm = |i: i64| config["label_names"][i as usize].as_str().map(ToOwned::to_owned);
    (0..num_labels.min(MAX_LABELS))
        .map(|i| transformers(i).or_else(|| timm(i)).unwrap_or_else(|| format!("LABEL_{i}")))
        .collect()
}

/// Which scores a classifier gives, as transformers' pipelines read them from the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scores {
    /// Of classes that exclude each other.
    SingleLabel,
    /// Of classes that do not exclude each other.
    MultiLabel,
    /// Of one class: the relevance of a text to a query, as rerankers give it.
    Relevance,
    /// Of no classes: the reason.
    NoClasses(String),
}

impl Scores {
    /// Those of a `config.json` with this number of classes.
    pub(crate) fn of(config: &Value, num_labels: i64) -> Self {
        let expected = "single_label_classification or multi_label_classification";
        match config["problem_type"].as_str() {
            Some("multi_label_classification") => Self::MultiLabel,
            None | Some("single_label_classification") if num_labels == 1 => Self::Relevance,
            None | Some("single_label_classification") => Self::SingleLabel,
            Some("regression") => Self::NoClasses(format!(
                "problem_type: found regression, whose scores are numbers and not of classes; expected {expected}"
            )),
            Some(other) => Self::NoClasses(format!("problem_type: found `{other}`, expected {expected}")),
        }
    }

    /// Why they are not of classes, where they are not.
    pub(crate) fn no_classes(self) -> Option<String> {
        match self {
            Self::SingleLabel | Self::MultiLabel => None,
            Self::Relevance => Some(
                "id2label: found 1 class, a score as rerankers give; expected at least 2 classes, or problem_type = \
                 multi_label_classification"
                    .into(),
            ),
            Self::NoClasses(reason) => Some(reason),
        }
    }
}

/// Removes fields that are `null`, which mean the same as absent ones.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect())
        }
        other => other.clone(),
    }
}

/// Defines a config struct with the reference implementation's default for each field that a `config.json` leaves out.
#[macro_export]
macro_rules! checkpoint_config {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Deserialize)]
        #[serde(default)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $value,)* }
            }
        }
    };
}
