//! `mm align`: two arrays of features into one space.

use crate::{Context, output};
use anyhow::{Result, bail};
use mm_core::Tensor;
use mm_data::{read_npy, write_npy};
use mm_tasks::alignment::{self, METHODS, Pairs, Wanted, fit, measure, recalls};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How: a name of `--method list`, or auto (the best by validation inside the training rows).
    #[arg(long, default_value = "auto")]
    method: String,
    /// Features of the first modality: .npy, float32 or float64, [rows, width].
    #[arg(long, value_name = "FILE")]
    a: Option<PathBuf>,
    /// Features of the second modality, row for row.
    #[arg(long, value_name = "FILE")]
    b: Option<PathBuf>,
    /// Class numbers of the rows: .npy, int64.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Features to measure on [default: a tenth of the rows, held out].
    #[arg(long, value_name = "FILE", requires = "test_b")]
    test_a: Option<PathBuf>,
    /// The second modality of those.
    #[arg(long, value_name = "FILE", requires = "test_a")]
    test_b: Option<PathBuf>,
    /// Their class numbers.
    #[arg(long, value_name = "FILE", requires = "test_a")]
    test_labels: Option<PathBuf>,
    /// Only so many training rows are taken for pairs, the rest for two heaps without an order, from which `procrustes` learns too.
    #[arg(long, value_name = "N")]
    known: Option<usize>,
    /// Dimensions of the common space [default: chosen inside].
    #[arg(long, value_name = "K")]
    dim: Option<i64>,
    /// Regularisation: a number, or auto.
    #[arg(long, default_value = "auto")]
    reg: String,
    /// Everything random is a function of it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the first modality's projections go: of the test rows, of all when there are none.
    #[arg(long, value_name = "FILE")]
    out_a: Option<PathBuf>,
    /// Where the second modality's go.
    #[arg(long, value_name = "FILE")]
    out_b: Option<PathBuf>,
    /// A folder for the maps (align.safetensors: a.mean, a.map, b.mean, b.map) and the figures (align.json).
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
}

