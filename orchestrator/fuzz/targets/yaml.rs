//! Any text as a definition: read, checked, compiled, drawn; and as the file of `knarr test` beside one.
#![no_main]

use knarr_core::definition::graph::{Graph, mermaid, svg};
use knarr_core::definition::{self, diagnostic, test_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A schema that it names is any text, too.
    let files = |path: &str| match path {
        "self" => Ok(text.to_owned()),
        _ => Err("there is no such file".to_owned()),
    };
    match definition::read(text, &files) {
        Ok(checked) => {
            let again = definition::from_canonical(&checked.canonical).expect("what is stored can be read");
            assert_eq!(again.hash, checked.hash, "and is what was read");
            let _ = diagnostic::render("fuzz", text, &checked.findings);
            let graph = Graph::of(&checked.plan);
            let _ = (mermaid(&graph), svg(&graph));
            let _ = test_file::read(text, &checked.plan);
        }
        Err(found) => {
            assert!(!found.is_empty(), "a refusal has a reason");
            let _ = diagnostic::render("fuzz", text, &found);
        }
    }
    let _ = test_file::definition_of(text);
});
