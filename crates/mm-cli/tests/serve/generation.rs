//! Text that models generate: chat, captions, answers, transcripts.

use crate::{
    Answer, Server,
    common::{Workspace, fixture, mm, text},
    data_uri, model,
};
use mm_core::{Modality, Source};
use mm_reason::{Pipeline, Request};
use mm_repr::LoadOptions;
use serde_json::{Value, json};
use std::path::Path;

/// The one line of JSON that a command prints.
fn line(arguments: &[&str], folder: &Path) -> Value {
    let output = mm(&[arguments, &["--json", "--device", "cpu"]].concat(), folder);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
}

#[test]
fn images_are_captioned_and_questions_answered_as_by_the_commands() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let (captioner, answerer) = (fixture("mm-reason", "blip-caption"), fixture("mm-reason", "blip-vqa"));
    let models = [model("caption", "mm-reason", "blip-caption"), model("vqa", "mm-reason", "blip-vqa")];
    let vilt = model("vilt", "mm-reason", "vilt-vqa");
    let server = Server::start(&["--model", &models[0], "--model", &models[1], "--model", &vilt], folder, &[]);
    let picture = data_uri(&folder.join("1.png"), "image/png");
    let expected = line(&["caption", "--model", captioner.to_str().unwrap(), "--image", "1.png"], folder);
    let found = server.post("/caption", &json!({"model": "caption", "image": picture})).json();
    assert_eq!(found["text"], expected["text"].as_str().unwrap().trim(), "{found}");
    assert!((found["score"].as_f64().unwrap() - expected["score"].as_f64().unwrap()).abs() < 1e-5);
    let question = ["--image", "1.png", "--question", "the quick"];
    for (name, folder_of) in [("vqa", answerer), ("vilt", fixture("mm-reason", "vilt-vqa"))] {
        let expected = line(&[&["answer", "--model", folder_of.to_str().unwrap()], &question[..]].concat(), folder);
        let body = json!({"model": name, "image": picture, "question": "the quick", "explain": true});
        let found = server.post("/answer", &body).json();
        assert_eq!(found["answer"], expected["answer"], "{found}");
        assert!(found["heat_map"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"), "{name}");
        let score = |value: &Value| value["results"][0]["score"].as_f64().unwrap();
        assert!((score(&found) - score(&expected)).abs() < 1e-5, "{found} {expected}");
    }
    server.post("/answer", &json!({"model": "vqa", "image": picture, "question": " "})).refused(400, "question");
    server.post("/answer", &json!({"model": "vqa", "question": "the"})).refused(400, "image: found none");
    server.post("/caption", &json!({"model": "caption", "image": "bm90IGFuIGltYWdl"})).refused(400, "image");
    server.post("/caption", &json!({"model": "vilt", "image": picture})).refused(400, "expected one that captions");
    let unknown = "unknown field `max_tokens`";
    server.post("/caption", &json!({"image": picture, "max_tokens": 5})).refused(400, unknown);
    server.post("/answer", &json!({"image": picture, "question": "a", "max_tokens": 5})).refused(400, unknown);
}

#[test]
fn a_conversation_is_continued_at_once_or_in_parts() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(&["--model", &model("qwen", "mm-reason", "qwen2_vl-image")], folder, &[]);
    let picture = data_uri(&folder.join("1.png"), "image/png");
    let content = json!([{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "the quick"}]);
    let body = |more: Value| {
        let mut body = json!({"model": "qwen", "max_tokens": 6, "messages": [{"role": "user", "content": content}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let whole = server.post("/v1/chat/completions", &body(json!({"temperature": 0}))).json();
    let message = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!message.is_empty() && whole["usage"]["prompt_tokens"].as_u64().unwrap() > 3, "{whole}");
    let streamed = server.post("/v1/chat/completions", &body(json!({"temperature": 0, "stream": true})));
    assert_eq!(streamed.headers["content-type"], "text/event-stream");
    let events: Vec<&str> = streamed.text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> = events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    let parts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(parts.collect::<String>(), message);
    assert!(chunks.last().unwrap()["choices"][0]["finish_reason"].is_string());
    let asked = json!({"temperature": 0, "stream": true, "stream_options": {"include_usage": true}});
    let streamed = server.post("/v1/chat/completions", &body(asked)).text;
    let events: Vec<&str> = streamed.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let last: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    let unseeded = || server.post("/v1/chat/completions", &body(json!({"temperature": 2.0}))).json()["choices"].clone();
    assert!((0..8).any(|_| unseeded() != unseeded()));
    let sampled = |seed: u64| {
        let body = body(json!({"temperature": 1.0, "seed": seed, "n": 2}));
        server.post("/v1/chat/completions", &body).json()["choices"].clone()
    };
    assert_eq!(sampled(1), sampled(1));
    assert_eq!(sampled(1).as_array().unwrap().len(), 2);
    let refused = |more: Value, status: u16, wanted: &str| {
        server.post("/v1/chat/completions", &body(more)).refused(status, wanted);
    };
    refused(json!({"temperature": 9}), 400, "temperature: found 9");
    refused(json!({"n": 1_000_000}), 413, "n: found 1000000");
    refused(json!({"max_tokens": 1_000_000_000}), 413, "at most");
    refused(json!({"messages": []}), 400, "messages: found none");
    refused(json!({"messages": [{"role": "robot", "content": "a"}]}), 400, "messages[0].role");
    refused(json!({"tools": [{}]}), 400, "tools");
    refused(json!({"messages": 3}), 400, "messages");
    for (name, value) in [
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(-1)),
        ("logit_bias", json!({"7": 1})),
        ("functions", json!([{"name": "a"}])),
        ("function_call", json!({"name": "a"})),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("min_p", json!(0.1)),
        ("min_tokens", json!(2)),
        ("stop_token_ids", json!([1])),
        ("ignore_eos", json!(true)),
        ("guided_json", json!({})),
        ("guided_regex", json!("a+")),
        ("guided_choice", json!(["a"])),
        ("guided_grammar", json!("root ::= \"a\"")),
    ] {
        refused(json!({name: value}), 400, &format!("{name}: found {value}, expected"));
    }
    let unchanged = json!({
        "temperature": 0, "tools": [], "functions": null, "function_call": "none", "logprobs": false, "min_p": 0.0,
        "presence_penalty": 0, "logit_bias": {}, "ignore_eos": false, "user": "me", "metadata": {"a": "b"}, "store": true,
    });
    assert_eq!(server.post("/v1/chat/completions", &body(unchanged)).json()["choices"], whole["choices"]);
    let long = json!([{"role": "user", "content": "the quick ".repeat(3000)}]);
    refused(json!({"messages": long}), 400, "positions");
    refused(json!({"messages": long, "stream": true}), 400, "positions");
    refused(json!({"messages": long, "max_tokens": null}), 400, "positions");
}

/// Number of batches of texts or vectors, and of their rows.
fn batches(server: &Server) -> (f64, f64) {
    let metrics = server.get("/metrics").text;
    // A line for each model.
    let value = |name: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    (value("mm_batch_rows_count"), value("mm_batch_rows_sum"))
}

/// Asks for the transcript of a file.
pub fn post_speech(server: &Server, fields: &[(&str, &str)], file: &[u8]) -> Answer {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    let head =
        "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\ncontent-type: audio/wav\r\n\r\n";
    body.extend(head.bytes().chain(file.iter().copied()).chain(*b"\r\n--b--\r\n"));
    server.post_bytes("/v1/audio/transcriptions", "multipart/form-data; boundary=b", &body, &[])
}

#[test]
fn concurrent_requests_for_texts_are_one_batch_and_each_gets_its_own() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let models = [
        model("caption", "mm-reason", "blip-caption"),
        model("qwen", "mm-reason", "qwen2_vl-image"),
        model("vqa", "mm-reason", "blip-vqa"),
        model("vilt", "mm-reason", "vilt-vqa"),
        model("whisper", "mm-reason", "whisper-multilingual"),
    ];
    let arguments: Vec<&str> = models.iter().flat_map(|model| ["--model", model.as_str()]).collect();
    let server = Server::start(&arguments, folder, &[]);
    let picture = |n: usize| data_uri(&folder.join(format!("{}.png", n % 6)), "image/png");
    let caption = |n: usize| {
        // Prompts of different lengths, two sets of options, and a request that is wrong.
        let prompt = ["", "the", "the quick"][n % 3];
        let image = if n == 5 { "bm90IGFuIGltYWdl".to_owned() } else { picture(n) };
        let body = json!({"model": "caption", "image": image, "prompt": prompt, "max_new_tokens": 3 + n % 2});
        let answer = server.post("/caption", &body);
        if n == 5 { Value::from(answer.status) } else { answer.json() }
    };
    let chat = |n: usize| {
        let mut content = vec![json!({"type": "text", "text": "the quick dog ".repeat(1 + n % 3)})];
        if !n.is_multiple_of(3) {
            content.insert(0, json!({"type": "image_url", "image_url": {"url": picture(n)}}));
        }
        let messages = json!([{"role": "user", "content": content}]);
        let body = json!({"model": "qwen", "max_tokens": 5, "temperature": 0, "messages": messages});
        let answer = server.post("/v1/chat/completions", &body).json();
        json!([answer["choices"], answer["usage"]])
    };
    let question = |name: &str, n: usize| {
        // Some choose among candidates, one asks for an explanation.
        let candidates = if name == "vqa" && n.is_multiple_of(4) { json!(["yes", "no"]) } else { json!([]) };
        let question = ["the", "the quick", "the quick brown dog"][n % 3];
        let body = json!({
            "model": name, "image": picture(n), "question": question, "candidates": candidates, "explain": n == 7,
        });
        server.post("/answer", &body).json()["results"].as_array().unwrap()[0].clone()
    };
    let (ask_generator, ask_classifier) = (|n| question("vqa", n), |n| question("vilt", n));
    let transcript = |n: usize| {
        let file = std::fs::read(folder.join(format!("{}.wav", n % 6))).unwrap();
        let file = if n == 5 { b"no recording".to_vec() } else { file };
        let format = ["json", "verbose_json"][n % 2];
        let answer = post_speech(&server, &[("model", "whisper"), ("response_format", format)], &file);
        if n == 5 { Value::from(answer.status) } else { answer.json() }
    };
    for ask in [&caption as &(dyn Fn(usize) -> Value + Sync), &chat, &ask_generator, &ask_classifier, &transcript] {
        let alone: Vec<Value> = (0..18).map(ask).collect();
        let before = batches(&server);
        let together: Vec<Value> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..18).map(|n| scope.spawn(move || ask(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let after = batches(&server);
        for (alone, together) in alone.iter().zip(&together) {
            let text = |value: &Value| {
                let mut value = value.clone();
                // Rounding of another batch.
                value.as_object_mut().map(|object| (object.remove("score"), object.remove("logit")));
                value
            };
            assert_eq!(text(alone), text(together));
        }
        let (count, rows) = (after.0 - before.0, after.1 - before.1);
        assert!(count < rows, "{rows} texts in {count} batches");
    }
}

/// The name of the language whose token is the most probable one for a recording.
fn detected_language(recording: &Path) -> &'static str {
    let model = Pipeline::load(&fixture("mm-reason", "whisper-multilingual"), LoadOptions::default()).unwrap();
    let media = model.encode_media(&Modality::AUDIO, &[Source::Path(recording.into())]).unwrap();
    let request = Request::Transcribe { language: None, timestamps: true };
    let prompt = model.prompt(Some(&media), request).unwrap();
    match model.tokenizer.id_to_token(prompt.decoder_input_ids[1]).unwrap().as_str() {
        "<|en|>" => "english",
        "<|de|>" => "german",
        "<|fr|>" => "french",
        other => panic!("{other}"),
    }
}

#[test]
fn speech_is_transcribed_in_every_format() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let whisper = fixture("mm-reason", "whisper-english");
    let english = model("whisper", "mm-reason", "whisper-english");
    let several = model("several", "mm-reason", "whisper-multilingual");
    let server = Server::start(&["--model", &english, "--model", &several], folder, &[]);
    let expected = line(&["transcribe", "--model", whisper.to_str().unwrap(), "--audio", "1.wav"], folder);
    let expected = expected["text"].as_str().unwrap().trim();
    let post = |fields: &[(&str, &str)], file: &[u8]| post_speech(&server, fields, file);
    let file = std::fs::read(folder.join("1.wav")).unwrap();
    assert_eq!(post(&[("model", "whisper")], &file).json()["text"], expected);
    assert_eq!(post(&[("response_format", "text")], &file).text.trim(), expected);
    let verbose = post(&[("response_format", "verbose_json")], &file).json();
    assert!(verbose["segments"].is_array() && verbose["language"] == "english", "{verbose}");
    // The language has its English name, whether it is given or detected.
    let in_language = |language: &str| {
        let fields = [("model", "several"), ("response_format", "verbose_json"), ("language", language)];
        post(&fields, &file).json()
    };
    assert_eq!(in_language("de")["language"], "german");
    assert_eq!(in_language("French")["language"], "french");
    assert_eq!(in_language("")["language"], detected_language(&folder.join("1.wav")));
    let seconds = mm_data::decode::decode_audio_bytes(&file, None).unwrap().seconds();
    assert!((verbose["duration"].as_f64().unwrap() - seconds).abs() < 1e-6, "{verbose}");
    assert!(post(&[("response_format", "vtt")], &file).text.starts_with("WEBVTT"));
    post(&[("response_format", "xml")], &file).refused(400, "response_format");
    post(&[("prompt", "names")], &file).refused(400, "prompt");
    post(&[("timestamp_granularities[]", "word")], &file).refused(400, "timestamp_granularities[]");
    post(&[("timestamp_granularities", "word")], &file).refused(400, "timestamp_granularities: found word");
    post(&[("chunking_strategy", "auto")], &file).refused(400, "chunking_strategy: found a field that is not known");
    for yes in ["true", "True", "1"] {
        post(&[("stream", yes)], &file).refused(400, &format!("stream: found {yes}, expected false"));
    }
    let unchanged = [("model", "whisper"), ("stream", "False"), ("prompt", ""), ("user", "me")];
    assert_eq!(post(&unchanged, &file).json()["text"], expected);
    post(&[], b"").refused(400, "file: found no bytes");
    post(&[], b"not audio").refused(400, "file");
    let empty = {
        let mut header = file[..44].to_vec();
        header[40..44].fill(0);
        header
    };
    assert_eq!(post(&[], &empty).status, 400);
}
