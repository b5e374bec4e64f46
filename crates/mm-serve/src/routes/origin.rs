//! Which pages' requests are answered: those of the server's own page. A page of another site must neither write to a
//! server that its reader can reach, nor read from it under a name that the site points at this machine (DNS rebinding).
//! Source: `CrossOriginProtection` of Go's net/http, <https://pkg.go.dev/net/http#CrossOriginProtection>.

use crate::error::{ApiError, Kind};
use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderName, Method,
        header::{HOST, ORIGIN},
        uri::Authority,
    },
};
use std::net::IpAddr;

/// What browsers say about the page that a request is of; scripts cannot set it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses requests that another site's page sends, and, of a server that only this machine reaches (`own_names_only`),
/// those that ask for it by another name.
pub(super) fn check(request: &Request, own_names_only: bool) -> Result<(), ApiError> {
    let headers = request.headers();
    let host = text(headers, &HOST).or_else(|| request.uri().authority().map(Authority::as_str));
    if own_names_only && host.is_some_and(|host| !is_this_machine(host)) {
        let message = "Host: this server has no keys and listens on this machine alone, so it answers to localhost, \
                       127.0.0.1 and [::1] only; configure a key, or let the proxy send one of these names";
        return Err(refused(message));
    }
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let is_own = match text(headers, &FETCH_SITE) {
        Some(site) => ["same-origin", "none"].contains(&site),
        None => headers.get(ORIGIN).is_none() || (host.is_some() && text(headers, &ORIGIN).and_then(authority) == host),
    };
    if is_read || is_own {
        return Ok(());
    }
    Err(refused("Origin: a page of another site sent this request; only the server's own page and programs may"))
}

fn refused(message: &str) -> ApiError {
    ApiError::new(Kind::Forbidden, message).with_code("cross_origin")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Host and port of an origin.
fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_answered(method: Method, headers: &[(&str, &str)], own_names_only: bool) -> bool {
        let mut request = Request::builder().method(method).uri("/upsert");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(axum::body::Body::empty()).unwrap(), own_names_only).is_ok()
    }

    #[test]
    fn pages_of_other_sites_do_not_write() {
        let host = ("host", "localhost:8080");
        for (headers, expected) in [
            (&[host][..], true),
            (&[host, ("sec-fetch-site", "same-origin"), ("origin", "https://mm.example.org")], true),
            (&[host, ("sec-fetch-site", "none")], true),
            (&[host, ("sec-fetch-site", "cross-site")], false),
            (&[host, ("sec-fetch-site", "same-site"), ("origin", "http://localhost:8080")], false),
            (&[host, ("origin", "http://localhost:8080")], true),
            (&[host, ("origin", "http://localhost:3000")], false),
            (&[host, ("origin", "null")], false),
            (&[("origin", "null")], false),
        ] {
            assert_eq!(is_answered(Method::POST, headers, true), expected, "{headers:?}");
            assert!(is_answered(Method::GET, headers, true), "{headers:?}");
        }
    }

    #[test]
    fn a_server_of_this_machine_answers_to_its_own_names() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("example.com", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com:8080", false),
            ("192.168.1.2", false),
            ("", false),
        ] {
            assert_eq!(is_answered(Method::GET, &[("host", host)], true), expected, "{host}");
            assert!(is_answered(Method::GET, &[("host", host)], false), "{host}");
        }
    }
}
