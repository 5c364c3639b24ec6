//! `knarr explain <code>`: what an error code means and what to do.

use clap::Args;
use knarr_schemas::body::ErrorBody;
use knarr_schemas::code::Code;

use crate::cli::code;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::output;

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Like KN0206; without it all codes are listed
    pub code: Option<String>,
}

pub fn run(args: &ExplainArgs, globals: &Globals) -> Result<(), CliError> {
    let mut all = all();
    let Some(wanted) = &args.code else {
        if globals.json() {
            let bodies: Vec<ErrorBody> = all.map(Explained::body).collect();
            output::print_json(&bodies);
        } else {
            let lines: Vec<_> = all.map(|code| format!("{}  {}", code.id, code.cause)).collect();
            output::print(&lines.join("\n"));
        }
        return Ok(());
    };
    let wanted = wanted.to_uppercase();
    let Some(code) = all.find(|code| code.id == wanted) else {
        return Err(CliError::new(
            Exit::No,
            &code::UNKNOWN_CODE,
            format!("there is no error code `{wanted}`"),
        ));
    };
    if globals.json() {
        output::print_json(&code.body());
    } else {
        let mut text = format!("{}: {}\n{}", code.id, code.cause, code.remedy);
        if let Some(page) = code.page {
            text.push_str("\n\n");
            text.push_str(page.trim_end());
        }
        output::print(&text);
    }
    Ok(())
}

/// Every table, in the order of the ids.
const TABLES: &[&[&Code]] = &[
    knarr_schemas::code::ALL,
    crate::bus::code::ALL,
    crate::store::code::ALL,
    crate::config::code::ALL,
    crate::telemetry::code::ALL,
    crate::server::code::ALL,
    crate::engine::code::ALL,
    code::ALL,
    crate::engine::code::limits::ALL,
    crate::dev::code::ALL,
    crate::bench::CODES,
    crate::engine::code::bounds::ALL,
    crate::cli::operator_code::ALL,
];

fn all() -> impl Iterator<Item = Explained> {
    let of_core = [
        knarr_core::definition::code::ALL,
        knarr_core::verify::code::ALL,
        knarr_core::definition::test_file::code::ALL,
        knarr_core::schedule::code::ALL,
        knarr_core::trigger::code::ALL,
    ];
    let definitions = of_core.into_iter().flatten().map(|code| Explained {
        id: code.code,
        cause: code.cause,
        remedy: code.remedy,
        page: knarr_core::definition::code::page(code.code)
            .or_else(|| knarr_core::verify::code::page(code.code))
            .or_else(|| knarr_core::definition::test_file::code::page(code.code))
            .or_else(|| knarr_core::schedule::code::page(code.code))
            .or_else(|| knarr_core::trigger::code::page(code.code)),
    });
    let others = TABLES.iter().copied().flatten().map(|code| Explained {
        id: code.id,
        cause: code.cause,
        remedy: code.remedy,
        page: None,
    });
    definitions.chain(others)
}

struct Explained {
    id: &'static str,
    cause: &'static str,
    remedy: &'static str,
    /// With an example, for people.
    page: Option<&'static str>,
}

impl Explained {
    fn body(self) -> ErrorBody {
        ErrorBody {
            code: self.id.to_owned(),
            message: self.cause.to_owned(),
            remedy: self.remedy.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;

    const SOURCES: [&str; 4] = ["src", "core/src", "../schemas/src", "../workers/rust/src"];

    /// Every file of production code, without its comments and its tests.
    fn sources() -> Vec<(PathBuf, String)> {
        fn read(directory: &Path, into: &mut Vec<(PathBuf, String)>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if path.is_dir() && name != "tests" {
                    read(&path, into);
                } else if name.ends_with(".rs") && !["tests.rs", "conformance.rs", "differential.rs"].contains(&name) {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                    into.push((path, lines.map(|line| format!("{line}\n")).collect()));
                }
            }
        }
        let mut files = Vec::new();
        for directory in SOURCES {
            read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut files);
        }
        files
    }

    fn ids(text: &str) -> impl Iterator<Item = &str> {
        text.match_indices("KN").filter_map(|(at, _)| {
            let id = text.get(at..at + 6)?;
            id[2..].bytes().all(|byte| byte.is_ascii_digit()).then_some(id)
        })
    }

    #[test]
    fn every_code_of_core_has_a_page() {
        let of_core = all().filter(|code| code.id.starts_with("KN01"));
        let without: Vec<_> = of_core.filter(|code| code.page.is_none()).map(|code| code.id).collect();
        assert!(without.is_empty(), "{without:?}");
    }

    #[test]
    fn every_code_in_the_source_can_be_explained() {
        let known: Vec<_> = all().map(|code| code.id).collect();
        assert!(known.windows(2).all(|pair| pair[0] < pair[1]), "{known:?}");
        for (path, text) in sources() {
            for id in ids(&text) {
                assert!(known.contains(&id), "{id} of {} is in no table", path.display());
            }
        }
    }

    /// A code of the wire stays in its table when it is no longer raised; the others are there to be raised.
    #[test]
    fn every_code_that_can_be_explained_is_used() {
        let mut times = BTreeMap::new();
        let files = sources();
        for (_, text) in &files {
            for id in ids(text) {
                *times.entry(id).or_insert(0) += 1;
            }
        }
        // The table is one place; the other is the id itself, or the constant that a table in code names.
        let definition = |text: &str, id: &str| {
            let line = text.lines().find(|line| line.contains(&format!("= \"{id}\"")))?;
            line.trim().split(' ').next().map(str::to_owned)
        };
        for code in all().filter(|code| !code.id.starts_with("KN02")) {
            let Some(constant) = files.iter().find_map(|(_, text)| definition(text, code.id)) else {
                continue;
            };
            let named = files.iter().flat_map(|(_, text)| text.match_indices(&constant)).count();
            assert!(named > 1 || times[code.id] > 1, "{} is never raised", code.id);
        }
    }
}
