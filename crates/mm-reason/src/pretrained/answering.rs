//! Answering questions with a pipeline: generated answers, ranked choices, classified labels, image-text matching and
//! attribution.

use super::{
    pipeline::Pipeline,
    traits::ConditionalGenerator,
    types::{Attribution, EncodedMedia, Prompt, Request},
};
use crate::{
    Error, Result,
    generate::{GeneratedSequence, GenerationConfig, LogitsProcessors, log_likelihoods},
};
use mm_core::{DType, Device, Tensor, no_grad};

/// Choices that are ranked between two checks whether their ranks are still wanted.
const CHOICES_AT_ONCE: usize = 16;

/// An answer with its score.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredAnswer {
    /// The answer.
    pub answer: String,
    /// A probability: of a label, its sigmoid; of a choice, the softmax over the choices; of a generated text, the
    /// geometric mean of its tokens' probabilities.
    pub score: f64,
    /// The label's logit, or the log-probability of the text.
    pub logit: f64,
}

impl Pipeline {
    /// Answers a question about one row of media: the `num_return_sequences` best generated answers, or the ranked
    /// `choices`; for classifiers all labels, or the ranked labels among `choices`.
    ///
    /// # Errors
    /// If the model does not answer questions, or if a choice is not one of a classifier's labels.
    pub fn answer(
        &self,
        media: Option<&EncodedMedia>,
        request: Request<'_>,
        choices: &[String],
        config: &GenerationConfig,
    ) -> Result<Vec<ScoredAnswer>> {
        match self.model.as_generator() {
            Some(_) if choices.is_empty() => {
                let found = self.generate(media, request, config, &LogitsProcessors::default(), &mut |_, _| {})?;
                found.first().into_iter().flatten().map(|sequence| self.scored(sequence, config)).collect()
            }
            _ => self.choose(media, request, choices, config, &|| false),
        }
    }

