//! Random plans. The names of steps say what they are, for whoever reads the history: `a` an activity, `p` a parallel, `e` a
//! `for_each` all at once, `o` one at a time, `w` a `while`, `t` a `try`, `s` a scope, `k` a child.

use proptest::prelude::*;
use serde_json::json;

use super::super::dsl::*;
use super::inputs::{Op, ops};
use crate::definition::plan::{Cancellation, Join, Losers, OnExhausted, OnFailure, ParentClose, Timeouts, UndoOrder};
use crate::time::Span;

/// A plan, its timeout in seconds, its policy, and what happens to its run.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) steps: Vec<Def>,
    pub(super) timeout: Option<u64>,
    pub(super) policy: (UndoOrder, OnExhausted),
    pub(super) ops: Vec<Op>,
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let order = prop_oneof![3 => Just(UndoOrder::Dependencies), 1 => Just(UndoOrder::Sequential)];
    let exhausted = prop_oneof![3 => Just(OnExhausted::Continue), 1 => Just(OnExhausted::Halt)];
    let timeout = prop_oneof![4 => Just(None), 1 => (1..300_u64).prop_map(Some)];
    (body(), timeout, (order, exhausted), ops()).prop_map(|(shapes, timeout, policy, ops)| Case {
        steps: named(&shapes, &mut 0),
        timeout,
        policy,
        ops,
    })
}

/// A step before it has a name.
#[derive(Debug, Clone)]
enum Shape {
    Activity {
        undo: u8,
        condition: u8,
        attempts: Option<u32>,
        flags: [bool; 2],
        pivot: bool,
        seconds: u64,
        limits: [Option<u64>; 3],
        cancellation: Cancellation,
    },
    Set(bool),
    Sequence(Vec<Shape>),
    Parallel(Vec<Vec<Shape>>, Join, Losers),
    ForEach(u32, bool, Vec<Shape>),
    Switch(u8, Vec<Shape>, Vec<Shape>),
    While(u32, u32, Vec<Shape>),
    Try(Vec<Shape>, Option<(bool, Vec<Shape>)>, Option<Vec<Shape>>),
    Scope(Vec<Shape>, Option<Vec<Shape>>),
    Wait(u64),
    WaitFor(Option<u64>, u8, Vec<Shape>),
    Child(ParentClose, bool),
    Emit(bool),
    Fail(bool),
    Complete,
    ContinueAsNew,
}

fn activity() -> impl Strategy<Value = Shape> {
    (
        0..12_u8,
        0..10_u8,
        prop_oneof![Just(Some(1)), Just(Some(2)), Just(None)],
        any::<[bool; 2]>(),
        prop::bool::weighted(0.04),
        1..20_u64,
        [limit(), limit(), limit()],
        prop_oneof![
            6 => Just(Cancellation::TryCancel),
            1 => Just(Cancellation::WaitCancelled),
            1 => Just(Cancellation::Abandon)
        ],
    )
        .prop_map(
            |(undo, condition, attempts, flags, pivot, seconds, limits, cancellation)| Shape::Activity {
                undo,
                condition,
                attempts,
                flags,
                pivot,
                seconds,
                limits,
                // Registration refuses one that is abandoned.
                cancellation: if pivot { Cancellation::TryCancel } else { cancellation },
            },
        )
}

fn limit() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![4 => Just(None), 1 => (1..60_u64).prop_map(Some)]
}

