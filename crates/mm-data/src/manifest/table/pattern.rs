//! Several files of one table, named by a pattern with braces as shells and `WebDataset` expand it.

use super::folder;
use crate::{Error, Result, fetch::is_remote};
use std::path::{Path, PathBuf};

/// More files than this are a mistake in the pattern.
const MAX_FILES: usize = 1_000_000;

/// The files of a pattern, in order: `{000..123}` counts with leading zeros, `{0..8..2}` in steps, `{9..0}` downwards,
/// `{a..f}` are letters, `{a,b}` is a list, several braces are combined, and lists may hold braces. A path that exists is
/// itself, whatever is in its name.
///
/// ```
/// use mm_data::expand_braces;
///
/// let files = expand_braces("train-{08..10}.tar".as_ref())?;
/// assert_eq!(files, ["train-08.tar", "train-09.tar", "train-10.tar"].map(std::path::PathBuf::from));
/// let files = expand_braces("{a,b{0..1}}.tar".as_ref())?;
/// assert_eq!(files, ["a.tar", "b0.tar", "b1.tar"].map(std::path::PathBuf::from));
/// # Ok::<(), mm_data::Error>(())
/// ```
///
/// # Errors
/// When a brace is not closed or opened, holds neither a list nor a range of whole numbers or letters, or there are more
/// than a million files.
pub fn expand_braces(path: &Path) -> Result<Vec<PathBuf>> {
    let Some(text) = path.to_str().filter(|text| text.contains('{') && (is_remote(path) || !path.exists())) else {
        return Ok(vec![path.to_owned()]);
    };
    let names = expand(text).map_err(|found| {
        let expected = "a file that exists, or a pattern such as train-{0000..0009}.tar or {train,valid}.tar";
        Error::file(path, format!("found {found}; expected {expected}"))
    })?;
    Ok(names.into_iter().map(PathBuf::from).collect())
}

/// The names of a pattern; else what is wrong with it.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let (before, braces) = rest.split_at(open);
        if braces.starts_with('}') {
            return Err("a `}` without `{` before it".to_owned());
        }
        let close = closing_brace(braces).ok_or("a `{` without `}`")?;
        let parts = alternatives(&braces[1..close])?;
        if names.len().saturating_mul(parts.len()) > MAX_FILES {
            return Err(format!("a pattern of more than {MAX_FILES} files"));
        }
        names = names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name}{before}{part}"))).collect();
        rest = &braces[close + 1..];
    }
    Ok(names.into_iter().map(|name| name + rest).collect())
}

/// Where the brace with which a text begins is closed.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// What a pair of braces stands for: the items of a list, which are patterns themselves, or a range.
fn alternatives(inside: &str) -> Result<Vec<String>, String> {
    let mut depth = 0usize;
    let items: Vec<&str> = inside
        .split(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .collect();
    if items.len() == 1 {
        return range(inside);
    }
    let mut all = Vec::new();
    for item in items {
        all.extend(expand(item)?);
    }
    Ok(all)
}

/// The names of a range (`1..9`, `a..z`), every second one of `1..9..2`; downwards where the first end is the greater one.
fn range(inside: &str) -> Result<Vec<String>, String> {
    let invalid = |reason: &str| format!("the range `{{{inside}}}`, {reason}");
    let (first, last, step) = match inside.split("..").collect::<Vec<_>>()[..] {
        [first, last] => (first, last, 1),
        [first, last, step] => {
            let step = step.parse::<isize>().map_err(|_| invalid("whose step has to be a whole number"))?;
            (first, last, step.unsigned_abs().max(1))
        }
        _ => return Err(format!("`{{{inside}}}`, which is neither a list ({{a,b}}) nor a range ({{0..9}})")),
    };
    if let ([from], [to]) = (first.as_bytes(), last.as_bytes())
        && from.is_ascii_alphabetic()
        && to.is_ascii_alphabetic()
    {
        let letters = numbers((*from).into(), (*to).into(), step);
        return Ok(letters.filter_map(|n| Some(char::from(u8::try_from(n).ok()?).to_string())).collect());
    }
    let number =
        |text: &str| text.parse::<usize>().map_err(|_| invalid("whose ends have to be whole numbers or letters"));
    let (from, to) = (number(first)?, number(last)?);
    if from.abs_diff(to) / step >= MAX_FILES {
        return Err(invalid(&format!("of more than {MAX_FILES} files")));
    }
    let is_padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if is_padded(first) || is_padded(last) { first.len().max(last.len()) } else { 0 };
    Ok(numbers(from, to, step).map(|n| format!("{n:0width$}")).collect())
}

/// The numbers from one to another, upwards or downwards.
fn numbers(from: usize, to: usize, step: usize) -> impl Iterator<Item = usize> {
    (0..=from.abs_diff(to) / step).map(move |n| if from <= to { from + n * step } else { from - n * step })
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
        assert_eq!(expanded("a{0..10..5}"), ["a0", "a5", "a10"]);
        assert_eq!(expanded("a{00..10..-5}"), ["a00", "a05", "a10"]);
        assert_eq!(expanded("a{10..08}"), ["a10", "a09", "a08"]);
        assert_eq!(expanded("a{7..0..3}"), ["a7", "a4", "a1"]);
        assert_eq!(expanded("a{1..2..0}"), ["a1", "a2"]);
        assert_eq!(expanded("a{x..z}{C..A..2}"), ["axC", "axA", "ayC", "ayA", "azC", "azA"]);
        assert_eq!(expanded("{x,y}/{0..1}.tar"), ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]);
        assert_eq!(expanded("{a,b{0..1},{c,d}e}.tar"), ["a.tar", "b0.tar", "b1.tar", "ce.tar", "de.tar"]);
        assert_eq!(expanded("a{,-1}.tar"), ["a.tar", "a-1.tar"]);
    }

    #[test]
    fn malformed_patterns_are_refused_with_the_reason() {
        for (pattern, reason) in [
            ("a{0..1.tar", "a `{` without `}`"),
            ("a{b,c{0..1}.tar", "a `{` without `}`"),
            ("a{0..1}}.tar", "a `}` without `{`"),
            ("a{bb..c}", "the range `{bb..c}`, whose ends have to be whole numbers or letters"),
            ("a{a..1}", "the range `{a..1}`, whose ends"),
            ("a{-1..1}", "the range `{-1..1}`, whose ends"),
            ("a{0..4..x}", "the range `{0..4..x}`, whose step"),
            ("a{0..1..2..3}", "`{0..1..2..3}`, which is neither a list"),
            ("a{b}", "`{b}`, which is neither a list"),
            ("a{}", "`{}`, which is neither a list"),
            ("a{{0..1}}", "the range `{{0..1}}`"),
            ("{0..9999999}", "more than 1000000 files"),
            ("{0..999999}{0..999999}", "more than 1000000 files"),
        ] {
            let message = expand_braces(Path::new(pattern)).unwrap_err().to_string();
            assert!(message.starts_with(pattern) && message.contains(reason), "{pattern}: {message}");
            assert!(message.contains("train-{0000..0009}.tar"), "{message}");
        }
    }
}
