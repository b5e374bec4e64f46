//! `/mcp`: the tools of a server, in the protocol's own messages.

use crate::{
    Answer, Server, assert_close,
    common::{Workspace, fixture},
    data_uri, embedded, model, numbers,
    search::build,
};
use serde_json::{Value, json};

/// Sends a request of the protocol.
fn send(server: &Server, method: &str, params: Value, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string();
    let accept = [("accept", "application/json, text/event-stream"), ("mcp-protocol-version", "2025-06-18")];
    server.post_bytes("/mcp", "application/json", body.as_bytes(), &[&accept, headers].concat())
}

/// The result of a request that must have succeeded.
fn result(server: &Server, method: &str, params: Value) -> Value {
    let mut answer = send(server, method, params, &[]).json();
    assert_eq!(answer["id"], 7, "{answer}");
    assert!(answer["error"].is_null(), "{answer}");
    answer["result"].take()
}

fn call(server: &Server, tool: &str, arguments: Value) -> Value {
    result(server, "tools/call", json!({"name": tool, "arguments": arguments}))
}

/// The text of a tool's error.
fn refused(answer: &Value) -> &str {
    assert_eq!(answer["isError"], true, "{answer}");
    answer["content"][0]["text"].as_str().unwrap()
}

fn names(server: &Server) -> Vec<String> {
    let tools = result(server, "tools/list", json!({}));
    tools["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_store_and_its_model_are_tools() {
    let workspace = Workspace::new();
    build(&workspace);
    let folder = workspace.path();
    let clip = model("clip", "mm-repr", "families/clip-eos-gelu");
    let server = Server::start(&["--model", &clip, "--store", "photos.index"], folder, &[]);
    let client = json!({"name": "test", "version": "1"});
    let start = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    let about = result(&server, "initialize", start);
    assert_eq!((&about["protocolVersion"], &about["serverInfo"]["name"]), (&json!("2025-06-18"), &json!("mm")));
    assert!(about["instructions"].as_str().unwrap().contains("Models: clip."), "{about}");
    // What the model cannot do is not offered.
    assert_eq!(names(&server), ["search", "embed", "classify"]);
    let tools = result(&server, "tools/list", json!({}));
    assert_eq!(tools["tools"][0]["inputSchema"]["properties"]["k"]["type"], "integer", "{tools}");
    assert_eq!(tools["tools"][0]["annotations"]["readOnlyHint"], true);

    let picture = folder.join("4.png");
    let found = call(&server, "search", json!({"image": data_uri(&picture, "image/png"), "k": 2}));
    assert_eq!(found["structuredContent"]["results"][0]["id"], "4", "{found}");
    let text: Value = serde_json::from_str(found["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, found["structuredContent"]);
    // The same vector as the program's.
    let vector = call(&server, "embed", json!({"image": data_uri(&picture, "image/png")}));
    let checkpoint = fixture("mm-repr", "families/clip-eos-gelu");
    let expected = embedded(&checkpoint, &["--image", picture.to_str().unwrap()], folder);
    assert_close(&numbers(&vector["structuredContent"]["embedding"]), &expected);
    let labels = json!({"image": [data_uri(&picture, "image/png")], "candidates": ["a dog", "a cat"], "k": 1});
    let classes = call(&server, "classify", labels);
    assert_eq!(classes["structuredContent"]["data"][0]["results"].as_array().unwrap().len(), 1, "{classes}");

    // What a caller can mend is said to it.
    assert!(refused(&call(&server, "search", json!({"image": "!"}))).contains("not base64"));
    assert!(refused(&call(&server, "search", json!({"txt": "a"}))).contains("did you mean `text`"));
    assert!(refused(&call(&server, "search", json!({"text": 3}))).starts_with("text: invalid type"));
    assert!(refused(&call(&server, "embed", json!({}))).contains("one of text, image, audio and video"));
    let unknown = send(&server, "tools/call", json!({"name": "serach", "arguments": {}}), &[]).json();
    assert!(unknown["error"]["message"].as_str().unwrap().contains("`search`"), "{unknown}");
    let none = send(&server, "tools/call", json!({"name": "caption", "arguments": {}}), &[]).json();
    assert_eq!(none["error"]["code"], -32602, "{none}");
}

#[test]
fn a_tool_transcribes_captions_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let whisper = model("whisper", "mm-reason", "whisper-english");
    let blip = model("blip", "mm-reason", "blip-caption");
    let server = Server::start(&["--model", &whisper, "--model", &blip], folder.path(), &[]);
    assert_eq!(names(&server), ["caption", "answer", "transcribe"]);
    let speech = fixture("mm-repr", "families/inputs/short16.wav");
    let transcript = call(&server, "transcribe", json!({"audio": data_uri(&speech, "audio/wav")}));
    assert!(transcript["structuredContent"]["text"].is_string(), "{transcript}");
    assert!(transcript["structuredContent"]["segments"].is_array(), "{transcript}");
    assert!(transcript["structuredContent"]["language"].is_string(), "{transcript}");
    assert!(refused(&call(&server, "transcribe", json!({"audio": "aGk="}))).starts_with("audio: "));
    let photo = data_uri(&fixture("mm-repr", "photo.png"), "image/png");
    let caption = call(&server, "caption", json!({"image": photo, "max_new_tokens": 5}));
    let expected = server.post("/caption", &json!({"image": photo, "max_new_tokens": 5})).json();
    assert_eq!(caption["structuredContent"], expected);
}

#[test]
fn the_tools_are_guarded_as_every_route() {
    let folder = tempfile::tempdir().unwrap();
    let clip = model("clip", "mm-repr", "families/clip-eos-gelu");
    let key = "0123456789abcdef0123";
    let config = "[[key]]\nname = \"team\"\nkey_env = \"MM_TEST_KEY\"\n[limits]\nmax_body_bytes = 10000\n";
    std::fs::write(folder.path().join("serve.toml"), config).unwrap();
    let server = Server::start(&["--config", "serve.toml", "--model", &clip], folder.path(), &[("MM_TEST_KEY", key)]);
    let bearer = format!("Bearer {key}");
    let key = ("authorization", bearer.as_str());
    send(&server, "tools/list", json!({}), &[]).refused(401, "key");
    assert_eq!(send(&server, "tools/list", json!({}), &[key]).status, 200);
    // A page of another site, and a name of this machine that another site chose.
    assert_eq!(send(&server, "tools/list", json!({}), &[key, ("origin", "https://example.com")]).status, 403);
    assert_eq!(send(&server, "tools/list", json!({}), &[key, ("host", "example.com")]).status, 403);
    let long = json!({"name": "embed", "arguments": {"text": "a ".repeat(10_000)}});
    send(&server, "tools/call", long, &[key]).refused(413, "max_body_bytes");
    let broken =
        server.post_bytes("/mcp", "application/json", b"{", &[key, ("accept", "application/json, text/event-stream")]);
    assert_eq!(broken.status / 100, 4, "{}", broken.text);
}
