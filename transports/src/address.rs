//! Where a hub is: `quic://HOST[:PORT]/WORKSPACE`, `ws://` or `wss://`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The port of hubs, if none is given.
pub const DEFAULT_PORT: u16 = 7420;

/// Longest name of a workspace, in bytes.
const NAME_MAX: usize = 64;

/// What carries the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// QUIC, always encrypted.
    Quic,
    /// WebSocket, not encrypted.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// A workspace of a hub. Its text has no secrets: tokens are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    scheme: Scheme,
    host: String,
    port: u16,
    workspace: WorkspaceName,
}

/// A text is no address of a workspace. What it has is not repeated: it may be a
/// secret in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It begins otherwise.
    #[error("the address of a workspace begins with quic://, ws:// or wss://")]
    Scheme,
    /// There is something before the host.
    #[error("an address has no user or token in it: give the token in its own option")]
    User,
    /// The host is missing or none.
    #[error("the address has no valid host")]
    Host,
    /// The port is none.
    #[error("the port of an address is a number from 1 to 65535")]
    Port,
    /// The workspace is missing or cannot be the name of one.
    #[error(
        "an address ends with the name of a workspace: 1 to 64 letters, digits, dots, dashes and \
         underscores"
    )]
    Workspace,
}

impl Address {
    /// What carries the frames.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The workspace.
    pub fn workspace(&self) -> &WorkspaceName {
        &self.workspace
    }

    /// Host and port, as a hub is known by.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.scheme.name(), self.authority());
        write!(f, "{scheme}://{authority}/{}", self.workspace)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let scheme = [Scheme::Quic, Scheme::Ws, Scheme::Wss]
            .into_iter()
            .find(|known| known.name() == scheme)
            .ok_or(AddressError::Scheme)?;
        let (authority, workspace) = rest.split_once('/').ok_or(AddressError::Workspace)?;
        if authority.contains('@') {
            return Err(AddressError::User);
        }
        let (host, port) = split_port(authority)?;
        Ok(Self {
            scheme,
            host,
            port,
            workspace: workspace.trim_end_matches('/').parse()?,
        })
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(authority: &str) -> Result<(String, u16), AddressError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(AddressError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| AddressError::Host)?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or(AddressError::Port)?),
        };
        (host, port)
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(is_host) {
        return Err(AddressError::Host);
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(AddressError::Port),
            Ok(port) => port,
        },
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// What a workspace is called in addresses. The protocol knows it by its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceName(String);

impl WorkspaceName {
    /// What greetings have instead of the name: the first 16 bytes of BLAKE3 over
    /// `cairn workspace ` and the name; or, of a name of 32 hexadecimal digits,
    /// these bytes.
    pub fn id(&self) -> [u8; 16] {
        if let Some(id) = self.as_id() {
            return id;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"cairn workspace ");
        hasher.update(self.0.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id
    }

    fn as_id(&self) -> Option<[u8; 16]> {
        (self.0.len() == 32)
            .then(|| u128::from_str_radix(&self.0, 16).ok())
            .flatten()
            .map(u128::to_be_bytes)
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkspaceName {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_dots = matches!(text, "." | "..");
        if text.is_empty() || text.len() > NAME_MAX || is_dots || !text.chars().all(is_part) {
            return Err(AddressError::Workspace);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text() {
        for (text, shown) in [
            ("quic://hub.example:1/w", "quic://hub.example:1/w"),
            ("ws://HUB/a.b-c_d/", "ws://hub:7420/a.b-c_d"),
            ("wss://127.0.0.1:65535/w", "wss://127.0.0.1:65535/w"),
            ("quic://[::1]/w", "quic://[::1]:7420/w"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        for (text, why) in [
            ("hub/w", AddressError::Scheme),
            ("http://hub/w", AddressError::Scheme),
            ("quic://hub", AddressError::Workspace),
            ("quic://hub/", AddressError::Workspace),
            ("quic://hub/a/b", AddressError::Workspace),
            ("quic://hub/..", AddressError::Workspace),
            ("quic://hub/a?token=x", AddressError::Workspace),
            ("quic://:1/w", AddressError::Host),
            ("quic://a b/w", AddressError::Host),
            ("quic://[::1/w", AddressError::Host),
            ("quic://[::1]x/w", AddressError::Port),
            ("quic://hub:0/w", AddressError::Port),
            ("quic://hub:65536/w", AddressError::Port),
            ("quic://secret@hub/w", AddressError::User),
        ] {
            assert_eq!(text.parse::<Address>(), Err(why), "{text}");
            assert!(!why.to_string().contains("secret"));
        }
        let long = format!("quic://hub/{}", "w".repeat(65));
        assert_eq!(long.parse::<Address>(), Err(AddressError::Workspace));
    }

    #[test]
    fn a_workspace_has_the_id_of_its_name() {
        let id = |name: &str| name.parse::<WorkspaceName>().unwrap().id();
        assert_ne!(id("a"), id("b"));
        let mut expected = [0; 16];
        expected.copy_from_slice(&blake3::hash(b"cairn workspace a").as_bytes()[..16]);
        assert_eq!(id("a"), expected);
        assert_eq!(
            id("000102030405060708090a0b0c0d0e0f"),
            std::array::from_fn(|i| { u8::try_from(i).unwrap() })
        );
    }
}
