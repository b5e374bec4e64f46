//! English dictionary text, one sentence a line: the Collaborative International Dictionary (Debian: dict-gcide) and `WordNet`'s words and
//! glosses (Debian: wordnet-base). Lower case, letters a to z alone.

use crate::{Error, Result};
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

/// Writes the corpus; the number of its sentences is returned.
pub(super) fn write(folder: &Path, out: &Path) -> Result<usize> {
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
        File::open(path).map_err(|e| {
            Error::file(path, format!("cannot be read: {e}; `cargo xtask data fetch english-dictionary` brings it"))
        })
    };
    let mut reader = BufReader::with_capacity(1 << 20, flate2::read::MultiGzDecoder::new(open(&dictionary)?));
    let (mut line, mut entry) = (Vec::new(), String::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|e| Error::file(&dictionary, format!("a broken gzip: {e}")))?
            == 0
        {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        // A blank line ends a part, a line that is not indented begins an entry.
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
            // The licence before the entries is indented.
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
