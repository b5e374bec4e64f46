//! Stands for four-bit weights where the feature `nf4` is off: none is ever made.

use crate::{Error, Result, Tensor};
use std::convert::Infallible;

/// A matrix in four bits per value, of which there is none.
#[derive(Debug)]
pub(crate) struct Nf4(Infallible);

impl Nf4 {
    /// # Errors
    /// Always.
    pub(crate) fn quantize(_: &Tensor) -> Result<Self> {
        Err(Error::config("adapter.quantize", "nf4", "a program that is built with the feature `nf4` of mm-core"))
    }

    pub(crate) fn linear(&self, _: &Tensor) -> Result<Tensor> {
        match self.0 {}
    }
}
