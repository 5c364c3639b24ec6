//! Whatever can be asked: runs, lists, definitions, namespaces.

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::time::Timestamp;

use super::{World, outcome};
use crate::store::conformance::{definition, normalise, run_id};
use crate::store::{DefinitionFilter, DuePage, NamespaceRow, RunFilter, Store};

impl World {
    pub(super) async fn read_runs(&mut self) {
        let ids: Vec<RunId> = (0..self.random.below(5)).map(|_| run_id(self.some_run())).collect();
        let n = self.some_run();
        let asked: Vec<_> = (0..self.random.below(4))
            .map(|_| {
                let namespace = Namespace::new(self.random.pick(&["default", "other"]));
                let workflow_id = WorkflowId::new(&format!("w{}", self.random.below(12)));
                let request = self
                    .random
                    .one_in(2)
                    .then(|| RequestId::new(&format!("q{}", self.random.below(5))));
                (namespace, workflow_id, request)
            })
            .collect();
        let partitions = [self.random.partition(), self.random.partition()];
        let (until, limit) = (
            Timestamp(self.random.below(120).cast_signed()),
            u32::try_from(self.random.below(8)).unwrap(),
        );
        let (after, partitions) = (
            i32::try_from(self.random.below(4)).unwrap(),
            &partitions[..1 + usize::from(partitions[0] != partitions[1])],
        );
        let behind = self.random.one_in(2).then(|| self.random.below(120).cast_signed());
        let page = DuePage {
            after: behind.map(|at| (Timestamp(at), run_id(n))),
            until,
            limit: limit.max(1),
        };
        let there = &self.processes[0];

        for id in &ids {
            let mut rows = [
                there.memory.run_row(*id).await.unwrap(),
                there.postgres.run_row(*id).await.unwrap(),
            ];
            rows.iter_mut().flatten().for_each(normalise);
            assert_eq!(rows[0], rows[1]);
        }
        let mut memory = there.memory.load_runs(&ids).await.unwrap();
        let mut postgres = there.postgres.load_runs(&ids).await.unwrap();
        for runs in [&mut memory, &mut postgres] {
            runs.sort_by_key(|run| run.row.run_id);
            runs.iter_mut().for_each(|run| normalise(&mut run.row));
        }
        assert_eq!(memory, postgres, "load");

        let mut memory_found = there.memory.find_runs(&asked).await.unwrap();
        let mut postgres_found = there.postgres.find_runs(&asked).await.unwrap();
        for found in [&mut memory_found, &mut postgres_found] {
            found.runs.sort_by_key(|found| found.row.run_id);
            found.runs.iter_mut().for_each(|found| normalise(&mut found.row));
        }
        assert_eq!(memory_found, postgres_found, "find");

        for (namespace, id, request) in &asked {
            let before = request.as_ref().map(|_| run_id(n).0);
            let memory = there.memory.closed_runs(namespace, id, before).await.unwrap();
            let postgres = there.postgres.closed_runs(namespace, id, before).await.unwrap();
            assert_eq!(memory, postgres, "closed");
        }

        let memory_history = there.memory.history(run_id(n), after, limit).await.unwrap();
        assert_eq!(
            memory_history,
            there.postgres.history(run_id(n), after, limit).await.unwrap(),
            "history"
        );
        let memory_due = there.memory.due(partitions, page).await.unwrap();
        assert_eq!(memory_due, there.postgres.due(partitions, page).await.unwrap(), "due");
        for (kind, there) in [
            ("load", !memory.is_empty()),
            ("find", !memory_found.runs.is_empty()),
            ("history", !memory_history.is_empty()),
            ("due", !memory_due.runs.is_empty()),
        ] {
            if there {
                self.count(kind);
            }
        }
    }

