//! Domains that files may be fetched from.

use std::{fmt, str::FromStr};
use url::Host;

/// A domain of `--fetch-from`: `example.org` is that host alone, `*.example.org` its subdomains without itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedDomain {
    name: String,
    subdomains: bool,
}

/// Why a text is no [`AllowedDomain`]. Its message says what was found and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found `{found}`, which {reason}; expected a domain name like example.org, or *.example.org for its subdomains"
)]
pub struct DomainError {
    found: String,
    reason: &'static str,
}

impl DomainError {
    /// What is wrong with the text: the end of a sentence about it.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }
}

impl AllowedDomain {
    /// Whether a host is allowed by this domain. The host is lower-case, in ASCII, without a dot at its end.
    pub(super) fn matches(&self, host: &str) -> bool {
        if !self.subdomains {
            return host == self.name;
        }
        host.strip_suffix(&self.name).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
    }
}

impl FromStr for AllowedDomain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        // The text of a person or a file: a message shows a line of it at most.
        parse(text).map_err(|reason| DomainError { found: text.escape_debug().take(100).collect(), reason })
    }
}

impl fmt::Display for AllowedDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.subdomains { "*." } else { "" }, self.name)
    }
}

fn parse(text: &str) -> Result<AllowedDomain, &'static str> {
    let (subdomains, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
    if name.is_empty() {
        return Err("has no name");
    }
    if name.contains("://") {
        return Err("has a scheme");
    }
    if name.contains(['/', '\\', '?', '#']) {
        return Err("has a path");
    }
    if name.contains('@') {
        return Err("has a user name");
    }
    if name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok() {
        return Err("is an IP address");
    }
    if name.contains(':') {
        return Err("has a port");
    }
    if name.contains('*') {
        return Err("has a `*` elsewhere than as its first label");
    }
    match Host::parse(name) {
        Ok(Host::Domain(domain)) if !name.contains('%') => {
            let name = normal_host(&domain).ok_or("is not a domain name")?;
            let is_top_level = subdomains && !name.contains('.');
            if is_top_level { Err("allows a whole top-level domain") } else { Ok(AllowedDomain { name, subdomains }) }
        }
        Ok(Host::Ipv4(_) | Host::Ipv6(_)) => Err("is an IP address"),
        _ => Err("is not a domain name"),
    }
}

/// A domain name as hosts are compared: without the dot that may be at its end. `None` where it is no name that DNS
/// can have. The URL parser has made it lower-case and ASCII (punycode).
pub(super) fn normal_host(domain: &str) -> Option<String> {
    let name = domain.strip_suffix('.').unwrap_or(domain);
    let is_usual = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_usual);
    (name.len() <= 253 && name.split('.').all(is_label)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(domain: &str, host: &str) -> bool {
        domain.parse::<AllowedDomain>().unwrap().matches(host)
    }

    #[test]
    fn a_domain_is_one_host_and_a_wildcard_its_subdomains() {
        for (domain, host, expected) in [
            ("example.org", "example.org", true),
            ("EXAMPLE.org.", "example.org", true),
            ("example.org", "www.example.org", false),
            ("example.org", "evilexample.org", false),
            ("example.org", "example.org.evil.test", false),
            ("example.org", "example.or", false),
            ("*.example.org", "www.example.org", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "evilexample.org", false),
            ("*.example.org", "www.example.org.evil.test", false),
            ("bücher.example", "xn--bcher-kva.example", true),
            ("BÜCHER.example", "xn--bcher-kva.example", true),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", true),
            ("localhost", "localhost", true),
        ] {
            assert_eq!(allows(domain, host), expected, "{domain} {host}");
        }
        assert_eq!("*.Example.org.".parse::<AllowedDomain>().unwrap().to_string(), "*.example.org");
    }

    #[test]
    fn other_texts_are_refused_with_what_was_found() {
        for (text, reason) in [
            ("", "has no name"),
            ("*.", "has no name"),
            ("*", "elsewhere"),
            ("*.*.example.org", "elsewhere"),
            ("www.*.org", "elsewhere"),
            ("*example.org", "elsewhere"),
            ("*.org", "top-level"),
            ("https://example.org", "scheme"),
            ("example.org/images", "path"),
            ("example.org\\images", "path"),
            ("example.org?x", "path"),
            ("user@example.org", "user name"),
            ("example.org:443", "port"),
            ("mailto:a", "port"),
            ("127.0.0.1", "IP address"),
            ("127.1", "IP address"),
            ("0x7f000001", "IP address"),
            ("2130706433", "IP address"),
            ("１２７.0.0.1", "IP address"),
            ("::1", "IP address"),
            ("[::1]", "IP address"),
            ("*.10.0.0.1", "IP address"),
            ("example .org", "not a domain name"),
            ("example..org", "not a domain name"),
            (".example.org", "not a domain name"),
            ("example.org..", "not a domain name"),
            ("ex%61mple.org", "not a domain name"),
            ("exa!mple.org", "not a domain name"),
        ] {
            let error = text.parse::<AllowedDomain>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(error.starts_with("found `") && error.contains("expected a domain name"), "{error}");
        }
        assert!(format!("{}.org", "a".repeat(64)).parse::<AllowedDomain>().is_err());
        let long = "a!".repeat(10_000).parse::<AllowedDomain>().unwrap_err().to_string();
        assert!(long.len() < 300, "{long}");
    }
}
