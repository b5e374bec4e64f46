//! `mm words`: word vectors (Word2Vec, fastText).

use crate::{
    args::{limit::Limit, output_path::local_path},
    context::{Context, stop_on_interrupt},
    exit::{interrupted, usage},
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_core::checkpoint::FolderLock;
use mm_repr::word2vec::{Architecture, Format, Phrases, Progress, SubwordConfig, Word2VecConfig, WordVectors};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Instant,
};

/// Train, query, evaluate and convert word vectors (Word2Vec, fastText)
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm words train --data corpus.txt --out words.bin\n  mm words similar --model words.bin --word king\n  mm words analogy --model words.bin --a man --b king --c woman\n  mm words eval --model words.bin --pairs wordsim353.tsv --analogies questions-words.txt"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Train on text files with one sentence a line. After an interruption the same command continues after the last
    /// finished epoch.
    Train(Box<Train>),
    /// Show the words that are most similar to a word.
    Similar {
        #[command(flatten)]
        vectors: VectorsArgs,
        /// The word.
        #[arg(long, value_name = "WORD")]
        word: String,
        /// Number of words, or all.
        #[arg(long, value_name = "N|all", default_value = "10")]
        k: Limit,
    },
    /// Solve an analogy: A is to B as C is to what?
    Analogy {
        #[command(flatten)]
        vectors: VectorsArgs,
        /// Word A.
        #[arg(long, value_name = "WORD")]
        a: String,
        /// Word B.
        #[arg(long, value_name = "WORD")]
        b: String,
        /// Word C.
        #[arg(long, value_name = "WORD")]
        c: String,
        /// Number of words, or all.
        #[arg(long, value_name = "N|all", default_value = "5")]
        k: Limit,
    },
    /// Evaluate on human similarity judgments (rank correlation) and on analogies (accuracy).
    Eval {
        #[command(flatten)]
        vectors: VectorsArgs,
        /// File of word pairs (WordSim-353, SimLex-999); may be repeated.
        #[arg(long, value_name = "FILE")]
        pairs: Vec<PathBuf>,
        /// File of analogies (Google's questions-words.txt); may be repeated.
        #[arg(long, value_name = "FILE")]
        analogies: Vec<PathBuf>,
    },
    /// Write word vectors in another format.
    Convert {
        #[command(flatten)]
        vectors: VectorsArgs,
        /// File to write.
        #[arg(long, value_name = "FILE", value_parser = local_path())]
        out: PathBuf,
        /// Format of the file [default: text for .txt and .vec, else binary].
        #[arg(long, value_enum)]
        format: Option<FormatArg>,
    },
}

/// The word vectors that a command reads.
#[derive(clap::Args)]
struct VectorsArgs {
    /// File of word vectors: word2vec's text or binary format, or fastText's .bin.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
}

impl VectorsArgs {
    fn load(&self) -> Result<WordVectors> {
        Ok(WordVectors::load(&self.model)?)
    }
}

/// A file format of word vectors.
#[derive(Clone, Copy, clap::ValueEnum)]
enum FormatArg {
    /// word2vec's text format.
    Text,
    /// word2vec's binary format.
    Binary,
    /// fastText's model.
    Fasttext,
}

