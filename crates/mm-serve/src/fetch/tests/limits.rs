//! Servers that are slow, endless or large.

use super::*;
use server::{Server, answer, drip, ok, repeat, write};
use std::{net::TcpStream, time::Instant};

const SHORT: FetchLimits = FetchLimits { bytes: 1 << 20, time: Duration::from_millis(700), redirects: 3 };

/// Answers of servers that never end, or not in time.
fn stalling(path: &str, stream: &mut TcpStream) {
    let head = |headers: &str| answer("200 OK", headers, PNG);
    match path {
        "/silent" => std::thread::sleep(Duration::from_secs(4)),
        "/slow-head" => drip(stream, &ok(PNG).repeat(2)),
        "/slow-body" => {
            write(stream, &head("Content-Length: 1000"));
            drip(stream, &[0; 1000]);
        }
        "/slow-close" => {
            write(stream, &head("X: y"));
            drip(stream, &[0; 1000]);
        }
        "/slow-chunks" => {
            write(stream, &answer("200 OK", "Transfer-Encoding: chunked", b""));
            drip(stream, &b"1\r\nx\r\n".repeat(50));
        }
        "/slow-redirect" => {
            std::thread::sleep(Duration::from_millis(300));
            write(stream, &answer("302 Found", "Location: /slow-redirect\r\nContent-Length: 0", b""));
        }
        "/stops" => {
            write(stream, &head("Content-Length: 1000"));
            std::thread::sleep(Duration::from_secs(4));
        }
        "/slow-informational" => drip(stream, &b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10)),
        "/endless-trailers" => {
            write(stream, &answer("200 OK", "Transfer-Encoding: chunked", b"1\r\nx\r\n0\r\n"));
            repeat(stream, b"X: y\r\n");
        }
        _ => drip(stream, &[0x16, 3, 3, 0x40, 0].repeat(20)),
    }
}

#[test]
fn the_whole_time_is_limited() {
    let server = Server::new(stalling);
    for path in "/silent /slow-head /slow-informational /slow-body /slow-close /slow-chunks /slow-redirect /stops \
        /endless-trailers https"
        .split_whitespace()
    {
        let start = Instant::now();
        let rest = format!("example.org:{}{path}", server.port);
        let url =
            if path == "https" { format!("https://example.org:{}/", server.port) } else { format!("http://{rest}") };
        let error = local(SHORT, server.port).fetch(&url).unwrap_err();
        let time = start.elapsed();
        let late = format!("{error:?}").contains("Timeout { limit: 700ms }");
        assert_error(&error, "", path);
        assert!(late, "{path}: {error:?}");
        assert!(time >= Duration::from_millis(600) && time < Duration::from_secs(5), "{path}: {time:?}");
    }
}

#[test]
fn a_slow_lookup_counts() {
    #[derive(Debug)]
    struct Slow;
    impl Lookup for Slow {
        fn lookup(&self, _: &str, timeout: Duration) -> io::Result<Vec<IpAddr>> {
            assert!(timeout <= SHORT.time);
            std::thread::sleep(SHORT.time);
            Ok(vec![LOOPBACK])
        }
    }
    let server = Server::victim();
    let policy = Policy { allow_address: |_| true, ports: vec![server.port] };
    let fetcher = Fetcher::for_test(vec!["example.org".parse().unwrap()], SHORT, policy, Box::new(Slow));
    let error = fetcher.fetch(&format!("http://example.org:{}/", server.port)).unwrap_err();
    assert_error(&error, "Timeout", "lookup");
    assert_eq!(server.connections(), 0);
}

#[test]
fn large_and_endless_answers_are_cut() {
    let server = Server::new(|path, stream| match path {
        "/stated" => write(stream, &answer("200 OK", "Content-Length: 1001", b"")),
        "/huge" => write(stream, &answer("200 OK", "Content-Length: 18446744073709551615", PNG)),
        "/endless" => {
            write(stream, &answer("200 OK", "X: y", PNG));
            repeat(stream, b"SECRET");
        }
        "/chunked" => {
            write(stream, &answer("200 OK", "Transfer-Encoding: chunked", b"20\r\n"));
            write(stream, &[PNG, &[0; 32]].concat()[..32]);
            repeat(stream, b"\r\n6\r\nSECRET");
        }
        "/head" => repeat(stream, b"HTTP/1.1 200 OK SECRET "),
        "/header" => {
            let value = "SECRET".repeat(170_000);
            assert!(value.len() > 1_000_000);
            write(stream, &answer("200 OK", &format!("X: {value}\r\nContent-Length: {}", PNG.len()), PNG));
        }
        "/informational" => repeat(stream, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        "/headers" => {
            write(stream, b"HTTP/1.1 200 OK\r\n");
            repeat(stream, b"X-SECRET: y\r\n");
        }
        _ => write(stream, &ok(&[PNG, &[0; 1000]].concat()[..1000])),
    });
    let fetcher = local(LIMITS, server.port);
    let fetch = |path: &str| fetcher.fetch(&format!("http://example.org:{}{path}", server.port));
    for (path, variant) in [
        ("/stated", "TooLarge { found: Some(1001), limit: 1000 }"),
        ("/huge", "TooLarge { found: Some(18446744073709551615)"),
        ("/endless", "TooLarge { found: None, limit: 1000 }"),
        ("/chunked", "TooLarge { found: None, limit: 1000 }"),
        ("/header", "HeaderSize"),
    ] {
        assert_error(&fetch(path).unwrap_err(), variant, path);
    }
    for path in ["/head", "/headers", "/informational"] {
        let error = fetch(path).unwrap_err();
        assert!(matches!(error, FetchError::HeaderSize { .. } | FetchError::Protocol { .. }), "{path}: {error:?}");
        assert_error(&error, "", path);
    }
    assert_eq!(fetch("/exact").unwrap().bytes.len(), 1000);
}
