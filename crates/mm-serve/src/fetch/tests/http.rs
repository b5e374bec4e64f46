//! Answers: status, length, encoding, type; and the connection.

use super::*;
use server::{Server, answer, ok, write};
use std::{io::Read, process::Command};

/// The first bytes of a file of gzip.
const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xed\xc1\x01\x0d\0\0\0\xc2\xa0\xf7Om\x0e7\xa0\0\0\0SECRET";

fn answers(path: &str) -> Vec<u8> {
    let sized =
        |headers: &str, body: &[u8]| answer("200 OK", &format!("{headers}Content-Length: {}", body.len()), body);
    match path {
        "/png" => sized("Content-Type: text/html; charset=SECRET\r\n", PNG),
        "/no-type" => ok(PNG),
        "/odd-type" => sized("Content-Type: SECRET <b>/x\r\n", PNG),
        "/chunked" => answer(
            "200 OK",
            "Transfer-Encoding: chunked",
            b"8\r\n\x89PNG\r\n\x1a\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
        ),
        "/closed" => answer("200 OK", "X: y", PNG),
        "/old" => [b"HTTP/1.0 200 OK\r\n\r\n", PNG].concat(),
        "/identity" => sized("Content-Encoding: Identity\r\n", PNG),
        "/less-stated" => answer("200 OK", "Content-Length: 12", &[PNG, b"SECRET"].concat()),
        "/html" => sized("Content-Type: image/png\r\n", b"<!DOCTYPE html><p>SECRET"),
        "/json" => sized("Content-Type: image/png\r\n", b"{\"AccessKeyId\": \"SECRET\"}"),
        "/empty" => ok(b""),
        "/gzip" => sized("Content-Type: image/png\r\nContent-Encoding: gzip\r\n", GZIP),
        "/brotli" => sized("Content-Encoding: br\r\n", PNG),
        "/twice" => sized("Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", PNG),
        "/gzip-file" => sized("Content-Type: image/png\r\n", GZIP),
        "/more-stated" => answer("200 OK", "Content-Length: 900", PNG),
        "/cut-chunk" => answer("200 OK", "Transfer-Encoding: chunked", &[b"100\r\n", PNG].concat()),
        "/no-last-chunk" => answer("200 OK", "Transfer-Encoding: chunked", b"8\r\n\x89PNG\r\n\x1a\n\r\n"),
        "/cut-head" => b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(),
        "/bad-chunk" => answer("200 OK", "Transfer-Encoding: chunked", b"SECRET\r\n"),
        "/negative" => answer("200 OK", "Content-Length: -1", PNG),
        "/two-lengths" => answer("200 OK", "Content-Length: 12\r\nContent-Length: 13", PNG),
        "/no-http" => b"SSH-2.0-SECRET\r\n\r\n".to_vec(),
        "/reason" => answer("404 SECRET", "Content-Length: 6", b"SECRET"),
        "/switch" => answer("101 Switching Protocols", "Upgrade: SECRET", b""),
        status => answer(&format!("{} SECRET", &status[1..]), "Content-Length: 0", b""),
    }
}

#[test]
fn files_are_fetched_with_their_type() {
    let server = Server::new(|path, stream| write(stream, &answers(path)));
    let url = |path: &str| format!("http://example.org:{}{path}", server.port);
    let fetch = |path: &str| local(LIMITS, server.port).fetch(&url(path)).unwrap_or_else(|e| panic!("{path}: {e:?}"));
    let png = fetch("/png");
    assert_eq!((png.bytes.as_slice(), png.mime, png.url), (PNG, "image/png", url("/png")));
    assert_eq!(png.content_type.as_deref(), Some("text/html"));
    for path in ["/no-type", "/odd-type", "/closed", "/old", "/identity"] {
        let fetched = fetch(path);
        assert_eq!((fetched.bytes.as_slice(), fetched.content_type), (PNG, None), "{path}");
    }
    assert_eq!(fetch("/chunked").bytes, b"\x89PNG\r\n\x1a\nabc");
    assert_eq!(fetch("/less-stated").bytes, PNG[..12]);
}

