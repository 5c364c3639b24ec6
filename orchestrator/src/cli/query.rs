//! `knarr query`: asks a run something, open or closed; nothing changes by it.

use clap::Args;
use knarr_schemas::api::{QueryAnswer, QueryRun, RunName, verb};
use knarr_schemas::code;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::{output, show};

#[derive(Debug, Args)]
#[command(after_help = "\
A text is printed as it is, everything else as JSON; `-o json` prints the run beside the value.

Examples:
  knarr query order-17 progress
  knarr query order-17 --expr 'steps.payment.amount | default(0)'")]
pub struct QueryArgs {
    /// Workflow id (its open run, else the last one), or run id
    #[arg(value_name = "WORKFLOW ID | RUN ID")]
    pub run: String,

    /// A query of the run's definition
    #[arg(value_name = "NAME", required_unless_present = "expr", conflicts_with = "expr")]
    pub name: Option<String>,

    /// Any expression over `input`, `steps`, `vars`, `run`, `status` and `error`
    #[arg(long, short = 'e', value_name = "EXPRESSION")]
    pub expr: Option<String>,

    /// This run of the workflow id, instead of the open or last one
    #[arg(long, visible_alias = "run", value_name = "RUN ID")]
    pub run_id: Option<Uuid>,
}

pub async fn run(args: QueryArgs, globals: &Globals) -> Result<(), CliError> {
    let request = QueryRun {
        run: match args.run_id {
            Some(id) => RunName::RunId(id),
            None => show::run_name(&args.run),
        },
        query: args.name,
        expression: args.expr,
    };
    let answer: QueryAnswer = globals.api().await?.call(verb::RUN_QUERY, &request).await?;
    if args.run_id.is_some() && answer.run.workflow_id != args.run {
        let message = format!(
            "the run {} has the workflow id `{}`",
            answer.run.run_id, answer.run.workflow_id
        );
        return Err(CliError::new(Exit::No, &code::UNKNOWN_RUN, message));
    }
    if globals.json() {
        output::print_json(&answer);
    } else {
        output::print(&render(&answer.value));
    }
    Ok(())
}

fn render(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn texts_are_printed_as_they_are_and_the_rest_as_json() {
        assert_eq!(render(&json!("paid")), "paid");
        assert_eq!(render(&json!(null)), "null");
        assert_eq!(render(&json!([1])), "[\n  1\n]");
    }

    #[test]
    fn either_a_name_or_an_expression_is_asked_for() {
        for (line, fits) in [
            ("knarr query o-1 progress", true),
            ("knarr query o-1 --expr steps.a", true),
            (
                "knarr query o-1 progress --run-id 0190b5a0-0000-7000-8000-000000000001",
                true,
            ),
            ("knarr query o-1", false),
            ("knarr query o-1 progress -e status", false),
        ] {
            assert_eq!(Cli::read(line.split(' ')).is_ok(), fits, "{line}");
        }
    }
}
