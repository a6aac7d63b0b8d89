//! Network namespaces as nodes, pods and outside clients, real servers in them, and load on them: what the
//! privileged tests, the demo and the benches are built from.
//!
//! A [`Node`] is a namespace with a device that stands for its network card, an outside client behind that
//! device, a cgroup below the cgroup2 mount and a BPF file system of its own. Whatever it makes carries a
//! name of this process and is gone when the value is dropped; what a killed process left is swept by the
//! next one. No namespace has a route out of the machine, and the machine's own devices are never touched.
//!
//! Only [`platform`] and the binaries `demo` and `bench` know of Kubernetes; everything else is about packets.
#![forbid(unsafe_code)]

pub mod agent;
pub mod balancer;
pub mod bpffs;
pub mod cgroup;
pub mod histogram;
pub mod http;
pub mod load;
pub mod netns;
pub mod packet;
pub mod platform;
pub mod probe;
pub mod process;
pub mod topology;
pub mod udp;
pub mod wait;

pub use histogram::Histogram;
pub use load::{Load, Mode, Report};
pub use netns::Netns;
pub use process::{Place, Process};
pub use topology::{Node, Outside, Pod};
pub use wait::wait_for;
