//! What filters see of the payloads: their values and positions, in tables of their own.

use super::failure::Failure;
use crate::payload::{FieldValues, Scalar};
use postgres::Transaction;
use std::collections::{HashMap, HashSet};

/// A number in decimal digits, from which PostgreSQL compares numbers without rounding them: of a float beyond the whole
/// numbers that 64 bits hold exactly all digits, else the fewest that mean this float.
pub(super) fn exact_number(value: f64) -> String {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.is_finite() && value.abs() >= EXACT { format!("{value:.0}") } else { format!("{value}") }
}

/// A value in the column of its type.
pub(super) struct StoredValue<'a> {
    pub(super) number: Option<String>,
    pub(super) text: Option<&'a str>,
    pub(super) bool: Option<bool>,
}

impl<'a> StoredValue<'a> {
    pub(super) fn of(value: &'a Scalar) -> Self {
        let empty = Self { number: None, text: None, bool: None };
        match value {
            Scalar::Bool(value) => Self { bool: Some(*value), ..empty },
            Scalar::Text(text) => Self { text: Some(text), ..empty },
            Scalar::Integer(value) => Self { number: Some(value.to_string()), ..empty },
            Scalar::Float(value) => Self { number: Some(exact_number(*value)), ..empty },
        }
    }
}

/// The columns of `mm_field_values`.
#[derive(Default)]
struct Values<'a> {
    rows: Vec<i64>,
    fields: Vec<i64>,
    numbers: Vec<Option<String>>,
    texts: Vec<Option<&'a str>>,
    bools: Vec<Option<bool>>,
}

/// Writes the fields of rows with these row numbers.
pub(super) fn write_fields(
    transaction: &mut Transaction<'_>,
    row_numbers: &[i64],
    rows: &[&FieldValues],
) -> Result<(), Failure> {
    let paths: HashSet<&str> = rows.iter().flat_map(|row| row.paths()).map(String::as_str).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let fields = field_numbers(transaction, paths.into_iter().collect())?;
    let field = |path: &str| {
        let missing = || Failure::Damaged(format!("the field `{path}` has no number"));
        fields.get(path).copied().ok_or_else(missing)
    };
    let mut values = Values::default();
    let (mut of_points, mut points) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for (number, row) in row_numbers.iter().zip(rows) {
        for (path, value) in &row.values {
            let StoredValue { number: number_value, text, bool } = StoredValue::of(value);
            values.rows.push(*number);
            values.fields.push(field(path)?);
            values.numbers.push(number_value);
            values.texts.push(text);
            values.bools.push(bool);
        }
        for (path, point) in &row.points {
            of_points.0.push(*number);
            of_points.1.push(field(path)?);
            points.0.push(point.lat);
            points.1.push(point.lon);
        }
    }
    let sql = "INSERT INTO mm_field_values (number, field, number_value, text_value, bool_value)
        SELECT DISTINCT number, field, number_value::numeric, text_value, bool_value
        FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::boolean[])
        AS v(number, field, number_value, text_value, bool_value)";
    transaction.execute(sql, &[&values.rows, &values.fields, &values.numbers, &values.texts, &values.bools])?;
    let sql = "INSERT INTO mm_field_points (number, field, lat, lon)
        SELECT DISTINCT * FROM unnest($1::bigint[], $2::bigint[], $3::float8[], $4::float8[])";
    transaction.execute(sql, &[&of_points.0, &of_points.1, &points.0, &points.1])?;
    Ok(())
}

/// The numbers of fields, which are given one where they have none.
fn field_numbers(transaction: &mut Transaction<'_>, paths: Vec<&str>) -> Result<HashMap<String, i64>, Failure> {
    let sql = "INSERT INTO mm_fields (field, path)
        SELECT (SELECT coalesce(max(field), 0) FROM mm_fields) + row_number() OVER (ORDER BY path COLLATE \"C\"), path
        FROM unnest($1::text[]) AS p(path) WHERE NOT EXISTS (SELECT 1 FROM mm_fields f WHERE f.path = p.path)";
    transaction.execute(sql, &[&paths])?;
    let rows = transaction.query("SELECT path, field FROM mm_fields WHERE path = ANY($1::text[])", &[&paths])?;
    Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, postgres::Error>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_exact_values() {
        assert_eq!(exact_number(1.5), "1.5");
        assert_eq!(exact_number(0.1), "0.1");
        assert_eq!(exact_number(-3.0), "-3");
        assert_eq!(exact_number(-0.0), "0");
        // The fewest digits that mean 2^60 are 1152921504606847000, which is another number.
        assert_eq!(exact_number(1_152_921_504_606_846_976.0), "1152921504606846976");
        assert_eq!(exact_number(1e23), "99999999999999991611392");
    }
}
