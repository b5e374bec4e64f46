//! What a URL points at, checked by its text alone.

use super::{domain::normal_host, error::FetchError};
use url::{Host, Url};

/// The longest URL that is read; signed URLs of object stores have about 2000 bytes.
const MAX_LENGTH: usize = 8192;

/// A URL whose text is accepted. Whether its host is on the list is the fetcher's to say.
#[derive(Debug)]
pub(super) struct Target {
    /// The URL in its normal form, without a fragment: what is requested.
    pub(super) url: Url,
    /// Its host: a domain name in lower case and ASCII, without a dot at its end.
    pub(super) host: String,
    /// Its port, the usual one of the scheme where it names none.
    pub(super) port: u16,
}

impl Target {
    /// Reads a URL.
    pub(super) fn parse(text: &str) -> Result<Self, FetchError> {
        check_text(text)?;
        let invalid = |reason: &str| FetchError::Url { reason: reason.to_owned() };
        let mut url = Url::parse(text).map_err(|e| invalid(&e.to_string()))?;
        // `check_text` has seen to the scheme and the user info; this is what the parser made of them.
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Scheme { found: url.scheme().chars().take(20).collect() });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::UserInfo);
        }
        let host = match url.host() {
            Some(Host::Domain(domain)) => normal_host(domain).ok_or_else(|| invalid("its host is no domain name"))?,
            Some(Host::Ipv4(_) | Host::Ipv6(_)) => return Err(FetchError::IpAddress),
            None => return Err(invalid("it has no host")),
        };
        let port = url.port_or_known_default().ok_or_else(|| invalid("it has no port"))?;
        // One spelling of the host for the name that is resolved, the header `Host` and the certificate.
        url.set_host(Some(&host)).map_err(|e| invalid(&e.to_string()))?;
        url.set_fragment(None);
        Ok(Self { url, host, port })
    }

    /// The text of the URL that a redirect from here leads to. It is not checked yet.
    pub(super) fn join(&self, location: &[u8], status: u16) -> Result<String, FetchError> {
        let location = str::from_utf8(location).map_err(|_| FetchError::Location { status })?;
        check_characters(location)?;
        let url = self.url.join(location).map_err(|_| FetchError::Location { status })?;
        Ok(url.into())
    }
}

/// Refuses what the URL parser would repair, as others may repair it differently.
fn check_text(text: &str) -> Result<(), FetchError> {
    check_characters(text)?;
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(FetchError::Scheme { found: scheme.chars().take(20).collect() });
    }
    let invalid = |reason: &str| FetchError::Url { reason: reason.to_owned() };
    let rest = rest.strip_prefix("//").ok_or_else(|| invalid("there is no // after its scheme"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(invalid("it has no host"));
    }
    if authority.contains('@') {
        return Err(FetchError::UserInfo);
    }
    Ok(())
}

fn check_characters(text: &str) -> Result<(), FetchError> {
    if text.len() > MAX_LENGTH {
        return Err(FetchError::UrlLength { found: text.len(), limit: MAX_LENGTH });
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '\\') {
        Some(found) => Err(FetchError::UrlCharacter { found }),
        None => Ok(()),
    }
}
