//! The user that Postgres runs as when we are root, since it refuses root.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::wheels::hex;

/// An unprivileged user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its login name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

impl Account {
    /// `postgres` if it exists, else `nobody`; `None` when we are not root and
    /// everything simply runs as ourselves.
    pub fn unprivileged() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| find(&users, name))
            .map(Some)
            .context("Postgres refuses to run as root, and there is no user postgres or nobody")
    }

    /// Whether every existing directory on the way to `path` lets this user pass.
    pub fn can_reach(&self, path: &Path) -> bool {
        let existing = path.ancestors().find_map(|part| part.canonicalize().ok());
        existing.is_some_and(|existing| {
            existing.ancestors().all(|directory| {
                directory.metadata().is_ok_and(|metadata| {
                    let mode = metadata.permissions().mode();
                    let bit = if metadata.uid() == self.uid {
                        0o100
                    } else if metadata.gid() == self.gid {
                        0o010
                    } else {
                        0o001
                    };
                    mode & bit != 0
                })
            })
        })
    }

    /// Makes the user the owner of `path` (not of what is in it).
    pub fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to {}", path.display(), self.name))
    }
}

/// Where data that belongs in `wanted` can really be: there, or if the account
/// cannot reach it, at a fixed place of the system that stands for it.
pub fn reachable(wanted: &Path, account: Option<&Account>) -> PathBuf {
    match account {
        Some(account) if !account.can_reach(wanted) => {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, wanted.as_os_str().as_encoded_bytes());
            Path::new("/var/lib/chat-dev").join(hex(&digest.as_ref()[..8]))
        }
        _ => wanted.to_path_buf(),
    }
}

fn find(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_it = fields.first() == Some(&name);
        is_it.then_some(())?;
        Some(Account { name: name.to_owned(), uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_user_by_its_whole_name() {
        let users = "root:x:0:0::/root:/bin/sh\nnobody2:x:7:7::/:/bin/sh\nnobody:x:65534:65533::/:/bin/sh\n";
        let account = find(users, "nobody").unwrap();
        assert_eq!((account.uid, account.gid), (65534, 65533));
        assert_eq!(find(users, "postgres"), None);
    }

    #[test]
    fn a_private_directory_on_the_way_is_noticed() {
        let stranger = Account { name: "stranger".into(), uid: 4_000_000, gid: 4_000_000 };
        let only_me = std::fs::Permissions::from_mode(0o700);
        let closed = tempfile::Builder::new().permissions(only_me).tempdir().unwrap();
        let below = closed.path().join("not/there/yet");
        assert!(!stranger.can_reach(&below), "it is open to its owner only");
        let open = crate::paths::scratch("account").unwrap();
        assert_eq!(stranger.can_reach(open.path()), stranger.can_reach(&std::env::temp_dir()));
        assert_ne!(reachable(&below, Some(&stranger)), below);
        assert_eq!(reachable(&below, None), below);
    }
}
