//! Default encoders for values whose config names none: a pretrained one if it has been fetched, else one trained from
//! scratch.

use crate::{
    locate,
    text::{TfidfConfig, read_normalized_text},
    vector::VectorProcessor,
};
use mm_core::{Error, Modality, Proposal, Registry, Result, Source};
use mm_data::decode_audio_source;
use std::path::Path;

/// Pretrained text models; the first that has been fetched is used.
const TEXT_MODELS: &[&str] = &[
    "all-MiniLM-L6-v2",
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/all-mpnet-base-v2",
    "BAAI/bge-small-en-v1.5",
    "intfloat/multilingual-e5-small",
];
const IMAGE_MODELS: &[&str] = &[
    "efficientnet-lite0",
    "facebook/dinov2-small",
    "openai/clip-vit-base-patch32",
    "microsoft/resnet-50",
    "google/vit-base-patch16-224",
];
const AUDIO_MODELS: &[&str] = &["laion/clap-htsat-unfused", "MIT/ast-finetuned-audioset-10-10-0.4593"];

/// Frames of a video that are encoded by default.
const NUM_FRAMES: i64 = 6;

/// Registers the default encoders of text, images, audio, video and vectors.
pub(crate) fn register(registry: &mut Registry) {
    registry.register_proposer("text", |values| Ok(pretrained_or(TEXT_MODELS, &Modality::TEXT, tfidf(values))));
    registry.register_proposer("image", |_| Ok(pretrained_or(IMAGE_MODELS, &Modality::IMAGE, cnn())));
    registry.register_proposer("audio", |values| Ok(pretrained_or(AUDIO_MODELS, &Modality::AUDIO, audio_cnn(values)?)));
    registry.register_proposer("video", |_| {
        let image = pretrained_or(IMAGE_MODELS, &Modality::IMAGE, cnn()).swap_remove(0);
        let mut encoder = toml::Table::new();
        encoder.insert("kind".into(), "frames".into());
        encoder.insert("num_frames".into(), NUM_FRAMES.into());
        encoder.insert("encoder".into(), image.encoder);
        let description = format!("{NUM_FRAMES} frames, each encoded by {}", image.description);
        Ok(vec![Proposal { encoder: encoder.into(), standardize: image.standardize, description }])
    });
    registry.register_proposer("vector", vector);
}

/// A fetched pretrained encoder and the one trained from scratch; or the latter alone, with a hint how to fetch a
/// pretrained one.
fn pretrained_or(names: &[&str], modality: &Modality, mut from_scratch: Proposal) -> Vec<Proposal> {
    if let Some(pretrained) = pretrained(names, modality) {
        return vec![pretrained, from_scratch];
    }
    from_scratch.description += &format!("; a pretrained one needs fewer rows: mm models pull {}", names[0]);
    vec![from_scratch]
}

fn pretrained(names: &[&str], modality: &Modality) -> Option<Proposal> {
    let name = names.iter().find(|n| locate(Path::new(n), Path::new("/nonexistent")).is_dir())?;
    let mut encoder = toml::Table::from_iter([
        ("kind".to_owned(), toml::Value::from("pretrained")),
        ("path".to_owned(), toml::Value::from(*name)),
        ("modality".to_owned(), toml::Value::from(modality.name())),
    ]);
    if *modality == Modality::IMAGE {
        // Drawings and logos, of which the color behind transparent pixels is arbitrary, are as common as photographs.
        encoder.insert("transparency".into(), "blend".into());
    }
    Some(Proposal { encoder: encoder.into(), standardize: true, description: format!("{name}, pretrained, frozen") })
}

fn tfidf(values: &[&Source]) -> Proposal {
    let texts: Vec<_> = values.iter().filter_map(|v| read_normalized_text(v).ok()).collect();
    // Batches are dense, which limits the number of terms; few rows do not support many.
    let max_terms = (texts.len() * 4).clamp(300, 3000);
    let mut config = TfidfConfig::fit(texts.iter().map(AsRef::as_ref), max_terms);
    if config.terms.is_empty() {
        // Texts that have no term in common: a placeholder keeps the encoder valid.
        config = TfidfConfig { terms: vec!["\u{fffd}".into()], idf: vec![1.0] };
    }
    let description = format!("TF-IDF of {} words and character trigrams, fitted from scratch", config.terms.len());
    let mut encoder = toml::Value::try_from(config).unwrap_or_else(|_| toml::Table::new().into());
    if let Some(table) = encoder.as_table_mut() {
        table.insert("kind".into(), "tfidf".into());
    }
    Proposal { encoder, standardize: false, description }
}

fn cnn() -> Proposal {
    Proposal {
        encoder: toml::Table::from_iter([("kind".to_owned(), toml::Value::from("cnn"))]).into(),
        standardize: false,
        description: "a small convolutional network, trained from scratch".into(),
    }
}

/// The duration that nine tenths of the recordings do not exceed, between 0.5 and 10 seconds; measured on about 24 of
/// them.
fn typical_seconds(values: &[&Source]) -> f64 {
    let step = (values.len() / 24).max(1);
    let mut seconds: Vec<f64> = values
        .iter()
        .step_by(step)
        .filter_map(|v| decode_audio_source(v, None).ok())
        .map(|audio| audio.seconds())
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() * 9 / 10).or(seconds.last()).copied().unwrap_or(3.0).clamp(0.5, 10.0)
}

fn audio_cnn(values: &[&Source]) -> Result<Proposal> {
    let seconds = typical_seconds(values);
    let text = format!(
        "kind = \"audio_cnn\"\n[processor]\nmax_seconds = {seconds:.2}\nnormalize = false\n\
         mel = {{ sample_rate = 16000, n_fft = 512, win_length = 400, hop_length = 256, n_mels = 48, f_min = 60.0, f_max = 7600.0, \
         mel_scale = \"htk\", window = \"hann\", pad_mode = \"reflect\", log = {{ natural = {{ floor = 1e-6 }} }} }}\n\
         spec_augment = {{ num_freq_masks = 1, freq_mask_width = 6, num_time_masks = 1, time_mask_width = 12, max_time_stretch = 0.1, \
         max_pitch_shift = 2, noise_std = 0.1 }}\n\
         [network]\nchannels = [96, 128, 160, 192]\nkernel_size = 5\ndownsample_layers = 3\ndropout = 0.2\n"
    );
    let encoder = text.parse::<toml::Table>().map_err(|e| Error::Sample(e.to_string()))?.into();
    let description = format!("a convolutional network on spectrograms of {seconds:.1} s, trained from scratch");
    Ok(Proposal { encoder, standardize: false, description })
}

fn vector(values: &[&Source]) -> Result<Vec<Proposal>> {
    let dim = values.iter().find_map(|v| VectorProcessor::dim_of(v));
    let dim = dim.ok_or_else(|| Error::Sample("no list of numbers among the training values".into()))?;
    let encoder = toml::Table::from_iter([
        ("kind".to_owned(), toml::Value::from("vector")),
        ("dim".to_owned(), toml::Value::from(dim as i64)),
    ]);
    Ok(vec![Proposal { encoder: encoder.into(), standardize: true, description: format!("{dim} numbers, unchanged") }])
}
