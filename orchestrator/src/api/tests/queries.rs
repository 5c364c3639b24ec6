//! Queries of the definition and ad hoc, over open and closed runs.

use knarr_schemas::api::{QueryAnswer, QueryRun, RunName};

use super::*;

const ASKED: &str = r#"
workflow: asked
version: 1
defaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - create: { activity: create, no_undo: it stays }
  - note: { set: { total: "${ steps.create.total }" } }
  - pay: { activity: pay, no_undo: it stays }
queries:
  progress: { created: "${ steps.create is defined }", paid: "${ steps.pay is defined }", status: "${ status }" }
  total: vars.total
  amount: steps.pay.amount
  why: error.type | default('')
"#;

fn by_name(name: &str) -> QueryRun {
    QueryRun {
        run: RunName::WorkflowId("a-1".to_owned()),
        query: Some(name.to_owned()),
        expression: None,
    }
}

fn ad_hoc(text: &str) -> QueryRun {
    QueryRun {
        query: None,
        expression: Some(text.to_owned()),
        ..by_name("")
    }
}

async fn ask(world: &World, request: &QueryRun) -> Result<QueryAnswer, Refusal> {
    world.operations.query_run(&"default".into(), request).await
}

async fn refused(world: &World, request: &QueryRun) -> (String, String) {
    let body = ask(world, request).await.unwrap_err().body;
    (body.code, body.message)
}

#[tokio::test]
async fn a_query_is_answered_from_what_is_committed_and_changes_nothing() {
    let world = World::new().await;
    assert_eq!(world.register(ASKED).await.findings, []);
    let mut run = TestRun::start_of(ASKED, 1, "a-1", json!({ "n": 1 }));
    run.complete(1, json!({ "total": 12 }));
    world.add(&run).await;

    let answer = ask(&world, &by_name("progress")).await.unwrap();
    assert_eq!(
        answer.value,
        json!({ "created": true, "paid": false, "status": "running" })
    );
    assert_eq!((answer.seq, answer.run.workflow_id.as_str()), (2, "a-1"));
    assert_eq!(ask(&world, &by_name("total")).await.unwrap().value, json!(12));
    assert_eq!(ask(&world, &by_name("why")).await.unwrap().value, json!(""));
    for (text, value) in [
        ("steps.create.total * 2 + input.n", json!(25)),
        ("${ run.workflow_id }", json!("a-1")),
        ("steps.pay.amount | default(none)", Value::Null),
    ] {
        assert_eq!(ask(&world, &ad_hoc(text)).await.unwrap().value, value, "{text}");
    }
    let history = world.store.history(run.state.run_id(), 0, 10).await.unwrap();
    assert_eq!(history.len(), 2, "nothing is stored for it");
}

#[tokio::test]
async fn a_closed_run_is_asked_like_an_open_one() {
    let world = World::new().await;
    world.register(ASKED).await;
    let mut run = TestRun::start_of(ASKED, 1, "a-1", json!({ "n": 1 }));
    run.complete(1, json!({ "total": 12 }));
    run.fail(2);
    world.add(&run).await;
    let by_id = QueryRun {
        run: RunName::RunId(run.state.run_id().0),
        ..by_name("why")
    };
    let answer = ask(&world, &by_id).await.unwrap();
    assert_eq!(
        (answer.value, answer.run.status.as_str()),
        (json!("card_declined"), "failed")
    );
    assert!(answer.run.closed_at.is_some());
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let world = World::new().await;
    world.register(ASKED).await;
    world.add(&TestRun::start_of(ASKED, 1, "a-1", json!({ "n": 1 }))).await;
    let (code, message) = refused(&world, &by_name("amount")).await;
    assert_eq!(code, "KN0282");
    assert!(message.contains("`steps.pay.amount` leads to nothing"), "{message}");
    let (code, message) = refused(&world, &by_name("totl")).await;
    assert_eq!(code, "KN0281");
    assert_eq!(message, "asked v1 has no query `totl`; did you mean `total`?");
    let (code, message) = refused(&world, &ad_hoc("steps.pya")).await;
    assert_eq!(code, "KN0283");
    assert_eq!(message, "there is no step `pya` (did you mean `pay`?)");
    // As much as an expression may do, and no more.
    let endless = "range(100000) | map('string') | join";
    for too_much in [endless, "range(40000) | list"] {
        let asked = ad_hoc(too_much);
        let refused = world.operations.query_run(&"default".into(), &asked).await.unwrap_err();
        assert_eq!(refused.body.code, "KN0282");
        assert!(refused.body.remedy.starts_with("Ask for less"), "{:?}", refused.body);
    }
    let both = QueryRun {
        expression: Some("input".to_owned()),
        ..by_name("total")
    };
    assert_eq!(refused(&world, &both).await.0, "KN0228");
    let unknown = QueryRun {
        run: RunName::WorkflowId("a-2".to_owned()),
        ..by_name("total")
    };
    assert_eq!(refused(&world, &unknown).await.0, "KN0211");
}
