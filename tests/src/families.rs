//! Runs that speak to each other, driven by a plain client until each has come to its end, and what must be true then.
//!
//! Every kind of family comes in several copies, so that of two replicas each owns parents whose children the other has.
//! Whatever is asked of a run is asked again, under the same request id, until somebody has answered: what JetStream has
//! taken may be lost with the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::future::join_all;
use knarr_core::run::{Event, Status};
use knarr_schemas::body::Answer;
use knarr_schemas::subject;
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::audit::{StoredHistory, audit_ends, histories};
use crate::{Audit, Fault, Stack, eventually};

const PARENT: &str = include_str!("../definitions/families/parent.yaml");
const LEAF: &str = include_str!("../definitions/families/leaf.yaml");
const OVER: &str = include_str!("../definitions/families/over.yaml");
const CHAIN: &str = include_str!("../definitions/families/chain.yaml");

/// Of a `chain`: so many runs, each with a signal.
const LINKS: u64 = 4;

/// For what has to happen sooner or later, whatever is done to the servers. What is lost with the log is sent again after
/// half a minute, and a family may need several messages.
const LIMIT: Duration = Duration::from_secs(240);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The child completes, and so does its parent.
    Completes,
    /// The parent fails when its child has completed: the child is undone.
    Undone,
    /// The child fails and has undone itself; its parent undoes the rest.
    ChildFails,
    /// Cancelled from above while the youngest of three waits: that one ends first.
    Cancelled,
    /// The parent fails, and its detached child goes on.
    Detached,
    /// The parent is terminated over a child that it abandons …
    Abandons,
    /// … or terminates …
    Terminates,
    /// … or asks to cancel.
    AsksToCancel,
    /// Continues as new, a signal a run.
    Chain,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Completes,
        Self::Undone,
        Self::ChildFails,
        Self::Cancelled,
        Self::Detached,
        Self::Abandons,
        Self::Terminates,
        Self::AsksToCancel,
        Self::Chain,
    ];

    fn workflow(self) -> &'static str {
        match self {
            Self::Completes | Self::Undone | Self::ChildFails => "parent",
            Self::Cancelled => "top",
            Self::Detached => "loose",
            Self::Abandons => "abandons",
            Self::Terminates => "terminates",
            Self::AsksToCancel => "asks",
            Self::Chain => "chain",
        }
    }

    fn input(self) -> Value {
        let fails = json!({ "reserve-inventory": "failed" });
        match self {
            Self::Completes => json!({ "kid": Fault::None.input() }),
            Self::Undone => json!({ "kid": Fault::None.input(), "fail": fails }),
            Self::ChildFails => json!({ "kid": Fault::Stock.input() }),
            Self::Detached => json!({ "fail": fails }),
            Self::Cancelled | Self::Abandons | Self::Terminates | Self::AsksToCancel => json!({}),
            Self::Chain => json!({ "left": LINKS, "sum": 0 }),
        }
    }

    /// The runs of a family by what their ids end with, and how each ends.
    fn ends(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::Completes => &[("", &["completed"]), ("-kid", &["completed"])],
            Self::Undone => &[("", &["compensated"]), ("-kid", &["compensated"])],
            Self::ChildFails => &[("", &["compensated"]), ("-kid", &["compensated"])],
            Self::Cancelled => &[
                ("", &["cancelled"]),
                ("-middle", &["cancelled"]),
                ("-middle-leaf", &["cancelled"]),
            ],
            Self::Detached => &[("", &["compensated"]), ("-leaf", &["completed"])],
            Self::Abandons => &[("", &["terminated"]), ("-leaf", &["completed"])],
            Self::Terminates => &[("", &["terminated"]), ("-leaf", &["terminated"])],
            Self::AsksToCancel => &[("", &["terminated"]), ("-leaf", &["cancelled"])],
            // Every run of it has the same id.
            Self::Chain => &[],
        }
    }

    /// The parent and what it is over, from the top.
    fn line(self) -> Vec<&'static str> {
        self.ends().iter().map(|(suffix, _)| *suffix).collect()
    }
}

fn over(name: &str, child: &str, close: &str) -> String {
    OVER.replace("NAME", name)
        .replace("CHILD", child)
        .replace("CLOSE", close)
}

#[derive(Debug, Clone)]
pub struct Families {
    members: Vec<(String, Kind)>,
}

