//! The address of a store: `postgres://user:password@host:port/database?schema=birds`.

use super::tls::{Tls, TlsMode};
use crate::{Error, Result, location::without_password};
use percent_encoding::percent_decode_str;
use postgres::Config;
use std::{path::Path, time::Duration};

/// The schema of an address that names none.
const DEFAULT_SCHEMA: &str = "mm";

/// How long is waited for a connection, where the address does not say (`connect_timeout=SECONDS`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement of a search or of a write may take, where the address does not say (`timeout=SECONDS`).
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// After this silence of the network a connection is tested.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Longest name that PostgreSQL does not cut.
const MAX_NAME: usize = 63;

/// Where a store is, and how long its server may take.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) schema: String,
    pub(super) tls: Tls,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    /// As it may be shown: without the password.
    pub(super) shown: String,
}

impl Address {
    /// Reads an address. Its own parameters are `schema` and `timeout`; the others are those of libpq, of which
    /// `sslmode` and `sslrootcert` are read here, since the client knows three of the modes only.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let shown = without_password(Path::new(text));
        let invalid = |reason: String| {
            let expected = "expected postgres://user:password@host:port/database?schema=NAME, special characters of the \
                password percent-encoded";
            Error::file(&shown, format!("{reason}; {expected}"))
        };
        let (base, parameters) = text.split_once('?').unwrap_or((text, ""));
        let (mut schema, mut timeout, mut others) = (DEFAULT_SCHEMA.to_owned(), STATEMENT_TIMEOUT, Vec::new());
        let (mut mode, mut roots) = (TlsMode::Prefer, None);
        for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("schema", name)) => name.clone_into(&mut schema),
                Some(("timeout", seconds)) => {
                    let seconds = seconds.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
                    let found = || invalid("timeout: found no number of seconds from 1 to 86400".to_owned());
                    timeout = Duration::from_secs(seconds.ok_or_else(found)?);
                }
                Some(("sslmode", name)) => mode = TlsMode::parse(name).map_err(invalid)?,
                // `system` is libpq's name for the certificates of the system, which are those without a file.
                Some(("sslrootcert", "system")) => mode = TlsMode::VerifyFull,
                Some(("sslrootcert", path)) => {
                    roots = Some(percent_decode_str(path).decode_utf8_lossy().into_owned().into());
                }
                _ => others.push(pair),
            }
        }
        check_schema(&schema).map_err(invalid)?;
        let others = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
        let parsed = format!("{base}{others}").parse::<Config>();
        let mut config = parsed.map_err(|error| invalid(format!("found an address that cannot be read ({error})")))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(invalid("found no host".to_owned()));
        }
        let tls = Tls::new(mode, roots);
        config.ssl_mode(tls.mode().client_mode());
        if config.get_password().is_none()
            && let Ok(password) = std::env::var("PGPASSWORD")
        {
            config.password(password);
        }
        let connect_timeout = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        config.connect_timeout(connect_timeout).keepalives_idle(KEEPALIVE).tcp_user_timeout(KEEPALIVE);
        if config.get_application_name().is_none() {
            config.application_name("mm");
        }
        Ok(Self { config, schema, tls, connect_timeout, timeout, shown })
    }

    /// The schema as a name in SQL.
    pub(super) fn quoted_schema(&self) -> String {
        // Only letters, digits and `_`: see `check_schema`.
        format!("\"{}\"", self.schema)
    }

    /// The number of the advisory locks of this schema. Two schemas with one number would only wait for each other.
    pub(super) fn lock_number(&self) -> i32 {
        crc32fast::hash(self.schema.as_bytes()).cast_signed()
    }
}

fn check_schema(schema: &str) -> Result<(), String> {
    let is_name = schema.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_reserved = schema.starts_with("pg_") || schema == "information_schema";
    if schema.is_empty() || schema.len() > MAX_NAME || !is_name || is_reserved {
        return Err(format!(
            "schema: found `{schema}`, expected up to {MAX_NAME} letters, digits and `_`, not one of PostgreSQL's own"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_schema_and_timeouts() {
        let address =
            Address::parse("postgres://ann:se%40cret@db.example.org:6000/birds?schema=s1&timeout=5&connect_timeout=3")
                .unwrap();
        assert_eq!((address.schema.as_str(), address.timeout.as_secs()), ("s1", 5));
        assert_eq!((address.connect_timeout.as_secs(), address.config.get_password()), (3, Some(&b"se@cret"[..])));
        assert_eq!((address.config.get_dbname(), address.config.get_ports()), (Some("birds"), &[6000][..]));
        assert!(!address.shown.contains("cret"), "{}", address.shown);
        assert_eq!(Address::parse("postgres://h/d").unwrap().schema, "mm");
    }

    #[test]
    fn addresses_say_what_is_encrypted_and_verified() {
        let mode = |parameters: &str| Address::parse(&format!("postgres://h/d{parameters}")).unwrap().tls.mode();
        assert_eq!(mode(""), TlsMode::Prefer);
        assert_eq!(mode("?sslmode=disable"), TlsMode::Disable);
        assert_eq!(mode("?sslmode=verify-full&schema=s1"), TlsMode::VerifyFull);
        // As libpq.
        assert_eq!(mode("?sslmode=require&sslrootcert=ca.pem"), TlsMode::VerifyCa);
        assert_eq!(mode("?sslrootcert=system"), TlsMode::VerifyFull);
        let spaced = Address::parse("postgres://h/d?sslrootcert=/no%20such.pem&sslmode=verify-ca").unwrap();
        assert!(spaced.tls.connector().err().unwrap().contains("/no such.pem"));
    }

    #[test]
    fn addresses_that_cannot_be_read_are_refused_without_their_password() {
        for (parameters, expected) in [
            ("?schema=a%20b", "schema: found `a%20b`"),
            ("?schema=pg_catalog", "not one of PostgreSQL's own"),
            ("?timeout=soon", "timeout: found no number of seconds"),
            ("?sslmode=always", "sslmode: found `always`, expected one of disable, prefer"),
            ("?colour=red", "cannot be read"),
        ] {
            let error = Address::parse(&format!("postgres://ann:secret@host/d{parameters}")).err().unwrap().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        assert!(Address::parse("postgres:///d").err().unwrap().to_string().contains("found no host"));
    }
}
