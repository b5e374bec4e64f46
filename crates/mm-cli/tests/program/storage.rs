//! Data sets in object stores and on web servers: a server on this machine that fails now and then, refuses, and lies.

use crate::{
    common::{Workspace, assert_refused, text},
    json, ok,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Serves the files of a folder as a bucket, path-style: `/bucket/KEY`.
struct Server {
    address: String,
    requests: Arc<Requests>,
}

#[derive(Default)]
struct Requests {
    all: AtomicUsize,
    downloads: AtomicUsize,
    failed: AtomicUsize,
}

impl Server {
    /// One of so many requests is answered with an error that goes away.
    fn start(folder: &Path, fail_every: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Requests::default());
        let (folder, counted) = (folder.to_owned(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, counted) = (folder.clone(), counted.clone());
                std::thread::spawn(move || while answer(&stream, &folder, &counted, fail_every).is_some() {});
            }
        });
        Self { address, requests }
    }

    fn mm(&self, arguments: &[&str], folder: &Path) -> Output {
        self.mm_with(arguments, folder, &[])
    }

    fn mm_with(&self, arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Output {
        let endpoint = format!("http://{}", self.address);
        Command::new(env!("CARGO_BIN_EXE_mm"))
            .args(arguments)
            .current_dir(folder)
            .env("XDG_CACHE_HOME", folder.join("cache"))
            .env("NO_PROXY", "127.0.0.1")
            .envs([("AWS_ENDPOINT_URL", endpoint.as_str()), ("HF_ENDPOINT", &endpoint), ("AWS_ALLOW_HTTP", "true")])
            .envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")])
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }
}

/// Answers a request; none when the client has gone.
fn answer(mut stream: &TcpStream, folder: &Path, counted: &Requests, fail_every: usize) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0u8; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        (stream.read(&mut byte).ok()? == 1).then(|| head.push(byte[0]))?;
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?.split('?').next()?.to_owned());
    let number = counted.all.fetch_add(1, Ordering::SeqCst) + 1;
    let mut send = |status: &str, headers: &str, body: &[u8]| {
        let length = if headers.contains("Content-Length") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        stream.write_all(format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n").as_bytes()).ok()?;
        if method == "HEAD" { Some(()) } else { stream.write_all(body).ok() }
    };
    if number.is_multiple_of(fail_every) {
        counted.failed.fetch_add(1, Ordering::SeqCst);
        return send(if number.is_multiple_of(2) { "503 Slow Down" } else { "500 Internal Server Error" }, "", b"");
    }
    let key = path.strip_prefix("/bucket/").or_else(|| path.strip_prefix("/datasets/org/name/resolve/main/"));
    match key {
        Some("secret.csv") => send("403 Forbidden", "", b""),
        Some("loop.csv") => send("302 Found", "Location: /bucket/loop.csv\r\n", b""),
        Some("lying.csv") if method == "HEAD" => {
            send("200 OK", "ETag: \"1\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: 40\r\n", b"")
        }
        Some("lying.csv") => {
            send("200 OK", "ETag: \"1\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n", b"text\na dog\n")
        }
        Some(key) => match std::fs::read(folder.join(key)) {
            Ok(bytes) => {
                if method == "GET" {
                    counted.downloads.fetch_add(1, Ordering::SeqCst);
                }
                let tag = blake3::hash(&bytes).to_hex();
                let headers = format!("ETag: \"{tag}\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n");
                send("200 OK", &headers, &bytes)
            }
            Err(_) => send("404 Not Found", "", b""),
        },
        None => send("404 Not Found", "", b""),
    }
}

fn shards(workspace: &Workspace) -> PathBuf {
    let arguments = ["data", "shard", "--data", "data.jsonl", "--out", "store/d", "--max-rows", "2"];
    ok(&crate::common::mm(&arguments, workspace.path()));
    workspace.path().join("store")
}

