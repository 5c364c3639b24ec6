//! How runs that overlap are dealt with, and what bounds them.

use super::*;

#[test]
fn skip_leaves_out_what_comes_due_while_a_run_is_open() {
    let mut nightly = Actor::new("every: 10s");
    nightly.wake(second(10));
    nightly.wake(second(20));
    assert_eq!(nightly.started(), [FIRST]);
    assert_eq!(nightly.became(), [Became::Skipped(Skip::Overlap)]);
    nightly.answer(0, Answer::Accepted, second(21));
    assert!(nightly.close(0, Status::Completed, second(25)));
    assert!(
        !nightly.close(0, Status::Completed, second(25)),
        "a repeat changes nothing"
    );
    nightly.wake(second(30));
    assert_eq!(nightly.started(), [FIRST, THIRD]);
}

#[test]
fn buffer_one_keeps_one_and_buffer_all_keeps_all() {
    for (policy, then) in [
        ("buffer_one", vec![FIRST, SECOND_ONE]),
        ("buffer_all", vec![FIRST, SECOND_ONE, THIRD]),
    ] {
        let mut nightly = Actor::new(&format!("every: 10s\noverlap: {policy}"));
        for n in 1..=3 {
            nightly.wake(second(10 * n));
        }
        assert_eq!(nightly.started(), [FIRST]);
        let mut at = 0;
        while at < nightly.started().len() {
            nightly.close(at, Status::Completed, second(35));
            at += 1;
        }
        assert_eq!(nightly.started(), then, "{policy}");
    }
}

#[test]
fn cancel_and_terminate_other_stop_what_is_open_and_start_the_latest() {
    for policy in ["cancel_other", "terminate_other"] {
        let mut nightly = Actor::new(&format!("every: 10s\noverlap: {policy}"));
        nightly.wake(second(10));
        nightly.wake(second(20));
        assert_eq!(nightly.stops().len(), 0, "not before its start is accepted");
        nightly.answer(0, Answer::Accepted, second(21));
        nightly.wake(second(30));
        let stops = nightly.stops();
        assert_eq!(stops.len(), 1, "told once");
        assert_eq!(matches!(stops[0], Body::Cancel { .. }), policy == "cancel_other");
        assert_eq!(nightly.became(), [Became::Skipped(Skip::Replaced)]);
        nightly.close(0, Status::Cancelled, second(31));
        assert_eq!(nightly.started(), [FIRST, THIRD]);
        // One that is not there any more cannot be waited for.
        nightly.answer(1, Answer::Accepted, second(32));
        nightly.wake(second(40));
        let (number, ..) = nightly.sent.last().unwrap().clone();
        let answer = Answer::refused(Refusal::NoRun, "gone");
        nightly.take(Input::MessageAnswered { number, answer }, second(41));
        assert_eq!(nightly.started().len(), 3);
        assert!(nightly.became().contains(&Became::Lost));
    }
}

#[test]
fn allow_all_starts_everything_up_to_a_limit() {
    let mut nightly = Actor::new("every: 1s\noverlap: allow_all");
    nightly.wake(second(2_001));
    assert_eq!(nightly.started().len(), 2_000);
    assert_eq!(nightly.became(), [Became::Skipped(Skip::Full)]);
    assert_eq!(nightly.schedule().decided_to, second(2_001));
}

#[test]
fn a_transition_starts_fewer_where_inputs_are_large() {
    let text = "x".repeat(64 << 10);
    let mut nightly = Actor::new(&format!("every: 1s\noverlap: allow_all\ninput: {{ text: {text} }}"));
    nightly.take(Input::Wake(Horizon::default()), second(100));
    let started = nightly.started().len();
    assert!((16..40).contains(&started), "{started}");
    // The rest is due at once.
    assert!(nightly.state.wake_at().is_some_and(|due| due <= second(100)));
    nightly.wake(second(100));
    assert_eq!(nightly.started().len(), 100);
}

#[test]
fn however_many_are_open_they_are_told_to_stop() {
    let mut nightly = Actor::new("every: 1s\noverlap: allow_all");
    nightly.wake(second(2_000));
    assert_eq!(nightly.schedule().running.len(), 2_000);
    let update = Command::Update(spec("every: 1s\noverlap: cancel_other"));
    nightly.ask(update, "u", second(2_000)).unwrap();
    nightly.wake(second(2_001));
    let schedule = nightly.schedule();
    assert_eq!((schedule.buffer.len(), schedule.counts.skipped), (1, 0));
    assert!(schedule.running.values().all(|running| running.stopping.is_some()));
}

#[test]
fn the_buffer_is_bounded() {
    let mut nightly = Actor::new("every: 1s\noverlap: buffer_all");
    nightly.wake(second(1_010));
    let schedule = nightly.schedule();
    assert_eq!((schedule.running.len(), schedule.buffer.len()), (1, 1_000));
    assert_eq!(schedule.counts.skipped, 9);
    assert_eq!(schedule.past.last().unwrap().became, Became::Skipped(Skip::Full));
}

/// Cancelled, it may go on for long, or wait for a person.
#[test]
fn one_that_is_told_to_cancel_can_be_terminated() {
    let mut nightly = Actor::new("every: 10s\noverlap: cancel_other");
    nightly.wake(second(10));
    nightly.answer(0, Answer::Accepted, second(11));
    nightly.wake(second(20));
    assert!(matches!(nightly.stops()[..], [Body::Cancel { .. }]));
    let terminate = Command::Trigger {
        overlap: Some(Overlap::TerminateOther),
    };
    nightly.ask(terminate.clone(), "t1", second(21)).unwrap();
    assert!(matches!(
        nightly.stops()[..],
        [Body::Cancel { .. }, Body::Terminate { .. }]
    ));
    // Once; and nobody who is terminated is told to cancel.
    nightly.ask(terminate, "t2", second(22)).unwrap();
    nightly.wake(second(30));
    assert_eq!(nightly.stops().len(), 2);
}
