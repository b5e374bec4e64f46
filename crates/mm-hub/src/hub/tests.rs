//! The hub client against a fake server on this machine that fails in several ways.

use super::*;
use crate::{error::describe, testing::reported_attempts};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The failures of the fake server.
#[derive(Default)]
struct Failures {
    /// Interrupts the first response with weights in the middle.
    interrupt: bool,
    /// Stalls in the middle of the first response with weights.
    stall: bool,
    /// Announces fewer bytes than there are.
    short_length: bool,
    /// Sends bytes that do not match the checksum.
    wrong_bytes: bool,
    /// Answers every request with this status and error code.
    status: Option<(u16, &'static str)>,
    /// Answers this many first requests with 503.
    num_busy: usize,
    /// Does not serve the tree.
    no_tree: bool,
    /// Ends this many first answers in the middle of their JSON: every second one without an error, since it states no length.
    num_cut: usize,
    /// Answers the first request with half of its JSON, and then waits.
    stall_json: bool,
    /// Answers the first query of a file with 503.
    busy_query: bool,
}

struct FakeHub {
    endpoint: String,
    /// (method and path, start of the range, whether a token was sent) of each request.
    requests: Arc<Mutex<Vec<(String, Option<u64>, bool)>>>,
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let shard = |n: u8| (0..60_000u32).map(|i| (i as u8).wrapping_mul(n)).collect::<Vec<u8>>();
    let index =
        br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    vec![
        ("config.json", b"{\"model_type\": \"bert\"}".to_vec()),
        ("1_Pooling/config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.to_vec()),
        ("model-00001-of-00002.safetensors", shard(7)),
        ("model-00002-of-00002.safetensors", shard(11)),
        ("pytorch_model.bin", b"the same again".to_vec()),
        ("onnx/model.onnx", b"and again".to_vec()),
    ]
}

fn digest(path: &str, bytes: &[u8]) -> String {
    if path.ends_with(".safetensors") {
        return hex(&Sha256::digest(bytes));
    }
    hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8], length: usize, sent: usize) {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..sent.min(body.len())]);
    let _ = stream.flush();
}

/// The JSON document of the request with this number, which may fail.
fn answer_json(stream: &mut TcpStream, headers: &str, document: &Value, number: usize, failures: &Failures) {
    let body = document.to_string().into_bytes();
    let half = body.len() / 2;
    if number == 1 && failures.stall_json {
        answer(stream, 200, headers, &body, body.len(), half);
        std::thread::sleep(Duration::from_secs(2));
    } else if number > failures.num_cut {
        answer(stream, 200, headers, &body, body.len(), body.len());
    } else if number.is_multiple_of(2) {
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..half]));
    } else {
        answer(stream, 200, headers, &body, body.len(), half);
    }
}

