//! Files of a server on this machine.

use super::*;
use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A server on this machine, and how many requests it answered.
fn server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let (mut request, mut byte) = (Vec::new(), [0u8; 1]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    request.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let answer = |status: &str, headers: &str, body: &str| {
                    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}")
                };
                let sized = |body: &str| answer("200 OK", &format!("Content-Length: {}\r\n", body.len()), body);
                let found = match path.as_str() {
                    "/dot.PNG?x=1" | "/photo" => sized("0123456789"),
                    "/large" => sized(&"x".repeat(101)),
                    "/endless" => answer("200 OK", "", &"x".repeat(1 << 20)),
                    "/cut" => answer("200 OK", "Content-Length: 50\r\n", "only this"),
                    "/moved" => answer("302 Found", "Location: /photo\r\nContent-Length: 0\r\n", ""),
                    "/page" => {
                        answer("200 OK", "Content-Type: text/html; charset=utf-8\r\nContent-Length: 2\r\n", "<p")
                    }
                    "/slow" => {
                        std::thread::sleep(Duration::from_secs(4));
                        sized("late")
                    }
                    _ => answer("404 Not Found", "Content-Length: 0\r\n", ""),
                };
                // A client that has enough closes the connection.
                let _ = stream.write_all(found.as_bytes());
            });
        }
    });
    (address, requests)
}

fn fetcher(folder: &Path) -> CachedFetcher {
    CachedFetcher::with_limits(folder.join("urls"), Limits { bytes: 100, time: Duration::from_secs(2) })
}

#[test]
fn files_are_fetched_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (address, requests) = server();
    let url = format!("{address}/dot.PNG?x=1");
    let path = fetcher(folder.path()).fetch(&url).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
    assert_eq!(path.extension().unwrap(), "png");
    assert_eq!(fetcher(folder.path()).fetch(&url).unwrap(), path);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let moved = fetcher(folder.path()).fetch(&format!("{address}/moved")).unwrap();
    assert_eq!(std::fs::read(moved).unwrap(), b"0123456789");
}

#[test]
fn files_beyond_the_limits_and_error_pages_are_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (address, requests) = server();
    let fetcher = fetcher(folder.path());
    for (path, reason) in [
        ("missing", "the server answered 404"),
        ("large", "found 101 bytes, expected at most 100 bytes"),
        ("endless", "found more, expected at most 100 bytes"),
        ("page", "found a web page (text/html)"),
        ("slow", "(at most 2 s)"),
    ] {
        let error = fetcher.fetch(&format!("{address}/{path}")).unwrap_err();
        assert!(error.contains(reason), "{path}: {error}");
    }
    assert!(fetcher.fetch(&format!("{address}/cut")).is_err());
    // Nothing listens there.
    assert!(fetcher.fetch("http://127.0.0.1:1/a.png").is_err());
    let count = requests.load(Ordering::SeqCst);
    assert!(fetcher.fetch(&format!("{address}/missing")).unwrap_err().contains("404"));
    assert_eq!(requests.load(Ordering::SeqCst), count);
    let kept = std::fs::read_dir(folder.path().join("urls")).map_or(0, Iterator::count);
    assert_eq!(kept, 0);
}
