//! From a table to a model: which column is what, which networks are tried, what is kept.

use super::{Prediction, Predictor, Problem, Ready, parse, resolve_all};
use crate::{Error, ProgressFn, Result};
use mm_core::{Device, Registry};
use mm_data::{Cells, ColumnBinding, FailedSample, Manifest, Split, read_table};
use mm_train::{Progress, Run, environment};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// One network.
    Fast,
    /// Three that fuse differently, their answers pooled.
    Good,
    /// Eight, of four kinds and two seeds.
    Best,
}

impl std::str::FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "fast" => Ok(Self::Fast),
            "good" => Ok(Self::Good),
            "best" => Ok(Self::Best),
            other => Err(mm_core::Error::unknown("preset", other, ["fast", "good", "best"]).into()),
        }
    }
}

impl Preset {
    /// Operators, and how often each is trained.
    fn members(self) -> Vec<(&'static str, u64)> {
        match self {
            Self::Fast => vec![("concat", 0)],
            Self::Good => vec![("concat", 0), ("gated", 1), ("low_rank_fusion", 2)],
            Self::Best => {
                // Each kind comes at an even and at an odd place: with either way of reading.
                let kinds = ["concat", "gated", "low_rank_fusion", "mixture_of_experts"];
                (0..2).flat_map(|seed| (0..4).map(move |n| (kinds[(n + seed) % 4], seed as u64))).collect()
            }
        }
    }
}

/// What `mm fit` is told.
#[derive(Debug, Clone)]
pub struct Fitting {
    /// The training table.
    pub data: PathBuf,
    /// The column that is predicted.
    pub label: String,
    /// Modality → columns, beside what is guessed; where any is given nothing is guessed.
    pub columns: BTreeMap<String, Vec<String>>,
    /// What kind of problem it is.
    pub problem: Problem,
    /// A table to choose and calibrate on; a part of the training table when absent.
    pub tune_on: Option<PathBuf>,
    /// A column whose equal values stay on one side when rows are held out.
    pub group: Option<String>,
    /// Share of the rows (or groups) that nothing but the final figures sees.
    pub hold_out: f64,
    /// How much is tried.
    pub preset: Preset,
    /// Seconds after which training stops and what there is counts.
    pub time_limit: Option<f64>,
    /// Whether the networks learn anew from all rows (but those of `hold_out`) once it is known how long they do well to learn.
    pub refit: bool,
    /// Everything random is a function of it.
    pub seed: u64,
    /// The folder that everything goes into.
    pub out: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// What kind of problem it was.
    pub problem: Problem,
    /// Its classes.
    pub classes: Vec<String>,
    /// Which column was taken for what.
    pub columns: BTreeMap<String, String>,
    /// The side that the figures are of: test where rows were held out for that alone, else those to choose and calibrate on.
    pub side: Split,
    /// Figures on rows that were held out of training.
    pub metrics: crate::metrics::Metrics,
    /// The same with each modality alone and with each left out.
    pub ablations: BTreeMap<String, crate::metrics::Metrics>,
    /// Rows that were trained on.
    pub rows: usize,
    /// Samples that were skipped.
    pub broken: Vec<FailedSample>,
    /// Whether the time limit or a person ended it early.
    pub stopped: bool,
    /// Networks that count.
    pub members: usize,
    /// Rows that they learned anew from, where they did.
    pub refitted: Option<usize>,
}

/// The column that names rows: `id` where its cells differ, else none, for a customer's number names no row.
pub(super) fn id_column(table: &[Cells]) -> String {
    let mut seen = std::collections::HashSet::new();
    let names = table.iter().all(|r| r.get("id").and_then(mm_data::cell_text).is_some_and(|id| seen.insert(id)));
    if names && !table.is_empty() { "id".into() } else { String::new() }
}

fn filled(value: &serde_json::Value) -> Option<String> {
    mm_data::cell_text(value).filter(|t| !mm_core::is_missing_cell(t))
}

