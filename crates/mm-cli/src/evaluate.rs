//! `mm eval`: measures a run on held-out data.

use crate::{Context, output, progress::Steps};
use anyhow::{Result, bail};
use mm_data::Split;
use mm_repr::{Pretrained, locate};
use mm_tasks::{
    job::{Evaluated, Job, prediction_figures},
    metrics::{Judges, Synonyms},
    prediction::{Predictor, robustness, robustness_page},
};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The run folder.
    run: PathBuf,
    /// The side to measure on: train, valid or test.
    #[arg(long, default_value = "test")]
    split: Split,
    /// Other rows to measure on, bound as in training (predictions only).
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    data: Option<PathBuf>,
    /// A modality to leave out, to see what it is worth; several by commas, or repeated (predictions only).
    #[arg(long, value_name = "MODALITY,…", value_delimiter = ',')]
    drop: Vec<String>,
    /// Also disturb each modality at ten strengths (withheld, drowned in noise), and write the curves as a page (predictions only).
    #[arg(long, value_name = "FILE.html")]
    robustness: Option<PathBuf>,
    /// A joint model of pictures and texts that says how well captions go with their pictures (`CLIPScore`; captions only).
    #[arg(long, value_name = "DIR|NAME")]
    clip: Option<PathBuf>,
    /// A folder of WordNet's files, for METEOR with synonyms (captions only; `cargo xtask data fetch english-dictionary` brings one).
    #[arg(long, value_name = "DIR")]
    wordnet: Option<PathBuf>,
}

/// A prediction: on any rows, with or without a modality.
fn prediction(arguments: &Arguments, context: &Context) -> Result<Evaluated> {
    if arguments.clip.is_some() || arguments.wordnet.is_some() {
        bail!("--clip and --wordnet judge captions; {} is measured as a prediction", arguments.run.display());
    }
    // Rows of a table of one's own are new to it whatever side its own rows are asked of.
    let side = if arguments.data.is_some() { Split::Test } else { arguments.split };
    let predictor = Predictor::open_for(&arguments.run, side, &crate::registry(), context.device()?)?;
    let drop = predictor.without(&arguments.drop)?;
    let (manifest, rows) = if let Some(data) = &arguments.data {
        let manifest = predictor.data(data)?;
        let rows = (0..manifest.rows.len()).collect::<Vec<_>>();
        (manifest, rows)
    } else {
        let manifest = predictor.manifest()?;
        let rows = manifest.rows_in_split(arguments.split);
        if rows.is_empty() {
            let (run, split) = (arguments.run.display(), arguments.split);
            bail!("{run}: its data have no {split} rows; name others with --data, or a side with --split");
        }
        (manifest, rows)
    };
    if let Some(page) = &arguments.robustness {
        let curves = robustness(&predictor, &manifest, &rows, 0)?;
        mm_core::checkpoint::write_file(page, robustness_page(&curves)?.html.as_bytes())?;
        let mut table =
            vec![["modality", "how", "undisturbed", "at the worst", "area"].map(ToOwned::to_owned).to_vec()];
        table.extend(curves.iter().map(|c| {
            let at = |p: Option<&(f64, f64)>| p.map_or(String::new(), |p| format!("{:.4}", p.1));
            let (first, last) = (at(c.points.first()), at(c.points.last()));
            vec![c.modality.clone(), c.kind.to_owned(), first, last, format!("{:.4}", c.area)]
        }));
        return Ok(Evaluated { json: serde_json::json!({"curves": curves, "page": page}), table });
    }
    let (figures, broken) = predictor.evaluate(&manifest, &rows, &drop)?;
    for value in broken.iter().take(20) {
        eprintln!("left out {value}");
    }
    Ok(prediction_figures(&figures, &broken))
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let fitted = arguments.run.join("fit.json").exists();
    if fitted || arguments.data.is_some() || !arguments.drop.is_empty() || arguments.robustness.is_some() {
        let evaluated = prediction(arguments, context)?;
        if context.json {
            output::line(&evaluated.json);
        } else {
            output::table(&evaluated.table);
        }
        return Ok(());
    }
    let registry = crate::registry();
    let model = Job::load(&arguments.run, &registry, context.device()?)?;
    let mut steps = Steps::new();
    let told = &mut |what: &str, done, of| steps.tell(what, done, of);
    let clip = arguments.clip.as_ref().map(|name| Pretrained::load(&locate(name, Path::new(".")))).transpose()?;
    let synonyms = arguments.wordnet.as_deref().map(Synonyms::open).transpose()?;
    let judges = Judges { clip: clip.as_ref(), synonyms: synonyms.as_ref() };
    let evaluated = model.evaluate(&arguments.run, arguments.split, &registry, judges, told)?;
    steps.end();
    let text = serde_json::to_string(&evaluated.json)?;
    // Kept beside the run, where it may be; reading a run that belongs to somebody else is fine too.
    let file = arguments.run.join(format!("evaluation-{}.json", arguments.split));
    if let Err(error) = mm_core::checkpoint::write_file(&file, text.as_bytes()) {
        tracing::warn!("not kept: {error}");
    }
    if context.json {
        output::line(text);
    } else {
        output::table(&evaluated.table);
    }
    Ok(())
}
