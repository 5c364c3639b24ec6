//! Definitions: registering one after checking it anew, listing them, showing one.

use std::collections::BTreeSet;

use knarr_core::definition::plan::{NodeKind, Plan};
use knarr_core::ids::{Namespace, WorkflowName};
use knarr_core::run::schedule::workflow_id;
use knarr_schemas::api::{
    DefinitionDetail, DefinitionInfo, DefinitionKey, DefinitionPage, FindingBody, FindingSeverity, ListDefinitions,
    MAX_PAGE, RegisterDefinition, RegisteredDefinition, RegistrationOutcome, ScheduleOutlook, SetDefaultVersion,
    ShowDefinition, TriggerName,
};
use knarr_schemas::body::{ScheduleRequest, ScheduleVerb, TriggerRequest, TriggerVerb};
use knarr_schemas::code;
use serde_json::Value;

use crate::api::{Operations, Refusal, source};
use crate::store::{DefaultVersion, DefinitionFilter, DefinitionRow, Registered, Store, StoredDefinition, format};

const DEFAULT_PAGE: u32 = 100;
/// Characters that are kept of who and why.
const MOST_TOLD: usize = 1_024;

impl<S: Store> Operations<S> {
    /// Checks, stores, and has the task queues set up. Registering the same again does the last alone.
    pub async fn register_definition(
        &self,
        namespace: &Namespace,
        request: RegisterDefinition,
    ) -> Result<RegisteredDefinition, Refusal> {
        self.require_namespace(namespace).await?;
        let files = |name: &str| {
            let content = request.files.get(name).cloned();
            content.ok_or_else(|| "it was not sent with the registration".to_owned())
        };
        let read = source::read(&request.source, &files);
        let Some(definition) = read.checked else {
            return Ok(RegisteredDefinition {
                outcome: RegistrationOutcome::Refused,
                definition: None,
                queues: Vec::new(),
                schedule: None,
                error: Some(code::DEFINITION_INVALID.plain()),
                findings: read.findings,
            });
        };
        let plan = &definition.plan;
        let stored = StoredDefinition {
            namespace: namespace.clone(),
            workflow: plan.workflow.clone(),
            version: i32::try_from(plan.version).map_err(|_| {
                Refusal::new(
                    400,
                    &code::BAD_REQUEST,
                    format!("version {} is too large", plan.version),
                )
            })?,
            hash: definition.hash.clone(),
            body: definition.canonical.clone(),
            source: request.source,
            registered_at: self.store.now().await?,
        };
        let level = format::of_plan(plan);
        if level > 1 && level > self.store.format_level().await? {
            return Ok(RegisteredDefinition {
                outcome: RegistrationOutcome::Refused,
                definition: None,
                queues: Vec::new(),
                schedule: None,
                findings: read.findings,
                error: Some(code::OLDER_REPLICAS.plain()),
            });
        }
        let outcome = match self.store.register_definition(&stored).await? {
            Registered::New => RegistrationOutcome::Registered,
            Registered::Unchanged => RegistrationOutcome::Unchanged,
            Registered::Conflict { hash } => {
                let message = format!(
                    "{} version {} is registered with other content (hash {})",
                    stored.workflow,
                    stored.version,
                    hash.0.get(..12).unwrap_or(&hash.0)
                );
                return Ok(RegisteredDefinition {
                    outcome: RegistrationOutcome::Refused,
                    definition: Some(info(&stored)),
                    queues: Vec::new(),
                    schedule: None,
                    findings: read.findings,
                    error: Some(code::DEFINITION_CONFLICT.error(message)),
                });
            }
        };
        let registered_at = self.registered_at(&stored, outcome).await?;
        let queues = plan.queues();
        let mut settings = self.queues.settings_of(&*self.store, namespace).await?;
        settings.retain(|settings| queues.contains(&settings.queue));
        (self.on_registered)(namespace.clone(), settings).await?;
        let schedule = self.set_schedule(namespace, plan).await?;
        self.set_triggers(namespace, plan).await?;
        let mut findings = read.findings;
        findings.extend(self.missing_children(namespace, plan).await?);
        Ok(RegisteredDefinition {
            outcome,
            definition: Some(DefinitionInfo {
                registered_at,
                ..info(&stored)
            }),
            queues: queues.iter().map(ToString::to_string).collect(),
            schedule,
            findings,
            error: None,
        })
    }

