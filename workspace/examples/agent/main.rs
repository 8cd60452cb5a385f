//! An agent at work: a model calls tools until it is done. The model here follows a script, so it
//! needs no network; a real one gets `tools.list()` and answers with the same calls. See README.md.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use cairn::backend::Local;
use cairn::tools::Tools;
use cairn::{Workspace, block_on};
use serde_json::{Value, json};

/// What a model sees last, and what it calls next. `None` when it is done.
fn model(turn: usize, seen: &str) -> Option<(&'static str, Value)> {
    let fix = json!([{"oldText": "return a", "newText": "return a + b"}]);
    Some(match turn {
        0 => (
            "exec",
            json!({"command": "git log --oneline && python3 test_sum.py"}),
        ),
        // The test failed: look where it comes from.
        1 if seen.contains("AssertionError") => (
            "grep",
            json!({"query": "def add", "include": "*.py", "context": 2}),
        ),
        2 => ("edit", json!({"path": "/sum.py", "edits": fix})),
        3 => (
            "exec",
            json!({"command": "python3 test_sum.py && git commit -qam 'Add adds' && git status --short"}),
        ),
        _ => return None,
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    block_on(async {
        let builder = Workspace::builder().backend("local", Local::new());
        let workspace = builder.in_memory().await?;
        repository(&workspace).await?;
        let tools = Tools::new(workspace.clone());
        let (mut turn, mut seen) = (0, String::new());
        while let Some((name, input)) = model(turn, &seen) {
            println!("> {name} {input}");
            // What goes wrong is told to the model, which may know better.
            seen = match tools.call(name, input).await {
                Ok(answer) => answer.text,
                Err(error) => error.report(),
            };
            println!("{seen}");
            turn += 1;
        }
        println!("done: {}", seen.contains("[exit code 0]"));
        workspace.close().await?;
        Ok(())
    })
}

/// A small repository with a mistake in it.
async fn repository(workspace: &Workspace) -> Result<(), Box<dyn std::error::Error>> {
    let fs = workspace.fs().blocking();
    fs.write_file("/sum.py", b"def add(a, b):\n    return a\n")?;
    fs.write_file(
        "/test_sum.py",
        b"from sum import add\nassert add(2, 3) == 5\nprint('ok')\n",
    )?;
    let script = "git init -q . && git config user.name Agent && git config user.email agent@example.org \
        && printf __pycache__ > .gitignore && git add -A && git commit -qm 'Add, sort of'";
    let output = workspace.run(script).await?;
    assert!(
        output.exit.is_success(),
        "git: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
