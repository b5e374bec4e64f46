//! Search by words: BM25 of FTS5.

use super::{failure::Failure, filter::Selection};
use crate::score::Scored;
use rusqlite::{Connection, params};

/// Words as an expression of FTS5 that finds rows with any of them. Each is quoted, so that no word is an operator.
fn any_of(words: &[&str]) -> String {
    let quote = |word: &&str| format!("\"{}\"", word.replace('"', "\"\"").replace('\0', " "));
    words.iter().map(quote).collect::<Vec<_>>().join(" OR ")
}

/// The `k` rows whose texts fit the words best, and how many have one of them.
pub(super) fn search(
    connection: &Connection,
    words: &[&str],
    selection: Option<&Selection>,
    k: usize,
) -> Result<Vec<Scored>, Failure> {
    let limit = if selection.is_some() { -1 } else { i64::try_from(k).unwrap_or(-1) };
    let sql = "SELECT rowid, rank FROM words WHERE words MATCH ?1 ORDER BY rank LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![any_of(words), limit])?;
    let mut found = Vec::new();
    while found.len() < k {
        let Some(row) = rows.next()? else { break };
        let (number, rank): (i64, f64) = (row.get(0)?, row.get(1)?);
        if selection.is_none_or(|s| s.contains(number)) {
            // FTS5 returns BM25 with a minus sign.
            found.push(Scored { row: number, score: -rank });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_never_operators() {
        assert_eq!(any_of(&["red", "OR", "\"bird"]), "\"red\" OR \"OR\" OR \"\"\"bird\"");
    }
}
