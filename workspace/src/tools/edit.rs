//! `edit`: replaces pieces of a text, all or none.

use std::ops::Range;

use cairn_engine::FsError;
use serde::Deserialize;
use serde_json::json;

use super::fold::{Fold, Folded};
use super::write::{CONTENT_MAX, check_size};
use super::{Answer, Files, Result, ToolError, patch, path};

/// A byte order mark, which is kept but not part of the text.
const BOM: &str = "\u{feff}";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Input {
    path: String,
    edits: Vec<Edit>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Edit {
    old_text: String,
    new_text: String,
}

/// A range of the original, and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    pub(super) range: Range<usize>,
    pub(super) with: String,
    /// Which edit it comes from, from 1.
    number: usize,
}

pub(super) fn edit(files: &Files, input: &Input) -> Result<Answer> {
    let path = path(&input.path)?;
    let _held = files.locks.lock(&path, false);
    let size = files.replica.stat(&path)?.size;
    check_size(&path, size)?;
    let version = files.replica.version(&path)?;
    let bytes = files.replica.read_file(&path)?;
    let original = String::from_utf8(bytes).map_err(|_| ToolError::NotText {
        path: path.clone(),
        why: "is not UTF-8 text, which is all that edit can change".into(),
    })?;
    let replacements = plan(&path, &original, &input.edits)?;
    let edited = apply(&original, &replacements);
    if edited == original {
        return Err(ToolError::NoChange(path));
    }
    check_size(&path, edited.len() as u64)?;
    files
        .replica
        .write_if(&path, version, edited.as_bytes())
        .map_err(|error| match error {
            FsError::VersionMismatch { .. } => ToolError::Changed(path.clone()),
            other => other.into(),
        })?;
    let diff = patch::unified(&path, &original, &replacements);
    let first = replacements
        .iter()
        .map(|r| r.range.start)
        .min()
        .unwrap_or(0);
    let value = json!({
        "path": path,
        "edits": input.edits.len(),
        "patch": diff,
        "firstChangedLine": line_of(&original, first),
    });
    Ok(Answer::new(diff, value))
}

/// Finds what each edit replaces, in the order of the file.
fn plan(path: &str, original: &str, edits: &[Edit]) -> Result<Vec<Replacement>> {
    if edits.is_empty() {
        return Err(ToolError::Input("there are no edits".into()));
    }
    let text = original.strip_prefix(BOM).unwrap_or(original);
    let skipped = original.len() - text.len();
    let exact = Folded::new(text, Fold::Lines);
    let mut alike = None;
    let mut planned = Vec::with_capacity(edits.len());
    for (edit, number) in edits.iter().zip(1..) {
        let range = match find(path, number, text, &exact, &edit.old_text, Fold::Lines) {
            Err(ToolError::NotFound { .. }) => {
                let alike = alike.get_or_insert_with(|| Folded::new(text, Fold::Looks));
                find(path, number, text, alike, &edit.old_text, Fold::Looks)?
            }
            found => found?,
        };
        planned.push(Replacement {
            with: with_line_ends(&edit.new_text, text),
            range: range.start + skipped..range.end + skipped,
            number,
        });
    }
    planned.sort_by_key(|replacement| (replacement.range.start, replacement.range.end));
    for pair in planned.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(ToolError::Overlap {
                first: pair[0].number.min(pair[1].number),
                second: pair[0].number.max(pair[1].number),
                path: path.into(),
            });
        }
    }
    Ok(planned)
}

/// The one place of a text, in the original.
fn find(
    path: &str,
    number: usize,
    original: &str,
    folded: &Folded,
    wanted: &str,
    fold: Fold,
) -> Result<Range<usize>> {
    let wanted = Folded::new(wanted.strip_prefix(BOM).unwrap_or(wanted), fold).text;
    let Some(first_char) = wanted.chars().next() else {
        return Err(ToolError::Input(format!(
            "edit {number}: its oldText is empty"
        )));
    };
    let path = || path.to_string();
    let Some(first) = folded.text.find(&wanted) else {
        return Err(ToolError::NotFound {
            number,
            path: path(),
        });
    };
    // A second place may overlap the first.
    let after = first + first_char.len_utf8();
    if let Some(second) = folded.text[after..].find(&wanted) {
        return Err(ToolError::Ambiguous {
            number,
            path: path(),
            first: line_of(&folded.text, first),
            second: line_of(&folded.text, after + second),
        });
    }
    let found = folded.original(&(first..first + wanted.len()));
    let found = found.filter(|range| original.is_char_boundary(range.start));
    found.ok_or_else(|| ToolError::Inside {
        number,
        path: path(),
    })
}

