//! The rules of the Penn Treebank tokenizer: of all that match at a position, the longest one makes the token; of
//! equally long ones the first.

use super::{
    abbreviations::{
        AT_SENTENCE_END, BEFORE_NUMBER, CAPITALIZED, COMPOUND_ACRONYMS, SENTENCE_STARTERS, WITHIN_SENTENCE,
    },
    chars::{Chars, is_alphanumeric, is_apostrophe, is_break, is_digit, is_letter},
    patterns::{
        ampersands, brackets, contraction, date, elided_word, fraction, host, hyphen_word, number, numeric_entity,
        sentence_end, slashed, tag, underscored, word_ends,
    },
};

/// A token and where it ends.
pub(super) struct Match {
    /// The end of what the rule looked at, by which rules are compared.
    reach: usize,
    /// The end of the token; the next one starts there.
    pub(super) end: usize,
    /// The token, where it is not the text itself.
    pub(super) token: Option<String>,
}

/// The matches of the rules at a position.
pub(super) struct Rules<'a> {
    pub(super) chars: &'a Chars,
    pub(super) start: usize,
    best: Option<Match>,
}

/// Words of two tokens, with the length of the first.
const COMPOUNDS: &[(&str, usize)] = &[
    ("cannot", 3),
    ("gonna", 3),
    ("gotta", 3),
    ("lemme", 3),
    ("gimme", 3),
    ("wanna", 3),
    ("'twas", 2),
    ("'tis", 2),
    ("more'n", 4),
];

/// Words with an apostrophe that are one token.
const WITH_APOSTROPHE: &[&str] = &[
    "dunkin'",
    "somethin'",
    "ol'",
    "'em",
    "c'mon",
    "'n",
    "'n'",
    "'til",
    "'till",
    "'cause",
    "o'clock",
    "o'er",
    "ma'am",
    "ne'er",
    "d'ya",
    "d'ye",
];

/// The token at a position; `None` for one that no rule matches, which is left out.
pub(super) fn next_token(chars: &Chars, start: usize) -> Option<Match> {
    let mut rules = Rules { chars, start, best: None };
    rules.markup();
    rules.words();
    rules.addresses();
    rules.numbers();
    rules.hyphenated();
    rules.abbreviations();
    rules.acronyms();
    rules.faces();
    rules.quotes();
    rules.symbols();
    rules.best
}