/// What a column is, in one word, or why it is left out.
fn kind(name: &str, cells: &[Option<String>], lists: bool) -> std::result::Result<&'static str, String> {
    let texts: Vec<&str> = cells.iter().flatten().map(String::as_str).collect();
    if lists {
        return Ok("vector");
    }
    if texts.is_empty() {
        return Err("empty".into());
    }
    let lower = name.to_lowercase();
    if ["split", "fold"].contains(&lower.as_str()) {
        return Err("says which split a row is in".into());
    }
    let ending = |known: &[&str]| {
        let hits = texts.iter().filter(|t| {
            let ending = Path::new(t).extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
            known.contains(&ending.as_str())
        });
        hits.count() * 2 > texts.len()
    };
    for (modality, known) in mm_data::FILE_EXTENSIONS {
        if ending(known) {
            return Ok(modality);
        }
    }
    let distinct: BTreeSet<&str> = texts.iter().copied().collect();
    if distinct.len() == 1 && texts.len() == cells.len() {
        return Err("the same in every row".into());
    }
    let numeric = texts.iter().filter(|t| t.trim().parse::<f64>().is_ok()).count();
    if numeric * 20 >= texts.len() * 19 {
        let whole = texts.iter().filter_map(|t| t.trim().parse::<f64>().ok()).all(|v| v.fract() == 0.0);
        let named = ["id", "index", "idx", "row", "unnamed: 0", ""].contains(&lower.as_str()) || lower.ends_with("_id");
        if named && whole && distinct.len() * 10 > texts.len() * 9 {
            return Err("a number of the row".into());
        }
        return Ok("number");
    }
    let words = texts.iter().map(|t| t.split_whitespace().count()).sum::<usize>() as f64 / texts.len() as f64;
    let (rows, kinds) = (texts.len(), distinct.len());
    if words >= 3.0 || (kinds * 2 > rows && words >= 1.5) {
        Ok("text")
    } else if kinds <= 100 && kinds * 3 <= rows.max(30) {
        Ok("category")
    } else if kinds * 10 > rows * 9 && words < 1.5 {
        Err("a name of the row".into())
    } else {
        Ok("text")
    }
}

/// Modality → its columns, and sentences about what was taken for what.
fn bind(table: &[Cells], fitting: &Fitting, tabular: bool) -> Result<(BTreeMap<String, Vec<String>>, Vec<String>)> {
    let mut names: Vec<&String> = Vec::new();
    let mut seen = BTreeSet::new();
    for row in table.iter().take(1000) {
        names.extend(row.keys().filter(|k| seen.insert(*k)));
    }
    if !seen.contains(&fitting.label) {
        let known = names.iter().map(|n| n.as_str());
        let error = mm_core::Error::unknown("label column", &fitting.label, known);
        return Err(Error::Config(format!("{}: {error}", fitting.data.display())));
    }
    if !fitting.columns.is_empty() {
        for column in fitting.columns.values().flatten() {
            if !seen.contains(column) {
                let error = mm_core::Error::unknown("column", column, names.iter().map(|n| n.as_str()));
                return Err(Error::Config(format!("{}: {error}", fitting.data.display())));
            }
            if *column == fitting.label {
                return Err(Error::Config(format!(
                    "--columns: `{column}` is what is predicted; it cannot be given too"
                )));
            }
        }
        let told = fitting.columns.iter().map(|(m, c)| format!("{m}: {} (as told)", c.join(" + ")));
        return Ok((fitting.columns.clone(), told.collect()));
    }
    let (mut columns, mut told): (BTreeMap<String, Vec<String>>, Vec<String>) = Default::default();
    let step = (table.len() / 5000).max(1);
    for name in names.into_iter().filter(|n| **n != fitting.label && Some(*n) != fitting.group.as_ref()) {
        let some: Vec<&Cells> = table.iter().step_by(step).collect();
        let lists = some.iter().filter_map(|r| r.get(name)).find(|v| !v.is_null()).is_some_and(|v| {
            v.as_array().is_some_and(|items| items.len() > 1 && items.iter().all(serde_json::Value::is_number))
        });
        let cells: Vec<Option<String>> = some.iter().map(|r| r.get(name).and_then(filled)).collect();
        let modality = match kind(name, &cells, lists) {
            Ok("number" | "category") if tabular => "tabular",
            Ok("number" | "category") => {
                told.push(format!("{name}: left out (numbers and categories need mm-tabular)"));
                continue;
            }
            Ok(modality) => modality,
            Err(why) => {
                told.push(format!("{name}: left out ({why})"));
                continue;
            }
        };
        let own = columns.entry(modality.to_owned()).or_default();
        if !own.is_empty() && !["text", "tabular"].contains(&modality) {
            told.push(format!("{name}: left out ({modality} is {} already; say --columns to choose)", own[0]));
            continue;
        }
        own.push(name.clone());
    }
    if let (Some(video), false) = (columns.get("video").cloned(), columns.contains_key("audio")) {
        columns.insert("audio".into(), video);
    }
    if columns.is_empty() {
        return Err(Error::Config(format!(
            "{}: no column beside `{}` can be learned from ({})",
            fitting.data.display(),
            fitting.label,
            told.join("; ")
        )));
    }
    told.extend(columns.iter().map(|(m, c)| format!("{m}: {}", c.join(" + "))));
    Ok((columns, told))
}

