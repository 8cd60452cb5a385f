//! `df`: the space of the disk under the workspace.

use super::call::{Call, Outcome};
use super::long::{Sizes, size_text};
use super::options::{self, Known};

const KNOWN: Known = Known {
    short: "ahkHPTi",
    long: &[
        ("all", 'a'),
        ("human-readable", 'h'),
        ("si", 'H'),
        ("portability", 'P'),
        ("print-type", 'T'),
        ("inodes", 'i'),
    ],
    error_code: 1,
};

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let (total, free, nodes) = match call.place.client.space() {
        Ok(space) => space,
        Err(error) => {
            call.complain_of("cannot read the space", &error).await?;
            return Ok(1);
        }
    };
    let root = call.place.root();
    let text = if given.has('i') {
        format!(
            "Filesystem  Inodes   IUsed IFree IUse% Mounted on\ncairn       {nodes:>6} {nodes:>7}     -     - {root}\n"
        )
    } else {
        let used = total.saturating_sub(free);
        let share = (u128::from(used) * 100).div_ceil(u128::from(total.max(1)));
        let sizes = match given.last_of("hH") {
            Some('h') => Some(Sizes::Human),
            Some(_) => Some(Sizes::Si),
            None => None,
        };
        let size = |bytes: u64| match sizes {
            Some(sizes) => size_text(bytes, sizes),
            None => bytes.div_ceil(1024).to_string(),
        };
        let head = if sizes.is_some() { "Size" } else { "1K-blocks" };
        let (total, used, free) = (size(total), size(used), size(free));
        format!(
            "{:<10} {head:>9} {:>9} {:>9} Use% Mounted on\n{:<10} {total:>9} {used:>9} {free:>9} {share:>3}% {root}\n",
            "Filesystem", "Used", "Available", "cairn",
        )
    };
    call.out(text.as_bytes()).await?;
    Ok(0)
}
