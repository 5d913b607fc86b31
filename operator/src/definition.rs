//! `weft-operator apply-crds`: brings the CRD of MeshConfig to this version. Helm runs it before anything else of a release is
//! installed or upgraded; Helm itself installs a CRD once and never renews it.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::time::Instant;
use weft_crds::{CRD_NAME, VERSION_ANNOTATION};

use crate::apply::FIELD_MANAGER;

/// How often it is looked whether a version is served.
const EVERY: Duration = Duration::from_millis(200);

/// Why the CRD is not of this version.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The API server refused.
    #[error("CustomResourceDefinition meshconfigs.weft.mesh: {0}")]
    Api(#[from] kube::Error),
    /// It was written, and is not in force.
    #[error(
        "CustomResourceDefinition meshconfigs.weft.mesh: {0} is not served yet: `kubectl describe crd meshconfigs.weft.mesh` says what it waits for"
    )]
    NotServed(String),
}

/// Writes it, and waits up to `patience` until all of its versions are served.
pub async fn apply(client: Client, patience: Duration) -> Result<(), DefinitionError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let (there, ours) = (api.get_opt(CRD_NAME).await?, weft_crds::crd());
    if let Some(newer) = there.as_ref().and_then(newer) {
        tracing::info!(
            name = CRD_NAME,
            version = newer,
            "the CRD belongs to a newer version of Weft and stays as it is"
        );
        return Ok(());
    }
    // By force: the fields were Helm's, or of whoever applied it by hand.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch(CRD_NAME, &params, &Patch::Apply(&ours)).await?;
    let changed = there.is_none_or(|there| there.metadata.generation != written.metadata.generation);
    tracing::info!(
        name = CRD_NAME,
        changed,
        version = env!("CARGO_PKG_VERSION"),
        "the CRD is of this version"
    );
    let deadline = Instant::now() + patience;
    for version in ours.spec.versions.iter().filter(|version| version.served) {
        let version = format!("{}/{}", ours.spec.group, version.name);
        while !is_served(&client, &version).await {
            if Instant::now() >= deadline {
                return Err(DefinitionError::NotServed(version));
            }
            tokio::time::sleep(EVERY).await;
        }
    }
    Ok(())
}

/// What cannot be asked yet is not served yet.
async fn is_served(client: &Client, version: &str) -> bool {
    let resources = client.list_api_group_resources(version).await;
    resources.is_ok_and(|list| list.resources.iter().any(|one| one.name == "meshconfigs"))
}

/// The version of Weft that `there` belongs to, if it is newer than this one.
fn newer(there: &CustomResourceDefinition) -> Option<&str> {
    let version = there.metadata.annotations.as_ref()?.get(VERSION_ANNOTATION)?;
    (numbers(version)? > numbers(env!("CARGO_PKG_VERSION"))?).then_some(version.as_str())
}

/// Of `1.2.3`, and of `1.2.3-rc.1` the same: what comes before a release does not differ from it in its CRDs.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let core = version.split(['-', '+']).next()?;
    let numbers: Option<Vec<_>> = core.split('.').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_crd_of_a_newer_version_stays() {
        let of = |version: Option<&str>| {
            let mut crd = weft_crds::crd();
            crd.metadata.annotations =
                version.map(|version| [(VERSION_ANNOTATION.to_owned(), version.to_owned())].into());
            newer(&crd).map(str::to_owned)
        };
        for older in [None, Some("0.0.9"), Some(env!("CARGO_PKG_VERSION")), Some("of my own"), Some("0.1")] {
            assert_eq!(of(older), None, "{older:?}");
        }
        for newer in ["99.0.0", "99.0.0-rc.1"] {
            assert_eq!(of(Some(newer)).as_deref(), Some(newer));
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.12"));
        assert_eq!(numbers("1.2.3+build"), Some([1, 2, 3]));
        assert_eq!(numbers("1.2"), None);
    }
}
