//! `mm answer`: visual question answering.

use crate::{
    args::{
        batch::{BatchArgs, BatchRow, command_provenance, generation_options},
        columns::{self, ColumnBinding},
        dtype::DtypeArgs,
        generation::GenerationArgs,
        limit::Limit,
        model::ModelArgs,
        output_path::local_path,
    },
    context::Context,
    exit::usage,
    output,
};
use anyhow::{Context as _, Result};
use mm_core::{Modality, Source};
use mm_reason::Attribution;
use mm_tasks::{
    answering::{Answer, AnswerOptions, Answerer},
    report::attribution_image,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Answer questions about images or videos with a checkpoint or a trained run
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm answer --model runs/vqa --image shapes.png --question \"what color is the circle?\" --explain attention.png\n  mm answer --model Salesforce/blip-vqa-base --image photo.jpg --question \"how many dogs?\" --question \"where?\" --json\n  mm answer --model dandelin/vilt-b32-finetuned-vqa --image photo.jpg --question \"what is it?\" --candidates dog,cat\n  mm answer --model NAME --data questions.csv --column question=prompt --out answers.jsonl\n\nJSON, one line a question: {\"input\": …, \"modality\": …, \"question\": …, \"answer\": …, \"results\": [{\"rank\": 1, \"answer\": …, \"score\": …, \"logit\": …}]}"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Image file; may be repeated. One image gets every question; several images get one question each, in order.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    image: Vec<String>,
    /// Video file, for models that take videos; may be repeated like --image.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    video: Vec<String>,
    /// Question; may be repeated.
    #[arg(long, value_name = "TEXT", help_heading = "Inputs")]
    question: Vec<String>,
    /// Choose among these answers only.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    candidates: Option<Vec<String>>,
    /// Number of answers to show with their scores, or all.
    #[arg(long, value_name = "N|all", default_value = "5")]
    k: Limit,
    /// Save an image of the attention over image and question (and of each reasoning step) as PNG.
    #[arg(long, value_name = "FILE.png", value_parser = local_path())]
    explain: Option<PathBuf>,
    #[command(flatten)]
    dtype: DtypeArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    batch: BatchArgs,
}

/// One question about one file.
struct Query<'a> {
    kind: &'static str,
    file: &'a str,
    question: &'a str,
}

impl Query<'_> {
    fn request(&self) -> (Modality, Source, String) {
        (Modality::from(self.kind), Source::Path(PathBuf::from(self.file)), self.question.to_owned())
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    arguments.batch.check()?;
    let queries = if arguments.batch.input().is_some() { Vec::new() } else { queries(arguments)? };
    if arguments.candidates.as_ref().is_some_and(|c| c.iter().all(|c| c.trim().is_empty())) {
        usage!("--candidates: found none, expected at least one answer, for instance --candidates yes,no");
    }
    let options = arguments.dtype.load_options(context)?;
    let mut model = Answerer::open(&arguments.model.dir()?, &context.registry, options, context.device()?)?;
    let options = answer_options(&model, arguments)?;
    if arguments.batch.input().is_some() {
        let column = question_column(&arguments.batch.table.column);
        let own = json!({"question_column": column, "candidates": options.candidates, "k": arguments.k.get()});
        let options_used = generation_options(own, options.generation.as_ref(), &arguments.dtype)?;
        let provenance = command_provenance("answer", &arguments.model.checkpoint_dir()?, options_used)?;
        return arguments.batch.run(&provenance, &["image", "video"], model.max_batch_size(), context, |rows| {
            answer_rows(&mut model, rows, column.as_deref(), &options, arguments.k)
        });
    }
    let mut number = 0;
    for batch in queries.chunks(model.max_batch_size()) {
        let requests: Vec<_> = batch.iter().map(Query::request).collect();
        for (query, answer) in batch.iter().zip(model.answer(&requests, &options)?) {
            let answer = answer?;
            number += 1;
            if let (Some(path), Some(attribution)) = (&arguments.explain, &answer.attribution) {
                let path = numbered(path, number, queries.len());
                save_attention(&path, query, attribution, &answer.answer)?;
                output::note(format!("{}: what the answer depends on", path.display()));
            }
            print_answer(query, &answer, arguments.k, context);
        }
    }
    Ok(())
}

fn answer_options(model: &Answerer, arguments: &Arguments) -> Result<AnswerOptions> {
    if model.generation().is_none() {
        arguments.generation.refuse_constraints("this model chooses among the answers of its vocabulary")?;
    }
    let generation = model.generation().map(|base| arguments.generation.override_config(base)).transpose()?;
    let generation = generation.map(|mut config| {
        // Several answers come from as many beams.
        if arguments.k.get() > 1 && config.num_beams > 1 {
            config.num_return_sequences = arguments.k.get().min(config.num_beams);
        }
        config
    });
    let candidates = arguments.candidates.iter().flatten().map(|c| c.trim().to_owned()).collect();
    Ok(AnswerOptions { candidates, generation, explain: arguments.explain.is_some() })
}

