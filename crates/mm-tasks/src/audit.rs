//! Which pairs of a data set are probably wrong: mismatched, doubled, on both sides of the split, in another language than they say, or
//! broken. Scores need no labels: the agreement of a pair in a joint space against all other pairs' (as CleanLab's ranking by self-confidence,
//! Northcutt 2021), its loss (small-loss selection, Han 2018; NCR, Huang 2021), and whether the neighbours of one half have captions like
//! the other (Thomas 2022).

use crate::{Error, Result, Told, report};
use mm_align::correlation;
use mm_core::{DType, Modality, Source, Tensor};
use mm_data::{Manifest, Split};
use serde::Serialize;
use std::{collections::HashMap, fmt::Write};

/// Vectors of raw values of one modality: a run's or a pretrained joint model's.
pub type Embed<'a> = &'a dyn Fn(&Modality, &[Source]) -> Result<Tensor>;

/// What is found about a row.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Its place in the manifest, from 1.
    pub row: usize,
    /// Its id.
    pub id: String,
    /// How probably its halves do not belong together, 0 to 1: the mean of the three scores' ranks; of rows that could be read.
    pub mismatch: f64,
    /// Cosine of its halves.
    pub agreement: f64,
    /// Its loss among all.
    pub loss: f64,
    /// How alike its caption is to those of its picture's neighbours, and the other way round.
    pub neighbourhood: f64,
    /// What else is wrong with it.
    pub problems: Vec<String>,
}

/// What an audit finds: rows, the worst first.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    /// The first modality and the second.
    pub modalities: [String; 2],
    /// Every row that has both, or is broken.
    pub rows: Vec<Verdict>,
    /// Rows without both modalities, which could not be judged.
    pub skipped: usize,
}

/// From this cosine on two pictures of different files count as nearly the same.
const NEAR: f64 = 0.995;

/// Audits the pairs of two modalities of a manifest. Where `embed` fails for a batch it is asked for each value alone. Vectors of two
/// encoders that share no space are `apart`: they are brought into one by the pairs themselves ([`cross_fitted`]).
pub fn audit(
    manifest: &Manifest,
    modalities: [&Modality; 2],
    embed: Embed<'_>,
    apart: bool,
    told: Told<'_>,
) -> Result<Audit> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    let mut skipped = 0;
    let mut kept: Vec<usize> = Vec::new(); // rows of the manifest
    let mut vectors: [Vec<Tensor>; 2] = [Vec::new(), Vec::new()];
    let rows: Vec<usize> = (0..manifest.rows.len()).collect();
    for (done, chunk) in rows.chunks(32).enumerate() {
        told("embedding", done * 32, rows.len());
        let mut both = Vec::new();
        for row in chunk {
            let value = |m: &Modality| manifest.rows[*row].values.get(m).and_then(|v| v.first());
            match (value(modalities[0]), value(modalities[1])) {
                (Some(a), Some(b)) => both.push((*row, a.clone(), b.clone())),
                _ => skipped += 1,
            }
        }
        if both.is_empty() {
            continue;
        }
        let whole = |side: usize| -> Result<Vec<Result<Tensor>>> {
            let values: Vec<Source> =
                both.iter().map(|(_, a, b)| if side == 0 { a.clone() } else { b.clone() }).collect();
            Ok(match embed(modalities[side], &values) {
                Ok(all) => (0..values.len() as i64).map(|r| Ok(all.narrow(0, r, 1)?)).collect(),
                Err(_) => values.iter().map(|v| embed(modalities[side], std::slice::from_ref(v))).collect(),
            })
        };
        let (left, right) = (whole(0)?, whole(1)?);
        for ((row, ..), (a, b)) in both.iter().zip(left.into_iter().zip(right)) {
            match (a, b) {
                (Ok(a), Ok(b)) => {
                    vectors[0].push(a);
                    vectors[1].push(b);
                    kept.push(*row);
                }
                (a, b) => {
                    let problems = [a.err(), b.err()].into_iter().flatten().map(|e| format!("broken: {e}")).collect();
                    verdicts.push(blank(manifest, *row, problems));
                }
            }
        }
    }
    told("embedding", rows.len(), rows.len());
    if kept.len() < 4 {
        let found = format!("{} readable pairs of {} and {}", kept.len(), modalities[0], modalities[1]);
        return Err(Error::Config(format!("{}: found {found}, wanted at least 4", manifest.path.display())));
    }
    let join = |all: &[Tensor]| Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?.to_dtype(DType::F32)?.normalize();
    let (a, b) = (join(&vectors[0])?, join(&vectors[1])?);
    let scores = if apart {
        if kept.len() < 50 {
            let found = format!("{} readable pairs", kept.len());
            return Err(Error::Config(format!(
                "encoders without a common space: found {found}, wanted at least 50 to learn one from"
            )));
        }
        let (x, y) = cross_fitted(&a, &b, 10.0)?;
        scores(&x, &y)?
    } else {
        scores(&a, &b)?
    };
    let mut judged: Vec<Verdict> = Vec::new();
    for (place, row) in kept.iter().enumerate() {
        let mut verdict = blank(manifest, *row, Vec::new());
        verdict.agreement = scores.agreement[place];
        verdict.loss = scores.loss[place];
        verdict.neighbourhood = scores.neighbourhood[place];
        verdict.mismatch = scores.mismatch[place];
        judged.push(verdict);
    }
    doubles(manifest, &kept, modalities, &a, &mut judged)?;
    languages(manifest, &kept, &mut judged);
    judged.sort_by(|x, y| y.mismatch.total_cmp(&x.mismatch));
    // What cannot even be read stands first.
    verdicts.extend(judged);
    Ok(Audit { modalities: modalities.map(|m| m.name().to_owned()), rows: verdicts, skipped })
}

