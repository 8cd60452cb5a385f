//! What scripts do to the store.

use cairn::exec::ExecOptions;

use super::{Place, errors};

#[test]
fn hard_links_are_one_file() {
    let place = Place::new();
    let said = place.text("echo a > f; ln f g; echo b >> g; cat f; stat -c '%h %i' f g | uniq | wc -l; rm f; cat g; [ -L g ] || echo file");
    assert_eq!(said, "a\nb\n1\na\nb\nfile\n");
    let attr = place.replica().stat("/g").unwrap();
    assert_eq!(attr.nlink, 1);
}

#[test]
fn a_redirect_writes_into_the_same_file() {
    let place = Place::new();
    place.text("echo a > f; ln f g");
    let before = place.replica().stat("/f").unwrap().ino;
    assert_eq!(place.text("echo new > f; cat g"), "new\n");
    assert_eq!(
        place.text("sort -o f f; tee f < g > /dev/null; cat f"),
        "new\n"
    );
    assert_eq!(place.replica().stat("/f").unwrap().ino, before);
}

#[test]
fn appending_a_thousand_times_to_a_large_file_rewrites_nothing() {
    let place = Place::new();
    let replica = place.replica();
    replica.write_file("/big", &vec![b'x'; 50 << 20]).unwrap();
    place.text("for ((i = 0; i < 1000; i++)); do echo line >> big; done");
    let attr = replica.stat("/big").unwrap();
    assert_eq!(attr.size, (50 << 20) + 5_000);
    assert_eq!(place.text("tail -n 999 big | uniq -c"), "    999 line\n");
    assert_eq!(
        replica.read_range("/big", (50 << 20) + 4_995, 10).unwrap(),
        b"line\n"
    );
}

#[test]
fn a_copy_shares_its_content() {
    let place = Place::new();
    let replica = place.replica();
    replica.write_file("/a", &vec![7; 8 << 20]).unwrap();
    place.text("chmod 640 a; cp a b; cmp a b");
    assert_eq!(replica.stat("/b").unwrap().size, 8 << 20);
    assert_eq!(place.text("stat -c %a b"), "640\n");
}

#[test]
fn moving_keeps_the_node_and_replaces_at_once() {
    let place = Place::new();
    place.text("mkdir d; echo a > d/f; echo old > g");
    let ino = place.replica().stat("/d/f").unwrap().ino;
    place.text("mv d/f g; mv d e; ls");
    assert_eq!(place.replica().stat("/g").unwrap().ino, ino);
    assert_eq!(place.replica().read_file("/g").unwrap(), b"a\n");
    assert!(place.replica().exists("/e").unwrap());
}

#[test]
fn what_is_moved_from_tmp_is_in_the_store() {
    let place = Place::new();
    assert_eq!(
        place.text("t=$(mktemp); echo x > $t; mv $t here; cat here; ls /tmp | wc -l; cp here /tmp/c; cat /tmp/c"),
        "x\n0\nx\n"
    );
}

#[test]
fn names_that_are_not_text_are_listed_and_used() {
    let place = Place::new();
    let replica = place.replica();
    for name in ["/tab\there", "/line\nbreak", "/right\u{202e}left"] {
        replica.write_file(name, b"x").unwrap();
    }
    replica
        .write_file(b"/not\xfftext".as_slice(), b"y")
        .unwrap();
    let output = place.run("ls -1 | wc -l; for f in *; do cat \"$f\"; done; echo; ls");
    assert_eq!(errors(&output), "");
    assert_eq!(&output.stdout[..8], b"5\nxyxx\nl");
    assert!(
        output
            .stdout
            .windows(9)
            .any(|w| w == b"not\xfftext\n".get(..9).unwrap())
    );
    place.text("cat $'tab\\there'; for f in not*; do mv \"$f\" renamed; done; rm tab*");
    assert_eq!(replica.read_file("/renamed").unwrap(), b"y");
    assert!(!replica.exists("/tab\there").unwrap());
}

#[test]
fn links_are_followed_in_the_names_that_scripts_see() {
    let place = Place::new();
    let said = place.text(
        "mkdir d; echo x > d/f; ln -s d l; cat l/f; ln -s /workspace/d abs; cat abs/f; \
         echo y >> l/f; wc -l < abs/f; ln -s nowhere dangling; ls dangling; readlink l; \
         head -1 l/f; ln -s /tmp/t out; echo t > /tmp/t; cat out; rm l; cat d/f",
    );
    assert_eq!(said, "x\nx\n2\ndangling\nd\nx\nt\nx\ny\n");
    assert!(!place.replica().exists("/l").unwrap());
}

#[test]
fn the_mask_holds_for_new_files_and_directories() {
    let place = Place::new();
    let said = place.text("umask; umask 077; touch f; mkdir d; echo > g; stat -c %a f d g; umask -S; umask u=rwx,g=rx,o=; umask");
    assert_eq!(said, "0022\n600\n700\n600\nu=rwx,g=,o=\n0027\n");
    assert_eq!(place.text("umask"), "0022\n");
}

