//! Two modalities' embeddings diagnosed: the figures of one space, what each cure does, and a page that shows it.

use super::{
    chart::scatter,
    html::{escape, page, table},
    map::plane,
};
use crate::Result;
use mm_align::diagnose::{Cure, Interval, checked, cone_angle, effective_rank, gap, hubness, ranks, recall_interval};
use mm_core::{DType, Tensor};
use serde::Serialize;
use std::fmt::Write;

/// What one cure makes of finding b from a and a from b.
#[derive(Debug, Clone, Serialize)]
pub struct Treated {
    /// Its name; `none` is plain cosines.
    pub cure: String,
    /// Recall at 1, 5 and 10 with the ends of their 95 % intervals, for each direction: `[direction][k] = [value, low, high]`.
    pub recall: [[[f64; 3]; 3]; 2],
    /// Skewness of how often each candidate is among the ten nearest, for each direction.
    pub hubness: [f64; 2],
    /// Share of candidates that are among nobody's ten nearest.
    pub orphans: [f64; 2],
}

/// Figures of two sets of embeddings whose rows belong together.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// Rows.
    pub rows: i64,
    /// Distance of the modalities' centres on the unit sphere.
    pub centroid_distance: f64,
    /// Mean angle of each modality's rows with its own centre, in degrees.
    pub cone_angles: [f64; 2],
    /// Mean squared distance of partners.
    pub alignment: f64,
    /// Logarithm of the mean Gaussian potential; lower is more evenly spread.
    pub uniformity: f64,
    /// Dimensions that each modality really fills, of how many.
    pub effective_ranks: [f64; 2],
    /// Width.
    pub width: i64,
    /// The cures.
    pub cures: Vec<Treated>,
    /// What stands out, in words.
    pub findings: Vec<String>,
}

/// Diagnoses `[rows, width]` embeddings.
pub fn diagnose(a: &Tensor, b: &Tensor) -> Result<Diagnosis> {
    checked(a, b)?;
    let found = gap(a, b)?;
    let mut cures = Vec::new();
    for cure in Cure::ALL {
        let both = [cure.scores(a, b, None)?, cure.scores(b, a, None)?];
        let mut treated =
            Treated { cure: cure.name().into(), recall: [[[0.0; 3]; 3]; 2], hubness: [0.0; 2], orphans: [0.0; 2] };
        for (way, scores) in both.iter().enumerate() {
            let places = ranks(scores)?;
            for (number, k) in [1, 5, 10].into_iter().enumerate() {
                let Interval { value, low, high } = recall_interval(&places, k, 0);
                treated.recall[way][number] = [value, low, high];
            }
            let hubs = hubness(scores, 10)?;
            treated.hubness[way] = hubs.skewness;
            treated.orphans[way] = hubs.orphans;
        }
        cures.push(treated);
    }
    let mut out = Diagnosis {
        rows: a.size(0)?,
        centroid_distance: found.centroid_distance,
        cone_angles: [cone_angle(a)?, cone_angle(b)?],
        alignment: found.alignment,
        uniformity: found.uniformity,
        effective_ranks: [effective_rank(a)?, effective_rank(b)?],
        width: a.size(1)?,
        cures,
        findings: Vec::new(),
    };
    out.findings = findings(&out);
    Ok(out)
}

fn findings(d: &Diagnosis) -> Vec<String> {
    let mut out = Vec::new();
    if d.centroid_distance > 0.3 {
        let near = d.cone_angles[0].min(d.cone_angles[1]);
        out.push(format!(
            "The modalities lie apart: their centres are {:.2} from each other (0 together, 2 opposite), the narrower cone is {near:.0}° wide. Mean centring takes that away.",
            d.centroid_distance
        ));
    }
    let plain = &d.cures[0];
    let hub = plain.hubness[0].max(plain.hubness[1]);
    if hub > 1.0 {
        let orphans = plain.orphans[0].max(plain.orphans[1]) * 100.0;
        out.push(format!("There are hubs: skewness {hub:.1}, and {orphans:.0} % of the candidates are among nobody's ten nearest. CSLS or a query bank takes from hubs."));
    }
    for (name, rank) in [("a", d.effective_ranks[0]), ("b", d.effective_ranks[1])] {
        if rank < 0.1 * d.width as f64 {
            out.push(format!("Set {name} has collapsed: it fills {rank:.1} of {} dimensions.", d.width));
        }
    }
    let mean = |t: &Treated| f64::midpoint(t.recall[0][0][0], t.recall[1][0][0]);
    if let Some(best) = d.cures.iter().max_by(|x, y| mean(x).total_cmp(&mean(y)))
        && mean(best) > mean(plain) + 1e-9
    {
        out.push(format!(
            "Best here: {} (recall at 1, both ways: {:.3} instead of {:.3}).",
            best.cure,
            mean(best),
            mean(plain)
        ));
    }
    if out.is_empty() {
        out.push("Nothing stands out.".into());
    }
    out
}