fn blank(manifest: &Manifest, row: usize, problems: Vec<String>) -> Verdict {
    let about = &manifest.rows[row];
    let (mismatch, zero) = (if problems.is_empty() { 0.0 } else { 1.0 }, 0.0);
    Verdict {
        row: about.number,
        id: about.id.clone(),
        mismatch,
        agreement: zero,
        loss: zero,
        neighbourhood: zero,
        problems,
    }
}

/// The three scores of each pair, and their mean rank from 0 (fits) to 1 (does not).
pub struct Scores {
    /// Cosines.
    pub agreement: Vec<f64>,
    /// −log of the pair's share among all, both ways.
    pub loss: Vec<f64>,
    /// Likeness to the neighbours' other halves.
    pub neighbourhood: Vec<f64>,
    /// Together.
    pub mismatch: Vec<f64>,
}

/// Scores of pairs of unit-length vectors `[rows, width]`.
pub fn scores(a: &Tensor, b: &Tensor) -> Result<Scores> {
    let rows = a.size(0)?;
    let (mut agreement, mut loss, mut near) = (Vec::new(), Vec::new(), Vec::new());
    let k = 10.min(rows - 1);
    // In blocks: memory is a block times the rows.
    for from in (0..rows).step_by(1024) {
        let count = 1024.min(rows - from);
        let (x, y) = (a.narrow(0, from, count)?, b.narrow(0, from, count)?);
        let own = x.mul(&y)?.sum_dims(&[1], false)?; // [count]
        let both = |x: &Tensor, all: &Tensor| x.matmul(&all.transpose(0, 1)?);
        let share = |x: &Tensor, all: &Tensor| -> Result<Tensor> {
            Ok(both(x, all)?.mul_scalar(20.0)?.logsumexp(1)?.sub(&own.mul_scalar(20.0)?)?)
        };
        loss.extend(share(&x, b)?.add(&share(&y, a)?)?.mul_scalar(0.5)?.to_vec::<f64>()?);
        // The neighbours of one half within its own modality; their other halves against this row's.
        let around = |x: &Tensor, own: &Tensor, y: &Tensor, other: &Tensor| -> Result<Tensor> {
            let (_, places) = both(x, own)?.topk(k + 1)?; // itself among them
            let found = other.embedding(&places)?; // [count, k + 1, width]
            Ok(found.mul(&y.unsqueeze(1)?)?.sum_dims(&[2], false)?.mean_dims(&[1], false)?)
        };
        near.extend(around(&x, a, &y, b)?.add(&around(&y, b, &x, a)?)?.mul_scalar(0.5)?.to_vec::<f64>()?);
        agreement.extend(own.to_vec::<f64>()?);
    }
    let rank = |values: &[f64], falling: bool| -> Vec<f64> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|p, q| values[*p].total_cmp(&values[*q]));
        if falling {
            order.reverse();
        }
        let mut out = vec![0.0; values.len()];
        for (place, row) in order.into_iter().enumerate() {
            out[row] = place as f64 / (values.len() - 1).max(1) as f64;
        }
        out
    };
    let three = [rank(&agreement, true), rank(&loss, false), rank(&near, true)];
    let mismatch = (0..agreement.len()).map(|r| three.iter().map(|t| t[r]).sum::<f64>() / 3.0).collect();
    Ok(Scores { agreement, loss, neighbourhood: near, mismatch })
}

