//! What operators ask of a schedule: pause, trigger, backfill, update, delete.

use super::*;

#[test]
fn a_pause_is_not_made_up_for() {
    let mut nightly = Actor::new("every: 10s\noverlap: allow_all");
    assert!(nightly.ask(Command::Pause, "p", second(1)).unwrap());
    assert!(!nightly.ask(Command::Pause, "p", second(2)).unwrap(), "a repeat");
    assert_eq!(nightly.state.wake_at(), None);
    nightly.wake(second(35));
    assert!(nightly.ask(Command::Resume, "r", second(35)).unwrap());
    assert_eq!(nightly.started().len(), 0);
    assert_eq!(nightly.state.wake_at(), Some(second(40)));
    // An old request is no new one.
    assert!(!nightly.ask(Command::Pause, "p", second(36)).unwrap());
    assert_eq!(nightly.schedule().paused, None);
}

/// The same command again, because its answer was lost, after somebody else has said otherwise.
#[test]
fn a_repeat_of_what_changed_nothing_changes_nothing_later() {
    let mut nightly = Actor::new("every: 10s");
    nightly.ask(Command::Resume, "r1", second(1)).unwrap();
    assert_eq!(nightly.state.wake_at(), Some(second(10)));
    nightly.ask(Command::Pause, "p1", second(2)).unwrap();
    assert!(!nightly.ask(Command::Resume, "r1", second(3)).unwrap());
    assert!(nightly.schedule().paused.is_some());

    nightly.ask(Command::Pause, "p2", second(4)).unwrap();
    nightly.ask(Command::Resume, "r2", second(5)).unwrap();
    assert!(!nightly.ask(Command::Pause, "p2", second(6)).unwrap());
    assert_eq!(nightly.schedule().paused, None);

    // One that had a parked schedule go on resumes no pause as well.
    nightly.ask(Command::Pause, "p3", second(7)).unwrap();
    let reason = "poison".into();
    nightly.take(Input::Park { reason }, second(7));
    nightly.ask(Command::Resume, "r3", second(8)).unwrap();
    assert!(!nightly.ask(Command::Resume, "r3", second(9)).unwrap());
    assert!(nightly.schedule().paused.is_some());
}

#[test]
fn a_trigger_is_an_occurrence_of_its_own() {
    let mut nightly = Actor::new("every: 10s\npaused: true");
    nightly
        .ask(Command::Trigger { overlap: None }, "t1", second(3))
        .unwrap();
    nightly
        .ask(Command::Trigger { overlap: None }, "t1", second(3))
        .unwrap();
    assert_eq!(nightly.started(), ["nightly-20270115T080003Z-1"]);
    nightly
        .ask(Command::Trigger { overlap: None }, "t2", second(3))
        .unwrap();
    assert_eq!(nightly.became(), [Became::Skipped(Skip::Overlap)]);
    let overlap = Some(Overlap::AllowAll);
    nightly.ask(Command::Trigger { overlap }, "t3", second(3)).unwrap();
    assert_eq!(nightly.started().len(), 2);
}

/// One that waited and was named again was told as skipped, and was gone.
#[test]
fn what_two_backfills_name_is_started_once_and_not_lost() {
    for (overlap, times) in [(Overlap::BufferAll, 3), (Overlap::BufferOne, 2)] {
        let mut nightly = Actor::new("every: 10s\npaused: true");
        let backfill = |until| Command::Backfill {
            from: second(-30),
            until: second(until),
            overlap: Some(overlap),
        };
        nightly.ask(backfill(-20), "one", second(5)).unwrap();
        nightly.ask(backfill(-10), "another", second(5)).unwrap();
        let mut at = 0;
        while at < nightly.started().len() {
            nightly.close(at, Status::Completed, second(6));
            at += 1;
        }
        let expected = [
            "nightly-20270115T075930Z",
            "nightly-20270115T075940Z",
            "nightly-20270115T075950Z",
        ];
        assert_eq!(nightly.started(), expected[..times], "{overlap:?}");
    }
}

