//! Prints the CRDs as YAML, for `charts/weft/crds/`.

use kube::CustomResourceExt;
use weft_crds::MeshConfig;

fn main() -> Result<(), serde_yaml_ng::Error> {
    println!("# Generated from crds/src by `make generate`. Do not edit.");
    print!("{}", serde_yaml_ng::to_string(&MeshConfig::crd())?);
    Ok(())
}
