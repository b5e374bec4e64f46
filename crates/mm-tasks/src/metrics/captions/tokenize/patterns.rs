//! Patterns that several rules use: where what begins at a position ends.

use super::chars::{Chars, is_alphanumeric, is_apostrophe, is_break, is_digit, is_letter};

/// Signs that are tokens of their own; others are left out.
pub(super) fn is_sign(c: char) -> bool {
    matches!(c as u32,
        0xa1 | 0xa5..=0xa9 | 0xac | 0xae..=0xb1 | 0xb4 | 0xb6..=0xb8 | 0xbf | 0xd7 | 0xf7 | 0x37e | 0x387 | 0x589 | 0x5be | 0x5c0
        | 0x5c3 | 0x5c6 | 0x5f3..=0x5f4 | 0x600..=0x603 | 0x606..=0x60c | 0x614 | 0x61b | 0x61e..=0x61f | 0x66a | 0x66d | 0x6d4
        | 0x700..=0x70d | 0x7f6..=0x7f8 | 0x964..=0x965 | 0xe3f | 0xe4f | 0x1fbd | 0x2016..=0x2017 | 0x201a | 0x201e..=0x2023
        | 0x2030..=0x2038 | 0x203b | 0x203e..=0x2042 | 0x2044 | 0x207a..=0x207e | 0x208a..=0x208e | 0x20a4 | 0x2100..=0x2101
        | 0x2103..=0x2106 | 0x2108..=0x2109 | 0x2114 | 0x2116..=0x2118 | 0x211e..=0x2123 | 0x2125 | 0x2127 | 0x2129 | 0x212e
        | 0x213a..=0x213b | 0x2140..=0x2144 | 0x214a..=0x214d | 0x214f | 0x2155..=0x215e | 0x2190..=0x2bff | 0x3001..=0x3002
        | 0x3012 | 0x30fb | 0xff01..=0xff0f | 0xff1a..=0xff20 | 0xff3b..=0xff40 | 0xff5b..=0xff65 | 0xffe0..=0xffe1 | 0xffe5..=0xffe6)
}

pub(super) fn unicode_quote(c: char) -> Option<&'static str> {
    match c {
        '\u{91}' | '‘' | '‛' | '‹' => Some("`"),
        '\u{92}' | '’' | '›' => Some("'"),
        '\u{93}' | '“' | '«' => Some("``"),
        '\u{94}' | '”' | '»' => Some("''"),
        _ => None,
    }
}

pub(super) fn brackets(text: &str) -> String {
    text.replace('(', "-lrb-").replace(')', "-rrb-")
}

/// `&#39;`
pub(super) fn numeric_entity(chars: &Chars, start: usize) -> Option<usize> {
    let end = chars.run(start + 2, |c| c.is_ascii_digit());
    (chars.at(start) == '&' && chars.at(start + 1) == '#' && end > start + 2 && chars.at(end) == ';').then_some(end + 1)
}

/// `<b>`, `</p>`, `<img src="x.png">`
pub(super) fn tag(chars: &Chars, start: usize) -> Option<usize> {
    if chars.at(start) != '<' {
        return None;
    }
    let name = start + 1 + usize::from(chars.at(start + 1) == '/');
    let first = chars.at(name);
    if !(first.is_ascii_alphabetic() || matches!(first, '!' | '?')) {
        return None;
    }
    let end = chars.run(name + 1, |c| !matches!(c, '<' | '>' | '\n' | '\r'));
    (chars.at(end) == '>').then_some(end + 1)
}

/// The ends of a word and of the shorter words in it: letters and digits after a letter, joined by `.`, `!` or `?`.
pub(super) fn word_ends(chars: &Chars, start: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut from = start;
    while is_letter(chars.at(from)) {
        let end = chars.run(from, is_alphanumeric);
        ends.push(end);
        if !matches!(chars.at(end), '.' | '!' | '?') {
            break;
        }
        from = end + 1;
    }
    ends
}

/// `'s`, `'re` …
pub(super) fn contraction(chars: &Chars, start: usize) -> Option<usize> {
    chars.any_word(start, &["'s", "'m", "'d", "'re", "'ve", "'ll"])
}

/// `www.example.com`, `example.org`
pub(super) fn host(chars: &Chars, start: usize) -> Option<usize> {
    let label =
        |c: char| !is_break(c) && !matches!(c, ','..='_' | '"' | '|' | '!' | '(' | ')' | '{' | '}' | '\'' | '`' | '$');
    let mut ends = Vec::new();
    let mut from = start;
    loop {
        let end = chars.run(from, label);
        if end == from {
            break;
        }
        if from > start {
            ends.push((from, end));
        }
        if chars.at(end) != '.' {
            break;
        }
        from = end + 1;
    }
    let is_www = chars.word(start, "www.").is_some();
    ends.into_iter().rev().find_map(|(from, end)| {
        let known = ["com", "net", "org", "edu"].iter().filter_map(|t| chars.word(from, t)).max();
        let letters = chars.run(from, |c| c.is_ascii_alphabetic());
        let in_www =
            (is_www && from > start + 4 && letters - from >= 2).then(|| letters.min(from + 4)).filter(|e| *e <= end);
        known.or(in_www)
    })
}