impl Rules<'_> {
    pub(super) fn at(&self, n: usize) -> char {
        self.chars.at(self.start + n)
    }

    pub(super) fn add(&mut self, reach: usize, end: usize, token: Option<&str>) {
        if end > self.start && self.best.as_ref().is_none_or(|best| reach > best.reach) {
            self.best = Some(Match { reach, end, token: token.map(ToOwned::to_owned) });
        }
    }

    /// A token of the text up to `end`.
    pub(super) fn text(&mut self, end: usize) {
        self.add(end, end, None);
    }

    /// A token of the next `length` characters that is written as `token`.
    pub(super) fn as_token(&mut self, length: usize, token: &str) {
        let end = self.start + length;
        self.add(end, end, Some(token));
    }

    /// Tags, entities and dashes.
    fn markup(&mut self) {
        for (word, first) in COMPOUNDS {
            if let Some(end) = self.chars.word(self.start, word) {
                self.add(end, self.start + first, None);
            }
        }
        if let Some(end) = tag(self.chars, self.start) {
            self.text(end);
        }
        for (entity, token) in [
            ("&mdash;", "--"),
            ("&ndash;", "--"),
            ("&md;", "--"),
            ("&amp;", "&"),
            ("&apos;", "'"),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&nbsp;", ""),
        ] {
            if self.chars.word(self.start, entity).is_some() {
                self.as_token(entity.len(), token);
            }
        }
        let digits = numeric_entity(self.chars, self.start);
        if let Some(end) = digits {
            self.text(end);
        }
        match self.at(0) {
            '\u{96}' | '\u{97}' | '–' | '—' | '―' => self.as_token(1, "--"),
            _ => {}
        }
    }

    /// Words and their contractions.
    fn words(&mut self) {
        let (chars, start) = (self.chars, self.start);
        let letters = chars.run(start, |c| c.is_ascii_alphabetic());
        for end in word_ends(chars, start) {
            if let Some(reach) = contraction(chars, end) {
                self.add(reach, end, None);
            }
        }
        // Letters before `n't`.
        for end in start + 1..letters {
            if let Some(reach) = chars.word(end, "n't") {
                self.add(reach, end, None);
            }
        }
        if let Some(end) = word_ends(chars, start).last() {
            self.text(*end);
        }
        // `sun.,`: a full stop before other punctuation belongs to the word.
        let alphanumeric = chars.run(start, |c| c.is_ascii_alphanumeric());
        let word = word_ends(chars, start).last().copied().max(hyphen_word(chars, start));
        let last = word.unwrap_or(start).max(alphanumeric);
        if last > start && chars.at(last) == '.' && matches!(chars.at(last + 1), ',' | ';' | ':') {
            self.add(last + 2, last + 1, None);
        }
        if let Some(end) = chars.any_word(start, WITH_APOSTROPHE) {
            self.text(end);
        }
        if chars.word(start, "y'").is_some() && is_letter(self.at(2)) {
            self.add(start + 3, start + 2, None);
        }
        // `D'Angelo`
        let elides = matches!(self.at(0), 'A'..='H' | 'J'..='X' | 'Z' | 'n');
        if elides && is_apostrophe(self.at(1)) && is_letter(self.at(2)) && is_letter(self.at(3)) {
            self.text(chars.run(start + 2, is_letter));
        }
        // `'80s`
        if is_apostrophe(self.at(0))
            && matches!(self.at(1), '2'..='9')
            && self.at(2) == '0'
            && self.at(3).eq_ignore_ascii_case(&'s')
        {
            self.text(start + 4);
        }
        // `l'`, `j'`
        if matches!(self.at(0).to_ascii_lowercase(), 'l' | 'd' | 'j') && is_apostrophe(self.at(1)) {
            self.text(start + 2);
        }
        // What is left of a contraction.
        let found = contraction(chars, start).or_else(|| chars.word(start, "n't"));
        if let Some(end) = found {
            // Letters that follow a straight apostrophe make it an opening quote.
            let quote = self.at(0) == '\'' && chars.at(end).is_ascii_alphabetic();
            let reach =
                if quote { end.min(start + 2) } else { end + usize::from(!chars.at(end).is_ascii_alphabetic()) };
            let text: String =
                chars.text(start, end).chars().map(|c| if is_apostrophe(c) { '\'' } else { c }).collect();
            self.add(reach, end, Some(&text));
        }
    }

    /// Web addresses, mail addresses, names and tags of social networks.
    fn addresses(&mut self) {
        let (chars, start) = (self.chars, self.start);
        let stop = |c: char| is_break(c) || matches!(c, '"' | '<' | '>' | '|');
        let trailing = |end: usize| {
            let is_end = |c: char| !matches!(c, '.' | '!' | '?' | '(' | ')' | '{' | '}' | ',' | '-');
            (start..end).rev().find(|n| is_end(chars.at(*n))).map(|n| n + 1)
        };
        let url = |from: usize| {
            let end = chars.run(from, |c| !stop(c) && !matches!(c, '(' | ')'));
            trailing(end).filter(|end| *end >= from + 2)
        };
        for scheme in ["http://", "https://"] {
            if let Some(end) = chars.word(start, scheme).and_then(url) {
                self.text(end);
            }
        }
        if let Some(end) = host(chars, start) {
            self.text(end);
            if chars.at(end) == '/'
                && let Some(end) = url(end + 1)
            {
                self.text(end);
            }
        }
        let first = start + usize::from(self.at(0) == '<');
        if chars.at(first).is_ascii_alphanumeric() {
            let name = chars.run(first, |c| !stop(c) && !matches!(c, '(' | ')' | '{' | '}' | '@'));
            if chars.at(name) == '@' {
                let end = chars.run(name + 1, |c| !stop(c) && !matches!(c, '(' | ')'));
                let is_end = |c: char| !matches!(c, '.' | '!' | '?' | ',' | '{' | '}' | ';' | ':' | '\'');
                if let Some(last) = (name + 1..end).rev().find(|n| is_end(chars.at(*n))) {
                    self.text(last + 1);
                }
            }
        }
        if self.at(0) == '@' && (self.at(1).is_ascii_alphabetic() || self.at(1) == '_') {
            self.text(chars.run(start + 2, |c| c.is_ascii_alphanumeric() || c == '_'));
        }
        if self.at(0) == '#' && is_letter(self.at(1)) {
            self.text(chars.run(start + 1, is_letter));
        }
    }

    /// Numbers, dates, fractions and amounts.
    fn numbers(&mut self) {
        let (chars, start) = (self.chars, self.start);
        if let Some(end) = date(chars, start) {
            self.text(end);
        }
        let unsigned = start + usize::from(matches!(self.at(0), '-' | '+'));
        if let Some(end) = number(chars, unsigned) {
            self.text(end);
        }
        let scripts = usize::from(matches!(self.at(0), '⁺' | '⁻' | '₊' | '₋'));
        let superscript = |c: char| matches!(c, '⁰' | '¹' | '²' | '³' | '⁴'..='⁹');
        for class in [superscript as fn(char) -> bool, |c| matches!(c, '₀'..='₉')] {
            let end = chars.run(start + scripts, class);
            if end > start + scripts {
                self.text(end);
            }
        }
        if let Some(end) = fraction(chars, start) {
            self.text(end);
        }
        let fraction = match self.at(0) {
            '¼' => Some("1/4"),
            '½' => Some("1/2"),
            '¾' => Some("3/4"),
            '⅓' => Some("1/3"),
            '⅔' => Some("2/3"),
            _ => None,
        };
        if let Some(token) = fraction {
            self.as_token(1, token);
        }
        let capitals = chars.run(start, |c| c.is_ascii_uppercase());
        if chars.at(capitals) == '$' {
            self.text(capitals + 1);
        }
        let currency = match self.at(0) {
            '\u{80}' | '¤' | '₠' | '€' => Some("$"),
            '£' => Some("#"),
            '¢' => Some("cents"),
            _ => None,
        };
        if let Some(token) = currency {
            self.as_token(1, token);
        }
        self.phone();
    }

    /// `(555) 555-1234`
    fn phone(&mut self) {
        let (chars, start) = (self.chars, self.start);
        if self.at(0) == '(' {
            let area = chars.run(start + 1, is_digit);
            if matches!(area - start - 1, 2 | 3) && chars.at(area) == ')' {
                let space = area + 1 + usize::from(matches!(chars.at(area + 1), ' ' | '\u{a0}'));
                let first = chars.run(space, is_digit);
                let second = chars.run(first + 1, is_digit);
                if matches!(first - space, 3 | 4)
                    && matches!(chars.at(first), '-' | ' ' | '\u{a0}')
                    && (3..=5).contains(&(second - first - 1))
                {
                    let text = brackets(&chars.text(start, second));
                    self.add(second, second, Some(&text));
                }
            }
        }
    }

    /// Words of letters and digits, with hyphens, slashes and ampersands.
    fn hyphenated(&mut self) {
        let (chars, start) = (self.chars, self.start);
        let end = chars.run(start, |c| c.is_ascii_alphanumeric() || is_alphanumeric(c));
        if end > start {
            self.text(end);
        }
        for end in [
            hyphen_word(chars, start),
            elided_word(chars, start),
            slashed(chars, start),
            ampersands(chars, start),
            underscored(chars, start),
        ]
        .into_iter()
        .flatten()
        {
            self.text(end);
        }
        if let Some(end) = chars.any_word(start, &["c++", "c#"]) {
            self.text(end);
        }
    }

    /// Abbreviations of words.
    fn abbreviations(&mut self) {
        let (chars, start) = (self.chars, self.start);
        if chars.at(chars.run(start, |c| c.is_ascii_alphabetic())) != '.' {
            return;
        }
        let abbreviation = |words: &[&str]| {
            let with_stop =
                |word: &&str| chars.word(start, word).filter(|end| chars.at(*end) == '.').map(|end| end + 1);
            words.iter().filter_map(with_stop).max()
        };
        let capitalized = abbreviation(CAPITALIZED).filter(|_| self.at(0).is_ascii_uppercase());
        let ends = [abbreviation(AT_SENTENCE_END), capitalized].into_iter().flatten().max();
        if let Some(end) = ends {
            match sentence_end(chars, end) {
                // The full stop is read again, as a token of its own.
                Some(reach) => {
                    let text = chars.text(start, end);
                    self.add(reach, end - 1, Some(&text));
                }
                None => self.text(end),
            }
        }
        if let Some(end) = abbreviation(WITHIN_SENTENCE) {
            self.text(end);
        }
        if let Some(end) = abbreviation(BEFORE_NUMBER) {
            let number = chars.run(end, is_break);
            if is_digit(chars.at(number)) {
                self.add(number + 1, end, None);
            }
        }
    }

    /// Acronyms: `a.m.`, `U.S.`
    fn acronyms(&mut self) {
        let (chars, start) = (self.chars, self.start);
        if !matches!(chars.at(chars.run(start, |c| c.is_ascii_alphabetic())), '.' | '-') {
            return;
        }
        let compound = COMPOUND_ACRONYMS
            .iter()
            .filter_map(|word| chars.word(start, word))
            .filter(|end| chars.at(*end) == '.')
            .max();
        let mut end = start + 1;
        while chars.at(end) == '.' && chars.at(end + 1).is_ascii_alphabetic() {
            end += 2;
        }
        let acronym = (self.at(0).is_ascii_alphabetic() && chars.at(end) == '.').then_some(end + 1);
        for end in [compound.map(|end| end + 1), acronym].into_iter().flatten() {
            self.text(end);
            let word = chars.run(end, is_break);
            let starts = |starter: &&&str| {
                chars.word(word, starter).is_some_and(|n| {
                    is_break(chars.at(n))
                        || (["mr", "ms"].contains(*starter) && chars.at(n) == '.' && is_break(chars.at(n + 1)))
                })
            };
            if word > end && chars.at(word).is_ascii_uppercase() && SENTENCE_STARTERS.iter().any(|s| starts(&s)) {
                let text = if end - start > 2 { chars.text(start, end) } else { chars.text(start, end - 1) };
                self.add(word + 2, end - 1, Some(&text));
            }
        }
    }
}
