//! What a server refuses, and how it ends.

use crate::{
    Server,
    clients::{metric, wait_until},
    common::{Workspace, refused},
};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

fn config(workspace: &Workspace, text: &str) {
    workspace.write("serve.toml", format!("[[model]]\nname = \"words\"\npath = \"words\"\n{text}"));
}

#[test]
fn wrong_requests_have_their_status_and_one_message() {
    let workspace = Workspace::new();
    config(&workspace, "[limits]\nmax_inputs = 3\nmax_body_bytes = 2000\nmax_pixels = 1000\n");
    let server = Server::start(&["--config", "serve.toml", "--model", "eyes"], workspace.path(), &[]);
    let embed = |body: serde_json::Value| server.post("/v1/embeddings", &body);
    embed(json!({"input": "a", "model": "word"})).refused(404, "did you mean `words`?");
    embed(json!({"input": []})).refused(400, "at least one");
    embed(json!({"input": ""})).refused(400, "an empty text");
    embed(json!({"input": {"image": 3}})).refused(400, "input: found");
    embed(json!({"input": [1, 2]})).refused(400, "token ids");
    embed(json!({"input": ["a", "b", "c", "d"]})).refused(413, "4 inputs");
    embed(json!({"input": "a".repeat(3000)})).refused(413, "max_body_bytes");
    embed(json!({"input": "a", "dimensions": 100_000})).refused(400, "dimensions");
    embed(json!({"input": "a", "encoding_format": "hex"})).refused(400, "encoding_format");
    embed(json!({"input": {"image": "aGVsbG8="}, "model": "words"})).refused(400, "takes text, not image");
    embed(json!({"input": {"image": "aGVsbG8="}, "model": "eyes"})).refused(400, "input");
    embed(json!({"input": {"image": "http://localhost/a.png"}, "model": "eyes"})).refused(400, "--fetch-from");
    embed(json!({"input": {"image": "file:///etc/passwd"}, "model": "eyes"})).refused(400, "scheme file");
    let picture = crate::data_uri(&workspace.path().join("1.png"), "image/png");
    embed(json!({"input": {"image": picture}, "model": "eyes"})).refused(413, "40 × 36 pixels");
    let raw = |body: &[u8]| server.post_bytes("/v1/embeddings", "application/json", body, &[]);
    raw(b"{\"input\": ").refused(400, "EOF");
    raw(b"\xff\xfe").refused(400, "the body");
    server.get("/v1/embedding").refused(404, "no route /v1/embedding");
    server.get("/v1/embeddings").refused(405, "another method");
    server.post("/search", &json!({"text": "a"})).refused(404, "--store");
    let answer = embed(json!({"input": "a"}));
    assert!(answer.status == 200 && answer.headers.contains_key("x-request-id"));
}

