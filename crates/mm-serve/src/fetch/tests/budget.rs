//! Limits of all files of one request together.

use super::*;
use crate::fetch::{FetchBudget, RequestLimits};
use server::{Server, answer, drip, ok, write};

const WIDE: RequestLimits = RequestLimits { urls: 100, bytes: 1 << 20, time: Duration::from_secs(60) };

fn server() -> Server {
    Server::new(|path, stream| match path {
        "/slow" => drip(stream, &answer("200 OK", "Content-Length: 1000", PNG).repeat(20)),
        "/redirect" => write(stream, &answer("302 Found", "Location: /file\r\nContent-Length: 0", b"")),
        _ => write(stream, &ok(&[PNG, &[0; 600]].concat()[..600])),
    })
}

#[test]
fn the_number_of_files_is_limited_before_the_next_is_asked_for() {
    let server = server();
    let (fetcher, url) = (local(LIMITS, server.port), format!("http://example.org:{}/file", server.port));
    let mut budget = FetchBudget::new(RequestLimits { urls: 2, ..WIDE });
    for _ in 0..2 {
        assert_eq!(budget.fetch(&fetcher, &url).unwrap().bytes.len(), 600);
    }
    let error = budget.fetch(&fetcher, &url).unwrap_err();
    assert_error(&error, "RequestUrls { limit: 2 }", "number");
    assert!(error.is_of_request() && error.to_string().contains("limits.max_urls"), "{error}");
    assert_eq!(server.connections(), 2);
    // One that fails counts too.
    let mut budget = FetchBudget::new(RequestLimits { urls: 1, ..WIDE });
    assert_error(&budget.fetch(&fetcher, "http://other.org/").unwrap_err(), "NotAllowed", "refused");
    assert_error(&budget.fetch(&fetcher, &url).unwrap_err(), "RequestUrls", "refused");
}

#[test]
fn the_bytes_of_all_files_are_limited() {
    let server = server();
    let fetcher = local(LIMITS, server.port);
    let url = |path: &str| format!("http://example.org:{}{path}", server.port);
    for path in ["/file", "/redirect"] {
        let mut budget = FetchBudget::new(RequestLimits { bytes: 1000, ..WIDE });
        budget.fetch(&fetcher, &url("/file")).unwrap();
        let error = budget.fetch(&fetcher, &url(path)).unwrap_err();
        assert_error(&error, "RequestBytes { limit: 1000 }", path);
        assert!(error.is_of_request() && error.to_string().contains("limits.max_url_bytes"), "{error}");
    }
    // Where the file's own limit is exceeded, the request's is not.
    let mut budget = FetchBudget::new(WIDE);
    let error = budget.fetch(&local(FetchLimits { bytes: 500, ..LIMITS }, server.port), &url("/file")).unwrap_err();
    assert_error(&error, "TooLarge", "file");
    assert!(!error.is_of_request(), "{error}");
}

#[test]
fn the_time_of_all_files_is_limited() {
    let server = server();
    let fetcher = local(LIMITS, server.port);
    let mut budget = FetchBudget::new(RequestLimits { time: Duration::from_millis(700), ..WIDE });
    let started = std::time::Instant::now();
    let error = budget.fetch(&fetcher, &format!("http://example.org:{}/slow", server.port)).unwrap_err();
    assert_error(&error, "RequestTime { limit: 700ms }", "slow");
    assert!(error.is_of_request() && error.to_string().contains("limits.url_seconds"), "{error}");
    let error = budget.fetch(&fetcher, &format!("http://example.org:{}/file", server.port)).unwrap_err();
    assert_error(&error, "RequestTime", "none left");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}
