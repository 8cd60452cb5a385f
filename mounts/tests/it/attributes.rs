//! Owners, permissions, times, extended attributes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, XattrFlags, getxattr, listxattr, removexattr, setxattr,
    utimensat,
};
use rustix::io::Errno;

use crate::child::{Job, command};
use crate::common::Mounted;
use crate::raw::xattr_len;

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let Some(m) = Mounted::new() else { return };
    fs::write(m.path("file"), b"x").unwrap();
    // Before 1970 the nanoseconds still count forward.
    for (seconds, nanos) in [
        (1_600_000_000, 123_456_789),
        (-1, 250_000_000),
        (-86_400, 0),
        (0, 0),
    ] {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanos,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, m.path("file"), &times, AtFlags::empty()).unwrap();
        let seen = fs::metadata(m.path("file")).unwrap();
        assert_eq!((seen.mtime(), seen.mtime_nsec()), (seconds, nanos));
        assert_eq!((seen.atime(), seen.atime_nsec()), (seconds, nanos));
        assert_eq!(m.replica.mtime("/file"), (seconds, nanos));
    }
}

#[test]
fn changes_move_the_times_they_should() {
    let Some(m) = Mounted::new() else { return };
    fs::create_dir(m.path("dir")).unwrap();
    fs::write(m.path("dir/file"), b"x").unwrap();
    let old = Timespec {
        tv_sec: 1000,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: old,
        last_modification: old,
    };
    for name in ["dir", "dir/file"] {
        utimensat(CWD, m.path(name), &times, AtFlags::empty()).unwrap();
    }
    let mtime = |name: &str| fs::metadata(m.path(name)).unwrap().mtime();
    fs::write(m.path("dir/file"), b"y").unwrap();
    assert_ne!(mtime("dir/file"), 1000);
    assert_eq!(
        mtime("dir"),
        1000,
        "an overwritten file does not change its directory"
    );
    fs::write(m.path("dir/new"), b"").unwrap();
    assert_ne!(mtime("dir"), 1000);
}

#[test]
fn a_set_gid_directory_passes_its_group_on() {
    let Some(m) = Mounted::new() else { return };
    fs::create_dir(m.path("team")).unwrap();
    chown(m.path("team"), None, Some(1234)).unwrap();
    set_mode(&m.path("team"), 0o2775);
    fs::write(m.path("team/file"), b"").unwrap();
    fs::create_dir(m.path("team/sub")).unwrap();
    assert_eq!(fs::metadata(m.path("team/file")).unwrap().gid(), 1234);
    let sub = fs::metadata(m.path("team/sub")).unwrap();
    assert_eq!((sub.gid(), sub.mode() & 0o2000), (1234, 0o2000));
}

#[test]
fn others_change_a_program_and_it_loses_its_set_id_bits() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("program");
    fs::write(&path, b"content").unwrap();
    let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
    for job in ["write", "truncate", "open-truncate"] {
        set_mode(&path, 0o6777);
        Job::start_as(job, &path, 1000).end();
        assert_eq!(mode(), 0o777, "after {job} by another user");
        set_mode(&path, 0o6777);
        Job::start(job, &path).end();
        assert_eq!(mode(), 0o6777, "after {job} by root");
    }
    chown(&path, Some(1), Some(1)).unwrap();
    assert_eq!(mode(), 0o777, "after a change of owner");
    set_mode(&path, 0o2767);
    chown(&path, Some(2), None).unwrap();
    assert_eq!(
        mode(),
        0o2767,
        "without execution by the group the bit means something else"
    );
    fs::create_dir(m.path("dir")).unwrap();
    set_mode(&m.path("dir"), 0o2777);
    chown(m.path("dir"), Some(2), Some(2)).unwrap();
    assert_eq!(fs::metadata(m.path("dir")).unwrap().mode() & 0o7777, 0o2777);
}

#[test]
fn permissions_are_checked_for_others() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("private");
    fs::write(&path, b"secret").unwrap();
    set_mode(&path, 0o600);
    let mut job = command("write", &path);
    job.uid(1000).gid(1000).stderr(Stdio::null());
    let mut job = Job::spawn(job);
    assert!(!job.process.wait().unwrap().success());
    set_mode(&path, 0o602);
    Job::start_as("write", &path, 1000).end();
}

#[test]
fn extended_attributes_mean_what_they_say() {
    let Some(m) = Mounted::new() else { return };
    let path = m.path("file");
    fs::write(&path, b"x").unwrap();
    let get = |name: &str| {
        let mut room = [0_u8; 64];
        let len = getxattr(&path, name, &mut room[..])?;
        Ok::<_, Errno>(room[..len].to_vec())
    };
    let name = "user.colour";
    assert_eq!(get(name), Err(Errno::NODATA));
    assert_eq!(
        setxattr(&path, name, b"red", XattrFlags::REPLACE),
        Err(Errno::NODATA)
    );
    setxattr(&path, name, b"red", XattrFlags::CREATE).unwrap();
    assert_eq!(
        setxattr(&path, name, b"blue", XattrFlags::CREATE),
        Err(Errno::EXIST)
    );
    setxattr(&path, name, b"green", XattrFlags::REPLACE).unwrap();
    assert_eq!(get(name).unwrap(), b"green");
    assert_eq!(xattr_len(&path, name), Some(5), "a question for the length");
    let mut small = [0; 2];
    assert_eq!(getxattr(&path, name, &mut small[..]), Err(Errno::RANGE));
    setxattr(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
    assert_eq!(get("user.empty").unwrap(), b"");
    let mut names = [0_u8; 64];
    let len = listxattr(&path, &mut names[..]).unwrap();
    let mut listed: Vec<_> = names[..len].split_inclusive(|byte| *byte == 0).collect();
    listed.sort_unstable();
    assert_eq!(listed, [&b"user.colour\0"[..], b"user.empty\0"]);
    removexattr(&path, name).unwrap();
    assert_eq!(removexattr(&path, name), Err(Errno::NODATA));
    let large = vec![7; 60_000];
    setxattr(&path, "user.large", &large, XattrFlags::empty()).unwrap();
    let mut room = vec![0; 65_536];
    assert_eq!(getxattr(&path, "user.large", &mut room[..]), Ok(60_000));
}

#[test]
fn access_control_lists_are_refused_rather_than_ignored() {
    let Some(m) = Mounted::new() else { return };
    fs::write(m.path("file"), b"x").unwrap();
    // Version 2: owner, named user 1000, group, mask and others.
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(perm.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let name = "system.posix_acl_access";
    let refused = setxattr(m.path("file"), name, &list, XattrFlags::empty());
    assert_eq!(refused, Err(Errno::OPNOTSUPP));
}

#[test]
fn space_is_told() {
    let Some(m) = Mounted::new() else { return };
    let space = rustix::fs::statvfs(m.root()).unwrap();
    assert!(space.f_blocks >= space.f_bfree && space.f_bfree >= space.f_bavail);
    assert!(space.f_blocks > 0 && space.f_files > 0);
    assert_eq!(space.f_namemax, 255);
}
