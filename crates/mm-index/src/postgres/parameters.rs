//! Values that are bound to a statement, never written into it.

use postgres::types::ToSql;

/// The values of a statement in their order.
#[derive(Default)]
pub(super) struct Parameters {
    values: Vec<Box<dyn ToSql + Sync>>,
}

impl Parameters {
    /// Adds a value; returns how the statement names it (`$1`).
    pub(super) fn add(&mut self, value: impl ToSql + Sync + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    /// As statements take them.
    pub(super) fn list(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(AsRef::as_ref).collect()
    }
}

/// A number of rows as a parameter.
pub(super) fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
