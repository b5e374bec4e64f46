//! The registries of Python and npm packages, asked directly where their clients are not installed.
//!
//! *[PEP 691: JSON-based Simple API for Python Package Indexes](https://peps.python.org/pep-0691/)*, 2022.

use crate::{
    error::{Context, Result, bail},
    fetch::{FailedQuery, Query, Remote, agent, base64_to_hex},
};
use serde_json::Value;
use std::time::Duration;

/// Time without data after which a connection is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON document of a registry.
fn get(url: &str, accept: &str) -> Result<Value> {
    let send = || agent(TIMEOUT).get(url).header("Accept", accept).call();
    match (Query { url, timeout: TIMEOUT, send: &send }).json() {
        Ok((_, document)) => Ok(document),
        Err(failed) => {
            let FailedQuery { error, tried, .. } = *failed;
            Err(error).with_context(|| format!("{url} cannot be read{tried}; check the network connection"))
        }
    }
}

/// The newest file of a Python package that this machine can use; `requirement` is `NAME`, `NAME==1.0` or `NAME>=1,<2`.
pub(super) fn from_pypi(requirement: &str, index: &str) -> Result<Remote> {
    let end = requirement.find(['=', '<', '>', '!', '~', ' ']).unwrap_or(requirement.len());
    let (name, conditions) = requirement.split_at(end);
    let name = name.to_lowercase().replace(['_', '.'], "-");
    let page = format!("{}/{name}/", index.trim_end_matches('/'));
    let answer = get(&page, "application/vnd.pypi.simple.v1+json")?;
    let files = answer["files"].as_array().with_context(|| format!("{page}: no list of files"))?;
    let is_usable = |file: &&Value| !file["yanked"].as_bool().unwrap_or(file["yanked"].is_string());
    let mut best: Option<(Candidate, &Value)> = None;
    for file in files.iter().filter(is_usable) {
        let Some(candidate) = file["filename"].as_str().and_then(Candidate::parse) else { continue };
        if candidate.fulfils(conditions)? && best.as_ref().is_none_or(|(other, _)| candidate > *other) {
            best = Some((candidate, file));
        }
    }
    let (_, file) = best.with_context(|| format!("{page}: no file of {requirement} for this machine"))?;
    let url = file["url"].as_str().with_context(|| format!("{page}: a file without `url`"))?;
    let hash = file["hashes"]["sha256"].as_str().with_context(|| format!("{page}: a file without `sha256`"))?;
    Ok(Remote::public(resolve(&page, url), ("sha256", hash.to_owned())))
}

/// A file of a package, ordered by how much it is preferred.
#[derive(Debug, PartialEq, PartialOrd)]
struct Candidate {
    version: Vec<u64>,
    /// 2: a wheel for every machine, 1: one for this machine, 0: sources.
    kind: u8,
    /// The version of Python's binary interface, which does not matter to files that are only unpacked.
    python: u64,
}

impl Candidate {
    /// The file of this name; `None` for other machines, for preliminary versions and for other formats.
    fn parse(name: &str) -> Option<Self> {
        let Some(stem) = name.strip_suffix(".whl") else {
            let version = name.strip_suffix(".tar.gz")?.rsplit_once('-')?.1;
            return Some(Self { version: parse_version(version)?, kind: 0, python: 0 });
        };
        let parts: Vec<&str> = stem.split('-').collect();
        let [_, version, .., python, _, platform] = parts[..] else { return None };
        let kind = if platform == "any" {
            2
        } else {
            let is_linux = platform.contains("linux") && !platform.contains("musl");
            u8::from(is_linux && platform.split('.').any(|p| p.ends_with(std::env::consts::ARCH)))
        };
        let python = python.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        (kind > 0).then_some(Self { version: parse_version(version)?, kind, python })
    }

