//! Beam search with transformers' rules for which candidates continue, when a finished sequence counts and when the
//! search stops.

use super::{
    config::{EarlyStopping, GenerationConfig},
    logits::LogitsProcessors,
    model::{GeneratedSequence, LanguageModel, Prefill, to_rows},
};
use crate::Result;
use mm_core::{DType, Tensor};

/// Lower than any sum of log-probabilities.
const LOWEST: f32 = -1e9;

#[derive(Clone)]
struct Beam {
    score: f32,
    tokens: Vec<i64>,
}

#[derive(Clone)]
struct FinishedBeam {
    score: f32,
    log_prob: f32,
    tokens: Vec<i64>,
    /// False for placeholders until enough beams have finished.
    real: bool,
}

/// A possible continuation of a running beam.
struct Candidate {
    log_prob: f32,
    beam: usize,
    token: i64,
    /// Whether it ends the sequence, by an end token or by the maximum length.
    ends: bool,
}

/// The beams of one row.
struct BeamSearch {
    running: Vec<Beam>,
    finished: Vec<FinishedBeam>,
    prompt_length: usize,
    /// Whether a running beam can still beat a finished one.
    improvable: bool,
    done: bool,
}

/// The `k` highest scores with their indices, highest first; of equal ones the first.
fn top_k(scores: &[f32], k: usize) -> Vec<(f32, usize)> {
    let mut best: Vec<(f32, usize)> = Vec::with_capacity(k + 1);
    for (index, score) in scores.iter().enumerate() {
        if best.len() == k && best.last().is_none_or(|lowest| *score <= lowest.0) {
            continue;
        }
        let rank = best.partition_point(|other| other.0 >= *score);
        best.insert(rank, (*score, index));
        best.truncate(k);
    }
    best
}

/// The divisor of the log-probability of a sequence of this length.
fn length_penalty(length: usize, config: &GenerationConfig) -> f32 {
    (length as f32).powf(config.length_penalty as f32)
}

impl BeamSearch {
    fn new(prompt: &[i64], num_beams: usize) -> Self {
        let placeholder = FinishedBeam { score: LOWEST, log_prob: LOWEST, tokens: prompt.to_vec(), real: false };
        Self {
            // All beams start alike, so there is one.
            running: vec![Beam { score: 0.0, tokens: prompt.to_vec() }],
            finished: vec![placeholder; num_beams],
            prompt_length: prompt.len(),
            improvable: true,
            done: false,
        }
    }

    /// Log-probabilities of the next token of each running beam → the parent of each new running beam.
    fn step(&mut self, log_probs: &[f32], vocab_size: usize, config: &GenerationConfig) -> Vec<usize> {
        let length = self.running[0].tokens.len() + 1 - self.prompt_length;
        let candidates = self.candidates(log_probs, vocab_size, length, config);
        self.update_finished(&candidates, length, config);
        let parents = self.update_running(&candidates, config);
        let reachable = if config.early_stopping == EarlyStopping::Never && config.length_penalty > 0.0 {
            config.max_new_tokens
        } else {
            length
        };
        let possible = self.running[0].score / length_penalty(reachable, config);
        let worst = self.finished.iter().map(|f| f.score).fold(f32::INFINITY, f32::min);
        self.improvable &= self.finished.iter().any(|f| possible > if f.real { worst } else { LOWEST });
        self.done = !self.improvable || self.first_n_reached(config) || candidates.iter().all(|c| c.ends);
        parents
    }

    fn first_n_reached(&self, config: &GenerationConfig) -> bool {
        config.early_stopping == EarlyStopping::FirstN && self.finished.iter().all(|f| f.real)
    }

    /// The best continuations: enough that `num_beams` remain if all end tokens are among them.
    fn candidates(
        &self,
        log_probs: &[f32],
        vocab_size: usize,
        length: usize,
        config: &GenerationConfig,
    ) -> Vec<Candidate> {
        let count = (1 + config.eos_token_id.len()).max(2) * config.num_beams;
        let mut sums = log_probs.to_vec();
        for (beam, part) in self.running.iter().zip(sums.chunks_mut(vocab_size)) {
            part.iter_mut().for_each(|sum| *sum += beam.score);
        }
        let full = length >= config.max_new_tokens;
        let candidate = |(log_prob, index): (f32, usize)| {
            let token = (index % vocab_size) as i64;
            Candidate { log_prob, beam: index / vocab_size, token, ends: full || config.is_eos(token) }
        };
        top_k(&sums, count).into_iter().map(candidate).collect()
    }

