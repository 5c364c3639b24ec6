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
    let all = || knarr_schemas::code::ALL.iter().chain(code::ALL).copied();
    let Some(wanted) = &args.code else {
        if globals.json() {
            let bodies: Vec<ErrorBody> = all().map(knarr_schemas::code::Code::plain).collect();
            output::print_json(&bodies);
        } else {
            let lines: Vec<_> = all().map(|code| format!("{}  {}", code.id, code.cause)).collect();
            output::print(&lines.join("\n"));
        }
        return Ok(());
    };
    let wanted = wanted.to_uppercase();
    let Some(code) = all().find(|code| code.id == wanted) else {
        return Err(CliError::new(
            Exit::No,
            &code::UNKNOWN_CODE,
            format!("there is no error code `{wanted}`"),
        ));
    };
    if globals.json() {
        output::print_json(&code.plain());
    } else {
        output::print(&format!("{}: {}\n{}", code.id, code.cause, code.remedy));
    }
    Ok(())
}
