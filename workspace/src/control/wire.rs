//! The frames on a control connection.
//!
//! A frame is the length of its body (4 bytes, little endian), its kind (1
//! byte) and its body of at most [`BODY_MAX`] bytes. Data is the body as it
//! is; everything else is postcard.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[cfg(feature = "mcp")]
use crate::commands::mcp;
use crate::console::Progress;
use crate::host::Request;

/// Changes with every change of what is said here.
pub(crate) const VERSION: u16 = 3;
/// Most bytes in the body of a frame.
pub(crate) const BODY_MAX: usize = 1 << 20;

/// What is first on a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`VERSION`] of the sender.
    pub(crate) version: u16,
}

/// What the asking side sends.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Who asks, before everything else.
    Hello(Hello),
    /// Run this.
    Request(Request),
    /// Part of the standard input; empty at its end.
    Input(Vec<u8>),
    /// The standard input cannot be read.
    InputFailed(String),
    /// Serve the tools for agents: after [`Answer::Ready`] the connection is that of the
    /// session, and what is sent are no frames any more.
    #[cfg(feature = "mcp")]
    Mcp(mcp::Request),
    /// Nothing to do: the connection is held to see the owner end.
    Watch,
}

/// What the owner answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// For the standard output.
    Out(Vec<u8>),
    /// For the standard error.
    Error(Vec<u8>),
    /// What is for the standard output is to be seen now.
    Flush,
    /// For the standard error, a line of it.
    Note(String),
    /// How far it is.
    Progress(Progress),
    /// Send an [`Asked::Input`] of at most this many bytes.
    WantInput(u32),
    /// It ended, with this exit code.
    Done(u8),
    /// It failed.
    Failed(Failed),
    /// The answer to [`Asked::Hello`]: what is asked now will be done.
    Ready,
}

/// Why a request failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// The exit code.
    pub(crate) code: u8,
    /// The message.
    pub(crate) message: String,
}

impl Asked {
    pub(crate) fn send(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Hello(hello) => put(to, 0, &encode(hello)?),
            Self::Request(request) => put(to, 1, &encode(request)?),
            Self::Input(bytes) => put(to, 2, bytes),
            Self::InputFailed(why) => put(to, 3, why.as_bytes()),
            Self::Watch => put(to, 4, &[]),
            #[cfg(feature = "mcp")]
            Self::Mcp(request) => put(to, 5, &encode(request)?),
        }
    }

    /// Receives one; `None` at the end of the connection.
    pub(crate) fn receive(from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some((kind, body)) = take(from)? else {
            return Ok(None);
        };
        Ok(Some(match kind {
            0 => Self::Hello(decode(&body)?),
            1 => Self::Request(decode(&body)?),
            2 => Self::Input(body),
            3 => Self::InputFailed(text(body)?),
            4 => Self::Watch,
            #[cfg(feature = "mcp")]
            5 => Self::Mcp(decode(&body)?),
            _ => return Err(malformed("a frame of an unknown kind")),
        }))
    }
}

impl Answer {
    pub(crate) fn send(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Out(bytes) => put(to, 0, bytes),
            Self::Note(line) => put(to, 1, line.as_bytes()),
            Self::Progress(progress) => put(to, 2, &encode(progress)?),
            Self::WantInput(most) => put(to, 3, &encode(most)?),
            Self::Done(code) => put(to, 4, &encode(code)?),
            Self::Failed(failed) => put(to, 5, &encode(failed)?),
            Self::Ready => put(to, 6, &[]),
            Self::Error(bytes) => put(to, 7, bytes),
            Self::Flush => put(to, 8, &[]),
        }
    }

    /// Receives one; `None` at the end of the connection.
    pub(crate) fn receive(from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some((kind, body)) = take(from)? else {
            return Ok(None);
        };
        Ok(Some(match kind {
            0 => Self::Out(body),
            1 => Self::Note(text(body)?),
            2 => Self::Progress(decode(&body)?),
            3 => Self::WantInput(decode(&body)?),
            4 => Self::Done(decode(&body)?),
            5 => Self::Failed(decode(&body)?),
            6 => Self::Ready,
            7 => Self::Error(body),
            8 => Self::Flush,
            _ => return Err(malformed("a frame of an unknown kind")),
        }))
    }
}

fn put(to: &mut impl Write, kind: u8, body: &[u8]) -> io::Result<()> {
    let len = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= BODY_MAX);
    let len = len.ok_or_else(|| malformed("a frame of more than 1 MiB"))?;
    let mut head = [0; 5];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4] = kind;
    to.write_all(&head)?;
    to.write_all(body)
}

fn take(from: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 5];
    if from.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..])?;
    let [a, b, c, d, kind] = head;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len > BODY_MAX {
        return Err(malformed("a frame of more than 1 MiB"));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok(Some((kind, body)))
}

fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    postcard::from_bytes(body).map_err(malformed)
}

fn text(body: Vec<u8>) -> io::Result<String> {
    String::from_utf8(body).map_err(malformed)
}

fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let mut wire = Vec::new();
        Answer::Out(b"abc".to_vec()).send(&mut wire).unwrap();
        Answer::Failed(Failed {
            code: 3,
            message: "no".into(),
        })
        .send(&mut wire)
        .unwrap();
        let mut wire = wire.as_slice();
        assert!(
            matches!(Answer::receive(&mut wire), Ok(Some(Answer::Out(bytes))) if bytes == b"abc")
        );
        assert!(
            matches!(Answer::receive(&mut wire), Ok(Some(Answer::Failed(f))) if f.code == 3 && f.message == "no")
        );
        assert!(matches!(Answer::receive(&mut wire), Ok(None)));
    }

    #[test]
    fn bounds_hold_in_both_directions() {
        assert!(
            Answer::Out(vec![0; BODY_MAX + 1])
                .send(&mut Vec::new())
                .is_err()
        );
        let mut wire: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        assert!(Answer::receive(&mut wire).is_err());
        let mut cut: &[u8] = &[4, 0, 0, 0, 0, 1];
        assert!(Answer::receive(&mut cut).is_err());
    }
}
