//! What is asked of a trigger, and who has asked it.

use super::*;
use crate::ids::RequestId;
use crate::run::Event;
use crate::trigger::TriggerEvent;

fn by(request: &str) -> Operation {
    Operation {
        request_id: Some(RequestId::new(request)),
        by: Some("ann".into()),
        reason: Some("so it is".into()),
    }
}

fn ask(actor: &mut Actor, command: Command, request: &str, at: Timestamp) -> bool {
    let (command, operation) = (Box::new(command), by(request));
    actor.try_apply(Input::Trigger { command, operation }, at).unwrap()
}

/// The same command again, because its answer was lost, after somebody else has said otherwise.
#[test]
fn a_repeat_of_what_changed_nothing_changes_nothing_later() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }' }");
    let opening = actor.trigger().opening;
    ask(&mut actor, Command::Resume, "r1", second(1));
    assert_eq!(actor.trigger().opening, opening, "it reads on");
    ask(&mut actor, Command::Pause, "p1", second(2));
    assert!(!ask(&mut actor, Command::Resume, "r1", second(3)));
    assert!(actor.trigger().paused.is_some());

    ask(&mut actor, Command::Pause, "p2", second(4));
    ask(&mut actor, Command::Resume, "r2", second(5));
    assert!(!ask(&mut actor, Command::Pause, "p2", second(6)));
    assert_eq!(actor.trigger().paused, None);

    // One that had a parked trigger go on resumes no pause as well.
    ask(&mut actor, Command::Pause, "p3", second(7));
    let reason = "poison".into();
    actor.try_apply(Input::Park { reason }, second(7)).unwrap();
    ask(&mut actor, Command::Resume, "r3", second(8));
    assert!(!ask(&mut actor, Command::Resume, "r3", second(9)));
    assert!(actor.trigger().paused.is_some());
}

#[test]
fn who_changes_or_deletes_a_trigger_is_recorded() {
    let mut actor = Actor::new("{ stream: S, id: '${ event.data }' }");
    let told = |actor: &mut Actor, command: Command, request: &str| {
        let (command, operation) = (Box::new(command), by(request));
        let input = Input::Trigger { command, operation };
        let transition = run::apply(&plan(), &mut actor.state, input, second(2)).unwrap();
        transition.unwrap().body().to_owned()
    };
    let spec = Some(Box::new(spec("{ stream: S, id: '${ event.data.id }' }")));
    let changed = told(&mut actor, Command::Define { version: 2, spec }, "d2");
    let deleted = told(&mut actor, Command::Define { version: 3, spec: None }, "d3");
    for (body, request) in [(changed, "d2"), (deleted, "d3")] {
        for said in [
            r#""by":"ann""#,
            r#""reason":"so it is""#,
            &format!(r#""request_id":"{request}""#),
        ] {
            assert!(body.contains(said), "{said} in {body}");
        }
    }
    // What an earlier version has stored says nothing of it.
    let spec = super::spec("{ stream: S, id: '${ event.data }' }");
    let stored = json!({ "set": { "spec": **spec.json(), "version": 1 } });
    let event = Event::Trigger(Box::new(
        serde_json::from_value::<TriggerEvent>(stored.clone()).unwrap(),
    ));
    assert_eq!(serde_json::to_value(&event).unwrap()["trigger"], stored);
}
