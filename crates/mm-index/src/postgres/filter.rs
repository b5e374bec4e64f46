//! A filter → a condition in SQL on the number of a row.

use super::{
    failure::Failure,
    fields::{StoredValue, exact_number},
    parameters::{Parameters, limit},
    read::{absent, rows_by_number},
    schema::TEXT_PREFIX,
};
use crate::{
    Error, Filter,
    filter::is_within,
    payload::{GeoPoint, Scalar},
    search::check_filter,
};
use postgres::Transaction;
use std::{collections::HashMap, ops::Bound};

/// Rows that are read at once.
const PAGE: usize = 1000;

/// A filter whose fields were looked up.
pub(super) struct Selection {
    filter: Filter,
    /// Numbers of fields by their paths.
    fields: HashMap<String, i64>,
}

/// Looks up the fields of a filter.
pub(super) fn select(transaction: &mut Transaction<'_>, filter: &Filter) -> Result<Selection, Failure> {
    let (mut paths, mut outer) = (Vec::new(), Vec::new());
    add_paths(filter, &mut paths, &mut outer)?;
    let rows = transaction.query("SELECT path, field FROM mm_fields ORDER BY path", &[])?;
    let fields: HashMap<String, i64> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, postgres::Error>>()?;
    let has_inside = |path: &str| fields.keys().any(|known| is_within(known, path));
    let unknown = paths.iter().find(|path| !fields.contains_key(**path));
    if let Some(unknown) = unknown.or_else(|| outer.iter().find(|path| !has_inside(path))) {
        let mut known: Vec<&str> = fields.keys().map(String::as_str).collect();
        known.sort_unstable();
        return Err(Error::unknown("field in the filter", unknown, known).into());
    }
    Ok(Selection { filter: filter.clone(), fields })
}

/// The fields that a filter names, and those of which it asks whether they or others inside of them exist; what it cannot
/// ask of one is an error.
fn add_paths<'a>(filter: &'a Filter, paths: &mut Vec<&'a str>, outer: &mut Vec<&'a str>) -> Result<(), Error> {
    match filter {
        Filter::And(all) | Filter::Or(all) => return all.iter().try_for_each(|inner| add_paths(inner, paths, outer)),
        Filter::Not(inner) => return add_paths(inner, paths, outer),
        Filter::Range { field, lower, upper } => {
            for bound in [lower, upper] {
                if let Bound::Included(end) | Bound::Excluded(end) = bound {
                    check_text(field, end)?;
                }
            }
            paths.push(field);
        }
        Filter::Equal { field, value } => {
            check_text(field, value)?;
            paths.push(field);
        }
        Filter::In { field, values } => {
            values.iter().try_for_each(|value| check_text(field, value))?;
            paths.push(field);
        }
        Filter::GeoBox { field, .. } => paths.push(field),
        Filter::Exists { field } => outer.push(field),
    }
    Ok(())
}

fn check_text(field: &str, value: &Scalar) -> Result<(), Error> {
    match value {
        Scalar::Text(text) if text.contains('\0') => {
            let what = format!("value of `{field}` in the filter");
            Err(Error::invalid(what, "a NUL character", "none: PostgreSQL cannot store it"))
        }
        _ => Ok(()),
    }
}

impl Selection {
    /// The condition on a table `x` with the column `number`.
    pub(super) fn condition(&self, parameters: &mut Parameters) -> String {
        self.part(&self.filter, parameters)
    }

    fn part(&self, filter: &Filter, parameters: &mut Parameters) -> String {
        let mut joined = |list: &[Filter], word: &str, empty: &str| {
            let parts: Vec<String> = list.iter().map(|filter| self.part(filter, parameters)).collect();
            if parts.is_empty() { empty.to_owned() } else { format!("({})", parts.join(word)) }
        };
        match filter {
            Filter::And(all) => joined(all, " AND ", "true"),
            Filter::Or(any) => joined(any, " OR ", "false"),
            Filter::Not(inner) => format!("NOT {}", self.part(inner, parameters)),
            Filter::Equal { field, value } => self.one_of(field, std::slice::from_ref(value), parameters),
            Filter::In { field, values } => self.one_of(field, values, parameters),
            Filter::Range { field, lower, upper } => {
                let mut ends = Vec::new();
                for (bound, open, closed) in [(lower, ">", ">="), (upper, "<", "<=")] {
                    match bound {
                        Bound::Excluded(end) => ends.extend(end_condition(end, open, parameters)),
                        Bound::Included(end) => ends.extend(end_condition(end, closed, parameters)),
                        Bound::Unbounded => {}
                    }
                }
                self.value_where(field, &ends, parameters)
            }
            Filter::GeoBox { field, south_west, north_east } => {
                self.point_where(field, &in_box(*south_west, *north_east, parameters), parameters)
            }
            Filter::Exists { field } => {
                let fields = self.fields.iter().filter(|(path, _)| is_within(path, field)).map(|(_, number)| *number);
                let fields = parameters.add(fields.collect::<Vec<i64>>());
                format!(
                    "EXISTS (SELECT 1 FROM mm_field_values f WHERE f.number = x.number AND f.field = ANY({fields}::bigint[]))"
                )
            }
        }
    }

    /// A row with a value of a field that meets all of some conditions.
    fn value_where(&self, field: &str, conditions: &[String], parameters: &mut Parameters) -> String {
        let field = parameters.add(self.fields.get(field).copied().unwrap_or_default());
        let conditions: String = conditions.iter().map(|condition| format!(" AND {condition}")).collect();
        format!("EXISTS (SELECT 1 FROM mm_field_values f WHERE f.number = x.number AND f.field = {field}{conditions})")
    }

