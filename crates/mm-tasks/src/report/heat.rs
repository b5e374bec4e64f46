//! What counted, drawn over the picture: cold places stay dark and blue, hot ones shine; the question's words below, each on a ground as
//! bright as it counted.

use super::picture::{drawn, resized};
use crate::{Result, retrieval::Gaze};
use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage, imageops};
use mm_reason::Attribution;

/// The picture beside itself under its heat, with question and answer below; then, where a network tells them, its steps: where it looked at
/// each.
pub fn heat_picture(picture: &RgbImage, heat: &Attribution, question: &str, answer: &str) -> Result<RgbImage> {
    let plain = resized(picture, 320.0, [1, 640]);
    let (width, height) = plain.dimensions();
    let over = shine(&plain, &heat.patches, heat.grid);
    let gap = 12;
    let all = 2 * width + 3 * gap;
    let columns = ((all - 2 * gap) / 16).max(8) as usize;
    let mut words: Vec<(String, f32)> = if heat.words.is_empty() {
        question.split_whitespace().map(|w| (w.to_owned(), 0.0)).collect()
    } else {
        heat.words.clone()
    };
    let most = words.iter().map(|w| w.1).fold(0.0f32, f32::max).max(1e-9);
    words.iter_mut().for_each(|w| w.1 /= most);
    // Lines that fit.
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
    let small = resized(picture, 140.0, [1, 280]);
    let looks: Vec<(String, RgbImage)> =
        heat.steps.iter().map(|(name, weights)| (name.clone(), shine(&small, weights, heat.grid))).collect();
    let looks = (!looks.is_empty()).then(|| tiles(&looks, (all - GAP) / pitch(small.width())));
    let below = looks.as_ref().map_or(0, RgbImage::height);
    let mut out = RgbImage::from_pixel(all, text + below, Rgb([255; 3]));
    if let Some(looks) = &looks {
        imageops::overlay(&mut out, looks, 0, i64::from(text));
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

/// Words looking at a picture (or a spectrogram): the picture itself, then for each word the picture under its heat, the word below.
pub fn gaze_picture(gaze: &Gaze) -> Result<RgbImage> {
    let looks = gaze.looks.iter().map(|(name, weights)| (name.as_str(), (weights.clone(), 1.0f32)));
    let words = whole_words(looks, |(sum, count), (weights, _)| {
        sum.iter_mut().zip(weights).for_each(|(s, w)| *s += w);
        *count += 1.0;
    });
    let plain = resized(&drawn(&gaze.ground)?, 200.0, [24, 200]);
    let under = |(word, (sum, count)): (String, (Vec<f32>, f32))| {
        let mean: Vec<f32> = sum.iter().map(|s| s / count).collect();
        (word, shine(&plain, &mean, gaze.grid))
    };
    let pictures: Vec<(String, RgbImage)> =
        std::iter::once((String::new(), plain.clone())).chain(words.into_iter().map(under)).collect();
    Ok(tiles(&pictures, 5))
}

const GAP: u32 = 10;

/// How wide a tile is, with the gap beside it.
fn pitch(picture: u32) -> u32 {
    picture.max(96) + GAP
}

/// Pictures of one size with a word below each, so many in a row.
fn tiles(pictures: &[(String, RgbImage)], across: u32) -> RgbImage {
    let across = across.max(1);
    let (width, height) = pictures.first().map_or((1, 1), |(_, p)| p.dimensions());
    let (wide, high) = (pitch(width), height + 22 + GAP);
    let count = pictures.len() as u32;
    let size = (count.clamp(1, across) * wide + GAP, count.div_ceil(across) * high + GAP);
    let mut out = RgbImage::from_pixel(size.0, size.1, Rgb([255; 3]));
    for (number, (word, picture)) in (0..).zip(pictures) {
        let (x, y) = (GAP + number % across * wide, GAP + number / across * high);
        imageops::overlay(&mut out, picture, i64::from(x), i64::from(y));
        let word: String = word.chars().take((wide / 16) as usize).collect();
        write(&mut out, x, y + height + 4, &word, Rgb([20, 20, 20]));
    }
    out
}

/// Pieces of a word become one word, their values joined by `add`; marks of the vocabulary are left out.
pub(super) fn whole_words<'a, T>(
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

/// A picture under heat.
pub(super) fn shine(plain: &RgbImage, patches: &[f32], grid: [usize; 2]) -> RgbImage {
    let mut over = plain.clone();
    let shades = field(patches, grid, plain.width(), plain.height());
    for (pixel, share) in over.pixels_mut().zip(shades) {
        let [r, g, b] = colour(share);
        let grey = f32::from(pixel.0[0]) * 0.3 + f32::from(pixel.0[1]) * 0.59 + f32::from(pixel.0[2]) * 0.11;
        *pixel = Rgb([r, g, b].map(|c| (0.45 * grey + 0.55 * f32::from(c)) as u8));
    }
    over
}

/// The heat at each pixel, in [0, 1], between the middles of patches.
fn field(patches: &[f32], [down, across]: [usize; 2], width: u32, height: u32) -> Vec<f32> {
    let (low, high) = patches.iter().fold((f32::INFINITY, 0f32), |(l, h), v| (l.min(*v), h.max(*v)));
    let at = |row: usize, column: usize| {
        let value = patches.get(row.min(down - 1) * across + column.min(across - 1)).copied().unwrap_or(0.0);
        (value - low) / (high - low).max(1e-12)
    };
    if down == 0 || across == 0 {
        return vec![0.0; (width * height) as usize];
    }
    let place = |n: u32, of: u32, patches: usize| {
        let x = ((n as f32 + 0.5) / of as f32 * patches as f32 - 0.5).max(0.0);
        (x.floor() as usize, x.fract())
    };
    let mut out = Vec::with_capacity((width * height) as usize);
    for y in 0..height {
        let (row, fy) = place(y, height, down);
        for x in 0..width {
            let (column, fx) = place(x, width, across);
            let top = at(row, column) * (1.0 - fx) + at(row, column + 1) * fx;
            let bottom = at(row + 1, column) * (1.0 - fx) + at(row + 1, column + 1) * fx;
            out.push(top * (1.0 - fy) + bottom * fy);
        }
    }
    out
}

/// From dark blue through red to yellow.
fn colour(share: f32) -> [u8; 3] {
    let stops = [[20.0, 20.0, 90.0], [120.0, 20.0, 130.0], [225.0, 60.0, 50.0], [255.0, 225.0, 60.0]];
    let x = share.clamp(0.0, 1.0) * 3.0;
    let (low, part) = ((x as usize).min(2), x - (x as usize).min(2) as f32);
    std::array::from_fn(|c| (stops[low][c] * (1.0 - part) + stops[low + 1][c] * part) as u8)
}

fn write(out: &mut RgbImage, x: u32, y: u32, text: &str, ink: Rgb<u8>) {
    for (number, letter) in text.chars().enumerate() {
        let glyph = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::LATIN_FONTS.get(letter));
        let Some(glyph) = glyph.or_else(|| font8x8::BASIC_FONTS.get('?')) else { continue };
        for (row, bits) in glyph.iter().enumerate() {
            for bit in (0..8).filter(|b| bits >> b & 1 == 1) {
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let (px, py) = (x + number as u32 * 16 + bit * 2 + dx, y + row as u32 * 2 + dy);
                    if px < out.width() && py < out.height() {
                        out.put_pixel(px, py, ink);
                    }
                }
            }
        }
    }
}
