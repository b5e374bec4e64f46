//! A drawing → pixels.

use super::{cost, fonts, references, text, xml};
use crate::decode::image::{ImageLimits, check_size};
use image::RgbImage;
use resvg::{
    tiny_skia,
    usvg::{self, ImageHrefResolver, ImageKind, roxmltree},
};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// The stack of the thread that draws: parsing and drawing recurse into nested elements, whose depth is limited.
const STACK_BYTES: usize = 256 << 20;
/// How many bytes of images a drawing may have, each counted as often as it is drawn.
const MAX_EMBEDDED: usize = 256 << 20;
/// How many nodes the XML may have.
const MAX_NODES: u32 = 1_000_000;

/// Draws an svg at the width that `limits` say. What is left out of the drawing is appended to `notes`.
///
/// # Errors
/// When the svg is damaged, or a bound of its size or of the work of drawing it is exceeded.
pub(in crate::decode) fn decode(
    bytes: &[u8],
    limits: &ImageLimits,
    notes: &mut Vec<String>,
) -> Result<RgbImage, String> {
    let xml = text::xml(bytes)?;
    xml::check(&xml)?;
    std::thread::scope(|scope| {
        let draw = || draw(&xml, limits, notes);
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, draw);
        let thread = thread.map_err(|e| format!("no thread for the svg: {e}"))?;
        thread.join().unwrap_or_else(|_| Err("damaged svg: it cannot be drawn".into()))
    })
}

fn parse(xml: &str) -> Result<roxmltree::Document<'_>, String> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, nodes_limit: MAX_NODES };
    let document = roxmltree::Document::parse_with_options(xml, options).map_err(|e| format!("damaged svg: {e}"))?;
    references::check(&document)?;
    Ok(document)
}

fn draw(xml: &str, limits: &ImageLimits, notes: &mut Vec<String>) -> Result<RgbImage, String> {
    let document = parse(xml)?;
    let has_text = document.descendants().any(|n| n.is_text() && n.ancestors().any(|a| a.tag_name().name() == "text"));
    // Text makes a drawing depend on the machine's fonts; others do not load them.
    let fonts = if has_text || xml.contains("data:image/svg") { fonts::system_fonts() } else { Arc::default() };
    let (missing_text, left_out) = (Arc::new(fonts::MissingText::default()), Arc::new(Mutex::new(Vec::new())));
    let options = usvg::Options {
        fontdb: fonts,
        font_resolver: fonts::resolver(&missing_text),
        image_href_resolver: resolver(limits, &left_out),
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_xmltree(&document, &options).map_err(|e| format!("damaged svg: {e}"))?;
    let size = tree.size();
    let width = limits.svg_width.max(1);
    let height = (f64::from(width) * f64::from(size.height()) / f64::from(size.width())).round().clamp(1.0, 1e9) as u32;
    check_size(width, height, limits)?;
    let scale = tiny_skia::Transform::from_scale(width as f32 / size.width(), height as f32 / size.height());
    cost::check(&tree, scale, (width, height))?;
    let mut canvas = tiny_skia::Pixmap::new(width, height).ok_or("svg without a size")?;
    let [r, g, b] = limits.background;
    canvas.fill(tiny_skia::Color::from_rgba8(r, g, b, 255));
    resvg::render(&tree, scale, &mut canvas.as_mut());
    notes.extend(missing_text.note());
    notes.append(&mut left_out.lock().unwrap_or_else(PoisonError::into_inner));
    let rgb = canvas.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    RgbImage::from_raw(width, height, rgb).ok_or_else(|| "svg without a size".into())
}

/// Takes images that are part of the drawing, if they are within the limits; reads nothing else.
fn resolver(limits: &ImageLimits, left_out: &Arc<Mutex<Vec<String>>>) -> ImageHrefResolver<'static> {
    let note = |left_out: &Mutex<Vec<String>>, text: String| {
        let mut notes = left_out.lock().unwrap_or_else(PoisonError::into_inner);
        // One of each kind is enough.
        if notes.len() < 4 {
            notes.push(text);
        }
    };
    let (for_data, for_names, limits, total) = (left_out.clone(), left_out.clone(), *limits, AtomicUsize::new(0));
    let take = ImageHrefResolver::default_data_resolver();
    ImageHrefResolver {
        resolve_data: Box::new(move |kind, data, options| {
            let checked = match total.fetch_add(data.len(), Ordering::Relaxed) + data.len() {
                total if total > MAX_EMBEDDED => Err(format!("more than {MAX_EMBEDDED} bytes of images in all")),
                _ => check_embedded(&data, &limits),
            };
            let taken = checked.and_then(|()| take(kind, data, options).ok_or_else(|| format!("found {kind}")));
            taken.map_err(|e| note(&for_data, format!("an image in it is left out: {e}"))).ok()
        }),
        resolve_string: Box::new(move |name, _| -> Option<ImageKind> {
            let name: String = name.chars().take(100).collect();
            note(
                &for_names,
                format!("the image `{name}` that it points at is left out: only images inside it are drawn"),
            );
            None
        }),
    }
}

/// Checks the size of an image inside a drawing.
fn check_embedded(data: &[u8], limits: &ImageLimits) -> Result<(), String> {
    let reader =
        image::ImageReader::new(std::io::Cursor::new(data)).with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_some() {
        let (width, height) = reader.into_dimensions().map_err(|e| e.to_string())?;
        return check_size(width, height, limits);
    }
    if data.starts_with(&[0x1f, 0x8b]) {
        return Err("a compressed drawing inside a drawing".into());
    }
    let xml = text::xml(data)?;
    xml::check(&xml)?;
    parse(&xml).map(drop)
}
