//! Encryption of connections, as libpq's parameters `sslmode` and `sslrootcert` say
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>).

use postgres::config::SslMode;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use std::{path::PathBuf, sync::Arc};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is encrypted and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// Nothing is encrypted.
    Disable,
    /// Encrypted where the server offers it; its certificate is not verified.
    Prefer,
    /// Encrypted or refused; the certificate is not verified.
    Require,
    /// The certificate has to be of a known authority.
    VerifyCa,
    /// It has to be that of the host as well.
    VerifyFull,
}

impl TlsMode {
    const NAMES: [(&'static str, Self); 5] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode);
        let names = Self::NAMES.map(|(name, _)| name).join(", ");
        found.ok_or_else(|| format!("sslmode: found `{text}`, expected one of {names}"))
    }

    /// What the client asks the server for.
    pub(super) fn client_mode(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        }
    }
}

/// How connections to a server are encrypted.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    mode: TlsMode,
    /// The certificates of authorities; those of the system when absent.
    roots: Option<PathBuf>,
}

impl Tls {
    /// With libpq's rule that `require` with certificates of authorities verifies by them.
    pub(super) fn new(mode: TlsMode, roots: Option<PathBuf>) -> Self {
        let mode = if mode == TlsMode::Require && roots.is_some() { TlsMode::VerifyCa } else { mode };
        Self { mode, roots }
    }

    pub(super) fn mode(&self) -> TlsMode {
        self.mode
    }

    /// What connections are made with.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.mode {
            TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => {
                Arc::new(AnyHost { provider: provider.clone(), authorities: None })
            }
            TlsMode::VerifyCa => {
                Arc::new(AnyHost { provider: provider.clone(), authorities: Some(self.authorities(&provider)?) })
            }
            TlsMode::VerifyFull => self.authorities(&provider)?,
        };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| format!("TLS cannot be used: {error}"))?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    /// Verifies certificates and their hosts by the authorities that are given, or those of the system.
    fn authorities(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.roots {
            let bad = |reason: String| {
                format!("sslrootcert: {}: {reason}, expected certificates of authorities in PEM", path.display())
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))? {
                let certificate = certificate.map_err(|error| bad(error.to_string()))?;
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(bad("found no certificate".into()));
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("found no certificates of authorities on this system (Debian: the package \
                    ca-certificates); sslrootcert=FILE names one"
                    .into());
            }
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| format!("sslrootcert: {error}"))
    }
}

/// Accepts certificates whatever host they name: every one, as libpq's `prefer` and `require` do, or those of known
/// authorities.
#[derive(Debug)]
struct AnyHost {
    provider: Arc<CryptoProvider>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::{CertificateError, Error::InvalidCertificate};
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        match authorities.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            // The name is the last thing that is compared: the rest is valid.
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
