//! The retrieval model: a tower for each modality, and the losses between them.

use super::{
    auxiliary::TowerOutput,
    build::{build_cross_attention, build_towers, build_transcript_ngram, check_soft_targets},
    chunks::check_mini_batch,
    config::{RetrievalConfig, TowerConfig},
    cross_attention::CrossAttention,
    projection::Projection,
    transcript_ngram::TranscriptNgram,
};
use crate::{
    Error, ProgressFn, Result, TaskContext,
    batch::BATCH_SIZE,
    inputs::{InputBranch, Resources, prepare_inputs},
};
use mm_align::{ContrastiveLoss, memory};
use mm_core::{
    Checkpoint, Device, Features, Init, Input, Modality, Module, Params, Processor, Registry, Tensor,
    distributed::randn_rows, no_grad, seed::manual_seed,
};
use mm_data::{Manifest, TensorCache, collate};
use mm_train::Run;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

/// The file of a run folder with the embeddings of `[memory]`.
pub(super) const MEMORY_FILE: &str = "memory.safetensors";

/// The tower of one modality.
pub(super) struct Tower {
    pub(super) input: InputBranch,
    pub(super) projection: Projection,
    pub(super) config: TowerConfig,
}

/// Cross-modal retrieval with one tower per modality.
///
/// Two-tower models: *`DeViSE`: A Deep Visual-Semantic Embedding Model* (Frome et al., 2013); *Learning Transferable
/// Visual Models From Natural Language Supervision* (Radford et al., 2021, <https://arxiv.org/abs/2103.00020>).
pub struct Retrieval {
    pub(super) params: Params,
    pub(super) towers: BTreeMap<Modality, Tower>,
    /// The contrastive loss of each pair of modalities, and its weight.
    pub(super) losses: BTreeMap<(Modality, Modality), (ContrastiveLoss, f64)>,
    pub(super) transcript_ngram: Option<TranscriptNgram>,
    pub(super) cross_attention: Option<CrossAttention>,
    /// Number of training steps so far, for `[robust]`; saved with the weights, so that a resumed run continues
    /// identically.
    pub(super) steps: Option<Tensor>,
    /// Stored embeddings of `[memory]`, `[entries, embed_dim]`; only in a loaded run.
    memory: Option<Tensor>,
    pub(super) config: RetrievalConfig,
    pub(super) base_dir: PathBuf,
    pub(super) cache: TensorCache,
    /// The run folder that it was loaded from.
    pub(super) run: Option<PathBuf>,
    /// Whether what is made for a search is written into the run folder.
    pub(super) keeps_index: bool,
}

impl Retrieval {
    /// Builds an untrained model; its weights are a function of the seed. Relative paths are resolved against
    /// `base_dir` unless the config has its own.
    ///
    /// # Errors
    /// When an encoder cannot be built or does not fit the settings that refer to it.
    pub fn new(config: RetrievalConfig, base_dir: &Path, encoders: &Registry, device: Device) -> Result<Self> {
        let base_dir = config.common.base_dir_or(base_dir);
        manual_seed(config.common.train.seed);
        let params = Params::new(device);
        let root = params.scope();
        let towers = build_towers(&config, &base_dir, encoders, &root)?;
        let mut losses = BTreeMap::new();
        for (a, b) in config.pairs() {
            let key = format!("{a}-{b}");
            let weight = config.pair_weights.get(&key).copied().unwrap_or(1.0);
            let loss = ContrastiveLoss::new(&root.pp("losses").pp(&key), &config.loss)?;
            losses.insert((Modality::from(a), Modality::from(b)), (loss, weight));
        }
        check_soft_targets(&config, &towers)?;
        check_mini_batch(&config, &towers, &params)?;
        let steps =
            config.robust.is_some().then(|| root.pp("robust").buffer("steps", &[1], Init::Zeros)).transpose()?;
        let transcript_ngram = build_transcript_ngram(&config, &towers, &root)?;
        let cross_attention = build_cross_attention(&config, &towers, &root)?;
        let cache = TensorCache::open_or_default(&base_dir, config.common.cache_dir.as_deref())?;
        Ok(Self {
            params,
            towers,
            losses,
            transcript_ngram,
            cross_attention,
            steps,
            memory: None,
            config,
            base_dir,
            cache,
            run: None,
            keeps_index: true,
        })
    }

