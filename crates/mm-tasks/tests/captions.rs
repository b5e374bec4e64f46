//! Caption metrics against COCO's evaluation (pycocoevalcap; `xtask/parity/captions.py` and `caption_tokens.py` write
//! the fixtures).

use mm_tasks::metrics::{bleu, caption_tokens, cider_d, clip_score, rouge_l};

#[derive(serde::Deserialize)]
struct Expected {
    captions: Vec<String>,
    references: Vec<Vec<String>>,
    reference_tokens: Vec<Vec<String>>,
    caption_tokens: Vec<String>,
    bleu: [f64; 4],
    ciders: Vec<f64>,
    rouge: f64,
}

#[test]
fn tokens_and_metrics_match_cocos_evaluation() {
    // `cargo xtask parity captions --seed N` makes other captions.
    let random = std::env::var_os("MM_PARITY_CAPTIONS").map(|file| std::fs::read_to_string(file).unwrap());
    let text = random.as_deref().unwrap_or(include_str!("fixtures/captions.json"));
    let expected: Expected = serde_json::from_str(text).unwrap();
    for (found, expected_value) in expected.captions.iter().zip(&expected.caption_tokens) {
        assert_eq!(caption_tokens(found).join(" "), *expected_value, "{found}");
    }
    for (found, expected_value) in expected.references.iter().flatten().zip(expected.reference_tokens.iter().flatten())
    {
        assert_eq!(caption_tokens(found).join(" "), *expected_value, "{found}");
    }
    let words = |texts: &Vec<String>| texts.iter().map(|t| caption_tokens(t)).collect::<Vec<_>>();
    let pairs: Vec<_> =
        expected.captions.iter().zip(&expected.references).map(|(s, r)| (caption_tokens(s), words(r))).collect();
    for (found, expected_value) in bleu(&pairs).iter().zip(expected.bleu) {
        assert!((found - expected_value).abs() < 1e-4, "{found} {expected_value}");
    }
    for (found, expected_value) in cider_d(&pairs).iter().zip(&expected.ciders) {
        assert!((found - expected_value).abs() < 1e-4, "{found} {expected_value}");
    }
    assert!((rouge_l(&pairs) - expected.rouge).abs() < 1e-4, "{} {}", rouge_l(&pairs), expected.rouge);
}

#[test]
fn odd_texts_are_tokenized_as_in_cocos_evaluation() {
    let text = include_str!("fixtures/caption_tokens.json");
    let expected: Vec<(String, Vec<String>)> = serde_json::from_str(text).unwrap();
    assert!(expected.len() > 200);
    for (text, tokens) in expected {
        assert_eq!(caption_tokens(&text), tokens, "{text}");
    }
    // Whatever the text, tokens hold no space and nothing fails.
    let mut random = mm_core::seed::Rng::new(&[1]);
    let odd: Vec<char> = "aB1.,:;!?'\"’“—…-()[]{}<>&#@$%/*_=+~^|\\`½€😀\u{200b}\u{301}\t \u{a0}é你".chars().collect();
    for _ in 0..20_000 {
        let text: String = (0..random.below(10)).map(|_| odd[random.below(odd.len())]).collect();
        assert!(caption_tokens(&text).iter().all(|t| !t.is_empty() && !t.contains(char::is_whitespace)), "{text:?}");
    }
}

#[test]
fn clip_score_is_computed_from_the_embeddings_of_a_joint_model() {
    use mm_core::{Modality, Source};
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm-repr/tests/fixtures/families");
    let model = mm_repr::Pretrained::load(&fixtures.join("clip-eos-gelu")).unwrap();
    let images: Vec<Source> = ["wide.png", "tall.jpg"].map(|n| Source::Path(fixtures.join("inputs").join(n))).into();
    let captions = ["a dog".to_owned(), "the quick brown fox".to_owned()];
    let references = [vec!["a dog".to_owned(), "fox".to_owned()], vec!["lazy".to_owned()]];
    let found = clip_score(&model, &images, &captions, &references).unwrap();
    // The expected values, from each embedding by itself.
    let vector =
        |modality: &Modality, source: Source| model.embed(modality, &[source], None).unwrap().to_vec::<f32>().unwrap();
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let text = |t: &str| vector(&Modality::TEXT, Source::Text(format!("A photo depicts {t}")));
    let (mut clip, mut ref_clip) = (0.0, 0.0);
    for n in 0..2 {
        let score = 2.5 * cosine(&vector(&Modality::IMAGE, images[n].clone()), &text(&captions[n])).max(0.0);
        let nearest = references[n].iter().map(|p| cosine(&text(p), &text(&captions[n]))).fold(0.0, f64::max);
        clip += score / 2.0;
        ref_clip += if score + nearest > 0.0 { score * nearest / (score + nearest) } else { 0.0 };
    }
    let metric = |id: &str| found.get(id).unwrap();
    assert!((metric("clip_score") - clip).abs() < 1e-5, "{found:?}, expected {clip}");
    assert!((metric("ref_clip_score") - ref_clip).abs() < 1e-5, "{found:?}, expected {ref_clip}");
    let other = mm_repr::Pretrained::load(&fixtures.join("vit-classifier")).unwrap();
    assert!(clip_score(&other, &images, &captions, &references).unwrap_err().to_string().contains("one space"));
}

#[test]
fn meteor_matches_synonyms_of_wordnet() {
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
    let (plain, with_synonyms) = (meteor(&pairs, None), meteor(&pairs, Some(&synonyms)));
    // Two of three words match in one chunk; with synonyms three of three in one chunk.
    assert!((plain - 2.0 / 3.0 * (1.0 - 0.5 / 8.0)).abs() < 1e-9, "{plain}");
    assert!((with_synonyms - (1.0 - 0.5 / 27.0)).abs() < 1e-9, "{with_synonyms}");
}
