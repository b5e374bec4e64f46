//! Sort-of-CLEVR: images of six objects of six colors on white, with questions about one object and about their
//! relations. Generated from a seed.
//!
//! [*A simple neural network module for relational reasoning*](https://arxiv.org/abs/1706.01427) (Santoro et al.,
//! 2017).

use super::{DatasetReader, write_manifest};
use crate::{Error, Result};
use image::{Rgb, RgbImage};
use mm_core::seed::Rng;
use serde_json::{Value, json};
use std::path::Path;

pub(super) const READER: DatasetReader = DatasetReader {
    name: "sort-of-clevr",
    description: "images of six colored objects with questions about one object and about their relations (generated, seeded)",
    prepare: |folder, manifest| write_manifest(manifest, &rows(folder)?),
};

const COLORS: [(&str, [u8; 3]); 6] = [
    ("red", [230, 25, 25]),
    ("green", [20, 160, 40]),
    ("blue", [30, 60, 230]),
    ("orange", [250, 150, 20]),
    ("gray", [130, 130, 130]),
    ("yellow", [245, 230, 30]),
];
/// Width and height of an image, in pixels.
const IMAGE_SIZE: i64 = 75;
/// Distance from an object's center to its edge, in pixels.
const RADIUS: i64 = 5;
/// The splits and their numbers of images, as in the paper.
const SPLITS: [(&str, usize); 2] = [("train", 9800), ("test", 200)];
/// Number of questions of each kind about an image.
const QUESTIONS: usize = 10;

struct Object {
    x: i64,
    y: i64,
    is_circle: bool,
}

fn sample_scene(rng: &mut Rng) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    while objects.len() < COLORS.len() {
        let mut coordinate = || RADIUS + rng.below((IMAGE_SIZE - 2 * RADIUS) as usize) as i64;
        let (x, y) = (coordinate(), coordinate());
        let is_apart = |t: &Object| (t.x - x).pow(2) + (t.y - y).pow(2) > (2 * RADIUS + 1).pow(2) * 2;
        if objects.iter().all(is_apart) {
            let is_circle = rng.below(2) == 0;
            objects.push(Object { x, y, is_circle });
        }
    }
    objects
}

fn render(objects: &[Object]) -> RgbImage {
    let mut image = RgbImage::from_pixel(IMAGE_SIZE as u32, IMAGE_SIZE as u32, Rgb([255; 3]));
    for (object, (_, color)) in objects.iter().zip(COLORS) {
        for (dx, dy) in (-RADIUS..=RADIUS).flat_map(|dx| (-RADIUS..=RADIUS).map(move |dy| (dx, dy))) {
            let (x, y) = (object.x + dx, object.y + dy);
            let inside = !object.is_circle || dx * dx + dy * dy <= RADIUS * RADIUS;
            if inside && (0..IMAGE_SIZE).contains(&x) && (0..IMAGE_SIZE).contains(&y) {
                image.put_pixel(x as u32, y as u32, Rgb(color));
            }
        }
    }
    image
}

fn shape(object: &Object) -> &'static str {
    if object.is_circle { "circle" } else { "rectangle" }
}

/// A question about one object, or about its relation to the others: the text, the program that answers it (one word
/// per step), and the answer.
fn sample_question(objects: &[Object], is_relational: bool, rng: &mut Rng) -> (String, String, String) {
    let index = rng.below(COLORS.len());
    let (object, color) = (&objects[index], COLORS[index].0);
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let distance = |t: &&Object| (t.x - object.x).pow(2) + (t.y - object.y).pow(2);
    let others = || objects.iter().enumerate().filter(|(n, _)| *n != index).map(|(_, t)| t);
    let shape_of = |t: Option<&Object>| t.map_or("circle", shape).to_owned();
    let (question, steps, answer) = match (is_relational, rng.below(3)) {
        (false, 0) => (format!("what is the shape of the {color} thing?"), "shape", shape(object).to_owned()),
        (false, 1) => (format!("is the {color} thing on the left?"), "left", yes(object.x < IMAGE_SIZE / 2)),
        (false, _) => (format!("is the {color} thing on the top?"), "top", yes(object.y < IMAGE_SIZE / 2)),
        (true, 0) => (
            format!("what is the shape of the thing closest to the {color} thing?"),
            "closest shape",
            shape_of(others().min_by_key(distance)),
        ),
        (true, 1) => (
            format!("what is the shape of the thing furthest from the {color} thing?"),
            "furthest shape",
            shape_of(others().max_by_key(distance)),
        ),
        (true, _) => {
            let same = objects.iter().filter(|t| t.is_circle == object.is_circle).count();
            (format!("how many things have the shape of the {color} thing?"), "alike count", same.to_string())
        }
    };
    (question, format!("{color} {steps}"), answer)
}

/// Renders the images into a folder. A row is a question; `question_type` states whether it is about relations.
fn rows(folder: &Path) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for (split_index, (split, count)) in SPLITS.into_iter().enumerate() {
        let split_folder = folder.join(split);
        std::fs::create_dir_all(&split_folder).map_err(|e| Error::file(&split_folder, e))?;
        for number in 0..count {
            let mut rng = Rng::new(&[0x50_47, split_index as u64, number as u64]);
            let objects = sample_scene(&mut rng);
            let file = split_folder.join(format!("{number}.png"));
            render(&objects).save(&file).map_err(|e| Error::file(&file, e))?;
            let file = super::absolute(&file)?;
            for question in 0..2 * QUESTIONS {
                let is_relational = question >= QUESTIONS;
                let (text, program, label) = sample_question(&objects, is_relational, &mut rng);
                rows.push(json!({
                    "id": format!("{split}-{number}-{question}"), "group": format!("{split}-{number}"), "split": split,
                    "image": file, "text": text, "program": program, "label": label,
                    "question_type": if is_relational { "relational" } else { "about one thing" },
                }));
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_match_the_scene() {
        let objects: Vec<Object> =
            [(10, 10, true), (20, 10, false), (60, 60, true), (60, 10, false), (10, 60, false), (35, 35, true)]
                .map(|(x, y, is_circle)| Object { x, y, is_circle })
                .into();
        let (mut seen, mut programs) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        for n in 0..500 {
            for is_relational in [false, true] {
                let (question, program, answer) = sample_question(&objects, is_relational, &mut Rng::new(&[n]));
                assert_eq!(programs.entry(program).or_insert(question.clone()), &question);
                assert_eq!(seen.entry(question).or_insert(answer.clone()), &answer);
            }
        }
        assert_eq!((seen.len(), programs.len()), (36, 36));
        assert_eq!(programs["red closest shape"], "what is the shape of the thing closest to the red thing?");
        assert_eq!(seen["what is the shape of the thing closest to the red thing?"], "rectangle");
        assert_eq!(seen["what is the shape of the thing furthest from the red thing?"], "circle");
        assert_eq!(seen["how many things have the shape of the green thing?"], "3");
        assert_eq!(seen["is the blue thing on the left?"], "no");
        for n in 0..50 {
            let objects = sample_scene(&mut Rng::new(&[9, n]));
            let image = render(&objects);
            for (object, (_, color)) in objects.iter().zip(COLORS) {
                assert_eq!(image.get_pixel(object.x as u32, object.y as u32).0, color, "no object hides another");
            }
        }
    }
}
