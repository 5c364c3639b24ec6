//! The engine over the memory store and the memory bus, in stopped time.
//!
//! Every replica reaches both by a [`line`] that delays, loses and cuts; [`world`] plays workers and services and says what
//! must hold in the end. A seed fixes the faults; run ids and the order of hash maps are not under it, so a seed that fails
//! may need a few repeats. `KNARR_SIM_SEEDS=N` runs N seeds of the random scenario instead of a few, and
//! `KNARR_SIM_SEED=S` that one alone.

mod line;
mod scenarios;
mod world;
