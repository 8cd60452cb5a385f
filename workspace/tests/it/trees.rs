//! Trees with everything that a filesystem can hold, and what they look like.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr,
    lsetxattr, makedev, mknodat, utimensat,
};

/// What a tree looks like: each path, and all that is to be known of it.
pub(crate) type Looks = BTreeMap<String, Vec<String>>;

/// What is left out of a comparison.
#[derive(Clone, Copy, Default)]
pub(crate) struct Without {
    /// A tar archive has no sockets.
    pub(crate) sockets: bool,
    /// Parts of a second, and extended attributes: the old format of GNU tar has neither.
    pub(crate) details: bool,
}

/// What a tree looks like.
pub(crate) fn looks(top: &Path, without: Without) -> Looks {
    let mut looks = Looks::new();
    let mut first_names = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let at = top.join(&path);
        let found = at.symlink_metadata().unwrap();
        if found.file_type().is_socket() && without.sockets {
            continue;
        }
        let name = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
        let mut says = vec![
            format!("mode {:o}", found.mode()),
            format!("owner {}:{}", found.uid(), found.gid()),
            format!(
                "mtime {}.{:09}",
                found.mtime(),
                if without.details {
                    0
                } else {
                    found.mtime_nsec()
                }
            ),
        ];
        if !without.details {
            says.extend(xattrs(&at));
        }
        if found.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&at)
                .unwrap()
                .map(|entry| path.join(entry.unwrap().file_name()))
                .collect();
            below.sort();
            todo.extend(below.into_iter().rev());
        } else {
            let first = first_names
                .entry(found.ino())
                .or_insert_with(|| name.clone());
            says.push(format!("links {} first {first}", found.nlink()));
        }
        if found.is_file() {
            says.push(content(&at, &found));
        } else if found.is_symlink() {
            let target = fs::read_link(&at).unwrap();
            says.push(format!("to {}", target.display()));
        } else if !found.is_dir() {
            says.push(format!("device {:x}", found.rdev()));
        }
        looks.insert(name, says);
    }
    looks
}

