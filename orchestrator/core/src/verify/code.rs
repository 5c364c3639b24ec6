//! The codes of what an exploration finds, and a page of help for each in `code/`.

use crate::definition::code::Code;

macro_rules! codes {
    ($($name:ident = $code:literal, $cause:literal, $remedy:literal;)*) => {
        $(pub const $name: Code = Code { code: $code, cause: $cause, remedy: $remedy };)*
        /// Every code, in order.
        pub const ALL: &[Code] = &[$($name),*];

        /// Help for one code: what it means, a definition in which it is found, and that definition mended. Definitions are
        /// indented by four spaces.
        pub fn page(code: &str) -> Option<&'static str> {
            match code {
                $($code => Some(include_str!(concat!("code/", $code, ".md"))),)*
                _ => None,
            }
        }
    };
}

codes! {
    UNDO_MISSES_DATA = "KN0170", "An undo reads something that is not there when it is needed, so that it waits for an operator.", "Say what to use instead (`| default(none)`), or read the input or an earlier step.";
    LEFT_UNDONE = "KN0171", "A run ends undone, and something that it did stays.", "Give the step `compensate`, or say `read_only: true` or `no_undo: <reason>`.";
    MAYBE_DONE = "KN0172", "A run completes although a step may have been done whose outcome was unknown, and nothing undoes it.", "Put the step into a `scope`, which undoes what it may have done before it goes on with `otherwise`; or give it `no_undo: <reason>`.";
    STUCK = "KN0173", "A run stands still: nothing can happen to it any more.", "This is a fault of Knarr; please report it, with the definition.";
    WAITS_FOR_EVER = "KN0174", "A run may wait for ever for a signal, while it holds what would be undone.", "Give the `wait_for` a `timeout`.";
    NO_END = "KN0175", "A run can come to a state from which no end can be reached.", "Give the loop, or the retries, an end.";
    STEP_MISSES_DATA = "KN0176", "A step reads something that is not there on some way, and fails.", "Say what to use instead: `| default(…)`.";
    PARKED = "KN0177", "A run waits for an operator, though every worker did what it could.", "See what it waits for.";
    STAYS_AS_DECLARED = "KN0178", "What a step did stays when the run is undone, as the definition says.", "Nothing is to be done; it is told so that it is known.";
    NEVER_COMPLETES = "KN0179", "No run of the definition can complete.", "Give the loop a condition that its steps can make false, or the steps another way to the end.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::code::{examples, unchecked};
    use crate::definition::plan::Plan;
    use crate::definition::{diagnostic, read};
    use crate::verify::{Finding, Limits, verify};

    /// They tell of faults of the core, and no definition is known that leads to one.
    const WITHOUT_EXAMPLE: [Code; 2] = [STUCK, NO_END];

    fn explore(plan: &Plan) -> Vec<Finding> {
        let report = verify(plan, Limits::default()).unwrap();
        let coverage = report.coverage;
        assert!(coverage.exhaustive && coverage.bound.faults.is_none(), "{coverage:?}");
        report.findings
    }

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn every_code_has_a_page_whose_example_has_it_and_whose_remedy_has_nothing() {
        let no_files = |path: &str| Err(format!("there is no {path}"));
        for code in ALL {
            let page = page(code.code).unwrap();
            assert!(page.lines().all(|line| line.chars().count() <= 90), "{}", code.code);
            let examples = examples(page);
            if WITHOUT_EXAMPLE.contains(code) {
                assert!(examples.is_empty(), "{}", code.code);
                continue;
            }
            let [wrong, right] = examples.as_slice() else {
                panic!("{} has {} examples", code.code, examples.len());
            };
            let found = match read(wrong, &no_files) {
                Ok(checked) => explore(&checked.plan),
                Err(_) => explore(&unchecked(wrong)),
            };
            assert!(!found.is_empty(), "{} is not found in\n{wrong}", code.code);
            assert!(
                found.iter().all(|finding| finding.code == code.code),
                "{}\n{found:#?}",
                code.code
            );
            match read(right, &no_files) {
                Ok(checked) => {
                    assert_eq!(checked.findings, [], "{}", code.code);
                    assert_eq!(explore(&checked.plan), [], "{}", code.code);
                }
                Err(findings) => panic!("{}", diagnostic::render(code.code, right, &findings)),
            }
        }
        assert_eq!(super::page("KN0000"), None);
    }
}
