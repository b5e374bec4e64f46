//! Questions about pictures (and sounds, and videos): one door to checkpoints that answer and to runs that were trained to.

use crate::{
    Error, Result, finetuning,
    prediction::{Asked, Predictor},
};
use mm_core::{Device, Modality, Registry, Source};
use mm_reason::{Attribution, EncodedMedia, Pipeline, Request as Wish, ScoredAnswer, generate::GenerationConfig};
use mm_repr::LoadOptions;
use std::{cell::RefCell, collections::BTreeMap, path::Path};

/// What answers.
#[allow(clippy::large_enum_variant)] // one a program
pub enum Answerer {
    /// A pretrained checkpoint.
    Speaker {
        /// The model.
        speaker: Box<Pipeline>,
        /// What it saw last, so that the next questions about the same things need not look again.
        seen: RefCell<Vec<(Modality, Source, EncodedMedia)>>,
    },
    /// A run of `task = "prediction"`.
    Run(Box<Predictor>),
}

/// A value of a modality, and what is asked about it.
pub type Question = (Modality, Source, String);

/// How questions are answered.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Only these answers.
    pub choices: Vec<String>,
    /// Settings of generation; the model's own when absent.
    pub generation: Option<GenerationConfig>,
    /// Whether what counted is wanted.
    pub explain: bool,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The likeliest.
    pub answer: String,
    /// All that were weighed, likeliest first.
    pub scores: Vec<ScoredAnswer>,
    /// What of the picture and of the question counted.
    pub heat: Option<Attribution>,
}

impl Answerer {
    /// Opens a checkpoint folder or a run folder.
    pub fn open(folder: &Path, registry: &Registry, options: LoadOptions, device: Device) -> Result<Self> {
        let learned = finetuning::model_dir(folder);
        let folder = learned.as_deref().unwrap_or(folder);
        if folder.join("config.toml").exists() || folder.join("ensemble.json").exists() {
            let run = Predictor::open(folder, registry, device)?;
            if run.target().classes.is_empty() {
                return Err(Error::Config(format!(
                    "{}: this run predicts numbers; wanted one that predicts answers (classes)",
                    folder.display()
                )));
            }
            return Ok(Self::Run(Box::new(run)));
        }
        Ok(Self::Speaker { speaker: Box::new(Pipeline::load(folder, options)?), seen: RefCell::default() })
    }

    /// Settings of generation that the model's folder asks for, where it generates.
    pub fn generation(&self) -> Option<&GenerationConfig> {
        match self {
            Self::Speaker { speaker, .. } if speaker.can_generate() => Some(&speaker.generation),
            _ => None,
        }
    }

    /// How many questions may be asked at once.
    pub fn batch(&self) -> usize {
        match self {
            Self::Speaker { speaker, .. } => speaker.max_batch_size(),
            Self::Run(_) => 16,
        }
    }

    /// Answers questions, each about a value of a modality, in one batch; what cannot be answered is that question's error alone.
    pub fn answer(&self, questions: &[Question], wishes: &Wishes) -> Result<Vec<Result<Answered>>> {
        let mut sorted = wishes.choices.clone();
        sorted.sort();
        if let Some([twice, _]) = sorted.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::Config(format!("--choices: found `{twice}` twice, wanted answers that differ")));
        }
        if wishes.choices.iter().any(|c| c.trim().is_empty()) {
            return Err(Error::Config("--choices: found an empty one, wanted answers of some letters".into()));
        }
        let asks = |(.., question): &Question| {
            if question.trim().is_empty() {
                return Err(Error::Config("--question: found no words, wanted a question".into()));
            }
            Ok(())
        };
        match self {
            Self::Speaker { speaker, seen } => {
                let unread = look(speaker, &mut seen.borrow_mut(), questions)?;
                let held = seen.borrow();
                let (mut out, mut rows) = (Vec::new(), Vec::new());
                for (row, unread) in questions.iter().zip(unread) {
                    let (modality, source, question) = row;
                    let seen = held.iter().find(|(m, s, _)| m == modality && s == source).map(|(.., seen)| seen);
                    out.push(asks(row).and_then(|()| unread.map_or(Ok(seen), Err)));
                    if let Some(Ok(seen)) = out.last() {
                        rows.push((*seen, Wish::Question(question)));
                    }
                }
                let config = wishes.generation.as_ref().unwrap_or(&speaker.generation);
                let mut found = speaker.answer_batch(&rows, &wishes.choices, config).into_iter();
                let mut next = |(_, _, question): &Question, seen: Option<&EncodedMedia>| {
                    let scores = found.next().unwrap_or_else(|| Ok(Vec::new()))?;
                    let answer = scores.first().map(|s| s.answer.clone()).unwrap_or_default();
                    let heat = match seen {
                        Some(seen) if wishes.explain => {
                            Some(speaker.explain(seen, Wish::Question(question), &answer)?)
                        }
                        _ => None,
                    };
                    Ok(Answered { answer, scores, heat })
                };
                Ok(questions.iter().zip(out).map(|(q, seen)| next(q, seen?)).collect())
            }
            Self::Run(run) => {
                // Of what counted each word is told, so nothing may be padded; and one that cannot be read must not take the others with it.
                if !wishes.explain
                    && questions.len() > 1
                    && let Ok(found) = questions.iter().try_for_each(asks).and_then(|()| ask(run, questions, wishes))
                {
                    return Ok(found.into_iter().map(Ok).collect());
                }
                let one = |row| asks(row).and_then(|()| Ok(ask(run, std::slice::from_ref(row), wishes)?.remove(0)));
                Ok(questions.iter().map(one).collect())
            }
        }
    }
}