fn start_hub(failures: Failures) -> FakeHub {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    let base = endpoint.clone();
    let (failures, weights) = (Arc::new(failures), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, base, failures, weights) = (log.clone(), base.clone(), failures.clone(), weights.clone());
            std::thread::spawn(move || serve(stream.unwrap(), &log, &base, &failures, &weights));
        }
    });
    FakeHub { endpoint, requests }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<(String, Option<u64>, bool)>>,
    base: &str,
    failures: &Failures,
    weights: &AtomicUsize,
) {
    let (mut request, mut byte) = (Vec::new(), [0u8; 1]);
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let line: Vec<&str> = text.split_whitespace().take(2).collect();
    let [method, path] = line[..] else { return };
    let lower = text.to_lowercase();
    let range = lower.split("range: bytes=").nth(1).and_then(|r| r.split('-').next()?.parse::<u64>().ok());
    let (number, num_queries) = {
        let mut log = log.lock().unwrap();
        log.push((format!("{method} {path}"), range, lower.contains("authorization: bearer")));
        (log.len(), log.iter().filter(|(request, _, _)| request.starts_with("HEAD ")).count())
    };
    if let Some((status, code)) = failures.status {
        return answer(&mut stream, status, &format!("X-Error-Code: {code}\r\nRetry-After: 0\r\n"), b"", 0, 0);
    }
    if number <= failures.num_busy {
        return answer(&mut stream, 503, "Retry-After: 0\r\n", b"", 0, 0);
    }
    if path.starts_with("/api/models/org/name/revision/") {
        let siblings: Vec<Value> = files().iter().map(|(p, _)| serde_json::json!({ "rfilename": p })).collect();
        let document = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
        return answer_json(&mut stream, "", &document, number, failures);
    }
    if path.starts_with("/api/models/org/name/tree/") && !failures.no_tree {
        // Two pages.
        let second = path.contains("cursor=2");
        let all = files();
        let half = if second { &all[4..] } else { &all[..4] };
        let entry = |(path, bytes): &(&str, Vec<u8>)| {
            let digest = digest(path, bytes);
            if path.ends_with(".safetensors") {
                serde_json::json!({ "type": "file", "path": path, "oid": "0".repeat(40), "lfs": { "oid": digest } })
            } else {
                serde_json::json!({ "type": "file", "path": path, "oid": digest })
            }
        };
        let document = Value::from(half.iter().map(entry).collect::<Vec<_>>());
        let link =
            format!("Link: <{base}/api/models/org/name/tree/{COMMIT}?recursive=true&cursor=2>; rel=\"next\"\r\n");
        return answer_json(&mut stream, if second { "" } else { &link }, &document, number, failures);
    }
    if let Some(name) = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")) {
        let Some((_, bytes)) = files().into_iter().find(|(p, _)| *p == name) else {
            return answer(&mut stream, 404, "X-Error-Code: EntryNotFound\r\n", b"", 0, 0);
        };
        if method == "HEAD" {
            if failures.busy_query && num_queries == 1 {
                return answer(&mut stream, 503, "Retry-After: 0\r\n", b"", 0, 0);
            }
            let tag = format!("ETag: \"{}\"\r\n", digest(name, &bytes));
            return answer(&mut stream, 200, &tag, b"", bytes.len(), 0);
        }
        if !name.ends_with(".safetensors") {
            return answer(&mut stream, 200, "", &bytes, bytes.len(), bytes.len());
        }
        // Large files are on another host, as the hub's are.
        let host = base.replace("127.0.0.1", "localhost");
        return answer(&mut stream, 302, &format!("Location: {host}/elsewhere/{name}\r\n"), b"", 0, 0);
    }
    if let Some(name) = path.strip_prefix("/elsewhere/") {
        let (_, mut bytes) = files().into_iter().find(|(p, _)| *p == name).unwrap();
        let first = weights.fetch_add(1, Ordering::SeqCst) == 0;
        if failures.wrong_bytes {
            bytes[100] ^= 1;
        }
        let from = usize::try_from(range.unwrap_or(0)).unwrap().min(bytes.len());
        let (rest, status) = (&bytes[from..], if range.is_some() { 206 } else { 200 });
        let half = rest.len() / 2;
        if failures.short_length {
            return answer(&mut stream, status, "", rest, half, half);
        }
        let sent = if first && (failures.interrupt || failures.stall) { half } else { rest.len() };
        answer(&mut stream, status, "", rest, rest.len(), sent);
        if first && failures.stall {
            std::thread::sleep(Duration::from_secs(4));
        }
        return;
    }
    answer(&mut stream, 404, "X-Error-Code: RepoNotFound\r\n", b"", 0, 0);
}

fn client(fake: &FakeHub, cache: &Path) -> Hub {
    Hub {
        endpoint: fake.endpoint.clone(),
        cache: cache.to_owned(),
        token: Some("secret".into()),
        offline: false,
        timeout: Duration::from_millis(250),
    }
}

