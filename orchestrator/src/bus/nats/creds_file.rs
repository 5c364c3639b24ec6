//! A `.creds` file: a user's token, and the key that proves it.
//!
//! It is read for every connection: whoever issues short-lived ones writes a new file long before the old one expires.

use std::path::Path;

use async_nats::Auth;
use nkeys::KeyPair;

/// Answers a server's challenge. The error says what is wrong with the file.
pub(super) fn answer(path: &Path, nonce: &[u8]) -> Result<Auth, String> {
    // A few hundred bytes; the client's callback must not hold what a task of its own would take.
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let token = part(&text, "NATS USER JWT")?;
    let key = KeyPair::from_seed(part(&text, "USER NKEY SEED")?).map_err(|error| format!("holds no key: {error}"))?;
    let mut auth = Auth::new();
    auth.jwt = Some(token.to_owned());
    auth.signature = Some(key.sign(nonce).map_err(|error| error.to_string())?);
    Ok(auth)
}

/// What stands between `---BEGIN <name>---` and the next line of dashes.
fn part<'a>(text: &'a str, name: &str) -> Result<&'a str, String> {
    let mut lines = text.lines().map(str::trim);
    lines
        .find(|line| line.starts_with("---") && line.contains(&format!("BEGIN {name}")))
        .and_then(|_| lines.find(|line| !line.is_empty()))
        .filter(|line| !line.starts_with("---"))
        .ok_or_else(|| format!("has no part `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(token: &str, key: &KeyPair) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\r\n{}\r\n------END USER NKEY SEED------\n",
            key.seed().unwrap()
        )
    }

    #[test]
    fn a_renewed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("user.creds");
        for token in ["first", "second"] {
            let key = KeyPair::new_user();
            std::fs::write(&path, file(token, &key)).unwrap();
            let auth = answer(&path, b"nonce").unwrap();
            assert_eq!(auth.jwt.as_deref(), Some(token));
            key.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("user.creds");
        let problem = || answer(&path, b"").err().unwrap_or_default();
        assert!(problem().contains("cannot be read"));
        let whole = file("t", &KeyPair::new_user());
        for (text, expected) in [
            (String::new(), "NATS USER JWT"),
            (whole.replace("\nt\n", "\n"), "NATS USER JWT"),
            (whole.replace("SEED", "SAD"), "USER NKEY SEED"),
            (whole.replace("\nSU", "\nXX"), "no key"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(problem().contains(expected), "{}", problem());
        }
    }
}
