//! Tokens of captions, as COCO's evaluation compares them: those of Stanford's Penn Treebank tokenizer 3.4.1 with
//! `-preserveLines -lowerCase`, without punctuation (pycocoevalcap's `PTBTokenizer`).
//!
//! Written from the tokenizer's output for characters, abbreviations and odd texts. Of random texts put together from
//! words, numbers, abbreviations, addresses, quotes and signs with spaces between them, 2 to 4 of 5,000 differ. Known
//! to differ: accented letters as HTML entities (`caf&eacute;`), and words run together at an abbreviation or an
//! apostrophe (`Inc.J.`, `etc.O'Neil`). The reference also looks at the caption that follows in its file to decide
//! whether an abbreviation at the very end of a caption ends a sentence; here none does.

mod abbreviations;
mod chars;
mod patterns;
mod punctuation;
mod rules;

use chars::{Chars, is_break};
use rules::next_token;

/// COCO's list has the brackets in upper case, which lower-cased tokens never match, so they are not removed (`-lrb-`).
const PUNCTUATION: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// Splits a caption as the Penn Treebank tokenizer does, in lower case and without punctuation.
///
/// ```
/// assert_eq!(mm_tasks::metrics::caption_tokens("A dog's ball, isn't it?"), ["a", "dog", "'s", "ball", "is", "n't", "it"]);
/// ```
pub fn caption_tokens(text: &str) -> Vec<String> {
    let mut tokens = all_tokens(text);
    tokens.retain(|token| !PUNCTUATION.contains(&token.as_str()));
    tokens
}

/// All tokens, with punctuation.
fn all_tokens(text: &str) -> Vec<String> {
    let chars = Chars::new(text);
    let (mut tokens, mut position) = (Vec::new(), 0);
    while position < chars.len() {
        if is_break(chars.at(position)) {
            position += 1;
            continue;
        }
        // Characters that no rule knows are left out.
        let Some(found) = next_token(&chars, position) else {
            position += 1;
            continue;
        };
        let token = found.token.unwrap_or_else(|| chars.text(position, found.end));
        // A fraction such as `3 1/2` is one token to the tokenizer and two to the metrics, which split at spaces.
        let token = token.replace('\u{ad}', "").to_lowercase();
        tokens.extend(token.split_whitespace().map(ToOwned::to_owned));
        position = found.end;
    }
    tokens
}
