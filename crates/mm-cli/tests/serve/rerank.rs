//! Relevance of texts to a query by rerankers, on the route of text-embeddings-inference; and what the server says of
//! its rerankers and classes.

use crate::{Server, common::fixture, model};
use mm_core::Checkpoint;
use serde_json::{Value, json};

const WORDS: &str = "families/bert-gelu";
const RERANKER: &str = "families/bert-reranker";

fn start(models: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let models: Vec<String> = models.iter().map(|(name, path)| model(name, "mm-repr", path)).collect();
    let options: Vec<&str> = models.iter().flat_map(|model| ["--model", model]).collect();
    let server = Server::start(&options, folder.path(), &[]);
    (folder, server)
}

/// The pairs of the fixtures whose texts are not blank, with the reference library's logits.
fn expected() -> Vec<(String, String, f64)> {
    let pairs = std::fs::read_to_string(fixture("mm-repr", "families/inputs/pairs.json")).unwrap();
    let pairs: Vec<(String, String)> = serde_json::from_str(&pairs).unwrap();
    let answers = Checkpoint::open(fixture("mm-repr", RERANKER).join("answers.safetensors")).unwrap();
    let logits: Vec<f64> = answers.get("pair_logits").unwrap().to_vec().unwrap();
    assert_eq!(pairs.len(), logits.len());
    let all = pairs.into_iter().zip(logits).map(|((query, text), logit)| (query, text, logit));
    all.filter(|(query, text, _)| !query.trim().is_empty() && !text.trim().is_empty()).collect()
}

fn score(rank: &Value) -> f64 {
    rank["score"].as_f64().unwrap_or_else(|| panic!("{rank}"))
}

#[test]
fn texts_are_ranked_by_the_first_reranker_as_transformers_scores_them() {
    let (_folder, server) = start(&[("words", WORDS), ("ranker", RERANKER)]);
    let pairs = expected();
    assert!(pairs.len() >= 8);
    for (query, text, logit) in &pairs {
        let body = json!({"query": query, "texts": [text], "raw_scores": true, "model": "ranker"});
        let found = score(&server.post("/rerank", &body).json()[0]);
        assert!((found - logit).abs() < 1e-4, "{query} {text}: {found} {logit}");
    }
    // Without a name the reranker is preferred to the cosines of the first model.
    let texts = ["a dog", "The Quick brown fox jumps over the lazy dog, twice!", "naive cafe"];
    let body = json!({"query": "a dog", "texts": texts, "return_text": true});
    let ranks = server.post("/rerank", &body).json();
    let raw = server.post("/rerank", &json!({"query": "a dog", "texts": texts, "raw_scores": true})).json();
    let (ranks, raw) = (ranks.as_array().unwrap(), raw.as_array().unwrap());
    assert!(ranks.len() == 3 && ranks.is_sorted_by(|a, b| score(a) >= score(b)), "{ranks:?}");
    let known = pairs.iter().find(|(query, text, _)| query == "a dog" && *text == texts[1]).unwrap().2;
    for (rank, raw) in ranks.iter().zip(raw) {
        let index = rank["index"].as_u64().unwrap() as usize;
        assert_eq!((&rank["index"], &rank["text"]), (&raw["index"], &json!(texts[index])));
        assert!(raw.get("text").is_none(), "{raw}");
        assert!((score(rank) - 1.0 / (1.0 + (-score(raw)).exp())).abs() < 1e-9, "{rank} {raw}");
        assert!(index != 1 || (score(raw) - known).abs() < 1e-4, "{raw} {known}");
    }
    // By name, the other model compares vectors.
    let cosines = server.post("/rerank", &json!({"query": "a dog", "texts": texts, "model": "words"})).json();
    assert!(cosines[0]["index"] == 0 && (score(&cosines[0]) - 1.0).abs() < 1e-6, "{cosines}");
}

