//! `mm answer`: questions about pictures.

use crate::{Context, embed, output, speak};
use anyhow::{Context as _, Result, bail};
use mm_core::{Modality, Source};
use mm_reason::Attribution;
use mm_repr::locate;
use mm_tasks::{
    answering::{Answered, Answerer, Wishes},
    report::heat_picture,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A checkpoint folder, the name of a fetched model, or a run folder.
    #[arg(long, value_name = "DIR|NAME|RUN")]
    model: PathBuf,
    /// A picture file; may be repeated. One picture is asked every question; as many pictures as questions are asked one each.
    #[arg(long, value_name = "FILE")]
    image: Vec<String>,
    /// A video file, where the model takes such; likewise.
    #[arg(long, value_name = "FILE")]
    video: Vec<String>,
    /// A question; may be repeated.
    #[arg(long, value_name = "TEXT")]
    question: Vec<String>,
    /// Only these answers.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    choices: Option<Vec<String>>,
    /// How many answers to show with their scores; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// Save a picture of what counted: where the model looked, and which words; of a reasoning network also where it looked at each step.
    #[arg(long, value_name = "PNG")]
    explain: Option<PathBuf>,
    /// The table's column of questions.
    #[arg(long, value_name = "NAME", default_value = "question", requires = "data")]
    column: String,
    #[command(flatten)]
    generation: speak::Generation,
    #[command(flatten)]
    numbers: embed::Numbers,
    #[command(flatten)]
    whole: speak::Whole,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let files: Vec<(&str, &String)> =
        arguments.image.iter().map(|f| ("image", f)).chain(arguments.video.iter().map(|f| ("video", f))).collect();
    let pairs = if arguments.whole.data.is_some() { Vec::new() } else { pair(&files, &arguments.question)? };
    if arguments.choices.as_ref().is_some_and(|c| c.iter().all(|c| c.trim().is_empty())) {
        bail!("--choices: found none, wanted at least one answer, for instance --choices yes,no");
    }
    let folder = locate(&arguments.model, Path::new("."));
    let options = arguments.numbers.options(context)?;
    let model = Answerer::open(&folder, &crate::registry(), options, context.device()?)?;
    if model.generation().is_none() {
        arguments.generation.plain("this model chooses among answers that it knows")?;
    }
    let generation = model.generation().map(|base| arguments.generation.over(base)).transpose()?;
    let wishes = Wishes {
        choices: arguments.choices.iter().flatten().map(|c| c.trim().to_owned()).collect(),
        generation: generation.map(|mut config| {
            // As many answers as are wanted are found by as many beams.
            if arguments.top > 1 && config.num_beams > 1 {
                config.num_return_sequences = arguments.top.min(config.num_beams);
            }
            config
        }),
        explain: arguments.explain.is_some(),
    };
    if arguments.whole.data.is_some() {
        return arguments.whole.each(&["image", "video"], model.batch(), context.json, |rows| {
            let question = |row: &speak::Asked| {
                row.cell(&arguments.column)
                    .or_else(|| row.cell("text"))
                    .with_context(|| format!("no question in the column `{}`", arguments.column))
            };
            let questions: Vec<Result<String>> = rows.iter().map(question).collect();
            let asked: Vec<_> = rows
                .iter()
                .zip(&questions)
                .filter_map(|(r, q)| Some((r.modality.clone(), r.source.clone(), q.as_ref().ok()?.clone())))
                .collect();
            let mut found = match model.answer(&asked, &wishes) {
                Ok(found) => found.into_iter(),
                Err(error) => {
                    let why = format!("{error}");
                    return rows.iter().map(|_| Err(anyhow::anyhow!(why.clone()))).collect();
                }
            };
            let each = |(row, question): (&speak::Asked, Result<String>)| {
                let question = question?;
                let found = found.next().context("no answer")??;
                Ok(line(row.modality.name(), &row.file, &question, &found, arguments.top))
            };
            rows.iter().zip(questions).map(each).collect()
        });
    }
    let asked: Vec<_> = pairs
        .iter()
        .map(|((kind, file), question)| (Modality::from(*kind), Source::File(PathBuf::from(file)), (*question).clone()))
        .collect();
    let found = asked.chunks(model.batch()).map(|part| model.answer(part, &wishes));
    let found = found.flat_map(|part| match part {
        Ok(found) => found,
        Err(error) => vec![Err(error)],
    });
    for (number, (((kind, file), question), found)) in pairs.iter().zip(found).enumerate() {
        let found = found?;
        if let (Some(path), Some(heat)) = (&arguments.explain, &found.heat) {
            let path = numbered(path, number, pairs.len());
            draw(&path, kind, file, heat, question, &found.answer)?;
            eprintln!("mm: {} shows what counted", path.display());
        }
        if context.json {
            output::line(line(kind, file, question, &found, arguments.top));
        } else {
            output::line(format!("{question} {}", found.answer));
            for scored in found.scores.iter().take(if arguments.top == 0 { usize::MAX } else { arguments.top }) {
                output::line(format!("  {:6.2} %  {}", 100.0 * scored.score, scored.answer));
            }
        }
    }
    Ok(())
}

/// Which file goes with which question.
fn pair<'a>(
    files: &[(&'a str, &'a String)],
    questions: &'a [String],
) -> Result<Vec<((&'a str, &'a String), &'a String)>> {
    if files.is_empty() {
        bail!("nothing to look at; give --image (or --video), or --data and --out");
    }
    if questions.is_empty() {
        bail!("no question; give --question, for instance --question \"what is this?\"");
    }
    if let Some(empty) = questions.iter().position(|q| q.trim().is_empty()) {
        bail!("--question: the {}. has no words", empty + 1);
    }
    match (files.len(), questions.len()) {
        (1, _) => Ok(questions.iter().map(|q| (files[0], q)).collect()),
        (_, 1) => Ok(files.iter().map(|f| (*f, &questions[0])).collect()),
        (f, q) if f == q => Ok(files.iter().copied().zip(questions).collect()),
        (f, q) => bail!("{f} files and {q} questions: wanted one of either, or as many of one as of the other"),
    }
}

fn line(kind: &str, file: &str, question: &str, found: &Answered, top: usize) -> Value {
    let most = if top == 0 { usize::MAX } else { top };
    let scores: Vec<Value> = found
        .scores
        .iter()
        .take(most)
        .map(|s| json!({"answer": s.answer, "score": s.score, "logit": s.logit}))
        .collect();
    let mut out = json!({"question": question, "answer": found.answer, "scores": scores});
    out[kind] = file.into();
    if let Some(heat) = &found.heat {
        out["heat"] = json!({"grid": heat.grid, "patches": heat.patches, "words": heat.words});
        if !heat.steps.is_empty() {
            out["heat"]["steps"] = json!(heat.steps);
        }
    }
    out
}

/// `heat.png`, or `heat-2.png` for the second of several.
fn numbered(path: &Path, number: usize, all: usize) -> PathBuf {
    if all == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{ending}", number + 1))
}

fn draw(path: &Path, kind: &str, file: &str, heat: &Attribution, question: &str, answer: &str) -> Result<()> {
    let picture = if kind == "video" {
        let frames = mm_data::decode::sample_frames(Path::new(file), 1, &mm_data::decode::ImageLimits::default())?;
        frames.into_iter().next().context("the video has no frame")?
    } else {
        mm_data::decode::decode_image(Path::new(file), &mm_data::decode::ImageLimits::default())?
    };
    output::explanation(&heat_picture(&picture, heat, question, answer)?, path)
}
