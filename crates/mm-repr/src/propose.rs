//! Which encoder for values that nobody chose one for: a pretrained one that lies in the cache, else one that learns from nothing.

use crate::{
    locate,
    text::{TfidfConfig, read},
};
use mm_core::{Error, Modality, Proposal, Registry, Result, Source};
use mm_data::decode::decode_audio;
use std::path::Path;

/// Pretrained models for each modality, the first that is there being taken.
const TEXTS: &[&str] = &[
    "all-MiniLM-L6-v2",
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/all-mpnet-base-v2",
    "BAAI/bge-small-en-v1.5",
    "intfloat/multilingual-e5-small",
];
const PICTURES: &[&str] = &[
    "efficientnet-lite0",
    "facebook/dinov2-small",
    "openai/clip-vit-base-patch32",
    "microsoft/resnet-50",
    "google/vit-base-patch16-224",
];
const SOUNDS: &[&str] = &["laion/clap-htsat-unfused", "MIT/ast-finetuned-audioset-10-10-0.4593"];

/// Tells a registry how text, pictures, sounds, videos and lists of numbers are read where a config names no encoder.
pub(crate) fn register(registry: &mut Registry) {
    registry.register_proposer("text", |values| Ok(either(TEXTS, &Modality::TEXT, bag(values))));
    registry.register_proposer("image", |_| Ok(either(PICTURES, &Modality::IMAGE, picture())));
    registry.register_proposer("audio", |values| Ok(either(SOUNDS, &Modality::AUDIO, speech(values)?)));
    registry.register_proposer("video", |_| {
        let inner = either(PICTURES, &Modality::IMAGE, picture()).swap_remove(0);
        let mut encoder = toml::Table::new();
        encoder.insert("kind".into(), "frames".into());
        encoder.insert("num_frames".into(), 6.into());
        encoder.insert("encoder".into(), inner.encoder);
        let about = format!("6 frames, each through {}", inner.description);
        Ok(vec![Proposal { encoder: encoder.into(), standardize: inner.standardize, description: about }])
    });
    registry.register_proposer("vector", vector);
}

/// A pretrained encoder, where one lies in the cache, before one that learns from nothing; else this, and word of how to get a pretrained one.
fn either(names: &[&str], modality: &Modality, mut fresh: Proposal) -> Vec<Proposal> {
    if let Some(known) = pretrained(names, modality) {
        return vec![known, fresh];
    }
    fresh.description += &format!("; a pretrained one needs fewer rows: cargo xtask models pull {}", names[0]);
    vec![fresh]
}

fn pretrained(names: &[&str], modality: &Modality) -> Option<Proposal> {
    let name = names.iter().find(|n| locate(Path::new(n), Path::new("/nonexistent")).is_dir())?;
    let encoder = toml::Table::from_iter([
        ("kind".to_owned(), toml::Value::from("pretrained")),
        ("path".to_owned(), toml::Value::from(*name)),
        ("modality".to_owned(), toml::Value::from(modality.name())),
    ]);
    Some(Proposal { encoder: encoder.into(), standardize: true, description: format!("{name}, pretrained, frozen") })
}

fn bag(values: &[&Source]) -> Proposal {
    let texts: Vec<_> = values.iter().filter_map(|v| read(v).ok()).collect();
    // Vectors of all rows of a batch are dense: many rows allow many terms, few rows carry few.
    let most = (texts.len() * 4).clamp(300, 3000);
    let mut config = TfidfConfig::fit(texts.iter().map(AsRef::as_ref), most);
    if config.terms.is_empty() {
        // Texts that have nothing in common still are texts; nothing can be learned from them.
        config = TfidfConfig { terms: vec!["\u{fffd}".into()], idf: vec![1.0] };
    }
    let about = format!("{} words and pieces of words (tf-idf), from nothing", config.terms.len());
    let mut encoder = toml::Value::try_from(config).unwrap_or_else(|_| toml::Table::new().into());
    if let Some(table) = encoder.as_table_mut() {
        table.insert("kind".into(), "tfidf".into());
    }
    Proposal { encoder, standardize: false, description: about }
}

fn picture() -> Proposal {
    Proposal {
        encoder: toml::Table::from_iter([("kind".to_owned(), toml::Value::from("cnn"))]).into(),
        standardize: false,
        description: "a small convolutional network, from nothing".into(),
    }
}

/// A spectrogram long enough for nine tenths of the sounds, at most ten seconds.
fn speech(values: &[&Source]) -> Result<Proposal> {
    let step = (values.len() / 24).max(1);
    let mut lengths: Vec<f64> = values
        .iter()
        .step_by(step)
        .filter_map(|v| if let Source::Path(path) = v { decode_audio(path, None).ok() } else { None })
        .map(|a| a.seconds())
        .collect();
    lengths.sort_by(f64::total_cmp);
    let seconds = lengths.get(lengths.len() * 9 / 10).or(lengths.last()).copied().unwrap_or(3.0).clamp(0.5, 10.0);
    let text = format!(
        "kind = \"audio_cnn\"\n[processor]\nmax_seconds = {seconds:.2}\nnormalize = false\n\
         mel = {{ sample_rate = 16000, n_fft = 512, win_length = 400, hop_length = 256, n_mels = 48, f_min = 60.0, f_max = 7600.0, mel_scale = \"htk\", window = \"hann\", pad_mode = \"reflect\", log = {{ natural = {{ floor = 1e-6 }} }} }}\n\
         spec_augment = {{ num_freq_masks = 1, freq_mask_width = 6, num_time_masks = 1, time_mask_width = 12, max_time_stretch = 0.1, max_pitch_shift = 2, noise_std = 0.1 }}\n\
         [network]\nchannels = [96, 128, 160, 192]\nkernel_size = 5\ndownsample_layers = 3\ndropout = 0.2\n"
    );
    let encoder = text.parse::<toml::Table>().map_err(|e| Error::Sample(e.to_string()))?.into();
    let about = format!("convolutions on a spectrogram of {seconds:.1} s, from nothing");
    Ok(Proposal { encoder, standardize: false, description: about })
}

fn vector(values: &[&Source]) -> Result<Vec<Proposal>> {
    let width = values.iter().find_map(|v| crate::vector::VectorProcessor::width_of(v));
    let width = width.ok_or_else(|| Error::Sample("no list of numbers among the training values".into()))?;
    let encoder = toml::Table::from_iter([
        ("kind".to_owned(), toml::Value::from("vector")),
        ("dim".to_owned(), toml::Value::from(width as i64)),
    ]);
    Ok(vec![Proposal {
        encoder: encoder.into(),
        standardize: true,
        description: format!("{width} numbers as they are"),
    }])
}