    /// Adds candidates that end to the finished beams, and keeps the best.
    fn update_finished(&mut self, candidates: &[Candidate], length: usize, config: &GenerationConfig) {
        let first_n_reached = self.first_n_reached(config);
        let mut merged = self.finished.clone();
        for (rank, candidate) in candidates.iter().enumerate() {
            let real = candidate.ends && rank < config.num_beams;
            let mut score = candidate.log_prob / length_penalty(length, config);
            for excluded in [first_n_reached, !self.improvable, !real] {
                score += if excluded { LOWEST } else { 0.0 };
            }
            let mut tokens = self.running[candidate.beam].tokens.clone();
            tokens.push(candidate.token);
            merged.push(FinishedBeam { score, log_prob: candidate.log_prob, tokens, real });
        }
        let order = top_k(&merged.iter().map(|f| f.score).collect::<Vec<_>>(), config.num_beams);
        self.finished = order.iter().map(|(_, index)| merged[*index].clone()).collect();
    }

    /// Continues with the best candidates that do not end; returns the beam that each of them continues.
    fn update_running(&mut self, candidates: &[Candidate], config: &GenerationConfig) -> Vec<usize> {
        let scores: Vec<f32> =
            candidates.iter().map(|c| if c.ends { c.log_prob + LOWEST } else { c.log_prob }).collect();
        let (mut running, mut parents) = (Vec::new(), Vec::new());
        for (score, index) in top_k(&scores, config.num_beams) {
            let Candidate { beam, token, .. } = candidates[index];
            let mut tokens = self.running[beam].tokens.clone();
            tokens.push(token);
            running.push(Beam { score, tokens });
            parents.push(beam);
        }
        self.running = running;
        parents
    }

    fn results(&self, config: &GenerationConfig) -> Vec<GeneratedSequence> {
        let sequence = |beam: &FinishedBeam| {
            let new = &beam.tokens[self.prompt_length..];
            let eos = new.last().is_some_and(|token| config.is_eos(*token));
            GeneratedSequence {
                token_ids: new[..new.len() - usize::from(eos)].to_vec(),
                log_prob: f64::from(beam.log_prob),
                score: f64::from(beam.score),
                finished: eos,
            }
        };
        let finished = self.finished.iter().filter(|beam| beam.real);
        let found: Vec<GeneratedSequence> = finished.take(config.num_return_sequences).map(sequence).collect();
        if !found.is_empty() {
            return found;
        }
        // Interrupted before a beam finished: the best running one.
        let Beam { score, tokens } = &self.running[0];
        let new = tokens[self.prompt_length..].to_vec();
        let log_prob = f64::from(*score);
        let score = log_prob / (new.len().max(1) as f64).powf(config.length_penalty);
        vec![GeneratedSequence { token_ids: new, log_prob, score, finished: false }]
    }
}

pub(super) fn search<M: LanguageModel>(
    model: &M,
    prefill: Prefill<M::State>,
    config: &GenerationConfig,
    processors: &LogitsProcessors<'_>,
) -> Result<Vec<Vec<GeneratedSequence>>> {
    let Prefill { mut state, mut logits, prompts } = prefill;
    let device = logits.device();
    let vocab_size = logits.size(-1)? as usize;
    let mut searches: Vec<BeamSearch> =
        prompts.iter().map(|prompt| BeamSearch::new(prompt, config.num_beams)).collect();
    // Searches that are not done; their running beams are the rows of the state.
    let mut active: Vec<usize> = (0..searches.len()).collect();
    loop {
        let mut log_probs = to_rows(&logits.to_dtype(DType::F32)?.log_softmax(-1)?)?;
        let (mut parents, mut next) = (Vec::new(), Vec::new());
        let mut first_row = 0;
        for index in &active {
            let search = &mut searches[*index];
            let rows = search.running.len();
            let own = &mut log_probs[first_row * vocab_size..(first_row + rows) * vocab_size];
            for (beam, scores) in search.running.iter().zip(own.chunks_mut(vocab_size)) {
                processors.apply(config, &beam.tokens, search.prompt_length, scores);
            }
            let own_parents = search.step(own, vocab_size, config);
            if !search.done {
                parents.extend(own_parents.iter().map(|parent| (first_row + parent) as i64));
                next.extend(search.running.iter().map(|beam| beam.tokens.last().copied().unwrap_or(0)));
            }
            first_row += rows;
        }
        active.retain(|index| !searches[*index].done);
        if active.is_empty() || processors.interrupted() {
            return Ok(searches.iter().map(|search| search.results(config)).collect());
        }
        let unchanged = parents.len() == first_row && parents.iter().enumerate().all(|(n, p)| n as i64 == *p);
        if !unchanged {
            model.reorder(&mut state, &Tensor::from_slice(&parents)?.to_device(device)?)?;
        }
        let ids = Tensor::from_vec(&next, &[next.len() as i64, 1])?.to_device(device)?;
        logits = model.step(&ids, &mut state)?;
    }
}