    pub(super) async fn lists(&mut self) {
        let filter = RunFilter {
            workflow: self.random.one_in(3).then(|| WorkflowName::new("refund")),
            workflow_id: self.random.one_in(4).then(|| WorkflowId::new("w1")),
            status: self.random.one_in(3).then(|| "running".to_owned()),
            before: self.random.one_in(2).then(|| run_id(self.some_run())),
            limit: u32::try_from(self.random.below(30)).unwrap(),
        };
        let namespace = Namespace::new(self.random.pick(&["default", "other"]));
        let there = &self.processes[1];
        let mut memory = there.memory.list_runs(&namespace, &filter).await.unwrap();
        let mut postgres = there.postgres.list_runs(&namespace, &filter).await.unwrap();
        for rows in [&mut memory, &mut postgres] {
            rows.iter_mut().for_each(normalise);
        }
        assert_eq!(memory, postgres, "{filter:?}");
        if !memory.is_empty() {
            self.count("list");
        }
        let after = self.random.one_in(3).then(|| WorkflowId::new("w1"));
        let limit = u32::try_from(self.random.below(3)).unwrap();
        let there = &self.processes[1];
        let mut memory = there
            .memory
            .list_schedules(&namespace, after.as_ref(), limit)
            .await
            .unwrap();
        let mut postgres = there
            .postgres
            .list_schedules(&namespace, after.as_ref(), limit)
            .await
            .unwrap();
        for rows in [&mut memory, &mut postgres] {
            rows.iter_mut().for_each(normalise);
        }
        assert_eq!(memory, postgres, "schedules");
        if !memory.is_empty() {
            self.count("schedules");
        }
        let there = &self.processes[1];
        let mut memory = there
            .memory
            .list_triggers(&namespace, after.as_ref(), limit)
            .await
            .unwrap();
        let mut postgres = there
            .postgres
            .list_triggers(&namespace, after.as_ref(), limit)
            .await
            .unwrap();
        for rows in [&mut memory, &mut postgres] {
            rows.iter_mut().for_each(normalise);
        }
        assert_eq!(memory, postgres, "triggers");
        let partitions = [self.random.partition(), self.random.partition()];
        let memory = there.memory.triggers(&partitions).await.unwrap();
        assert_eq!(
            memory,
            there.postgres.triggers(&partitions).await.unwrap(),
            "{partitions:?}"
        );
        if !memory.is_empty() {
            self.count("triggers");
        }
    }

    pub(super) async fn definitions(&mut self) {
        let workflow = self.random.pick(&["a", "b"]);
        let version = i32::try_from(self.random.below(4)).unwrap();
        let hash = format!("h{}", self.random.below(3));
        let mut wanted = definition(workflow, version, &hash);
        if self.random.one_in(3) {
            wanted.namespace = Namespace::new("shop");
        }
        let there = &self.processes[0];
        match self.random.below(4) {
            0 => {
                let memory = there.memory.register_definition(&wanted).await;
                let postgres = there.postgres.register_definition(&wanted).await;
                self.counted("register", outcome(&memory), outcome(&postgres));
            }
            1 => {
                let version = (version > 0).then_some(version);
                let memory = there
                    .memory
                    .definition(&wanted.namespace, &wanted.workflow, version)
                    .await
                    .unwrap();
                let postgres = there
                    .postgres
                    .definition(&wanted.namespace, &wanted.workflow, version)
                    .await
                    .unwrap();
                assert_eq!(memory, postgres);
                let hash = DefinitionHash(hash.into());
                let memory = there.memory.definition_by_hash(&hash).await.unwrap();
                assert_eq!(memory, there.postgres.definition_by_hash(&hash).await.unwrap());
                let filter = DefinitionFilter {
                    after: Some((wanted.workflow.clone(), wanted.version)),
                    limit: 3,
                    ..DefinitionFilter::default()
                };
                let (namespace, memory_store) = (&wanted.namespace, &there.memory);
                assert_eq!(
                    memory_store.list_definitions(namespace, &filter).await.unwrap(),
                    there.postgres.list_definitions(namespace, &filter).await.unwrap()
                );
                if memory.is_some() {
                    self.count("definition");
                }
            }
            2 => {
                let memory = there.memory.definition_heads().await;
                let postgres = there.postgres.definition_heads().await;
                self.counted("heads", outcome(&memory), outcome(&postgres));
            }
            _ => {
                let row = NamespaceRow {
                    name: Namespace::new(self.random.pick(&["default", "other", "shop", ""])),
                    retention_class: i16::try_from(self.random.below(4)).unwrap() - 1,
                    events: self.random.one_in(2),
                };
                let (name, events) = (row.name.clone(), self.random.one_in(2));
                let memory = there.memory.set_events(&name, events).await;
                let postgres = there.postgres.set_events(&name, events).await;
                assert_eq!(memory.unwrap(), postgres.unwrap());
                let memory = there.memory.create_namespace(&row).await;
                let postgres = there.postgres.create_namespace(&row).await;
                assert_eq!(
                    there.memory.namespaces().await.unwrap(),
                    there.postgres.namespaces().await.unwrap()
                );
                self.counted("namespace", outcome(&memory), outcome(&postgres));
            }
        }
    }
}
