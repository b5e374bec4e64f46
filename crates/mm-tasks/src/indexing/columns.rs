//! The columns of an exported table: those of a row itself, and those of its fields.

/// Which columns a table has besides those of fields. An export states it, so that import knows which columns are fields
/// whatever their names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "parquet"), allow(dead_code, reason = "only Parquet files state their layout"))]
pub(super) enum Layout {
    /// A table of rows: `id`, `text` and `embedding`.
    Rows,
    /// The table next to arrays as clip-retrieval names its columns: `id`, `caption` and `image_path`.
    ClipRetrieval,
}

/// What a file states of its columns; nothing where its format cannot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StatedColumns {
    /// Columns whose texts stand for values as JSON.
    pub(super) json: Vec<String>,
    /// The layout of an export.
    pub(super) layout: Option<Layout>,
}

/// What is put before the name of a field that would not be read back as it is.
const PREFIX: &str = "payload_";

impl Layout {
    /// Its name in a file.
    #[cfg(feature = "parquet")]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::ClipRetrieval => "clip-retrieval",
        }
    }

    /// The layout of a name.
    #[cfg(feature = "parquet")]
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Rows, Self::ClipRetrieval].into_iter().find(|layout| layout.name() == name)
    }

    /// The column of the text of a row.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Rows => "text",
            Self::ClipRetrieval => "caption",
        }
    }

    /// Columns that are not of a field: in tables without a layout `payload` holds all fields where they have no columns
    /// of their own.
    fn own(self) -> &'static [&'static str] {
        match self {
            Self::Rows => &["id", "text", "embedding", "payload"],
            Self::ClipRetrieval => &["id", "caption", "image_path"],
        }
    }

    /// Whether a column is not of a field.
    pub(super) fn is_own(self, column: &str) -> bool {
        self.own().contains(&column)
    }

    /// Whether a name has a prefix as a column: the name of a column of its own, or one that begins with the prefix.
    fn is_escaped(self, field: &str) -> bool {
        self.is_own(field) || field.starts_with(PREFIX)
    }

    /// The column of a field.
    #[cfg(any(test, feature = "parquet"))]
    pub(super) fn column_of(self, field: &str) -> String {
        if self.is_escaped(field) { format!("{PREFIX}{field}") } else { field.to_owned() }
    }

    /// The field of a column.
    pub(super) fn field_of(self, column: &str) -> &str {
        column.strip_prefix(PREFIX).filter(|field| self.is_escaped(field)).unwrap_or(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_column_of_its_own() {
        for layout in [Layout::Rows, Layout::ClipRetrieval] {
            let prefixed = ["payload_", "payload_id", "payload_payload_id", "payload_x", "payload_caption"];
            for field in layout.own().iter().copied().chain(prefixed).chain(["x", "", "payloads", "ids"]) {
                let column = layout.column_of(field);
                assert!(!layout.is_own(&column), "{field}");
                assert_eq!(layout.field_of(&column), field);
            }
            assert_eq!((layout.column_of("year"), layout.column_of("id")), ("year".into(), "payload_id".into()));
            // A column of another program.
            assert_eq!(layout.field_of("payload_x"), "payload_x");
        }
        let captions = [Layout::Rows, Layout::ClipRetrieval].map(|layout| layout.column_of("caption"));
        assert_eq!(captions, ["caption", "payload_caption"]);
    }
}
