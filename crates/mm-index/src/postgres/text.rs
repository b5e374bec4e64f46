//! Search by words: BM25 as SQLite's FTS5 computes it, so that both engines rank rows alike.
//!
//! PostgreSQL's own full text search has no BM25 (`ts_rank_cd` knows no frequencies of words in all texts, and `tsvector`
//! cuts long texts). A row keeps the words of its text in their order, as FTS5 itself separates them; an index finds the
//! rows with a word, and the statement computes <https://www.sqlite.org/fts5.html#the_bm25_function>.

use super::{
    failure::Failure,
    filter::Selection,
    parameters::{Parameters, limit},
};
use crate::{Error, Result, score::Scored, words::tokenize};
use postgres::Transaction;

/// Longest word in bytes that is kept as it is; PostgreSQL indexes no long ones.
const MAX_WORD: usize = 1000;

/// Different words of a query.
const MAX_PHRASES: usize = 1000;

/// The words of texts in their order; none where there is no text.
pub(super) fn text_words(texts: &[Option<&str>]) -> Result<Vec<Option<Vec<String>>>> {
    let present: Vec<&str> = texts.iter().flatten().copied().collect();
    let mut words = separate(&present)?.into_iter();
    Ok(texts.iter().map(|text| text.and_then(|_| words.next())).collect())
}

/// The words of texts; a long one is replaced by its hash, which no text has as a word.
fn separate(texts: &[&str]) -> Result<Vec<Vec<String>>> {
    let failed = |source| Error::Sqlite { path: "(memory)".into(), action: "separating words", source };
    let mut separated = tokenize(texts).map_err(failed)?;
    for word in separated.iter_mut().flatten().filter(|word| word.len() > MAX_WORD) {
        *word = format!("#{}", blake3::hash(word.as_bytes()).to_hex());
    }
    Ok(separated)
}

/// What is looked for: a word of the query, which is several words of a text where it has signs inside (`e-mail`).
struct Phrase {
    words: Vec<String>,
    /// How often the query has it.
    count: usize,
}

fn phrases(words: &[&str]) -> Result<Vec<Phrase>> {
    let mut phrases: Vec<Phrase> = Vec::new();
    for words in separate(words)?.into_iter().filter(|words| !words.is_empty()) {
        match phrases.iter_mut().find(|phrase| phrase.words == words) {
            Some(phrase) => phrase.count += 1,
            None => phrases.push(Phrase { words, count: 1 }),
        }
    }
    if phrases.len() > MAX_PHRASES {
        let found = format!("{} different words", phrases.len());
        return Err(Error::invalid("words of the query", found, format!("at most {MAX_PHRASES}")));
    }
    Ok(phrases)
}

/// The statement that scores the rows with one of some phrases.
fn statement(phrases: &[Phrase], selection: Option<&Selection>, k: usize, parameters: &mut Parameters) -> String {
    let (mut counts, mut conditions, mut weights, mut terms) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, Phrase { words, count }) in phrases.iter().enumerate() {
        let (name, last) = (parameters.add(words.clone()), words.len() - 1);
        // How often the row has it: where its first word is, and the others follow.
        counts.push(if last == 0 {
            format!("cardinality(array_positions(words, ({name}::text[])[1]))::float8 AS n{index}")
        } else {
            format!(
                "(SELECT count(*) FROM unnest(array_positions(words, ({name}::text[])[1])) AS at
                WHERE words[at:at + {last}] = {name}::text[])::float8 AS n{index}"
            )
        });
        conditions.push(format!("words @> {name}::text[]"));
        // Inverse document frequency, which FTS5 keeps above zero.
        weights.push(format!(
            "CASE WHEN 2 * count(*) FILTER (WHERE n{index} > 0) >= texts THEN 1e-6::float8
            ELSE ln((texts - count(*) FILTER (WHERE n{index} > 0) + 0.5)::float8
                / (count(*) FILTER (WHERE n{index} > 0) + 0.5)::float8) END AS w{index}"
        ));
        terms.push(format!(
            "{count}::float8 * w{index} * (n{index} * 2.2::float8
                / (n{index} + 1.2::float8 * (0.25::float8 + 0.75::float8 * length / average)))"
        ));
    }
    let any: Vec<String> = (0..phrases.len()).map(|index| format!("n{index} > 0")).collect();
    let filter = selection.map_or("true".to_owned(), |selection| selection.condition(parameters));
    let k = parameters.add(limit(k));
    format!(
        "WITH found AS MATERIALIZED (
            SELECT number, cardinality(words)::float8 AS length, {} FROM mm_rows WHERE {}
        ), weights AS (
            SELECT mm_store.words::float8 / nullif(texts, 0) AS average, {} FROM found CROSS JOIN mm_store
            GROUP BY texts, mm_store.words
        )
        SELECT x.number, {} AS score FROM found x CROSS JOIN weights
        WHERE ({}) AND {filter} ORDER BY score DESC, x.number LIMIT {k}::bigint",
        counts.join(", "),
        conditions.join(" OR "),
        weights.join(", "),
        terms.join(" + "),
        any.join(" OR "),
    )
}

/// The `k` rows whose texts fit the words best.
pub(super) fn search(
    transaction: &mut Transaction<'_>,
    words: &[&str],
    selection: Option<&Selection>,
    k: usize,
) -> Result<Vec<Scored>, Failure> {
    let phrases = phrases(words)?;
    if phrases.is_empty() {
        return Ok(Vec::new());
    }
    let mut parameters = Parameters::default();
    let sql = statement(&phrases, selection, k, &mut parameters);
    let rows = transaction.query(&sql, &parameters.list())?;
    let scored = rows.iter().map(|row| Ok(Scored { row: row.try_get(0)?, score: row.try_get(1)? }));
    Ok(scored.collect::<Result<_, postgres::Error>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_signs_inside_are_phrases_and_long_ones_are_hashed() {
        let long = "x".repeat(3000);
        let found = phrases(&["Red", "e-mail", "red", &long]).unwrap();
        let found: Vec<(Vec<String>, usize)> = found.into_iter().map(|p| (p.words, p.count)).collect();
        assert_eq!(found[..2], [(vec!["red".into()], 2), (vec!["e".into(), "mail".into()], 1)]);
        assert!(found[2].0[0].starts_with('#') && found[2].0[0].len() == 65, "{found:?}");
        let texts = text_words(&[Some("a b"), None, Some("")]).unwrap();
        assert_eq!(texts, [Some(vec!["a".into(), "b".into()]), None, Some(vec![])]);
    }
}
