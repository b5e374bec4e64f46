//! A small model hub on this machine that sends weights slowly, so that downloads can be killed in the middle.

use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::OnceLock,
    time::Duration,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CHUNK: usize = 64 << 10;

fn files() -> [(&'static str, Vec<u8>); 4] {
    let shard = |n: u32| (0..2_000_000u32).map(|i| (i.wrapping_mul(n) >> 8) as u8).collect::<Vec<u8>>();
    let index =
        br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    [
        ("config.json", br#"{"model_type": "bert"}"#.to_vec()),
        ("model.safetensors.index.json", index.to_vec()),
        ("model-00001-of-00002.safetensors", shard(2_654_435_761)),
        ("model-00002-of-00002.safetensors", shard(40_503)),
    ]
}

/// The address of the server, which the first call starts.
pub fn endpoint() -> std::io::Result<String> {
    static ENDPOINT: OnceLock<String> = OnceLock::new();
    if let Some(endpoint) = ENDPOINT.get() {
        return Ok(endpoint.clone());
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(ENDPOINT.get_or_init(|| endpoint).clone())
}

fn digest(path: &str, bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    if path.ends_with(".safetensors") {
        return hex(&Sha256::digest(bytes));
    }
    hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    for chunk in body.chunks(CHUNK) {
        stream.write_all(chunk)?;
        if body.len() > CHUNK {
            std::thread::sleep(Duration::from_millis(8));
        }
    }
    stream.flush()
}

/// Answers one request; a client that was killed has closed the connection, which ends the answer.
fn serve(mut stream: TcpStream) -> Option<()> {
    let (mut request, mut byte) = (Vec::new(), [0u8; 1]);
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&request).to_lowercase();
    let mut words = text.split_whitespace();
    let (method, path) = (words.next()?, words.next()?);
    let from = text.split("range: bytes=").nth(1).and_then(|r| r.split('-').next()?.parse::<usize>().ok());
    let listing = |entry: &dyn Fn(&str, &[u8]) -> serde_json::Value| {
        files().iter().map(|(name, bytes)| entry(name, bytes)).collect::<Vec<_>>()
    };
    if path.starts_with("/api/models/org/name/revision/") {
        let siblings = listing(&|name, _| serde_json::json!({ "rfilename": name }));
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return respond(&mut stream, "200 OK", "", body.as_bytes()).ok();
    }
    if path.starts_with("/api/models/org/name/tree/") {
        let body = listing(&|name, bytes| {
            let digest = digest(name, bytes);
            if name.ends_with(".safetensors") {
                serde_json::json!({ "type": "file", "path": name, "oid": "0".repeat(40), "lfs": { "oid": digest } })
            } else {
                serde_json::json!({ "type": "file", "path": name, "oid": digest })
            }
        });
        return respond(&mut stream, "200 OK", "", serde_json::Value::from(body).to_string().as_bytes()).ok();
    }
    let name = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/"));
    let Some((name, bytes)) = files().into_iter().find(|(n, _)| Some(*n) == name) else {
        return respond(&mut stream, "404 Not Found", "X-Error-Code: EntryNotFound\r\n", b"").ok();
    };
    if method == "head" {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\nETag: \"{}\"\r\n\r\n",
            bytes.len(),
            digest(name, &bytes)
        );
        return stream.write_all(head.as_bytes()).ok();
    }
    let rest = bytes.get(from.unwrap_or(0)..).unwrap_or_default();
    respond(&mut stream, if from.is_some() { "206 Partial Content" } else { "200 OK" }, "", rest).ok()
}
