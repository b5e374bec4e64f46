//! Configs of tasks (TOML). They are parsed and checked; nothing is built.

use crate::bytes::{folder, write};
use mm_core::config;
use mm_tasks::{
    captioning::CaptioningConfig,
    config::{TaskConfig, parse_task, to_value},
    finetuning::FinetuningConfig,
    prediction::PredictionConfig,
    representation::RepresentationConfig,
    retrieval::RetrievalConfig,
};

/// Reads a config as the task that it names. One that is accepted is written and read back the same.
pub fn read(input: &[u8]) {
    let folder = folder();
    let Ok(value) = config::read(&write(folder.path(), "config.toml", input), &["train.seed=7".to_owned()]) else {
        return;
    };
    let tasks = mm_tasks::tasks();
    let Ok(spec) = tasks.of_config(&value) else { return };
    let accepted = (spec.parse)(&value).is_ok();
    let rewritten = match spec.name {
        RetrievalConfig::TASK => rewrite::<RetrievalConfig>(&value),
        PredictionConfig::TASK => rewrite::<PredictionConfig>(&value),
        CaptioningConfig::TASK => rewrite::<CaptioningConfig>(&value),
        FinetuningConfig::TASK => rewrite::<FinetuningConfig>(&value),
        RepresentationConfig::TASK => rewrite::<RepresentationConfig>(&value),
        _ => return,
    };
    assert!(!accepted || rewritten, "parsed by the task but not as its config");
}

/// Whether the config is accepted.
fn rewrite<C: TaskConfig>(value: &toml::Value) -> bool {
    let Ok(config) = parse_task::<C>(value) else { return false };
    let written = to_value(&config).expect("an accepted config can be written");
    let text = toml::to_string(&written).expect("an accepted config can be written as text");
    let again: toml::Value = toml::from_str(&text).expect("a written config is TOML");
    let again = parse_task::<C>(&again).expect("a written config is accepted");
    // Compared as values: the order of keys may change.
    assert_eq!(to_value(&again).expect("an accepted config can be written"), written);
    true
}
