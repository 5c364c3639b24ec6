//! Any bytes as what comes over NATS: subjects, tokens, bodies, and whole messages as the engine reads them.
#![no_main]

use std::sync::OnceLock;

use knarr::engine::wire::Wire;
use knarr_schemas::body::{Confirmation, RunMessage, RunMessageAnswer};
use knarr_schemas::subject::{decode_token, encode_token, namespace_of, parse_log_subject};
use knarr_schemas::token::TaskToken;
use libfuzzer_sys::fuzz_target;

static WIRE: OnceLock<Wire> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (parse_log_subject(text), namespace_of(text));
        if let Ok(token) = encode_token(text) {
            assert_eq!(decode_token(&token).expect("what was encoded"), text);
        }
        let _ = decode_token(text);
        if let Some(token) = TaskToken::decode(text) {
            assert_eq!(TaskToken::decode(&token.encode()), Some(token), "a token is what it says");
        }
    }
    let _ = serde_json::from_slice::<RunMessage>(bytes);
    let _ = serde_json::from_slice::<RunMessageAnswer>(bytes);
    let _ = serde_json::from_slice::<Confirmation>(bytes);
    WIRE.get_or_init(Wire::default).take(bytes);
});
