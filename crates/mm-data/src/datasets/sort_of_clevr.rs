//! Sort-of-CLEVR (Santoro 2017): six things of six colours on a white ground, questions about one of them and about how they lie to each other.
//! Made here, from a seed.

use crate::{Error, Result};
use image::{Rgb, RgbImage};
use mm_core::seed::Rng;
use serde_json::{Value, json};
use std::path::Path;

const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [230, 25, 25]),
    ("green", [20, 160, 40]),
    ("blue", [30, 60, 230]),
    ("orange", [250, 150, 20]),
    ("gray", [130, 130, 130]),
    ("yellow", [245, 230, 30]),
];
/// Pixels a side of a picture, and from a thing's middle to its edge.
const SIDE: i64 = 75;
const REACH: i64 = 5;
/// Pictures for learning and for measuring, as the paper has them, and questions of either kind about each.
const PICTURES: [(&str, usize); 2] = [("train", 9800), ("test", 200)];
const QUESTIONS: usize = 10;

struct Thing {
    x: i64,
    y: i64,
    round: bool,
}

fn scene(random: &mut Rng) -> Vec<Thing> {
    let mut things: Vec<Thing> = Vec::new();
    while things.len() < COLOURS.len() {
        let mut place = || REACH + random.below((SIDE - 2 * REACH) as usize) as i64;
        let (x, y) = (place(), place());
        let apart = |t: &Thing| (t.x - x).pow(2) + (t.y - y).pow(2) > (2 * REACH + 1).pow(2) * 2;
        if things.iter().all(apart) {
            let round = random.below(2) == 0;
            things.push(Thing { x, y, round });
        }
    }
    things
}

fn draw(things: &[Thing]) -> RgbImage {
    let mut picture = RgbImage::from_pixel(SIDE as u32, SIDE as u32, Rgb([255; 3]));
    for (thing, (_, colour)) in things.iter().zip(COLOURS) {
        for (dx, dy) in (-REACH..=REACH).flat_map(|dx| (-REACH..=REACH).map(move |dy| (dx, dy))) {
            let (x, y) = (thing.x + dx, thing.y + dy);
            let inside = !thing.round || dx * dx + dy * dy <= REACH * REACH;
            if inside && (0..SIDE).contains(&x) && (0..SIDE).contains(&y) {
                picture.put_pixel(x as u32, y as u32, Rgb(colour));
            }
        }
    }
    picture
}

fn shape(thing: &Thing) -> &'static str {
    if thing.round { "circle" } else { "rectangle" }
}

/// A question about one thing, or about how it lies to the others: as words, as the program that answers it (a step a word), and its answer.
fn ask(things: &[Thing], related: bool, random: &mut Rng) -> (String, String, String) {
    let which = random.below(COLOURS.len());
    let (thing, colour) = (&things[which], COLOURS[which].0);
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let distance = |t: &&Thing| (t.x - thing.x).pow(2) + (t.y - thing.y).pow(2);
    let others = || things.iter().enumerate().filter(|(n, _)| *n != which).map(|(_, t)| t);
    let found = |t: Option<&Thing>| t.map_or("circle", shape).to_owned();
    let (question, steps, answer) = match (related, random.below(3)) {
        (false, 0) => (format!("what is the shape of the {colour} thing?"), "shape", shape(thing).to_owned()),
        (false, 1) => (format!("is the {colour} thing on the left?"), "left", yes(thing.x < SIDE / 2)),
        (false, _) => (format!("is the {colour} thing on the top?"), "top", yes(thing.y < SIDE / 2)),
        (true, 0) => (
            format!("what is the shape of the thing closest to the {colour} thing?"),
            "closest shape",
            found(others().min_by_key(distance)),
        ),
        (true, 1) => (
            format!("what is the shape of the thing furthest from the {colour} thing?"),
            "furthest shape",
            found(others().max_by_key(distance)),
        ),
        (true, _) => {
            let same = things.iter().filter(|t| t.round == thing.round).count();
            (format!("how many things have the shape of the {colour} thing?"), "alike count", same.to_string())
        }
    };
    (question, format!("{colour} {steps}"), answer)
}

/// Draws the pictures into a folder; a row a question. `question_type` says whether it is about relations.
pub(super) fn rows(folder: &Path) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for (side, (split, count)) in PICTURES.into_iter().enumerate() {
        let place = folder.join(split);
        std::fs::create_dir_all(&place).map_err(|e| Error::file(&place, e))?;
        for number in 0..count {
            let mut random = Rng::new(&[0x50_47, side as u64, number as u64]);
            let things = scene(&mut random);
            let file = place.join(format!("{number}.png"));
            draw(&things).save(&file).map_err(|e| Error::file(&file, e))?;
            let file = super::absolute(&file)?;
            for asked in 0..2 * QUESTIONS {
                let related = asked >= QUESTIONS;
                let (text, program, label) = ask(&things, related, &mut random);
                rows.push(json!({
                    "id": format!("{split}-{number}-{asked}"), "group": format!("{split}-{number}"), "split": split, "image": file, "text": text,
                    "program": program, "label": label, "question_type": if related { "relational" } else { "about one thing" },
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
    fn answers_are_those_of_the_scene() {
        let things: Vec<Thing> =
            [(10, 10, true), (20, 10, false), (60, 60, true), (60, 10, false), (10, 60, false), (35, 35, true)]
                .map(|(x, y, round)| Thing { x, y, round })
                .into();
        let (mut seen, mut programs) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        for n in 0..500 {
            for related in [false, true] {
                let (question, program, answer) = ask(&things, related, &mut Rng::new(&[n]));
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
            let things = scene(&mut Rng::new(&[9, n]));
            let picture = draw(&things);
            for (thing, (_, colour)) in things.iter().zip(COLOURS) {
                assert_eq!(picture.get_pixel(thing.x as u32, thing.y as u32).0, colour, "no thing hides another");
            }
        }
    }
}
