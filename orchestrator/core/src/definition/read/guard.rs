//! `try` and `scope`.

use std::collections::BTreeSet;

use super::steps::Reader;
use super::value::{error_type, error_types};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected};
use crate::definition::keys::{CATCH, SCOPE, TRY};
use crate::definition::model::{Catch, Savepoint, Try};
use crate::definition::tree::{Kind, Node, Place};

impl Reader<'_> {
    pub(super) fn guard(&mut self, node: &Node, place: &Place) -> Option<Try> {
        let fields = Fields::open(node, &TRY, self.found)?;
        let steps = self.main_body(&fields, "`try`", place);
        let is_body = |id: &str| {
            let number = id.strip_prefix("catch_");
            id == "finally" || number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        self.apart_from_bodies(&steps, is_body, "`try`");
        if fields.get("catch").is_none() && fields.get("finally").is_none() {
            let message = "`try` has neither `catch` nor `finally`";
            self.found
                .push(Diagnostic::error(code::MISSING_KEY, place.clone(), message));
        }
        let catches = match fields.get("catch") {
            Some(node) => self.catches(node),
            None => Vec::new(),
        };
        Some(Try {
            steps,
            catches,
            finally: fields.get("finally").map(|node| self.body(node, "`finally`")),
        })
    }

    fn catches(&mut self, node: &Node) -> Vec<Catch> {
        let Kind::Array(items) = &node.kind else {
            let wanted = "a list (`- { type: [ … ], steps: [ … ] }`)";
            expected(node, "`catch`", wanted, self.found);
            return Vec::new();
        };
        if items.is_empty() {
            let message = "`catch` is empty";
            let finding = Diagnostic::error(code::BAD_VALUE, node.span.clone(), message);
            self.found
                .push(finding.help("add a mapping with `steps`, or remove it"));
        }
        let catches: Vec<Catch> = items.iter().filter_map(|item| self.catch(item)).collect();
        self.nothing_after_catch_all(&catches);
        catches
    }

    fn nothing_after_catch_all(&mut self, catches: &[Catch]) {
        let mut all = false;
        let mut caught: BTreeSet<&str> = BTreeSet::new();
        for catch in catches {
            let (message, help) = if all {
                (
                    "this `catch` is never reached: the one before it catches every error",
                    "move the one without `type` to the end",
                )
            } else if !catch.types.is_empty() && catch.types.iter().all(|one| caught.contains(one.as_str())) {
                (
                    "this `catch` is never reached: its errors are caught before it",
                    "remove it, or name other errors",
                )
            } else {
                all = catch.types.is_empty();
                caught.extend(catch.types.iter().map(String::as_str));
                continue;
            };
            let finding = Diagnostic::error(code::UNREACHABLE, catch.place.clone(), message);
            self.found.push(finding.help(help));
        }
    }

    fn catch(&mut self, node: &Node) -> Option<Catch> {
        let fields = Fields::open(node, &CATCH, self.found)?;
        let types = match fields.get("type") {
            None => Vec::new(),
            Some(one) if matches!(one.kind, Kind::String(_)) => error_type(one, self.found).into_iter().collect(),
            Some(list) => {
                if matches!(&list.kind, Kind::Array(items) if items.is_empty()) {
                    let message = "`type` names no error";
                    let finding = Diagnostic::error(code::BAD_VALUE, list.span.clone(), message);
                    self.found
                        .push(finding.help("name one, or leave `type` out to catch every error"));
                }
                error_types(list, "`type`", self.found)
            }
        };
        Some(Catch {
            types,
            steps: self.main_body(&fields, "a `catch`", &node.span),
            place: fields.key_place("type").unwrap_or_else(|| node.span.clone()),
        })
    }

    pub(super) fn scope(&mut self, node: &Node, place: &Place) -> Option<Savepoint> {
        let fields = Fields::open(node, &SCOPE, self.found)?;
        let steps = self.main_body(&fields, "`scope`", place);
        self.apart_from_bodies(&steps, |id| id == "otherwise", "`scope`");
        Some(Savepoint {
            steps,
            otherwise: fields.get("otherwise").map(|node| self.body(node, "`otherwise`")),
        })
    }
}