fn assert_complete(snapshot: &Path) {
    for (path, bytes) in files() {
        let expected = !path.starts_with("onnx") && path != "pytorch_model.bin";
        assert_eq!(std::fs::read(snapshot.join(path)).ok(), expected.then_some(bytes), "{path}");
    }
}

#[test]
fn a_model_is_downloaded_in_the_layout_of_huggingface_hub_and_found_offline() {
    let cache = tempfile::tempdir().unwrap();
    let fake = start_hub(Failures { num_busy: 2, ..Failures::default() });
    let hub = client(&fake, cache.path());
    let snapshot = hub.pull("org/name").unwrap();
    assert_complete(&snapshot);
    let folder = cache.path().join("models--org--name");
    assert_eq!(snapshot, folder.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let target = std::fs::read_link(snapshot.join("1_Pooling/config.json")).unwrap();
    assert!(target.starts_with("../../../blobs"), "{target:?}");
    // The token is sent only to the hub.
    for (path, _, token) in fake.requests.lock().unwrap().iter() {
        assert_eq!(*token, !path.contains("/elsewhere/"), "{path}");
    }
    // The files are complete: none is requested again.
    let before = fake.requests.lock().unwrap().len();
    hub.pull("org/name@main").unwrap();
    let requests = fake.requests.lock().unwrap()[before..].to_vec();
    assert!(requests.iter().all(|(path, _, _)| path.contains("/api/")), "{requests:?}");
    let offline = Hub { offline: true, endpoint: "http://127.0.0.1:1".into(), ..client(&fake, cache.path()) };
    assert_eq!(offline.pull("org/name").unwrap(), snapshot);
    assert_eq!(offline.pull(&format!("org/name@{COMMIT}")).unwrap(), snapshot);
    assert_eq!((offline.find("org/name"), offline.find("org/other")), (Some(snapshot), None));
    assert!(offline.pull("org/other").unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
}

#[test]
fn interrupted_downloads_are_resumed_and_concurrent_ones_download_once() {
    for failures in [
        Failures { interrupt: true, ..Failures::default() },
        Failures { stall: true, ..Failures::default() },
        Failures { no_tree: true, ..Failures::default() },
    ] {
        let fails = failures.interrupt || failures.stall;
        let cache = tempfile::tempdir().unwrap();
        let fake = start_hub(failures);
        let pull = || client(&fake, cache.path()).pull("org/name").unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(pull);
            assert_complete(&pull());
            assert_complete(&other.join().unwrap());
        });
        let requests = fake.requests.lock().unwrap();
        let weights: Vec<_> = requests.iter().filter(|(path, _, _)| path.contains("/elsewhere/")).collect();
        assert_eq!(weights.iter().any(|(_, range, _)| range.is_some()), fails);
        assert_eq!(weights.len(), if fails { 3 } else { 2 }, "{weights:?}");
    }
}

#[test]
fn an_answer_of_the_api_that_ends_in_the_middle_is_asked_for_again() {
    for (failures, attempts, reasons) in [
        (Failures { num_cut: 2, ..Failures::default() }, 2, ["was interrupted", "EOF while parsing"]),
        (Failures { stall_json: true, ..Failures::default() }, 1, ["no data for 0 seconds", "bytes"]),
        // The metadata twice, then each file of which the tree is not served.
        (Failures { num_busy: 2, no_tree: true, ..Failures::default() }, 2, ["answered 503", "answered 503"]),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let fake = start_hub(failures);
        assert_complete(&client(&fake, cache.path()).pull("org/name").unwrap());
        let reported = reported_attempts(&fake.endpoint);
        assert_eq!(reported.len(), attempts, "{reported:?}");
        let shown = reported.join("\n");
        assert!(reasons.iter().all(|reason| shown.contains(reason)), "{reported:?}");
    }
    let cache = tempfile::tempdir().unwrap();
    let fake = start_hub(Failures { num_cut: usize::MAX, ..Failures::default() });
    let text = describe(&client(&fake, cache.path()).pull("org/name").unwrap_err());
    assert!(text.contains("/api/models/org/name/revision/main") && text.contains("(tried 4 times in "), "{text}");
    assert!(text.contains("HF_ENDPOINT") && text.contains("EOF while parsing"), "{text}");
    assert_eq!(fake.requests.lock().unwrap().len(), 4);
    assert_eq!(reported_attempts(&fake.endpoint).len(), 3);
}