#[test]
fn other_answers_are_refused() {
    let server = Server::new(|path, stream| write(stream, &answers(path)));
    for (paths, variant) in [
        ("/html /json /empty /gzip-file", "FileType"),
        ("/gzip /brotli /twice", "Encoded"),
        ("/more-stated", "Truncated { received: 25, stated: Some(900) }"),
        ("/cut-chunk", "Truncated { received: 25, stated: None }"),
        ("/no-last-chunk", "Truncated { received: 8, stated: None }"),
        ("/bad-chunk /negative /two-lengths /no-http", "Protocol"),
        ("/cut-head", "Connection"),
        ("/reason", "Status { status: 404 }"),
        ("/switch", "Status { status: 101 }"),
        ("/201 /202 /204 /206 /299 /300 /304 /305 /400 /401 /403 /404 /407 /418 /429 /500 /503 /599", "Status"),
    ] {
        for path in paths.split(' ') {
            let url = format!("http://example.org:{}{path}", server.port);
            assert_error(&local(LIMITS, server.port).fetch(&url).unwrap_err(), variant, path);
        }
    }
}

#[test]
fn https_names_the_host_and_needs_a_certificate() {
    let server = Server::new(|_, stream| write(stream, &ok(PNG)));
    let url = format!("https://example.org:{}/", server.port);
    assert_error(&local(LIMITS, server.port).fetch(&url).unwrap_err(), "Tls", "plain");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert!(
        requests[0].starts_with('\x16') && requests[0].contains("example.org"),
        "no hello with the name of the host"
    );
}

#[test]
fn hosts_that_refuse_are_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = local(LIMITS, port).fetch(&format!("http://example.org:{port}/")).unwrap_err();
    assert_error(&error, "Connection", "closed port");
    assert!(error.to_string().contains("`example.org` failed: connection refused"), "{error}");
}

/// The environment of a process cannot be changed safely by a test with threads: this test runs itself again with one.
#[test]
fn no_proxy_of_the_environment_is_used() {
    const URL: &str = "MM_TEST_FETCH_URL";
    if let Ok(url) = std::env::var(URL) {
        let port = url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
        assert!(ureq::Proxy::try_from_env().is_some());
        local(LIMITS, port).fetch(&url).unwrap();
        return;
    }
    let (server, proxy) = (Server::victim(), Server::victim());
    let mut child = Command::new(std::env::current_exe().unwrap());
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, format!("http://127.0.0.1:{}", proxy.port));
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    child.env(URL, format!("http://example.org:{}/", server.port));
    let output = child.args(["--exact", &test_name(), "--nocapture"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    assert_eq!((server.connections(), proxy.connections()), (1, 0));
}

fn test_name() -> String {
    let module = module_path!().split_once("::").unwrap().1;
    format!("{module}::no_proxy_of_the_environment_is_used")
}

#[test]
fn the_resolver_of_the_system_gives_up_in_time() {
    let found = super::super::dial::SystemLookup.lookup("example.org", Duration::ZERO);
    assert_eq!(found.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn fetchers_are_shared_by_threads() {
    let server = Server::new(|path, stream| {
        let mut rest = Vec::new();
        let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
        let _ = stream.read_to_end(&mut rest);
        write(stream, &ok(&[PNG, path.as_bytes()].concat()));
    });
    let fetcher = local(LIMITS, server.port);
    std::thread::scope(|scope| {
        for path in ["/a", "/b", "/c", "/d"] {
            let (fetcher, port) = (&fetcher, server.port);
            scope.spawn(move || {
                let file = fetcher.fetch(&format!("http://example.org:{port}{path}")).unwrap();
                assert!(file.bytes.ends_with(path.as_bytes()));
            });
        }
    });
}
