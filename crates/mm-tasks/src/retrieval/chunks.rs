//! Gradient caching: the rows of a batch are embedded `mini_batch_size` at a time, the loss is that of all.

use super::{
    auxiliary::{EncodedBatch, TowerOutput},
    config::RetrievalConfig,
    model::{Retrieval, Tower},
    objective::Embeddings,
};
use crate::{Error, Result};
use mm_core::{ChunkedLoss, Input, LossOutput, Modality, Params, Role, Tensor};
use mm_data::Batch;
use std::collections::BTreeMap;

/// Rows of one modality of a batch.
struct Chunk<'b> {
    modality: &'b Modality,
    first: i64,
    rows: i64,
}

/// A batch in chunks, each of rows of one modality.
pub(super) struct ChunkedBatch<'b> {
    model: &'b Retrieval,
    batch: &'b Batch,
    chunks: Vec<Chunk<'b>>,
    /// The noise of all rows of a modality, as of a batch that is embedded at once.
    noise: BTreeMap<&'b Modality, Tensor>,
}

impl<'b> ChunkedBatch<'b> {
    /// The chunks of a batch; none where it is embedded at once.
    pub(super) fn new(model: &'b Retrieval, batch: &'b Batch) -> mm_core::Result<Option<Self>> {
        let Some(size) = model.config.mini_batch_size else { return Ok(None) };
        if batch.modalities.values().all(|part| part.rows.len() <= size.count()) {
            return Ok(None);
        }
        let (mut chunks, mut noise) = (Vec::new(), BTreeMap::new());
        for (modality, part) in &batch.modalities {
            let all = part.rows.len() as i64;
            let firsts = (0..all).step_by(size.count());
            chunks.extend(firsts.map(|first| Chunk { modality, first, rows: size.dim().min(all - first) }));
            if let Some(sampled) = model.noise(modality, all)? {
                noise.insert(modality, sampled);
            }
        }
        Ok(Some(Self { model, batch, chunks, noise }))
    }

    /// The rows of a modality from the tensors of its chunks, of which each has several.
    fn joined(&self, modality: &Modality, embeddings: &[Vec<Tensor>], index: usize) -> mm_core::Result<Tensor> {
        let own = self.chunks.iter().zip(embeddings).filter(|(chunk, _)| chunk.modality == modality);
        Tensor::cat(own.filter_map(|(_, tensors)| tensors.get(index)), 0)
    }
}

impl ChunkedLoss for ChunkedBatch<'_> {
    fn num_chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The embeddings in the shared space and, where a loss needs them, those of the encoder.
    fn embed(&self, chunk: usize) -> mm_core::Result<Vec<Tensor>> {
        let Chunk { modality, first, rows } = self.chunks[chunk];
        let select = |all: &Tensor| all.narrow(0, first, rows);
        let input = &self.batch.modalities[modality].input;
        let input = Input { values: select(&input.values)?, mask: input.mask.as_ref().map(select).transpose()? };
        let noise = self.noise.get(modality).map(select).transpose()?;
        let features = self.model.encode(modality, &input, true)?.embeddings;
        let embeddings = self.model.project(modality, features.clone(), noise.as_ref(), true)?;
        Ok(if self.model.needs_features() { vec![embeddings, features] } else { vec![embeddings] })
    }

    fn loss(&self, embeddings: &[Vec<Tensor>]) -> mm_core::Result<Option<LossOutput>> {
        let mut encoded = EncodedBatch { batch: self.batch, features: BTreeMap::new() };
        let mut joined = Embeddings::new();
        for modality in self.batch.modalities.keys() {
            joined.insert(modality, self.joined(modality, embeddings, 0)?);
            if self.model.needs_features() {
                let embeddings = self.joined(modality, embeddings, 1)?;
                encoded.features.insert(modality, TowerOutput { embeddings, positions: None });
            }
        }
        self.model.loss_of_all_rows(encoded, joined, true)
    }
}

