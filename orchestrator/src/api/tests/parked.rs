//! What waits for an operator, as it is listed.

use knarr_core::ids::StepPath;
use knarr_core::run::input::{Operation, ParkedAction};
use knarr_schemas::api::{CreateNamespace, ListParked, ParkedKind, ParkedPage, RunName};

use super::*;

const BUDGET: usize = 1_000_000;

impl TestRun {
    /// A run whose two undos are both parked, with an input of that size.
    fn parked(number: u128, workflow_id: &str, input: Value) -> Self {
        let text = ORDER
            .replace("start_to_close: 5s }", "start_to_close: 5s, retry: { maximum_attempts: 1 }, input: \"${ input }\" }")
            .replace(
                "compensate: { activity: refund-payment }",
                "compensate: { activity: refund-payment, retry: { maximum_attempts: 1 }, input: \"${ input }\" }\n  - last: { activity: last, read_only: true }",
            );
        let mut run = Self::start_of(&text, number, workflow_id, input);
        run.complete(1, json!({"order_id": "o"}));
        run.complete(2, json!({"payment_id": "p"}));
        run.fail(3);
        // The last step first.
        run.fail(4);
        run.fail(5);
        assert_eq!(run.state.status().as_str(), "parked");
        run
    }

    fn operate(&mut self, step: &str, action: ParkedAction) {
        let at = Timestamp(self.state.at().0 + 5_000);
        let input = Input::Parked {
            step: StepPath::new(step),
            direction: None,
            action,
            operation: Operation {
                by: Some("ann".into()),
                reason: Some("seen to".into()),
                ..Operation::default()
            },
        };
        let transition = apply(&self.definition.plan, &mut self.state, input, at).unwrap();
        self.transitions.extend(transition);
    }
}

async fn list(world: &World, request: &ListParked) -> ParkedPage {
    world
        .operations
        .list_parked(&"default".into(), request, BUDGET)
        .await
        .unwrap()
}

fn names(page: &ParkedPage) -> Vec<(u128, String)> {
    let of = page.parked.iter();
    of.map(|entry| (entry.run_id.as_u128(), entry.step.clone())).collect()
}

#[tokio::test]
async fn what_is_parked_is_listed_with_all_there_is_to_know() {
    let world = World::new().await;
    world.add(&TestRun::start(1, "running", json!(null))).await;
    let parked = TestRun::parked(2, "order-17", json!({"amount": 12}));
    world.add(&parked).await;
    let page = list(&world, &ListParked::default()).await;
    insta::assert_json_snapshot!("parked", page);
}

/// It counts among those that wait, so it is there to be seen.
#[tokio::test]
async fn a_run_that_cannot_be_read_is_listed_as_a_whole() {
    let world = World::new().await;
    let mut broken = TestRun::parked(3, "order-3", json!(null));
    broken.transitions[0].events.clear();
    world.add(&broken).await;
    world.add(&TestRun::parked(2, "order-2", json!(null))).await;
    let page = list(&world, &ListParked::default()).await;
    assert_eq!(page.parked.len(), 3, "{page:?}");
    let entry = &page.parked[0];
    assert_eq!((entry.run_id.as_u128(), entry.kind), (3, ParkedKind::Run));
    assert_eq!(entry.failure.error_type, "unreadable_run");
    let one = ListParked {
        limit: Some(1),
        ..ListParked::default()
    };
    let first = list(&world, &one).await;
    assert_eq!(first.parked, page.parked[..1]);
    let behind = ListParked {
        after: first.next,
        ..ListParked::default()
    };
    assert_eq!(list(&world, &behind).await.parked, page.parked[1..]);
}