#[test]
fn a_server_with_keys_answers_those_who_have_one_within_their_rate() {
    let workspace = Workspace::new();
    config(&workspace, "[[key]]\nname = \"team\"\nkey_env = \"TEAM_KEY\"\nrequests_per_minute = 3\n");
    let folder = workspace.path();
    let server = Server::start(&["--config", "serve.toml"], folder, &[("TEAM_KEY", "0123456789abcdef")]);
    let post =
        |headers: &[(&str, &str)]| server.post_bytes("/embed", "application/json", b"{\"inputs\": \"a\"}", headers);
    // Errors have the form of their route.
    post(&[]).refused_by_tei(401, "Validation", "Authorization: Bearer KEY");
    post(&[("authorization", "Bearer 0123456789abcdeF")]).refused_by_tei(401, "Validation", "not one of");
    server.post("/v1/embeddings", &json!({"input": "a"})).refused(401, "Authorization: Bearer KEY");
    post(&[("origin", "https://example.org")]).refused_by_tei(403, "Validation", "");
    let key = [("authorization", "Bearer 0123456789abcdef")];
    let statuses: Vec<u16> = (0..4).map(|_| post(&key).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    post(&key).refused_by_tei(429, "Overloaded", "key team");
    assert!(post(&key).headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!((server.get("/health").status, server.get("/metrics").status), (200, 401));
    refused(&["serve", "--config", "serve.toml", "--port", "0"], folder, &["key team", "TEAM_KEY"]);
}

#[test]
fn wrong_settings_end_the_server_with_one_message() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    refused(&["serve"], folder, &["--model", "--store"]);
    refused(&["serve", "--model", "wrods", "--port", "0"], folder, &["wrods"]);
    refused(&["serve", "--store", "none.index", "--port", "0"], folder, &["none.index"]);
    std::fs::create_dir_all(folder.join("empty")).unwrap();
    refused(&["serve", "--model", "empty", "--port", "0"], folder, &["model empty cannot be loaded", "config.json"]);
    workspace.write("serve.toml", "[limits]\nmax_input = 3\n");
    refused(&["serve", "--config", "serve.toml"], folder, &["serve.toml", "max_input"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(&["serve", "--model", "words", "--port", &port], folder, &["cannot listen on", &port, "--port"]);
}

#[test]
fn a_server_that_is_asked_to_stop_answers_what_it_accepted_and_ends_with_success() {
    let workspace = Workspace::new();
    let server = Server::start(&["--model", "words"], workspace.path(), &[]);
    let texts: Vec<String> = (0..500).map(|n| format!("the quick fox {n}")).collect();
    let status = std::thread::scope(|scope| {
        let request = scope.spawn(|| server.post("/embed", &json!({"inputs": texts})).status);
        std::thread::sleep(Duration::from_millis(30));
        server.signal("TERM");
        request.join().unwrap()
    });
    // Accepted before the signal and answered, or refused after it: never cut.
    assert!(matches!(status, 200 | 503), "{status}");
    assert_eq!(server.wait().code(), Some(0));
}

/// The head and body of an answer on a new connection; `None` where it is refused.
fn answer_on_new_connection(address: &str, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_server_that_stops_says_so_to_new_connections_before_it_refuses_them() {
    let workspace = Workspace::new();
    config(&workspace, "[limits]\nnotice_seconds = 3\n");
    let server = Server::start(&["--config", "serve.toml"], workspace.path(), &[]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let ask = |request: &str| answer_on_new_connection(&address, request);
    let ready = || ask("GET /ready HTTP/1.0\r\nhost: localhost\r\n\r\n");
    assert!(ready().unwrap().starts_with("HTTP/1.0 200"));
    server.signal("TERM");
    let started = Instant::now();
    let stopping = loop {
        let answer = ready().expect("the server refuses connections at once");
        if answer.starts_with("HTTP/1.0 503") {
            break answer;
        }
        assert!(started.elapsed() < Duration::from_secs(2), "{answer}");
    };
    assert!(stopping.contains("retry-after: 5") && stopping.contains("about to stop"), "{stopping}");
    let post = "POST /embed HTTP/1.0\r\nhost: localhost\r\ncontent-length: 15\r\n\r\n{\"inputs\": \"a\"}";
    let refused = ask(post).unwrap();
    assert!(refused.starts_with("HTTP/1.0 503") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("\"error_type\":\"Unhealthy\""), "{refused}");
    assert!(ask("GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap().starts_with("HTTP/1.0 200"));
    assert_eq!(server.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(ready().is_none_or(|answer| answer.is_empty()));
}

#[test]
fn ctrl_c_and_a_second_signal_end_a_server_at_once() {
    let workspace = Workspace::new();
    config(&workspace, "[limits]\nnotice_seconds = 30\n");
    for signals in [&["INT"][..], &["TERM", "TERM"]] {
        let server = Server::start(&["--config", "serve.toml"], workspace.path(), &[]);
        let started = Instant::now();
        for signal in signals {
            server.signal(signal);
            std::thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(server.wait().code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(15), "{signals:?}: {:?}", started.elapsed());
    }
}

#[test]
fn a_client_that_sends_slowly_or_too_much_is_cut_off() {
    let workspace = Workspace::new();
    config(&workspace, "[limits]\nread_seconds = 1\n");
    let server = Server::start(&["--config", "serve.toml"], workspace.path(), &[]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let connect = || TcpStream::connect(&address).unwrap();
    // Neither the head nor the body comes to an end.
    for head in
        ["GET /health HTTP/1.1\r\nhost: a\r\n", "POST /embed HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"]
    {
        let mut stream = connect();
        stream.write_all(head.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (started, mut answer) = (Instant::now(), String::new());
        let _ = stream.read_to_string(&mut answer);
        assert!(started.elapsed() < Duration::from_secs(15), "{head:?}");
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    let mut stream = connect();
    let headers: String = (0..10_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let _ = stream.write_all(format!("GET /health HTTP/1.1\r\nhost: a\r\n{headers}\r\n").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.contains(" 200 "), "{answer}");
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn what_clients_asked_for_is_not_computed_once_they_disconnected() {
    const CLIENTS: usize = 1000;
    let workspace = Workspace::new();
    // Room for all: none is refused.
    config(&workspace, "[limits]\nmax_requests = 2000\n");
    let server = Server::start(&["--config", "serve.toml"], workspace.path(), &[]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let texts: Vec<String> = (0..64).map(|n| format!("{} {n}", "the quick fox ".repeat(30))).collect();
    let body = json!({"inputs": texts}).to_string();
    let head = format!("POST /embed HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        // Dropped, so closed, before an answer can come.
    }
    // Each ends without an answer, or with one that nobody reads.
    let counted = |name: &str| metric(&server, &format!("{name}{{route=\"/embed\""));
    let ended = || counted("mm_requests_cancelled_total") + counted("mm_requests_total");
    wait_until("all requests have ended", 60, || ended() >= CLIENTS as f64);
    assert_eq!(server.post("/embed", &json!({"inputs": "a dog"})).status, 200);
    let cancelled = counted("mm_requests_cancelled_total");
    let rows = metric(&server, "mm_batch_rows_sum");
    assert!(cancelled > 0.75 * CLIENTS as f64, "{cancelled} of {CLIENTS} requests were cancelled");
    assert!(rows < (CLIENTS * texts.len() / 4) as f64, "{rows} rows were computed");
    assert_eq!(metric(&server, "mm_requests_total{route=\"/embed\",status=\"429\"}"), 0.0);
    wait_until("no request is worked on", 20, || metric(&server, "mm_requests_in_progress") == 0.0);
}

#[test]
fn more_dimensions_than_the_model_has_are_refused_before_anything_is_computed() {
    let workspace = Workspace::new();
    let server = Server::start(&["--model", "words"], workspace.path(), &[]);
    let wanted = "those of model words";
    server.post("/v1/embeddings", &json!({"input": "a", "dimensions": 100_000})).refused(400, wanted);
    server.post("/embed", &json!({"inputs": "a", "dimensions": 100_000})).refused_by_tei(422, "Validation", wanted);
    assert_eq!(metric(&server, "mm_batch_rows_count"), 0.0);
    server.post("/v1/embeddings", &json!({"input": "a"})).json();
    assert_eq!(metric(&server, "mm_batch_rows_count"), 1.0);
}

#[test]
fn a_server_that_is_full_refuses_at_once_and_answers_what_it_accepted() {
    let workspace = Workspace::new();
    config(&workspace, "[limits]\nmax_requests = 2\n");
    let server = Server::start(&["--config", "serve.toml"], workspace.path(), &[]);
    let texts: Vec<String> = (0..400).map(|n| format!("the quick fox {n}")).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let request = || server.post("/embed", &json!({"inputs": texts})).status;
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(request)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert!(count(200) >= 2 && count(429) >= 1 && count(200) + count(429) == 12, "{statuses:?}");
}
