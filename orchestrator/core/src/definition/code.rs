//! The codes of findings in definitions: one table of code, cause and remedy, and a page of help for each in `code/`.
//! Codes are stable and never used twice.

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub code: &'static str,
    /// What is wrong, in one sentence, without the particulars.
    pub cause: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $cause:literal, $remedy:literal;)*) => {
        $(pub const $name: Code = Code { code: $code, cause: $cause, remedy: $remedy };)*
        /// Every code, in order.
        pub const ALL: &[Code] = &[$($name),*];

        /// Help for one code: what it means, a definition that has it, and that definition mended. Definitions are indented
        /// by four spaces.
        pub fn page(code: &str) -> Option<&'static str> {
            match code {
                $($code => Some(include_str!(concat!("code/", $code, ".md"))),)*
                _ => None,
            }
        }
    };
}

codes! {
    SYNTAX = "KN0101", "The document is not valid YAML or JSON.", "Correct the syntax at the mark.";
    TOO_LARGE = "KN0102", "The document is too large, too deep, or expands to too much.", "Shorten it; a definition may have 256 KiB and 20,000 values after aliases.";
    SHAPE = "KN0103", "A value has the wrong type.", "Write a value of the type that is named.";
    UNKNOWN_KEY = "KN0104", "A key is not part of the language.", "Use the suggested key, or remove it.";
    MISSING_KEY = "KN0106", "A required key is missing.", "Add it.";
    DUPLICATE_STEP = "KN0107", "Two steps have the same id.", "Rename one; step ids are unique in a definition.";
    DUPLICATE_KEY = "KN0108", "A key appears twice.", "Remove one of the two.";
    BAD_NAME = "KN0109", "A name has characters that names cannot have.", "Use letters, digits, `_` (and `-` outside step ids and variables).";
    BAD_DURATION = "KN0110", "A duration cannot be read.", "Write it like 150ms, 30s, 5m, 2h, 30d, 1h30m or PT1H30M.";
    BAD_VALUE = "KN0111", "A value is outside of what is allowed.", "Use a value in the range that is named.";
    STEP_KIND = "KN0112", "A step does nothing, or two things at once.", "Give it exactly one kind: `activity`, `set`, `parallel`, `for_each`, `switch`, `while`, `try`, `scope`, `wait`, `wait_for`, `workflow`, `emit`, `fail`, `complete` or `continue_as_new`.";
    CONTRADICTION = "KN0113", "Two settings contradict each other.", "Keep one of them.";
    EXPRESSION = "KN0120", "An expression cannot be read.", "Correct it at the mark.";
    UNKNOWN_NAME = "KN0121", "An expression uses a name that is not in scope.", "Use one of the names in scope.";
    UNKNOWN_STEP = "KN0122", "An expression reads a step that does not exist.", "Use the id of a step of this definition.";
    LATER_STEP = "KN0123", "An expression reads a step that has not run at that point.", "Move the step up, or read another one.";
    SKIPPED_STEP = "KN0124", "An expression reads a step that may have no output.", "Say what to use instead: `| default(…)`.";
    OWN_OUTPUT = "KN0125", "An undo reads its own step's output, which is missing when the outcome is unknown.", "Say what to use instead: `| default(none)`.";
    NO_OUTPUT = "KN0126", "An expression reads the output of a step that never has one.", "Read `vars` instead.";
    NOT_IN_SCHEMA = "KN0127", "An expression reads a property that the JSON Schema does not have.", "Read another one, or add it to the schema.";
    OPTIONAL_INPUT = "KN0128", "An expression reads a property that may be missing by the JSON Schema.", "Say what to use instead (`| default(…)`), or require it in the schema.";
    WRONG_TYPE = "KN0129", "A value has another type by its JSON Schema than the one that is needed.", "Read another value, or correct the schema.";
    SCHEMA_FILE = "KN0130", "The JSON Schema cannot be read.", "Check the path; it is relative to the definition.";
    SCHEMA = "KN0131", "The JSON Schema is not valid.", "Correct the schema.";
    BESIDE = "KN0132", "An expression reads a step that runs beside it, in another branch.", "Read it after the `parallel`, or move the reader into the same branch.";
    IN_LOOP = "KN0133", "An expression reads a step inside a `for_each` from outside.", "Let the loop `collect` what is needed, and read the loop's output.";
    SHADOWED = "KN0134", "Two loops around a step give their items the same name.", "Name one of them with `as`.";
    NO_QUEUE = "KN0140", "An activity has no task queue.", "Set `queue` on the step or under `defaults`.";
    NO_TIMEOUT = "KN0141", "An activity has no start-to-close timeout, and `defaults` gives none.", "Set `start_to_close` on the step or under `defaults`.";
    TIMEOUT_ASSUMED = "KN0142", "An activity has no start-to-close timeout; 10 s is assumed.", "Set `start_to_close` on the step or under `defaults`.";
    HANDLED_AND_AWAITED = "KN0145", "A signal has a handler, and a step waits for it.", "Keep one of the two: the handler, or the `wait_for`.";
    ENDS_IN_HANDLER = "KN0146", "A step that ends the run stands in a handler.", "Let the main body end the run: it may wait for a signal of its own.";
    LEFT_BEHIND = "KN0150", "A step's effect stays when a later step fails.", "Give it `compensate`, or say `read_only: true` or `no_undo: <reason>`.";
    NEVER_COMPENSATES = "KN0151", "Steps of a compensable saga retry without limit, so that it may never compensate.", "Set `retry.maximum_attempts` on the steps or under `defaults`.";
    UNBOUNDED = "KN0152", "A loop has nothing that bounds it.", "Say after how many iterations it is to fail: `max_iterations`.";
    UNREACHABLE = "KN0153", "Steps are never reached.", "Remove them, or move what stands before them.";
    AFTER_PIVOT = "KN0154", "A step that can be undone may come after a pivot, past which nothing is undone.", "Move it before the pivot, or give it no `compensate`: after the pivot it is retried until it succeeds.";
    SECOND_PIVOT = "KN0155", "A pivot may come after a pivot has been passed.", "Keep the first; what comes after it is retried until it succeeds.";
    FAILS_AFTER_PIVOT = "KN0156", "A `fail` comes after the pivot, past which a run only goes forward.", "Fail before the pivot, or catch the error with `try`.";
    TIMEOUT_CUTS_PIVOT = "KN0157", "The run's timeout can end while a pivot is under way.", "Bound what comes before the pivot instead, by timeouts of steps and of `wait_for`.";
    ENDLESS_WAIT = "KN0158", "A run may wait for ever for a signal, while it holds what would be undone.", "Give the `wait_for` a `timeout`.";
    RACING = "KN0159", "Steps that run side by side set the same variable.", "Let the loop `collect` its results, use a variable for each branch, or say `max_concurrency: 1`.";
    TOO_NEW = "KN0160", "The stored definition uses a newer expression language than this version knows.", "Upgrade this replica.";
    LOSING_PIVOT = "KN0161", "A pivot stands in a branch of a `parallel` that does not wait for all.", "Put the pivot after the `parallel`, or let all branches join.";
    TIMEOUT_IDLE = "KN0163", "A timeout comes to nothing, because a shorter one ends first.", "Make it shorter than the other one, or remove it.";
    ENDLESS_CANCELLATION = "KN0164", "A step with `cancellation: wait_cancelled` may be waited for without end.", "Give it a `heartbeat` or a `schedule_to_close`, or take `try_cancel`.";
}

