//! Captions' metrics against COCO's evaluation (pycocoevalcap; `xtask/parity/captions.py` made the fixture).

use mm_tasks::metrics::{bleu, caption_tokens, cider_d, clip_score, rouge_l};

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
        assert_eq!(caption_tokens(own).join(" "), *theirs, "{own}");
    }
    for (own, theirs) in answers.references.iter().flatten().zip(answers.words.iter().flatten()) {
        assert_eq!(caption_tokens(own).join(" "), *theirs, "{own}");
    }
    let words = |texts: &Vec<String>| texts.iter().map(|t| caption_tokens(t)).collect::<Vec<_>>();
    let pairs: Vec<_> =
        answers.said.iter().zip(&answers.references).map(|(s, r)| (caption_tokens(s), words(r))).collect();
    for (own, theirs) in bleu(&pairs).iter().zip(answers.bleu) {
        assert!((own - theirs).abs() < 1e-4, "{own} {theirs}");
    }
    for (own, theirs) in cider_d(&pairs).iter().zip(&answers.ciders) {
        assert!((own - theirs).abs() < 1e-4, "{own} {theirs}");
    }
    assert!((rouge_l(&pairs) - answers.rouge).abs() < 1e-4, "{} {}", rouge_l(&pairs), answers.rouge);
}

#[test]
fn a_joint_model_says_how_captions_go_with_pictures() {
    use mm_core::{Modality, Source};
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm-repr/tests/fixtures/families");
    let model = mm_repr::Pretrained::load(&fixtures.join("clip-eos-gelu")).unwrap();
    let pictures: Vec<Source> = ["wide.png", "tall.jpg"].map(|n| Source::Path(fixtures.join("inputs").join(n))).into();
    let said = ["a dog".to_owned(), "the quick brown fox".to_owned()];
    let people = [vec!["a dog".to_owned(), "fox".to_owned()], vec!["lazy".to_owned()]];
    let found = clip_score(&model, &pictures, &said, &people).unwrap();
    // One by one, with vectors that are asked for by themselves.
    let vector =
        |modality: &Modality, source: Source| model.embed(modality, &[source], None).unwrap().to_vec::<f32>().unwrap();
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let text = |t: &str| vector(&Modality::TEXT, Source::Text(format!("A photo depicts {t}")));
    let (mut alone, mut beside) = (0.0, 0.0);
    for n in 0..2 {
        let score = 2.5 * cosine(&vector(&Modality::IMAGE, pictures[n].clone()), &text(&said[n])).max(0.0);
        let near = people[n].iter().map(|p| cosine(&text(p), &text(&said[n]))).fold(0.0, f64::max);
        alone += score / 2.0;
        beside += if score + near > 0.0 { score * near / (score + near) } else { 0.0 };
    }
    let metric = |id: &str| found.get(id).unwrap();
    assert!((metric("clip_score") - alone).abs() < 1e-5, "{found:?} instead of {alone}");
    assert!((metric("ref_clip_score") - beside).abs() < 1e-5, "{found:?} instead of {beside}");
    let other = mm_repr::Pretrained::load(&fixtures.join("vit-classifier")).unwrap();
    assert!(clip_score(&other, &pictures, &said, &people).unwrap_err().to_string().contains("one space"));
}

#[test]
fn synonyms_count_where_a_wordnet_is_there() {
    use mm_tasks::metrics::{Synonyms, meteor};
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("wordnet");
    std::fs::create_dir(&inner).unwrap();
    assert!(Synonyms::open(folder.path()).is_err_and(|e| e.to_string().contains("index.noun")));
    let index = "  1 This software\nautomobile n 1 1 @ 1 0 02958343\ncar n 2 1 @ 2 1 02958343 02959942\ndog n 1 1 @ 1 1 02084071\n";
    std::fs::write(inner.join("index.noun"), index).unwrap();
    let synonyms = Synonyms::open(folder.path()).unwrap();
    let words = |t: &str| t.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
    let pairs = [(words("a red automobile"), vec![words("a red car")])];
    let (plain, with) = (meteor(&pairs, None), meteor(&pairs, Some(&synonyms)));
    // Two of three words in one piece; three of three in one piece.
    assert!((plain - 2.0 / 3.0 * (1.0 - 0.5 / 8.0)).abs() < 1e-9, "{plain}");
    assert!((with - (1.0 - 0.5 / 27.0)).abs() < 1e-9, "{with}");
}
