//! `parallel` and `switch`.

use std::collections::BTreeSet;

use super::steps::Reader;
use super::value::{condition, no_such_word, whole, word};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected};
use crate::definition::keys::{CASE, JOIN, PARALLEL};
use crate::definition::model::{Branch, Case, Parallel, Text};
use crate::definition::names::identifier;
use crate::definition::plan::{Join, Losers};
use crate::definition::tree::{Kind, Node, Place};

impl Reader<'_> {
    pub(super) fn parallel(&mut self, node: &Node, place: &Place) -> Option<Parallel> {
        let fields = Fields::open(node, &PARALLEL, self.found)?;
        let branches = match fields.get("branches") {
            Some(branches) => self.branches(branches),
            None => {
                self.missing(&fields, "`parallel`", "branches", place);
                Vec::new()
            }
        };
        let join = fields.get("join").map(|node| self.join(node, branches.len()));
        let words = [("undo", Losers::Undo), ("keep", Losers::Keep)];
        let losers = word(&fields, "losers", &words, self.found);
        if let Some(place) = fields.key_place("losers")
            && matches!(join, None | Some(Join::All))
        {
            let message = "`losers` has no meaning where all branches have to succeed";
            let help = "remove it, or say `join: any` or `join: { at_least: n }`";
            self.found
                .push(Diagnostic::error(code::CONTRADICTION, place, message).help(help));
        }
        Some(Parallel {
            branches,
            join: join.unwrap_or(Join::All),
            losers: losers.unwrap_or(Losers::Undo),
        })
    }

    fn branches(&mut self, node: &Node) -> Vec<Branch> {
        let Kind::Object(entries) = &node.kind else {
            let wanted = "a mapping (`<name>: { steps: [ … ] }`)";
            expected(node, "`branches`", wanted, self.found);
            return Vec::new();
        };
        if entries.is_empty() {
            let message = "`branches` is empty";
            let finding = Diagnostic::error(code::BAD_VALUE, node.span.clone(), message);
            self.found.push(finding.help("add a branch"));
        }
        let mut branches: Vec<Branch> = Vec::with_capacity(entries.len());
        for (key, body) in entries {
            let name = identifier(&key.text, &key.span, "branch", self.found);
            let steps = self.body(body, "a branch");
            let Some(name) = name else { continue };
            if branches.iter().any(|earlier| earlier.name.text == name.text) {
                let message = format!("the key `{}` appears twice", name.text);
                self.found
                    .push(Diagnostic::error(code::DUPLICATE_KEY, name.place, message));
                continue;
            }
            branches.push(Branch { name, steps });
        }
        branches
    }

    fn join(&mut self, node: &Node, branches: usize) -> Join {
        match node.as_str() {
            Some("all") => return Join::All,
            Some("any") => return Join::Any,
            Some(_) => {
                let words = ["all", "any", "{ at_least: n }"];
                self.found.push(no_such_word(node, "join", words.into_iter()));
                return Join::Any;
            }
            None => {}
        }
        let Some(fields) = Fields::open(node, &JOIN, self.found) else {
            return Join::Any;
        };
        let Some(wanted) = fields.get("at_least") else {
            self.missing(&fields, "`join`", "at_least", &node.span);
            return Join::Any;
        };
        let count = whole(&fields, "at_least", u32::MAX, self.found);
        if let Some(count) = count
            && branches > 0
            && usize::try_from(count).is_ok_and(|count| count > branches)
        {
            let message = format!("`at_least` is {count}, and there are {branches} branches");
            let finding = Diagnostic::error(code::BAD_VALUE, wanted.span.clone(), message);
            self.found.push(finding.help("ask for as many as there are, or fewer"));
        }
        count.map_or(Join::Any, Join::AtLeast)
    }

    pub(super) fn switch(&mut self, node: &Node) -> Option<Vec<Case>> {
        let Kind::Array(items) = &node.kind else {
            let wanted = "a list of cases (`- { when: …, steps: [ … ] }`)";
            expected(node, "`switch`", wanted, self.found);
            return None;
        };
        if items.is_empty() {
            let message = "`switch` has no cases";
            let finding = Diagnostic::error(code::BAD_VALUE, node.span.clone(), message);
            self.found.push(finding.help("add a case"));
        }
        let cases: Vec<Case> = items.iter().filter_map(|item| self.case(item)).collect();
        self.nothing_after_else(&cases);
        Some(cases)
    }

    fn case(&mut self, node: &Node) -> Option<Case> {
        let fields = Fields::open(node, &CASE, self.found)?;
        if let Some(otherwise) = fields.get("else") {
            for key in ["when", "steps"] {
                if let Some(place) = fields.key_place(key) {
                    let message = format!("`{key}` has no meaning beside `else`");
                    let help = "write `- else: { steps: [ … ] }` as a case of its own";
                    self.found
                        .push(Diagnostic::error(code::CONTRADICTION, place, message).help(help));
                }
            }
            return Some(Case {
                when: None,
                steps: self.body(otherwise, "`else`"),
                place: fields.key_place("else").unwrap_or_default(),
            });
        }
        if fields.get("when").is_none() {
            self.missing(&fields, "a case of `switch`", "when", &node.span);
        }
        let when = condition(&fields, "when", self.found).unwrap_or(Text {
            text: "true".to_owned(),
            place: node.span.clone(),
        });
        Some(Case {
            when: Some(when),
            steps: self.main_body(&fields, "a case of `switch`", &node.span),
            place: fields.key_place("when").unwrap_or_else(|| node.span.clone()),
        })
    }

    fn nothing_after_else(&mut self, cases: &[Case]) {
        let mut has_else = false;
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for case in cases {
            let condition = case.when.as_ref().map(|when| when.text.as_str());
            let (message, help) = if has_else {
                (
                    "this case is never reached: `else` stands before it",
                    "move `else` to the end",
                )
            } else if condition.is_some_and(|condition| !seen.insert(condition)) {
                (
                    "this case is never reached: the same condition stands before it",
                    "remove it, or ask for something else",
                )
            } else {
                has_else = condition.is_none();
                continue;
            };
            self.found
                .push(Diagnostic::error(code::UNREACHABLE, case.place.clone(), message).help(help));
        }
    }
}
