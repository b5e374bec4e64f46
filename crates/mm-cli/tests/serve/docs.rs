//! The description of the routes, for programs and for people.

use crate::{Server, common::Workspace};
use serde_json::json;

#[test]
fn routes_are_described_for_programs_and_on_a_page() {
    let workspace = Workspace::new();
    let text = "[[model]]\nname = \"words\"\npath = \"words\"\n[[key]]\nname = \"team\"\nkey = \"0123456789abcdef\"\n";
    workspace.write("serve.toml", text);
    let server = Server::start(&["--config", "serve.toml"], workspace.path(), &[]);
    let document = server.get("/openapi.json").json();
    let body = |path: &str| &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_ne!(body("/predict"), body("/predict/{model}"), "bodies of one name");
    assert_eq!(document["paths"]["/media"]["get"]["parameters"][0]["in"], "query");
    assert_eq!(document["paths"]["/mcp"]["post"]["tags"], json!(["mcp"]));
    let answers = |path: &str| {
        let content = document["paths"][path]["post"]["responses"]["200"]["content"].as_object().unwrap();
        content.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(answers("/v1/chat/completions"), ["application/json", "text/event-stream"]);
    assert_eq!(answers("/v1/audio/transcriptions"), ["application/json", "text/plain", "text/vtt"]);

    let page = server.get("/docs");
    assert_eq!(page.status, 200);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    // Commands of the page can be pasted, but for the key.
    for expected in [
        format!("curl {}/embed \\", server.url),
        "-H &#39;Authorization: Bearer KEY&#39;".to_owned(),
        "-d &#39;{&quot;inputs&quot;:[&quot;a dog&quot;,&quot;a cat&quot;]}&#39;".to_owned(),
        "<code>inputs.source_sentence</code>".to_owned(),
        "<code>/mcp</code>".to_owned(),
        "application/json: object; text/event-stream: object".to_owned(),
    ] {
        assert!(page.text.contains(&expected), "{expected}");
    }
    assert!(!page.text.contains("0123456789abcdef") && !page.text.contains("{{"));
}
