//! What callers, operators and strangers say to runs.

use std::sync::Arc;

use serde_json::json;

use super::World;
use super::inputs::resume;
use crate::ids::{MessageNo, RequestId, RunId, StepPath};
use crate::run::input::{AnswerOn, AnswerRequest, Input, Operation, ParkedAction};
use crate::run::limits::RunLimits;
use crate::run::message::{Body, ChildClosed, Sender};
use crate::run::migrate::Target;
use crate::run::{Status, UpdateAnswer, UpdateStage};

impl World<'_> {
    pub(super) fn signal(&mut self, index: usize, which: u32, how: u32) {
        let operation = Operation {
            request_id: (how.is_multiple_of(2)).then(|| format!("signal-{}", which % 8).as_str().into()),
            ..Operation::default()
        };
        let input = Input::Signal {
            name: self.signal_of(index, how),
            body: Arc::new(json!(i64::from(which % 4) - 1)),
            operation,
        };
        self.apply(index, input);
    }

    /// One that steps wait for, or that is handled.
    fn signal_of(&self, index: usize, how: u32) -> Arc<str> {
        let plan = &self.runs[index].played.plan;
        let handled = plan
            .signal_handlers()
            .map(|(node, _)| Arc::clone(&plan.node(node).name));
        let names: Vec<Arc<str>> = handled.chain(["go".into()]).collect();
        Arc::clone(&names[how as usize / 2 % names.len()])
    }

    fn update_of(&self, index: usize, how: u32) -> Arc<str> {
        let plan = &self.runs[index].played.plan;
        let names = plan
            .update_handlers()
            .map(|(node, _)| Arc::clone(&plan.node(node).name));
        let names: Vec<Arc<str>> = names.collect();
        match names.get(how as usize / 16 % (names.len() + 1)) {
            Some(name) => Arc::clone(name),
            None => "change".into(),
        }
    }

    /// Whoever asks hears at once, when there is something to be heard, or is told later.
    pub(super) fn update(&mut self, index: usize, which: u32, how: u32) {
        let on = match how % 3 {
            0 => None,
            1 => Some(UpdateStage::Accepted),
            _ => Some(UpdateStage::Completed),
        };
        let id: RequestId = format!("update-{}", which / 4 % 6).as_str().into();
        let answer = on.map(|on| UpdateAnswer {
            to: format!("inbox-{}", how % 5).as_str().into(),
            on,
        });
        let input = Input::Update {
            name: self.update_of(index, how),
            body: Arc::new(json!(i64::from(which % 4) - 1)),
            operation: Operation {
                request_id: Some(id.clone()),
                ..Operation::default()
            },
            answer: answer.clone(),
        };
        self.apply(index, input);
        let run = &self.runs[index];
        if let Some(answer) = answer.filter(|_| run.rejected.is_none()) {
            let decided = run.state.is_update_decided(&id, answer.on);
            assert!(
                decided || run.answers.waits(&id, &answer),
                "{answer:?} hears nothing of {id}"
            );
        }
    }

    pub(super) fn operator(&mut self, index: usize, what: u32, which: u32, how: u32) {
        let request = |verb: &str| Operation {
            request_id: (how.is_multiple_of(2)).then(|| format!("{verb}-{}", which % 4).as_str().into()),
            by: Some("ann".into()),
            reason: None,
        };
        let input = match what % 64 {
            54 if how.is_multiple_of(3) => Input::Cancel(request("cancel")),
            54 => Input::Await(AnswerRequest {
                to: "inbox".into(),
                on: if which.is_multiple_of(2) {
                    AnswerOn::Started
                } else {
                    AnswerOn::Closed
                },
            }),
            56 if how.is_multiple_of(3) => Input::RaiseLimits {
                limits: RunLimits {
                    events: Some(30 + which % 300),
                    history_bytes: None,
                    pending: Some(1 + which % 8),
                },
                operation: request("raise"),
            },
            55 if how.is_multiple_of(5) => Input::Terminate(request("terminate")),
            55 if how % 5 == 1 => Input::Park {
                reason: "broken".into(),
            },
            55 => resume(),
            57 if how.is_multiple_of(2) => {
                let (state, plans) = (&self.runs[index].state, self.plans);
                let mut others = plans.iter().filter(|played| {
                    played.plan.workflow == *state.workflow() && played.plan.hash != *state.definition_hash()
                });
                let Some(other) = others.next_back() else { return };
                Input::Migrate {
                    to: Target(Arc::clone(&other.plan)),
                    operation: request("migrate"),
                }
            }
            _ => {
                let Some(step) = self.parked(index, which) else {
                    return;
                };
                let action = match how % 6 {
                    0 | 1 => ParkedAction::Retry,
                    2 => ParkedAction::RetryWithInput(json!("edited").into()),
                    3 => ParkedAction::MarkDone,
                    4 => ParkedAction::MarkDoneWithOutput(json!({ "id": "by hand" }).into()),
                    _ => ParkedAction::Skip,
                };
                Input::Parked {
                    direction: None,
                    step,
                    action,
                    operation: request("decide"),
                }
            }
        };
        self.apply(index, input);
    }

    pub(super) fn parked(&self, index: usize, which: u32) -> Option<StepPath> {
        let state = &self.runs[index].state;
        let undos = state.parked_undos().map(|entry| &entry.step);
        let parked: Vec<_> = undos.chain(state.parked_steps().map(|(step, _)| step)).collect();
        let at = which as usize % parked.len().max(1);
        parked.get(at).map(|step| (*step).clone())
    }

    /// A run that nobody knows says something.
    pub(super) fn stranger(&mut self, index: usize, which: u32, how: u32) {
        if !how.is_multiple_of(3) {
            self.strangers += 1;
        }
        let from = Sender {
            run: RunId(uuid::Uuid::from_u128(77)),
            namespace: "default".into(),
            workflow_id: "other".into(),
        };
        let body = match which % 12 {
            0 if self.temper.operators => Body::Cancel {
                operation: Operation::default(),
            },
            1 | 2 => Body::ChildClosed(ChildClosed {
                child: from.run,
                step: "k1".into(),
                status: Status::Completed,
                output: Arc::default(),
                error: None,
            }),
            _ => Body::Signal {
                name: "go".into(),
                body: Arc::new(json!(which % 3)),
                sent_at: None,
            },
        };
        let number = MessageNo(self.strangers.max(1));
        self.apply(index, Input::Message { from, number, body });
    }

    /// An operator limits a queue, or lets go.
    pub(super) fn limit_a_queue(&mut self, which: u32, how: u32) {
        let most = (!which.is_multiple_of(3)).then_some(1 + which % 4);
        let rate = (self.parts.queues() && how.is_multiple_of(3)).then_some(1 + how % 5);
        let queue = if which.is_multiple_of(2) { "main" } else { "other" };
        let told = self.limiters.limit_queue(queue, most, rate, self.now);
        self.told(told);
    }

    /// The last input once more: what carries its own identity changes nothing, at the latest the second time.
    pub(super) fn repeat(&mut self) {
        let Some((index, input)) = self.last.clone() else {
            return;
        };
        self.apply(index, input.clone());
        let named = match &input {
            Input::TaskEnded { .. } | Input::Message { .. } | Input::MessageAnswered { .. } | Input::Update { .. } => {
                true
            }
            Input::Signal { operation, .. }
            | Input::Parked { operation, .. }
            | Input::RaiseLimits { operation, .. }
            | Input::Migrate { operation, .. }
            | Input::Cancel(operation)
            | Input::Terminate(operation) => operation.request_id.is_some(),
            _ => false,
        };
        if named {
            let again = format!("{input:?}");
            assert!(!self.apply(index, input), "a repeat changed something: {again}");
        }
    }
}
