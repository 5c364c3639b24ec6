//! What is said to do about mistakes that many make.

use super::*;
use crate::expression::{FILTERS, FUNCTIONS, TESTS};

fn helps(text: &str) -> Vec<String> {
    let found = read(text, &|_| Err("no files".to_owned())).unwrap_err();
    found.into_iter().map(|finding| finding.help).collect()
}

#[test]
fn what_yaml_reads_otherwise_is_spelt_out() {
    let text = "workflow: w\nversion: \"1\"\ndefaults: { queue: q, start_to_close: 5s }\n\
                steps: [ { a: { activity: a, read_only: yes } } ]\n";
    assert_eq!(
        helps(text),
        [
            "Write `1`, without quotes.",
            "Write `true`, without quotes; `yes`, `on`, `no` and `off` are texts."
        ]
    );
}

#[test]
fn an_operator_of_another_language_is_translated() {
    let text = "workflow: w\nversion: 1\ndefaults: { queue: q, start_to_close: 5s }\n\
                steps: [ { a: { activity: a, read_only: true, if: input.a && input.b, input: \"${ length(input.c) }\" } } ]\n";
    let found = read(text, &|_| Err("no files".to_owned())).unwrap_err();
    let told: Vec<_> = found
        .iter()
        .map(|it| (&text[it.span.clone()], it.help.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("&&", "write `and`"),
            ("length", "`length` is a filter: `value | length`")
        ]
    );
}

#[test]
fn the_page_of_unknown_names_lists_those_that_there_are() {
    let page = code::page("KN0121").unwrap();
    for name in [FILTERS, TESTS, FUNCTIONS].into_iter().flatten() {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn a_misspelt_activity_hides_nothing_else_that_is_misspelt() {
    let text = "workflow: w\nversion: 1\ndefaults: { queue: q, start_to_close: 5s }\n\
                steps:\n  - a: { activty: a, retry: { maximum_atempts: 1 }, compensate: { activty: b, inptu: 1 } }\n";
    let found = read(text, &|_| Err("no files".to_owned())).unwrap_err();
    let unknown = found.iter().filter(|finding| finding.code == code::UNKNOWN_KEY);
    let mut unknown: Vec<_> = unknown.map(|finding| &text[finding.span.clone()]).collect();
    unknown.sort_unstable();
    assert_eq!(unknown, ["activty", "activty", "inptu", "maximum_atempts"]);
}