impl Families {
    /// Registers what they need, and names so many of each kind.
    pub async fn new(stack: &Stack, copies: usize) -> Self {
        for source in [
            PARENT.to_owned(),
            LEAF.to_owned(),
            CHAIN.to_owned(),
            over("middle", "leaf", "parent_close: request_cancel"),
            over("top", "middle", "parent_close: request_cancel"),
            over("loose", "leaf", "detached: true"),
            over("abandons", "leaf", "parent_close: abandon"),
            over("terminates", "leaf", "parent_close: terminate"),
            over("asks", "leaf", "parent_close: request_cancel"),
        ] {
            stack.register("default", &source).await;
        }
        let copy = |n| Kind::ALL.map(|kind| (format!("{kind:?}-{n}").to_lowercase(), kind));
        Self {
            members: (0..copies).flat_map(copy).collect(),
        }
    }

    /// All that come to their end by a client's doing, at once.
    pub async fn drive(&self, stack: &Stack) {
        join_all(self.members.iter().map(|(id, kind)| drive(stack, id, *kind))).await;
        eventually("all runs to close", LIMIT, || async {
            let open = stack
                .number("select count(*) from runs where closed_at is null or status in ('compensating', 'parked')")
                .await;
            (open == 0).then_some(())
        })
        .await;
        // What they have sent is answered: nothing is offered any more.
        eventually("all runs to be answered", LIMIT, || async {
            let histories = histories(stack, "default").await;
            histories.iter().all(StoredHistory::is_at_rest).then_some(())
        })
        .await;
    }

    /// # Panics
    /// With what is not as it must be.
    pub async fn check(&self, stack: &Stack) -> Audit {
        let ends: BTreeMap<String, &[&str]> = self
            .members
            .iter()
            .flat_map(|(id, kind)| {
                kind.ends()
                    .iter()
                    .map(move |(suffix, ends)| (format!("{id}{suffix}"), *ends))
            })
            .collect();
        let summary = audit_ends(stack, "default", &ends).await;
        for (id, kind) in &self.members {
            match kind {
                Kind::Chain => check_chain(stack, id).await,
                Kind::Cancelled => leaves_first(stack, id, &kind.line()).await,
                Kind::Undone => undone_from_below(stack, id).await,
                _ => {}
            }
        }
        summary
    }

    /// Ids of families that have emitted.
    pub fn emitters(&self) -> BTreeSet<String> {
        let emits = |kind: &Kind| matches!(kind, Kind::Completes | Kind::Undone);
        let members = self.members.iter().filter(|(_, kind)| emits(kind));
        members.map(|(id, _)| id.clone()).collect()
    }
}

/// Starts the family, and returns when its parent is there.
pub async fn start(stack: &Stack, id: &str, kind: Kind) {
    let start = subject::start("default", id, kind.workflow()).unwrap();
    ask(stack, &start, &format!("start {id}"), Some("started"), &kind.input()).await;
}

async fn drive(stack: &Stack, id: &str, kind: Kind) {
    start(stack, id, kind).await;
    let youngest = kind.line().last().map(|suffix| format!("{id}{suffix}"));
    match kind {
        Kind::Completes | Kind::Undone | Kind::ChildFails => {}
        Kind::Cancelled => {
            waits(stack, &youngest.unwrap(), 1).await;
            operate(stack, id, "cancel").await;
        }
        Kind::Abandons | Kind::Terminates | Kind::AsksToCancel => {
            let youngest = youngest.unwrap();
            waits(stack, &youngest, 1).await;
            operate(stack, id, "terminate").await;
            if kind == Kind::Abandons {
                signal(stack, &youngest, 1).await;
            }
        }
        Kind::Detached => {
            let youngest = youngest.unwrap();
            waits(stack, &youngest, 1).await;
            signal(stack, &youngest, 1).await;
        }
        Kind::Chain => {
            for n in 1..=LINKS {
                waits(stack, id, n).await;
                signal(stack, id, n).await;
            }
        }
    }
}

/// Until the so-manieth wait for a signal has begun under this id.
pub async fn waits(stack: &Stack, id: &str, times: u64) {
    let query = "select count(*) from runs r join events e using (run_id)
        where r.workflow_id = $1 and e.body like '%\"signal_awaited\"%'";
    eventually(&format!("{id} to wait for its signal {times}"), LIMIT, || async {
        let asked = sqlx::query_scalar::<_, i64>(query)
            .bind(id)
            .fetch_one(stack.pool())
            .await;
        asked
            .ok()
            .and_then(|count| (count >= i64::try_from(times).unwrap()).then_some(()))
    })
    .await;
}

pub async fn signal(stack: &Stack, id: &str, n: u64) {
    let subject = subject::signal("default", id, "go").unwrap();
    ask(stack, &subject, &format!("go {id} {n}"), None, &json!({ "n": n })).await;
}

