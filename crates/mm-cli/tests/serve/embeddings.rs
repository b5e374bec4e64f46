//! Vectors: OpenAI's route and those of text-embeddings-inference.

use crate::{
    Server, assert_close,
    common::{self, Workspace, fixture, mm},
    data_uri, embedded, model, numbers,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Command};

#[test]
fn vectors_are_those_of_mm_embed_in_every_shape_of_the_request() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let clip = fixture("mm-repr", "families/clip-eos-gelu");
    let server = Server::start(&["--model", &model("clip", "mm-repr", "families/clip-eos-gelu")], folder, &[]);
    let text = embedded(&clip, &["--text", "the quick fox"], folder);
    let image = embedded(&clip, &["--image", "1.png"], folder);
    let picture = data_uri(&folder.join("1.png"), "image/png");
    let vectors = |body: Value| -> Vec<Vec<f64>> {
        let answer = server.post("/v1/embeddings", &body).json();
        assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("clip")));
        let data = answer["data"].as_array().unwrap();
        assert!(data.iter().enumerate().all(|(index, one)| one["index"] == index && one["object"] == "embedding"));
        data.iter().map(|one| numbers(&one["embedding"])).collect()
    };
    for (body, expected) in [
        (json!({"input": "the quick fox"}), vec![&text]),
        (json!({"input": ["the quick fox", "a dog", "the quick fox"], "model": "clip"}), vec![&text, &text]),
        (json!({"input": [{"image": picture}, {"text": "the quick fox"}]}), vec![&image, &text]),
        (json!({"input": picture, "modality": "image"}), vec![&image]),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]}]}),
            vec![&image],
        ),
    ] {
        let found = vectors(body);
        assert_close(&found[0], expected[0]);
        assert_close(found.last().unwrap(), expected[expected.len() - 1]);
    }
    // Base64 is what openai-python asks for: little-endian float32.
    let answer = server.post("/v1/embeddings", &json!({"input": "the quick fox", "encoding_format": "base64"})).json();
    let bytes = STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let values: Vec<f64> = bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
    assert_close(&values, &text);
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 3, "{answer}");
    let short = vectors(json!({"input": "the quick fox", "dimensions": 4})).remove(0);
    let norm = text[..4].iter().map(|v| v * v).sum::<f64>().sqrt();
    assert_close(&short, &text[..4].iter().map(|v| v / norm).collect::<Vec<_>>());
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["capabilities"], json!(["embed", "zero_shot"]));
    assert_eq!(server.get("/v1/models/clip").json(), models["data"][0]);
    server.get("/v1/models/clop").refused(404, "`clip`");
    // Zero-shot, as `mm classify`.
    let templates = ["a photo of a {}", "the {}"];
    let body = json!({"image": picture, "candidates": ["dog", "quick fox"], "templates": templates});
    let classes = server.post("/classify", &body).json();
    let path = clip.display().to_string();
    let image = ["classify", "--model", &path, "--image", "1.png", "--candidates", "dog,quick fox", "--json"];
    let output = mm(&[&image[..], &["--template", templates[0], "--template", templates[1]]].concat(), folder);
    let expected: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", common::text(&output)));
    let results = |answer: &Value| answer["results"].as_array().unwrap().clone();
    let (found, expected) = (results(&classes["data"][0]), results(&expected));
    assert_eq!((found.len(), expected.len()), (2, 2), "{classes}");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found["label"], expected["label"], "{classes}");
        let value = |class: &Value, key: &str| class[key].as_f64().unwrap();
        assert_close(&[value(found, "score")], &[value(expected, "score")]);
        assert!((value(found, "logit") - value(expected, "logit")).abs() < 1e-4, "{classes}");
    }
    let many = json!({"image": picture, "candidates": vec!["dog"; 1025], "templates": templates});
    server.post("/classify", &many).refused(413, "candidates: found 1025 labels in 2 templates");
}

