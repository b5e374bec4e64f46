//! A search over ways to fuse: settings are drawn from a space, each trained a little, the better part trained longer, and so on (successive
//! halving, Jamieson 2016), judged by validation rows alone. Which layers of an encoder are fused may be part of the space (as MFAS,
//! Pérez-Rúa 2019), as may any other value of the config.

use super::{Prediction, TARGET, parse, resolve};
use crate::{
    Error, ProgressFn, Result,
    report::{Line, Report, html_escape, html_page, html_table, lines},
};
use mm_core::{Device, Registry, checkpoint, config as settings, seed::Rng};
use mm_data::Split;
use mm_fusion::operators;
use mm_train::{NoopProgress, Run, environment};
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeSet,
    fmt::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What is searched, and how long.
#[derive(Debug, Clone)]
pub struct Search {
    /// Keys of the config and the values that each may take, as they would be written in it; the operators and three widths when empty.
    pub space: Vec<(String, Vec<String>)>,
    /// Settings that are drawn; all there are when the space has fewer.
    pub trials: usize,
    /// Rounds; each trains twice as long as the one before, the last as long as the config says.
    pub rounds: usize,
    /// Share of the settings that goes on to the next round.
    pub keep: f64,
    /// Which settings are drawn is a function of it.
    pub seed: u64,
}

/// One setting and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// The values of the space's keys.
    pub settings: Vec<(String, String)>,
    /// For each round it took part in: epochs, and the score on validation rows.
    pub scores: Vec<(u64, f64)>,
    /// Why it ended, where it could not be trained.
    pub error: Option<String>,
}

