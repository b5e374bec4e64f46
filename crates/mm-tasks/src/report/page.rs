//! Pages from auto-escaping templates. Each is a self-contained HTML file, without external scripts, fonts or images.

use crate::{Error, Result};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

/// A report: the page, and the metrics of each run.
pub struct Report {
    /// One HTML file.
    pub html: String,
    /// The metrics of each run on the reported split.
    pub evaluations: Vec<serde_json::Value>,
}

const TEMPLATES: [(&str, &str); 8] = [
    ("page.html", include_str!("templates/page.html")),
    ("macros.html", include_str!("templates/macros.html")),
    ("retrieval.html", include_str!("templates/retrieval.html")),
    ("examples.html", include_str!("templates/examples.html")),
    ("representation.html", include_str!("templates/representation.html")),
    ("prediction.html", include_str!("templates/prediction.html")),
    ("robustness.html", include_str!("templates/robustness.html")),
    ("fusion_search.html", include_str!("templates/fusion_search.html")),
];

/// Renders a template by name. Values are escaped unless the template marks them `safe`, as it does with generated
/// images.
pub(crate) fn render(template: &str, context: impl Serialize) -> Result<String> {
    let failed = |e: minijinja::Error| Error::Config(format!("report template {template}: {e:#}"));
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source).map_err(failed)?;
    }
    environment.get_template(template).and_then(|t| t.render(context)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_template_parses_and_values_are_escaped() {
        for (name, _) in TEMPLATES.iter().filter(|(name, _)| *name != "macros.html") {
            render(name, json!({"title": "t", "metrics": [], "examples": [], "curves": [], "runs": 1})).unwrap();
        }
        let examples = json!([{"image": "<img>", "question": "", "output": "<script>", "details": ["a & b"]}]);
        let rows = json!([["metric", "model"], ["<i>", "1"]]);
        let context = json!({
            "title": "<t>", "runs": 2, "split": "test", "metrics": rows, "examples": examples,
            "curves": [{"svg": "<svg></svg>", "caption": "<c>"}],
        });
        let html = render("examples.html", context).unwrap();
        for part in [
            "<title>&lt;t&gt;",
            "&lt;script&gt;",
            "<img>",
            "a &amp; b",
            "<th>&lt;i&gt;",
            "<svg>",
            "&lt;c&gt;",
            "2 runs",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
}
