//! Archives made to do harm: each is refused by name, and nothing is where it
//! should not be.

use std::fs;

use tar::{EntryType, Header};

use crate::scratch::Scratch;

/// An archive, written byte by byte, so that nobody refuses to make it.
struct Archive(Vec<u8>);

impl Archive {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn entry(mut self, name: &[u8], kind: EntryType, link: &[u8], data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, b"", b"evil")
    }

    fn link(self, name: &[u8], target: &[u8]) -> Self {
        self.entry(name, EntryType::Symlink, target, b"")
    }

    /// A header that only claims a size.
    fn claims(mut self, kind: u8, size: u64) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().linkflag = [kind];
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1_024, 0);
        self.0
    }
}

/// The archive is refused with these words; only what is listed is in place.
#[track_caller]
fn refused(archive: Archive, words: &[&str], there: &str) {
    let s = Scratch::new();
    fs::create_dir(s.join("src")).unwrap();
    s.cairn("import src demo.cairn/top").done();
    s.fed("import - demo.cairn/top", &archive.end())
        .ended(5)
        .says(words);
    assert_eq!(s.cairn("ls -a demo.cairn/top").done().text(), there);
    assert_eq!(s.cairn("ls -a demo.cairn").done().text(), "top\n");
    s.cairn("check demo.cairn").done();
}

#[test]
fn names_that_lead_elsewhere() {
    refused(
        Archive::new().file(b"/etc/passwd"),
        &["/etc/passwd", "absolute"],
        "",
    );
    refused(Archive::new().file(b"../evil"), &["../evil", "`..`"], "");
    refused(
        Archive::new().file(b"good").file(b"a/../../evil"),
        &["a/../../evil", "1 entry", "in place"],
        "good\n",
    );
    refused(Archive::new().file(b".."), &["`..`"], "");
    refused(Archive::new().file(b"."), &["no usable name"], "");
    refused(Archive::new().file(b""), &["no usable name"], "");
}

#[test]
fn names_through_links() {
    let archive = Archive::new().link(b"out", b"/").file(b"out/evil");
    refused(
        archive,
        &["out/evil would go through the symbolic link out"],
        "out\n",
    );
    let archive = Archive::new().link(b"up", b"..").file(b"up/evil");
    refused(
        archive,
        &["up/evil would go through the symbolic link up"],
        "up\n",
    );
    let archive =
        Archive::new()
            .link(b"here", b".")
            .entry(b"here/dir/", EntryType::Directory, b"", b"");
    refused(archive, &["through the symbolic link here"], "here\n");
    // A directory that becomes a link while it is in use.
    let archive = Archive::new()
        .entry(b"dir/", EntryType::Directory, b"", b"")
        .link(b"dir", b"/")
        .file(b"dir/evil");
    refused(
        archive,
        &["dir/evil would go through the symbolic link dir"],
        "dir\n",
    );
    refused(
        Archive::new().file(b"f").file(b"f/evil"),
        &["f/evil would go into f, which is not a directory"],
        "f\n",
    );
}

#[test]
fn links_through_links() {
    let hard =
        |name: &[u8], target: &[u8]| Archive::new().entry(name, EntryType::Link, target, b"");
    refused(hard(b"x", b"/etc/passwd"), &["/etc/passwd", "absolute"], "");
    refused(hard(b"x", b"../x"), &["../x", "`..`"], "");
    refused(
        hard(b"x", b"missing"),
        &["x is another name of missing, which is not there"],
        "",
    );
    let archive = Archive::new()
        .link(b"out", b"/")
        .entry(b"x", EntryType::Link, b"out/top", b"");
    refused(
        archive,
        &["x is another name of out/top, which is not there"],
        "out\n",
    );
}

#[test]
fn a_link_that_was_there_is_not_followed() {
    let s = Scratch::new();
    s.sh("mkdir -p src/top src/secret && ln -s ../secret src/top/dir")
        .done();
    s.cairn("import src demo.cairn").done();
    for more in ["", " --replace"] {
        let archive = Archive::new().file(b"dir/evil").end();
        s.fed(&format!("import - demo.cairn/top{more}"), &archive)
            .ended(5)
            .says(&["through the symbolic link dir"]);
    }
    assert_eq!(s.cairn("ls demo.cairn/secret").done().text(), "");
    // With --replace a file of that name replaces the link, not what it shows.
    s.fed(
        "import - demo.cairn/top --replace",
        &Archive::new().file(b"dir").end(),
    )
    .done();
    assert_eq!(s.cairn("cat demo.cairn/top/dir").done().text(), "evil");
}

#[test]
fn names_that_are_too_long() {
    let long = |len: usize| {
        let mut archive = Archive::new();
        let name = vec![b'n'; len];
        archive = archive.entry(b"././@LongLink", EntryType::GNULongName, b"", &name);
        archive.file(b"short")
    };
    refused(long(256), &["nnnn", "at most 255 bytes, this has 256"], "");
    refused(long(70_000), &["nnnn", "(70000 bytes)"], "");
    let deep = b"d/".repeat(5_000);
    let archive = Archive::new()
        .entry(b"././@LongLink", EntryType::GNULongName, b"", &deep)
        .file(b"short");
    refused(archive, &["at most 4096 components, this has 5000"], "");
}

