//! Encoders by name, so that encoders of any crate can be used in every config file.

use crate::{Encoder, Error, Modality, Processor, Result, Scope, Source};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// What an [`EncoderFactory`] may need besides its settings.
pub struct BuildContext<'a> {
    /// Scope of the encoder's parameters.
    pub scope: Scope<'a>,
    /// The folder that relative paths in the settings refer to.
    pub base_dir: PathBuf,
    /// Dotted path of the settings in the config, for errors.
    pub field: String,
    /// The registry that builds the encoder, for encoders that contain others.
    pub registry: &'a Registry,
}

/// A processor and an encoder for one modality.
pub struct BuiltEncoder {
    /// Raw value → tensor, in worker threads.
    pub processor: Arc<dyn Processor>,
    /// Tensor → features, on the device.
    pub encoder: Box<dyn Encoder>,
    /// Whether the encoder's weights are never trained, so that its features can be cached on disk.
    pub frozen: bool,
    /// A text that changes whenever the features would, for frozen encoders.
    pub fingerprint: String,
}

/// Settings of an encoder that suit the training values of a modality.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Complete settings (with vocabulary, means, …), including their `kind`.
    pub encoder: toml::Value,
    /// Whether features should be standardized to mean zero and variance one.
    pub standardize: bool,
    /// What was chosen and why, as text for the user.
    pub description: String,
}