#[test]
fn the_token_is_the_one_that_huggingface_hub_would_send() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, token: &str| {
        let file = home.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, token).unwrap();
        file.display().to_string()
    };
    let find = |variables: &[(&str, &str)]| {
        find_token(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    };
    let home_folder = home.path().display().to_string();
    let of_home = [("HOME", home_folder.as_str())];
    assert_eq!((find(&[]), find(&of_home)), (None, None));
    write(".cache/huggingface/token", "of-login\n");
    let empty = write("empty", "\n");
    let other = write("other", "of-file");
    assert_eq!(find(&of_home).unwrap(), "of-login");
    assert_eq!(find(&[of_home[0], ("HF_HOME", &home_folder)]), None);
    assert_eq!(find(&[of_home[0], ("HF_TOKEN_PATH", &other)]).unwrap(), "of-file");
    assert_eq!(find(&[of_home[0], ("HF_TOKEN_PATH", &empty)]), None);
    assert_eq!(find(&[of_home[0], ("HF_TOKEN_PATH", &other), ("HF_TOKEN", "named")]).unwrap(), "named");
}

#[test]
fn a_file_whose_query_fails_for_a_while_is_queried_again() {
    let cache = tempfile::tempdir().unwrap();
    let fake = start_hub(Failures { no_tree: true, busy_query: true, ..Failures::default() });
    assert_complete(&client(&fake, cache.path()).pull("org/name").unwrap());
    let requests = fake.requests.lock().unwrap().clone();
    let queried = requests.iter().filter(|(path, _, _)| path.starts_with("HEAD ")).count();
    assert_eq!((queried, reported_attempts(&fake.endpoint).len()), (files().len() + 1, 1));
}

#[test]
fn wrong_lengths_and_contents_are_errors_and_statuses_are_explained() {
    let error = |failures: Failures, name: &str| {
        let cache = tempfile::tempdir().unwrap();
        let fake = start_hub(failures);
        let text = describe(&client(&fake, cache.path()).pull(name).unwrap_err());
        // No revision refers to an incomplete snapshot.
        assert!(!cache.path().join("models--org--name/refs/main").exists());
        text
    };
    for failures in
        [Failures { wrong_bytes: true, ..Failures::default() }, Failures { short_length: true, ..Failures::default() }]
    {
        let text = error(failures, "org/name");
        assert!(text.contains("its sha256 is") && text.contains("was deleted"), "{text}");
    }
    for (status, code, hint) in [
        (401, "RepoNotFound", "token"),
        (403, "GatedRepo", "Accept them at http://127.0.0.1"),
        (404, "RepoNotFound", "spelling"),
        (404, "RevisionNotFound", "no revision `main`"),
        (429, "", "too many requests"),
        (500, "", "HF_ENDPOINT"),
        (502, "", "HF_ENDPOINT"),
    ] {
        let text = error(Failures { status: Some((status, code)), ..Failures::default() }, "org/name");
        assert!(text.contains(hint) && text.contains(&status.to_string()), "{text}");
        let is_temporary = status == 429 || status >= 500;
        assert_eq!(text.matches("(tried 4 times in 0 s").count(), usize::from(is_temporary), "{text}");
    }
    for name in ["../etc/passwd", "org/name@/etc/passwd", "org/name@../x", "org/name@"] {
        assert!(error(Failures::default(), name).contains("not a name of the hub"), "{name}");
    }
}
