//! A text as characters, and the classes that the Penn Treebank tokenizer knows.

/// A text with a position behind its end that is never matched.
pub(super) struct Chars(Vec<char>);

impl Chars {
    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The character at a position; a line break behind the end.
    pub(super) fn at(&self, n: usize) -> char {
        self.0.get(n).copied().unwrap_or('\n')
    }

    pub(super) fn text(&self, start: usize, end: usize) -> String {
        self.0[start..end].iter().collect()
    }

    /// The end of the run of characters of a class.
    pub(super) fn run(&self, start: usize, class: impl Fn(char) -> bool) -> usize {
        (start..self.len()).find(|n| !class(self.at(*n))).unwrap_or(self.len())
    }

    /// The end of a word without regard to case, where it is next.
    pub(super) fn word(&self, start: usize, word: &str) -> Option<usize> {
        let mut n = start;
        for expected in word.chars() {
            let found = self.at(n);
            let same = if expected == '\'' { is_apostrophe(found) } else { found.to_ascii_lowercase() == expected };
            if !same {
                return None;
            }
            n += 1;
        }
        Some(n)
    }

    /// The longest of these words that is next.
    pub(super) fn any_word(&self, start: usize, words: &[&str]) -> Option<usize> {
        let first = self.at(start).to_ascii_lowercase();
        let words = words.iter().filter(|word| is_apostrophe(first) || word.starts_with(first));
        words.filter_map(|word| self.word(start, word)).max()
    }
}

pub(super) fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{92}' | '’')
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{3000}')
}

pub(super) fn is_break(c: char) -> bool {
    is_space(c) || matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Letters, with the marks and signs that the reference counts as such; characters beyond the basic plane are none.
pub(super) fn is_letter(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphabetic();
    }
    let is_mark = matches!(c as u32, 0xad | 0x300..=0x36f | 0x483..=0x487 | 0x591..=0x5bd | 0x5bf | 0x5c1..=0x5c2 | 0x5c4..=0x5c5
        | 0x5c7 | 0x610..=0x61a | 0x64b..=0x65e | 0x670 | 0x6d6..=0x6ed | 0x900..=0x903 | 0x93c | 0x93e..=0x94e | 0xe31 | 0xe34..=0xe3a
        | 0xe47..=0xe4e);
    (c as u32) < 0x1_0000 && (is_mark || (c.is_alphabetic() && !matches!(c as u32, 0x2160..=0x2188 | 0x24b6..=0x24e9)))
}

pub(super) fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
        || matches!(c as u32, 0x660..=0x669 | 0x6f0..=0x6f9 | 0x7c0..=0x7c9 | 0x966..=0x96f | 0x9e6..=0x9ef | 0xe50..=0xe59 | 0xff10..=0xff19)
}

pub(super) fn is_alphanumeric(c: char) -> bool {
    is_letter(c) || is_digit(c)
}