/// A flag that is set when another one is, or when the time is over.
struct Watch {
    flag: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
}

impl Watch {
    fn new(outer: &Arc<AtomicBool>, until: Option<Instant>) -> Self {
        let (flag, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (own, over, outer) = (flag.clone(), done.clone(), outer.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if outer.load(Ordering::Relaxed) || until.is_some_and(|u| Instant::now() >= u) {
                    own.store(true, Ordering::Relaxed);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { flag, done }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// Fits a table; `say` is told what was guessed, `told` about long work before training.
pub fn fit_table(
    fitting: &Fitting,
    registry: &Registry,
    device: Device,
    progress: &mut dyn Progress,
    say: &mut dyn FnMut(String),
    told: ProgressFn<'_>,
    stop: &Arc<AtomicBool>,
) -> Result<Fitted> {
    let begun = Instant::now();
    if !(0.0..0.8).contains(&fitting.hold_out) {
        return Err(Error::Config(format!("--hold-out: found {}, wanted a share from 0 to 0.8", fitting.hold_out)));
    }
    if fitting.hold_out > 0.0 && fitting.tune_on.is_some() {
        return Err(Error::Config(
            "--hold-out and --tune-on: wanted one of them; measure on a table of your own with mm eval --data".into(),
        ));
    }
    if fitting.time_limit.is_some_and(|t| !(t > 0.0 && t.is_finite())) {
        return Err(Error::Config("--time-limit: wanted a positive number of seconds".into()));
    }
    let absolute = |path: &Path| {
        std::fs::canonicalize(path)
            .map_err(|e| Error::File { path: path.to_owned(), reason: format!("cannot be read: {e}") })
    };
    let data = absolute(&fitting.data)?;
    let table = read_table(&data, None)?;
    let rows = table.len();
    let id = id_column(&table);
    let (columns, sentences) = bind(&table, fitting, registry.proposes().any(|m| m == "tabular"))?;
    sentences.into_iter().for_each(&mut *say);
    // A run that is there already must not be mixed with another.
    if fitting.out.join("ensemble.json").exists() || fitting.out.join("config.toml").exists() {
        return Err(Error::Config(format!(
            "{}: holds a run already; name another folder with --out",
            fitting.out.display()
        )));
    }
    if let Some(group) = &fitting.group
        && !table.iter().take(1000).any(|r| r.contains_key(group))
    {
        return Err(Error::Config(format!("--group: {} has no column `{group}`", fitting.data.display())));
    }
    drop(table);
    let tune = fitting.tune_on.as_deref().map(absolute).transpose()?;
    let mut value = config(fitting, &data, tune.as_deref(), &columns, (rows, id))?;
    let others = resolve_all(&mut value, Path::new("/"), registry, say)?;
    std::fs::create_dir_all(&fitting.out)
        .map_err(|e| Error::File { path: fitting.out.clone(), reason: e.to_string() })?;
    let mut members = fitting.preset.members();
    if columns.len() == 1 {
        // One modality needs no fusing: half of them says as much.
        members.truncate(members.len().div_ceil(2));
    }
    // All networks read the same rows.
    let mut shared: Option<(Arc<Manifest>, Vec<usize>, Ready)> = None;
    let (mut predictor, mut said) = (Predictor::empty(), Vec::new());
    let (mut broken, mut trained, mut stopped): (Vec<FailedSample>, usize, bool) = (Vec::new(), 0, false);
    let limit = fitting.time_limit.map(Duration::from_secs_f64);
    let mut made: Vec<toml::Value> = Vec::new();
    let mut refit = fitting.refit && fitting.tune_on.is_none();
    let folders = |count: usize| (0..count).map(|n| format!("member-{n}")).collect::<Vec<_>>();
    let training = Instant::now();
    for (number, (operator, seed)) in members.iter().enumerate() {
        if number > 0 && (stop.load(Ordering::Relaxed) || limit.is_some_and(|all| begun.elapsed() >= all)) {
            stopped = true;
            break;
        }
        let mut own = value.clone();
        mm_core::config::set(&mut own, &format!("train.seed={}", fitting.seed * 100 + seed))?;
        // The whole of it: settings of another operator must not stay behind.
        mm_core::config::set(&mut own, &format!("fusion.operator={{kind={operator:?}}}"))?;
        if number % 2 == 1 {
            // Another way of reading what can be read in two ways: who errs differently errs less together.
            let inputs = own.get_mut("inputs").and_then(toml::Value::as_table_mut);
            for (table, (encoder, standardize)) in inputs
                .into_iter()
                .flat_map(|t| t.iter_mut())
                .filter_map(|(name, t)| Some((t.as_table_mut()?, others.get(name)?)))
            {
                table.insert("encoder".into(), encoder.clone());
                table.insert("standardize".into(), (*standardize).into());
            }
        }
        let parsed = parse(&own)?;
        let model = Prediction::new(parsed, Path::new("/"), registry, device)?;
        let (manifest, valid, ready) = if let Some(all) = &shared {
            all.clone()
        } else {
            let mut manifest = model.manifest()?;
            if let Some(all) = limit {
                let half = all.saturating_sub(begun.elapsed()) / 2;
                let encoded = model.encode_until(&manifest, Instant::now() + half, stop, told)?;
                let (count, of) = (encoded.iter().filter(|e| **e).count(), encoded.len());
                if count < of {
                    say(format!(
                        "{count} of {of} rows are learned from and measured on: there is no time to encode more of them (half of --time-limit)"
                    ));
                    let mut each = encoded.into_iter();
                    manifest.rows.retain(|_| each.next() == Some(true));
                    refit = false;
                }
            }
            let manifest = Arc::new(manifest);
            let valid = model.labelled(&manifest, Split::Valid);
            shared.insert((manifest, valid, model.ready.take())).clone()
        };
        model.ready.replace(ready);
        let folder = fitting.out.join(format!("member-{number}"));
        let mut run = Run::create(&folder, &own, environment(json!({"device": device.to_string()})))?;
        // What is left of the time is shared evenly among what is left to do.
        let until = limit.map(|all| {
            let left = all.saturating_sub(begun.elapsed());
            // Learning anew takes as long again, and a little more.
            let share = if refit { 0.4 } else { 1.0 };
            Instant::now() + left.mul_f64(share) / (members.len() - number) as u32
        });
        let watch = Watch::new(stop, until);
        if members.len() > 1 {
            say(format!("network {} of {}: {operator}", number + 1, members.len()));
        }
        let fit = model.fit(manifest.clone(), &mut run, progress, told, &watch.flag)?;
        drop(run);
        stopped |= fit.training.stopped;
        trained = fit.rows;
        broken = fit.failed;
        said.push(predictor.add(model, &folder, &manifest, &valid)?);
        // Written anew after each network, so that what is done counts whatever happens next.
        predictor.weigh(&said, &manifest)?;
        predictor.save(&fitting.out, folders(said.len()), Vec::new())?;
        made.push(own);
    }
    let Some((manifest, ..)) = shared else { return Err(Error::Config("a preset without networks".into())) };
    let side = if fitting.hold_out > 0.0 { Split::Test } else { Split::Valid };
    let valid: Vec<usize> = manifest
        .rows_in_split(side)
        .into_iter()
        .filter(|r| manifest.rows[*r].cells.contains_key(&fitting.label))
        .collect();
    let mut refitted = None;
    if refit && !stopped {
        let again = training.elapsed().mul_f64(1.5);
        if limit.is_none_or(|all| begun.elapsed() + again < all) {
            say("learning anew from all rows, those that were held out to choose on too".into());
            let watch = Watch::new(stop, limit.map(|all| begun + all));
            refitted = learn_anew(fitting, &made, registry, device, progress, told, &watch.flag)?;
            // None when it was stopped: the networks before it count.
            stopped = refitted.is_none();
        }
        if let Some((anew, _)) = &refitted {
            predictor.save(&fitting.out, folders(said.len()), anew.clone())?;
            if side == Split::Test {
                predictor = Predictor::open(&fitting.out, registry, device)?;
            }
        }
    }
    let (mut metrics, mut ablations) = (crate::metrics::Metrics::new(), BTreeMap::new());
    if !valid.is_empty() {
        metrics = predictor.evaluate(&manifest, &valid, &[])?.metrics;
        let all = predictor.modalities();
        for modality in all.iter().filter(|_| all.len() > 1) {
            let others: Vec<_> = all.iter().filter(|m| *m != modality).cloned().collect();
            ablations.insert(format!("{modality} alone"), predictor.evaluate(&manifest, &valid, &others)?.metrics);
            ablations.insert(
                format!("without {modality}"),
                predictor.evaluate(&manifest, &valid, std::slice::from_ref(modality))?.metrics,
            );
        }
    }
    Ok(Fitted {
        problem: predictor.target().problem,
        classes: predictor.target().classes.clone(),
        columns: columns.into_iter().map(|(m, c)| (m, c.join(" + "))).collect(),
        side,
        metrics,
        ablations,
        rows: trained,
        broken,
        stopped,
        members: said.len(),
        refitted: refitted.map(|(_, rows)| rows),
    })
}

/// Trains each network once more, from nothing, on the rows that it was chosen and calibrated on too, for as many epochs as were best without
/// them; how its heads are pooled stays. Their folders and how many rows there were; none when it was stopped.
fn learn_anew(
    fitting: &Fitting,
    made: &[toml::Value],
    registry: &Registry,
    device: Device,
    progress: &mut dyn Progress,
    told: ProgressFn<'_>,
    stop: &AtomicBool,
) -> Result<Option<(Vec<String>, usize)>> {
    let (mut folders, mut rows) = (Vec::new(), 0);
    for (number, config) in made.iter().enumerate() {
        let first = fitting.out.join(format!("member-{number}"));
        let epochs = Run::open_checkpoint(&first, "best")?.1.epoch.max(1);
        let mut own = config.clone();
        for setting in
            [format!("train.epochs={epochs}"), "train.evaluate_every_epochs=0".into(), "data.split.valid=0.0".into()]
        {
            mm_core::config::set(&mut own, &setting)?;
        }
        let model = Prediction::new(parse(&own)?, Path::new("/"), registry, device)?;
        let name = format!("member-{number}-refit");
        let folder = fitting.out.join(&name);
        let mut run = Run::create(&folder, &own, environment(json!({"device": device.to_string()})))?;
        let fit = model.fit(Arc::new(model.manifest()?), &mut run, progress, told, stop)?;
        if fit.training.stopped {
            return Ok(None);
        }
        let pooled = "head_ensemble.json";
        std::fs::copy(first.join(pooled), folder.join(pooled))
            .map_err(|e| Error::File { path: folder.join(pooled), reason: e.to_string() })?;
        rows = fit.rows;
        folders.push(name);
    }
    Ok(Some((folders, rows)))
}

/// The config of a fit; what the data say is filled in afterwards.
fn config(
    fitting: &Fitting,
    data: &Path,
    tune: Option<&Path>,
    columns: &BTreeMap<String, Vec<String>>,
    (rows, id): (usize, String),
) -> Result<toml::Value> {
    let bindings: BTreeMap<&String, ColumnBinding> = columns
        .iter()
        .map(|(m, c)| {
            (
                m,
                if let [one] = c.as_slice() {
                    ColumnBinding::Single(one.clone())
                } else {
                    ColumnBinding::Multiple(c.clone())
                },
            )
        })
        .map(|(m, b)| if m == "tabular" { (m, ColumnBinding::Multiple(b.columns().to_vec())) } else { (m, b) })
        .collect();
    // A fifth to choose on while that is few; five thousand tell enough.
    let share = (5000.0 / rows.max(1) as f64).min(0.2);
    let batch = if rows < 400 {
        16
    } else if rows < 20_000 {
        32
    } else {
        128
    };
    let most = match fitting.preset {
        Preset::Fast => 1200,
        Preset::Good => 2000,
        Preset::Best => 3000,
    };
    let epochs = (most * batch / rows.max(1)).clamp(3, 60);
    let several = columns.len() > 1;
    let inputs: BTreeMap<&String, toml::Table> =
        columns.keys().map(|m| (m, toml::Table::from_iter([("dropout".to_owned(), toml::Value::from(0.2))]))).collect();
    let value = json!({
        "task": "prediction",
        "label": fitting.label,
        "problem": fitting.problem,
        "data": {
            "manifest": data, "valid": tune,
            "columns": {"modalities": bindings, "id": if tune.is_some() { String::new() } else { id }},
            "split": {"group": fitting.group, "test": fitting.hold_out, "valid": share, "seed": fitting.seed},
        },
        // Captions and pictures: the first of several; of several sounds one is drawn each time.
        "loader": {"batch_size": batch, "always_first_source": ["text", "image", "video"]},
        "dropout": 0.3,
        "inputs": inputs,
        "fusion": {"dim": 128, "dropout": 0.2, "modality_dropout": if several { 0.25 } else { 0.0 }},
        "loss": {"unimodal_weight": if several { 1.0 } else { 0.0 }, "label_smoothing": 0.02},
        "train": {
            "epochs": epochs, "evaluate_every_epochs": 1, "early_stopping": {"patience": (epochs / 3).max(4)}, "ema_decay": 0.98, "log_every_steps": 20,
            "optimizer": {"lr": 1e-3, "weight_decay": 0.05},
            "schedule": {"warmup_ratio": 0.05},
        },
    });
    // Nothing that is absent may stand in TOML.
    let mut value = value;
    if let Some(data) = value.get_mut("data").and_then(serde_json::Value::as_object_mut) {
        data.retain(|_, v| !v.is_null());
        if let Some(split) = data.get_mut("split").and_then(serde_json::Value::as_object_mut) {
            split.retain(|_, v| !v.is_null());
        }
    }
    toml::Value::try_from(value).map_err(|e| Error::Config(e.to_string()))
}
