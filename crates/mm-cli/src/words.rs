//! `mm words`: vectors of words.

use crate::{Context, output, progress::Steps};
use anyhow::{Result, bail};
use mm_repr::word2vec::{Architecture, Format, Phrases, Progress, SubwordConfig, Word2VecConfig, WordVectors};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Instant,
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Learn from text files, one sentence a line. Interrupted, the same command goes on after the last pass that was done.
    Train(Box<Train>),
    /// The words most like a word.
    Similar {
        /// A file of vectors: word2vec's text or binary, or fastText's .bin.
        vectors: PathBuf,
        /// The word.
        word: String,
        /// How many.
        #[arg(long, default_value_t = 10)]
        top: usize,
    },
    /// What is to C as B is to A: `mm words analogy FILE man king woman`.
    Analogy {
        /// A file of vectors.
        vectors: PathBuf,
        /// A.
        a: String,
        /// B.
        b: String,
        /// C.
        c: String,
        /// How many.
        #[arg(long, default_value_t = 5)]
        top: usize,
    },
    /// Hold vectors against what people say: rank correlation on pairs, share of right analogies.
    Eval {
        /// A file of vectors.
        vectors: PathBuf,
        /// A file of pairs (WordSim-353, SimLex-999); may be repeated.
        #[arg(long, value_name = "FILE")]
        pairs: Vec<PathBuf>,
        /// A file of analogies (Google's); may be repeated.
        #[arg(long, value_name = "FILE")]
        analogies: Vec<PathBuf>,
    },
    /// Write vectors in another format.
    Convert {
        /// A file of vectors.
        vectors: PathBuf,
        /// Where they go; the ending and --format say how.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The format [default: text for .txt and .vec, else binary].
        #[arg(long, value_enum)]
        format: Option<Kind>,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Kind {
    /// word2vec's text.
    Text,
    /// word2vec's binary.
    Binary,
    /// fastText's model.
    Fasttext,
}

#[derive(clap::Args)]
pub(crate) struct Train {
    /// Text files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the vectors go: .txt or .vec (text), anything else word2vec's binary, with --subwords fastText's model.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The format, where the ending shall not say.
    #[arg(long, value_enum)]
    format: Option<Kind>,
    /// Predict the middle from the mean of its window (CBOW) instead of from each word (skip-gram).
    #[arg(long)]
    cbow: bool,
    /// Width of a vector.
    #[arg(long, default_value_t = 100)]
    width: usize,
    /// Words on each side.
    #[arg(long, default_value_t = 5)]
    window: usize,
    /// Wrong words for each right one; 0: hierarchical softmax.
    #[arg(long, default_value_t = 5)]
    negative: usize,
    /// Draw wrong words anew for each word of a window, as the original program does: half as fast, a little better.
    #[arg(long)]
    own_negatives: bool,
    /// Words that are there less often are left out.
    #[arg(long, default_value_t = 5)]
    min_count: u64,
    /// Words of a larger share than this are thinned out.
    #[arg(long, default_value_t = 1e-3)]
    sample: f64,
    /// Passes over the text.
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    /// Learning rate at the beginning [default: 0.025, with --cbow 0.05].
    #[arg(long)]
    rate: Option<f64>,
    /// Seed of everything that is drawn; with --threads 1 the result is a function of it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// n-grams of letters, so that unseen words have vectors: shortest and longest, as 3,6.
    #[arg(long, value_name = "MIN,MAX", num_args = 0..=1, default_missing_value = "3,6")]
    subwords: Option<String>,
    /// Rows that n-grams are hashed into.
    #[arg(long, default_value_t = 2_000_000, requires = "subwords")]
    buckets: u32,
    /// Join pairs of words that stand together this much more often than alone (10 is usual).
    #[arg(long, value_name = "SCORE")]
    phrases: Option<f64>,
}

fn format(out: &Path, kind: Option<Kind>, subwords: bool) -> Format {
    match kind {
        Some(Kind::Text) => Format::Text,
        Some(Kind::Binary) => Format::Binary,
        Some(Kind::Fasttext) => Format::FastText,
        None if out.extension().is_some_and(|e| e == "txt" || e == "vec") => Format::Text,
        None if subwords => Format::FastText,
        None => Format::Binary,
    }
}

pub(crate) fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Train(arguments) => train(&arguments, context),
        Command::Similar { vectors, word, top } => {
            show(&WordVectors::load(&vectors)?.most_similar(&word, top)?, context);
            Ok(())
        }
        Command::Analogy { vectors, a, b, c, top } => {
            show(&WordVectors::load(&vectors)?.analogy(&a, &b, &c, top)?, context);
            Ok(())
        }
        Command::Eval { vectors, pairs, analogies } => eval(&WordVectors::load(&vectors)?, &pairs, &analogies, context),
        Command::Convert { vectors, out, format: kind } => {
            Ok(WordVectors::load(&vectors)?.save(&out, format(&out, kind, false))?)
        }
    }
}

