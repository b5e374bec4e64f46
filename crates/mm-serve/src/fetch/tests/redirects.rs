//! Redirects: every hop is checked as the first is.

use super::*;
use server::{Server, answer, ok, write};

/// A server that redirects to what follows `/to?`, percent-decoded for what cannot be in a URL.
fn redirecting() -> Server {
    Server::new(|path, stream| {
        let location = path.strip_prefix("/to?").map(|to| to.replace("%20", " ").replace("%5C", "\\"));
        let found = match (path, location) {
            (_, Some(to)) => {
                answer("302 Found", &format!("Location: {to}\r\nSet-Cookie: a=b\r\nContent-Length: 0"), b"")
            }
            ("/loop", _) => answer("301 Moved", "Location: /loop\r\nContent-Length: 6", b"SECRET"),
            ("/3" | "/2" | "/1", _) => {
                let next = path[1..].parse::<usize>().unwrap() - 1;
                answer("307 Temporary", &format!("Location: /{next}\r\nContent-Length: 0"), b"")
            }
            ("/nowhere", _) => answer("302 Found", "Content-Length: 6", b"SECRET"),
            ("/latin", _) => {
                write(stream, b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /\xfc\r\n\r\n");
                return;
            }
            _ => ok(PNG),
        };
        write(stream, &found);
    })
}

#[test]
fn redirects_to_what_is_not_allowed_are_refused() {
    let (server, victim) = (redirecting(), Server::victim());
    let fetcher = fetcher(LIMITS, &[server.port], |address| address == LOOPBACK, &Answers::new(&[&[LOOPBACK]]));
    let cases = [
        ("http://127.0.0.1:{v}/", "IpAddress"),
        ("http://127.0.0.1:{p}/", "IpAddress"),
        ("//127.0.0.1:{v}/", "IpAddress"),
        ("http://2130706433:{v}/", "IpAddress"),
        ("http://0177.0.0.1:{v}/", "IpAddress"),
        ("http://[::1]:{v}/", "IpAddress"),
        ("http://[::ffff:127.0.0.1]:{v}/", "IpAddress"),
        ("http://169.254.169.254/latest/meta-data/", "IpAddress"),
        ("file:///etc/passwd", "Scheme"),
        ("ftp://example.org:{p}/", "Scheme"),
        ("gopher://example.org:{p}/", "Scheme"),
        ("data:image/png;base64,iVBORw0KGgo=", "Scheme"),
        ("http://example.org:{v}/", "Port"),
        ("https://example.org/", "Port"),
        ("//example.org:{v}/", "Port"),
        ("http://evil.test:{p}/", "NotAllowed"),
        ("https://evil.test:{p}/", "NotAllowed"),
        ("//evil.test:{p}/", "NotAllowed"),
        ("http://example.org.evil.test:{p}/", "NotAllowed"),
        ("http://localhost:{v}/", "NotAllowed"),
        ("http://user@example.org:{p}/", "UserInfo"),
        ("http://example.org:80@127.0.0.1:{v}/", "UserInfo"),
        ("http://exa%20mple.org:{p}/", "UrlCharacter"),
        ("/%5Cevil.test:{p}/", "UrlCharacter"),
        ("%5C%5Cevil.test:{p}/", "UrlCharacter"),
        ("http://[::1", "Location"),
        ("http://example.org:99999/", "Location"),
    ];
    for (location, variant) in cases {
        let to = location.replace("{p}", &server.port.to_string()).replace("{v}", &victim.port.to_string());
        let error = fetcher.fetch(&format!("http://example.org:{}/to?{to}", server.port)).unwrap_err();
        assert_error(&error, "", location);
        let found = format!("{error:?}");
        assert!(found.contains(variant), "{location}: expected {variant}, found {found}");
    }
    // One connection each: that for the redirect itself.
    assert_eq!((server.connections(), victim.connections()), (cases.len(), 0));
    // This is a path of the same host by the rules of URLs, though it looks like a host.
    let url = format!("http://example.org:{}/to?http:127.0.0.1:{}/", server.port, victim.port);
    assert!(fetcher.fetch(&url).unwrap().url.starts_with("http://example.org:"));
    assert_eq!(victim.connections(), 0);
}

#[test]
fn redirects_are_followed_as_far_as_allowed() {
    let server = redirecting();
    let url = |path: &str| format!("http://example.org:{}{path}", server.port);
    assert_eq!(local(LIMITS, server.port).fetch(&url("/3")).unwrap().url, url("/0"));
    assert_eq!(server.connections(), 4);
    let two = FetchLimits { redirects: 2, ..LIMITS };
    assert_error(&local(two, server.port).fetch(&url("/3")).unwrap_err(), "TooManyRedirects { limit: 2 }", "/3");
    assert_eq!(server.connections(), 7);
    let none = FetchLimits { redirects: 0, ..LIMITS };
    assert_error(&local(none, server.port).fetch(&url("/1")).unwrap_err(), "TooManyRedirects", "/1");
    for (path, variant) in [
        ("/loop", "TooManyRedirects { limit: 3 }"),
        ("/to?", "TooManyRedirects { limit: 3 }"),
        ("/nowhere", "Location { status: 302 }"),
        ("/latin", "Location { status: 302 }"),
    ] {
        assert_error(&local(LIMITS, server.port).fetch(&url(path)).unwrap_err(), variant, path);
    }
}

#[test]
fn every_hop_is_resolved_and_checked_again() {
    let (server, other) = (redirecting(), "127.0.0.2".parse().unwrap());
    let victim = Server::at(&format!("127.0.0.2:{}", server.port), |_, _| ());
    let answers = Answers::new(&[&[LOOPBACK], &[other]]);
    let fetcher = fetcher(LIMITS, &[server.port], |address| address == LOOPBACK, &answers);
    let error = fetcher.fetch(&format!("http://example.org:{}/1", server.port)).unwrap_err();
    assert_error(&error, "Redirected { hops: 1, error: NotPublic", "rebinding");
    assert_eq!((answers.asked(), server.connections(), victim.connections()), (2, 1, 0));
}

#[test]
fn nothing_of_a_hop_is_sent_to_the_next() {
    let server = redirecting();
    local(LIMITS, server.port).fetch(&format!("http://example.org:{}/to?/0", server.port)).unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        let request = request.to_lowercase();
        assert!(request.contains("\r\naccept-encoding: identity\r\n"), "{request}");
        assert!(request.contains("\r\nuser-agent: mm/"), "{request}");
        for header in ["cookie", "authorization", "referer", "proxy", "x-forwarded"] {
            assert!(!request.contains(&format!("\n{header}")), "{request}");
        }
    }
}
