//! The registry of representation learners, which are built from a config by their `kind`.

use crate::{
    adversarial::{Acmr, AdversarialAutoencoder, BiGan, Gan, Translation},
    generative::{
        Autoencoder, InputSpec, InputSpecs, MaskedAutoencoder, MultimodalVae, SequenceAutoencoder, Vae, VqVae,
    },
};
use mm_core::{Error, Modality, RepresentationLearner, Result, Scope, config};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Arguments from which a learner is built.
pub struct LearnerContext<'a> {
    /// The settings without `kind`.
    pub settings: &'a toml::Value,
    /// Name of the config table, for errors.
    pub field: &'a str,
    /// The inputs by modality.
    pub inputs: &'a InputSpecs,
    /// Number of classes of the labels; 0 without labels.
    pub num_classes: i64,
    /// Where the parameters are created.
    pub scope: &'a Scope<'a>,
}

impl LearnerContext<'_> {
    /// Parses the settings.
    ///
    /// # Errors
    /// A key is unknown or a value has another type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        config::parse(self.settings, self.field)
    }

    /// The only modality.
    ///
    /// # Errors
    /// There is not exactly one.
    pub fn single_input(&self) -> Result<(&Modality, &InputSpec)> {
        match self.inputs.iter().next() {
            Some(input) if self.inputs.len() == 1 => Ok(input),
            _ => {
                let found = self.inputs.keys().map(Modality::name).collect::<Vec<_>>().join(", ");
                Err(Error::config("inputs", found, "exactly one modality for this kind of model"))
            }
        }
    }
}

type Builder = Box<dyn Fn(&LearnerContext<'_>) -> Result<Box<dyn RepresentationLearner>> + Send + Sync>;

/// Representation learners by `kind`.
///
/// ```
/// let mut registry = mm_repr::LearnerRegistry::default();
/// registry.register("my_vae", |context| {
///     let vae = mm_repr::generative::Vae::new(context.scope, context.single_input()?, &context.parse()?)?;
///     Ok(Box::new(vae))
/// });
/// assert!(registry.kinds().any(|kind| kind == "my_vae"));
/// ```
pub struct LearnerRegistry {
    builders: BTreeMap<String, Builder>,
}

impl Default for LearnerRegistry {
    /// The learners of this crate.
    fn default() -> Self {
        let mut registry = Self { builders: BTreeMap::new() };
        registry.register("acmr", |c| Ok(Box::new(Acmr::new(c.scope, c.inputs, c.num_classes, &c.parse()?)?)));
        registry.register("adversarial_autoencoder", |c| {
            Ok(Box::new(AdversarialAutoencoder::new(c.scope, c.single_input()?, &c.parse()?)?))
        });
        registry.register("autoencoder", |c| Ok(Box::new(Autoencoder::new(c.scope, c.single_input()?, &c.parse()?)?)));
        registry.register("bigan", |c| Ok(Box::new(BiGan::new(c.scope, c.single_input()?, &c.parse()?)?)));
        registry.register("gan", |c| Ok(Box::new(Gan::new(c.scope, c.inputs, &c.parse()?)?)));
        registry.register("mae", |c| Ok(Box::new(MaskedAutoencoder::new(c.scope, c.single_input()?, &c.parse()?)?)));
        registry.register("multimodal_vae", |c| Ok(Box::new(MultimodalVae::new(c.scope, c.inputs, &c.parse()?)?)));
        registry.register("sequence_autoencoder", |c| {
            Ok(Box::new(SequenceAutoencoder::new(c.scope, c.single_input()?, &c.parse()?)?))
        });
        registry.register("translation", |c| Ok(Box::new(Translation::new(c.scope, c.inputs, &c.parse()?)?)));
        registry.register("vae", |c| Ok(Box::new(Vae::new(c.scope, c.single_input()?, &c.parse()?)?)));
        registry.register("vq_vae", |c| Ok(Box::new(VqVae::new(c.scope, c.single_input()?, &c.parse()?)?)));
        registry
    }
}

impl LearnerRegistry {
    /// Adds a learner, or replaces the one of the same kind.
    pub fn register(
        &mut self,
        kind: impl Into<String>,
        builder: impl Fn(&LearnerContext<'_>) -> Result<Box<dyn RepresentationLearner>> + Send + Sync + 'static,
    ) {
        self.builders.insert(kind.into(), Box::new(builder));
    }

    /// The registered kinds, in alphabetical order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.builders.keys().map(String::as_str)
    }

    /// Builds the learner that `settings.kind` names, with parameters under `scope`; `field` names the config table in
    /// errors.
    ///
    /// # Errors
    /// The kind is missing or unknown, or the settings do not fit the learner or the inputs.
    pub fn build(
        &self,
        settings: &toml::Value,
        field: &str,
        inputs: &InputSpecs,
        num_classes: i64,
        scope: &Scope<'_>,
    ) -> Result<Box<dyn RepresentationLearner>> {
        let mut settings = settings.clone();
        let kind = settings.as_table_mut().and_then(|table| table.remove("kind"));
        let Some(kind) = kind.as_ref().and_then(toml::Value::as_str) else {
            let expected = format!("one of {}", self.kinds().collect::<Vec<_>>().join(", "));
            return Err(Error::config(format!("{field}.kind"), "nothing", expected));
        };
        let builder = self.builders.get(kind).ok_or_else(|| Error::unknown("kind of learner", kind, self.kinds()))?;
        builder(&LearnerContext { settings: &settings, field, inputs, num_classes, scope })
    }
}

#[cfg(test)]
mod tests;
