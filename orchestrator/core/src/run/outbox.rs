//! The sender's half of [`super::message`]: pending until answered.
//!
//! | input | message | then |
//! |---|---|---|
//! | – | sent | pending; due after half a minute |
//! | wake, due | pending | sent again; the pause doubles up to five minutes, of an ask for a permit to half an hour |
//! | answered | pending | gone; a refusal of a start ends the step, one of an undo parks it |
//! | accepted | a start that was refused | its run is told to cancel |
//! | occupied | the ask of a run that is to begin in the place of another | that one is told to cancel ([`super::admission`]) |
//! | granted | an ask that was taken back | given back ([`super::permit`]), after the answer to a release that is pending |
//! | answered | not pending | nothing |
//!
//! Neither the end of the run nor its being parked stops a message from being offered: what was sent is owed.

use std::sync::Arc;

use super::decider::Decider;
use super::event::{Event, MessageSent};
use super::input::Operation;
use super::limits::{ASK_PAUSE_LONGEST, MESSAGE_PAUSE_FIRST, MESSAGE_PAUSE_LONGEST};
use super::message::{Answer, Body, Recipient};
use super::{admission, permit, workflow};
use crate::ids::MessageNo;
use crate::time::Span;

pub(super) fn send(d: &mut Decider<'_>, to: Recipient, body: Body) {
    d.emit(Event::MessageSent(Box::new(MessageSent {
        number: d.state.next_message(),
        to,
        body: Arc::new(body),
        due: d.at.plus(MESSAGE_PAUSE_FIRST),
    })));
}

/// A pending message whose answer has not come is sent again.
pub(super) fn offer_again(d: &mut Decider<'_>, number: MessageNo) {
    if let Some(pending) = d.state.mail.outbox.get(&number).filter(|pending| pending.due <= d.at) {
        let longest = match &*pending.body {
            Body::Ask(_) => ASK_PAUSE_LONGEST,
            _ => MESSAGE_PAUSE_LONGEST,
        };
        let due = d.at.plus(pause(pending.offers.saturating_add(1), longest));
        d.emit(Event::MessageOffered { number, due });
    }
}

/// A pending message is sent again at once.
pub(super) fn offer_now(d: &mut Decider<'_>, number: MessageNo) {
    if d.state.mail.outbox.contains_key(&number) {
        let due = d.at.plus(MESSAGE_PAUSE_FIRST);
        d.emit(Event::MessageOffered { number, due });
    }
}

pub(super) fn answered(d: &mut Decider<'_>, number: MessageNo, answer: Answer) {
    let Some(pending) = d.state.mail.outbox.get(&number) else {
        return contradicted(d, number, answer);
    };
    let (to, body) = (pending.to.clone(), Arc::clone(&pending.body));
    // What the answer decides has to wait for an operator, and so has the answer: it is given to every repeat.
    if d.state.parked.is_some() && matches!(*body, Body::StartChild(_) | Body::Undo { .. }) {
        return;
    }
    if let Body::Ask(ask) = &*body {
        let is_decided = match ask.is_of_run() {
            true => admission::hear(d, &answer),
            // Nothing else means that there is room.
            false => matches!(answer, Answer::Granted { .. }),
        };
        if !is_decided {
            return;
        }
    }
    d.emit(Event::MessageAnswered {
        number,
        answer: answer.clone(),
    });
    if matches!(&*body, Body::Ask(ask) if ask.is_of_run()) {
        admission::decided(d, &answer);
    }
    permit::answered(d, number, &body);
    permit::released(d, &body);
    workflow::answered(d, number, &to, &body, &answer);
    d.settle();
}

/// A start that was refused was offered once more before the refusal came, and that offer has started a run nobody waits for.
pub(super) fn contradicted(d: &mut Decider<'_>, number: MessageNo, answer: Answer) {
    if let Answer::Granted { limit, at } = answer {
        return permit::not_needed(d, number, limit, at);
    }
    let refused = d.state.mail.refused.get(&number).filter(|refused| !refused.started);
    let Some(to) = refused.map(|refused| refused.to.clone()) else {
        return;
    };
    if answer == Answer::Accepted {
        d.emit(Event::MessageAnswered { number, answer });
        let operation = Operation {
            reason: Some("its start had been refused before".into()),
            ..Operation::default()
        };
        send(d, to, Body::Cancel { operation });
    }
}

/// Before the offer of that number, counted from 0 for the first sending.
fn pause(offer: u32, longest: Span) -> Span {
    let doubled = MESSAGE_PAUSE_FIRST.0.saturating_mul(1 << offer.min(16));
    Span(doubled).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_half_a_minute_to_five() {
        let seconds = |longest| [0, 1, 2, 3, 4, u32::MAX].map(|offer| pause(offer, longest).as_millis() / 1_000);
        assert_eq!(seconds(MESSAGE_PAUSE_LONGEST), [30, 60, 120, 240, 300, 300]);
        assert_eq!(seconds(ASK_PAUSE_LONGEST), [30, 60, 120, 240, 480, 1_800]);
    }
}