#[tokio::test]
async fn a_list_comes_in_pages_also_within_a_run() {
    let world = World::new().await;
    for number in 1..=120 {
        world
            .add(&TestRun::parked(
                number,
                &format!("o-{number}"),
                json!(number.to_string()),
            ))
            .await;
    }
    for limit in [1, 7, 500] {
        let mut request = ListParked {
            limit: Some(limit),
            ..ListParked::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = list(&world, &request).await;
            assert!(page.parked.len() <= limit as usize);
            seen.extend(names(&page));
            request.after = page.next;
            if request.after.is_none() {
                break;
            }
        }
        let all: Vec<_> = (1..=120)
            .rev()
            .flat_map(|number| ["create_order", "payment"].map(|step| (number, step.to_owned())))
            .collect();
        assert_eq!(seen, all, "limit {limit}");
    }
    // What has been decided about meanwhile is not what a page goes on from.
    let first = list(
        &world,
        &ListParked {
            limit: Some(1),
            ..ListParked::default()
        },
    )
    .await;
    let request = ListParked {
        after: first.next,
        limit: Some(1),
        ..ListParked::default()
    };
    assert_eq!(names(&list(&world, &request).await), [(120, "payment".to_owned())]);
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_what_is_too_large_is_left_out() {
    let world = World::new().await;
    for number in 1..=4 {
        let size = if number == 3 { 60_000 } else { 10_000 };
        let input = json!("x".repeat(size));
        world.add(&TestRun::parked(number, &format!("o-{number}"), input)).await;
    }
    let mut request = ListParked::default();
    let mut omitted = Vec::new();
    let mut seen = 0;
    loop {
        let page = world
            .operations
            .list_parked(&"default".into(), &request, 40_000)
            .await
            .unwrap();
        assert!(serde_json::to_vec(&page).unwrap().len() <= 40_000);
        assert!(!page.parked.is_empty());
        seen += page.parked.len();
        omitted.extend(
            page.parked
                .iter()
                .filter_map(|entry| Some((entry.run_id.as_u128(), entry.omitted_bytes?))),
        );
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, 8);
    assert_eq!(omitted, [(3, 60_002), (3, 60_002)]);
}

#[tokio::test]
async fn all_filters_have_to_fit() {
    let world = World::new().await;
    for number in 1..=3 {
        world
            .add(&TestRun::parked(number, &format!("o-{number}"), json!(null)))
            .await;
    }
    let at = |number: usize| -> ListParked {
        let since = TestRun::parked(number as u128, "x", json!(null)).state.parked_items()[0].since;
        ListParked {
            since: since.map(knarr_core::time::Timestamp::to_utc),
            ..ListParked::default()
        }
    };
    let step = |step: &str| ListParked {
        step: Some(step.to_owned()),
        ..ListParked::default()
    };
    let run = |run| ListParked {
        run: Some(run),
        ..ListParked::default()
    };
    let cases = [
        (step("payment"), 3),
        (step("nothing"), 0),
        (
            ListParked {
                activity: Some("cancel-order".to_owned()),
                ..at(2)
            },
            2,
        ),
        (
            ListParked {
                since: None,
                before: at(2).since,
                ..ListParked::default()
            },
            // Of the second run the undo that was parked first.
            3,
        ),
        (
            ListParked {
                error_type: Some("card_declined".to_owned()),
                workflow: Some("order".to_owned()),
                kind: Some(ParkedKind::Undo),
                ..ListParked::default()
            },
            6,
        ),
        (
            ListParked {
                kind: Some(ParkedKind::Run),
                ..ListParked::default()
            },
            0,
        ),
        (
            ListParked {
                workflow: Some("other".to_owned()),
                ..ListParked::default()
            },
            0,
        ),
        (run(RunName::WorkflowId("o-2".to_owned())), 2),
        (run(RunName::RunId(Uuid::from_u128(3))), 2),
    ];
    for (request, count) in cases {
        let page = list(&world, &request).await;
        assert_eq!((page.parked.len(), page.next), (count, None), "{request:?}");
    }
    let unknown = run(RunName::WorkflowId("nobody".to_owned()));
    let refused = world.operations.list_parked(&"default".into(), &unknown, BUDGET).await;
    assert_eq!(refused.unwrap_err().body.code, "KN0211");
    // A run of another namespace is none.
    world
        .operations
        .create_namespace(&"other".into(), CreateNamespace::default())
        .await
        .unwrap();
    let elsewhere = run(RunName::RunId(Uuid::from_u128(3)));
    let refused = world.operations.list_parked(&"other".into(), &elsewhere, BUDGET).await;
    assert_eq!(refused.unwrap_err().body.code, "KN0211");
    let refused = world
        .operations
        .list_parked(&"nowhere".into(), &ListParked::default(), BUDGET)
        .await;
    assert_eq!(refused.unwrap_err().body.code, "KN0205");
}

#[tokio::test]
async fn what_operators_did_is_shown_with_who_and_why() {
    let world = World::new().await;
    let mut run = TestRun::parked(1, "order-17", json!(null));
    run.operate("payment", ParkedAction::Retry);
    run.complete(6, json!(null));
    run.operate("create_order", ParkedAction::Skip);
    world.add(&run).await;
    let shown = world
        .operations
        .show_run(&"default".into(), &RunName::WorkflowId("order-17".to_owned()), BUDGET)
        .await
        .unwrap();
    assert_eq!(shown.run.status, "compensation_failed");
    let did: Vec<_> = shown
        .operations
        .iter()
        .map(|one| {
            (
                one.action.as_str(),
                one.direction.as_deref(),
                one.step.as_deref(),
                one.by.as_deref(),
                one.reason.as_deref(),
            )
        })
        .collect();
    let who = (Some("ann"), Some("seen to"));
    assert_eq!(
        did,
        [
            ("retry", Some("undo"), Some("payment"), who.0, who.1),
            ("skip", Some("undo"), Some("create_order"), who.0, who.1)
        ]
    );
}
