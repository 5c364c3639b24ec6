//! What the sagas of a seed are told and asked beside their steps: signals that have handlers, and updates. Whoever asks is answered,
//! in the end; all who ask the same hear the same; and it is what is committed.

use std::collections::BTreeMap;

use knarr_core::ids::{RequestId, RunId};
use knarr_core::run::{State, Update};
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::line::Random;
use super::super::world::{Replica, World};
use super::scenario::Scenario;
use crate::bus::Outgoing;

const SIGNALS: [&str; 2] = ["stop", "note"];
/// One that no definition has, too.
const UPDATES: [&str; 5] = ["change", "change", "check", "check", "nothing"];

/// An update: of which workflow id, under which request id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    workflow_id: String,
    id: String,
}

/// Who waits for an answer, and what they have heard.
struct Waiter {
    request: Request,
    on: &'static str,
    inbox: UnboundedReceiver<Outgoing>,
    heard: Vec<Answer>,
}

pub(super) struct Asked {
    scenario: Scenario,
    random: Random,
    waiters: Vec<Waiter>,
    /// The first that each was asked for: its name and its input.
    updates: BTreeMap<Request, (&'static str, i64)>,
}

impl Asked {
    pub(super) fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            random: Random::new(scenario.seed ^ 0xA5CD),
            waiters: Vec::new(),
            updates: BTreeMap::new(),
        }
    }

    /// Between two sagas.
    pub(super) async fn step(&mut self, world: &World, n: u64) {
        if !self.scenario.has("handlers") {
            return;
        }
        for _ in 0..self.random.below(3) {
            self.signal(world, n).await;
        }
        for _ in 0..self.random.below(4) {
            self.update(world, n).await;
        }
    }

    /// More often one of the latest.
    fn whom(&self, n: u64) -> String {
        let back = self.random.below(n + 1).min(self.random.below(n + 1));
        format!("o-{}", n - back)
    }

    fn body(&self) -> i64 {
        i64::try_from(self.random.below(4)).unwrap() - 1
    }

    async fn signal(&mut self, world: &World, n: u64) {
        let id = self.whom(n);
        let name = SIGNALS[usize::try_from(self.random.below(2)).unwrap()];
        let request = format!("{name}-{}", self.random.below(20));
        let to = subject::signal("default", &id, name).unwrap();
        let body = json!(self.body());
        for _ in 0..1 + self.random.below(2) {
            world.publish(&to, &[(names::REQUEST_ID, &request)], body.clone()).await;
        }
    }

    async fn update(&mut self, world: &World, n: u64) {
        let request = Request {
            workflow_id: self.whom(n),
            id: format!("update-{}", self.random.below(5)),
        };
        let name = UPDATES[usize::try_from(self.random.below(5)).unwrap()];
        let asked = (name, self.body());
        let (name, input) = *self.updates.entry(request.clone()).or_insert(asked);
        let on = match self.random.below(4) {
            0 => None,
            1 => Some("accepted"),
            _ => Some("completed"),
        };
        let times = 1 + self.random.below(2);
        self.ask(world, request, (name, json!(input)), on, times).await;
    }

    async fn ask(
        &mut self,
        world: &World,
        request: Request,
        (name, input): (&str, Value),
        on: Option<&'static str>,
        times: u64,
    ) {
        let n = self.waiters.len();
        let inbox = world.bus.subscribe(&inbox(n));
        for _ in 0..times {
            publish(world, n, &request, (name, input.clone()), on).await;
        }
        if let Some(on) = on {
            self.waiters.push(Waiter {
                request,
                on,
                inbox,
                heard: Vec::new(),
            });
        }
    }

    /// What a waiter hears. An answer is said once, after the commit that it belongs to: whoever hears nothing from a replica that
    /// has died since asks again.
    async fn answer(&mut self, world: &World, n: usize, mut living: usize, alive: &impl Fn() -> usize) -> Answer {
        loop {
            if let Some(answer) = world.perhaps_answer(&mut self.waiters[n].inbox).await {
                return answer;
            }
            let Waiter { request, on, .. } = &self.waiters[n];
            assert!(alive() < living, "{request:?} is not answered");
            living = alive();
            let (name, input) = self.updates[request];
            publish(world, n, request, (name, json!(input)), Some(*on)).await;
        }
    }

    /// Everything has closed, and nothing is lost any more but with a replica: whoever asks is answered. Returns how many updates were done.
    pub(super) async fn finish(&mut self, world: &World, running: &[(String, Replica)]) -> u64 {
        let alive = || running.iter().filter(|(_, replica)| !replica.has_ended()).count();
        let living = alive();
        let all: Vec<_> = self.updates.clone().into_iter().collect();
        let first = self.waiters.len();
        for (request, (name, input)) in all {
            self.ask(world, request, (name, json!(input)), Some("completed"), 1)
                .await;
        }
        for n in first..self.waiters.len() {
            let answer = self.answer(world, n, living, &alive).await;
            let waiter = &mut self.waiters[n];
            assert_ne!(
                answer.stage,
                AnswerStage::Accepted,
                "{:?} waits for ever",
                waiter.request
            );
            waiter.heard.push(answer);
        }
        self.check_chains(world).await;
        let mut done = 0;
        let mut told: BTreeMap<(Request, RunId), (Value, Option<String>)> = BTreeMap::new();
        for waiter in &mut self.waiters {
            while let Ok(message) = waiter.inbox.try_recv() {
                waiter.heard.push(serde_json::from_slice(&message.payload).unwrap());
            }
            for answer in &waiter.heard {
                assert_eq!(answer.workflow_id, waiter.request.workflow_id);
                if answer.stage == AnswerStage::Refused {
                    let error = answer.error.as_ref().expect("a refusal has a reason");
                    assert!(error.code.starts_with("KN"), "{error:?}");
                    continue;
                }
                let run = RunId(answer.run_id.expect("a run has taken it"));
                let state = world.state(run).await;
                let stands = state.update(&RequestId::new(&waiter.request.id));
                if answer.stage == AnswerStage::Accepted {
                    assert_eq!(waiter.on, "accepted", "{answer:?}");
                    let ended = matches!(stands, Some(Update::Completed(_) | Update::Failed(_)));
                    assert!(ended, "{answer:?} was said, and it is {stands:?} in {run}");
                    continue;
                }
                assert_eq!(answer.stage, AnswerStage::Completed, "{answer:?}");
                // An output of null is none in JSON.
                let said = (
                    answer.output.clone().unwrap_or_default(),
                    answer.failure.as_ref().map(|failure| failure.message.clone()),
                );
                let is_so = match stands {
                    Some(Update::Completed(output)) => said == ((**output).clone(), None),
                    Some(Update::Failed(error)) => said == (Value::Null, Some(error.message.to_string())),
                    _ => false,
                };
                assert!(is_so, "{answer:?} was said, and it is {stands:?} in {run}");
                let before = told.insert((waiter.request.clone(), run), said.clone());
                assert!(
                    before.is_none_or(|before| before == said),
                    "{:?} was told twice",
                    waiter.request
                );
                done += u64::from(answer.failure.is_none());
            }
        }
        done
    }
}

