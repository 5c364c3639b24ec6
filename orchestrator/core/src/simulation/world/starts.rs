//! Starts of a workflow id that another run has, or has had.

use super::World;
use super::inputs::TOO_MANY;
use crate::ids::WorkflowId;
use crate::run::Admission;
use crate::run::input::{AnswerOn, AnswerRequest, Input, Operation};

impl World<'_> {
    /// The run that has the workflow id.
    pub(super) fn holder(&self, id: &WorkflowId) -> Option<usize> {
        let mut runs = self.runs.iter();
        runs.position(|run| run.state.workflow_id() == id && run.state.holds_workflow_id())
    }

    /// By `fail`, `use_existing`, `terminate_existing` or `queue`.
    pub(super) fn start_again(&mut self, index: usize, which: u32, how: u32) {
        let id = self.runs[index].state.workflow_id().clone();
        // Each occurrence of a schedule has an id of its own, and so has each child.
        let is_anybodys = ["root-", "t-"].iter().any(|prefix| id.as_str().starts_with(prefix));
        if !is_anybodys || self.runs.len() >= TOO_MANY {
            return;
        }
        if self.holder(&id).is_none() {
            self.call_next(&id);
        }
        let mut start = self.outside(id.clone(), which % 0x1000);
        match (self.holder(&id), how % 8) {
            (None, _) => {}
            (Some(_), 0) => return,
            (Some(open), 1) => {
                let request = AnswerRequest {
                    to: "another".into(),
                    on: AnswerOn::Closed,
                };
                self.apply(open, Input::Await(request));
                return;
            }
            // The new one goes before those in line.
            (Some(open), 2 | 3) => {
                if !self.apply(open, Input::Terminate(Operation::default())) {
                    return;
                }
            }
            (Some(_), _) => start.queued = true,
        }
        let (queued, run) = (start.queued, start.run_id);
        if self.open(&self.plans[0], start) && queued {
            self.line.entry(id).or_default().push(run);
        }
    }

    /// The id may be free: the first in line has it.
    pub(super) fn call_next(&mut self, id: &WorkflowId) {
        while self.holder(id).is_none() {
            let Some(line) = self.line.get_mut(id).filter(|line| !line.is_empty()) else {
                return;
            };
            let next = line.remove(0);
            let index = self.find(next).expect("who is in line is a run");
            if self.runs[index].state.admission() != Some(Admission::Id) {
                assert!(self.runs[index].state.is_closed(), "{next} has overtaken its line");
                continue;
            }
            let taken = self.apply(index, Input::IdFree);
            assert!(taken, "{next} does not want its workflow id");
        }
    }

    pub(super) fn call_all(&mut self) {
        let ids: Vec<_> = self.line.keys().cloned().collect();
        for id in ids {
            self.call_next(&id);
        }
    }
}
