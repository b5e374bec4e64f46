//! Visual question answering: answers to questions about images, videos and audio, by pretrained checkpoints and by
//! trained prediction runs.

use crate::{
    Error, Result, finetuning,
    prediction::{Predictor, ValuePrediction},
};
use mm_core::{Device, Modality, Registry, Source};
use mm_reason::{Attribution, EncodedMedia, Pipeline, Request, ScoredAnswer, generate::GenerationConfig};
use mm_repr::{LoadOptions, text::word_tokens};
use std::{collections::BTreeMap, path::Path};

/// Questions that a run answers in one batch.
const RUN_BATCH_SIZE: usize = 16;

/// A value of a modality, and a question about it.
pub type Question = (Modality, Source, String);

/// Options for answering questions.
#[derive(Debug, Clone, Default)]
pub struct AnswerOptions {
    /// The answers to choose among; any when empty.
    pub candidates: Vec<String>,
    /// Settings of generation; the model's own when absent.
    pub generation: Option<GenerationConfig>,
    /// Whether answers are attributed to image and question.
    pub explain: bool,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The most probable answer.
    pub answer: String,
    /// All scored answers, most probable first.
    pub scores: Vec<ScoredAnswer>,
    /// Attribution of the answer to image and question.
    pub attribution: Option<Attribution>,
}

/// A model that answers questions.
pub struct Answerer {
    model: Model,
}

enum Model {
    Pretrained(PretrainedModel),
    Run(Box<Predictor>),
}

/// A pretrained checkpoint with the media that it has encoded, so that further questions about them need not encode
/// them again.
struct PretrainedModel {
    pipeline: Box<Pipeline>,
    media: Vec<CachedMedia>,
}

struct CachedMedia {
    modality: Modality,
    source: Source,
    encoded: EncodedMedia,
}

impl Answerer {
    /// Opens a checkpoint folder or a run folder of prediction or fine-tuning.
    ///
    /// # Errors
    /// When it is neither, or a run that predicts numbers.
    pub fn open(folder: &Path, registry: &Registry, options: LoadOptions, device: Device) -> Result<Self> {
        let finetuned = finetuning::model_dir(folder);
        let folder = finetuned.as_deref().unwrap_or(folder);
        if !Predictor::is_run(folder) {
            let pipeline = Box::new(Pipeline::load(folder, options)?);
            return Ok(Self { model: Model::Pretrained(PretrainedModel { pipeline, media: Vec::new() }) });
        }
        Self::from_run(folder, Predictor::open(folder, registry, device)?)
    }

    /// A trained run, which was opened from a folder.
    ///
    /// # Errors
    /// When it predicts numbers.
    pub fn from_run(folder: &Path, run: Predictor) -> Result<Self> {
        if run.target().classes.is_empty() {
            let found = format!("{}, a regression", folder.display());
            return Err(Error::invalid("model", found, "a run that predicts answers (classes)"));
        }
        Ok(Self { model: Model::Run(Box::new(run)) })
    }

    /// The generation settings of the checkpoint; `None` where it does not generate.
    pub fn generation(&self) -> Option<&GenerationConfig> {
        match &self.model {
            Model::Pretrained(model) if model.pipeline.can_generate() => Some(&model.pipeline.generation),
            _ => None,
        }
    }

    /// Maximum number of questions in one batch.
    pub fn max_batch_size(&self) -> usize {
        match &self.model {
            Model::Pretrained(model) => model.pipeline.max_batch_size(),
            Model::Run(_) => RUN_BATCH_SIZE,
        }
    }

    /// Answers questions in one batch; a question that cannot be answered is an error of its own.
    ///
    /// # Errors
    /// When candidates are empty or repeated, or the model fails.
    pub fn answer(&mut self, questions: &[Question], options: &AnswerOptions) -> Result<Vec<Result<Answer>>> {
        check_candidates(&options.candidates)?;
        match &mut self.model {
            Model::Pretrained(model) => model.answer(questions, options),
            Model::Run(run) => {
                // Explained questions are answered one by one, so that no token is padded; and so are all when one of
                // them fails, so that the others are answered.
                if !options.explain
                    && questions.len() > 1
                    && let Ok(answers) = questions
                        .iter()
                        .try_for_each(check_question)
                        .and_then(|()| answer_with_run(run, questions, options))
                {
                    return Ok(answers.into_iter().map(Ok).collect());
                }
                let answer = |question| {
                    check_question(question)?;
                    Ok(answer_with_run(run, std::slice::from_ref(question), options)?.remove(0))
                };
                Ok(questions.iter().map(answer).collect())
            }
        }
    }
}

