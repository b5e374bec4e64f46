//! A filter's text → tokens with their positions.

use super::FilterError;
use crate::payload::Scalar;

/// A part of a filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A field, a word of the syntax, or `true` and `false`.
    Word(String),
    /// A field in backquotes.
    Field(String),
    /// A number or a text.
    Value(Scalar),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`, `(`, `)` or `,`.
    Sign(&'static str),
    /// The end of the text.
    End,
}

impl Token {
    /// As it is named in errors.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Field(field) => format!("the field `{field}`"),
            Self::Value(value) => format!("the value {value}"),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end".into(),
        }
    }
}

/// Signs, the longer ones first.
const SIGNS: [&str; 9] = ["!=", "<=", ">=", "=", "<", ">", "(", ")", ","];

/// Signs of other languages, with what they are here.
const FOREIGN_SIGNS: [(&str, &str); 5] =
    [("==", "`=`"), ("&&", "`and`"), ("||", "`or`"), ("<>", "`!=`"), ("!", "`not`")];

/// Words that are no fields unless in backquotes.
const KEYWORDS: [&str; 8] = ["and", "or", "not", "in", "between", "exists", "true", "false"];

fn is_word_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Whether a field can be written without backquotes.
pub(super) fn is_plain_field(field: &str) -> bool {
    field.starts_with(is_word_start) && field.chars().all(is_word_part) && !is_keyword(field)
}

/// Whether a word is one of the syntax, in capital letters too.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Reads tokens from a text.
pub(super) struct Lexer<'a> {
    text: &'a str,
    chars: Vec<char>,
    position: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, chars: text.chars().collect(), position: 0 }
    }

    /// An error at a position.
    pub(super) fn error(&self, position: usize, found: impl Into<String>, expected: impl Into<String>) -> FilterError {
        FilterError { text: self.text.to_owned(), position, found: found.into(), expected: expected.into() }
    }

    /// All tokens with their positions, the end included.
    pub(super) fn tokens(&mut self) -> Result<Vec<(usize, Token)>, FilterError> {
        let mut tokens = Vec::new();
        loop {
            while self.chars.get(self.position).is_some_and(|c| c.is_whitespace()) {
                self.position += 1;
            }
            let start = self.position;
            let token = self.token()?;
            let is_end = token == Token::End;
            tokens.push((start, token));
            if is_end {
                return Ok(tokens);
            }
        }
    }

    fn token(&mut self) -> Result<Token, FilterError> {
        let Some(&first) = self.chars.get(self.position) else { return Ok(Token::End) };
        match first {
            '"' | '\'' => Ok(Token::Value(Scalar::Text(self.text_until(first)?))),
            '`' => Ok(Token::Field(self.text_until(first)?)),
            c if is_word_start(c) => Ok(Token::Word(self.take_while(is_word_part))),
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number(),
            c => self.sign(c),
        }
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> String {
        let rest = &self.chars[self.position..];
        let taken: String = rest.iter().take_while(|c| accept(**c)).collect();
        self.position += taken.chars().count();
        taken
    }

    /// A text in quotes; `\` takes the next character as it is.
    fn text_until(&mut self, quote: char) -> Result<String, FilterError> {
        let start = self.position;
        let mut text = String::new();
        self.position += 1;
        while let Some(&c) = self.chars.get(self.position) {
            self.position += 1;
            match c {
                c if c == quote => return Ok(text),
                '\\' if quote != '`' => {
                    text.extend(self.chars.get(self.position));
                    self.position += 1;
                }
                c => text.push(c),
            }
        }
        Err(self.error(start, "a text without an end", format!("a closing {quote}")))
    }

    fn number(&mut self) -> Result<Token, FilterError> {
        let start = self.position;
        let accept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ':');
        let text = self.take_while(accept);
        if let Ok(value) = text.parse::<i64>() {
            return Ok(Token::Value(Scalar::Integer(value)));
        }
        let digits = text.trim_start_matches(['+', '-']);
        if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
            let expected = format!("a whole number from {} to {}, or a decimal one (1.8e19)", i64::MIN, i64::MAX);
            return Err(self.error(start, format!("`{text}`"), expected));
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Token::Value(Scalar::Float(value))),
            _ => Err(self.error(start, format!("`{text}`"), "a number; a text (and a date) needs quotes")),
        }
    }

    fn sign(&mut self, first: char) -> Result<Token, FilterError> {
        let starts = |sign: &str| sign.chars().enumerate().all(|(n, c)| self.chars.get(self.position + n) == Some(&c));
        let known = SIGNS.iter().find(|sign| starts(sign)).filter(|_| !starts("==") && !starts("<>"));
        if let Some(sign) = known {
            self.position += sign.len();
            return Ok(Token::Sign(sign));
        }
        let foreign = FOREIGN_SIGNS.iter().find(|(sign, _)| starts(sign));
        let expected = foreign.map_or("a field, a value or an operator", |(_, here)| here);
        let found = foreign.map_or_else(|| first.to_string(), |(sign, _)| (*sign).to_owned());
        Err(self.error(self.position, format!("`{found}`"), expected))
    }
}
