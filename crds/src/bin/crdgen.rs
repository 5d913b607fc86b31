//! Prints what the argument names: CRDs as YAML (`meshconfig` or `smi`) or the reference of a MeshConfig's fields (`reference`);
//! `.ci/generate` writes them into the chart and the docs.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let text = match std::env::args().nth(1).as_deref() {
        Some("meshconfig") => weft_crds::crd_yaml().map_err(|error| error.to_string()),
        Some("smi") => weft_crds::smi::crds_yaml().map_err(|error| error.to_string()),
        Some("reference") => weft_crds::reference::markdown().map_err(|error| error.to_string()),
        _ => {
            eprintln!("crdgen: say which: meshconfig, smi or reference");
            return ExitCode::FAILURE;
        }
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            eprintln!("crdgen: it cannot be written: {error}");
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}