/// Looks at what the questions are about and is not held yet, and forgets what they are not about; for each question why not, where its
/// value cannot be read.
fn look(
    speaker: &Pipeline,
    held: &mut Vec<(Modality, Source, EncodedMedia)>,
    questions: &[Question],
) -> Result<Vec<Option<Error>>> {
    held.retain(|(m, s, _)| questions.iter().any(|(modality, source, _)| m == modality && s == source));
    let mut wanted: Vec<(Modality, Source)> = Vec::new();
    for (modality, source, _) in questions {
        let known = held.iter().any(|(m, s, _)| m == modality && s == source);
        if !known && !wanted.iter().any(|(m, s)| m == modality && s == source) {
            wanted.push((modality.clone(), source.clone()));
        }
    }
    let mut unread = Vec::new();
    while let Some((modality, _)) = wanted.first().cloned() {
        let (alike, rest) = wanted.into_iter().partition::<Vec<_>, _>(|(m, _)| *m == modality);
        wanted = rest;
        let sources: Vec<Source> = alike.into_iter().map(|(_, s)| s).collect();
        for (source, seen) in sources.iter().zip(speaker.encode_media_each(&modality, &sources)?) {
            match seen {
                Ok(seen) => held.push((modality.clone(), source.clone(), seen)),
                Err(error) => unread.push((modality.clone(), source.clone(), error)),
            }
        }
    }
    // The first question about it gets the error itself, others its words.
    let mut why = |(modality, source, _): &Question| {
        let at = unread.iter().position(|(m, s, _)| m == modality && s == source)?;
        let words = unread[at].2.to_string();
        let first = std::mem::replace(&mut unread[at].2, mm_core::Error::Sample(words).into());
        Some(first.into())
    };
    Ok(questions.iter().map(&mut why).collect())
}

fn ask(run: &Predictor, questions: &[Question], wishes: &Wishes) -> Result<Vec<Answered>> {
    let known = run.modalities();
    for wanted in questions.iter().map(|(modality, ..)| modality).chain([&Modality::TEXT]) {
        if !known.contains(wanted) {
            let names = known.iter().map(Modality::name);
            return Err(mm_core::Error::unknown("modality of this run", wanted.name(), names).into());
        }
    }
    let classes = &run.target().classes;
    if let Some(other) = wishes.choices.iter().find(|c| !classes.contains(c)) {
        return Err(mm_core::Error::unknown("answer of this run", other, classes.iter().map(String::as_str)).into());
    }
    let values = |(modality, source, question): &Question| {
        BTreeMap::from([(modality.clone(), source.clone()), (Modality::TEXT, Source::Text(question.clone()))])
    };
    let found = run.ask(questions.iter().map(values).collect(), wishes.explain)?;
    let programs = run.runs_programs();
    questions.iter().zip(found).map(|(asked, found)| answered(asked, &found, classes, programs, wishes)).collect()
}

fn answered(
    (modality, _, question): &Question,
    found: &Asked,
    classes: &[String],
    programs: bool,
    wishes: &Wishes,
) -> Result<Answered> {
    let chosen = |c: &String| wishes.choices.is_empty() || wishes.choices.contains(c);
    let all = classes.iter().zip(&found.probabilities).zip(&found.logits).filter(|((c, _), _)| chosen(c));
    let mut scores: Vec<ScoredAnswer> =
        all.map(|((c, p), l)| ScoredAnswer { answer: c.clone(), score: *p, logit: *l }).collect();
    if !wishes.choices.is_empty() {
        let total: f64 = scores.iter().map(|s| s.score).sum::<f64>().max(1e-300);
        scores.iter_mut().for_each(|s| s.score /= total);
    }
    scores.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.logit.total_cmp(&a.logit)));
    let answer = scores.first().map(|s| s.answer.clone()).unwrap_or_default();
    let heat = if wishes.explain {
        let patches = found.look.heat.get(modality).cloned().ok_or_else(|| {
            Error::Config(
                "--explain: this run makes one vector of a picture and has no places to show; wanted one with `[reasoning]` in its config"
                    .into(),
            )
        })?;
        let side = (patches.len() as f64).sqrt().round() as usize;
        let grid = if side * side == patches.len() { [side, side] } else { [1, patches.len()] };
        // The words, where the run's reader takes them one by one.
        let read: Vec<String> = mm_repr::text::word_tokens(question).collect();
        let counted = found.look.heat.get(&Modality::TEXT);
        let counted = counted.filter(|c| c.len() == read.len()).cloned().unwrap_or_default();
        let steps = found.look.steps.iter().filter_map(|s| s.get(modality).filter(|w| w.iter().any(|w| *w > 0.0)));
        let named = |(number, weights): (usize, &Vec<f32>)| {
            let word = read.get(number).filter(|_| programs).cloned();
            (word.unwrap_or_else(|| (number + 1).to_string()), weights.clone())
        };
        let steps = steps.enumerate().map(named).collect();
        Some(Attribution { patches, grid, words: read.into_iter().zip(counted).collect(), steps })
    } else {
        None
    };
    Ok(Answered { answer, scores, heat })
}
