//! `signals:` and `updates:`: bodies that run beside the main one, once for every signal or update of their name.
//!
//! Either may come at any moment, so that in a handler each step of the main body may have run or not, and so may each
//! variable be set. What a handler's steps say can be read in the same execution alone: what others are to know it sets.

use super::facts::Facts;
use super::reference::STEP_ROOTS;
use super::schema_reference::Shape;
use super::walk::{At, Item, Walk};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::{Handled, Handler, Step, StepKind, Undo};

impl<'a> Walk<'a, '_> {
    /// Variables that a handler may set meanwhile.
    pub(super) fn may_be_set_beside(&mut self, facts: &mut Facts<'a>) {
        let definition = self.definition;
        let doubt = self.doubt("runs only when something comes".to_owned());
        for handler in definition.handlers() {
            facts.doubt_vars(&handler.steps, doubt);
        }
    }

    pub(super) fn handlers(&mut self) {
        let definition = self.definition;
        self.handled_and_awaited();
        for handler in definition.handlers() {
            let mut facts = self.beside_everything(handler.of);
            self.ends_in(handler);
            self.pivot_in(&handler.steps, "a handler, and may be passed more than once");
            let root = handler.of.root();
            let mut at = At::with_roots(STEP_ROOTS).seeing(root);
            at.items.extend(handler.schema.as_ref().map(|schema| Item {
                name: root,
                schema: Some(Shape::of(&schema.schema)),
            }));
            if let Some(validate) = &handler.validate {
                self.condition(validate, &facts, &at);
            }
            let falls = self.sequence(&handler.steps, &mut facts, &at);
            if let Some(output) = &handler.output {
                self.template(output, &facts, &at);
                if !falls {
                    let message = "the output is never evaluated: every way through the steps fails before";
                    self.found
                        .push(Diagnostic::error(code::UNREACHABLE, output.span.clone(), message));
                }
            }
        }
    }

    /// What is known when a signal or an update comes.
    fn beside_everything(&mut self, of: Handled) -> Facts<'a> {
        let definition = self.definition;
        let mut facts = Facts::none(self.index.len());
        let doubt = self.doubt(format!("may not have run when the {} comes", of.root()));
        let main = self.visible(&definition.steps);
        facts.doubt_steps(main.into_iter(), doubt);
        facts.doubt_vars(&definition.steps, doubt);
        for handler in definition.handlers() {
            facts.doubt_vars(&handler.steps, doubt);
        }
        let number = |wanted: fn(&Step) -> bool| {
            let step = self.index.steps().find(|step| wanted(step))?;
            self.index.number(&step.id.text)
        };
        // One that stands in a handler is refused anyway.
        facts.pivot = number(|step| step.activity().is_some_and(|it| it.pivot))
            .filter(|number| self.index.handler_around(*number).is_none())
            .map(|number| (number, false));
        facts.holds = number(|step| {
            step.activity()
                .is_some_and(|it| matches!(it.undo, Undo::Compensate(_)) && !it.pivot)
        });
        facts
    }

    fn handled_and_awaited(&mut self) {
        let definition = self.definition;
        let mut found = Vec::new();
        for step in self.index.steps() {
            if let StepKind::WaitFor(wait) = &step.kind
                && definition.signals.iter().any(|it| it.name.text == wait.signal.text)
            {
                let message = format!(
                    "`{}` waits for the signal `{}`, which has a handler",
                    step.id.text, wait.signal.text
                );
                found.push(Diagnostic::error(
                    code::HANDLED_AND_AWAITED,
                    wait.signal.place.clone(),
                    message,
                ));
            }
        }
        self.found.extend(found);
    }

    fn ends_in(&mut self, handler: &'a Handler) {
        handler.steps.visit(&mut |step| {
            if let StepKind::Complete(_) | StepKind::ContinueAsNew(_) = &step.kind {
                let message = format!(
                    "`{}` ends the run, and stands in the handler of `{}`",
                    step.id.text, handler.name.text
                );
                self.found
                    .push(Diagnostic::error(code::ENDS_IN_HANDLER, step.id.place.clone(), message));
            }
        });
    }

    /// A step in a handler that is read from elsewhere; whether it is one.
    pub(super) fn in_other_handler(&self, number: usize, at: &At<'a>) -> Option<&'a Handler> {
        let handler = self.index.handler_around(number)?;
        let own = at.step.and_then(|reader| self.index.handler_around(reader));
        (!own.is_some_and(|own| std::ptr::eq(own, handler))).then_some(handler)
    }
}
