//! Beam search with transformers' rules: which candidates are kept, when a finished text counts, when the search stops.

use super::{EarlyStopping, GeneratedSequence, GenerationConfig, LanguageModel, LogitsProcessors, Prefill, rows};
use crate::Result;
use mm_core::{DType, Tensor};

/// Worse than any sum of log-probabilities.
const WORST: f32 = -1e9;

#[derive(Clone)]
struct Beam {
    score: f32,
    said: Vec<i64>,
}

#[derive(Clone)]
struct Finished {
    score: f32,
    sum: f32,
    said: Vec<i64>,
    real: bool,
}

/// The search of one row.
struct Search {
    running: Vec<Beam>,
    finished: Vec<Finished>,
    prompt: usize,
    /// Whether a running beam may still become better than a finished one.
    hopeful: bool,
    done: bool,
}

/// The `keep` best of `(score, beam, token)`, best first; of equals the first.
fn best(scores: &[f32], keep: usize) -> Vec<(f32, usize)> {
    let mut found: Vec<(f32, usize)> = Vec::with_capacity(keep + 1);
    for (place, score) in scores.iter().enumerate() {
        if found.len() == keep && found.last().is_none_or(|l| *score <= l.0) {
            continue;
        }
        let at = found.partition_point(|f| f.0 >= *score);
        found.insert(at, (*score, place));
        found.truncate(keep);
    }
    found
}

impl Search {
    /// One step: scores of each running beam's next token, log-probabilities already under the rules. Gives for each new running beam the
    /// old one that it goes on from.
    fn step(&mut self, scores: &[f32], vocabulary: usize, config: &GenerationConfig) -> Vec<usize> {
        let beams = config.num_beams;
        let keep = (1 + config.eos_token_id.len()).max(2) * beams;
        let mut sums = scores.to_vec();
        for (beam, part) in self.running.iter().zip(sums.chunks_mut(vocabulary)) {
            part.iter_mut().for_each(|s| *s += beam.score);
        }
        let length = self.running[0].said.len() + 1 - self.prompt;
        let full = length >= config.max_new_tokens;
        let penalty = |n: usize| (n as f32).powf(config.length_penalty as f32);
        let candidates: Vec<(f32, usize, i64, bool)> = best(&sums, keep)
            .into_iter()
            .map(|(sum, place)| {
                let token = (place % vocabulary) as i64;
                (sum, place / vocabulary, token, full || config.is_eos(token))
            })
            .collect();
        let enough = config.early_stopping == EarlyStopping::FirstN && self.finished.iter().all(|f| f.real);
        let mut merged = self.finished.clone();
        for (rank, (sum, from, token, hits)) in candidates.iter().enumerate() {
            let real = *hits && rank < beams;
            let mut score = sum / penalty(length);
            for wrong in [enough, !self.hopeful, !real] {
                score += if wrong { WORST } else { 0.0 };
            }
            let mut said = self.running[*from].said.clone();
            said.push(*token);
            merged.push(Finished { score, sum: *sum, said, real });
        }
        let order = best(&merged.iter().map(|f| f.score).collect::<Vec<_>>(), beams);
        self.finished = order.iter().map(|(_, place)| merged[*place].clone()).collect();
        let going: Vec<f32> = candidates.iter().map(|c| if c.3 { c.0 + WORST } else { c.0 }).collect();
        let (mut running, mut parents) = (Vec::new(), Vec::new());
        for (score, place) in best(&going, beams) {
            let (_, from, token, _) = candidates[place];
            let mut said = self.running[from].said.clone();
            said.push(token);
            running.push(Beam { score, said });
            parents.push(from);
        }
        self.running = running;
        let reach = if config.early_stopping == EarlyStopping::Never && config.length_penalty > 0.0 {
            config.max_new_tokens
        } else {
            length
        };
        let possible = self.running[0].score / penalty(reach);
        let worst = self.finished.iter().map(|f| f.score).fold(f32::INFINITY, f32::min);
        self.hopeful &= self.finished.iter().any(|f| possible > if f.real { worst } else { WORST });
        let enough = config.early_stopping == EarlyStopping::FirstN && self.finished.iter().all(|f| f.real);
        self.done = !self.hopeful || enough || candidates.iter().all(|c| c.3);
        parents
    }

    fn results(&self, config: &GenerationConfig) -> Vec<GeneratedSequence> {
        let make = |f: &Finished| {
            let new = &f.said[self.prompt..];
            let ended = new.last().is_some_and(|t| config.is_eos(*t));
            GeneratedSequence {
                token_ids: new[..new.len() - usize::from(ended)].to_vec(),
                log_prob: f64::from(f.sum),
                score: f64::from(f.score),
                finished: ended,
            }
        };
        let found: Vec<GeneratedSequence> =
            self.finished.iter().filter(|f| f.real).take(config.num_return_sequences).map(make).collect();
        if !found.is_empty() {
            return found;
        }
        // Interrupted before anything ended: what stood best.
        let Beam { score, said } = &self.running[0];
        let new = said[self.prompt..].to_vec();
        let scaled = f64::from(*score) / (new.len().max(1) as f64).powf(config.length_penalty);
        vec![GeneratedSequence { token_ids: new, log_prob: f64::from(*score), score: scaled, finished: false }]
    }
}

pub(super) fn search<M: LanguageModel>(
    model: &M,
    start: Prefill<M::State>,
    config: &GenerationConfig,
    rules: &LogitsProcessors<'_>,
) -> Result<Vec<Vec<GeneratedSequence>>> {
    let Prefill { mut state, mut logits, prompts } = start;
    let device = logits.device();
    let vocabulary = logits.size(-1)? as usize;
    let beams = config.num_beams;
    let mut searches: Vec<Search> = prompts
        .iter()
        .map(|prompt| Search {
            // All beams begin alike, so only the first may be gone on from.
            running: vec![Beam { score: 0.0, said: prompt.clone() }],
            finished: vec![Finished { score: WORST, sum: WORST, said: prompt.clone(), real: false }; beams],
            prompt: prompt.len(),
            hopeful: true,
            done: false,
        })
        .collect();
    // The searches that go on, and so the rows of the state.
    let mut going: Vec<usize> = (0..searches.len()).collect();
    loop {
        let mut scores = rows(&logits.to_dtype(DType::F32)?.log_softmax(-1)?)?;
        let (mut parents, mut next) = (Vec::new(), Vec::new());
        let mut from = 0;
        for number in &going {
            let search = &mut searches[*number];
            let mine = &mut scores[from * vocabulary..(from + search.running.len()) * vocabulary];
            for (beam, part) in search.running.iter().zip(mine.chunks_mut(vocabulary)) {
                rules.apply(config, &beam.said, search.prompt, part);
            }
            let before = search.running.len();
            let came = search.step(mine, vocabulary, config);
            if !search.done {
                parents.extend(came.iter().map(|p| (from + p) as i64));
                next.extend(search.running.iter().map(|b| b.said.last().copied().unwrap_or(0)));
            }
            from += before;
        }
        going.retain(|number| !searches[*number].done);
        if going.is_empty() || rules.interrupted() {
            return Ok(searches.iter().map(|s| s.results(config)).collect());
        }
        let same = parents.len() == from && parents.iter().enumerate().all(|(n, p)| n as i64 == *p);
        if !same {
            model.reorder(&mut state, &Tensor::from_slice(&parents)?.to_device(device)?)?;
        }
        let ids = Tensor::from_vec(&next, &[next.len() as i64, 1])?.to_device(device)?;
        logits = model.step(&ids, &mut state)?;
    }
}
