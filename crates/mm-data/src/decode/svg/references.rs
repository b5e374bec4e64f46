//! How many elements a drawing has when every reference is replaced by what it refers to: a few lines of `use`,
//! markers, masks or patterns that refer to each other stand for billions.

use super::style::{StyleSheet, ids};
use resvg::usvg::roxmltree::{Document, Node, NodeId};
use std::collections::HashMap;

/// How many elements a drawing may expand to.
const MAX_ELEMENTS: u64 = 500_000;
/// How many references may lead from one to the next.
const MAX_DEPTH: usize = 2048;
/// How many characters of text are laid out.
const MAX_CHARACTERS: usize = 100_000;

/// Checks the expanded size of a document.
///
/// # Errors
/// When it is too large, or elements refer to themselves.
pub(super) fn check(document: &Document<'_>) -> Result<(), String> {
    let by_id = document.descendants().filter_map(|node| Some((node.attribute("id")?, node)));
    let mut elements = HashMap::new();
    by_id.for_each(|(id, node)| {
        elements.entry(id).or_insert(node);
    });
    let mut expansion = Expansion { elements, styles: StyleSheet::read(document)?, sizes: HashMap::new() };
    let size = expansion.size(document.root_element(), 0)?.elements;
    if size > MAX_ELEMENTS {
        return Err(format!("found an svg that expands to {size} elements, expected at most {MAX_ELEMENTS}"));
    }
    let texts = document.descendants().filter(|n| n.is_element() && n.tag_name().name() == "text");
    let characters: usize =
        texts.flat_map(|n| n.descendants()).filter(Node::is_text).filter_map(|n| n.text()).map(str::len).sum();
    if characters > MAX_CHARACTERS {
        return Err(format!("found an svg with {characters} bytes of text, expected at most {MAX_CHARACTERS}"));
    }
    Ok(())
}

/// What an element and those in it stand for.
#[derive(Clone, Copy)]
struct Size {
    elements: u64,
    /// At least the number of vertices of shapes, where markers are drawn.
    vertices: u64,
}

struct Expansion<'a, 'input> {
    elements: HashMap<&'a str, Node<'a, 'input>>,
    styles: StyleSheet<'a>,
    /// The size of each element that was visited; `None` while it is.
    sizes: HashMap<NodeId, Option<Size>>,
}

impl<'a, 'input> Expansion<'a, 'input> {
    fn size(&mut self, node: Node<'a, 'input>, depth: usize) -> Result<Size, String> {
        match self.sizes.get(&node.id()) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => {
                let id = node.attribute("id").unwrap_or_default();
                return Err(format!("found an svg whose element `{id}` refers to itself, expected no such circle"));
            }
            None => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("found an svg with more than {MAX_DEPTH} references in a row, expected at most that"));
        }
        self.sizes.insert(node.id(), None);
        let mut size = Size { elements: 1, vertices: vertices(&node) };
        for child in node.children().filter(Node::is_element) {
            let child = self.size(child, depth + 1)?;
            size.elements = size.elements.saturating_add(child.elements);
            size.vertices = size.vertices.saturating_add(child.vertices);
        }
        let own = size.elements;
        for target in self.targets(node) {
            let name = target.tag_name().name();
            let target = self.size(target, depth + 1)?;
            // Markers are drawn at each vertex of each shape, and patterns may be instantiated for each.
            let count = match name {
                "marker" => size.vertices,
                "pattern" => own,
                _ => 1,
            };
            size.elements = size.elements.saturating_add(target.elements.saturating_mul(count));
            size.vertices = size.vertices.saturating_add(target.vertices);
        }
        self.sizes.insert(node.id(), Some(size));
        Ok(size)
    }

    /// The elements that this one refers to.
    fn targets(&self, node: Node<'a, 'input>) -> Vec<Node<'a, 'input>> {
        let is_drawn = matches!(node.tag_name().name(), "use" | "pattern" | "feImage" | "textPath" | "tref");
        let mut targets = Vec::new();
        let mut add = |id: &str| {
            // Gradients are no more work than colors.
            let is_gradient = |n: &Node<'_, '_>| matches!(n.tag_name().name(), "linearGradient" | "radialGradient");
            targets.extend(self.elements.get(id).filter(|target| !is_gradient(target)));
        };
        for attribute in node.attributes() {
            match attribute.name() {
                "href" if is_drawn => attribute.value().trim().strip_prefix('#').into_iter().for_each(&mut add),
                "href" => {}
                _ => ids(attribute.value()).for_each(&mut add),
            }
        }
        self.styles.ids(&node).for_each(&mut add);
        targets
    }
}

/// At least the number of vertices of a shape: each takes two characters.
fn vertices(node: &Node<'_, '_>) -> u64 {
    let data = node.attribute("d").or_else(|| node.attribute("points")).unwrap_or_default();
    (data.len() as u64).div_ceil(2).max(2)
}
