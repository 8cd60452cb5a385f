//! What a model is told about the tools.

use serde_json::{Value, json};

/// A tool, as a model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// What it does, and its limits.
    pub description: &'static str,
    /// The JSON Schema of its input: an object.
    pub schema: Value,
    /// It changes nothing.
    pub read_only: bool,
}

const PATH: &str = "Path in the workspace, from its root";

fn object(properties: &Value, required: &[&str]) -> Value {
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn string(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn boolean(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn number(description: &str, least: u64) -> Value {
    json!({"type": "integer", "minimum": least, "description": description})
}

fn paging() -> (Value, Value) {
    (
        number("How many are shown: 200 by default, at most 1000", 1),
        number(
            "How many are passed over: nextOffset of the answer before",
            0,
        ),
    )
}

/// All tools, in order.
pub(super) fn all() -> Vec<Spec> {
    let tool = |name, description, schema, read_only| Spec {
        name,
        description,
        schema,
        read_only,
    };
    vec![
        tool("read", READ, read(), true),
        tool("ls", LS, ls(), true),
        tool("find", FIND, find(), true),
        tool("grep", GREP, grep(), true),
        tool("write", WRITE, write(), false),
        tool("edit", EDIT, edit(), false),
        tool("delete", DELETE, delete(), false),
        tool("exec", EXEC, exec(), false),
    ]
}

const READ: &str = "Read a file: at most 2000 lines and 256 KiB of text at a time. A longer file \
    is read on with nextOffset and nextByteOffset of the answer. Images and PDF files up to \
    3.5 MiB are shown as they are.";

fn read() -> Value {
    object(
        &json!({
            "path": string(PATH),
            "offset": number("The first line, from 1", 1),
            "byteOffset": number("Where that line begins, from nextByteOffset; needs offset", 0),
            "limit": number("How many lines: at most 2000", 1),
            "lineNumbers": boolean("Show the number of each line. Default: no"),
        }),
        &["path"],
    )
}

const LS: &str = "List a directory in the order of names. A directory's name ends with /.";

fn ls() -> Value {
    let (limit, offset) = paging();
    let path = string("Path in the workspace. Default: its root");
    object(
        &json!({"path": path, "limit": limit, "offset": offset}),
        &[],
    )
}

const FIND: &str = "Find files and directories by name, below a directory. In the pattern, * and \
    ? stay within a name, ** crosses directories: **/*.rs";

fn find() -> Value {
    let (limit, offset) = paging();
    object(
        &json!({
            "path": string("The directory. Default: the root of the workspace"),
            "pattern": string("A glob for the path from that directory. Default: everything"),
            "limit": limit,
            "offset": offset,
        }),
        &[],
    )
}

const GREP: &str = "Search the lines of text files, in a directory or a file. The query is taken \
    literally, unless regex is set.";

fn grep() -> Value {
    let (limit, offset) = paging();
    object(
        &json!({
            "query": string("What to search for"),
            "path": string("A directory or a file. Default: the root of the workspace"),
            "include": string("A glob for the path from that directory, as in find"),
            "regex": boolean("The query is a regular expression"),
            "ignoreCase": boolean("Letters match in either case"),
            "context": {"type": "integer", "minimum": 0, "maximum": 10,
                "description": "Lines shown before and after. Default: 0"},
            "limit": limit,
            "offset": offset,
        }),
        &["query"],
    )
}

const WRITE: &str = "Write a whole file of at most 2 MiB; a file that is there is replaced and \
    keeps its permissions. Directories above it are made. Use edit to change a part.";

fn write() -> Value {
    let content = string("The new content");
    object(
        &json!({"path": string(PATH), "content": content}),
        &["path", "content"],
    )
}

const EDIT: &str = "Replace pieces of a text file of at most 2 MiB. Each oldText has to be in the \
    file exactly once, as it is before any of the edits, and they must not overlap. Either all \
    edits are done, or none. Line ends and permissions are kept. Answers with a patch.";

fn edit() -> Value {
    let one = object(
        &json!({
            "oldText": string("What is replaced, copied exactly from the file"),
            "newText": string("What it becomes"),
        }),
        &["oldText", "newText"],
    );
    let edits = json!({"type": "array", "minItems": 1, "maxItems": 1000, "items": one});
    object(
        &json!({"path": string(PATH), "edits": edits}),
        &["path", "edits"],
    )
}

const DELETE: &str = "Delete a file, or a directory with recursive. What is not there is fine.";

fn delete() -> Value {
    let recursive = boolean("Delete a directory with all that is in it");
    object(
        &json!({"path": string(PATH), "recursive": recursive}),
        &["path"],
    )
}

const EXEC: &str = "Run a shell command in the workspace and wait for it. At most 64 KiB of its \
    output are shown: the beginning and the end.";

fn exec() -> Value {
    object(
        &json!({
            "command": string("A script for the shell"),
            "cwd": string("The working directory. Default: the root of the workspace"),
            "backend": string("What runs it. Default: the first backend"),
            "timeoutMs": number("Milliseconds until it is ended. Default: 320000", 1),
        }),
        &["command"],
    )
}
