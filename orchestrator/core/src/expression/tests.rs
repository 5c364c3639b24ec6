use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Data {
    input: Option<Arc<Value>>,
    steps: BTreeMap<String, Arc<Value>>,
    vars: Value,
}

impl Scope for Data {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        match name {
            "vars" => Some(Cow::Borrowed(&self.vars)),
            "run" => Some(Cow::Owned(json!({"id": "r1"}))),
            _ => None,
        }
    }

    fn step(&self, id: &str) -> Option<&Arc<Value>> {
        self.steps.get(id)
    }

    fn input(&self) -> Option<&Arc<Value>> {
        self.input.as_ref()
    }
}

fn data() -> Data {
    Data {
        input: Some(Arc::new(json!({
            "amount": 12, "name": "Ada", "flag": false, "nothing": null, "big": u64::MAX, "odd key": 1,
            "items": [{"sku": "a", "price": 1.5, "n": 2}, {"sku": "b", "price": 2, "n": 3}],
            "deep": {"a": {"b": [10, 20]}}
        }))),
        steps: BTreeMap::from([("pay".to_owned(), Arc::new(json!({"id": "p1", "total": 30})))]),
        vars: json!({"k": [1, 2]}),
    }
}

fn eval(source: &str) -> Result<Value, String> {
    let expression = Expression::compile(source).map_err(|error| format!("compile: {}", error.message))?;
    expression
        .evaluate(&data())
        .map(|value| value.as_ref().clone())
        .map_err(|error| error.message)
}

fn fill(structure: Value) -> Result<Value, String> {
    Template::compile(&structure)
        .and_then(|template| template.evaluate(&data()))
        .map(|value| value.as_ref().clone())
        .map_err(|error| error.message)
}

#[test]
fn values() {
    for (source, value) in [
        ("input.amount", json!(12)),
        ("input.deep.a.b[1]", json!(20)),
        ("input.deep.a.b.1", json!(20)),
        ("input['odd key']", json!(1)),
        ("input.nothing", Value::Null),
        ("input.big", json!(u64::MAX)),
        ("input.big + 0", json!(u64::MAX)),
        ("vars.k[0]", json!(1)),
        ("run.id", json!("r1")),
        ("steps.pay.total", json!(30)),
        ("input.amount + steps.pay.total", json!(42)),
        ("input.items[0].price * 2", json!(3.0)),
        ("input.items | length", json!(2)),
        ("input.items | map(attribute='sku') | list", json!(["a", "b"])),
        ("input.items | sum_by('price')", json!(3.5)),
        ("input.items | sum_by('n')", json!(5)),
        (
            "{'a': 1, 'b': 1} | merge({'b': 2, 'c': 3})",
            json!({"a": 1, "b": 2, "c": 3}),
        ),
        ("'1h30m' | parse_duration", json!(5400)),
        ("'150ms' | parse_duration", json!(0.15)),
        (
            "{'id': steps.pay.id, 'n': [1, input.amount]}",
            json!({"id": "p1", "n": [1, 12]}),
        ),
        ("input.name ~ '!'", json!("Ada!")),
        ("none", Value::Null),
        ("input.amount > 10 and not input.flag", json!(true)),
        ("input.missing | default(none)", Value::Null),
        ("input.missing.deeper.still | default(7)", json!(7)),
        ("input.amount.x | default('scalar')", json!("scalar")),
        ("steps.gone.id | default(none)", Value::Null),
        ("(steps.gone.id | default('x')) ~ '1'", json!("x1")),
        ("steps.gone | default({'id': 3})", json!({"id": 3})),
        ("steps.gone.id is defined", json!(false)),
        ("steps.gone.id if steps.gone is defined else 'none'", json!("none")),
        ("input.missing if input.amount > 100 else 1", json!(1)),
        ("range(3) | list", json!([0, 1, 2])),
        ("input.items[input.amount - 11].sku", json!("b")),
        ("input['na' ~ 'me']", json!("Ada")),
    ] {
        assert_eq!(eval(source), Ok(value), "{source}");
    }
}

