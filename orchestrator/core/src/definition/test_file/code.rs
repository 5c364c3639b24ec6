//! The codes of findings in test files, and of cases that do not go as expected, and a page of help for each in `code/`. What
//! is wrong with their shape has the codes of definitions ([`crate::definition::code`]).

use crate::definition::code::Code;

macro_rules! codes {
    ($($name:ident = $code:literal, $cause:literal, $remedy:literal;)*) => {
        $(pub const $name: Code = Code { code: $code, cause: $cause, remedy: $remedy };)*
        /// Every code, in order.
        pub const ALL: &[Code] = &[$($name),*];

        /// Help for one code: what it means, a definition, a test of it that has the code, and that test mended. All three are
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
    use crate::definition::code::examples;
    use crate::definition::diagnostic;
    use crate::definition::plan::Plan;
    use crate::definition::test_file;
    use crate::rehearsal::play;

    /// The codes of what a test file has wrong, or of how its cases go.
    fn found(text: &str, plan: &Plan) -> Vec<&'static str> {
        match test_file::read(text, plan) {
            Ok(file) => {
                let deviations = file.cases.iter().flat_map(|case| play(plan, case).deviations);
                deviations.map(|deviation| deviation.code).collect()
            }
            Err(findings) => findings.iter().map(|finding| finding.code.code).collect(),
        }
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
            let [definition, wrong, right] = examples.as_slice() else {
                panic!("{} has {} examples", code.code, examples.len());
            };
            let plan = match crate::definition::read(definition, &no_files) {
                Ok(checked) => {
                    assert_eq!(checked.findings, [], "{}", code.code);
                    checked.plan
                }
                Err(findings) => panic!("{}", diagnostic::render(code.code, definition, &findings)),
            };
            // A case that could not be played to its end is not as expected either, and says so behind it.
            let all = found(wrong, &plan);
            assert_eq!(all.first(), Some(&code.code), "{all:?}");
            assert!(
                all.iter().all(|it| [code.code, NOT_AS_EXPECTED.code].contains(it)),
                "{}: {all:?}",
                code.code
            );
            assert!(found(right, &plan).is_empty(), "{}", code.code);
        }
        assert_eq!(super::page("KN0000"), None);
    }
}