#[test]
fn a_backfill_takes_both_ends_and_one_after_the_other() {
    let mut nightly = Actor::new("every: 10s\npaused: true");
    let backfill = |from, until, overlap| Command::Backfill {
        from: second(from),
        until: second(until),
        overlap,
    };
    nightly.ask(backfill(-30, -10, None), "b", second(5)).unwrap();
    assert!(!nightly.ask(backfill(-30, -10, None), "b", second(5)).unwrap());
    nightly.wake(second(5));
    let mut at = 0;
    while at < nightly.started().len() {
        nightly.close(at, Status::Completed, second(6));
        at += 1;
    }
    assert_eq!(
        nightly.started(),
        [
            "nightly-20270115T075930Z",
            "nightly-20270115T075940Z",
            "nightly-20270115T075950Z"
        ]
    );
    assert_eq!(nightly.schedule().backfills, []);
    nightly
        .ask(backfill(-30, -10, Some(Overlap::AllowAll)), "all", second(7))
        .unwrap();
    assert_eq!(nightly.started().len(), 6);
    for (from, until, now) in [(0, 20, 10), (10, 0, 20), (-200_000, 0, 20)] {
        let refused = nightly.ask(backfill(from, until, None), "bad", second(now));
        assert!(matches!(refused, Err(Rejected::Schedule(_))), "{from} {until}");
    }
    // A long one waits for room in the buffer, and loses nothing.
    let mut nightly = Actor::new("every: 10s\npaused: true");
    nightly.ask(backfill(-11_990, 0, None), "long", second(5)).unwrap();
    nightly.ask(Command::Resume, "r", second(5)).unwrap();
    nightly.wake(second(5));
    assert_eq!(nightly.schedule().buffer.len(), 1_000);
    assert!(
        nightly.state.wake_at() > Some(second(5)),
        "it does not spin while there is no room"
    );
    let mut at = 0;
    while at < nightly.started().len() {
        nightly.close(at, Status::Completed, second(6));
        nightly.wake(second(6));
        at += 1;
    }
    assert_eq!(nightly.started().len(), 1_200);
    assert_eq!(nightly.schedule().counts.skipped, 0);
}

#[test]
fn an_update_counts_from_now_and_keeps_what_it_does_not_say() {
    let mut nightly = Actor::new("every: 10s");
    nightly.ask(Command::Pause, "p", second(1)).unwrap();
    assert!(
        !nightly
            .ask(Command::Update(spec("every: 10s")), "same", second(2))
            .unwrap()
    );
    assert!(nightly.ask(Command::Update(spec("every: 7s")), "u", second(2)).unwrap());
    assert!(nightly.schedule().paused.is_some(), "it stays paused");
    nightly
        .ask(Command::Update(spec("every: 7s\npaused: true")), "u2", second(3))
        .unwrap();
    nightly
        .ask(Command::Update(spec("every: 7s")), "u3", second(3))
        .unwrap();
    assert!(nightly.schedule().paused.is_none());
    let next = nightly.schedule().next.unwrap();
    assert!(next.nominal > second(3));
    assert_eq!(
        nightly.ask(Command::Create(spec("every: 9s")), "c", second(4)),
        Err(Rejected::ScheduleExists)
    );
    assert!(!nightly.ask(Command::Create(spec("every: 7s")), "c", second(4)).unwrap());
}

/// An outage is over, and the first that is read of the log is an update.
#[test]
fn an_update_loses_nothing_that_was_due() {
    let mut nightly = Actor::new("every: 10s\noverlap: allow_all");
    let update = Command::Update(spec("every: 7s\noverlap: allow_all"));
    nightly.ask(update, "u", second(25)).unwrap();
    assert_eq!(nightly.started(), [FIRST, SECOND_ONE]);
    assert_eq!(nightly.schedule().decided_to, second(25));
    assert!(nightly.schedule().next.unwrap().nominal > second(25));

    // Its nominal time has come, and its jitter is to pass.
    let mut nightly = Actor::new("every: 1h\njitter: 30m");
    let next = nightly.schedule().next.unwrap();
    assert!(next.at > next.nominal);
    let update = Command::Update(spec("every: 1h\njitter: 30m\nnote: told apart"));
    nightly.ask(update, "u", next.nominal).unwrap();
    assert_eq!(nightly.schedule().counts.started, 1);

    // Of very much the first, and the rest is counted.
    let update = |document: &str| Command::Update(spec(document));
    let mut nightly = Actor::new("every: 1s");
    nightly.ask(update("every: 7s"), "u", second(500)).unwrap();
    let counts = nightly.schedule().counts;
    assert_eq!((counts.started, counts.skipped, counts.missed), (1, 99, 400));

    // What is paused stays so, and what is parked starts nothing.
    let mut nightly = Actor::new("every: 10s\npaused: true");
    nightly.ask(update("every: 7s\npaused: true"), "u", second(25)).unwrap();
    assert_eq!((nightly.started().len(), nightly.schedule().counts.missed), (0, 0));
    let mut nightly = Actor::new("every: 10s");
    let reason = "poison".into();
    nightly.take(Input::Park { reason }, second(1));
    nightly.ask(update("every: 7s"), "u", second(25)).unwrap();
    assert_eq!((nightly.started().len(), nightly.schedule().counts.missed), (0, 2));
}

