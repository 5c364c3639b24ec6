//! Properties of subjects and tokens, whatever text comes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use knarr_schemas::subject::{
    LogSubject, MAX_TOKEN_BYTES, TokenError, decode_token, encode_token, parse_log_subject, partition_of, start,
};
use knarr_schemas::token::TaskToken;
use proptest::prelude::*;
use uuid::Uuid;

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in any::<String>()) {
        match encode_token(&text) {
            Ok(encoded) => {
                prop_assert!(encoded.len() <= MAX_TOKEN_BYTES);
                prop_assert!(!encoded.contains(['.', '*', '>', ' ']));
                prop_assert_eq!(decode_token(&encoded).unwrap(), text.as_str());
            }
            Err(TokenError::Empty) => prop_assert!(text.is_empty()),
            Err(TokenError::Control) => prop_assert!(text.bytes().any(|byte| byte.is_ascii_control())),
            Err(error) => prop_assert!(matches!(error, TokenError::TooLong(bytes) if bytes > MAX_TOKEN_BYTES)),
        }
    }

    #[test]
    fn a_text_has_one_encoding(token in "[%A-Fa-f0-9_.-]{0,24}") {
        if let Ok(text) = decode_token(&token) {
            prop_assert_eq!(encode_token(&text).unwrap(), token.as_str());
        }
    }

    #[test]
    fn no_subject_makes_the_parser_panic(tail in any::<String>(), prefix in prop::sample::select(vec![
        "", "knarr.", "knarr.in.", "knarr.in.3.", "knarr.run.", "knarr.run.default.", "knarr.start.", "knarr.start.default.",
    ])) {
        let _ = parse_log_subject(&format!("{prefix}{tail}"));
    }

    #[test]
    fn a_composed_start_is_read_back(namespace in ".{1,20}", id in ".{1,20}", workflow in "[a-z]{1,9}") {
        let Ok(subject) = start(&namespace, &id, &workflow) else { return Ok(()) };
        let Ok(LogSubject::Run(run)) = parse_log_subject(&subject) else {
            return Err(TestCaseError::fail(subject));
        };
        prop_assert_eq!(
            (&*run.namespace, &*run.workflow_id, run.verb, run.name),
            (&*namespace, &*id, "start", Some(&*workflow))
        );
    }

    #[test]
    fn partitions_are_within_their_number(namespace in "[a-z%0-9]{1,20}", id in "[a-z%0-9]{1,20}", count in any::<u16>()) {
        prop_assert!(partition_of(&namespace, &id, count) < count.max(1));
    }

    #[test]
    fn tokens_survive_their_encoding(run in any::<u128>(), task in any::<u32>(), mac in any::<[u8; 16]>()) {
        let token = TaskToken { run_id: Uuid::from_u128(run), task, mac };
        prop_assert_eq!(TaskToken::decode(&token.encode()), Some(token));
    }

    #[test]
    fn no_text_makes_the_token_reader_panic(text in any::<String>(), near in "[A-Za-z0-9_=+/-]{47,49}") {
        let _ = TaskToken::decode(&text);
        if let Some(token) = TaskToken::decode(&near) {
            prop_assert_eq!(token.encode(), near);
        }
    }
}