#[test]
fn headers_that_claim_too_much() {
    for kind in [b'L', b'K', b'x', b'g'] {
        refused(
            Archive::new().claims(kind, 1 << 40),
            &["extended header at byte 0", "1099511627776 bytes"],
            "",
        );
    }
    // Each below the limit, but all together not.
    let mut archive = Archive::new();
    for _ in 0..3 {
        archive = archive.entry(b"x", EntryType::XHeader, b"", &pax("comment", 2 << 20));
    }
    refused(archive, &["extended header"], "");
    refused(
        Archive::new().claims(b'0', u64::MAX >> 1),
        &["no usable name"],
        "",
    );
}

fn pax(key: &str, len: usize) -> Vec<u8> {
    let rest = key.len() + len + 3;
    let digits = (rest + 7).to_string().len();
    let mut record = format!("{} {key}=", rest + digits).into_bytes();
    record.resize(record.len() + len, b'v');
    record.push(b'\n');
    record
}

#[test]
fn sparse_maps_that_make_no_sense() {
    let sparse = |records: &[&str], data: &[u8]| {
        let records: Vec<u8> = records
            .iter()
            .flat_map(|record| {
                let (rest, mut len) = (record.len() + 2, record.len() + 3);
                while len != rest + len.to_string().len() {
                    len = rest + len.to_string().len();
                }
                format!("{len} {record}\n").into_bytes()
            })
            .collect();
        Archive::new()
            .entry(b"x", EntryType::XHeader, b"", &records)
            .entry(b"sparse", EntryType::Regular, b"", data)
    };
    let nonsense = ["damaged", "sparse"];
    refused(
        sparse(
            &["GNU.sparse.size=100", "GNU.sparse.map=0,10,5,10"],
            &[0; 20],
        ),
        &nonsense,
        "",
    );
    refused(
        sparse(&["GNU.sparse.size=5", "GNU.sparse.map=0,10"], &[0; 10]),
        &nonsense,
        "",
    );
    refused(
        sparse(
            &[
                "GNU.sparse.size=100",
                "GNU.sparse.map=0,18446744073709551615,1,1",
            ],
            &[0; 10],
        ),
        &nonsense,
        "",
    );
    let new = [
        "GNU.sparse.major=1",
        "GNU.sparse.minor=0",
        "GNU.sparse.realsize=100",
    ];
    refused(sparse(&new, b"99999999\n"), &nonsense, "");
    refused(sparse(&new, b"1\n0\n"), &nonsense, "");
    refused(sparse(&new, b"x"), &nonsense, "");
    // A file of 2^62 bytes is no nonsense, only a very large hole.
    let s = Scratch::new();
    let huge = sparse(
        &["GNU.sparse.size=4611686018427387904", "GNU.sparse.map=0,4"],
        b"data",
    )
    .end();
    s.fed("import - demo.cairn", &huge).done();
    assert_eq!(
        s.cairn("ls --json demo.cairn").done().json()["size"],
        1_u64 << 62
    );
}

#[test]
fn what_is_damaged_or_unknown() {
    let mut bytes = Archive::new().file(b"a").file(b"b").end();
    bytes[1_024] ^= 1;
    let s = Scratch::new();
    s.fed("import - demo.cairn", &bytes)
        .ended(5)
        .says(&["damaged at byte 1024", "checksum"]);
    assert_eq!(s.cairn("ls demo.cairn").done().text(), "a\n");
    // An unknown type is left out, and what follows is not.
    let archive = Archive::new()
        .entry(b"odd", EntryType::new(b'Z'), b"", b"1234")
        .file(b"b");
    s.fed("import - demo.cairn", &archive.end())
        .ended(1)
        .says(&["odd: left out"]);
    assert_eq!(s.cairn("ls demo.cairn").done().text(), "a\nb\n");
}

#[test]
fn noise_never_makes_it_panic() {
    let s = Scratch::new();
    let good = Archive::new()
        .entry(b"dir/", EntryType::Directory, b"", b"")
        .entry(
            b"x",
            EntryType::XHeader,
            b"",
            b"16 path=dir/file\n20 mtime=1234567.89\n",
        )
        .file(b"short")
        .link(b"l", b"dir")
        .end();
    for round in 0..60_u64 {
        let mut bytes = good.clone();
        for (at, byte) in crate::trees::noise(12, round + 1)
            .chunks_exact(3)
            .map(|c| (usize::from(c[0]) * 11 + usize::from(c[1]), c[2]))
        {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        let ran = s.fed("import - demo.cairn --replace", &bytes);
        assert!(matches!(ran.status.code(), Some(0 | 1 | 5)), "{ran:?}");
        assert!(!ran.err.contains("panicked"), "{ran:?}");
    }
}
