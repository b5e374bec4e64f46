//! Losses of generator and discriminator.

use mm_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// The losses of a generator G and a discriminator D, whose scores are logits D(x).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GanLoss {
    /// Discriminator: softplus(−D(x)) + softplus(D(G(z))); generator: softplus(−D(G(z))). *Generative Adversarial
    /// Networks* ([Goodfellow et al., 2014](https://arxiv.org/abs/1406.2661)).
    #[default]
    NonSaturating,
    /// Discriminator: (D(x) − 1)² + D(G(z))²; generator: (D(G(z)) − 1)². *Least Squares Generative Adversarial
    /// Networks* ([Mao et al., 2017](https://arxiv.org/abs/1611.04076)).
    LeastSquares,
    /// Discriminator: max(0, 1 − D(x)) + max(0, 1 + D(G(z))); generator: −D(G(z)). *Geometric GAN*
    /// ([Lim and Ye, 2017](https://arxiv.org/abs/1705.02894)).
    Hinge,
    /// Discriminator (critic): D(G(z)) − D(x); generator: −D(G(z)). *Wasserstein GAN*
    /// ([Arjovsky et al., 2017](https://arxiv.org/abs/1701.07875)); with a gradient penalty, WGAN-GP.
    Wasserstein,
}

impl GanLoss {
    /// The discriminator's loss from its scores of real and of generated samples.
    pub fn discriminator(self, real: &Tensor, fake: &Tensor) -> Result<Tensor> {
        let (real, fake) = match self {
            Self::NonSaturating => (real.neg()?.softplus()?, fake.softplus()?),
            Self::LeastSquares => (real.add_scalar(-1.0)?.pow(2.0)?, fake.pow(2.0)?),
            Self::Hinge => (real.neg()?.add_scalar(1.0)?.relu()?, fake.add_scalar(1.0)?.relu()?),
            Self::Wasserstein => (real.neg()?, fake.clone()),
        };
        real.mean()?.add(&fake.mean()?)
    }

    /// The generator's loss from the discriminator's scores of generated samples.
    pub fn generator(self, fake: &Tensor) -> Result<Tensor> {
        match self {
            Self::NonSaturating => fake.neg()?.softplus()?.mean(),
            Self::LeastSquares => fake.add_scalar(-1.0)?.pow(2.0)?.mean(),
            Self::Hinge | Self::Wasserstein => fake.neg()?.mean(),
        }
    }

    /// The loss of an encoder that is trained so that real samples, with these scores, are classified as generated
    /// (BiGAN).
    pub fn encoder(self, real: &Tensor) -> Result<Tensor> {
        match self {
            Self::NonSaturating => real.softplus()?.mean(),
            Self::LeastSquares => real.pow(2.0)?.mean(),
            Self::Hinge | Self::Wasserstein => real.mean(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_match_the_papers_formulas() {
        let (real, fake) = (Tensor::from_slice(&[0.5f32, 2.0]).unwrap(), Tensor::from_slice(&[-0.5f32, 1.0]).unwrap());
        let softplus = |x: f64| (1.0 + x.exp()).ln();
        for (loss, discriminator, generator, encoder) in [
            (
                GanLoss::NonSaturating,
                (softplus(-0.5) + softplus(-2.0) + softplus(-0.5) + softplus(1.0)) / 2.0,
                (softplus(0.5) + softplus(-1.0)) / 2.0,
                (softplus(0.5) + softplus(2.0)) / 2.0,
            ),
            // The targets of the discriminator, 1 and 0, exchanged.
            (GanLoss::LeastSquares, (0.25 + 1.0 + 0.25 + 1.0) / 2.0, (2.25 + 0.0) / 2.0, (0.25 + 4.0) / 2.0),
            (GanLoss::Hinge, (0.5 + 0.0 + 0.5 + 2.0) / 2.0, -0.25, 1.25),
            (GanLoss::Wasserstein, -1.25 + 0.25, -0.25, 1.25),
        ] {
            let found = loss.discriminator(&real, &fake).unwrap().to_f64().unwrap();
            assert!((found - discriminator).abs() < 1e-5, "{loss:?}");
            assert!((loss.generator(&fake).unwrap().to_f64().unwrap() - generator).abs() < 1e-5, "{loss:?}");
            assert!((loss.encoder(&real).unwrap().to_f64().unwrap() - encoder).abs() < 1e-5, "{loss:?}");
        }
    }
}
