//! URLs and answers of DNS that are refused before anything is dialled.

use super::{super::address::is_global, *};
use server::Server;

/// URLs of hosts that are IP addresses. `{p}` is the port of a server that listens.
const ADDRESSES: &str = "http://127.0.0.1:{p}/ https://127.0.0.1:{p}/ http://127.0.0.1.:{p}/ http://2130706433:{p}/ \
    http://0x7f000001:{p}/ http://0X7F000001:{p}/ http://0x7f.0.0.1:{p}/ http://0x7f.1:{p}/ http://0177.0.0.1:{p}/ \
    http://00000177.0.0.1:{p}/ http://017700000001:{p}/ http://127.1:{p}/ http://127.0.1:{p}/ http://0:{p}/ http://0x:{p}/ \
    http://0.0.0.0:{p}/ http://[::1]:{p}/ http://[::]:{p}/ http://[::ffff:127.0.0.1]:{p}/ http://[::ffff:7f00:1]:{p}/ \
    http://[0:0:0:0:0:ffff:127.0.0.1]:{p}/ http://[::127.0.0.1]:{p}/ http://[64:ff9b::7f00:1]:{p}/ \
    http://[2002:7f00:1::]:{p}/ http://169.254.169.254/latest/meta-data/ http://0xA9FEA9FE/ http://[fd00:ec2::254]/ \
    http://8.8.8.8/ https://1.1.1.1/ http://127。0。0。1:{p}/ http://127．0．0．1:{p}/ http://127｡0｡0｡1:{p}/ \
    http://１２７.0.0.1:{p}/ http://①②⑦.0.0.1:{p}/ http://%31%32%37.0.0.1:{p}/ http://127%2e0%2e0%2e1:{p}/ \
    http://127.0.0.1:{p}#@example.org/ http://127.0.0.1:{p}?@example.org/ http://127.0.0.1:{p}/@example.org";

/// URLs with something before an `@`, and variants that other parsers read as that.
const USERS: &str = "http://example.org@127.0.0.1:{p}/ http://example.org:80@127.0.0.1:{p}/ \
    http://user:pass@example.org:{p}/ http://user@example.org:{p}/ http://@example.org:{p}/ http://:@example.org:{p}/ \
    http://127.0.0.1:{p}@example.org:{p}/ http://a@b@example.org:{p}/ https://@@example.org:{p}/ \
    http://example.org:{p}@evil.test/";

/// Hosts that are not on the list.
const OTHERS: &str = "http://evil.test:{p}/ http://evilexample.org:{p}/ http://example.org.evil.test:{p}/ \
    http://example.org。evil.test:{p}/ http://example.org%2eevil.test:{p}/ http://www.example.org:{p}/ \
    http://cdn.example.org:{p}/ http://evilcdn.example.org:{p}/ http://a.cdn.example.org.evil.test:{p}/ \
    http://exаmple.org:{p}/ http://xn--exmple-cua.org:{p}/ http://examp1e.org:{p}/ http://example.or:{p}/ \
    http://localhost:{p}/ http://localhost.localdomain:{p}/ http://metadata.google.internal/ \
    http://7f000001.nip.io:{p}/ http://example.org-evil.test:{p}/ http://org:{p}/ http://example-org:{p}/";

/// Texts that are no URL of a web server.
const SCHEMES: &str = "file:///etc/passwd file://example.org/etc/passwd ftp://example.org:{p}/ gopher://example.org:{p}/ \
    dict://example.org:{p}/ ldap://example.org/ ws://example.org:{p}/ data:image/png;base64,iVBORw0KGgo= \
    javascript:alert(1) view-source:http://example.org:{p}/ jar:http://example.org:{p}/!/ //example.org:{p}/ \
    example.org:{p}/ /etc/passwd http httpss://example.org:{p}/ blob:http://example.org:{p}/ unix:/run/a.sock";

/// URLs that the parser refuses, or would repair.
const INVALID: &str = "http: http:// https:// http:example.org:{p}/ http:/example.org:{p}/ http:///example.org:{p}/ \
    http://:{p}/ http://?@example.org:{p}/ http://#@example.org:{p}/ http://256.0.0.1:{p}/ http://127.0.0.256:{p}/ \
    http://1.2.3.4.5:{p}/ http://09.0.0.1:{p}/ http://[::1:{p}/ http://[fe80::1%25eth0]:{p}/ \
    http://[example.org]:{p}/ http://example.org..:{p}/ http://.example.org:{p}/ http://a..cdn.example.org:{p}/ \
    http://*.cdn.example.org:{p}/ http://.cdn.example.org:{p}/ http://example.org%00.evil.test:{p}/ \
    http://example.org%40127.0.0.1:{p}/ http://example.org%2f.evil.test:{p}/ http://example.org%0a:{p}/ \
    http://example.org%20:{p}/ http://example.org:65536/ http://example.org:-1/ http://example.org:80:{p}/ \
    http://example.org:{p}a/ http://xn--a.cdn.example.org:{p}/ http://a!b.cdn.example.org:{p}/";

