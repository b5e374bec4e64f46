//! Encoder, decoder and likelihood of one modality, which several learners share.

use super::{
    likelihood::Likelihood,
    networks::{DecoderNet, EncoderNet, NetworkConfig},
    spec::InputSpec,
};
use mm_core::{
    DType, Device, GenerativeDecoder, InputSet, Modality, Module, Result, Scope, Tensor, distributed::mean_over_rows,
};

/// The distribution that new latents are sampled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prior {
    /// None: latents can be decoded but not sampled.
    None,
    /// N(0, I).
    StandardNormal,
}

/// An encoder, a decoder and the likelihood of the decoded values.
pub(crate) struct EncoderDecoder {
    pub(crate) modality: Modality,
    pub(crate) encoder: EncoderNet,
    pub(crate) decoder: DecoderNet,
    pub(crate) likelihood: Likelihood,
    pub(crate) latent_dim: i64,
    prior: Prior,
    device: Device,
}

impl EncoderDecoder {
    /// Networks `encoder`, `decoder` and `likelihood` under `scope`; the encoder returns `encoder_dim` values.
    pub(crate) fn new(
        scope: &Scope<'_>,
        (modality, spec): (&Modality, &InputSpec),
        (encoder_dim, latent_dim): (i64, i64),
        network: &NetworkConfig,
        prior: Prior,
    ) -> Result<Self> {
        let likelihood_scope = scope.pp("likelihood");
        Self::with_likelihood(scope, &likelihood_scope, (modality, spec), (encoder_dim, latent_dim), network, prior)
    }

    /// Like [`EncoderDecoder::new`], but with the likelihood under a scope of its own.
    pub(crate) fn with_likelihood(
        scope: &Scope<'_>,
        likelihood_scope: &Scope<'_>,
        (modality, spec): (&Modality, &InputSpec),
        (encoder_dim, latent_dim): (i64, i64),
        network: &NetworkConfig,
        prior: Prior,
    ) -> Result<Self> {
        spec.require_numeric(modality)?;
        Ok(Self {
            modality: modality.clone(),
            encoder: EncoderNet::new(&scope.pp("encoder"), spec, encoder_dim, network)?,
            decoder: DecoderNet::new(&scope.pp("decoder"), latent_dim, spec, network)?,
            likelihood: Likelihood::new(likelihood_scope, spec)?,
            latent_dim,
            prior,
            device: scope.device(),
        })
    }

    /// The values of this modality in a set, `[rows, …]`.
    pub(crate) fn values<'a>(&self, set: &'a InputSet) -> Result<&'a Tensor> {
        Ok(&set.get(&self.modality)?.0.values)
    }

    /// The mean reconstruction error of latents.
    pub(crate) fn reconstruction_error(&self, latent: &Tensor, values: &Tensor, train: bool) -> Result<Tensor> {
        mean_over_rows(&self.likelihood.reconstruction_error(&self.decoder.forward(latent, train)?, values)?)
    }
}

impl GenerativeDecoder for EncoderDecoder {
    fn generates(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    fn decode(&self, latent: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.decoder.forward(latent, false)
    }

    fn sample_prior(&self, rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        match self.prior {
            Prior::None => Ok(None),
            Prior::StandardNormal => Tensor::randn(&[rows, self.latent_dim], DType::F32, self.device).map(Some),
        }
    }
}
