//! The types of the columns of fields in an exported Parquet file.

use mm_index::Payload;
use parquet::basic::{LogicalType, Type as PhysicalType};
use serde_json::Value;
use std::collections::BTreeMap;

/// The type of a column of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldType {
    Bool,
    Integer,
    /// Of which some are too large to be exact among numbers with a fraction.
    LargeInteger,
    Number,
    Text,
    /// Values as JSON: what no other type holds.
    Json,
}

/// The largest integer that is still exact among numbers with a fraction.
const MAX_EXACT: u64 = 1 << 53;

impl FieldType {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Bool),
            Value::Number(number) => Some(match number.as_i64() {
                Some(integer) if integer.unsigned_abs() > MAX_EXACT => Self::LargeInteger,
                Some(_) => Self::Integer,
                None if number.is_u64() => Self::Json,
                None => Self::Number,
            }),
            Value::String(_) => Some(Self::Text),
            Value::Array(_) | Value::Object(_) => Some(Self::Json),
        }
    }

    /// The type that holds values of both.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Integer | Self::Number, Self::Integer | Self::Number) => Self::Number,
            (Self::Integer | Self::LargeInteger, Self::Integer | Self::LargeInteger) => Self::LargeInteger,
            _ => Self::Json,
        }
    }

    /// Whether a column of this type has a place for the value.
    pub(super) fn holds(self, value: &Value) -> bool {
        Self::of(value).is_none_or(|found| self.join(found) == self)
    }

    pub(super) fn physical(self) -> PhysicalType {
        match self {
            Self::Bool => PhysicalType::BOOLEAN,
            Self::Integer | Self::LargeInteger => PhysicalType::INT64,
            Self::Number => PhysicalType::DOUBLE,
            Self::Text | Self::Json => PhysicalType::BYTE_ARRAY,
        }
    }

    pub(super) fn logical(self) -> Option<LogicalType> {
        match self {
            Self::Text => Some(LogicalType::String),
            Self::Json => Some(LogicalType::Json),
            _ => None,
        }
    }
}

/// The fields of rows, each with the type of its column: texts, numbers, true and false where all values are, else JSON.
#[derive(Debug, Clone, Default)]
pub struct FieldTypes(BTreeMap<String, FieldType>);

impl FieldTypes {
    /// Takes the fields of a row into account.
    pub fn add(&mut self, payload: &Payload) {
        for (name, value) in payload {
            let Some(found) = FieldType::of(value) else { continue };
            match self.0.get_mut(name) {
                Some(known) => *known = known.join(found),
                None => {
                    self.0.insert(name.clone(), found);
                }
            }
        }
    }

    /// Each with its type, by name.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&String, FieldType)> {
        self.0.iter().map(|(name, kind)| (name, *kind))
    }
}