#[test]
fn the_routes_of_text_embeddings_inference_answer_in_its_form() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(&["--model", "words"], folder, &[]);
    let text = embedded(&folder.join("words"), &["--text", "a dog", "--normalize"], folder);
    let vectors = server.post("/embed", &json!({"inputs": ["a dog", "lazy cafe"]})).json();
    assert_close(&numbers(&vectors[0]), &text);
    let plain = server.post("/embed", &json!({"inputs": "a dog", "normalize": false})).json();
    assert_close(&numbers(&plain[0]), &embedded(&folder.join("words"), &["--text", "a dog"], folder));
    let tokens = server.post("/embed_all", &json!({"inputs": "a dog"})).json();
    assert!(tokens[0].as_array().unwrap().len() >= 2, "{tokens}");
    // Texts of other lengths in the same batch, in the order of the request, without padding.
    let several = server.post("/embed_all", &json!({"inputs": ["the quick fox the dog", "a dog"]})).json();
    assert!(several[0].as_array().unwrap().len() > several[1].as_array().unwrap().len(), "{several}");
    for (token, alone) in several[1].as_array().unwrap().iter().zip(tokens[0].as_array().unwrap()) {
        assert_close(&numbers(token), &numbers(alone));
    }
    assert_eq!(several[1].as_array().unwrap().len(), tokens[0].as_array().unwrap().len());
    let ranks =
        server.post("/rerank", &json!({"query": "a dog", "texts": ["lazy cafe", "a dog"], "return_text": true})).json();
    assert_eq!((&ranks[0]["index"], &ranks[0]["text"]), (&json!(1), &json!("a dog")), "{ranks}");
    assert!((ranks[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    let inputs = json!({"inputs": {"source_sentence": "a dog", "sentences": ["a dog", "lazy cafe"]}});
    let similar = numbers(&server.post("/similarity", &inputs).json());
    assert!((similar[0] - 1.0).abs() < 1e-6 && similar[1] < similar[0]);
    assert_eq!(server.get("/info").json()["model_id"], "words");
    // Its errors have its own form.
    let long = "a dog ".repeat(100);
    assert!(server.post("/embed", &json!({"inputs": long})).json().is_array());
    server.get("/embed").refused_by_tei(405, "Validation", "another method");
    for (route, body, status, wanted) in [
        ("/embed", json!({"inputs": ["a", long], "truncate": false}), 413, "at most 32 tokens"),
        ("/embed", json!({"inputs": "a", "truncate": 3}), 422, "truncate: invalid type"),
        ("/embed", json!({"inputs": []}), 422, "no inputs"),
        ("/embed", json!({"inputs": 3}), 422, "a text or a list of texts"),
        ("/embed", json!({}), 422, "inputs"),
        ("/embed", json!({"inputs": "a", "prompt_name": "query"}), 422, "model words has no prompts"),
        ("/rerank", json!({"query": "a", "texts": ["a"], "prompt_name": "query"}), 422, "prompt_name"),
        ("/embed", json!({"inputs": "a", "truncation_direction": "Left"}), 422, "truncation_direction"),
        ("/embed_all", json!({"inputs": ""}), 422, "an empty text"),
    ] {
        server.post(route, &body).refused_by_tei(status, "Validation", wanted);
    }
    let similarity = |parameters: Value| {
        let inputs = json!({"source_sentence": "a dog", "sentences": [long]});
        server.post("/similarity", &json!({"inputs": inputs, "parameters": parameters}))
    };
    assert_eq!(numbers(&similarity(json!({"truncate": true, "prompt_name": null})).json()).len(), 1);
    for (parameters, status, wanted) in [
        (json!({"truncate": false}), 413, "inputs.sentences: found a longer text"),
        (json!({"truncation_direction": "left"}), 422, "truncation_direction: found left"),
        (json!({"prompt_name": "query"}), 422, "prompt_name: found \"query\""),
        (json!({"truncate": 3}), 422, "parameters.truncate: invalid type"),
    ] {
        similarity(parameters).refused_by_tei(status, "Validation", wanted);
    }
}

#[test]
fn longer_texts_are_refused_as_by_openai_unless_the_request_has_them_cut() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(&["--model", "words"], folder, &[]);
    let post = |body: Value| server.post("/v1/embeddings", &body);
    let long = "a dog ".repeat(100);
    for (body, param) in [
        (json!({"input": long}), "input"),
        (json!({"input": ["a", long]}), "input"),
        (json!({"messages": [{"role": "user", "content": long}]}), "messages"),
    ] {
        let answer = post(body);
        answer.refused(400, "a longer text than the model takes, expected at most 32 tokens");
        answer.refused(400, ", or \"truncate_prompt_tokens\": -1");
        let error: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(error["error"]["code"], "context_length_exceeded", "{error}");
        assert_eq!(error["error"]["param"], param, "{error}");
    }
    let cut = post(json!({"input": long, "truncate_prompt_tokens": -1})).json();
    let expected = embedded(&folder.join("words"), &["--text", &long], folder);
    assert_close(&numbers(&cut["data"][0]["embedding"]), &expected);
    let other = post(json!({"input": "a", "truncate_prompt_tokens": 5}));
    other.refused(400, "truncate_prompt_tokens: found 5, expected -1");
}

#[test]
fn fields_that_would_change_the_vectors_are_read_or_refused_by_name() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(&["--model", "words"], folder, &[]);
    let post = |body: Value| server.post("/v1/embeddings", &body);
    let message = |role: &str| json!({"role": role, "content": "a dog"});
    let text = json!({"type": "text", "text": "a dog"});
    for (body, wanted) in [
        (json!({"messages": [message("user"), message("user")]}), "messages: found 2 content parts"),
        (json!({"messages": [{"role": "user", "content": [text, text]}]}), "several values are a list in `input`"),
        (json!({"messages": [message("system")]}), "messages: found the role \"system\""),
        (json!({"messages": []}), "messages: found 0 content parts"),
        (json!({"input": "a", "modality": "imgae"}), "modality: found \"imgae\", expected text, image, audio or video"),
        (json!({"input": [{"imgae": "aGk="}]}), "input[0]: found \"imgae\", expected text, image"),
        (json!({"input": "a", "dimensions": 0}), "dimensions: found 0"),
        (json!({"input": "a", "task": "retrieval.query"}), "task: found \"retrieval.query\", expected none"),
        (json!({"input": "a", "late_chunking": true}), "late_chunking: found true, expected false"),
        (json!({"input": "a", "embedding_type": "binary"}), "embedding_type: found \"binary\", expected float"),
        (json!({"input": "a", "input_type": "query"}), "input_type: found \"query\", expected none"),
        (json!({"input": "a", "output_dimension": 8}), "output_dimension: found 8, expected none"),
    ] {
        post(body).refused(400, wanted);
    }
    let vector = |body: Value| numbers(&post(body).json()["data"][0]["embedding"]);
    let plain = vector(json!({"messages": [message("user")]}));
    let unchanged = json!({
        "input": "a dog", "task": null, "late_chunking": false, "embedding_type": "float", "user": "me",
        "truncate_prompt_tokens": null, "normalized": false, "output_dtype": "float",
    });
    assert_close(&vector(unchanged), &plain);
    let unit = embedded(&folder.join("words"), &["--text", "a dog", "--normalize"], folder);
    assert_close(&vector(json!({"input": "a dog", "normalized": true})), &unit);
}