#[derive(clap::Args)]
struct Train {
    /// Text file; may be repeated.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// File for the vectors: .txt or .vec for text, else word2vec's binary format, with --subwords fastText's.
    #[arg(long, value_name = "FILE", value_parser = local_path())]
    out: PathBuf,
    /// Format of the file, if its extension does not determine it.
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Train CBOW (predict a word from the mean of its window) instead of skip-gram.
    #[arg(long, help_heading = "Training")]
    cbow: bool,
    /// Dimension of the vectors.
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = "Training")]
    vector_size: usize,
    /// Maximum distance between a word and its context.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Training")]
    window: usize,
    /// Number of negative samples; 0 for hierarchical softmax.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Training")]
    negative: usize,
    /// Sample negatives for each context word instead of once for each window: half as fast, slightly more accurate.
    #[arg(long, help_heading = "Training")]
    no_shared_negatives: bool,
    /// Ignore words that occur less often.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Training")]
    min_count: u64,
    /// Threshold above which frequent words are downsampled.
    #[arg(long, value_name = "X", default_value_t = 1e-3, help_heading = "Training")]
    sample: f64,
    /// Number of epochs.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Training")]
    epochs: usize,
    /// Initial learning rate [default: 0.025, with --cbow 0.05].
    #[arg(long, value_name = "X", help_heading = "Training")]
    alpha: Option<f64>,
    /// Random seed; the result is reproducible with --threads 1.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Training")]
    seed: u64,
    /// Use character n-grams of these lengths, so that unseen words have vectors [without a value: 3,6].
    #[arg(long, value_name = "MIN,MAX", num_args = 0..=1, default_missing_value = "3,6", help_heading = "Training")]
    subwords: Option<String>,
    /// Number of buckets that n-grams are hashed into.
    #[arg(long, value_name = "N", default_value_t = 2_000_000, requires = "subwords", help_heading = "Training")]
    bucket: u32,
    /// Join word pairs that occur together this much more often than by chance (10 is common).
    #[arg(long, value_name = "SCORE", help_heading = "Training")]
    phrase_threshold: Option<f64>,
}

impl Train {
    fn config(&self, context: &Context) -> Result<Word2VecConfig> {
        let subwords = match &self.subwords {
            None => None,
            Some(text) => {
                let sizes: Vec<usize> = text.split(',').filter_map(|n| n.trim().parse().ok()).collect();
                let [min_n, max_n] = sizes[..] else {
                    usage!("--subwords: found `{text}`, expected two numbers, for instance 3,6")
                };
                Some(SubwordConfig { min_n, max_n, bucket: self.bucket })
            }
        };
        Ok(Word2VecConfig {
            architecture: if self.cbow { Architecture::Cbow } else { Architecture::SkipGram },
            vector_size: self.vector_size,
            window: self.window,
            negative: self.negative,
            share_negatives: !self.no_shared_negatives,
            min_count: self.min_count,
            sample: self.sample,
            epochs: self.epochs,
            alpha: self.alpha.unwrap_or(if self.cbow { 0.05 } else { 0.025 }),
            workers: context.threads,
            seed: self.seed,
            subwords,
            ..Word2VecConfig::default()
        })
    }
}