#[test]
fn what_a_reranker_does_not_take_is_refused() {
    let (_folder, server) = start(&[("ranker", RERANKER), ("mood", "families/distilbert-classifier")]);
    let long = "dog and fox ".repeat(30);
    let request = |more: Value| {
        let mut body = json!({"query": "a dog", "texts": ["a fox", long], "model": "ranker"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/rerank", &body)
    };
    assert_eq!(request(json!({})).json().as_array().unwrap().len(), 2);
    let cut = request(json!({"truncate": false}));
    cut.refused_by_tei(413, "Validation", "texts[1]: found a longer text with the query");
    cut.refused_by_tei(413, "Validation", "at most 20 tokens together, or \"truncate\": true");
    assert_eq!(request(json!({"truncate": false, "texts": ["a fox"]})).json().as_array().unwrap().len(), 1);
    for (more, wanted) in [
        (json!({"texts": []}), "texts: found none"),
        (json!({"texts": ["a", " "]}), "texts: found an empty text"),
        (json!({"query": ""}), "query: found an empty text"),
        (json!({"prompt_name": "query"}), "prompt_name"),
        (json!({"truncation_direction": "left"}), "truncation_direction"),
        (json!({"raw_scores": 1}), "raw_scores: invalid type"),
    ] {
        request(more).refused_by_tei(422, "Validation", wanted);
    }
    request(json!({"texts": vec!["a"; 2049]})).refused_by_tei(413, "Validation", "2049 inputs");
    request(json!({"model": "rankr"})).refused_by_tei(404, "Validation", "`ranker`");
    // It has no vectors of single texts, and no classes.
    let reranks = "model ranker is of family bert, which reranks; expected one that embeds";
    for route in ["/embed", "/embed_all"] {
        server.post(route, &json!({"inputs": "a", "model": "ranker"})).refused_by_tei(422, "Validation", reranks);
    }
    let inputs = json!({"source_sentence": "a", "sentences": ["b"]});
    server.post("/similarity", &json!({"inputs": inputs, "model": "ranker"})).refused_by_tei(
        422,
        "Validation",
        reranks,
    );
    server.post("/v1/embeddings", &json!({"input": "a", "model": "ranker"})).refused(400, reranks);
    server.post("/classify", &json!({"text": "a", "model": "ranker"})).refused(400, "expected one that classifies");
    assert_eq!(server.post("/classify", &json!({"text": "a"})).json()["model"], "mood");
}

#[test]
fn the_server_says_which_models_rerank_and_which_classes_they_have() {
    let (_folder, server) = start(&[("ranker", "families/xlm-roberta-reranker")]);
    let entry = &server.get("/v1/models").json()["data"][0];
    assert_eq!(entry["capabilities"], json!(["rerank"]), "{entry}");
    assert_eq!((&entry["family"], &entry["modalities"]), (&json!("xlm-roberta"), &json!(["text"])), "{entry}");
    let info = server.get("/info").json();
    let labels = json!({"id2label": {"0": "thing 0"}, "label2id": {"thing 0": 0}});
    assert_eq!((&info["model_id"], &info["model_type"]), (&json!("ranker"), &json!({"reranker": labels})), "{info}");
    drop(server);

    let (_folder, server) = start(&[("ranker", RERANKER), ("mood", "families/camembert-classifier")]);
    let info = server.get("/info").json();
    assert_eq!(info["model_id"], "mood", "{info}");
    let labels = &info["model_type"]["classifier"];
    assert_eq!(labels["id2label"], json!({"0": "thing 0", "1": "thing 1", "2": "thing 2"}), "{info}");
    assert_eq!(labels["label2id"]["thing 2"], 2, "{info}");
    let schema = &server.get("/openapi.json").json()["components"]["schemas"]["RerankRequest"];
    assert!(schema.to_string().contains("raw_scores"), "{schema}");
}

/// Requests that wait together are one batch, whose rows are those of each alone.
#[test]
fn relevances_and_classes_are_computed_together() {
    const REQUESTS: usize = 24;
    let (_folder, server) = start(&[("ranker", RERANKER), ("mood", "families/distilbert-classifier")]);
    let texts = |n: usize| vec!["a dog ".repeat(n % 5 + 1), "the quick fox".into(), "jumps ".repeat(n % 3 + 1)];
    let rank = |n: usize| {
        let body = json!({"query": "a dog", "texts": texts(n), "raw_scores": true, "model": "ranker"});
        server.post("/rerank", &body).json()
    };
    let classify = |n: usize| {
        let inputs: Vec<[String; 1]> = texts(n).into_iter().map(|text| [text]).collect();
        server.post("/predict", &json!({"inputs": inputs, "raw_scores": true})).json()
    };
    let alone: Vec<[Value; 2]> = (0..REQUESTS).map(|n| [rank(n), classify(n)]).collect();
    let rows = |model: &str| {
        let metrics = server.get("/metrics").text;
        let count = format!("mm_batch_rows_count{{model=\"{model}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&count)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{metrics}")).parse::<usize>().unwrap()
    };
    let before = rows("ranker") + rows("mood");
    assert_eq!(before, 2 * REQUESTS);
    let together: Vec<[Value; 2]> = std::thread::scope(|scope| {
        let (rank, classify) = (&rank, &classify);
        let requests: Vec<_> = (0..REQUESTS).map(|n| scope.spawn(move || [rank(n), classify(n)])).collect();
        requests.into_iter().map(|request| request.join().unwrap()).collect()
    });
    assert!(rows("ranker") + rows("mood") < before + 2 * REQUESTS, "no requests were computed together");
    let scores = |value: &Value| -> Vec<f64> {
        let lists =
            value.as_array().unwrap().iter().flat_map(|item| item.as_array().cloned().unwrap_or(vec![item.clone()]));
        lists.map(|item| score(&item)).collect()
    };
    for (alone, together) in alone.iter().flatten().zip(together.iter().flatten()) {
        let (alone, together) = (scores(alone), scores(together));
        assert!(alone.len() >= 3 && alone.len() == together.len());
        assert!(alone.iter().zip(&together).all(|(a, b)| (a - b).abs() < 1e-5), "{alone:?} {together:?}");
    }
}
