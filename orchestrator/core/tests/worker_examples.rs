//! The definitions under `workers/examples` are ones a newcomer starts from: nothing is to be said against them.

use std::path::Path;

use knarr_core::definition::{Checked, diagnostic, read};

/// Every example, by its name.
fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workers/examples");
    let files = std::fs::read_dir(folder).expect("the folder of examples");
    let mut examples: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| !path.to_string_lossy().ends_with(".test.yaml"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("a text"))
        })
        .collect();
    examples.sort();
    examples
}

fn check(name: &str, text: &str) -> Checked {
    let none = |name: &str| Err(format!("no file {name}"));
    match read(text, &none) {
        Ok(checked) => checked,
        Err(findings) => panic!("{}", diagnostic::render(name, text, &findings)),
    }
}

#[test]
fn the_examples_have_no_findings() {
    let examples = examples();
    assert!(examples.len() >= 10);
    for (name, text) in examples {
        let checked = check(&name, &text);
        let rendered = diagnostic::render(&name, &text, &checked.findings);
        assert!(checked.findings.is_empty(), "{rendered}");
        assert_eq!(
            checked.plan.workflow.as_str(),
            name,
            "an example is named like its workflow"
        );
    }
}

#[test]
fn the_order_saga_checks_its_input() {
    let checked = check("order", include_str!("../../../workers/examples/order.yaml"));
    let schema = checked.plan.input_schema.expect("the definition has a schema");
    let order = r#"{ "customer": "c", "items": [{ "sku": "a", "quantity": 1, "price": 2.5 }], "fail": { "reserve-inventory": "failed" } }"#;
    let validate = |text: &str| schema.validate(&serde_json::from_str(text).expect("JSON"));
    assert_eq!(validate(order), Ok(()));
    assert!(validate(&order.replace(r#""failed""#, r#""fails""#)).is_err());
    assert!(validate("{}").is_err());
}
