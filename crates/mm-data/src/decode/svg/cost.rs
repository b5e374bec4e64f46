//! How much work it is to draw a parsed drawing, and how much memory its layers take.

use resvg::{
    tiny_skia::Transform,
    usvg::{Fill, Group, ImageKind, Node, Paint, Path, Pattern, Stroke, Tree, filter::Kind},
};
use std::collections::HashMap;

/// How many pixels may be computed in all. Some 100 million are computed in a second.
const MAX_WORK: f64 = 3e9;
/// How many bytes the layers that exist at the same time may take.
const MAX_BYTES: f64 = 2e9;
/// How many dashes a path may have; more are not drawn.
const MAX_DASHES: f64 = 1e6;

/// Work in pixels, and pixels of the layers that exist at the same time.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    work: f64,
    layers: f64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.work += other.work;
        self.layers = self.layers.max(other.layers);
    }
}

/// Checks that a drawing at this scale on a canvas of this size is bounded work.
///
/// # Errors
/// When it is not.
pub(super) fn check(tree: &Tree, scale: Transform, (width, height): (u32, u32)) -> Result<(), String> {
    let mut walk = Walk { scale, canvas: f64::from(width) * f64::from(height), shared: HashMap::new() };
    let cost = walk.group(tree.root())?;
    if cost.work > MAX_WORK {
        return Err(format!(
            "found an svg that is {:.0e} pixels of work to draw, expected at most {MAX_WORK:.0e}",
            cost.work
        ));
    }
    if cost.layers * 4.0 > MAX_BYTES {
        return Err(format!(
            "found an svg whose layers take {:.0e} bytes, expected at most {MAX_BYTES:.0e}",
            cost.layers * 4.0
        ));
    }
    Ok(())
}

struct Walk {
    /// From the drawing's coordinates to the canvas.
    scale: Transform,
    canvas: f64,
    /// The costs of masks, clips and patterns, which several elements share.
    shared: HashMap<*const Group, Cost>,
}

impl Walk {
    /// Pixels of an area of the drawing.
    fn pixels(&self, width: f32, height: f32) -> f64 {
        let (x, y) = self.scale.get_scale();
        f64::from(width) * f64::from(x) * f64::from(height) * f64::from(y)
    }

    fn group(&mut self, group: &Group) -> Result<Cost, String> {
        let mut cost = Cost::default();
        for child in group.children() {
            cost.add(self.node(child)?);
        }
        if !group.should_isolate() {
            return Ok(cost);
        }
        // A layer is as large as the group, but not much larger than the canvas.
        let bounds = group.abs_layer_bounding_box();
        let layer = self.pixels(bounds.width(), bounds.height()).clamp(1.0, 25.0 * self.canvas);
        let (mut buffers, mut passes) = (1.0, 2.0);
        let scale = self.scale.pre_concat(group.abs_transform()).get_scale();
        for filter in group.filters() {
            for primitive in filter.primitives() {
                let (passes_here, inner) = self.primitive(primitive.kind(), layer, scale)?;
                passes += passes_here;
                buffers += 1.0;
                cost.add(inner);
            }
        }
        let mut clip = group.clip_path();
        while let Some(path) = clip {
            buffers += 1.0;
            passes += 2.0;
            cost.add(self.shared(path.root())?);
            clip = path.clip_path();
        }
        let mut mask = group.mask();
        while let Some(current) = mask {
            buffers += 2.0;
            passes += 4.0;
            cost.add(self.shared(current.root())?);
            mask = current.mask();
        }
        Ok(Cost { work: cost.work + passes * layer, layers: cost.layers + buffers * layer })
    }

    /// The cost of what several elements refer to. Each of them draws it.
    fn shared(&mut self, group: &Group) -> Result<Cost, String> {
        if let Some(cost) = self.shared.get(&std::ptr::from_ref(group)) {
            return Ok(*cost);
        }
        let mut cost = self.group(group)?;
        cost.layers += 2.0 * self.canvas;
        self.shared.insert(std::ptr::from_ref(group), cost);
        Ok(cost)
    }