#[test]
fn permissions_and_times_are_kept() {
    let place = Place::new();
    let said = place.text(
        "mkdir -p a/b; touch a/b/f; chmod -R u=rwX,go= a; stat -c %a a a/b a/b/f; \
         touch -d '2001-02-03 04:05:06' a/b/f; stat -c '%y %Y' a/b/f; date -r a/b/f +%F 2>/dev/null || true",
    );
    assert!(
        said.starts_with("700\n700\n600\n2001-02-03 04:05:06.000000000 +0000 981173106\n"),
        "{said}"
    );
}

#[test]
fn tools_are_clean_of_bytes() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..=255).rev().collect();
    place.replica().write_file("/all", &bytes).unwrap();
    for script in [
        "cat all",
        "tee copy < all",
        "head -c 256 all",
        "tail -c 256 all",
        "dd if=all status=none",
        "cat < all | cat",
        "cp all x; cat x",
    ] {
        assert_eq!(place.run(script).stdout, bytes, "{script}");
    }
    assert_eq!(place.replica().read_file("/copy").unwrap(), bytes);
    place
        .replica()
        .write_file("/lines", b"b\xff\na\xfe\nb\xff\n")
        .unwrap();
    assert_eq!(place.run("sort lines").stdout, b"a\xfe\nb\xff\nb\xff\n");
    assert_eq!(place.run("sort lines | uniq").stdout, b"a\xfe\nb\xff\n");
    assert_eq!(place.run("cut -b 2 lines").stdout, b"\xff\n\xfe\n\xff\n");
    assert_eq!(place.run("cut -c 1 lines").stdout, b"b\na\nb\n");
    assert_eq!(
        place.run("sort lines | tee s | uniq -d > u; cat u").stdout,
        b"b\xff\n"
    );
}

#[test]
fn what_another_does_to_the_store_is_seen_at_once() {
    let place = Place::new();
    let exec = place.start(
        "until [ -e signal ]; do sleep 0.01; done; cat signal",
        ExecOptions::default(),
    );
    place.replica().write_file("/signal", b"here\n").unwrap();
    assert_eq!(cairn::block_on(exec.result()).unwrap().text(), "here\n");
}

#[test]
fn the_space_is_that_of_the_disk() {
    let place = Place::new();
    let said = place.text("df -h . | tail -1 | awk '{ print $1, $6 }'; df | wc -l; df -i | wc -l");
    assert_eq!(said, "cairn /workspace\n2\n2\n");
}

#[test]
fn a_change_that_a_script_hears_of_is_seen_after_a_listing() {
    let place = Place::new();
    let replica = place.replica();
    replica.write_file("/f", b"x").unwrap();
    let exec = place.start(
        "ls > /dev/null; echo go; until [ -e signal ]; do :; done; stat -c %s f; [ -e g ] && echo g",
        ExecOptions::default(),
    );
    let mut events = exec.events(cairn::exec::ReadFrom::Start);
    cairn::block_on(events.next()).unwrap();
    replica.write_file("/f", b"longer").unwrap();
    replica.write_file("/g", b"").unwrap();
    replica.write_file("/signal", b"").unwrap();
    assert_eq!(cairn::block_on(exec.result()).unwrap().text(), "go\n6\ng\n");
    let said = place.text("ls > /dev/null; rm f; [ -e f ] || echo gone; echo abc > g; ls -l g | cut -d' ' -f5; mv g h; ls");
    assert_eq!(said, "gone\n4\nh\nsignal\n");
}

/// What a tool writes in chunks is in its file in order and whole, whatever
/// looks at the file meanwhile, and what cannot be written is told.
#[test]
fn what_is_held_back_is_written_in_order() {
    let place = Place::new();
    let text = place.text(
        "seq 50000 > n; cat n > c; cmp n c && echo same\n\
         for i in 1 2 3; do head -c 12288 n >> three; wc -c < three; done\n\
         head -c 8192 n | tee a b > d; cmp a b; cmp a d; wc -c d; ls -l d | wc -l\n\
         cat n c | sed 's/$/ /' > e; tail -1 e | wc -c; wc -l < e; stat -c %s e\n\
         cat n > f; rm f; cat n > f; wc -c f; head -c 4096 n > g; mv g h; stat -c %s h\n\
         grep -v x n > i; cmp n i && sort -n i > i2; cmp n i2; (cat n; cat n) > j; wc -l j",
    );
    let size = (1..=50_000)
        .map(|n: u32| n.to_string().len() + 1)
        .sum::<usize>();
    let lines = [
        "same".to_owned(),
        "12288".into(),
        "24576".into(),
        "36864".into(),
        "8192 d".into(),
        "1".into(),
        "7".into(),
        "100000".into(),
        (2 * (size + 50_000)).to_string(),
        format!("{size} f"),
        "4096".into(),
        "100000 j".into(),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    let output = place.run("mkdir d1; cat n > d1; echo $?");
    assert_eq!(output.text(), "1\n");
}
