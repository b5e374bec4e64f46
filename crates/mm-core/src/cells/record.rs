//! One row of a table in little memory: its cells in one allocation, next to column names that rows share.

use serde_json::{Map, Number, Value};
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, LazyLock},
};

/// Lists of at most this many labels have a text.
const MAX_JOINED: usize = 64;
/// Different lists of columns that are remembered, so that rows share them.
const MAX_HEADERS: usize = 4096;
/// Bytes of the word that says where a cell ends, and of what kind it is.
const WORD: usize = 8;
/// Bits of such a word that are the end.
const END_BITS: u32 = 56;

/// The columns of records.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Header {
    /// Names, ascending.
    names: Box<[Box<str>]>,
    /// Where the cell of each is among those that are stored.
    positions: Box<[u32]>,
    /// The number of cells that are stored.
    stored: usize,
}

impl Header {
    fn find(&self, column: &str) -> Option<usize> {
        let found = self.names.binary_search_by(|name| (**name).cmp(column)).ok()?;
        Some(self.positions[found] as usize)
    }
}

/// What a stored cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Null,
    Text,
    Number,
    Bool,
    /// JSON of a list or an object.
    Json,
    /// JSON of a list, its length before it and its text after it.
    Labels,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Null, Self::Text, Self::Number, Self::Bool, Self::Json, Self::Labels];
}

/// The cells of one row of a table by column: texts, numbers, booleans, and JSON of lists and objects. Made by a
/// [`RecordPacker`]; copies share memory.
///
/// A row of ten short cells takes some 150 bytes, a tenth of what a map takes.
///
/// ```
/// use mm_core::cells::RecordPacker;
/// use serde_json::{Value, json};
/// let mut packer = RecordPacker::default();
/// let row = json!({"id": 7, "caption": "two cats", "tags": ["a", "b"], "price": null});
/// let record = packer.pack(row.as_object().unwrap());
/// assert_eq!(record.get("id"), Some("7"));
/// assert_eq!(record.get("tags"), Some("a;b"));
/// assert_eq!((record.get("price"), record.value("price")), (None, Some(Value::Null)));
/// assert_eq!(record.value("id"), Some(json!(7)));
/// ```
#[derive(Clone)]
pub struct Record {
    header: Arc<Header>,
    cells: Arc<[u8]>,
}

impl Record {
    /// The text of a cell as [`cell_text`] writes it, an empty text included; `None` where it has none, or there is no
    /// such column.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.text_at(self.header.find(column)?)
    }

    /// The value of a cell; `None` where there is no such column.
    pub fn value(&self, column: &str) -> Option<Value> {
        self.header.find(column).map(|at| self.value_at(at))
    }

    /// Whether a cell has a value: there is such a column, and the cell is not null.
    pub fn has_value(&self, column: &str) -> bool {
        self.header.find(column).is_some_and(|at| self.cell(at).0 != Kind::Null)
    }

    /// Bytes of its cells in memory.
    pub fn size(&self) -> usize {
        self.cells.len()
    }

    /// Whether it has no column.
    pub fn is_empty(&self) -> bool {
        self.header.names.is_empty()
    }

    /// The columns in alphabetical order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.header.names.iter().map(|name| &**name)
    }

    /// The columns in alphabetical order with the texts of their cells, those without a text left out.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let columns = self.header.names.iter().zip(&self.header.positions);
        columns.filter_map(|(name, at)| Some((&**name, self.text_at(*at as usize)?)))
    }

    /// The cells as a JSON object.
    pub fn to_object(&self) -> Map<String, Value> {
        let columns = self.header.names.iter().zip(&self.header.positions);
        columns.map(|(name, at)| (name.to_string(), self.value_at(*at as usize))).collect()
    }

    /// Kind and bytes of a stored cell. What is stored was packed here, so that all ends are in order.
    fn cell(&self, at: usize) -> (Kind, &[u8]) {
        let word = |at: usize| {
            let bytes = self.cells[at * WORD..(at + 1) * WORD].try_into().unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        let end = |word: u64| self.header.stored * WORD + (word & ((1 << END_BITS) - 1)) as usize;
        let last = word(at);
        let start = if at == 0 { self.header.stored * WORD } else { end(word(at - 1)) };
        (Kind::ALL[(last >> END_BITS) as usize], &self.cells[start..end(last)])
    }

    fn text_at(&self, at: usize) -> Option<&str> {
        let (kind, bytes) = self.cell(at);
        let bytes = match kind {
            Kind::Null | Kind::Json => return None,
            Kind::Text | Kind::Number | Kind::Bool => bytes,
            Kind::Labels => labels(bytes).1,
        };
        Some(text(bytes))
    }

    fn value_at(&self, at: usize) -> Value {
        let (kind, bytes) = self.cell(at);
        let json = |bytes| serde_json::from_slice(bytes).unwrap_or_default();
        match kind {
            Kind::Null => Value::Null,
            Kind::Text => Value::from(text(bytes)),
            Kind::Number => number(text(bytes)).map_or(Value::Null, Value::Number),
            Kind::Bool => Value::Bool(bytes == b"true"),
            Kind::Json => json(bytes),
            Kind::Labels => json(labels(bytes).0),
        }
    }
}

