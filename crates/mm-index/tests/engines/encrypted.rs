//! Encryption in front of a server that has none: the beginning of PostgreSQL's protocol, and TLS.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// With this number instead of a version a client asks for encryption.
const SSL_REQUEST: u32 = 80_877_103;

/// Passes connections on to a server, encrypted where the client asks for it, and counts them.
pub struct Encrypted {
    pub address: SocketAddr,
    /// The authority of its certificate, in PEM.
    pub authority: String,
    counts: Arc<[AtomicUsize; 2]>,
    _runtime: Runtime,
}

impl Encrypted {
    /// In front of a server, with a certificate for `localhost`.
    pub fn start(server: SocketAddr) -> Self {
        let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, counts) = (listener.local_addr().unwrap(), Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
        let shared = counts.clone();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that refuses the certificate ends its connection.
                tokio::spawn(pass_on(client, server, acceptor.clone(), shared.clone()));
            }
        });
        Self { address, authority: authority.pem(), counts, _runtime: runtime }
    }

    /// Connections since the last call: plain and encrypted.
    pub fn count(&self) -> [usize; 2] {
        [0, 1].map(|kind: usize| self.counts[kind].swap(0, Ordering::Relaxed))
    }
}

async fn pass_on(
    mut client: TcpStream,
    server: SocketAddr,
    acceptor: TlsAcceptor,
    counts: Arc<[AtomicUsize; 2]>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let mut start = [0; 8];
    client.read_exact(&mut start).await?;
    if u32::from_be_bytes([start[4], start[5], start[6], start[7]]) == SSL_REQUEST {
        client.write_all(b"S").await?;
        let mut client = acceptor.accept(client).await?;
        counts[1].fetch_add(1, Ordering::Relaxed);
        copy_bidirectional(&mut client, &mut server).await?;
    } else {
        counts[0].fetch_add(1, Ordering::Relaxed);
        server.write_all(&start).await?;
        copy_bidirectional(&mut client, &mut server).await?;
    }
    Ok(())
}
