//! Why a URL was not fetched.

use std::time::Duration;

/// Why a URL was not fetched. A message says what was found, what is expected and what to do; it has no part of the
/// answer's body and no IP address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No domain is allowed.
    #[error(
        "URLs are not fetched by this server; expected the file itself (a data URL or an upload), or a server that was \
         started with --fetch-from DOMAIN"
    )]
    NothingAllowed,
    /// The URL is too long.
    #[error("found a URL of {found} bytes, expected at most {limit}; send the file itself instead")]
    UrlLength {
        /// Its length in bytes.
        found: usize,
        /// The longest that is accepted.
        limit: usize,
    },
    /// The URL has a character that programs read in different ways.
    #[error("found the character {found:?} in the URL, expected it percent-encoded or left out")]
    UrlCharacter {
        /// White space, a control character or a backslash.
        found: char,
    },
    /// The text is no URL.
    #[error("found an invalid URL ({reason}), expected one like https://example.org/image.png")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The scheme is neither http nor https.
    #[error("found a URL of the scheme `{found}`, expected http:// or https://")]
    Scheme {
        /// The start of the scheme.
        found: String,
    },
    /// The URL has a user name or a password.
    #[error("found a user name or an `@` before the host of the URL, expected none; leave it out")]
    UserInfo,
    /// The host is an IP address, in one of its spellings.
    #[error(
        "found an IP address as the host of the URL, which is not on the list of allowed domains; expected a domain \
         that was given to the server with --fetch-from DOMAIN"
    )]
    IpAddress,
    /// The host is not on the list.
    #[error(
        "the host `{host}` is not on the list of allowed domains; expected a domain that was given to the server with \
         --fetch-from DOMAIN"
    )]
    NotAllowed {
        /// The host as it was compared: lower-case, in punycode.
        host: String,
    },
    /// The port is not one of the web's.
    #[error("found port {found} in the URL, expected 80 or 443; leave the port out")]
    Port {
        /// The port of the URL.
        found: u16,
    },
    /// The host has no address.
    #[error("`{host}` cannot be resolved to an address; check its spelling and the DNS of the server")]
    Unresolved {
        /// The host.
        host: String,
    },
    /// An address of the host is not public.
    #[error("`{host}` resolves to an address that is not public; expected a host of the public internet")]
    NotPublic {
        /// The host.
        host: String,
    },
    /// The host could not be reached, or the connection broke.
    #[error("the connection to `{host}` failed: {reason}; try again later")]
    Connection {
        /// The host.
        host: String,
        /// The kind of the error.
        reason: String,
    },
    /// The host has no TLS that is accepted.
    #[error("`{host}` has no valid TLS certificate for its name, or does not talk TLS; check the URL in a browser")]
    Tls {
        /// The host.
        host: String,
    },
    /// The answer is no HTTP.
    #[error("`{host}` does not answer with valid HTTP/1.1; check the URL in a browser")]
    Protocol {
        /// The host.
        host: String,
    },
    /// The headers of the answer are too large.
    #[error("found headers of more than {limit} bytes, expected fewer; the file cannot be fetched from there")]
    HeaderSize {
        /// The most that is read.
        limit: usize,
    },
    /// The answer is neither a file nor a redirect.
    #[error("the host answered with status {status}, expected 200; check that the URL is public and exists")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// A redirect does not say where to.
    #[error("the host answered with the redirect {status} without a valid Location, expected a URL; use another URL")]
    Location {
        /// The HTTP status.
        status: u16,
    },
    /// There are too many redirects.
    #[error("found more than {limit} redirects, expected at most {limit}; use the URL that they lead to")]
    TooManyRedirects {
        /// The most that are followed.
        limit: usize,
    },
    /// What went wrong after a redirect.
    #[error("after {hops} redirects: {error}")]
    Redirected {
        /// How many redirects had been followed.
        hops: usize,
        /// What went wrong.
        error: Box<FetchError>,
    },
    /// The answer is compressed, though that was not asked for.
    #[error("found a compressed answer (Content-Encoding), expected the file as it is; use another host")]
    Encoded,
    /// The file is too large.
    #[error("found {} in the file, expected at most {limit} bytes; use a smaller one", size(*.found))]
    TooLarge {
        /// The size that the host states, where it does.
        found: Option<u64>,
        /// The most that is read.
        limit: u64,
    },
    /// The connection ended before the file did.
    #[error("the connection ended after {received} bytes, expected {}; try again later", size(*.stated))]
    Truncated {
        /// How many bytes there were.
        received: u64,
        /// How many the host had stated, where it did.
        stated: Option<u64>,
    },
    /// It took too long.
    #[error("the file was not complete after {} s, expected less; try again or use another host", .limit.as_secs_f64())]
    Timeout {
        /// The time that all hops may take together.
        limit: Duration,
    },
    /// The request has too many URLs.
    #[error("found more than {limit} URLs in the request, expected at most that (limits.max_urls)")]
    RequestUrls {
        /// The most that are fetched for one request.
        limit: usize,
    },
    /// The files of the request are too large together.
    #[error(
        "found more than {limit} bytes in the files of the request, expected at most that (limits.max_url_bytes); \
         divide the request"
    )]
    RequestBytes {
        /// The most that is read for one request.
        limit: u64,
    },
    /// The files of the request took too long together.
    #[error(
        "the files of the request were not complete after {} s, expected less (limits.url_seconds); divide the request",
        .limit.as_secs_f64()
    )]
    RequestTime {
        /// The time that all files of one request may take.
        limit: Duration,
    },
    /// The file is not one that models take.
    #[error(
        "found a file of another type, expected JPEG, PNG, GIF, WebP, BMP, TIFF, SVG, WAV, MP3, Ogg, FLAC, MP4, WebM \
         or Matroska; check that the URL is that of the file and not of a page around it"
    )]
    FileType,
}

impl FetchError {
    /// What went wrong, whether or not it was after redirects.
    pub(super) fn cause(&self) -> &Self {
        match self {
            Self::Redirected { error, .. } => error.cause(),
            error => error,
        }
    }

    /// Whether a limit on all files of the request together is exceeded.
    pub fn is_of_request(&self) -> bool {
        matches!(self, Self::RequestUrls { .. } | Self::RequestBytes { .. } | Self::RequestTime { .. })
    }

    /// This error, as one that happened after some redirects.
    pub(super) fn after(self, hops: usize) -> Self {
        if hops == 0 { self } else { Self::Redirected { hops, error: Box::new(self) } }
    }
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "more".to_owned(), |bytes| format!("{bytes} bytes"))
}
