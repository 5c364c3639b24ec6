//! Anything that may happen to the runs of any family of definitions. Every invariant of the simulation of core is checked after
//! each input; the fuzzer looks for ways that random fates do not find.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeMap;

use knarr_core::simulation::case::Fate;
use knarr_core::simulation::{Family, Words, draw};
use libfuzzer_sys::fuzz_target;

thread_local! {
    /// To read definitions takes longer than to run them.
    static FAMILIES: RefCell<BTreeMap<u8, Family>> = RefCell::default();
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let mut words = Words::of_bytes(rest);
    if *first < 8 {
        let family = Family::of_drafts(draw::family(&mut words));
        family.run(&Fate::draw(&mut words));
    } else {
        FAMILIES.with_borrow_mut(|families| {
            let family = families.entry(*first).or_insert_with(|| Family::of_seed(u64::from(*first)));
            family.run(&Fate::draw(&mut words));
        });
    }
});
