//! A hub's certificate and its key, in files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use ring::{digest, hmac};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Fingerprint, TlsError, provider};

/// Where [`Identity::open_or_create`] keeps the certificate.
const CERTIFICATE: &str = "hub-cert.pem";

/// Where it keeps the key.
const KEY: &str = "hub-key.pem";

/// A certificate with its key. The key is not shown.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity")
            .field(&self.fingerprint())
            .finish()
    }
}

impl Identity {
    /// The one kept in `folder`; it is made there on first use. Only its owner can
    /// read the key.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: the files cannot be read or written, or are of no use.
    pub fn open_or_create(folder: &Path) -> Result<Self, TlsError> {
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        // The certificate is written last, so it says that both are there.
        if !certificate.exists() {
            std::fs::create_dir_all(folder).map_err(|source| TlsError::File {
                path: folder.to_path_buf(),
                source,
            })?;
            let (certificate_pem, key_pem) = make()?;
            write_private(&key, &key_pem)?;
            write_private(&certificate, &certificate_pem)?;
        }
        Self::load(&certificate, &key)
    }

    /// One that is made now, and kept nowhere.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: no certificate can be made.
    pub fn passing() -> Result<Self, TlsError> {
        let (certificate, key) = make()?;
        let here = Path::new("a certificate in memory");
        let what = "a certificate";
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| content(here, what, &error))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| content(here, "a private key", &error))?;
        Ok(Self { chain, key })
    }

    /// The one in two PEM files: a certificate, perhaps with those that vouch for
    /// it, and its key.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: the files cannot be read, or are of no use.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let what = "a certificate";
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|error| content(certificate, what, &error))?;
        if chain.is_empty() {
            return Err(content(certificate, what, &"there is none in it"));
        }
        let private = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|error| content(key, "a private key", &error))?;
        let identity = Self {
            chain,
            key: private,
        };
        // That they fit each other shows when they are used.
        identity
            .server_config(&[])
            .map_err(|error| content(certificate, what, &error))?;
        Ok(identity)
    }

    /// The fingerprint of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.chain.first().map_or(&[], |certificate| certificate))
    }

    /// The key of stateless resets (RFC 9000, 10.3): the same as long as the
    /// certificate is.
    pub(crate) fn reset_key(&self) -> hmac::Key {
        let mut secret = digest::Context::new(&digest::SHA256);
        secret.update(b"cairn stateless reset");
        secret.update(self.key.secret_der());
        hmac::Key::new(hmac::HMAC_SHA256, secret.finish().as_ref())
    }

    /// How a server with this identity makes connections secure.
    pub(crate) fn server_config(
        &self,
        alpn: &[&[u8]],
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(setup)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

fn content(path: &Path, what: &'static str, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content {
        path: path.to_owned(),
        what,
        why: why.to_string(),
    }
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> TlsError {
    let path: PathBuf = path.to_owned();
    move |source| TlsError::File { path, source }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(file(path))
}

/// A certificate and its key, as PEM.
fn make() -> Result<(String, String), TlsError> {
    let setup = |error: rcgen::Error| TlsError::Setup(error.to_string());
    let key = KeyPair::generate().map_err(setup)?;
    let mut params = CertificateParams::new(vec!["cairn.invalid".to_owned()]).map_err(setup)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Cairn hub");
    let certificate = params.self_signed(&key).map_err(setup)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a file that its owner alone can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), TlsError> {
    let draft = path.with_extension("pem.new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(file(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let made = Identity::open_or_create(folder.path()).unwrap();
        let again = Identity::open_or_create(folder.path()).unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        for name in [CERTIFICATE, KEY] {
            let file = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions();
            assert_eq!(file.mode() & 0o777, 0o600, "{name}");
        }
        let shown = format!("{made:?}");
        assert!(shown.len() < 100, "the key is not shown: {shown}");
        let other = tempfile::tempdir().unwrap();
        let other = Identity::open_or_create(other.path()).unwrap();
        assert_ne!(made.fingerprint(), other.fingerprint());
    }

    #[test]
    fn files_that_are_no_identity_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        Identity::open_or_create(folder.path()).unwrap();
        Identity::open_or_create(other.path()).unwrap();
        let certificate = folder.path().join(CERTIFICATE);
        let load = |key: &Path| Identity::load(&certificate, key).unwrap_err().to_string();
        let missing = load(&folder.path().join("no"));
        assert!(missing.ends_with("/no"), "{missing}");
        assert!(load(&certificate).contains("as a private key"));
        let unfit = load(&other.path().join(KEY));
        assert!(unfit.contains(CERTIFICATE), "{unfit}");
    }
}
