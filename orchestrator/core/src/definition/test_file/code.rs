//! The codes of findings in test files, and of cases that do not go as expected. What is wrong with their shape has the codes
//! of definitions ([`crate::definition::code`]).

use crate::definition::code::Code;

macro_rules! codes {
    ($($name:ident = $code:literal, $cause:literal, $remedy:literal;)*) => {
        $(pub const $name: Code = Code { code: $code, cause: $cause, remedy: $remedy };)*
        /// Every code, in order.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    UNKNOWN_TARGET = "KN0180", "A test names a step, activity, signal or child that the definition does not have.", "Use one that it has; steps are named by their path, as in `lines[0].reserve`.";
    DUPLICATE_CASE = "KN0181", "Two cases have the same name.", "Rename one.";
    OUTCOME = "KN0182", "A mock or an event says nothing, or two things at once.", "Say one of the things that are named.";
    NO_MOCK = "KN0183", "A case reached an activity or child that it has no mock for.", "Add one under `mocks` or `children`.";
    NOT_AS_EXPECTED = "KN0184", "A case did not go as its `expect` says.", "Correct the definition, or the expectation.";
    REJECTED = "KN0185", "The definition does not accept the input of a case.", "Correct the input, or expect it: `expect: { rejected: … }`.";
    ENDLESS = "KN0186", "A case does not end.", "Give the loop, or the mock that keeps it going, an end.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
