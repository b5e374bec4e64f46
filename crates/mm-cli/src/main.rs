//! The program `mm`: raw files go in; models, figures and pictures come out.

mod align;
mod answer;
mod audit;
mod caption;
mod chat;
mod classify;
mod diagnose;
mod doctor;
mod embed;
mod evaluate;
mod fit;
mod fuse_search;
mod inspect;
mod merge;
mod output;
mod predict;
mod prepare;
mod progress;
mod report;
mod search;
mod similarity;
mod speak;
mod train;
mod transcribe;
mod words;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use std::{
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Multimodal learning: text, pictures, sound and video, from raw files to trained, searched and shown.
#[derive(Parser)]
#[command(name = "mm", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Start with:\n  mm inspect data.jsonl              what is in a data set, and what is broken\n  mm train config.toml --run runs/a  learn\n  mm report runs/a                   a page with figures and pictures"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// One JSON object a line on standard output; logs go to standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU if there is one).
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Threads to compute with [default: as many as there are cores].
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// More logs: -v, -vv.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a data set holds (rows, modalities, lengths, broken files, a few samples), or what a checkpoint folder is.
    #[command(after_help = "Examples:\n  mm inspect data/stamps.jsonl\n  mm inspect all-MiniLM-L6-v2")]
    Inspect(inspect::Arguments),
    /// Train a model as a config file says, into a run folder.
    #[command(
        after_help = "Examples:\n  mm train retrieval.toml --run runs/first --set train.epochs=5\n  mm train retrieval.toml --run runs/first --resume\n  mm train retrieval.toml --run runs/three --seeds 3"
    )]
    Train(train::Arguments),
    /// Learn to predict a column of a table from its texts, pictures, sounds, videos, numbers and categories.
    #[command(
        after_help = "Examples:\n  mm fit --data train.csv --label price --out runs/price\n  mm fit --data train.csv --label mood --columns text=review,image=photo --preset fast --out runs/mood\n  mm predict --run runs/price --data new.csv"
    )]
    Fit(fit::Arguments),
    /// Search which operator, width or layers fuse best, by successive halving on validation rows.
    #[command(
        after_help = "Examples:\n  mm fuse-search sentiment.toml --run runs/search\n  mm fuse-search sentiment.toml --run runs/search --space 'fusion.operator.kind=\"gated\"|\"mult\"' --space 'inputs.text.encoder.layers=[6]|[3,6]|[3,4,5,6]'"
    )]
    FuseSearch(fuse_search::Arguments),
    /// Say what a fitted model makes of new rows.
    #[command(
        after_help = "Examples:\n  mm predict --run runs/price --data new.csv --json\n  mm predict --run runs/price --data new.csv --out predictions.parquet\n\nA line a row: {\"row\": its row in the file counted from one, \"prediction\": …, \"probabilities\": {…}, \"present\": [modalities]}"
    )]
    Predict(predict::Arguments),
    /// Measure a trained run on held-out data.
    #[command(
        after_help = "Examples:\n  mm eval runs/first --split test --json\n  mm eval runs/price --data test.csv --json\n  mm eval runs/price --data test.csv --drop image\n  mm eval runs/price --data test.csv --robustness robustness.html"
    )]
    Eval(evaluate::Arguments),
    /// Turn raw values into vectors, with a pretrained model or a trained run.
    #[command(
        after_help = "Examples:\n  mm embed --model all-MiniLM-L6-v2 --text \"a dog\" --json\n  mm embed --model runs/first --image dog.png --audio dog.ogg\n  mm embed --model openai/clip-vit-base-patch32 --data photos.jsonl --out photos.parquet --dtype auto"
    )]
    Embed(embed::Arguments),
    /// Say what pictures show, by a checkpoint's own classes or by words of yours.
    #[command(
        after_help = "Examples:\n  mm classify --model efficientnet-lite0 --image photo.jpg --top 5\n  mm classify --model clip-vit-base-patch32 --image photo.jpg --labels cat,dog,horse --template \"a photo of a {}\""
    )]
    Classify(classify::Arguments),
    /// Answer questions about pictures or videos, with a checkpoint or with a run that was trained to.
    #[command(
        after_help = "Examples:\n  mm answer --model runs/vqa --image shapes.png --question \"what color is the circle?\" --explain heat.png\n  mm answer --model Salesforce/blip-vqa-base --image photo.jpg --question \"how many dogs?\" --question \"where?\" --json\n  mm answer --model dandelin/vilt-b32-finetuned-vqa --image photo.jpg --question \"what is it?\" --choices dog,cat\n  mm answer --model NAME --data questions.csv --out answers.jsonl\n\nA line a question: {\"image\": …, \"question\": …, \"answer\": …, \"scores\": [{\"answer\": …, \"score\": …, \"logit\": …}]}"
    )]
    Answer(answer::Arguments),
    /// Describe pictures (and videos, where the model takes them) in words.
    #[command(
        after_help = "Examples:\n  mm caption --model Salesforce/blip-image-captioning-base --image photo.jpg --beams 5\n  mm caption --model microsoft/git-base-coco --image a.jpg --image b.jpg --json\n  mm caption --model NAME --image photo.jpg --prompt \"a photograph of\"\n  mm caption --model NAME --data photos.jsonl --out captions.jsonl"
    )]
    Caption(caption::Arguments),
    /// Write down what is said in sound files.
    #[command(
        after_help = "Examples:\n  mm transcribe --model openai/whisper-tiny --audio speech.wav\n  mm transcribe --model openai/whisper-tiny --audio talk.mp3 --language de --timestamps --json"
    )]
    Transcribe(transcribe::Arguments),
    /// Talk with a model about a picture or a video, in the terminal.
    #[command(
        after_help = "Example:\n  mm chat --model Qwen/Qwen2-VL-2B-Instruct --image photo.jpg\n\nAn empty line or Ctrl-D ends it; /again forgets what was said."
    )]
    Chat(chat::Arguments),
    /// Say how alike values are: the cosine of their vectors, for pairs or for each with each.
    #[command(
        after_help = "Examples:\n  mm similarity --model all-MiniLM-L6-v2 --text \"a dog\" --text \"a puppy\"\n  mm similarity --model openai/clip-vit-base-patch32 --text \"a dog\" --text \"a cat\" --image photo.jpg\n  mm similarity --model all-MiniLM-L6-v2 --pairs --text a --text b --text c --text d --json"
    )]
    Similarity(similarity::Arguments),
    /// Learn vectors of words from text (Word2Vec, fastText), ask them, measure them.
    #[command(
        after_help = "Examples:\n  mm words train corpus.txt --out words.bin\n  mm words similar words.bin king\n  mm words analogy words.bin man king woman\n  mm words eval words.bin --pairs wordsim353.tsv --analogies questions-words.txt"
    )]
    Words {
        #[command(subcommand)]
        what: words::Command,
    },
    /// Bring two arrays of features (.npy) whose rows belong together into one space, and measure how each finds the other.
    #[command(
        after_help = "Examples:\n  mm align --method list\n  mm align --a pictures.npy --b captions.npy\n  mm align --method cca --a a.npy --b b.npy --labels y.npy --test-a ta.npy --test-b tb.npy --test-labels ty.npy --json"
    )]
    Align(align::Arguments),
    /// Say what is wrong between two modalities' embeddings (gap, hubs, collapse), and what each cure does.
    #[command(after_help = "Example:\n  mm diagnose --a pictures.npy --b captions.npy --report diagnosis.html")]
    Diagnose(diagnose::Arguments),
    /// Find the pairs of a data set that are probably mismatched, doubled, on both sides of the split, or broken.
    #[command(
        after_help = "Examples:\n  mm audit pairs.jsonl --model openai/clip-vit-base-patch32 --report audit.html\n  mm audit stamps.jsonl --model runs/stamps --languages en --group group --clean clean.jsonl"
    )]
    Audit(audit::Arguments),
    /// Write the model that an adapter (PEFT's `LoRA`) stands for as one folder, its changes added to the weights.
    #[command(after_help = "Example:\n  mm merge --model runs/blip/model --out models/blip-shapes")]
    Merge(merge::Arguments),
    /// Find what belongs to a text, a picture or a sound among a run's data.
    #[command(
        after_help = "Examples:\n  mm search runs/first --text \"a red bird\" --top 5\n  mm search runs/first --audio question.wav --in image\n  mm search runs/first --audio pregunta.ogg --words es --split test\n  mm search runs/attention --text \"a red apple\" --in image --explain gaze.png"
    )]
    Search(search::Arguments),
    /// Write a run, or several that differ in their seed, as one HTML page.
    #[command(after_help = "Example:\n  mm report runs/three/seed-0 runs/three/seed-1 --out report.html")]
    Report(report::Arguments),
    /// Write the manifest of a known data set from its unpacked folder.
    #[command(
        after_help = "Example:\n  mm prepare tuxpaint-stamps ~/.cache/mm/data/tuxpaint-stamps --out stamps.jsonl"
    )]
    Prepare(prepare::Arguments),
    /// Say what mm found on this machine: libtorch, threads, GPUs, ffmpeg, caches.
    Doctor,
    /// Print the completions of a shell (bash, zsh, fish …).
    #[command(after_help = "Example:\n  mm completions bash > ~/.local/share/bash-completion/completions/mm")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

