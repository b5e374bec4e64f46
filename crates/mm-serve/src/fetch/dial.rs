//! Connections to one address that was checked before.

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, mpsc},
    time::Duration,
};
use ureq::{
    Agent, Error,
    config::Config,
    http::Uri,
    tls::{RootCerts, TlsConfig},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport},
    },
};

/// The most bytes of headers that are read.
pub(super) const HEADER_BYTES: usize = 64 << 10;

/// What asks for the addresses of a host; tests answer from a list.
pub(super) trait Lookup: Debug + Send + Sync {
    /// All addresses of a host, asked for once.
    fn lookup(&self, host: &str, timeout: Duration) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the system, asked for the absolute name. On Linux that passes by the names of `/etc/hosts`.
#[derive(Debug)]
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: &str, timeout: Duration) -> io::Result<Vec<IpAddr>> {
        // A dot at the end makes the name absolute: no search domain of the system is appended to it.
        let name = format!("{host}.");
        let (sender, receiver) = mpsc::sync_channel(1);
        // The system's resolver cannot be interrupted. A thread that is late ends by itself.
        std::thread::Builder::new().name("fetch-lookup".to_owned()).spawn(move || {
            let addresses = (name.as_str(), 0).to_socket_addrs();
            let _ = sender.send(addresses.map(|found| found.map(|address| address.ip()).collect()));
        })?;
        receiver.recv_timeout(timeout).map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// TLS over a connection. Its configuration (the root certificates of the system) is read once for all copies.
#[derive(Debug, Clone, Default)]
pub(super) struct Tls(Arc<RustlsConnector>);

impl<In: Transport> Connector<In> for Tls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        self.0.connect(details, chained)
    }
}

/// An agent for one request to one address. It resolves nothing, follows no redirect, uses no proxy, and keeps neither
/// connections nor cookies, as it is dropped after the request.
pub(super) fn agent(address: SocketAddr, tls: &Tls, timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .accept_encoding("identity")
        .user_agent(concat!("mm/", env!("CARGO_PKG_VERSION")))
        .max_response_header_size(HEADER_BYTES)
        .max_idle_connections(0)
        .timeout_global(Some(timeout))
        .tls_config(TlsConfig::builder().root_certs(root_certificates()).build())
        .build();
    let dial = Dial { address, tcp: TcpConnector::default() };
    Agent::with_parts(config, dial.chain(tls.clone()), Pinned { address })
}

/// The verifiers of other systems may fetch URLs that a certificate names (its revocation list, its issuer), which
/// would be requests to hosts that nobody checked.
fn root_certificates() -> RootCerts {
    let verifies_here = cfg!(all(unix, not(target_vendor = "apple"), not(target_os = "android")));
    if verifies_here { RootCerts::PlatformVerifier } else { RootCerts::WebPki }
}

/// The answer to every question for an address: the one that was checked.
#[derive(Debug)]
struct Pinned {
    address: SocketAddr,
}

impl Resolver for Pinned {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(self.address);
        Ok(addresses)
    }
}

/// TCP to that address. The chain has no connector for proxies before it.
#[derive(Debug)]
struct Dial {
    address: SocketAddr,
    tcp: TcpConnector,
}

impl Connector<()> for Dial {
    type Out = <TcpConnector as Connector<()>>::Out;

    fn connect(&self, details: &ConnectionDetails, chained: Option<()>) -> Result<Option<Self::Out>, Error> {
        if details.addrs[..] != [self.address] {
            return Err(Error::ConnectionFailed);
        }
        self.tcp.connect(details, chained)
    }
}
