//! The DNS that `fairlead up` brings along, and what is left of it when it no longer does.

use std::time::Duration;

use anyhow::Result;
use testbed::platform::{Api, Platform, Role};
use testbed::{Node, wait_for};

use crate::stage::fairlead;

const SERVICE: &str = "/api/v1/namespaces/kube-system/services/kube-dns";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-host";

#[test]
fn its_service_goes_with_it() -> Result<()> {
    let node = Node::create()?;
    let mut platform = Platform::start(&node, &fairlead()?, Role::Up)?;
    let api = Api::connect(&node, &platform)?;
    let patience = Duration::from_secs(20);
    let there = |path: &str| api.get(path).is_ok();
    wait_for("the endpoints of the DNS", patience, || {
        (there(SERVICE) && there(SLICE)).then_some(())
    })?;
    platform.kill()?;
    platform.set_flags(&["--no-cluster-dns"]);
    platform.restart()?;
    wait_for("nothing to lead to a DNS that is gone", patience, || {
        (!there(SERVICE) && !there(SLICE)).then_some(())
    })?;
    platform.kill()?;
    platform.set_flags(&[]);
    platform.restart()?;
    wait_for("the endpoints of the DNS again", patience, || {
        (there(SERVICE) && there(SLICE)).then_some(())
    })?;
    // The endpoints belong to the Service.
    api.delete(SERVICE)?;
    wait_for("endpoints without a Service to go", patience, || {
        (!there(SLICE)).then_some(())
    })
}
