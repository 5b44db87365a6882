//! Calls of cargo in this checkout, and the executables that a build leaves.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::paths;

/// Arguments that build every program of the workspace.
///
/// Each build of this tool selects the workspace as a whole: with another selection cargo may give a shared dependency
/// other features, and compile it and everything above it again.
pub const ALL_PROGRAMS: [&str; 3] = ["build", "--workspace", "--bins"];

/// Arguments that build every program and every test executable of the workspace.
pub const ALL_TARGETS: [&str; 3] = ["build", "--workspace", "--all-targets"];

/// Cargo at the root of the checkout. SQL is checked against `.sqlx/`.
///
/// # Errors
/// If the checkout is not found.
pub fn command() -> Result<Command> {
    let mut command = Command::new(paths::environment("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace_root()?).env("SQLX_OFFLINE", "true");
    for name in variables_of_package() {
        command.env_remove(name);
    }
    Ok(command)
}

/// Variables that `cargo run` set for this program. Build scripts that read them would run again each time, and in
/// another package's test they are wrong.
pub fn variables_of_package() -> impl Iterator<Item = std::ffi::OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| {
        name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "LD_LIBRARY_PATH")
        })
    })
}

/// An executable that a build left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// The package that it belongs to.
    pub package: String,
    /// The directory of that package.
    pub directory: PathBuf,
    /// Its target: the name of a program, a library or a file of tests.
    pub target: String,
    /// The file that can be run.
    pub file: PathBuf,
    /// Whether it runs tests.
    pub is_test: bool,
}

/// What a build left.
#[derive(Debug, Default)]
pub struct Artifacts {
    /// Programs and test executables, without those of dependencies.
    pub executables: Vec<Executable>,
    /// Packages of this workspace whose libraries may have tests in their documents.
    pub documented: BTreeSet<String>,
}

/// One line of `--message-format=json`, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Message {
    package_id: String,
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    doctest: bool,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Builds. Cargo's progress and the compiler's messages go to standard error.
///
/// # Errors
/// If something does not compile.
pub fn build<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Artifacts> {
    let mut command = command()?;
    command.args(arguments).arg("--message-format=json-render-diagnostics");
    let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the workspace does not build");
    Ok(artifacts(&String::from_utf8_lossy(&output.stdout), &paths::workspace_root()?))
}

fn artifacts(messages: &str, root: &Path) -> Artifacts {
    let mut artifacts = Artifacts::default();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    for message in messages.filter(|message| message.manifest_path.starts_with(root)) {
        let Some(directory) = message.manifest_path.parent() else { continue };
        let package = package_name(&message.package_id, directory);
        if message.target.doctest {
            artifacts.documented.insert(package.clone());
        }
        if let Some(file) = message.executable {
            artifacts.executables.push(Executable {
                package,
                directory: directory.to_path_buf(),
                target: message.target.name,
                file,
                is_test: message.profile.test,
            });
        }
    }
    artifacts
}

/// Of `path+file:///checkout/client#chat-client@0.1.0`, or `path+file:///checkout/chat-client#0.1.0` where the
/// directory has the name of the package.
fn package_name(id: &str, directory: &Path) -> String {
    let named = id.rsplit_once('#').and_then(|(_, name)| name.split_once('@'));
    let of_directory = || directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    named.map_or_else(of_directory, |(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::{artifacts, command};

    fn message(package: &str, target: &str, doctest: bool, test: bool, executable: &str) -> String {
        let name = package.rsplit('/').next().unwrap();
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file://{package}#chat-{name}@0.1.0","manifest_path":"{package}/Cargo.toml","target":{{"kind":["bin"],"name":"{target}","doctest":{doctest},"test":true}},"profile":{{"opt_level":"0","test":{test}}},"features":[],"executable":{executable},"fresh":true}}"#
        )
    }

    #[test]
    fn programs_and_tests_of_a_build() {
        let lines = [
            message("/registry/tokio", "tokio", true, false, "null"),
            r#"{"reason":"build-script-executed","package_id":"path+file:///checkout/gateway#chat-gateway@0.1.0"}"#
                .to_owned(),
            message("/checkout/client", "chat_client", true, false, "null"),
            message("/checkout/gateway", "chat-gateway", false, false, r#""/target/chat-gateway""#),
            message("/checkout/gateway", "chat-gateway", false, true, r#""/target/deps/chat_gateway-1""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let artifacts = artifacts(&lines.join("\n"), Path::new("/checkout"));
        let found: Vec<_> = artifacts
            .executables
            .iter()
            .map(|it| (it.package.as_str(), it.target.as_str(), it.file.to_str().unwrap(), it.is_test))
            .collect();
        assert_eq!(
            found,
            [
                ("chat-gateway", "chat-gateway", "/target/chat-gateway", false),
                ("chat-gateway", "chat-gateway", "/target/deps/chat_gateway-1", true),
            ]
        );
        assert_eq!(artifacts.executables[0].directory, Path::new("/checkout/gateway"));
        assert_eq!(artifacts.documented.into_iter().collect::<Vec<_>>(), ["chat-client"], "not the registry's");
    }

    /// Every package of a selection with its features.
    fn features(selection: &[&str]) -> BTreeSet<(String, String)> {
        let mut tree = command().unwrap();
        tree.args(["tree", "--offline", "--no-dedupe", "--prefix", "none", "--format", "{p}|{f}"]).args(selection);
        let output = tree.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let line = |line: &str| {
            let (package, features) = line.split_once('|').unwrap();
            (package.to_owned(), features.trim_end_matches(" (*)").to_owned())
        };
        lines.lines().filter(|line| !line.is_empty()).map(line).collect()
    }

    #[test]
    fn alias_and_workspace_select_same_features() {
        let alias = features(&["--package", "chat-dev", "--edges", "normal,build"]);
        let mut workspace = features(&["--workspace", "--edges", "normal,build,dev"]);
        let packages: BTreeSet<_> = alias.iter().map(|(package, _)| package).collect();
        workspace.retain(|(package, _)| packages.contains(package));
        let differing: Vec<_> = alias.symmetric_difference(&workspace).collect();
        assert!(
            differing.is_empty(),
            "these are compiled twice; give chat-dev the dependency that adds the features: {differing:#?}"
        );
    }
}