/// Builds encoders of one kind. Functions and closures of settings and context are factories without a derived setting.
pub trait EncoderFactory: Send + Sync {
    /// Builds an encoder from its settings (without `kind`).
    ///
    /// # Errors
    /// If the settings are invalid or files cannot be read.
    fn build(&self, settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder>;

    /// The setting that is derived from training values where a config leaves it out (a vocabulary).
    fn derived_setting(&self) -> Option<&str> {
        None
    }

    /// The value of [`EncoderFactory::derived_setting`] for these training values.
    ///
    /// # Errors
    /// If the values are unsuitable.
    fn derive(&self, _values: &[&Source]) -> Result<toml::Value> {
        Err(Error::Sample("this encoder derives no setting from training values".into()))
    }
}

impl<F> EncoderFactory for F
where
    F: Fn(&toml::Value, &BuildContext<'_>) -> Result<BuiltEncoder> + Send + Sync,
{
    fn build(&self, settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
        self(settings, context)
    }
}

type Proposer = Arc<dyn Fn(&[&Source]) -> Result<Vec<Proposal>> + Send + Sync>;
type ColumnRecognizer = Arc<dyn Fn(&str, &[&serde_json::Value]) -> bool + Send + Sync>;

/// Encoder factories by the `kind` in a config, and proposals and the recognition of columns by modality.
#[derive(Default, Clone)]
pub struct Registry {
    factories: BTreeMap<String, Arc<dyn EncoderFactory>>,
    proposers: BTreeMap<String, Proposer>,
    recognizers: BTreeMap<String, ColumnRecognizer>,
    stays_loaded: bool,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds (or replaces) an encoder kind, built by a closure.
    pub fn register_encoder(
        &mut self,
        kind: &str,
        build: impl Fn(&toml::Value, &BuildContext<'_>) -> Result<BuiltEncoder> + Send + Sync + 'static,
    ) -> &mut Self {
        self.register_factory(kind, build)
    }

    /// Adds (or replaces) an encoder kind, built by a factory; for kinds with a setting that is derived from training
    /// values.
    pub fn register_factory(&mut self, kind: &str, factory: impl EncoderFactory + 'static) -> &mut Self {
        self.factories.insert(kind.to_owned(), Arc::new(factory));
        self
    }

    /// Adds (or replaces) the proposals for a modality whose config names no encoder, best first (`mm fit`).
    pub fn register_proposer(
        &mut self,
        modality: &str,
        propose: impl Fn(&[&Source]) -> Result<Vec<Proposal>> + Send + Sync + 'static,
    ) -> &mut Self {
        self.proposers.insert(modality.to_owned(), Arc::new(propose));
        self
    }

    /// Adds (or replaces) how a column of a modality is recognized in a table whose columns nobody names (`mm fit`,
    /// `mm embed --data`): by the column's name and a sample of its cells that are not empty. It is asked before text,
    /// files, numbers and categories are considered, so it should accept only what is certainly of its modality.
    ///
    /// ```
    /// let mut registry = mm_core::Registry::new();
    /// registry.register_column_recognizer("trajectory", |_, cells| {
    ///     cells.iter().all(|cell| cell.pointer("/0/0").is_some_and(serde_json::Value::is_number))
    /// });
    /// let (path, count) = (serde_json::json!([[0, 1], [2, 3]]), serde_json::json!(4));
    /// assert_eq!(registry.modality_of_column("path", &[&path]), Some("trajectory"));
    /// assert_eq!(registry.modality_of_column("count", &[&count]), None);
    /// ```
    pub fn register_column_recognizer(
        &mut self,
        modality: &str,
        recognize: impl Fn(&str, &[&serde_json::Value]) -> bool + Send + Sync + 'static,
    ) -> &mut Self {
        self.recognizers.insert(modality.to_owned(), Arc::new(recognize));
        self
    }

    /// The modality that recognizes a column by its name and a sample of its cells; `None` where none does, or there is
    /// no cell.
    pub fn modality_of_column(&self, column: &str, cells: &[&serde_json::Value]) -> Option<&str> {
        let recognizes = |(_, recognize): &(&String, &ColumnRecognizer)| !cells.is_empty() && recognize(column, cells);
        self.recognizers.iter().find(recognizes).map(|(modality, _)| modality.as_str())
    }

    /// Whether settings leave out a setting that is derived from training values.
    pub fn is_incomplete(&self, settings: &toml::Value) -> bool {
        self.missing_setting(settings).is_some()
    }

    /// Adds the setting that is derived from training values, where it is missing.
    ///
    /// # Errors
    /// If the values are unsuitable.
    pub fn complete(&self, settings: &mut toml::Value, values: &[&Source]) -> Result<()> {
        let Some((factory, setting)) = self.missing_setting(settings) else { return Ok(()) };
        let value = factory.derive(values)?;
        if let Some(table) = settings.as_table_mut() {
            table.insert(setting.to_owned(), value);
        }
        Ok(())
    }

    fn missing_setting(&self, settings: &toml::Value) -> Option<(&dyn EncoderFactory, &str)> {
        let factory = self.factories.get(settings.get("kind")?.as_str()?)?.as_ref();
        let setting = factory.derived_setting()?;
        settings.get(setting).is_none().then_some((factory, setting))
    }

    /// Encoders for a modality that suit its training values: at least one, best first.
    ///
    /// # Errors
    /// If no encoder is known for the modality, or none suits the values.
    pub fn propose(&self, modality: &Modality, values: &[&Source]) -> Result<Vec<Proposal>> {
        let known = self.proposers.keys().map(String::as_str);
        let propose = self
            .proposers
            .get(modality.name())
            .ok_or_else(|| Error::unknown("modality that an encoder can be chosen for", modality.name(), known))?;
        let proposals = propose(values)?;
        if proposals.is_empty() {
            return Err(Error::Sample(format!("no encoder of {modality} suits these values")));
        }
        Ok(proposals)
    }

    /// The modalities that encoders can be proposed for.
    pub fn proposable_modalities(&self) -> impl Iterator<Item = &str> {
        self.proposers.keys().map(String::as_str)
    }

    /// The encoder kinds.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    /// This registry for models that stay loaded, as those of a server: it builds encoders in a scope in decode mode (see
    /// [`Scope::decode_mode`]).
    pub fn for_loaded_models(&self) -> Self {
        Self { stays_loaded: true, ..self.clone() }
    }

    /// Builds the encoder that `settings.kind` names from the other settings.
    ///
    /// # Errors
    /// If the kind is missing or unknown, or the encoder cannot be built.
    pub fn build(&self, settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
        let mut settings = settings.clone();
        let kind = settings
            .as_table_mut()
            .and_then(|t| t.remove("kind"))
            .and_then(|k| k.as_str().map(ToOwned::to_owned))
            .ok_or_else(|| Error::config(format!("{}.kind", context.field), "nothing", "the name of an encoder"))?;
        let factory = self.factories.get(&kind).ok_or_else(|| Error::unknown("encoder kind", &kind, self.names()))?;
        if !self.stays_loaded {
            return factory.build(&settings, context);
        }
        let context = BuildContext {
            scope: context.scope.decode_mode(),
            base_dir: context.base_dir.clone(),
            field: context.field.clone(),
            registry: context.registry,
        };
        factory.build(&settings, &context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Derives `words` from training values.
    struct Bag;

    impl EncoderFactory for Bag {
        fn build(&self, _: &toml::Value, _: &BuildContext<'_>) -> Result<BuiltEncoder> {
            Err(Error::Sample("not built in this test".into()))
        }

        fn derived_setting(&self) -> Option<&str> {
            Some("words")
        }

        fn derive(&self, values: &[&Source]) -> Result<toml::Value> {
            Ok(toml::Value::Integer(values.len() as i64))
        }
    }

    #[test]
    fn a_missing_setting_is_derived_from_training_values() {
        let mut registry = Registry::new();
        registry.register_factory("bag", Bag);
        registry.register_encoder("plain", |_, _| Err(Error::Sample("not built in this test".into())));
        let mut settings: toml::Value = toml::from_str("kind = \"bag\"").unwrap();
        assert!(registry.is_incomplete(&settings));
        assert!(!registry.is_incomplete(&toml::from_str("kind = \"plain\"").unwrap()));
        let text = Source::Text("a".into());
        registry.complete(&mut settings, &[&text, &text]).unwrap();
        assert_eq!(settings.get("words").and_then(toml::Value::as_integer), Some(2));
        assert!(!registry.is_incomplete(&settings));
    }

    #[test]
    fn an_unknown_kind_suggests_the_nearest_known_one() {
        let mut registry = Registry::new();
        registry.register_factory("bag", Bag);
        let unknown: toml::Value = toml::from_str("kind = \"bags\"").unwrap();
        let params = crate::Params::new(crate::Device::Cpu);
        let context =
            BuildContext { scope: params.scope(), base_dir: PathBuf::new(), field: "text".into(), registry: &registry };
        let error = registry.build(&unknown, &context).err().unwrap().to_string();
        assert!(error.contains("did you mean `bag`"), "{error}");
    }

    #[test]
    fn encoders_of_models_that_stay_loaded_are_built_in_decode_mode() {
        let mut registry = Registry::new();
        let mode = |_: &toml::Value, context: &BuildContext<'_>| -> Result<BuiltEncoder> {
            Err(Error::Sample(format!("decode mode: {}", context.scope.is_decode_mode())))
        };
        registry.register_encoder("mode", mode);
        let settings: toml::Value = toml::from_str("kind = \"mode\"").unwrap();
        let params = crate::Params::new(crate::Device::Cpu);
        let built = |registry: &Registry| {
            let context =
                BuildContext { scope: params.scope(), base_dir: PathBuf::new(), field: "text".into(), registry };
            registry.build(&settings, &context).err().unwrap().to_string()
        };
        assert_eq!(built(&registry), "decode mode: false");
        assert_eq!(built(&registry.for_loaded_models()), "decode mode: true");
    }
}
