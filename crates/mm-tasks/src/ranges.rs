//! Numbers that are checked when a config is parsed, so that no code behind it checks them again.

use serde::{Deserialize, Serialize};

macro_rules! checked {
    ($(#[doc = $doc:literal])* $name:ident, $inner:ty, $accepts:expr, $expected:literal) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name($inner);

        impl $name {
            /// The number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = String;

            fn try_from(value: f64) -> Result<Self, String> {
                let accepts: fn(f64) -> bool = $accepts;
                if accepts(value) { Ok(Self(value as $inner)) } else { Err(format!("{value}, which is not {}", $expected)) }
            }
        }

        impl From<$name> for f64 {
            fn from(value: $name) -> Self {
                value.0 as f64
            }
        }
    };
}

checked!(
    /// A number in [0, 1].
    Fraction, f64, |v| (0.0..=1.0).contains(&v), "a number in [0, 1]"
);
checked!(
    /// A number in [0, 1): a dropout rate, label smoothing.
    Rate, f64, |v| (0.0..1.0).contains(&v), "a number in [0, 1)"
);
checked!(
    /// A finite number greater than 0.
    Positive, f64, |v| v > 0.0 && v.is_finite(), "a positive number"
);
checked!(
    /// A finite number of at least 0: the weight of a loss.
    NonNegative, f64, |v| v >= 0.0 && v.is_finite(), "a number of at least 0"
);
checked!(
    /// An integer of at least 1.
    PositiveInt, u32, |v| v >= 1.0 && v.fract() == 0.0 && v <= f64::from(u32::MAX), "an integer of at least 1"
);

impl Fraction {
    /// 0.5.
    pub const HALF: Self = Self(0.5);
    /// 0.
    pub const ZERO: Self = Self(0.0);
}

impl Rate {
    /// 0.
    pub const ZERO: Self = Self(0.0);

    /// A rate known at compile time, in percent of 1.
    pub(crate) const fn percent(value: u8) -> Self {
        Self(value as f64 / 100.0)
    }
}

impl Positive {
    /// A number known at compile time.
    pub(crate) const fn from_ratio(numerator: u32, denominator: u32) -> Self {
        Self(numerator as f64 / denominator as f64)
    }
}

impl NonNegative {
    /// 0.
    pub const ZERO: Self = Self(0.0);
    /// 1.
    pub const ONE: Self = Self(1.0);

    /// A number known at compile time.
    pub(crate) const fn from_ratio(numerator: u32, denominator: u32) -> Self {
        Self(numerator as f64 / denominator as f64)
    }
}

impl PositiveInt {
    /// A number known at compile time.
    pub(crate) const fn new(value: u32) -> Self {
        Self(value)
    }

    /// As a tensor dimension.
    pub const fn dim(self) -> i64 {
        self.0 as i64
    }

    /// As a count.
    pub const fn count(self) -> usize {
        self.0 as usize
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Default for Fraction {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Default for NonNegative {
    fn default() -> Self {
        Self::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_their_range_are_refused_with_the_range() {
        assert!(Fraction::try_from(1.0).is_ok() && Rate::try_from(1.0).is_err());
        assert!(NonNegative::try_from(f64::NAN).is_err());
        assert!(PositiveInt::try_from(2.5).is_err());
        assert_eq!(PositiveInt::try_from(3.0).unwrap().count(), 3);
        let parsed: std::collections::BTreeMap<String, PositiveInt> = toml::from_str("n = 4").unwrap();
        assert_eq!(parsed["n"].get(), 4);
    }
}