/// A copy of a model of the test fixtures whose texts begin with another prompt where none is asked for.
fn with_default_prompt(workspace: &Workspace, name: &str, default: Value) -> PathBuf {
    let copy = workspace.path().join(format!("{name} {default}").replace('"', ""));
    let original = fixture("mm-repr", &format!("families/{name}"));
    assert!(Command::new("cp").arg("-r").args([&original, &copy]).status().unwrap().success());
    let file = copy.join("config_sentence_transformers.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["default_prompt_name"] = default;
    std::fs::write(file, config.to_string()).unwrap();
    copy
}

#[test]
fn texts_begin_with_the_prompt_that_is_asked_for_or_with_the_default_one() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    // The second model does not pool the tokens of a prompt, of which "document" has none.
    let names = ["sentence-last-prompt", "sentence-skipped-prompt"];
    let models = names.map(|name| model(name, "mm-repr", &format!("families/{name}")));
    let server = Server::start(&["--model", &models[0], "--model", &models[1]], folder, &[]);
    for name in names {
        let post = |route: &str, more: Value| {
            let mut body = json!({"inputs": "the quick fox", "normalize": false, "model": name});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            server.post(route, &body)
        };
        let vector = |more: Value| numbers(&post("/embed", more).json()[0]);
        let expected = |default: Value| {
            let model = with_default_prompt(&workspace, name, default);
            embedded(&model, &["--text", "the quick fox"], folder)
        };
        let (query, document) = (expected(json!("query")), expected(json!("document")));
        assert_ne!(query, document);
        assert_close(&vector(json!({})), &query);
        assert_close(&vector(json!({"prompt_name": "query"})), &query);
        assert_close(&vector(json!({"prompt_name": "document"})), &document);
        assert_close(&document, &expected(Value::Null));
        let unknown = post("/embed", json!({"prompt_name": "passage"}));
        unknown.refused_by_tei(422, "Validation", "\"passage\", expected one of the prompts of model sentence-");
        unknown.refused_by_tei(422, "Validation", "\"document\", \"query\"");
        let tokens = |more: Value| post("/embed_all", more).json()[0].as_array().unwrap().len();
        assert_eq!(tokens(json!({})), tokens(json!({"prompt_name": "query"})));
        assert!(tokens(json!({})) > tokens(json!({"prompt_name": "document"})));
        let cosine = |parameters: Value| {
            let inputs = json!({"source_sentence": "the quick fox", "sentences": ["a dog"]});
            numbers(&post("/similarity", json!({"inputs": inputs, "parameters": parameters})).json())[0]
        };
        for (parameters, expected) in [(json!({}), &query), (json!({"prompt_name": "document"}), &document)] {
            let mut other = parameters.clone();
            other["inputs"] = json!("a dog");
            let other = vector(other);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let expected = dot(expected, &other) / (dot(expected, expected) * dot(&other, &other)).sqrt();
            assert_close(&[cosine(parameters)], &[expected]);
        }
        // A prompt takes its part of the model's length.
        let long = json!({"inputs": "fox ".repeat(300), "truncate": false, "prompt_name": "document"});
        post("/embed", long).refused_by_tei(413, "Validation", "tokens");
    }
}

#[test]
fn concurrent_requests_get_the_vectors_of_their_own_texts() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(&["--model", "words"], folder, &[]);
    let texts: Vec<String> = (0..40).map(|n| "quick dog ".repeat(1 + n % 7) + ["fox", "cafe", "lazy"][n % 3]).collect();
    let vector =
        |text: &String| numbers(&server.post("/v1/embeddings", &json!({"input": text})).json()["data"][0]["embedding"]);
    let alone: Vec<Vec<f64>> = texts.iter().map(vector).collect();
    let together: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = texts.iter().map(|text| scope.spawn(move || vector(text))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (alone, together) in alone.iter().zip(&together) {
        assert_close(alone, together);
    }
    let metrics = server.get("/metrics").text;
    assert!(metrics.contains("mm_requests_total{route=\"/v1/embeddings\",status=\"200\"} 80"), "{metrics}");
    assert!(metrics.contains("mm_batch_rows_bucket"), "{metrics}");
}
