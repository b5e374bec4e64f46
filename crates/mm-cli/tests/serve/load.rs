//! Slow, many and interrupted clients: what is accepted is answered or stored, and nothing keeps others from the server.

use crate::{
    Server,
    common::{Workspace, mm, text},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A server of the model of the test fixtures, with limits.
fn start(workspace: &Workspace, limits: &str) -> Server {
    workspace.write("serve.toml", format!("[[model]]\nname = \"words\"\npath = \"words\"\n[limits]\n{limits}\n"));
    Server::start(&["--config", "serve.toml"], workspace.path(), &[])
}

fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.trim_start_matches("http://")).unwrap()
}

/// Connections whose requests announce a body and send all of it but the last byte.
fn stalled(server: &Server, count: usize, bytes: usize) -> Vec<TcpStream> {
    let head = format!("POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\n");
    let body = vec![b' '; bytes - 1];
    let send = |_| {
        let mut stream = connect(server);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        stream
    };
    let streams = (0..count).map(send).collect();
    // Each is accepted, and what it sent is read.
    std::thread::sleep(Duration::from_millis(500));
    streams
}

#[test]
fn clients_that_send_slowly_take_no_place_of_others() {
    let workspace = Workspace::new();
    let server = start(&workspace, "max_requests = 2\nread_seconds = 30");
    let streams = stalled(&server, 8, 100);
    assert_eq!(server.post("/embed", &json!({"inputs": "a dog"})).status, 200);
    drop(streams);
}

#[test]
fn bodies_that_are_received_have_a_limit_together() {
    let workspace = Workspace::new();
    let server = start(&workspace, "max_body_bytes = 40960\nmax_total_body_bytes = 81920");
    // What is announced alone takes no place.
    let head = "POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 40960\r\n\r\n";
    let announced: Vec<TcpStream> = (0..4).map(|_| connect(&server)).collect();
    announced.iter().for_each(|mut stream| stream.write_all(head.as_bytes()).unwrap());
    let streams = stalled(&server, 1, 40_960);
    assert_eq!(server.post("/embed", &json!({"inputs": "a dog"})).status, 200);
    let streams = [streams, stalled(&server, 1, 40_960)];
    let refused = server.post("/embed", &json!({"inputs": "a dog"}));
    refused.refused_by_tei(429, "Overloaded", "limits.max_total_body_bytes");
    drop((streams, announced));
    let begun = Instant::now();
    while server.post("/embed", &json!({"inputs": "a dog"})).status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the bodies of clients that disconnected still count");
        std::thread::sleep(Duration::from_millis(50));
    }
    let large = server.post("/embed", &json!({"inputs": "a dog ".repeat(10_000)}));
    large.refused_by_tei(413, "Validation", "limits.max_body_bytes");
}

#[test]
fn vectors_of_tokens_are_limited_by_their_number() {
    let workspace = Workspace::new();
    let server = start(&workspace, "max_batch_tokens = 100");
    let texts = vec!["the quick fox the dog"; 30];
    server.post("/embed_all", &json!({"inputs": texts})).refused_by_tei(413, "Validation", "at most 100");
    assert_eq!(server.post("/embed_all", &json!({"inputs": texts[..3]})).json().as_array().unwrap().len(), 3);
}

/// Whether an answer is complete, by its length.
fn is_complete(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length == Some(body.len())
}

#[test]
fn a_server_that_stops_under_load_cuts_no_answer() {
    let workspace = Workspace::new();
    let server = start(&workspace, "notice_seconds = 1");
    let (stopped, answers) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let request = {
        let body = json!({"inputs": vec!["the quick fox"; 20]}).to_string();
        format!(
            "POST /embed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let address = server.url.trim_start_matches("http://").to_owned();
    let code = std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    // The server listens no more, or has ended.
                    let Ok(mut stream) = TcpStream::connect(&address) else { continue };
                    let mut answer = String::new();
                    let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
                    answers.lock().unwrap().push((sent.is_ok(), answer));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        server.signal("TERM");
        let code = server.wait().code();
        stopped.store(true, Ordering::Relaxed);
        code
    });
    assert_eq!(code, Some(0));
    let answers = answers.into_inner().unwrap();
    let statuses: BTreeSet<&str> = answers.iter().filter_map(|(_, answer)| answer.get(9..12)).collect();
    assert_eq!(statuses, BTreeSet::from(["200", "503"]));
    // Connections that were never accepted have no answer at all.
    let cut = answers.iter().filter(|(_, answer)| !answer.is_empty()).find(|(sent, a)| !sent || !is_complete(a));
    assert!(cut.is_none(), "{cut:?}");
}

#[test]
fn a_server_with_more_work_than_it_has_time_for_ends_all_the_same() {
    for (limits, signals) in [("drain_seconds = 1\nnotice_seconds = 0", 1), ("drain_seconds = 600", 2)] {
        let workspace = Workspace::new();
        let server = start(&workspace, limits);
        let body = json!({"inputs": vec!["the quick fox ".repeat(30); 2000]}).to_string();
        let head = format!("POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        let streams: Vec<TcpStream> = (0..60)
            .map(|_| {
                let mut stream = connect(&server);
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(body.as_bytes()).unwrap();
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        let started = Instant::now();
        for _ in 0..signals {
            server.signal("TERM");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(server.wait().code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(10), "{limits}: {:?}", started.elapsed());
        drop(streams);
    }
}

#[test]
fn rows_of_a_server_that_is_killed_are_there_where_it_said_so() {
    const WRITERS: usize = 4;
    let workspace = Workspace::new();
    let folder = workspace.path();
    workspace.write("rows.jsonl", "{\"id\": \"first\", \"text\": \"a dog\"}\n");
    let built = mm(&["index", "build", "rows.jsonl", "--model", "words", "--store", "s.index"], folder);
    assert!(built.status.success(), "{}", text(&built));
    let acknowledged = Mutex::new(BTreeSet::from(["first".to_owned()]));
    let next = AtomicUsize::new(0);
    for round in 0..5u64 {
        let server = Server::start(&["--model", "words", "--store", "s.index", "--writable"], folder, &[]);
        let (url, killed) = (server.url.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    let agent =
                        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
                    while !killed.load(Ordering::Relaxed) {
                        let id = format!("row {}", next.fetch_add(1, Ordering::Relaxed));
                        let body = json!({"rows": [{"id": id, "text": "the quick fox"}]}).to_string();
                        let sent = agent.post(format!("{url}/upsert")).content_type("application/json").send(&body);
                        if sent.is_ok_and(|answer| answer.status() == 200) {
                            acknowledged.lock().unwrap().insert(id);
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(200 + 170 * round));
            server.signal("KILL");
            server.wait();
            killed.store(true, Ordering::Relaxed);
        });
    }
    let listed = mm(&["index", "export", "--store", "s.index", "--out", "all.jsonl"], folder);
    assert!(listed.status.success(), "{}", text(&listed));
    let lines = std::fs::read_to_string(folder.join("all.jsonl")).unwrap();
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    let stored: BTreeSet<String> = lines.lines().map(id).collect();
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 5, "only {} rows were written", acknowledged.len());
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "{lost:?} of {} rows are lost", acknowledged.len());
}