    fn fulfils(&self, conditions: &str) -> Result<bool> {
        for condition in conditions.split(',').map(str::trim).filter(|c| !c.is_empty()) {
            let end = condition.find(|c: char| c.is_ascii_digit()).unwrap_or(condition.len());
            let (operator, text) = condition.split_at(end);
            let Some(bound) = parse_version(text) else { bail!("`{condition}`: expected a version") };
            let order = self.version.cmp(&bound);
            let holds = match operator.trim() {
                "==" => order.is_eq(),
                ">=" => order.is_ge(),
                "<=" => order.is_le(),
                ">" => order.is_gt(),
                "<" => order.is_lt(),
                _ => bail!("`{condition}`: expected ==, >=, <=, > or < (install pip for other conditions)"),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The numbers of a version, without zeros at the end; `None` for preliminary ones.
fn parse_version(text: &str) -> Option<Vec<u64>> {
    let text = text.split('+').next()?;
    let text = text.split(".post").next()?;
    let mut numbers = text.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

/// An address that may be relative to a page.
fn resolve(page: &str, url: &str) -> String {
    let url = url.split('#').next().unwrap_or(url);
    if url.contains("://") {
        return url.to_owned();
    }
    let host_end = page.find("://").map_or(0, |at| at + 3);
    let path_start = page[host_end..].find('/').map_or(page.len(), |at| host_end + at);
    let (host, path) = page.split_at(path_start);
    let mut parts: Vec<&str> = if url.starts_with('/') { Vec::new() } else { path.split('/').collect() };
    // The page itself, or what follows its last slash.
    parts.pop();
    for part in url.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    format!("{host}/{}", parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/"))
}

/// The archive of the newest version of an npm package.
pub(super) fn from_npm_registry(package: &str, registry: &str) -> Result<Remote> {
    let page = format!("{}/{package}/latest", registry.trim_end_matches('/'));
    let answer = get(&page, "application/json")?;
    let dist = &answer["dist"];
    let url = dist["tarball"].as_str().with_context(|| format!("{page}: no archive is stated"))?;
    let integrity = dist["integrity"].as_str().and_then(|i| i.strip_prefix("sha512-"));
    let integrity = integrity.with_context(|| format!("{page}: no sha512 is stated"))?;
    Ok(Remote::public(url.to_owned(), ("sha512", base64_to_hex(integrity)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::describe, testing::Server};

    #[test]
    fn the_newest_usable_file_of_a_package_is_found_without_pip() {
        let arch = std::env::consts::ARCH;
        let names = [
            "my_birds-1.2.0.tar.gz".to_owned(),
            "my_birds-1.10.0-py3-none-any.whl".into(),
            format!("my_birds-2.0.0-cp312-cp312-manylinux_2_28_{arch}.whl"),
            format!("my_birds-2.0.0-cp313-cp313-manylinux_2_28_{arch}.whl"),
            "my_birds-2.0.0-cp313-cp313-win_amd64.whl".into(),
            "my_birds-3.0.0rc1-py3-none-any.whl".into(),
            "my_birds-4.0.0-py3-none-any.whl".into(),
        ];
        let files: Vec<Value> = names
            .iter()
            .map(|name| {
                let url = format!("../../packages/{name}#sha256=1");
                serde_json::json!({ "filename": name, "url": url, "hashes": { "sha256": "ab" }, "yanked": name.contains("4.0.0") })
            })
            .collect();
        let page = serde_json::json!({ "files": files }).to_string();
        let server = Server::start(&[("simple/my-birds/", page.as_bytes())]);
        let index = format!("{}/simple", server.url);
        for (requirement, expected) in [
            ("My_Birds", names[3].as_str()),
            ("my-birds<2", &names[1]),
            ("my-birds==1.2", &names[0]),
            ("my-birds>=1.3,<=1.10", &names[1]),
        ] {
            let remote = from_pypi(requirement, &index).unwrap();
            assert_eq!(remote.url, format!("{}/packages/{expected}", server.url), "{requirement}");
            assert_eq!(remote.checksum, ("sha256", "ab".to_owned()));
        }
        for (requirement, part) in [
            ("my-birds>=5", "no file of my-birds>=5 for this machine"),
            ("my-birds~=1.2", "expected ==, >=, <="),
            ("bees", "answered 404"),
        ] {
            let error = describe(&from_pypi(requirement, &index).err().unwrap());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_newest_archive_of_a_package_is_found_without_npm() {
        let page = br#"{"dist": {"tarball": "https://a/b.tgz", "integrity": "sha512-SGVsbG8="}}"#;
        let server = Server::start(&[("birds/latest", page)]);
        let remote = from_npm_registry("birds", &server.url).unwrap();
        assert_eq!((remote.url.as_str(), remote.checksum), ("https://a/b.tgz", ("sha512", "48656c6c6f".to_owned())));
    }

    #[test]
    fn addresses_are_resolved_against_the_page() {
        let page = "https://host/a/simple/name/";
        for (url, expected) in [
            ("https://other/x.whl#sha256=1", "https://other/x.whl"),
            ("x.whl", "https://host/a/simple/name/x.whl"),
            ("../../files/x.whl", "https://host/a/files/x.whl"),
            ("/files/x.whl", "https://host/files/x.whl"),
        ] {
            assert_eq!(resolve(page, url), expected);
        }
    }
}
