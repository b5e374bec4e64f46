//! Any task behind one door: what `mm train`, `mm eval`, `mm embed` and `mm report` do is the same whatever the `task` of a config.

use crate::{
    Error, Fit, Result, Told,
    captioning::{self, Captioning},
    embedding::Embedder,
    finetuning::{self, Finetuning},
    metrics::Judges,
    prediction::{self, Prediction, Predictor},
    report::{self, Report},
    representation::{self, Representation},
    retrieval::{self, Retrieval},
};
use mm_core::{Device, Modality, Params, Pooling, Processor, Registry, Source, Tensor, config};
use mm_data::{Manifest, Split};
use mm_train::{Progress, Run};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

/// The tasks that a config may name.
pub const TASKS: &[&str] = &["retrieval", "representation", "prediction", "captioning", "finetuning"];

/// A task's model.
#[allow(clippy::large_enum_variant)] // one a program
pub enum Job {
    /// Cross-modal retrieval.
    Retrieval(Retrieval),
    /// Learned representation.
    Representation(Representation),
    /// Prediction of a column.
    Prediction(Prediction),
    /// Captions.
    Captioning(Captioning),
    /// A checkpoint that learns further.
    Finetuning(Box<Finetuning>),
}

/// Figures of an evaluation: one JSON value, and a table for people.
pub struct Evaluated {
    /// For machines.
    pub json: serde_json::Value,
    /// For people, its head first.
    pub table: Vec<Vec<String>>,
}

fn task(value: &toml::Value) -> Result<&str> {
    match value.get("task").and_then(toml::Value::as_str) {
        Some(name) if TASKS.contains(&name) => Ok(name),
        Some(other) => Err(mm_core::Error::unknown("task", other, TASKS.iter().copied()).into()),
        None => Err(Error::Config(format!("the config has no `task`; wanted one of {}", TASKS.join(", ")))),
    }
}

/// Whether a config can be read at all, before anything is made.
pub fn check(value: &toml::Value) -> Result<()> {
    match task(value)? {
        "retrieval" => retrieval::parse(value).map(drop),
        "prediction" => prediction::parse(value).map(drop),
        "captioning" => captioning::parse(value).map(drop),
        "finetuning" => finetuning::parse(value).map(drop),
        _ => representation::parse(value).map(drop),
    }
}

/// Writes into a config what its training rows say (classes, vocabularies, encoders that nobody named), so that a run does not depend on
/// its manifest any more; what was found out is told in words.
pub fn resolve(value: &mut toml::Value, base: &Path, registry: &Registry, tell: &mut dyn FnMut(String)) -> Result<()> {
    match task(value)? {
        "prediction" => prediction::resolve(value, base, registry, tell),
        "representation" => representation::resolve(value, base),
        "captioning" => captioning::resolve(value, base),
        "finetuning" => finetuning::resolve(value, base),
        _ => Ok(()),
    }
}

/// Puts a config back into the value that it was read from; the task's name stays.
pub(crate) fn rewrite(value: &mut toml::Value, config: &impl serde::Serialize) -> Result<()> {
    let task = value.get("task").cloned();
    *value = toml::Value::try_from(config).map_err(|e| Error::Config(e.to_string()))?;
    if let (Some(task), Some(table)) = (task, value.as_table_mut()) {
        table.insert("task".into(), task);
    }
    Ok(())
}

impl Job {
    /// Builds the model of a config fresh; relative paths are relative to `base`.
    pub fn new(value: &toml::Value, base: &Path, registry: &Registry, device: Device) -> Result<Self> {
        Ok(match task(value)? {
            "retrieval" => Self::Retrieval(Retrieval::new(retrieval::parse(value)?, base, registry, device)?),
            "prediction" => Self::Prediction(Prediction::new(prediction::parse(value)?, base, registry, device)?),
            "captioning" => Self::Captioning(Captioning::new(captioning::parse(value)?, base, registry, device)?),
            "finetuning" => Self::Finetuning(Box::new(Finetuning::new(finetuning::parse(value)?, base, device)?)),
            _ => Self::Representation(Representation::new(representation::parse(value)?, base, registry, device)?),
        })
    }

    /// Loads the model of a run folder: its best weights.
    pub fn load(run: &Path, registry: &Registry, device: Device) -> Result<Self> {
        Ok(match task(&config::read(&run.join("config.toml"), &[])?)? {
            "retrieval" => Self::Retrieval(Retrieval::load(run, registry, device)?),
            "prediction" => Self::Prediction(Prediction::load(run, registry, device)?),
            "captioning" => Self::Captioning(Captioning::load(run, registry, device)?),
            "finetuning" => Self::Finetuning(Box::new(Finetuning::load(run, device)?)),
            _ => Self::Representation(Representation::load(run, registry, device)?),
        })
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        match self {
            Self::Retrieval(model) => model.params(),
            Self::Representation(model) => model.params(),
            Self::Prediction(model) => model.params(),
            Self::Captioning(model) => model.params(),
            Self::Finetuning(model) => model.params(),
        }
    }