#[test]
fn what_leads_nowhere_is_an_error() {
    for source in [
        "input.amout",
        "input.amout == 3",
        "input.amout + 1",
        "not input.amout",
        "[input.amout]",
        "input.deep.x.y",
        "input.items[9]",
        "input.items[9].sku ~ ''",
        "steps.gone.id",
        "steps.gone.id == none",
        "nowhere",
        "{'a': input.missing}",
        "input.items | map(attribute='nope') | list",
        "1 if false",
        "1 / 0",
        "10 ** 400",
        "1e308 * 10",
        "'a\\u0000b' ~ ''",
        "{1: 2}",
        "input.flag.x(1)",
        "input | nofilter",
        "input.name is nicer",
        "now()",
        "debug()",
        "namespace()",
        "",
        "1 +",
        "input..a",
        "}",
    ] {
        assert!(eval(source).is_err(), "{source} gave {:?}", eval(source));
    }
    assert_eq!(
        eval("input.amout == 3"),
        Err("`input.amout` leads to nothing".to_owned())
    );
    assert_eq!(eval("input.amout"), Err("`input.amout` leads to nothing".to_owned()));
}

#[test]
fn names_are_checked_when_compiled() {
    let error = Expression::compile("1 + (input.a | lenght)").unwrap_err();
    assert_eq!(error.message, "there is no filter `lenght`");
    assert_eq!(error.suggestion, Some("length"));
    assert!(error.range.is_some());
    let error = Expression::compile("input.a +").unwrap_err();
    assert!(error.range.is_some(), "{error:?}");
    for (names, make) in [(FILTERS, "1 | {}" as &str), (TESTS, "1 is {}"), (FUNCTIONS, "{}()")] {
        for name in names {
            let source = make.replace("{}", name);
            let unknown = match Expression::compile(&source) {
                Ok(expression) => match expression.evaluate(&data()) {
                    Ok(_) => continue,
                    Err(error) => error.message,
                },
                Err(error) => error.message,
            };
            assert!(
                !unknown.contains("unknown") && !unknown.contains("there is no"),
                "{name}: {unknown}"
            );
        }
    }
}

