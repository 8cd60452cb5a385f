//! What is served on a server's address beside hubs: a daemon, or a host that
//! waits for one.

use std::pin::Pin;

use cairn_protocol::wire::Token;

use crate::channel::Channel;

/// A request of HTTP.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method, as in `GET`.
    pub method: String,
    /// The path, as in `/health`.
    pub path: String,
    /// The token of the header `Authorization: Bearer`, if there is one.
    pub token: Option<Token>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status, as in 200.
    pub status: u16,
    /// The type of the content.
    pub kind: &'static str,
    /// The content.
    pub body: String,
}

/// An answer that takes its time; `None` to a request that is not known.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Option<Answer>> + Send + 'a>>;

/// What else a server serves.
pub trait Guests: Send + Sync {
    /// A stranger has come. What it shows decides whether it is
    /// [admitted](Channel::admit). It must not block.
    fn came(&self, channel: Channel);

    /// Answers a request, before the server does.
    fn request(&self, asked: Asked) -> Answering<'_>;

    /// What it is called, if everybody may come to it without a token.
    fn open_to_all(&self) -> Option<String>;
}
