//! Autoencoders of one or several modalities. Each is a
//! [`RepresentationLearner`](mm_core::RepresentationLearner): it computes a loss on a batch in training and a latent
//! vector per row afterwards. [`LearnerRegistry`](crate::LearnerRegistry) builds them from a config.

mod autoencoder;
pub(crate) mod batch;
mod gaussian;
mod inputs;
mod likelihood;
mod mae;
mod multimodal_vae;
pub mod networks;
mod sequence_autoencoder;
pub(crate) mod single_modality;
mod spec;
mod transformer;
mod vae;
mod vq_vae;
pub(crate) mod warmup;

pub use autoencoder::{Autoencoder, AutoencoderConfig, Sparsity};
pub use inputs::{BuiltInput, InputConfig, build_input, decode_chars};
pub use likelihood::{Likelihood, binary_cross_entropy};
pub use mae::{MaskedAutoencoder, MaskedAutoencoderConfig};
pub use multimodal_vae::{JointPosterior, MultimodalVae, MultimodalVaeConfig};
pub use sequence_autoencoder::{SequenceAutoencoder, SequenceAutoencoderConfig};
pub use spec::{InputSpec, InputSpecs, ValueType};
pub use vae::{Vae, VaeConfig};
pub use vq_vae::{VqVae, VqVaeConfig};
