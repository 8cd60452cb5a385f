//! `ls`: one entry in a line, or the long form.

use std::cmp::Ordering;
use std::time::SystemTime;

use cairn_protocol::{NodeKind, Timestamp};

use super::call::{Call, Outcome, Spot, is_dir, is_link};
use super::long::{Form, Row, Sizes, Times, align, size_text};
use super::options::{self, Given, Known};
use crate::shell::adapter::timestamp;
use crate::shell::names::{to_bytes, to_text};
use crate::shell::wire::Node;

const KNOWN: Known = Known {
    short: "aABbcCdfFgGhHiI:klLmnNopqQrRsStT:uUvw:xX1",
    long: &[
        ("all", 'a'),
        ("almost-all", 'A'),
        ("author", '\0'),
        ("color?", '\0'),
        ("classify?", 'F'),
        ("dereference", 'L'),
        ("dereference-command-line", 'H'),
        ("directory", 'd'),
        ("file-type", 'T'),
        ("format=", '\u{1}'),
        ("full-time", '\u{2}'),
        ("group-directories-first", '\u{3}'),
        ("human-readable", 'h'),
        ("ignore=", 'I'),
        ("ignore-backups", 'B'),
        ("indicator-style=", '\u{4}'),
        ("inode", 'i'),
        ("kibibytes", 'k'),
        ("literal", 'N'),
        ("no-group", 'G'),
        ("numeric-uid-gid", 'n'),
        ("quote-name", 'Q'),
        ("recursive", 'R'),
        ("reverse", 'r'),
        ("si", '\u{5}'),
        ("size", 's'),
        ("sort=", '\u{6}'),
        ("time=", '\u{7}'),
        ("time-style=", '\u{8}'),
        ("width=", 'w'),
    ],
    error_code: 2,
};

/// A named node.
#[derive(Clone, Debug)]
struct Item {
    name: Vec<u8>,
    node: Node,
    spot: Option<Place>,
    target: Option<String>,
}

/// Where an item is, to look into it.
type Place = std::sync::Arc<Spot>;

/// How entries are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Name,
    Time,
    Size,
    Extension,
    Version,
    None,
}

#[derive(Debug)]
struct Style {
    given: Given,
    long: bool,
    order: Order,
    form: Form,
    time: fn(&Node) -> Timestamp,
    now: Timestamp,
}

impl Style {
    fn of(given: Given) -> Self {
        let value = |option| given.value(option).unwrap_or_default().to_owned();
        let wanted = given.last_of("lgno\u{2}").is_some();
        let spelled = matches!(&*value('\u{1}'), "long" | "verbose");
        let long = match given.last_of("1Cxmlgno\u{2}") {
            // It is one entry in a line in either form.
            Some('1') => wanted || spelled,
            Some(last) => "lgno\u{2}".contains(last),
            None => spelled,
        };
        let order = order(&given, long);
        let (time, times) = (time(&given), times(&given));
        let sizes = match given.last_of("h\u{5}") {
            Some('h') => Sizes::Human,
            Some(_) => Sizes::Si,
            None => Sizes::Bytes,
        };
        let form = Form {
            owner: !given.has('g'),
            group: !(given.has('o') || given.has('G')),
            numeric: given.has('n'),
            sizes,
            times,
        };
        Self {
            long,
            order,
            form,
            time,
            now: timestamp(SystemTime::now()),
            given,
        }
    }

    fn has(&self, option: char) -> bool {
        self.given.has(option)
    }
}

/// How entries are ordered: with `-c` or `-u` alone by that time.
fn order(given: &Given, long: bool) -> Order {
    let by_time = given.last_of("cu").is_some() && !long;
    match (given.last_of("tSXUvf"), given.value('\u{6}')) {
        (_, Some("time")) | (Some('t'), _) => Order::Time,
        (_, Some("size")) | (Some('S'), _) => Order::Size,
        (_, Some("extension")) | (Some('X'), _) => Order::Extension,
        (_, Some("version")) | (Some('v'), _) => Order::Version,
        (_, Some("none")) | (Some(_), _) => Order::None,
        (None, _) if by_time => Order::Time,
        (None, _) => Order::Name,
    }
}

/// The time that is shown and ordered by.
fn time(given: &Given) -> fn(&Node) -> Timestamp {
    match (given.last_of("cu"), given.value('\u{7}')) {
        (Some('c'), _) | (_, Some("ctime" | "status")) => |node| node.ctime,
        (Some(_), _) | (_, Some("atime" | "access" | "use")) => |node| node.atime,
        (_, Some("birth" | "creation")) => |node| node.btime,
        _ => |node| node.mtime,
    }
}

