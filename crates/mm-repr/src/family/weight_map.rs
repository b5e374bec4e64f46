//! Maps from parameter names to checkpoint names.

use mm_core::Checkpoint;

/// Replacements that turn a parameter name into the checkpoint's name, applied in order. A pattern that begins with `^`
/// matches only at the start of the name.
#[derive(Debug, Clone, Default)]
pub struct WeightMap(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    /// Prefix of the names to which the rule applies.
    prefix: String,
    from: String,
    to: String,
}

impl WeightMap {
    /// A map of these (pattern, replacement) rules.
    pub fn new(rules: &[(&str, &str)]) -> Self {
        let rule = |(from, to): &(&str, &str)| Rule { prefix: String::new(), from: (*from).into(), to: (*to).into() };
        Self(rules.iter().map(rule).collect())
    }

    /// Adds a rule for names that begin with `prefix`.
    pub fn and_within(mut self, prefix: &str, from: &str, to: &str) -> Self {
        self.0.push(Rule { prefix: prefix.into(), from: from.into(), to: to.into() });
        self
    }

    /// Appends rules.
    pub fn and(mut self, rules: &[(&str, &str)]) -> Self {
        self.0.extend(Self::new(rules).0);
        self
    }

    /// Restricts the rules that apply to all names to names that begin with `prefix`.
    pub fn only_within(mut self, prefix: &str) -> Self {
        for rule in &mut self.0 {
            if rule.prefix.is_empty() {
                prefix.clone_into(&mut rule.prefix);
            }
        }
        self
    }

    /// Appends the rules of another map.
    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The name in the checkpoint.
    pub fn apply(&self, name: &str) -> String {
        let mut name = name.to_owned();
        for Rule { prefix, from, to } in &self.0 {
            if !name.starts_with(prefix.as_str()) {
                continue;
            }
            match from.strip_prefix('^') {
                Some(start) => {
                    if let Some(rest) = name.strip_prefix(start) {
                        name = format!("{to}{rest}");
                    }
                }
                None if name.contains(from.as_str()) => name = name.replace(from.as_str(), to),
                None => {}
            }
        }
        name
    }
}

/// The first of `prefixes` with which the checkpoint has a tensor `prefix + probe`. If there is none, the last is
/// returned, so that the error about the missing tensor names it.
pub fn detect_prefix<'a>(checkpoint: &Checkpoint, probe: &str, prefixes: &[&'a str]) -> &'a str {
    let found = prefixes.iter().find(|p| checkpoint.shape(&format!("{p}{probe}")).is_some());
    found.or(prefixes.last()).copied().unwrap_or("")
}
