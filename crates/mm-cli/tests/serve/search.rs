//! Search in a store of `mm index`, and the page.

use crate::{
    Server,
    common::{Workspace, mm, text},
    data_uri, model,
};
use serde_json::{Value, json};

pub fn build(workspace: &Workspace) {
    let clip = crate::common::fixture("mm-repr", "families/clip-eos-gelu");
    let arguments = ["index", "build", "data.jsonl", "--model", clip.to_str().unwrap(), "--store", "photos.index"];
    let output = mm(&[&arguments[..], &["--modality", "image", "--device", "cpu"]].concat(), workspace.path());
    assert!(output.status.success(), "{}", text(&output));
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["results"].as_array().unwrap().iter().map(|result| result["id"].as_str().unwrap()).collect()
}

#[test]
fn a_store_is_searched_by_image_text_words_filter_and_row() {
    let workspace = Workspace::new();
    build(&workspace);
    let folder = workspace.path();
    let clip = model("clip", "mm-repr", "families/clip-eos-gelu");
    let server = Server::start(&["--model", &clip, "--store", "photos.index"], folder, &[]);
    let search = |body: Value| server.post("/search", &body);
    let picture = data_uri(&folder.join("4.png"), "image/png");
    let found = search(json!({"image": picture, "k": 3})).json();
    assert_eq!((ids(&found)[0], ids(&found).len()), ("4", 3), "{found}");
    assert!((found["results"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-3);
    let link = found["results"][0]["media"][0]["url"].as_str().unwrap();
    let media = server.get(link);
    assert_eq!((media.status, &media.headers["content-type"]), (200, &"image/png".parse().unwrap()));
    assert!(media.text.contains("PNG"));
    assert_eq!(ids(&search(json!({"like": "4", "k": 12})).json()).len(), 11);
    assert_eq!(ids(&search(json!({"words": "twice"})).json()), ["6"]);
    assert_eq!(search(json!({"text": "a dog", "hybrid": true, "k": 5})).json()["steps"].as_array().unwrap().len(), 2);
    let filtered = search(json!({"text": "a dog", "filter": "split = \"test\"", "k": 20})).json();
    assert_eq!(ids(&filtered).len(), 4, "{filtered}");
    let about = server.get("/index").json();
    assert_eq!((&about["rows"], &about["words"]), (&json!(12), &json!(true)));
    assert_eq!(about["modalities"], json!(["text", "image"]));
    search(json!({"text": "a", "filter": "split = "})).refused(400, "filter:");
    search(json!({"text": "a", "filter": "splt = 1"})).refused(400, "split");
    search(json!({"text": "a", "image": picture})).refused(400, "several queries");
    search(json!({})).refused(400, "no query");
    search(json!({"text": "a", "limit": 3})).refused(400, "limit");
    search(json!({"text": "a", "k": 0})).refused(400, "k: found 0");
    search(json!({"like": "none"})).refused(404, "no row \"none\"");
    search(json!({"text": "a", "vectors": ["imag"]})).refused(400, "image");
    server.get("/media?id=4&field=text").refused(404, "no image");
    server.post("/upsert", &json!({"rows": [{"id": "x"}]})).refused(400, "--writable");
    server.post("/delete", &json!({"ids": ["4"]})).refused(400, "--writable");
    let page = server.get("/");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(page.text.contains("<title>") && policy.contains("default-src 'none'"), "{policy}");
    let routes = server.get("/openapi.json").json();
    assert!(routes["paths"]["/search"]["post"].is_object() && routes["paths"]["/v1/embeddings"].is_object());
}

#[test]
fn rows_are_written_and_deleted_where_the_server_allows_it() {
    let workspace = Workspace::new();
    build(&workspace);
    let folder = workspace.path();
    let clip = model("clip", "mm-repr", "families/clip-eos-gelu");
    let arguments = ["--model", &clip, "--store", "photos.index", "--writable"];
    let server = Server::start(&arguments, folder, &[]);
    // The image of row 4 under another id, with a field of its own.
    let picture = data_uri(&folder.join("4.png"), "image/png");
    let row = json!({"id": "new", "image": picture, "text": "seventeen", "payload": {"year": 1999}});
    assert_eq!(server.post("/upsert", &json!({"rows": [row]})).json()["rows"], 1);
    let found = server.post("/search", &json!({"image": picture, "k": 2})).json();
    assert!(ids(&found).contains(&"new") && ids(&found).contains(&"4"), "{found}");
    assert_eq!(ids(&server.post("/search", &json!({"words": "seventeen", "filter": "year < 2000"})).json()), ["new"]);
    // A row over HTTP cannot make the server send its files.
    let secret = folder.join("1.png");
    let row = json!({"id": "leak", "payload": {"image": secret}});
    server.post("/upsert", &json!({"rows": [row]})).refused(400, "no path of a file");
    // A request of which a row would be lost writes none.
    for (row, wanted) in [
        (json!({"id": "lost"}), "rows[1]: found no value"),
        (json!({"id": "lost", "text": "a", "txt": "b"}), "txt"),
        (json!({"id": "lost", "text": "a", "audio": "aGk="}), "rows[1].audio"),
        (json!({"id": "lost", "image": "bm90IGFuIGltYWdl"}), "rows[1].image"),
        (json!({"id": "kept", "text": "a"}), "rows[1].id"),
    ] {
        server.post("/upsert", &json!({"rows": [{"id": "kept", "text": "b"}, row]})).refused(400, wanted);
    }
    // A page of another site, and another name of this machine.
    let body = json!({"ids": ["4"]}).to_string();
    for header in [("origin", "https://example.com"), ("sec-fetch-site", "cross-site"), ("host", "example.com")] {
        server.post_bytes("/delete", "application/json", body.as_bytes(), &[header]).refused(403, "");
    }
    assert_eq!(server.post("/delete", &json!({"ids": ["new", "none"]})).json()["rows"], 1);
    drop(server);
    // What was acknowledged is on disk.
    let server = Server::start(&arguments, folder, &[]);
    assert_eq!(server.get("/index").json()["rows"], 12);
}
