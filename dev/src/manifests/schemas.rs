//! The schemas of Kubernetes, by the Python package kubernetes-validate.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest;

use super::Build;
use crate::{
    paths,
    servers::{account::Account, wheels},
    terminal,
};

/// The package and what it needs, with the digests of all their files.
const REQUIREMENTS: &str = include_str!("requirements.txt");
const SCRIPT: &str = include_str!("validate.py");
/// Characters of a digest that tell one set of requirements from another.
const DIGEST_LENGTH: usize = 12;

/// Compares objects with their schemas; says how many, and of which versions.
pub fn check(builds: &[Build]) -> Result<String> {
    let packages = packages().context("the manifests in k8s/ were NOT compared with schemas of Kubernetes")?;
    let work = paths::scratch("manifests")?;
    let script = work.path().join("validate.py");
    fs::write(&script, SCRIPT)?;
    let mut command = Command::new("python3");
    command.current_dir(work.path()).env("PYTHONPATH", packages).arg(script);
    let secrets = builds.iter().map(|build| (format!("secrets of {}", build.name), &build.secrets));
    for (name, text) in builds.iter().map(|build| (build.name.clone(), &build.text)).chain(secrets) {
        let file = name.replace('/', "-");
        fs::write(work.path().join(&file), text)?;
        command.arg(file);
    }
    let output = command.output().context("python3 is missing")?;
    let (found, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "objects don't keep to their schemas:\n{found}{error}");
    Ok(found.trim().to_owned())
}

/// The directory of the packages; installs them if need be.
fn packages() -> Result<PathBuf> {
    let cache = paths::cache_dir(Account::unprivileged()?.as_ref())?;
    // One of the packages is compiled for one version of Python.
    let python = run(Command::new("python3").args(["-c", "import sys; print(sys.implementation.cache_tag)"]))?;
    let digest = wheels::hex(digest::digest(&digest::SHA256, REQUIREMENTS.as_bytes()).as_ref());
    let home = cache.join(format!("kubernetes-validate-{}-{}", &digest[..DIGEST_LENGTH], python.trim()));
    let lock = File::create(cache.join("kubernetes-validate.lock"))?;
    lock.lock()?;
    if !home.is_dir() {
        install(&cache, &home)?;
    }
    Ok(home)
}

/// Installs beside the final place and renames, so that a directory which is there is always complete.
fn install(cache: &Path, home: &Path) -> Result<()> {
    terminal::progress("fetching kubernetes-validate with pip");
    let work = tempfile::Builder::new().prefix(".install-").tempdir_in(cache)?;
    let (requirements, target) = (work.path().join("requirements.txt"), work.path().join("packages"));
    fs::write(&requirements, REQUIREMENTS)?;
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes", "--requirement"])
        .arg(&requirements)
        .arg("--target")
        .arg(&target))
    .context("pip could not install kubernetes-validate; on Debian pip is in python3-pip")?;
    fs::rename(&target, home).with_context(|| format!("cannot install {}", home.display()))
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().context("python3 is missing")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let build =
            Build { name: "overlays/test".to_owned(), is_overlay: true, text: text.to_owned(), secrets: String::new() };
        check(&[build]).map_or_else(|error| format!("{error:#}"), |found| format!("nothing: {found}"))
    }

    #[test]
    fn misspelt_fields_wrong_types_and_unknown_kinds_are_refused() {
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: chat}\nspec: {ports: [{port: 80}]}\n";
        assert!(fault(service).starts_with("nothing: 1 objects, Kubernetes 1.30, "), "{}", fault(service));
        for (right, wrong, reported) in [
            ("{ports:", "{prots:", "overlays-test: Service chat, Kubernetes 1.30: spec: Additional properties"),
            ("port: 80", "port: http", "spec.ports.0.port: 'http' is not of type 'integer'"),
            ("kind: Service", "kind: Servise", "there is no v1 Servise"),
        ] {
            let found = fault(&service.replace(right, wrong));
            assert!(found.contains(reported), "{found}");
        }
    }
}
