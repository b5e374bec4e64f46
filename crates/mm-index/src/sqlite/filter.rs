//! A filter → the rows that it selects, by the tables of field values.

use super::{
    failure::Failure,
    selection::{RowSet, Selection},
};
use crate::{
    Error, Filter,
    check::LIST,
    payload::{GeoPoint, Scalar},
};
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use std::{ops::Bound, sync::Arc};

/// Reads which rows a filter selects.
pub(super) fn select(connection: &Connection, filter: &Filter) -> Result<Arc<Selection>, Failure> {
    let sql = "SELECT coalesce(max(number), 0) FROM row_data";
    let last: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    let size = usize::try_from(last).unwrap_or(0) + 1;
    Ok(Arc::new(Selection::new(Selector { connection, size }.select(filter)?)))
}

struct Selector<'a> {
    connection: &'a Connection,
    /// One more than the highest number of a row.
    size: usize,
}

impl Selector<'_> {
    fn select(&self, filter: &Filter) -> Result<RowSet, Failure> {
        match filter {
            Filter::Equal { field, value } => self.equal(field, std::slice::from_ref(value)),
            Filter::In { field, values } => self.equal(field, values),
            Filter::Range { field, lower, upper } => self.range(field, lower, upper),
            Filter::GeoBox { field, south_west, north_east } => self.geo_box(field, *south_west, *north_east),
            Filter::Exists { field } => self.exists(field),
            Filter::And(all) => self.all_of(all),
            Filter::Or(any) => {
                let mut selection = RowSet::with_capacity(self.size);
                for filter in any {
                    selection.union_with(&self.select(filter)?);
                }
                Ok(selection)
            }
            Filter::Not(filter) => {
                let mut selection = self.everything()?;
                selection.difference_with(&self.select(filter)?);
                Ok(selection)
            }
        }
    }

    /// What is selected by all: negations are taken away from the others, which is cheaper than to invert them.
    fn all_of(&self, all: &[Filter]) -> Result<RowSet, Failure> {
        let (negative, positive): (Vec<&Filter>, Vec<&Filter>) = all.iter().partition(|f| matches!(f, Filter::Not(_)));
        let mut selection = match positive.split_first() {
            Some((first, _)) => self.select(first)?,
            None => self.everything()?,
        };
        for filter in positive.iter().skip(1) {
            selection.intersect_with(&self.select(filter)?);
        }
        for filter in negative {
            if let Filter::Not(inner) = filter {
                selection.difference_with(&self.select(inner)?);
            }
        }
        Ok(selection)
    }

    /// The number of a field.
    fn field(&self, path: &str) -> Result<i64, Failure> {
        let mut statement = self.connection.prepare_cached("SELECT field FROM fields WHERE path = ?1")?;
        if let Some(field) = statement.query_row([path], |row| row.get(0)).optional()? {
            return Ok(field);
        }
        let mut statement = self.connection.prepare_cached("SELECT path FROM fields ORDER BY path")?;
        let known: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Err(Error::unknown("field in the filter", path, known.iter().map(String::as_str)).into())
    }

    /// The numbers of a field and of the fields inside of it.
    fn fields_within(&self, path: &str) -> Result<Vec<i64>, Failure> {
        // `/` is the character behind `.`. A path that ends with `.` is that of an empty key.
        let sql = "SELECT field FROM fields WHERE path = ?1 OR (path >= ?1 || '.' AND path < ?1 || '/')";
        let mut statement = self.connection.prepare_cached(sql)?;
        let fields: Vec<i64> = statement.query_map([path], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if fields.is_empty() { Ok(vec![self.field(path)?]) } else { Ok(fields) }
    }

    /// Adds the rows of a query of numbers.
    fn add(&self, selection: &mut RowSet, sql: &str, parameters: impl rusqlite::Params) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            match usize::try_from(number) {
                Ok(number) if number < self.size => selection.insert(number),
                _ => {
                    return Err(Failure::Damaged(format!("the values of fields name the row number {number}; {LIST}")));
                }
            }
        }
        Ok(())
    }

    fn everything(&self) -> Result<RowSet, Failure> {
        let mut selection = RowSet::with_capacity(self.size);
        self.add(&mut selection, "SELECT number FROM row_data", [])?;
        Ok(selection)
    }

    fn equal(&self, path: &str, values: &[Scalar]) -> Result<RowSet, Failure> {
        let field = self.field(path)?;
        let mut selection = RowSet::with_capacity(self.size);
        for value in values {
            let sql = "SELECT number FROM field_values WHERE field = ?1 AND value = ?2";
            self.add(&mut selection, sql, params![field, value])?;
        }
        Ok(selection)
    }

    fn exists(&self, path: &str) -> Result<RowSet, Failure> {
        let mut selection = RowSet::with_capacity(self.size);
        for field in self.fields_within(path)? {
            self.add(&mut selection, "SELECT number FROM field_values WHERE field = ?1", [field])?;
        }
        Ok(selection)
    }

    fn range(&self, path: &str, lower: &Bound<Scalar>, upper: &Bound<Scalar>) -> Result<RowSet, Failure> {
        let field = self.field(path)?;
        let mut conditions = vec!["field = ?".to_owned()];
        let mut parameters: Vec<&dyn rusqlite::ToSql> = vec![&field];
        for (bound, open, closed) in [(lower, ">", ">="), (upper, "<", "<=")] {
            let (sign, value) = match bound {
                Bound::Excluded(value) => (open, value),
                Bound::Included(value) => (closed, value),
                Bound::Unbounded => continue,
            };
            conditions.push(format!("value {sign} ?"));
            parameters.push(value);
        }
        // SQLite orders all numbers before all texts before all blobs: an open end stays within the type.
        match (lower, upper) {
            (Bound::Included(end) | Bound::Excluded(end), Bound::Unbounded) => match end {
                Scalar::Integer(_) | Scalar::Float(_) => conditions.push("value < ''".into()),
                Scalar::Text(_) => conditions.push("value < x''".into()),
                Scalar::Bool(_) => {}
            },
            (Bound::Unbounded, Bound::Included(Scalar::Text(_)) | Bound::Excluded(Scalar::Text(_))) => {
                conditions.push("value >= ''".into());
            }
            _ => {}
        }
        let mut selection = RowSet::with_capacity(self.size);
        let sql = format!("SELECT number FROM field_values WHERE {}", conditions.join(" AND "));
        self.add(&mut selection, &sql, params_from_iter(parameters))?;
        Ok(selection)
    }

    fn geo_box(&self, path: &str, south_west: GeoPoint, north_east: GeoPoint) -> Result<RowSet, Failure> {
        let field = self.field(path)?;
        let (west, east) = (south_west.lon, north_east.lon);
        let in_longitude = if west <= east { "lon BETWEEN ?4 AND ?5" } else { "(lon >= ?4 OR lon <= ?5)" };
        let sql =
            format!("SELECT number FROM field_points WHERE field = ?1 AND lat BETWEEN ?2 AND ?3 AND {in_longitude}");
        let mut selection = RowSet::with_capacity(self.size);
        self.add(&mut selection, &sql, params![field, south_west.lat, north_east.lat, west, east])?;
        Ok(selection)
    }
}