/// Size, whether there are large holes, and the bytes.
fn content(at: &Path, found: &fs::Metadata) -> String {
    let sparse = found.blocks() * 512 < found.size() / 2;
    // Reading all of a large hole takes a while; it has data at both ends only.
    if found.size() > 64 << 20 {
        let mut ends = vec![0; 1 << 20];
        let file = File::open(at).unwrap();
        file.read_exact_at(&mut ends[..1 << 19], 0).unwrap();
        file.read_exact_at(&mut ends[1 << 19..], found.size() - (1 << 19))
            .unwrap();
        return format!("size {} sparse {sparse} hash {}", found.size(), hash(&ends));
    }
    format!(
        "size {} sparse {sparse} hash {}",
        found.size(),
        hash(&fs::read(at).unwrap())
    )
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn xattrs(at: &Path) -> Vec<String> {
    let mut names = vec![0; 4_096];
    let len = llistxattr(at, &mut names[..]).unwrap_or(0);
    let mut all: Vec<_> = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"))
        .map(|name| {
            let mut value = vec![0; 65_536];
            let len = lgetxattr(at, name, &mut value[..]).unwrap();
            format!(
                "{} is {} bytes, {}",
                String::from_utf8_lossy(name),
                len,
                hash(&value[..len])
            )
        })
        .collect();
    all.sort();
    all
}

/// Two trees look the same.
#[track_caller]
pub(crate) fn assert_same(a: &Path, b: &Path, without: Without) {
    let (a, b) = (looks(a, without), looks(b, without));
    for name in a.keys().chain(b.keys()) {
        assert_eq!(a.get(name), b.get(name), "{name:?}");
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(len)
    .collect()
}

fn set_mtime(at: &Path, seconds: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes a tree with everything that this user can make.
pub(crate) fn everything(top: &Path) {
    let root = rustix::process::geteuid().is_root();
    let deep: PathBuf = ["x".repeat(90), "y".repeat(90), "z".repeat(90)]
        .iter()
        .collect();
    for dir in ["a/b", "empty", "sticky"]
        .map(PathBuf::from)
        .iter()
        .chain([&deep])
    {
        fs::create_dir_all(top.join(dir)).unwrap();
    }
    fs::write(top.join("a/file"), b"content").unwrap();
    fs::write(top.join("nothing"), b"").unwrap();
    fs::write(top.join("large"), noise(3_000_000, 1)).unwrap();
    fs::write(top.join(&deep).join("n".repeat(200)), b"deep").unwrap();
    fs::write(
        top.join(std::ffi::OsStr::from_bytes(b"no utf-8 \xff\n")),
        b"?",
    )
    .unwrap();
    fs::hard_link(top.join("a/file"), top.join("a/b/same")).unwrap();
    fs::hard_link(top.join("a/file"), top.join("zz-same")).unwrap();
    symlink("../file", top.join("a/b/link")).unwrap();
    symlink("t".repeat(300), top.join("long-link")).unwrap();
    symlink("/nowhere", top.join("absolute-link")).unwrap();
    sparse_files(top);
    mknodat(
        CWD,
        top.join("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    drop(UnixListener::bind(top.join("socket")).unwrap());
    if root {
        mknodat(
            CWD,
            top.join("null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(1, 3),
        )
        .unwrap();
        mknodat(
            CWD,
            top.join("disk"),
            FileType::BlockDevice,
            Mode::from_raw_mode(0o600),
            makedev(259, 70_000),
        )
        .unwrap();
        std::os::unix::fs::chown(top.join("large"), Some(1_234), Some(3_000_000)).unwrap();
        std::os::unix::fs::lchown(top.join("long-link"), Some(5), Some(6)).unwrap();
    }
    let xattr = |at: &str, name: &str, value: &[u8]| {
        lsetxattr(top.join(at), name, value, XattrFlags::empty()).unwrap();
    };
    xattr("a/file", "user.binary", b"\0\n=%");
    xattr("a/file", "user.with=and%3D", b"");
    xattr("a", "user.large", &noise(2_000, 2));
    if root {
        xattr("a/b/link", "trusted.of-a-link", b"value");
    }
    for (at, mode) in [
        ("a/file", 0o4751),
        ("sticky", 0o1777),
        ("a/b", 0o2755),
        ("nothing", 0o000),
        ("empty", 0o500),
    ] {
        fs::set_permissions(top.join(at), fs::Permissions::from_mode(mode)).unwrap();
    }
    set_mtime(&top.join("a/file"), 1_234_567_890, 123_456_789);
    set_mtime(&top.join("large"), -2, 500_000_000);
    set_mtime(&top.join("a/b/link"), 1_000_000_000, 1);
    set_mtime(&top.join("nothing"), 9_000_000_000, 0);
    for dir in ["a/b", "a", "empty", ""] {
        set_mtime(&top.join(dir), 1_500_000_000, 999_999_999);
    }
}

fn sparse_files(top: &Path) {
    let make = |name: &str, size: u64, data: &[(u64, usize)]| {
        let file = File::create(top.join(name)).unwrap();
        for (seed, (at, len)) in data.iter().enumerate() {
            file.write_all_at(&noise(*len, 10 + seed as u64), *at)
                .unwrap();
        }
        file.set_len(size).unwrap();
    };
    make("sparse-middle", 12 << 20, &[(4 << 20, 200_000)]);
    make("sparse-end", 3 << 20, &[(0, 5_000)]);
    make("sparse-all", 1 << 30, &[]);
    // More extents than the header of an old GNU archive has room for.
    let many: Vec<_> = (0..40).map(|at| (at << 18, 4_096)).collect();
    make("sparse-many", 40 << 18, &many);
}