    /// Its data.
    pub fn manifest(&self) -> Result<Manifest> {
        match self {
            Self::Retrieval(model) => model.manifest(),
            Self::Representation(model) => model.manifest(),
            Self::Prediction(model) => model.manifest(),
            Self::Captioning(model) => model.manifest(),
            Self::Finetuning(model) => model.manifest(),
        }
    }

    /// Trains on its data into a run folder.
    pub fn fit(
        &self,
        manifest: Manifest,
        run: &mut Run,
        progress: &mut dyn Progress,
        told: Told<'_>,
        stop: &AtomicBool,
    ) -> Result<Fit> {
        match self {
            Self::Retrieval(model) => retrieval::fit(model, manifest, run, progress, told, stop),
            Self::Representation(model) => model.fit(manifest, run, progress, told, stop),
            Self::Prediction(model) => model.fit(Arc::new(manifest), run, progress, told, stop),
            Self::Captioning(model) => model.fit(Arc::new(manifest), run, progress, told, stop),
            Self::Finetuning(model) => model.fit(manifest, run, progress, told, stop),
        }
    }

    /// Vectors `[sources, width]` of raw values.
    pub fn embed(&self, modality: &Modality, sources: &[Source]) -> Result<Tensor> {
        match self {
            Self::Retrieval(model) => model.embed(modality, sources),
            Self::Representation(model) => model.embed(modality, sources),
            _ => Err(self.no_vectors()),
        }
    }

    fn no_vectors(&self) -> Error {
        let (does, ask) = match self {
            Self::Captioning(_) => ("describes", "mm caption --model"),
            Self::Finetuning(_) => ("answers or describes", "mm answer` or `mm caption"),
            _ => ("predicts a column", "mm predict --run"),
        };
        Error::Config(format!("this run {does} and has no vectors to give; ask it with `{ask}`"))
    }

    /// Figures of one side of its data; `run` is the folder that it was loaded from. Captions are also judged by
    /// what `judges` holds.
    pub fn evaluate(
        &self,
        run: &Path,
        split: Split,
        registry: &Registry,
        judges: Judges<'_>,
        told: Told<'_>,
    ) -> Result<Evaluated> {
        let judged = judges.clip.is_some() || judges.synonyms.is_some();
        if judged && !matches!(self, Self::Captioning(_)) {
            return Err(Error::Config(
                "--clip, --wordnet: this run says no captions; wanted one of task = \"captioning\"".into(),
            ));
        }
        match self {
            Self::Retrieval(model) => {
                let manifest = Arc::new(model.manifest()?);
                let (_, evaluation) = model.evaluated(&manifest, split, told)?;
                let json = serde_json::to_value(&evaluation).map_err(|e| Error::Config(e.to_string()))?;
                Ok(Evaluated { json, table: retrieval_table(&evaluation) })
            }
            Self::Representation(model) => {
                let (figures, _) = model.evaluated(run, split, registry, told)?;
                let json = serde_json::to_value(&figures).map_err(|e| Error::Config(e.to_string()))?;
                Ok(Evaluated { json, table: figure_table(&[figures]) })
            }
            Self::Captioning(model) => {
                let figures = model.evaluated(split, judges, told)?;
                let json = serde_json::to_value(&figures).map_err(|e| Error::Config(e.to_string()))?;
                Ok(Evaluated { json, table: beside(&figures.model, "nearest picture's caption", &figures.nearest) })
            }
            Self::Finetuning(model) => {
                let figures = model.evaluated(split)?;
                let json = serde_json::to_value(&figures).map_err(|e| Error::Config(e.to_string()))?;
                Ok(Evaluated { json, table: beside(&figures.model, "without looking", &figures.blind) })
            }
            Self::Prediction(_) => {
                let predictor = Predictor::open(run, registry, self.params().device())?;
                let manifest = predictor.manifest()?;
                let rows = crate::side(&manifest, split)?;
                let (mut figures, broken) = predictor.evaluate(&manifest, &rows, &[])?;
                figures.extend(predictor.baselines(&manifest, &rows)?);
                Ok(prediction_figures(&figures, &broken))
            }
        }
    }
}

/// A run as what makes vectors of whole data sets.
pub struct Trained<'a> {
    job: &'a Job,
    folder: &'a Path,
}

impl<'a> Trained<'a> {
    /// A run that has vectors to give, and its folder.
    pub fn new(job: &'a Job, folder: &'a Path) -> Result<Self> {
        match job {
            Job::Retrieval(_) | Job::Representation(_) => Ok(Self { job, folder }),
            _ => Err(job.no_vectors()),
        }
    }
}

