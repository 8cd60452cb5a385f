//! Where the hub of a replica is: kept with the replica, so that it has to be
//! said once.

use std::fmt;
use std::io;
use std::sync::Arc;

use cairn_engine::Replica;
use cairn_protocol::wire::{Hydrate, Token};
use cairn_transports::Address;
use cairn_transports::tls::{Fingerprint, KnownHubs, Trust};
use serde::{Deserialize, Serialize};

use super::SyncError;

const PROPERTY: &str = "upstream";

/// How to know that the hub is the right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// By the certificate that it has when it is first met.
    #[default]
    FirstUse,
    /// By an authority that this system trusts.
    Authorities,
}

/// Where a hub is, and what it needs to let somebody in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    address: String,
    token: String,
    fingerprint: Option<String>,
    verify: Verify,
    lazy: bool,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("address", &self.address)
            .field("lazy", &self.lazy)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// The hub there, without a token, known by the certificate that it has when
    /// it is first met. All contents come by themselves.
    pub fn new(address: &Address) -> Self {
        Self {
            address: address.to_string(),
            token: String::new(),
            fingerprint: None,
            verify: Verify::default(),
            lazy: false,
        }
    }

    /// Shows this token.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Takes only the hub whose certificate has this fingerprint.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = Some(fingerprint.to_string());
        self
    }

    /// How to know that the hub is the right one.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// Contents come when they are read, and not before.
    #[must_use]
    pub fn lazy(mut self, lazy: bool) -> Self {
        self.lazy = lazy;
        self
    }

    /// Whether contents come when they are read.
    pub fn is_lazy(&self) -> bool {
        self.lazy
    }

    /// Where it is, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The hub that a replica follows.
    ///
    /// # Errors
    ///
    /// [`SyncError::Property`] when it is damaged, and what the database says.
    pub fn of(replica: &Replica) -> Result<Option<Self>, SyncError> {
        let Some(bytes) = replica.property(PROPERTY)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| SyncError::Property(PROPERTY))
    }

    /// Keeps it as the hub that a replica follows.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn keep(&self, replica: &Replica) -> Result<(), SyncError> {
        let bytes = serde_json::to_vec(self).map_err(|_| SyncError::Property(PROPERTY))?;
        Ok(replica.set_property(PROPERTY, Some(&bytes))?)
    }

    pub(crate) fn parsed(&self) -> Result<Address, SyncError> {
        let damaged = |_| SyncError::Property(PROPERTY);
        self.address.parse().map_err(damaged)
    }

    pub(crate) fn secret(&self) -> Result<Token, SyncError> {
        Token::new(self.token.as_bytes()).ok_or(SyncError::Property(PROPERTY))
    }

    pub(super) fn hydrate(&self) -> Hydrate {
        if self.lazy {
            Hydrate::MetaOnly
        } else {
            Hydrate::Full
        }
    }

    pub(crate) fn trust(&self, replica: &Replica) -> Result<Trust, SyncError> {
        if let Some(fingerprint) = &self.fingerprint {
            let damaged = |_| SyncError::Property(PROPERTY);
            return Ok(Trust::Pinned(fingerprint.parse().map_err(damaged)?));
        }
        Ok(match self.verify {
            Verify::FirstUse => Trust::OnFirstUse(Arc::new(Known(replica.clone()))),
            Verify::Authorities => Trust::Authorities,
        })
    }
}

/// The certificates of hubs that a replica has met, kept with the replica.
struct Known(Replica);

impl Known {
    fn property(address: &str) -> String {
        format!("hub.{address}")
    }
}

impl KnownHubs for Known {
    fn known(&self, address: &str) -> Option<Fingerprint> {
        let text = self.0.property(&Self::property(address)).ok()??;
        std::str::from_utf8(&text).ok()?.parse().ok()
    }

    fn remember(&self, address: &str, fingerprint: Fingerprint) -> io::Result<()> {
        let text = fingerprint.to_string();
        self.0
            .set_property(&Self::property(address), Some(text.as_bytes()))
            .map_err(io::Error::other)
    }
}