fn leaf() -> impl Strategy<Value = Shape> {
    let policy = prop_oneof![
        3 => Just(ParentClose::RequestCancel),
        1 => Just(ParentClose::Terminate),
        1 => Just(ParentClose::Abandon)
    ];
    prop_oneof![
        24 => activity(),
        2 => any::<bool>().prop_map(Shape::Set),
        2 => (0..40_u64).prop_map(Shape::Wait),
        3 => (prop::option::of(1..60_u64), 0..2_u8).prop_map(|(timeout, policy)| Shape::WaitFor(timeout, policy, vec![])),
        4 => (policy, prop::bool::weighted(0.2)).prop_map(|(policy, detached)| Shape::Child(policy, detached)),
        1 => prop::bool::weighted(0.8).prop_map(Shape::Emit),
        1 => any::<bool>().prop_map(Shape::Fail),
        1 => prop_oneof![3 => Just(Shape::Complete), 1 => Just(Shape::ContinueAsNew)],
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    leaf().prop_recursive(4, 24, 4, |inner| {
        let body = prop::collection::vec(inner, 0..4);
        let join = prop_oneof![Just(Join::All), Just(Join::Any), (0..3_u32).prop_map(Join::AtLeast)];
        let losers = prop_oneof![2 => Just(Losers::Undo), 1 => Just(Losers::Keep)];
        prop_oneof![
            4 => (prop::collection::vec(body.clone(), 0..4), join, losers)
                .prop_map(|(branches, join, losers)| Shape::Parallel(branches, join, losers)),
            3 => (0..4_u32, any::<bool>(), body.clone())
                .prop_map(|(items, at_once, body)| Shape::ForEach(items, at_once, body)),
            2 => (0..4_u8, body.clone(), body.clone()).prop_map(|(when, a, b)| Shape::Switch(when, a, b)),
            2 => (0..4_u32, 1..4_u32, body.clone()).prop_map(|(times, max, body)| Shape::While(times, max, body)),
            4 => (
                body.clone(),
                prop::option::of((any::<bool>(), body.clone())),
                prop::option::of(body.clone())
            )
                .prop_map(|(body, catch, finally)| Shape::Try(body, catch, finally)),
            3 => (body.clone(), prop::option::of(body.clone()))
                .prop_map(|(body, otherwise)| Shape::Scope(body, otherwise)),
            1 => (1..60_u64, body.clone()).prop_map(|(timeout, body)| Shape::WaitFor(Some(timeout), 2, body)),
            1 => body.prop_map(Shape::Sequence),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<Shape>> {
    prop::collection::vec(shape(), 0..5)
}

fn named(shapes: &[Shape], counter: &mut u32) -> Vec<Def> {
    shapes.iter().map(|shape| def(shape, counter)).collect()
}

fn def(shape: &Shape, counter: &mut u32) -> Def {
    let mut name = |letter: &str| {
        *counter += 1;
        format!("{letter}{counter}")
    };
    match shape {
        Shape::Activity {
            undo,
            condition,
            attempts,
            flags: [may_fail, on_failure],
            pivot,
            seconds,
            limits,
            cancellation,
        } => {
            let mut def = act(&name("a"))
                .attempts(*attempts)
                .undo_attempts(2)
                .start_to_close(Span::from_secs(*seconds))
                .compensate_on_failure(*on_failure)
                .timeouts(Timeouts {
                    schedule_to_start: limits[0].map(Span::from_secs),
                    schedule_to_close: limits[1].map(Span::from_secs),
                    heartbeat: limits[2].map(Span::from_secs),
                })
                .cancellation(*cancellation)
                .pivot(*pivot);
            def = match undo {
                10 => def.limits(LimitsDef {
                    concurrency: Some((2, Some("${ run.workflow_id }"))),
                    ..LimitsDef::default()
                }),
                11 => def.limits(LimitsDef {
                    concurrency: Some((1, None)),
                    rate: Some(5),
                    ..LimitsDef::default()
                }),
                _ => def,
            };
            if *may_fail && *on_failure {
                def = def.on_failure(OnFailure::Continue);
            }
            def = match undo {
                0 => def.undo(UndoDef::ReadOnly),
                1 => def.undo(UndoDef::NoUndo),
                2 => def.undo(UndoDef::Input(None)),
                3 => def.undo(UndoDef::Input(Some(json!("${ error.message }")))),
                4 => def.undo(UndoDef::Input(Some(json!("${ steps.missing.id }")))),
                _ => def,
            };
            match condition {
                0 => def.when("false"),
                1 => def.when("vars.v is defined"),
                _ => def,
            }
        }
        Shape::Set(good) => {
            let value = if *good {
                json!("${ input }")
            } else {
                json!("${ steps.missing.id }")
            };
            set(&name("v"), &[("v", value)])
        }
        Shape::Sequence(steps) => seq(&name("q"), named(steps, counter)),
        Shape::Parallel(branches, join, losers) => {
            let name = name("p");
            let names = ["b0", "b1", "b2", "b3"];
            let branches = names
                .into_iter()
                .zip(branches.iter().map(|steps| named(steps, counter)));
            parallel(&name, branches.collect()).join(*join).losers(*losers)
        }
        Shape::ForEach(items, one_at_a_time, steps) => {
            let name = name(if *one_at_a_time { "o" } else { "e" });
            let list = json!((0..*items).collect::<Vec<_>>());
            let each = for_each(&name, list, named(steps, counter)).collect(json!("${ item + index }"));
            if *one_at_a_time { each.at_once(1) } else { each }
        }
        Shape::Switch(when, a, b) => {
            let name = name("c");
            let when = ["true", "false", "vars.v is defined", "steps.missing.id"][usize::from(*when)];
            switch(&name, vec![(Some(when), named(a, counter)), (None, named(b, counter))])
        }
        Shape::While(times, max, steps) => {
            let name = name("w");
            repeat(&name, &format!("index < {times}"), *max, named(steps, counter))
        }
        Shape::Try(steps, catch, finally) => {
            let name = name("t");
            let mut def = attempt(&name, named(steps, counter));
            if let Some((all, steps)) = catch {
                let types: &[&str] = if *all { &[] } else { &["Refused"] };
                def = def.catch(types, named(steps, counter));
            }
            match finally {
                Some(steps) => def.finally(named(steps, counter)),
                None => def,
            }
        }
        Shape::Scope(steps, otherwise) => {
            let name = name("s");
            let def = scope(&name, named(steps, counter));
            match otherwise {
                Some(steps) => def.otherwise(named(steps, counter)),
                None => def,
            }
        }
        Shape::Wait(seconds) => wait(&name("i"), *seconds),
        Shape::WaitFor(timeout, policy, steps) => {
            let name = name("f");
            let policy = match policy {
                0 => OnTimeoutDef::Fail,
                1 => OnTimeoutDef::Continue,
                _ => OnTimeoutDef::Steps(named(steps, counter)),
            };
            let def = wait_for(&name, "go").matches("signal > 0").on_timeout(policy);
            match timeout {
                Some(seconds) => def.timeout(*seconds),
                None => def,
            }
        }
        Shape::Child(policy, detached) => workflow(&name("k")).parent_close(*policy).detached(*detached),
        Shape::Emit(good) => {
            let subject = if *good { "orders.x" } else { "knarr.x" };
            emit(&name("m"), json!(subject), json!(1))
        }
        Shape::Fail(refused) => fail(&name("x"), if *refused { "Refused" } else { "Other" }),
        Shape::Complete => complete(&name("y"), json!(1)),
        Shape::ContinueAsNew => continue_as_new(&name("z"), Some(json!({}))),
    }
}
