//! The index of words: search (BM25 of FTS5), merging, building, and comparing it with the texts.

use super::{SqliteStore, failure::Failure, selection::Selection};
use crate::{CheckReport, Result, check::REBUILD, score::Scored};
use rusqlite::{Connection, ErrorCode, params};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Pages of lists that one step of merging writes: a few megabytes, for which other writers wait.
const MERGED_PAGES: i64 = 1000;

/// Time between two steps of merging, in which other writers can write.
const PAUSE: Duration = Duration::from_millis(5);

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

/// Builds the index anew from the texts.
pub(super) fn rebuild(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO words (words) VALUES ('rebuild')", []).map(drop)
}

impl SqliteStore {
    /// Merges the lists of words into one, in steps between which other processes write, until it is asked to stop. What is
    /// not merged is searched as well, but more slowly.
    pub(super) fn merge_words(&self, stop: &AtomicBool) -> Result<()> {
        self.merge_by(MERGED_PAGES, stop)
    }

    /// Merges in steps of so many pages.
    fn merge_by(&self, step: i64, stop: &AtomicBool) -> Result<()> {
        // A negative number of pages begins, positive ones go on: https://www.sqlite.org/fts5.html#the_merge_command
        let mut pages = -step;
        while !stop.load(Ordering::Relaxed) {
            let changes = self.write("merging the words", |connection| {
                let before = connection.total_changes();
                connection.execute("INSERT INTO words (words, rank) VALUES ('merge', ?1)", [pages])?;
                Ok(connection.total_changes() - before)
            })?;
            // The statement itself is one change.
            if changes < 2 {
                break;
            }
            pages = step;
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Compares the index with the texts, for which SQLite needs the right to write.
    pub(super) fn check_words(&self, report: &mut CheckReport) {
        let compared = self.try_write(|connection| {
            // With a rank, the words are compared with the texts.
            connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)", [])?;
            Ok(())
        });
        let Err(failure) = compared else { return };
        let why = match failure.code() {
            Some(ErrorCode::DatabaseCorrupt) => {
                report.add("words", format!("their index is not that of the texts; {REBUILD}"), false);
                return;
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "another process writes; check again later".to_owned()
            }
            Some(ErrorCode::ReadOnly) => {
                "this process may not write here, which comparing them with the texts needs".to_owned()
            }
            _ => match failure {
                Failure::Sql(error) => error.to_string(),
                other => other.at(&self.database(), "checking the words").to_string(),
            },
        };
        report.notes.push(format!("the words were not checked: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Query, Row, Store as _, StoreConfig, VectorConfig};

    fn store(folder: &std::path::Path) -> SqliteStore {
        SqliteStore::create(folder, &StoreConfig::new("v", VectorConfig::cosine(2))).unwrap()
    }

    #[test]
    fn lists_of_words_are_merged_into_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        for n in 0..30 {
            let row = |m: usize| Row::new(format!("{n} {m}")).with_text(format!("bird number{n} part{m} of{}", n * m));
            store.upsert(&(0..40).map(row).collect::<Vec<_>>()).unwrap();
        }
        store.delete(&["1 1", "29 39"]).unwrap();
        let lists = || {
            let sql = "SELECT count(DISTINCT segid) FROM words_idx";
            store.read("counting", |connection| Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)).unwrap()
        };
        assert!(lists() > 1);
        store.merge_words(&AtomicBool::new(true)).unwrap();
        assert!(lists() > 1, "it was stopped");
        // One page at a time, which needs several steps.
        store.merge_by(1, &AtomicBool::new(false)).unwrap();
        assert_eq!(lists(), 1);
        let changes = || store.writer.lock().unwrap().total_changes();
        let before = changes();
        store.merge_words(&AtomicBool::new(false)).unwrap();
        assert!(changes() - before < 2, "nothing is left to merge");
        assert_eq!(store.query(&Query::text("number29").k(99)).unwrap().hits.len(), 39);
        assert_eq!(store.check(&mut |_, _, _| {}).unwrap(), CheckReport { rows: 1198, ..CheckReport::default() });
    }

    #[test]
    fn words_that_cannot_be_compared_now_are_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.upsert(&[Row::new("a").with_text("red bird")]).unwrap();
        let check = || store.check(&mut |_, _, _| {}).unwrap();
        let other = Connection::open(store.database()).unwrap();
        store.writer.lock().unwrap().busy_timeout(Duration::ZERO).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let report = check();
        assert!(report.problems.is_empty() && report.notes[0].contains("another process writes"), "{report:?}");
        other.execute_batch("ROLLBACK").unwrap();
        store.writer.lock().unwrap().pragma_update(None, "query_only", true).unwrap();
        let report = check();
        assert!(report.problems.is_empty() && report.notes[0].contains("may not write here"), "{report:?}");
        store.writer.lock().unwrap().pragma_update(None, "query_only", false).unwrap();
        other.execute_batch("UPDATE row_data SET text = 'blue bird'").unwrap();
        let problems = check().problems;
        assert!(problems.iter().any(|problem| problem.what == "words"), "{problems:?}");
        // Another error than these keeps nothing else from being reported.
        other.execute_batch("DROP TABLE words").unwrap();
        let report = check();
        assert!(report.notes[0].contains("no such table: words"), "{report:?}");
        assert_eq!(report.problems[0].what, "row a");
    }

    #[test]
    fn a_check_after_another_connection_merged_the_words_finds_them_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let other = SqliteStore::open(folder.path()).unwrap();
        for n in 0..9 {
            let row = |m: usize| Row::new(format!("{n} {m}")).with_text(format!("bird number{n} part{m}"));
            store.upsert(&(0..40).map(row).collect::<Vec<_>>()).unwrap();
            for store in [&store, &other] {
                assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, [], "{n}");
                assert_eq!(store.query(&Query::text("bird").k(999)).unwrap().hits.len(), (n + 1) * 40);
            }
            store.merge_words(&AtomicBool::new(false)).unwrap();
        }
    }

    #[test]
    fn words_are_never_operators() {
        assert_eq!(any_of(&["red", "OR", "\"bird"]), "\"red\" OR \"OR\" OR \"\"\"bird\"");
    }
}
