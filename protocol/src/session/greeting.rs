//! What two sides agree on before anything else.

use crate::limits::FRAME_MIN;
use crate::wire::{Capabilities, Code, Hello, Limits, Role};

/// What a side speaks, can and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Oldest version.
    pub version_min: u16,
    /// Newest version.
    pub version_max: u16,
    /// What it can do besides the oldest version.
    pub capabilities: Capabilities,
    /// What it takes.
    pub limits: Limits,
}

impl Offer {
    /// What this crate speaks: `cairn/1`.
    pub const OURS: Self = Self {
        version_min: 1,
        version_max: 1,
        capabilities: Capabilities::ALL,
        limits: Limits::OURS,
    };
}

/// What holds for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The newest version that both speak.
    pub version: u16,
    /// What both can do.
    pub capabilities: Capabilities,
    /// The lesser of both sides' limits.
    pub limits: Limits,
}

/// Why two sides do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GreetingError {
    /// No version is common.
    #[error("the peer speaks versions {min} to {max}, this side {our_min} to {our_max}")]
    Version {
        /// The peer's oldest.
        min: u16,
        /// The peer's newest.
        max: u16,
        /// This side's oldest.
        our_min: u16,
        /// This side's newest.
        our_max: u16,
    },
    /// The peer takes too little for a chunk to reach it.
    #[error("the peer's limit of {what} is {value}, less than {least}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// What it takes.
        value: u32,
        /// What everybody has to take.
        least: u32,
    },
    /// Two clients, or two hubs.
    #[error("the peer is a {0:?}, as this side is")]
    Role(Role),
}

impl GreetingError {
    /// What the peer is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Version { .. } => Code::VERSION,
            Self::Limit { .. } => Code::LIMIT,
            Self::Role(_) => Code::STATE,
        }
    }
}

/// What a side that is `role` agrees on with a peer.
///
/// # Errors
///
/// [`GreetingError`], of which the peer is told the code.
pub fn agree(role: Role, ours: &Offer, peer: &Hello) -> Result<Agreement, GreetingError> {
    if peer.role == role {
        return Err(GreetingError::Role(role));
    }
    let version = ours.version_max.min(peer.version_max);
    if version < ours.version_min.max(peer.version_min) {
        return Err(GreetingError::Version {
            min: peer.version_min,
            max: peer.version_max,
            our_min: ours.version_min,
            our_max: ours.version_max,
        });
    }
    let limits = ours.limits.agree(peer.limits);
    let least = [
        ("the bytes of a frame", limits.frame, FRAME_MIN),
        ("the changes of a message", limits.entries, 1),
        ("the edits of a message", limits.edits, 1),
        ("the requests under way", limits.wants, 1),
    ];
    for (what, value, least) in least {
        if value < least {
            return Err(GreetingError::Limit { what, value, least });
        }
    }
    Ok(Agreement {
        version,
        capabilities: ours.capabilities.common(peer.capabilities),
        limits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReplicaTag;
    use crate::wire::{Ext, Text, Token};

    fn hello(min: u16, max: u16, limits: Limits) -> Hello {
        Hello {
            version_min: min,
            version_max: max,
            role: Role::Client,
            workspace: [0; 16],
            replica: ReplicaTag(1),
            token: Token::default(),
            capabilities: Capabilities(0b110),
            limits,
            agent: Text::default(),
            ext: Ext::default(),
        }
    }

    fn offer(min: u16, max: u16) -> Offer {
        Offer {
            version_min: min,
            version_max: max,
            capabilities: Capabilities(0b011),
            limits: Limits::OURS,
        }
    }

    #[test]
    fn i15_the_newest_common_version_is_spoken() {
        let versions = |ours: (u16, u16), theirs: (u16, u16)| {
            let peer = hello(theirs.0, theirs.1, Limits::OURS);
            agree(Role::Hub, &offer(ours.0, ours.1), &peer).map(|agreed| agreed.version)
        };
        assert_eq!(versions((1, 1), (1, 1)), Ok(1));
        assert_eq!(versions((1, 3), (2, 9)), Ok(3));
        assert_eq!(versions((2, 9), (1, 3)), Ok(3));
        for (ours, theirs) in [((1, 1), (2, 2)), ((3, 4), (1, 2)), ((1, 1), (9, 0))] {
            let code = versions(ours, theirs).unwrap_err().code();
            assert_eq!(code, Code::VERSION);
        }
    }

    #[test]
    fn what_both_can_and_take_holds() {
        let limits = Limits {
            frame: FRAME_MIN,
            entries: u32::MAX,
            ..Limits::OURS
        };
        let agreed = agree(Role::Hub, &offer(1, 1), &hello(1, 1, limits)).unwrap();
        assert_eq!(agreed.capabilities, Capabilities(0b010));
        assert_eq!(agreed.limits.frame, FRAME_MIN);
        assert_eq!(agreed.limits.entries, Limits::OURS.entries);
    }

    #[test]
    fn a_peer_that_takes_too_little_is_refused() {
        for limits in [
            Limits {
                frame: FRAME_MIN - 1,
                ..Limits::OURS
            },
            Limits {
                edits: 0,
                ..Limits::OURS
            },
        ] {
            let refused = agree(Role::Hub, &Offer::OURS, &hello(1, 1, limits)).unwrap_err();
            assert_eq!(refused.code(), Code::LIMIT);
        }
        let refused = agree(Role::Client, &Offer::OURS, &hello(1, 1, Limits::OURS));
        assert_eq!(refused, Err(GreetingError::Role(Role::Client)));
    }
}
