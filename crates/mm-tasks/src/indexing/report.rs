//! The results of a search, and clusters, as HTML pages.

use super::Clustering;
use crate::{Result, report};
use mm_core::{Modality, Source};
use mm_index::{Answer, Hit};
use std::{fmt::Write, path::PathBuf};

/// An HTML page with the query (its value, words and filter) and the results: images as thumbnails, else texts.
///
/// # Errors
/// When the page cannot be rendered.
pub fn search_page(
    query: Option<(&Modality, &Source)>,
    words: Option<&str>,
    filter: Option<&str>,
    answer: &Answer,
) -> Result<String> {
    let mut body = String::from("<div class=\"query\"><div>");
    if let Some((modality, source)) = query {
        body += &match source {
            Source::Text(text) => report::html_escape(text),
            file if modality.name() == "image" => report::html_thumbnail(file, "query"),
            file => report::html_escape(&mm_data::source_name(file)),
        };
    }
    body += "</div><div>";
    for (name, value) in [("words", words), ("filter", filter)] {
        if let Some(value) = value {
            let _ = write!(body, "<p><span class=\"soft\">{name}</span> {}</p>", report::html_escape(value));
        }
    }
    let _ = write!(body, "<p class=\"soft\">{} results</p></div></div><div class=\"charts\">", answer.hits.len());
    for (index, hit) in answer.hits.iter().enumerate() {
        write_hit(&mut body, index + 1, hit);
    }
    body += "</div>";
    report::html_page("Search", &body)
}

/// An HTML page with the rows nearest to the centroid of each cluster.
///
/// # Errors
/// When the page cannot be rendered.
pub fn clusters_page(clustering: &Clustering) -> Result<String> {
    let (vectors, count) = (clustering.assignments.len(), clustering.clusters.len());
    let mut body = format!("<p>{vectors} vectors in {count} clusters; of each the rows nearest to its centroid.</p>");
    for (number, cluster) in clustering.clusters.iter().enumerate() {
        let (vectors, score) = (cluster.vectors, cluster.score);
        let _ = write!(body, "<h2>Cluster {number}</h2><p class=\"soft\">{vectors} vectors, mean score {score:.3}</p>");
        body += "<div class=\"hits\">";
        cluster.examples.iter().for_each(|hit| write_example(&mut body, hit));
        body += "</div>";
    }
    report::html_page("Clusters", &body)
}

/// Characters of a text that stands for a row without an image.
const TEXT: usize = 120;

fn write_example(body: &mut String, hit: &Hit) {
    let text = || hit.text.as_ref().map(|text| report::html_escape(&text.chars().take(TEXT).collect::<String>()));
    let shown = thumbnail(hit).or_else(text).unwrap_or_default();
    let id = report::html_escape(&hit.id);
    let _ = write!(body, "<div class=\"hit\">{shown}<br><b>{id}</b> {:.3}</div>", hit.score);
}

/// The fields that may hold the path of an image: that of mm, and that of clip-retrieval.
const IMAGE_FIELDS: [&str; 2] = ["image", "image_path"];

/// The image of a row, or the first of several.
fn thumbnail(hit: &Hit) -> Option<String> {
    let value = IMAGE_FIELDS.iter().find_map(|field| hit.payload.get(*field))?;
    let path = value.as_str().or_else(|| value.as_array()?.first()?.as_str())?;
    Some(report::html_thumbnail(&Source::Path(PathBuf::from(path)), &hit.id))
}

fn write_hit(body: &mut String, rank: usize, hit: &Hit) {
    let image = thumbnail(hit);
    let text = hit.text.as_deref().map(report::html_escape).unwrap_or_default();
    let fields = serde_json::Value::Object(hit.payload.clone()).to_string();
    let _ = write!(
        body,
        "<figure>{}<p class=\"text\">{text}</p><figcaption>{rank}. <b>{}</b> {:.3}<br>{}</figcaption></figure>",
        image.unwrap_or_default(),
        report::html_escape(&hit.id),
        hit.score,
        report::html_escape(&fields)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_fields_are_escaped() {
        let mut payload = mm_index::Payload::new();
        payload.insert("kind".into(), "<i>".into());
        let hit = Hit { id: "a&b".into(), score: 0.5, payload, text: Some("<b>".into()), contributions: Vec::new() };
        let answer = Answer { hits: vec![hit], steps: Vec::new() };
        let query = (&Modality::TEXT, &Source::Text("<query>".into()));
        let html = search_page(Some(query), Some("red"), Some("year > 2000"), &answer).unwrap();
        for part in ["&lt;query&gt;", "year &gt; 2000", "1. <b>a&amp;b</b> 0.500", "&lt;b&gt;", "&lt;i&gt;"] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
}
