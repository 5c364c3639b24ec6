//! The file beside a definition that says how it is to behave: cases with mocked activities, and what is expected of them.
//!
//! Read as strictly as a definition, with the same findings: a mock or an expectation for something that the definition does
//! not have is an error, so that a case cannot pass because of a typing mistake. What plays a case is
//! [`crate::rehearsal`].

pub mod code;
mod expect;
mod keys;
mod mock;
mod model;
mod names;
mod read;

pub use model::{
    Case, ChildMock, ChildOutcome, Expectation, Expected, ExpectedEvent, External, ExternalKind, Mock, Outcome,
    TestFile, Took,
};
pub(crate) use names::{path, plain};
pub use read::{definition_of, read};

#[cfg(test)]
mod tests;
