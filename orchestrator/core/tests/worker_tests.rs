//! The examples do what they say: their test files pass, and nothing is found when everything that may happen is explored.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use knarr_core::definition::plan::Plan;
use knarr_core::definition::{diagnostic, read, test_file};
use knarr_core::rehearsal;
use knarr_core::verify::{Limits, Severity, verify};

#[test]
fn nothing_is_found_in_any_example() {
    let mut found = String::new();
    for (name, plan) in plans() {
        let report = verify(&plan, Limits::default()).expect("checked expressions");
        assert!(report.coverage.exhaustive, "{name}: {:?}", report.coverage);
        for finding in report.findings {
            if finding.severity != Severity::Notice {
                // Writing to a string cannot fail.
                let _ = writeln!(found, "{name}: {finding:#?}");
            }
        }
    }
    assert!(found.is_empty(), "{found}");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workers/examples")
}

fn plans() -> Vec<(String, Plan)> {
    let files = std::fs::read_dir(folder()).expect("the folder of examples");
    let mut plans: Vec<_> = files
        .filter_map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let name = name.strip_suffix(".yaml").filter(|name| !name.ends_with(".test"))?;
            let text = std::fs::read_to_string(&path).expect("a text");
            let checked = read(&text, &|_| Err("no files".to_owned())).expect("an example without errors");
            Some((name.to_owned(), checked.plan))
        })
        .collect();
    plans.sort_by(|a, b| a.0.cmp(&b.0));
    plans
}

#[test]
fn every_example_has_a_test_file_and_passes_it() {
    let mut problems = String::new();
    let mut count = 0;
    for (name, plan) in plans() {
        let test = format!("{name}.test.yaml");
        let text = std::fs::read_to_string(folder().join(&test)).expect("a test file beside the example");
        let file = match test_file::read(&text, &plan) {
            Ok(file) => file,
            Err(findings) => {
                problems.push_str(&diagnostic::render(&test, &text, &findings));
                continue;
            }
        };
        for case in &file.cases {
            count += 1;
            let report = rehearsal::play(&plan, case);
            if !report.passed {
                // Writing to a string cannot fail.
                let _ = writeln!(problems, "{test}: {}\n{:#?}", case.name, report.deviations);
                for it in &report.happened {
                    let _ = writeln!(problems, "  {:>10} {}", it.at_ms, it.what);
                }
            }
        }
    }
    assert!(problems.is_empty(), "{problems}");
    assert!(count >= 50, "{count} cases");
}
