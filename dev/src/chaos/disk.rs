//! A small file system in memory, which can be filled. Only root may mount one.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// What fills it.
const FILLER: &str = "filler";

/// Whether one can be had.
pub fn can_mount() -> bool {
    rustix::process::geteuid().is_root()
}

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one of so many bytes at a directory, which is made.
    pub fn mount(directory: &Path, bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(directory);
        ensure!(mount.status().context("mount")?.success(), "cannot mount a file system at {}", directory.display());
        Ok(Self(directory.to_path_buf()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still uses it goes with the fleet.
        _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Takes all the room that is left around a directory.
pub fn fill(directory: &Path) -> Result<()> {
    let mut filler = File::create(directory.join(FILLER))?;
    for size in [64 * 1024, 1] {
        let block = vec![0; size];
        loop {
            match filler.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Gives the room back.
pub fn clear(directory: &Path) -> Result<()> {
    Ok(std::fs::remove_file(directory.join(FILLER))?)
}
