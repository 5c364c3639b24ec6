//! Messages of a trigger's stream that were left out between two that were read: nobody wants them, or they were dropped.
//!
//! The stream is asked which, though seldom, since where a filter leaves out much each message is behind a hole. What is not asked
//! about at once is asked about together: from the oldest hole on.

use std::time::Duration;

use knarr_core::trigger::source::{Gap, Loss, Place};
use tokio::time::Instant;

/// The pause after a look that has found nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Holes {
    /// The place before the oldest one that nobody has looked at.
    oldest: Option<Place>,
    /// When nothing was found last.
    looked_at: Instant,
}

impl Holes {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            oldest: None,
            looked_at: now,
        }
    }

    /// Behind which place the stream is to be looked at now, before the message `next` is taken.
    pub(super) fn due(&mut self, place: &Place, next: u64, now: Instant) -> Option<Place> {
        if self.oldest.as_ref().is_some_and(|oldest| oldest.stream != place.stream) {
            self.oldest = None;
        }
        if next > place.sequence + 1 {
            self.oldest.get_or_insert_with(|| place.clone());
        }
        let is_due = now.duration_since(self.looked_at) >= LOOK_EVERY;
        self.oldest.clone().filter(|_| is_due)
    }

    /// The stream begins with `first`, `None` where it did not answer. What was lost behind the hole, if anything was; what was
    /// read meanwhile stays read.
    pub(super) fn looked(&mut self, hole: Place, place: &Place, first: Option<u64>, now: Instant) -> Option<Gap> {
        let Some(first) = first else {
            self.looked_at = now;
            return None;
        };
        self.oldest = None;
        if first <= hole.sequence + 1 {
            self.looked_at = now;
            return None;
        }
        let resumes = Place {
            sequence: (first - 1).max(place.sequence),
            ..place.clone()
        };
        Some(Gap {
            why: Loss::Purged,
            after: hole,
            resumes,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use knarr_core::time::Timestamp;

    use super::*;

    fn place(sequence: u64) -> Place {
        Place {
            stream: Arc::from("s"),
            sequence,
            at: Timestamp::default(),
        }
    }

    #[test]
    fn a_loss_soon_after_a_look_is_told_by_the_next() {
        let begin = Instant::now();
        let mut holes = Holes::new(begin);
        let second = |n| begin + Duration::from_secs(n);
        // Nobody wanted what lay there.
        assert_eq!(holes.due(&place(1), 4, second(5)), Some(place(1)));
        assert_eq!(holes.looked(place(1), &place(1), Some(1), second(5)), None);
        // Within the pause messages are dropped, and others after them are read.
        assert_eq!(holes.due(&place(4), 9, second(6)), None);
        assert_eq!(holes.due(&place(9), 10, second(7)), None);
        let hole = holes.due(&place(10), 11, second(10)).unwrap();
        assert_eq!(hole, place(4));
        let gap = holes.looked(hole, &place(10), Some(8), second(10)).unwrap();
        assert_eq!((gap.after, gap.resumes), (place(4), place(10)), "nothing is read again");
        // After one that has found something the next is not put off.
        let hole = holes.due(&place(11), 20, second(10)).unwrap();
        let gap = holes.looked(hole, &place(11), Some(20), second(10)).unwrap();
        assert_eq!((gap.after, gap.resumes), (place(11), place(19)));
        assert_eq!(holes.due(&place(19), 20, second(60)), None, "there is no other");
    }

    #[test]
    fn a_stream_that_does_not_answer_is_asked_again_after_a_while() {
        let begin = Instant::now();
        let mut holes = Holes::new(begin);
        let second = |n| begin + Duration::from_secs(n);
        let hole = holes.due(&place(1), 4, second(5)).unwrap();
        assert_eq!(holes.looked(hole, &place(1), None, second(5)), None);
        assert_eq!(holes.due(&place(4), 5, second(6)), None);
        assert_eq!(holes.due(&place(5), 6, second(10)), Some(place(1)));
        // Another stream in its place has no such hole.
        let other = Place {
            stream: Arc::from("other"),
            ..place(1)
        };
        assert_eq!(holes.due(&other, 2, second(20)), None);
    }
}