#[test]
fn references_and_their_guards() {
    let expression =
        Expression::compile("steps.pay.items[0].id ~ (input.a.b | default('')) ~ vars[input.k] ~ (run is defined)")
            .unwrap();
    let seen: Vec<_> = expression
        .references()
        .iter()
        .map(|reference| {
            (
                reference.path.to_string(),
                reference.guarded,
                &expression.source()[reference.range.clone()],
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("steps.pay.items[0].id".to_owned(), false, "steps.pay.items[0].id"),
            ("input.a.b".to_owned(), true, "input.a.b"),
            ("vars".to_owned(), false, "vars[input.k]"),
            ("input.k".to_owned(), false, "input.k"),
            ("run".to_owned(), true, "run"),
        ]
    );
    assert_eq!(expression.references()[0].path.step(), Some("pay"));
}

#[test]
fn templates() {
    for (structure, value) in [
        (json!("plain"), json!("plain")),
        (json!({"n": 1, "a": [true, null]}), json!({"n": 1, "a": [true, null]})),
        (json!("${ input.amount }"), json!(12)),
        (json!("${input.amount}"), json!(12)),
        (
            json!("order ${ input.amount } of ${ input.name }"),
            json!("order 12 of Ada"),
        ),
        (json!("$${ input.amount }"), json!("${ input.amount }")),
        (json!("costs $5 and $${x} ${ 1 + 1 }$"), json!("costs $5 and ${x} 2$")),
        (json!("${ {'a': {'b': '}'}} }"), json!({"a": {"b": "}"}})),
        (json!("${ '\\'}' }"), json!("'}")),
        (
            json!({"z": "${ input.items }", "a": ["x", "${ steps.gone.id | default(none) }"]}),
            json!({"z": data().input.unwrap()["items"], "a": ["x", null]}),
        ),
    ] {
        assert_eq!(fill(structure.clone()), Ok(value), "{structure}");
    }
    for structure in [
        json!("${ input.amount"),
        json!("${ }"),
        json!(["${ 1 + }"]),
        json!("a ${ input.nothing }"),
    ] {
        assert!(fill(structure.clone()).is_err(), "{structure}");
    }
}

#[test]
fn whole_values_are_shared() {
    let data = data();
    let template = Template::compile(&json!("${ input }")).unwrap();
    assert!(Arc::ptr_eq(
        &template.evaluate(&data).unwrap(),
        data.input.as_ref().unwrap()
    ));
    let template = Template::compile(&json!("${ steps.pay }")).unwrap();
    assert!(Arc::ptr_eq(&template.evaluate(&data).unwrap(), &data.steps["pay"]));
    let template = Template::compile(&json!({"a": [1, 2]})).unwrap();
    assert!(Arc::ptr_eq(
        &template.evaluate(&data).unwrap(),
        &template.evaluate(&data).unwrap()
    ));
}

#[test]
fn truth() {
    for (source, truth) in [
        ("input.amount", true),
        ("input.flag", false),
        ("input.nothing", false),
        ("input.items", true),
        ("input.amount == 12", true),
        ("'' ~ ''", false),
        ("steps.gone.id | default(false)", false),
    ] {
        assert_eq!(
            Expression::compile(source).unwrap().is_true(&data()),
            Ok(truth),
            "{source}"
        );
    }
}

#[test]
fn work_and_size_are_bounded() {
    for source in [
        "'x' * 1000000000",
        "range(100000) | list",
        "'%999999999d' | format(1)",
        "(('a' * 1000) | replace('a', 'b' * 1000)) | replace('b', 'c' * 1000)",
        "[[1] * 10000] * 10000",
        "range(1000) | batch(1) | list | batch(1) | list | string * 1000",
    ] {
        assert!(eval(source).is_err(), "{source}");
    }
    let mut data = data();
    for (items, fits) in [(10_000, true), (10_001, false)] {
        let list: Vec<Value> = (0..items).map(|_| json!({"n": 1})).collect();
        data.input = Some(Arc::new(json!({"list": list})));
        let sum = Expression::compile("input.list | sum_by('n')").unwrap();
        assert_eq!(sum.evaluate(&data).is_ok(), fits, "{items}");
    }
    data.input = Some(Arc::new(json!({"blob": "x".repeat(MAX_VALUE_BYTES)})));
    let read = Expression::compile("input.blob ~ ''").unwrap();
    assert!(read.evaluate(&data).is_err());
    assert!(Expression::compile("input.blob").unwrap().evaluate(&data).is_ok());
    let copies: Vec<Value> = (0..8).map(|_| json!("${ input.blob }")).collect();
    assert!(Template::compile(&json!(copies[..7])).unwrap().evaluate(&data).is_ok());
    assert!(Template::compile(&json!(copies)).unwrap().evaluate(&data).is_err());
}

#[test]
fn long_sources_do_not_overflow_the_stack() {
    for unit in [
        "1+",
        "not ",
        "(",
        "[",
        "{'a':",
        "-",
        "a.",
        "a[",
        "a|d|",
        "a if ",
        "1 is odd and ",
    ] {
        for count in [
            MAX_TOKENS / 4,
            MAX_TOKENS / 3,
            MAX_TOKENS / 2 - 1,
            MAX_TOKENS - 1,
            MAX_SOURCE_BYTES / unit.len() - 1,
        ] {
            let source: String = unit.repeat(count) + "1";
            if let Ok(expression) = Expression::compile(&source) {
                let _ = expression.evaluate(&data());
            }
        }
    }
    let error = Expression::compile(&"1".repeat(MAX_SOURCE_BYTES + 1)).unwrap_err();
    assert!(error.message.contains("2049"), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_compiled_or_refused(text in "\\PC{0,80}") {
        if let Ok(template) = Template::compile(&json!(text)) {
            let _ = template.evaluate(&data());
        }
        if let Ok(expression) = Expression::compile(&text) {
            let _ = expression.is_true(&data());
            let _ = expression.evaluate(&data());
        }
    }

    #[test]
    fn expression_like_text_is_compiled_or_refused(tokens in prop::collection::vec(prop::sample::select(vec![
        "input", ".", "amount", "items", "[", "]", "(", ")", "|", "default", "length", "1", "+", "==", "'", "\"", "{", "}", ":",
        ",", "if", "else", "is", "defined", "not", "in", "~", "${", "$", "-", "*", "**", "%", " ", "steps", "pay",
    ]), 0..24)) {
        let text = tokens.join(" ");
        for text in [text.clone(), tokens.concat()] {
            if let Ok(expression) = Expression::compile(&text) {
                let _ = expression.evaluate(&data());
            }
            if let Ok(template) = Template::compile(&json!(text)) {
                let _ = template.evaluate(&data());
            }
        }
    }

    /// The path resolved by hand and by the engine agree.
    #[test]
    fn the_fast_path_agrees_with_the_engine(path in prop::sample::select(vec![
        "input", "input.amount", "input.deep.a.b[0]", "input.deep.a.b", "input.items[1].sku", "input.nothing",
        "steps.pay", "steps.pay.id", "vars.k[1]", "vars", "input.nope", "steps.gone.x", "input.items[7]",
    ])) {
        let slow = format!("({path} if true else 0)");
        prop_assert_eq!(eval(path).ok(), eval(&slow).ok());
        let fast = format!("{path} | default('d')");
        let slow = format!("({fast}) if true else 0");
        prop_assert_eq!(eval(&fast), eval(&slow));
    }
}