    /// Of the workflows that are started by steps, those that are not there (yet): such a step fails.
    async fn missing_children(&self, namespace: &Namespace, plan: &Plan) -> Result<Vec<FindingBody>, Refusal> {
        let children = plan.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Workflow(child) => Some((child.workflow.clone(), child.version)),
            _ => None,
        });
        let children: BTreeSet<(WorkflowName, Option<u32>)> = children.collect();
        let mut missing = Vec::new();
        for (workflow, version) in children {
            let wanted = version.map(|version| i32::try_from(version).unwrap_or(i32::MAX));
            if self.store.definition(namespace, &workflow, wanted).await?.is_some() {
                continue;
            }
            let (code, what) = match version {
                Some(version) => (
                    code::UNKNOWN_VERSION,
                    format!("`{workflow}` v{version} is not registered"),
                ),
                None => (
                    code::UNKNOWN_WORKFLOW,
                    format!("no workflow `{workflow}` is registered"),
                ),
            };
            missing.push(FindingBody {
                code: code.id.to_owned(),
                severity: FindingSeverity::Warning,
                message: format!("{what}; until it is, the step that starts it as a child fails"),
                remedy: Some(code.remedy.to_owned()),
                at: None,
            });
        }
        Ok(missing)
    }

    /// The highest version of a workflow speaks for the schedule named after it: it is made, changed, or, where the version says
    /// nothing of one and an earlier one has made it, deleted. What comes of it is told where there is one.
    async fn set_schedule(&self, namespace: &Namespace, plan: &Plan) -> Result<Option<ScheduleOutlook>, Refusal> {
        let highest = self.store.definition(namespace, &plan.workflow, None).await?;
        if highest.is_none_or(|highest| highest.hash != plan.hash) {
            return Ok(None);
        }
        if plan.schedule.is_none() {
            let asked = [(namespace.clone(), workflow_id(plan.workflow.as_str()), None)];
            let found = self.store.find_runs(&asked).await?;
            if found.runs.iter().all(|run| run.row.closed_at.is_some()) {
                return Ok(None);
            }
        }
        let request = ScheduleRequest {
            ask: ScheduleVerb::Define,
            schedule: plan.schedule.as_ref().map(|spec| (**spec.json()).clone()),
            version: Some(plan.version),
            from: None,
            until: None,
            overlap: None,
        };
        let told = (self.on_scheduled)(namespace.clone(), plan.workflow.to_string(), request).await?;
        // A replica of another version may tell more, or nothing.
        let outlook = told.and_then(|told| serde_json::from_value(told).ok());
        Ok(outlook.filter(|_| plan.schedule.is_some()))
    }

    /// The highest version of a workflow speaks for its triggers: those it has are made or changed and keep their places; those
    /// that it has not any more are deleted.
    async fn set_triggers(&self, namespace: &Namespace, plan: &Plan) -> Result<(), Refusal> {
        let highest = self.store.definition(namespace, &plan.workflow, None).await?;
        if highest.is_none_or(|highest| highest.hash != plan.hash) {
            return Ok(());
        }
        let workflow = plan.workflow.as_str();
        let mut asked: Vec<(String, Option<Value>)> = self
            .triggers_of(namespace, workflow)
            .await?
            .into_iter()
            .filter(|name| plan.triggers.iter().all(|spec| *spec.name != **name))
            .map(|name| (name, None))
            .collect();
        let said = plan.triggers.iter();
        asked.extend(said.map(|spec| (spec.name.to_string(), Some((**spec.json()).clone()))));
        for (name, trigger) in asked {
            let request = TriggerRequest {
                ask: TriggerVerb::Define,
                trigger,
                version: Some(plan.version),
                to: None,
            };
            let workflow = workflow.to_owned();
            (self.on_triggered)(namespace.clone(), TriggerName { workflow, name }, request).await?;
        }
        Ok(())
    }

    /// By name and version.
    pub async fn list_definitions(
        &self,
        namespace: &Namespace,
        request: &ListDefinitions,
    ) -> Result<DefinitionPage, Refusal> {
        let limit = request.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE) as usize;
        let filter = DefinitionFilter {
            workflow: request.workflow.as_deref().map(WorkflowName::new),
            after: request.after.as_ref().map(|after| {
                let version = i32::try_from(after.version).unwrap_or(i32::MAX);
                (WorkflowName::new(&after.workflow), version)
            }),
            limit: u32::try_from(limit).unwrap_or(MAX_PAGE) + 1,
        };
        let rows = self.store.list_definitions(namespace, &filter).await?;
        if rows.is_empty() {
            self.require_namespace(namespace).await?;
        }
        let mut definitions: Vec<DefinitionInfo> = rows.iter().map(row_info).collect();
        let next = (definitions.len() > limit).then(|| key(&definitions[limit - 1]));
        definitions.truncate(limit);
        Ok(DefinitionPage { definitions, next })
    }

    pub async fn show_definition(
        &self,
        namespace: &Namespace,
        request: &ShowDefinition,
    ) -> Result<DefinitionDetail, Refusal> {
        let workflow = WorkflowName::new(&request.workflow);
        // A version that does not fit is one that is not there.
        let version = request.version.map(|version| i32::try_from(version).unwrap_or(-1));
        if let Some(stored) = self.store.definition(namespace, &workflow, version).await? {
            let mut body: Value = serde_json::from_str(&stored.body).unwrap_or_default();
            return Ok(DefinitionDetail {
                definition: info(&stored),
                source: stored.source.clone(),
                input_schema: body.get_mut("input_schema").map(Value::take),
            });
        }
        self.require_namespace(namespace).await?;
        let newest = self.store.definition(namespace, &workflow, None).await?;
        Err(match (newest, request.version) {
            (Some(newest), Some(version)) => Refusal::not_found(
                &code::UNKNOWN_VERSION,
                format!(
                    "`{workflow}` has no version {version}; the newest is {}",
                    newest.version
                ),
            ),
            _ => Refusal::not_found(
                &code::UNKNOWN_WORKFLOW,
                format!("no definition in namespace `{namespace}` has the name `{workflow}`"),
            ),
        })
    }

    /// The version that starts take which name none.
    pub async fn set_default_version(
        &self,
        namespace: &Namespace,
        request: &SetDefaultVersion,
    ) -> Result<DefinitionInfo, Refusal> {
        let told = |text: &Option<String>| {
            text.as_ref()
                .map(|text| text.chars().take(MOST_TOLD).collect::<String>())
        };
        for text in [&request.by, &request.reason].into_iter().flatten() {
            if text.contains('\0') {
                return Err(Refusal::new(400, &code::NUL_CHARACTER, code::NUL_CHARACTER.cause));
            }
        }
        let workflow = WorkflowName::new(&request.workflow);
        let default = match request.version {
            None => None,
            Some(version) => Some(DefaultVersion {
                // A version that does not fit is one that is not there.
                version: i32::try_from(version).unwrap_or(-1),
                at: self.store.now().await?,
                by: told(&request.by),
                reason: told(&request.reason),
            }),
        };
        let set = self
            .store
            .set_default_version(namespace, &workflow, default.as_ref())
            .await?;
        // Whatever is wrong with the name or the version is told as for one that is shown.
        let show = ShowDefinition {
            workflow: request.workflow.clone(),
            version: request.version,
        };
        let mut shown = self.show_definition(namespace, &show).await?.definition;
        shown.default = set && request.version.is_some();
        Ok(shown)
    }

    async fn registered_at(
        &self,
        stored: &StoredDefinition,
        outcome: RegistrationOutcome,
    ) -> Result<chrono::DateTime<chrono::Utc>, Refusal> {
        if outcome == RegistrationOutcome::Registered {
            return Ok(stored.registered_at.to_utc());
        }
        let before = self
            .store
            .definition(&stored.namespace, &stored.workflow, Some(stored.version))
            .await?;
        Ok(before
            .map_or(stored.registered_at, |before| before.registered_at)
            .to_utc())
    }
}

fn info(stored: &StoredDefinition) -> DefinitionInfo {
    DefinitionInfo {
        workflow: stored.workflow.to_string(),
        version: u32::try_from(stored.version).unwrap_or_default(),
        hash: stored.hash.0.to_string(),
        registered_at: stored.registered_at.to_utc(),
        default: false,
    }
}

fn row_info(row: &DefinitionRow) -> DefinitionInfo {
    DefinitionInfo {
        workflow: row.workflow.to_string(),
        version: u32::try_from(row.version).unwrap_or_default(),
        hash: row.hash.0.to_string(),
        registered_at: row.registered_at.to_utc(),
        default: row.default,
    }
}

fn key(info: &DefinitionInfo) -> DefinitionKey {
    DefinitionKey {
        workflow: info.workflow.clone(),
        version: info.version,
    }
}
