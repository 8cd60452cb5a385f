//! What a client asks of a hub's certificate.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Fingerprint, TlsError, provider};

/// Where the fingerprints of hubs are kept that were trusted on first use.
pub trait KnownHubs: Send + Sync {
    /// The fingerprint that the hub at `address` had.
    fn known(&self, address: &str) -> Option<Fingerprint>;

    /// Keeps the fingerprint of a hub that was not known, durably.
    ///
    /// # Errors
    ///
    /// Why not; the connection is given up then.
    fn remember(&self, address: &str, fingerprint: Fingerprint) -> io::Result<()>;
}

/// Which hub is the right one.
#[derive(Clone)]
pub enum Trust {
    /// That with this certificate.
    Pinned(Fingerprint),
    /// That which is there first; it is remembered.
    OnFirstUse(Arc<dyn KnownHubs>),
    /// That for whose name an authority vouches which this system trusts.
    Authorities,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned(fingerprint) => f.debug_tuple("Pinned").field(fingerprint).finish(),
            Self::OnFirstUse(_) => f.write_str("OnFirstUse(..)"),
            Self::Authorities => f.write_str("Authorities"),
        }
    }
}

/// What a handshake found out. rustls and quinn make texts of errors; this keeps
/// the one that counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked(Arc<Mutex<Option<Verdict>>>);

#[derive(Debug)]
enum Verdict {
    Seen(Fingerprint),
    Wrong(TlsError),
}

impl Checked {
    /// Why the handshake failed: `why`, unless the certificate was the reason.
    pub(crate) fn failed(&self, address: &str, why: &dyn fmt::Display) -> TlsError {
        match self.0.lock().take() {
            Some(Verdict::Wrong(error)) => error,
            _ => TlsError::Handshake {
                address: address.to_owned(),
                why: why.to_string(),
            },
        }
    }

    /// Remembers a hub that is trusted on first use.
    pub(crate) fn succeeded(&self, trust: &Trust, address: &str) -> Result<(), TlsError> {
        let (Trust::OnFirstUse(hubs), Some(Verdict::Seen(fingerprint))) =
            (trust, self.0.lock().take())
        else {
            return Ok(());
        };
        if hubs.known(address).is_some() {
            return Ok(());
        }
        hubs.remember(address, fingerprint)
            .map_err(|source| TlsError::Remember {
                address: address.to_owned(),
                source,
            })
    }
}

/// How a client makes the connection to `address` secure.
pub(crate) fn client_config(
    trust: &Trust,
    address: &str,
    alpn: &[&[u8]],
) -> Result<(rustls::ClientConfig, Checked), TlsError> {
    let setup = |error: &dyn fmt::Display| TlsError::Setup(error.to_string());
    let checked = Checked::default();
    let provider = provider();
    let verifier = Verifier {
        address: address.to_owned(),
        trust: trust.clone(),
        authorities: match trust {
            Trust::Authorities => Some(authorities(&provider)?),
            Trust::Pinned(_) | Trust::OnFirstUse(_) => None,
        },
        checked: checked.clone(),
        provider: Arc::clone(&provider),
    };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| setup(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok((config, checked))
}

fn authorities(provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    // What cannot be read vouches for nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| TlsError::Setup(format!("this system's authorities: {error}")))
}

struct Verifier {
    address: String,
    trust: Trust,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    checked: Checked,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verifier").field(&self.trust).finish()
    }
}

impl Verifier {
    fn refuse(&self, error: TlsError) -> rustls::Error {
        *self.checked.0.lock() = Some(Verdict::Wrong(error));
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let got = Fingerprint::of(certificate);
        let expected = match &self.trust {
            Trust::Pinned(fingerprint) => Some(*fingerprint),
            Trust::OnFirstUse(hubs) => hubs.known(&self.address),
            Trust::Authorities => None,
        };
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            let address = self.address.clone();
            return Err(self.refuse(TlsError::Changed {
                address,
                expected,
                got,
            }));
        }
        if let Some(authorities) = &self.authorities {
            authorities
                .verify_server_cert(certificate, intermediates, name, ocsp, now)
                .map_err(|error| {
                    self.refuse(TlsError::Untrusted {
                        address: self.address.clone(),
                        why: error.to_string(),
                    })
                })?;
        }
        *self.checked.0.lock() = Some(Verdict::Seen(got));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}