impl Trial {
    fn name(&self) -> String {
        self.settings
            .iter()
            .map(|(k, v)| format!("{}={v}", k.rsplit('.').next().unwrap_or(k)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// How far it came, then how well it did there.
    fn rank(&self) -> (usize, f64) {
        (self.scores.len(), self.scores.last().map_or(f64::NEG_INFINITY, |s| s.1))
    }
}

/// `key=a|b|c`: a key of the config and what it may be.
pub fn space(text: &str) -> Result<(String, Vec<String>)> {
    let (key, values) = text.split_once('=').filter(|(k, v)| !k.is_empty() && !v.is_empty()).ok_or_else(|| {
        Error::Config(format!("--space {text}: wanted KEY=VALUE|VALUE…, for instance fusion.dim=32|64"))
    })?;
    Ok((key.to_owned(), values.split('|').map(|v| v.trim().to_owned()).collect()))
}

/// Searches; the trials, best first, and the page that shows them. The best config is left as `best.toml` in `folder`.
#[allow(clippy::too_many_arguments)]
pub fn search(
    value: &toml::Value,
    base: &Path,
    folder: &Path,
    search: &Search,
    registry: &Registry,
    device: Device,
    told: ProgressFn<'_>,
    stop: &AtomicBool,
) -> Result<(Vec<Trial>, Report)> {
    if search.rounds == 0 || search.trials == 0 || !(0.0 < search.keep && search.keep < 1.0) {
        let found = format!("{} trials, {} rounds, keep {}", search.trials, search.rounds, search.keep);
        return Err(Error::Config(format!(
            "fuse-search: found {found}; wanted at least one of each, and a share in (0, 1)"
        )));
    }
    let mut value = value.clone();
    resolve(&mut value, base, registry, &mut |text| tracing::info!("{text}"))?;
    let most = parse(&value)?.common.train.epochs;
    let default = || {
        let kinds = operators().iter().map(|spec| format!("{:?}", spec.kind)).collect();
        vec![
            ("fusion.operator.kind".to_owned(), kinds),
            ("fusion.dim".to_owned(), ["32", "64", "128"].map(ToOwned::to_owned).to_vec()),
        ]
    };
    let space = if search.space.is_empty() { default() } else { search.space.clone() };
    let all: usize = space.iter().map(|(_, v)| v.len()).product();
    let mut random = Rng::new(&[search.seed, 0xF05E]);
    let mut chosen: Vec<usize> = (0..all.min(1_000_000)).collect();
    random.shuffle(&mut chosen);
    chosen.truncate(search.trials);
    let mut trials: Vec<Trial> = chosen
        .into_iter()
        .map(|mut place| {
            let own = space.iter().map(|(key, values)| {
                let value = values[place % values.len()].clone();
                place /= values.len();
                (key.clone(), value)
            });
            Trial { settings: own.collect(), scores: Vec::new(), error: None }
        })
        .collect();
    std::fs::create_dir_all(folder).map_err(|e| Error::File { path: folder.to_owned(), reason: e.to_string() })?;
    let mut alive: BTreeSet<usize> = (0..trials.len()).collect();
    'rounds: for round in 0..search.rounds {
        let epochs = (most >> (search.rounds - 1 - round)).max(1);
        for (done, number) in alive.clone().into_iter().enumerate() {
            told(&format!("round {} of {}, {epochs} epochs", round + 1, search.rounds), done, alive.len());
            if stop.load(Ordering::Relaxed) {
                break 'rounds;
            }
            let place = folder.join(format!("trials/{number}-{round}"));
            match one(&value, base, &place, &trials[number].settings, epochs, (registry, device), stop) {
                Ok(score) => trials[number].scores.push((epochs, score)),
                // Some settings do not go together; the rest does not suffer for it.
                Err(error) => trials[number].error = Some(error.to_string()),
            }
        }
        let mut order: Vec<usize> = alive.iter().copied().filter(|n| trials[*n].error.is_none()).collect();
        order.sort_by(|a, b| trials[*b].rank().1.total_cmp(&trials[*a].rank().1));
        let kept = ((order.len() as f64 * search.keep).ceil() as usize).max(1);
        alive = order.into_iter().take(kept).collect();
        save(folder, &trials)?;
    }
    trials.sort_by(|a, b| b.rank().0.cmp(&a.rank().0).then(b.rank().1.total_cmp(&a.rank().1)));
    save(folder, &trials)?;
    let Some(best) = trials.first().filter(|t| !t.scores.is_empty()) else {
        let why = trials.iter().find_map(|t| t.error.clone()).unwrap_or_else(|| "stopped".into());
        return Err(Error::Config(format!("fuse-search: no setting could be trained: {why}")));
    };
    let mut winner = value.clone();
    apply(&mut winner, &best.settings)?;
    let text = toml::to_string_pretty(&winner).map_err(|e| Error::Config(e.to_string()))?;
    checkpoint::write_atomic(&folder.join("best.toml"), text.as_bytes())?;
    let report = page(&trials)?;
    Ok((trials, report))
}

fn apply(value: &mut toml::Value, own: &[(String, String)]) -> Result<()> {
    for (key, text) in own {
        // Another operator comes with its own settings; those of the one before must not stay behind.
        match key.strip_suffix(".kind") {
            Some(table) => settings::set(value, &format!("{table}={{kind={text}}}"))?,
            None => settings::set(value, &format!("{key}={text}"))?,
        }
    }
    Ok(())
}

fn one(
    value: &toml::Value,
    base: &Path,
    folder: &Path,
    own: &[(String, String)],
    epochs: u64,
    (registry, device): (&Registry, Device),
    stop: &AtomicBool,
) -> Result<f64> {
    let mut value = value.clone();
    apply(&mut value, own)?;
    settings::set(&mut value, &format!("train.epochs={epochs}"))?;
    settings::set(&mut value, "train.evaluate_every_epochs=1")?;
    let model = Prediction::new(parse(&value)?, base, registry, device)?;
    let manifest = model.manifest()?;
    if manifest.rows_in_split(Split::Valid).is_empty() {
        return Err(Error::Config(
            "no row is held out to judge by; set data.split.valid (or data.valid) in the config".into(),
        ));
    }
    // What an earlier search left there is another's.
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(|e| Error::File { path: folder.to_owned(), reason: e.to_string() })?;
    }
    let mut run = Run::create(folder, &value, environment(json!({"device": device.to_string()})))?;
    let fit = model.fit(Arc::new(manifest), &mut run, &mut NoopProgress, &mut |_, _, _| {}, stop)?;
    fit.training.state.best.ok_or_else(|| Error::Config(format!("stopped before a `{TARGET}` was measured")))
}

fn save(folder: &Path, trials: &[Trial]) -> Result<()> {
    let text = serde_json::to_string_pretty(trials).map_err(|e| Error::Config(e.to_string()))?;
    Ok(checkpoint::write_atomic(&folder.join("search.json"), text.as_bytes())?)
}

fn page(trials: &[Trial]) -> Result<Report> {
    let mut rows = vec![vec![String::new(), "settings".into(), "epochs".into(), "score".into()]];
    for (place, trial) in trials.iter().enumerate() {
        let (epochs, score) =
            trial.scores.last().map_or((String::new(), String::new()), |(e, s)| (e.to_string(), format!("{s:.4}")));
        let name = match &trial.error {
            Some(error) => format!("{} <span class=\"soft\">{}</span>", html_escape(&trial.name()), html_escape(error)),
            None => html_escape(&trial.name()),
        };
        rows.push(vec![(place + 1).to_string(), name, epochs, score]);
    }
    let drawn: Vec<Line> = trials
        .iter()
        .filter(|t| t.scores.len() > 1)
        .take(6)
        .map(|t| Line { name: t.name(), points: t.scores.iter().map(|(e, s)| (*e as f64, *s)).collect() })
        .collect();
    let mut body = String::from(
        "<p class=\"soft\">Successive halving, judged by validation rows alone; the score is accuracy less a twentieth of the log-loss (or minus the error). \
         The best settings are in best.toml.</p>",
    );
    if !drawn.is_empty() {
        let _ = write!(
            body,
            "<div class=\"charts\"><figure>{}<figcaption>score by epochs trained, of the six that came furthest</figcaption></figure></div>",
            lines(&drawn, "epochs", "score")?
        );
    }
    body.push_str(&html_table(&rows));
    let evaluations = trials.iter().map(|t| json!(t)).collect();
    Ok(Report { html: html_page("Search of a fusion", &body)?, evaluations })
}
