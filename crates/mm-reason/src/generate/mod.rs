//! Token by token: greedy, by beams or by drawing, with the rules that generation configs name. Every model that speaks goes through here.

mod beam;
mod config;
mod grammar;
mod rules;

pub use config::{EarlyStopping, GenerationConfig};
pub use grammar::{GrammarConstraint, OutputConstraint};
pub use rules::{Choices, LogitsProcessors, TokenConstraint};

use crate::{Error, Result};
use mm_core::{DType, Device, Tensor, no_grad, seed::Rng};

/// A model that says what may come next.
pub trait LanguageModel {
    /// What it remembers of what was said.
    type State;

    /// One token a row, `[rows, 1]` int64 → scores of the next before softmax, `[rows, vocabulary]`.
    fn step(&self, ids: &Tensor, state: &mut Self::State) -> mm_core::Result<Tensor>;

    /// Several tokens a row, `[rows, tokens]` int64 → scores after each, `[rows, tokens, vocabulary]`.
    fn steps(&self, ids: &Tensor, state: &mut Self::State) -> mm_core::Result<Tensor>;

    /// The state whose rows are these rows of the old one.
    fn reorder(&self, state: &mut Self::State, rows: &Tensor) -> mm_core::Result<()>;

    /// A state of its own that remembers the same.
    fn fork(&self, state: &Self::State) -> mm_core::Result<Self::State>;
}

/// Where generation starts: the prompt has been read.
pub struct Prefill<S> {
    /// What the model remembers.
    pub state: S,
    /// Scores of the first token, `[rows, vocabulary]`.
    pub logits: Tensor,
    /// What was read, for the rules that look back.
    pub prompts: Vec<Vec<i64>>,
}

/// What was said.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedSequence {
    /// Its tokens, without the prompt and without the end token.
    pub token_ids: Vec<i64>,
    /// Sum of the log-probabilities of its tokens, the end token's too.
    pub log_prob: f64,
    /// What beams are compared by: that sum over the number of tokens to the power of the length penalty.
    pub score: f64,
    /// Whether it ended by itself, and not at the limit.
    pub finished: bool,
}

/// OnToken of each token as it is chosen (greedy and drawing only): row, token.
pub type OnToken<'a> = &'a mut dyn FnMut(usize, i64);

/// Goes on from `start` as `config` says; for each row the best (for beams up to `config.num_return_sequences`), best first.
pub fn generate<M: LanguageModel>(
    model: &M,
    start: Prefill<M::State>,
    config: &GenerationConfig,
    rules: &LogitsProcessors<'_>,
    on_token: OnToken<'_>,
) -> Result<Vec<Vec<GeneratedSequence>>> {
    let vocabulary = start.logits.size(-1)?;
    config.check(vocabulary)?;
    if config.max_new_tokens == 0 {
        let nothing = GeneratedSequence { token_ids: Vec::new(), log_prob: 0.0, score: 0.0, finished: false };
        return Ok(vec![vec![nothing]; start.prompts.len()]);
    }
    no_grad(|| {
        if config.num_beams > 1 {
            beam::search(model, start, config, rules)
        } else {
            one_each(model, start, config, rules, on_token)
        }
    })
}

/// Scores as numbers, a row after the other.
fn rows(logits: &Tensor) -> Result<Vec<f32>> {
    Ok(logits.to_dtype(DType::F32)?.to_vec::<f32>()?)
}

fn one_each<M: LanguageModel>(
    model: &M,
    start: Prefill<M::State>,
    config: &GenerationConfig,
    rules: &LogitsProcessors<'_>,
    on_token: OnToken<'_>,
) -> Result<Vec<Vec<GeneratedSequence>>> {
    let Prefill { mut state, mut logits, prompts } = start;
    let device = logits.device();
    let vocabulary = logits.size(-1)? as usize;
    let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let mut said = prompts;
    let mut sums = vec![0f64; said.len()];
    let mut done = vec![false; said.len()];
    let mut random = Rng::at(&[config.seed, 0x7061_6c61]);
    // Rows that go on, by their number; a row that ended leaves the batch.
    let mut going: Vec<usize> = (0..said.len()).collect();
    for step in 0..config.max_new_tokens {
        let log_probabilities = rows(&logits.to_dtype(DType::F32)?.log_softmax(-1)?)?;
        let mut scores = rows(&logits)?;
        let (mut next, mut stay) = (Vec::new(), Vec::new());
        for (place, row) in going.iter().enumerate() {
            let mine = &mut scores[place * vocabulary..(place + 1) * vocabulary];
            rules.apply(config, &said[*row], lengths[*row], mine);
            let token = if config.do_sample { rules::draw(config, mine, &mut random) } else { rules::best(mine) };
            sums[*row] += f64::from(log_probabilities[place * vocabulary + token]);
            said[*row].push(token as i64);
            let end = config.is_eos(token as i64);
            if !end {
                on_token(*row, token as i64);
            }
            done[*row] = end || rules.stops(&said[*row][lengths[*row]..]);
            if !done[*row] {
                next.push(token as i64);
                stay.push(place as i64);
            }
        }
        let all = going.len();
        going.retain(|row| !done[*row]);
        if going.is_empty() || step + 1 == config.max_new_tokens || rules.interrupted() {
            break;
        }
        if stay.len() < all {
            model.reorder(&mut state, &Tensor::from_slice(&stay)?.to_device(device)?)?;
        }
        let ids = Tensor::from_vec(&next, &[next.len() as i64, 1])?.to_device(device)?;
        logits = model.step(&ids, &mut state)?;
    }
    let finish = |(row, ids): (usize, Vec<i64>)| {
        let new = &ids[lengths[row]..];
        let (count, ended) = (new.len(), new.last().is_some_and(|t| config.is_eos(*t)));
        let ids = new[..count - usize::from(ended)].to_vec();
        let score = sums[row] / (count as f64).powf(config.length_penalty);
        vec![GeneratedSequence { token_ids: ids, log_prob: sums[row], score, finished: done[row] }]
    };
    Ok(said.into_iter().enumerate().map(finish).collect())
}

/// Log-probability of each continuation of one row's `start`, its end token included where the model has one: what choices are ranked by.
pub fn likelihoods<M: LanguageModel>(
    model: &M,
    start: &Prefill<M::State>,
    choices: &[Vec<i64>],
    end: Option<i64>,
) -> Result<Vec<f64>> {
    no_grad(|| {
        let first = rows(&start.logits.to_dtype(DType::F32)?.log_softmax(-1)?)?;
        let mut out = Vec::new();
        for choice in choices {
            let mut ids = choice.clone();
            ids.extend(end);
            let Some(head) = ids.first() else {
                return Err(Error::invalid_argument("choice", "a text without tokens", "some letters"));
            };
            let mut sum = f64::from(first[*head as usize]);
            if ids.len() > 1 {
                let mut state = model.fork(&start.state)?;
                let read = Tensor::from_vec(&ids[..ids.len() - 1], &[1, ids.len() as i64 - 1])?;
                let scores = model.steps(&read.to_device(start.logits.device())?, &mut state)?;
                let scores = scores.to_dtype(DType::F32)?.log_softmax(-1)?;
                let wanted = Tensor::from_vec(&ids[1..], &[1, ids.len() as i64 - 1, 1])?.to_device(scores.device())?;
                sum += scores.gather(2, &wanted)?.to_dtype(DType::F64)?.sum()?.to_device(Device::Cpu)?.to_f64()?;
            }
            out.push(sum);
        }
        Ok(out)
    })
}
