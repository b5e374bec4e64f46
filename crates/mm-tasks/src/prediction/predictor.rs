//! A finished prediction: one model or several, each with its heads calibrated and pooled, that answers for new rows.

use super::{Answers, Ensembling, Evaluation, Label, Look, Prediction, Problem, Target, keeping::FUSED, stack::Stack};
use crate::{Error, Result, metrics};
use mm_core::{DType, Device, Modality, Registry, Source, Tensor, checkpoint};
use mm_data::{FailedSample, Manifest, Row, Split};
use mm_fusion::late::{CombinationRule, Targets, TemperatureScaling, combine, fit_weights};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::Path};

/// How a model's heads become one answer: fitted on held-out rows, kept as `head_ensemble.json` in the run folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Combination {
    /// What each head's logits are divided by; `fused` is the head on all modalities.
    temperatures: BTreeMap<String, f64>,
    /// How much each head counts.
    weights: BTreeMap<String, f64>,
    /// Rows that both were fitted on.
    rows: usize,
    /// A model over the heads in the place of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stack: Option<Stack>,
}

/// Fewer rows than this say nothing about weights.
pub(super) const ENOUGH: usize = 30;

impl Combination {
    /// Without rows to fit it on: all heads alike where the config says so, else the fused one.
    pub(crate) fn fixed(model: &Prediction) -> Self {
        let mut out = Self::default();
        if model.config.ensembling == Ensembling::Uniform && model.config.has_unimodal_heads() {
            let names = model.modalities().map(ToString::to_string).chain([FUSED.to_owned()]);
            out.weights = names.map(|n| (n, 1.0)).collect();
        }
        out
    }

    pub(crate) fn fit(model: &Prediction, manifest: &Manifest, answers: &Answers) -> Result<Self> {
        let mut out = Self { rows: answers.rows.len(), ..Self::default() };
        let target = &model.target;
        let labels = labels(&answers.rows, manifest, &model.config.label, target);
        if model.config.ensembling.is_stacked() {
            out.stack = Some(out.stacked(model, manifest, answers, &labels)?);
            return Ok(out);
        }
        if model.config.ensembling != Ensembling::Weighted {
            return Ok(Self::fixed(model));
        }
        match target.problem {
            Problem::Multilabel => {}
            Problem::Regression => {
                let truth: Vec<f64> =
                    labels.iter().map(|l| if let Some(Label::Number(v)) = l { *v } else { f64::NAN }).collect();
                if truth.len() < ENOUGH || answers.own.len() < 2 {
                    return Ok(out);
                }
                // Between the fused head and the mean of the others, whatever errs least.
                let mut best = (f64::INFINITY, 1.0);
                for step in 0..=20 {
                    let share = f64::from(step) / 20.0;
                    let guess = Self::shared(share, answers).apply(model, answers)?.to_vec::<f64>()?;
                    let off = guess.iter().zip(&truth).map(|(g, t)| (g - t).powi(2)).sum::<f64>();
                    if off <= best.0 {
                        best = (off, share);
                    }
                }
                out.weights = Self::shared(best.1, answers).weights;
            }
            Problem::Ordinal => {}
            _ => {
                let (places, classes) = known_classes(&labels);
                if places.len() < ENOUGH {
                    return Ok(out);
                }
                let all = Tensor::from_slice(&places)?;
                out.temperatures
                    .insert(FUSED.into(), TemperatureScaling::fit(&answers.fused.index_select(0, &all)?, &classes)?.0);
                for (modality, (logits, flags)) in &answers.own {
                    let here: Vec<usize> = (0..places.len())
                        .zip(flags.index_select(0, &all)?.to_vec::<f64>()?)
                        .filter_map(|(n, f)| (f > 0.5).then_some(n))
                        .collect();
                    if here.len() >= ENOUGH {
                        let rows = Tensor::from_slice(&here.iter().map(|n| places[*n]).collect::<Vec<_>>())?;
                        let own: Vec<i64> = here.iter().map(|n| classes[*n]).collect();
                        let fitted = TemperatureScaling::fit(&logits.index_select(0, &rows)?, &own)?;
                        out.temperatures.insert(modality.to_string(), fitted.0);
                    }
                }
                let (names, probabilities, present) = out.heads(model, answers)?;
                let (p, there) = (probabilities.index_select(0, &all)?, present.index_select(0, &all)?);
                let weights = fit_weights(&p, &there, &classes, CombinationRule::LogPool)?;
                out.weights = names.into_iter().zip(weights).collect();
            }
        }
        Ok(out)
    }

