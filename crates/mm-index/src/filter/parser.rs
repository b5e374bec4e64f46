//! Tokens → filter, by recursive descent: `or` binds least, then `and`, then `not`.

use super::{
    Filter, FilterError,
    lexer::{Lexer, Token, is_keyword},
};
use crate::payload::{GeoPoint, Scalar};
use std::ops::Bound;

/// Deepest nesting of parentheses and negations.
const MAX_DEPTH: usize = 100;

const OPERATORS: &str = "`=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in` or `between`";

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    let mut lexer = Lexer::new(text);
    let tokens = lexer.tokens()?;
    let mut parser = Parser { lexer, tokens, next: 0, depth: 0 };
    let filter = parser.any()?;
    match parser.peek() {
        Token::End => Ok(filter),
        _ => Err(parser.unexpected("`and`, `or` or the end")),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    /// The error of the next token.
    fn unexpected(&self, expected: impl Into<String>) -> FilterError {
        let position = self.tokens.get(self.next).map_or(0, |(position, _)| *position);
        self.lexer.error(position, self.peek().describe(), expected)
    }

    fn is_keyword(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn take_keyword(&mut self, word: &str) -> bool {
        let found = self.is_keyword(word);
        self.next += usize::from(found);
        found
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Result<(), FilterError> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected(format!("`{sign}`"))) }
    }

    fn any(&mut self) -> Result<Filter, FilterError> {
        let first = self.all()?;
        let mut parts = vec![first];
        while self.take_keyword("or") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::Or(parts) })
    }

    fn all(&mut self) -> Result<Filter, FilterError> {
        let first = self.unary()?;
        let mut parts = vec![first];
        while self.take_keyword("and") {
            parts.push(self.unary()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) })
    }

    fn unary(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.unexpected(format!("at most {MAX_DEPTH} levels of nesting")));
        }
        let filter = if self.take_keyword("not") {
            Filter::Not(Box::new(self.unary()?))
        } else if self.take_sign("(") {
            let inner = self.any()?;
            self.expect_sign(")")?;
            inner
        } else if self.take_keyword("exists") {
            Filter::Exists { field: self.field()? }
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn field(&mut self) -> Result<String, FilterError> {
        let field = match self.peek() {
            Token::Field(field) => field.clone(),
            Token::Word(word) if !is_keyword(word) => word.clone(),
            _ => return Err(self.unexpected("a field (in backquotes where it has spaces or is a word of the syntax)")),
        };
        self.next += 1;
        Ok(field)
    }

    fn value(&mut self) -> Result<Scalar, FilterError> {
        let value = match self.peek() {
            Token::Value(value) => value.clone(),
            Token::Word(word) if word == "true" || word == "false" => Scalar::Bool(word == "true"),
            Token::Word(word) => return Err(self.unexpected(format!("a value; a text needs quotes: \"{word}\""))),
            _ => return Err(self.unexpected("a value: a number, \"text\", true or false")),
        };
        self.next += 1;
        Ok(value)
    }

    /// A value that has an order.
    fn ordered(&mut self) -> Result<Scalar, FilterError> {
        match self.value()? {
            Scalar::Bool(_) => {
                self.next -= 1;
                Err(self.unexpected("a number or a text"))
            }
            value => Ok(value),
        }
    }

    fn comparison(&mut self) -> Result<Filter, FilterError> {
        let field = self.field()?;
        if self.take_keyword("between") {
            return self.between(field);
        }
        if self.take_keyword("in") {
            return self.membership(field);
        }
        if self.is_keyword("not") {
            self.next += 1;
            if !self.take_keyword("in") {
                return Err(self.unexpected("`in`"));
            }
            return Ok(Filter::Not(Box::new(self.membership(field)?)));
        }
        let Token::Sign(sign) = *self.peek() else { return Err(self.unexpected(OPERATORS)) };
        if matches!(sign, "(" | ")" | ",") {
            return Err(self.unexpected(OPERATORS));
        }
        self.next += 1;
        let (lower, upper) = match sign {
            "=" => return Ok(Filter::Equal { field, value: self.value()? }),
            "!=" => return Ok(Filter::Not(Box::new(Filter::Equal { field, value: self.value()? }))),
            "<" => (Bound::Unbounded, Bound::Excluded(self.ordered()?)),
            "<=" => (Bound::Unbounded, Bound::Included(self.ordered()?)),
            ">" => (Bound::Excluded(self.ordered()?), Bound::Unbounded),
            _ => (Bound::Included(self.ordered()?), Bound::Unbounded),
        };
        Ok(Filter::Range { field, lower, upper })
    }

    fn between(&mut self, field: String) -> Result<Filter, FilterError> {
        let lower = self.ordered()?;
        if !self.take_keyword("and") {
            return Err(self.unexpected("`and` and the upper end"));
        }
        let upper = self.ordered()?;
        if matches!(lower, Scalar::Text(_)) != matches!(upper, Scalar::Text(_)) {
            self.next -= 1;
            return Err(self.unexpected("two numbers or two texts"));
        }
        Ok(Filter::Range { field, lower: Bound::Included(lower), upper: Bound::Included(upper) })
    }

    /// What follows `in`.
    fn membership(&mut self, field: String) -> Result<Filter, FilterError> {
        if self.take_keyword("box") {
            return self.geo_box(field);
        }
        if !self.take_sign("(") {
            return Err(self.unexpected("a list of values in parentheses, or box(south, west, north, east)"));
        }
        let mut values = vec![self.value()?];
        while self.take_sign(",") {
            values.push(self.value()?);
        }
        if !self.take_sign(")") {
            return Err(self.unexpected("`,` or `)`"));
        }
        Ok(Filter::In { field, values })
    }

    fn geo_box(&mut self, field: String) -> Result<Filter, FilterError> {
        self.expect_sign("(")?;
        let mut corners = [0.0; 4];
        for (index, (name, limit)) in
            [("south", 90.0), ("west", 180.0), ("north", 90.0), ("east", 180.0)].iter().enumerate()
        {
            if index > 0 {
                self.expect_sign(",")?;
            }
            let degrees = match self.peek() {
                Token::Value(Scalar::Integer(value)) => *value as f64,
                Token::Value(Scalar::Float(value)) => *value,
                _ => f64::NAN,
            };
            if !(-limit..=*limit).contains(&degrees) {
                return Err(self.unexpected(format!("the {name} in degrees, -{limit} to {limit}")));
            }
            if index == 2 && degrees < corners[0] {
                return Err(self.unexpected("a north of at least the south: box(south, west, north, east)"));
            }
            self.next += 1;
            corners[index] = degrees;
        }
        self.expect_sign(")")?;
        let [south, west, north, east] = corners;
        let (south_west, north_east) = (GeoPoint { lat: south, lon: west }, GeoPoint { lat: north, lon: east });
        Ok(Filter::GeoBox { field, south_west, north_east })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_is_not_and_or() {
        let filter = parse("not a = 1 and b = 2 or c = 3").unwrap();
        assert_eq!(filter, parse("((not (a = 1)) and b = 2) or c = 3").unwrap());
        assert_ne!(filter, parse("not (a = 1 and b = 2) or c = 3").unwrap());
    }

    #[test]
    fn errors_show_the_position_and_what_is_expected() {
        for (text, column, expected) in [
            ("year >", 7, "a value: a number"),
            ("year > bird", 8, "a text needs quotes: \"bird\""),
            ("year > 2000 kind = 1", 13, "`and`, `or` or the end"),
            ("year == 1", 6, "`=`"),
            ("a = 1 && b = 2", 7, "`and`"),
            ("(a = 1", 7, "`)`"),
            ("kind in \"a\"", 9, "a list of values"),
            ("a = 'b", 5, "a closing '"),
            ("a = 2024-05-31", 5, "a text (and a date) needs quotes"),
            ("a > true", 5, "a number or a text"),
            ("a between 1 and 'b'", 17, "two numbers or two texts"),
            ("a in box(91, 0, 0, 0)", 10, "the south in degrees"),
            ("a in box(5, 0, 4, 0)", 16, "a north of at least the south"),
            ("and = 1", 1, "a field"),
            ("a = 18446744073709551615", 5, "a whole number from -9223372036854775808 to 9223372036854775807"),
            ("ä = 'ö' x", 9, "`and`"),
            ("", 1, "a field"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.column(), column, "{text}: {error}");
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        let deep = format!("{}a = 1{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(parse(&deep).unwrap_err().to_string().contains("levels of nesting"));
    }

    #[test]
    fn filters_are_written_as_they_are_parsed() {
        for text in [
            "a = 1 and (b = \"x \\\" y\" or c = true)",
            "not (a > 1)",
            "a between -1.5 and 2e300",
            "`my field` in (1, \"b\", false)",
            "place in box(-10.0, 170.0, 10.0, -170.0)",
            "not exists a.b-c",
            "`AND` = 1 and `Not` = -9223372036854775808",
            "a >= 1 and a < 2",
        ] {
            let filter = parse(text).unwrap();
            assert_eq!(parse(&filter.to_string()).unwrap(), filter, "{text} → {filter}");
        }
    }
}