/// How times are shown.
fn times(given: &Given) -> Times {
    match (given.has('\u{2}'), given.value('\u{8}')) {
        (true, _) | (_, Some("full-iso")) => Times::Full,
        (_, Some("long-iso")) => Times::LongIso,
        (_, Some("iso")) => Times::Iso,
        (_, Some("+%s")) => Times::Seconds,
        _ => Times::Short,
    }
}

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let style = Style::of(given);
    let operands = match &*style.given.operands {
        [] => vec![".".to_owned()],
        operands => operands.to_vec(),
    };
    let (mut files, mut dirs, mut code) = (Vec::new(), Vec::new(), 0);
    for operand in &operands {
        match item(call, operand, &style).await {
            Ok(item) if is_dir(&item.node) && !style.has('d') => dirs.push(item),
            Ok(item) => files.push(item),
            Err(error) => {
                call.complain_of(&format!("cannot access '{operand}'"), &error)
                    .await?;
                code = 2;
            }
        }
    }
    sort(&mut files, &style);
    sort(&mut dirs, &style);
    let several = operands.len() > 1 || style.has('R');
    let mut first = files.is_empty();
    list(call, &files, &style).await?;
    // A stack, of which the last is shown next.
    let mut todo: Vec<Item> = dirs.into_iter().rev().collect();
    while let Some(dir) = todo.pop() {
        if several {
            let gap = if std::mem::take(&mut first) { "" } else { "\n" };
            let name = [gap.as_bytes(), &shown_name(&dir.name, &style), b":\n"].concat();
            call.out(&name).await?;
        }
        match contents(call, &dir, &style).await {
            Ok(items) => {
                total(call, &items, &style).await?;
                list(call, &items, &style).await?;
                if style.has('R') {
                    todo.extend(below(&dir, items).into_iter().rev());
                }
            }
            Err(error) => {
                let what = format!("cannot open directory '{}'", to_text(&dir.name));
                call.complain_of(&what, &error).await?;
                code = code.max(1);
            }
        }
    }
    Ok(code)
}

async fn item(call: &Call<'_>, operand: &str, style: &Style) -> std::io::Result<Item> {
    let long = style.long || style.has('d') || style.has('F');
    let follow = style.has('L') || style.has('H') || !long || operand.ends_with('/');
    let spot = call.find(operand, follow).await?;
    let mut node = call.look_at(&spot).await;
    let mut spot = spot;
    if node.is_err() && follow {
        // A link to nowhere is shown itself.
        spot = call.find(operand, false).await?;
        node = call.look_at(&spot).await;
    }
    let node = node?;
    let target = if is_link(&node) && style.long {
        call.target(&spot).await.ok()
    } else {
        None
    };
    Ok(Item {
        name: to_bytes(operand),
        node,
        spot: Some(Place::new(spot)),
        target,
    })
}

/// The entries of a directory that are shown, in order.
async fn contents(call: &Call<'_>, dir: &Item, style: &Style) -> std::io::Result<Vec<Item>> {
    let Some(place) = &dir.spot else {
        return Ok(Vec::new());
    };
    let all = style.given.last_of("aAf");
    let mut items = Vec::new();
    for (name, node) in call.entries(place).await? {
        let hidden = name.first() == Some(&b'.') && all.is_none();
        let backup = style.has('B') && name.last() == Some(&b'~');
        if hidden || backup || ignored(&name, style) {
            continue;
        }
        let spot = Place::new(place.join(&name));
        let target = if is_link(&node) && style.long {
            call.target(&spot).await.ok()
        } else {
            None
        };
        let node = if style.has('L') && is_link(&node) {
            let path = path_of(call, dir, &name);
            call.attributes(&path, true).await.unwrap_or(node)
        } else {
            node
        };
        items.push(Item {
            name,
            node,
            spot: Some(spot),
            target,
        });
    }
    if matches!(all, Some('a' | 'f')) {
        for (name, node) in [(".", dir.node), ("..", parent(call, dir).await)] {
            items.push(Item {
                name: name.into(),
                node,
                spot: None,
                target: None,
            });
        }
    }
    sort(&mut items, style);
    Ok(items)
}

fn path_of(call: &Call<'_>, dir: &Item, name: &[u8]) -> String {
    let dir = call.path(&to_text(&dir.name));
    dir.join(to_text(name)).to_string_lossy().into_owned()
}

async fn parent(call: &Call<'_>, dir: &Item) -> Node {
    let path = path_of(call, dir, b"..");
    call.attributes(&path, true).await.unwrap_or(dir.node)
}

fn ignored(name: &[u8], style: &Style) -> bool {
    let Some(pattern) = style.given.value('I') else {
        return false;
    };
    glob(&to_bytes(pattern), name)
}

/// Whether a name matches a pattern of `*` and `?`.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|at| glob(rest, &name[at..])),
        Some((b'?', rest)) => !name.is_empty() && glob(rest, &name[1..]),
        Some((byte, rest)) => name.first() == Some(byte) && glob(rest, &name[1..]),
    }
}

