//! Several files of one table, named by a pattern with braces as shells and `WebDataset` expand it.

use super::folder;
use crate::{Error, Result, fetch::is_remote};
use std::path::{Path, PathBuf};

/// More files than this are a mistake in the pattern.
const MAX_FILES: usize = 1_000_000;

/// The files of a pattern, in order: `{000..123}` counts with leading zeros, `{a,b}` lists, and several braces are
/// combined. A path that exists is itself, whatever is in its name.
///
/// ```
/// use mm_data::expand_braces;
///
/// let files = expand_braces("train-{08..10}.tar".as_ref())?;
/// assert_eq!(files, ["train-08.tar", "train-09.tar", "train-10.tar"].map(std::path::PathBuf::from));
/// # Ok::<(), mm_data::Error>(())
/// ```
///
/// # Errors
/// When a brace is not closed, or a range has no two numbers.
pub fn expand_braces(path: &Path) -> Result<Vec<PathBuf>> {
    let Some(text) = path.to_str().filter(|text| text.contains('{') && (is_remote(path) || !path.exists())) else {
        return Ok(vec![path.to_owned()]);
    };
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').ok_or_else(|| invalid(path, "a `{` without `}`"))? + open;
        let parts = alternatives(path, &rest[open + 1..close])?;
        if names.len().saturating_mul(parts.len()) > MAX_FILES {
            return Err(invalid(path, &format!("more than {MAX_FILES} files")));
        }
        let before = &rest[..open];
        names = names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name}{before}{part}"))).collect();
        rest = &rest[close + 1..];
    }
    Ok(names.into_iter().map(|name| PathBuf::from(name + rest)).collect())
}

fn invalid(path: &Path, found: &str) -> Error {
    Error::file(path, format!("found {found}, expected a file, or a pattern such as train-{{0000..0009}}.tar"))
}

fn alternatives(path: &Path, inside: &str) -> Result<Vec<String>> {
    let Some((first, last)) = inside.split_once("..") else {
        return Ok(inside.split(',').map(ToOwned::to_owned).collect());
    };
    let number = |text: &str| text.parse::<usize>().map_err(|_| invalid(path, &format!("the range {{{inside}}}")));
    let (from, to) = (number(first)?, number(last)?);
    if from > to || to - from >= MAX_FILES {
        return Err(invalid(path, &format!("the range {{{inside}}}")));
    }
    let width = if first.starts_with('0') || last.starts_with('0') { first.len().max(last.len()) } else { 0 };
    Ok((from..=to).map(|n| format!("{n:0width$}")).collect())
}

/// The files of a pattern, all of which exist where they are on this machine; those of a data set in a folder
/// ([`Table::read`](crate::Table::read)).
///
/// # Errors
/// Those of [`expand_braces`]; names the files that are missing; when a folder holds no data set.
pub fn existing_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        return Ok(folder::files(path)?.into_iter().map(|file| file.path).collect());
    }
    let files = expand_braces(path)?;
    // Whether a remote file exists is seen when it is read.
    if files.len() > 1 && !is_remote(path) {
        let missing: Vec<String> = files.iter().filter(|f| !f.exists()).map(|f| f.display().to_string()).collect();
        if !missing.is_empty() {
            let shown = missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let more = if missing.len() > 5 { ", …" } else { "" };
            let reason = format!("{} of {} files are missing: {shown}{more}", missing.len(), files.len());
            return Err(Error::file(path, reason));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(pattern: &str) -> Vec<String> {
        expand_braces(Path::new(pattern)).unwrap().into_iter().map(|p| p.display().to_string()).collect()
    }

    /// As bash and Python's braceexpand.
    #[test]
    fn braces_are_expanded_as_shells_do() {
        assert_eq!(expanded("a.tar"), ["a.tar"]);
        assert_eq!(expanded("a{9..11}"), ["a9", "a10", "a11"]);
        assert_eq!(expanded("a{009..11}"), ["a009", "a010", "a011"]);
        assert_eq!(expanded("{x,y}/{0..1}.tar"), ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]);
        for pattern in ["a{0..1.tar", "a{1..0}.tar", "a{b..c}", "{0..999999}{0..999999}"] {
            assert!(expand_braces(Path::new(pattern)).is_err(), "{pattern}");
        }
    }
}
