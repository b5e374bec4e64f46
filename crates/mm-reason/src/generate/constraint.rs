//! Constraints on generated text.

use serde::Serialize;
use serde_json::Value;

/// Restricts which tokens may come next.
pub trait TokenConstraint: Send + Sync {
    /// Tokens that may follow those generated so far; none for all.
    fn allowed_next(&self, generated: &[i64]) -> Option<Vec<i64>>;
}

/// Constraint that the whole output satisfies.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputConstraint {
    /// A regular expression in Rust's syntax.
    Regex(String),
    /// A JSON schema.
    JsonSchema(Value),
    /// A grammar in llguidance's variant of Lark.
    Lark(String),
}
