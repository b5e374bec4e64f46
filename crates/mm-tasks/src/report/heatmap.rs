//! Attribution and attention maps overlaid on images, with words highlighted by their attribution.

use super::image_grid::{resize, to_image};
use crate::Result;
use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage, imageops};
use mm_core::Tensor;
use mm_reason::Attribution;

/// An image next to its attribution map, with question and answer below; then the attention of each reasoning step,
/// where there are any.
pub fn attribution_image(
    image: &RgbImage,
    attribution: &Attribution,
    question: &str,
    answer: &str,
) -> Result<RgbImage> {
    let plain = resize(image, 320.0, [1, 640]);
    let (width, height) = plain.dimensions();
    let over = overlay_heatmap(&plain, &attribution.patches, attribution.grid);
    let gap = 12;
    let all = 2 * width + 3 * gap;
    let columns = ((all - 2 * gap) / 16).max(8) as usize;
    let mut words: Vec<(String, f32)> = if attribution.words.is_empty() {
        question.split_whitespace().map(|w| (w.to_owned(), 0.0)).collect()
    } else {
        attribution.words.clone()
    };
    let most = words.iter().map(|w| w.1).fold(0.0f32, f32::max).max(1e-9);
    words.iter_mut().for_each(|w| w.1 /= most);
    // Break the words into lines.
    let mut lines: Vec<Vec<(String, f32)>> = vec![Vec::new()];
    let mut used = 0;
    for (word, share) in words {
        let word: String = word.chars().take(columns).collect();
        let count = word.chars().count() + 1;
        if used + count > columns && used > 0 {
            lines.push(Vec::new());
            used = 0;
        }
        used += count;
        if let Some(line) = lines.last_mut() {
            line.push((word, share));
        }
    }
    let rows = lines.len() as u32 + 1;
    let text = height + 2 * gap + rows * 24 + gap;
    let small = resize(image, 140.0, [1, 280]);
    let steps: Vec<(String, RgbImage)> = attribution
        .steps
        .iter()
        .map(|(name, weights)| (name.clone(), overlay_heatmap(&small, weights, attribution.grid)))
        .collect();
    let steps = (!steps.is_empty()).then(|| tiles(&steps, (all - GAP) / pitch(small.width())));
    let below = steps.as_ref().map_or(0, RgbImage::height);
    let mut out = RgbImage::from_pixel(all, text + below, Rgb([255; 3]));
    if let Some(steps) = &steps {
        imageops::overlay(&mut out, steps, 0, i64::from(text));
    }
    imageops::overlay(&mut out, &plain, i64::from(gap), i64::from(gap));
    imageops::overlay(&mut out, &over, i64::from(2 * gap + width), i64::from(gap));
    let mut y = height + 2 * gap;
    for line in &lines {
        let mut x = gap;
        for (word, share) in line {
            let end = x + word.chars().count() as u32 * 16;
            if *share > 0.0 {
                let shade = 255 - (155.0 * share) as u8;
                for (px, py) in (x.saturating_sub(2)..end + 2).flat_map(|px| (y..y + 20).map(move |py| (px, py))) {
                    if px < out.width() && py < out.height() {
                        out.put_pixel(px, py, Rgb([255, 255 - (255 - shade) / 3, shade]));
                    }
                }
            }
            write(&mut out, x, y + 2, word, Rgb([20, 20, 20]));
            x = end + 16;
        }
        y += 24;
    }
    let answer: String = answer.chars().take(columns.saturating_sub(3)).collect();
    write(&mut out, gap, y + 2, &format!("-> {answer}"), Rgb([170, 30, 20]));
    Ok(out)
}

/// Attention of words over an image or a spectrogram: the input, then an overlay for each word with the word below.
/// `queries` are names with weights over `grid`; sub-words of a word are averaged.
pub fn attention_image(input: &Tensor, grid: [usize; 2], queries: &[(String, Vec<f32>)]) -> Result<RgbImage> {
    let queries = queries.iter().map(|(name, weights)| (name.as_str(), (weights.clone(), 1.0f32)));
    let words = merge_subwords(queries, |(sum, count), (weights, _)| {
        sum.iter_mut().zip(weights).for_each(|(s, w)| *s += w);
        *count += 1.0;
    });
    let plain = resize(&to_image(input)?, 200.0, [24, 200]);
    let overlay = |(word, (sum, count)): (String, (Vec<f32>, f32))| {
        let mean: Vec<f32> = sum.iter().map(|s| s / count).collect();
        (word, overlay_heatmap(&plain, &mean, grid))
    };
    let images: Vec<(String, RgbImage)> =
        std::iter::once((String::new(), plain.clone())).chain(words.into_iter().map(overlay)).collect();
    Ok(tiles(&images, 5))
}

const GAP: u32 = 10;

/// Width of a tile, with its gap.
fn pitch(image_width: u32) -> u32 {
    image_width.max(96) + GAP
}

