//! Bounds on the XML text that hold before a parser, which recurses into elements and expands entities, sees it.

/// How deep elements may be nested.
const MAX_DEPTH: usize = 512;
/// How many bytes entities may expand to.
const MAX_EXPANSION: usize = 64 << 20;

/// Checks the nesting and the entities of a text.
///
/// # Errors
/// When a bound is exceeded.
pub(super) fn check(text: &str) -> Result<(), String> {
    let (mut rest, mut depth, mut entities) = (text, 0usize, 0usize);
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        let length = if rest.starts_with("<!--") {
            until(rest, 4, "-->")
        } else if rest.starts_with("<![CDATA[") {
            until(rest, 9, "]]>")
        } else if rest.starts_with("<?") {
            until(rest, 2, "?>")
        } else if rest.starts_with("<!") {
            let length = declaration_length(rest);
            entities += check_entities(&rest[..length])?;
            length
        } else {
            let length = tag_length(rest);
            let tag = &rest[..length];
            if tag.starts_with("</") {
                depth = depth.saturating_sub(1);
            } else if !tag.ends_with("/>") {
                depth += 1;
            }
            if depth > MAX_DEPTH {
                return Err(format!(
                    "found an svg whose elements are nested more than {MAX_DEPTH} deep, expected at most that"
                ));
            }
            length
        };
        rest = &rest[length..];
    }
    // Each reference may stand for all entities, and 255 others in it (the parser's limit) for all of them again.
    let is_own = |rest: &&str| !["#", "amp;", "lt;", "gt;", "quot;", "apos;"].iter().any(|name| rest.starts_with(name));
    let references = text.split('&').skip(1).filter(is_own).count();
    if entities.saturating_mul(references) > MAX_EXPANSION {
        return Err(format!(
            "found an svg whose entities may expand to more than {MAX_EXPANSION} bytes, expected at most that"
        ));
    }
    Ok(())
}

/// The length of what ends with `end`, which is looked for from `from` on.
fn until(text: &str, from: usize, end: &str) -> usize {
    text.get(from..).and_then(|rest| rest.find(end)).map_or(text.len(), |at| from + at + end.len())
}

/// The length of a tag; `>` in a quoted value does not end it.
fn tag_length(text: &str) -> usize {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    text.len()
}

/// The length of a document type declaration, with the declarations between its brackets.
fn declaration_length(text: &str) -> usize {
    let (mut at, mut quote, mut is_inside, bytes) = (0, None, false, text.as_bytes());
    while let Some(byte) = bytes.get(at).copied() {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'<') if bytes[at..].starts_with(b"<!--") => {
                at += until(&text[at..], 4, "-->");
                continue;
            }
            (None, b'[') => is_inside = true,
            (None, b']') => is_inside = false,
            (None, b'>') if !is_inside => return at + 1,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The number of bytes that one reference to an entity of this declaration may expand to.
fn check_entities(declaration: &str) -> Result<usize, String> {
    let (mut length, mut has_references) = (0, false);
    for entity in declaration.split("<!ENTITY").skip(1) {
        let mut quoted = entity.split(['"', '\'']).skip(1);
        let value = quoted.next().unwrap_or_default();
        if value.contains('<') || entity.contains("SYSTEM") || entity.contains("PUBLIC") {
            return Err("found an svg with entities that are elements or files, expected texts".into());
        }
        has_references |= value.contains('&');
        length += entity.len();
    }
    Ok(if has_references { length.saturating_mul(256) } else { length })
}