fn show(found: &[(&str, f32)], context: &Context) {
    for (word, cosine) in found {
        if context.json {
            output::line(json!({"word": word, "similarity": cosine}));
        } else {
            output::line(format!("{cosine:.4}  {word}"));
        }
    }
}

fn eval(words: &WordVectors, pairs: &[PathBuf], analogies: &[PathBuf], context: &Context) -> Result<()> {
    if pairs.is_empty() && analogies.is_empty() {
        bail!(
            "nothing to hold them against; give --pairs or --analogies (`cargo xtask data fetch word-tests` brings the usual ones)"
        );
    }
    for file in pairs {
        let r = words.evaluate_word_pairs(file)?;
        if context.json {
            output::line(json!({"file": file, "spearman": r.spearman, "pairs": r.pairs, "unknown": r.unknown}));
        } else {
            output::line(format!(
                "{}: Spearman {:.4} on {} pairs ({} with unknown words left out)",
                file.display(),
                r.spearman,
                r.pairs,
                r.unknown
            ));
        }
    }
    for file in analogies {
        let r = words.evaluate_word_analogies(file)?;
        if context.json {
            output::line(
                json!({"file": file, "accuracy": r.accuracy, "questions": r.questions, "unknown": r.unknown, "sections": r.sections}),
            );
            continue;
        }
        output::line(format!(
            "{}: {:.2} % of {} questions ({} with unknown words left out)",
            file.display(),
            100.0 * r.accuracy,
            r.questions,
            r.unknown
        ));
        for (name, right, all) in r.sections.iter().filter(|s| s.2 > 0) {
            output::line(format!("  {name:28} {right:5} of {all:5}"));
        }
    }
    Ok(())
}

fn train(a: &Train, context: &Context) -> Result<()> {
    let subwords = match &a.subwords {
        None => None,
        Some(text) => {
            let sizes: Vec<usize> = text.split(',').filter_map(|n| n.trim().parse().ok()).collect();
            let [min_n, max_n] = sizes[..] else { bail!("--subwords: found `{text}`, wanted two numbers, as 3,6") };
            Some(SubwordConfig { min_n, max_n, bucket: a.buckets })
        }
    };
    let format = format(&a.out, a.format, subwords.is_some());
    let config = Word2VecConfig {
        architecture: if a.cbow { Architecture::Cbow } else { Architecture::SkipGram },
        vector_size: a.width,
        window: a.window,
        negative: a.negative,
        share_negatives: !a.own_negatives,
        min_count: a.min_count,
        sample: a.sample,
        epochs: a.epochs,
        alpha: a.rate.unwrap_or(if a.cbow { 0.05 } else { 0.025 }),
        workers: context.threads,
        seed: a.seed,
        subwords,
        ..Word2VecConfig::default()
    };
    let stop = crate::interrupt("the words at hand")?;
    let phrases = a.phrases.map(|score| Phrases::fit(&a.files, a.min_count, score)).transpose()?;
    let work = PathBuf::from(format!("{}.part", a.out.display()));
    let (steps, learning) = (Mutex::new(Steps::new()), Mutex::new(None::<(Instant, u64)>));
    let told = |progress: Progress| {
        let (what, done, all) = match progress {
            Progress::Reading(done, all) => ("reading (kB)", done / 1024, all / 1024),
            Progress::Training(done, all) => {
                learning.lock().map(|mut l| l.get_or_insert((Instant::now(), done)).1).ok();
                ("learning (words)", done, all)
            }
        };
        if let Ok(mut steps) = steps.lock() {
            steps.tell(what, done as usize, all as usize);
        }
    };
    let begun = Instant::now();
    let words = WordVectors::train(&a.files, &config, phrases.as_ref(), &work, &stop, &told)?;
    let seconds = learning.lock().ok().and_then(|l| l.map(|(at, _)| at.elapsed().as_secs_f64())).unwrap_or(0.0);
    if let Ok(steps) = steps.lock() {
        steps.end();
    }
    let Some(words) = words else {
        bail!("stopped; the same command goes on after the last pass that was done");
    };
    words.save(&a.out, format)?;
    std::fs::remove_dir_all(&work)?;
    let all = words.vocabulary.total() * a.epochs as u64;
    let rate = all as f64 / seconds.max(1e-9);
    if context.json {
        output::line(json!({
            "out": a.out, "words": words.vocabulary.words.len(), "width": words.vector_size, "phrases": phrases.map(|p| p.count()),
            "seconds": begun.elapsed().as_secs_f64(), "words_per_second": rate,
        }));
    } else {
        output::line(format!(
            "{}: {} words of {} numbers; {rate:.0} words a second while learning, {:.1} s in all",
            a.out.display(),
            words.vocabulary.words.len(),
            words.vector_size,
            begun.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}
