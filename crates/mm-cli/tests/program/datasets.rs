//! Small synthetic data sets.

use image::{Rgb, RgbImage};
use serde_json::json;
use std::path::Path;

/// Bits that look random, from a fixed multiplicative hash of the row number.
pub fn bits(row: usize) -> usize {
    row.wrapping_mul(2_654_435_761) >> 7
}

/// A CSV table whose label is the majority vote of three binary signals, one in each modality: a word of the review, a
/// high price, and the color of the image.
pub fn majority_vote_table(folder: &Path, name: &str, rows: std::ops::Range<usize>) {
    std::fs::create_dir_all(folder.join("images")).unwrap();
    let mut text = String::from("id,review,price,town,photo,mood\n");
    for row in rows {
        let bits = bits(row);
        let (praises, expensive, blue) = (bits & 1 == 1, bits >> 1 & 1 == 1, bits >> 2 & 1 == 1);
        let color = if blue { [30, 60, 220] } else { [220, 60, 30] };
        RgbImage::from_pixel(24, 18, Rgb(color)).save(folder.join(format!("images/{row}.png"))).unwrap();
        let review = if praises { "the food was superb and warm" } else { "the food was awful and cold" };
        let price = if expensive { 80.0 } else { 20.0 } + (bits >> 3 & 7) as f64;
        let votes = usize::from(praises) + usize::from(expensive) + usize::from(blue);
        let mood = if votes >= 2 { "glad" } else { "sad" };
        let town = ["Rome", "Oslo", "Lima"][bits >> 6 & 1];
        text.push_str(&format!("{},{review},{price},{town},images/{row}.png,{mood}\n", 1_000 + row));
    }
    std::fs::write(folder.join(name), text).unwrap();
}

/// The same votes without images: a third column of the table holds the third vote.
pub fn majority_vote_table_without_images(folder: &Path, name: &str, rows: std::ops::Range<usize>) {
    let mut text = String::from("review,price,color,mood\n");
    for row in rows {
        let bits = bits(row);
        let (praises, expensive, blue) = (bits & 1 == 1, bits >> 1 & 1 == 1, bits >> 2 & 1 == 1);
        let review = if praises { "the food was superb and warm" } else { "the food was awful and cold" };
        let price = if expensive { 80.0 } else { 20.0 } + (bits >> 3 & 7) as f64;
        let votes = usize::from(praises) + usize::from(expensive) + usize::from(blue);
        let (color, mood) = (if blue { "blue" } else { "red" }, if votes >= 2 { "glad" } else { "sad" });
        text.push_str(&format!("{review},{price},{color},{mood}\n"));
    }
    std::fs::write(folder.join(name), text).unwrap();
}

/// Images of a circle or a grid, red or blue, each with a question, its answer and a caption: `shapes.csv`.
pub fn shapes(folder: &Path, rows: usize) {
    let mut table = String::from("id,image,text,label,split,caption\n");
    for row in 0..rows {
        let bits = row.wrapping_mul(2_654_435_761) >> 9;
        let (red, round) = (bits & 1 == 1, bits >> 1 & 1 == 1);
        let fill = if red { Rgb([220, 30, 30]) } else { Rgb([30, 30, 220]) };
        let (center_x, center_y) = (10 + (bits >> 2 & 7) as i32 * 2, 10 + (bits >> 5 & 7) as i32 * 2);
        let inside = |x: i32, y: i32| {
            let (dx, dy) = (x - center_x, y - center_y);
            if round { dx * dx + dy * dy <= 49 } else { dx.abs().max(dy.abs()) <= 7 && (dx + dy) % 3 != 0 }
        };
        let pixel = |x: u32, y: u32| if inside(x as i32, y as i32) { fill } else { Rgb([255; 3]) };
        RgbImage::from_fn(32, 32, pixel).save(folder.join(format!("{row}.png"))).unwrap();
        let (color, shape) = (if red { "red" } else { "blue" }, if round { "ball" } else { "grid" });
        let (question, answer) = match bits >> 8 & 3 {
            0 => ("what color is it".to_owned(), color),
            1 => ("what shape is it".to_owned(), shape),
            n => {
                let (asked, correct) = if n == 2 { ("red", red) } else { ("blue", !red) };
                (format!("is it {asked}"), if correct { "yes" } else { "no" })
            }
        };
        let split = if row % 5 == 0 { "test" } else { "train" };
        table.push_str(&format!("{row},{row}.png,{question},{answer},{split},a {color} {shape}\n"));
    }
    std::fs::write(folder.join("shapes.csv"), table).unwrap();
}

/// Images of one color with a question and its answer: `colors.jsonl`. `splits` gives the number of images of each
/// color in each split.
pub fn color_images(folder: &Path, splits: [(&str, usize); 2]) {
    let colors = [("fox", [220, 30, 20]), ("dog", [20, 200, 40]), ("cafe", [30, 40, 210])];
    let mut lines = String::new();
    for (split, count) in splits {
        for n in 0..count {
            for (name, rgb) in colors {
                let file = format!("{split}-{n}-{name}.png");
                let shade = |v: u8| v.saturating_add((n * 13 % 40) as u8);
                // Images of several sizes.
                let width = 24 + 6 * (n % 3) as u32;
                RgbImage::from_pixel(width, 24, Rgb(rgb.map(shade))).save(folder.join(&file)).unwrap();
                let row = json!({
                    "id": file, "image": file, "split": split, "text": "the quick", "answer": name,
                    "answers": format!("{name}|{name}|{name}|lazy"), "answer_type": "other",
                });
                lines += &format!("{row}\n");
            }
        }
    }
    std::fs::write(folder.join("colors.jsonl"), lines).unwrap();
}