/// The bytes of a cell as the text that they were packed from.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The number that was written: integers as such, others exactly as 64-bit floats.
fn number(text: &str) -> Option<Number> {
    let integer = text.parse().map(|n: u64| n.into()).or_else(|_| text.parse().map(|n: i64| n.into()));
    integer.ok().or_else(|| Number::from_f64(text.parse().ok()?))
}

/// JSON and text of a list of labels.
fn labels(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_at(WORD);
    rest.split_at(u64::from_le_bytes(length.try_into().unwrap_or_default()) as usize)
}

impl Default for Record {
    fn default() -> Self {
        static EMPTY: LazyLock<Record> = LazyLock::new(|| RecordPacker::default().pack(&Map::new()));
        EMPTY.clone()
    }
}

/// A record by itself; a table's rows share their column names where one [`RecordPacker`] makes them.
impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Record {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(cells: I) -> Self {
        let cells = cells.into_iter().map(|(column, value)| (column.into(), value.into())).collect();
        RecordPacker::default().pack(&cells)
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let is_same = Arc::ptr_eq(&self.header, &other.header) && self.cells == other.cells;
        is_same || self.to_object() == other.to_object()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.texts()).finish()
    }
}

/// Makes [`Record`]s; those with the same columns share the names.
#[derive(Debug, Default)]
pub struct RecordPacker {
    headers: HashSet<Arc<Header>>,
    last: Option<Arc<Header>>,
}

impl RecordPacker {
    /// Packs the cells of a row.
    pub fn pack(&mut self, cells: &Map<String, Value>) -> Record {
        let mut columns: Vec<(&str, &Value)> = cells.iter().map(|(name, value)| (name.as_str(), value)).collect();
        columns.sort_unstable_by_key(|(name, _)| *name);
        let mut packed = vec![0; columns.len() * WORD];
        let payload = packed.len();
        for (at, (_, value)) in columns.iter().enumerate() {
            let kind = write(value, &mut packed);
            let word = ((packed.len() - payload) as u64) | ((kind as u64) << END_BITS);
            packed[at * WORD..(at + 1) * WORD].copy_from_slice(&word.to_le_bytes());
        }
        let header = self.header(&columns.iter().map(|(name, _)| *name).zip(0..).collect::<Vec<_>>(), columns.len());
        Record { header, cells: packed.into() }
    }

    /// The cells of some columns of a record, in the same memory; columns that it lacks are left out.
    pub fn select<'a>(&mut self, record: &Record, columns: impl Iterator<Item = &'a str>) -> Record {
        let mut found: Vec<(&str, u32)> = Vec::new();
        found.extend(columns.filter_map(|name| Some((name, record.header.find(name)? as u32))));
        found.sort_unstable();
        found.dedup();
        let header = self.header(&found, record.header.stored);
        Record { header, cells: record.cells.clone() }
    }

    /// The header of columns and where their cells are: the last one, as of most rows, or one that is shared.
    fn header(&mut self, columns: &[(&str, u32)], stored: usize) -> Arc<Header> {
        let is_known = |header: &Arc<Header>| {
            let known = header.names.iter().zip(&header.positions).map(|(name, at)| (&**name, *at));
            header.stored == stored && known.eq(columns.iter().copied())
        };
        let header = match self.last.take().filter(is_known) {
            Some(last) => last,
            None => self.share(Header {
                names: columns.iter().map(|(name, _)| (*name).into()).collect(),
                positions: columns.iter().map(|(_, at)| *at).collect(),
                stored,
            }),
        };
        self.last = Some(header.clone());
        header
    }

    /// The header that equal ones share; of too many different ones each is on its own.
    fn share(&mut self, header: Header) -> Arc<Header> {
        if let Some(known) = self.headers.get(&header) {
            return known.clone();
        }
        let header = Arc::new(header);
        if self.headers.len() < MAX_HEADERS {
            self.headers.insert(header.clone());
        }
        header
    }
}

