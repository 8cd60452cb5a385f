//! Real tools: git and npm.

use super::{Need, Scenario, Step};

/// Rounds of the large installation, which takes half a minute and more.
const LARGE_INSTALL_REPS: usize = 3;

const COMMIT: &str = r#"i=0
while [ "$i" -lt 100 ]; do
    echo "content $i" > "f$i"
    i=$((i + 1))
done
git init -q && git add . && git commit -q -m first"#;

const TINY: &str = r#"npm init -y &&
npm install "$TINY_PACKAGE" --ignore-scripts --no-audit --no-fund --prefer-offline \
    --cache "$NPM_CACHE""#;

const LARGE: &str = r#"npm ci --ignore-scripts --no-audit --no-fund --prefer-offline \
    --cache "$NPM_CACHE""#;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "git init + commit 100 files",
            Step::Nothing,
            Step::Shell(COMMIT),
        ),
        Scenario::new(
            "git clone 500 files",
            Step::Nothing,
            Step::Shell(r#"git clone -q --no-hardlinks "$REPOSITORY" clone"#),
        )
        .with(Need::Repository),
        Scenario::new(
            "git status after clone",
            Step::Shell(r#"git clone -q --no-hardlinks "$REPOSITORY" clone"#),
            Step::Shell("git -C clone status --porcelain"),
        )
        .with(Need::Repository),
        Scenario::new("npm init + tiny install", Step::Nothing, Step::Shell(TINY)).with(Need::Npm),
        Scenario::new(
            "npm ci of a large tree",
            Step::Shell(r#"cp "$NPM_PROJECT/package.json" "$NPM_PROJECT/package-lock.json" ."#),
            Step::Shell(LARGE),
        )
        .with(Need::Npm)
        .at_most(LARGE_INSTALL_REPS),
    ]
}