    fn point_where(&self, field: &str, condition: &str, parameters: &mut Parameters) -> String {
        let field = parameters.add(self.fields.get(field).copied().unwrap_or_default());
        format!(
            "EXISTS (SELECT 1 FROM mm_field_points f WHERE f.number = x.number AND f.field = {field} AND {condition})"
        )
    }

    fn one_of(&self, field: &str, values: &[Scalar], parameters: &mut Parameters) -> String {
        let (mut numbers, mut texts, mut bools) = (Vec::new(), Vec::new(), Vec::new());
        for value in values {
            let StoredValue { number, text, bool } = StoredValue::of(value);
            // Nothing equals what is no number.
            let is_nan = matches!(value, Scalar::Float(float) if float.is_nan());
            numbers.extend(number.filter(|_| !is_nan));
            texts.extend(text.map(str::to_owned));
            bools.extend(bool);
        }
        let mut any = Vec::new();
        if !numbers.is_empty() {
            any.push(format!("f.number_value = ANY({}::text[]::numeric[])", parameters.add(numbers)));
        }
        if !texts.is_empty() {
            let prefixes: Vec<String> = texts.iter().map(|text| prefix(text)).collect();
            let (prefixes, texts) = (parameters.add(prefixes), parameters.add(texts));
            any.push(format!(
                "(left(f.text_value, {TEXT_PREFIX}) = ANY({prefixes}::text[]) AND f.text_value = ANY({texts}::text[]))"
            ));
        }
        if !bools.is_empty() {
            any.push(format!("f.bool_value = ANY({}::boolean[])", parameters.add(bools)));
        }
        let condition = if any.is_empty() { "false".to_owned() } else { format!("({})", any.join(" OR ")) };
        self.value_where(field, &[condition], parameters)
    }

    /// How many rows are selected, counted up to `most`.
    pub(super) fn count(&self, transaction: &mut Transaction<'_>, most: Option<usize>) -> Result<usize, Failure> {
        let mut parameters = Parameters::default();
        let condition = self.condition(&mut parameters);
        let most = parameters.add(most.map(limit));
        let sql =
            format!("SELECT count(*) FROM (SELECT 1 FROM mm_rows x WHERE {condition} LIMIT {most}::bigint) AS counted");
        let count: i64 = transaction.query_one(&sql, &parameters.list())?.try_get(0)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The ids of the first rows in the order in which they were written, by comparing each with the filter.
    pub(super) fn ids(&self, transaction: &mut Transaction<'_>, most: usize) -> Result<Vec<String>, Failure> {
        let mut parameters = Parameters::default();
        let (condition, most) = (self.condition(&mut parameters), parameters.add(limit(most)));
        let sql = format!("SELECT number FROM mm_rows x WHERE {condition} ORDER BY number LIMIT {most}");
        let rows = transaction.query(&sql, &parameters.list())?;
        let row_numbers: Vec<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let mut ids = Vec::with_capacity(row_numbers.len());
        for page in row_numbers.chunks(PAGE) {
            let mut rows = rows_by_number(transaction, page)?;
            for number in page {
                let row = rows.remove(number).ok_or_else(|| absent(*number))?;
                check_filter(&self.filter, &row).map_err(Failure::Damaged)?;
                ids.push(row.id);
            }
        }
        Ok(ids)
    }
}

/// The first characters of a text, by which the index finds it.
fn prefix(text: &str) -> String {
    text.chars().take(TEXT_PREFIX).collect()
}

/// Conditions that a value is on one side of an end.
fn end_condition(end: &Scalar, sign: &str, parameters: &mut Parameters) -> Vec<String> {
    match end {
        Scalar::Float(end) if end.is_nan() => vec!["false".to_owned()],
        Scalar::Float(end) => vec![number_end(sign, exact_number(*end), parameters)],
        Scalar::Integer(end) => vec![number_end(sign, end.to_string(), parameters)],
        Scalar::Text(end) => {
            // The first characters are in the order of the texts, or equal.
            let closed = if sign.starts_with('>') { ">=" } else { "<=" };
            let (start, end) = (parameters.add(prefix(end)), parameters.add(end.clone()));
            vec![
                format!("left(f.text_value, {TEXT_PREFIX}) {closed} {start}::text"),
                format!("f.text_value {sign} {end}::text"),
            ]
        }
        Scalar::Bool(_) => vec!["false".to_owned()],
    }
}

fn number_end(sign: &str, end: String, parameters: &mut Parameters) -> String {
    format!("f.number_value {sign} {}::text::numeric", parameters.add(end))
}

fn in_box(south_west: GeoPoint, north_east: GeoPoint, parameters: &mut Parameters) -> String {
    let (west, east) = (south_west.lon, north_east.lon);
    let [south, north, from, to] =
        [south_west.lat, north_east.lat, west, east].map(|degrees| format!("{}::float8", parameters.add(degrees)));
    let in_longitude = if west <= east {
        format!("f.lon BETWEEN {from} AND {to}")
    } else {
        format!("(f.lon >= {from} OR f.lon <= {to})")
    };
    format!("f.lat BETWEEN {south} AND {north} AND {in_longitude}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bound_and_never_written_into_the_statement() {
        let filter = Filter::parse(r#"a > 1.5 and not (b in ("it's", true, 2) or `b` < "x") and exists c"#).unwrap();
        let fields = [("a", 4), ("b", 5), ("c", 6)].map(|(path, field)| (path.to_owned(), field)).into();
        let mut parameters = Parameters::default();
        let sql = Selection { filter, fields }.condition(&mut parameters);
        assert_eq!(parameters.list().len(), 11, "{sql}");
        assert!((1..=11).all(|n| sql.contains(&format!("${n}"))), "{sql}");
        assert!(!sql.contains("it's") && !sql.contains("1.5"), "{sql}");
    }
}
