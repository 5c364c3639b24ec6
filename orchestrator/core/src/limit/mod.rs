//! Limits over all workers and replicas: how many tasks of an activity or a queue are out at once, how many begin in a
//! stretch of time, and how many runs of a workflow are open; for all together or for each key.
//!
//! Each (namespace, limit, key) has one [`Limiter`], owned by the replica that owns the partition of its [`LimitName::address`].
//! A run that is to give out a limited task asks for a permit by a message, and its step waits in the run until the answer
//! comes, which is the grant; the permit is given back by another message (`run/permit.rs` has the run's half). So who is
//! next is decided here, in one place, and not by the order in which a queue of tasks is read.
//!
//! | who is next | |
//! |---|---|
//! | first | undos: they need the same resource, and must never wait behind what may have to be undone |
//! | then | by priority, 1 before 5; what is always overtaken by more important work waits as long as there is some |
//! | then | one of each fairness key in turn; who comes new waits for one round at most, and so does nobody longer |
//! | then | in the order of asking |
//!
//! Runs ask before they begin and keep their permit until they close (`run/admission.rs`). They may not want to wait:
//!
//! | `on_conflict`, and there is no room | then |
//! |---|---|
//! | `queue` | it waits |
//! | `reject`, `skip` | refused, and nothing is stored: a repeat is decided anew, and the run takes the first answer |
//! | `cancel_running` | it waits, and is told whom it may ask to go: the oldest that no other waits for in this way, be it one that waits as well |
//!
//! A limiter is made of rows, one an ask, that are stored with the commit that changes them and go with the permit; one more
//! row holds the pace of a rate until it has caught up. Nothing is left of a limiter that nobody needs.
//!
//! **Invariants:** never more permits are out than the limit says that whoever was granted last came with. Every ask is
//! answered once there is room, whatever is repeated or arrives late: an ask that is known is answered again if it was granted,
//! and one that was given back before it came is granted once more and given back again by the run, which knows better.
//! No clock: time is an argument, and [`Limiter::wake_at`] says when to be called without a message.

mod ask;
mod limiter;
mod name;
mod pace;
mod permit;
#[cfg(test)]
mod properties;
mod turns;

pub use ask::{Ask, Bound, MOST_IMPORTANT, OnConflict, PRIORITY, Rate};
pub use limiter::{Changes, Grant, Limiter, MAX_WAITING, Said, Setting};
pub use name::{LimitKind, LimitName};
pub use permit::{Permit, Row};