/// Rows whose halves are in another row as well, and near doubles across the split.
fn doubles(
    manifest: &Manifest,
    kept: &[usize],
    modalities: [&Modality; 2],
    a: &Tensor,
    judged: &mut [Verdict],
) -> Result<()> {
    let mut same: HashMap<[u8; 32], usize> = HashMap::new();
    for (place, row) in kept.iter().enumerate() {
        let mut hasher = blake3::Hasher::new();
        for modality in modalities {
            match manifest.rows[*row].values.get(modality).and_then(|v| v.first()) {
                Some(Source::Path(path)) => {
                    if let Ok(bytes) = std::fs::read(path) {
                        hasher.update(&bytes);
                    }
                }
                other => {
                    hasher.update(format!("{other:?}").to_lowercase().as_bytes());
                }
            }
        }
        if let Some(first) = same.get(hasher.finalize().as_bytes()) {
            judged[place].problems.push(format!("doubled: the same as {}", manifest.rows[kept[*first]].id));
        } else {
            same.insert(*hasher.finalize().as_bytes(), place);
        }
    }
    let side = |split: Split| -> Vec<i64> {
        kept.iter().enumerate().filter(|(_, r)| manifest.rows[**r].split == split).map(|(p, _)| p as i64).collect()
    };
    let train = side(Split::Train);
    for split in [Split::Valid, Split::Test] {
        let held = side(split);
        if held.is_empty() || train.is_empty() {
            continue;
        }
        let left = a.index_select(0, &Tensor::from_slice(&train)?)?.transpose(0, 1)?;
        for chunk in held.chunks(1024) {
            let cosines = a.index_select(0, &Tensor::from_slice(chunk)?)?.matmul(&left)?;
            let (best, places) = (cosines.max_dim(1, false)?.to_vec::<f64>()?, cosines.argmax(1)?.to_vec::<i64>()?);
            for ((place, value), other) in chunk.iter().zip(best).zip(places) {
                if value >= NEAR {
                    let twin = &manifest.rows[kept[train[other as usize] as usize]].id;
                    judged[*place as usize].problems.push(format!(
                        "across the split: nearly the same {} as {twin} ({value:.3}), which is trained on",
                        modalities[0]
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Captions in a script that their language is not written in: certain without a model of languages, which one short caption would not
/// decide anyway.
fn languages(manifest: &Manifest, kept: &[usize], judged: &mut [Verdict]) {
    for (place, row) in kept.iter().enumerate() {
        let about = &manifest.rows[*row];
        let (Some(values), Some(claimed)) = (about.values.get(&Modality::TEXT), about.languages.get(&Modality::TEXT))
        else {
            continue;
        };
        for (value, language) in values.iter().zip(claimed) {
            let (Source::Text(text), Some(language)) = (value, language) else { continue };
            if let (Some(found), Some(wanted)) = (script_of(text), script_for(language))
                && found != wanted
            {
                judged[place].problems.push(format!(
                    "language: marked {language}, which is written in {wanted}, but “{text}” is in {found}"
                ));
            }
        }
    }
}

/// The script of most letters of a text.
fn script_of(text: &str) -> Option<&'static str> {
    let mut counts: HashMap<&'static str, usize> = HashMap::new();
    for letter in text.chars().filter(|c| c.is_alphabetic()) {
        let script = match letter as u32 {
            0x41..=0x24f | 0x1e00..=0x1eff => "Latin",
            0x370..=0x3ff | 0x1f00..=0x1fff => "Greek",
            0x400..=0x52f => "Cyrillic",
            0x590..=0x5ff => "Hebrew",
            0x600..=0x6ff | 0x750..=0x77f => "Arabic",
            0x900..=0x97f => "Devanagari",
            0x3040..=0x30ff | 0x4e00..=0x9fff => "Han or kana",
            0xac00..=0xd7af => "Hangul",
            0xe00..=0xe7f => "Thai",
            _ => continue,
        };
        *counts.entry(script).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(script, _)| script)
}

/// The script that a language is written in, where there is one.
fn script_for(language: &str) -> Option<&'static str> {
    let base = language.split(['-', '_', '@']).next().unwrap_or(language);
    if language.contains("latin") {
        return Some("Latin");
    }
    Some(match base {
        "ru" | "be" | "bg" | "uk" | "mk" | "kk" | "mn" => "Cyrillic",
        "el" => "Greek",
        "he" => "Hebrew",
        "ar" | "fa" | "ur" => "Arabic",
        "hi" | "mr" | "ne" => "Devanagari",
        "ja" | "zh" => "Han or kana",
        "ko" => "Hangul",
        "th" => "Thai",
        "en" | "fr" | "de" | "es" | "it" | "pt" | "nl" | "ca" | "da" | "sv" | "nb" | "nn" | "fi" | "pl" | "cs"
        | "sk" | "ro" | "hu" | "tr" | "gl" | "eu" | "cy" | "ga" | "is" | "et" | "lt" | "lv" | "sl" | "hr" | "af"
        | "vi" => "Latin",
        _ => return None,
    })
}

/// Area under the curve that a score makes of what is really wrong: the share of pairs (wrong, right) in the right order.
pub fn auroc(scores: &[f64], wrong: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|p, q| scores[*p].total_cmp(&scores[*q]));
    // Mean ranks of ties, then Mann and Whitney's count.
    let mut ranks = vec![0.0; scores.len()];
    let mut from = 0;
    while from < order.len() {
        let mut to = from;
        while to + 1 < order.len() && scores[order[to + 1]] == scores[order[from]] {
            to += 1;
        }
        (from..=to).for_each(|p| ranks[order[p]] = (from + to) as f64 / 2.0 + 1.0);
        from = to + 1;
    }
    let positives = wrong.iter().filter(|w| **w).count() as f64;
    let negatives = wrong.len() as f64 - positives;
    let sum: f64 = ranks.iter().zip(wrong).filter(|(_, w)| **w).map(|(r, _)| r).sum();
    (sum - positives * (positives + 1.0) / 2.0) / (positives * negatives).max(1.0)
}

/// Rows that are to be kept: neither broken nor doubled nor across the split, and not among the `share` most mismatched.
pub fn clean(audit: &Audit, share: f64) -> Vec<usize> {
    let judged: Vec<&Verdict> =
        audit.rows.iter().filter(|v| !v.problems.iter().any(|p| p.starts_with("broken"))).collect();
    let drop = (judged.len() as f64 * share.clamp(0.0, 1.0)).round() as usize;
    let bad = |v: &Verdict| v.problems.iter().any(|p| !p.starts_with("language"));
    let mut kept: Vec<usize> = judged.into_iter().skip(drop).filter(|v| !bad(v)).map(|v| v.row).collect();
    kept.sort_unstable();
    kept
}

/// The audit as a page: counts, and the worst rows with their pictures.
pub fn audit_page(audit: &Audit, manifest: &Manifest, most: usize) -> Result<String> {
    let mut body = String::new();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for problem in audit.rows.iter().flat_map(|v| &v.problems) {
        *counts.entry(problem.split(':').next().unwrap_or(problem)).or_default() += 1;
    }
    let mut rows = vec![vec!["problem".to_owned(), "rows".to_owned()]];
    let mut sorted: Vec<(&str, usize)> = counts.into_iter().collect();
    sorted.sort_unstable();
    rows.extend(sorted.into_iter().map(|(n, c)| vec![n.to_owned(), c.to_string()]));
    rows.push(vec!["judged pairs".into(), audit.rows.len().to_string()]);
    rows.push(vec!["rows without both".into(), audit.skipped.to_string()]);
    let _ = write!(body, "<h2>In short</h2>{}<h2>Most suspicious first</h2>", report::html_table(&rows));
    for verdict in audit.rows.iter().take(most) {
        let about = &manifest.rows[verdict.row - 1];
        let show = |name: &str| match about.values.get(&Modality::from(name)).and_then(|v| v.first()) {
            Some(Source::Path(path)) if name == "image" => report::html_thumbnail(path, &about.id),
            Some(Source::Text(text)) => report::html_escape(text),
            Some(Source::Path(path)) => report::html_escape(&path.display().to_string()),
            _ => String::new(),
        };
        let _ = write!(
            body,
            "<div class=\"query\"><div>{}</div><div><b>{}</b> <span class=\"soft\">row {}, mismatch {:.3}, agreement {:.3}, loss {:.2}, neighbourhood {:.3}</span><p>{}</p><p class=\"soft\">{}</p></div></div>",
            show(&audit.modalities[0]),
            report::html_escape(&verdict.id),
            verdict.row,
            verdict.mismatch,
            verdict.agreement,
            verdict.loss,
            verdict.neighbourhood,
            show(&audit.modalities[1]),
            report::html_escape(&verdict.problems.join("; "))
        );
    }
    Ok(report::html_page("Audit of pairs", &body))
}

/// Canonical correlations on frozen features, as a joint space where no joint model is at hand: fitted on the pairs themselves, each
/// fifth projected by a fit on the others, so that no pair vouches for itself.
pub fn cross_fitted(a: &Tensor, b: &Tensor, ridge: f64) -> Result<(Tensor, Tensor)> {
    let rows = a.size(0)?;
    let fold = |f: i64, own: bool| -> Vec<i64> { (0..rows).filter(|r| (r % 5 == f) == own).collect() };
    let (mut left, mut right, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for f in 0..5.min(rows) {
        let (rest, own) = (Tensor::from_slice(&fold(f, false))?, Tensor::from_slice(&fold(f, true))?);
        let pick = |x: &Tensor, p: &Tensor| x.index_select(0, p);
        let fit = correlation::cca(&pick(a, &rest)?, &pick(b, &rest)?, None, [ridge; 2])?.weighted(1.0)?;
        // Every fold must have the same width.
        let fit = fit.narrowed(64)?;
        left.push(fit.project(0, &pick(a, &own)?)?.normalize()?);
        right.push(fit.project(1, &pick(b, &own)?)?.normalize()?);
        places.extend(fold(f, true));
    }
    let back = Tensor::from_slice(&places)?.argsort(0, false)?;
    let join =
        |all: &[Tensor]| Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?.index_select(0, &back)?.to_dtype(DType::F32);
    Ok((join(&left)?, join(&right)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    #[test]
    fn shuffled_pairs_are_ranked_first() {
        manual_seed(1);
        let hidden = Tensor::randn(&[300, 6], DType::F32, Device::Cpu).unwrap();
        let noisy = |scale: f64| {
            let noise = Tensor::randn(&[300, 6], DType::F32, Device::Cpu).unwrap().mul_scalar(scale).unwrap();
            hidden.add(&noise).unwrap().normalize().unwrap()
        };
        let (a, b) = (noisy(0.4), noisy(0.4));
        // Each tenth caption goes to another picture.
        let order: Vec<i64> = (0..300).map(|r| if r % 10 == 0 { (r + 130) % 300 } else { r }).collect();
        let wrong: Vec<bool> = (0..300).map(|r| r % 10 == 0).collect();
        let b = b.index_select(0, &Tensor::from_slice(&order).unwrap()).unwrap();
        let found = scores(&a, &b).unwrap();
        assert!(auroc(&found.mismatch, &wrong) > 0.95, "{}", auroc(&found.mismatch, &wrong));
        let (x, y) = cross_fitted(&a.to_dtype(DType::F64).unwrap(), &b.to_dtype(DType::F64).unwrap(), 0.1).unwrap();
        assert!(auroc(&scores(&x, &y).unwrap().mismatch, &wrong) > 0.9);
    }

    #[test]
    fn areas_and_scripts_are_those_of_a_hand_count() {
        assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), 0.75);
        assert_eq!(auroc(&[0.5, 0.5], &[false, true]), 0.5);
        assert_eq!(
            (script_of("Жаба, a!"), script_of("ένα a"), script_of("123")),
            (Some("Cyrillic"), Some("Greek"), None)
        );
        assert_eq!(
            (script_for("ru"), script_for("en_GB"), script_for("sr@latin"), script_for("xx")),
            (Some("Cyrillic"), Some("Latin"), Some("Latin"), None)
        );
    }
}
