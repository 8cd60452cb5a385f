//! Where a command runs: here, if this process can own the replica, and in the
//! process that owns it otherwise.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn::sync::{Follow, Serve, Upstream};
use cairn::{OpenError, Options, Replica};
use serde::{Deserialize, Serialize};

#[cfg(feature = "shell")]
use crate::commands::exec;
use crate::commands::{
    cat, check, conflicts, du, evict, export, gc, ignore, import, log, ls, status, sync, token,
};
use crate::console::Console;
use crate::control::Client;
use crate::failure::{Failure, Result};
use crate::terminal::Terminal;

/// How long to wait for an owner that does not listen: it is about to, or
/// about to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// A replica, and what its commands need to know of this process.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// The replica.
    pub(crate) replica: Replica,
    /// This process serves others.
    pub(crate) serving: bool,
    /// It keeps the replica in step with a hub.
    follow: Option<Arc<Follow>>,
    /// The replica is a hub here.
    serve: Option<Arc<Serve>>,
}

impl Host {
    /// For one command. Contents that are with the hub only are fetched from there.
    fn alone(replica: Replica, request: &Request) -> Result<Self> {
        let reads = matches!(request, Request::Cat(_) | Request::Export(_));
        #[cfg(feature = "shell")]
        let reads = reads || matches!(request, Request::Exec(_));
        let upstream = if reads { Upstream::of(&replica)? } else { None };
        // What was damaged here is fetched, too.
        let lost = !replica.lost_chunks().is_empty();
        let follow = match upstream.filter(|upstream| upstream.is_lazy() || lost) {
            Some(upstream) => Some(Arc::new(Follow::start(&replica, &upstream)?)),
            None => None,
        };
        Ok(Self {
            replica,
            serving: false,
            follow,
            serve: None,
        })
    }

    /// For a shell.
    #[cfg(feature = "shell")]
    pub(crate) fn own(replica: Replica) -> Self {
        Self {
            replica,
            serving: false,
            follow: None,
            serve: None,
        }
    }

    /// For the commands of other processes.
    pub(crate) fn serving(
        replica: &Replica,
        serve: Option<&Arc<Serve>>,
        follow: Option<&Arc<Follow>>,
    ) -> Self {
        Self {
            replica: replica.clone(),
            serving: true,
            follow: follow.cloned(),
            serve: serve.cloned(),
        }
    }

    /// What keeps the replica in step with a hub.
    pub(crate) fn follow(&self) -> Option<&Follow> {
        self.follow.as_deref()
    }

    /// What serves the replica as a hub.
    pub(crate) fn serve(&self) -> Option<&Serve> {
        self.serve.as_deref()
    }
}

/// How a replica is created, if it is not there.
#[derive(Debug, clap::Args)]
pub(crate) struct Creation {
    /// If the replica is to be created, as one file: easier to hand on, slower for large files
    #[arg(long)]
    single_file: bool,
}

impl Creation {
    pub(crate) fn options(&self) -> Options {
        Options {
            single_file: self.single_file,
            ..Options::default()
        }
    }

    /// The same for another start of the program.
    pub(crate) fn argument(&self) -> Option<&'static str> {
        self.single_file.then_some("--single-file")
    }
}

/// A command that needs the replica, with all it needs to know. Paths outside
/// of the replica are absolute.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Ls(ls::Request),
    Cat(cat::Request),
    Import(import::Request),
    Export(export::Request),
    Status(status::Request),
    Du(du::Request),
    Gc(gc::Request),
    Check(check::Request),
    Log(log::Request),
    Sync(sync::Request),
    Conflicts(conflicts::Request),
    Token(token::Request),
    Ignore(ignore::Request),
    Evict(evict::Request),
    #[cfg(feature = "shell")]
    Exec(Box<exec::Request>),
}

impl Request {
    /// Runs it on a replica that this process owns.
    pub(crate) fn run(self, host: &Host, console: &mut dyn Console) -> Result {
        match self {
            Self::Ls(request) => ls::perform(&request, host, console),
            Self::Cat(request) => cat::perform(&request, host, console),
            Self::Import(request) => import::perform(&request, host, console),
            Self::Export(request) => export::perform(&request, host, console),
            Self::Status(request) => status::perform(&request, host, console),
            Self::Du(request) => du::perform(&request, host, console),
            Self::Gc(request) => gc::perform(&request, host, console),
            Self::Check(request) => check::perform(&request, host, console),
            Self::Log(request) => log::perform(&request, host, console),
            Self::Sync(request) => sync::perform(&request, host, console),
            Self::Conflicts(request) => conflicts::perform(&request, host, console),
            Self::Ignore(request) => ignore::perform(&request, host, console),
            Self::Evict(request) => evict::perform(&request, host, console),
            #[cfg(feature = "shell")]
            Self::Exec(request) => exec::perform(*request, host, console),
            Self::Token(request) => token::perform(&request, host, console),
        }
    }
}

/// A replica's owner.
pub(crate) enum Owner {
    /// This process.
    This(Replica),
    /// Another one, which can be asked.
    Other(Client),
}

impl Owner {
    /// Runs a request where the replica is.
    pub(crate) fn perform(self, request: Request, console: &mut dyn Console) -> Result {
        match self {
            Self::This(replica) => {
                let host = Host::alone(replica, &request)?;
                request.run(&host, console)
            }
            Self::Other(client) => client.perform(request, console),
        }
    }

    /// The same, for who sits at the terminal of this process.
    pub(crate) fn perform_in_terminal(self, request: Request) -> Result {
        let mut terminal = Terminal::new();
        let ended = self.perform(request, &mut terminal);
        let flushed = terminal.finish();
        let outcome = ended?;
        flushed?;
        Ok(outcome)
    }
}

/// Runs a request on a replica that exists, wherever that has to be.
pub(crate) fn perform(replica: &Path, request: Request) -> Result {
    let owner = owner(
        replica,
        &Options {
            create: false,
            ..Options::default()
        },
    )?;
    owner.perform_in_terminal(request)
}

/// Owns a replica, or finds who does.
pub(crate) fn owner(dir: &Path, options: &Options) -> Result<Owner> {
    let begun = Instant::now();
    loop {
        match Replica::open(dir, options.clone()) {
            Ok(replica) => return Ok(Owner::This(replica)),
            Err(error @ OpenError::InUse { .. }) => {
                if let Some(client) = Client::connect(dir)? {
                    return Ok(Owner::Other(client));
                }
                if begun.elapsed() > PATIENCE {
                    return Err(error.into());
                }
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes this process the owner of a replica.
pub(crate) fn own(dir: &Path, options: &Options) -> Result<Replica> {
    match owner(dir, options)? {
        Owner::This(replica) => Ok(replica),
        Owner::Other(_) => Err(
            match crate::mountinfo::mounts_of(&crate::locate::canonical(dir)).pop() {
                Some(at) => Failure::Mounted {
                    replica: dir.into(),
                    at,
                },
                None => OpenError::InUse {
                    path: dir.into(),
                    owner: "another process".into(),
                }
                .into(),
            },
        ),
    }
}
