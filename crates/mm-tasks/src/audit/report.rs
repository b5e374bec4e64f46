//! The audit as an HTML page.

use super::{Audit, ProblemKind, RowAudit};
use crate::{Result, report};
use mm_core::{Modality, Source};
use mm_data::{Manifest, source_name};
use std::{collections::BTreeMap, fmt::Write};

/// An HTML page with the problem counts and the `max_rows` worst rows.
pub fn audit_page(audit: &Audit, manifest: &Manifest, max_rows: usize) -> Result<String> {
    let mut counts: BTreeMap<ProblemKind, usize> = BTreeMap::new();
    for problem in audit.rows.iter().flat_map(|r| &r.problems) {
        *counts.entry(problem.kind).or_default() += 1;
    }
    let mut table = vec![vec!["problem".to_owned(), "rows".to_owned()]];
    table.extend(counts.into_iter().map(|(kind, count)| vec![kind.name().to_owned(), count.to_string()]));
    table.push(vec!["audited pairs".into(), audit.rows.len().to_string()]);
    table.push(vec!["rows without both modalities".into(), audit.skipped.to_string()]);
    let mut body = String::new();
    let _ = write!(body, "<h2>Summary</h2>{}<h2>Most suspicious pairs</h2>", report::html_table(&table));
    for row in audit.rows.iter().take(max_rows) {
        write_row(&mut body, audit, row, manifest);
    }
    report::html_page("Audit of pairs", &body)
}

fn write_row(body: &mut String, audit: &Audit, row: &RowAudit, manifest: &Manifest) {
    let source = &manifest.rows[row.row - 1];
    let show = |name: &str| match source.values.get(&Modality::from(name)).and_then(|v| v.first()) {
        Some(image @ (Source::Path(_) | Source::Bytes(_))) if name == "image" => {
            report::html_thumbnail(image, &source.id)
        }
        Some(Source::Text(text)) => report::html_escape(text),
        Some(file @ (Source::Path(_) | Source::Bytes(_))) => report::html_escape(&source_name(file)),
        _ => String::new(),
    };
    let problems: Vec<String> = row.problems.iter().map(ToString::to_string).collect();
    let _ = write!(
        body,
        "<div class=\"query\"><div>{}</div><div><b>{}</b> <span class=\"soft\">row {}, mismatch {:.3}, similarity {:.3}, \
         loss {:.2}, neighborhood {:.3}</span><p>{}</p><p class=\"soft\">{}</p></div></div>",
        show(&audit.modalities[0]),
        report::html_escape(&row.id),
        row.row,
        row.mismatch,
        row.similarity,
        row.loss,
        row.neighborhood,
        show(&audit.modalities[1]),
        report::html_escape(&problems.join("; "))
    );
}
