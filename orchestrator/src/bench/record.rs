//! What the worker has executed, by saga, and whether that is what had to be.
//!
//! A saga is known by its number, the end of its workflow id; a second run under one id would show as steps run twice.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::scenario::{ACTIVITIES, Activity};

/// More sagas than any measurement has; a number above is not one of ours.
const MAX_SAGAS: u64 = 100_000_000;
/// So many findings are put into words.
const MAX_SAMPLES: usize = 5;

/// Sixteen bytes a saga.
#[derive(Debug, Clone, Copy, Default)]
struct Course {
    /// Executions of each activity.
    ran: [u8; ACTIVITIES.len()],
    /// Activities in the order of their first executions.
    order: [Activity; ACTIVITIES.len()],
    distinct: u8,
}

#[derive(Debug, Default)]
pub(crate) struct Records {
    sagas: Vec<Course>,
    executions: u64,
}

/// What is asked of the worker at the end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Sagas `0..started` are judged.
    pub(crate) started: u64,
    /// Except these, which did not end: what they lack is no finding of its own.
    pub(crate) unended: BTreeSet<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) executions: u64,
    /// Executions beyond one of each step that had to run, and all of those that had not.
    pub(crate) over: u64,
    /// Steps that had to run and did not.
    pub(crate) missing: u64,
    /// Sagas whose steps or undos first ran in another order than they had to.
    pub(crate) disordered: u64,
    pub(crate) samples: Vec<String>,
}

impl Records {
    pub(crate) fn ran(&mut self, saga: u64, activity: Activity) {
        if saga >= MAX_SAGAS {
            return;
        }
        self.executions += 1;
        // Below MAX_SAGAS, so it fits on every machine this runs on.
        let index = saga as usize;
        if index >= self.sagas.len() {
            self.sagas.resize_with((index + 1).next_power_of_two(), Course::default);
        }
        let course = &mut self.sagas[index];
        let activity = usize::from(activity);
        if course.ran[activity] == 0 {
            course.order[usize::from(course.distinct)] = activity as Activity;
            course.distinct += 1;
        }
        course.ran[activity] = course.ran[activity].saturating_add(1);
    }

    pub(crate) fn executions(&self) -> u64 {
        self.executions
    }

    pub(crate) fn judge(&self, expected: &[Activity], question: &Question) -> Verdict {
        let mut verdict = Verdict {
            executions: self.executions,
            ..Verdict::default()
        };
        let idle = Course::default();
        for saga in 0..question.started.min(MAX_SAGAS) {
            let course = self.sagas.get(saga as usize).unwrap_or(&idle);
            let ended = !question.unended.contains(&saga);
            let finding = course.judge(expected, ended, &mut verdict);
            if finding && verdict.samples.len() < MAX_SAMPLES {
                verdict.samples.push(format!("saga {saga} ran {}", course.words()));
            }
        }
        verdict
    }
}

impl Course {
    /// Adds to the verdict; whether there was anything to find.
    fn judge(&self, expected: &[Activity], ended: bool, verdict: &mut Verdict) -> bool {
        let times = |activity: usize| u64::from(self.ran[activity]);
        let mut over = 0;
        let mut missing = 0;
        for activity in 0..ACTIVITIES.len() {
            if expected.iter().any(|one| usize::from(*one) == activity) {
                over += times(activity).saturating_sub(1);
                missing += u64::from(ended && times(activity) == 0);
            } else {
                over += times(activity);
            }
        }
        let ran = |activity: &&Activity| self.ran[usize::from(**activity)] > 0;
        let wanted = expected.iter().filter(ran);
        let order = &self.order[..usize::from(self.distinct)];
        let disordered = !order.iter().filter(|one| expected.contains(one)).eq(wanted);
        verdict.over += over;
        verdict.missing += missing;
        verdict.disordered += u64::from(disordered);
        over + missing > 0 || disordered
    }

    fn words(&self) -> String {
        if self.distinct == 0 {
            return "nothing".to_owned();
        }
        let one = |activity: &Activity| {
            let activity = usize::from(*activity);
            match self.ran[activity] {
                1 => ACTIVITIES[activity].to_owned(),
                times => format!("{} {times} times", ACTIVITIES[activity]),
            }
        };
        let order = &self.order[..usize::from(self.distinct)];
        order.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::*;

    fn judged(scenario: Scenario, course: &[Activity], unended: bool) -> (u64, u64, u64) {
        let mut records = Records::default();
        for activity in course {
            records.ran(3, *activity);
        }
        let mut question = Question {
            started: 4,
            unended: BTreeSet::from([0, 1, 2]),
        };
        if unended {
            question.unended.insert(3);
        }
        let verdict = records.judge(scenario.course(), &question);
        assert_eq!(verdict.executions, course.len() as u64);
        (verdict.over, verdict.missing, verdict.disordered)
    }

    #[test]
    fn courses_are_judged() {
        use Scenario::{Order, OrderFailing};
        // Scenario, what ran → over, missing, disordered.
        type Row = (Scenario, &'static [Activity], (u64, u64, u64));
        let table: [Row; 10] = [
            (Order, &[0, 1, 2, 3], (0, 0, 0)),
            (Order, &[0, 1, 1, 2, 3, 3, 3], (3, 0, 0)),
            (Order, &[0, 1, 3], (0, 1, 0)),
            (Order, &[1, 0, 2, 3], (0, 0, 1)),
            (Order, &[0, 1, 2, 3, 4], (1, 0, 0)),
            (OrderFailing, &[0, 1, 2, 5, 4], (0, 0, 0)),
            // Undone in the order of the steps instead of the reverse.
            (OrderFailing, &[0, 1, 2, 4, 5], (0, 0, 1)),
            // The step that failed was undone too.
            (OrderFailing, &[0, 1, 2, 6, 5, 4], (1, 0, 0)),
            // An undo that did not run.
            (OrderFailing, &[0, 1, 2, 5], (0, 1, 0)),
            // A step that ran only after the undo had begun.
            (OrderFailing, &[0, 1, 5, 2, 4], (0, 0, 1)),
        ];
        for (scenario, course, expected) in table {
            assert_eq!(judged(scenario, course, false), expected, "{scenario:?} {course:?}");
        }
    }

    #[test]
    fn what_did_not_end_lacks_nothing_but_may_have_run_too_often() {
        assert_eq!(judged(Scenario::Order, &[], true), (0, 0, 0));
        assert_eq!(judged(Scenario::Order, &[0, 0], true), (1, 0, 0));
        assert_eq!(judged(Scenario::Order, &[], false), (0, 4, 0));
    }

    #[test]
    fn findings_are_put_into_words_and_strangers_are_not_counted() {
        let mut records = Records::default();
        records.ran(0, 0);
        records.ran(0, 0);
        records.ran(MAX_SAGAS, 0);
        let question = Question {
            started: 2,
            unended: BTreeSet::new(),
        };
        let verdict = records.judge(Scenario::Order.course(), &question);
        assert_eq!(
            verdict.samples,
            ["saga 0 ran create-order 2 times", "saga 1 ran nothing"]
        );
        assert_eq!((verdict.executions, verdict.over, verdict.missing), (2, 1, 7));
    }
}
