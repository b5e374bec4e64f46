//! `/docs`: the routes for people, made from the description that `/openapi.json` gives to programs.

mod example;
mod html;
mod operation;
mod schema;

use super::page::{respond, source_hash};
use axum::{
    http::{HeaderMap, HeaderValue, header::HOST},
    response::Response,
};
use html::{escape, prose};
use operation::{METHODS, Operation};
use serde_json::Value;
use std::fmt::Write;
use utoipa::openapi::OpenApi;

const STYLE: &str = include_str!("style.css");

/// Where the examples of the page have the server's address.
const ADDRESS: &str = "{{address}}";
/// The address in examples where a request does not say how it reached the server.
const DEFAULT_HOST: &str = "localhost:8080";

/// The page, and its policy: its own style, by its hash, and nothing else.
#[derive(Clone)]
pub(super) struct DocsPage {
    html: String,
    policy: Option<HeaderValue>,
}

impl DocsPage {
    /// The page of a description; its examples send a key where the server needs one.
    pub(super) fn new(document: &OpenApi, needs_key: bool) -> Self {
        // A description is data without anything that JSON does not have.
        let document = serde_json::to_value(document).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source_hash(STYLE)
        );
        Self { html: render(&document, needs_key), policy: HeaderValue::from_str(&policy).ok() }
    }

    /// Answers a request with the page.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| is_plain(host));
        let address = format!("http://{}", host.unwrap_or(DEFAULT_HOST));
        respond(self.html.replace(ADDRESS, &address), self.policy.as_ref())
    }
}

/// Whether a host can stand in a command of a shell as it is.
fn is_plain(host: &str) -> bool {
    host.len() <= 255 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
}

fn render(document: &Value, needs_key: bool) -> String {
    let groups = groups(document);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>mm serve: routes</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#routes\">Skip to the routes</a>\n\
         <header>\n<h1>Routes of mm serve</h1>\n<p>{}</p>\n<p>Programs read the same in \
         <a href=\"/openapi.json\">/openapi.json</a> (OpenAPI 3.1). The page for people is <a href=\"/\">/</a>.</p>\n",
        prose(document["info"]["description"].as_str().unwrap_or_default())
    );
    if needs_key {
        out += "<p>This server needs a key: write yours for <code>KEY</code> in the examples.</p>\n";
    }
    out += "</header>\n<nav aria-label=\"Routes\">\n";
    for Group { title, operations, .. } in &groups {
        let _ = write!(out, "<h2>{}</h2>\n<ul>\n", escape(title));
        for operation in operations {
            let _ = writeln!(out, "<li><a href=\"#{}\">{}</a></li>", operation.id(), operation.heading());
        }
        out += "</ul>\n";
    }
    out += "</nav>\n<main id=\"routes\" tabindex=\"-1\">\n";
    for Group { name, title, operations } in &groups {
        let _ = write!(out, "<section aria-labelledby=\"tag-{name}\">\n<h2 id=\"tag-{name}\">{}</h2>\n", escape(title));
        for operation in operations {
            operation.render(&mut out, document, needs_key);
        }
        out += "</section>\n";
    }
    out + "</main>\n</body>\n</html>\n"
}

/// A group of routes.
struct Group<'a> {
    name: &'a str,
    title: &'a str,
    operations: Vec<Operation<'a>>,
}

/// The groups of a document, in the order of its tags.
fn groups(document: &Value) -> Vec<Group<'_>> {
    let tags = document["tags"].as_array().into_iter().flatten();
    tags.map(|tag| Group::new(document, tag)).collect()
}

impl<'a> Group<'a> {
    fn new(document: &'a Value, tag: &'a Value) -> Self {
        let name = tag["name"].as_str().unwrap_or_default();
        let mut operations = Vec::new();
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            let of_path = METHODS.into_iter().filter_map(|method| Operation::new(method, path, &methods[method]));
            operations.extend(of_path.filter(|operation| operation.tag() == name));
        }
        Self { name, title: tag["description"].as_str().unwrap_or(name), operations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{documented, page::tests::check_policy};
    use axum::http::header::CONTENT_SECURITY_POLICY;
    use std::collections::BTreeSet;

    fn document() -> (OpenApi, Value) {
        let document = documented().into_openapi();
        let value = serde_json::to_value(&document).unwrap();
        (document, value)
    }

    #[test]
    fn every_route_is_on_the_page_with_an_example_and_its_answers() {
        let (document, value) = document();
        let page = DocsPage::new(&document, true);
        let (mut count, mut ids) = (0, BTreeSet::new());
        for (path, methods) in value["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let found = Operation::new(METHODS.iter().find(|known| *known == method).unwrap(), path, operation);
                let found = found.unwrap();
                assert!(ids.insert(found.id()), "{method} {path}");
                let article = page.html.split_once(&format!("<article id=\"{}\">", found.id())).unwrap().1;
                let article = article.split_once("</article>").unwrap().0;
                assert!(article.contains(&escape(path)) && article.contains("curl "), "{article}");
                for status in operation["responses"].as_object().unwrap().keys() {
                    assert!(
                        article.contains(&format!("<span class=\"status\">{status}</span>")),
                        "{status}: {article}"
                    );
                }
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
        let on_page: usize = groups(&value).iter().map(|group| group.operations.len()).sum();
        assert_eq!(on_page, count, "a route has a tag that the document does not list");
    }

    #[test]
    fn examples_have_the_fields_of_their_route_and_no_others() {
        let (_, document) = document();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let content = &methods["post"]["requestBody"]["content"]["application/json"];
            if content.is_null() {
                continue;
            }
            let example = content["example"].as_object().unwrap_or_else(|| panic!("{path} has no example"));
            let fields = schema::fields(&document, &content["schema"]);
            let of_body: BTreeSet<&str> =
                fields.iter().filter(|field| field.depth == 0).map(|field| field.name.as_str()).collect();
            assert!(example.keys().all(|name| of_body.contains(name.as_str())), "{path}: {example:?}, {of_body:?}");
            let missing =
                fields.iter().find(|field| field.depth == 0 && field.required && !example.contains_key(&field.name));
            assert!(missing.is_none(), "{path}: {:?}", missing.map(|field| &field.name));
        }
    }

    #[test]
    fn the_page_has_one_style_by_its_hash_and_nothing_from_elsewhere() {
        let page = DocsPage::new(&document().0, false);
        check_policy(&page.html, page.policy.as_ref().unwrap(), &["style"]);
        assert!(!page.html.contains("<script"));
        assert!(page.html.contains("<a class=\"skip\"") && !page.html.contains("KEY"));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("mm.example.org:8443"));
        let answer = page.answer(&headers);
        assert!(answer.headers().contains_key(CONTENT_SECURITY_POLICY));
        assert!(is_plain("[::1]:8080") && !is_plain("a'b") && !is_plain("a$(b)"));
    }
}
