//! The references in the style sheets of a drawing.

use resvg::usvg::roxmltree::{Document, Node};

/// Rules with references to other elements.
pub(super) struct StyleSheet<'a> {
    rules: Vec<Rule<'a>>,
}

struct Rule<'a> {
    /// The last part of each selector, which is about the element itself.
    selectors: Vec<&'a str>,
    /// Ids of the elements that matching ones refer to.
    ids: Vec<&'a str>,
}

/// How many comparisons of an element with a rule a drawing may need.
const MAX_COMPARISONS: usize = 50_000_000;

impl<'a> StyleSheet<'a> {
    /// The style sheets of a document.
    ///
    /// # Errors
    /// When it has too many rules for its number of elements.
    pub fn read(document: &'a Document<'_>) -> Result<Self, String> {
        let (mut rules, mut num_rules) = (Vec::new(), 0usize);
        let elements = document.descendants().filter(Node::is_element).count();
        let sheets = document.descendants().filter(|n| n.tag_name().name() == "style");
        for text in sheets.flat_map(|style| style.children()).filter_map(|child| child.text()) {
            for rule in text.split('}') {
                let Some((selectors, declarations)) = rule.rsplit_once('{') else { continue };
                num_rules += selectors.split(',').count();
                let ids: Vec<&str> = ids(declarations).collect();
                if !ids.is_empty() {
                    let last = |s: &'a str| s.trim().rsplit([' ', '>', '+', '~', '\n', '\t']).next().unwrap_or(s);
                    rules.push(Rule { selectors: selectors.split(',').map(last).collect(), ids });
                }
            }
        }
        if num_rules.saturating_mul(elements) > MAX_COMPARISONS {
            return Err(format!(
                "found an svg with {num_rules} style rules for {elements} elements, expected at most {MAX_COMPARISONS} \
                 comparisons of the two"
            ));
        }
        Ok(Self { rules })
    }

    /// Ids that the rules for this element refer to: at least those that apply.
    pub fn ids(&self, node: &Node<'_, '_>) -> impl Iterator<Item = &'a str> {
        let classes: Vec<&str> = node.attribute("class").unwrap_or_default().split_whitespace().collect();
        let (name, id) = (node.tag_name().name(), node.attribute("id").unwrap_or_default());
        let matches = move |selector: &&str| {
            let end = |s: &&str| s.find(['.', '#', ':', '[']).unwrap_or(s.len());
            let tag = &selector[..end(selector)];
            let has_tag = tag.is_empty() || tag == "*" || tag == name;
            let mut parts =
                selector.split_inclusive(['.', '#', ':', '[']).zip(selector.split(['.', '#', ':', '[']).skip(1));
            has_tag
                && parts.all(|(before, part)| match before.chars().last() {
                    Some('.') => classes.contains(&part),
                    Some('#') => part == id,
                    _ => true,
                })
        };
        let matching: Vec<&'a str> = self
            .rules
            .iter()
            .filter(|rule| rule.selectors.iter().any(&matches))
            .flat_map(|rule| rule.ids.iter().copied())
            .collect();
        matching.into_iter()
    }
}

/// The ids in `url(#…)`.
pub(super) fn ids(value: &str) -> impl Iterator<Item = &str> {
    value.split("url(").skip(1).filter_map(|rest| {
        let rest = rest.trim_start().trim_start_matches(['"', '\'']).trim_start();
        Some(rest.strip_prefix('#')?.split([')', '"', '\'']).next().unwrap_or_default().trim())
    })
}
