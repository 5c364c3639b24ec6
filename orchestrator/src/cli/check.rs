//! `knarr check`: everything there is to say about a definition, offline.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use knarr_schemas::api::CheckReport;

use crate::api::source::{self, Read};
use crate::cli::code;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::{findings, output};

/// Far above the largest definition; guards against naming a wrong file.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// A run may have 50 MiB of history.
pub const MAX_HISTORY_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 it can be registered, 1 it has errors, 2 it cannot be read.")]
pub struct CheckArgs {
    /// The definition, YAML or JSON; - for stdin
    pub file: PathBuf,
}

/// A definition's file, read and checked, with the files it refers to.
#[derive(Debug)]
pub struct LocalDefinition {
    pub name: String,
    pub text: String,
    pub files: BTreeMap<String, String>,
    pub read: Read,
}

pub fn run(args: &CheckArgs, globals: &Globals) -> Result<(), CliError> {
    let local = load(&args.file)?;
    let checked = local.read.checked.as_ref();
    if globals.json() {
        output::print_json(&CheckReport {
            file: local.name.clone(),
            ok: checked.is_some(),
            workflow: checked.map(|checked| checked.plan.workflow.to_string()),
            version: checked.map(|checked| checked.plan.version),
            hash: checked.map(|checked| checked.hash.0.to_string()),
            findings: local.read.findings.clone(),
        });
    } else {
        report(&local, globals);
        if let Some(checked) = checked {
            let count = findings::count(&local.read.findings);
            let remark = if count.is_empty() {
                String::new()
            } else {
                format!(" ({count})")
            };
            output::print(&format!(
                "{}: {} v{} is good{remark}",
                local.name, checked.plan.workflow, checked.plan.version
            ));
        }
    }
    if checked.is_some() {
        Ok(())
    } else {
        Err(CliError::silent(Exit::No))
    }
}

/// Findings are not data: they go to stderr.
pub fn report(local: &LocalDefinition, globals: &Globals) {
    if local.read.findings.is_empty() {
        return;
    }
    let text = findings::render(&globals.look(), &local.name, &local.text, &local.read.findings);
    output::note(text.trim_end());
    if local.read.checked.is_none() {
        let count = findings::count(&local.read.findings);
        output::note(&format!("\n{}: {count}", local.name));
    }
}

/// The name of a file, and what is in it.
pub fn read_text(path: &Path) -> Result<(String, String), CliError> {
    let stdin = path.as_os_str() == "-";
    let name = if stdin {
        "<stdin>".to_owned()
    } else {
        path.display().to_string()
    };
    let text = if stdin {
        read_limited(std::io::stdin().lock(), MAX_FILE_BYTES)
    } else {
        read_file(path)
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(reason) => Err(CliError::new(
            Exit::Usage,
            &code::FILE_UNREADABLE,
            format!("{name} cannot be read: {reason}"),
        )),
    }
}

pub fn load(path: &Path) -> Result<LocalDefinition, CliError> {
    let (name, text) = read_text(path)?;
    let stdin = path.as_os_str() == "-";
    // What it names stands beside it.
    let folder = path.parent().filter(|_| !stdin).unwrap_or(Path::new("")).to_owned();
    let files = RefCell::new(BTreeMap::new());
    let read = source::read(&text, &|file| {
        let content = read_file(&folder.join(file))?;
        files.borrow_mut().insert(file.to_owned(), content.clone());
        Ok(content)
    });
    Ok(LocalDefinition {
        name,
        text,
        files: files.into_inner(),
        read,
    })
}

pub fn read_file(path: &Path) -> Result<String, String> {
    read_limited(open(path)?, MAX_FILE_BYTES)
}

pub fn open(path: &Path) -> Result<std::fs::File, String> {
    std::fs::File::open(path).map_err(|error| error.to_string())
}

/// Refuses what is longer than that many bytes.
pub fn read_limited(from: impl std::io::Read, limit: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    from.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("it is larger than {}", output::bytes(limit)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("it is not a text in UTF-8 (line {line}, byte {at} of the file)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_said_to_be_none() {
        let read = |bytes: &[u8]| read_limited(bytes, 20);
        assert_eq!(read("größe".as_bytes()).as_deref(), Ok("größe"));
        assert_eq!(
            read(b"a: 1\nb: gr\xf6sse").unwrap_err(),
            "it is not a text in UTF-8 (line 2, byte 10 of the file)"
        );
        assert_eq!(read(&[b'x'; 21]).unwrap_err(), "it is larger than 20 bytes");
    }
}