/// `12/25/2014`
pub(super) fn date(chars: &Chars, start: usize) -> Option<usize> {
    let mut from = start;
    for (index, (least, most)) in [(1, 2), (1, 2), (2, 4)].into_iter().enumerate() {
        let end = chars.run(from, is_digit).min(from + most);
        if end < from + least {
            return None;
        }
        if index == 2 {
            return Some(end);
        }
        if !matches!(chars.at(end), '/' | '-') {
            return None;
        }
        from = end + 1;
    }
    None
}

/// `1,000.5`, `.5`, `12:30`
pub(super) fn number(chars: &Chars, start: usize) -> Option<usize> {
    let mut end = chars.run(start, is_digit);
    while matches!(chars.at(end), '.' | ',' | ':' | '\u{ad}' | '\u{66b}' | '\u{66c}') && is_digit(chars.at(end + 1)) {
        end = chars.run(end + 1, is_digit);
    }
    (end > start).then_some(end)
}

/// `1/2`, `3 1/2`
pub(super) fn fraction(chars: &Chars, start: usize) -> Option<usize> {
    let digits = |from: usize| Some(chars.run(from, is_digit)).filter(|end| (1..=4).contains(&(end - from)));
    let simple = |from: usize| {
        let slash = digits(from)?;
        let after = slash + usize::from(chars.at(slash) == '\\');
        if !matches!(chars.at(after), '/' | '⁄') {
            return None;
        }
        let end = chars.run(after + 1, is_digit).min(after + 5);
        (end > after + 1).then_some(end)
    };
    let whole =
        digits(start).filter(|end| matches!(chars.at(*end), ' ' | '-' | '\u{a0}')).and_then(|end| simple(end + 1));
    whole.or_else(|| simple(start))
}

/// `well-known`, `1.5-inch`, `a,b-c`
pub(super) fn hyphen_word(chars: &Chars, start: usize) -> Option<usize> {
    if !chars.at(start).is_ascii_alphanumeric() {
        return None;
    }
    let part = |c: char| c.is_ascii_alphanumeric() || is_alphanumeric(c);
    let mut end = chars.run(start, |c| part(c) || matches!(c, '.' | ','));
    let mut found = None;
    while chars.at(end) == '-' {
        let next = chars.run(end + 1, part);
        if next == end + 1 {
            break;
        }
        let mut acronym = end + 2;
        while chars.at(acronym) == '.' && chars.at(acronym + 1).is_ascii_alphabetic() {
            acronym += 2;
        }
        let is_acronym = acronym > end + 2 && chars.at(acronym) == '.';
        end = if is_acronym { acronym + 1 } else { next };
        found = Some(end);
    }
    found
}

/// `o'brien`, `d'arcy-l'amour`, letters and digits joined by hyphens.
pub(super) fn elided_word(chars: &Chars, start: usize) -> Option<usize> {
    let part = |from: usize| {
        let elided = matches!(chars.at(from).to_ascii_lowercase(), 'd' | 'o' | 'l')
            && is_apostrophe(chars.at(from + 1))
            && is_letter(chars.at(from + 2));
        let begin = if elided { from + 2 } else { from };
        let end = chars.run(begin, is_alphanumeric);
        (end > begin).then_some(end)
    };
    let mut end = part(start)?;
    while matches!(chars.at(end), '-' | '\u{2010}' | '\u{2011}') {
        let Some(next) = part(end + 1) else { break };
        end = next;
    }
    Some(end)
}

/// `and/or`, `TCP/IP`
pub(super) fn slashed(chars: &Chars, start: usize) -> Option<usize> {
    let part = |from: usize| {
        let mut end = chars.run(from, |c| c.is_ascii_alphanumeric());
        if end == from {
            return None;
        }
        for _ in 0..2 {
            let next = chars.run(end + 1, |c| c.is_ascii_alphabetic());
            if chars.at(end) == '-' && next > end + 1 {
                end = next;
            }
        }
        Some(end)
    };
    let mut end = part(start)?;
    let mut found = None;
    for _ in 0..2 {
        if chars.at(end) != '/' {
            break;
        }
        let Some(next) = part(end + 1) else { break };
        end = next;
        found = Some(end);
    }
    found
}

/// `AT&T`
pub(super) fn ampersands(chars: &Chars, start: usize) -> Option<usize> {
    let mut end = chars.run(start, |c| c.is_ascii_uppercase());
    let mut found = None;
    while end > start && chars.at(end) == '&' && chars.at(end + 1).is_ascii_uppercase() {
        end = chars.run(end + 1, |c| c.is_ascii_uppercase());
        found = Some(end);
    }
    found
}

/// `snake_case`
pub(super) fn underscored(chars: &Chars, start: usize) -> Option<usize> {
    let part = |c: char| c.is_ascii_alphanumeric();
    let mut end = chars.run(start, part);
    let mut found = None;
    while end > start && chars.at(end) == '_' && part(chars.at(end + 1)) {
        end = chars.run(end + 1, part);
        found = Some(end);
    }
    found
}

/// Where an abbreviation that ends at a position ends a sentence, the end of what shows it.
pub(super) fn sentence_end(chars: &Chars, end: usize) -> Option<usize> {
    if !is_break(chars.at(end)) || end >= chars.len() {
        return None;
    }
    let next = chars.at(end + 1);
    if tag(chars, end + 1).is_some() || next.is_uppercase() || (is_break(next) && end + 1 < chars.len()) {
        return Some(end + 2);
    }
    None
}
