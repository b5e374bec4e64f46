//! Long short-term memory, in one or both directions, with PyTorch's names and equations.
//!
//! *Long Short-Term Memory* (Hochreiter & Schmidhuber, 1997), <https://doi.org/10.1162/neco.1997.9.8.1735>.

use crate::{DType, Error, Init, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Configuration of an [`Lstm`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LstmConfig {
    /// Dimension of the input.
    pub input_dim: i64,
    /// Dimension of the state of one direction.
    pub hidden_dim: i64,
    /// Number of stacked layers.
    pub num_layers: i64,
    /// Whether a second network processes each row from its end.
    pub bidirectional: bool,
    /// Dropout rate between layers.
    pub dropout: f64,
}

struct Weights([Tensor; 4]);

impl Weights {
    fn new(scope: &Scope<'_>, suffix: &str, input: i64, hidden: i64) -> Result<Self> {
        let init = Init::Uniform(1.0 / (hidden.max(1) as f64).sqrt());
        let weights = Self([
            scope.param(&format!("weight_ih{suffix}"), &[4 * hidden, input], init)?,
            scope.param(&format!("weight_hh{suffix}"), &[4 * hidden, hidden], init)?,
            scope.param(&format!("bias_ih{suffix}"), &[4 * hidden], init)?,
            scope.param(&format!("bias_hh{suffix}"), &[4 * hidden], init)?,
        ]);
        // Weights that another network shares must keep their memory.
        if !scope.is_detached() && !scope.is_frozen() {
            Tensor::flatten_lstm_weights(weights.all(), input, hidden)?;
        }
        Ok(weights)
    }

    fn all(&self) -> [&Tensor; 4] {
        self.0.each_ref()
    }
}

/// `[batch, length, input_dim]` → `[batch, length, directions · hidden_dim]`. Padding at the end of a row does not
/// affect earlier positions.
pub struct Lstm {
    layers: Vec<Vec<Weights>>,
    config: LstmConfig,
}

impl Lstm {
    /// Parameters `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, `…_reverse` under `scope`.
    pub fn new(scope: &Scope<'_>, config: LstmConfig) -> Result<Self> {
        if config.input_dim < 1
            || config.hidden_dim < 1
            || config.num_layers < 1
            || !(0.0..1.0).contains(&config.dropout)
        {
            let found = format!("{config:?}");
            return Err(Error::config("lstm", found, "positive sizes and a dropout in [0, 1)"));
        }
        let directions: &[&str] = if config.bidirectional { &["", "_reverse"] } else { &[""] };
        let mut input = config.input_dim;
        let mut layers = Vec::new();
        for layer in 0..config.num_layers {
            let weights =
                directions.iter().map(|d| Weights::new(scope, &format!("_l{layer}{d}"), input, config.hidden_dim));
            layers.push(weights.collect::<Result<Vec<_>>>()?);
            input = config.hidden_dim * directions.len() as i64;
        }
        Ok(Self { layers, config })
    }

    /// Dimension of the output.
    pub fn dim(&self) -> i64 {
        self.config.hidden_dim * if self.config.bidirectional { 2 } else { 1 }
    }

    /// The states of all positions; with a mask `[batch, length]`, true for data (padding at the end only), padding
    /// gives zeros.
    pub fn forward(&self, x: &Tensor, mask: Option<&Tensor>, train: bool) -> Result<Tensor> {
        let reversed = if self.config.bidirectional { Some(reversal(x, mask)?) } else { None };
        let mut x = x.clone();
        for (layer, directions) in self.layers.iter().enumerate() {
            if layer > 0 {
                x = x.dropout(self.config.dropout, train)?;
            }
            let mut out = directions[0].lstm(&x, self.config.hidden_dim)?;
            if let (Some(order), Some(weights)) = (&reversed, directions.get(1)) {
                let reverse = |x: &Tensor| -> Result<Tensor> {
                    let shape = x.shape();
                    x.gather(1, &order.unsqueeze(-1)?.expand(&[shape[0], shape[1], shape[2]])?)
                };
                let backward = reverse(&weights.lstm(&reverse(&x)?, self.config.hidden_dim)?)?;
                out = Tensor::cat(&[&out, &backward], -1)?; // [batch, length, 2 · hidden]
            }
            x = match mask {
                Some(mask) => out.mul(&mask.unsqueeze(-1)?.to_dtype(out.dtype()?)?)?,
                None => out,
            };
        }
        Ok(x)
    }
}

impl Weights {
    fn lstm(&self, x: &Tensor, hidden: i64) -> Result<Tensor> {
        x.lstm(self.all(), hidden)
    }
}

/// Indices that reverse the data of each row and leave its padding in place, `[batch, length]` int64.
fn reversal(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let (rows, length) = (x.size(0)?, x.size(1)?);
    let positions = Tensor::arange(0, length, x.device())?.unsqueeze(0)?.expand(&[rows, length])?;
    let Some(mask) = mask else { return positions.neg()?.add_scalar((length - 1) as f64)?.to_dtype(DType::I64) };
    let count = mask.to_dtype(DType::I64)?.sum_dim(&[1], true)?; // [batch, 1]
    let reversed = count.sub(&positions)?.add_scalar(-1.0)?.to_dtype(DType::I64)?;
    reversed.where_cond(&positions.lt(&count)?, &positions)
}

/// One step of an LSTM.
pub struct LstmCell {
    weights: Weights,
    hidden: i64,
}

impl LstmCell {
    /// Parameters `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh` under `scope`.
    pub fn new(scope: &Scope<'_>, input: i64, hidden: i64) -> Result<Self> {
        Ok(Self { weights: Weights::new(scope, "", input, hidden)?, hidden })
    }

    /// Hidden and cell states of zeros for the rows of `like`.
    pub fn zero_state(&self, like: &Tensor) -> Result<(Tensor, Tensor)> {
        let zero = Tensor::zeros(&[like.size(0)?, self.hidden], like.dtype()?, like.device())?;
        Ok((zero.clone(), zero))
    }

    /// The next hidden and cell states, `[batch, hidden]` each.
    pub fn step(&self, x: &Tensor, state: (&Tensor, &Tensor)) -> Result<(Tensor, Tensor)> {
        x.lstm_cell(state.0, state.1, self.weights.all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Params};

    #[test]
    fn padding_is_ignored_and_cell_steps_match_the_layer() {
        let params = Params::new(Device::Cpu);
        let config = LstmConfig { input_dim: 3, hidden_dim: 4, num_layers: 2, bidirectional: true, dropout: 0.0 };
        let lstm = Lstm::new(&params.scope().pp("lstm"), config).unwrap();
        let short = Tensor::randn(&[1, 3, 3], DType::F32, Device::Cpu).unwrap();
        let long = Tensor::randn(&[1, 6, 3], DType::F32, Device::Cpu).unwrap();
        let both = Tensor::cat(&[&short.pad(&[0, 0, 0, 3], 9.0).unwrap(), &long], 0).unwrap();
        let mask = [true, true, true, false, false, false, true, true, true, true, true, true];
        let mask = Tensor::from_vec(&mask, &[2, 6]).unwrap();
        let together = lstm.forward(&both, Some(&mask), false).unwrap();
        let alone = lstm.forward(&short, None, false).unwrap();
        let off = together.select(0, 0).unwrap().narrow(0, 0, 3).unwrap().sub(&alone.select(0, 0).unwrap()).unwrap();
        assert!(off.abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-6);
        let rest = together.select(0, 0).unwrap().narrow(0, 3, 3).unwrap();
        assert!(rest.abs().unwrap().max().unwrap().to_f64().unwrap() == 0.0);
        let cell = LstmCell::new(&params.scope().pp("cell"), 3, 4).unwrap();
        let layer = {
            let all = cell.weights.all();
            long.lstm(all, 4).unwrap()
        };
        let (mut hidden, mut state) = cell.zero_state(&long.select(1, 0).unwrap()).unwrap();
        for step in 0..6 {
            (hidden, state) = cell.step(&long.select(1, step).unwrap(), (&hidden, &state)).unwrap();
            let off = hidden.sub(&layer.select(1, step).unwrap()).unwrap();
            assert!(off.abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-5);
        }
    }
}