/// The number of the line in which a byte is, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].split(|byte| *byte == b'\n').count()
}

/// A text with the line ends that a file has most of.
fn with_line_ends(text: &str, file: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let all = file.matches('\n').count();
    let crlf = file.matches("\r\n").count();
    if crlf * 2 > all {
        text.replace('\n', "\r\n")
    } else {
        text
    }
}

fn apply(original: &str, replacements: &[Replacement]) -> String {
    let mut edited = String::with_capacity(original.len().min(CONTENT_MAX));
    let mut at = 0;
    for replacement in replacements {
        edited.push_str(&original[at..replacement.range.start]);
        edited.push_str(&replacement.with);
        at = replacement.range.end;
    }
    edited.push_str(&original[at..]);
    edited
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(original: &str, edits: &[(&str, &str)]) -> Result<String> {
        let edits: Vec<Edit> = edits
            .iter()
            .map(|(old, new)| Edit {
                old_text: (*old).into(),
                new_text: (*new).into(),
            })
            .collect();
        Ok(apply(original, &plan("/f", original, &edits)?))
    }

    #[test]
    fn edits_are_against_the_original() {
        let done = edited("a b c", &[("c", "a"), ("a", "c")]).unwrap();
        assert_eq!(done, "c b a");
        assert_eq!(edited("ab", &[("a", ""), ("b", "x")]).unwrap(), "x");
    }

    #[test]
    fn what_is_not_one_place_is_refused() {
        let error = |original, edits: &[(&str, &str)]| edited(original, edits).unwrap_err();
        let twice = error("x\ny\nx\n", &[("x", "z")]);
        assert!(matches!(
            twice,
            ToolError::Ambiguous {
                first: 1,
                second: 3,
                ..
            }
        ));
        assert!(matches!(
            error("aaa", &[("aa", "b")]),
            ToolError::Ambiguous { .. }
        ));
        assert!(matches!(
            error("a", &[("b", "c")]),
            ToolError::NotFound { number: 1, .. }
        ));
        assert!(matches!(error("a", &[("", "c")]), ToolError::Input(_)));
        let overlap = error("abc", &[("bc", "x"), ("ab", "y")]);
        assert!(matches!(
            overlap,
            ToolError::Overlap {
                first: 1,
                second: 2,
                ..
            }
        ));
        assert!(matches!(
            error("ﬁn", &[("in", "x")]),
            ToolError::Inside { .. }
        ));
    }

    #[test]
    fn line_ends_and_marks_are_kept() {
        let done = edited("\u{feff}a\r\nb\r\nc\r\n", &[("a\nb", "x\ny\nz")]).unwrap();
        assert_eq!(done, "\u{feff}x\r\ny\r\nz\r\nc\r\n");
        // What is not edited stays, also where the file has both.
        let done = edited("a\r\nb\nc\n", &[("b", "x\r\ny")]).unwrap();
        assert_eq!(done, "a\r\nx\ny\nc\n");
    }

    #[test]
    fn what_looks_alike_is_replaced_where_it_is_one_place() {
        let done = edited("say “hi” – now\n", &[("say \"hi\" - now", "bye")]).unwrap();
        assert_eq!(done, "bye\n");
        // Exactly there once, and once more in looks: the exact one.
        let done = edited("'a' ‘a’", &[("'a'", "b")]).unwrap();
        assert_eq!(done, "b ‘a’");
        assert!(edited("‘a’ ‘a’", &[("'a'", "b")]).is_err());
    }
}