    /// Operations for each pixel of a filter, and the cost of what it draws.
    fn primitive(&mut self, kind: &Kind, layer: f64, (x, y): (f32, f32)) -> Result<(f64, Cost), String> {
        let operations = match kind {
            Kind::Turbulence(turbulence) => 50.0 * f64::from(turbulence.num_octaves().max(1)),
            Kind::Morphology(morphology) => {
                let columns = (2.0 * f64::from(morphology.radius_x().get() * x)).ceil().min(layer);
                let rows = (2.0 * f64::from(morphology.radius_y().get() * y)).ceil().min(layer);
                // No side of the window is longer than that of the layer.
                4.0 + (columns * rows).min(layer)
            }
            Kind::ConvolveMatrix(convolve) => {
                4.0 + f64::from(convolve.matrix().columns()) * f64::from(convolve.matrix().rows())
            }
            Kind::GaussianBlur(blur) => blur_operations(blur.std_dev_x().get() * x, blur.std_dev_y().get() * y)?,
            Kind::DropShadow(shadow) => blur_operations(shadow.std_dev_x().get() * x, shadow.std_dev_y().get() * y)?,
            Kind::Image(image) => return Ok((4.0, self.shared(image.root())?)),
            _ => 20.0,
        };
        Ok((operations, Cost::default()))
    }

    fn node(&mut self, node: &Node) -> Result<Cost, String> {
        match node {
            Node::Group(group) => self.group(group),
            Node::Path(path) => self.path(path),
            Node::Text(text) => self.group(text.flattened()),
            Node::Image(image) => {
                if let ImageKind::SVG(tree) = image.kind() {
                    let (outer, size) = (self.scale, image.size());
                    self.scale = self.scale.pre_concat(image.abs_transform());
                    let mut cost = self.group(tree.root())?;
                    self.scale = outer;
                    cost.layers += self.pixels(size.width(), size.height()).min(self.canvas);
                    Ok(cost)
                } else {
                    let size = image.size();
                    let pixels = f64::from(size.width()) * f64::from(size.height());
                    Ok(Cost { work: 10.0 * pixels + self.canvas, layers: 2.0 * pixels })
                }
            }
        }
    }

    fn path(&mut self, path: &Path) -> Result<Cost, String> {
        let bounds = path.abs_stroke_bounding_box();
        let segments = path.data().len() as f64;
        let area = self.pixels(bounds.width(), bounds.height()).min(self.canvas);
        let mut cost = Cost { work: area + 50.0 * segments, layers: 0.0 };
        let paints = path.fill().map(Fill::paint).into_iter().chain(path.stroke().map(Stroke::paint));
        for paint in paints {
            if let Paint::Pattern(pattern) = paint {
                cost.add(self.pattern(pattern, path)?);
            }
        }
        if let Some(stroke) = path.stroke() {
            cost.work += 100.0 * segments + 100.0 * dashes(path, stroke)?;
        }
        Ok(cost)
    }

    fn pattern(&mut self, pattern: &Pattern, path: &Path) -> Result<Cost, String> {
        let scale = self.scale.pre_concat(path.abs_transform()).pre_concat(pattern.transform());
        let (x, y) = scale.get_scale();
        let tile = f64::from(pattern.rect().width() * x) * f64::from(pattern.rect().height() * y);
        let outer = std::mem::replace(&mut self.scale, scale);
        // A pattern is drawn at the scale of what it fills, so that it has no cost of its own.
        let content = self.group(pattern.root());
        self.scale = outer;
        let content = content?;
        Ok(Cost { work: content.work + 2.0 * tile, layers: content.layers + tile })
    }
}

/// Operations for each pixel of a blur, whose time does not depend on its width.
fn blur_operations(x: f32, y: f32) -> Result<f64, String> {
    if x.max(y) > 1e6 {
        return Err(format!("found an svg with a blur of {:.0e} pixels, expected at most 1e6", x.max(y)));
    }
    Ok(20.0)
}

/// The number of dashes of a path.
fn dashes(path: &Path, stroke: &Stroke) -> Result<f64, String> {
    let Some(lengths) = stroke.dasharray() else { return Ok(0.0) };
    let period: f64 = lengths.iter().map(|length| f64::from(*length)).sum();
    // The polygon of a curve's control points is at least as long as the curve.
    let points = path.data().points();
    let length: f64 =
        points.windows(2).map(|pair| f64::from((pair[1].x - pair[0].x).hypot(pair[1].y - pair[0].y))).sum();
    let count = length / period.max(1e-30) * (lengths.len() as f64 / 2.0);
    if count > MAX_DASHES {
        return Err(format!("found an svg with a path of {count:.0e} dashes, expected at most {MAX_DASHES:.0e}"));
    }
    Ok(count)
}
