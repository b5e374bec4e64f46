//! Downloads from a server on this machine that fails in several ways.

use super::*;
use sha2::{Digest, Sha256};
use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A server on this machine; `answer` gets the index of each request and the start of its range.
fn serve(
    answer: impl Fn(usize, Option<usize>) -> (String, Vec<u8>) + Send + 'static,
    max_requests: usize,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/file.bin", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(max_requests) {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0u8; 1];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&request).to_lowercase();
            let from =
                text.split("range: bytes=").nth(1).and_then(|r| r.split('-').next()).and_then(|n| n.parse().ok());
            let (head, body) = answer(count.fetch_add(1, Ordering::SeqCst), from);
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
    });
    (address, requests)
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[test]
fn an_interrupted_download_is_resumed() {
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let complete = bytes.clone();
    let (url, requests) = serve(
        move |number, from| {
            let from = from.unwrap_or(0);
            let rest = &complete[from..];
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
            // The first response announces everything and sends a third.
            (head, if number == 0 { rest[..rest.len() / 3].to_vec() } else { rest.to_vec() })
        },
        8,
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.bin");
    let remote = Remote::public(url, ("sha256", sha256(&bytes)));
    download(&remote, &file).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    // The file is complete: no further request is made.
    download(&remote, &file).unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[test]
fn wrong_checksums_and_error_statuses_are_errors() {
    let (url, _) =
        serve(|_, _| ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n".into(), b"bad".to_vec()), 8);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.bin");
    let text = describe(&download(&Remote::public(url, ("sha256", sha256(b"good"))), &file).unwrap_err());
    assert!(text.contains("its sha256 is") && !file.exists(), "{text}");
    assert!(!folder.path().join("file.bin.partial").exists());
    let (url, _) = serve(
        |_, _| ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(), Vec::new()),
        8,
    );
    let text = describe(&download(&Remote::public(url, ("sha256", sha256(b"good"))), &file).unwrap_err());
    assert!(text.contains("answered 404"), "{text}");
}

#[test]
fn a_partial_file_that_is_not_a_prefix_is_downloaded_again() {
    let bytes = b"the whole file".to_vec();
    let complete = bytes.clone();
    let (url, requests) = serve(
        move |_, from| {
            let (status, rest) = match from {
                Some(from) if from >= complete.len() => ("416 Range Not Satisfiable", &[][..]),
                Some(from) => ("206 Partial Content", &complete[from..]),
                None => ("200 OK", &complete[..]),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
            (head, rest.to_vec())
        },
        8,
    );
    let folder = tempfile::tempdir().unwrap();
    // Names with a dot, a space and letters outside of ASCII.
    for (number, partial) in [&b"other"[..], b"something longer than the file"].into_iter().enumerate() {
        let file = folder.path().join(format!("döner {number}.bin"));
        std::fs::write(with_suffix(&file, "partial"), partial).unwrap();
        let timeout = Duration::from_millis(500);
        let remote = Remote { timeout, ..Remote::public(url.clone(), ("sha256", sha256(&bytes))) };
        download(&remote, &file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        assert_eq!(requests.load(Ordering::SeqCst), 2 * (number + 1));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_not_tried_again() {
    let answer = |_, _| ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n".into(), b"good".to_vec());
    let (url, requests) = serve(answer, 8);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.bin");
    // Nothing can be written where a folder is.
    std::fs::create_dir(with_suffix(&file, "partial")).unwrap();
    let text = describe(&download(&Remote::public(url, ("sha256", sha256(b"good"))), &file).unwrap_err());
    assert!(text.contains("file.bin.partial cannot be written"), "{text}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_file_of_another_size_than_stated_is_refused_at_once() {
    let answer = |_, _| ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n".into(), b"large".to_vec());
    let (url, requests) = serve(answer, 8);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.bin");
    let remote = Remote { size: Some(4), ..Remote::public(url, ("sha256", sha256(b"large"))) };
    let text = describe(&download(&remote, &file).unwrap_err());
    assert!(text.contains("it has 5 bytes, expected 4") && !file.exists(), "{text}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let remote = Remote { size: Some(5), ..remote };
    download(&remote, &file).unwrap();
}

#[test]
fn a_loop_of_redirects_is_followed_once() {
    let server = crate::testing::Server::answering(|_, _| ("302 Found", "Location: /again.bin\r\n", Vec::new()));
    let folder = tempfile::tempdir().unwrap();
    let remote = Remote::public(format!("{}/file.bin", server.url), ("sha256", sha256(b"good")));
    let text = describe(&download(&remote, &folder.path().join("file.bin")).unwrap_err());
    assert!(text.contains("/file.bin could not be downloaded") && text.contains("too many redirects"), "{text}");
    // The first request and ten redirects.
    assert_eq!((server.count(), crate::testing::reported_attempts(&server.url).len()), (11, 0));
}

#[test]
fn a_server_that_keeps_failing_is_asked_a_few_times_and_named() {
    for status in ["429 Too Many Requests", "500 Internal Server Error"] {
        let answer =
            move |_, _| (format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), vec![]);
        let (url, requests) = serve(answer, 8);
        let folder = tempfile::tempdir().unwrap();
        let timeout = Duration::from_millis(10);
        let remote = Remote { timeout, ..Remote::public(url.clone(), ("sha256", sha256(b"good"))) };
        let text = describe(&download(&remote, &folder.path().join("file.bin")).unwrap_err());
        assert!(text.contains(&format!("the server answered {}", &status[..3])), "{text}");
        assert_eq!(text.matches("(tried 4 times in 0 s; try again later)").count(), 1, "{text}");
        assert_eq!(requests.load(Ordering::SeqCst), 4);
        assert_eq!(crate::testing::reported_attempts(&url).len(), 3);
    }
}
