//! The JSON Schema of the language, for editors: it says what the reader says about shapes, key by key.

use super::*;
use crate::definition::fields::Keys;
use crate::definition::keys;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../../../schemas/definition.schema.json")).unwrap()
}

fn errors(text: &str) -> Vec<String> {
    let validator = jsonschema::validator_for(&document()).unwrap();
    let value = yaml::parse(text).unwrap().to_json();
    validator.iter_errors(&value).map(|error| error.to_string()).collect()
}

/// Every mapping of the language, with its place in the schema (empty: the document itself).
const MAPPINGS: &[(&str, Keys)] = &[
    ("", keys::DOCUMENT),
    ("defaults", keys::DEFAULTS),
    ("default_undo", keys::DEFAULT_UNDO),
    ("compensation", keys::COMPENSATION),
    ("step", keys::STEP),
    ("compensate", keys::COMPENSATE),
    ("concurrency", keys::CONCURRENCY),
    ("rate", keys::RATE),
    ("run_concurrency", keys::RUN_CONCURRENCY),
    ("retry", keys::RETRY),
    ("parallel", keys::PARALLEL),
    ("join", keys::JOIN),
    ("body", keys::BODY),
    ("for_each", keys::FOR_EACH),
    ("case", keys::CASE),
    ("while", keys::WHILE),
    ("try", keys::TRY),
    ("catch", keys::CATCH),
    ("scope", keys::SCOPE),
    ("wait", keys::WAIT),
    ("wait_for", keys::WAIT_FOR),
    ("signal_handler", keys::SIGNAL_HANDLER),
    ("update_handler", keys::UPDATE_HANDLER),
    ("workflow", keys::WORKFLOW),
    ("emit", keys::EMIT),
    ("fail", keys::FAIL),
    ("schedule", keys::SCHEDULE),
    ("trigger", keys::TRIGGER),
    ("debounce", keys::DEBOUNCE),
    ("batch", keys::BATCH),
    ("every", keys::EVERY),
    ("dst", keys::DST),
    ("calendar", keys::CALENDAR),
];

