//! The rules of punctuation: faces, quotation marks, brackets, dashes, dots and signs.

use super::{
    chars::{is_break, is_space},
    patterns::{brackets, is_sign, unicode_quote},
    rules::Rules,
};

impl Rules<'_> {
    /// Faces of punctuation.
    pub(super) fn faces(&mut self) {
        let (chars, start) = (self.chars, self.start);
        let mut n = start + usize::from(matches!(self.at(0), '<' | '>'));
        if matches!(chars.at(n), ':' | ';' | '=') {
            n += 1;
            let nose = matches!(chars.at(n), '-' | 'o' | 'O' | '*' | '\'');
            for mouth in [n + usize::from(nose), n] {
                if matches!(
                    chars.at(mouth),
                    '(' | ')' | 'D' | 'P' | 'd' | 'p' | 'O' | '\\' | '{' | '@' | '|' | '[' | ']' | '3'
                ) {
                    let text = brackets(&chars.text(start, mouth + 1));
                    if !chars.at(mouth + 1).is_ascii_alphanumeric() {
                        self.add(mouth + 2, mouth + 1, Some(&text));
                    }
                }
            }
        }
        let eye = |c: char| matches!(c, '^' | 'x' | '=' | '~' | '<' | '>' | '-' | 'o' | 'O' | 'T' | '\'');
        if eye(self.at(0)) && self.at(1) == '_' && eye(self.at(2)) {
            self.text(start + 3);
        }
        if self.at(0) == '(' && eye(self.at(1)) {
            let mouth = 2 + usize::from(matches!(self.at(2), '_' | '.'));
            if eye(self.at(mouth)) && self.at(mouth + 1) == ')' {
                let text = brackets(&chars.text(start, start + mouth + 2));
                self.add(start + mouth + 2, start + mouth + 2, Some(&text));
            }
        }
    }

    /// Quotation marks, straight and curly.
    pub(super) fn quotes(&mut self) {
        let (chars, start) = (self.chars, self.start);
        let next = self.at(1);
        match self.at(0) {
            '"' => {
                let opens = next.is_ascii_alphanumeric() || next == '$';
                self.as_token(1, if opens { "``" } else { "''" });
            }
            '\'' => {
                let run = chars.run(start, |c| c == '\'');
                if run > start + 1 {
                    self.as_token(2, "''");
                    if run > start + 2 {
                        self.text(start + 3);
                    }
                }
                let opens = next.is_ascii_alphabetic() && !is_break(self.at(2));
                self.add(start + if opens { 3 } else { 1 }, start + 1, Some(if opens { "`" } else { "'" }));
                if next.is_ascii_digit() && self.at(2).is_ascii_digit() && is_break(self.at(3)) {
                    self.add(start + 4, start + 3, None);
                }
            }
            '`' => {
                let run = chars.run(start, |c| c == '`');
                self.text(run.min(start + 2));
            }
            _ => {}
        }
        if let Some(token) = unicode_quote(self.at(0)) {
            self.as_token(1, token);
            if let Some(second) = unicode_quote(next) {
                self.as_token(2, &format!("{token}{second}"));
            }
        }
        if self.chars.word(start, "&quot;").is_some() {
            let next = self.at(6);
            self.as_token(6, if next.is_ascii_alphanumeric() || next == '$' { "``" } else { "''" });
        }
    }

    /// Punctuation and signs.
    pub(super) fn symbols(&mut self) {
        let (chars, start) = (self.chars, self.start);
        let first = self.at(0);
        let bracket = match first {
            '(' => Some("-lrb-"),
            ')' => Some("-rrb-"),
            '[' => Some("-lsb-"),
            ']' => Some("-rsb-"),
            '{' => Some("-lcb-"),
            '}' => Some("-rcb-"),
            _ => None,
        };
        if let Some(token) = bracket {
            self.as_token(1, token);
        }
        let run = |class: fn(char) -> bool| chars.run(start, class);
        match first {
            '?' | '!' => self.text(run(|c| matches!(c, '?' | '!'))),
            '-' => {
                let end = run(|c| c == '-');
                let length = end - start;
                let token = if (2..=4).contains(&length) { "--".to_owned() } else { chars.text(start, end) };
                self.as_token(length, &token);
            }
            '.' => {
                let dots = run(|c| c == '.') - start;
                if dots >= 3 {
                    self.as_token(dots.min(5), "...");
                }
                let mut n = start + 1;
                let mut count = 1;
                while is_space(chars.at(n)) && chars.at(n + 1) == '.' && count < 5 {
                    n += 2;
                    count += 1;
                }
                if count >= 3 {
                    self.add(n, n, Some("..."));
                }
                self.text(start + 1);
            }
            '…' => self.as_token(1, "..."),
            '*' | '_' | '#' | '^' | '~' | '=' | '<' | '>' | '/' | '+' | '%' | '&' | '|' | '\\' | ',' | ';' | ':'
            | '@' | '$' => {
                let end = match first {
                    '*' => run(|c| c == '*'),
                    '_' => run(|c| c == '_'),
                    '#' => run(|c| c == '#'),
                    '<' | '>' if self.at(1) == first => start + 2,
                    _ => start + 1,
                };
                self.text(end);
            }
            _ if is_sign(first) => self.text(start + 1),
            _ => {}
        }
    }
}
