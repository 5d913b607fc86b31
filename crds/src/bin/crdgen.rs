//! Prints the CRDs as YAML; `.ci/generate` writes them into the chart.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let yaml = match weft_crds::crd_yaml() {
        Ok(yaml) => yaml,
        Err(error) => {
            eprintln!("crdgen: the CRD cannot be written as YAML: {error}");
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
