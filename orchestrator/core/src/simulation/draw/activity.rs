//! Activities, with everything that one may say of itself.

use super::Pen;
use crate::simulation::draft::{Activity, Attempts, Kind, Options, Undo};

impl Pen<'_> {
    pub(super) fn undo(&mut self, id: &str, activity: &mut Activity) {
        activity.undo = match self.words.below(14) {
            0 => Undo::ReadOnly,
            1 => Undo::NoUndo,
            2 => Undo::Undeclared,
            3 => Undo::Compensate(None),
            4 => Undo::Compensate(Some("${ error.message }".to_owned())),
            5 => Undo::Compensate(Some("${ input.rare.id }".to_owned())),
            _ => Undo::Compensate(Some(format!("${{ steps.{id}.id | default(none) }}"))),
        };
        if activity.pivot && activity.undo == Undo::ReadOnly {
            activity.undo = Undo::NoUndo;
        }
        activity.compensate_on_failure = matches!(activity.undo, Undo::Compensate(_)) && self.words.one_in(8);
    }

    pub(super) fn activity(&mut self) -> Kind {
        let pivot = self.words.one_in(9);
        let input = match self.words.below(10) {
            0..=4 => None,
            5 => Some("${ input.rare.id }".to_owned()),
            6 => Some("${ vars.v | default(1) }".to_owned()),
            7 => self.items.last().map(|item| format!("${{ {item} }}-${{ index }}")),
            _ => Some("${ input.n } of ${ run.attempt | default(1) }".to_owned()),
        };
        let mut activity = Activity {
            input,
            undo: Undo::Undeclared,
            on_failure_continues: !pivot && self.words.one_in(8),
            compensate_on_failure: false,
            pivot,
            attempts: self.words.pick(&[
                None,
                None,
                Some(Attempts::AtMost(1)),
                Some(Attempts::AtMost(3)),
                Some(Attempts::Unlimited),
            ]),
            start_to_close_secs: 1 + self.words.below(20),
            queue: self.words.one_in(4).then_some("other"),
            non_retryable: self.words.one_in(8),
            options: Options::default(),
        };
        if self.words.one_in(4) {
            self.options(&mut activity);
        }
        Kind::Activity(activity)
    }

    /// What makes one timeout idle by another is a finding.
    fn options(&mut self, activity: &mut Activity) {
        let words = &mut *self.words;
        let span = activity.start_to_close_secs;
        let options = &mut activity.options;
        options.schedule_to_close_secs = words.one_in(3).then(|| span + 1 + words.below(40));
        options.schedule_to_start_secs = words.one_in(3).then(|| 1 + words.below(span));
        options.heartbeat_secs = (words.one_in(3) && span > 1).then(|| 1 + words.below(span - 1));
        let ends = options.schedule_to_close_secs.or(options.heartbeat_secs).is_some();
        options.cancellation = match words.below(5) {
            1 => Some("try_cancel"),
            2 | 3 if ends => Some("wait_cancelled"),
            4 if !activity.pivot => Some("abandon"),
            _ => None,
        };
        options.concurrency = words.one_in(3).then(|| (1 + words.below(3), words.one_in(2)));
        options.rate = words.one_in(6).then(|| (1 + words.below(3), words.one_in(2)));
        options.priority = words.one_in(4).then(|| 1 + words.below(5));
        options.fair = words.one_in(6);
    }
}