    /// A model over what the heads say of these rows.
    fn stacked(
        &self,
        model: &Prediction,
        manifest: &Manifest,
        answers: &Answers,
        labels: &[Option<Label>],
    ) -> Result<Stack> {
        let (_, said, there) = self.heads(model, answers)?;
        let numbers: Vec<(i64, f64)> = labels
            .iter()
            .enumerate()
            .filter_map(|(n, l)| if let Some(Label::Number(v)) = l { Some((n as i64, *v)) } else { None })
            .collect();
        let (places, classes) = known_classes(labels);
        let places = if places.is_empty() { numbers.iter().map(|(n, _)| *n).collect() } else { places };
        let all = Tensor::from_slice(&places)?;
        let (said, there) = (said.index_select(0, &all)?, there.index_select(0, &all)?);
        let groups: Vec<String> =
            places.iter().map(|p| manifest.rows[answers.rows[*p as usize]].item.clone()).collect();
        let numbers: Vec<f64> = numbers.into_iter().map(|(_, v)| v).collect();
        match model.config.ensembling {
            Ensembling::LogisticRegression => Stack::logistic(&said, &there, &classes, &groups),
            _ if classes.is_empty() => Stack::boosted(&said, &there, &Targets::Values(&numbers), &groups),
            _ => {
                let truth = Targets::Classes(&classes, model.target.classes.len());
                Stack::boosted(&said, &there, &truth, &groups)
            }
        }
    }

    fn shared(share: f64, answers: &Answers) -> Self {
        let rest = (1.0 - share) / answers.own.len().max(1) as f64;
        let own = answers.own.keys().map(|m| (m.to_string(), rest));
        Self { weights: own.chain([(FUSED.to_owned(), share)]).collect(), ..Self::default() }
    }

    pub(crate) fn save(&self, run: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Config(e.to_string()))?;
        Ok(checkpoint::write_atomic(&run.join("head_ensemble.json"), text.as_bytes())?)
    }

    fn load(run: &Path) -> Result<Self> {
        let path = run.join("head_ensemble.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| Error::File { path, reason: e.to_string() }),
            // A run without held-out rows has none.
            Err(_) => Ok(Self::default()),
        }
    }

    /// What each head says, `[rows, heads, classes]`, and which of them there are, `[rows, heads]`.
    fn heads(&self, model: &Prediction, answers: &Answers) -> Result<(Vec<String>, Tensor, Tensor)> {
        let level = model.level()?;
        let temperature = |name: &str| self.temperatures.get(name).copied().unwrap_or(1.0);
        let mut names = vec![FUSED.to_owned()];
        let mut said = vec![model.target.probabilities(&answers.fused, temperature(FUSED), level)?];
        let rows = answers.rows.len() as i64;
        // Where a row has nothing at all, neither has the fused head.
        let some: Vec<f32> = answers.present.iter().map(|p| f32::from(u8::from(!p.is_empty()))).collect();
        let mut there = vec![Tensor::from_slice(&some)?.reshape(&[rows])?];
        for (modality, (logits, flags)) in &answers.own {
            names.push(modality.to_string());
            said.push(model.target.probabilities(logits, temperature(modality.name()), level)?);
            there.push(flags.clone());
        }
        let said = Tensor::stack(&said.iter().collect::<Vec<_>>(), 1)?;
        Ok((names, said, Tensor::stack(&there.iter().collect::<Vec<_>>(), 1)?))
    }

    /// `[rows, classes]` probabilities, or `[rows, 1]` numbers, float64.
    pub(crate) fn apply(&self, model: &Prediction, answers: &Answers) -> Result<Tensor> {
        let (names, said, there) = self.heads(model, answers)?;
        if let Some(stack) = &self.stack {
            return stack.apply(&said, &there);
        }
        let only = |n: &String| f64::from(u8::from(n == FUSED));
        let weights: Vec<f64> = names
            .iter()
            .map(|n| if self.weights.is_empty() { only(n) } else { self.weights.get(n).copied().unwrap_or(0.0) })
            .collect();
        if model.target.is_classes() {
            return Ok(combine(&said, &there, CombinationRule::LogPool, Some(&weights))?);
        }
        if model.target.problem == Problem::Multilabel {
            return Ok(said.select(1, 0)?);
        }
        let shares = there.to_dtype(DType::F64)?.mul(&Tensor::from_slice(&weights)?)?;
        let total = shares.sum_dim(&[1], true)?;
        let mixed = said.squeeze(2)?.mul(&shares)?.sum_dim(&[1], true)?.div(&total.clamp_min(1e-12)?)?;
        // A row that has nothing gets the mean of the training rows.
        let level = Tensor::full(&[1, 1], model.level()?.0, DType::F64, Device::Cpu)?;
        Ok(mixed.where_cond(&total.gt_scalar(1e-9)?, &level)?)
    }
}