    /// Loads the model of a run folder with its best weights.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let mut model = Self::new(context.run_config(run)?, run, context.encoders, context.device)?;
        Run::load_weights(run, &model.params)?;
        let memory = run.join(MEMORY_FILE);
        // A run that is still training has none yet.
        if model.config.memory.is_some() && memory.exists() {
            model.memory = Some(Checkpoint::open(&memory)?.get("vectors")?.to_device(context.device)?);
        }
        model.run = Some(run.to_owned());
        Ok(model)
    }

    /// The same model, which writes nothing into its run folder: that is a copy of another one.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { keeps_index: false, ..self }
    }

    /// This model before training.
    pub fn untrained(&self, context: &TaskContext<'_>) -> Result<Self> {
        Self::new(self.config.clone(), &self.base_dir, context.encoders, context.device)
    }

    /// The configuration.
    pub fn config(&self) -> &RetrievalConfig {
        &self.config
    }

    /// The data set, without values of other modalities and languages.
    pub fn dataset(&self) -> Result<Manifest> {
        let mut manifest = Manifest::open(&self.config.common.data, &self.base_dir)?;
        for row in &mut manifest.rows {
            row.values.retain(|modality, _| self.towers.contains_key(modality));
            for (modality, tower) in &self.towers {
                row.retain_languages(modality, &tower.config.languages);
            }
            row.values.retain(|_, values| !values.is_empty());
        }
        if let Some(missing) = self.towers.keys().find(|m| !manifest.rows.iter().any(|r| r.values.contains_key(m))) {
            let found = format!("no row with {missing} in {}", manifest.path.display());
            return Err(Error::invalid(format!("towers.{missing}"), found, "at least one"));
        }
        Ok(manifest)
    }

    pub(super) fn tower(&self, modality: &Modality) -> mm_core::Result<&Tower> {
        let known = self.towers.keys().map(Modality::name);
        self.towers.get(modality).ok_or_else(|| mm_core::Error::unknown("modality of this run", modality.name(), known))
    }

    /// The processors of all towers for the values of a data set; encodes what frozen encoders have not seen yet.
    pub(super) fn prepare(
        &self,
        manifest: &Manifest,
        stop: &AtomicBool,
        on_progress: ProgressFn<'_>,
    ) -> Result<BTreeMap<Modality, Arc<dyn Processor>>> {
        let resources = Resources { cache: &self.cache, device: self.params.device(), stop };
        prepare_inputs(self.towers.iter().map(|(m, t)| (m, &t.input)), manifest, &resources, on_progress)
    }

    /// Whether cross attention uses the positions of a modality.
    fn attends(&self, modality: &Modality) -> bool {
        self.cross_attention.as_ref().is_some_and(|a| a.modalities().contains(&modality))
    }

    /// The features of one modality of a batch.
    pub(super) fn encode(&self, modality: &Modality, input: &Input, train: bool) -> mm_core::Result<TowerOutput> {
        let tower = self.tower(modality)?;
        let input = input.to_device(self.params.device())?;
        if !self.attends(modality) {
            let frozen = tower.input.frozen;
            let embeddings = if frozen { input.values } else { tower.input.encoder()?.embed(&input, train)? };
            return Ok(TowerOutput { embeddings, positions: None });
        }
        if !tower.input.frozen {
            let (positions, embeddings) = tower.input.encoder()?.encode_and_embed(&input, train)?;
            return Ok(TowerOutput { embeddings, positions: Some(positions) });
        }
        // Cached features: the vector, then the positions.
        let rest = |t: &Tensor| t.narrow(1, 1, t.size(1)? - 1);
        let positions = Features::new(rest(&input.values)?, input.mask.as_ref().map(rest).transpose()?)?;
        Ok(TowerOutput { embeddings: input.values.select(1, 0)?, positions: Some(positions) })
    }

    /// The noise of `rows` embeddings of an encoder in training, `[rows, dim]`, where the tower has some; sampled for the
    /// rows of all processes.
    pub(super) fn noise(&self, modality: &Modality, rows: i64) -> mm_core::Result<Option<Tensor>> {
        let tower = self.tower(modality)?;
        if tower.config.noise_std.get() == 0.0 {
            return Ok(None);
        }
        randn_rows(&[rows, tower.input.encoder()?.embedding_dim()], self.params.device()).map(Some)
    }

    /// An encoder's embeddings in the shared space, in training with [`Retrieval::noise`]: `[rows, dim]` →
    /// `[rows, embed_dim]` of unit norm.
    pub(super) fn project(
        &self,
        modality: &Modality,
        embeddings: Tensor,
        noise: Option<&Tensor>,
        train: bool,
    ) -> mm_core::Result<Tensor> {
        let tower = self.tower(modality)?;
        let mut x = embeddings;
        if let Some(noise) = noise {
            let dim = x.size(-1)? as f64;
            let scale = x.norm(-1, true)?.mul_scalar(tower.config.noise_std.get() / dim.sqrt())?;
            x = x.add(&noise.mul(&scale)?)?;
        }
        tower.projection.forward(&x, train)
    }

    /// One modality of a batch in the shared space, interpolated with `[memory]`: `[rows, embed_dim]`.
    pub(super) fn embed_input(&self, modality: &Modality, input: &Input) -> Result<Tensor> {
        no_grad(|| {
            let embeddings = self.encode(modality, input, false)?.embeddings;
            self.interpolate(modality, self.project(modality, embeddings, None, false)?)
        })
    }

    /// Samples in the shared space, interpolated with `[memory]`: `[samples, embed_dim]`.
    pub(super) fn embed_batches(&self, modality: &Modality, samples: &[Tensor]) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        let embed = |samples: &[Tensor]| -> Result<Tensor> {
            let input = collate(samples, tower.input.processor.as_ref())?.to_device(self.params.device())?;
            no_grad(|| {
                let embeddings = tower.input.encoder()?.embed(&input, false)?;
                self.interpolate(modality, self.project(modality, embeddings, None, false)?)
            })
        };
        let batches = samples.chunks(BATCH_SIZE).map(embed).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&batches.iter().collect::<Vec<_>>(), 0)?)
    }

    fn interpolate(&self, modality: &Modality, x: Tensor) -> Result<Tensor> {
        match (&self.config.memory, &self.memory) {
            (Some(config), Some(stored)) if config.apply_to.iter().any(|m| m == modality.name()) => {
                Ok(memory::interpolate(&x, stored, config.weight, config.temperature)?)
            }
            _ => Ok(x),
        }
    }
}
