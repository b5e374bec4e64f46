//! `mm align`: two arrays of features into one space.

use crate::{args::output_path::local_path, context::Context, exit::usage, output};
use anyhow::Result;
use mm_core::Tensor;
use mm_data::write_npy;
use mm_tasks::{
    alignment::{
        AlignmentMetrics, FittedAlignment, PairedFeatures, SearchOptions, Trial, evaluate, hold_out, index_labels,
        project_array, read_paired_arrays, search, subsample_pairs,
    },
    embedding::copy_rows,
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Align two arrays of features (.npy) whose rows correspond, and measure retrieval between them
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm align --list-methods\n  mm align --a images.npy --b captions.npy\n  mm align --method cca --a a.npy --b b.npy --labels y.npy --test-a ta.npy --test-b tb.npy --test-labels ty.npy --json"
)]
pub(crate) struct Arguments {
    /// Method, by a name of --list-methods, or auto (the best on validation rows within the training rows).
    #[arg(long, default_value = "auto")]
    method: String,
    /// List the methods.
    #[arg(long)]
    list_methods: bool,
    /// Features of the first modality: .npy, float32 or float64, [rows, dim].
    #[arg(long, value_name = "FILE.npy", help_heading = "Data", required_unless_present = "list_methods")]
    a: Option<PathBuf>,
    /// Features of the second modality, in the same row order.
    #[arg(long, value_name = "FILE.npy", help_heading = "Data", required_unless_present = "list_methods")]
    b: Option<PathBuf>,
    /// Class index of each row: .npy, int64.
    #[arg(long, value_name = "FILE.npy", help_heading = "Data")]
    labels: Option<PathBuf>,
    /// Test features of the first modality [default: a tenth of the rows, held out].
    #[arg(long, value_name = "FILE.npy", requires = "test_b", help_heading = "Data")]
    test_a: Option<PathBuf>,
    /// Test features of the second modality.
    #[arg(long, value_name = "FILE.npy", requires = "test_a", help_heading = "Data")]
    test_b: Option<PathBuf>,
    /// Class index of each test row.
    #[arg(long, value_name = "FILE.npy", requires = "test_a", help_heading = "Data")]
    test_labels: Option<PathBuf>,
    /// Use only this many training rows as pairs, and the others as unpaired rows of each modality (which `procrustes`
    /// learns from).
    #[arg(long, value_name = "N", help_heading = "Data")]
    num_pairs: Option<usize>,
    /// Dimension of the shared space [default: chosen on validation rows].
    #[arg(long, value_name = "N")]
    dim: Option<i64>,
    /// Regularization strength [default: chosen on validation rows].
    #[arg(long, value_name = "X")]
    regularization: Option<f64>,
    /// Random seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// File for the first modality's projections: of the test rows, or of all rows where no test rows are given.
    #[arg(long, value_name = "FILE.npy", help_heading = "Output", value_parser = local_path())]
    out_a: Option<PathBuf>,
    /// File for the second modality's projections.
    #[arg(long, value_name = "FILE.npy", help_heading = "Output", value_parser = local_path())]
    out_b: Option<PathBuf>,
    /// Folder for the projections (align.safetensors: a.mean, a.map, b.mean, b.map) and the metrics (align.json).
    #[arg(long, value_name = "DIR", help_heading = "Output", value_parser = local_path())]
    out: Option<PathBuf>,
}

/// Warns about pairs that are left out because a vector is missing.
pub(crate) fn warn_missing(pairs: usize) {
    if pairs > 0 {
        output::warning(format!("{pairs} pair(s) left out: a vector is missing (a row of NaN) in one of the arrays"));
    }
}

/// The rows to fit on, the rows to measure on, and whether those were given or held out.
struct Data {
    train: PairedFeatures,
    test: PairedFeatures,
    test_given: bool,
    /// Number of pairs left out because a vector is missing.
    missing: usize,
}

