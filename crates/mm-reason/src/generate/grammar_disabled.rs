//! Stands for compiled constraints where the feature `constraints` is off: none is ever made.

use super::constraint::{OutputConstraint, TokenConstraint};
use crate::{Error, Result};
use std::convert::Infallible;

/// An [`OutputConstraint`] compiled for a tokenizer, of which there is none without the feature `constraints`.
pub struct GrammarConstraint(Infallible);

impl GrammarConstraint {
    pub(crate) fn new(constraint: &OutputConstraint, _: &[Vec<u8>], _: i64) -> Result<Self> {
        let expected = "a program that is built with the feature `constraints` of mm-reason";
        Err(Error::invalid_argument("output constraint", format!("{constraint:?}"), expected))
    }
}

impl TokenConstraint for GrammarConstraint {
    fn allowed_next(&self, _: &[i64]) -> Option<Vec<i64>> {
        match self.0 {}
    }
}
