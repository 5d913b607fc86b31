//! Prints CRDs as YAML, those named by the argument: `meshconfig` or `smi`; `.ci/generate` writes them into the chart.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let yaml = match std::env::args().nth(1).as_deref() {
        Some("meshconfig") => weft_crds::crd_yaml(),
        Some("smi") => weft_crds::smi::crds_yaml(),
        _ => {
            eprintln!("crdgen: say which: meshconfig or smi");
            return ExitCode::FAILURE;
        }
    };
    let yaml = match yaml {
        Ok(yaml) => yaml,
        Err(error) => {
            eprintln!("crdgen: the CRDs cannot be written as YAML: {error}");
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().write_all(yaml.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}
