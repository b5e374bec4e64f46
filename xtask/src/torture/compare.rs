//! The outputs of two runs, compared.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, path::Path};

/// Which part of a file must be the same.
#[derive(Clone, Copy)]
pub enum Part {
    /// Every byte of a file, or of every file under a folder.
    Bytes,
    /// The tensors of a safetensors file: its metadata holds times.
    Tensors,
    /// Which steps a metrics.jsonl has, in order, each once: its lines hold times.
    Steps,
}

/// Digests by name.
pub type Outputs = BTreeMap<String, String>;

/// The digests of a run's outputs.
pub fn outputs(folder: &Path, parts: &[(&str, Part)]) -> Result<Outputs> {
    let mut outputs = Outputs::new();
    for (name, part) in parts {
        add(&folder.join(name), name, *part, &mut outputs)?;
    }
    Ok(outputs)
}

fn add(path: &Path, name: &str, part: Part, outputs: &mut Outputs) -> Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            add(&entry.path(), &format!("{name}/{}", entry.file_name().display()), part, outputs)?;
        }
        return Ok(());
    }
    let bytes = std::fs::read(path).with_context(|| format!("the output {}", path.display()))?;
    let digest = match part {
        Part::Bytes => hex(&bytes),
        Part::Tensors => tensors(&bytes).with_context(|| path.display().to_string())?,
        Part::Steps => steps(&bytes).with_context(|| path.display().to_string())?,
    };
    outputs.insert(name.to_owned(), digest);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn tensors(bytes: &[u8]) -> Result<String> {
    let (length, rest) = bytes.split_first_chunk::<8>().context("the header is cut short")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let header = rest.get(..length).context("the header is cut short")?;
    let mut header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)?;
    header.remove("__metadata__");
    Ok(hex(&[serde_json::to_vec(&header)?.as_slice(), &rest[length..]].concat()))
}

fn steps(bytes: &[u8]) -> Result<String> {
    let mut steps = Vec::new();
    for line in std::str::from_utf8(bytes)?.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        steps.push(format!("{} {}", line["split"], line["step"]));
    }
    Ok(steps.join(", "))
}

/// Refuses outputs that differ from the undisturbed run's.
pub fn check(folder: &Path, parts: &[(&str, Part)], expected: &Outputs) -> Result<()> {
    differences(&outputs(folder, parts)?, expected)
}

/// [`check`] for a run whose outputs have other names, in the same order.
pub fn check_as(folder: &Path, parts: &[(&str, Part)], expected: &Outputs) -> Result<()> {
    let found: Vec<String> = outputs(folder, parts)?.into_values().collect();
    let renamed = expected.keys().cloned().zip(found).collect();
    differences(&renamed, expected)
}

fn differences(found: &Outputs, expected: &Outputs) -> Result<()> {
    for (name, digest) in expected {
        match found.get(name) {
            None => bail!("{name} is missing"),
            Some(other) if other != digest => bail!("{name} differs from the undisturbed run's: {other}, not {digest}"),
            Some(_) => {}
        }
    }
    match found.keys().find(|name| !expected.contains_key(*name)) {
        Some(extra) => bail!("{extra} is left over; the undisturbed run has no such file"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_missing_and_an_extra_file_are_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join("out").join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("out")).unwrap();
        write("a", "1");
        let parts = [("out", Part::Bytes)];
        let expected = outputs(folder.path(), &parts).unwrap();
        check(folder.path(), &parts, &expected).unwrap();
        write("a", "2");
        let message = |e: Result<()>| e.unwrap_err().to_string();
        assert!(message(check(folder.path(), &parts, &expected)).starts_with("out/a differs"));
        write("a", "1");
        write("b", "");
        assert!(message(check(folder.path(), &parts, &expected)).starts_with("out/b is left over"));
        std::fs::remove_file(folder.path().join("out/a")).unwrap();
        assert!(message(check(folder.path(), &parts, &expected)).starts_with("out/a is missing"));
    }

    #[test]
    fn metadata_of_tensors_and_times_of_steps_do_not_count() {
        let file = |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        let a = r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"time":"1"}}"#;
        let b = r#"{"__metadata__":{"time":"2"},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        assert_eq!(tensors(&file(a, &[7])).unwrap(), tensors(&file(b, &[7])).unwrap());
        assert_ne!(tensors(&file(a, &[7])).unwrap(), tensors(&file(a, &[8])).unwrap());
        let line = |step: usize, time: f64| format!("{{\"split\":\"train\",\"step\":{step},\"seconds\":{time}}}\n");
        assert_eq!(steps(line(1, 0.1).as_bytes()).unwrap(), steps(line(1, 0.2).as_bytes()).unwrap());
        let twice = line(1, 0.1) + &line(1, 0.1);
        assert_ne!(steps(line(1, 0.1).as_bytes()).unwrap(), steps(twice.as_bytes()).unwrap());
    }
}
