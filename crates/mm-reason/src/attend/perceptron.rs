//! All places side by side with the question, through plain layers (the CNN+MLP that Santoro 2017 compares relation networks with): it
//! knows where everything is, and has nothing that compares two places.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{Module, Scope, Tensor, nn::Linear};

pub(super) struct Perceptron {
    places: i64,
    layers: Vec<Linear>,
    output: Linear,
    dropout: f64,
}

impl Perceptron {
    pub(super) fn new(scope: &Scope<'_>, width: i64, [places, layers]: [i64; 2], dropout: f64) -> Result<Self> {
        at_least_one("places", places)?;
        at_least_one("layers", layers)?;
        let wide = (places + 1) * width;
        let layers = (0..layers)
            .map(|n| Linear::new(&scope.pp("layers").pp(n), if n == 0 { wide } else { width * 4 }, width * 4, true))
            .collect::<mm_core::Result<_>>()?;
        Ok(Self { places, layers, output: Linear::new(&scope.pp("output"), width * 4, width, true)?, dropout })
    }
}

impl Body for Perceptron {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let found = s.places.size(1)?;
        if found != self.places {
            let wanted = format!("places = {found}, as many as the picture has");
            return Err(mm_core::Error::config("reason.network.places", self.places, wanted));
        }
        let mut x = Tensor::cat(&[&s.places.flatten(1, 2)?, &s.question], 1)?; // [rows, (places + 1) · width]
        for layer in &self.layers {
            x = layer.forward(&x, s.train)?.relu()?.dropout(self.dropout, s.train)?;
        }
        Ok((self.output.forward(&x, s.train)?, Vec::new()))
    }
}
