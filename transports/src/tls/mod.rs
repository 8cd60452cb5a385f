//! Who a hub is: certificates, their fingerprints, and whom a client trusts.
//!
//! Only TLS 1.3 is spoken. A hub without a certificate of its own makes one on
//! first use ([`Identity::open_or_create`]); clients know it by the SHA-256 of the
//! certificate, which is also what `openssl x509 -fingerprint -sha256` shows.
//!
//! | module | owns |
//! | --- | --- |
//! | `fingerprint` | the name of a certificate |
//! | `identity` | a hub's certificate and its key, in files |
//! | `trust` | what a client asks of a hub's certificate |

mod fingerprint;
mod identity;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};

pub use fingerprint::{Fingerprint, FingerprintError};
pub use identity::Identity;
pub(crate) use trust::{Checked, client_config};
pub use trust::{KnownHubs, Trust};

/// Something about certificates is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The hub has another certificate than it had.
    #[error(
        "the certificate of {address} is not the one that is known: it has the fingerprint {got}, \
         and {expected} is expected; if the hub was set up anew, give the new fingerprint, else \
         somebody is in between"
    )]
    Changed {
        /// The hub.
        address: String,
        /// The fingerprint that is known.
        expected: Fingerprint,
        /// The fingerprint that was shown.
        got: Fingerprint,
    },
    /// No authority that is trusted vouches for the hub.
    #[error("no authority vouches for the certificate of {address}: {why}")]
    Untrusted {
        /// The hub.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The two sides do not come to terms.
    #[error("no secure connection to {address} comes about: {why}")]
    Handshake {
        /// The hub.
        address: String,
        /// Why.
        why: String,
    },
    /// The fingerprint that was seen cannot be kept, so the hub is not trusted.
    #[error("cannot remember the certificate of {address}")]
    Remember {
        /// The hub.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of a certificate or key cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file has no certificate, no key, or two that do not fit.
    #[error("{} is of no use as {what}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A certificate cannot be made or used.
    #[error("cannot set up a certificate: {0}")]
    Setup(String),
}

/// The cryptography that is used: ring, with what is fast where the processor
/// has AES before the others.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    })
}
