//! Queries: one run is folded from what is committed, and an expression is evaluated over it.

use std::sync::Arc;

use knarr_core::definition::{self, near::nearest};
use knarr_core::expression::Template;
use knarr_core::ids::{Namespace, RunId};
use knarr_core::run::{self, State};
use knarr_core::time::Timestamp;
use knarr_schemas::api::{QueryAnswer, QueryRun};
use knarr_schemas::code;
use serde_json::Value;

use crate::api::runs::{refuse_actors, summary};
use crate::api::{Operations, Refusal};
use crate::engine::rebuild;
use crate::store::{Store, StoredDefinition, StoredRun};

/// How an expression says that it would do, or give, more than one may.
const TOO_MUCH: [&str; 2] = ["too much work", " KiB of data"];

impl<S: Store> Operations<S> {
    /// Whatever has been committed counts: nothing of a run's owner is asked.
    pub async fn query_run(&self, namespace: &Namespace, request: &QueryRun) -> Result<QueryAnswer, Refusal> {
        let row = self.find_run(namespace, &request.run).await?;
        refuse_actors(&row)?;
        let (stored, state) = self.folded(row.run_id).await?;
        let definition = self.store.definition_by_hash(state.definition_hash()).await?;
        let definition = definition.ok_or_else(|| unreadable("its definition is not there"))?;
        let value = match (&request.query, &request.expression) {
            (Some(name), None) => by_name(&definition, &state, name),
            (None, Some(text)) => by_expression(&definition, &state, text),
            _ => {
                let message = "a query has either a `query` of the definition or an `expression`";
                Err(Refusal::new(400, &code::BAD_REQUEST, message))
            }
        }?;
        let mut run = summary(&stored.row);
        // The transitions may be newer than the row.
        state.status().as_str().clone_into(&mut run.status);
        run.closed_at = state.closed_at().map(Timestamp::to_utc);
        Ok(QueryAnswer {
            run,
            seq: state.seq(),
            value: Arc::unwrap_or_clone(value),
        })
    }

    async fn folded(&self, run: RunId) -> Result<(StoredRun, State), Refusal> {
        let stored = self.store.load_runs(&[run]).await?.into_iter().next();
        let stored = stored.ok_or_else(|| Refusal::not_found(&code::UNKNOWN_RUN, format!("there is no run {run}")))?;
        let state = rebuild(&stored).map_err(|error| unreadable(&error))?;
        Ok((stored, state))
    }
}

fn by_name(definition: &StoredDefinition, state: &State, name: &str) -> Result<Arc<Value>, Refusal> {
    let plan = definition::from_canonical(&definition.body).map_err(|error| unreadable(&error.to_string()))?;
    let Some(query) = plan.queries.get(name) else {
        let name: String = name.chars().take(100).collect();
        let near = nearest(&name, plan.queries.keys().map(|name| &**name));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let message = format!("{} v{} has no query `{name}`{near}", plan.workflow, plan.version);
        return Err(Refusal::not_found(&code::UNKNOWN_QUERY, message));
    };
    answer(run::query(&plan, state, query))
}

fn by_expression(definition: &StoredDefinition, state: &State, text: &str) -> Result<Arc<Value>, Refusal> {
    let query: Template = definition::read_query(&definition.body, text).map_err(|found| {
        let first = found
            .first()
            .map(|finding| format!("{} ({})", finding.message, finding.help));
        Refusal::new(400, &code::BAD_QUERY, first.unwrap_or_default())
    })?;
    let plan = definition::from_canonical(&definition.body).map_err(|error| unreadable(&error.to_string()))?;
    answer(run::query(&plan, state, &query))
}

fn answer(value: Result<Arc<Value>, run::Failure>) -> Result<Arc<Value>, Refusal> {
    value.map_err(|error| {
        let mut refusal = Refusal::new(422, &code::QUERY_FAILED, &*error.message);
        if TOO_MUCH.iter().any(|said| error.message.contains(said)) {
            "Ask for less at a time: for a part of it, or in several queries.".clone_into(&mut refusal.body.remedy);
        }
        refusal
    })
}

fn unreadable(error: &str) -> Refusal {
    Refusal::new(500, &code::UNREADABLE_RUN, format!("the run cannot be read: {error}"))
}