/// What every command may need.
pub(crate) struct Context {
    json: bool,
    device: String,
    threads: usize,
}

impl Context {
    fn device(&self) -> anyhow::Result<mm_core::Device> {
        Ok(self.device.parse()?)
    }
}

/// Every encoder that this program knows, those of crates from outside too.
fn registry() -> mm_core::Registry {
    let mut registry = mm_tasks::registry();
    mm_tabular::register(&mut registry);
    registry
}

/// A flag that Ctrl-C sets; a second one ends the program.
fn interrupt(after: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after {after}, and saving; once more stops at once");
    })
    .context("Ctrl-C cannot be caught")?;
    Ok(stop)
}

fn main() -> ExitCode {
    mm_core::keep_freed_memory();
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("MM_LOG").unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    let threads = cli.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    mm_core::threads(threads);
    let context = Context { json: cli.json, device: cli.device, threads: threads.unwrap_or(1) };
    match run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The causes repeat each other where an error only carries another; each is said once.
            let mut said: Vec<String> = Vec::new();
            for cause in error.chain().map(ToString::to_string) {
                if !said.iter().any(|s| s.contains(&cause)) {
                    said.push(cause);
                }
            }
            eprintln!("mm: {}", said.join(": "));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::Inspect(arguments) => inspect::run(&arguments, context),
        Command::Train(arguments) => train::run(&arguments, context),
        Command::Fit(arguments) => fit::run(&arguments, context),
        Command::FuseSearch(arguments) => fuse_search::run(&arguments, context),
        Command::Predict(arguments) => predict::run(&arguments, context),
        Command::Eval(arguments) => evaluate::run(&arguments, context),
        Command::Embed(arguments) => embed::run(arguments, context),
        Command::Classify(arguments) => classify::run(&arguments, context),
        Command::Answer(arguments) => answer::run(&arguments, context),
        Command::Caption(arguments) => caption::run(&arguments, context),
        Command::Transcribe(arguments) => transcribe::run(&arguments, context),
        Command::Chat(arguments) => chat::run(&arguments, context),
        Command::Similarity(arguments) => similarity::run(&arguments, context),
        Command::Words { what } => words::run(what, context),
        Command::Align(arguments) => align::run(&arguments, context),
        Command::Diagnose(arguments) => diagnose::run(&arguments, context),
        Command::Audit(arguments) => audit::run(&arguments, context),
        Command::Search(arguments) => search::run(&arguments, context),
        Command::Report(arguments) => report::run(&arguments, context),
        Command::Prepare(arguments) => prepare::run(&arguments, context),
        Command::Merge(arguments) => merge::run(&arguments, context),
        Command::Doctor => doctor::run(context),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mm", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(&folder)?;
            clap_mangen::generate_to(Cli::command(), &folder)?;
            Ok(())
        }
    }
}