/// Appends a cell; returns its kind.
fn write(value: &Value, packed: &mut Vec<u8>) -> Kind {
    match value {
        Value::Null => Kind::Null,
        Value::String(text) => {
            packed.extend_from_slice(text.as_bytes());
            Kind::Text
        }
        Value::Number(number) => {
            packed.extend_from_slice(number.to_string().as_bytes());
            Kind::Number
        }
        Value::Bool(flag) => {
            packed.extend_from_slice(flag.to_string().as_bytes());
            Kind::Bool
        }
        Value::Array(_) | Value::Object(_) => {
            let json = value.to_string();
            let Some(text) = cell_text(value) else {
                packed.extend_from_slice(json.as_bytes());
                return Kind::Json;
            };
            packed.extend_from_slice(&(json.len() as u64).to_le_bytes());
            packed.extend_from_slice(json.as_bytes());
            packed.extend_from_slice(text.as_bytes());
            Kind::Labels
        }
    }
}

/// A cell as text: numbers and booleans as JSON writes them, lists of up to 64 texts, whole numbers or booleans joined
/// by semicolons; `None` for empty cells and other values.
pub fn cell_text(value: &Value) -> Option<String> {
    let is_label = |v: &Value| v.is_string() || v.is_boolean() || v.is_i64() || v.is_u64();
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) if !items.is_empty() && items.len() <= MAX_JOINED && items.iter().all(is_label) => {
            Some(items.iter().filter_map(cell_text).collect::<Vec<_>>().join(";"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("{value}") };
        map
    }

    /// Any JSON value that a cell may hold.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_record_holds_what_a_map_holds(rows in prop::collection::vec(prop::collection::btree_map("[a-d]{1,2}", value(), 0..8), 1..6)) {
            let mut packer = RecordPacker::default();
            for fields in rows {
                let map: Map<String, Value> = fields.into_iter().collect();
                let record = packer.pack(&map);
                prop_assert_eq!(&record.to_object(), &map);
                for (column, value) in &map {
                    prop_assert_eq!(record.value(column), Some(value.clone()));
                    let text = value.as_str().map(ToOwned::to_owned).or_else(|| cell_text(value));
                    prop_assert_eq!(record.get(column).map(ToOwned::to_owned), text);
                    prop_assert_eq!(record.has_value(column), !value.is_null());
                }
                prop_assert!(record.value("e").is_none() && record.get("e").is_none() && !record.has_value("e"));
                let some = packer.select(&record, ["b", "a", "e", "a"].into_iter());
                let expected: Map<String, Value> = map.into_iter().filter(|(c, _)| c == "a" || c == "b").collect();
                prop_assert_eq!(some.to_object(), expected);
            }
        }
    }

    #[test]
    fn rows_share_their_column_names() {
        let mut packer = RecordPacker::default();
        let rows: Vec<Record> = (0..9)
            .map(|n| {
                let row = if n % 3 == 0 { json!({"b": n}) } else { json!({"a": n, "b": "x"}) };
                let record = packer.pack(&object(row));
                packer.select(&record, ["b"].into_iter())
            })
            .collect();
        assert!(Arc::ptr_eq(&rows[0].header, &rows[3].header) && Arc::ptr_eq(&rows[1].header, &rows[2].header));
        // `b` of the shorter rows, `a` and `b`, `b` of the longer rows.
        assert_eq!(packer.headers.len(), 3);
        assert_eq!(rows[0], packer.pack(&object(json!({"b": 0}))));
        assert_ne!(rows[0], rows[3]);
        assert_eq!(
            format!("{:?}", packer.pack(&object(json!({"b": [1, true], "a": "x", "c": {}})))),
            r#"{"a": "x", "b": "1;true"}"#
        );
    }
}
