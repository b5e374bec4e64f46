//! Prompts of sentence-transformers folders: texts with names, one of which is put in front of each text.

use crate::{Result, json::read_json};
use std::{collections::BTreeMap, path::Path};

/// The prompts of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Prompts {
    /// Name → text.
    pub(super) texts: BTreeMap<String, String>,
    /// The name of the one that is used where none is asked for.
    default_name: Option<String>,
}

impl Prompts {
    /// Reads `config_sentence_transformers.json`; a folder without it has none. An older layout has the transformer in a
    /// folder below that file.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        const FILE: &str = "config_sentence_transformers.json";
        let above = folder.parent().filter(|above| !folder.join(FILE).exists() && above.join("modules.json").exists());
        let config = read_json(&above.unwrap_or(folder).join(FILE))?;
        let texts = config["prompts"].as_object().into_iter().flatten();
        Ok(Self {
            texts: texts.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect(),
            default_name: config["default_prompt_name"].as_str().map(ToOwned::to_owned),
        })
    }

    /// The text of the default prompt; empty if there is none.
    pub(super) fn default_text(&self) -> &str {
        self.default_name.as_ref().and_then(|name| self.texts.get(name)).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_read_from_the_folder_or_from_that_of_an_older_layout() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("0_Transformer");
        std::fs::create_dir(&below).unwrap();
        assert_eq!(Prompts::read(&below).unwrap(), Prompts::default());
        let config = r#"{"prompts": {"query": "find: ", "document": ""}, "default_prompt_name": "query"}"#;
        std::fs::write(folder.path().join("config_sentence_transformers.json"), config).unwrap();
        // The folder above is that of a model only where its modules.json says so.
        assert_eq!(Prompts::read(&below).unwrap(), Prompts::default());
        std::fs::write(folder.path().join("modules.json"), "[]").unwrap();
        for folder in [folder.path(), &below] {
            let prompts = Prompts::read(folder).unwrap();
            assert_eq!((prompts.default_text(), prompts.texts.len()), ("find: ", 2));
        }
    }
}