async fn operate(stack: &Stack, id: &str, verb: &str) {
    let starter = stack.starter();
    let request = format!("{verb} {id}");
    let ask = || starter.verb(id, verb, &request);
    eventually(&format!("an answer to `{request}`"), LIMIT, ask).await;
}

/// Asks under one request id until there is an answer. A repeat may find that the run has closed meanwhile.
async fn ask(stack: &Stack, subject: &str, request: &str, stage: Option<&str>, body: &Value) -> Answer {
    let starter = stack.starter();
    let ask = || {
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Request-Id", request);
        starter.call(subject, headers, stage, body, Duration::from_secs(5))
    };
    eventually(&format!("an answer to `{request}`"), LIMIT, ask).await.0
}

/// One run a signal, each of which counted once.
async fn check_chain(stack: &Stack, id: &str) {
    let rows = sqlx::query("select status, outcome from runs where workflow_id = $1 order by run_id")
        .bind(id)
        .fetch_all(stack.pool())
        .await
        .unwrap();
    let ends: Vec<String> = rows.iter().map(|row| row.get("status")).collect();
    let mut expected = vec!["continued_as_new"; usize::try_from(LINKS).unwrap() - 1];
    expected.push("completed");
    assert_eq!(ends, expected, "{id}{}", stack.timeline(id).await);
    let sum: String = rows.last().unwrap().get("outcome");
    assert_eq!(sum, (1..=LINKS).sum::<u64>().to_string(), "{id}");
}

/// Who is above hears of the end of who is below before it undoes anything itself, and ends. By what it wrote down: clocks of
/// two replicas differ by more than a message takes.
async fn leaves_first(stack: &Stack, id: &str, line: &[&str]) {
    let mut undone_above: Option<i64> = None;
    for (n, suffix) in line.iter().enumerate() {
        let id = format!("{id}{suffix}");
        let undone = first_undo(stack, &id, "create_order").expect("an undo of what it did");
        // One worker, one clock.
        assert!(
            undone_above.is_none_or(|above| undone <= above),
            "{id} undid after who is over it"
        );
        undone_above = Some(undone);
        if n + 1 == line.len() {
            continue;
        }
        let histories = histories(stack, "default").await;
        let history = histories.iter().find(|history| history.workflow_id == id).unwrap();
        let events = history.transitions.iter().flat_map(|transition| &transition.events);
        let place = |is: fn(&Event) -> bool| events.clone().position(is);
        let heard = place(|event| matches!(event, Event::ChildEnded(ended) if ended.status == Status::Cancelled));
        let undoes = place(|event| matches!(event, Event::UndoScheduled { .. }));
        let closes = place(|event| matches!(event, Event::RunClosed { .. }));
        assert!(
            heard.is_some() && heard < undoes && undoes < closes,
            "{id} did not wait for who is under it:{}",
            stack.timeline(&id).await
        );
    }
}

/// The child's undos come before its parent's own earlier ones.
async fn undone_from_below(stack: &Stack, id: &str) {
    let parent = first_undo(stack, id, "create_order").expect("the parent's undo");
    for step in ["stock", "payment", "create_order"] {
        let child = first_undo(stack, &format!("{id}-kid"), step).expect("the child's undo");
        assert!(
            child <= parent,
            "{id}: {step} of the child was undone after its parent's step"
        );
    }
}

fn first_undo(stack: &Stack, id: &str, step: &str) -> Option<i64> {
    let executions = stack.executions();
    let mut undos = executions
        .iter()
        .filter(|one| one.workflow_id == id && one.undo && one.step == step);
    undos.next().map(|one| one.at)
}

/// The replica that owns what is said to this id.
pub async fn owner(stack: &Stack, id: &str) -> String {
    let partition = subject::partition_of("default", id, stack.partitions());
    let owner = "select s.replica from partitions p join sessions s on s.id = p.owner where p.partition = $1";
    sqlx::query_scalar(owner)
        .bind(i16::try_from(partition).unwrap())
        .fetch_one(stack.pool())
        .await
        .unwrap()
}

/// Parents and children of which one replica owns the one and another the other, by the direction.
pub async fn apart(stack: &Stack) -> Vec<i64> {
    sqlx::query_scalar(
        "select count(*) from runs parent join runs child on child.workflow_id like parent.workflow_id || '-%'
         join partitions above on above.partition = parent.partition
         join partitions below on below.partition = child.partition
         where above.owner <> below.owner group by above.owner, below.owner",
    )
    .fetch_all(stack.pool())
    .await
    .unwrap()
}
