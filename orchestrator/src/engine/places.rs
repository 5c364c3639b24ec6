//! Places that were granted to runs which are not there any more.
//!
//! A limiter that speaks again after the log was lost, or that hears an old copy of an ask, speaks to whoever asked. That run may
//! be gone while another one that continues it, under the same workflow id, has its place: whoever has the id is asked first.

use knarr_core::ids::{MessageNo, RunId};
use knarr_core::limit::{LimitKind, LimitName};
use knarr_core::run::message::{Answer, Sender};
use knarr_core::time::Timestamp;

use super::job::{Job, JobKind};
use super::live::IdKey;
use super::look_up::Absent;
use super::perform::{Step, sender};
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::Store;

/// What a limiter says to whoever asked for a place.
#[derive(Debug, Clone)]
pub(super) struct GrantedPlace {
    to: Sender,
    ask: MessageNo,
    limit: LimitName,
    at: Option<Timestamp>,
}

impl GrantedPlace {
    pub(super) fn of(job: &Job) -> Option<Self> {
        let JobKind::Answered { run_id, number, answer } = &job.kind else {
            return None;
        };
        let Answer::Granted { limit, at } = answer else {
            return None;
        };
        let is_place = limit.kind == LimitKind::Workflow;
        Some(Self {
            to: sender(*run_id, job.origin.message().filter(|_| is_place)?)?,
            ask: *number,
            limit: limit.clone(),
            at: *at,
        })
    }

    pub(super) fn key(&self) -> IdKey {
        (self.to.namespace.clone(), self.to.workflow_id.clone())
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Gives a place back whose run is not there, unless another one has it.
    pub(super) fn place_of_absent(&mut self, job: Job, place: GrantedPlace) -> Step {
        let key = place.key();
        if self.live.id(&key).is_none() {
            return Step::Lacks(Box::new(job));
        }
        if self.continues_first(&key) {
            return Step::Blocked(Box::new(job));
        }
        let open = self.live.id(&key).and_then(|info| info.open());
        let is_had = match open.map(|known| known.row.run_id) {
            None => false,
            Some(open) => match self.holds(open, &place) {
                Some(holds) => holds,
                None => return Step::Lacks(Box::new(job)),
            },
        };
        if !is_had {
            self.give_back_for(place.to, place.ask, place.limit);
        }
        self.taken(&job.origin, None);
        self.building.inputs += 1;
        Step::Done
    }

    /// `None` = it has to be loaded. What cannot be read may have it.
    fn holds(&self, open: RunId, place: &GrantedPlace) -> Option<bool> {
        match (self.live.get(open), self.absent.get(&open)) {
            (Some(live), _) => Some(live.state.has_place(place.to.run, place.ask, place.at)),
            (None, Some(Absent::Missing)) => Some(false),
            (None, Some(Absent::Unreadable | Absent::Elsewhere)) => Some(true),
            (None, None) => None,
        }
    }
}
