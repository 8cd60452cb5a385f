//! What a program serves: hubs, and who may come to them.

use std::sync::Arc;

use cairn_protocol::Seq;
use cairn_protocol::session::{HubAction, HubDone, Store};
use cairn_protocol::wire::Token;

use crate::random;

/// The hub of a workspace.
pub trait Hub: Send + Sync {
    /// What people call it: it is in `/metrics` and in logs.
    fn name(&self) -> String;

    /// Who may come.
    fn access(&self) -> Access;

    /// A store for one connection. It is dropped when the connection has ended.
    fn session(&self) -> Arc<dyn Store<HubAction, HubDone>>;

    /// The last commit, for `/metrics`. It must not block for long.
    fn head(&self) -> Seq;
}

/// The workspaces of a server.
pub trait Workspaces: Send + Sync {
    /// The hub that has this id; see [`WorkspaceName::id`](crate::WorkspaceName::id).
    fn find(&self, id: [u8; 16]) -> Option<Arc<dyn Hub>>;

    /// All hubs that there are now.
    fn all(&self) -> Vec<Arc<dyn Hub>>;
}

/// Who may come to a workspace.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// With this token, one may read.
    pub read_only: Option<Token>,
    /// With this token, one may read and push. Without any token, everybody may.
    pub read_write: Option<Token>,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Follow.
    Read,
    /// Follow and push.
    Write,
}

impl Access {
    /// Nobody may come: the only token that would do is known to nobody.
    pub fn nobody() -> Self {
        let mut secret = [0; 32];
        random::fill(&mut secret);
        Self {
            read_only: None,
            read_write: Token::new(&secret),
        }
    }

    /// Whether everybody may come.
    pub fn is_open(&self) -> bool {
        self.read_only.is_none() && self.read_write.is_none()
    }

    /// What somebody with this token may do. It takes as long whatever the token.
    pub fn permission(&self, token: &Token) -> Option<Permission> {
        let is = |of: &Option<Token>| of.as_ref().is_some_and(|known| known == token);
        // Both are compared, so that time does not tell which it was.
        let (reads, writes) = (is(&self.read_only), is(&self.read_write));
        if writes || self.is_open() {
            Some(Permission::Write)
        } else {
            reads.then_some(Permission::Read)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_permits_what_it_is_for() {
        let token = |text: &str| Token::new(text.as_bytes()).unwrap();
        let access = Access {
            read_only: Some(token("r")),
            read_write: Some(token("w")),
        };
        assert_eq!(access.permission(&token("r")), Some(Permission::Read));
        assert_eq!(access.permission(&token("w")), Some(Permission::Write));
        assert_eq!(access.permission(&token("x")), None);
        assert_eq!(access.permission(&Token::default()), None);
        let readable = Access {
            read_only: Some(token("r")),
            read_write: None,
        };
        assert_eq!(readable.permission(&Token::default()), None);
        let open = Access::default();
        assert_eq!(open.permission(&Token::default()), Some(Permission::Write));
        assert!(!format!("{access:?}").contains('w'.to_string().repeat(2).as_str()));
    }
}