const PORTS: &str = "http://example.org:22/ http://example.org:0/ http://example.org:8080/ http://example.org/ \
    https://example.org/ http://example.org:{other}/ https://example.org.:{other}/ http://a.cdn.example.org:{other}/";

/// URLs with characters that cannot be in the tables above.
const CHARACTERS: [&str; 18] = [
    " http://example.org:{p}/",
    "http://example.org:{p}/ ",
    "http://example.org:{p}/\n",
    "http://example.org:{p}/a b",
    "http://exa\tmple.org:{p}/",
    "http://exa\nmple.org:{p}/",
    "ht\ntp://example.org:{p}/",
    "http:\n//127.0.0.1:{p}/",
    "http://127.0.0.1\n.example.org:{p}/",
    "http://example.org:{p}/\r\nHost: evil.test",
    "http://example.org:{p}/ HTTP/1.1\r\nX: y",
    "http://example.org\0.evil.test:{p}/",
    "http://example.org\u{a0}.evil.test:{p}/",
    "http://example.org:{p}/\u{2028}x",
    "http://127.0.0.1:{p}\\@example.org:{p}/",
    "http://example.org\\@127.0.0.1:{p}/",
    "http:\\\\127.0.0.1:{p}/",
    "http://example.org:{p}\\..\\",
];

#[test]
fn hostile_urls_are_refused_before_anything_is_resolved() {
    let (server, other) = (Server::victim(), Server::victim());
    let answers = Answers::new(&[&[LOOPBACK]]);
    // Every address is let through here: what stops these URLs is their text.
    let fetcher = fetcher(LIMITS, &[server.port], |_| true, &answers);
    let mut count = 0;
    let mut refuse = |url: &str, variant: &str| {
        let url = url.replace("{p}", &server.port.to_string()).replace("{other}", &other.port.to_string());
        assert_error(&fetcher.fetch(&url).unwrap_err(), variant, &url);
        count += 1;
    };
    for (urls, variant) in [
        (ADDRESSES, "IpAddress"),
        (USERS, "UserInfo"),
        (OTHERS, "NotAllowed"),
        (SCHEMES, "Scheme"),
        (INVALID, "Url {"),
        (PORTS, "Port"),
    ] {
        urls.split(' ').filter(|url| !url.is_empty()).for_each(|url| refuse(url, variant));
    }
    for url in CHARACTERS {
        refuse(url, "UrlCharacter");
    }
    refuse("", "Scheme");
    refuse(&format!("http://example.org:{{p}}/{}", "a".repeat(9000)), "UrlLength");
    assert!(count >= 140, "{count}");
    assert_eq!((answers.asked(), server.connections(), other.connections()), (0, 0, 0));
    // The same fetcher does reach the server by a URL that is allowed.
    fetcher.fetch(&format!("http://example.org:{}/", server.port)).unwrap();
    assert_eq!((answers.asked(), server.connections()), (1, 1));
}

#[test]
fn spellings_of_an_allowed_host_are_that_host() {
    let server = Server::victim();
    let answers = Answers::new(&[&[LOOPBACK]]);
    let fetcher = fetcher(LIMITS, &[server.port], |_| true, &answers);
    let urls = "http://example.org:{p}/a HTTP://EXAMPLE.org:{p}/a http://example.org.:{p}/a http://example。org:{p}/a \
        http://ｅxample.org:{p}/a http://ex%61mple.org:{p}/a http://example.org:{p}/a#@127.0.0.1/";
    for url in urls.split_whitespace() {
        let file = fetcher.fetch(&url.replace("{p}", &server.port.to_string())).unwrap();
        assert_eq!(file.url, format!("http://example.org:{}/a", server.port), "{url}");
    }
    let url = format!("http://BÜCHER.example:{}/?q={{|}}&ü", server.port);
    assert!(fetcher.fetch(&url).unwrap().url.starts_with("http://xn--bcher-kva.example:"));
    fetcher.fetch(&format!("http://a.cdn.example.org:{}/", server.port)).unwrap();
    assert_eq!((answers.asked(), server.connections()), (9, 9));
    let host = format!("\r\nhost: example.org:{}\r\n", server.port);
    assert!(server.requests()[..7].iter().all(|request| request.to_lowercase().contains(&host)));
}