fn check_candidates(candidates: &[String]) -> Result<()> {
    let mut sorted: Vec<&String> = candidates.iter().collect();
    sorted.sort();
    if let Some([repeated, _]) = sorted.windows(2).find(|w| w[0] == w[1]) {
        return Err(Error::invalid("candidates", format!("`{repeated}` twice"), "different answers"));
    }
    if candidates.iter().any(|c| c.trim().is_empty()) {
        return Err(Error::invalid("candidates", "an empty answer", "answers with text"));
    }
    Ok(())
}

fn check_question((.., question): &Question) -> Result<()> {
    if question.trim().is_empty() {
        return Err(Error::invalid("question", "an empty text", "a question"));
    }
    Ok(())
}

impl PretrainedModel {
    fn answer(&mut self, questions: &[Question], options: &AnswerOptions) -> Result<Vec<Result<Answer>>> {
        let failed = self.encode_media(questions)?;
        let media_of = |(modality, source, _): &Question| {
            self.media.iter().find(|m| m.modality == *modality && m.source == *source).map(|m| &m.encoded)
        };
        let (mut media, mut requests) = (Vec::new(), Vec::new());
        for (question, failed) in questions.iter().zip(failed) {
            let found = check_question(question).and_then(|()| failed.map_or(Ok(media_of(question)), Err));
            if let Ok(found) = &found {
                requests.push((*found, Request::Question(&question.2)));
            }
            media.push(found);
        }
        let pipeline = &self.pipeline;
        let config = options.generation.as_ref().unwrap_or(&pipeline.generation);
        let mut scores = pipeline.answer_batch(&requests, &options.candidates, config, &|_| false).into_iter();
        let mut answer = |(.., question): &Question, media: Option<&EncodedMedia>| {
            let scores = scores.next().unwrap_or_else(|| Ok(Vec::new()))?;
            let answer = scores.first().map(|s| s.answer.clone()).unwrap_or_default();
            let attribution = match media {
                Some(media) if options.explain => {
                    Some(pipeline.explain(media, Request::Question(question), &answer)?)
                }
                _ => None,
            };
            Ok(Answer { answer, scores, attribution })
        };
        Ok(questions.iter().zip(media).map(|(question, media)| answer(question, media?)).collect())
    }

    /// Encodes the media of the questions that are not encoded yet and drops all others; returns for each question why
    /// its media cannot be read.
    fn encode_media(&mut self, questions: &[Question]) -> Result<Vec<Option<Error>>> {
        self.media.retain(|cached| questions.iter().any(|(m, s, _)| *m == cached.modality && *s == cached.source));
        let mut missing: Vec<(Modality, Source)> = Vec::new();
        for (modality, source, _) in questions {
            let is_cached = self.media.iter().any(|m| m.modality == *modality && m.source == *source);
            if !is_cached && !missing.iter().any(|(m, s)| m == modality && s == source) {
                missing.push((modality.clone(), source.clone()));
            }
        }
        let mut failed = Vec::new();
        while let Some((modality, _)) = missing.first().cloned() {
            let (same, rest) = missing.into_iter().partition::<Vec<_>, _>(|(m, _)| *m == modality);
            missing = rest;
            let sources: Vec<Source> = same.into_iter().map(|(_, source)| source).collect();
            for (source, encoded) in sources.iter().zip(self.pipeline.encode_media_each(&modality, &sources)?) {
                let (modality, source) = (modality.clone(), source.clone());
                match encoded {
                    Ok(encoded) => self.media.push(CachedMedia { modality, source, encoded }),
                    Err(error) => failed.push((modality, source, error)),
                }
            }
        }
        // The first question about it gets the error itself, others a copy of its text.
        let mut failure = |(modality, source, _): &Question| {
            let index = failed.iter().position(|(m, s, _)| m == modality && s == source)?;
            let copy = mm_core::Error::Sample(failed[index].2.to_string()).into();
            Some(std::mem::replace(&mut failed[index].2, copy).into())
        };
        Ok(questions.iter().map(&mut failure).collect())
    }
}

