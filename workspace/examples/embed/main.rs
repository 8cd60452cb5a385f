//! A workspace as a filesystem inside of a program: no mount, no server. See README.md.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use cairn::{GrepOptions, Workspace};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `Workspace::create("demo.cairn")` for one that stays.
    let workspace = Workspace::in_memory().await?;
    let fs = workspace.fs();

    fs.mkdir_all("/notes").await?;
    fs.write_file("/notes/today", "buy milk\nTODO: call Ann\n")
        .await?;
    fs.append_file("/notes/today", "TODO: water the plants\n")
        .await?;

    // A write that fails if somebody else was faster.
    let version = fs.version("/notes/today").await?;
    let text = String::from_utf8(fs.read_file("/notes/today").await?)?;
    fs.write_if("/notes/today", version, text.replace("milk", "bread"))
        .await?;

    // What blocks, and what has no async form, is the same replica.
    let todos = fs.run(|replica| {
        replica.copy_file("/notes/today", "/notes/copy")?;
        let mut todos = Vec::new();
        replica.grep("/notes", "TODO", &GrepOptions::default(), |line| {
            todos.push(line);
            true
        })?;
        Ok(todos)
    });
    for line in todos.await? {
        let (path, text) = (
            String::from_utf8_lossy(&line.path),
            String::from_utf8_lossy(&line.text),
        );
        println!("{path}:{}: {text}", line.number);
    }
    workspace.close().await?;
    Ok(())
}
