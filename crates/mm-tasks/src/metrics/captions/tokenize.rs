//! Tokens of captions, as COCO's evaluation compares them.

/// COCO's list has the brackets in upper case, which lower-cased tokens never match, so they are not removed (`-lrb-`).
const PUNCTUATION: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", ";", "\""];

/// Abbreviations that keep their full stop.
const ABBREVIATIONS: [&str; 16] =
    ["mr", "mrs", "ms", "dr", "st", "jr", "sr", "vs", "prof", "inc", "ltd", "co", "corp", "mt", "ave", "etc"];

/// Contracted endings that are tokens of their own.
const CONTRACTIONS: [&str; 7] = ["'s", "'re", "'ve", "'ll", "'m", "'d", "n't"];

/// Splits a caption as the Penn Treebank tokenizer does, in lower case and without punctuation.
///
/// ```
/// assert_eq!(mm_tasks::metrics::caption_tokens("A dog's ball, isn't it?"), ["a", "dog", "'s", "ball", "is", "n't", "it"]);
/// ```
pub fn caption_tokens(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for word in text.replace('\n', " ").to_lowercase().split_whitespace() {
        split_word(word, &mut pieces);
    }
    // `dog's` → `dog` `'s`, `don't` → `do` `n't`, `cannot` → `can` `not`.
    let mut tokens = Vec::new();
    for word in pieces {
        match CONTRACTIONS.iter().find(|e| word.len() > e.len() && word.ends_with(**e)) {
            Some(end) => {
                tokens.push(word[..word.len() - end.len()].to_owned());
                tokens.push((*end).to_owned());
            }
            None if word == "cannot" => tokens.extend(["can".to_owned(), "not".to_owned()]),
            None => tokens.push(word),
        }
    }
    tokens.retain(|w| !PUNCTUATION.contains(&w.as_str()));
    tokens
}

/// Splits a word without white space at its punctuation.
fn split_word(word: &str, out: &mut Vec<String>) {
    let chars: Vec<char> = word.chars().collect();
    let mut piece = String::new();
    for (n, c) in chars.iter().enumerate() {
        let between =
            |accept: fn(char) -> bool| n > 0 && n + 1 < chars.len() && accept(chars[n - 1]) && accept(chars[n + 1]);
        let inside_word = match c {
            '-' | '\'' | '’' => between(char::is_alphanumeric),
            '.' | ',' | ':' => between(|c| c.is_ascii_digit()),
            '/' => between(char::is_alphabetic),
            c => c.is_alphanumeric() || matches!(c, '_' | '$' | '%' | '&' | '#' | '@' | '*' | '+' | '='),
        };
        if let Some(bracket) = bracket_name(*c) {
            if !piece.is_empty() {
                out.push(std::mem::take(&mut piece));
            }
            out.push(bracket.to_owned());
        } else if inside_word || (*c == '.' && keeps_full_stop(&piece, chars.get(n + 1).copied())) {
            piece.push(if *c == '’' { '\'' } else { *c });
        } else {
            if !piece.is_empty() {
                out.push(std::mem::take(&mut piece));
            }
            out.push(c.to_string());
        }
    }
    if !piece.is_empty() {
        out.push(piece);
    }
}

/// Whether a full stop after `piece` belongs to an abbreviation: `mr.`, `u.s.`
fn keeps_full_stop(piece: &str, next: Option<char>) -> bool {
    ABBREVIATIONS.contains(&piece)
        || (piece.chars().count() % 2 == 1
            && (piece.contains('.') || next.is_some_and(char::is_alphabetic))
            && piece.chars().enumerate().all(|(k, c)| if k % 2 == 0 { c.is_alphabetic() } else { c == '.' }))
}

fn bracket_name(c: char) -> Option<&'static str> {
    Some(match c {
        '(' => "-lrb-",
        ')' => "-rrb-",
        '[' => "-lsb-",
        ']' => "-rsb-",
        '{' => "-lcb-",
        '}' => "-rcb-",
        _ => return None,
    })
}
