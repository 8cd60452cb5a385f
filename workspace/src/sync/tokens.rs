//! The tokens of a hub: kept with its replica, as hashes are of no use to who has
//! to compare them in constant time and may read the whole replica anyway.

use std::fmt::Write;

use cairn_engine::{FsError, Replica};
use cairn_protocol::wire::Token;
use cairn_transports::Access;

use super::SyncError;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 24;

/// What who has a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Follow.
    Read,
    /// Follow and push.
    Write,
}

impl Permission {
    fn property(self) -> &'static str {
        match self {
            Self::Read => "token.read",
            Self::Write => "token.write",
        }
    }
}

/// Gives the hub of a replica a new token, in the place of the one that it has
/// for this. With the first, nobody may come any more without one.
///
/// # Errors
///
/// What the database says.
pub fn new_token(replica: &Replica, permission: Permission) -> Result<String, SyncError> {
    let mut bytes = [0; TOKEN_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| SyncError::Start(error.into()))?;
    let token = bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    replica.set_property(permission.property(), Some(token.as_bytes()))?;
    Ok(token)
}

/// The tokens that the hub of a replica has.
///
/// # Errors
///
/// What the database says.
pub fn tokens(replica: &Replica) -> Result<Vec<(Permission, String)>, SyncError> {
    let mut tokens = Vec::new();
    for permission in [Permission::Read, Permission::Write] {
        if let Some(token) = replica.property(permission.property())? {
            let token = String::from_utf8(token);
            tokens.push((permission, token.map_err(|_| SyncError::Property("token"))?));
        }
    }
    Ok(tokens)
}

/// Who may come to the hub of a replica.
pub(super) fn access(replica: &Replica) -> Result<Access, FsError> {
    let token = |permission: Permission| {
        let bytes = replica.property(permission.property())?;
        Ok::<_, FsError>(bytes.and_then(|bytes| Token::new(&bytes)))
    };
    Ok(Access {
        read_only: token(Permission::Read)?,
        read_write: token(Permission::Write)?,
    })
}
