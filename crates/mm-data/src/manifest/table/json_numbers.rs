//! Numbers in JSON text that its readers refuse or round.

use std::borrow::Cow;

/// Digits of the smallest integer that does not fit into 64 bits: -9223372036854775809.
const MIN_LARGE_DIGITS: usize = 19;

/// The text with null for numbers that JSON does not have, and how many there were; strings stay as they are.
pub(super) fn without_non_finite(text: &str) -> (String, usize) {
    let (mut out, mut count, mut rest) = (String::with_capacity(text.len()), 0, text);
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let found = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !in_string && rest.starts_with(w));
        if let Some(word) = found {
            out.push_str("null");
            rest = &rest[word.len()..];
            count += 1;
            continue;
        }
        if in_string && c == '\\' {
            // An escaped character cannot end the string.
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        in_string ^= c == '"';
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    (out, count)
}

/// The text with integers that fit into neither `i64` nor `u64` in quotes, and how many there are; strings and numbers
/// with a fraction or exponent stay as they are.
pub(super) fn quote_large_integers(text: &str) -> (Cow<'_, str>, usize) {
    let bytes = text.as_bytes();
    let is_long = |run: &[u8]| run.len() >= MIN_LARGE_DIGITS;
    if !bytes.split(|b| !b.is_ascii_digit()).any(is_long) {
        return (Cow::Borrowed(text), 0);
    }
    let (mut out, mut count, mut at, mut in_string) = (String::with_capacity(text.len() + 2), 0, 0, false);
    // The end of what is in `out`.
    let mut copied = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 2,
            b'"' => (in_string, at) = (!in_string, at + 1),
            b'-' | b'0'..=b'9' if !in_string => {
                let is_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
                let length = bytes[at..].iter().take_while(|b| is_number(b)).count();
                // A number is ASCII, so both ends are ends of characters.
                let number = &text[at..at + length];
                if is_large_integer(number) {
                    out.extend([&text[copied..at], "\"", number, "\""]);
                    copied = at + length;
                    count += 1;
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    out.push_str(&text[copied..]);
    (Cow::Owned(out), count)
}

fn is_large_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.len() >= MIN_LARGE_DIGITS
        && !digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit())
        && number.parse::<i64>().is_err()
        && number.parse::<u64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::quote_large_integers;

    #[test]
    fn integers_beyond_64_bits_are_quoted_and_nothing_else() {
        let kept = [
            r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":1}"#,
            r#"{"a":0.12345678901234567890123,"b":1.5e300,"c":12345678901234567890123e2}"#,
            r#"{"a":"18446744073709551616","b":"\\\"18446744073709551616","é":2}"#,
        ];
        for text in kept {
            assert_eq!(quote_large_integers(text), (text.into(), 0));
        }
        let text = r#"{"é":18446744073709551616,"b":[-9223372036854775809,2]}"#;
        let quoted = r#"{"é":"18446744073709551616","b":["-9223372036854775809",2]}"#;
        assert_eq!(quote_large_integers(text), (quoted.into(), 2));
    }
}