#[test]
fn it_has_the_keys_that_are_read_and_no_others() {
    let document = document();
    for (name, keys) in MAPPINGS {
        let mapping = if name.is_empty() {
            &document
        } else {
            &document["definitions"][name]
        };
        let mut here: Vec<&str> = mapping["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut read = keys.known.to_vec();
        here.sort_unstable();
        read.sort_unstable();
        assert_eq!(here, read, "{}", keys.of);
        assert_eq!(mapping["additionalProperties"], json!(false), "{}", keys.of);
    }
    // A table that is missing above would go unnoticed.
    let tables = include_str!("../keys.rs").matches(": Keys =").count();
    let of_other_documents = [keys::SCHEDULE_DOCUMENT, keys::TRIGGER_DOCUMENT].len();
    assert_eq!(tables - of_other_documents, MAPPINGS.len());
    let definitions = document["definitions"].as_object().unwrap();
    let mappings = definitions.values().filter(|one| one.get("properties").is_some());
    assert_eq!(mappings.count() + 1, MAPPINGS.len());
}

#[test]
fn it_knows_the_kinds_and_what_stands_beside_them() {
    let document = document();
    let step = &document["definitions"]["step"];
    let kinds: Vec<&str> = step["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["required"][0].as_str())
        .collect();
    assert_eq!(kinds, keys::KINDS);
    for key in keys::STEP
        .known
        .iter()
        .filter(|key| !keys::KINDS.contains(key) && **key != "if")
    {
        let needed = if keys::BESIDE_WAIT_FOR.contains(key) {
            "wait_for"
        } else {
            "activity"
        };
        assert_eq!(step["dependencies"][key][0], json!(needed), "{key}");
        assert!(needed == "wait_for" || keys::BESIDE_ACTIVITY.contains(key), "{key}");
    }
}

/// What an editor shows for a key; a reference shows what it leads to.
fn has_description(document: &Value, schema: &Value) -> bool {
    match schema["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .is_some_and(|target| has_description(document, target)),
        None => schema["description"].as_str().is_some_and(|text| !text.is_empty()),
    }
}

#[test]
fn every_key_has_a_description() {
    let document = document();
    let definitions = document["definitions"].as_object().unwrap();
    for mapping in definitions.values().chain([&document]) {
        for (key, schema) in mapping["properties"].as_object().into_iter().flatten() {
            assert!(has_description(&document, schema), "{key}");
        }
    }
}

#[test]
fn good_definitions_fit() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workers/examples");
    let mut texts = vec![ORDER.to_owned(), super::kinds::EVERYTHING.to_owned()];
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        // A test file beside a definition is none.
        let is_test = path.to_string_lossy().ends_with(".test.yaml");
        if !is_test && path.extension().is_some_and(|extension| extension == "yaml") {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
    assert!(texts.len() > 10);
    texts.push(accept(super::kinds::EVERYTHING).canonical);
    texts.push(accept(ORDER).canonical);
    for text in texts {
        assert_eq!(errors(&text), Vec::<String>::new(), "{text}");
    }
}

/// The pages of help: what is mended fits, and what is wrong in its shape alone does not.
#[test]
fn examples_of_the_pages_fit_as_far_as_shapes_go() {
    let shapes = [
        "KN0103", "KN0104", "KN0106", "KN0109", "KN0110", "KN0111", "KN0112", "KN0152",
    ];
    for code in code::ALL {
        let examples = code::examples(code::page(code.code).unwrap());
        assert_eq!(errors(&examples[1]), Vec::<String>::new(), "{}", code.code);
        if shapes.contains(&code.code) {
            assert!(!errors(&examples[0]).is_empty(), "{}", code.code);
        }
    }
}

#[test]
fn shapes_that_are_wrong_do_not_fit() {
    let good = "{ activity: y }";
    assert_eq!(errors(&with_steps(&format!("  - b: {good}\n"))), Vec::<String>::new());
    for bad in [
        "{ actvity: y }",
        "{ input: 1 }",
        "{ activity: y, wait: 1s }",
        "{ activity: a.b }",
        "{ activity: y, start_to_close: 5 }",
        "{ activity: y, start_to_close: 5 min }",
        "{ activity: y, on_failure: ignore }",
        "{ activity: y, compensate: { input: 1 } }",
        "{ activity: y, compensate_on_failure: true }",
        "{ activity: y, retry: { maximum_attempts: 0 } }",
        "{ activity: y, heartbeat: soon }",
        "{ activity: y, cancellation: never }",
        "{ set: { v: 1 }, heartbeat: 1s }",
        "{ activity: y, on_timeout: fail }",
        "{ set: { v: 1 }, queue: q }",
        "{ set: { v-w: 1 } }",
        "{ parallel: {} }",
        "{ parallel: { branches: { l: [ { x: { wait: 1s } } ] } } }",
        "{ parallel: { branches: { l: { steps: [ { x: { wait: 1s } } ] } }, join: some } }",
        "{ for_each: { steps: [ { x: { wait: 1s } } ] } }",
        "{ for_each: { in: 5, steps: [ { x: { wait: 1s } } ] } }",
        "{ switch: [ { steps: [ { x: { wait: 1s } } ] } ] }",
        "{ switch: [] }",
        "{ while: { when: true, steps: [ { x: { wait: 1s } } ] } }",
        "{ try: { steps: [ { x: { wait: 1s } } ] } }",
        "{ try: { steps: [ { x: { wait: 1s } } ], catch: [] } }",
        "{ scope: { steps: [] } }",
        "{ wait: soon }",
        "{ wait: {} }",
        "{ wait_for: { match: true } }",
        "{ wait_for: { signal: s, timeout: 1h, on_timeout: fail } }",
        "{ workflow: other }",
        "{ workflow: { name: c, parent_close: leave } }",
        "{ emit: { body: 1 } }",
        "{ fail: late }",
        "x",
    ] {
        assert!(!errors(&with_steps(&format!("  - b: {bad}\n"))).is_empty(), "{bad}");
    }
    for bad in [
        "timeout: 1 h",
        "compensation: { order: reverse }",
        "schedule: 5",
        "schedule: { every: 1 h }",
    ] {
        assert!(
            !errors(&format!(
                "workflow: w\nversion: 1\nsteps: [ {{ a: {{ wait: 1s }} }} ]\n{bad}\n"
            ))
            .is_empty(),
            "{bad}"
        );
    }
    assert!(!errors("workflow: w\nversion: 1\n").is_empty());
    assert!(!errors("workflow: w\nversion: 0\nsteps: [ { a: { wait: 1s } } ]\n").is_empty());
}
