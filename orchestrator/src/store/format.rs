//! Storage formats: what a replica of an earlier version could not read, and so is not written before it has gone.
//!
//! | level | what it brought |
//! |---|---|
//! | 4 | retry of runs, and the attempts that come of it; what an undo that is parked means for the others, where its step says so; tasks that are taken out of their queue when they are not needed any more; queries of definitions, and handlers of signals and of updates; starts with a delay; that a step may have been done before it was tried again, in runs whose tasks are taken out of their queue; that a trigger is told of a start which an open run has taken in |
//! | 3 | runs that wait before they begin, for their workflow id or for a place; priorities of runs; triggers, definitions that have any, and runs that they start |
//! | 2 | the output of a step that an operator marked as done; limits of runs that are not as by default, and those that an operator raised; runs that have moved to another version; schedules; of activities the timeouts beside start-to-close, cancellation types, details of heartbeats, silence, claims and *later*; limits of activities and queues, and permits; births without what their run's row says |
//!
//! What a definition asks for is refused where it is registered, what somebody says of a run or a queue where it is taken: so
//! nothing that comes of it is met later. Whoever adds to a stored format adds a level, and a row here.

use knarr_core::definition::plan::{Activity, Call, Cancellation, Node, NodeKind, Plan, Timeouts, Undo};

/// The newest storage format that this binary can read. What it writes is of the cluster's level, which is raised once
/// every session's binary can read more, and never falls.
pub const FORMAT_LEVEL: i32 = 4;

/// The level of everything that the second one brought.
pub const SECOND: i32 = 2;
/// The same of the third.
pub const THIRD: i32 = 3;
/// And of the fourth.
pub const FOURTH: i32 = 4;

/// The level that definitions like this one, and what their runs store, belong to.
pub fn of_plan(plan: &Plan) -> i32 {
    let halts = |node: &Node| match &node.kind {
        NodeKind::Activity(activity) => match &activity.undo {
            Undo::Compensate(call) => call.on_exhausted.is_some(),
            Undo::ReadOnly | Undo::None { .. } => false,
        },
        _ => false,
    };
    if plan.retry.is_some() || !plan.queries.is_empty() || !plan.handlers.is_empty() || plan.nodes.iter().any(halts) {
        return FOURTH;
    }
    if plan.concurrency.is_some() || plan.priority.is_some() || !plan.triggers.is_empty() {
        return THIRD;
    }
    let newer = plan.schedule.is_some()
        || plan.nodes.iter().any(|node| match &node.kind {
            NodeKind::Activity(activity) => is_of_second(activity),
            _ => false,
        });
    if newer { SECOND } else { 1 }
}

fn is_of_second(activity: &Activity) -> bool {
    let has_timeouts = |call: &Call| call.timeouts != Timeouts::default();
    let undo = match &activity.undo {
        Undo::Compensate(call) => has_timeouts(call),
        Undo::ReadOnly | Undo::None { .. } => false,
    };
    undo || has_timeouts(&activity.call)
        || activity.cancellation != Cancellation::default()
        || activity.limiting.is_some()
}

#[cfg(test)]
mod tests {
    use knarr_core::definition;

    use super::*;

    fn level(head: &str, more: &str) -> i32 {
        let text = format!(
            "workflow: order\nversion: 1\n{head}defaults: {{ queue: orders, start_to_close: 10s, retry: {{ maximum_attempts: 3 }} }}\n\
             steps:\n  - all:\n      parallel:\n        branches:\n          a: {{ steps: [ {{ pay: {{ activity: pay, {more} }} }} ] }}\n"
        );
        let checked = definition::read(&text, &|_| Err(String::new()));
        of_plan(&checked.unwrap_or_else(|findings| panic!("{findings:?}")).plan)
    }

    #[test]
    fn what_an_earlier_version_could_not_read_is_of_a_later_level() {
        for more in [
            "read_only: true",
            "compensate: refund",
            "read_only: true, retry: { maximum_attempts: 1 }",
        ] {
            assert_eq!(level("", more), 1, "{more}");
        }
        for more in [
            "read_only: true, schedule_to_start: 5s",
            "read_only: true, schedule_to_close: 1h",
            "read_only: true, heartbeat: 5s",
            "compensate: { activity: refund, heartbeat: 5s }",
            "read_only: true, cancellation: abandon",
            "read_only: true, concurrency: { limit: 2 }",
            "read_only: true, rate: { limit: 2, per: 1s }",
            "read_only: true, priority: 1",
        ] {
            assert_eq!(level("", more), SECOND, "{more}");
        }
        for head in ["concurrency: { limit: 2 }\n", "priority: 1\n"] {
            assert_eq!(level(head, "read_only: true"), THIRD, "{head}");
        }
        let handler = "signals: { paid: { steps: [ { note: { set: { paid: true } } } ] } }\n";
        assert_eq!(level(handler, "read_only: true"), FOURTH);
        assert_eq!(
            level("queries: { paid: steps.pay is defined }\n", "read_only: true"),
            FOURTH
        );
        assert_eq!(level("retry: { maximum_attempts: 2 }\n", "read_only: true"), FOURTH);
        let halting = "compensate: { activity: refund, on_exhausted: halt }";
        assert_eq!(level("", halting), FOURTH);
        assert_eq!(
            level("compensation: { on_exhausted: halt }\n", halting),
            1,
            "as it is anyway"
        );
        assert_eq!(level("schedule: { cron: '0 0 * * *' }\n", "read_only: true"), SECOND);
    }
}
