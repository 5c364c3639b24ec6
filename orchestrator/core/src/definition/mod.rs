//! Definitions: from YAML or JSON to a checked, compiled [`plan::Plan`].
//!
//! The way of a document: text → `yaml` (a tree of values that know where they stand) → `read` (the `model`) → `resolve`
//! (every default filled in) → `check` (expressions and what they refer to, on every way through the steps) and `advice`
//! (what is legal and unwise) → `canonical` (the JSON that is hashed and stored) and `compile` (the plan). Each stage adds
//! findings and goes on with what it has, so that one reading reports everything.
//!
//! **Invariant:** [`from_canonical`] gives the same plan and hash for every canonical form that [`read`] produced: the
//! canonical form holds every default, so that a later version with other defaults changes nothing about it.
//!
//! What this module does not do: files (the caller reads them), registration, and running.

mod advice;
mod canonical;
mod check;
pub mod code;
mod compile;
pub mod diagnostic;
pub mod diff;
pub mod duration;
mod fields;
pub mod graph;
mod keys;
mod model;
mod names;
pub mod near;
pub mod plan;
mod read;
mod resolve;
mod schema;
pub mod test_file;
mod tree;
mod yaml;

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::expression::Template;
use crate::ids::DefinitionHash;
use crate::schedule::Spec;
use crate::trigger;
use diagnostic::{Diagnostic, Severity};
use plan::Plan;

pub use yaml::{MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_NODES};

/// Findings that are given at once, the errors before the others.
pub const MAX_FINDINGS: usize = 500;

/// A definition without errors.
#[derive(Debug)]
pub struct Checked {
    /// What is stored and hashed: JSON, defaults filled in, files inlined.
    pub canonical: String,
    pub hash: DefinitionHash,
    pub plan: Plan,
    /// Warnings and notices.
    pub findings: Vec<Diagnostic>,
}

/// Reads and checks a document and reports everything that is to be said about it, in the order of the text.
///
/// `files` gives the content of a file that the document names (relative to it), or a reason why not.
pub fn read(text: &str, files: &dyn Fn(&str) -> Result<String, String>) -> Result<Checked, Vec<Diagnostic>> {
    let tree = yaml::parse(text).map_err(|finding| vec![finding])?;
    let mut findings = Vec::new();
    let Some(mut definition) = read::definition(&tree, files, &mut findings) else {
        return Err(in_order(findings));
    };
    resolve::fill(&mut definition, &mut findings);
    let forward = check::check(&definition, text, &mut findings);
    advice::give(&definition, &forward, &mut findings);
    if has_errors(&findings) {
        return Err(in_order(findings));
    }
    let canonical = canonical::json(&definition).to_string();
    // The plan is that of the stored form, so that the two cannot differ.
    match from_canonical(&canonical) {
        Ok(plan) => Ok(Checked {
            canonical,
            hash: plan.hash.clone(),
            plan,
            findings: in_order(findings),
        }),
        Err(bad) => {
            findings.push(Diagnostic::error(code::SYNTAX, tree.span, bad.0));
            Err(in_order(findings))
        }
    }
}

/// Reads the document of a schedule: its name, where it gives one, and what it says; or everything that is wrong with it.
pub fn read_schedule(text: &str) -> Result<(Option<String>, Spec), Vec<Diagnostic>> {
    let tree = yaml::parse(text).map_err(|finding| vec![finding])?;
    let mut findings = Vec::new();
    match read::schedule(&tree, &mut findings) {
        Some((id, Some(spec))) if findings.is_empty() => Ok((id, spec)),
        _ => Err(in_order(findings)),
    }
}

/// Rebuilds a schedule from its canonical form, or reads one that came over the wire.
pub fn from_schedule_json(json: &serde_json::Value) -> Result<Spec, String> {
    schedule_of(json).map_err(|found| match found {
        Some(finding) => format!("{}: {}", finding.code.code, finding.message),
        None => "it is no schedule".to_owned(),
    })
}