/// Images of one size with a word below each, `columns` in a row.
fn tiles(images: &[(String, RgbImage)], columns: u32) -> RgbImage {
    let columns = columns.max(1);
    let (width, height) = images.first().map_or((1, 1), |(_, p)| p.dimensions());
    let (wide, high) = (pitch(width), height + 22 + GAP);
    let count = images.len() as u32;
    let size = (count.clamp(1, columns) * wide + GAP, count.div_ceil(columns) * high + GAP);
    let mut out = RgbImage::from_pixel(size.0, size.1, Rgb([255; 3]));
    for (number, (word, image)) in (0..).zip(images) {
        let (x, y) = (GAP + number % columns * wide, GAP + number / columns * high);
        imageops::overlay(&mut out, image, i64::from(x), i64::from(y));
        let word: String = word.chars().take((wide / 16) as usize).collect();
        write(&mut out, x, y + height + 4, &word, Rgb([20, 20, 20]));
    }
    out
}

/// Merges the sub-words of each word (`##` continues a word), with `add` for their values; special tokens are left out.
pub(crate) fn merge_subwords<'a, T>(
    pieces: impl Iterator<Item = (&'a str, T)>,
    mut add: impl FnMut(&mut T, T),
) -> Vec<(String, T)> {
    let mut words: Vec<(String, T)> = Vec::new();
    for (name, value) in pieces {
        match (name.strip_prefix("##"), words.last_mut()) {
            (Some(rest), Some((word, sum))) => {
                word.push_str(rest);
                add(sum, value);
            }
            _ if name.chars().any(char::is_alphanumeric) && !name.starts_with(['[', '<']) => {
                words.push((name.to_owned(), value));
            }
            _ => {}
        }
    }
    words
}

/// An image in gray under a heat map: one value for each patch of a grid of rows and columns, row by row.
pub fn overlay_heatmap(plain: &RgbImage, patches: &[f32], grid: [usize; 2]) -> RgbImage {
    let mut over = plain.clone();
    let shades = interpolate(patches, grid, plain.width(), plain.height());
    for (pixel, share) in over.pixels_mut().zip(shades) {
        let [r, g, b] = color(share);
        let gray = f32::from(pixel.0[0]) * 0.3 + f32::from(pixel.0[1]) * 0.59 + f32::from(pixel.0[2]) * 0.11;
        *pixel = Rgb([r, g, b].map(|c| (0.45 * gray + 0.55 * f32::from(c)) as u8));
    }
    over
}

/// The attribution of each pixel in [0, 1], interpolated between the centers of patches.
fn interpolate(patches: &[f32], [down, across]: [usize; 2], width: u32, height: u32) -> Vec<f32> {
    let (low, high) = patches.iter().fold((f32::INFINITY, 0f32), |(l, h), v| (l.min(*v), h.max(*v)));
    let at = |row: usize, column: usize| {
        let value = patches.get(row.min(down - 1) * across + column.min(across - 1)).copied().unwrap_or(0.0);
        (value - low) / (high - low).max(1e-12)
    };
    if down == 0 || across == 0 {
        return vec![0.0; (width * height) as usize];
    }
    let position = |n: u32, of: u32, patches: usize| {
        let x = ((n as f32 + 0.5) / of as f32 * patches as f32 - 0.5).max(0.0);
        (x.floor() as usize, x.fract())
    };
    let mut out = Vec::with_capacity((width * height) as usize);
    for y in 0..height {
        let (row, fy) = position(y, height, down);
        for x in 0..width {
            let (column, fx) = position(x, width, across);
            let top = at(row, column) * (1.0 - fx) + at(row, column + 1) * fx;
            let bottom = at(row + 1, column) * (1.0 - fx) + at(row + 1, column + 1) * fx;
            out.push(top * (1.0 - fy) + bottom * fy);
        }
    }
    out
}

/// A color scale from dark blue through red to yellow.
fn color(share: f32) -> [u8; 3] {
    let stops = [[20.0, 20.0, 90.0], [120.0, 20.0, 130.0], [225.0, 60.0, 50.0], [255.0, 225.0, 60.0]];
    let x = share.clamp(0.0, 1.0) * 3.0;
    let (low, part) = ((x as usize).min(2), x - (x as usize).min(2) as f32);
    std::array::from_fn(|c| (stops[low][c] * (1.0 - part) + stops[low + 1][c] * part) as u8)
}

/// Writes text in an 8 × 8 font, scaled by two.
fn write(out: &mut RgbImage, x: u32, y: u32, text: &str, color: Rgb<u8>) {
    for (number, letter) in text.chars().enumerate() {
        let glyph = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::LATIN_FONTS.get(letter));
        let Some(glyph) = glyph.or_else(|| font8x8::BASIC_FONTS.get('?')) else { continue };
        for (row, bits) in glyph.iter().enumerate() {
            for bit in (0..8).filter(|b| bits >> b & 1 == 1) {
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let (px, py) = (x + number as u32 * 16 + bit * 2 + dx, y + row as u32 * 2 + dy);
                    if px < out.width() && py < out.height() {
                        out.put_pixel(px, py, color);
                    }
                }
            }
        }
    }
}
