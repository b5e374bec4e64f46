//! Words of texts and of queries, as SQLite's FTS5 separates them.

/// How FTS5 separates a text into words: letters, digits and private characters, in lower case and without accents.
pub(crate) const TOKENIZER: &str = "unicode61 remove_diacritics 2";

/// The words of a query: what stands between spaces and has a letter or digit.
pub(crate) fn query_words(words: &str) -> Vec<&str> {
    words.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).collect()
}

#[cfg(feature = "postgres")]
pub(crate) use tokens::tokenize;

#[cfg(feature = "postgres")]
mod tokens {
    use super::TOKENIZER;
    use rusqlite::{Connection, params};
    use std::borrow::Borrow;

    /// The words of texts in their order, by FTS5 itself, so that every engine sees the same ones.
    ///
    /// # Errors
    /// When SQLite fails, which has nothing to read or write here but memory.
    pub(crate) fn tokenize<T: Borrow<str>>(texts: &[T]) -> rusqlite::Result<Vec<Vec<String>>> {
        let mut found = vec![Vec::new(); texts.len()];
        if texts.is_empty() {
            return Ok(found);
        }
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(&format!(
            "CREATE VIRTUAL TABLE words USING fts5(text, content = '', tokenize = '{TOKENIZER}');
             CREATE VIRTUAL TABLE vocabulary USING fts5vocab(words, instance);
             BEGIN"
        ))?;
        let mut insert = connection.prepare("INSERT INTO words (rowid, text) VALUES (?1, ?2)")?;
        for (index, text) in (0i64..).zip(texts) {
            insert.execute(params![index, text.borrow()])?;
        }
        let mut statement = connection.prepare("SELECT doc, term FROM vocabulary ORDER BY doc, offset")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let index = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX);
            if let Some(words) = found.get_mut(index) {
                words.push(row.get(1)?);
            }
        }
        Ok(found)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn words_are_those_of_fts5_in_their_order() {
            let texts = ["Red bird, red TREE", "", "Café-Crème: don't", "naïve 3.5 日本 x"];
            let expected: [&[&str]; 4] = [
                &["red", "bird", "red", "tree"],
                &[],
                &["cafe", "creme", "don", "t"],
                &["naive", "3", "5", "日本", "x"],
            ];
            assert_eq!(tokenize(&texts).unwrap(), expected);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_letter_or_digit_is_no_word() {
        assert_eq!(query_words("red -- \"bird !!"), ["red", "\"bird"]);
        assert_eq!(query_words(" -- !! "), Vec::<&str>::new());
    }
}
