//! Makes a failing case smaller: fewer things that happen, fewer steps that they happen to.

use std::time::{Duration, Instant};

use super::case::{Family, Fate};
use super::draft::Draft;

/// The smallest that `fails`, as far as `time` goes.
pub fn shrink(family: &Family, fate: &Fate, time: Duration, fails: &dyn Fn(&Family, &Fate) -> bool) -> (Family, Fate) {
    let deadline = Instant::now() + time;
    let mut drafts = family.drafts.clone();
    let mut fate = fate.clone();
    loop {
        let before = (drafts.clone(), fate.clone());
        let family = Family::of_drafts(drafts.clone());
        fewer_ops(&family, &mut fate, deadline, fails);
        fewer_steps(&mut drafts, &fate, deadline, fails);
        if before == (drafts.clone(), fate.clone()) || Instant::now() > deadline {
            return (Family::of_drafts(drafts), fate);
        }
    }
}

/// Halves, quarters, and so on down to one thing at a time.
fn fewer_ops(family: &Family, fate: &mut Fate, deadline: Instant, fails: &dyn Fn(&Family, &Fate) -> bool) {
    let mut size = fate.ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < fate.ops.len() {
            if Instant::now() > deadline {
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

fn fewer_steps(drafts: &mut Vec<Draft>, fate: &Fate, deadline: Instant, fails: &dyn Fn(&Family, &Fate) -> bool) {
    while drafts.len() > 1 && fails(&Family::of_drafts(drafts[..drafts.len() - 1].to_vec()), fate) {
        drafts.pop();
    }
    'again: loop {
        for at in 0..drafts.len() {
            for smaller in drafts[at].smaller() {
                if Instant::now() > deadline {
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
