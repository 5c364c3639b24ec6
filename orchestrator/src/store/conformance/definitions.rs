//! Definitions and namespaces.

use super::*;

pub(crate) fn definition(workflow: &str, version: i32, hash: &str) -> StoredDefinition {
    StoredDefinition {
        namespace: Namespace::new("default"),
        workflow: WorkflowName::new(workflow),
        version,
        hash: DefinitionHash(hash.into()),
        body: format!("{{\"workflow\":\"{workflow}\"}}"),
        source: format!("workflow: {workflow}"),
        registered_at: Timestamp(1_700_000_000_000_001),
    }
}

pub(super) async fn definitions_never_change(rig: impl Rig) {
    let store = rig.store();
    let epoch = async || store.find_runs(&[]).await.unwrap().definitions_epoch;
    let start = epoch().await;
    assert_eq!(
        store.register_definition(&definition("b", 1, "h1")).await.unwrap(),
        Registered::New
    );
    assert_eq!(
        store.register_definition(&definition("b", 1, "h1")).await.unwrap(),
        Registered::Unchanged
    );
    let conflict = store.register_definition(&definition("b", 1, "h2")).await.unwrap();
    assert_eq!(
        conflict,
        Registered::Conflict {
            hash: DefinitionHash("h1".into())
        }
    );
    assert_eq!(epoch().await, start + 1);
    for (workflow, version, hash) in [("b", 10, "h10"), ("b", 9, "h9"), ("a", 3, "h3")] {
        let registered = store
            .register_definition(&definition(workflow, version, hash))
            .await
            .unwrap();
        assert_eq!(registered, Registered::New);
    }
    let heads = store.definition_heads().await.unwrap();
    assert_eq!(heads.definitions_epoch, start + 4);
    assert_eq!(heads.definitions_epoch, epoch().await);
    let heads: Vec<_> = heads
        .heads
        .iter()
        .map(|head| (head.workflow.as_str(), head.version, &*head.hash.0))
        .collect();
    assert_eq!(heads, [("a", 3, "h3"), ("b", 10, "h10")]);

    let (default, b) = (Namespace::new("default"), WorkflowName::new("b"));
    let version = |version| DefaultVersion {
        version,
        at: Timestamp(1_700_000_000_000_002),
        by: Some("ann".to_owned()),
        reason: None,
    };
    let head = async || {
        let heads = store.definition_heads().await.unwrap();
        let head = heads.heads.iter().find(|head| head.workflow == b).unwrap();
        (head.version, heads.definitions_epoch)
    };
    let marked = async || -> Vec<i32> {
        let filter = DefinitionFilter {
            limit: 9,
            ..DefinitionFilter::default()
        };
        let rows = store.list_definitions(&default, &filter).await.unwrap();
        rows.iter().filter(|row| row.default).map(|row| row.version).collect()
    };
    assert!(
        store
            .set_default_version(&default, &b, Some(&version(9)))
            .await
            .unwrap()
    );
    assert_eq!((head().await, marked().await), ((9, start + 5), vec![9]));
    assert!(
        !store
            .set_default_version(&default, &b, Some(&version(2)))
            .await
            .unwrap()
    );
    assert_eq!(head().await, (9, start + 5));
    assert!(
        store
            .set_default_version(&default, &b, Some(&version(1)))
            .await
            .unwrap()
    );
    assert_eq!((head().await, marked().await), ((1, start + 6), vec![1]));
    for _ in 0..2 {
        assert!(store.set_default_version(&default, &b, None).await.unwrap());
        assert_eq!((head().await, marked().await), ((10, start + 7), vec![]));
    }
    let nobody = WorkflowName::new("nobody");
    assert!(!store.set_default_version(&default, &nobody, None).await.unwrap());
    let newest = store.definition(&default, &b, None).await.unwrap().unwrap();
    assert_eq!(*newest, definition("b", 10, "h10"));
    let ninth = store.definition(&default, &b, Some(9)).await.unwrap().unwrap();
    assert_eq!(*ninth, definition("b", 9, "h9"));
    assert_eq!(store.definition(&default, &b, Some(2)).await.unwrap(), None);
    let by_hash = store
        .definition_by_hash(&DefinitionHash("h3".into()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*by_hash, definition("a", 3, "h3"));
    assert_eq!(
        store.definition_by_hash(&DefinitionHash("h2".into())).await.unwrap(),
        None
    );
    let listed = async |workflow: Option<&str>, after: Option<(&str, i32)>, limit| -> Vec<i32> {
        let filter = DefinitionFilter {
            workflow: workflow.map(WorkflowName::new),
            after: after.map(|(workflow, version)| (WorkflowName::new(workflow), version)),
            limit,
        };
        let rows = store.list_definitions(&default, &filter).await.unwrap();
        rows.iter().map(|there| there.version).collect()
    };
    assert_eq!(listed(None, None, 9).await, [3, 1, 9, 10]);
    assert_eq!(listed(None, None, 3).await, [3, 1, 9]);
    assert_eq!(listed(None, Some(("a", 3)), 9).await, [1, 9, 10]);
    assert_eq!(listed(Some("b"), Some(("b", 1)), 1).await, [9]);
    let hashes = [newest.hash.clone(), DefinitionHash("nobody".into())];
    let bodies = store.definition_bodies(&hashes).await.unwrap();
    assert_eq!(bodies, [(newest.hash.clone(), newest.body.clone())]);

    let mut nowhere = definition("c", 1, "h");
    nowhere.namespace = Namespace::new("nowhere");
    for wrong in [nowhere, definition("c", 0, "h"), definition("c\0", 1, "h")] {
        let error = store.register_definition(&wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::Rejected(_)), "{error:?}");
    }
}

pub(super) async fn namespaces_exist_once(rig: impl Rig) {
    let store = rig.store();
    let row = |name: &str, retention_class| NamespaceRow {
        name: Namespace::new(name),
        retention_class,
        events: EVENTS_BY_DEFAULT,
    };
    let epoch = async || store.find_runs(&[]).await.unwrap().definitions_epoch;
    let before = epoch().await;
    assert!(store.create_namespace(&row("shop", 2)).await.unwrap());
    assert!(!store.create_namespace(&row("shop", 3)).await.unwrap());
    assert_eq!(epoch().await, before + 1, "replicas have something to read");
    assert!(!store.create_namespace(&row("default", 3)).await.unwrap());
    assert!(matches!(
        store.create_namespace(&row("x", -1)).await,
        Err(StoreError::Rejected(_))
    ));
    assert_eq!(store.namespaces().await.unwrap(), [row("default", 0), row("shop", 2)]);
}
