//! Spectral normalization.

use mm_core::{ConvArgs, Error, Init, Result, Scope, Tensor, no_grad};

/// A weight and a bias; the weight is divided by its largest singular value, which is estimated by one step of power
/// iteration per forward pass in training. *Spectral Normalization for Generative Adversarial Networks*
/// ([Miyato et al., 2018](https://arxiv.org/abs/1802.05957)).
pub(super) struct SpectralNorm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    /// The left singular vector; `None` without normalization.
    u: Option<Tensor>,
}

impl SpectralNorm {
    /// Parameters of a linear layer `[out, in]` or of a convolution `[out, in, height, width]`.
    pub(super) fn new(scope: &Scope<'_>, shape: &[i64], enabled: bool) -> Result<Self> {
        let fan_in: i64 = shape[1..].iter().product();
        let std = (2.0 / fan_in.max(1) as f64).sqrt();
        Ok(Self {
            weight: scope.param("weight", shape, Init::Normal(std))?,
            bias: scope.param("bias", &shape[..1], Init::Zeros)?,
            u: enabled.then(|| scope.buffer("weight_u", &shape[..1], Init::Normal(1.0))).transpose()?,
        })
    }

    fn normalized_weight(&self, train: bool) -> Result<Tensor> {
        let Some(left) = &self.u else { return Ok(self.weight.clone()) };
        let matrix = self.weight.flatten(1, -1)?; // [out, in]
        let (u, v) = no_grad(|| {
            let v = matrix.transpose(0, 1)?.matmul(left)?.normalize()?;
            let u = matrix.matmul(&v)?.normalize()?;
            if train {
                left.copy_(&u)?;
            }
            Ok::<_, Error>((u, v))
        })?;
        let sigma = matrix.matmul(&v)?.mul(&u)?.sum()?;
        self.weight.div(&sigma)
    }

    pub(super) fn linear(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        x.linear(&self.normalized_weight(train)?, Some(&self.bias))
    }

    /// A convolution with stride 2 and padding 1.
    pub(super) fn conv2d(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let args = ConvArgs { stride: [2, 2], padding: [1, 1], ..ConvArgs::default() };
        x.conv2d(&self.normalized_weight(train)?, Some(&self.bias), args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, Params};

    #[test]
    fn the_largest_singular_value_converges_to_one() {
        let params = Params::new(Device::Cpu);
        let layer = SpectralNorm::new(&params.scope(), &[7, 5], true).unwrap();
        for _ in 0..200 {
            layer.normalized_weight(true).unwrap();
        }
        let (_, s, _) = layer.normalized_weight(false).unwrap().svd().unwrap();
        assert!((s.max().unwrap().to_f64().unwrap() - 1.0).abs() < 1e-4);
    }
}
