//! Variables: `${name}` in the strings of a step.

use crate::registry::{Kind, Registry};
use std::{cell::RefCell, collections::BTreeMap};

/// The value of a variable.
#[derive(Debug, Clone, Default)]
pub(super) struct Value {
    text: String,
    /// The data sets and models whose folders are part of it.
    needs: Vec<(Kind, String)>,
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self { text, needs: Vec::new() }
    }
}

/// The values of variables by name.
pub(super) type Values = BTreeMap<String, Value>;

/// The variables of one step.
pub(super) struct Variables<'a> {
    values: Values,
    registry: &'a Registry,
    /// The data sets and models whose folders were put in.
    used: RefCell<Vec<(Kind, String)>>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(values: Values, registry: &'a Registry) -> Self {
        Self { values, registry, used: RefCell::default() }
    }

    /// The data sets and models whose folders were put in, each once.
    pub(super) fn into_used(self) -> Vec<(Kind, String)> {
        let mut used: Vec<(Kind, String)> = Vec::new();
        for item in self.used.into_inner() {
            if !used.contains(&item) {
                used.push(item);
            }
        }
        used
    }

    /// The value of a variable that consists of this text.
    pub(super) fn value(self, text: &str) -> Result<Value, String> {
        Ok(Value { text: self.expand(text)?, needs: self.into_used() })
    }

    /// The value of a variable; `data.NAME` and `models.NAME` are folders in the cache.
    fn get(&self, name: &str) -> Option<String> {
        if let Some(value) = self.values.get(name) {
            self.used.borrow_mut().extend_from_slice(&value.needs);
            return Some(value.text.clone());
        }
        let (kind, item) = name.split_once('.')?;
        let kind = [Kind::Data, Kind::Models].into_iter().find(|k| k.name() == kind)?;
        let folder = self.registry.folder(kind, item).ok()?;
        self.used.borrow_mut().push((kind, item.to_owned()));
        Some(folder.display().to_string())
    }

    /// Replaces each `${name}` by its value, and `$${` by `${`.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                out += before;
                out += "${";
                rest = after;
                continue;
            }
            let (name, tail) = after.split_once('}').ok_or_else(|| format!("`{text}`: a ${{ without its }}"))?;
            let value = self.get(name).ok_or_else(|| {
                let known: Vec<&str> = self.values.keys().map(String::as_str).collect();
                format!(
                    "`{text}`: no variable `{name}`; the variables are {}, data.NAME and models.NAME; write $${{ for the text \
                     ${{",
                    known.join(", ")
                )
            })?;
            out += before;
            out += &value;
            rest = tail;
        }
        Ok(out + rest)
    }
}

/// The text of a variable's value.
pub(super) fn text_of(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_and_unknown_ones_are_named() {
        let registry = Registry::at("/c".into()).unwrap();
        let values = [("a", "1"), ("b", "${a}")].map(|(k, v)| (k.to_owned(), v.to_owned().into()));
        let variables = Variables::new(values.into_iter().collect(), &registry);
        let expand = |text: &str| variables.expand(text);
        assert_eq!(expand("x${a}y${b}z").unwrap(), "x1y${a}z");
        assert_eq!(expand("$${HOME} costs $5").unwrap(), "${HOME} costs $5");
        assert_eq!(expand("${data.emoji}/a.json").unwrap(), "/c/data/emoji/a.json");
        assert!(expand("${c}").unwrap_err().contains("no variable `c`; the variables are a, b"));
        assert!(expand("${data.emojis}").unwrap_err().contains("no variable `data.emojis`"));
        assert!(expand("${a").unwrap_err().contains("without its }"));
        let used = [(Kind::Data, "emoji".to_owned())];
        let value = variables.value("${data.emoji}/${data.emoji}").unwrap();
        assert_eq!((value.text.as_str(), &value.needs[..]), ("/c/data/emoji//c/data/emoji", &used[..]));
        // What a variable needs is needed where it is put in.
        let variables = Variables::new([("images".to_owned(), value)].into(), &registry);
        assert!(variables.expand("none").is_ok() && variables.used.borrow().is_empty());
        variables.expand("${images}").unwrap();
        assert_eq!(variables.into_used(), used);
    }
}
