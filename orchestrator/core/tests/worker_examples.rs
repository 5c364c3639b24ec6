//! The definitions under `workers/examples` are ones a newcomer starts from: nothing is to be said against them.

use knarr_core::definition::{diagnostic, read};

#[test]
fn the_order_saga_has_no_findings() {
    let text = include_str!("../../../workers/examples/order.yaml");
    let none = |name: &str| Err(format!("no file {name}"));
    let checked = match read(text, &none) {
        Ok(checked) => checked,
        Err(findings) => panic!("{}", diagnostic::render("order.yaml", text, &findings)),
    };
    assert!(
        checked.findings.is_empty(),
        "{}",
        diagnostic::render("order.yaml", text, &checked.findings)
    );
    let schema = checked.plan.input_schema.expect("the definition has a schema");
    let order = r#"{ "customer": "c", "items": [{ "sku": "a", "quantity": 1, "price": 2.5 }], "fail": { "reserve-inventory": "failed" } }"#;
    let validate = |text: &str| schema.validate(&serde_json::from_str(text).expect("JSON"));
    assert_eq!(validate(order), Ok(()));
    assert!(validate(&order.replace(r#""failed""#, r#""fails""#)).is_err());
    assert!(validate("{}").is_err());
}
