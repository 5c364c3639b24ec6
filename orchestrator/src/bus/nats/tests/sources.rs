//! Streams of the user's that triggers read.

use knarr_core::trigger::command::Position;
use knarr_core::trigger::spec::Source;
use knarr_core::trigger::state::From as ReadFrom;

use super::*;
use crate::bus::source::SourceItem;

#[tokio::test]
async fn all_of_a_stream_begins_with_what_it_has() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let js = &bus.shared.js;
    let config = json!({ "name": "ORDERS", "subjects": ["orders.>"] });
    let _: Value = js.call("STREAM.CREATE.ORDERS", &config).await.unwrap();
    for n in 1..=5 {
        let subject = format!("orders.{n}");
        // Answered when it is stored.
        let stored = js.client().request(subject, Bytes::from_static(b"{}")).await;
        assert!(stored.is_ok(), "{stored:?}");
    }
    let _: Value = js.call("STREAM.PURGE.ORDERS", &json!({ "seq": 4 })).await.unwrap();
    let source = Source {
        stream: Some("ORDERS".into()),
        subject: "orders.*".into(),
    };
    let mut feed = bus.open_source(&source, &ReadFrom::Position(Position::All));
    let mut items = Vec::new();
    while items.len() < 3 {
        items.extend(feed.next(10, 1_000).await);
    }
    let sequences = items.iter().map(|item| match item {
        SourceItem::Reached(place) => place.sequence,
        SourceItem::Message(message) => message.sequence,
        other => panic!("{other:?}"),
    });
    // It is told of nothing that was dropped before.
    assert_eq!(sequences.collect::<Vec<_>>(), [3, 4, 5]);
}
