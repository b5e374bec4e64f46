//! `mm audit`: which pairs of a data set are probably wrong.

use crate::{Context, output, progress::Steps};
use anyhow::{Result, bail};
use mm_core::{Modality, Source, Tensor};
use mm_data::{Manifest, ManifestConfig, SplitConfig};
use mm_repr::{LoadOptions, Pretrained, locate};
use mm_tasks::{
    audit::{Audit, audit, audit_page, clean},
    job::Job,
};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The manifest of the pairs.
    data: PathBuf,
    /// What judges them: a run folder, or a joint checkpoint (CLIP, SigLIP, CLAP …). Two checkpoints with a comma between, one for each
    /// modality, are brought into one space by the pairs themselves.
    #[arg(long, value_name = "RUN|DIR|DIR,DIR")]
    model: String,
    /// The two modalities, comma between.
    #[arg(long, default_value = "image,text", value_name = "A,B")]
    modalities: String,
    /// Column whose equal values are on one side of the split.
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Column that says train, valid or test.
    #[arg(long, value_name = "COLUMN")]
    split: Option<String>,
    /// Values of other languages than these are not judged, comma between.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    languages: Vec<String>,
    /// The table: one JSON object a line, the worst first.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The manifest without what is wrong.
    #[arg(long, value_name = "FILE")]
    clean: Option<PathBuf>,
    /// Share of the most mismatched rows that --clean leaves out.
    #[arg(long, default_value_t = 0.05)]
    drop: f64,
    /// A page with the worst rows and their pictures.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let (a, b) = arguments.modalities.split_once(',').unwrap_or((&arguments.modalities, ""));
    let both = [Modality::from(a.trim()), Modality::from(b.trim())];
    if both.iter().any(|m| m.name().is_empty()) {
        bail!("--modalities: found {}, wanted two names with a comma between", arguments.modalities);
    }
    if !(0.0..1.0).contains(&arguments.drop) {
        bail!("--drop: found {}, wanted a share in [0, 1)", arguments.drop);
    }
    let split =
        SplitConfig { column: arguments.split.clone(), group: arguments.group.clone(), ..SplitConfig::default() };
    let config = ManifestConfig { manifest: arguments.data.clone(), split, ..ManifestConfig::default() };
    let mut manifest = Manifest::open(&config, Path::new("."))?;
    for row in &mut manifest.rows {
        row.retain_languages(&Modality::TEXT, &arguments.languages);
    }
    let mut steps = Steps::new();
    let told = &mut |what: &str, done, of| steps.tell(what, done, of);
    let options = || -> Result<LoadOptions> { Ok(LoadOptions { device: context.device()?, ..LoadOptions::default() }) };
    let at = |name: &str| locate(Path::new(name.trim()), Path::new("."));
    let pair = [&both[0], &both[1]];
    let found = if let Some((first, second)) = arguments.model.split_once(',') {
        let models = [Pretrained::load_with(&at(first), options()?)?, Pretrained::load_with(&at(second), options()?)?];
        let embed = |m: &Modality, s: &[Source]| -> mm_tasks::Result<Tensor> {
            Ok(models[usize::from(*m != both[0])].embed(m, s, None)?)
        };
        audit(&manifest, pair, &embed, true, told)?
    } else if at(&arguments.model).join("config.toml").exists() {
        let model = Job::load(&at(&arguments.model), &crate::registry(), context.device()?)?;
        let embed = |m: &Modality, s: &[Source]| -> mm_tasks::Result<Tensor> { model.embed(m, s) };
        audit(&manifest, pair, &embed, false, told)?
    } else {
        let model = Pretrained::load_with(&at(&arguments.model), options()?)?;
        if model.contrastive_head.is_none() {
            bail!(
                "{}: has one modality; wanted a joint model (CLIP and its kin), a run that has both, or two checkpoints with a comma between",
                arguments.model
            );
        }
        let embed = |m: &Modality, s: &[Source]| -> mm_tasks::Result<Tensor> { Ok(model.embed(m, s, None)?) };
        audit(&manifest, pair, &embed, false, told)?
    };
    steps.end();
    write(arguments, &manifest, &found)?;
    let broken = found.rows.iter().filter(|v| v.problems.iter().any(|p| p.starts_with("broken"))).count();
    let flagged = found.rows.iter().filter(|v| !v.problems.is_empty()).count();
    if context.json {
        output::line(json!({
            "rows": found.rows.len(), "skipped": found.skipped, "broken": broken, "flagged": flagged,
            "worst": found.rows.iter().take(20).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    output::line(format!(
        "{} pairs judged, {broken} broken, {} more with a certain problem, {} rows without both",
        found.rows.len() - broken,
        flagged - broken,
        found.skipped
    ));
    let mut table = vec![["row", "id", "mismatch", "agreement", "loss", "problems"].map(ToOwned::to_owned).to_vec()];
    for v in found.rows.iter().take(20) {
        let problems: String = v.problems.join("; ").chars().take(80).collect();
        table.push(vec![
            v.row.to_string(),
            v.id.clone(),
            format!("{:.3}", v.mismatch),
            format!("{:.3}", v.agreement),
            format!("{:.2}", v.loss),
            problems,
        ]);
    }
    output::table(&table);
    Ok(())
}

fn write(arguments: &Arguments, manifest: &Manifest, found: &Audit) -> Result<()> {
    if let Some(out) = &arguments.out {
        let text: Result<Vec<String>, _> = found.rows.iter().map(serde_json::to_string).collect();
        mm_core::checkpoint::write_file(out, (text?.join("\n") + "\n").as_bytes())?;
    }
    if let Some(out) = &arguments.report {
        mm_core::checkpoint::write_file(out, audit_page(found, manifest, 60)?.as_bytes())?;
    }
    let Some(out) = &arguments.clean else { return Ok(()) };
    let kept = clean(found, arguments.drop);
    let lines = |text: String| -> Vec<String> {
        text.lines().filter(|l| !l.trim().is_empty()).map(ToOwned::to_owned).collect()
    };
    if arguments.data.extension().is_none_or(|e| e != "jsonl") {
        bail!("--clean writes JSON lines, as {} is not; its rows to keep are in --out", arguments.data.display());
    }
    let all = lines(std::fs::read_to_string(&arguments.data)?);
    let text: Vec<&str> = kept.iter().filter_map(|row| all.get(row - 1).map(String::as_str)).collect();
    mm_core::checkpoint::write_file(out, (text.join("\n") + "\n").as_bytes())?;
    Ok(())
}