/// The definitions in a page, without their indentation.
#[cfg(test)]
pub(crate) fn examples(page: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        let code = line.strip_prefix("    ");
        if let Some(code) = code {
            if !open {
                blocks.push(String::new());
            }
            if let Some(block) = blocks.last_mut() {
                block.push_str(code);
                block.push('\n');
            }
        }
        open = code.is_some();
    }
    blocks
}

/// The plan of an example, also of one that is refused: a version that did not refuse it may have stored it.
#[cfg(test)]
pub(crate) fn unchecked(example: &str) -> super::plan::Plan {
    let json = super::yaml::parse(example).unwrap().to_json();
    super::from_canonical(&json.to_string()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        for pair in ALL.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} and {}", pair[0].code, pair[1].code);
        }
        assert!(
            ALL.iter()
                .all(|code| code.code.starts_with("KN01") && code.code.len() == 6)
        );
    }

    #[test]
    fn every_code_has_a_page_whose_example_has_it_and_whose_remedy_has_nothing() {
        let no_files = |path: &str| Err(format!("there is no {path}"));
        for code in ALL {
            let page = page(code.code).unwrap();
            assert!(page.lines().all(|line| line.chars().count() <= 90), "{}", code.code);
            let examples = examples(page);
            let [wrong, right] = examples.as_slice() else {
                panic!("{} has {} examples", code.code, examples.len());
            };
            let found = match crate::definition::read(wrong, &no_files) {
                Ok(checked) => checked.findings,
                Err(findings) => findings,
            };
            let rendered = crate::definition::diagnostic::render(code.code, wrong, &found);
            assert!(!found.is_empty(), "{} is not triggered by\n{wrong}", code.code);
            assert!(
                found.iter().all(|finding| finding.code == *code),
                "{}\n{rendered}",
                code.code
            );
            match crate::definition::read(right, &no_files) {
                Ok(checked) => assert_eq!(checked.findings, [], "{}", code.code),
                Err(findings) => panic!("{}", crate::definition::diagnostic::render(code.code, right, &findings)),
            }
        }
        assert_eq!(super::page("KN0000"), None);
    }
}
