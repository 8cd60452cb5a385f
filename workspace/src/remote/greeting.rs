//! The first frame of a connection between a host and a daemon, and its answer.

use std::time::Duration;

use cairn_protocol::wire::{Text, Token};
use cairn_transports::Channel;
use serde::{Deserialize, Serialize};

use super::fault::{Code, Fault};
use super::wire::{decode, encode};

/// The version that is spoken (X2).
pub(crate) const VERSION: u16 = 1;
/// The frame of who dialled.
const GREETING: u16 = 0x100;
/// The answer to one who is taken.
const WELCOME: u16 = 0x101;
/// The answer to one who is not.
const REFUSED: u16 = 0x102;
/// How long either may take.
pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// A session of sync, in which the host is the hub.
    Sync,
    /// Calls, which the host makes.
    Exec,
}

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Host,
    Daemon,
}

/// Who somebody is. What a host has not is empty, and so is what a daemon has not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    /// The runtime of a daemon's execs.
    pub(crate) runtime: Text<64>,
    /// The replica of a daemon: another one than before has lost what was only there.
    pub(crate) store: u64,
    /// The workspace of a host, or that which a daemon is bound to; 0 for none.
    pub(crate) workspace: u64,
    /// The program, for people.
    pub(crate) agent: Text<128>,
}

/// What who dialled says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// The oldest version that it speaks.
    pub(crate) oldest: u16,
    /// The newest.
    pub(crate) newest: u16,
    pub(crate) role: Role,
    pub(crate) purpose: Purpose,
    pub(crate) token: Token,
    pub(crate) card: Card,
}

impl Greeting {
    pub(crate) fn new(role: Role, purpose: Purpose, token: Token, card: Card) -> Self {
        Self {
            oldest: VERSION,
            newest: VERSION,
            role,
            purpose,
            token,
            card,
        }
    }

    /// Refuses who speaks only other versions, is in the wrong role, or has not the token.
    pub(crate) fn check(&self, role: Role, token: &Token) -> Result<(), Fault> {
        if !(self.oldest..=self.newest).contains(&VERSION) {
            let detail = format!(
                "versions {} to {} of the exec protocol are offered, and {VERSION} is spoken here: \
                 update the older program",
                self.oldest, self.newest
            );
            return Err(Fault::new(Code::VERSION, &detail));
        }
        if self.role != role {
            return Err(Fault::new(
                Code::ROLE,
                "both are hosts, or both are daemons",
            ));
        }
        if self.token != *token {
            return Err(Fault::new(Code::AUTH, "the token is missing or wrong"));
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Welcome {
    version: u16,
    card: Card,
}

/// Greets the other end, and learns who it is.
///
/// # Errors
///
/// The fault with which it refuses, or [`Code::SILENT`].
pub(crate) async fn greet(channel: &mut Channel, greeting: &Greeting) -> Result<Card, Fault> {
    channel.send(GREETING, encode(greeting)?);
    match first(channel).await? {
        (WELCOME, payload) => Ok(decode::<Welcome>(&payload)?.card),
        (REFUSED, payload) => Err(decode::<Fault>(&payload)?),
        _ => Err(unexpected()),
    }
}

/// Waits for the greeting of who has come.
///
/// # Errors
///
/// What came instead.
pub(crate) async fn receive(channel: &mut Channel) -> Result<Greeting, Fault> {
    match first(channel).await? {
        (GREETING, payload) => decode(&payload),
        _ => Err(unexpected()),
    }
}

/// Takes who has come.
pub(crate) fn welcome(channel: &mut Channel, card: Card) -> Result<(), Fault> {
    channel.admit();
    let version = VERSION;
    channel.send(WELCOME, encode(&Welcome { version, card })?);
    Ok(())
}

/// Does not take who has come, and says why.
pub(crate) fn refuse(channel: &Channel, fault: &Fault) {
    if let Ok(payload) = encode(fault) {
        channel.send(REFUSED, payload);
    }
}

async fn first(channel: &mut Channel) -> Result<(u16, bytes::Bytes), Fault> {
    let silent = || {
        Fault::new(
            Code::SILENT,
            "the connection ended before anything was said",
        )
    };
    let came = tokio::time::timeout(WAIT, channel.next()).await;
    let came = came.map_err(|_| silent())?.ok_or_else(silent)?;
    came.map_err(|error| Fault::new(Code::MALFORMED, &error.to_string()))
}

fn unexpected() -> Fault {
    Fault::new(Code::MALFORMED, "the first frame is none of a greeting")
}