/// What `ensemble.json` of a folder with several models says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Networks {
    /// Their folders, relative to it.
    pub(crate) members: Vec<String>,
    /// How much each counts.
    pub(crate) weights: Vec<f64>,
    /// The folders of the same networks after they learned from all rows, those that the members were chosen and calibrated on too; these
    /// answer for rows that no member has seen. Empty where that was not done.
    #[serde(default)]
    pub(crate) refitted: Vec<String>,
}

/// One row's answer.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// Its row in the file, counted from one.
    pub row: usize,
    /// Its id.
    pub id: String,
    /// The likeliest class, the labels that hold, or the number.
    pub prediction: Value,
    /// For each class or label its probability; empty for numbers.
    pub probabilities: Vec<(String, f64)>,
    /// The modalities that it had.
    pub present: Vec<Modality>,
}

impl Predicted {
    /// As one JSON object.
    pub fn json(&self) -> Value {
        let probabilities: Map<String, Value> = self.probabilities.iter().map(|(c, p)| (c.clone(), json!(p))).collect();
        let present: Vec<&str> = self.present.iter().map(Modality::name).collect();
        json!({"row": self.row, "id": self.id, "prediction": self.prediction, "probabilities": probabilities, "present": present})
    }
}

/// What a prediction says of values that were asked about.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Of each class.
    pub probabilities: Vec<f64>,
    /// Of each class, from the fused head.
    pub logits: Vec<f64>,
    /// What counted for it, where that was to be explained.
    pub look: Look,
}

/// A finished prediction.
pub struct Predictor {
    members: Vec<(Prediction, Combination)>,
    weights: Vec<f64>,
}

/// Probabilities (or numbers) of some rows.
pub(crate) struct Combined {
    pub(crate) rows: Vec<usize>,
    /// `[rows, classes]`, or `[rows, 1]` numbers; float64.
    pub(crate) values: Tensor,
    pub(crate) present: Vec<Vec<Modality>>,
    pub(crate) weights: BTreeMap<Modality, Vec<f64>>,
    pub(crate) broken: Vec<FailedSample>,
    /// What the first network's fused head says, `[rows, outputs]`.
    fused: Tensor,
    /// What counted for the first network, row by row, where that was asked for.
    looks: Vec<Look>,
}

impl Predictor {
    /// Opens what `mm fit` or `mm train` (of a prediction) left, for new rows.
    pub fn open(run: &Path, registry: &Registry, device: Device) -> Result<Self> {
        Self::open_for(run, Split::Test, registry, device)
    }

