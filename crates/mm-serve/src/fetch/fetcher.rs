//! Fetching: each hop is checked, resolved, dialled and read.

use super::{
    address::is_global,
    dial::{HEADER_BYTES, Lookup, SystemLookup, Tls, agent},
    domain::AllowedDomain,
    error::FetchError,
    sniff::{SNIFF_BYTES, sniff},
    target::Target,
};
use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};
use ureq::{
    Body,
    http::{HeaderMap, Response, header},
};

/// What one file may take, redirects included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// The most bytes of a file: 64 MiB.
    pub bytes: u64,
    /// The most time in all, from the first lookup to the last byte: 20 s.
    pub time: Duration,
    /// The most redirects: 3.
    pub redirects: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { bytes: 64 << 20, time: Duration::from_secs(20), redirects: 3 }
    }
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The file.
    pub bytes: Vec<u8>,
    /// What it is by its first bytes, as a MIME type (`image/png`).
    pub mime: &'static str,
    /// What the host says it is (`Content-Type` without parameters), which may be wrong.
    pub content_type: Option<String>,
    /// The URL it came from, after redirects.
    pub url: String,
}

/// What is let through besides the list of domains. Tests alone have another than the default.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) allow_address: fn(IpAddr) -> bool,
    pub(super) ports: Vec<u16>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { allow_address: is_global, ports: vec![80, 443] }
    }
}

/// Fetches files from allowed domains. It blocks, and can be shared by threads.
#[derive(Debug)]
pub struct Fetcher {
    allowed: Vec<AllowedDomain>,
    limits: FetchLimits,
    policy: Policy,
    lookup: Box<dyn Lookup>,
    tls: Tls,
}

/// What is left to one file.
struct Bounds {
    limits: FetchLimits,
    start: Instant,
}

impl Bounds {
    /// The time that is left.
    fn remaining(&self) -> Result<Duration, FetchError> {
        let left = self.limits.time.saturating_sub(self.start.elapsed());
        if left.is_zero() { Err(self.timeout()) } else { Ok(left) }
    }

    fn timeout(&self) -> FetchError {
        FetchError::Timeout { limit: self.limits.time }
    }
}

/// What a hop led to.
enum Answer {
    File(Fetched),
    Redirect(String),
}

impl Fetcher {
    /// A fetcher for some domains; for none, it refuses every URL.
    #[must_use]
    pub fn new(allowed: Vec<AllowedDomain>, limits: FetchLimits) -> Self {
        Self { allowed, limits, policy: Policy::default(), lookup: Box::new(SystemLookup), tls: Tls::default() }
    }

    /// A fetcher that resolves and lets through what a test says.
    #[cfg(test)]
    pub(super) fn for_test(
        allowed: Vec<AllowedDomain>,
        limits: FetchLimits,
        policy: Policy,
        lookup: Box<dyn Lookup>,
    ) -> Self {
        Self { policy, lookup, ..Self::new(allowed, limits) }
    }

    /// The limits of one file.
    pub fn limits(&self) -> FetchLimits {
        self.limits
    }