/// The cures as a table for people, its head first.
pub fn cure_table(d: &Diagnosis) -> Vec<Vec<String>> {
    let head = ["cure", "a → b R@1", "a → b R@10", "b → a R@1", "b → a R@10", "hubness", "orphans"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    for t in &d.cures {
        let cell = |way: usize, k: usize| {
            let [value, low, high] = t.recall[way][k];
            format!("{value:.3} ({low:.3}–{high:.3})")
        };
        rows.push(vec![
            t.cure.clone(),
            cell(0, 0),
            cell(0, 2),
            cell(1, 0),
            cell(1, 2),
            format!("{:.2} / {:.2}", t.hubness[0], t.hubness[1]),
            format!("{:.2} / {:.2}", t.orphans[0], t.orphans[1]),
        ]);
    }
    rows
}

/// The diagnosis as a page, both modalities on a plane as they are and with their centres taken off.
pub fn diagnosis_page(d: &Diagnosis, a: &Tensor, b: &Tensor) -> Result<String> {
    let mut body = String::new();
    let _ = write!(body, "<h2>What stands out</h2><ul>");
    for finding in &d.findings {
        let _ = write!(body, "<li>{}</li>", escape(finding));
    }
    let figures = [
        ("pairs", d.rows.to_string()),
        ("distance of the centres", format!("{:.3}", d.centroid_distance)),
        ("cone angle of a, of b", format!("{:.0}°, {:.0}°", d.cone_angles[0], d.cone_angles[1])),
        ("alignment (partners' mean squared distance)", format!("{:.3}", d.alignment)),
        ("uniformity (lower: more even)", format!("{:.3}", d.uniformity)),
        (
            "effective rank of a, of b",
            format!("{:.1}, {:.1} of {}", d.effective_ranks[0], d.effective_ranks[1], d.width),
        ),
    ];
    let mut rows = vec![vec!["figure".to_owned(), "value".to_owned()]];
    rows.extend(figures.into_iter().map(|(n, v)| vec![n.to_owned(), v]));
    let _ = write!(body, "</ul><h2>The space</h2>{}", table(&rows));
    let _ = write!(
        body,
        "<h2>Cures</h2><p class=\"soft\">Recall with 95 % intervals by bootstrap; hubness is the skewness of how often a candidate is among the ten nearest, both ways.</p>{}",
        table(&cure_table(d))
    );
    body.push_str("<h2>On a plane</h2><div class=\"charts\">");
    let few = d.rows.min(300);
    let some = |x: &Tensor| x.narrow(0, 0, few)?.to_dtype(DType::F32)?.normalize();
    let level = |x: &Tensor| x.sub(&x.mean_dims(&[0], true)?)?.normalize();
    let (a, b) = (some(a)?, some(b)?);
    for (title, x, y) in [("as they are", a.clone(), b.clone()), ("centres taken off", level(&a)?, level(&b)?)] {
        let points = plane(&Tensor::cat(&[&x, &y], 0)?, 30.0, 400)?;
        let (left, right) = points.split_at(few as usize);
        let links: Vec<([f64; 2], [f64; 2])> = left.iter().copied().zip(right.iter().copied()).collect();
        let drawn = scatter(&[("a".into(), left.to_vec()), ("b".into(), right.to_vec())], &links)?;
        let _ = write!(
            body,
            "<figure>{drawn}<figcaption>t-SNE of {few} pairs, {title}; lines join partners</figcaption></figure>"
        );
    }
    body.push_str("</div>");
    Ok(page("Diagnosis of two modalities", &body))
}
