//! Word error rate of transcripts.

/// Insertions, deletions and substitutions of words on the shortest edit path, over the number of words of the
/// references, all rows together; of several references of a row the nearest counts. Words are compared in lower case
/// and without punctuation.
///
/// ```
/// use mm_tasks::metrics::word_error_rate;
/// assert_eq!(word_error_rate(&["cat sat".into()], &[vec!["the cat sat".into()]]), 1.0 / 3.0);
/// ```
pub fn word_error_rate(transcripts: &[String], references: &[Vec<String>]) -> f64 {
    let words = |text: &String| mm_repr::text::word_tokens(text).collect::<Vec<_>>();
    let (mut errors, mut total) = (0, 0);
    for (transcript, references) in transcripts.iter().zip(references) {
        let transcript = words(transcript);
        let each = references.iter().map(words).map(|r| (edit_distance(&transcript, &r), r.len()));
        if let Some((distance, length)) = each.min() {
            (errors, total) = (errors + distance, total + length);
        }
    }
    errors as f64 / total.max(1) as f64
}

/// Levenshtein's distance.
fn edit_distance(a: &[String], b: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (n, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = n + 1;
        for (m, y) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(x != y);
            diagonal = row[m + 1];
            row[m + 1] = substitution.min(row[m] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::word_error_rate;

    #[test]
    fn errors_are_counted_on_the_shortest_edit_path() {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let rate = |transcripts: &[&str], references: &[&[&str]]| {
            word_error_rate(&owned(transcripts), &references.iter().map(|r| owned(r)).collect::<Vec<_>>())
        };
        // One insertion, one deletion, one substitution; case and punctuation are ignored.
        assert_eq!(rate(&["The cat sat, down"], &[&["the cat sat"]]), 1.0 / 3.0);
        assert_eq!(rate(&["cat sat"], &[&["the cat sat"]]), 1.0 / 3.0);
        assert_eq!(rate(&["a cat sat", "x y"], &[&["the cat sat"], &["x"]]), 2.0 / 4.0);
        assert_eq!(rate(&[""], &[&["the cat"]]), 1.0);
        // The nearest of several references.
        assert_eq!(rate(&["a dog"], &[&["the cat sat down", "a dog"]]), 0.0);
        assert_eq!(rate(&[], &[]), 0.0);
    }
}