impl Asked {
    /// However often it was asked for, and whichever of them it came to: of two runs of which one goes on in the place of the
    /// other only one has accepted an update.
    async fn check_chains(&self, world: &World) {
        for row in world.rows() {
            let before = world.state(row.run_id).await;
            let Some(successor) = before.successor() else { continue };
            let after = world.state(successor.run_id).await;
            let of_id = self.updates.keys();
            for request in of_id.filter(|request| *request.workflow_id == *row.workflow_id.as_str()) {
                let id = RequestId::new(&request.id);
                let accepted = |run: &State| {
                    let stands = run.update(&id);
                    stands.is_some_and(|stands| !matches!(stands, Update::Refused(_)))
                };
                assert!(
                    !accepted(&before) || !accepted(&after),
                    "{request:?} was accepted by {} and by {}",
                    row.run_id,
                    successor.run_id
                );
            }
        }
    }
}

/// Where the waiter of this number hears its answers.
fn inbox(waiter: usize) -> String {
    format!("_INBOX.asked.{waiter}")
}

async fn publish(world: &World, waiter: usize, request: &Request, (name, input): (&str, Value), on: Option<&str>) {
    let verb = format!("update.{name} default");
    let to = inbox(waiter);
    let mut headers = vec![(names::VERB, verb.as_str()), (names::REQUEST_ID, request.id.as_str())];
    if let Some(on) = on {
        headers.extend([(names::REPLY_ON, on), (names::REPLY_TO, to.as_str())]);
    }
    let subject = subject::update("default", &request.workflow_id, name).unwrap();
    world.publish(&subject, &headers, input).await;
}
