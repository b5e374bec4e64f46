//! Splitting text into words.

/// The words of a text, in lower case and without punctuation; apostrophes belong to words.
///
/// ```
/// let words: Vec<String> = mm_repr::text::word_tokens("Don't panic, Arthur!").collect();
/// assert_eq!(words, ["don't", "panic", "arthur"]);
/// ```
pub fn word_tokens(text: &str) -> impl Iterator<Item = String> {
    let lower = text.to_lowercase();
    let is_separator = |c: char| !c.is_alphanumeric() && c != '\'';
    let words = lower.split(is_separator).filter(|w| !w.is_empty()).map(ToOwned::to_owned);
    words.collect::<Vec<_>>().into_iter()
}