/// Refuses `mini_batch_size` where an encoder normalizes by the statistics of the rows that it gets at once.
pub(super) fn check_mini_batch(
    config: &RetrievalConfig,
    towers: &BTreeMap<Modality, Tower>,
    params: &Params,
) -> Result<()> {
    if config.mini_batch_size.is_none() {
        return Ok(());
    }
    let names = params.named(&[Role::Trainable, Role::Frozen, Role::Buffer]);
    let normalizes_batches = |modality: &Modality| {
        let prefix = format!("towers.{modality}.encoder.");
        names.iter().any(|(name, _)| name.starts_with(&prefix) && name.ends_with(".running_mean"))
    };
    match towers.iter().find(|(modality, tower)| !tower.input.frozen && normalizes_batches(modality)) {
        None => Ok(()),
        Some((modality, _)) => {
            let found = format!("an encoder of {modality} with batch normalization, which is trained");
            let expected = "encoders whose embedding of a row does not depend on the other rows";
            Err(Error::invalid("mini_batch_size", found, expected).with_hint(format!(
                "leave mini_batch_size out, or name an encoder with layer normalization or a frozen one in \
                 towers.{modality}.encoder (kind = \"pretrained\")"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_task;
    use mm_core::{Device, Registry, Source, TrainingObjective, no_grad, seed::manual_seed};
    use mm_data::{
        Dataset, InMemoryDataset, Loader, LoaderConfig,
        decode::{Audio, write_wav},
    };
    use std::{path::Path, sync::Arc};

    const CONFIG: &str = r#"
task = "retrieval"
embed_dim = 4
mini_batch_size = 2
cache_dir = "cache"
[data]
manifest = "rows.jsonl"
[towers.text]
encoder = { kind = "lstm", embedding_dim = 6, hidden_dim = 5, vocabulary = ["red", "green", "blue"] }
noise_std = 0.5
[towers.vector]
encoder = { kind = "vector", dim = 3 }
"#;

    /// Speech, of which some has a transcript.
    const SPEECH_CONFIG: &str = r#"
task = "retrieval"
embed_dim = 4
mini_batch_size = 2
cache_dir = "cache"
[data]
manifest = "rows.jsonl"
[data.columns.modalities]
text = "text"
audio = "audio"
[towers.text]
encoder = { kind = "lstm", embedding_dim = 6, hidden_dim = 5, vocabulary = ["red", "green", "blue"] }
[towers.audio]
encoder = { kind = "pretrained", path = "SPEECH_MODEL", trainable_layers = 1 }
[transcript_ngram]
modality = "audio"
ngrams = { min_n = 1, max_n = 3, bucket = 64 }
"#;
    const SPEECH_MODEL: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../mm-repr/tests/fixtures/families/wav2vec2-layer-stable");

    fn model(config: &str, folder: &Path) -> Retrieval {
        let mut encoders = Registry::new();
        mm_repr::register(&mut encoders);
        let config = parse_task(&toml::from_str(config).unwrap()).unwrap();
        Retrieval::new(config, folder, &encoders, Device::Cpu).unwrap()
    }

    /// Five rows, of which one has no text and another no vector.
    fn batch(model: &Retrieval) -> Batch {
        let mut dataset = InMemoryDataset::new();
        for row in 0..5 {
            let text = Source::Text(["red", "green red", "blue"][row % 3].into());
            let vector = Source::Value(serde_json::json!([row, 1.0, 0.5]));
            let values = [(Modality::TEXT, text), (Modality::from("vector"), vector)];
            let missing = [2, 3].iter().position(|r| *r == row);
            let values = values.into_iter().enumerate().filter(|(n, _)| Some(*n) != missing);
            dataset.push(row.to_string(), values.map(|(_, value)| value));
        }
        load(model, Arc::new(dataset))
    }

    /// All rows in one batch.
    fn load(model: &Retrieval, dataset: Arc<dyn Dataset>) -> Batch {
        let processors = model.towers.iter().map(|(m, tower)| (m.clone(), tower.input.processor.clone())).collect();
        let config = LoaderConfig { batch_size: 5, ..LoaderConfig::default() };
        let loader = Loader::builder(dataset).processors(processors).config(config).build().unwrap();
        loader.epoch(0, 0).next().unwrap().unwrap()
    }

    /// Five rows: the fourth has no speech, and the third a text in another language than its speech.
    fn write_speech(folder: &Path) {
        let texts = [("red", "en"), ("green red", "en"), ("blue", "fr"), ("green", "en"), ("blue red", "en")];
        let mut rows = String::new();
        for (row, (text, language)) in texts.into_iter().enumerate() {
            let samples = (0..4000 + 800 * row).map(|i| (i as f32 * (0.05 + 0.03 * row as f32)).sin() * 0.4).collect();
            write_wav(&folder.join(format!("{row}.wav")), &Audio { samples, sample_rate: 16_000 }).unwrap();
            let speech = serde_json::json!({"file": format!("{row}.wav"), "language": "en"});
            let speech = if row == 3 { serde_json::Value::Null } else { speech };
            let text = serde_json::json!({"text": text, "language": language});
            rows += &format!("{}\n", serde_json::json!({"id": row.to_string(), "text": text, "audio": speech}));
        }
        std::fs::write(folder.join("rows.jsonl"), rows).unwrap();
    }

    /// The gradients of all parameters by name, which are then zero.
    fn take_gradients(model: &Retrieval) -> BTreeMap<String, Vec<f64>> {
        let trained = model.params.named(&[Role::Trainable]);
        let values = |(name, tensor): &(String, Tensor)| Some((name.clone(), tensor.grad()?.to_vec().unwrap()));
        let found = trained.iter().filter_map(values).collect();
        trained.iter().for_each(|(_, tensor)| tensor.zero_grad());
        found
    }

    /// The largest difference of gradients whose names begin so.
    fn largest_difference(a: &BTreeMap<String, Vec<f64>>, b: &BTreeMap<String, Vec<f64>>, prefix: &str) -> f64 {
        let differences =
            |(name, a): (&String, &Vec<f64>)| a.iter().zip(&b[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        a.iter().filter(|(name, _)| name.starts_with(prefix)).map(differences).fold(0.0, f64::max)
    }

    #[test]
    fn a_chunk_has_the_same_embeddings_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let model = model(CONFIG, folder.path());
        let batch = batch(&model);
        let chunks = model.chunks(&batch).unwrap().unwrap();
        assert_eq!(chunks.num_chunks(), 4);
        let embed = |chunk: usize, seed: u64| -> Tensor {
            manual_seed(seed);
            chunks.embed(chunk).unwrap().remove(0)
        };
        let difference = |a: &Tensor, b: &Tensor| a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        let mut rows = Vec::new();
        for chunk in 0..chunks.num_chunks() {
            let (first, second) = (no_grad(|| embed(chunk, 3)), embed(chunk, 3));
            assert!(second.requires_grad() && difference(&first, &second) < 1e-5);
            assert!(difference(&first, &embed(chunk, 4)) > 0.01, "it has dropout");
            rows.push(first.size(0).unwrap());
        }
        assert_eq!(rows, [2, 2, 2, 2]);
        let embeddings: Vec<_> = (0..4).map(|chunk| vec![embed(chunk, 3)]).collect();
        let (loss, _) = chunks.loss(&embeddings).unwrap().unwrap();
        assert!(loss.to_f64().unwrap() > 0.0);
    }

    #[test]
    fn speech_learns_its_transcripts_in_chunks_as_in_the_whole_batch() {
        let folder = tempfile::tempdir().unwrap();
        write_speech(folder.path());
        let model = model(&SPEECH_CONFIG.replace("SPEECH_MODEL", SPEECH_MODEL), folder.path());
        let transcripts = model.transcript_ngram.as_ref().unwrap();
        let manifest = model.dataset_with_all_texts(transcripts).unwrap();
        transcripts.set_transcripts(&manifest).unwrap();
        let batch = load(&model, Arc::new(manifest));
        let chunks = model.chunks(&batch).unwrap().unwrap();
        assert_eq!(chunks.num_chunks(), 5, "two of speech and three of texts");
        let embed = |chunk: usize| {
            manual_seed(chunk as u64);
            chunks.embed(chunk).unwrap()
        };
        let embed_all = || (0..chunks.num_chunks()).map(embed).collect::<Vec<_>>();
        // The heads of speech and text have dropout.
        let loss = |embeddings: &[Vec<Tensor>]| {
            manual_seed(99);
            chunks.loss(embeddings).unwrap().unwrap()
        };
        let (whole, logged) = loss(&embed_all());
        assert!(logged.iter().any(|(name, value)| name == "loss_transcript_ngram" && *value > 0.0), "{logged:?}");
        whole.backward().unwrap();
        let expected = take_gradients(&model);
        // Gradient caching, with the gradients of the first `count` tensors of each chunk.
        let cached = |count: usize| {
            let leaf = |value: &Tensor| value.detach().unwrap().set_requires_grad(true).unwrap();
            let leaves: Vec<Vec<Tensor>> = no_grad(embed_all).iter().map(|c| c.iter().map(leaf).collect()).collect();
            loss(&leaves).0.backward().unwrap();
            for (chunk, leaves) in leaves.iter().enumerate() {
                let again = embed(chunk);
                let product =
                    |(value, leaf): (&Tensor, &Tensor)| Some(value.mul(&leaf.grad()?).unwrap().sum().unwrap());
                let products = again.iter().zip(leaves).take(count).filter_map(product);
                products.reduce(|a, b| a.add(&b).unwrap()).unwrap().backward().unwrap();
            }
            take_gradients(&model)
        };
        let found = cached(2);
        assert!(expected.keys().eq(found.keys()));
        let difference = largest_difference(&expected, &found, "");
        assert!(difference < 1e-4, "{difference}");
        let zero: BTreeMap<_, _> = expected.iter().map(|(name, g)| (name.clone(), vec![0.0; g.len()])).collect();
        for part in ["towers.audio.encoder.", "towers.text.", "transcript_ngram.speech.", "transcript_ngram.text."] {
            let largest = largest_difference(&expected, &zero, part);
            assert!(largest > 20.0 * difference, "{part}: {largest}, {difference}");
        }
        // What the encoder of speech learns from transcripts passes through its features.
        let without = largest_difference(&expected, &cached(1), "towers.audio.encoder.");
        assert!(without > 20.0 * difference, "{without}, {difference}");
    }

    #[test]
    fn features_of_chunks_are_joined_in_the_order_of_the_rows() {
        let folder = tempfile::tempdir().unwrap();
        write_speech(folder.path());
        let model = model(&SPEECH_CONFIG.replace("SPEECH_MODEL", SPEECH_MODEL), folder.path());
        let transcripts = model.transcript_ngram.as_ref().unwrap();
        let manifest = model.dataset_with_all_texts(transcripts).unwrap();
        transcripts.set_transcripts(&manifest).unwrap();
        let batch = load(&model, Arc::new(manifest));
        let mut encoded = EncodedBatch { batch: &batch, features: BTreeMap::new() };
        let (mut embeddings, mut parts) = (Embeddings::new(), Vec::new());
        for (modality, part) in &batch.modalities {
            let features = no_grad(|| model.encode(modality, &part.input, false)).unwrap().embeddings;
            let values = no_grad(|| model.project(modality, features.clone(), None, false)).unwrap();
            let all = part.rows.len() as i64;
            for first in (0..all).step_by(2) {
                let cut = |rows: &Tensor| rows.narrow(0, first, (all - first).min(2)).unwrap();
                parts.push(vec![cut(&values), cut(&features)]);
            }
            embeddings.insert(modality, values);
            encoded.features.insert(modality, TowerOutput { embeddings: features, positions: None });
        }
        manual_seed(7);
        let (_, expected) = model.loss_of_all_rows(encoded, embeddings, true).unwrap().unwrap();
        manual_seed(7);
        let (_, found) = model.chunks(&batch).unwrap().unwrap().loss(&parts).unwrap().unwrap();
        assert_eq!(expected.len(), found.len());
        for (expected, found) in expected.iter().zip(&found) {
            assert!(expected.0 == found.0 && (expected.1 - found.1).abs() < 1e-6, "{expected:?} {found:?}");
        }
    }
}