impl Embedder for Trained<'_> {
    fn modalities(&self) -> Vec<Modality> {
        match self.job {
            Job::Retrieval(model) => model.modalities().cloned().collect(),
            Job::Representation(model) => model.reads().cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>> {
        match self.job {
            Job::Retrieval(model) => model.processor(modality).cloned(),
            Job::Representation(model) => model.processor(modality).cloned(),
            job => Err(job.no_vectors()),
        }
    }

    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], _: Option<Pooling>) -> Result<Tensor> {
        match self.job {
            Job::Retrieval(model) => model.embed_samples(modality, samples),
            Job::Representation(model) => model.embed_samples(modality, samples),
            job => Err(job.no_vectors()),
        }
    }

    fn fingerprint(&self) -> Result<String> {
        let weights = Run::checkpoint_path(self.folder, "best");
        let mut hasher = blake3::Hasher::new();
        let read = std::fs::File::open(&weights).and_then(|file| hasher.update_reader(file).map(drop));
        read.map_err(|e| Error::File { path: weights, reason: e.to_string() })?;
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// Figures of a prediction for machines and for people.
pub fn prediction_figures(figures: &crate::metrics::Figures, broken: &[mm_data::FailedSample]) -> Evaluated {
    let mut json = serde_json::json!(figures);
    for (name, value) in figures.iter().filter(|(name, _)| name.starts_with("rows")) {
        json[name] = serde_json::json!(*value as u64);
    }
    json["broken"] = serde_json::json!(broken);
    let mut table = vec![vec!["figure".to_owned(), "value".to_owned()]];
    table.extend(figures.iter().map(|(name, value)| {
        let text = if name.starts_with("rows") { format!("{value:.0}") } else { format!("{value:.4}") };
        vec![name.clone(), text]
    }));
    Evaluated { json, table }
}

/// A model's figures beside others.
fn beside(model: &crate::metrics::Figures, what: &str, others: &crate::metrics::Figures) -> Vec<Vec<String>> {
    let mut table = vec![vec!["figure".to_owned(), "model".to_owned(), what.to_owned()]];
    for (name, value) in model {
        let other = others.get(name).copied().unwrap_or(f64::NAN);
        table.push(vec![name.clone(), format!("{value:.4}"), format!("{other:.4}")]);
    }
    table
}

fn retrieval_table(evaluation: &retrieval::Evaluation) -> Vec<Vec<String>> {
    let head = ["direction", "R@1", "R@5", "R@10", "median rank", "mAP", "chance R@10", "queries", "candidates"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    let written = evaluation.spelling.iter().map(|(language, m)| (format!("voice → its own words, {language}"), m));
    let directions = evaluation.directions.iter().map(|(direction, m)| (direction.clone(), m));
    let looked = evaluation.attention.iter().map(|(direction, m)| (direction.clone(), m));
    for (direction, m) in directions.chain(looked).chain(written) {
        let [one, five, ten] = m.recall.map(|v| format!("{v:.3}"));
        rows.push(vec![
            direction,
            one,
            five,
            ten,
            format!("{:.1}", m.median_rank),
            format!("{:.3}", m.map),
            format!("{:.3}", m.chance[2]),
            m.queries.to_string(),
            m.gallery.to_string(),
        ]);
    }
    rows
}

/// One row a figure: the model's (mean ± spread over runs), and what is beside it.
pub(crate) fn figure_table(runs: &[representation::Figures]) -> Vec<Vec<String>> {
    let mut rows = vec![["figure", "model", "beside it"].map(ToOwned::to_owned).to_vec()];
    let Some(first) = runs.first() else { return rows };
    for (name, figure) in &first.figures {
        let all = |pick: &dyn Fn(&representation::Figure) -> Option<f64>| -> String {
            let values: Vec<f64> = runs.iter().filter_map(|r| pick(r.figures.get(name)?)).collect();
            report::mean_with_spread(&values)
        };
        let beside = figure
            .beside
            .keys()
            .map(|other| format!("{other} {}", all(&|f| f.beside.get(other).copied())))
            .collect::<Vec<_>>()
            .join(", ");
        let better = if figure.more_is_better { "↑" } else { "↓" };
        rows.push(vec![format!("{name} {better}"), all(&|f| Some(f.model)), beside]);
    }
    rows
}

/// A report of run folders of one task that differ in their seed alone.
pub fn build_report(
    runs: &[PathBuf],
    split: Split,
    registry: &Registry,
    device: Device,
    told: Told<'_>,
) -> Result<Report> {
    let first = runs.first().ok_or_else(|| Error::Config("a report needs at least one run".into()))?;
    if first.join("fit.json").exists() {
        return report::build_prediction(runs, split, registry, device);
    }
    match task(&config::read(&first.join("config.toml"), &[])?)? {
        "retrieval" => report::build(runs, split, registry, device, told),
        "prediction" => report::build_prediction(runs, split, registry, device),
        "captioning" => report::build_captioning(runs, split, registry, device, told),
        "finetuning" => report::build_finetuning(runs, split, device, told),
        _ => report::build_representation(runs, split, registry, device, told),
    }
}