fn format(out: &Path, format: Option<FormatArg>, subwords: bool) -> Format {
    match format {
        Some(FormatArg::Text) => Format::Text,
        Some(FormatArg::Binary) => Format::Binary,
        Some(FormatArg::Fasttext) => Format::FastText,
        None if out.extension().is_some_and(|e| e == "txt" || e == "vec") => Format::Text,
        None if subwords => Format::FastText,
        None => Format::Binary,
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    match &arguments.command {
        Command::Train(arguments) => train(arguments, context),
        Command::Similar { vectors, word, k } => {
            print(&vectors.load()?.most_similar(word, k.get())?, context);
            Ok(())
        }
        Command::Analogy { vectors, a, b, c, k } => {
            print(&vectors.load()?.analogy(a, b, c, k.get())?, context);
            Ok(())
        }
        Command::Eval { vectors, pairs, analogies } => evaluate(&vectors.load()?, pairs, analogies, context),
        Command::Convert { vectors, out, format: kind } => Ok(vectors.load()?.save(out, format(out, *kind, false))?),
    }
}

fn print(results: &[(&str, f32)], context: &Context) {
    for (rank, (word, similarity)) in results.iter().enumerate() {
        if context.json {
            output::line(json!({"rank": rank + 1, "word": word, "score": similarity}));
        } else {
            output::line(format!("{similarity:.4}  {word}"));
        }
    }
}

fn evaluate(vectors: &WordVectors, pairs: &[PathBuf], analogies: &[PathBuf], context: &Context) -> Result<()> {
    if pairs.is_empty() && analogies.is_empty() {
        usage!(
            "nothing to evaluate on; give --pairs or --analogies (`mm data fetch word-tests` fetches the usual ones)"
        );
    }
    for file in pairs {
        let result = vectors.evaluate_word_pairs(file)?;
        if context.json {
            output::line(json!({
                "input": file, "metrics": [{"id": "spearman", "value": result.spearman, "higher_is_better": true}],
                "pairs": result.num_pairs, "out_of_vocabulary": result.num_oov,
            }));
        } else {
            output::line(format!(
                "{}: spearman {:.4} on {} pairs ({} with out-of-vocabulary words left out)",
                file.display(),
                result.spearman,
                result.num_pairs,
                result.num_oov
            ));
        }
    }
    for file in analogies {
        let result = vectors.evaluate_word_analogies(file)?;
        if context.json {
            output::line(json!({
                "input": file, "metrics": [{"id": "accuracy", "value": result.accuracy, "higher_is_better": true}],
                "questions": result.num_questions, "out_of_vocabulary": result.num_oov, "sections": result.sections,
            }));
            continue;
        }
        output::line(format!(
            "{}: accuracy {:.4} on {} questions ({} with out-of-vocabulary words left out)",
            file.display(),
            result.accuracy,
            result.num_questions,
            result.num_oov
        ));
        for section in result.sections.iter().filter(|s| s.num_questions > 0) {
            output::line(format!("  {:28} {:5} of {:5}", section.name, section.num_correct, section.num_questions));
        }
    }
    Ok(())
}

fn train(arguments: &Train, context: &Context) -> Result<()> {
    let config = arguments.config(context)?;
    let format = format(&arguments.out, arguments.format, config.subwords.is_some());
    let stop = stop_on_interrupt("the current batch of words")?;
    let phrases =
        arguments.phrase_threshold.map(|t| Phrases::fit(&arguments.data, arguments.min_count, t)).transpose()?;
    let work_dir = mm_tasks::embedding::with_suffix(&arguments.out, ".part");
    let (progress, training_start) = (Mutex::new(ItemProgress::new()), Mutex::new(None::<Instant>));
    let on_progress = |step: Progress| {
        let (label, done, total) = match step {
            Progress::Reading(done, total) => ("reading (kB)", done / 1024, total / 1024),
            Progress::Training(done, total) => {
                training_start.lock().map(|mut start| *start.get_or_insert_with(Instant::now)).ok();
                ("training (words)", done, total)
            }
        };
        if let Ok(mut progress) = progress.lock() {
            progress.update(label, done as usize, total as usize);
        }
    };
    let started = Instant::now();
    let vectors = WordVectors::train(&arguments.data, &config, phrases.as_ref(), &work_dir, &stop, &on_progress)?;
    if let Ok(progress) = progress.lock() {
        progress.finish();
    }
    let Some(vectors) = vectors else {
        interrupted!("finished epochs are in {}; the same command continues from there", work_dir.display());
    };
    let training_seconds = training_start.lock().ok().and_then(|s| s.map(|s| s.elapsed().as_secs_f64())).unwrap_or(0.0);
    vectors.save(&arguments.out, format)?;
    // Unless another process has begun to use it.
    if let Ok(lock) = FolderLock::acquire(&work_dir) {
        lock.remove_folder()?;
    }
    let words_per_second =
        (vectors.vocabulary.total_count() * arguments.epochs as u64) as f64 / training_seconds.max(1e-9);
    let (words, seconds) = (vectors.vocabulary.words.len(), started.elapsed().as_secs_f64());
    if context.json {
        output::line(json!({
            "out": output::path(&arguments.out), "words": words, "vector_size": vectors.vector_size, "phrases": phrases.map(|p| p.num_pairs()),
            "words_per_second": words_per_second, "seconds": seconds,
        }));
    } else {
        output::line(format!(
            "{}: {words} words of dimension {}; {words_per_second:.0} words per second in training, {seconds:.1} s in all",
            arguments.out.display(),
            vectors.vector_size
        ));
    }
    Ok(())
}
