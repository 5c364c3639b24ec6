//! Plans and runs in a few words, for tests. Every transition is checked against the invariants that need no scenario.

mod def;
mod drive;
mod plan;

pub(crate) use self::def::*;
pub(crate) use self::drive::*;
pub(crate) use self::plan::*;