    /// The same for rows of its own data: networks that were chosen on the validation rows, but had not learned from them.
    pub fn open_for(run: &Path, side: Split, registry: &Registry, device: Device) -> Result<Self> {
        let list = run.join("ensemble.json");
        let (folders, weights) = match std::fs::read(&list) {
            Ok(text) => {
                let found: Networks = serde_json::from_slice(&text)
                    .map_err(|e| Error::File { path: list.clone(), reason: format!("no list of models: {e}") })?;
                if found.members.is_empty() || found.members.len() != found.weights.len() {
                    return Err(Error::File { path: list, reason: "wanted a weight for each of its members".into() });
                }
                let anew = side == Split::Test && found.refitted.len() == found.members.len();
                let folders = if anew { found.refitted } else { found.members };
                (folders.iter().map(|m| run.join(m)).collect(), found.weights)
            }
            Err(_) => (vec![run.to_owned()], vec![1.0]),
        };
        let members = folders
            .iter()
            .map(|folder| Ok((Prediction::load(folder, registry, device)?, Combination::load(folder)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { members, weights })
    }

    pub(super) fn first(&self) -> &Prediction {
        &self.members[0].0
    }

    /// What it predicts.
    pub fn target(&self) -> &Target {
        self.first().target()
    }

    /// The column that it predicts.
    pub fn label(&self) -> &str {
        &self.first().config.label
    }

    /// Whether a row's answer depends on the other rows of its item.
    pub fn by_items(&self) -> bool {
        self.members.iter().any(|(model, _)| model.network.by_items())
    }

    /// Its modalities.
    pub fn modalities(&self) -> Vec<Modality> {
        self.first().modalities().cloned().collect()
    }

    /// The rows of other data, bound as the training data were.
    pub fn data(&self, path: &Path) -> Result<Manifest> {
        self.first().other_manifest(path, Path::new("."))
    }

    /// Its own data.
    pub fn manifest(&self) -> Result<Manifest> {
        self.first().manifest()
    }

    /// From now on a modality's features get normal noise of so many of their own deviations; 0 for none.
    pub fn disturb(&self, modality: &Modality, strength: f64) {
        for (model, _) in &self.members {
            model.network.disturbed.borrow_mut().insert(modality.clone(), strength);
        }
    }

    /// Modalities that are to be left out, by name.
    pub fn without(&self, names: &[String]) -> Result<Vec<Modality>> {
        let known = self.modalities();
        for name in names {
            if !known.iter().any(|m| m.name() == name) {
                return Err(
                    mm_core::Error::unknown("modality of this run", name, known.iter().map(Modality::name)).into()
                );
            }
        }
        Ok(names.iter().map(|n| Modality::from(n.as_str())).collect())
    }

    /// No network yet; [`Predictor::add`] takes them in.
    pub(crate) fn empty() -> Self {
        Self { members: Vec::new(), weights: Vec::new() }
    }

    /// Takes in one more network, its heads pooled as its run folder says; what it makes of these rows comes back.
    pub(crate) fn add(
        &mut self,
        model: Prediction,
        run: &Path,
        manifest: &Manifest,
        rows: &[usize],
    ) -> Result<Combined> {
        let member = (model, Combination::load(run)?);
        let found = one(&member, manifest, rows, &[])?;
        self.members.push(member);
        self.weights.push(1.0);
        Ok(found)
    }

    /// Fits how much each network counts to what they say of held-out rows.
    pub(crate) fn weigh(&mut self, said: &[Combined], manifest: &Manifest) -> Result<()> {
        self.weights = vec![1.0 / said.len() as f64; said.len()];
        let (label, target) = (self.label().to_owned(), self.target());
        let (places, classes) = known_classes(&labels(&said[0].rows, manifest, &label, target));
        if said.len() < 2 || !target.is_classes() || places.len() < ENOUGH {
            return Ok(());
        }
        let all = Tensor::stack(&said.iter().map(|s| &s.values).collect::<Vec<_>>(), 1)?;
        let all = all.index_select(0, &Tensor::from_slice(&places)?)?;
        let present = Tensor::ones(&all.shape()[..2], DType::F32, Device::Cpu)?;
        self.weights = fit_weights(&all, &present, &classes, CombinationRule::Mean)?;
        Ok(())
    }

    /// Writes which folders, relative to `out`, the networks are in, and how much each counts.
    pub(crate) fn save(&self, out: &Path, members: Vec<String>, refitted: Vec<String>) -> Result<()> {
        let list = Networks { members, weights: self.weights.clone(), refitted };
        let text = serde_json::to_string_pretty(&list).map_err(|e| Error::Config(e.to_string()))?;
        Ok(checkpoint::write_atomic(&out.join("ensemble.json"), text.as_bytes())?)
    }

    pub(crate) fn combined(&self, manifest: &Manifest, rows: &[usize], drop: &[Modality]) -> Result<Combined> {
        let mut out: Option<Combined> = None;
        for (member, weight) in self.members.iter().zip(&self.weights) {
            let found = one(member, manifest, rows, drop)?;
            let values = found.values.mul_scalar(*weight)?;
            match &mut out {
                Some(out) => out.values = out.values.add(&values)?,
                None => out = Some(Combined { values, ..found }),
            }
        }
        out.ok_or_else(|| Error::Config("a prediction without models".into()))
    }

    /// Answers for rows in their order, and the values that could not be read.
    pub fn predict(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        drop: &[Modality],
    ) -> Result<(Vec<Predicted>, Vec<FailedSample>)> {
        let found = self.combined(manifest, rows, drop)?;
        let target = self.target();
        let width = found.values.size(1)?.max(1) as usize;
        let values = found.values.to_vec::<f64>()?;
        let mut out = Vec::new();
        for ((row, own), present) in found.rows.iter().zip(values.chunks(width)).zip(found.present) {
            let about = &manifest.rows[*row];
            let prediction = match target.problem {
                Problem::Regression => json!(own[0]),
                Problem::Multilabel => {
                    json!(
                        target.classes.iter().zip(own).filter(|(_, p)| **p >= 0.5).map(|(c, _)| c).collect::<Vec<_>>()
                    )
                }
                _ => json!(target.classes[metrics::argmax(own)]),
            };
            let probabilities = if target.classes.is_empty() {
                Vec::new()
            } else {
                target.classes.iter().cloned().zip(own.iter().copied()).collect()
            };
            out.push(Predicted { row: about.number, id: about.id.clone(), prediction, probabilities, present });
        }
        out.sort_by_key(|p| p.row);
        Ok((out, found.broken))
    }

    /// How much each modality counted in the rows that have it, on average, where the first network's operator says.
    pub fn weights(&self, manifest: &Manifest, rows: &[usize]) -> Result<BTreeMap<Modality, f64>> {
        let found = self.combined(manifest, rows, &[])?;
        let mut out = BTreeMap::new();
        for (modality, weights) in found.weights {
            let here: Vec<f64> =
                weights.iter().zip(&found.present).filter(|(_, p)| p.contains(&modality)).map(|(w, _)| *w).collect();
            if !here.is_empty() && weights.len() == found.present.len() {
                out.insert(modality, here.iter().sum::<f64>() / here.len() as f64);
            }
        }
        Ok(out)
    }

    /// Whether each step of its reasoning is a word of what asks: a program's.
    pub fn runs_programs(&self) -> bool {
        let reason = self.first().config.reasoning.as_ref();
        reason.is_some_and(|r| r.network.one_step_per_token().unwrap_or(false))
    }

    /// Answers for values that stand in no table: for each of them the probability and the fused head's logit of each class, and, where that is
    /// to be explained, how much each position of each modality counted.
    pub fn ask(&self, asked: Vec<BTreeMap<Modality, Source>>, explain: bool) -> Result<Vec<Asked>> {
        let row = |(number, values): (usize, BTreeMap<Modality, Source>)| Row {
            id: number.to_string(),
            number: number + 1,
            item: number.to_string(),
            label: None,
            order: number as f64,
            split: Split::Test,
            values: values.into_iter().map(|(m, v)| (m, vec![v])).collect(),
            languages: BTreeMap::new(),
            cells: BTreeMap::new(),
        };
        let rows: Vec<Row> = asked.into_iter().enumerate().map(row).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        let manifest = Manifest { path: "what was asked".into(), rows, columns: mm_data::Columns::default() };
        self.first().network.explained.set(explain);
        let found = self.combined(&manifest, &all, &[]);
        self.first().network.explained.set(false);
        let found = found?;
        if let Some(broken) = found.broken.first() {
            return Err(Error::Config(broken.reason.clone()));
        }
        let classes = found.values.size(1)? as usize;
        let scores = found.values.to_vec::<f64>()?;
        let logits = found.fused.to_vec::<f64>()?;
        let looks = found.looks.into_iter().chain(std::iter::repeat_with(Look::default));
        let each = |((scores, logits), look): ((&[f64], &[f64]), _)| Asked {
            probabilities: scores.to_vec(),
            logits: logits.to_vec(),
            look,
        };
        Ok(scores.chunks(classes).zip(logits.chunks(logits.len() / all.len().max(1))).zip(looks).map(each).collect())
    }

    /// Evaluates rows that have labels, without the modalities in `drop`.
    pub fn evaluate(&self, manifest: &Manifest, rows: &[usize], drop: &[Modality]) -> Result<Evaluation> {
        let found = self.combined(manifest, rows, drop)?;
        let mut evaluation = super::measure(&self.first().config, self.target(), manifest, &found.rows, &found.values)?;
        if !self.target().classes.is_empty() {
            // Answers of people, where the rows have them.
            let best: Vec<i64> = found.values.argmax(1)?.to_vec()?;
            let predicted = best.iter().map(|n| self.target().classes.get(*n as usize).map_or("", String::as_str));
            let asks = self.first().config.reasoning.is_some();
            let rows = predicted.zip(&found.rows).map(|(predicted, row)| {
                let cells = &manifest.rows[*row].cells;
                let label = cells.get(self.label()).map(String::as_str);
                let question = super::blind::question(manifest, *row).filter(|_| asks);
                metrics::AnsweredRow { predicted, label, question, cells }
            });
            evaluation.metrics.extend(metrics::answer_metrics(rows));
        }
        evaluation.failed = found.broken;
        Ok(evaluation)
    }
}

/// What one network makes of rows, its heads pooled.
fn one(
    (model, combination): &(Prediction, Combination),
    manifest: &Manifest,
    rows: &[usize],
    drop: &[Modality],
) -> Result<Combined> {
    // Its own data were encoded for training, and are asked again for every modality that is left out.
    let own = manifest.path == model.base.join(&model.config.common.data.manifest);
    let answers =
        if own { model.answer_own(manifest, rows, drop)? } else { model.answer_fresh(manifest, rows, drop)? };
    let values = combination.apply(model, &answers)?;
    let Answers { rows, fused, present, weights, broken, looks, .. } = answers;
    Ok(Combined { rows, values, present, weights, broken, fused, looks })
}

fn labels(rows: &[usize], manifest: &Manifest, column: &str, target: &Target) -> Vec<Option<Label>> {
    rows.iter().map(|r| target.encode(manifest.rows[*r].cells.get(column)?)).collect()
}

/// Which of the labels are known classes, and their numbers.
fn known_classes(labels: &[Option<Label>]) -> (Vec<i64>, Vec<i64>) {
    let known = labels.iter().enumerate();
    known.filter_map(|(n, l)| if let Some(Label::Class(c)) = l { Some((n as i64, *c as i64)) } else { None }).unzip()
}

/// Writes predictions as .parquet, .csv or .jsonl.
pub fn write_predictions(out: &Path, all: &[Predicted]) -> Result<()> {
    let bad = |e: &dyn std::fmt::Display| Error::File { path: out.to_owned(), reason: e.to_string() };
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned);
    let classes: Vec<&String> = all.first().map(|a| a.probabilities.iter().map(|p| &p.0).collect()).unwrap_or_default();
    let ending = out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let bytes = match ending {
        "jsonl" => all.iter().map(|a| a.json().to_string() + "\n").collect::<String>().into_bytes(),
        "csv" => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            let head = ["row", "id", "prediction", "present"].map(ToOwned::to_owned);
            let head = head.into_iter().chain(classes.iter().map(|c| format!("p({c})")));
            writer.write_record(head.collect::<Vec<_>>()).map_err(|e| bad(&e))?;
            for answer in all {
                let own = [answer.row.to_string(), answer.id.clone(), text(&answer.prediction), present(answer)];
                let cells = own.into_iter().chain(answer.probabilities.iter().map(|p| p.1.to_string()));
                writer.write_record(cells.collect::<Vec<_>>()).map_err(|e| bad(&e))?;
            }
            writer.into_inner().map_err(|e| bad(&e))?
        }
        "parquet" => table(all, &classes).map_err(|e| bad(&e))?,
        other => {
            return Err(Error::Config(format!(
                "{}: found the ending `{other}`, wanted .parquet, .csv or .jsonl",
                out.display()
            )));
        }
    };
    Ok(checkpoint::write_atomic(out, &bytes)?)
}

