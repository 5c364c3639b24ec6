//! A schedule that waits for an operator.

use super::*;

#[test]
fn a_parked_schedule_waits_for_an_operator() {
    let mut nightly = Actor::new("every: 10s");
    nightly.take(
        Input::Park {
            reason: "poison".into(),
        },
        second(1),
    );
    assert_eq!(
        (nightly.state.status(), nightly.state.wake_at()),
        (Status::Parked, None)
    );
    nightly.ask(Command::Resume, "r", second(25)).unwrap();
    assert_eq!(nightly.started().len(), 1);
}

/// Found by simulation: whoever had a parked schedule tried again had it end like a run without steps.
#[test]
fn a_parked_schedule_that_is_retried_goes_on() {
    let mut actor = Actor::new("every: 10s\noverlap: buffer_all");
    actor.wake(second(10));
    actor.wake(second(20));
    let reason = "broken".into();
    actor.take(Input::Park { reason }, second(21));
    actor.answer(0, Answer::refused(Refusal::NotStarted, "no"), second(22));
    assert_eq!(actor.started().len(), 1, "parked, it starts nothing");
    let retried = Input::Parked {
        step: "".into(),
        direction: None,
        action: ParkedAction::Retry,
        operation: Operation::default(),
    };
    assert!(actor.take(retried, second(23)));
    assert!(!actor.state.is_closed(), "it is there still");
    assert_eq!(actor.started().len(), 2, "who waited is started");
}
