//! The one environment every expression is compiled in. It is a constant: nothing in it reads a clock or the outside.

use std::sync::OnceLock;

use minijinja::{Environment, UndefinedBehavior};

use super::{FUEL, filters};

/// Filters an expression may use.
pub const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "merge",
    "min",
    "parse_duration",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "sum_by",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "zip",
];

/// Tests (`x is …`).
pub const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

/// Functions that can be called.
pub const FUNCTIONS: &[&str] = &["dict", "range"];

pub(super) fn shared() -> &'static Environment<'static> {
    static SHARED: OnceLock<Environment<'static>> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        // Capturing variables for a debug view would copy the run's data into error values.
        environment.set_debug(false);
        environment.remove_global("debug");
        environment.remove_global("namespace");
        environment.add_filter("sum_by", filters::sum_by);
        environment.add_filter("merge", filters::merge);
        environment.add_filter("parse_duration", filters::parse_duration);
        environment
    })
}
