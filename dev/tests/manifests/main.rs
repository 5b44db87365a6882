//! The manifests in `k8s/` say what the programs, `permissions/` and docs/operations.md say. Each check is shown to fail by a
//! mistake that is made on purpose.

mod checks;
mod facts;
mod mistakes;
mod objects;
mod rehearsal;
mod yaml;

use anyhow::Result;
use checks::Checks;
use facts::Facts;
use objects::Objects;

#[test]
fn manifests_say_what_programs_permissions_and_documents_say() -> Result<()> {
    let facts = Facts::gather()?;
    let mut faults = Vec::new();
    for build in chat_dev::manifests::build()? {
        let (objects, secrets) = (Objects::parse(&build.text)?, Objects::parse(&build.secrets)?);
        let checks = Checks { objects: &objects, secrets: &secrets, facts: &facts, is_overlay: build.is_overlay };
        faults.extend(checks.faults().into_iter().map(|fault| format!("{}: {fault}", build.name)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
