//! This node's BPF programs in front of the DNS server: the table of names as the server's crate wants it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use abi::{DnsAnswer, DnsControl, DnsName};
use bpf::DnsTable;
use dns_server::kernel::{Failure, Kernel, Opener, Settings, Table};
use dns_server::transport::Server;

use crate::cli::NodeDnsFlags;

/// Has the programs work for a server, if that was asked for. Call it inside the runtime.
pub(crate) fn start(
    flags: &NodeDnsFlags,
    bpffs_root: &Path,
    server: &Server,
    addresses: Vec<IpAddr>,
) -> Option<Arc<Kernel>> {
    if !flags.kernel_answers && !flags.node_local_dns {
        return None;
    }
    let settings = Settings {
        answers: flags.kernel_answers,
        local: flags.node_local_dns,
        service: flags.dns_service.clone(),
        addresses: match flags.dns_node_addresses.as_slice() {
            [] => addresses,
            given => given.to_vec(),
        },
    };
    let root = bpffs_root.to_owned();
    let open: Opener = Box::new(move || {
        let table = DnsTable::open(&root)?;
        Ok(Box::new(Pinned(table)))
    });
    let kernel = Kernel::new(settings, open, server.reloader(), server.addresses());
    tokio::spawn(Arc::clone(&kernel).run());
    Some(kernel)
}

struct Pinned(DnsTable);

impl Table for Pinned {
    fn entries(&self) -> Result<Vec<(DnsName, DnsAnswer)>, Failure> {
        Ok(self.0.entries()?)
    }

    fn write(
        &mut self,
        remove: &[DnsName],
        put: &[(DnsName, DnsAnswer)],
    ) -> Result<Vec<usize>, Failure> {
        Ok(self.0.write(remove, put)?)
    }

    fn set_control(&mut self, control: &DnsControl) -> Result<(), Failure> {
        Ok(self.0.set_control(control)?)
    }

    fn now_secs(&self) -> u32 {
        bpf::now_secs()
    }

    fn answered(&self) -> Result<u64, Failure> {
        Ok(self.0.answered()?)
    }

    fn is_current(&self) -> bool {
        self.0.is_current()
    }
}