fn sort(items: &mut [Item], style: &Style) {
    let by_name = |a: &Item, b: &Item| a.name.cmp(&b.name);
    let time = style.time;
    let extension = |item: &Item| -> Vec<u8> {
        let at = item.name.iter().rposition(|byte| *byte == b'.');
        at.map(|at| item.name[at..].to_vec()).unwrap_or_default()
    };
    let order = |a: &Item, b: &Item| -> Ordering {
        match style.order {
            Order::Name => by_name(a, b),
            Order::Time => time(&b.node)
                .cmp(&time(&a.node))
                .then_with(|| by_name(a, b)),
            Order::Size => b.node.size.cmp(&a.node.size).then_with(|| by_name(a, b)),
            Order::Extension => extension(a).cmp(&extension(b)).then_with(|| by_name(a, b)),
            Order::Version => super::keys::version(&a.name, &b.name),
            Order::None => Ordering::Equal,
        }
    };
    items.sort_by(order);
    if style.has('r') && style.order != Order::None {
        items.reverse();
    }
    if style.has('\u{3}') {
        items.sort_by_key(|item| !is_dir(&item.node));
    }
}

async fn total(call: &Call<'_>, items: &[Item], style: &Style) -> Outcome<()> {
    if !(style.long || style.has('s')) {
        return Ok(());
    }
    let blocks: u64 = items.iter().map(|item| item.node.blocks).sum();
    let size = match style.form.sizes {
        Sizes::Bytes => blocks.div_ceil(2).to_string(),
        sizes => size_text(blocks * 512, sizes),
    };
    call.out(format!("total {size}\n").as_bytes()).await
}

async fn list(call: &Call<'_>, items: &[Item], style: &Style) -> Outcome<()> {
    let row = |item: &Item| Row::of(&item.node, (style.time)(&item.node), style.now, style.form);
    let rows: Vec<String> = if style.long {
        align(&items.iter().map(row).collect::<Vec<_>>())
    } else {
        Vec::new()
    };
    let inode = items
        .iter()
        .map(|item| item.node.ino.to_string().len())
        .max();
    let blocks = |item: &Item| match style.form.sizes {
        Sizes::Bytes => item.node.blocks.div_ceil(2).to_string(),
        sizes => size_text(item.node.blocks * 512, sizes),
    };
    let widest = items.iter().map(|item| blocks(item).len()).max();
    let (inode, widest) = (inode.unwrap_or(0), widest.unwrap_or(0));
    let commas = style.given.last_of("m1lCx") == Some('m') && !style.long;
    for (at, item) in items.iter().enumerate() {
        let mut line = Vec::new();
        if style.has('i') {
            line.extend_from_slice(format!("{:>inode$} ", item.node.ino).as_bytes());
        }
        if style.has('s') {
            line.extend_from_slice(format!("{:>widest$} ", blocks(item)).as_bytes());
        }
        if let Some(row) = rows.get(at) {
            line.extend_from_slice(row.as_bytes());
        }
        line.extend_from_slice(&shown_name(&item.name, style));
        match &item.target {
            Some(target) => {
                line.extend_from_slice(b" -> ");
                line.extend_from_slice(&to_bytes(target));
            }
            None => line.extend_from_slice(mark(&item.node, style).as_bytes()),
        }
        let end: &[u8] = match (commas, at + 1 == items.len()) {
            (true, false) => b", ",
            _ => b"\n",
        };
        line.extend_from_slice(end);
        call.out(&line).await?;
    }
    Ok(())
}

fn shown_name(name: &[u8], style: &Style) -> Vec<u8> {
    let text = String::from_utf8_lossy(name);
    match style.given.last_of("QbqN") {
        Some('Q') => format!("\"{}\"", text.escape_default()).into_bytes(),
        Some('b') => text
            .escape_default()
            .to_string()
            .replace("\\'", "'")
            .into_bytes(),
        Some('q') => {
            let shown = |byte: &u8| if byte.is_ascii_control() { b'?' } else { *byte };
            name.iter().map(shown).collect()
        }
        _ => name.to_vec(),
    }
}

fn mark(node: &Node, style: &Style) -> &'static str {
    let style_name = style.given.value('\u{4}').unwrap_or_default();
    let classify = style.has('F') || style_name == "classify";
    let kinds = classify || style_name == "file-type";
    match node.kind {
        NodeKind::Dir if kinds || style.has('p') || style_name == "slash" => "/",
        NodeKind::Symlink if kinds => "@",
        NodeKind::Fifo if kinds => "|",
        NodeKind::Socket if kinds => "=",
        NodeKind::File if classify && node.perm & 0o111 != 0 => "*",
        _ => "",
    }
}

/// The directories in a directory, to be listed too.
fn below(dir: &Item, items: Vec<Item>) -> Vec<Item> {
    let inner = items
        .into_iter()
        .filter(|item| is_dir(&item.node) && item.spot.is_some());
    let slash: &[u8] = if dir.name.ends_with(b"/") { b"" } else { b"/" };
    inner
        .map(|item| Item {
            name: [&dir.name, slash, &item.name].concat(),
            ..item
        })
        .collect()
}
