//! What a process must not do, beside what its user may not do anyway.
//!
//! Writing is restricted by Landlock, the network by a namespace without any
//! device but loopback. What was asked for and cannot be had is an error; what
//! was left to the kernel is reported.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

use super::{ExecError, Result};

/// How much something is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// Not at all.
    No,
    /// Where the kernel offers it.
    #[default]
    IfAvailable,
    /// Without it nothing is run.
    Required,
}

/// What the network is for a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The network of this machine.
    #[default]
    Direct,
    /// A loopback device of its own, and nothing else. Needs root or user
    /// namespaces; without them nothing is run.
    None,
}

/// How processes are to be confined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confine {
    /// Write only below the mount, in a directory for temporary files, below
    /// `writable`, and to devices such as `/dev/null`; and send signals only to
    /// processes that are confined in the same way. Default: where the kernel
    /// offers it (Landlock; Linux 5.13, signals Linux 6.12).
    pub writes: Want,
    /// Further directories and files that may be written.
    pub writable: Vec<PathBuf>,
    /// The network. Default: direct.
    pub network: Network,
}

/// What is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// The kernel enforces it.
    Yes,
    /// It is not enforced, and why.
    No(String),
}

/// How processes are confined. A session and process group of their own, and an
/// environment by allow-list, they have in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Writing outside of `writable` is refused.
    pub writes: Enforced,
    /// Signals to processes outside are refused.
    pub signals: Enforced,
    /// What may be written, when writes are restricted.
    pub writable: Vec<PathBuf>,
    /// The network they have.
    pub network: Network,
}

/// Devices that programs expect to be able to write to.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
];

/// Confinement that is ready to be put on processes.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) report: Confinement,
    /// The Landlock ruleset, if there is one.
    pub(crate) landlock: Option<OwnedFd>,
}

impl Rules {
    /// Prepares what is wanted. `own` may be written in any case.
    pub(crate) fn prepare(confine: &Confine, own: &[&Path]) -> Result<Self> {
        let unrestricted = |why: &str| Self {
            report: Confinement {
                writes: Enforced::No(why.into()),
                signals: Enforced::No(why.into()),
                writable: Vec::new(),
                network: confine.network,
            },
            landlock: None,
        };
        if confine.writes == Want::No {
            return Ok(unrestricted("it was not asked for"));
        }
        let mut writable: Vec<PathBuf> = own.iter().map(|path| path.to_path_buf()).collect();
        writable.extend(confine.writable.iter().cloned());
        match restrict(&writable)? {
            Some((fd, signals)) => Ok(Self {
                report: Confinement {
                    writes: Enforced::Yes,
                    signals,
                    writable,
                    network: confine.network,
                },
                landlock: Some(fd),
            }),
            None if confine.writes == Want::Required => Err(ExecError::Confine {
                what: "this kernel has no Landlock, or it is not enabled; allow writes \
                       explicitly to run without it"
                    .into(),
                source: None,
            }),
            None => Ok(unrestricted("this kernel has no Landlock")),
        }
    }
}

/// A ruleset that allows writing below some paths only. `None` where there is no Landlock.
fn restrict(writable: &[PathBuf]) -> Result<Option<(OwnedFd, Enforced)>> {
    let failed = |what: &str| {
        let what = format!("the Landlock rules cannot be made: {what}");
        ExecError::Confine { what, source: None }
    };
    // Up to ABI 5 all is about files. What an older kernel does not know, it cannot forbid:
    // truncating is the only right of these that is missing before Linux 6.2.
    let writes = AccessFs::from_write(ABI::V5);
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(writes)
        .and_then(|ruleset| ruleset.scope(Scope::Signal))
        .and_then(Ruleset::create);
    let mut ruleset = ruleset.map_err(|error| failed(&error.to_string()))?;
    let devices = DEVICES.iter().map(Path::new).filter(|path| path.exists());
    for path in devices.chain(writable.iter().map(PathBuf::as_path)) {
        let fd = PathFd::new(path).map_err(|error| failed(&error.to_string()))?;
        ruleset = ruleset
            .add_rule(PathBeneath::new(fd, rights(path, writes)))
            .map_err(|error| failed(&error.to_string()))?;
    }
    let fd: Option<OwnedFd> = ruleset.into();
    Ok(fd.map(|fd| (fd, signals())))
}

/// A file has fewer rights than a directory.
fn rights(path: &Path, all: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    if path.is_dir() {
        all
    } else {
        all & AccessFs::from_file(ABI::V5)
    }
}

/// What holds for a process that runs scripts: it can open nothing at all, which
/// needs no help of the kernel's, and cannot signal others where there is Landlock.
#[cfg(feature = "shell")]
pub(crate) fn confined_worker() -> Confinement {
    Confinement {
        writes: Enforced::Yes,
        signals: signals(),
        writable: Vec::new(),
        network: Network::None,
    }
}

/// Whether the kernel restricts signals: Landlock does from its sixth version on.
fn signals() -> Enforced {
    let strict = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal);
    match strict {
        Ok(_) => Enforced::Yes,
        Err(_) => Enforced::No("this kernel's Landlock does not know signals".into()),
    }
}
