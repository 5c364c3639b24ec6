//! `knarr explain <code>`: what an error code means and what to do.

use clap::Args;
use knarr_schemas::body::ErrorBody;

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
    let definitions = knarr_core::definition::code::ALL.iter().map(|code| Explained {
        id: code.code,
        cause: code.cause,
        remedy: code.remedy,
        page: knarr_core::definition::code::page(code.code),
    });
    let tables = [
        knarr_schemas::code::ALL,
        crate::config::code::ALL,
        crate::server::code::ALL,
        code::ALL,
        crate::dev::code::ALL,
        crate::bench::CODES,
    ];
    let others = tables.into_iter().flatten().map(|code| Explained {
        id: code.id,
        cause: code.cause,
        remedy: code.remedy,
        page: None,
    });
    let mut all = definitions.chain(others);
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
