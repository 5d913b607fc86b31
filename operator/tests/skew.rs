//! `spec.proxy.image` may name a proxy of the version before: whatever the operator tells it on its command line it must know.
//! `config/tests/skew/README.md` says where the list comes from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use weft_crds::{MeshConfig, MeshConfigSpec};
use weft_operator::reconcile::daemonset;

#[test]
fn a_proxy_of_the_version_before_knows_every_flag_it_is_given() {
    let known: Vec<_> = include_str!("skew/proxy-flags.txt").lines().collect();
    let mesh = MeshConfig::new("weft", MeshConfigSpec::default());
    let template = daemonset::template(&mesh, "weft-system", "weft-proxy:1");
    let args = template["spec"]["containers"][0]["args"].as_array().unwrap().clone();
    assert!(args.len() > 3, "{args:?}");
    for arg in args {
        let flag = arg.as_str().unwrap().split('=').next().unwrap().to_owned();
        assert!(
            known.contains(&flag.as_str()),
            "{flag} would keep a proxy of the version before from starting: give it a default in the proxy, and pass it only \
             when it is asked for"
        );
    }
}