#[test]
fn without_domains_everything_is_refused() {
    let answers = Answers::new(&[&[LOOPBACK]]);
    let fetcher = Fetcher::for_test(Vec::new(), LIMITS, Policy::default(), Box::new(answers.clone()));
    for url in ["http://example.org/", "file:///etc/passwd", ""] {
        let error = fetcher.fetch(url).unwrap_err();
        assert_error(&error, "NothingAllowed", url);
        assert!(error.to_string().contains("--fetch-from DOMAIN"));
    }
    assert_eq!(answers.asked(), 0);
}

#[test]
fn hosts_with_any_address_that_is_not_public_are_refused() {
    let server = Server::victim();
    let url = format!("http://example.org:{}/", server.port);
    let public = "93.184.215.14,2606:4700::1111";
    for private in "127.0.0.1 127.0.0.2 0.0.0.0 10.0.0.1 172.16.0.1 192.168.0.1 169.254.169.254 100.64.0.1 192.0.0.192 \
        198.18.0.1 224.0.0.1 255.255.255.255 ::1 :: ::ffff:127.0.0.1 ::127.0.0.1 fe80::1 fec0::1 fd00:ec2::254 \
        64:ff9b::7f00:1 64:ff9b:1::7f00:1 2002:7f00:1:: 2001:0:7f00:1:: 2001:db8::1"
        .split_whitespace()
    {
        // Alone, first and last.
        for list in [private.to_owned(), format!("{private},{public}"), format!("{public},{private}")] {
            let addresses: Vec<IpAddr> = list.split(',').map(|address| address.parse().unwrap()).collect();
            let answers = Answers::new(&[&addresses]);
            let error = fetcher(LIMITS, &[server.port], is_global, &answers).fetch(&url).unwrap_err();
            assert_error(&error, "NotPublic", &list);
            assert_eq!(answers.asked(), 1);
        }
    }
    let none = Answers::new(&[&[]]);
    assert_error(&fetcher(LIMITS, &[server.port], is_global, &none).fetch(&url).unwrap_err(), "Unresolved", "none");
    assert_eq!(server.connections(), 0);
}

#[test]
fn only_the_address_that_was_checked_is_dialled() {
    let server = Server::victim();
    let victim = Server::at(&format!("127.0.0.2:{}", server.port), |_, _| ());
    let other: IpAddr = "127.0.0.2".parse().unwrap();
    let url = format!("http://example.org:{}/", server.port);
    // The second answer would be another address: it is asked for once, and dialled once.
    let answers = Answers::new(&[&[LOOPBACK], &[other]]);
    let fetcher_of = |answers: &Answers| fetcher(LIMITS, &[server.port], |address| address == LOOPBACK, answers);
    fetcher_of(&answers).fetch(&url).unwrap();
    assert_eq!((answers.asked(), server.connections(), victim.connections()), (1, 1, 0));
    // The next fetch asks again, as no connection is kept.
    let again = fetcher_of(&answers);
    assert_error(&again.fetch(&url).unwrap_err(), "NotPublic", "again");
    assert_eq!((answers.asked(), server.connections(), victim.connections()), (2, 1, 0));
    // Of several addresses that are let through, one is dialled, though it does not answer.
    let port = victim.port;
    let silent: IpAddr = "127.0.0.3".parse().unwrap();
    let several = fetcher(LIMITS, &[port], |_| true, &Answers::new(&[&[silent, LOOPBACK, other]]));
    assert_error(&several.fetch(&url).unwrap_err(), "Connection", "several");
    assert_eq!((server.connections(), victim.connections()), (1, 0));
}

#[test]
fn a_fetcher_has_the_strict_policy() {
    let allowed = vec!["example.org".parse().unwrap()];
    let answers = Box::new(Answers::new(&[&[LOOPBACK]]));
    let fetcher = Fetcher::for_test(allowed.clone(), FetchLimits::default(), Policy::default(), answers);
    assert_error(&fetcher.fetch("http://example.org/").unwrap_err(), "NotPublic", "80");
    assert_error(&fetcher.fetch("https://example.org/").unwrap_err(), "NotPublic", "443");
    assert_error(&fetcher.fetch("https://example.org:8443/").unwrap_err(), "Port { found: 8443 }", "8443");
    let expected = FetchLimits { bytes: 67_108_864, time: Duration::from_secs(20), redirects: 3 };
    assert_eq!(FetchLimits::default(), expected);
    // The public constructor takes that policy, and the resolver of the system.
    let public = format!("{:?}", Fetcher::new(allowed, expected));
    assert!(public.contains("ports: [80, 443]") && public.contains("lookup: SystemLookup"), "{public}");
}
