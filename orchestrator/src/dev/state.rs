//! The data directory: its lock, and what is remembered from one start to the next.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::DevError;

/// What restarting in the same place needs to know.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nats_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postgres_port: Option<u16>,
    /// Set when PostgreSQL's files could not lie in the data directory itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postgres_dir: Option<PathBuf>,
}

/// A data directory, held by this process until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    temporary: bool,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if need be and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, DevError> {
        // Entered by PostgreSQL's user, but listed by nobody else.
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(path)
            .map_err(|error| DevError::path(path, error))?;
        let path = fs::canonicalize(path).map_err(|error| DevError::path(path, error))?;
        let lock = lock(&path)?;
        Ok(Self {
            path,
            temporary: false,
            _lock: lock,
        })
    }

    /// A new directory that is to be removed at the end.
    pub(crate) fn temporary() -> Result<Self, DevError> {
        let path = std::env::temp_dir().join(format!("knarr-{}", random_hex(8)?));
        let mut opened = Self::open(&path)?;
        opened.temporary = true;
        Ok(opened)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary
    }

    pub(crate) fn load(&self) -> Result<State, DevError> {
        let path = self.path.join("state.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| DevError::State {
                path,
                reason: error.to_string(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(DevError::path(&path, error)),
        }
    }

    pub(crate) fn save(&self, state: &State) -> Result<(), DevError> {
        let path = self.path.join("state.json");
        let text = serde_json::to_string_pretty(state).map_err(|error| DevError::State {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let new = self.path.join("state.json.new");
        fs::write(&new, text + "\n")
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| DevError::path(&path, error))
    }
}

fn lock(directory: &Path) -> Result<File, DevError> {
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| DevError::path(&path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let pid = file
                .read_to_string(&mut holder)
                .ok()
                .and_then(|_| holder.trim().parse().ok());
            return Err(DevError::Busy {
                path: directory.to_owned(),
                pid,
            });
        }
        Err(TryLockError::Error(error)) => return Err(DevError::path(&path, error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|error| DevError::path(&path, error))?;
    Ok(file)
}

pub(crate) fn random_hex(bytes: usize) -> Result<String, DevError> {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).map_err(|_| DevError::NoRandom)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_held_by_one_at_a_time_and_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(first.load().unwrap(), State::default());
        let state = State {
            nats_port: Some(4222),
            ..State::default()
        };
        first.save(&state).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        assert!(
            matches!(refused, DevError::Busy { pid: Some(pid), .. } if pid == std::process::id()),
            "{refused}"
        );
        drop(first);
        assert_eq!(DataDir::open(&path).unwrap().load().unwrap(), state);
    }

    #[test]
    fn a_damaged_state_is_reported_not_ignored() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), "{\"nats_port\": 99999}").unwrap();
        assert!(matches!(
            DataDir::open(dir.path()).unwrap().load(),
            Err(DevError::State { .. })
        ));
    }
}
