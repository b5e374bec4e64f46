//! English dictionary text, one sentence per line, in lower case with only the letters a to z: the Collaborative
//! International Dictionary of English (Debian: dict-gcide), and the words and glosses of `WordNet` (Debian:
//! wordnet-base).

use super::DatasetReader;
use crate::{Error, Result};
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

pub(super) const READER: DatasetReader = DatasetReader {
    name: "english-dictionary",
    description: "dictionary text, one sentence per line, for training word vectors (Debian: dict-gcide, wordnet-base)",
    prepare: write,
};

/// Writes the corpus and returns the number of its sentences.
fn write(folder: &Path, out: &Path) -> Result<usize> {
    let failed = |e: std::io::Error| Error::file(out, format!("cannot be written: {e}"));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(out).map_err(failed)?);
    let mut count = 0;
    let mut sentence = |text: &str| -> Result<()> {
        let lower = text.to_ascii_lowercase();
        let mut words = lower.split(|c: char| !c.is_ascii_lowercase()).filter(|w| !w.is_empty());
        if let Some(first) = words.next() {
            write!(file, "{first}").map_err(failed)?;
            words.try_for_each(|w| write!(file, " {w}")).map_err(failed)?;
            writeln!(file).map_err(failed)?;
            count += 1;
        }
        Ok(())
    };
    let dictionary = folder.join("usr/share/dictd/gcide.dict.dz");
    let open = |path: &Path| {
        File::open(path)
            .map_err(|e| Error::file(path, format!("cannot be read: {e}; run `mm data fetch english-dictionary`")))
    };
    let mut reader = BufReader::with_capacity(1 << 20, flate2::read::MultiGzDecoder::new(open(&dictionary)?));
    let (mut line, mut entry) = (Vec::new(), String::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|e| Error::file(&dictionary, format!("damaged gzip: {e}")))? == 0
        {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        // A blank line ends a paragraph; a line that is not indented starts an entry.
        if text.trim().is_empty() || !text.starts_with(char::is_whitespace) {
            sentence(&entry)?;
            entry.clear();
        }
        entry.push_str(&text);
    }
    sentence(&entry)?;
    for part in ["noun", "verb", "adj", "adv"] {
        let path = folder.join("usr/share/wordnet").join(format!("data.{part}"));
        for line in BufReader::new(open(&path)?).lines() {
            let line = line.map_err(|e| Error::file(&path, e.to_string()))?;
            // The license before the entries is indented.
            let (false, Some((head, gloss))) = (line.starts_with(' '), line.split_once('|')) else { continue };
            let fields: Vec<&str> = head.split_whitespace().collect();
            let words = fields.get(3).and_then(|n| usize::from_str_radix(n, 16).ok()).unwrap_or(0);
            let words: Vec<&str> = fields.iter().skip(4).step_by(2).take(words).copied().collect();
            sentence(&format!("{} {gloss}", words.join(" ")))?;
        }
    }
    file.flush().map_err(failed)?;
    Ok(count)
}