fn present(answer: &Predicted) -> String {
    answer.present.iter().map(Modality::name).collect::<Vec<_>>().join(";")
}

fn table(all: &[Predicted], classes: &[&String]) -> parquet::errors::Result<Vec<u8>> {
    use parquet::{
        data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    // Column names may hold anything but what the schema's own text is made of.
    let safe =
        |c: &String| c.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect::<String>();
    let number = classes.is_empty();
    let mut fields = String::from("required int64 row; required binary id (UTF8); required binary present (UTF8);");
    fields.push_str(if number { "required double prediction;" } else { "required binary prediction (UTF8);" });
    for (n, class) in classes.iter().enumerate() {
        fields.push_str(&format!("required double p{n}_{};", safe(class)));
    }
    let schema = std::sync::Arc::new(parse_message_type(&format!("message predictions {{ {fields} }}"))?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, std::sync::Arc::new(WriterProperties::default()))?;
    let text = |v: String| ByteArray::from(v.into_bytes());
    let mut group = writer.next_row_group()?;
    let mut place = 0usize;
    while let Some(mut column) = group.next_column()? {
        match place {
            0 => drop(column.typed::<Int64Type>().write_batch(
                &all.iter().map(|a| a.row as i64).collect::<Vec<_>>(),
                None,
                None,
            )?),
            1 | 2 => {
                let values = all.iter().map(|a| text(if place == 1 { a.id.clone() } else { present(a) }));
                column.typed::<ByteArrayType>().write_batch(&values.collect::<Vec<_>>(), None, None)?;
            }
            3 if number => {
                let values: Vec<f64> = all.iter().map(|a| a.prediction.as_f64().unwrap_or(f64::NAN)).collect();
                column.typed::<DoubleType>().write_batch(&values, None, None)?;
            }
            3 => {
                let values = all
                    .iter()
                    .map(|a| text(a.prediction.as_str().map_or_else(|| a.prediction.to_string(), ToOwned::to_owned)));
                column.typed::<ByteArrayType>().write_batch(&values.collect::<Vec<_>>(), None, None)?;
            }
            class => {
                let values: Vec<f64> = all.iter().map(|a| a.probabilities[class - 4].1).collect();
                column.typed::<DoubleType>().write_batch(&values, None, None)?;
            }
        }
        column.close()?;
        place += 1;
    }
    group.close()?;
    writer.into_inner()
}
