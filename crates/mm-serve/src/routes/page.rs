//! `/`: the page that people search with. The program holds its files, and sends them as one.

use axum::{
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const STYLE: &str = include_str!("../page/style.css");

/// Parts of the one script, in their order.
const SCRIPTS: [&str; 9] = [
    include_str!("../page/texts.js"),
    include_str!("../page/tasks.js"),
    include_str!("../page/requests.js"),
    include_str!("../page/files.js"),
    include_str!("../page/media.js"),
    include_str!("../page/history.js"),
    include_str!("../page/search.js"),
    include_str!("../page/ask.js"),
    include_str!("../page/main.js"),
];

/// The page and its policy: only its own script and style, by their hashes, and nothing from elsewhere.
static PAGE: LazyLock<(String, Option<HeaderValue>)> = LazyLock::new(|| {
    let script = SCRIPTS.concat();
    let page = include_str!("../page/index.html").replace("{{style}}", STYLE).replace("{{script}}", &script);
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src 'self' data: blob:; \
         media-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        source_hash(&script),
        source_hash(STYLE)
    );
    (page, HeaderValue::from_str(&policy).ok())
});

/// The microphone is the page's own, for spoken queries; nothing else is.
const PERMISSIONS: (HeaderName, HeaderValue) = (
    HeaderName::from_static("permissions-policy"),
    HeaderValue::from_static("camera=(), geolocation=(), microphone=(self), payment=(), usb=()"),
);

/// The page.
pub(super) async fn page() -> Response {
    let (page, policy) = &*PAGE;
    respond(page.as_str(), policy.as_ref())
}

/// The hash of a script or a style by which a policy allows it.
pub(super) fn source_hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

/// A page with its policy.
pub(super) fn respond<T>(page: T, policy: Option<&HeaderValue>) -> Response
where
    Html<T>: IntoResponse,
{
    let mut response = Html(page).into_response();
    let headers = response.headers_mut();
    if let Some(policy) = policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(PERMISSIONS.0, PERMISSIONS.1);
    response
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Asserts that a page has one script or style of each kind of `tags`, by its hash, and asks for nothing from elsewhere.
    pub(in crate::routes) fn check_policy(page: &str, policy: &HeaderValue, tags: &[&str]) {
        let policy = policy.to_str().unwrap();
        for tag in tags {
            assert_eq!((page.matches(&format!("<{tag}>")).count(), page.matches(&format!("<{tag}")).count()), (1, 1));
            let start = page.find(&format!("<{tag}>")).unwrap() + tag.len() + 2;
            let end = page.find(&format!("</{tag}>")).unwrap();
            assert!(policy.contains(&format!("{tag}-src 'sha256-{}'", source_hash(&page[start..end]))), "{policy}");
        }
        for outside in ["src=\"http", "href=\"http", " style=\"", " onclick=", "innerHTML", "eval("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_page_has_the_one_script_and_the_one_style_that_its_policy_allows() {
        let (page, policy) = &*PAGE;
        check_policy(page, policy.as_ref().unwrap(), &["script", "style"]);
    }
}
