//! `mm answer` with checkpoints.

use super::{fixture, lines};
use crate::{
    common::{mm, refused},
    ok,
};
use image::{Rgb, RgbImage};

#[test]
fn a_classifier_answers_with_scores_and_attention_maps() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let (image, vilt) = (fixture("inputs/wide.png"), fixture("vilt-vqa"));
    let answer = ["answer", "--model", &vilt, "--image", &image, "--question", "a dog", "--question", "fox?"];
    let answers = lines(&[&answer, ["--k", "all", "--json", "--explain", "heat.png"].as_slice()].concat(), folder);
    assert_eq!(answers.len(), 2);
    let results = answers[0]["results"].as_array().unwrap();
    assert_eq!((results.len(), answers[0]["question"].as_str()), (7, Some("a dog")));
    assert_eq!(answers[0]["answer"], results[0]["answer"]);
    let score = results[0]["score"].as_f64().unwrap();
    assert!((score - 1.0 / (1.0 + (-results[0]["logit"].as_f64().unwrap()).exp())).abs() < 1e-6);
    for name in ["heat-1.png", "heat-2.png"] {
        assert!(image::open(folder.join(name)).unwrap().width() > 300);
    }
    let few = lines(&[&answer, ["--candidates", "thing 3,thing 5", "--json"].as_slice()].concat(), folder);
    assert!(few.iter().all(|l| l["results"].as_array().unwrap().len() == 2));
}

#[test]
fn a_generator_answers_from_candidates_or_beams() {
    let folder = std::env::temp_dir();
    let (image, blip) = (fixture("inputs/wide.png"), fixture("blip-vqa"));
    let answer = ["answer", "--model", &blip, "--image", &image, "--question", "a dog", "--json"];
    let chosen = lines(&[&answer, ["--candidates", "fox,a dog"].as_slice()].concat(), &folder);
    let total: f64 = chosen[0]["results"].as_array().unwrap().iter().map(|s| s["score"].as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-6);
    let beams =
        lines(&[&answer, ["--num-beams", "3", "--k", "3", "--max-new-tokens", "4"].as_slice()].concat(), &folder);
    assert_eq!(beams[0]["results"].as_array().unwrap().len(), 3);
}

#[test]
fn invalid_questions_are_refused() {
    let folder = std::env::temp_dir();
    let image = fixture("inputs/wide.png");
    let (vilt, blip, caption) = (fixture("vilt-vqa"), fixture("blip-vqa"), fixture("blip-caption"));
    let answer = |model: &str, more: &[&str], wanted: &[&str]| {
        refused(&[&["answer", "--model", model, "--image", &image], more].concat(), &folder, wanted);
    };
    answer(&vilt, &[], &["no question"]);
    answer(&vilt, &["--question", "  "], &["question 1 is empty"]);
    let long = "word ".repeat(10_000);
    answer(&vilt, &["--question", &long], &["10002 tokens", "at most the model's 30"]);
    answer(&blip, &["--question", &long], &["at most the model's 40"]);
    answer(&fixture("llava-clip-llama"), &["--question", &long], &["120 positions"]);
    answer(&vilt, &["--question", "a", "--candidates", ""], &["--candidates"]);
    answer(&vilt, &["--question", "a", "--candidates", "thing 1,thing 1"], &["twice"]);
    answer(&vilt, &["--question", "a", "--candidates", "thing 9"], &["did you mean"]);
    answer(&caption, &["--question", "a"], &["this checkpoint captions images"]);
    let two = ["--question", "a", "--question", "b", "--image", &image, "--image", &image];
    answer(&vilt, &two, &["3 files and 2 questions"]);
}

#[test]
fn images_of_one_pixel_and_very_wide_ones_are_answered() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    RgbImage::from_pixel(1, 1, Rgb([7, 7, 7])).save(folder.join("one.png")).unwrap();
    RgbImage::from_pixel(20_000, 9, Rgb([7, 7, 7])).save(folder.join("wide.png")).unwrap();
    for model in ["vilt-vqa", "blip-vqa", "git-caption", "llava-clip-llama"] {
        let model = fixture(model);
        for name in ["one.png", "wide.png"] {
            ok(&mm(
                &["answer", "--model", &model, "--image", name, "--question", "a dog", "--max-new-tokens", "2"],
                folder,
            ));
        }
    }
}
