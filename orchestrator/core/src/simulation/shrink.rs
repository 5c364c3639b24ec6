//! Makes a failing case smaller: fewer things that happen, fewer steps that they happen to.

use super::case::{Family, Fate, Parts};
use super::draft::Draft;

/// The smallest that `fails`, as long as it `goes_on`.
pub fn shrink(
    family: &Family,
    fate: &Fate,
    mut goes_on: impl FnMut() -> bool,
    fails: &dyn Fn(&Family, &Fate) -> bool,
) -> (Family, Fate) {
    let mut drafts = family.drafts.clone();
    let mut fate = fate.clone();
    loop {
        let before = (drafts.clone(), fate.clone());
        let family = Family::of_drafts(drafts.clone());
        fewer_parts(&family, &mut fate, fails);
        fewer_ops(&family, &mut fate, &mut goes_on, fails);
        fewer_steps(&mut drafts, &fate, &mut goes_on, fails);
        if before == (drafts.clone(), fate.clone()) || !goes_on() {
            return (Family::of_drafts(drafts), fate);
        }
    }
}

/// Without what takes no part in it.
fn fewer_parts(family: &Family, fate: &mut Fate, fails: &dyn Fn(&Family, &Fate) -> bool) {
    for part in 0..Parts::ALL.len() {
        let parts = fate.parts.without(part);
        let smaller = Fate { parts, ..fate.clone() };
        if parts != fate.parts && fails(family, &smaller) {
            *fate = smaller;
        }
    }
}

/// Halves, quarters, and so on down to one thing at a time.
fn fewer_ops(
    family: &Family,
    fate: &mut Fate,
    goes_on: &mut dyn FnMut() -> bool,
    fails: &dyn Fn(&Family, &Fate) -> bool,
) {
    let mut size = fate.ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < fate.ops.len() {
            if !goes_on() {
                return;
            }
            let mut smaller = fate.clone();
            smaller.ops.drain(at..(at + size).min(smaller.ops.len()));
            if fails(family, &smaller) {
                *fate = smaller;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
}

fn fewer_steps(
    drafts: &mut Vec<Draft>,
    fate: &Fate,
    goes_on: &mut dyn FnMut() -> bool,
    fails: &dyn Fn(&Family, &Fate) -> bool,
) {
    while drafts.len() > 1 && fails(&Family::of_drafts(drafts[..drafts.len() - 1].to_vec()), fate) {
        drafts.pop();
    }
    'again: loop {
        for at in 0..drafts.len() {
            for smaller in drafts[at].smaller() {
                if !goes_on() {
                    return;
                }
                let mut candidate = drafts.clone();
                candidate[at] = smaller;
                let family = Family::of_drafts(candidate.clone());
                if family.drafts == candidate && fails(&family, fate) {
                    *drafts = candidate;
                    continue 'again;
                }
            }
        }
        return;
    }
}
