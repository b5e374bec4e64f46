//! The part of a config file that all tasks share, and how such a file is read.
//!
//! A config names its `task` and holds the shared keys of [`CommonConfig`] next to the task's own keys, all at the top
//! level. The table is split by key before it is parsed, so that an unknown key is an error that suggests the nearest
//! key of either part.

use crate::{Error, Result};
use mm_core::config as settings;
use mm_data::{LoaderConfig, ManifestConfig};
use mm_train::TrainConfig;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _, Visitor},
};
use std::path::{Path, PathBuf};

/// The key that names a config's task.
pub(crate) const TASK_KEY: &str = "task";

/// The keys that every task's config has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommonConfig {
    /// Folder that relative paths are resolved against; the config file's own when absent.
    #[serde(default)]
    pub base_dir: Option<PathBuf>,
    /// The data set.
    pub data: ManifestConfig,
    /// Settings of the data loader.
    #[serde(default)]
    pub loader: LoaderConfig,
    /// The training loop.
    #[serde(default)]
    pub train: TrainConfig,
    /// Where decoded and encoded samples are cached; mm's own cache when absent.
    #[serde(default)]
    pub cache_dir: Option<PathBuf>,
}

impl CommonConfig {
    /// The folder that relative paths are resolved against: `base_dir`, else `default`.
    pub fn base_dir_or(&self, default: &Path) -> PathBuf {
        self.base_dir.clone().unwrap_or_else(|| default.to_owned())
    }
}

/// A task's config: its own keys, and the shared ones in a field that serde skips.
pub trait TaskConfig: Serialize + DeserializeOwned {
    /// The `task` that such a config names.
    const TASK: &'static str;

    /// The shared part.
    fn common(&self) -> &CommonConfig;

    /// The shared part, to be changed.
    fn common_mut(&mut self) -> &mut CommonConfig;

    /// Checks values that their types allow but the task does not.
    fn validate(&self) -> Result<()> {
        Ok(())
    }
}

/// The `task` that a config names.
pub fn task_name(value: &toml::Value) -> Option<&str> {
    value.get(TASK_KEY).and_then(toml::Value::as_str)
}

/// Parses and checks a task's config.
///
/// # Errors
/// When the config names another task, has an unknown key (the nearest known one is suggested), or a value that the
/// task cannot use.
pub fn parse_task<C: TaskConfig>(value: &toml::Value) -> Result<C> {
    if let Some(found) = task_name(value).filter(|name| *name != C::TASK) {
        return Err(Error::WrongTask { run: None, found: found.to_owned(), expected: C::TASK.to_owned(), usage: None });
    }
    let (common_keys, own_keys) = (field_names::<CommonConfig>(), field_names::<C>());
    let (mut common, mut own) = (toml::Table::new(), toml::Table::new());
    for (key, value) in value.as_table().into_iter().flatten().filter(|(key, _)| *key != TASK_KEY) {
        if common_keys.contains(&key.as_str()) {
            common.insert(key.clone(), value.clone());
        } else if own_keys.contains(&key.as_str()) {
            own.insert(key.clone(), value.clone());
        } else {
            let known = common_keys.iter().chain(own_keys).copied();
            return Err(mm_core::Error::unknown("configuration key", key, known).into());
        }
    }
    let mut config: C = settings::parse(&toml::Value::Table(own), "")?;
    *config.common_mut() = settings::parse(&toml::Value::Table(common), "")?;
    config.common().loader.check()?;
    config.common().train.check()?;
    config.validate()?;
    Ok(config)
}

/// The config file that [`parse_task`] reads as `config`, `task` included.
pub fn to_value<C: TaskConfig>(config: &C) -> Result<toml::Value> {
    let table = |value: toml::Value| if let toml::Value::Table(table) = value { table } else { toml::Table::new() };
    let failed = |e: toml::ser::Error| Error::Config(format!("the configuration cannot be written as TOML: {e}"));
    let mut out = toml::Table::from_iter([(TASK_KEY.to_owned(), toml::Value::from(C::TASK))]);
    out.extend(table(toml::Value::try_from(config.common()).map_err(failed)?));
    out.extend(table(toml::Value::try_from(config).map_err(failed)?));
    Ok(toml::Value::Table(out))
}

/// The field names of a struct that derives `Deserialize`.
fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The deserializer notes the names and always fails; there is no value to return.
    drop(T::deserialize(FieldNames(&mut names)));
    names
}

struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("field names only"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(skip)]
        common: CommonConfig,
        #[serde(default)]
        num_beams: usize,
    }

    impl TaskConfig for Config {
        const TASK: &'static str = "test";
        fn common(&self) -> &CommonConfig {
            &self.common
        }
        fn common_mut(&mut self) -> &mut CommonConfig {
            &mut self.common
        }
    }

    fn parse(text: &str) -> Result<Config> {
        parse_task(&toml::from_str(text).unwrap())
    }

    #[test]
    fn a_config_survives_a_round_trip() {
        let text =
            "task = \"test\"\nnum_beams = 3\ncache_dir = \"c\"\n[data]\nmanifest = \"a.jsonl\"\n[train]\nepochs = 2";
        let config = parse(text).unwrap();
        assert_eq!((config.num_beams, config.common.train.epochs), (3, 2));
        assert_eq!(parse_task::<Config>(&to_value(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn unknown_keys_get_the_nearest_key_of_either_part() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert!(error("num_beam = 3\n[data]\nmanifest = \"a\"").contains("did you mean `num_beams`"));
        assert!(error("cachedir = 3\n[data]\nmanifest = \"a\"").contains("did you mean `cache_dir`"));
        assert!(error("task = \"other\"").contains("this is an other config"), "{}", error("task = \"other\""));
        assert!(error("num_beams = 3").contains("missing field `data`"), "{}", error("num_beams = 3"));
    }
}