#[test]
fn shards_of_a_bucket_are_embedded_as_those_of_a_folder() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(&shards(&workspace), 5);
    let embed = |shards: &str, out: &str| {
        json(&server.mm(&["embed", "--model", "eyes", "--shards", shards, "--out", out, "--json"], folder))
    };
    let remote = embed("s3://bucket/d-{000000..000005}.tar", "remote");
    assert_eq!(remote["vectors"].as_u64(), Some(12), "{remote}");
    assert!(server.requests.failed.load(Ordering::SeqCst) >= 2, "no request failed");
    embed("store/d-{000000..000005}.tar", "local");
    for number in 0..6 {
        let file = format!("img_emb/img_emb_d-{number:06}.npy");
        let read = |out: &str| std::fs::read(folder.join(out).join(&file)).unwrap();
        assert!(read("remote") == read("local"), "{file}");
    }
    // Copies of shards that are done are gone.
    assert_eq!(std::fs::read_dir(folder.join("cache/mm/storage")).unwrap().count(), 0);
    // Done shards are not requested again.
    let before = server.requests.downloads.load(Ordering::SeqCst);
    assert_eq!(embed("s3://bucket/d-{000000..000005}.tar", "remote")["processed"].as_u64(), Some(0));
    assert_eq!(server.requests.downloads.load(Ordering::SeqCst), before);
}

#[test]
fn a_table_on_a_server_names_the_files_next_to_it() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(folder, 1000);
    let embed = |data: &str, out: &str| {
        let vectors = ["embed", "--model", "eyes", "--data", data, "--modality", "image", "--out", out];
        ok(&server.mm(&vectors, folder));
        std::fs::read(folder.join(out)).unwrap()
    };
    let expected = embed("data.jsonl", "local.npy");
    let web = format!("http://{}/bucket/data.jsonl", server.address);
    assert!(embed(&web, "web.npy") == expected);
    assert!(embed("hf://datasets/org/name/data.jsonl", "hub.npy") == expected);
    // The copies are used again as long as the server states the same.
    let before = server.requests.downloads.load(Ordering::SeqCst);
    assert!(embed(&web, "again.npy") == expected);
    assert_eq!(server.requests.downloads.load(Ordering::SeqCst), before);
    let table = std::fs::read_to_string(folder.join("data.jsonl")).unwrap();
    workspace.write("data.jsonl", table.lines().take(7).collect::<Vec<_>>().join("\n"));
    let rows = json(&server.mm(&["inspect", &web, "--json"], folder));
    assert_eq!(rows["rows"].as_u64(), Some(7), "{rows}");
    // Without a network what is there is used.
    let offline = server.mm_with(&["inspect", &web, "--json"], folder, &[("MM_OFFLINE", "1")]);
    assert_eq!(json(&offline)["rows"].as_u64(), Some(7));
    // A config names its data by URL as well.
    let manifest = format!("data.manifest=\"{web}\"");
    ok(&server.mm(&["train", "config.toml", "--out", "run", "--set", &manifest, "--set", "train.epochs=1"], folder));
}

#[test]
fn servers_that_refuse_fail_or_lie_are_named() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    workspace.write("large.csv", format!("text\n{}\n", "a dog ".repeat(100)));
    let server = Server::start(folder, 1000);
    let refused = |data: &str, variables: &[(&str, &str)], wanted: &[&str]| {
        let arguments = ["inspect", data];
        assert_refused(&server.mm_with(&arguments, folder, variables), &arguments, wanted);
    };
    let web = |name: &str| format!("http://{}/bucket/{name}", server.address);
    refused("s3://bucket/nothing.csv", &[], &["s3://bucket/nothing.csv", "no such file"]);
    refused(&web("nothing.csv"), &[], &["no such file"]);
    refused("s3://bucket/secret.csv", &[], &["refuses it", "credentials"]);
    refused(&web("loop.csv"), &[], &["loop.csv", "redirect"]);
    refused(&web("lying.csv"), &[], &["lying.csv", "expected 40"]);
    refused("ftp://host/a.csv", &[], &["ftp://host/a.csv", "s3://"]);
    refused("hf://models/a.csv", &[], &["hf://datasets/ORG/NAME"]);
    refused(&web("large.csv"), &[("MM_STORAGE_CACHE_BYTES", "100")], &["at most 100", "MM_STORAGE_CACHE_BYTES"]);
    refused(&web("large.csv"), &[("MM_STORAGE_CACHE_BYTES", "1 GB")], &["MM_STORAGE_CACHE_BYTES", "`1 GB`"]);
    refused(&web("data.jsonl"), &[("MM_OFFLINE", "1")], &["data.jsonl"]);
    // Nothing half-written is left.
    let mut files = Vec::new();
    for copy in std::fs::read_dir(folder.join("cache/mm/storage")).into_iter().flatten().flatten() {
        files.extend(std::fs::read_dir(copy.path()).unwrap().flatten().map(|file| file.path()));
    }
    assert!(files.is_empty(), "{files:?}");
    let listed = server.mm(&["inspect", &web("large.csv")], folder);
    assert!(listed.status.success(), "{}", text(&listed));
}
