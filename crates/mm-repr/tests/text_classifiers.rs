//! Classes of texts by checkpoints with a classifier: their names and probabilities, and what is refused. The scores
//! themselves are compared in `references.rs`.

mod common;

use common::{checkpoint_only, fixtures};
use mm_core::{Checkpoint, Modality, Source};
use mm_repr::{ClassScore, Pretrained};
use serde_json::{Value, json};

/// The texts of the fixtures, and the scores of the reference library, `[texts, classes]`.
fn texts_and_logits(name: &str) -> (Vec<Source>, Vec<f32>) {
    let families = fixtures("families");
    let texts = std::fs::read_to_string(families.join("inputs/texts.json")).unwrap();
    let texts: Vec<String> = serde_json::from_str(&texts).unwrap();
    let answers = Checkpoint::open(families.join(name).join("answers.safetensors")).unwrap();
    let logits = answers.get("text_logits").unwrap().to_vec().unwrap();
    (texts.into_iter().map(Source::Text).collect(), logits)
}

/// A copy of a fixture whose `config.json` has other fields.
fn with_config(name: &str, changes: &Value) -> (tempfile::TempDir, mm_repr::Result<Pretrained>) {
    let folder = checkpoint_only(&fixtures("families").join(name));
    let file = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    std::fs::write(file, config.to_string()).unwrap();
    let model = Pretrained::load(folder.path());
    (folder, model)
}

/// The classes of the fixture's texts, each of which must have the probability that `probability` computes from the
/// reference library's scores of its text.
fn check_probabilities(name: &str, probability: impl Fn(&[f32], usize) -> f32) {
    let (_folder, model) = with_config(name, &json!({}));
    let model = model.unwrap();
    let (texts, logits) = texts_and_logits(name);
    assert!(model.has_classifier(&Modality::TEXT), "{name}");
    let found: Vec<Vec<ClassScore>> = model.classify(&Modality::TEXT, &texts).unwrap();
    assert_eq!(found.len(), texts.len());
    for (classes, logits) in found.iter().zip(logits.chunks(model.classes.labels.len())) {
        assert!(classes.len() == logits.len() && classes.is_sorted_by(|a, b| a.score >= b.score), "{name}");
        for (index, label) in (0..logits.len()).map(|i| (i, format!("thing {i}"))) {
            let class = classes.iter().find(|class| class.label == label).unwrap();
            let difference = (class.score - probability(logits, index)).abs();
            assert!(difference < 1e-4, "{name} {label}: {difference}");
        }
    }
}

#[test]
fn classes_of_texts_are_named_and_scored_as_the_config_says() {
    let softmax = |logits: &[f32], i: usize| logits[i].exp() / logits.iter().map(|x| x.exp()).sum::<f32>();
    for name in ["distilbert-classifier", "roberta-classifier", "camembert-classifier", "mpnet-classifier"] {
        check_probabilities(name, softmax);
    }
    // `problem_type`: each class has a probability of its own.
    check_probabilities("bert-classifier-multi-label", |logits, i| 1.0 / (1.0 + (-logits[i]).exp()));
}

#[test]
fn scores_that_are_not_of_classes_are_refused_by_the_field_that_says_so() {
    let regression = json!({"problem_type": "regression"});
    let unknown = json!({"problem_type": "ranking"});
    for (name, changes, wanted) in [
        ("xlm-roberta-reranker", &json!({}), "id2label: found 1 class, a score as rerankers give"),
        ("xlm-roberta-reranker", &regression, "problem_type: found regression"),
        ("roberta-classifier", &regression, "problem_type: found regression"),
        ("roberta-classifier", &unknown, "problem_type: found `ranking`, expected single_label_classification or"),
    ] {
        let (_folder, model) = with_config(name, changes);
        let model = model.unwrap();
        let (texts, logits) = texts_and_logits(name);
        assert!(!model.has_classifier(&Modality::TEXT), "{name}");
        let error = model.classify(&Modality::TEXT, &texts).unwrap_err().to_string();
        assert!(error.contains("config.json: ") && error.contains(wanted), "{name}: {error}");
        // The scores themselves and the embeddings are there.
        let scores = model.logits(&Modality::TEXT, &texts).unwrap().to_vec::<f32>().unwrap();
        assert!(scores.iter().zip(&logits).all(|(a, b)| (a - b).abs() < 1e-3), "{name}");
        assert_eq!(model.encode(&texts).unwrap().size(0).unwrap(), texts.len() as i64);
    }
}

#[test]
fn heads_for_other_tasks_are_no_classifiers_of_texts() {
    let other = json!({"architectures": ["BertForTokenClassification"]});
    let (_folder, model) = with_config("bert-classifier-multi-label", &other);
    let model = model.unwrap();
    assert!(!model.has_classifier(&Modality::TEXT));
    let error = model.classify(&Modality::TEXT, &[Source::Text("a dog".into())]).unwrap_err().to_string();
    assert!(error.contains("this model has no classifier (architectures: BertForTokenClassification)"), "{error}");
}

#[test]
fn the_bare_vocabulary_of_camembert_is_refused() {
    let families = fixtures("families");
    let folder = checkpoint_only(&families.join("camembert-classifier"));
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let file = "sentencepiece.bpe.model";
    std::fs::copy(families.join("xlm-roberta-bare-sentencepiece").join(file), folder.path().join(file)).unwrap();
    let error = Pretrained::load(folder.path()).err().unwrap().to_string();
    assert!(
        error.contains("found sentencepiece.bpe.model alone") && error.contains("expected tokenizer.json"),
        "{error}"
    );
}

#[test]
fn classifiers_of_another_size_than_the_config_says_are_refused() {
    let labels = json!({"id2label": {"0": "good", "1": "fair", "2": "bad"}});
    let error = with_config("distilbert-classifier", &labels).1.err().unwrap().to_string();
    assert!(error.contains("classifier.weight"), "{error}");
}
