//! Captions' metrics against COCO's evaluation (pycocoevalcap; `xtask/parity/captions.py` made the fixture).

use mm_tasks::metrics::{bleu, caption_words, cider_d, rouge_l};

#[derive(serde::Deserialize)]
struct Answers {
    said: Vec<String>,
    references: Vec<Vec<String>>,
    words: Vec<Vec<String>>,
    said_words: Vec<String>,
    bleu: [f64; 4],
    ciders: Vec<f64>,
    rouge: f64,
}

#[test]
fn words_and_figures_are_those_of_cocos_evaluation() {
    let text = include_str!("fixtures/captions.json");
    let answers: Answers = serde_json::from_str(text).unwrap();
    for (own, theirs) in answers.said.iter().zip(&answers.said_words) {
        assert_eq!(caption_words(own).join(" "), *theirs, "{own}");
    }
    for (own, theirs) in answers.references.iter().flatten().zip(answers.words.iter().flatten()) {
        assert_eq!(caption_words(own).join(" "), *theirs, "{own}");
    }
    let words = |texts: &Vec<String>| texts.iter().map(|t| caption_words(t)).collect::<Vec<_>>();
    let pairs: Vec<_> =
        answers.said.iter().zip(&answers.references).map(|(s, r)| (caption_words(s), words(r))).collect();
    for (own, theirs) in bleu(&pairs).iter().zip(answers.bleu) {
        assert!((own - theirs).abs() < 1e-4, "{own} {theirs}");
    }
    for (own, theirs) in cider_d(&pairs).iter().zip(&answers.ciders) {
        assert!((own - theirs).abs() < 1e-4, "{own} {theirs}");
    }
    assert!((rouge_l(&pairs) - answers.rouge).abs() < 1e-4, "{} {}", rouge_l(&pairs), answers.rouge);
}
