//! The shortest way from one list to another: what `diff` shows.
//!
//! The algorithm is Myers' "An O(ND) Difference Algorithm" in its form for
//! linear space, after what is equal at both ends is set aside. Lists that
//! differ too much for it are compared in a coarser way: see [`COST_MAX`].

/// A run of the first list that becomes a run of the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) old: std::ops::Range<usize>,
    pub(crate) new: std::ops::Range<usize>,
}

/// Differences that are followed in one search. Beyond it the rest is one edit:
/// the result is right, and longer than it has to be.
const COST_MAX: usize = 4_000;

/// The edits from one list to the other, in order.
pub(crate) fn edits(old: &[u32], new: &[u32]) -> Vec<Edit> {
    let mut found = Vec::new();
    compare(old, new, 0, 0, &mut found);
    join(found)
}

fn compare(old: &[u32], new: &[u32], at_old: usize, at_new: usize, found: &mut Vec<Edit>) {
    let same = |(a, b): &(&u32, &u32)| a == b;
    let begin = old.iter().zip(new).take_while(same).count();
    let (old, new) = (&old[begin..], &new[begin..]);
    let (at_old, at_new) = (at_old + begin, at_new + begin);
    let end = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(same)
        .count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    let whole = Edit {
        old: at_old..at_old + old.len(),
        new: at_new..at_new + new.len(),
    };
    if old.is_empty() && new.is_empty() {
        return;
    }
    if old.is_empty() || new.is_empty() {
        found.push(whole);
        return;
    }
    match middle(old, new) {
        Some((x, y)) if (x, y) != (0, 0) && (x, y) != (old.len(), new.len()) => {
            compare(&old[..x], &new[..y], at_old, at_new, found);
            compare(&old[x..], &new[y..], at_old + x, at_new + y, found);
        }
        _ => found.push(whole),
    }
}

/// A point on a shortest way, about half way. `None` if it is too far.
fn middle(old: &[u32], new: &[u32]) -> Option<(usize, usize)> {
    let (n, m) = (old.len().cast_signed(), new.len().cast_signed());
    let delta = n - m;
    let most = (old.len() + new.len())
        .div_ceil(2)
        .min(COST_MAX)
        .cast_signed();
    let index = |k: isize| (k + most + 1).cast_unsigned();
    let size = index(most + 1) + 1;
    let (mut forward, mut backward) = (vec![0_isize; size], vec![0_isize; size]);
    for d in 0..=most {
        for k in (-d..=d).step_by(2) {
            let mut x = furthest(&forward, k, d, index);
            while x < n
                && x - k < m
                && x - k >= 0
                && old[x.cast_unsigned()] == new[(x - k).cast_unsigned()]
            {
                x += 1;
            }
            forward[index(k)] = x;
            let mirrored = delta - k;
            if delta % 2 != 0 && mirrored.abs() < d && x + backward[index(mirrored)] >= n {
                return point(x, x - k, n, m);
            }
        }
        for k in (-d..=d).step_by(2) {
            let mut x = furthest(&backward, k, d, index);
            while x < n
                && x - k < m
                && x - k >= 0
                && old[(n - x - 1).cast_unsigned()] == new[(m - (x - k) - 1).cast_unsigned()]
            {
                x += 1;
            }
            backward[index(k)] = x;
            let mirrored = delta - k;
            if delta % 2 == 0 && mirrored.abs() <= d && x + forward[index(mirrored)] >= n {
                return point(n - x, m - (x - k), n, m);
            }
        }
    }
    None
}

fn furthest(reached: &[isize], k: isize, d: isize, index: impl Fn(isize) -> usize) -> isize {
    let down = reached[index(k + 1)];
    let right = reached[index(k - 1)] + 1;
    if k == -d || (k != d && right <= down) {
        down
    } else {
        right
    }
}

fn point(x: isize, y: isize, n: isize, m: isize) -> Option<(usize, usize)> {
    let inside = (0..=n).contains(&x) && (0..=m).contains(&y);
    inside.then(|| (x.cast_unsigned(), y.cast_unsigned()))
}

/// Edits that touch become one.
fn join(found: Vec<Edit>) -> Vec<Edit> {
    let mut joined: Vec<Edit> = Vec::new();
    for edit in found {
        match joined.last_mut() {
            Some(last) if last.old.end == edit.old.start && last.new.end == edit.new.start => {
                last.old.end = edit.old.end;
                last.new.end = edit.new.end;
            }
            _ => joined.push(edit),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of the first list by the edits.
    fn apply(old: &[u32], new: &[u32], edits: &[Edit]) -> Vec<u32> {
        let (mut made, mut at) = (Vec::new(), 0);
        for edit in edits {
            made.extend_from_slice(&old[at..edit.old.start]);
            made.extend_from_slice(&new[edit.new.clone()]);
            at = edit.old.end;
        }
        made.extend_from_slice(&old[at..]);
        made
    }

    fn changed(edits: &[Edit]) -> usize {
        edits
            .iter()
            .map(|edit| edit.old.len() + edit.new.len())
            .sum()
    }

    #[test]
    fn the_example_of_the_paper_takes_five_changes() {
        let (old, new) = ([1, 2, 3, 1, 2, 2, 1], [3, 2, 1, 2, 1, 3]);
        let edits = edits(&old, &new);
        assert_eq!(apply(&old, &new, &edits), new);
        assert_eq!(changed(&edits), 5);
    }

    #[test]
    fn edits_lead_from_one_to_the_other() {
        let mut state = 7_u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        for _ in 0..500 {
            let (a, b) = (next(20), next(20));
            let old: Vec<u32> = (0..a).map(|_| next(4)).collect();
            let new: Vec<u32> = (0..b).map(|_| next(4)).collect();
            assert_eq!(
                apply(&old, &new, &edits(&old, &new)),
                new,
                "{old:?} {new:?}"
            );
        }
    }

    #[test]
    fn lists_with_nothing_in_common_are_one_edit_in_bounded_time() {
        let old: Vec<u32> = (0..20_000).collect();
        let new: Vec<u32> = (20_000..40_000).collect();
        assert_eq!(edits(&old, &new).len(), 1);
        assert_eq!(edits(&[], &[]), []);
    }
}
