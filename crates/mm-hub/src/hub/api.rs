//! Requests to the hub's API.

use super::Hub;
use crate::{
    error::{Context, Error, Result, describe},
    fetch::{FailedQuery, Query, agent},
    report::note,
};
use serde_json::Value;
use ureq::{RequestBuilder, http::HeaderMap, typestate::WithoutBody};

/// A file of a repository.
pub(super) struct HubFile {
    pub path: String,
    /// SHA-256 of large files, git's SHA-1 of small ones: the ETag, and the name of the blob.
    pub digest: String,
}

impl Hub {
    /// The files of a commit: from the tree, otherwise from the names in the repository's metadata.
    pub(super) fn list_files(&self, metadata: &Value, repository: &str, commit: &str) -> Result<Vec<HubFile>> {
        let mut files = Vec::new();
        let mut next = Some(format!("/api/models/{repository}/tree/{commit}?recursive=true"));
        while let Some(path) = next.take() {
            let (page, link) = match self.get_json(&path, repository, commit) {
                Ok(response) => response,
                Err(error) if files.is_empty() && metadata["siblings"].is_array() => {
                    let reason = describe(&error);
                    note(format!("{repository}: the tree could not be read ({reason}); querying each file separately"));
                    let names = metadata["siblings"].as_array().into_iter().flatten();
                    let paths = names.filter_map(|s| s["rfilename"].as_str());
                    return paths.map(|path| self.query_file(repository, commit, path)).collect();
                }
                Err(error) => return Err(error),
            };
            for entry in page.as_array().context("the hub's tree is not a list")? {
                if entry["type"] != "file" {
                    continue;
                }
                let lfs = entry["lfs"]["oid"].as_str().or(entry["lfs"]["sha256"].as_str());
                let digest = lfs.or(entry["oid"].as_str()).context("a file of the tree without `oid`")?;
                files.push(HubFile {
                    path: entry["path"].as_str().context("a file of the tree without `path`")?.to_owned(),
                    digest: digest.to_owned(),
                });
            }
            // The path of the next page, without the endpoint.
            next = link.and_then(|link| {
                let address =
                    link.split(',').find(|l| l.contains("rel=\"next\""))?.split(['<', '>']).nth(1)?.to_owned();
                address.find("/api/").map(|at| address[at..].to_owned())
            });
        }
        Ok(files)
    }

    /// Queries one file, whose ETag is its checksum.
    fn query_file(&self, repository: &str, commit: &str, path: &str) -> Result<HubFile> {
        let url = format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, escape(path));
        let send = || {
            let request = self.authorized(agent(self.timeout).head(&url));
            request.config().max_redirects(0).max_redirects_will_error(false).build().call()
        };
        let headers = Query { url: &url, timeout: self.timeout, send: &send }.headers();
        let headers = headers.map_err(|failed| self.describe_failed(*failed, &url, repository, commit))?;
        let tag = text_of(&headers, "x-linked-etag").or(text_of(&headers, "etag"));
        let tag = tag.with_context(|| format!("{url}: no ETag"))?;
        Ok(HubFile { path: path.to_owned(), digest: tag.trim_start_matches("W/").trim_matches('"').to_owned() })
    }

    /// A JSON response and its `Link` header.
    pub(super) fn get_json(&self, path: &str, repository: &str, revision: &str) -> Result<(Value, Option<String>)> {
        let url = format!("{}{path}", self.endpoint);
        let send = || self.authorized(agent(self.timeout).get(&url)).call();
        match (Query { url: &url, timeout: self.timeout, send: &send }).json() {
            Ok((headers, document)) => Ok((document, text_of(&headers, "link").map(ToOwned::to_owned))),
            Err(failed) => Err(self.describe_failed(*failed, &url, repository, revision)),
        }
    }

    fn authorized(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Why a query failed, with what to do about it.
    fn describe_failed(&self, failed: FailedQuery, url: &str, repository: &str, revision: &str) -> Error {
        let FailedQuery { error, headers, tried } = failed;
        if let Error::Status { status, .. } = error {
            let (code, has_token) = (text_of(&headers, "x-error-code"), self.token.is_some());
            let message = status_message(url, repository, revision, status, code, has_token);
            return Error::Other(format!("{message}{tried}"));
        }
        Error::Other(format!(
            "{}{tried}. Check the network connection, set HF_ENDPOINT to a mirror, or set HF_HUB_OFFLINE=1 to use the cache",
            describe(&error)
        ))
    }
}

/// A header that is text.
fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The message for an error status, with what to do about it.
pub(super) fn status_message(
    url: &str,
    repository: &str,
    revision: &str,
    status: u16,
    code: Option<&str>,
    has_token: bool,
) -> String {
    let page = url.split("/api/").next().unwrap_or(url).split("/resolve/").next().unwrap_or(url);
    match (status, code) {
        (403, _) | (_, Some("GatedRepo")) => format!(
            "{repository}: the hub answered {status}: its owner requires terms to be accepted. Accept them at {} while signed in, and set HF_TOKEN to a \
             token of that account",
            page.trim_end_matches('/')
        ),
        (401, _) if has_token => format!(
            "{repository}: the hub answered 401: it does not exist, or the token in HF_TOKEN has no access. Check the spelling; tokens are created \
             at https://huggingface.co/settings/tokens"
        ),
        (401, _) => format!(
            "{repository}: the hub answered 401: it does not exist, or it is private. Check the spelling; for a private one set HF_TOKEN \
             (https://huggingface.co/settings/tokens)"
        ),
        (404, Some("RevisionNotFound")) => {
            format!(
                "{repository} has no revision `{revision}` (404); its branches and tags are listed on its page of the hub"
            )
        }
        (404, _) => format!(
            "{repository}@{revision}: the hub answered 404 to {url}: no such repository, revision or file. Check the spelling \
             (ORG/NAME)"
        ),
        (429, _) => format!(
            "{repository}: the hub answered 429: too many requests. Wait some minutes, or set HF_TOKEN for a higher limit; the next run resumes \
             this download"
        ),
        (500.., _) => format!(
            "{repository}: the hub answered {status}, an error of the server. Try again later, or set HF_ENDPOINT to a mirror; the \
             next run resumes this download"
        ),
        _ => format!("{repository}: the hub answered {status} to {url}"),
    }
}

/// Escapes a path or revision for a URL.
pub(super) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