    /// Answers several questions, each about its own media, in one batch where the model generates. A question that
    /// cannot be answered is an error of that question alone. `is_unwanted` says, by its place, whether an answer is no
    /// longer wanted: it is asked at every token, or between questions and choices that are ranked, and what is unwanted
    /// has no answers or ends there.
    pub fn answer_batch(
        &self,
        questions: &[(Option<&EncodedMedia>, Request<'_>)],
        choices: &[String],
        config: &GenerationConfig,
        is_unwanted: &dyn Fn(usize) -> bool,
    ) -> Vec<Result<Vec<ScoredAnswer>>> {
        if !self.can_generate() || !choices.is_empty() {
            let choose = |(place, (media, request)): (usize, &(Option<&EncodedMedia>, Request<'_>))| {
                self.choose(*media, *request, choices, config, &|| is_unwanted(place))
            };
            return questions.iter().enumerate().map(choose).collect();
        }
        let all_unwanted = || (0..questions.len()).all(is_unwanted);
        let processors = LogitsProcessors { interrupt: Some(&all_unwanted), ..LogitsProcessors::default() };
        let sequences = self.generate_batch(questions, config, &processors).into_iter();
        sequences.map(|found| found?.iter().map(|sequence| self.scored(sequence, config)).collect()).collect()
    }

    /// The ranked choices, or the labels of a classifier; none where they are no longer wanted.
    fn choose(
        &self,
        media: Option<&EncodedMedia>,
        request: Request<'_>,
        choices: &[String],
        config: &GenerationConfig,
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<Vec<ScoredAnswer>> {
        match self.model.as_generator() {
            _ if is_unwanted() => Ok(Vec::new()),
            None => self.classify(media, request, choices),
            Some(generator) => {
                let prompt = self.prompt(media, request)?;
                let logits = self.log_likelihoods(generator, (media, &prompt), choices, config, is_unwanted)?;
                Ok(ranked(choices, &logits))
            }
        }
    }

    /// A generated sequence as an answer.
    fn scored(&self, sequence: &GeneratedSequence, config: &GenerationConfig) -> Result<ScoredAnswer> {
        let tokens = (sequence.token_ids.len() + usize::from(sequence.finished)).max(1) as f64;
        let answer = config.truncate_at_stop(self.tokenizer.decode(&sequence.token_ids)?).trim().to_owned();
        Ok(ScoredAnswer { answer, score: (sequence.log_prob / tokens).exp(), logit: sequence.log_prob })
    }

    /// The log-likelihoods that a generator assigns to choices; none where they are no longer wanted.
    fn log_likelihoods(
        &self,
        generator: &dyn ConditionalGenerator,
        (media, prompt): (Option<&EncodedMedia>, &Prompt),
        choices: &[String],
        config: &GenerationConfig,
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<Vec<f64>> {
        let ids = choices.iter().map(|c| self.tokenizer.encode(c, false)).collect::<Result<Vec<_>>>()?;
        let longest = ids.iter().map(Vec::len).max().unwrap_or(0) as i64;
        no_grad(|| {
            let prefill = generator.prefill(media, prompt, longest + 1)?;
            let mut found = Vec::with_capacity(ids.len());
            for ids in ids.chunks(CHOICES_AT_ONCE) {
                if is_unwanted() {
                    return Ok(Vec::new());
                }
                let eos = config.eos_token_id.first().copied();
                found.extend(log_likelihoods(generator.decoder(), &prefill, ids, eos)?);
            }
            Ok(found)
        })
    }

    /// Labels by the logits of a classifier.
    fn classify(
        &self,
        media: Option<&EncodedMedia>,
        request: Request<'_>,
        choices: &[String],
    ) -> Result<Vec<ScoredAnswer>> {
        let media = media.ok_or_else(|| {
            Error::invalid_argument(format!("input of a model of family {}", self.family), "no image", "an image")
        })?;
        let logits = self.answer_logits(media, request)?.select(0, 0)?;
        let logits = logits.to_dtype(DType::F64)?.to_device(Device::Cpu)?.to_vec::<f64>()?;
        if let Some(unknown) = choices.iter().find(|c| !self.labels.contains(c)) {
            let known = self.labels.iter().map(String::as_str);
            return Err(mm_core::Error::unknown("label of this model", unknown, known).into());
        }
        let sigmoid = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        let chosen = self.labels.iter().zip(&logits).filter(|(l, _)| choices.is_empty() || choices.contains(l));
        let scored = |(label, logit): (&String, &f64)| ScoredAnswer {
            answer: label.clone(),
            score: sigmoid(*logit),
            logit: *logit,
        };
        Ok(sorted(chosen.map(scored).collect()))
    }

    /// Logits `[rows, labels]` of a classifier for one question about each row of media.
    ///
    /// # Errors
    /// If the checkpoint has no classifier.
    pub fn answer_logits(&self, media: &EncodedMedia, request: Request<'_>) -> Result<Tensor> {
        let prompt = self.prompt(Some(media), request)?;
        let classifier = self.model.as_classifier().ok_or_else(|| {
            let what = format!("a model of family {}", self.family);
            let expected = "a checkpoint with a decoder or an answer classifier; this one has neither";
            Error::invalid_argument(what, "a question", expected)
        })?;
        Ok(no_grad(|| classifier.answer_logits(media, &prompt))?)
    }

    /// Probability that a text describes an image.
    ///
    /// # Errors
    /// If the checkpoint has no image-text matching head.
    pub fn itm_score(&self, media: &EncodedMedia, text: &str) -> Result<f64> {
        let prompt = self.prompt(Some(media), Request::Question(text))?;
        no_grad(|| self.model.itm_score(media, &prompt))?.ok_or_else(|| {
            let what = format!("a model of family {}", self.family);
            Error::invalid_argument(what, "an image and a text to match", "a checkpoint with a matching head")
        })
    }

    /// How much each patch of the image and each token of the question contributed to an answer.
    ///
    /// # Errors
    /// If the family does not support it.
    pub fn explain(&self, media: &EncodedMedia, request: Request<'_>, answer: &str) -> Result<Attribution> {
        let prompt = self.prompt(Some(media), request)?;
        let answer = self.tokenizer.encode(answer, false)?;
        no_grad(|| self.model.explain(&self.tokenizer, media, &prompt, &answer))?.ok_or_else(|| {
            let found = format!("a model of family {}", self.family);
            Error::invalid_argument("--explain", found, "vilt, blip, git, llava or qwen2_vl, or a run folder")
        })
    }
}

/// Choices by their log-likelihoods.
fn ranked(choices: &[String], logits: &[f64]) -> Vec<ScoredAnswer> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    let scored = |(choice, logit): (&String, &f64)| ScoredAnswer {
        answer: choice.clone(),
        score: (logit - highest).exp() / total,
        logit: *logit,
    };
    sorted(choices.iter().zip(logits).map(scored).collect())
}

/// Highest logit first.
fn sorted(mut answers: Vec<ScoredAnswer>) -> Vec<ScoredAnswer> {
    answers.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    answers
}
