//! A unified diff, made from what was replaced rather than by comparing.

use std::fmt::Write as _;

use super::edit::Replacement;

/// Lines shown around a change.
const CONTEXT: usize = 3;

/// Whole lines that change: which, and into what.
#[derive(Debug)]
struct Change<'a> {
    /// The first, from 0, and how many.
    from: usize,
    old: Vec<&'a str>,
    new: String,
}

/// The patch of replacements, which are in order and do not overlap.
pub(super) fn unified(path: &str, original: &str, replacements: &[Replacement]) -> String {
    let lines: Vec<&str> = original.split_inclusive('\n').collect();
    let changes = changes(original, &lines, replacements);
    let mut diff = format!("--- a{path}\n+++ b{path}\n");
    let mut shift = 0_isize;
    let mut rest = &changes[..];
    while !rest.is_empty() {
        let near = |pair: &[Change<'_>]| pair[1].from - end(&pair[0]) <= 2 * CONTEXT;
        let count = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        hunk(&mut diff, &lines, &rest[..count], &mut shift);
        rest = &rest[count..];
    }
    diff
}

fn end(change: &Change<'_>) -> usize {
    change.from + change.old.len()
}

/// The lines that replacements are in, those that share one together.
fn changes<'a>(
    original: &'a str,
    lines: &[&'a str],
    replacements: &[Replacement],
) -> Vec<Change<'a>> {
    let mut starts = Vec::with_capacity(lines.len() + 1);
    starts.push(0);
    for line in lines {
        starts.push(starts[starts.len() - 1] + line.len());
    }
    let line_at = |byte: usize| starts.partition_point(|start| *start <= byte) - 1;
    let mut changes: Vec<Change<'a>> = Vec::new();
    // Where the last change's replacements end in the original.
    let mut done = 0;
    for replacement in replacements {
        let from = line_at(replacement.range.start).min(lines.len());
        let last = line_at(replacement.range.end.max(replacement.range.start + 1) - 1);
        let to = (last + 1).min(lines.len());
        match changes.last_mut() {
            Some(previous) if from < end(previous) => {
                previous
                    .new
                    .push_str(&original[done..replacement.range.start]);
                let more = end(previous)..to.max(end(previous));
                previous.old.extend(&lines[more]);
            }
            previous => {
                if let Some(previous) = previous {
                    let tail = starts[end(previous)];
                    previous.new.push_str(&original[done..tail]);
                }
                changes.push(Change {
                    from,
                    old: lines[from..to].to_vec(),
                    new: original[starts[from]..replacement.range.start].into(),
                });
            }
        }
        if let Some(change) = changes.last_mut() {
            change.new.push_str(&replacement.with);
        }
        done = replacement.range.end;
    }
    if let Some(change) = changes.last_mut() {
        let tail = starts[end(change)].max(done);
        change.new.push_str(&original[done..tail]);
    }
    changes
}

fn hunk(patch: &mut String, lines: &[&str], changes: &[Change<'_>], shift: &mut isize) {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
        return;
    };
    let from = first.from.saturating_sub(CONTEXT);
    let to = (end(last) + CONTEXT).min(lines.len());
    let mut body = String::new();
    let (mut at, mut added, mut removed) = (from, 0_usize, 0_usize);
    for change in changes {
        mark(&mut body, ' ', lines[at..change.from].iter().copied());
        mark(&mut body, '-', change.old.iter().copied());
        mark(&mut body, '+', change.new.split_inclusive('\n'));
        removed += change.old.len();
        added += change.new.split_inclusive('\n').count();
        at = end(change);
    }
    mark(&mut body, ' ', lines[at..to].iter().copied());
    let old = to - from;
    let new = old - removed + added;
    let old_start = if old == 0 { from } else { from + 1 };
    let new_start = old_start.saturating_add_signed(*shift);
    *shift += added.cast_signed() - removed.cast_signed();
    // Writing to a string cannot fail.
    let _ = writeln!(patch, "@@ -{old_start},{old} +{new_start},{new} @@");
    patch.push_str(&body);
}

fn mark<'a>(body: &mut String, sign: char, lines: impl Iterator<Item = &'a str>) {
    for line in lines {
        body.push(sign);
        body.push_str(line);
        if !line.ends_with('\n') {
            body.push_str("\n\\ No newline at end of file\n");
        }
    }
}
