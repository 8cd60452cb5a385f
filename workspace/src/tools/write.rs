//! `write` and `delete`.

use cairn_engine::{FsError, NodeKind};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Files, Result, ToolError, path};

/// Most bytes of a file that is written or edited.
pub(super) const CONTENT_MAX: usize = 2 << 20;

pub(super) fn check_size(what: &str, bytes: u64) -> Result<()> {
    let most = CONTENT_MAX as u64;
    if bytes > most {
        let what = what.into();
        return Err(ToolError::TooLarge { what, bytes, most });
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WriteInput {
    path: String,
    content: String,
}

pub(super) fn write(files: &Files, input: &WriteInput) -> Result<Answer> {
    let path = path(&input.path)?;
    check_size(&path, input.content.len() as u64)?;
    let _held = files.locks.lock(&path, false);
    if let Some((above, _)) = path.rsplit_once('/') {
        files.replica.mkdir_all(above_or_root(above))?;
    }
    let created = !files.replica.exists(&path)?;
    files.replica.write_file(&path, input.content.as_bytes())?;
    let bytes = input.content.len();
    let did = if created { "created" } else { "replaced" };
    let value = json!({"path": path, "bytes": bytes, "created": created});
    Ok(Answer::new(format!("{did} {path}: {bytes} bytes"), value))
}

fn above_or_root(above: &str) -> &str {
    if above.is_empty() { "/" } else { above }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeleteInput {
    path: String,
    #[serde(default)]
    recursive: bool,
}

pub(super) fn delete(files: &Files, input: &DeleteInput) -> Result<Answer> {
    let path = path(&input.path)?;
    let _held = files.locks.lock(&path, input.recursive);
    let deleted = match files.replica.lstat(&path) {
        Ok(attr) if attr.kind == NodeKind::Dir && input.recursive => {
            files.replica.remove_all(&path)
        }
        Ok(_) => files.replica.remove(&path),
        Err(error) => Err(error),
    };
    let deleted = match deleted {
        Ok(()) => true,
        Err(FsError::NotFound(_) | FsError::NotDir(_)) => false,
        Err(FsError::NotEmpty(_)) => {
            let why = "is a directory with something in it; set recursive to delete it all";
            return Err(ToolError::Input(format!("{path} {why}")));
        }
        Err(error) => return Err(error.into()),
    };
    let text = if deleted {
        format!("deleted {path}")
    } else {
        format!("{path} was not there")
    };
    Ok(Answer::new(text, json!({"path": path, "deleted": deleted})))
}