/// As [`from_schedule_json`], with the first finding as it is; it stands nowhere in a document.
pub fn schedule_of(json: &serde_json::Value) -> Result<Spec, Option<Box<Diagnostic>>> {
    let tree = tree::Node::from_json(json);
    let mut findings = Vec::new();
    match read::schedule(&tree, &mut findings) {
        Some((_, Some(spec))) if findings.is_empty() => Ok(spec),
        _ => Err(findings.into_iter().next().map(Box::new)),
    }
}

/// Rebuilds a trigger from its canonical form, or reads one that came over the wire.
pub fn from_trigger_json(json: &serde_json::Value) -> Result<trigger::Spec, String> {
    let tree = tree::Node::from_json(json);
    let mut findings = Vec::new();
    let spec = read::trigger(&tree, &mut findings);
    let error = findings.iter().find(|finding| finding.severity == Severity::Error);
    match (spec, error) {
        (Some(spec), None) => Ok(spec),
        (_, Some(error)) => Err(format!("{}: {}", error.code.code, error.message)),
        (None, None) => Err("it is no trigger".to_owned()),
    }
}

/// Reads one expression that is asked of a run, with the names that the queries of its stored definition see; or everything
/// that is wrong with it, by places in `text`.
///
/// # Errors
/// A definition that cannot be read says so like one that is wrong.
pub fn read_query(canonical: &str, text: &str) -> Result<Template, Vec<Diagnostic>> {
    let whole = |message: String| vec![Diagnostic::error(code::SYNTAX, 0..text.len(), message)];
    let value = serde_json::from_str(canonical).map_err(|error| whole(BadCanonical(error.to_string()).to_string()))?;
    let tree = tree::Node::from_json(&value);
    let no_files = |_: &str| Err("a stored definition names no files".to_owned());
    let Some(definition) = read::definition(&tree, &no_files, &mut Vec::new()) else {
        return Err(whole(BadCanonical("it is no definition".to_owned()).to_string()));
    };
    let asked = read::asked(text);
    let mut findings = Vec::new();
    check::of_asked(&definition, &asked, text, &mut findings);
    if has_errors(&findings) {
        return Err(in_order(findings));
    }
    Template::compile(&asked.to_json()).map_err(|error| whole(error.to_string()))
}

/// Why a stored definition cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored definition cannot be read: {0}")]
pub struct BadCanonical(pub String);

/// Rebuilds the plan of a stored definition.
pub fn from_canonical(json: &str) -> Result<Plan, BadCanonical> {
    let value = serde_json::from_str(json).map_err(|error| BadCanonical(error.to_string()))?;
    let tree = tree::Node::from_json(&value);
    let mut findings = Vec::new();
    let no_files = |_: &str| Err("a stored definition names no files".to_owned());
    let definition = read::definition(&tree, &no_files, &mut findings);
    let bad = |finding: &Diagnostic| BadCanonical(format!("{}: {}", finding.code.code, finding.message));
    if let Some(mut definition) = definition {
        resolve::fill(&mut definition, &mut findings);
        if let Some(error) = findings.iter().find(|f| f.severity == Severity::Error) {
            return Err(bad(error));
        }
        return compile::plan(&definition, hash(json)).map_err(|finding| bad(&finding));
    }
    Err(findings
        .first()
        .map_or_else(|| BadCanonical("it is no definition".to_owned()), bad))
}

fn hash(canonical: &str) -> DefinitionHash {
    let digest = Sha256::digest(canonical.as_bytes());
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    DefinitionHash(Arc::from(text))
}

fn has_errors(findings: &[Diagnostic]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

fn in_order(mut findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let by_place = |finding: &Diagnostic| (finding.span.start, finding.severity, finding.code.code);
    findings.sort_by_key(by_place);
    findings.dedup();
    if findings.len() > MAX_FINDINGS {
        findings.sort_by_key(|finding| finding.severity);
        let more = findings.len() - MAX_FINDINGS;
        findings.truncate(MAX_FINDINGS);
        findings.sort_by_key(by_place);
        let end = findings.last().map(|last| last.span.clone()).unwrap_or_default();
        let message = format!("there are {more} more findings");
        let more = Diagnostic::error(code::TOO_LARGE, end, message).severity(Severity::Notice);
        findings.push(more.help("mend these first"));
    }
    findings
}

#[cfg(test)]
pub(crate) mod tests;
