//! The columns of an exported table: those of a row itself, and those of its fields.

/// Columns that are not of a field: `payload` holds all fields where they have no columns of their own.
const OWN: [&str; 4] = ["id", "text", "embedding", "payload"];

/// What is put before the name of a field that would not be read back as it is.
const PREFIX: &str = "payload_";

/// Whether a column is not of a field.
pub(super) fn is_own(column: &str) -> bool {
    OWN.contains(&column)
}

/// Whether a name has a prefix as a column: the name of a column of its own, or one that begins with the prefix.
fn is_escaped(field: &str) -> bool {
    is_own(field) || field.starts_with(PREFIX)
}

/// The column of a field.
#[cfg(any(test, feature = "parquet"))]
pub(super) fn column_of(field: &str) -> String {
    if is_escaped(field) { format!("{PREFIX}{field}") } else { field.to_owned() }
}

/// The field of a column.
pub(super) fn field_of(column: &str) -> &str {
    column.strip_prefix(PREFIX).filter(|field| is_escaped(field)).unwrap_or(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_column_of_its_own() {
        let prefixed = ["payload_", "payload_id", "payload_payload_id", "payload_x"];
        for field in OWN.into_iter().chain(prefixed).chain(["x", "", "payloads", "ids"]) {
            let column = column_of(field);
            assert!(!is_own(&column), "{field}");
            assert_eq!(field_of(&column), field);
        }
        assert_eq!((column_of("year"), column_of("id")), ("year".to_owned(), "payload_id".to_owned()));
        // A column of another program.
        assert_eq!(field_of("payload_x"), "payload_x");
    }
}
