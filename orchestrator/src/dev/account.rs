//! Who PostgreSQL runs as. It refuses root, so a root process hands it to `postgres`, else to `nobody`; and what that
//! user is to read or write has to lie where it can get to.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::DevError;

/// An unprivileged user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The user to drop to: `None` when this process is not root and servers simply run as its user.
    pub(crate) fn to_drop_to() -> Result<Option<Self>, DevError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name)
                && !user.uid.is_root()
            {
                return Ok(Some(Self {
                    name: user.name,
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                }));
            }
        }
        Err(DevError::NoAccount)
    }

    /// Whether this user may enter every directory on the way to `path`, `path` included if it is a directory, or read
    /// and execute it if it is a file. What does not exist yet is judged by what does. `Err` names what is in the way.
    pub(crate) fn reaches(&self, path: &Path) -> Result<(), PathBuf> {
        let mut resolved = path.to_owned();
        // A link counts for where it leads; what is still to be created hangs below something that can be resolved.
        let mut missing = PathBuf::new();
        let full = loop {
            match fs::canonicalize(&resolved) {
                Ok(full) => break full,
                Err(_) => {
                    let name = resolved.file_name().map(OsStr::to_owned).unwrap_or_default();
                    missing = Path::new(&name).join(&missing);
                    if !resolved.pop() || resolved.as_os_str().is_empty() {
                        match std::env::current_dir() {
                            Ok(here) => break here,
                            Err(_) => return Err(missing),
                        }
                    }
                }
            }
        };
        for part in full.ancestors() {
            let Ok(metadata) = fs::metadata(part) else {
                return Err(part.to_owned());
            };
            let needed = if metadata.is_dir() { 0o1 } else { 0o5 };
            if !self.may(&metadata, needed) {
                return Err(part.to_owned());
            }
        }
        Ok(())
    }

    fn may(&self, metadata: &fs::Metadata, needed: u32) -> bool {
        let mode = metadata.permissions().mode();
        // Supplementary groups are dropped with the privileges, so only these three count.
        let bits = if metadata.uid() == self.uid {
            mode >> 6
        } else if metadata.gid() == self.gid {
            mode >> 3
        } else {
            mode
        };
        bits & needed == needed
    }

    /// Makes everything below `path` this user's, unless it is already.
    pub(crate) fn own(&self, path: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        if metadata.file_type().is_symlink() {
            return Ok(());
        }
        if metadata.uid() != self.uid || metadata.gid() != self.gid {
            chown(path, Some(self.uid), Some(self.gid))?;
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(path)? {
                self.own(&entry?.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger() -> Account {
        Account {
            name: "stranger".to_owned(),
            uid: 61_234,
            gid: 61_234,
        }
    }

    #[test]
    fn a_closed_directory_on_the_way_is_named() {
        let dir = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let closed = dir.path().join("closed");
        let inner = closed.join("inner");
        fs::create_dir_all(&inner).unwrap();
        let table = [(0o700, false), (0o711, true), (0o755, true), (0o750, false)];
        for (mode, reached) in table {
            fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
            let expected = if reached {
                Ok(())
            } else {
                Err(closed.canonicalize().unwrap())
            };
            assert_eq!(stranger().reaches(&inner), expected, "{mode:o}");
            assert_eq!(
                stranger().reaches(&inner.join("not/there/yet")),
                expected,
                "{mode:o}, to be created"
            );
        }
    }

    #[test]
    fn a_file_must_be_executable_by_others() {
        let dir = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let file = dir.path().join("server");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o744)).unwrap();
        assert!(stranger().reaches(&file).is_err());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(stranger().reaches(&file), Ok(()));
    }
}