#[test]
fn a_definition_speaks_for_what_it_made() {
    let define = |version, spec| Command::Define { version, spec };
    let mut by_hand = Actor::new("every: 10s");
    assert_eq!(
        by_hand.ask(define(1, Some(spec("every: 9s"))), "d", second(1)),
        Err(Rejected::ScheduleExists)
    );
    assert!(!by_hand.ask(define(1, None), "d2", second(1)).unwrap());
    let mut made = Actor::new("every: 10s");
    made.state.schedule.as_mut().unwrap().version = Some(2);
    assert!(!made.ask(define(1, Some(spec("every: 9s"))), "old", second(1)).unwrap());
    assert!(
        !made
            .ask(define(2, Some(spec("every: 10s"))), "same", second(1))
            .unwrap()
    );
    assert!(made.ask(define(3, Some(spec("every: 9s"))), "new", second(1)).unwrap());
    assert_eq!(made.schedule().version, Some(3));
    assert!(made.ask(define(4, None), "gone", second(2)).unwrap());
    assert!(made.state.is_closed());
}

#[test]
fn a_deleted_schedule_starts_nothing_and_owes_what_it_has_sent() {
    let mut nightly = Actor::new("every: 10s\noverlap: buffer_all");
    nightly.wake(second(20));
    nightly.ask(Command::Delete, "d", second(21)).unwrap();
    assert!(nightly.state.is_closed());
    assert!(
        nightly.state.wake_at().is_some(),
        "the start is offered until it is answered"
    );
    nightly.answer(0, Answer::Accepted, second(22));
    assert_eq!(nightly.state.wake_at(), None);
    assert!(!nightly.close(0, Status::Completed, second(23)));
    assert_eq!(nightly.started(), [FIRST]);
    assert_eq!(
        nightly.ask(Command::Pause, "p", second(24)),
        Err(Rejected::Closed("completed"))
    );
}

#[test]
fn what_a_pause_holds_back_is_in_nobodys_way() {
    for overlap in [Overlap::Skip, Overlap::BufferOne, Overlap::CancelOther] {
        let mut actor = Actor::new("every: 10s\noverlap: buffer_all");
        actor.wake(second(10));
        actor.wake(second(20));
        actor.ask(Command::Pause, "p", second(21)).unwrap();
        actor.close(0, Status::Completed, second(22));
        assert_eq!((actor.started().len(), actor.schedule().buffer.len()), (1, 1));
        let overlap = Some(overlap);
        actor.ask(Command::Trigger { overlap }, "now", second(23)).unwrap();
        assert_eq!(
            (actor.started().len(), actor.schedule().buffer.len()),
            (2, 1),
            "{overlap:?}"
        );
    }
}

#[test]
fn who_makes_or_deletes_a_schedule_is_recorded() {
    let operation = |request: &str| Operation {
        request_id: Some(RequestId::new(request)),
        by: Some("ann".into()),
        reason: Some("so it is".into()),
    };
    let said = |body: &str, request: &str| {
        for said in [
            r#""by":"ann""#,
            r#""reason":"so it is""#,
            &format!(r#""request_id":"{request}""#),
        ] {
            assert!(body.contains(said), "{said} in {body}");
        }
    };
    for define in [false, true] {
        let mut nightly = Actor::new("every: 10s");
        let (version, spec) = (7, None);
        let command = match define {
            true => Command::Define { version, spec },
            false => Command::Delete,
        };
        if define {
            nightly.state.schedule.as_mut().unwrap().version = Some(2);
        }
        let input = Input::Schedule {
            command: Box::new(command),
            operation: operation("d"),
        };
        let transition = run::apply(&plan(), &mut nightly.state, input, second(1)).unwrap();
        said(transition.unwrap().body(), "d");
    }
}
