//! The test files beside the examples: the examples do what they say, and the test files show how to say it.

use std::fmt::Write as _;
use std::path::Path;

use knarr_core::definition::{diagnostic, read, test_file};
use knarr_core::rehearsal;

#[test]
fn every_example_has_a_test_file_and_passes_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workers/examples");
    let mut problems = String::new();
    let mut count = 0;
    for file in std::fs::read_dir(&folder).expect("the folder of examples") {
        let path = file.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".yaml").filter(|name| !name.ends_with(".test")) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).expect("a text");
        let plan = read(&text, &|_| Err("no files".to_owned()))
            .expect("an example without errors")
            .plan;
        let test = format!("{name}.test.yaml");
        let text = std::fs::read_to_string(folder.join(&test)).expect("a test file beside the example");
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
