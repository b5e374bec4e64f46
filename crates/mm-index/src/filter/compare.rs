//! How values are ordered, and whether they lie in ranges and boxes.

use crate::payload::{GeoPoint, Scalar};
use std::{cmp::Ordering, ops::Bound};

/// How two values are ordered; none where their types differ, and of booleans only equality.
pub(super) fn compare(a: &Scalar, b: &Scalar) -> Option<Ordering> {
    match (a, b) {
        (Scalar::Bool(a), Scalar::Bool(b)) => (a == b).then_some(Ordering::Equal),
        (Scalar::Text(a), Scalar::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Scalar::Integer(a), Scalar::Integer(b)) => Some(a.cmp(b)),
        (Scalar::Float(a), Scalar::Float(b)) => a.partial_cmp(b),
        (Scalar::Integer(a), Scalar::Float(b)) => compare_mixed(*a, *b),
        (Scalar::Float(a), Scalar::Integer(b)) => compare_mixed(*b, *a).map(Ordering::reverse),
        _ => None,
    }
}

/// Compares without rounding the integer.
fn compare_mixed(integer: i64, float: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= LIMIT {
        return Some(Ordering::Less);
    }
    if float < -LIMIT {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    Some(integer.cmp(&(whole as i64)).then(if float > whole {
        Ordering::Less
    } else if float < whole {
        Ordering::Greater
    } else {
        Ordering::Equal
    }))
}

pub(super) fn is_between(value: &Scalar, lower: &Bound<Scalar>, upper: &Bound<Scalar>) -> bool {
    let above = match lower {
        Bound::Included(end) => matches!(compare(value, end), Some(Ordering::Greater | Ordering::Equal)),
        Bound::Excluded(end) => compare(value, end) == Some(Ordering::Greater),
        Bound::Unbounded => true,
    };
    above
        && match upper {
            Bound::Included(end) => matches!(compare(value, end), Some(Ordering::Less | Ordering::Equal)),
            Bound::Excluded(end) => compare(value, end) == Some(Ordering::Less),
            Bound::Unbounded => true,
        }
}

pub(super) fn is_in_box(point: GeoPoint, south_west: GeoPoint, north_east: GeoPoint) -> bool {
    let (west, east) = (south_west.lon, north_east.lon);
    let in_longitude =
        if west <= east { (west..=east).contains(&point.lon) } else { point.lon >= west || point.lon <= east };
    in_longitude && (south_west.lat..=north_east.lat).contains(&point.lat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_compared_without_rounding() {
        let large = (1i64 << 53) + 1;
        assert_eq!(compare_mixed(large, 9_007_199_254_740_992.0), Some(Ordering::Greater));
        assert_eq!(compare_mixed(-1, -1.5), Some(Ordering::Greater));
        assert_eq!(compare_mixed(i64::MAX, 9.3e18), Some(Ordering::Less));
        assert_eq!(compare_mixed(2, 2.0), Some(Ordering::Equal));
    }
}
