//! Adversarially trained representations: generative adversarial networks, and modality-invariant embeddings.
//!
//! Generator and discriminator are trained in the same step with one backward pass: the discriminator on detached
//! generator outputs, the generator through a detached copy of the discriminator ([`mm_core::Scope::detached`]), which
//! shares its weights and receives no gradient. Two time-scale updates (*GANs Trained by a Two Time-Scale Update Rule*,
//! [Heusel et al., 2017](https://arxiv.org/abs/1706.08500)) are parameter groups of the optimizer:
//! `train.optimizer.param_groups = [{ prefix = "model.discriminator", lr_scale = 2.0 }]`.

mod acmr;
mod adversarial_autoencoder;
mod bigan;
mod diff_augment;
mod discriminator;
mod diversity;
mod gan;
mod gan_loss;
mod gradient_reversal;
mod spectral_norm;
mod translation;

pub use acmr::{Acmr, AcmrConfig, AdversarialLoss};
pub use adversarial_autoencoder::{AdversarialAutoencoder, AdversarialAutoencoderConfig};
pub use bigan::{BiGan, BiGanConfig};
pub use discriminator::{Discriminator, DiscriminatorConfig};
pub use gan::{Gan, GanConfig};
pub use gan_loss::GanLoss;
pub use gradient_reversal::gradient_reversal;
pub use translation::{Translation, TranslationConfig};
