//! Histories that earlier versions recorded, through today's core: each folds, and today decides what was decided then.
//!
//! `golden/v2` was recorded from the test files of the examples, by the version that first knew every kind of step. A
//! directory is never changed; what a later version decides otherwise on purpose gets a new one, and is named here.

use std::path::{Path, PathBuf};

use knarr_core::definition::{from_canonical, read, test_file};
use knarr_core::{rehearsal, replay};
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2")
}

#[test]
fn today_decides_what_was_decided_then() {
    let mut count = 0;
    let mut folded_only = 0;
    for file in std::fs::read_dir(golden()).expect("the folder of golden histories") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        let recorded: Value = serde_json::from_str(&text).expect("JSON");
        let canonical = recorded["definition"].to_string();
        let plan = from_canonical(&canonical).expect("a definition that still reads");
        for case in recorded["cases"].as_array().expect("cases") {
            let history = replay::read(&case["history"].to_string()).expect("a history");
            let report = replay::replay(&history, Some(&plan)).expect("a whole history");
            assert!(report.is_good(), "{}, {}: {report:#?}", path.display(), case["name"]);
            assert_eq!(report.definition, replay::Definition::Same, "{}", path.display());
            folded_only += report.folded_only;
            count += 1;
        }
    }
    assert!(count >= 50, "{count} histories");
    assert_eq!(folded_only, 0, "every input of these is told by its events");
}

/// Writes the directory anew, as of today.
#[test]
#[ignore = "golden files are recorded once, by the version they are of"]
fn record() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workers/examples");
    for file in std::fs::read_dir(&examples).expect("the folder of examples") {
        let path = file.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".test.yaml") else {
            continue;
        };
        let text = std::fs::read_to_string(examples.join(format!("{name}.yaml"))).expect("a definition");
        let checked = read(&text, &|_| Err("no files".to_owned())).expect("an example without errors");
        let text = std::fs::read_to_string(&path).expect("a text");
        let file = test_file::read(&text, &checked.plan).expect("a test file without errors");
        let cases = file.cases.iter().filter_map(|case| {
            let history = rehearsal::history(&checked.plan, case);
            let transitions = history.iter().map(|it| {
                let at = it.at.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
                json!({"seq": it.seq, "at": at, "events": it.events})
            });
            let transitions: Vec<_> = transitions.collect();
            (!transitions.is_empty()).then(|| json!({"name": case.name, "history": transitions}))
        });
        let definition: Value = serde_json::from_str(&checked.canonical).expect("canonical JSON");
        let recorded = json!({"definition": definition, "cases": cases.collect::<Vec<_>>()});
        let text = serde_json::to_string(&recorded).expect("JSON");
        std::fs::write(golden().join(format!("{name}.json")), text + "\n").expect("a golden file");
    }
}