fn answer_with_run(run: &Predictor, questions: &[Question], options: &AnswerOptions) -> Result<Vec<Answer>> {
    let known = run.modalities();
    for modality in questions.iter().map(|(modality, ..)| modality).chain([&Modality::TEXT]) {
        if !known.contains(modality) {
            let names = known.iter().map(Modality::name);
            return Err(mm_core::Error::unknown("modality of this run", modality.name(), names).into());
        }
    }
    let classes = &run.target().classes;
    if let Some(unknown) = options.candidates.iter().find(|c| !classes.contains(c)) {
        return Err(mm_core::Error::unknown("answer of this run", unknown, classes.iter().map(String::as_str)).into());
    }
    let values = |(modality, source, question): &Question| {
        BTreeMap::from([(modality.clone(), source.clone()), (Modality::TEXT, Source::Text(question.clone()))])
    };
    let predictions = run.predict_values(questions.iter().map(values).collect(), options.explain)?;
    let answer = |(question, prediction): (&Question, ValuePrediction)| {
        let scores = score_answers(&prediction, classes, &options.candidates);
        let answer = scores.first().map(|s| s.answer.clone()).unwrap_or_default();
        let attribution = options.explain.then(|| attribution(question, &prediction, run.has_program_steps()));
        Ok(Answer { answer, scores, attribution: attribution.transpose()? })
    };
    questions.iter().zip(predictions).map(answer).collect()
}

/// The classes (among the candidates, if there are such) with their probabilities, most probable first.
fn score_answers(prediction: &ValuePrediction, classes: &[String], candidates: &[String]) -> Vec<ScoredAnswer> {
    let is_candidate = |class: &String| candidates.is_empty() || candidates.contains(class);
    let all = classes.iter().zip(&prediction.probabilities).zip(&prediction.logits);
    let score = |((class, p), logit): ((&String, &f64), &f64)| {
        is_candidate(class).then(|| ScoredAnswer { answer: class.clone(), score: *p, logit: *logit })
    };
    let mut scores: Vec<ScoredAnswer> = all.filter_map(score).collect();
    if !candidates.is_empty() {
        let total: f64 = scores.iter().map(|s| s.score).sum::<f64>().max(1e-300);
        scores.iter_mut().for_each(|s| s.score /= total);
    }
    scores.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.logit.total_cmp(&a.logit)));
    scores
}

/// Grad-CAM and attention maps of a run as an attribution.
fn attribution(
    (modality, _, question): &Question,
    prediction: &ValuePrediction,
    has_program_steps: bool,
) -> Result<Attribution> {
    let saliency = &prediction.saliency;
    let patches = saliency.grad_cam.get(modality).cloned().ok_or_else(|| {
        let found = format!("a run that uses one vector of the {modality}, without positions");
        Error::invalid("explain", found, "a run with `[reasoning]` in its config")
    })?;
    let side = (patches.len() as f64).sqrt().round() as usize;
    let grid = if side * side == patches.len() { [side, side] } else { [1, patches.len()] };
    // Word by word where the text encoder takes words.
    let words: Vec<String> = word_tokens(question).collect();
    let weights = saliency.grad_cam.get(&Modality::TEXT);
    let weights = weights.filter(|w| w.len() == words.len()).cloned().unwrap_or_default();
    let steps = saliency.attention.iter().filter_map(|step| step.get(modality));
    let name = |index: usize| {
        let word = words.get(index).filter(|_| has_program_steps).cloned();
        word.unwrap_or_else(|| (index + 1).to_string())
    };
    let steps: Vec<(String, Vec<f32>)> = steps
        .filter(|weights| weights.iter().any(|w| *w > 0.0))
        .enumerate()
        .map(|(index, weights)| (name(index), weights.clone()))
        .collect();
    Ok(Attribution { patches, grid, words: words.into_iter().zip(weights).collect(), steps })
}
