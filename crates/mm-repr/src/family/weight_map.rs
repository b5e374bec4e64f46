//! Maps from parameter names to checkpoint names.

use mm_core::Checkpoint;

/// Replacements that turn a name here into the checkpoint's, applied in order; `^` before what is replaced stands for the start.
#[derive(Debug, Clone, Default)]
pub struct WeightMap(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    /// Only for names that begin so.
    within: String,
    from: String,
    to: String,
}

impl WeightMap {
    /// The rules of a table.
    pub fn new(rules: &[(&str, &str)]) -> Self {
        let rule = |(from, to): &(&str, &str)| Rule { within: String::new(), from: (*from).into(), to: (*to).into() };
        Self(rules.iter().map(rule).collect())
    }

    /// One more rule, for names that begin with `within`.
    pub fn and_within(mut self, within: &str, from: &str, to: &str) -> Self {
        self.0.push(Rule { within: within.into(), from: from.into(), to: to.into() });
        self
    }

    /// More rules, after those that are there.
    pub fn and(mut self, rules: &[(&str, &str)]) -> Self {
        self.0.extend(Self::new(rules).0);
        self
    }

    /// The same rules, for names that begin with `place` alone.
    pub fn only_within(mut self, place: &str) -> Self {
        for rule in &mut self.0 {
            if rule.within.is_empty() {
                place.clone_into(&mut rule.within);
            }
        }
        self
    }

    /// More rules, after those that are there.
    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The name in the checkpoint.
    pub fn apply(&self, name: &str) -> String {
        let mut name = name.to_owned();
        for Rule { within, from, to } in &self.0 {
            if !name.starts_with(within.as_str()) {
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

/// The first of `prefixes` under which the checkpoint has `probe`; the last when none has it, for its name in the error.
pub fn detect_prefix<'a>(checkpoint: &Checkpoint, probe: &str, prefixes: &[&'a str]) -> &'a str {
    let found = prefixes.iter().find(|p| checkpoint.shape(&format!("{p}{probe}")).is_some());
    found.or(prefixes.last()).copied().unwrap_or("")
}
