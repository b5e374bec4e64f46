//! Filters that no row can be compared with, which only programs make: the parser refuses them with their position.

use super::Filter;
use crate::{
    Error, Result,
    payload::{GeoPoint, Scalar},
};
use std::ops::Bound;

impl Filter {
    /// Refuses ends of ranges that have no order, and boxes that are none.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Range { field, lower, upper } => check_range(field, [lower, upper]),
            Self::GeoBox { field, south_west, north_east } => check_box(field, *south_west, *north_east),
            Self::And(all) | Self::Or(all) => all.iter().try_for_each(Self::check),
            Self::Not(inner) => inner.check(),
            Self::Equal { .. } | Self::In { .. } | Self::Exists { .. } => Ok(()),
        }
    }
}

fn check_range(field: &str, bounds: [&Bound<Scalar>; 2]) -> Result<()> {
    let what = || format!("range of `{field}` in the filter");
    let ends = bounds.into_iter().filter_map(|bound| match bound {
        Bound::Included(end) | Bound::Excluded(end) => Some(end),
        Bound::Unbounded => None,
    });
    let ends: Vec<&Scalar> = ends.collect();
    for end in &ends {
        match end {
            Scalar::Bool(_) => {
                return Err(Error::invalid(what(), end, "numbers or texts: true and false have no order"));
            }
            Scalar::Float(number) if number.is_nan() => return Err(Error::invalid(what(), end, "numbers or texts")),
            _ => {}
        }
    }
    match ends.as_slice() {
        [lower, upper] if matches!(lower, Scalar::Text(_)) != matches!(upper, Scalar::Text(_)) => {
            Err(Error::invalid(what(), format!("{lower} and {upper}"), "two numbers or two texts"))
        }
        _ => Ok(()),
    }
}

fn check_box(field: &str, south_west: GeoPoint, north_east: GeoPoint) -> Result<()> {
    let is_place = |point: GeoPoint| (-90.0..=90.0).contains(&point.lat) && (-180.0..=180.0).contains(&point.lon);
    if is_place(south_west) && is_place(north_east) && south_west.lat <= north_east.lat {
        return Ok(());
    }
    let found =
        format!("south {}, west {}, north {}, east {}", south_west.lat, south_west.lon, north_east.lat, north_east.lon);
    let expected = "latitudes from -90 to 90 degrees, the south not above the north, and longitudes from -180 to 180";
    Err(Error::invalid(format!("box of `{field}` in the filter"), found, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_boxes_that_are_none_are_refused() {
        let range = |lower: Scalar, upper: Scalar| Filter::Range {
            field: "a".into(),
            lower: Bound::Included(lower),
            upper: Bound::Excluded(upper),
        };
        let area = |[south, west, north, east]: [f64; 4]| Filter::GeoBox {
            field: "p".into(),
            south_west: GeoPoint { lat: south, lon: west },
            north_east: GeoPoint { lat: north, lon: east },
        };
        for (filter, expected) in [
            (range(true.into(), 1i64.into()), "true and false have no order"),
            (range(f64::NAN.into(), 1i64.into()), "found NaN"),
            (range(1i64.into(), "b".into()), "found 1 and \"b\", expected two numbers or two texts"),
            (area([f64::NAN, 0.0, 1.0, 1.0]), "box of `p` in the filter: found south NaN"),
            (area([-91.0, 0.0, 1.0, 1.0]), "latitudes from -90 to 90"),
            (area([2.0, 0.0, 1.0, 1.0]), "the south not above the north"),
            (area([0.0, 0.0, 1.0, 181.0]), "longitudes from -180 to 180"),
        ] {
            let nested = Filter::Not(Box::new(Filter::And(vec![Filter::Exists { field: "a".into() }, filter])));
            let message = nested.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        range("a".into(), "b".into()).check().unwrap();
        area([-10.0, 170.0, 10.0, -170.0]).check().unwrap();
    }
}
