//! Provenance of an output file: the command, model, options and table that its rows were computed from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What the rows of an output file depend on. An interrupted file is continued only by a command of equal provenance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The command.
    pub command: String,
    /// Hash of the model.
    pub model: String,
    /// The options that change the rows, by name.
    pub options: Map<String, Value>,
    /// Hash of the table.
    #[serde(default)]
    pub table: String,
}

impl Provenance {
    /// How an existing file's provenance differs from this one, as part of an error message; `None` if they are equal.
    pub fn difference(&self, of_file: &Self) -> Option<String> {
        if self.command != of_file.command {
            return Some(format!("was written by `mm {}`, expected `mm {}`", of_file.command, self.command));
        }
        if self.model != of_file.model {
            return Some("holds rows of another model (--model), expected those of this model".to_owned());
        }
        let options = self.different_options(of_file);
        if !options.is_empty() {
            return Some(format!("holds rows made with other options: {}", options.join(", ")));
        }
        (self.table != of_file.table)
            .then(|| "holds rows of another table, or of this one before it was edited, expected the same table".into())
    }

    /// The options that differ from those of an existing file, with both values.
    fn different_options(&self, of_file: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.options.keys().chain(of_file.options.keys()).collect();
        let text = |name: &String| {
            let (found, expected) = (of_file.options.get(name), self.options.get(name));
            let (found, expected) = (found.unwrap_or(&Value::Null), expected.unwrap_or(&Value::Null));
            (found != expected).then(|| format!("{name} {found}, expected {expected}"))
        };
        names.into_iter().filter_map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn provenance(options: Value) -> Provenance {
        let Value::Object(options) = options else { panic!("{options} is no object") };
        Provenance { command: "caption".into(), model: "1".into(), options, table: "2".into() }
    }

    #[test]
    fn the_first_difference_is_named() {
        let made = provenance(json!({"num_beams": 1, "prompt": null}));
        assert_eq!(made.difference(&made), None);
        let difference = |of: Provenance| made.difference(&of).unwrap();
        assert!(difference(Provenance { command: "answer".into(), ..made.clone() }).contains("`mm answer`"));
        assert!(difference(Provenance { model: "3".into(), ..made.clone() }).contains("another model"));
        assert!(difference(Provenance { table: "4".into(), ..made.clone() }).contains("another table"));
        let options = difference(provenance(json!({"num_beams": 2, "top_k": 5})));
        assert!(options.ends_with("num_beams 2, expected 1, top_k 5, expected null"), "{options}");
    }
}
