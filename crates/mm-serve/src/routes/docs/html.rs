//! Texts of the description as HTML.

/// Text in which HTML means nothing.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            other => out.push(other),
        }
    }
    out
}

/// A sentence of a description, in which what stands between backticks is code.
pub(super) fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // A backtick without another is itself.
    let closed = parts.len() - usize::from(parts.len().is_multiple_of(2));
    let mut out = String::new();
    for (index, part) in parts.iter().enumerate() {
        let part = escape(part);
        match index {
            index if index >= closed => out += &format!("`{part}"),
            index if index % 2 == 1 => out += &format!("<code>{part}</code>"),
            _ => out += &part,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_backticks_mark_code() {
        assert_eq!(prose("a `<b>` & 'c'"), "a <code>&lt;b&gt;</code> &amp; &#39;c&#39;");
        assert_eq!(prose("`a` and `b"), "<code>a</code> and `b");
        assert_eq!(prose(""), "");
    }
}
