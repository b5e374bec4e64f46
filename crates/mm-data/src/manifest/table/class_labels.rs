//! The names of classes that Hugging Face's `datasets` states beside the numbers of a column.

use super::Cells;
use serde_json::Value;
use std::collections::BTreeMap;

/// The names of the classes of columns.
#[derive(Debug, Default)]
pub(super) struct ClassLabels(BTreeMap<String, Vec<String>>);

impl ClassLabels {
    /// The key of the statement in the metadata of Parquet and Arrow files.
    pub(super) const KEY: &str = "huggingface";

    /// Reads `{"info": {"features": {COLUMN: {"_type": "ClassLabel", "names": […]}}}}`; what is something else states
    /// nothing.
    pub(super) fn read(metadata: Option<&str>) -> Self {
        let parsed = metadata.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let features = parsed.as_ref().and_then(|value| value.pointer("/info/features")?.as_object());
        let columns = features.into_iter().flatten();
        Self(columns.filter_map(|(column, feature)| Some((column.clone(), names(feature)?))).collect())
    }

    /// Puts names in place of the numbers of classes; -1 stands for no class.
    pub(super) fn name(&self, row: &mut Cells) {
        for (column, names) in &self.0 {
            if let Some(cell) = row.get_mut(column) {
                name(cell, names);
            }
        }
    }
}

/// The names of a feature of classes, or of a list of them.
fn names(feature: &Value) -> Option<Vec<String>> {
    if let Value::Array(items) = feature {
        return names(items.first()?);
    }
    match feature.get("_type")?.as_str()? {
        "ClassLabel" => {
            let names = feature.get("names")?.as_array()?;
            names.iter().map(|name| name.as_str().map(ToOwned::to_owned)).collect()
        }
        "Sequence" | "List" | "LargeList" => names(feature.get("feature")?),
        _ => None,
    }
}

fn name(cell: &mut Value, names: &[String]) {
    match cell {
        Value::Number(number) => match number.as_i64() {
            Some(-1) => *cell = Value::Null,
            Some(class) => {
                if let Some(found) = usize::try_from(class).ok().and_then(|class| names.get(class)) {
                    *cell = Value::from(found.as_str());
                }
            }
            None => {}
        },
        Value::Array(items) => items.iter_mut().for_each(|item| name(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_of_classes_become_names() {
        let metadata = json!({"info": {"features": {
            "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
            "tags": {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": "List"},
            "old": [{"names": ["x"], "_type": "ClassLabel"}],
            "n": {"dtype": "int64", "_type": "Value"},
        }}});
        let labels = ClassLabels::read(Some(&metadata.to_string()));
        let row = |value: Value| value.as_object().cloned().unwrap();
        let mut cells = row(json!({"label": 1, "tags": [1, 0, 7], "old": [0], "n": 1}));
        labels.name(&mut cells);
        assert_eq!(cells, row(json!({"label": "dog", "tags": ["b", "a", 7], "old": ["x"], "n": 1})));
        let mut cells = row(json!({"label": -1}));
        labels.name(&mut cells);
        assert_eq!(cells, row(json!({"label": null})));
        for nothing in [None, Some("no JSON"), Some("{}")] {
            assert!(ClassLabels::read(nothing).0.is_empty());
        }
    }
}