impl Data {
    fn read(arguments: &Arguments, a: &Path, b: &Path) -> Result<Self> {
        let mut missing = 0;
        let mut read = |a: &Path, b: &Path, labels: Option<&Path>| -> Result<PairedFeatures> {
            let arrays = read_paired_arrays(a, b, labels)?;
            missing += arrays.missing;
            Ok(arrays.pairs)
        };
        let mut train = read(a, b, arguments.labels.as_deref())?;
        let mut test = match (&arguments.test_a, &arguments.test_b) {
            (Some(a), Some(b)) => Some(read(a, b, arguments.test_labels.as_deref())?),
            _ => None,
        };
        warn_missing(missing);
        if let Some(test) = &test {
            for (name, train, test) in [("a", &train.a, &test.a), ("b", &train.b, &test.b)] {
                if train.size(1)? != test.size(1)? {
                    usage!(
                        "--test-{name}: found dimension {}, expected {} as in --{name}",
                        test.size(1)?,
                        train.size(1)?
                    );
                }
            }
        }
        let mut none = None;
        index_labels(&mut [&mut train.labels, test.as_mut().map_or(&mut none, |t| &mut t.labels)]);
        let test_given = test.is_some();
        let (train, test) = match test {
            Some(test) => (train, test),
            None => hold_out(&train, 0.1, arguments.seed)?,
        };
        let train = match arguments.num_pairs {
            Some(count) => subsample_pairs(&train, count, arguments.seed)?,
            None => train,
        };
        Ok(Self { train, test, test_given, missing })
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let (Some(a), Some(b), false) = (&arguments.a, &arguments.b, arguments.list_methods) else {
        list_methods(context);
        return Ok(());
    };
    let data = Data::read(arguments, a, b)?;
    let options = SearchOptions { dim: arguments.dim, regularization: arguments.regularization, seed: arguments.seed };
    let started = Instant::now();
    let (fitted, trials) = search(&context.methods, &arguments.method, &data.train, &options)?;
    let seconds = started.elapsed().as_secs_f64();
    let scores = evaluate(&fitted, &data.test)?;
    let rows = [data.train.a.size(0)?, data.test.a.size(0)?];
    let result = json!({
        "method": fitted.method, "dim": fitted.alignment.dim, "regularization": fitted.regularization,
        "square_root": fitted.square_root,
        "metrics": scores.metrics(),
        "rows": {"train": rows[0], "test": rows[1], "held_out": !data.test_given, "missing": data.missing},
        "seconds": seconds, "trials": trials,
    });
    let outputs = [(&arguments.out_a, a, &arguments.test_a), (&arguments.out_b, b, &arguments.test_b)];
    for (index, (out, all, test)) in outputs.into_iter().enumerate() {
        let Some(out) = out else { continue };
        let array = test.as_ref().unwrap_or(all);
        write_npy(out, &project_array(&fitted, index, array)?)?;
        copy_rows(array, out)?;
    }
    if let Some(folder) = &arguments.out {
        save(folder, &fitted, &result)?;
    }
    if context.json {
        output::line(&result);
        return Ok(());
    }
    output::line(format!(
        "{} of dimension {}, regularization {}{}; fitted on {} pairs in {seconds:.1} s, measured on {}{}",
        fitted.method,
        fitted.alignment.dim,
        fitted.regularization,
        square_roots(fitted.square_root, ", square roots of ", " first"),
        rows[0],
        rows[1],
        if data.test_given { "" } else { " held-out pairs" }
    ));
    print_scores(&scores);
    print_trials(&trials);
    Ok(())
}

fn list_methods(context: &Context) {
    for (name, description) in context.methods.iter().map(|m| (m.name(), m.description())) {
        output::line(if context.json {
            json!({"name": name, "description": description}).to_string()
        } else {
            format!("{name:31} {description}")
        });
    }
}

/// Writes align.json, and align.safetensors where the projections are affine maps.
fn save(folder: &Path, fitted: &FittedAlignment, result: &serde_json::Value) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    mm_core::checkpoint::write_atomic(&folder.join("align.json"), format!("{result:#}\n").as_bytes())?;
    match fitted.alignment.project_a.as_affine().zip(fitted.alignment.project_b.as_affine()) {
        Some((a, b)) => {
            let named = [("a.mean", &a.mean), ("a.map", &a.map), ("b.mean", &b.mean), ("b.map", &b.map)];
            let tensors: Vec<(String, Tensor)> =
                named.into_iter().map(|(n, t)| Ok((n.to_owned(), t.contiguous()?))).collect::<Result<_>>()?;
            mm_core::checkpoint::save(&folder.join("align.safetensors"), &tensors, &[])?;
        }
        None => output::warning(format!(
            "{} is not an affine map, so {} holds the metrics only; --out-a and --out-b write the projections",
            fitted.method,
            folder.display()
        )),
    }
    Ok(())
}

fn print_scores(scores: &AlignmentMetrics) {
    let head = ["direction", "recall_at_1", "recall_at_5", "recall_at_10", "map", "chance recall_at_10", "chance map"];
    let mut table = vec![head.map(ToOwned::to_owned).to_vec()];
    for (name, metrics, index) in [("a_to_b", &scores.a_to_b, 0), ("b_to_a", &scores.b_to_a, 1)] {
        let [at_1, at_5, at_10] = metrics.recall.map(|v| format!("{v:.3}"));
        let (map, chance) = (
            format!("{:.3}", scores.mean_average_precision[index]),
            format!("{:.3}", scores.chance_mean_average_precision[index]),
        );
        table.push(vec![name.into(), at_1, at_5, at_10, map, format!("{:.3}", metrics.chance[2]), chance]);
    }
    output::table(&table);
}

/// The best trial of each method.
fn print_trials(trials: &[Trial]) {
    let mut best: Vec<&Trial> = trials.iter().collect();
    best.sort_by(|x, y| y.mean_average_precision.total_cmp(&x.mean_average_precision));
    if best.len() < 2 {
        return;
    }
    output::line(format!("{} settings tried on validation rows; the best of each method:", best.len()));
    let head = ["method", "regularization", "dim", "square roots", "validation map"];
    let mut table = vec![head.map(ToOwned::to_owned).to_vec()];
    let mut seen: Vec<&str> = Vec::new();
    for trial in best {
        if !seen.contains(&trial.method.as_str()) {
            seen.push(&trial.method);
            table.push(vec![
                trial.method.clone(),
                trial.regularization.to_string(),
                trial.dim.to_string(),
                square_roots(trial.square_root, "", ""),
                format!("{:.3}", trial.mean_average_precision),
            ]);
        }
    }
    output::table(&table);
}

/// Which of the two arrays went through a square root first, in words.
fn square_roots(of: [bool; 2], before: &str, after: &str) -> String {
    match of {
        [true, true] => format!("{before}both{after}"),
        [true, false] => format!("{before}a{after}"),
        [false, true] => format!("{before}b{after}"),
        [false, false] => String::new(),
    }
}
