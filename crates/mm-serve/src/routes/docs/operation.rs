//! One route on the page: what it takes, an example, and what it answers.

use super::{
    example::curl,
    html::{escape, prose},
    schema::{Field, fields, kind},
};
use serde_json::Value;
use std::fmt::Write;

/// Methods of routes.
pub(super) const METHODS: [&str; 2] = ["get", "post"];

/// A route with a method.
pub(super) struct Operation<'a> {
    method: &'static str,
    path: &'a str,
    /// Its description.
    value: &'a Value,
}

impl<'a> Operation<'a> {
    /// The operation of a path; `None` where it does not have the method.
    pub(super) fn new(method: &'static str, path: &'a str, value: &'a Value) -> Option<Self> {
        value.is_object().then_some(Self { method, path, value })
    }

    /// The name of its group.
    pub(super) fn tag(&self) -> &'a str {
        self.value["tags"][0].as_str().unwrap_or_default()
    }

    /// Its place on the page.
    pub(super) fn id(&self) -> String {
        let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
        format!("{}{}", self.method, self.path.chars().map(plain).collect::<String>())
    }

    /// Its method and path.
    pub(super) fn heading(&self) -> String {
        let method = self.method.to_uppercase();
        format!("<span class=\"method\">{method}</span> <code>{}</code>", escape(self.path))
    }

    /// Writes it.
    pub(super) fn render(&self, out: &mut String, document: &Value, needs_key: bool) {
        let _ = write!(out, "<article id=\"{}\">\n<h3>{}</h3>\n", self.id(), self.heading());
        for text in ["summary", "description"].iter().filter_map(|name| self.value[*name].as_str()) {
            let _ = writeln!(out, "<p>{}</p>", prose(text));
        }
        self.render_parameters(out, document);
        self.render_body(out, document);
        let example = curl(self.method, self.path, self.value, needs_key);
        let _ = writeln!(out, "<h4>Example</h4>\n<pre tabindex=\"0\"><code>{}</code></pre>", escape(&example));
        self.render_responses(out, document);
        *out += "</article>\n";
    }

    fn render_parameters(&self, out: &mut String, document: &Value) {
        let parameter = |parameter: &Value| {
            let place = parameter["in"].as_str().unwrap_or_default();
            Field {
                name: parameter["name"].as_str().unwrap_or_default().to_owned(),
                kind: format!("{} in the {place}", kind(document, &parameter["schema"])),
                required: parameter["required"] == true,
                description: parameter["description"].as_str().unwrap_or_default().to_owned(),
                depth: 0,
            }
        };
        let parameters: Vec<Field> = self.value["parameters"].as_array().into_iter().flatten().map(parameter).collect();
        if !parameters.is_empty() {
            *out += "<h4>Parameters</h4>\n";
            list(out, &parameters);
        }
    }

    fn render_body(&self, out: &mut String, document: &Value) {
        for (content_type, content) in self.value["requestBody"]["content"].as_object().into_iter().flatten() {
            let _ = writeln!(out, "<h4>Body: <code>{}</code></h4>", escape(content_type));
            list(out, &fields(document, &content["schema"]));
        }
    }

    fn render_responses(&self, out: &mut String, document: &Value) {
        *out += "<h4>Answers</h4>\n";
        for (status, response) in self.value["responses"].as_object().into_iter().flatten() {
            let text = prose(response["description"].as_str().unwrap_or_default());
            let head = format!("<span class=\"status\">{}</span> {text}", escape(status));
            let contents: Vec<(&String, &Value)> = response["content"].as_object().into_iter().flatten().collect();
            if contents.is_empty() {
                let _ = writeln!(out, "<p>{head}</p>");
                continue;
            }
            let fields: Vec<Field> =
                contents.iter().flat_map(|(_, content)| fields(document, &content["schema"])).collect();
            let body = |(content_type, content): &(&String, &Value)| {
                format!("{}: {}", escape(content_type), prose(&kind(document, &content["schema"])))
            };
            let body = contents.iter().map(body).collect::<Vec<_>>().join("; ");
            if fields.is_empty() {
                let _ = writeln!(out, "<p>{head} <span class=\"kind\">{body}</span></p>");
                continue;
            }
            let _ = writeln!(out, "<details>\n<summary>{head} <span class=\"kind\">{body}</span></summary>");
            list(out, &fields);
            *out += "</details>\n";
        }
    }
}

/// Fields with what they are.
fn list(out: &mut String, fields: &[Field]) {
    *out += "<dl>\n";
    for field in fields {
        let required = if field.required { " <strong>required</strong>" } else { "" };
        let _ = write!(
            out,
            "<dt class=\"depth-{}\"><code>{}</code> <span class=\"kind\">{}</span>{required}</dt>\n<dd>{}</dd>\n",
            field.depth,
            escape(&field.name),
            prose(&field.kind),
            prose(&field.description)
        );
    }
    *out += "</dl>\n";
}