    /// Fetches the image, audio or video file at a URL.
    ///
    /// # Errors
    ///
    /// When the URL, an address of its host, or the answer is not accepted: see [`FetchError`].
    #[cfg(test)]
    pub fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        self.fetch_within(url, self.limits)
    }

    /// Fetches the image, audio or video file at a URL within limits of its own.
    ///
    /// # Errors
    ///
    /// When the URL, an address of its host, or the answer is not accepted: see [`FetchError`].
    pub fn fetch_within(&self, url: &str, limits: FetchLimits) -> Result<Fetched, FetchError> {
        if self.allowed.is_empty() {
            return Err(FetchError::NothingAllowed);
        }
        let bounds = Bounds { limits, start: Instant::now() };
        let mut next = url.to_owned();
        for hop in 0..=limits.redirects {
            match self.hop(&next, &bounds).map_err(|e| e.after(hop))? {
                Answer::File(fetched) => return Ok(fetched),
                Answer::Redirect(location) => next = location,
            }
        }
        Err(FetchError::TooManyRedirects { limit: limits.redirects })
    }

    /// One request, with all checks before it.
    fn hop(&self, url: &str, bounds: &Bounds) -> Result<Answer, FetchError> {
        let target = self.check(url)?;
        let address = self.resolve(&target, bounds)?;
        let response = self.request(&target, address, bounds)?;
        match response.status().as_u16() {
            200 => read(&target, response, bounds).map(Answer::File),
            status @ (301 | 302 | 303 | 307 | 308) => {
                let location = response.headers().get(header::LOCATION).ok_or(FetchError::Location { status })?;
                target.join(location.as_bytes(), status).map(Answer::Redirect)
            }
            status => Err(FetchError::Status { status }),
        }
    }

    /// What can be checked by the URL alone.
    fn check(&self, url: &str) -> Result<Target, FetchError> {
        let target = Target::parse(url)?;
        if !self.allowed.iter().any(|domain| domain.matches(&target.host)) {
            return Err(FetchError::NotAllowed { host: target.host });
        }
        if !self.policy.ports.contains(&target.port) {
            return Err(FetchError::Port { found: target.port });
        }
        Ok(target)
    }

    /// The address to dial: the first of the host's, which all have to be public.
    fn resolve(&self, target: &Target, bounds: &Bounds) -> Result<SocketAddr, FetchError> {
        let host = || target.host.clone();
        let found = self.lookup.lookup(&target.host, bounds.remaining()?).map_err(|e| match e.kind() {
            ErrorKind::TimedOut => bounds.timeout(),
            _ => FetchError::Unresolved { host: host() },
        })?;
        let first = *found.first().ok_or_else(|| FetchError::Unresolved { host: host() })?;
        if !found.into_iter().all(self.policy.allow_address) {
            return Err(FetchError::NotPublic { host: host() });
        }
        Ok(SocketAddr::new(first, target.port))
    }

    fn request(&self, target: &Target, address: SocketAddr, bounds: &Bounds) -> Result<Response<Body>, FetchError> {
        let request = agent(address, &self.tls, bounds.remaining()?).get(target.url.as_str());
        request.header(header::CONNECTION, "close").call().map_err(|e| describe(e, target, bounds))
    }
}

/// The file of an answer with status 200.
fn read(target: &Target, response: Response<Body>, bounds: &Bounds) -> Result<Fetched, FetchError> {
    let (headers, limit) = (response.headers(), bounds.limits.bytes);
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(FetchError::Encoded);
    }
    let content_type = content_type(headers);
    let stated = response.body().content_length();
    if stated.is_some_and(|length| length > limit) {
        return Err(FetchError::TooLarge { found: stated, limit });
    }
    let (bytes, mime) = read_body(target, response.into_body(), stated, bounds)?;
    Ok(Fetched { bytes, mime, content_type, url: target.url.to_string() })
}

fn read_body(
    target: &Target,
    body: Body,
    stated: Option<u64>,
    bounds: &Bounds,
) -> Result<(Vec<u8>, &'static str), FetchError> {
    let limit = bounds.limits.bytes;
    // One byte more than allowed shows that there are more.
    let mut body = body.into_reader().take(limit.saturating_add(1));
    let (mut bytes, mut buffer, mut mime) = (Vec::new(), vec![0; 64 << 10], None);
    loop {
        bounds.remaining()?;
        let count = body.read(&mut buffer).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => FetchError::Truncated { received: bytes.len() as u64, stated },
            _ => describe(ureq::Error::from(e), target, bounds),
        })?;
        bytes.extend_from_slice(&buffer[..count]);
        if bytes.len() as u64 > limit {
            return Err(FetchError::TooLarge { found: None, limit });
        }
        // Decided as early as possible: the rest of another file is not read.
        if mime.is_none() && (count == 0 || bytes.len() >= SNIFF_BYTES) {
            mime = Some(sniff(&bytes).ok_or(FetchError::FileType)?);
        }
        if let (0, Some(mime)) = (count, mime) {
            return Ok((bytes, mime));
        }
    }
}

/// An error of the HTTP client in words of this crate: its own may quote the answer.
fn describe(error: ureq::Error, target: &Target, bounds: &Bounds) -> FetchError {
    let host = target.host.clone();
    match error {
        ureq::Error::Timeout(_) => bounds.timeout(),
        ureq::Error::LargeResponseHeader(..) => FetchError::HeaderSize { limit: HEADER_BYTES },
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => FetchError::Tls { host },
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => FetchError::Tls { host },
        ureq::Error::Io(e) if e.kind() == ErrorKind::TimedOut => bounds.timeout(),
        ureq::Error::Io(e) => FetchError::Connection { host, reason: e.kind().to_string() },
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
            FetchError::Url { reason: "it has characters that cannot be requested".to_owned() }
        }
        _ => FetchError::Protocol { host },
    }
}

/// The type that a host states, without parameters, where it is one.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let stated = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_usual = |b: u8| b.is_ascii_alphanumeric() || b"/+-.".contains(&b);
    (essence.len() <= 100 && essence.contains('/') && essence.bytes().all(is_usual)).then_some(essence)
}