/// Two files of features, and labels where there are some.
pub(crate) fn pairs(a: &Path, b: &Path, labels: Option<&Path>) -> Result<Pairs> {
    let labels = labels.map(read_npy).transpose()?;
    Ok(Pairs::new(read_npy(a)?, read_npy(b)?, labels.as_ref())?)
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.method == "list" {
        for (name, about) in METHODS {
            output::line(if context.json {
                json!({"method": name, "about": about}).to_string()
            } else {
                format!("{name:14} {about}")
            });
        }
        return Ok(());
    }
    let (Some(a), Some(b)) = (&arguments.a, &arguments.b) else {
        bail!("two arrays are wanted: --a A.npy --b B.npy");
    };
    let reg = match arguments.reg.as_str() {
        "auto" => None,
        number => match number.parse::<f64>() {
            Ok(value) => Some(value),
            Err(_) => bail!("--reg: found {number}, wanted auto or a number"),
        },
    };
    let mut all = pairs(a, b, arguments.labels.as_deref())?;
    let mut test = match (&arguments.test_a, &arguments.test_b) {
        (Some(a), Some(b)) => Some(pairs(a, b, arguments.test_labels.as_deref())?),
        _ => None,
    };
    if let Some(test) = &test {
        for (name, own, other) in [("a", &all.a, &test.a), ("b", &all.b, &test.b)] {
            if own.size(1)? != other.size(1)? {
                bail!("--test-{name}: found width {}, wanted {} as --{name} has", other.size(1)?, own.size(1)?);
            }
        }
    }
    let mut none = None;
    alignment::renumber(&mut [&mut all.labels, test.as_mut().map_or(&mut none, |t| &mut t.labels)]);
    let given = test.is_some();
    let (train, test) = match test {
        Some(test) => (all, test),
        None => all.hold_out(0.1, arguments.seed)?,
    };
    let train = match arguments.known {
        Some(known) => train.forget_all_but(known, arguments.seed)?,
        None => train,
    };
    let wanted = Wanted { dim: arguments.dim, reg, seed: arguments.seed };
    let begun = std::time::Instant::now();
    let (fitted, tried) = fit(&arguments.method, &train, &wanted)?;
    let seconds = begun.elapsed().as_secs_f64();
    let scores = measure(&fitted, &test)?;
    let rows = |x: &Tensor| x.size(0);
    let result = json!({
        "method": fitted.method, "dim": fitted.dim, "reg": fitted.reg, "root": fitted.root,
        "recall": {"a2b": recalls(&scores.a2b, false), "b2a": recalls(&scores.b2a, false)},
        "map": {"a2b": scores.by_label[0], "b2a": scores.by_label[1]},
        "chance": {
            "recall": {"a2b": recalls(&scores.a2b, true), "b2a": recalls(&scores.b2a, true)},
            "map": {"a2b": scores.chance[0], "b2a": scores.chance[1]},
        },
        "rows": {"train": rows(&train.a)?, "test": rows(&test.a)?, "held_out": !given},
        "seconds": seconds, "tried": tried,
    });
    for (side, (x, out)) in [(&test.a, &arguments.out_a), (&test.b, &arguments.out_b)].into_iter().enumerate() {
        let Some(out) = out else { continue };
        // Without rows of their own to measure on, what is asked for is every row, in its order.
        let x = if given { x.clone() } else { read_npy(if side == 0 { a } else { b })? };
        write_npy(out, &fitted.project(side, &x)?.to_dtype(mm_core::DType::F32)?)?;
    }
    if let Some(folder) = &arguments.save {
        std::fs::create_dir_all(folder)?;
        mm_core::checkpoint::write_file(&folder.join("align.json"), format!("{result:#}\n").as_bytes())?;
        match fitted.affine() {
            Some([(ma, a), (mb, b)]) => {
                let named = [("a.mean", ma), ("a.map", a), ("b.mean", mb), ("b.map", b)];
                let tensors: Vec<(String, Tensor)> =
                    named.into_iter().map(|(n, t)| Ok((n.to_owned(), t.contiguous()?))).collect::<Result<_>>()?;
                mm_core::checkpoint::save(&folder.join("align.safetensors"), &tensors, &[])?;
            }
            None => eprintln!(
                "mm: {} is no affine map, so {} holds the figures alone; --out-a and --out-b hold the projections",
                fitted.method,
                folder.display()
            ),
        }
    }
    if context.json {
        output::line(&result);
        return Ok(());
    }
    let mut table =
        vec![["", "R@1", "R@5", "R@10", "mAP", "chance R@10", "chance mAP"].map(ToOwned::to_owned).to_vec()];
    for (name, m, place) in [("a → b", &scores.a2b, 0), ("b → a", &scores.b2a, 1)] {
        let [one, five, ten] = m.recall.map(|v| format!("{v:.3}"));
        let (map, chance) = (format!("{:.3}", scores.by_label[place]), format!("{:.3}", scores.chance[place]));
        table.push(vec![name.into(), one, five, ten, map, format!("{:.3}", m.chance[2]), chance]);
    }
    let root = match fitted.root {
        [true, true] => ", square roots of both first",
        [true, false] => ", square roots of a first",
        [false, true] => ", square roots of b first",
        [false, false] => "",
    };
    output::line(format!(
        "{} of {} dimensions, regularisation {}{root}; fitted on {} pairs in {seconds:.1} s, measured on {}{}",
        fitted.method,
        fitted.dim,
        fitted.reg,
        rows(&train.a)?,
        rows(&test.a)?,
        if given { "" } else { " held out" }
    ));
    output::table(&table);
    let mut best: Vec<&alignment::Tried> = tried.iter().collect();
    best.sort_by(|x, y| y.map.total_cmp(&x.map));
    if best.len() > 1 {
        output::line(format!("tried {} settings inside the training rows; the best of each method:", best.len()));
        let mut rows = vec![["method", "reg", "dim", "roots", "mAP inside"].map(ToOwned::to_owned).to_vec()];
        let mut seen: Vec<&str> = Vec::new();
        for t in best {
            if !seen.contains(&t.method.as_str()) {
                seen.push(&t.method);
                rows.push(vec![
                    t.method.clone(),
                    t.reg.to_string(),
                    t.dim.to_string(),
                    match t.root {
                        [true, true] => "both".into(),
                        [true, false] => "a".into(),
                        [false, true] => "b".into(),
                        [false, false] => String::new(),
                    },
                    format!("{:.3}", t.map),
                ]);
            }
        }
        output::table(&rows);
    }
    Ok(())
}