/// Which file goes with which question.
fn queries(arguments: &Arguments) -> Result<Vec<Query<'_>>> {
    let images = arguments.image.iter().map(|f| ("image", f.as_str()));
    let files: Vec<(&'static str, &str)> =
        images.chain(arguments.video.iter().map(|f| ("video", f.as_str()))).collect();
    let questions = &arguments.question;
    if files.is_empty() {
        usage!("no image; give --image (or --video), or --data and --out");
    }
    if questions.is_empty() {
        usage!("no question; give --question, for instance --question \"what is this?\"");
    }
    if let Some(empty) = questions.iter().position(|q| q.trim().is_empty()) {
        usage!("--question: question {} is empty", empty + 1);
    }
    let count = files.len().max(questions.len());
    if files.len() != questions.len() && files.len() != 1 && questions.len() != 1 {
        usage!(
            "found {} files and {} questions; expected one file, one question, or as many files as questions",
            files.len(),
            questions.len()
        );
    }
    let query = |i: usize| {
        let (kind, file) = files[i.min(files.len() - 1)];
        Query { kind, file, question: &questions[i.min(questions.len() - 1)] }
    };
    Ok((0..count).map(query).collect())
}

/// The column of `--column question=COLUMN`.
fn question_column(bindings: &[ColumnBinding]) -> Option<String> {
    columns::by_name(bindings).remove("question").and_then(|c| c.into_iter().next())
}

fn answer_rows(
    model: &mut Answerer,
    rows: &[BatchRow],
    column: Option<&str>,
    options: &AnswerOptions,
    k: Limit,
) -> Vec<Result<Value>> {
    let question = |row: &BatchRow| match column {
        Some(column) => row.cell(column).with_context(|| format!("no question in column `{column}`")),
        None => row.cell("question").or_else(|| row.cell("text")).context("no question in column `question` or `text`"),
    };
    let questions: Vec<Result<String>> = rows.iter().map(question).collect();
    let requests: Vec<_> = rows
        .iter()
        .zip(&questions)
        .filter_map(|(row, question)| Some((row.modality.clone(), row.source.clone(), question.as_ref().ok()?.clone())))
        .collect();
    let mut answers = match model.answer(&requests, options) {
        Ok(answers) => answers.into_iter(),
        Err(error) => {
            let reason = error.to_string();
            return rows.iter().map(|_| Err(anyhow::anyhow!(reason.clone()))).collect();
        }
    };
    let line = |(row, question): (&BatchRow, Result<String>)| {
        let question = question?;
        let answer = answers.next().context("the model gave no answer")??;
        Ok(json_line(row.modality.name(), &row.path, &question, &answer, k))
    };
    rows.iter().zip(questions).map(line).collect()
}

fn print_answer(query: &Query<'_>, answer: &Answer, k: Limit, context: &Context) {
    if context.json {
        output::line(json_line(query.kind, query.file, query.question, answer, k));
        return;
    }
    output::line(format!("{} {}", query.question, answer.answer));
    for scored in answer.scores.iter().take(k.get()) {
        output::line(format!("  {:6.2} %  {}", 100.0 * scored.score, scored.answer));
    }
}

fn json_line(kind: &str, file: &str, question: &str, answer: &Answer, k: Limit) -> Value {
    let ranked = answer.scores.iter().take(k.get()).zip(1..);
    let results: Vec<Value> =
        ranked.map(|(s, rank)| json!({"rank": rank, "answer": s.answer, "score": s.score, "logit": s.logit})).collect();
    let mut line = json!({
        "input": file, "modality": kind, "question": question, "answer": answer.answer, "results": results,
    });
    if let Some(Attribution { grid, patches, words, steps }) = &answer.attribution {
        line["attribution"] = json!({"grid": grid, "patches": patches, "words": words});
        if !steps.is_empty() {
            line["attribution"]["steps"] = json!(steps);
        }
    }
    line
}

/// `attention.png`, or `attention-2.png` for the second of several.
fn numbered(path: &Path, number: usize, total: usize) -> PathBuf {
    if total == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{number}{extension}"))
}

fn save_attention(path: &Path, query: &Query<'_>, attribution: &Attribution, answer: &str) -> Result<()> {
    let limits = mm_data::decode::ImageLimits::default();
    let file = Path::new(query.file);
    let image = if query.kind == "video" {
        let frames = mm_data::decode::sample_frames(file, 1_usize, &limits)?;
        frames.into_iter().next().context("the video has no frame")?
    } else {
        mm_data::decode::decode_image(file, &limits)?
    };
    output::save_explanation(&attribution_image(&image, attribution, query.question, answer)?, path)
}
